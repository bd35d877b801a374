//! What may happen next.

use stateright::{Model, Property};

use super::collector::{Collecting, Collector};
use super::properties;
use super::pruner::{Pruner, Pruning};
use super::rules::Rules;
use super::setup::Setup;
use super::state::{CLAIMANTS, Restore, State, Store, WRITERS, each};
use super::undo::{Undo, Undoing};
use super::writer::{Writer, Writing};

/// A vault, and all who use it, by some rules.
#[derive(Clone, Copy, Debug)]
pub struct Vault {
    /// Who is there, and what may happen.
    pub setup: Setup,
    /// What they obey.
    pub rules: Rules,
}

/// One thing that happens. Writers, prunes and snapshots are named by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A writer does what is next.
    Write(usize, Writing),
    /// The manifest of a writer arrives.
    Arrive(usize),
    /// A writer gives up.
    GiveUp(usize),
    /// A writer is answered nothing, and takes that for a failure.
    Unanswered(usize),
    /// A writer is killed.
    KillWriter(usize),
    /// A prune does what is next.
    Prune(usize, Pruning),
    /// A prune is killed.
    KillPrune(usize),
    /// A collector has read the intent of a writer.
    FindLeftovers(usize),
    /// The collector does what is next.
    Collect(Collecting),
    /// The collector is killed.
    KillCollector,
    /// A snapshot is forgotten.
    Forget(usize),
    /// Somebody is to bring a snapshot back, and has seen its tombstone.
    Undelete(usize),
    /// Who brings it back does what is next.
    Undo(Undoing),
    /// Who brings it back is killed.
    KillUndo,
    /// The newest visible snapshot is restored.
    Restore,
    /// A day passes.
    Day,
}

impl Vault {
    fn around_the_writers(&self, state: &State, steps: &mut Vec<Step>) {
        for slot in (0..WRITERS).filter(|&slot| self.has_writer(slot)) {
            let writer = &state.writers[slot];
            if writer.on_the_way.is_some() {
                steps.push(Step::Arrive(slot));
            }
            let waits = writer.next == Writing::Await && writer.on_the_way.is_some();
            if (writer.runs() || writer.next == Writing::Begin) && !waits {
                steps.push(Step::Write(slot, writer.next));
            }
            if writer.next == Writing::Await && self.setup.loses_answers {
                steps.push(Step::Unanswered(slot));
            }
            if writer.may_give_up() && self.setup.gives_up {
                steps.push(Step::GiveUp(slot));
            }
            if writer.runs() && self.setup.kills {
                steps.push(Step::KillWriter(slot));
            }
        }
    }

    fn around_the_prunes(&self, state: &State, steps: &mut Vec<Step>) {
        for (place, prune) in state.prunes.iter().enumerate().take(self.setup.prunes) {
            if prune.runs() || prune.next == Pruning::Plan {
                steps.push(Step::Prune(place, prune.next));
            }
            if prune.runs() && self.setup.kills {
                steps.push(Step::KillPrune(place));
            }
        }
        if state.collector.next == Collecting::Begin && self.setup.collector {
            steps.extend(each(self.leftovers(state)).map(Step::FindLeftovers));
        }
        if state.collector.runs() {
            steps.push(Step::Collect(state.collector.next));
            if self.setup.kills {
                steps.push(Step::KillCollector);
            }
        }
    }

    fn around_the_trash(&self, state: &State, steps: &mut Vec<Step>) {
        let forgets = self.setup.forgets & self.visible(state);
        steps.extend(each(forgets).map(Step::Forget));
        match &state.undo {
            Some(undo) => steps.extend([Step::Undo(undo.next), Step::KillUndo]),
            None if self.setup.undoes => {
                let free = state.store.tombstones & !state.store.claimed();
                steps.extend(each(free).map(Step::Undelete));
            }
            None => {}
        }
    }

    /// Whether a day may pass.
    fn passes(&self, state: &State) -> bool {
        let looked = state.prunes.iter().any(Vault::prune_has_looked)
            || state.writers.iter().any(|writer| writer.next == Writing::TakeBack)
            || Vault::collector_has_looked(state);
        let commits = state.writers.iter().any(Writer::commits);
        state.days < self.setup.days
            && (self.setup.deletes_late || !looked)
            && (self.setup.sleeps_at_commit || !commits)
    }

    /// A day passes.
    pub(super) fn day(&self, state: &mut State) {
        state.days = (state.days + 1).min(self.setup.days);
        state.store.age(self.setup.grace);
        state.writers.iter_mut().for_each(|it| it.late |= it.runs());
        state.prunes.iter_mut().for_each(Pruner::age);
        state.collector.age();
        if let Some(restore) = &mut state.restore {
            restore.days += 1;
        }
        // Beyond two days nothing is promised to a restore.
        state.restore = state.restore.filter(|restore| restore.days < 2);
    }

    /// What a step does.
    pub(super) fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Write(slot, _) => self.write(state, slot),
            Step::Arrive(slot) => Vault::arrive(state, slot),
            Step::GiveUp(slot) => state.writers[slot].next = Writing::GiveUp,
            Step::Unanswered(slot) => self.unanswered(state, slot),
            Step::KillWriter(slot) => state.writers[slot].ends(Writing::Killed),
            Step::Prune(place, _) => self.prune(state, place),
            Step::KillPrune(place) => state.prunes[place].ends(Pruning::Killed),
            Step::FindLeftovers(slot) => self.begin_collecting(state, slot),
            Step::Collect(_) => self.collect(state),
            Step::KillCollector => {
                state.collector = Collector { next: Collecting::Ended, ..Collector::default() };
            }
            Step::Forget(snapshot) => Vault::forget(state, snapshot),
            Step::Undelete(snapshot) => {
                state.undo = Some(Undo { snapshot, next: Undoing::Lift });
            }
            Step::Undo(_) => self.undo(state),
            Step::KillUndo => state.undo = None,
            Step::Restore => {
                let newest = each(self.visible(state)).last();
                let manifest = newest.and_then(|snapshot| state.store.highest(snapshot));
                state.restore = manifest.map(|manifest| Restore { manifest, days: 0 });
            }
            Step::Day => self.day(state),
        }
    }

    /// All who work on the vault are gone, two days pass, and a prune runs alone: whether nothing is
    /// left then but what visible snapshots need, and all that was promised is visible.
    pub(super) fn can_be_cleaned(&self, state: &State) -> bool {
        let mut state = *state;
        let gone = Writer { next: Writing::Killed, ..Writer::default() };
        state.writers = [gone; WRITERS];
        state.collector = Collector { next: Collecting::Ended, ..Collector::default() };
        state.undo = None;
        state.restore = None;
        for _ in 0..2 {
            self.day(&mut state);
            self.day(&mut state);
            state.prunes = [Pruner::default(); 2];
            self.prune(&mut state, 0);
            while state.prunes[0].runs() {
                self.prune(&mut state, 0);
            }
        }
        let Store { manifests, content, packs, tombstones, claims, intents, .. } = state.store;
        let needed = each(manifests).fold(0, |set, place| set | content[place]);
        packs & !needed == 0
            && tombstones == 0
            && claims == [None; CLAIMANTS]
            && intents == [None; WRITERS]
            && state.promised & !self.visible(&state) == 0
    }
}

impl Model for Vault {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            store: Store::begin(),
            writers: [Writer::default(); WRITERS],
            prunes: [Pruner::default(); 2],
            collector: Collector::default(),
            undo: None,
            restore: None,
            days: 0,
            unwanted: 0,
            promised: 1,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.around_the_writers(state, steps);
        self.around_the_prunes(state, steps);
        self.around_the_trash(state, steps);
        if self.setup.restores && state.restore.is_none() && self.visible(state) != 0 {
            steps.push(Step::Restore);
        }
        if self.passes(state) {
            steps.push(Step::Day);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = *last;
        self.apply(&mut state, step);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Vault>> {
        properties::all(self)
    }
}
