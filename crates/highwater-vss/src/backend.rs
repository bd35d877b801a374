//! What a database does for the service.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use highwater::Error;
use highwater::ids::Time;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::quota::{Quota, Usage, UserStats};

/// A store: what one user keeps under one id. Stores don't see one another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreName {
    /// Who has shown that they are the user; at most 120 characters.
    pub user: String,
    /// The store's id, chosen by the user; at most 120 characters, and may be empty.
    pub id: String,
}

/// Why a backend did not do what it was asked to. Nothing of the request has happened.
#[derive(Debug)]
pub enum Refusal {
    /// The store is not as the request expects it.
    Conflict(String),
    /// The request is one that this store, or this backend, never takes.
    Invalid(String),
    /// The database failed; whether a write has landed is not known where it was to be committed.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Conflict(why) | Refusal::Invalid(why) => f.write_str(why),
            Refusal::Failed(error) => error.fmt(f),
        }
    }
}

/// A value as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its version.
    pub version: i64,
    /// Bytes of it.
    pub bytes: usize,
    /// The value, where it has no more bytes than were asked for.
    pub value: Option<Bytes>,
}

/// A place in a listing: below it, what was created earlier. A backend's own number, above 0.
pub type Place = i64;

/// One page of a listing, the newest-created first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and their versions.
    pub keys: Vec<(String, i64)>,
    /// Where the next page begins; none: this is the last one.
    pub next: Option<Place>,
    /// The version of the key `global_version`, 0 where there is none, at the instant of this page.
    pub global_version: i64,
}

/// What an owner, or the administrator, has chosen for a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Each put must be conditional on, and leave, exactly one key under `head.`; a lone delete is refused.
    pub fence: bool,
    /// What is kept of values that were overwritten or deleted; none: nothing.
    pub history: Option<Keep>,
    /// Rises with each restore of the store to an earlier commit.
    pub generation: u64,
    /// The newest commit; they are counted while history is kept.
    pub commit: u64,
    /// The earliest commit that the store can be restored to.
    pub oldest: u64,
}

/// An old value is kept while either of these says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// This many old values of each key.
    pub versions: u32,
    /// Those that were overwritten at most this many days ago.
    pub days: u32,
}

impl Keep {
    /// How long an old value is kept whatever comes after it.
    pub fn time(self) -> Duration {
        Duration::from_secs(u64::from(self.days) * 24 * 60 * 60)
    }
}

/// A change of a policy; what is none stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether the store is fenced.
    pub fence: Option<bool>,
    /// What is kept. Where history begins or ends, what was kept before goes.
    pub history: Option<Option<Keep>>,
}

/// The whole of a store in one number. Two stores with the same one hold the same keys, versions and
/// values, `global_version` among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Keys.
    pub count: u64,
    /// The sum of all [`tags`](super::plan::tag) modulo 2^256, little-endian.
    pub sum: [u8; 32],
    /// As in [`Policy`].
    pub generation: u64,
    /// As in [`Policy`].
    pub commit: u64,
}

/// One commit in the history of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Commit {
    /// Its number.
    pub commit: u64,
    /// When it was made, by the server's clock.
    pub time: Time,
    /// Values written.
    pub puts: u64,
    /// Keys deleted.
    pub deletes: u64,
    /// The commit that this one has brought back, where it is a restore.
    pub restored: Option<u64>,
}

/// What a restore of a store has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The commit that holds now what the chosen one held.
    pub commit: u64,
    /// The generation that began.
    pub generation: u64,
    /// Values written.
    pub puts: u64,
    /// Keys deleted, since the chosen commit did not have them.
    pub deletes: u64,
}

/// Counts of a whole database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Stores.
    pub stores: u64,
    /// Keys of all of them.
    pub keys: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Old values.
    pub old_values: u64,
    /// Bytes of old values.
    pub old_bytes: u64,
}

/// Counts of one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Whose.
    pub user: String,
    /// Its id.
    pub store: String,
    /// Keys.
    pub keys: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Old values.
    pub old_values: u64,
    /// What holds for it.
    pub policy: Policy,
}

/// What is there of some keys of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Whether the store is there.
    pub is_there: bool,
    /// Whether it keeps history.
    pub keeps: bool,
    /// Bytes of each value, in the order that was asked for; none: no such key.
    pub values: Vec<Option<u64>>,
}

/// The least text that is greater than each one that begins with `prefix`; none where there is no end.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // Steps over the surrogates, which are no characters.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// A sum modulo 2^256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    /// Adds 32 bytes, little-endian.
    pub(crate) fn add(&mut self, tag: &[u8; 32]) {
        let mut carry = false;
        let (words, _) = tag.as_chunks::<8>();
        for (mine, other) in self.0.iter_mut().zip(words) {
            let (sum, over) = mine.overflowing_add(u64::from_le_bytes(*other));
            let (sum, again) = sum.overflowing_add(u64::from(carry));
            (*mine, carry) = (sum, over || again);
        }
    }

    /// Little-endian.
    pub(crate) fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *place = word.to_le_bytes();
        }
        bytes
    }
}

/// A database under the service. Requests have been looked over: names are short enough and hold no NUL,
/// a plan names each key once, its keys ascending.
///
/// What a call reveals is durable: a read sees no write that a loss of power could still undo. A write
/// that returned is durable, and one that was refused has left nothing.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// A value of at most `most` bytes, of a longer one its length; none where the key is missing.
    async fn get(
        &self,
        store: &StoreName,
        key: &str,
        most: usize,
    ) -> Result<Option<Found>, Refusal>;

    /// Reads that it does at once.
    fn reads(&self) -> usize;

    /// Carries out a plan, all of it or nothing.
    async fn put(&self, store: &StoreName, plan: Plan) -> Result<(), Refusal>;

    /// Deletes a key where its version is `version`, or whatever it is for −1; else does nothing. Invalid
    /// in a fenced store.
    async fn delete(&self, store: &StoreName, key: &str, version: i64) -> Result<(), Refusal>;

    /// At most `size` keys that begin with `prefix`, newest-created first, from `below` on; without
    /// `global_version`. A `size` of 0 gives the global version alone.
    async fn list(
        &self,
        store: &StoreName,
        prefix: &str,
        below: Option<Place>,
        size: u32,
    ) -> Result<Page, Refusal>;

    /// What holds for a store; the default for one that is not there.
    async fn policy(&self, store: &StoreName) -> Result<Policy, Refusal>;

    /// Changes what holds for a store, and makes it where it is not there. When this returns, no put that
    /// the new policy forbids lands any more.
    async fn change(&self, store: &StoreName, change: Change) -> Result<Policy, Refusal>;

    /// The digest of one instant.
    async fn digest(&self, store: &StoreName) -> Result<Digest, Refusal>;

    /// At most `size` commits, newest first, from below `below` on.
    async fn commits(
        &self,
        store: &StoreName,
        below: Option<u64>,
        size: u32,
    ) -> Result<Vec<Commit>, Refusal>;

    /// Brings back what a commit held, as a new commit with higher versions. Conflict where that commit
    /// is not kept.
    async fn restore(&self, store: &StoreName, commit: u64) -> Result<Restored, Refusal>;

    /// Deletes old values that no policy keeps; how many.
    async fn prune(&self) -> Result<u64, Refusal>;

    /// What a user may keep: the user's own quota, or else everybody's.
    async fn quota(&self, user: &str) -> Result<Quota, Refusal>;

    /// What everybody may keep who has no own quota.
    async fn everybody(&self) -> Result<Quota, Refusal>;

    /// Sets the quota of a user, or of everybody (none) who has no own one; none at all removes it.
    async fn set_quota(&self, user: Option<&str>, quota: Option<Quota>) -> Result<(), Refusal>;

    /// Counts what a user keeps.
    async fn usage(&self, user: &str) -> Result<Usage, Refusal>;

    /// Bytes of the values of these keys.
    async fn sizes(&self, store: &StoreName, keys: &[String]) -> Result<Sizes, Refusal>;

    /// Counts each user, at most `size` of them in the order of their names.
    async fn users(&self, size: u32) -> Result<Vec<UserStats>, Refusal>;

    /// Counts all.
    async fn stats(&self) -> Result<Stats, Refusal>;

    /// Counts each store, at most `size` of them in the order of their names.
    async fn stores(&self, size: u32) -> Result<Vec<StoreStats>, Refusal>;

    /// Whether it could take a write now.
    async fn ready(&self) -> Result<(), Refusal>;

    /// Waits for what is under way, and closes. Calls after it are refused.
    async fn close(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_least_text_beyond_it() {
        assert_eq!(prefix_end("head.").as_deref(), Some("head/"));
        assert_eq!(prefix_end("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{10ffff}"), None);
        assert_eq!(prefix_end(""), None);
    }

    #[test]
    fn a_sum_carries_and_wraps() {
        let mut sum = Sum::default();
        sum.add(&[0xff; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        sum.add(&one);
        assert_eq!(sum.bytes(), [0; 32]);
        sum.add(&one);
        assert_eq!(sum.bytes(), one);
    }
}
