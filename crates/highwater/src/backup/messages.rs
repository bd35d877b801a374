//! What the stages of a backup hand to one another, and how one of them ends before its time.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::engine::Units;
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::vault::manifest::EntryRecord;
use crate::vault::pack::{FrameKind, PlainFrame, SealedFrame, UnitId};
use crate::vault::seal::ObjectKey;

use super::batch::Batch;

/// A batch whose units are hashed; `None`: all its bytes are zero.
pub(super) struct Hashed {
    pub(super) batch: Batch,
    pub(super) ids: Vec<Option<UnitId>>,
}

/// A small file, read as a whole.
pub(super) struct Whole {
    /// Its place among the files that are stored.
    pub(super) file: usize,
    pub(super) units: Units,
    pub(super) size: u64,
    pub(super) old: Option<Box<EntryRecord>>,
    /// Its content; none of an empty file.
    pub(super) content: Option<Hashed>,
}

/// What goes from the reader to the assembler, in order.
pub(super) enum Read {
    /// Small files, one after the other.
    Files(Vec<Whole>),
    /// A file begins: its place among the files that are stored, and its units.
    Begin {
        file: usize,
        units: Units,
        size: u64,
        old: Option<Box<EntryRecord>>,
    },
    Batch(Receiver<Hashed>),
    /// So many whole units of zero bytes.
    Zeros(u64),
    End,
    /// All files were read, and each part's capture held: without it nothing is committed.
    Finished,
}

/// Frames that follow one another, with the units of each.
pub(super) type Sealed = Result<Vec<(SealedFrame, Vec<UnitId>)>>;

/// What goes from the assembler to the writer, in order.
pub(super) enum Write {
    Pack { id: PackId, key: Arc<ObjectKey> },
    Frames(Receiver<Sealed>),
    Finished,
}

/// What the workers do.
pub(super) enum Job {
    Hash {
        batch: Batch,
        kind: FrameKind,
        unit: usize,
        reply: Sender<Hashed>,
    },
    /// Frames that follow one another in a pack, with the number of the first.
    Seal {
        key: Arc<ObjectKey>,
        first: u64,
        frames: Vec<PlainFrame>,
        reply: Sender<Sealed>,
    },
}

/// A stage that ended before its time: by its own fault, or because a neighbour had stopped.
pub(super) enum Halt {
    Failed(Error),
    Stopped,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Failed(error)
    }
}
