//! A snapshot, as an agent tells of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{NodeName, Seq, SnapshotId, Time};
use crate::vault::manifest::{channels, totals};
use crate::vault::shrink::Loss;
use crate::vault::{Level, SnapshotInfo};

/// A snapshot, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its node.
    pub node: NodeName,
    /// When its barrier was.
    pub time: Time,
    /// Its place among the node's snapshots.
    pub seq: Seq,
    /// The snapshot that its unchanged units come from.
    pub parent: Option<SnapshotId>,
    /// How far it is known to be good.
    pub level: Level,
    /// Bytes of its files.
    pub bytes_total: u64,
    /// Bytes that were read for it.
    pub bytes_read: u64,
    /// Bytes that were stored for it.
    pub bytes_stored: u64,
    /// The node's marks at the barrier: those of the whole node, and over all channels the sum of each counter.
    pub marks: BTreeMap<String, u64>,
    /// How many channels, or keys, have marks of their own.
    pub channels: u64,
    /// The caller's tags.
    pub tags: BTreeMap<String, String>,
    /// What it lacks that an earlier one has, and nobody has acknowledged.
    pub shrunk: Vec<Loss>,
}

impl From<&SnapshotInfo> for Snapshot {
    fn from(info: &SnapshotInfo) -> Snapshot {
        let manifest = &info.manifest;
        Snapshot {
            snapshot: manifest.snapshot,
            node: manifest.node.clone(),
            time: manifest.time,
            seq: manifest.seq,
            parent: manifest.parent,
            level: info.level,
            bytes_total: manifest.parts.iter().map(|part| part.bytes()).sum(),
            bytes_read: manifest.bytes_read,
            bytes_stored: info.bytes_stored(),
            marks: totals(&manifest.marks)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            channels: channels(&manifest.marks).len() as u64,
            tags: manifest.tags.clone(),
            shrunk: info.shrunk.clone(),
        }
    }
}
