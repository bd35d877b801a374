//! Node records: who owns a node, which snapshots passed a restore test, the highest marks seen.
//!
//! `nodes/<node>/<n>` is only ever created: making `n + 1` is the compare-and-set that every store
//! can do. Of two writers one wins, and the other one reads again.
//!
//! In a vault without a fence a record is `nodes/<node>/<n>-<random>`: nobody wins, and two records of
//! one number tell that two writers met.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{Epoch, GuardKind, NodeName, NodeUid, Seq, SnapshotId, Time, WriterId};

use super::folder::Folder;
use super::loss::Acknowledged;
use super::manifest::Manifest;
use super::seal::ObjectKind;
use super::sealed;
use super::{Actor, Vault};

mod set_back;

pub(crate) use set_back::unrecorded;

/// Records are deleted behind the newest so many.
const RECORDS_KEPT: u64 = 8;
/// Another writer can win a number so often before the operation gives up.
const TRIES_MAX: usize = 16;
/// So many snapshots that passed a restore test are remembered, and so many that failed one.
const TESTED_MAX: usize = 256;

/// Who may write snapshots of a node.
#[derive(Clone, Debug, Serialize)]
pub struct Ownership {
    /// The node.
    pub node: NodeName,
    /// Rises with each takeover.
    pub epoch: Epoch,
    /// The writer; `None` after a release.
    pub writer: Option<WriterId>,
    /// Whether that is this installation.
    pub ours: bool,
    /// The user and machine of the writer, as it named itself.
    pub claimed_by: String,
    /// Why it was taken over, where it was.
    pub reason: Option<String>,
    /// When.
    pub since: Time,
}

/// What the vault knows of a node beside its snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRecord {
    pub(crate) version: u32,
    pub(crate) node: NodeName,
    pub(crate) uid: Option<NodeUid>,
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    pub(crate) writer: Option<WriterId>,
    pub(crate) claimed_by: String,
    pub(crate) reason: Option<String>,
    pub(crate) since: Time,
    /// For each epoch that has ended the last sequence number that counts.
    pub(crate) fence: BTreeMap<u64, Seq>,
    /// The newest snapshot that its owner recorded.
    pub(crate) newest: Option<(SnapshotId, Seq)>,
    /// The newest snapshot, once a prune has deleted it: it is not lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pruned: Option<SnapshotId>,
    /// The highest marks seen.
    pub(crate) marks: BTreeMap<String, u64>,
    /// How a restored node is held back, as the newest snapshot asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<GuardKind>,
    /// Snapshots that passed a restore test, oldest first.
    pub(crate) restored: Vec<SnapshotId>,
    /// Snapshots that failed one, oldest first: `latest` is none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed: Vec<SnapshotId>,
    /// Losses that an operator has acknowledged, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) acknowledged: Vec<Acknowledged>,
}

/// The record of each node that was opened last, and its name.
#[derive(Default)]
pub(super) struct RecordCache(Mutex<BTreeMap<NodeName, (String, NodeRecord)>>);

impl NodeRecord {
    /// A snapshot is the node's newest one from now on.
    pub(super) fn lead(&mut self, manifest: &Manifest) {
        self.newest = Some((manifest.snapshot, manifest.seq));
        self.pruned = None;
        self.guard = manifest.guard_kind();
    }

    /// The highest marks are at least those of a snapshot.
    pub(super) fn raise_marks(&mut self, manifest: &Manifest) {
        for (name, mark) in &manifest.marks {
            let highest = self.marks.entry(name.clone()).or_default();
            *highest = mark.value.max(*highest);
        }
    }

    /// Whether a snapshot was committed by a writer that had been deposed already.
    pub(crate) fn hides(&self, epoch: Epoch, seq: Seq) -> bool {
        self.fence.get(&epoch.0).is_some_and(|last| seq > *last)
    }

    pub(super) fn fresh(node: &NodeName, now: Time) -> NodeRecord {
        NodeRecord {
            version: 1,
            node: node.clone(),
            uid: None,
            number: 0,
            epoch: Epoch(0),
            writer: None,
            claimed_by: String::new(),
            reason: None,
            since: now,
            fence: BTreeMap::new(),
            newest: None,
            pruned: None,
            marks: BTreeMap::new(),
            guard: None,
            restored: Vec::new(),
            failed: Vec::new(),
            acknowledged: Vec::new(),
        }
    }
}

fn record_name(node: &NodeName, number: u64) -> String {
    Folder::Nodes.object(format_args!("{node}/{number:020}"))
}

/// Digits of the random end of a record's name in a vault without a fence.
const RANDOM_DIGITS: usize = 16;

/// The number in a record's name.
fn number_of(name: &str) -> Option<u64> {
    let stem = name.rsplit_once('/')?.1;
    stem.split_once('-').map_or(stem, |(number, _)| number).parse().ok()
}

impl Vault {
    /// The newest record of a node; `None` before its first backup.
    pub(crate) fn node_record(&self, node: &NodeName) -> Result<Option<NodeRecord>> {
        let names = self.store().names(&Folder::Nodes.object(node))?;
        let Some(last) = names.last() else { return Ok(None) };
        if let Some(before) = names.len().checked_sub(2).map(|before| &names[before])
            && number_of(before) == number_of(last)
        {
            return Err(Error::conflict(format!(
                "two writers recorded this node at once: {} and {}",
                before, last
            ))
            .with_entry(node.to_string())
            .with_remedy(
                "stop all machines but one that back this node up, then remove the record of the \
                 others with the store's own tool",
            ));
        }
        let record = self.known_node_record(last)?;
        if record.node != *node {
            return Err(sealed::foreign(last));
        }
        Ok(Some(record))
    }

    /// The newest record of a node that can be opened, for who only reads: a damaged record must
    /// not keep anybody from a restore. `check` names the damage, and nobody writes over it.
    pub(crate) fn readable_record(&self, node: &NodeName) -> Result<Option<NodeRecord>> {
        let mut damage = None;
        for name in self.store().names(&Folder::Nodes.object(node))?.iter().rev() {
            match self.known_node_record(name) {
                Ok(record) => return Ok(Some(record)),
                Err(error) if error.kind() == Kind::Corrupt => damage = damage.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        damage.map_or(Ok(None), Err)
    }

    /// A record, which is opened once where that takes a request: nothing ever changes one. A check opens each anew.
    fn known_node_record(&self, name: &str) -> Result<NodeRecord> {
        if !self.store().medium().is_remote() {
            return self.open_node_record(name);
        }
        let cache = &self.record_cache().0;
        if let Some(record) = cache.lock().values().find(|(of, _)| of == name) {
            return Ok(record.1.clone());
        }
        let record = self.open_node_record(name)?;
        cache.lock().insert(record.node.clone(), (name.to_owned(), record.clone()));
        Ok(record)
    }

    pub(crate) fn open_node_record(&self, name: &str) -> Result<NodeRecord> {
        let record: NodeRecord =
            sealed::open(self, ObjectKind::Node, name, &self.store().get(name)?)?;
        let plain = record_name(&record.node, record.number);
        let named = match name.strip_prefix(&plain) {
            Some("") => self.is_fenced(),
            Some(end) => !self.is_fenced() && is_random_end(end),
            None => false,
        };
        if record.version != 1 || !named {
            return Err(sealed::foreign(name));
        }
        Ok(record)
    }

    /// Another name under which the vault has snapshots of the node with this uid.
    ///
    /// A record that can't be opened is skipped: `check` names it, and nothing is known by it.
    pub(crate) fn other_name(&self, node: &NodeName, uid: NodeUid) -> Result<Option<NodeName>> {
        let mut others: Vec<NodeName> = Vec::new();
        for record in self.store().names(Folder::Nodes.name())? {
            let name = record.split('/').nth(1).and_then(|name| name.parse().ok());
            let name: NodeName = name.ok_or_else(|| sealed::foreign(&record))?;
            if name != *node && others.last() != Some(&name) {
                others.push(name);
            }
        }
        for other in others {
            let record = match self.readable_record(&other) {
                Ok(record) => record.filter(|record| record.uid == Some(uid)),
                Err(error) if error.kind() == Kind::Corrupt => None,
                Err(error) => return Err(error),
            };
            let Some(record) = record else { continue };
            // One that has only claimed its name, and never got further, is nobody's history.
            if record.newest.is_some() || !self.standing_names(Some(&other))?.is_empty() {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// Changes the record of a node: `change` is called on what is there (or on a fresh one) until
    /// its result could be put as the next number.
    pub(crate) fn update_node(
        &self,
        node: &NodeName,
        mut change: impl FnMut(&mut NodeRecord) -> Result<()>,
    ) -> Result<NodeRecord> {
        for _ in 0..TRIES_MAX {
            let mut record = match self.node_record(node)? {
                Some(record) => record,
                None => NodeRecord::fresh(node, self.env().now()),
            };
            change(&mut record)?;
            record.number += 1;
            let name = self.new_record_name(node, record.number)?;
            let object = sealed::seal(self, ObjectKind::Node, &name, &record)?;
            if !self.store().put_new(&name, object)? {
                continue;
            }
            if !self.is_fenced() {
                // Both of two writers that met list after their put: one of them sees the other.
                self.node_record(node)?;
                self.prune_unfenced(node, record.number)?;
            } else if let Some(old) = record.number.checked_sub(RECORDS_KEPT) {
                self.store().delete(&record_name(node, old))?;
            }
            return Ok(record);
        }
        Err(Error::conflict("other writers keep changing the record of this node")
            .with_entry(node.to_string()))
    }

    fn new_record_name(&self, node: &NodeName, number: u64) -> Result<String> {
        let name = record_name(node, number);
        if self.is_fenced() {
            return Ok(name);
        }
        let random: [u8; RANDOM_DIGITS / 2] = self.env().random()?;
        Ok(format!("{name}-{}", hex::encode(random)))
    }

    /// Deletes records behind the newest few, whatever their names end in.
    fn prune_unfenced(&self, node: &NodeName, newest: u64) -> Result<()> {
        for name in self.store().names(&Folder::Nodes.object(node))? {
            let number = number_of(&name);
            if number.is_some_and(|number| number.saturating_add(RECORDS_KEPT) <= newest) {
                self.store().delete(&name)?;
            }
        }
        Ok(())
    }

    /// Fenced where `writer` no longer owns the node under `epoch`, by its newest record.
    pub(crate) fn refuse_deposed(
        &self,
        node: &NodeName,
        record: Option<&NodeRecord>,
        epoch: Epoch,
        writer: WriterId,
    ) -> Result<()> {
        match record {
            Some(record) if record.epoch == epoch && record.writer == Some(writer) => Ok(()),
            Some(record) => Err(fenced(record)),
            None => Err(self.no_such_node(node)),
        }
    }

    /// Makes sure that `writer` owns the node, claiming it where nobody does. `record` was read just before; who takes
    /// the node over since is found by [`Vault::refuse_deposed`].
    pub(crate) fn claim(
        &self,
        node: &NodeName,
        record: Option<NodeRecord>,
        writer: WriterId,
        actor: &Actor,
        uid: NodeUid,
    ) -> Result<NodeRecord> {
        if let Some(record) = record.filter(|record| record.writer.is_some()) {
            return owned_by(record, writer);
        }
        let now = self.env().now();
        let record = self.update_node(node, |record| {
            if record.writer.is_some() {
                return Ok(());
            }
            record.writer = Some(writer);
            record.claimed_by = actor.name.clone();
            record.reason = None;
            record.since = now;
            record.uid = Some(uid);
            record.epoch = Epoch(record.epoch.0 + 1);
            Ok(())
        })?;
        owned_by(record, writer)
    }

    /// Records a committed snapshot. Fenced where the node was taken over meanwhile: the snapshot
    /// lies behind the fence then, and nobody sees it.
    pub(crate) fn record_snapshot(&self, manifest: &Manifest, writer: WriterId) -> Result<()> {
        self.update_node(&manifest.node, |record| {
            if record.epoch != manifest.epoch || record.writer != Some(writer) {
                return Err(fenced(record));
            }
            if record.newest.is_some_and(|(_, seq)| seq >= manifest.seq) {
                return Err(copied(&manifest.node));
            }
            record.uid = Some(manifest.uid);
            record.lead(manifest);
            record.raise_marks(manifest);
            Ok(())
        })?;
        Ok(())
    }

    /// Records whether a snapshot passed a restore test.
    pub(crate) fn record_test(
        &self,
        node: &NodeName,
        snapshot: SnapshotId,
        passed: bool,
    ) -> Result<()> {
        self.update_node(node, |record| {
            record.restored.retain(|&known| known != snapshot);
            record.failed.retain(|&known| known != snapshot);
            let tested = if passed { &mut record.restored } else { &mut record.failed };
            tested.push(snapshot);
            let surplus = tested.len().saturating_sub(TESTED_MAX);
            tested.drain(..surplus);
            Ok(())
        })?;
        Ok(())
    }

    /// Who owns a node.
    pub fn owner(&self, node: &NodeName, actor: &Actor) -> Result<Ownership> {
        let record = self.sound_record(node)?.ok_or_else(|| self.no_such_node(node))?;
        Ok(ownership(&record, actor.writer(self.env())?))
    }

    /// Makes `actor` the owner, under a new epoch. What the old owner commits from now on is
    /// visible to nobody. A record that is gone, or was set back, is begun anew.
    ///
    /// # Errors
    /// Input where the store does not keep two writers apart: the old owner would not notice.
    pub fn take_over(&self, node: &NodeName, actor: &Actor, reason: &str) -> Result<Ownership> {
        let names = self.standing_names(Some(node))?;
        if self.refuse_set_back(node, &names, self.node_record(node)?.as_ref()).is_err() {
            return self.begin_record_anew(node, actor, reason);
        }
        self.refuse_unfenced("a takeover would stop nobody")?;
        self.change_owner(node, actor, reason, true)
    }

    /// Gives the ownership up, so that the next writer may claim it.
    pub fn release(&self, node: &NodeName, actor: &Actor, reason: &str) -> Result<Ownership> {
        self.change_owner(node, actor, reason, false)
    }

    fn change_owner(
        &self,
        node: &NodeName,
        actor: &Actor,
        reason: &str,
        take: bool,
    ) -> Result<Ownership> {
        self.node_record(node)?.ok_or_else(|| self.no_such_node(node))?;
        let writer = actor.writer(self.env())?;
        let now = self.env().now();
        let record = self.update_node(node, |record| {
            if !take && record.writer != Some(writer) {
                return Err(fenced(record));
            }
            // What was forgotten counts too: it may be brought back.
            let names = self.standing_names(Some(node))?;
            let last = names.iter().filter(|name| name.epoch == record.epoch).map(|name| name.seq);
            record.fence.insert(record.epoch.0, last.max().unwrap_or_default());
            record.writer = take.then_some(writer);
            record.claimed_by = actor.name.clone();
            record.reason = Some(reason.to_owned());
            record.since = now;
            if take {
                record.epoch = Epoch(record.epoch.0 + 1);
            }
            Ok(())
        })?;
        Ok(ownership(&record, writer))
    }
}

fn is_random_end(end: &str) -> bool {
    let digits = end.strip_prefix('-').unwrap_or_default();
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.len() == RANDOM_DIGITS && digits.bytes().all(digit)
}

fn owned_by(record: NodeRecord, writer: WriterId) -> Result<NodeRecord> {
    if record.writer == Some(writer) { Ok(record) } else { Err(fenced(&record)) }
}

fn fenced(record: &NodeRecord) -> Error {
    Error::fenced(format!(
        "another writer owns this node: {}, since {}",
        record.claimed_by, record.since
    ))
    .with_entry(record.node.to_string())
    .with_remedy(Remedy::TakeOver(Some(record.node.to_string())))
}

/// Another copy of this installation writes under the same writer id; or what this one wrote last is
/// not the newest any more.
pub(crate) fn copied(node: &NodeName) -> Error {
    Error::fenced(
        "a copy of this installation has backed the node up: the machine was cloned; or the vault was \
         set back to what it was before the last backup",
    )
    .with_entry(node.to_string())
    .with_remedy("stop the copy, or look for the newer snapshots").with_remedy(Remedy::TakeOver(Some(node.to_string()))).with_remedy("in a vault whose store keeps no two writers apart, remove the node's file below `known` in the state directory of the machine that goes on")
}

fn ownership(record: &NodeRecord, writer: WriterId) -> Ownership {
    Ownership {
        node: record.node.clone(),
        epoch: record.epoch,
        writer: record.writer,
        ours: record.writer == Some(writer),
        claimed_by: record.claimed_by.clone(),
        reason: record.reason.clone(),
        since: record.since,
    }
}
