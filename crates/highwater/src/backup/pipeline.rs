//! The pipeline of a backup: read, hash, compare, compress, seal, write, all at once.
//!
//! The calling thread reads; workers hash and seal; the assembler compares with the parent and
//! cuts frames; the writer fills packs. Order is kept by handing on receivers of results, not
//! results; every queue has a bound, so that memory does not grow with the database.

use std::collections::HashMap;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::control::{Control, Event};
use crate::engine::{EntryType, Finished, PartCapture, Revised, Units};
use crate::error::{Error, Kind, Result};
use crate::ids::{PackId, SnapshotId};
use crate::vault::manifest::EntryRecord;
use crate::vault::pack::{FrameKind, UnitId, UnitKeys, seal_frame, sealed_bytes_max};
use crate::vault::{Effort, Manifest, Vault};

use super::BackupOptions;
use super::assemble::{Assembler, FileMap};
use super::batch::{Batch, Batcher, Cut, Rate};
use super::buffers::Buffers;
use super::messages::{Halt, Hashed, Job, Read, Whole, Write};
use super::room::{Memory, Room};
use super::write::{Written, write_packs};

/// Batches between reader and assembler: at most so many times 4 MiB.
const BATCHES_MAX: usize = 4;
/// Frames between assembler and writer; what they hold is bounded by [`Room`].
const FRAMES_MAX: usize = 512;
/// Jobs that no worker has taken yet.
const JOBS_MAX: usize = 16;
/// Hashing, compressing and sealing are shared by so many threads.
const WORKERS_MAX: usize = 8;
/// A file of at most so many bytes is hashed where it is read: handing it to another thread costs more.
const SMALL_BYTES: u64 = 16 << 10;
/// Small files go to the assembler so many at once, or as many as have so many bytes.
const SMALL_FILES_MAX: usize = 64;
const SMALL_FILES_BYTES: u64 = 256 << 10;
/// A unit is looked through for anything but zeros in pieces of so many bytes.
const ZERO_PIECE_BYTES: usize = 256;

/// A part, and what of it is to be read.
pub(super) struct PartToRead {
    /// Its place among the parts.
    pub(super) part: usize,
    pub(super) capture: Box<dyn PartCapture>,
    /// Places among its entries, with what the parent knows of each.
    pub(super) files: Vec<(usize, Option<Box<EntryRecord>>)>,
}

/// What the pipeline has stored.
pub(super) struct Stored {
    /// The files that were read, by part and entry, and the map of each.
    pub(super) read: Vec<(usize, usize)>,
    pub(super) maps: Vec<FileMap>,
    /// What became of entries since the barrier, by part and entry.
    pub(super) revised: Vec<(usize, usize, Revised)>,
    /// Size of each pack that was written.
    pub(super) packs: HashMap<PackId, u64>,
    /// What each part said at its end.
    pub(super) finished: Vec<Finished>,
    /// Bytes read from the node.
    pub(super) bytes_read: u64,
    /// Bytes of the packs.
    pub(super) bytes_stored: u64,
}

/// Reads the files, part by part, and stores what the parent does not have. A part is finished as
/// soon as it is read, so that its locks are held no longer; what that refuses is not committed.
pub(super) fn run(
    vault: &Vault,
    snapshot: SnapshotId,
    parent: Option<&Manifest>,
    parts: Vec<PartToRead>,
    options: &BackupOptions,
    control: &Control,
) -> Result<Stored> {
    let (read_in, read_out) = bounded::<Read>(BATCHES_MAX);
    let (write_in, write_out) = bounded::<Write>(FRAMES_MAX);
    let (jobs_in, jobs_out) = bounded::<Job>(JOBS_MAX);
    let room = &Room::new();
    let keys = vault.unit_keys();
    let buffers = &Buffers::default();
    let effort = options.effort;
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, WORKERS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let jobs = jobs_out.clone();
            scope.spawn(move || work(keys, effort, buffers, &jobs));
        }
        drop(jobs_out);
        let assembler_jobs = jobs_in.clone();
        let memory = Memory { buffers, room };
        let assembler = scope.spawn(move || {
            Assembler::new(vault, snapshot, parent, memory, assembler_jobs, write_in).run(&read_out)
        });
        let writer = scope.spawn(move || {
            let _closing = room.closing();
            write_packs(vault, &write_out, memory, control)
        });
        let mut reader = Reader {
            keys,
            small: Vec::new(),
            small_bytes: 0,
            jobs: jobs_in,
            out: read_in,
            rate: Rate::new(options.rate_max),
            buffers,
            control,
        };
        let read = reader.run(parts);
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
    read: Result<Reading, Halt>,
    assembled: Result<Vec<FileMap>, Halt>,
    written: Result<Written, Halt>,
) -> Result<Stored> {
    match (read, assembled, written) {
        (Ok(reading), Ok(maps), Ok(written)) => Ok(Stored {
            read: reading.read,
            maps,
            revised: reading.revised,
            packs: written.packs,
            finished: reading.finished,
            bytes_read: reading.bytes,
            bytes_stored: written.bytes,
        }),
        (Err(Halt::Failed(error)), _, _)
        | (_, Err(Halt::Failed(error)), _)
        | (_, _, Err(Halt::Failed(error))) => Err(error),
        _ => Err(Error::bug("a stage of the backup stopped without a reason")),
    }
}

fn work(keys: &UnitKeys, effort: Effort, buffers: &Buffers, jobs: &Receiver<Job>) {
    // A reply that nobody waits for any more belongs to a backup that has failed already.
    for job in jobs {
        match job {
            Job::Hash { batch, kind, unit, reply } => {
                let _ = reply.send(hashed(keys, batch, kind, unit));
            }
            Job::Seal { key, first, frames, reply } => {
                let sealed = (first..).zip(frames).map(|(number, frame)| {
                    let room = buffers.take(sealed_bytes_max(frame.bytes.len()));
                    let sealed = seal_frame(&key, number, &frame, effort, room);
                    buffers.give(frame.bytes);
                    sealed.map(|sealed| (sealed, frame.ids))
                });
                let _ = reply.send(sealed.collect());
            }
        }
    }
}

fn hashed(keys: &UnitKeys, batch: Batch, kind: FrameKind, unit: usize) -> Hashed {
    let ids = batch.bytes.chunks(unit).map(|unit| id_of(keys, kind, unit)).collect();
    Hashed { batch, ids }
}

fn id_of(keys: &UnitKeys, kind: FrameKind, unit: &[u8]) -> Option<UnitId> {
    // The first bytes of nearly every unit settle it. Without an early end inside a piece, the
    // compiler looks at many bytes at once.
    let zero = unit
        .chunks(ZERO_PIECE_BYTES)
        .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0);
    (!zero).then(|| keys.id(kind, unit))
}

/// What was read.
#[derive(Default)]
struct Reading {
    bytes: u64,
    read: Vec<(usize, usize)>,
    revised: Vec<(usize, usize, Revised)>,
    finished: Vec<Finished>,
}

struct Reader<'a> {
    keys: &'a UnitKeys,
    /// Small files that the assembler does not have yet, and their bytes.
    small: Vec<Whole>,
    small_bytes: u64,
    jobs: Sender<Job>,
    out: Sender<Read>,
    rate: Rate,
    buffers: &'a Buffers,
    control: &'a Control,
}

impl Reader<'_> {
    fn run(&mut self, parts: Vec<PartToRead>) -> Result<Reading, Halt> {
        let mut reading = Reading::default();
        for PartToRead { part, mut capture, files } in parts {
            for (entry, old) in files {
                self.read_entry(part, entry, capture.as_mut(), old, &mut reading)?;
            }
            loop {
                let arrived = capture.arrived()?;
                if arrived.is_empty() {
                    break;
                }
                for entry in arrived {
                    if capture.entries()[entry].kind == EntryType::File {
                        self.read_entry(part, entry, capture.as_mut(), None, &mut reading)?;
                    }
                }
            }
            let revised = capture.revised().into_iter();
            reading.revised.extend(revised.map(|(entry, revised)| (part, entry, revised)));
            reading.finished.push(capture.finish()?);
        }
        self.send_small()?;
        self.send(Read::Finished)?;
        Ok(reading)
    }

    /// Reads one file, if it is still there.
    fn read_entry(
        &mut self,
        part: usize,
        entry: usize,
        capture: &mut dyn PartCapture,
        old: Option<Box<EntryRecord>>,
        reading: &mut Reading,
    ) -> Result<(), Halt> {
        if capture.ready(entry)? {
            reading.bytes += self.read_file(capture, entry, old, reading.read.len())?;
            reading.read.push((part, entry));
        }
        Ok(())
    }

    fn read_file(
        &mut self,
        part: &mut dyn PartCapture,
        entry: usize,
        old: Option<Box<EntryRecord>>,
        number: usize,
    ) -> Result<u64, Halt> {
        let source = &part.entries()[entry];
        let (units, size, path) = (source.units, source.size, source.path.clone());
        self.control.report(Event::File(path.clone()));
        // Within one slice nothing but its content is cut off, once.
        let mut whole = (units == Units::Slices && size <= SMALL_BYTES).then_some(None);
        let old = match &whole {
            Some(_) => old,
            None => {
                self.send_small()?;
                self.send(Read::Begin { file: number, units, size, old })?;
                None
            }
        };
        let mut batcher = Batcher::new(units, size, self.buffers);
        let mut seen = 0;
        let mut take = |cut| match &mut whole {
            Some(content) => {
                *content = Some(self.hash(cut, units)?);
                Ok(())
            }
            None => self.hand_on(cut, units),
        };
        let streamed = part
            .stream(entry, &mut |piece| {
                seen += batcher.push(piece, &mut take)?;
                Ok(())
            })
            .and_then(|()| batcher.flush(&mut take));
        if let Err(error) = streamed {
            // The sink reports a stopped neighbour as an interruption; the neighbour knows why.
            let stopped = error.kind() == Kind::Interrupted && self.control.cancel.check().is_ok();
            return Err(if stopped { Halt::Stopped } else { Halt::Failed(error) });
        }
        if seen != size {
            let problem = format!("{seen} bytes were read, but {size} were expected");
            return Err(Error::bug(problem).with_entry(path.to_string()).into());
        }
        match whole {
            Some(content) => {
                self.small.push(Whole { file: number, units, size, old, content });
                self.small_bytes += size;
                if self.small.len() >= SMALL_FILES_MAX || self.small_bytes >= SMALL_FILES_BYTES {
                    self.send_small()?;
                }
            }
            None => self.send(Read::End)?,
        }
        Ok(seen)
    }

    /// Hands on the small files that were read.
    fn send_small(&mut self) -> Result<(), Halt> {
        self.small_bytes = 0;
        match std::mem::take(&mut self.small) {
            none if none.is_empty() => Ok(()),
            files => self.send(Read::Files(files)),
        }
    }

    /// Hashes the content of a small file.
    fn hash(&mut self, cut: Cut, units: Units) -> Result<Hashed> {
        self.control.cancel.check()?;
        let Cut::Batch(batch) = cut else {
            return Err(Error::bug("a small file has a whole unit of zeros"));
        };
        let bytes = batch.bytes.len() as u64;
        self.rate.pass(bytes, self.control)?;
        self.control.report(Event::Bytes(bytes));
        let (unit, kind) = crate::vault::read::unit_shape(units);
        Ok(hashed(self.keys, batch, kind, unit as usize))
    }

    /// Sends a batch to be hashed, and its place in the order to the assembler.
    fn hand_on(&mut self, cut: Cut, units: Units) -> Result<()> {
        self.control.cancel.check()?;
        let (unit, kind) = crate::vault::read::unit_shape(units);
        let sent = match cut {
            Cut::Zeros { units, bytes } => {
                self.control.report(Event::Bytes(bytes));
                self.send(Read::Zeros(units))
            }
            Cut::Batch(batch) => {
                let bytes = batch.bytes.len() as u64;
                self.rate.pass(bytes, self.control)?;
                self.control.report(Event::Bytes(bytes));
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
