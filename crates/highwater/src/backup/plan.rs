//! What a backup settles before it touches anything: names, identity, parent.

use std::path::Path;

use crate::control::Control;
use crate::engine::is_read_only;
use crate::env::FaultPoint;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{GuardKind, NodeName, NodeUid, Seq, WriterId};
use crate::node::NodeFile;
use crate::rooted::RootedPath;
use crate::vault::manifest::PartRecord;
use crate::vault::{Actor, Manifest, NodeRecord, SnapshotName, Vault, copied, unrecorded};

/// Refuses a vault inside the node directory, or a node directory inside the vault.
pub(super) fn keep_apart(dir: &Path, vault: &Vault) -> Result<()> {
    vault.refuse_read_only()?;
    for path in vault.location().paths() {
        let path = path
            .canonicalize()
            .map_err(|error| Error::io("looking up the vault's directory", error))?;
        if path.starts_with(dir) || dir.starts_with(&path) {
            return Err(Error::input("vault and node directory lie in one another")
                .with_entry(vault.location().to_string())
                .with_remedy(
                    "a vault inside the node directory would be lost with it: put it elsewhere",
                ));
        }
    }
    Ok(())
}

/// What a vault has of a node, by one listing.
pub(super) struct Standing {
    /// The newest snapshot that stands, whether it was forgotten or not: what a commit must come after.
    pub(super) newest: Option<SnapshotName>,
    /// The newest visible one: by epoch and sequence, never by a clock.
    pub(super) parent: Option<Manifest>,
    /// The record of the node, no older than these.
    pub(super) recorded: Option<NodeRecord>,
    /// The newest one that it tells of was not found.
    pub(super) lost: bool,
}

impl Standing {
    /// # Errors
    /// Corrupt where the record is older than the snapshots, or gone: who would go on behind it would hide that;
    /// and where the newest visible snapshot is damaged.
    pub(super) fn of(vault: &Vault, node: &NodeName) -> Result<Standing> {
        // The trash first: a prune removes manifests before what hides them.
        let trash = vault.trash()?;
        let (mut names, recorded) = vault.standing_with_record(node)?;
        let visible = names.iter().rfind(|name| !trash.hides(name.snapshot));
        let parent = visible.map(|name| parent(vault, name)).transpose()?;
        vault.refuse_set_back(node, &names, recorded.as_ref())?;
        let last = recorded.as_ref().and_then(|record| record.newest).map(|(newest, _)| newest);
        let is_there = names.iter().any(|name| Some(name.snapshot) == last);
        Ok(Standing { newest: names.pop(), lost: last.is_some() && !is_there, parent, recorded })
    }
}

fn parent(vault: &Vault, name: &SnapshotName) -> Result<Manifest> {
    let id = name.snapshot;
    as_far_as_readable(vault, name).map_err(|error| match error.kind() {
        Kind::Corrupt => error.with_remedy(Remedy::Forget(id.to_string())),
        _ => error,
    })
}

/// A manifest; where lists of it are lost it is left without those entries, as one whose packs are lost.
fn as_far_as_readable(vault: &Vault, name: &SnapshotName) -> Result<Manifest> {
    let mut manifest = vault.outline(name)?;
    match vault.fill_in(&mut manifest) {
        Err(error)
            if error.kind() == Kind::Corrupt
                && !manifest.parts.iter().all(PartRecord::is_loaded) =>
        {
            Ok(manifest)
        }
        filled => filled.map(|()| manifest),
    }
}

/// Whom the vault knows under a name.
pub(super) struct Known {
    uid: NodeUid,
    guard: Option<GuardKind>,
}

impl Known {
    /// By the newest visible snapshot; where all are forgotten, and may be brought back, by the record.
    pub(super) fn of(parent: Option<&Manifest>, record: Option<&NodeRecord>) -> Option<Known> {
        let by_record = || {
            let record = record.filter(|record| record.newest.is_some())?;
            Some(Known { uid: record.uid?, guard: record.guard })
        };
        parent
            .map(|parent| Known { uid: parent.uid, guard: parent.guard_kind() })
            .or_else(by_record)
    }
}

/// Who this directory is, or is to be; nothing is written yet. Another node under a name that the vault
/// knows is a conflict: its snapshots would be taken for those of the first one.
pub(super) fn identify(
    vault: &Vault,
    dir: &RootedPath,
    node: &NodeName,
    known_there: Option<Known>,
    adopt: bool,
    control: &Control,
) -> Result<NodeFile> {
    let known = NodeFile::read_at(dir)?;
    let expected = known_there.as_ref().map(|known| known.uid);
    match (known, expected) {
        (Some(known), Some(expected)) if known.uid != expected && !adopt => Err(another_node(node)),
        // Nothing can be written into one that is mounted read-only: it goes by its name, and its owner is asked for.
        (None, Some(_)) if !adopt && !is_read_only(dir)? => Err(another_node(node)),
        (Some(known), None) => {
            refuse_second_name(vault, node, &known)?;
            Ok(known)
        }
        (known, Some(expected)) => {
            let guard = known_there.and_then(|known| known.guard);
            let (restore, guard) =
                known.map_or((None, guard), |known| (known.restore, known.guard.or(guard)));
            Ok(NodeFile { uid: expected, restore, guard })
        }
        (None, None) => {
            Ok(NodeFile { uid: NodeUid::random(&control.env)?, restore: None, guard: None })
        }
    }
}

/// Makes a directory the node's, which only who may write its snapshots does. A warning where nothing can be written
/// into it.
pub(super) fn make_the_node_s(
    dir: &RootedPath,
    identity: &NodeFile,
    control: &Control,
) -> Result<Option<String>> {
    if NodeFile::read_at(dir)?.as_ref() == Some(identity) {
        return Ok(None);
    }
    match identity.write(dir, &control.env) {
        Err(_) if is_read_only(dir)? => Ok(Some(
            "the node directory is mounted read-only: the vault knows the node by its name alone"
                .to_owned(),
        )),
        written => written.map(|()| None),
    }
}

/// Refuses a name that is new to the vault where it knows the node under another one: each name has an
/// owner of its own, so that two machines would write one node's history side by side, and no fence
/// would stop either.
fn refuse_second_name(vault: &Vault, node: &NodeName, identity: &NodeFile) -> Result<()> {
    let Some(other) = vault.other_name(node, identity.uid)? else { return Ok(()) };
    Err(Error::conflict(format!("the vault knows this node under the name {other}, not {node}"))
        .with_entry(node.to_string())
        .with_remedy(Remedy::NameNode(Some(other.to_string()))))
}

/// Under an epoch of our own every snapshot is ours: one that this installation doesn't know is that
/// of a clone.
pub(super) fn refuse_copy(
    vault: &Vault,
    actor: &Actor,
    newest: Option<&SnapshotName>,
    record: &NodeRecord,
) -> Result<()> {
    let Some(newest) = newest.filter(|newest| newest.epoch == record.epoch) else {
        // A vault that has lost all of them; who took the node over since has seen that.
        let lost = newest.is_none() && record.newest.is_none() && record.reason.is_none();
        return match lost && actor.has_committed(vault.id(), &record.node)? {
            true => Err(copied(&record.node)),
            false => Ok(()),
        };
    };
    // Where newer ones were forgotten and deleted, the record tells the last one that there was.
    let last = record.newest.filter(|(_, seq)| *seq > newest.seq);
    let last = last.map_or(newest.snapshot, |(last, _)| last);
    if actor.knows(vault.id(), &newest.node, last)? {
        return Ok(());
    }
    Err(copied(&newest.node))
}

/// Records the newest snapshot, where a crash kept its own backup from that: then no more than one is
/// ever beyond the record, and a record that more are beyond was set back.
pub(super) fn record_before(
    vault: &Vault,
    newest: Option<&SnapshotName>,
    record: NodeRecord,
    writer: WriterId,
    control: &Control,
) -> Result<NodeRecord> {
    let names: Vec<SnapshotName> = newest.into_iter().cloned().collect();
    let Some(name) = unrecorded(&names, &record).next() else { return Ok(record) };
    let manifest = match vault.outline(name) {
        // What can't be opened can't be recorded: `check` names it, and a takeover goes on.
        Err(error) if error.kind() == Kind::Corrupt => return Ok(record),
        manifest => manifest?,
    };
    control.env.fault(FaultPoint::BackupNodeRecord)?;
    vault.record_snapshot(&manifest, writer)?;
    Ok(vault.node_record(&name.node)?.unwrap_or(record))
}

/// The snapshot whose units are used, once the intent names it: from then on no prune deletes what it
/// needs. It must still be visible, in the generation that is the highest now, with all its packs.
/// What a prune deleted before the intent was put is not built on.
pub(super) fn base(
    vault: &Vault,
    parent: Option<Manifest>,
    warnings: &mut Vec<String>,
) -> Result<Option<Manifest>> {
    let Some(parent) = parent else { return Ok(None) };
    let trash = vault.trash()?;
    trash.refuse_unknown()?;
    let names = vault.standing_names(Some(&parent.node))?;
    let mut visible = names.iter().filter(|name| !trash.hides(name.snapshot));
    let Some(name) = visible.find(|name| name.snapshot == parent.snapshot) else {
        warnings.push(format!(
            "the snapshot before, {}, was forgotten meanwhile: everything was stored anew",
            parent.snapshot
        ));
        return Ok(None);
    };
    let parent = if name.generation == parent.generation {
        parent
    } else {
        as_far_as_readable(vault, name)?
    };
    if !parent.parts.iter().all(PartRecord::is_loaded) {
        warnings.push(format!(
            "lists of the snapshot before, {}, are damaged or missing: everything was stored anew",
            parent.snapshot
        ));
        return Ok(None);
    }
    // A manifest that arrived late is visible while a prune that did not see it deletes its packs.
    // So the trash is read once the manifest is known.
    let trash = vault.trash()?;
    trash.refuse_unknown()?;
    if parent.packs.iter().any(|pack| trash.claims(pack.id)) {
        warnings.push(format!(
            "a prune deletes packs of the snapshot before, {}: everything was stored anew",
            parent.snapshot
        ));
        return Ok(None);
    }
    let Some(missing) = vault.missing_pack(&parent)? else { return Ok(Some(parent)) };
    warnings.push(format!(
        "{missing}, which the snapshots before need, is missing: everything was stored anew"
    ));
    Ok(None)
}

/// The number after the last one that was ever given, also to a snapshot that is gone.
pub(super) fn next_seq(newest: Option<&SnapshotName>, record: &NodeRecord) -> Seq {
    let standing = newest.map_or(Seq(0), |newest| newest.seq);
    let recorded = record.newest.map_or(Seq(0), |(_, seq)| seq);
    Seq(standing.max(recorded).0 + 1)
}

fn another_node(node: &NodeName) -> Error {
    Error::conflict(format!("the vault knows another node under the name {node}"))
        .with_entry(node.to_string())
        .with_remedy(Remedy::NameNode(None))
        .with_remedy(Remedy::Adopt)
}
