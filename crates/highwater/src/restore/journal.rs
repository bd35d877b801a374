//! The journal of one exchange: what was intended, how far it may have gone, and by which inodes
//! the two sides are known. Once the exchange is done it becomes the record of what is kept, in one
//! rename, so that the end needs no free space.

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::durable::{self, Inode};
use crate::error::{Error, Result};
use crate::ids::{RelPath, RestoreId, SnapshotId, Time};
use crate::rooted::{Reach, RootedPath};

/// The format that this program writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// A longer journal is none of ours: each entry of a directory takes some 150 bytes of it.
const BYTES_MAX: u64 = 256 << 20;

/// What is exchanged for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    /// The staged directory takes the place of the node's, which is kept.
    Restore,
    /// The kept directory and the node's change places.
    Rollback,
}

/// How far the operation may have gone. What a phase announces has not begun before the journal
/// says so, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Only staging is written.
    Staging,
    /// Directory against directory. Before: undone; after: finished. The inodes tell.
    Exchange,
    /// Entry points are being withheld. From here on recovery goes forward.
    Withhold,
    /// All entry points are withheld; entries are being exchanged.
    Entries,
    /// All entries are exchanged; entry points are being revealed.
    Reveal,
    /// All entry points are revealed; what was exchanged out is being put aside.
    Keep,
}

/// How two directories change places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    /// As wholes, in one step.
    Whole,
    /// Entry by entry, inside a mount point.
    Entries,
}

/// Which node a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Node {
    /// The one from before the restore.
    Old,
    /// The restored one.
    New,
}

impl Node {
    /// The other one of the two.
    pub(super) fn other(self) -> Node {
        match self {
            Node::Old => Node::New,
            Node::New => Node::Old,
        }
    }

    /// The outcome that leaves this one in the node directory.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Node::Old => Outcome::Old,
            Node::New => Outcome::New,
        }
    }
}

/// One side of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    /// What stood in the node directory before.
    Outgoing,
    /// What takes its place.
    Incoming,
}

/// An entry point in whose place something unreadable stands; its number in the list is the name
/// under which it waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Withheld {
    /// To which side it belongs.
    pub(super) side: Side,
    /// Its path on that side.
    pub(super) path: RelPath,
    /// Its inode.
    pub(super) inode: Inode,
    /// The inode of what stands in its place.
    pub(super) placeholder: Inode,
}

/// An entry of the incoming side, as it is when entry points are withheld.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its path: one name, or one below `.highwater`.
    pub(super) path: RelPath,
    /// Its inode.
    pub(super) inode: Inode,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Always [`FORMAT`].
    pub(super) format: u32,
    /// What is exchanged for what.
    pub(super) operation: Operation,
    /// How far it may have gone.
    pub(super) phase: Phase,
    /// How they change places.
    pub(super) way: Way,
    /// Which node comes in.
    pub(super) incoming: Node,
    /// The restore, or the one that is undone.
    pub(super) restore: RestoreId,
    /// The snapshot that was restored.
    pub(super) snapshot: SnapshotId,
    /// When the operation began.
    pub(super) time: Time,
    /// The inode of the incoming directory, from [`Phase::Exchange`] or [`Phase::Withhold`] on.
    pub(super) staged: Option<Inode>,
    /// The inode of the node directory before; `None` where there was none.
    pub(super) replaced: Option<Inode>,
    /// What is withheld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) withheld: Vec<Withheld>,
    /// What comes in, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) entries: Vec<Entry>,
}

impl Journal {
    /// The journal of a restore that begins.
    pub(super) fn restore(way: Way, restore: RestoreId, snapshot: SnapshotId, time: Time) -> Self {
        Journal {
            format: FORMAT,
            operation: Operation::Restore,
            phase: Phase::Staging,
            way,
            incoming: Node::New,
            restore,
            snapshot,
            time,
            staged: None,
            replaced: None,
            withheld: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The journal of the rollback of what `self` records as done.
    pub(super) fn rollback(&self, time: Time) -> Journal {
        Journal {
            operation: Operation::Rollback,
            incoming: self.incoming.other(),
            ..Journal::restore(self.way, self.restore, self.snapshot, time)
        }
    }

    /// Once done: the inode of the node directory.
    pub(super) fn target_inode(&self) -> Option<Inode> {
        match self.way {
            Way::Whole => self.staged,
            Way::Entries => self.replaced,
        }
    }

    /// Once done: the inode of the directory that is kept.
    pub(super) fn kept_inode(&self) -> Option<Inode> {
        match self.way {
            Way::Whole => self.replaced,
            Way::Entries => self.staged,
        }
    }

    /// Whether a journal stands in a work directory, whoever wrote it.
    pub(super) fn is_there(work: &RootedPath) -> Result<bool> {
        Ok(Journal::read(&work.join("journal.json"))?.is_some())
    }

    /// Reads the journal at `path`; `None` where there is none.
    pub(super) fn read(path: &(impl Reach + ?Sized)) -> Result<Option<Journal>> {
        let place = path.reach()?;
        let bytes = match place.read(BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(durable::met(&place, "read", error)),
        };
        Journal::parse(&bytes).map(Some).map_err(|error| error.with_entry(place.to_string()))
    }

    /// From its stored form.
    pub(super) fn parse(bytes: &[u8]) -> Result<Journal> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let broken = |error: serde_json::Error| {
            Error::corrupt("the journal of a restore can't be read").with_source(error)
        };
        let head: Head = serde_json::from_slice(bytes).map_err(broken)?;
        if head.format != FORMAT {
            return Err(Error::input(format!(
                "the journal of a restore has format {}, this program knows {FORMAT}",
                head.format
            ))
            .with_remedy("use the version that began the restore"));
        }
        serde_json::from_slice(bytes).map_err(broken)
    }

    /// Writes it to `path` in one step, durable when it returns.
    pub(super) fn write(&self, path: &(impl Reach + ?Sized)) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::bug("a journal can't be written as JSON").with_source(error))?;
        bytes.push(b'\n');
        let path = path.reach()?;
        let fresh = path.with_suffix(".new");
        durable::write_file(&fresh, &bytes)?;
        durable::replace(&fresh, &path)
    }
}
