//! The records that a manifest is made of, and that a capture hands on: what a part is, what its entries
//! are, and by what they are known.

mod kind;

pub use kind::{EngineKind, Opens};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{RelPath, StoreId};

/// How a part was made consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// A checkpoint that the node made through its hook.
    Checkpoint,
    /// SQLite's own read transaction.
    Sqlite,
    /// Its lock was held, or nobody had it open, for as long as it was read.
    Offline,
    /// Each file by itself, and none changed while it was read.
    Files,
    /// The node was stopped while its files were linked and copied as they were: what a crash of
    /// its processes at that instant would have left.
    Frozen,
    /// Its files were held while the node went on: what a crash of its process at one instant would have
    /// left.
    Live,
}

/// What kind of instant all databases of a snapshot share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Barrier {
    /// The node was stopped.
    Frozen,
    /// The node held its writes while its hooks ran.
    Hook,
    /// No database moved between the first and the last one that was taken: there is only one, or
    /// the others were locked, or they were seen not to have changed.
    Single,
    /// The only database that moved was captured while the node wrote it.
    Live,
    /// Each database has an instant of its own.
    None,
}

/// The type of a directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type", deny_unknown_fields)]
pub enum EntryType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, stored as a link.
    Symlink {
        /// Where it leads, percent-encoded bytes.
        target: String,
    },
    /// A further name of a regular file of the same part, which is recorded under its first name.
    Hardlink {
        /// That name.
        to: RelPath,
    },
    /// A socket; recorded, never opened, not restored.
    Socket,
    /// A named pipe; recorded, never opened, not restored.
    Fifo,
    /// A device; recorded, never opened, not restored.
    Device,
}

/// What the file system says of an entry besides its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification, in nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// Extended attributes: name (percent-encoded) and value (hex).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, String)>,
}

/// How a file's content is cut into units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "units", deny_unknown_fields)]
pub enum Units {
    /// A page file: units of `bytes`, compared by position.
    Pages {
        /// The page size, 4 KiB at least.
        bytes: u32,
    },
    /// Slices of 4 MiB, found again by their content.
    Slices,
}

/// By what an unchanged file is known without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time in nanoseconds.
    pub mtime_ns: i64,
    /// Its inode.
    pub inode: u64,
    /// What the engine adds: database identity, change counter, state of the log.
    pub engine: Arc<str>,
}

/// Where the replicated store of a part stood at the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaPoint {
    /// Which store.
    pub store: StoreId,
    /// The number of its last ownership.
    pub epoch: u64,
    /// The last write that is among its values.
    pub seq: u64,
    /// The last write that the server was known to have.
    pub acknowledged: u64,
}
