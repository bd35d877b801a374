//! What there is at one instant: the objects of the vault, who works on it, and what was promised.

use super::collector::Collector;
use super::pruner::Pruner;
use super::undo::Undo;
use super::writer::Writer;

/// A set of snapshots, of packs, of manifests or of places: a bit for each.
pub type Set = u8;

/// So many snapshots: one that stands at the beginning, and one of each of two writers.
pub(super) const SNAPSHOTS: usize = 3;
/// So many packs: one of each snapshot, and one of a rewriting.
pub(super) const PACKS: usize = 4;
/// So many manifests: two generations of each snapshot.
pub(super) const MANIFESTS: usize = 2 * SNAPSHOTS;
/// So many writers: two backups or imports, and a rewriting.
pub(super) const WRITERS: usize = 3;
/// Which of the writers is the rewriting.
pub(super) const REWRITING: usize = 2;
/// So many who claim: two prunes, and a collector.
pub(super) const CLAIMANTS: usize = 3;
/// Which of them is the collector.
pub(super) const COLLECTOR: usize = 2;
/// The pack that a rewriting makes.
pub(super) const NEW_PACK: usize = 3;
/// Nothing is told apart that is older than so many days.
pub(super) const DAYS_MAX: u8 = 2;

/// The set of one.
pub(super) const fn bit(place: usize) -> Set {
    1 << place
}

/// Whether a set has a member.
pub(super) const fn has(set: Set, place: usize) -> bool {
    set & bit(place) != 0
}

/// The members of a set, in order.
pub(super) fn each(set: Set) -> impl Iterator<Item = usize> {
    (0..8).filter(move |&place| has(set, place))
}

/// The place of a manifest: its snapshot and its generation.
pub(super) const fn manifest(snapshot: usize, generation: usize) -> usize {
    2 * snapshot + generation
}

/// The manifests of a snapshot.
pub(super) const fn manifests_of(snapshot: usize) -> Set {
    bit(manifest(snapshot, 0)) | bit(manifest(snapshot, 1))
}

/// The snapshots of manifests.
pub(super) fn snapshots_of(manifests: Set) -> Set {
    each(manifests).fold(0, |set, place| set | bit(place / 2))
}

/// An intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    /// The snapshot that it says to be built on.
    pub parent: Option<usize>,
    /// The packs that an import names.
    pub names: Set,
    /// It is a day old.
    pub dead: bool,
}

/// A claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The forgotten snapshots that it names.
    pub snapshots: Set,
    /// The packs that it names.
    pub packs: Set,
    /// It is a day old.
    pub stale: bool,
}

/// The objects of the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Packs that are there.
    pub packs: Set,
    /// How many days old they are.
    pub pack_days: [u8; PACKS],
    /// Manifests that are there.
    pub manifests: Set,
    /// How many days old they are.
    pub manifest_days: [u8; MANIFESTS],
    /// Which packs a manifest names, once somebody has sent it.
    pub content: [Set; MANIFESTS],
    /// By writer.
    pub intents: [Option<Intent>; WRITERS],
    /// The snapshots that a tombstone names.
    pub tombstones: Set,
    /// How many days old their tombstones are.
    pub tombstone_days: [u8; SNAPSHOTS],
    /// By claimant.
    pub claims: [Option<Claim>; CLAIMANTS],
}

/// A restore that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Restore {
    /// The manifest that it has opened.
    pub manifest: usize,
    /// So many days it has run.
    pub days: u8,
}

/// The whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The vault.
    pub store: Store,
    /// Two backups or imports, and a rewriting.
    pub writers: [Writer; WRITERS],
    /// Prunes.
    pub prunes: [Pruner; 2],
    /// Who collects what a killed writer has left.
    pub collector: Collector,
    /// Who brings a snapshot back.
    pub undo: Option<Undo>,
    /// Who reads a snapshot.
    pub restore: Option<Restore>,
    /// So many days have passed.
    pub days: u8,
    /// The onlooker's: snapshots that somebody wants forgotten.
    pub unwanted: Set,
    /// The onlooker's: snapshots whose backup, or whose return, was answered with success, and that
    /// nobody has forgotten since.
    pub promised: Set,
}

impl Store {
    /// One snapshot with its pack, days old.
    pub(super) fn begin() -> Store {
        let mut content = [0; MANIFESTS];
        content[manifest(0, 0)] = bit(0);
        Store {
            packs: bit(0),
            pack_days: [DAYS_MAX, 0, 0, 0],
            manifests: bit(manifest(0, 0)),
            manifest_days: [1, 0, 0, 0, 0, 0],
            content,
            intents: [None; WRITERS],
            tombstones: 0,
            tombstone_days: [0; SNAPSHOTS],
            claims: [None; CLAIMANTS],
        }
    }

    /// The manifest of a snapshot's highest generation.
    pub(super) fn highest(&self, snapshot: usize) -> Option<usize> {
        each(self.manifests & manifests_of(snapshot)).last()
    }

    /// The snapshots that claims name.
    pub(super) fn claimed(&self) -> Set {
        self.claims.iter().flatten().fold(0, |set, claim| set | claim.snapshots)
    }

    /// The packs that claims name.
    pub(super) fn packs_claimed(&self) -> Set {
        self.claims.iter().flatten().fold(0, |set, claim| set | claim.packs)
    }

    /// Whether all packs of a snapshot's highest generation are there.
    pub(super) fn is_whole(&self, snapshot: usize) -> bool {
        self.highest(snapshot).is_some_and(|place| self.content[place] & !self.packs == 0)
    }

    /// Whether all packs of any generation of a snapshot are there.
    pub(super) fn is_kept(&self, snapshot: usize) -> bool {
        each(self.manifests & manifests_of(snapshot))
            .any(|place| self.content[place] & !self.packs == 0)
    }

    pub(super) fn put_pack(&mut self, pack: usize) {
        if !has(self.packs, pack) {
            self.packs |= bit(pack);
            self.pack_days[pack] = 0;
        }
    }

    pub(super) fn delete_packs(&mut self, packs: Set) {
        self.packs &= !packs;
        each(packs).for_each(|pack| self.pack_days[pack] = 0);
    }

    pub(super) fn put_manifest(&mut self, place: usize) {
        if !has(self.manifests, place) {
            self.manifests |= bit(place);
            self.manifest_days[place] = 0;
        }
    }

    pub(super) fn delete_manifest(&mut self, place: usize) {
        self.manifests &= !bit(place);
        self.manifest_days[place] = 0;
    }

    pub(super) fn put_tombstone(&mut self, snapshot: usize) {
        if !has(self.tombstones, snapshot) {
            self.tombstones |= bit(snapshot);
            self.tombstone_days[snapshot] = 0;
        }
    }

    pub(super) fn delete_tombstone(&mut self, snapshot: usize) {
        self.tombstones &= !bit(snapshot);
        self.tombstone_days[snapshot] = 0;
    }

    /// Everything in it is a day older. What nobody tells apart is of one age.
    pub(super) fn age(&mut self, grace: u8) {
        let older = |days: &mut u8, most: u8| *days = (*days + 1).min(most);
        each(self.packs).for_each(|it| older(&mut self.pack_days[it], DAYS_MAX));
        each(self.manifests).for_each(|it| older(&mut self.manifest_days[it], grace.max(1)));
        each(self.tombstones).for_each(|it| older(&mut self.tombstone_days[it], grace));
        self.intents.iter_mut().flatten().for_each(|intent| intent.dead = true);
        self.claims.iter_mut().flatten().for_each(|claim| claim.stale = true);
    }
}
