//! Records that are gone, or older than the snapshots that were committed under them: what somebody
//! who can write to the store, and has no key, can do to what a vault knows of a node.
//!
//! A record is put before the first manifest of its node, and before the first one of each epoch; and
//! a backup records the snapshot before it, where a crash kept that one from being recorded. So of a
//! record's own epoch no more than one snapshot is beyond it, and none is of a later epoch.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{NodeName, Seq};
use crate::vault::{Actor, Folder, Location, Manifest, Ownership, SnapshotName, Vault};

use super::{NodeRecord, ownership};

/// So many snapshots are committed and not recorded: the one whose backup was killed in between.
const UNRECORDED_MAX: usize = 1;

impl Vault {
    /// The newest record of a node, where it is no older than the node's snapshots. Archives hold none.
    ///
    /// # Errors
    /// Corrupt where it is older, or gone, and where it is damaged.
    pub(crate) fn sound_record(&self, node: &NodeName) -> Result<Option<NodeRecord>> {
        let (names, record) = self.standing_with_record(node)?;
        self.refuse_set_back(node, &names, record.as_ref())?;
        Ok(record)
    }

    /// A node whose backups ask for quarantine, among those with snapshots, or `node` alone; one whose snapshots
    /// were all forgotten counts until a prune has deleted them.
    ///
    /// # Errors
    /// Corrupt where the record of a node is gone, damaged, or older than its snapshots.
    pub fn guarded(&self, node: Option<&NodeName>) -> Result<Option<NodeName>> {
        let mut nodes: Vec<NodeName> =
            self.standing_names(node)?.into_iter().map(|name| name.node).collect();
        nodes.dedup();
        for node in nodes {
            if self.sound_record(&node)?.is_some_and(|record| record.guard.is_some()) {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// Corrupt where the snapshots of a node, `names`, can't have been committed under its record.
    pub(crate) fn refuse_set_back(
        &self,
        node: &NodeName,
        names: &[SnapshotName],
        record: Option<&NodeRecord>,
    ) -> Result<()> {
        if names.is_empty() || matches!(self.location(), Location::Archive(_)) {
            return Ok(());
        }
        let Some(record) = record else {
            return Err(set_back(node, format!("the vault's record of {node} is missing")));
        };
        let later = names.iter().any(|name| name.epoch > record.epoch);
        if later || unrecorded(names, record).count() > UNRECORDED_MAX {
            let what = format!("the vault's record of {node} is older than the node's snapshots");
            return Err(set_back(node, what));
        }
        Ok(())
    }

    /// Begins the record of a node anew, with `actor` as its owner, from the snapshots that are left: a
    /// takeover by somebody who knows that the old record is gone. Which snapshots passed a test, and
    /// which marks only lost ones had, is forgotten with it.
    pub(super) fn begin_record_anew(
        &self,
        node: &NodeName,
        actor: &Actor,
        reason: &str,
    ) -> Result<Ownership> {
        let writer = actor.writer(self.env())?;
        let now = self.env().now();
        let names = self.standing_names(Some(node))?;
        let mut manifests: Vec<Manifest> = Vec::new();
        for name in &names {
            match self.outline(name) {
                Ok(manifest) => manifests.push(manifest),
                // It hides itself alone.
                Err(error) if error.kind() == Kind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        let mut last: BTreeMap<u64, Seq> = BTreeMap::new();
        for name in &names {
            let seq = last.entry(name.epoch.0).or_default();
            *seq = name.seq.max(*seq);
        }
        let record = self.update_node(node, |record| {
            let guard = manifests.iter().rev().find_map(Manifest::guard_kind).or(record.guard);
            manifests.iter().for_each(|manifest| record.raise_marks(manifest));
            if let Some(newest) = manifests.last() {
                record.uid = Some(newest.uid);
                if record.newest.is_none_or(|(_, seq)| seq < newest.seq) {
                    record.lead(newest);
                }
            }
            // Some snapshot has asked for it: that is not forgotten with the record.
            record.guard = guard;
            let highest = names.iter().map(|name| name.epoch).max().unwrap_or_default();
            record.fence.extend(last.clone());
            record.epoch = record.epoch.max(highest);
            record.epoch.0 += 1;
            record.writer = Some(writer);
            record.claimed_by = actor.name.clone();
            record.reason = Some(reason.to_owned());
            record.since = now;
            Ok(())
        })?;
        Ok(ownership(&record, writer))
    }
}

/// The snapshots of the record's own epoch that it does not tell of.
pub(crate) fn unrecorded<'a>(
    names: &'a [SnapshotName],
    record: &NodeRecord,
) -> impl Iterator<Item = &'a SnapshotName> + use<'a> {
    let (epoch, newest) = (record.epoch, record.newest.map_or(Seq(0), |(_, seq)| seq));
    names.iter().filter(move |name| name.epoch == epoch && name.seq > newest)
}

fn set_back(node: &NodeName, what: String) -> Error {
    Error::corrupt(format!("{what}: somebody has deleted records of it, and maybe newer snapshots"))
        .with_entry(Folder::Nodes.object(node))
        .with_remedy("look for the rest of the vault, or another copy of it")
        .with_remedy(Remedy::TakeOver(Some(node.to_string())))
}
