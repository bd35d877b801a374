//! One backup: capture the node, seal what changed, commit a snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::control::Control;
use crate::engine::{Barrier, CaptureOptions, DiscoverOptions, EngineKind};
use crate::error::{Error, Result};
use crate::ids::{NodeName, Seq, SnapshotId};
use crate::vault::manifest::Mark;
use crate::vault::{Actor, Vault};

/// What a backup does besides the common.
#[derive(Clone, Default)]
pub struct BackupOptions {
    /// The node's name in the vault; the directory's name where `None`.
    pub node: Option<NodeName>,
    /// Tags of the snapshot.
    pub tags: BTreeMap<String, String>,
    /// Marks that the caller claims.
    pub marks: BTreeMap<String, u64>,
    /// The node's schema version.
    pub schema: Option<String>,
    /// What is left out, and links that may lead out.
    pub discover: DiscoverOptions,
    /// Hooks, barrier, bounds.
    pub capture: CaptureOptions,
    /// Reads every file, also the unchanged ones.
    pub rehash: bool,
    /// Reads no more than so many bytes a second.
    pub rate_max: Option<u64>,
    /// A restore of this snapshot withholds the databases' entry points.
    pub guarded: bool,
    /// This directory goes on as the node of that name, although it carries another uid.
    pub adopt: bool,
}

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The node's name.
    pub node: NodeName,
    /// Name, engine, files and bytes of each part.
    pub parts: Vec<(String, EngineKind, u64, u64)>,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes read from the node.
    pub bytes_read: u64,
    /// Bytes written to the vault.
    pub bytes_stored: u64,
    /// The snapshot before.
    pub parent: Option<SnapshotId>,
    /// Its place among the node's snapshots.
    pub seq: Seq,
    /// What kind of instant the databases share.
    pub barrier: Barrier,
    /// How long the node was stopped, held, or a writer of it kept waiting.
    pub pause: Duration,
    /// How long it all took.
    pub duration: Duration,
    /// Marks at the barrier.
    pub marks: BTreeMap<String, Mark>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Backs up the node directory `dir` into `vault`.
///
/// # Errors
/// Conflict where a backup of the node runs already, or a part can't be captured as it is; fenced
/// where another writer owns the node; input where the directory is no node directory or the vault
/// lies inside it. Whatever fails, no snapshot becomes visible.
pub fn run(
    vault: &Vault,
    dir: &Path,
    actor: &Actor,
    options: &BackupOptions,
    control: &Control,
) -> Result<BackupReport> {
    let _ = (vault, dir, actor, options, control);
    Err(Error::bug("not yet"))
}
