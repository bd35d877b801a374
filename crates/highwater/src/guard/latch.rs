//! The latch, `highwater-quarantine.json` in the node directory: it is there as long as anything of
//! the node is quarantined, and part of the exchange that brings the node back.

use std::collections::BTreeMap;

use highwater_guard::{Evidence, Ours, Verdict};
use serde::{Deserialize, Serialize};

use crate::ids::{NodeName, NodeUid, RelPath, RestoreId, SnapshotId, Time};

/// What stands in the latch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latch {
    /// The version of this document; 1.
    pub version: u32,
    /// The node's name in the vault.
    pub node: NodeName,
    /// The node.
    pub uid: NodeUid,
    /// What brought the directory here.
    pub cause: Cause,
    /// The restore that did, or that was undone.
    pub restore: RestoreId,
    /// Its snapshot.
    pub snapshot: SnapshotId,
    /// When.
    pub time: Time,
    /// The highest marks that the vault had seen of the node.
    pub marks: BTreeMap<String, u64>,
    /// The channels, by the node's own names. Empty until the node, or its adapter, has listed them.
    pub channels: BTreeMap<String, Recorded>,
    /// The channels are listed: one that is not there was opened later, and is free.
    pub listed: bool,
    /// Entry points that are withheld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
}

/// What brought a directory into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was restored from a snapshot.
    Restore,
    /// A restore was undone: it is the directory from before.
    Rollback,
}

/// What is recorded of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// What the node remembers.
    pub ours: Option<Ours>,
    /// What others say.
    pub evidence: Option<Evidence>,
    /// The last verdict; `None` before the first.
    pub verdict: Option<Verdict>,
    /// An operator's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Released>,
}

/// An operator's release, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// Why.
    pub reason: String,
    /// By whom.
    pub by: String,
    /// When.
    pub time: Time,
}

/// A database's entry point in whose place a note stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withheld {
    /// The name of its part.
    pub part: String,
    /// Where it belongs.
    pub path: RelPath,
    /// Where it waits.
    pub place: RelPath,
}

/// A channel, or a database, in quarantine: for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The channel's name; of a database the name of its part.
    pub id: String,
    /// Where it stands.
    pub state: HeldState,
    /// Why, in plain words.
    pub reason: String,
}

/// Where a quarantined channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// No verdict yet.
    Waiting,
    /// Condemned: a way out is the peer's close, or a release.
    Blocked,
    /// A database whose entry point is withheld.
    Withheld,
    /// Clear by a verdict.
    Clear,
    /// The chain has decided.
    Closed,
    /// Released by an operator.
    Released,
}
