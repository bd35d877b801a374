//! Reading a vault's packs: indexes through a bounded cache, leaves of maps, frames.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ids::PackId;

use super::Vault;
use super::manifest::{EntryRecord, Leaf, Manifest, PackRef, Runs};
use super::pack::{
    FrameKind, PackIndex, SLICE_BYTES, UnitId, end_bytes, open_frame, open_index, pack_name,
    unit_range,
};
use super::runs::{self, LEAF_BYTES, Run, UnitPlace};
use super::seal::{HEADER_BYTES, ObjectKey, ObjectKind};
use crate::records::Units;

/// Indexes are kept in memory up to so many bytes.
const CACHE_BYTES_MAX: usize = 64 << 20;
/// So many packs are opened ahead of their use; their indexes stay in memory until then.
pub(crate) const PACKS_AHEAD: usize = 64;
/// So many bytes at the end of a pack are read first; most indexes lie within.
const TAIL_BYTES: u64 = 64 << 10;

/// A pack, ready to be read.
pub(crate) struct OpenPack {
    pub(crate) name: String,
    pub(crate) key: ObjectKey,
    pub(crate) index: PackIndex,
}

/// Packs that were opened lately.
#[derive(Default)]
pub(crate) struct PackCache {
    packs: Mutex<Cached>,
}

impl PackCache {
    pub(super) fn forget(&self) {
        *self.packs.lock() = Cached::default();
    }
}

#[derive(Default)]
struct Cached {
    packs: HashMap<PackId, (u64, Arc<OpenPack>)>,
    clock: u64,
    bytes: usize,
}

impl Cached {
    fn find(&mut self, id: PackId) -> Option<Arc<OpenPack>> {
        self.clock += 1;
        let (used, pack) = self.packs.get_mut(&id)?;
        *used = self.clock;
        Some(Arc::clone(pack))
    }

    fn insert(&mut self, id: PackId, pack: &Arc<OpenPack>) {
        self.bytes += pack.index.footprint();
        self.clock += 1;
        // Two readers may have opened it at the same time.
        if let Some((_, twin)) = self.packs.insert(id, (self.clock, Arc::clone(pack))) {
            self.bytes = self.bytes.saturating_sub(twin.index.footprint());
        }
        while self.bytes > CACHE_BYTES_MAX && self.packs.len() > 1 {
            let oldest = self.packs.iter().min_by_key(|(_, (used, _))| *used).map(|(&id, _)| id);
            let Some((_, pack)) = oldest.and_then(|id| self.packs.remove(&id)) else { return };
            self.bytes = self.bytes.saturating_sub(pack.index.footprint());
        }
    }
}

/// Where a unit of a file is, and what it is known by. `None` in [`UnitAt::place`]: zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitAt {
    pub(crate) id: UnitId,
    pub(crate) place: Option<UnitPlace>,
}

/// One GiB of a file, its units found.
pub(crate) struct LoadedLeaf {
    /// The packs that [`UnitPlace::pack`] counts through.
    pub(crate) packs: Vec<PackRef>,
    pub(crate) units: Vec<UnitAt>,
}

/// Bytes of one unit, and what its frames are.
pub(crate) fn unit_shape(units: Units) -> (u64, FrameKind) {
    match units {
        Units::Pages { bytes } => (u64::from(bytes), FrameKind::Pages),
        Units::Slices => (SLICE_BYTES as u64, FrameKind::Slice),
    }
}

/// How many units a leaf of a file covers.
pub(crate) fn leaf_units(entry: &EntryRecord, leaf: usize) -> u64 {
    let (unit, _) = unit_shape(entry.units);
    let per_leaf = LEAF_BYTES / unit;
    let all = entry.size.div_ceil(unit);
    all.saturating_sub(leaf as u64 * per_leaf).min(per_leaf)
}

/// The hash of a leaf's content: BLAKE3 over the ids of its units, in order.
pub(crate) fn leaf_content(kind: FrameKind, ids: impl Iterator<Item = UnitId>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    ids.for_each(|id| {
        hasher.update(id.stored(kind));
    });
    hasher.finalize()
}

impl Vault {
    /// Opens a pack: header and index. The size is the one that the manifest knows.
    pub(crate) fn open_pack(&self, pack: PackRef) -> Result<Arc<OpenPack>> {
        let cache = &self.pack_cache().packs;
        if let Some(open) = cache.lock().find(pack.id) {
            return Ok(open);
        }
        let name = pack_name(pack.id);
        let wrong = |what: &str| Error::corrupt(what).with_entry(&name);
        let missing = |error: Error| match error.kind() {
            crate::Kind::NotFound => Error::corrupt("the pack is missing").with_entry(&name),
            _ => error,
        };
        if pack.size < HEADER_BYTES as u64 {
            return Err(wrong("the pack is shorter than its header"));
        }
        let from = pack.size.saturating_sub(TAIL_BYTES);
        // The end of a small pack is all of it.
        let (header, mut tail) = match from {
            0 => {
                let all = self.store().get_range(&name, 0..pack.size).map_err(missing)?;
                (all.slice(..HEADER_BYTES.min(all.len())), all)
            }
            _ => {
                let ranges = [0..HEADER_BYTES as u64, from..pack.size];
                let [header, tail] = self.store().get_ranges(&name, ranges).map_err(missing)?;
                (header, tail)
            }
        };
        let key = ObjectKey::parse(self.master(), self.id(), ObjectKind::Pack, &name, &header)?;
        let end = end_bytes(&tail).filter(|&end| end <= pack.size);
        let end = end.ok_or_else(|| wrong("the end of the pack is damaged"))?;
        if end > tail.len() as u64 {
            tail = self.store().get_range(&name, pack.size - end..pack.size)?;
        }
        let end = (tail.len() as u64).checked_sub(end).map(|skip| &tail[skip as usize..]);
        let index = end
            .and_then(|end| open_index(&key, end, pack.size))
            .ok_or_else(|| wrong("the index of the pack was changed or cut"))?;
        let open = Arc::new(OpenPack { name, key, index });
        cache.lock().insert(pack.id, &open);
        Ok(open)
    }

    /// Opens packs ahead of their use, several at once, where opening one is waiting for an answer.
    pub(crate) fn open_ahead(&self, packs: &[PackRef]) -> Result<()> {
        let readers = self.store().readers(1);
        let closed: Vec<PackRef> = match readers {
            1 => return Ok(()),
            _ => {
                let cached = self.pack_cache().packs.lock();
                packs.iter().filter(|pack| !cached.packs.contains_key(&pack.id)).copied().collect()
            }
        };
        let share = closed.len().div_ceil(readers).max(1);
        std::thread::scope(|scope| {
            let open = |share: &[PackRef]| {
                share.iter().try_for_each(|&pack| self.open_pack(pack).map(drop))
            };
            let readers: Vec<_> =
                closed.chunks(share).map(|share| scope.spawn(move || open(share))).collect();
            readers.into_iter().try_for_each(|reader| {
                reader.join().unwrap_or_else(|_| Err(Error::bug("a reader of packs panicked")))
            })
        })
    }

    /// Finds the units of one leaf of a file, and checks that they are the file's.
    pub(crate) fn load_leaf(
        &self,
        manifest: &Manifest,
        entry: &EntryRecord,
        number: usize,
    ) -> Result<LoadedLeaf> {
        let leaf = &entry.leaves[number];
        let damaged = |what: &str| Error::corrupt(what).with_entry(entry.path.to_string());
        let packs = leaf_packs(manifest, leaf)
            .ok_or_else(|| damaged("it names a pack that is not listed"))?;
        let runs = self.leaf_runs(entry, number, &packs).map_err(|error| match error.entry() {
            Some(_) => error,
            None => error.with_entry(entry.path.to_string()),
        })?;
        self.open_ahead(&packs)?;
        let (_, kind) = unit_shape(entry.units);
        let mut units = Vec::with_capacity(leaf_units(entry, number) as usize);
        for run in runs {
            let Some(at) = run.at else {
                units.extend((0..run.count).map(|_| UnitAt { id: UnitId::ZERO, place: None }));
                continue;
            };
            let pack = self.open_pack(packs[at.pack as usize])?;
            for unit in (at.unit..).take(run.count as usize) {
                let id = pack
                    .index
                    .unit_id(unit)
                    .ok_or_else(|| damaged("its map leads beyond the end of a pack"))?;
                units.push(UnitAt { id, place: Some(UnitPlace { pack: at.pack, unit }) });
            }
        }
        let content = leaf_content(kind, units.iter().map(|unit| unit.id));
        if content.as_bytes() != leaf.content.as_bytes() {
            return Err(damaged("its units are not the ones that were captured"));
        }
        Ok(LoadedLeaf { packs, units })
    }

    fn leaf_runs(&self, entry: &EntryRecord, number: usize, packs: &[PackRef]) -> Result<Vec<Run>> {
        let bytes = match &entry.leaves[number].runs {
            Runs::Inline(text) => BASE64.decode(text).map_err(|_| {
                Error::corrupt("its map is damaged").with_entry(entry.path.to_string())
            })?,
            Runs::Stored { pack, unit } => {
                let pack = packs.get(*pack as usize).copied();
                let pack = pack.ok_or_else(|| Error::corrupt("its map is nowhere"))?;
                self.read_unit(pack, *unit)?
            }
        };
        runs::decode(&bytes, leaf_units(entry, number), packs.len())
    }

    /// The bytes of one unit, verified.
    pub(crate) fn read_unit(&self, pack: PackRef, unit: u32) -> Result<Vec<u8>> {
        let mut units = self.read_units(pack, unit, 1)?;
        units.pop().map(|(_, bytes)| bytes).ok_or_else(|| Error::bug("no unit was read"))
    }

    /// The bytes of neighbouring units, each verified, with what it is known by: read at once.
    pub(crate) fn read_units(
        &self,
        pack: PackRef,
        first: u32,
        count: usize,
    ) -> Result<Vec<(UnitId, Vec<u8>)>> {
        let pack = self.open_pack(pack)?;
        let wrong = || Error::corrupt("a frame of the pack was changed").with_entry(&pack.name);
        let places = (first..).take(count).map(|unit| pack.index.locate(unit));
        let places: Vec<(usize, usize)> = places.collect::<Option<_>>().ok_or_else(wrong)?;
        let (Some(&(low, _)), Some(&(high, _))) = (places.first(), places.last()) else {
            return Ok(Vec::new());
        };
        let start = pack.index.range(low).start;
        let stored = self.store().get_range(&pack.name, start..pack.index.range(high).end)?;
        let mut plain = Vec::new();
        let mut open = None;
        let unit = |(unit, (frame, place)): (u32, (usize, usize))| {
            let record = pack.index.frame(frame);
            if open.replace(frame) != Some(frame) {
                let range = pack.index.range(frame);
                let range = (range.start - start) as usize..(range.end - start) as usize;
                let mut sealed = stored.get(range).ok_or_else(wrong)?.to_vec();
                open_frame(&pack.key, frame as u64, record, &mut sealed, &mut plain)
                    .ok_or_else(wrong)?;
            }
            let bytes = plain[unit_range(record, place)].to_vec();
            let id = self.unit_keys().id(record.kind, &bytes);
            if Some(id) != pack.index.unit_id(unit) {
                return Err(wrong());
            }
            Ok((id, bytes))
        };
        (first..).zip(places).map(unit).collect()
    }
}

/// The packs of a leaf, from the manifest's list.
pub(crate) fn leaf_packs(manifest: &Manifest, leaf: &Leaf) -> Option<Vec<PackRef>> {
    leaf.packs.iter().map(|&pack| manifest.packs.get(pack as usize).copied()).collect()
}
