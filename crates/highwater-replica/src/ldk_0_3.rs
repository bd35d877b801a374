//! Under LDK as it will be: the store traits of `lightning` 0.3, of which there are release candidates, among them
//! that of pages. Keys, and how they are replicated, are those of 0.2: a node moves on with the store that it has.
//!
//! # Pages
//!
//! `list_paginated` gives [`PAGE`] keys at a time, newest first: in the order in which they came to be seen here,
//! however often they were written since. Each page is one instant of the store. Going from page to page, whatever
//! is written meanwhile:
//!
//! - a key that is there all the while is given exactly once;
//! - no key is given twice;
//! - a key that is made meanwhile is newer than all of the pages that follow, and not on them;
//! - a key that is deleted before its page is not given, even if it is made again: then it is a new one.
//!
//! A token stays good over restarts, and when its key is deleted. One that is none of this namespace, or none at
//! all, is an error, and so is one of before the store came back from the server.
//!
//! The order is kept by starts with these [`classes`]. The server is told nothing of it: in a store that came back
//! from there, keys have the order in which they were last written, from then on for good. Keys that a start of
//! another kind has made, such as one under `lightning` 0.2, get their places at the next start with these classes:
//! among themselves by their names, as newer than all that had one.

use highwater::{Error, Kind, Result};
use lightning_0_3::util::persist::{
    MigratableKVStore, MigratableKVStoreSync, PageToken, PaginatedKVStore, PaginatedKVStoreSync,
    PaginatedListResponse,
};

use super::class::Classes;
use super::ldk_names::{self, store_traits};
pub use super::ldk_names::{Persistence, key};
use super::store::ReplicatedStore;

store_traits!(lightning_0_3);

/// Keys of one page.
pub const PAGE: usize = 50;
/// Hex digits of the number of a key, and of what a token is recognised by.
const DIGITS: usize = 16;

/// How LDK's keys are replicated, as under [0.2](super::ldk), with their order: for
/// [`ReplicaBuilder::classes`](super::ReplicaBuilder::classes).
pub fn classes(persistence: Persistence) -> Classes {
    ldk_names::classes(persistence).in_order()
}

impl ReplicatedStore {
    fn page_of(
        &self,
        primary: &str,
        secondary: &str,
        token: Option<PageToken>,
    ) -> Result<PaginatedListResponse> {
        let group = ldk_names::prefix(primary, secondary)?;
        let order = self.which_order()?;
        let after = token.map(|token| read_token(&order, &group, token.as_str())).transpose()?;
        let after = after.as_ref().map(|(number, key)| (*number, key.as_slice()));
        let mut keys = self.newest(&group, after, PAGE + 1)?;
        let more = keys.len() > PAGE;
        keys.truncate(PAGE);
        let last = keys.last().filter(|_| more);
        Ok(PaginatedListResponse {
            next_page_token: last.map(|(number, key)| token_of(&order, &group, *number, key)),
            keys: keys
                .iter()
                .map(|(_, key)| ldk_names::name(key, &group))
                .collect::<Result<_>>()?,
        })
    }
}

/// The place of a key: its number, what says that it is one of this order and namespace, and its name.
fn token_of(order: &[u8], group: &[u8], number: u64, key: &[u8]) -> PageToken {
    let name = String::from_utf8_lossy(&key[group.len()..]).into_owned();
    PageToken::new(format!("{number:016x}{}{name}", check(order, group, number, &name)))
}

fn read_token(order: &[u8], group: &[u8], token: &str) -> Result<(u64, Vec<u8>)> {
    let read = || {
        let (number, rest) = token.split_at_checked(DIGITS)?;
        let (found, name) = rest.split_at_checked(DIGITS)?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let ours = found == check(order, group, number, name);
        ours.then(|| (number, [group, name.as_bytes()].concat()))
    };
    read().ok_or_else(|| {
        Error::input(
            "the page token is none of this namespace, or of before the store was restored",
        )
        .with_entry(String::from_utf8_lossy(group))
        .with_remedy("begin with the first page, without a token")
    })
}

fn check(order: &[u8], group: &[u8], number: u64, name: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [order, group, &number.to_le_bytes(), name.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hex::encode(&hasher.finalize().as_bytes()[..DIGITS / 2])
}

impl PaginatedKVStoreSync for ReplicatedStore {
    fn list_paginated(
        &self,
        primary: &str,
        secondary: &str,
        token: Option<PageToken>,
    ) -> io::Result<PaginatedListResponse> {
        self.page_of(primary, secondary, token).map_err(told)
    }
}

#[allow(refining_impl_trait, reason = "all that LDK waits for here has one type")]
impl PaginatedKVStore for ReplicatedStore {
    fn list_paginated(
        &self,
        primary: &str,
        secondary: &str,
        token: Option<PageToken>,
    ) -> Later<PaginatedListResponse, io::Error> {
        now(self.page_of(primary, secondary, token))
    }
}

impl MigratableKVStoreSync for ReplicatedStore {
    fn list_all_keys(&self) -> io::Result<Vec<(String, String, String)>> {
        self.all_names().map_err(told)
    }
}

#[allow(refining_impl_trait, reason = "all that LDK waits for here has one type")]
impl MigratableKVStore for ReplicatedStore {
    fn list_all_keys(&self) -> Later<Vec<(String, String, String)>, io::Error> {
        now(self.all_names())
    }
}
