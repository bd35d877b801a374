//! Who puts manifests: a backup, an import, a rewriting.

use super::rules::Rule;
use super::setup::Kind;
use super::state::{
    Intent, NEW_PACK, REWRITING, Set, State, bit, each, has, manifest, snapshots_of,
};
use super::steps::Vault;

/// What a writer does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Writing {
    /// It begins, and chooses a parent.
    #[default]
    Begin,
    /// It puts its intent.
    PutIntent,
    /// It reads the trash.
    SeeTrash,
    /// It lists manifests.
    SeeManifests,
    /// It reads the trash again: whether a claim names what it is to build on.
    SeeParentClaimed,
    /// It lists packs.
    SeePacks,
    /// It puts its packs.
    PutPacks,
    /// It sees that its intent stands.
    SeeIntent,
    /// It sees that all packs are there.
    SeePacksAgain,
    /// It sends its manifest.
    Send,
    /// Its manifest is under way.
    Await,
    /// It looks for its intent once more.
    SeeIntentAgain,
    /// It looks for its parent once more.
    SeeParentAgain,
    /// Its intent or its parent is gone: it looks for claims.
    SeeClaims,
    /// It looks for its packs.
    SeePacksLast,
    /// It asks whether its manifest is young, and above another one.
    SeeAge,
    /// It deletes its manifest.
    TakeBack,
    /// It gives up, and looks for its intent.
    GiveUp,
    /// It gives up, and deletes its packs.
    DiscardPacks,
    /// It deletes its intent.
    DropIntent,
    /// It has ended.
    Ended,
    /// It was killed.
    Killed,
}

/// A writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// What it does next.
    pub next: Writing,
    /// The snapshot that it builds on.
    pub parent: Option<usize>,
    /// The manifest of it that it builds on.
    pub base: Option<usize>,
    /// What it has found: a rewriting, hidden snapshots; an import, packs that are there.
    pub found: Set,
    /// Packs that its manifest names.
    pub packs: Set,
    /// Packs that it has put.
    pub put: Set,
    /// A rewriting: the snapshots whose next generation is to be put.
    pub todo: Set,
    /// A day has passed since it began.
    pub late: bool,
    /// It has sent a manifest, which has not arrived.
    pub on_the_way: Option<usize>,
}

impl Writer {
    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.next, Writing::Begin | Writing::Ended | Writing::Killed)
    }

    /// Whether it is between its last look at its intent before the put and the one after it.
    pub(super) fn commits(&self) -> bool {
        use Writing::{Await, Killed, SeeIntentAgain, SeePacksAgain, SeeParentAgain, Send};
        matches!(self.next, SeePacksAgain | Send | Await | SeeIntentAgain | SeeParentAgain)
            || (self.next == Killed && self.on_the_way.is_some())
            || self.on_the_way.is_some()
    }

    /// Whether it has not tried to put a manifest.
    pub(super) fn may_give_up(&self) -> bool {
        use Writing::{PutPacks, SeeIntent, SeeManifests, SeePacks, SeePacksAgain, SeeTrash, Send};
        matches!(
            self.next,
            SeeTrash | SeeManifests | SeePacks | PutPacks | SeeIntent | SeePacksAgain | Send
        ) && self.todo == 0
    }

    /// It ends, and nothing is remembered but what is on the way.
    pub(super) fn ends(&mut self, next: Writing) {
        *self = Writer { next, on_the_way: self.on_the_way, ..Writer::default() };
    }
}

impl Vault {
    /// What a writer is; a rewriting counts as a backup here.
    fn kind(&self, slot: usize) -> Kind {
        self.setup.writers.get(slot).copied().unwrap_or(Kind::Backup)
    }

    /// Whether a writer is there at all.
    pub(super) fn has_writer(&self, slot: usize) -> bool {
        match slot {
            REWRITING => self.setup.rewriting,
            _ => self.setup.writers[slot] != Kind::Nobody,
        }
    }

    /// The packs that an import needs.
    fn imported(slot: usize) -> Set {
        bit(0) | bit(slot + 1)
    }

    /// Snapshots that nobody sees.
    pub(super) fn hidden(&self, state: &State) -> Set {
        let claimed = if self.rules.has(Rule::ClaimsHide) { state.store.claimed() } else { 0 };
        state.store.tombstones | claimed
    }

    /// Snapshots that are seen.
    pub(super) fn visible(&self, state: &State) -> Set {
        snapshots_of(state.store.manifests) & !self.hidden(state)
    }

    /// A writer goes on.
    pub(super) fn write(&self, state: &mut State, slot: usize) {
        use Writing::{
            Await, Begin, DiscardPacks, DropIntent, Ended, GiveUp, Killed, PutIntent, PutPacks,
            SeeAge, SeeClaims, SeeIntent, SeeIntentAgain, SeeManifests, SeePacks, SeePacksAgain,
            SeePacksLast, SeeParentAgain, SeeParentClaimed, SeeTrash, Send, TakeBack,
        };
        match state.writers[slot].next {
            Begin => self.begin_writing(state, slot),
            PutIntent => self.put_intent(state, slot),
            SeeTrash | SeeManifests | SeeParentClaimed | SeePacks => {
                match (slot, self.kind(slot)) {
                    (REWRITING, _) => self.choose(state),
                    (_, Kind::Import) => self.admit(state, slot),
                    _ => self.look_at_parent(state, slot),
                }
            }
            PutPacks => self.put_packs(state, slot),
            SeeIntent | SeePacksAgain => self.look_before(state, slot),
            Send => Self::send(state, slot),
            Await => state.writers[slot].next = SeeIntentAgain,
            SeeIntentAgain | SeeParentAgain => self.look_after(state, slot),
            SeeClaims | SeePacksLast => self.look_without_intent(state, slot),
            SeeAge | TakeBack => self.take_back(state, slot),
            GiveUp => {
                let leaves =
                    self.kind(slot) == Kind::Import && self.rules.has(Rule::ImportLeavesItsPacks);
                let discards = state.store.intents[slot].is_some() && !leaves;
                state.writers[slot].next = if discards { DiscardPacks } else { DropIntent };
            }
            DiscardPacks => {
                state.store.delete_packs(state.writers[slot].put);
                state.writers[slot].next = DropIntent;
            }
            DropIntent => {
                state.store.intents[slot] = None;
                state.writers[slot].ends(Ended);
            }
            Ended | Killed => {}
        }
    }

    fn begin_writing(&self, state: &mut State, slot: usize) {
        let writer = &mut state.writers[slot];
        writer.next = Writing::PutIntent;
        if self.kind(slot) == Kind::Backup && slot != REWRITING {
            let first = !self.rules.has(Rule::IntentBeforeLook);
            writer.next = if first { Writing::SeeTrash } else { Writing::PutIntent };
            writer.parent = None;
            let visible = self.visible(state);
            state.writers[slot].parent = each(visible).last();
        }
    }

    fn put_intent(&self, state: &mut State, slot: usize) {
        let names = match self.kind(slot) {
            Kind::Import if self.rules.has(Rule::ImportNamesPacks) => Vault::imported(slot),
            _ => 0,
        };
        let writer = &mut state.writers[slot];
        state.store.intents[slot] = Some(Intent { parent: writer.parent, names, dead: false });
        let looked = self.kind(slot) == Kind::Backup
            && slot != REWRITING
            && !self.rules.has(Rule::IntentBeforeLook);
        writer.next = if looked { Writing::PutPacks } else { Writing::SeeTrash };
        // Whose claim is more than a day older takes it for one from the future.
        for prune in state.prunes.iter_mut().filter(|prune| prune.late) {
            prune.judged.dead |= bit(slot);
        }
    }

    /// The parent of a backup must be visible, whole, and not be given up.
    fn look_at_parent(&self, state: &mut State, slot: usize) {
        let hidden = self.hidden(state);
        let store = &state.store;
        let writer = &mut state.writers[slot];
        let own = bit(slot + 1);
        let after = match self.rules.has(Rule::IntentBeforeLook) {
            true => Writing::PutPacks,
            false => Writing::PutIntent,
        };
        let Some(parent) = writer.parent else {
            (writer.packs, writer.next) = (own, after);
            return;
        };
        let nothing = |writer: &mut Writer| {
            (writer.parent, writer.base) = (None, None);
            (writer.packs, writer.next) = (own, after);
        };
        match writer.next {
            Writing::SeeTrash => {
                if has(hidden, parent) && self.rules.has(Rule::ParentMustBeVisible) {
                    return nothing(writer);
                }
                writer.next = Writing::SeeManifests;
            }
            Writing::SeeManifests => match store.highest(parent) {
                Some(place) => {
                    (writer.base, writer.packs) = (Some(place), store.content[place]);
                    writer.next = match self.rules.has(Rule::ClaimedIsNotBuiltOn) {
                        true => Writing::SeeParentClaimed,
                        false => Writing::SeePacks,
                    };
                }
                None => nothing(writer),
            },
            Writing::SeeParentClaimed if store.packs_claimed() & writer.packs != 0 => {
                nothing(writer);
            }
            Writing::SeeParentClaimed => writer.next = Writing::SeePacks,
            _ if writer.packs & !store.packs != 0 => nothing(writer),
            _ => (writer.packs, writer.next) = (writer.packs | own, after),
        }
    }

    /// An import gives way to claims, and builds on visible packs alone.
    fn admit(&self, state: &mut State, slot: usize) {
        let visible = self.visible(state);
        let store = &state.store;
        let needs = Vault::imported(slot);
        let refused = has(store.tombstones | store.claimed(), slot + 1)
            || (self.rules.has(Rule::ImportGivesWay) && store.packs_claimed() & needs != 0);
        let writer = &mut state.writers[slot];
        match writer.next {
            Writing::SeeTrash if refused => writer.next = Writing::GiveUp,
            Writing::SeeTrash => (writer.packs, writer.next) = (needs, Writing::SeePacks),
            Writing::SeePacks => {
                (writer.found, writer.next) = (needs & store.packs, Writing::SeeManifests);
            }
            _ => {
                let highest = each(visible).filter_map(|snapshot| store.highest(snapshot));
                let built = highest.fold(0, |set, place| set | store.content[place]);
                let loose = writer.found & !built != 0;
                let refused = loose && self.rules.has(Rule::ImportBuildsOnVisible);
                writer.next = if refused { Writing::GiveUp } else { Writing::PutPacks };
            }
        }
    }

    /// A rewriting gives way to claims, and chooses visible snapshots with the pack of the first one.
    fn choose(&self, state: &mut State) {
        let hidden = self.hidden(state);
        let store = &state.store;
        let writer = &mut state.writers[REWRITING];
        match writer.next {
            Writing::SeeTrash => {
                let claimed = store.claims.iter().any(Option::is_some);
                let busy = claimed && self.rules.has(Rule::RewritingGivesWay);
                writer.found = hidden;
                writer.next = if busy { Writing::GiveUp } else { Writing::SeeManifests };
            }
            _ => {
                let seen = snapshots_of(store.manifests) & !writer.found;
                let old = |snapshot: &usize| {
                    store.highest(*snapshot).is_some_and(|place| has(store.content[place], 0))
                };
                writer.todo = each(seen).filter(old).fold(0, |set, snapshot| set | bit(snapshot));
                writer.found = 0;
                writer.next = match writer.todo {
                    0 => Writing::DropIntent,
                    _ => Writing::PutPacks,
                };
            }
        }
    }

    fn put_packs(&self, state: &mut State, slot: usize) {
        let packs = match (slot, self.kind(slot)) {
            (REWRITING, _) => bit(NEW_PACK),
            (_, Kind::Import) => Vault::imported(slot) & !state.writers[slot].found,
            _ => bit(slot + 1),
        };
        // Where somebody else has put one meanwhile, it is theirs.
        if packs & state.store.packs != 0 {
            state.writers[slot].next = Writing::GiveUp;
            return;
        }
        for pack in each(packs) {
            state.store.put_pack(pack);
            for prune in &mut state.prunes {
                prune.judged.old_packs &= !bit(pack);
            }
        }
        let writer = &mut state.writers[slot];
        (writer.put, writer.found) = (packs, 0);
        writer.next = Writing::SeeIntent;
    }

    /// What is looked at before a manifest is sent.
    fn look_before(&self, state: &mut State, slot: usize) {
        let store = &state.store;
        let writer = &mut state.writers[slot];
        if slot == REWRITING && writer.next == Writing::SeeIntent && !next_generation(store, writer)
        {
            writer.next = Writing::DropIntent;
            return;
        }
        let rules = self.rules;
        let late = writer.late && rules.has(Rule::BackupHasItsTime);
        let gone = store.intents[slot].is_none() && rules.has(Rule::IntentBeforeCommit);
        let missing = slot != REWRITING
            && writer.packs & !store.packs != 0
            && rules.has(Rule::PacksBeforeCommit);
        let stops = match writer.next {
            Writing::SeeIntent => late || gone,
            _ => missing,
        };
        writer.next = match writer.next {
            // Once a manifest was tried, nothing is discarded.
            _ if stops && writer.put == 0 => Writing::DropIntent,
            _ if stops => Writing::GiveUp,
            Writing::SeeIntent => Writing::SeePacksAgain,
            _ => Writing::Send,
        };
    }

    fn send(state: &mut State, slot: usize) {
        let writer = &mut state.writers[slot];
        let place = target(slot, writer);
        state.store.content[place] = writer.packs;
        writer.on_the_way = Some(place);
        writer.next = Writing::Await;
    }

    /// The manifest of a writer arrives.
    pub(super) fn arrive(state: &mut State, slot: usize) {
        let Some(place) = state.writers[slot].on_the_way.take() else { return };
        state.store.put_manifest(place);
        for prune in &mut state.prunes {
            prune.judged.ripe_manifests &= !bit(place);
        }
    }

    /// What is looked at once the manifest is there.
    fn look_after(&self, state: &mut State, slot: usize) {
        let store = &state.store;
        let writer = &mut state.writers[slot];
        let stands = writer.base.is_none_or(|base| has(store.manifests, base));
        let looks = self.rules.has(Rule::ParentAfterCommit) && writer.base.is_some();
        match writer.next {
            Writing::SeeIntentAgain
                if store.intents[slot].is_none() && self.rules.has(Rule::IntentAfterCommit) =>
            {
                writer.next = Writing::SeeClaims;
            }
            Writing::SeeIntentAgain if looks => writer.next = Writing::SeeParentAgain,
            Writing::SeeParentAgain if !stands => writer.next = Writing::SeeClaims,
            _ => Vault::committed(state, slot),
        }
    }

    /// The snapshot is told to be there. A rewriting tells nothing, and goes on.
    fn committed(state: &mut State, slot: usize) {
        let writer = &mut state.writers[slot];
        if slot == REWRITING {
            writer.todo &= !bit(target(slot, writer) / 2);
            writer.put = 0;
            writer.next = if writer.todo == 0 { Writing::DropIntent } else { Writing::SeeIntent };
            return;
        }
        let on_the_way = writer.on_the_way;
        *writer = Writer { next: Writing::DropIntent, on_the_way, ..Writer::default() };
        state.promise(slot + 1);
    }

    /// Whether a manifest stays whose intent is gone.
    fn look_without_intent(&self, state: &mut State, slot: usize) {
        use Writing::{SeeAge, SeeClaims, SeePacksLast};
        let writer = &mut state.writers[slot];
        let first = match self.rules.has(Rule::TrashBeforePacks) {
            true => SeeClaims,
            false => SeePacksLast,
        };
        // The other way round the steps are the same, and their looks change places.
        let trash = (writer.next == SeeClaims) == (first == SeeClaims);
        let bad = match trash {
            true => {
                self.rules.has(Rule::ClaimsAfterCommit)
                    && state.store.packs_claimed() & writer.packs != 0
            }
            false => {
                self.rules.has(Rule::PacksAfterCommit) && writer.packs & !state.store.packs != 0
            }
        };
        match writer.next {
            _ if bad => writer.next = SeeAge,
            SeeClaims => writer.next = SeePacksLast,
            _ if slot == REWRITING => writer.next = Writing::DropIntent,
            _ => Vault::committed(state, slot),
        }
    }

    /// The answer to a put is lost: the intent goes, and no pack does.
    pub(super) fn unanswered(&self, state: &mut State, slot: usize) {
        let deletes = !self.rules.has(Rule::TriedDeletesNothing);
        let writer = &mut state.writers[slot];
        writer.next = if deletes { Writing::GiveUp } else { Writing::DropIntent };
    }

    fn take_back(&self, state: &mut State, slot: usize) {
        let writer = &mut state.writers[slot];
        let place = target(slot, writer);
        if writer.next == Writing::TakeBack {
            state.store.delete_manifest(place);
            writer.next = Writing::DropIntent;
            return;
        }
        let store = &state.store;
        let young = store.manifest_days[place] == 0 || !self.rules.has(Rule::TakenBackYoung);
        let above = slot != REWRITING
            || has(store.manifests, manifest(place / 2, 0))
            || !self.rules.has(Rule::TakenBackAboveAnother);
        let stays = !has(store.manifests, place) || !young || !above;
        writer.next = if stays { Writing::DropIntent } else { Writing::TakeBack };
    }
}

/// The manifest that a writer puts next. A rewriting begins with the newest snapshot.
fn target(slot: usize, writer: &Writer) -> usize {
    match slot {
        REWRITING => manifest(each(writer.todo).last().unwrap_or(0), 1),
        _ => manifest(slot + 1, 0),
    }
}

/// What the next generation names; `false` where the one before it is gone.
fn next_generation(store: &super::state::Store, writer: &mut Writer) -> bool {
    let before = manifest(target(REWRITING, writer) / 2, 0);
    writer.packs = store.content[before] & !bit(0) | bit(NEW_PACK);
    has(store.manifests, before)
}

impl State {
    /// A snapshot is told to be there, unless somebody wants it forgotten.
    pub(super) fn promise(&mut self, snapshot: usize) {
        self.promised |= bit(snapshot) & !self.unwanted;
    }
}
