//! How a replica stands, for observers.

use std::sync::Arc;

use highwater::ids::{StoreId, Time};
use highwater::records::ReplicaPoint;
use highwater::{Error, Remedy, Result};
use serde::Serialize;

use super::book::{Book, Way};
use super::head::{Break, Head, HeadState};
use super::hydrate::find_head;
use super::keys::ReplicaKeys;
use super::local::LocalStore;
use super::remote::Remote;

/// Rows of one look.
const ROWS: usize = 512;

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
    /// Where owners were replaced by what the server had of theirs.
    pub breaks: Vec<Break>,
}

/// How what was recorded of a store stands to what the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// They are of one instant.
    Same,
    /// The server has this many more writes.
    Behind(u64),
    /// The store had this many writes that the server does not have.
    Ahead(u64),
}

impl Holder {
    /// How a point of this store stands to what the server has.
    pub fn fit(&self, point: &ReplicaPoint) -> Fit {
        // Numbers alone don't tell: the next owner gives those anew that were lost with the last one.
        let lost = self.breaks.iter().find(|at| at.epoch >= point.epoch && at.seq < point.seq);
        match lost {
            Some(lost) => Fit::Ahead(point.seq - lost.seq),
            None if point.seq > self.seq => Fit::Ahead(point.seq - self.seq),
            None if point.seq < self.seq => Fit::Behind(self.seq - point.seq),
            None => Fit::Same,
        }
    }
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
            breaks: head.breaks,
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
    /// The number of writes that wait.
    pub pending_writes: u64,
    /// The bytes of the writes that wait.
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
    let book = Book::of(local);
    if book.check()?.is_some_and(|check| check != keys.check()) {
        return Err(
            Error::denied("this store was opened with other keys").with_remedy(Remedy::ReplicaKeys)
        );
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
    let book = Book::of(local);
    Ok(book.head()?.is_some() || !book.attempts()?.is_empty())
}

/// Where a node's store stands, for a snapshot: what [`CaptureOptions::points`] asks for. None where it
/// was never replicated, or is half of a restore.
///
/// [`CaptureOptions::points`]: highwater::engine::CaptureOptions::points
///
/// # Errors
/// What the store says.
pub fn point(local: Arc<dyn LocalStore>) -> Result<Option<ReplicaPoint>> {
    let book = Book::of(local);
    // The queue before the head: a put that lands meanwhile moves writes from the one to the other.
    let (mut visible, mut after) = (0, 0);
    loop {
        let rows = book.queued(after, ROWS)?;
        let Some(last) = rows.last() else { break };
        after = last.seq;
        let here = rows.iter().filter(|queued| queued.way == Way::LocalFirst);
        visible = here.map(|queued| queued.seq).max().unwrap_or(visible);
    }
    let (Some(check), Some(placed), false) = (book.check()?, book.head()?, book.is_hydrating()?)
    else {
        return Ok(None);
    };
    let head = placed.head;
    Ok(Some(ReplicaPoint {
        store: StoreId::of_check(&check),
        epoch: head.epoch,
        seq: visible.max(head.seq),
        acknowledged: head.seq,
    }))
}
