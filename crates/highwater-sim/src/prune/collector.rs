//! Who collects what a killed writer has left: the next one on the same machine.

use super::rules::Rule;
use super::setup::Kind;
use super::state::{COLLECTOR, Claim, Set, State, WRITERS, bit, each, manifests_of};
use super::steps::Vault;
use super::writer::Writing;

/// What a collector does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Collecting {
    /// It finds an intent.
    #[default]
    Begin,
    /// It deletes the intent.
    Bury,
    /// It looks for the manifest.
    SeeManifests,
    /// It lists the packs, and claims them.
    Claim,
    /// It looks for the manifest again.
    SeeManifestsAgain,
    /// It sees that its claim stands.
    SeeClaim,
    /// It deletes a pack.
    Delete,
    /// It deletes its claim.
    DropClaim,
    /// It has ended.
    Ended,
}

/// A collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Collector {
    /// What it does next.
    pub next: Collecting,
    /// Whose leftovers.
    pub of: usize,
    /// Packs that go.
    pub packs: Set,
    /// A day has passed since it claimed.
    pub late: bool,
}

impl Vault {
    /// The intents of writers that are dead, for all that a collector knows.
    pub(super) fn leftovers(&self, state: &State) -> Set {
        // Those of a rewriting are left to a prune.
        let left = (0..WRITERS - 1).filter(|&slot| {
            let killed = state.writers[slot].next == Writing::Killed;
            state.store.intents[slot].is_some_and(|intent| intent.dead || killed)
        });
        left.fold(0, |set, slot| set | bit(slot))
    }

    /// A collector begins with an intent that it has read.
    pub(super) fn begin_collecting(&self, state: &mut State, of: usize) {
        let next = match self.rules.has(Rule::CollectorBuriesFirst) {
            true => Collecting::Bury,
            false => Collecting::SeeManifests,
        };
        state.collector = Collector { next, of, packs: 0, late: false };
    }

    /// A collector goes on.
    pub(super) fn collect(&self, state: &mut State) {
        let store = &mut state.store;
        let it = &mut state.collector;
        let rules = self.rules;
        let committed = store.manifests & manifests_of(it.of + 1) != 0;
        let next = match it.next {
            Collecting::Bury => {
                store.intents[it.of] = None;
                Collecting::SeeManifests
            }
            Collecting::SeeManifests if committed => Collecting::DropClaim,
            Collecting::SeeManifests => Collecting::Claim,
            Collecting::Claim => self.claim_leftovers(state),
            Collecting::SeeManifestsAgain => self.look_before_deleting(state),
            Collecting::SeeClaim => {
                let stands = store.claims[COLLECTOR].is_some() && !it.late;
                let looks =
                    rules.has(Rule::CollectorClaims) && rules.has(Rule::CollectorClaimMustStand);
                match stands || !looks {
                    true if it.packs != 0 => Collecting::Delete,
                    _ => Collecting::DropClaim,
                }
            }
            Collecting::Delete => {
                if let Some(pack) = each(it.packs).last() {
                    store.delete_packs(bit(pack));
                    it.packs &= !bit(pack);
                }
                if it.packs == 0 { Collecting::DropClaim } else { Collecting::SeeClaim }
            }
            Collecting::DropClaim => {
                store.claims[COLLECTOR] = None;
                if !rules.has(Rule::CollectorBuriesFirst) {
                    store.intents[it.of] = None;
                }
                Collecting::Ended
            }
            Collecting::Begin | Collecting::Ended => it.next,
        };
        state.collector.next = next;
        if next == Collecting::Ended {
            state.collector = Collector { next, ..Collector::default() };
        }
    }

    /// The packs that follow from the intent; of an import, those that nobody else names.
    fn claim_leftovers(&self, state: &mut State) -> Collecting {
        let import = self.setup.writers[state.collector.of] == Kind::Import;
        let packs = match import {
            true => (bit(0) | bit(state.collector.of + 1)) & !Vault::named(state),
            false => bit(state.collector.of + 1),
        };
        let store = &mut state.store;
        let it = &mut state.collector;
        it.packs = packs & store.packs;
        if it.packs == 0 {
            return Collecting::DropClaim;
        }
        if self.rules.has(Rule::CollectorClaims) {
            let claim = Claim { snapshots: 0, packs: it.packs, stale: false };
            store.claims[COLLECTOR] = Some(claim);
        }
        Collecting::SeeManifestsAgain
    }

    fn look_before_deleting(&self, state: &State) -> Collecting {
        let it = &state.collector;
        let own = state.store.manifests & manifests_of(it.of + 1) != 0;
        let import = self.setup.writers[it.of] == Kind::Import;
        let others = import || self.rules.has(Rule::CollectorSparesOthers);
        let named = others && Vault::named(state) & it.packs != 0;
        let looks = self.rules.has(Rule::CollectorLooksAgain);
        match (own || named) && looks {
            true => Collecting::DropClaim,
            false => Collecting::SeeClaim,
        }
    }

    /// The packs that a manifest, or the intent of an import, names.
    fn named(state: &State) -> Set {
        let store = &state.store;
        let intents = store.intents.iter().flatten().fold(0, |set, intent| set | intent.names);
        each(store.manifests).fold(intents, |set, place| set | store.content[place])
    }

    /// Whether a collector is between a look and what it deletes.
    pub(super) fn collector_has_looked(state: &State) -> bool {
        state.collector.next == Collecting::Delete
    }
}

impl Collector {
    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.next, Collecting::Begin | Collecting::Ended)
    }

    /// A day passes.
    pub(super) fn age(&mut self) {
        use Collecting::{Delete, SeeClaim, SeeManifestsAgain};
        self.late |= matches!(self.next, SeeManifestsAgain | SeeClaim | Delete);
    }
}
