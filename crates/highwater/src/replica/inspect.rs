//! How a replica stands, for who only looks.

use std::sync::Arc;

use serde::Serialize;

use super::book::Book;
use super::head::{Head, HeadState};
use super::hydrate::find_head;
use super::keys::ReplicaKeys;
use super::local::LocalStore;
use super::remote::Remote;
use crate::error::{Error, Result};
use crate::ids::Time;

/// Who holds a store on a server, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Who, as they call themselves.
    pub owner: String,
    /// Rises with each start of an owner.
    pub epoch: u64,
    /// When that one began.
    pub since: Time,
    /// What the values are.
    pub state: HeadState,
    /// The last write of the owner's that is there.
    pub seq: u64,
    /// Values.
    pub values: u64,
    /// Why it was taken over, where it was.
    pub reason: Option<String>,
}

/// Who holds a store; none where the server has nothing for these keys.
///
/// # Errors
/// Denied where these keys don't open it; unavailable where the server can't be asked.
pub fn holder(remote: &dyn Remote, keys: &ReplicaKeys) -> Result<Option<Holder>> {
    Ok(find_head(remote, keys)?.map(|placed| Holder::of(placed.head)))
}

impl Holder {
    pub(super) fn of(head: Head) -> Holder {
        Holder {
            owner: head.owner,
            epoch: head.epoch,
            since: head.since,
            state: head.state,
            seq: head.seq,
            values: head.sum.count,
            reason: head.reason,
        }
    }
}

/// What a node's store remembers of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LocalState {
    /// The epoch of its last owner; none: it was never replicated.
    pub epoch: Option<u64>,
    /// The last write that the server is known to have.
    pub acknowledged: u64,
    /// The last write of the node.
    pub written: u64,
    /// Writes that wait,
    pub pending_writes: u64,
    /// and their bytes.
    pub pending_bytes: u64,
    /// When the oldest of them was written.
    pub pending_since: Option<Time>,
    /// A hydration has begun and not ended: the values are not all here.
    pub hydrating: bool,
}

/// What a node's store remembers. Nothing is written.
///
/// # Errors
/// Denied where it was opened with other keys; what the store says.
pub fn local_state(local: Arc<dyn LocalStore>, keys: &ReplicaKeys) -> Result<LocalState> {
    let book = Book { local };
    if book.check()?.is_some_and(|check| check != keys.check()) {
        return Err(Error::denied("this store was opened with other keys")
            .hint("is it the right mnemonic, and the right store?"));
    }
    let head = book.head()?.map(|placed| placed.head);
    let (_, pending_writes, pending_bytes) = book.waiting()?;
    Ok(LocalState {
        epoch: head.as_ref().map(|head| head.epoch),
        acknowledged: head.map_or(0, |head| head.seq),
        written: book.last_seq()?,
        pending_writes,
        pending_bytes,
        pending_since: book.queued(0, 1)?.first().map(|queued| queued.at),
        hydrating: book.is_hydrating()?,
    })
}

/// Whether a store remembers anything of a server: what would be lost with it.
///
/// # Errors
/// What the store says.
pub fn remembers(local: Arc<dyn LocalStore>) -> Result<bool> {
    let book = Book { local };
    Ok(book.head()?.is_some() || !book.attempts()?.is_empty())
}
