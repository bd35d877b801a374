//! A prune: it decides, claims, looks again, decides again, and deletes.

use super::decide::{Decision, Judged, Question, View, decide};
use super::rules::Rule;
use super::state::{CLAIMANTS, Claim, DAYS_MAX, REWRITING, Set, State, WRITERS, bit, each};
use super::steps::Vault;
use super::writer::Writing;

/// What a prune does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pruning {
    /// It decides, by what it sees at one instant.
    #[default]
    Plan,
    /// It reads which tombstones there still are.
    SeeTombstones,
    /// It puts its claim.
    Claim,
    /// It reads the trash.
    SeeTrash,
    /// It lists intents.
    SeeIntents,
    /// It deletes a dead intent.
    Bury,
    /// It lists manifests.
    SeeManifests,
    /// It lists packs, and decides again.
    SeePacks,
    /// It sees that its claim stands.
    SeeClaim,
    /// It deletes an object.
    Delete,
    /// It deletes its claim.
    DropClaim,
    /// It has ended.
    Ended,
    /// It was killed.
    Killed,
}

/// A prune.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pruner {
    /// What it does next.
    pub next: Pruning,
    /// What it has decided.
    pub decision: Decision,
    /// What was old when its claim was put.
    pub judged: Judged,
    /// What it has listed since.
    pub view: View,
    /// Intents that it is to delete.
    pub dead: Set,
    /// A day has passed since it began to put its claim.
    pub late: bool,
}

impl Pruner {
    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.next, Pruning::Plan | Pruning::Ended | Pruning::Killed)
    }

    /// A day passes.
    pub(super) fn age(&mut self) {
        self.late |= self.runs() && self.next != Pruning::SeeTombstones;
    }

    pub(super) fn ends(&mut self, next: Pruning) {
        *self = Pruner { next, ..Pruner::default() };
    }
}

impl Vault {
    /// A prune goes on.
    pub(super) fn prune(&self, state: &mut State, own: usize) {
        let store = &mut state.store;
        let prune = &mut state.prunes[own];
        match prune.next {
            Pruning::Plan => self.plan(state, own),
            Pruning::SeeTombstones => {
                prune.decision.forgotten &= store.tombstones;
                prune.next = Pruning::Claim;
            }
            Pruning::Claim => self.claim(state, own),
            Pruning::SeeTrash => {
                if self.rules.has(Rule::TrashUnderTheClaim) {
                    prune.view.tombstones = store.tombstones;
                    prune.view.claims = store.claims;
                } else {
                    prune.view.claims[own] = store.claims[own];
                }
                prune.next = match self.rules.has(Rule::IntentsBeforeManifests) {
                    true => Pruning::SeeIntents,
                    false => Pruning::SeeManifests,
                };
            }
            Pruning::SeeIntents => self.list_intents(state, own),
            Pruning::Bury => {
                if let Some(slot) = each(prune.dead).next() {
                    store.intents[slot] = None;
                    prune.dead &= !bit(slot);
                }
                self.listed_intents(prune);
            }
            Pruning::SeeManifests => {
                prune.view.manifests = store.manifests;
                prune.next = match self.rules.has(Rule::IntentsBeforeManifests) {
                    true => Pruning::SeePacks,
                    false => Pruning::SeeIntents,
                };
            }
            Pruning::SeePacks => self.decide_again(state, own),
            Pruning::SeeClaim => {
                let late = prune.late && self.rules.has(Rule::PruneHasItsTime);
                let gone = store.claims[own].is_none();
                match (late, gone && self.rules.has(Rule::ClaimMustStand)) {
                    // The claim is left to the next prune.
                    (true, _) => prune.ends(Pruning::Ended),
                    (_, true) => prune.next = Pruning::DropClaim,
                    _ => prune.next = Pruning::Delete,
                }
            }
            Pruning::Delete => self.delete(state, own),
            Pruning::DropClaim => {
                store.claims[own] = None;
                prune.ends(Pruning::Ended);
            }
            Pruning::Ended | Pruning::Killed => {}
        }
    }

    /// What is old now.
    fn judge(&self, state: &State) -> Judged {
        let store = &state.store;
        let grace = if self.rules.has(Rule::GracePeriod) { self.setup.grace } else { 0 };
        let replaced = if self.rules.has(Rule::ReplacedWaits) { grace.max(1) } else { grace };
        let old = |members: Set, days: &[u8], least: u8| {
            each(members).filter(|&place| days[place] >= least).fold(0, |set, it| set | bit(it))
        };
        let dead = (0..WRITERS).filter(|&slot| self.is_dead(state, slot));
        let stale = (0..CLAIMANTS).filter(|&slot| store.claims[slot].is_some_and(|it| it.stale));
        Judged {
            dead: dead.fold(0, |set, slot| set | bit(slot)),
            old_packs: old(store.packs, &store.pack_days, DAYS_MAX),
            ripe_tombstones: old(store.tombstones, &store.tombstone_days, grace),
            ripe_manifests: old(store.manifests, &store.manifest_days, replaced),
            stale: stale.fold(0, |set, slot| set | bit(slot)),
        }
    }

    /// Whether an intent stands for nothing any more. The intent of a rewriting that was killed is known
    /// to who has killed it.
    fn is_dead(&self, state: &State, slot: usize) -> bool {
        let killed = slot == REWRITING && state.writers[slot].next == Writing::Killed;
        state.store.intents[slot].is_some_and(|intent| intent.dead || killed)
    }

    fn plan(&self, state: &mut State, own: usize) {
        let store = &state.store;
        let judged = self.judge(state);
        let mut view = View {
            tombstones: store.tombstones,
            claims: store.claims,
            intents: store.intents,
            manifests: store.manifests,
            packs: store.packs,
        };
        each(judged.dead).for_each(|slot| view.intents[slot] = None);
        let (rules, content) = (self.rules, &store.content);
        let decision = decide(&view, Question { rules, content, judged, claimed: None });
        let prune = &mut state.prunes[own];
        if decision.is_empty() && judged.dead == 0 {
            return;
        }
        let kept = match rules.has(Rule::TrashUnderTheClaim) {
            true => View::default(),
            false => View { tombstones: view.tombstones, claims: view.claims, ..View::default() },
        };
        *prune = Pruner { decision, view: kept, next: Pruning::SeeTombstones, ..Pruner::default() };
    }

    fn claim(&self, state: &mut State, own: usize) {
        let judged = self.judge(state);
        let prune = &mut state.prunes[own];
        let Decision { forgotten, packs, .. } = prune.decision;
        state.store.claims[own] = Some(Claim { snapshots: forgotten, packs, stale: false });
        if self.rules.has(Rule::ClaimBeforeLook) {
            prune.judged = judged;
            // Of the plan the manifests are remembered.
            let manifests = prune.decision.manifests;
            prune.decision = Decision { manifests, ..Decision::default() };
            prune.next = Pruning::SeeTrash;
        } else {
            prune.next = Pruning::SeeClaim;
        }
    }

    fn list_intents(&self, state: &mut State, own: usize) {
        // A rewriting that is killed meanwhile is known as well.
        let killed =
            self.is_dead(state, REWRITING) && state.writers[REWRITING].next == Writing::Killed;
        let prune = &mut state.prunes[own];
        let listed = state.store.intents;
        let there = (0..WRITERS).filter(|&slot| listed[slot].is_some());
        let there = there.fold(0, |set, slot| set | bit(slot));
        let killed = if killed { bit(REWRITING) } else { 0 };
        prune.dead = (prune.judged.dead | killed) & there;
        prune.view.intents = listed;
        each(prune.dead).for_each(|slot| prune.view.intents[slot] = None);
        if !self.rules.has(Rule::DeadIntentsGoFirst) {
            prune.dead = 0;
        }
        self.listed_intents(prune);
    }

    /// Where no dead intent is left, manifests are listed; a rewriting goes first.
    fn listed_intents(&self, prune: &mut Pruner) {
        let rewritten = prune.view.intents[REWRITING].is_some();
        prune.next = match prune.dead {
            0 if rewritten && self.rules.has(Rule::PruneGivesWay) => Pruning::DropClaim,
            0 if self.rules.has(Rule::IntentsBeforeManifests) => Pruning::SeeManifests,
            0 => Pruning::SeePacks,
            _ => Pruning::Bury,
        };
    }

    fn decide_again(&self, state: &mut State, own: usize) {
        let store = &mut state.store;
        let prune = &mut state.prunes[own];
        prune.view.packs = store.packs;
        let claimed = Some((own, prune.decision.manifests));
        let (rules, content, judged) = (self.rules, &store.content, prune.judged);
        let decision = decide(&prune.view, Question { rules, content, judged, claimed });
        let named = prune.view.claims[own].map_or(0, |claim| claim.snapshots);
        // What was brought back is not hidden any longer.
        if named & !decision.forgotten != 0
            && let Some(claim) = &mut store.claims[own]
        {
            claim.snapshots = decision.forgotten & store.tombstones;
            claim.packs = decision.packs;
            claim.stale = false;
        }
        let late = prune.late;
        *prune = Pruner { decision, late, next: Pruning::SeeClaim, ..Pruner::default() };
        self.skip_look(prune);
    }

    /// Deletes one object, in the order of the rules.
    fn delete(&self, state: &mut State, own: usize) {
        let store = &mut state.store;
        let prune = &mut state.prunes[own];
        let it = &mut prune.decision;
        let trash = it.tombstones | it.claims;
        let trash_first = !self.rules.has(Rule::TrashLast) && trash != 0;
        let packs_first = !self.rules.has(Rule::ManifestsBeforePacks) && it.packs != 0;
        let manifest = each(it.manifests).next().filter(|_| !trash_first && !packs_first);
        let pack = each(it.packs).next().filter(|_| !trash_first);
        if let Some(place) = manifest {
            store.delete_manifest(place);
            it.manifests &= !bit(place);
        } else if let Some(place) = pack {
            store.delete_packs(bit(place));
            it.packs &= !bit(place);
        } else if let Some(snapshot) = each(it.tombstones).next() {
            store.delete_tombstone(snapshot);
            it.tombstones &= !bit(snapshot);
        } else if let Some(slot) = each(it.claims).next() {
            store.claims[slot] = None;
            it.claims &= !bit(slot);
        }
        prune.next = Pruning::SeeClaim;
        self.skip_look(prune);
    }

    /// Where nothing is left to delete, the claim goes.
    fn skip_look(&self, prune: &mut Pruner) {
        let Decision { manifests, packs, tombstones, claims, .. } = prune.decision;
        prune.decision.forgotten = 0;
        if manifests | packs | tombstones | claims == 0 {
            *prune = Pruner { next: Pruning::DropClaim, ..Pruner::default() };
        }
    }

    /// Whether a prune is between a look and what it deletes.
    pub(super) fn prune_has_looked(prune: &Pruner) -> bool {
        prune.next == Pruning::Delete
    }
}
