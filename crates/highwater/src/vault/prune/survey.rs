//! What is in a vault, listed in the order that makes a decision safe: trash, intents, manifests,
//! packs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::control::Control;
use crate::env::FaultPoint;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{NodeName, PackId, SnapshotId, Time, WriterId};
use crate::vault::folder::Folder;
use crate::vault::intent::{INTENT_TIME_MAX, Intent};
use crate::vault::manifest::Manifest;
use crate::vault::nodes::NodeRecord;
use crate::vault::pack::pack_name;
use crate::vault::sealed::foreign;
use crate::vault::trash::Trash;
use crate::vault::{SnapshotName, Vault};

/// The packs of a backup may become visible in another order than that of their numbers, but not so far
/// apart.
const PACK_GAP_MAX: u32 = 64;

/// What is known of manifests that were opened before; they never change under their name.
pub(super) type Known = BTreeMap<SnapshotName, BTreeSet<PackId>>;

/// An intent, as listed.
pub(super) struct Announced {
    pub(super) snapshot: SnapshotId,
    /// Its own packs, as far as they are listed: their names follow from the snapshot.
    pub(super) packs: Vec<PackId>,
    pub(super) modified: Time,
    /// What it says; else why it can't be opened.
    pub(super) intent: Result<Intent>,
}

/// A manifest, as listed.
pub(super) struct Listed {
    pub(super) modified: Time,
    /// The packs that it needs; else why that is not known.
    pub(super) packs: Result<BTreeSet<PackId>>,
}

/// A pack, as listed.
pub(super) struct Stored {
    pub(super) size: u64,
    pub(super) modified: Time,
}

#[derive(Default)]
pub(super) struct Survey {
    pub(super) trash: Trash,
    pub(super) intents: Vec<Announced>,
    pub(super) manifests: BTreeMap<SnapshotName, Listed>,
    pub(super) packs: BTreeMap<PackId, Stored>,
    pub(super) records: BTreeMap<NodeName, NodeRecord>,
    /// Nodes whose newest record is damaged.
    pub(super) damaged: BTreeSet<NodeName>,
}

impl Survey {
    /// All of it, without a change to the vault.
    pub(super) fn take(vault: &Vault, known: &mut Known) -> Result<Survey> {
        let mut survey = Survey::begin(vault)?;
        survey.finish(vault, known)?;
        Ok(survey)
    }

    /// Trash, then intents.
    pub(super) fn begin(vault: &Vault) -> Result<Survey> {
        let trash = vault.trash()?;
        trash.refuse_unknown()?;
        let mut intents = Vec::new();
        for listed in vault.store().list(Some(Folder::Intents.name()))? {
            let id = Folder::Intents.strip(&listed.name).and_then(|id| id.parse().ok());
            let snapshot = id.ok_or_else(|| foreign(&listed.name))?;
            let intent = match vault.open_intent(&listed.name) {
                Ok(intent) => Ok(intent),
                // The backup has ended: its manifest is listed later.
                Err(error) if error.kind() == Kind::NotFound => continue,
                // Whether that matters is decided by its age.
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => Err(error),
                Err(error) => return Err(error),
            };
            let packs = Vec::new();
            intents.push(Announced { snapshot, packs, modified: listed.modified, intent });
        }
        Ok(Survey { trash, intents, ..Survey::default() })
    }

    /// Deletes intents that stand for nothing any more.
    pub(super) fn bury(
        &mut self,
        vault: &Vault,
        control: &Control,
        dead: impl Fn(&Announced) -> bool,
    ) -> Result<()> {
        for intent in self.intents.iter().filter(|intent| dead(intent)) {
            control.env.fault(FaultPoint::PruneIntent)?;
            vault.delete_intent(intent.snapshot)?;
        }
        self.intents.retain(|intent| !dead(intent));
        Ok(())
    }

    /// Whether a rewriting is at work beside `own`.
    pub(super) fn is_rewritten_beside(&self, own: Option<SnapshotId>) -> bool {
        self.intents.iter().any(|intent| intent.rewrites() && Some(intent.snapshot) != own)
    }

    /// Manifests, then packs.
    pub(super) fn finish(&mut self, vault: &Vault, known: &mut Known) -> Result<()> {
        for listed in vault.store().list(Some(Folder::Snapshots.name()))? {
            let name = SnapshotName::parse(&listed.name).ok_or_else(|| foreign(&listed.name))?;
            if !self.records.contains_key(&name.node)
                && let Some(record) = self.record(vault, &name.node)?
            {
                self.records.insert(name.node.clone(), record);
            }
            let packs = match known.get(&name) {
                Some(packs) => Ok(packs.clone()),
                None => match vault.outline(&name) {
                    Ok(manifest) => Ok(packs_of(&manifest)),
                    // Another prune has deleted it since it was listed.
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => Err(error),
                    Err(error) => return Err(error),
                },
            };
            if let Ok(packs) = &packs {
                known.insert(name.clone(), packs.clone());
            }
            self.manifests.insert(name, Listed { modified: listed.modified, packs });
        }
        for listed in vault.store().list(Some(Folder::Packs.name()))? {
            let id = listed.name.rsplit_once('/').and_then(|(_, id)| id.parse::<PackId>().ok());
            let id = id.filter(|&id| pack_name(id) == listed.name);
            let id = id.ok_or_else(|| foreign(&listed.name))?;
            self.packs.insert(id, Stored { size: listed.size, modified: listed.modified });
        }
        for intent in &mut self.intents {
            let (mut number, mut gap) = (0, 0);
            while gap < PACK_GAP_MAX {
                let id = vault.pack_id(intent.snapshot, number);
                number += 1;
                gap += 1;
                if self.packs.contains_key(&id) {
                    intent.packs.push(id);
                    gap = 0;
                }
            }
        }
        Ok(())
    }

    /// The record of a node. Where the newest one is damaged, one before it: it tells of less, as does one
    /// that is older than the node's snapshots.
    fn record(&mut self, vault: &Vault, node: &NodeName) -> Result<Option<NodeRecord>> {
        match vault.sound_record(node) {
            Err(error) if error.kind() == Kind::Corrupt => {
                self.damaged.insert(node.clone());
                match vault.readable_record(node) {
                    Err(error) if error.kind() == Kind::Corrupt => Ok(None),
                    record => record,
                }
            }
            record => record,
        }
    }

    /// Whether a snapshot can't go since the node's record would have to say so, and is damaged.
    pub(super) fn is_beyond_record(&self, name: &SnapshotName) -> bool {
        self.damaged.contains(&name.node) && self.must_record(name)
    }

    fn must_record(&self, name: &SnapshotName) -> bool {
        let newest = self.records.get(&name.node).and_then(|record| record.newest);
        newest.is_none_or(|(_, seq)| seq <= name.seq) && !self.is_fenced(name)
    }

    /// Whether a manifest can be opened and all its packs are there.
    pub(super) fn is_whole(&self, manifest: &Listed) -> bool {
        let there = |packs: &BTreeSet<PackId>| packs.iter().all(|id| self.packs.contains_key(id));
        manifest.packs.as_ref().is_ok_and(there)
    }

    /// Whether a deposed writer put it behind the fence.
    pub(super) fn is_fenced(&self, name: &SnapshotName) -> bool {
        self.records.get(&name.node).is_some_and(|record| record.hides(name.epoch, name.seq))
    }

    /// Before the newest snapshot of a node goes, its record says so: it is not lost, its number is not
    /// given again, and the marks that it has seen still count.
    pub(super) fn remember(&self, vault: &Vault, name: &SnapshotName) -> Result<()> {
        if !self.must_record(name) {
            return Ok(());
        }
        let manifest = match vault.outline(name) {
            Ok(manifest) => Some(manifest),
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => None,
            Err(error) => return Err(error),
        };
        vault.update_node(&name.node, |record| {
            if record.newest.is_some_and(|(_, seq)| seq > name.seq) {
                return Ok(());
            }
            record.newest = Some((name.snapshot, name.seq));
            record.pruned = Some(name.snapshot);
            let Some(manifest) = &manifest else { return Ok(()) };
            record.guard = manifest.guard_kind().or(record.guard);
            for (name, mark) in &manifest.marks {
                let highest = record.marks.entry(name.clone()).or_default();
                *highest = mark.value.max(*highest);
            }
            Ok(())
        })?;
        Ok(())
    }
}

impl Announced {
    /// No backup commits so long after it put its intent. One from the far future was put under a
    /// clock that was wrong, and would else stand for ever.
    pub(super) fn is_dead(&self, now: Time) -> bool {
        is_older(self.modified, now, INTENT_TIME_MAX)
            || is_older(now, self.modified, INTENT_TIME_MAX)
    }

    /// Whether it is that of a rewriting.
    pub(super) fn rewrites(&self) -> bool {
        match &self.intent {
            Ok(intent) => intent.rewrite,
            // What a newer program does may be that.
            Err(error) => error.kind() == Kind::Input,
        }
    }

    /// Whether it is that of a rewriting by `writer`, which was killed: who holds the lock of the vault
    /// knows that none of its own is running under this run of the kernel.
    pub(super) fn is_killed_rewriting(&self, writer: WriterId) -> bool {
        let boot = crate::vault::boot();
        let ours = |intent: &Intent| {
            intent.rewrite && intent.writer == writer && boot.is_some() && intent.boot == boot
        };
        self.intent.as_ref().is_ok_and(ours)
    }
}

/// Whether something was put at `time`, and longer than `age` ago at `now`.
pub(super) fn is_older(time: Time, now: Time, age: Duration) -> bool {
    let nanos = i128::from(now.as_nanos()) - i128::from(time.as_nanos());
    nanos >= i128::try_from(age.as_nanos()).unwrap_or(i128::MAX)
}

fn packs_of(manifest: &Manifest) -> BTreeSet<PackId> {
    manifest.packs.iter().map(|pack| pack.id).collect()
}

/// That a prune can't go on because of an object that it can't read.
pub(super) fn refuse(error: &Error, remedies: Vec<Remedy>) -> Error {
    let object = error.entry().unwrap_or("an object");
    let what = format!(
        "{object} can't be opened, so that what it needs is not known: {}",
        error.summary()
    );
    Error::new(error.kind(), what).with_entry(object).with_remedies(remedies)
}
