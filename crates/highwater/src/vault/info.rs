//! What is told of a snapshot, and how one is chosen.

use serde::{Deserialize, Serialize};

use super::loss::{Acknowledged, Loss};
use super::manifest::Manifest;
use crate::ids::{NodeName, Time};

/// How far a snapshot is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It failed a restore test: never `latest`.
    Failed,
    /// Every frame was opened and compared before the commit.
    Sealed,
    /// It was restored to a scratch directory, opened, and the engines' own checks passed.
    Restored,
}

/// A snapshot, as `snapshots` lists it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The sealed description.
    pub manifest: Manifest,
    /// How far it is known to be good.
    pub level: Level,
    /// The size of the manifest's own object.
    pub manifest_bytes: u64,
    /// What it lacks that an earlier one has, and nobody has acknowledged.
    pub shrunk: Vec<Loss>,
    /// Who has acknowledged what it lacks, and why.
    pub acknowledged: Option<Acknowledged>,
}

impl SnapshotInfo {
    /// Bytes that were stored for it: packs and manifest.
    pub fn bytes_stored(&self) -> u64 {
        self.manifest.bytes_stored + self.manifest_bytes
    }
}

/// Which snapshot is meant.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// An id, a unique prefix of one, or `latest`.
    pub snapshot: String,
    /// The node; needed for `latest` where the vault has several.
    pub node: Option<NodeName>,
    /// Only snapshots whose barrier was at this time or before.
    pub before: Option<Time>,
    /// Only snapshots of this level or above.
    pub require: Option<Level>,
}
