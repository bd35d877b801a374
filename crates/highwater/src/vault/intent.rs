//! Intents: what a backup is about to write, so that its leftovers are found if it is killed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::{NodeName, NodeUid, PackId, SnapshotId, Time, WriterId};

use super::Vault;
use super::pack::pack_name;
use super::seal::ObjectKind;
use super::sealed;
use super::snapshots::foreign;

/// An intent older than this stands for no backup: its packs may be collected.
const INTENT_SECONDS_MAX: u64 = 24 * 60 * 60;
/// The same as a duration.
pub(crate) const INTENT_TIME_MAX: Duration = Duration::from_secs(INTENT_SECONDS_MAX);

/// A backup commits within this time or not at all: well before anybody takes it for dead.
pub(crate) const BACKUP_TIME_MAX: Duration = Duration::from_secs(INTENT_SECONDS_MAX / 2);

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

pub(crate) fn intent_name(snapshot: SnapshotId) -> String {
    format!("intents/{snapshot}")
}

impl Vault {
    pub(crate) fn put_intent(&self, intent: &Intent) -> Result<()> {
        let name = intent_name(intent.snapshot);
        let object = sealed::seal(self, ObjectKind::Intent, &name, intent)?;
        if self.store().put_new(&name, object)? {
            Ok(())
        } else {
            Err(Error::bug("two snapshots with one random id").entry(name))
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

    /// Removes what a backup has put that never became a snapshot: its packs, then its intent.
    pub(crate) fn discard(&self, snapshot: SnapshotId) -> Result<()> {
        let mut packs = Vec::new();
        loop {
            let name = pack_name(self.pack_id(snapshot, packs.len() as u32));
            if self.store().size(&name)?.is_none() {
                break;
            }
            packs.push(name);
        }
        // From the last one back: whoever is killed here finds the rest again, without a gap.
        for name in packs.iter().rev() {
            self.store().delete(name)?;
        }
        self.delete_intent(snapshot)
    }

    /// Whether the backup of an intent of our own writer, whose node we have locked, can't be running
    /// any more. Under another run of the kernel it may be a clone of this machine that runs it:
    /// then only its age tells, since no backup commits after a day.
    pub(super) fn is_dead(&self, intent: &Intent) -> bool {
        let same_boot = intent.boot.is_some() && intent.boot == super::actor::boot();
        same_boot || self.env().now().seconds_since(intent.start) > INTENT_SECONDS_MAX
    }

    /// Collects what killed backups of this node, by this writer, have left. The caller holds the
    /// lock of the node, so that none of them is still running.
    pub(crate) fn collect_leftovers(&self, node: &NodeName, writer: WriterId) -> Result<u64> {
        let mut collected = 0;
        let mut committed: Option<Vec<SnapshotId>> = None;
        for listed in self.store().list(Some("intents"))? {
            let intent = self.open_intent(&listed.name)?;
            // The packs of a rewriting may be named by manifests: that is for a prune to judge.
            let ours = intent.node == *node && intent.writer == writer && !intent.rewrite;
            if !ours || !self.is_dead(&intent) {
                continue;
            }
            let committed = match &committed {
                Some(committed) => committed,
                None => {
                    let names = self.store().list(Some(&format!("snapshots/{node}")))?;
                    let ids = names.iter().filter_map(|listed| {
                        super::SnapshotName::parse(&listed.name).map(|name| name.snapshot)
                    });
                    committed.insert(ids.collect())
                }
            };
            if committed.contains(&intent.snapshot) {
                self.delete_intent(intent.snapshot)?;
            } else if intent.import.is_some() {
                self.discard_import(&intent)?;
            } else {
                self.discard(intent.snapshot)?;
            }
            collected += 1;
        }
        Ok(collected)
    }
}
