//! What a snapshot lacks that an earlier one has, as manifests and records of nodes keep it.

use serde::{Deserialize, Serialize};

use crate::ids::{SnapshotId, Time};

/// What a snapshot lacks that an earlier one of its node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// The part; `None`: the snapshot as a whole.
    pub part: Option<String>,
    /// In which way it is less than it was.
    pub how: Shrunk,
    /// Its bytes in the snapshot before.
    pub bytes_before: u64,
    /// Its bytes now.
    pub bytes: u64,
    /// The last snapshot before the loss.
    pub before: SnapshotId,
    /// The caller left it out on purpose, by a glob.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
}

/// In which way something is less than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shrunk {
    /// There is no part of that name.
    Missing,
    /// The file without which the database can't be opened has no bytes.
    Empty,
    /// It has half of its bytes, or fewer.
    Smaller,
}

/// An operator's word that a loss is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    /// The snapshot that lacks something.
    pub snapshot: SnapshotId,
    /// Why that is right.
    pub reason: String,
    /// Who says so, as it named itself.
    pub by: String,
    /// When.
    pub time: Time,
    /// What it lacks.
    pub losses: Vec<Loss>,
}
