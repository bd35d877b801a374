//! What a backup settles before it touches anything: names, identity, parent.

use std::path::Path;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::ids::{Epoch, NodeName, NodeUid, Seq};
use crate::node::NodeFile;
use crate::vault::{Actor, Manifest, NodeRecord, Vault, copied};

/// Refuses a vault inside the node directory, or a node directory inside the vault.
pub(super) fn keep_apart(dir: &Path, vault: &Vault) -> Result<()> {
    let Some(path) = vault.location().local_path() else { return Ok(()) };
    let path = path
        .canonicalize()
        .map_err(|error| Error::io("looking up the vault's directory", error))?;
    if path.starts_with(dir) || dir.starts_with(&path) {
        return Err(Error::input("vault and node directory lie in one another")
            .entry(vault.location().to_string())
            .hint("a vault inside the node directory would be lost with it: put it elsewhere"));
    }
    Ok(())
}

/// The newest snapshot of the node: by epoch and sequence, never by a clock.
pub(super) fn parent(vault: &Vault, node: &NodeName) -> Result<Option<Manifest>> {
    match vault.snapshot_names(Some(node))?.last() {
        Some(name) => vault.manifest(name).map(Some),
        None => Ok(None),
    }
}

/// Who this directory is, or is to be; nothing is written yet. Another node under a name that the vault
/// knows is a conflict: its snapshots would be taken for those of the first one.
pub(super) fn identify(
    dir: &Path,
    node: &NodeName,
    parent: Option<&Manifest>,
    adopt: bool,
    control: &Control,
) -> Result<NodeFile> {
    let known = NodeFile::read(dir)?;
    let expected = parent.map(|parent| parent.uid);
    match (known, expected) {
        (Some(known), Some(expected)) if known.uid != expected && !adopt => Err(another_node(node)),
        (None, Some(_)) if !adopt => Err(another_node(node)),
        (Some(known), None) => Ok(known),
        (known, Some(expected)) => {
            let guard = parent.and_then(Manifest::guard_kind);
            let (restore, guard) =
                known.map_or((None, guard), |known| (known.restore, known.guard.or(guard)));
            Ok(NodeFile { uid: expected, restore, guard })
        }
        (None, None) => {
            Ok(NodeFile { uid: NodeUid::random(&control.env)?, restore: None, guard: None })
        }
    }
}

/// Under an epoch of our own every snapshot is ours: one that this installation doesn't know is that
/// of a clone.
pub(super) fn refuse_copy(
    vault: &Vault,
    actor: &Actor,
    parent: Option<&Manifest>,
    epoch: Epoch,
) -> Result<()> {
    match parent.filter(|parent| parent.epoch == epoch) {
        Some(parent) if !actor.knows(vault.id(), &parent.node, parent.snapshot)? => {
            Err(copied(&parent.node))
        }
        _ => Ok(()),
    }
}

/// The snapshot whose units are used: the newest one, unless all is to be stored anew, or a pack of
/// it is gone. A snapshot must not be built on what is not there.
pub(super) fn base<'a>(
    vault: &Vault,
    node: &NodeName,
    parent: Option<&'a Manifest>,
    full: bool,
) -> Result<(Option<&'a Manifest>, Vec<String>)> {
    let mut warnings = vault.warnings();
    warnings.extend(vault.node_warnings(node)?);
    let Some(parent) = parent.filter(|_| !full) else { return Ok((None, warnings)) };
    let Some(missing) = vault.missing_pack(parent)? else { return Ok((Some(parent), warnings)) };
    warnings.push(format!(
        "{missing}, which the snapshots before need, is missing: everything was stored anew"
    ));
    Ok((None, warnings))
}

/// The number after the last one that was ever given, also to a snapshot that is gone.
pub(super) fn next_seq(parent: Option<&Manifest>, record: &NodeRecord) -> Seq {
    let standing = parent.map_or(Seq(0), |parent| parent.seq);
    let recorded = record.newest.map_or(Seq(0), |(_, seq)| seq);
    Seq(standing.max(recorded).0 + 1)
}

fn another_node(node: &NodeName) -> Error {
    Error::conflict(format!("the vault knows another node under the name {node}"))
        .entry(node.to_string())
        .hint(
            "choose another name with --node; or, if this directory goes on as that node, --adopt",
        )
}
