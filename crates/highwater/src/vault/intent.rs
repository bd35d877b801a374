//! Intents: what a backup is about to write, so that its leftovers are found if it is killed.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{NodeName, NodeUid, PackId, SnapshotId, Time, WriterId};

use super::folder::Folder;
use super::limits::UPLOADS_IN_FLIGHT_MAX;
use super::pack::pack_name;
use super::seal::ObjectKind;
use super::sealed;
use super::sealed::foreign;
use super::trash::{Purpose, TrashDoc, after};
use super::{Manifest, SnapshotName, Vault, boot};

/// An intent older than this stands for no backup: its packs may be collected.
const INTENT_SECONDS_MAX: u64 = 24 * 60 * 60;
/// The same as a duration.
pub(crate) const INTENT_TIME_MAX: Duration = Duration::from_secs(INTENT_SECONDS_MAX);

/// A backup commits within this time or not at all: well before anybody takes it for dead.
pub(crate) const BACKUP_TIME_MAX: Duration = Duration::from_secs(INTENT_SECONDS_MAX / 2);

/// Where so many packs of a backup in a row are missing, there are no more: fewer are on their way at
/// once.
const PACK_GAP_MAX: u32 = 2 * UPLOADS_IN_FLIGHT_MAX as u32;

/// A manifest that has lost its intent is taken back by who put it only as long as it is so young, by
/// the store's clock: later, what it replaces may have been deleted.
const TAKE_BACK_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// The announcement of a backup, or of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Intent {
    pub(crate) version: u32,
    pub(crate) snapshot: SnapshotId,
    pub(crate) node: NodeName,
    pub(crate) uid: NodeUid,
    pub(crate) parent: Option<SnapshotId>,
    pub(crate) writer: WriterId,
    pub(crate) start: Time,
    /// The run of the kernel that the backup runs under, where it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot: Option<String>,
    /// No backup: a prune rewrites packs. Its own packs are named after it as those of a snapshot are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) rewrite: bool,
    /// The intent is that of an import, not of a backup: the packs that the snapshot needs, whether
    /// they are there already or will be put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) import: Option<Vec<PackId>>,
}

impl Intent {
    /// That of a backup that begins now, under this run of the kernel.
    pub(crate) fn of_backup(
        snapshot: SnapshotId,
        node: NodeName,
        uid: NodeUid,
        parent: Option<SnapshotId>,
        writer: WriterId,
        start: Time,
    ) -> Intent {
        let (version, boot, rewrite, import) = (1, boot(), false, None);
        Intent { version, snapshot, node, uid, parent, writer, start, boot, rewrite, import }
    }
}

pub(crate) fn intent_name(snapshot: SnapshotId) -> String {
    Folder::Intents.object(snapshot)
}

impl Vault {
    pub(crate) fn put_intent(&self, intent: &Intent) -> Result<()> {
        let name = intent_name(intent.snapshot);
        let object = sealed::seal(self, ObjectKind::Intent, &name, intent)?;
        if self.store().put_new(&name, object)? {
            Ok(())
        } else {
            Err(Error::bug("two snapshots with one random id").with_entry(name))
        }
    }

    /// Whether the intent still stands: who takes the backup for dead removes it with the packs.
    pub(crate) fn intent_stands(&self, snapshot: SnapshotId) -> Result<bool> {
        Ok(self.store().size(&intent_name(snapshot))?.is_some())
    }

    pub(crate) fn delete_intent(&self, snapshot: SnapshotId) -> Result<()> {
        self.store().delete(&intent_name(snapshot))
    }

    pub(crate) fn open_intent(&self, name: &str) -> Result<Intent> {
        let intent: Intent =
            sealed::open(self, ObjectKind::Intent, name, &self.store().get(name)?)?;
        if intent.version != 1 || intent_name(intent.snapshot) != name {
            return Err(foreign(name));
        }
        Ok(intent)
    }

    /// The id of a snapshot's `number`th pack. It follows from the snapshot, so that the packs of
    /// a backup that was killed are found by its intent.
    pub(crate) fn pack_id(&self, snapshot: SnapshotId, number: u32) -> PackId {
        let key = self.master().derive(snapshot.as_bytes(), &[b"hw1 pack names"]);
        let mut id = [0; 16];
        blake3::Hasher::new_keyed(&key).update(&number.to_le_bytes()).finalize_xof().fill(&mut id);
        PackId::from_bytes(id)
    }

    /// Removes what a backup has put, by itself, if it has never tried to put a manifest: its packs,
    /// then its intent. Where somebody else has removed the intent, the packs are left to a prune.
    pub(crate) fn discard(&self, snapshot: SnapshotId) -> Result<()> {
        if !self.intent_stands(snapshot)? {
            return Ok(());
        }
        // From the last one back: whoever is killed here finds the rest again.
        for pack in self.packs_announced(snapshot)?.into_iter().rev() {
            self.store().delete(&pack_name(pack))?;
        }
        self.delete_intent(snapshot)
    }

    /// The packs that are there under the names that an intent's snapshot gives.
    fn packs_announced(&self, snapshot: SnapshotId) -> Result<Vec<PackId>> {
        let (mut packs, mut number, mut gap) = (Vec::new(), 0, 0);
        while gap < PACK_GAP_MAX {
            let pack = self.pack_id(snapshot, number);
            number += 1;
            gap += 1;
            if self.store().size(&pack_name(pack))?.is_some() {
                packs.push(pack);
                gap = 0;
            }
        }
        Ok(packs)
    }

    /// Whether a manifest stays that was put, and whose intent was gone when that was looked for.
    ///
    /// Who deletes an intent lists manifests after that, and deletes no pack but under a claim that
    /// names it. So if no claim names a pack of the manifest now, and after that all packs are there, it
    /// was seen and stays. Else it is taken back, while it is young: what it replaces still stands
    /// then. An older one is left, for packs of it may be missing, but nothing better may be there.
    ///
    /// # Errors
    /// Conflict where it was left.
    pub(crate) fn stays_without_intent(&self, manifest: &Manifest, by: &str) -> Result<bool> {
        let trash = self.trash()?;
        let claimed = manifest.packs.iter().any(|pack| trash.claims(pack.id));
        if !claimed && self.missing_pack(manifest)?.is_none() {
            return Ok(true);
        }
        let now = self.store_time(by)?;
        let put = SnapshotName::of(manifest);
        let (mut young, mut replaces) = (false, manifest.generation == 0);
        for listed in self.store().list(Some(&Folder::Snapshots.object(&put.node)))? {
            let Some(name) = SnapshotName::parse(&listed.name) else { continue };
            young |= name == put && after(listed.modified, TAKE_BACK_TIME_MAX) > now;
            replaces |= name.snapshot == put.snapshot && name.generation < put.generation;
        }
        if young && replaces {
            self.take_back(manifest)?;
            return Ok(false);
        }
        let snapshot = manifest.snapshot;
        Err(Error::conflict(format!(
            "snapshot {snapshot} was committed late, and a prune may have deleted packs of it"
        ))
        .with_entry(put.object())
        .with_remedy(Remedy::CheckVault)
        .with_remedy(Remedy::Forget(snapshot.to_string())))
    }

    /// Whether the backup of an intent of our own writer, whose node we have locked, can't be running
    /// any more. Under another run of the kernel it may be a clone of this machine that runs it:
    /// then only its age tells, since no backup commits after a day.
    pub(super) fn is_dead(&self, intent: &Intent) -> bool {
        let same_boot = intent.boot.is_some() && intent.boot == super::actor::boot();
        same_boot || self.env().now().seconds_since(intent.start) > INTENT_SECONDS_MAX
    }

    /// Collects what killed backups of this node, by this writer, have left. The caller holds the
    /// lock of the node, so that none of them is still running, but for those of a clone.
    ///
    /// As a prune: first the intent goes, so that a clone's backup misses it or its manifest is seen;
    /// then a claim names the packs; then manifests are listed, and only then packs go.
    pub(crate) fn collect_leftovers(&self, node: &NodeName, writer: WriterId) -> Result<u64> {
        let mut collected = 0;
        for listed in self.store().list(Some(Folder::Intents.name()))? {
            let intent = match self.open_intent(&listed.name) {
                Ok(intent) => intent,
                // It is another one's that has ended, or a damaged one: a prune buries that.
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => continue,
                Err(error) => return Err(error),
            };
            // The packs of a rewriting may be named by manifests: that is for a prune to judge.
            let ours = intent.node == *node && intent.writer == writer && !intent.rewrite;
            if !ours || !self.is_dead(&intent) {
                continue;
            }
            self.delete_intent(intent.snapshot)?;
            let committed = self.is_committed(node, intent.snapshot)?;
            if intent.import.is_some() && !committed {
                self.discard_import(&intent)?;
            } else if !committed {
                let packs = self.packs_announced(intent.snapshot)?;
                self.delete_claimed(packs.clone(), || {
                    // It may have been committed, built on, forgotten and deleted since it was listed.
                    let kept = self.packs_kept()?;
                    let named =
                        |kept: HashSet<PackId>| packs.iter().any(|pack| kept.contains(pack));
                    Ok(self.is_committed(node, intent.snapshot)? || kept.is_none_or(named))
                })?;
            }
            collected += 1;
        }
        Ok(collected)
    }

    /// Deletes packs under a claim that names them, unless a look at the manifests, once it stands,
    /// shows that they are needed. Their intent is gone already.
    pub(super) fn delete_claimed(
        &self,
        packs: Vec<PackId>,
        needed: impl FnOnce() -> Result<bool>,
    ) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let doc = TrashDoc::new(self, Purpose::Delete, "collected", Vec::new(), packs)?;
        let start = self.env().monotonic();
        let claim = self.put_trash(&doc)?;
        if !needed()? {
            for pack in doc.packs.iter().rev() {
                // Who slept may wake long after others have taken it for dead, and have put the pack again.
                let age = self.env().monotonic().saturating_sub(start);
                if age > BACKUP_TIME_MAX || self.store().size(&claim.name)?.is_none() {
                    return Ok(());
                }
                self.store().delete(&pack_name(*pack))?;
            }
        }
        self.store().delete(&claim.name)
    }
}

#[cfg(test)]
mod tests;
