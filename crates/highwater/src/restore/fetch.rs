//! Fetching a snapshot's files from the vault, every byte verified before it is written.
//!
//! The calling thread finds the units of one GiB at a time and cuts them into reads of neighbouring
//! frames; workers open, verify and write them at their places.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::control::{Control, Event};
use crate::direct::{AlignedBuffer, PlacedWriter};
use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::vault::manifest::{EntryRecord, PackRef};
use crate::vault::pack::{open_frame, unit_range};
use crate::vault::read::{LoadedLeaf, unit_shape};
use crate::vault::runs::LEAF_BYTES;
use crate::vault::{Manifest, Vault};

/// Neighbouring frames are read together, up to this many stored bytes.
const READ_BYTES: u64 = 4 << 20;
/// Neighbouring units are written together, up to this many bytes.
const WRITE_BYTES_MAX: usize = 8 << 20;
/// How many reads wait for a worker at most.
const READS_MAX: usize = 4;
const WORKERS_MAX: usize = 8;

/// Neighbouring units of one frame that go to neighbouring places of a file.
struct Piece {
    frame: usize,
    place: usize,
    count: usize,
    offset: u64,
}

/// Neighbouring frames of a pack, and where their units go.
struct Read {
    pack: PackRef,
    file: Arc<PlacedWriter>,
    path: Arc<str>,
    pieces: Vec<Piece>,
}

/// Where files are written to.
pub(super) trait Target {
    /// Makes the file of an entry, empty, of its full length.
    fn create(&self, entry: &EntryRecord) -> Result<PlacedWriter>;
}

/// Writes the content of `entries` to the files that `target` makes.
pub(super) fn fetch<'a>(
    vault: &Vault,
    manifest: &Manifest,
    entries: impl Iterator<Item = &'a EntryRecord>,
    target: &dyn Target,
    control: &Control,
) -> Result<()> {
    let (reads, queue) = bounded::<Read>(READS_MAX);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // Over a network most of them wait for an answer.
    let workers = vault.store().readers(cores.clamp(2, WORKERS_MAX));
    let planned = std::thread::scope(|scope| {
        for _ in 0..workers {
            let queue = queue.clone();
            let failure = &failure;
            scope.spawn(move || work(vault, &queue, failure, control));
        }
        drop(queue);
        let planned = plan_reads(vault, manifest, entries, target, &reads, &failure, control);
        // The workers end when nobody can send any more.
        drop(reads);
        planned
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => planned,
    }
}

fn plan_reads<'a>(
    vault: &Vault,
    manifest: &Manifest,
    entries: impl Iterator<Item = &'a EntryRecord>,
    target: &dyn Target,
    reads: &Sender<Read>,
    failure: &Mutex<Option<Error>>,
    control: &Control,
) -> Result<()> {
    for entry in entries {
        let file = Arc::new(target.create(entry)?);
        let path: Arc<str> = entry.path.to_string().into();
        for number in 0..entry.leaves.len() {
            control.cancel.check()?;
            let leaf = vault.load_leaf(manifest, entry, number)?;
            let base = number as u64 * LEAF_BYTES;
            for (pack, pieces) in cut(vault, entry, &leaf, base)? {
                let read = Read { pack, file: Arc::clone(&file), path: Arc::clone(&path), pieces };
                let failed = failure.lock().is_some();
                if failed || reads.send(read).is_err() {
                    // The worker's error tells why, and comes before this one.
                    return Err(Error::interrupted());
                }
            }
        }
    }
    Ok(())
}

/// Cuts the units of a leaf into pieces, and the pieces into reads.
fn cut(
    vault: &Vault,
    entry: &EntryRecord,
    leaf: &LoadedLeaf,
    base: u64,
) -> Result<Vec<(PackRef, Vec<Piece>)>> {
    let (unit, _) = unit_shape(entry.units);
    let mut reads: Vec<(PackRef, Vec<Piece>)> = Vec::new();
    let mut start = 0;
    for (number, at) in leaf.units.iter().enumerate() {
        let Some(at) = at.place else { continue };
        let pack = leaf.packs[at.pack as usize];
        let open = vault.open_pack(pack)?;
        let (frame, place) = open.index.locate(at.unit).ok_or_else(|| {
            Error::corrupt("its map leads beyond the end of a pack")
                .with_entry(entry.path.to_string())
        })?;
        let offset = base + number as u64 * unit;
        if let Some((last, pieces)) = reads.last_mut()
            && last.id == pack.id
            && let Some(piece) = pieces.last_mut()
        {
            let follows = piece.frame == frame
                && piece.place + piece.count == place
                && piece.offset + piece.count as u64 * unit == offset;
            if follows {
                piece.count += 1;
                continue;
            }
            let near = (piece.frame..=piece.frame + 1).contains(&frame);
            if near && open.index.range(frame).end - start <= READ_BYTES {
                pieces.push(Piece { frame, place, count: 1, offset });
                continue;
            }
        }
        start = open.index.range(frame).start;
        reads.push((pack, vec![Piece { frame, place, count: 1, offset }]));
    }
    Ok(reads)
}

/// What a worker keeps from one read to the next.
#[derive(Default)]
struct Worker {
    stored: AlignedBuffer,
    plain: Vec<u8>,
    /// Neighbouring units of a file, to be written together, and their place.
    out: AlignedBuffer,
    offset: u64,
}

fn work(vault: &Vault, queue: &Receiver<Read>, failure: &Mutex<Option<Error>>, control: &Control) {
    let mut worker = Worker::default();
    for read in queue {
        let done = control.cancel.check().and_then(|()| worker.carry_out(vault, &read, control));
        if let Err(error) = done {
            failure.lock().get_or_insert(error);
            return;
        }
    }
}

impl Worker {
    fn carry_out(&mut self, vault: &Vault, read: &Read, control: &Control) -> Result<()> {
        let open = vault.open_pack(read.pack)?;
        let index = &open.index;
        let (Some(first), Some(last)) = (read.pieces.first(), read.pieces.last()) else {
            return Ok(());
        };
        let start = index.range(first.frame).start;
        let end = index.range(last.frame).end;
        vault.store().read(&open.name, start..end, &mut self.stored)?;
        let mut opened = None;
        for piece in &read.pieces {
            let record = index.frame(piece.frame);
            let wrong = || {
                Error::corrupt(format!(
                    "frame {} of the pack was changed; {} can't be restored from it",
                    piece.frame, read.path
                ))
                .with_entry(&open.name)
                .with_remedy("restore another snapshot, or from another vault")
            };
            if opened != Some(piece.frame) {
                let range = index.range(piece.frame);
                let range = (range.start - start) as usize..(range.end - start) as usize;
                let stored = self.stored.bytes_mut().get_mut(range).ok_or_else(wrong)?;
                open_frame(&open.key, piece.frame as u64, record, stored, &mut self.plain)
                    .ok_or_else(wrong)?;
                opened = Some(piece.frame);
            }
            let first = index.first_unit(piece.frame) + piece.place as u32;
            for (unit, place) in (first..).zip(piece.place..piece.place + piece.count) {
                let id = vault.unit_keys().id(record.kind, &self.plain[unit_range(record, place)]);
                if index.unit_id(unit) != Some(id) {
                    return Err(wrong());
                }
            }
            let from = unit_range(record, piece.place).start;
            let to = unit_range(record, piece.place + piece.count - 1).end;
            self.put(read, piece.offset, from..to, control)?;
        }
        self.write_out(read, control)
    }

    /// Takes verified bytes of `plain` that go to a place of the file.
    fn put(
        &mut self,
        read: &Read,
        offset: u64,
        range: Range<usize>,
        control: &Control,
    ) -> Result<()> {
        let follows = self.offset + self.out.len() as u64 == offset;
        if !follows || self.out.len() + range.len() > WRITE_BYTES_MAX {
            self.write_out(read, control)?;
            self.offset = offset;
        }
        self.out.extend(&self.plain[range]);
        Ok(())
    }

    fn write_out(&mut self, read: &Read, control: &Control) -> Result<()> {
        let length = self.out.len() as u64;
        if length == 0 {
            return Ok(());
        }
        control.env.fault(FaultPoint::RestoreStage)?;
        read.file
            .write_at(&self.out, self.offset)
            .map_err(|error| Error::io("writing a restored file", error).with_entry(&*read.path))?;
        self.offset += length;
        self.out.clear();
        control.report(Event::Bytes(length));
        Ok(())
    }
}
