//! How a node's store and a server stand to each other, for an observer while the node may
//! write: neither side stands still meanwhile.

use std::sync::Arc;

use highwater::Result;

use super::book::{Attempt, Book};
use super::head::Placed;
use super::hydrate::find_head;
use super::inspect::{Holder, LocalState, local_state};
use super::keys::ReplicaKeys;
use super::local::LocalStore;
use super::remote::Remote;

/// How a server stands to a node's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It has nothing, and has never acknowledged anything.
    Nothing,
    /// What it has is this store's.
    Ours,
    /// It has nothing, or less than it has acknowledged.
    Lost,
    /// It has what this store did not write: there is another owner, or this store is a copy or an old
    /// state of the owner's.
    Foreign,
}

/// What a node's store remembers, at one instant.
#[derive(Clone, Debug)]
pub struct LocalView {
    /// For people.
    pub state: LocalState,
    head: Option<Placed>,
    attempts: Vec<Attempt>,
}

/// Looks at a node's store. Nothing is written.
///
/// # Errors
/// Denied where it was opened with other keys; what the store says.
pub fn local_view(local: Arc<dyn LocalStore>, keys: &ReplicaKeys) -> Result<LocalView> {
    let state = local_state(Arc::clone(&local), keys)?;
    let book = Book::of(local);
    Ok(LocalView { state, head: book.head()?, attempts: book.attempts()? })
}

/// Asks the server, and compares it with the store as it was `before`, and as `look` finds it afterwards.
/// What was acknowledged before must be on the server, and what is on the server must be known to the
/// store afterwards, since each put is durable here before it is sent.
///
/// # Errors
/// What `look` says; denied where these keys don't open the head; unavailable where the server can't be
/// asked.
pub fn compare(
    before: &LocalView,
    look: &dyn Fn() -> Result<LocalView>,
    remote: &dyn Remote,
    keys: &ReplicaKeys,
) -> Result<(Relation, Option<Holder>)> {
    let found = find_head(remote, keys)?;
    let relation = match &found {
        None if before.head.is_some() => Relation::Lost,
        None => Relation::Nothing,
        Some(found) if before.is_ahead_of(found) => Relation::Lost,
        Some(found) if before.knows(found) || look()?.knows(found) => Relation::Ours,
        Some(_) => Relation::Foreign,
    };
    Ok((relation, found.map(|placed| Holder::of(placed.head))))
}

impl LocalView {
    /// Whether this store, or a put of it on its way, has written that head.
    fn knows(&self, found: &Placed) -> bool {
        let sent = |attempt: &Attempt| {
            attempt.placed.name == found.name && attempt.placed.head.put == found.head.put
        };
        let acknowledged = self.head.as_ref().is_some_and(|known| {
            let (mine, theirs) = (&known.head, &found.head);
            let same = mine.version == theirs.version && mine.put == theirs.put;
            known.name == found.name && (same || mine.version > theirs.version)
        });
        acknowledged || self.attempts.iter().any(sent)
    }

    /// Whether the server has acknowledged more than that head.
    fn is_ahead_of(&self, found: &Placed) -> bool {
        self.head.as_ref().is_some_and(|known| {
            let (mine, theirs) = (&known.head, &found.head);
            (theirs.epoch, theirs.seq) < (mine.epoch, mine.seq)
                || (known.name == found.name && theirs.version < mine.version)
        })
    }
}
