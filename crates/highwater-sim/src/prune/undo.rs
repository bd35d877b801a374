//! Who forgets, and who brings a snapshot back.

use super::rules::Rule;
use super::state::{State, bit, has, manifests_of};
use super::steps::Vault;

/// What who brings a snapshot back does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Undoing {
    /// It deletes the tombstone.
    Lift,
    /// It looks for claims.
    SeeClaims,
    /// It puts the tombstone again.
    PutBack,
    /// It sees that the snapshot stands.
    SeeManifest,
}

/// Who brings a snapshot back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Undo {
    /// Which one.
    pub snapshot: usize,
    /// What is next.
    pub next: Undoing,
}

impl Vault {
    /// A tombstone is put.
    pub(super) fn forget(state: &mut State, snapshot: usize) {
        state.promised &= !bit(snapshot);
        state.unwanted |= bit(snapshot);
        state.store.put_tombstone(snapshot);
        for prune in &mut state.prunes {
            prune.judged.ripe_tombstones &= !bit(snapshot);
        }
    }

    /// Who brings a snapshot back goes on.
    pub(super) fn undo(&self, state: &mut State) {
        let Some(undo) = &mut state.undo else { return };
        let snapshot = undo.snapshot;
        let store = &mut state.store;
        match undo.next {
            Undoing::Lift => {
                store.delete_tombstone(snapshot);
                undo.next = match self.rules.has(Rule::UndoLooksForClaims) {
                    true => Undoing::SeeClaims,
                    false => Undoing::SeeManifest,
                };
            }
            Undoing::SeeClaims if has(store.claimed(), snapshot) => undo.next = Undoing::PutBack,
            // It was forgotten again.
            Undoing::SeeClaims if has(store.tombstones, snapshot) => state.undo = None,
            Undoing::SeeClaims => undo.next = Undoing::SeeManifest,
            Undoing::PutBack => {
                state.undo = None;
                Vault::forget(state, snapshot);
            }
            Undoing::SeeManifest => {
                state.undo = None;
                let stands = state.store.manifests & manifests_of(snapshot) != 0;
                let answered = stands || !self.rules.has(Rule::UndoLooksForTheManifest);
                // Else it was forgotten again, after the last look.
                if answered && !has(state.store.tombstones, snapshot) {
                    state.unwanted &= !bit(snapshot);
                    state.promise(snapshot);
                }
            }
        }
    }
}
