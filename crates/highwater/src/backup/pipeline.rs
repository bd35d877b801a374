//! The pipeline of a backup: read, hash, compare, compress, seal, write, all at once.
//!
//! The calling thread reads; workers hash and seal; the assembler compares with the parent and
//! cuts frames; the writer fills packs. Order is kept by handing on receivers of results, not
//! results; every queue has a bound, so that memory does not grow with the database.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::control::Control;
use crate::engine::{PartCapture, Units};
use crate::error::{Error, Result};
use crate::ids::{PackId, SnapshotId};
use crate::vault::manifest::EntryRecord;
use crate::vault::pack::{FrameKind, PlainFrame, SealedFrame, UnitId, UnitKeys, seal_frame};
use crate::vault::seal::ObjectKey;
use crate::vault::{Manifest, Vault};

use super::assemble::{Assembler, FileMap};
use super::batch::{Batch, Batcher, Rate};
use super::write::{Written, write_packs};

/// Batches between reader and assembler: at most so many times 4 MiB.
const BATCHES_MAX: usize = 6;
/// Frames between assembler and writer: at most so many times 4 MiB.
const FRAMES_MAX: usize = 8;
/// Hashing, compressing and sealing are shared by so many threads.
const WORKERS_MAX: usize = 8;

/// A batch whose units are hashed; `None`: all its bytes are zero.
pub(super) struct Hashed {
    pub(super) batch: Batch,
    pub(super) ids: Vec<Option<UnitId>>,
}

/// What goes from the reader to the assembler, in order.
pub(super) enum Read {
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

/// What goes from the assembler to the writer, in order.
pub(super) enum Write {
    Pack { id: PackId, key: Arc<ObjectKey> },
    Frame(Receiver<Result<SealedFrame>>),
    Finished,
}

/// What the workers do.
pub(super) enum Job {
    Hash { batch: Batch, kind: FrameKind, unit: usize, reply: Sender<Hashed> },
    Seal { key: Arc<ObjectKey>, number: u64, frame: PlainFrame, reply: Sender<Result<SealedFrame>> },
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

/// A file that is to be read: part, entry, and what the parent knows of it.
pub(super) struct FileToRead<'a> {
    pub(super) part: usize,
    pub(super) entry: usize,
    pub(super) old: Option<&'a EntryRecord>,
}

/// What the pipeline has stored.
pub(super) struct Stored {
    /// The map of each file that was read, in the order given.
    pub(super) maps: Vec<FileMap>,
    /// Size of each pack that was written.
    pub(super) packs: HashMap<PackId, u64>,
    /// Bytes read from the node.
    pub(super) bytes_read: u64,
    /// Bytes of the packs.
    pub(super) bytes_stored: u64,
}

/// Reads the files and stores what the parent does not have. `finish` is called after the last
/// byte was read; what it refuses is not committed.
pub(super) fn run(
    vault: &Vault,
    snapshot: SnapshotId,
    parent: Option<&Manifest>,
    parts: &mut [Box<dyn PartCapture>],
    files: &[FileToRead<'_>],
    rate_max: Option<u64>,
    control: &Control,
) -> Result<Stored> {
    let (read_in, read_out) = bounded::<Read>(BATCHES_MAX);
    let (write_in, write_out) = bounded::<Write>(FRAMES_MAX);
    // A job's place in a queue above bounds their number here.
    let (jobs_in, jobs_out) = bounded::<Job>(BATCHES_MAX + FRAMES_MAX);
    let keys = vault.unit_keys();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, WORKERS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let jobs = jobs_out.clone();
            scope.spawn(move || work(keys, &jobs));
        }
        drop(jobs_out);
        let assembler_jobs = jobs_in.clone();
        let assembler = scope.spawn(move || {
            Assembler::new(vault, snapshot, parent, assembler_jobs, write_in).run(&read_out)
        });
        let writer = scope.spawn(move || write_packs(vault, &write_out, control));
        let mut reader = Reader { jobs: jobs_in, out: read_in, rate: Rate::new(rate_max), control };
        let read = reader.run(parts, files);
        drop(reader);
        let assembled = assembler.join().unwrap_or_else(|_| Err(panicked("assembler")));
        let written = writer.join().unwrap_or_else(|_| Err(panicked("writer")));
        conclude(read, assembled, written)
    })
}

fn panicked(stage: &str) -> Halt {
    Halt::Failed(Error::bug(format!("the {stage} of the backup panicked")))
}

/// The error is that of the stage that failed, not of one that stopped because of it.
fn conclude(
    read: Result<u64, Halt>,
    assembled: Result<Vec<FileMap>, Halt>,
    written: Result<Written, Halt>,
) -> Result<Stored> {
    match (read, assembled, written) {
        (Ok(bytes_read), Ok(maps), Ok(written)) => {
            Ok(Stored { maps, packs: written.packs, bytes_read, bytes_stored: written.bytes })
        }
        (Err(Halt::Failed(error)), _, _)
        | (_, Err(Halt::Failed(error)), _)
        | (_, _, Err(Halt::Failed(error))) => Err(error),
        _ => Err(Error::bug("a stage of the backup stopped without a reason")),
    }
}

fn work(keys: &UnitKeys, jobs: &Receiver<Job>) {
    // A reply that nobody waits for any more belongs to a backup that has failed already.
    for job in jobs {
        match job {
            Job::Hash { batch, kind, unit, reply } => {
                let ids = batch.bytes.chunks(unit).map(|unit| id_of(keys, kind, unit)).collect();
                let _ = reply.send(Hashed { batch, ids });
            }
            Job::Seal { key, number, frame, reply } => {
                let _ = reply.send(seal_frame(&key, number, frame));
            }
        }
    }
}

fn id_of(keys: &UnitKeys, kind: FrameKind, unit: &[u8]) -> Option<UnitId> {
    // The first bytes of nearly every unit settle it; a whole one is compared in words.
    let zero = unit.iter().take(16).all(|&byte| byte == 0) && unit.iter().all(|&byte| byte == 0);
    (!zero).then(|| keys.id(kind, unit))
}

struct Reader<'a> {
    jobs: Sender<Job>,
    out: Sender<Read>,
    rate: Rate,
    control: &'a Control,
}

impl Reader<'_> {
    fn run(
        &mut self,
        parts: &mut [Box<dyn PartCapture>],
        files: &[FileToRead<'_>],
    ) -> Result<u64, Halt> {
        let mut bytes_read = 0;
        for (number, file) in files.iter().enumerate() {
            let part = &mut parts[file.part];
            let source = &part.entries()[file.entry];
            let (units, size) = (source.units, source.size);
            let path = source.path.clone();
            let old = file.old.cloned().map(Box::new);
            self.send(Read::Begin { file: number, units, size, old })?;
            let mut batcher = Batcher::new(units);
            let mut seen = 0;
            let streamed = part.stream(file.entry, &mut |piece| {
                seen += batcher.push(piece, &mut |read| self.hand_on(read, units))?;
                Ok(())
            });
            streamed.map_err(|error| self.reason(error))?;
            if seen != size {
                return Err(Halt::Failed(
                    Error::bug(format!("{seen} bytes were read where {size} were promised"))
                        .entry(path.to_string()),
                ));
            }
            let flushed = batcher.flush(&mut |read| self.hand_on(read, units));
            flushed.map_err(|error| self.reason(error))?;
            self.send(Read::End)?;
            bytes_read += seen;
        }
        self.send(Read::Finished)?;
        Ok(bytes_read)
    }

    /// [`Reader::hand_on`] reports a stopped neighbour as an interruption; the neighbour knows why.
    fn reason(&self, error: Error) -> Halt {
        let stopped =
            error.kind() == crate::Kind::Interrupted && self.control.cancel.check().is_ok();
        if stopped { Halt::Stopped } else { Halt::Failed(error) }
    }

    /// Sends a batch to be hashed, and its place in the order to the assembler.
    fn hand_on(&mut self, read: super::batch::Cut, units: Units) -> Result<()> {
        self.control.cancel.check()?;
        let (unit, kind) = crate::vault::read::unit_shape(units);
        let sent = match read {
            super::batch::Cut::Zeros { units, bytes } => {
                self.control.report(crate::control::Event::Bytes(bytes));
                self.send(Read::Zeros(units))
            }
            super::batch::Cut::Batch(batch) => {
                let bytes = batch.bytes.len() as u64;
                self.rate.pass(bytes, self.control)?;
                self.control.report(crate::control::Event::Bytes(bytes));
                let (reply, hashed) = bounded(1);
                let job = Job::Hash { batch, kind, unit: unit as usize, reply };
                match self.jobs.send(job) {
                    Ok(()) => self.send(Read::Batch(hashed)),
                    Err(_) => Err(Halt::Stopped),
                }
            }
        };
        sent.map_err(|halt| match halt {
            Halt::Failed(error) => error,
            Halt::Stopped => Error::interrupted(),
        })
    }

    fn send(&self, read: Read) -> Result<(), Halt> {
        self.out.send(read).map_err(|_| Halt::Stopped)
    }
}
