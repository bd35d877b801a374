//! The assembler: compares units with the parent's, cuts frames of what is new, draws the maps.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::engine::Units;
use crate::error::{Error, Result};
use crate::ids::{PackId, SnapshotId};
use crate::vault::manifest::{ContentHash, EntryRecord, PackRef};
use crate::vault::pack::{
    FRAME_BYTES, FrameKind, PACK_UNITS_MAX, PlainFrame, SLICE_BYTES, UnitId, pack_name,
};
use crate::vault::read::{LoadedLeaf, PACKS_AHEAD, unit_shape};
use crate::vault::runs::{self, LEAF_BYTES, Run, UnitPlace};
use crate::vault::seal::{ObjectKey, ObjectKind};
use crate::vault::{Manifest, Vault};

use super::messages::{Halt, Hashed, Job, Read, Whole, Write};
use super::room::Memory;

/// Runs up to so many bytes stand in the manifest itself.
const INLINE_BYTES_MAX: usize = 256;
/// So many units of zero bytes are taken up at once.
const UNITS_PER_FRAME_MAX: usize = u16::MAX as usize;

/// A frame up to so many bytes is sealed with others that follow it.
const SMALL_FRAME_BYTES: usize = 16 << 10;
/// At most so many of them, and no more once they have so many bytes.
const SMALL_FRAMES_MAX: usize = 64;
const SMALL_FRAMES_BYTES: usize = 128 << 10;

/// Where the content of a file is.
#[derive(Default)]
pub(super) struct FileMap {
    pub(super) leaves: Vec<LeafMap>,
}

/// Where a GiB of it is.
pub(super) struct LeafMap {
    pub(super) content: ContentHash,
    pub(super) packs: Vec<PackId>,
    pub(super) runs: LeafRuns,
}

/// The runs of a leaf: encoded, or in a unit of a pack of the leaf's list.
pub(super) enum LeafRuns {
    Inline(Vec<u8>),
    Stored { pack: u32, unit: u32 },
}

/// The pack that frames go to.
struct OpenPack {
    id: PackId,
    key: Arc<ObjectKey>,
    frames: u64,
    units: u32,
    plain: u64,
}

/// The file that is being read.
struct OpenFile {
    file: usize,
    kind: FrameKind,
    unit: u64,
    size: u64,
    old: Option<Box<EntryRecord>>,
    old_leaf: Option<(usize, LoadedLeaf)>,
    next_unit: u64,
    leaves: Vec<LeafMap>,
    /// Of the leaf that is being drawn.
    packs: Vec<PackId>,
    runs: Vec<Run>,
    content: blake3::Hasher,
}

pub(super) struct Assembler<'a> {
    vault: &'a Vault,
    snapshot: SnapshotId,
    parent: Option<&'a Manifest>,
    memory: Memory<'a>,
    jobs: Sender<Job>,
    out: Sender<Write>,
    pack: Option<OpenPack>,
    pack_count: u32,
    pending: PlainFrame,
    /// Frames of the open pack that no worker has yet, and their bytes: the last ones, in order.
    small: Vec<PlainFrame>,
    small_bytes: usize,
    /// Slices that the vault has: of the parent once one was needed, and of this backup.
    slices: HashMap<UnitId, (PackId, u32)>,
    parent_slices_loaded: bool,
    maps: Vec<FileMap>,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(
        vault: &'a Vault,
        snapshot: SnapshotId,
        parent: Option<&'a Manifest>,
        memory: Memory<'a>,
        jobs: Sender<Job>,
        out: Sender<Write>,
    ) -> Assembler<'a> {
        Assembler {
            vault,
            snapshot,
            parent,
            memory,
            jobs,
            out,
            pack: None,
            pack_count: 0,
            pending: PlainFrame { kind: FrameKind::Pages, ids: Vec::new(), bytes: Vec::new() },
            small: Vec::new(),
            small_bytes: 0,
            slices: HashMap::new(),
            parent_slices_loaded: false,
            maps: Vec::new(),
        }
    }

    pub(super) fn run(mut self, input: &Receiver<Read>) -> Result<Vec<FileMap>, Halt> {
        let mut file: Option<OpenFile> = None;
        for read in input {
            match (read, &mut file) {
                (Read::Files(files), None) => {
                    for Whole { file: number, units, size, old, content } in files {
                        let mut file = OpenFile::new(number, units, size, old);
                        if let Some(hashed) = content {
                            self.take_batch(&mut file, hashed)?;
                        }
                        self.end_file(file)?;
                    }
                }
                (Read::Begin { file: number, units, size, old }, None) => {
                    file = Some(OpenFile::new(number, units, size, old));
                }
                (Read::Batch(hashed), Some(file)) => {
                    let hashed = hashed.recv().map_err(|_| Halt::Stopped)?;
                    self.take_batch(file, hashed)?;
                }
                (Read::Zeros(units), Some(file)) => {
                    for _ in 0..units {
                        self.place(file, UnitId::ZERO, None)?;
                    }
                }
                (Read::End, Some(_)) => {
                    if let Some(file) = file.take() {
                        self.end_file(file)?;
                    }
                }
                (Read::Finished, None) => {
                    self.send_small()?;
                    self.out.send(Write::Finished).map_err(|_| Halt::Stopped)?;
                    return Ok(self.maps);
                }
                _ => return Err(Error::bug("the reader's events are out of order").into()),
            }
        }
        Err(Halt::Stopped)
    }

    fn take_batch(&mut self, file: &mut OpenFile, hashed: Hashed) -> Result<(), Halt> {
        let Hashed { batch, ids } = hashed;
        if file.kind == FrameKind::Slice {
            let id = ids.first().copied().flatten();
            return self.take_slice(file, id, batch.bytes);
        }
        for (bytes, id) in batch.bytes.chunks(file.unit as usize).zip(ids) {
            let Some(id) = id else {
                self.place(file, UnitId::ZERO, None)?;
                continue;
            };
            match self.old_unit(file, id)? {
                Some(at) => self.place(file, id, Some(at))?,
                None => {
                    let at = self.add_page(file.unit as usize, id, bytes)?;
                    self.place(file, id, Some(at))?;
                }
            }
        }
        self.memory.buffers.give(batch.bytes);
        Ok(())
    }

    /// Where the parent has the unit at this position, if it is the same.
    fn old_unit(&self, file: &mut OpenFile, id: UnitId) -> Result<Option<(PackId, u32)>> {
        let (Some(parent), Some(old)) = (self.parent, &file.old) else { return Ok(None) };
        let per_leaf = LEAF_BYTES / file.unit;
        let within = file.next_unit % per_leaf;
        let number = (file.next_unit / per_leaf) as usize;
        if file.old_leaf.as_ref().is_none_or(|(loaded, _)| *loaded != number) {
            if number >= old.leaves.len() {
                file.old = None;
                file.old_leaf = None;
                return Ok(None);
            }
            file.old_leaf = Some((number, self.vault.load_leaf(parent, old, number)?));
        }
        let found = file.old_leaf.as_ref().and_then(|(_, leaf)| {
            let unit = leaf.units.get(within as usize).filter(|unit| unit.id == id)?;
            let place = unit.place?;
            Some((leaf.packs[place.pack as usize].id, place.unit))
        });
        Ok(found)
    }

    fn take_slice(
        &mut self,
        file: &mut OpenFile,
        id: Option<UnitId>,
        bytes: Vec<u8>,
    ) -> Result<(), Halt> {
        let Some(id) = id else { return self.place(file, UnitId::ZERO, None) };
        if let Some(at) = self.old_unit(file, id)? {
            return self.place(file, id, Some(at));
        }
        // Whether another file of the parent had it is worth a look at all indexes for a whole
        // slice; a short one costs less to store.
        if bytes.len() == SLICE_BYTES {
            self.load_parent_slices()?;
        }
        if let Some(&at) = self.slices.get(&id) {
            return self.place(file, id, Some(at));
        }
        let at = self.add_unit(FrameKind::Slice, id, bytes)?;
        self.slices.insert(id, at);
        self.place(file, id, Some(at))
    }

    /// Reads which slices the parent's packs hold, once one has to be compared.
    fn load_parent_slices(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.parent_slices_loaded, true) {
            return Ok(());
        }
        let packs: &[PackRef] = self.parent.map_or(&[], |parent| &parent.packs);
        for packs in packs.chunks(PACKS_AHEAD) {
            self.vault.open_ahead(packs)?;
            for &pack in packs {
                let open = self.vault.open_pack(pack)?;
                let units = open.index.units_of(FrameKind::Slice);
                self.slices.extend(units.map(|(unit, id)| (id, (pack.id, unit))));
            }
        }
        Ok(())
    }

    /// Adds a page to the frame that is being filled.
    fn add_page(&mut self, unit: usize, id: UnitId, bytes: &[u8]) -> Result<(PackId, u32), Halt> {
        let short = bytes.len() != unit;
        let held = self.pending.bytes.len() / self.pending.ids.len().max(1);
        let full = self.pending.bytes.len() + bytes.len() > FRAME_BYTES.max(unit)
            || self.pending.ids.len() == UNITS_PER_FRAME_MAX;
        if !self.pending.ids.is_empty() && (full || held != bytes.len()) {
            self.send_pending()?;
        }
        let pack = self.open_pack()?;
        let at = (pack.id, pack.units);
        pack.units += 1;
        pack.plain += bytes.len() as u64;
        self.pending.ids.push(id);
        self.pending.bytes.extend_from_slice(bytes);
        if short {
            self.send_pending()?;
        }
        Ok(at)
    }

    /// Adds a unit that has a frame to itself.
    fn add_unit(
        &mut self,
        kind: FrameKind,
        id: UnitId,
        bytes: Vec<u8>,
    ) -> Result<(PackId, u32), Halt> {
        self.send_pending()?;
        let pack = self.open_pack()?;
        let at = (pack.id, pack.units);
        pack.units += 1;
        pack.plain += bytes.len() as u64;
        self.send_frame(PlainFrame { kind, ids: vec![id], bytes })?;
        Ok(at)
    }

    /// The pack that the next unit goes to: a new one where the last one is full. A frame that is
    /// being filled belongs to the pack that its first page was promised to.
    fn open_pack(&mut self) -> Result<&mut OpenPack, Halt> {
        let pack_bytes = self.vault.store().pack_bytes();
        let full = self
            .pack
            .as_ref()
            .is_none_or(|pack| pack.plain >= pack_bytes || pack.units >= PACK_UNITS_MAX);
        if full {
            self.send_pending()?;
            self.send_small()?;
            let id = self.vault.pack_id(self.snapshot, self.pack_count);
            self.pack_count += 1;
            let (vault, name) = (self.vault, pack_name(id));
            let key = ObjectKey::create(vault.master(), vault.id(), ObjectKind::Pack, &name)?;
            let key = Arc::new(key);
            let begin = Write::Pack { id, key: Arc::clone(&key) };
            self.out.send(begin).map_err(|_| Halt::Stopped)?;
            self.pack = Some(OpenPack { id, key, frames: 0, units: 0, plain: 0 });
        }
        Ok(self.pack.as_mut().expect("a pack was opened above"))
    }

    fn send_pending(&mut self) -> Result<(), Halt> {
        if self.pending.ids.is_empty() {
            return Ok(());
        }
        // The memory of a short frame is not that of a long one: many may be on their way.
        let bytes = if self.pending.bytes.len() < FRAME_BYTES / 4 {
            let bytes = self.pending.bytes.as_slice().into();
            self.pending.bytes.clear();
            bytes
        } else {
            let empty = self.memory.buffers.take(FRAME_BYTES);
            std::mem::replace(&mut self.pending.bytes, empty)
        };
        let ids = std::mem::take(&mut self.pending.ids);
        let frame = PlainFrame { kind: FrameKind::Pages, ids, bytes };
        self.send_frame(frame)
    }

    fn send_frame(&mut self, frame: PlainFrame) -> Result<(), Halt> {
        let bytes = frame.bytes.len();
        let is_small = bytes <= SMALL_FRAME_BYTES;
        if !is_small {
            self.send_small()?;
        }
        self.memory.room.take(bytes)?;
        self.small_bytes += bytes;
        self.small.push(frame);
        let enough = self.small_bytes > SMALL_FRAMES_BYTES || self.small.len() == SMALL_FRAMES_MAX;
        if is_small && !enough { Ok(()) } else { self.send_small() }
    }

    /// Sends the frames that wait for others, in one message: of a small frame, that would cost more than to seal it.
    fn send_small(&mut self) -> Result<(), Halt> {
        self.small_bytes = 0;
        let frames = std::mem::take(&mut self.small);
        if frames.is_empty() {
            return Ok(());
        }
        let pack = self.pack.as_mut().expect("a unit was promised to it");
        let (reply, sealed) = bounded(1);
        let (key, first) = (Arc::clone(&pack.key), pack.frames);
        pack.frames += frames.len() as u64;
        self.jobs.send(Job::Seal { key, first, frames, reply }).map_err(|_| Halt::Stopped)?;
        self.out.send(Write::Frames(sealed)).map_err(|_| Halt::Stopped)
    }

    /// Draws the next unit of the file into its map.
    fn place(
        &mut self,
        file: &mut OpenFile,
        id: UnitId,
        at: Option<(PackId, u32)>,
    ) -> Result<(), Halt> {
        let place =
            at.map(|(pack, unit)| UnitPlace { pack: pack_number(&mut file.packs, pack), unit });
        runs::push(&mut file.runs, place);
        file.content.update(id.stored(file.kind));
        file.next_unit += 1;
        if file.next_unit.is_multiple_of(LEAF_BYTES / file.unit) {
            self.end_leaf(file)?;
        }
        Ok(())
    }

    fn end_leaf(&mut self, file: &mut OpenFile) -> Result<(), Halt> {
        let mut packs = std::mem::take(&mut file.packs);
        let bytes = runs::encode(&std::mem::take(&mut file.runs));
        let content = std::mem::take(&mut file.content).finalize();
        let content = ContentHash::from_bytes(*content.as_bytes());
        let runs = if bytes.len() <= INLINE_BYTES_MAX {
            LeafRuns::Inline(bytes)
        } else {
            let id = self.vault.unit_keys().id(FrameKind::Map, &bytes);
            let (pack, unit) = self.add_unit(FrameKind::Map, id, bytes)?;
            LeafRuns::Stored { pack: pack_number(&mut packs, pack), unit }
        };
        // Nearly every file has one: there are as many vectors of them as files.
        file.leaves.reserve_exact(1);
        file.leaves.push(LeafMap { content, packs, runs });
        Ok(())
    }

    fn end_file(&mut self, mut file: OpenFile) -> Result<(), Halt> {
        // The last frame may wait for pages of the next file: only its place was promised.
        if !file.next_unit.is_multiple_of(LEAF_BYTES / file.unit) {
            self.end_leaf(&mut file)?;
        }
        if file.next_unit != file.size.div_ceil(file.unit) || file.file != self.maps.len() {
            return Err(Error::bug("a file's map has not as many units as the file").into());
        }
        self.send_pending()?;
        self.maps.push(FileMap { leaves: file.leaves });
        Ok(())
    }
}

impl OpenFile {
    fn new(file: usize, units: Units, size: u64, old: Option<Box<EntryRecord>>) -> OpenFile {
        let (unit, kind) = unit_shape(units);
        // Units are compared by position: those of another size are not comparable.
        let old = old.filter(|old| old.units == units);
        OpenFile {
            file,
            kind,
            unit,
            size,
            old,
            old_leaf: None,
            next_unit: 0,
            leaves: Vec::new(),
            packs: Vec::new(),
            runs: Vec::new(),
            content: blake3::Hasher::new(),
        }
    }
}

/// The place of a pack in a leaf's list; new ones are added.
fn pack_number(packs: &mut Vec<PackId>, pack: PackId) -> u32 {
    // Runs name the newest pack or the last few: from the end it is found at once.
    match packs.iter().rposition(|&known| known == pack) {
        Some(place) => place as u32,
        None => {
            packs.push(pack);
            (packs.len() - 1) as u32
        }
    }
}
