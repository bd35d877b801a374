//! Packs: many sealed frames in one object, with a sealed index at its end.
//!
//! `header | frame* | index | trailer`. A frame holds units: up to a MiB of pages, one slice, or one
//! map. The index tells length, codec and unit ids of each frame; the trailer (the lengths needed to
//! find the index) is bound to the index as additional data. Frames lie without gaps, so that every
//! byte of the object belongs to something that is authenticated.

use std::cell::RefCell;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::ids::PackId;

use super::codec::{Codec, Effort};
use super::folder::Folder;
use super::seal::{HEADER_BYTES, ObjectKey, Purpose, TAG_BYTES};

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;

/// It is closed, too, once it holds so many units: its index is kept in memory as a whole.
pub(crate) const PACK_UNITS_MAX: u32 = 1 << 18;
/// Pages are sealed together up to so many bytes.
pub(crate) const FRAME_BYTES: usize = 1 << 20;
/// A slice, but for the last one of a file.
pub(crate) const SLICE_BYTES: usize = 4 << 20;
/// No frame is longer than this before compression.
const FRAME_PLAIN_BYTES_MAX: u32 = 16 << 20;

const TRAILER_BYTES: usize = 8;
const FRAME_RECORD_BYTES: usize = 12;

/// Where a pack stands.
pub(crate) fn pack_name(id: PackId) -> String {
    let text = id.to_string();
    Folder::Packs.object(format_args!("{}/{text}", &text[..2]))
}

/// What the units of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Pages = 0,
    Slice = 1,
    Map = 2,
}

/// What a unit is known by: a keyed BLAKE3 of its bytes, cut to 16 bytes for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UnitId(pub(crate) [u8; 32]);

impl UnitId {
    /// What stands for a unit of zero bytes, which is stored nowhere.
    pub(crate) const ZERO: UnitId = UnitId([0; 32]);

    /// The bytes that are stored.
    pub(crate) fn stored(&self, kind: FrameKind) -> &[u8] {
        &self.0[..id_bytes(kind)]
    }
}

fn id_bytes(kind: FrameKind) -> usize {
    match kind {
        FrameKind::Pages => 16,
        FrameKind::Slice | FrameKind::Map => 32,
    }
}

/// Keys under which units are hashed; wiped when they are dropped.
#[derive(Clone)]
pub(crate) struct UnitKeys {
    pub(crate) page: Zeroizing<[u8; 32]>,
    pub(crate) slice: Zeroizing<[u8; 32]>,
}

impl UnitKeys {
    /// The id of a unit. Pages have the last 16 bytes zero.
    pub(crate) fn id(&self, kind: FrameKind, bytes: &[u8]) -> UnitId {
        match kind {
            FrameKind::Pages => {
                let mut id = *blake3::keyed_hash(&self.page, bytes).as_bytes();
                id[16..].fill(0);
                UnitId(id)
            }
            FrameKind::Slice | FrameKind::Map => {
                UnitId(*blake3::keyed_hash(&self.slice, bytes).as_bytes())
            }
        }
    }
}

/// A frame, as the index tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRecord {
    /// Stored bytes, tag included.
    pub(crate) stored: u32,
    /// Bytes of its units.
    pub(crate) plain: u32,
    pub(crate) codec: Codec,
    pub(crate) kind: FrameKind,
    pub(crate) units: u16,
}

/// The index of a pack: its frames and the ids of their units, in order.
#[derive(Debug)]
pub(crate) struct PackIndex {
    frames: Vec<FrameRecord>,
    /// For each frame where it begins in the object.
    offsets: Vec<u64>,
    /// For each frame its first unit; one more at the end.
    first_units: Vec<u32>,
    ids: Vec<UnitId>,
}

impl PackIndex {
    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn frame(&self, frame: usize) -> FrameRecord {
        self.frames[frame]
    }

    /// The bytes of the object that a frame takes.
    pub(crate) fn range(&self, frame: usize) -> Range<u64> {
        self.offsets[frame]..self.offsets[frame] + u64::from(self.frames[frame].stored)
    }

    /// The frame that holds a unit, and the unit's place in it.
    pub(crate) fn locate(&self, unit: u32) -> Option<(usize, usize)> {
        if unit as usize >= self.ids.len() {
            return None;
        }
        let frame = self.first_units.partition_point(|&first| first <= unit) - 1;
        Some((frame, (unit - self.first_units[frame]) as usize))
    }

    pub(crate) fn unit_id(&self, unit: u32) -> Option<UnitId> {
        self.ids.get(unit as usize).copied()
    }

    pub(crate) fn first_unit(&self, frame: usize) -> u32 {
        self.first_units[frame]
    }

    /// Every unit of a kind, with its number.
    pub(crate) fn units_of(&self, kind: FrameKind) -> impl Iterator<Item = (u32, UnitId)> + '_ {
        (0..self.frames.len()).filter(move |&frame| self.frames[frame].kind == kind).flat_map(
            move |frame| {
                (self.first_units[frame]..self.first_units[frame + 1])
                    .map(|unit| (unit, self.ids[unit as usize]))
            },
        )
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn footprint(&self) -> usize {
        self.ids.len() * size_of::<UnitId>() + self.frames.len() * 32 + 64
    }

    fn build(frames: Vec<FrameRecord>, ids: Vec<UnitId>) -> PackIndex {
        let mut offsets = Vec::with_capacity(frames.len());
        let mut first_units = Vec::with_capacity(frames.len() + 1);
        let (mut offset, mut unit) = (HEADER_BYTES as u64, 0);
        for frame in &frames {
            offsets.push(offset);
            first_units.push(unit);
            offset += u64::from(frame.stored);
            unit += u32::from(frame.units);
        }
        first_units.push(unit);
        PackIndex { frames, offsets, first_units, ids }
    }
}

/// A frame before it is sealed.
pub(crate) struct PlainFrame {
    pub(crate) kind: FrameKind,
    pub(crate) ids: Vec<UnitId>,
    pub(crate) bytes: Vec<u8>,
}

/// A frame as it will be stored, opened and compared already.
pub(crate) struct SealedFrame {
    pub(crate) record: FrameRecord,
    pub(crate) bytes: Vec<u8>,
}

thread_local! {
    /// Where a worker opens what it has sealed; kept, since a fresh one for each frame would leave
    /// the allocator with several times what is in use.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// So much memory a frame of `plain` bytes may take once it is sealed.
pub(crate) fn sealed_bytes_max(plain: usize) -> usize {
    Codec::bytes_max(plain) + TAG_BYTES
}

/// Compresses and seals a frame, then opens it again and compares: what can't be read back never
/// reaches the vault. The sealed bytes are made in `room`.
pub(crate) fn seal_frame(
    key: &ObjectKey,
    number: u64,
    frame: &PlainFrame,
    effort: Effort,
    room: Vec<u8>,
) -> Result<SealedFrame> {
    let mut bytes = room;
    bytes.reserve(sealed_bytes_max(frame.bytes.len()));
    let codec = Codec::compress(&frame.bytes, effort, &mut bytes)?;
    key.seal(number, Purpose::Data, &[], &mut bytes)?;
    let record = FrameRecord {
        stored: bytes.len() as u32,
        plain: frame.bytes.len() as u32,
        codec,
        kind: frame.kind,
        units: frame.ids.len() as u16,
    };
    if !opens_to(key, number, record, &bytes, &frame.bytes) {
        return Err(Error::bug("a sealed frame opens to something else")
            .with_remedy("the machine's memory or processor may be faulty"));
    }
    Ok(SealedFrame { record, bytes })
}

/// Whether a sealed frame opens to exactly these bytes.
fn opens_to(
    key: &ObjectKey,
    number: u64,
    record: FrameRecord,
    stored: &[u8],
    meant: &[u8],
) -> bool {
    SCRATCH.with_borrow_mut(|(again, plain)| {
        again.clear();
        again.extend_from_slice(stored);
        open_frame(key, number, record, again, plain).is_some() && plain == meant
    })
}

/// Opens a frame in place and expands it into `plain`. `None` where it is not what was sealed.
pub(crate) fn open_frame(
    key: &ObjectKey,
    number: u64,
    record: FrameRecord,
    stored: &mut [u8],
    plain: &mut Vec<u8>,
) -> Option<()> {
    let packed = key.open(number, Purpose::Data, &[], stored)?;
    record.codec.expand(packed, record.plain as usize, plain)
}

/// The ranges of a frame's units in its plain bytes.
pub(crate) fn unit_range(record: FrameRecord, unit: usize) -> Range<usize> {
    let size = record.plain as usize / usize::from(record.units);
    unit * size..(unit + 1) * size
}

/// The end of a pack: sealed index and trailer.
pub(crate) fn seal_index(
    key: &ObjectKey,
    frames: Vec<FrameRecord>,
    ids: Vec<UnitId>,
) -> Result<Vec<u8>> {
    let mut index = Vec::with_capacity(frames.len() * FRAME_RECORD_BYTES + ids.len() * 32);
    for frame in &frames {
        index.extend_from_slice(&frame.stored.to_le_bytes());
        index.extend_from_slice(&frame.plain.to_le_bytes());
        index.push(frame.codec as u8);
        index.push(frame.kind as u8);
        index.extend_from_slice(&frame.units.to_le_bytes());
    }
    let mut rest = ids.as_slice();
    for frame in &frames {
        let (these, later) = rest.split_at(usize::from(frame.units));
        these.iter().for_each(|id| index.extend_from_slice(id.stored(frame.kind)));
        rest = later;
    }
    let trailer = trailer(index.len() + TAG_BYTES, frames.len());
    key.seal(frames.len() as u64, Purpose::Last, &trailer, &mut index)?;
    index.extend_from_slice(&trailer);
    Ok(index)
}

fn trailer(index_bytes: usize, frames: usize) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..4].copy_from_slice(&(index_bytes as u32).to_le_bytes());
    trailer[4..].copy_from_slice(&(frames as u32).to_le_bytes());
    trailer
}

/// How many bytes the end of a pack (index and trailer) takes, from its last bytes.
pub(crate) fn end_bytes(tail: &[u8]) -> Option<u64> {
    let trailer = tail.last_chunk::<TRAILER_BYTES>()?;
    let index = u32::from_le_bytes(trailer[..4].try_into().ok()?);
    Some(u64::from(index) + TRAILER_BYTES as u64)
}

/// Opens the index in the last bytes of a pack (just its end) of `size` bytes.
pub(crate) fn open_index(key: &ObjectKey, end: &[u8], size: u64) -> Option<PackIndex> {
    let (index, trailer) = end.split_at_checked(end.len().checked_sub(TRAILER_BYTES)?)?;
    let count = u32::from_le_bytes(trailer[4..].try_into().ok()?) as usize;
    let mut index = index.to_vec();
    let plain = key.open(count as u64, Purpose::Last, trailer, &mut index)?;
    let (records, mut rest) = plain.split_at_checked(count.checked_mul(FRAME_RECORD_BYTES)?)?;
    let frames: Vec<FrameRecord> =
        records.chunks_exact(FRAME_RECORD_BYTES).map(parse_record).collect::<Option<_>>()?;
    // Memory is taken for ids that are there, not for as many as the records claim.
    let claimed = frames.iter().map(|frame| usize::from(frame.units) * id_bytes(frame.kind));
    if claimed.sum::<usize>() != rest.len() {
        return None;
    }
    let mut ids = Vec::with_capacity(frames.iter().map(|frame| usize::from(frame.units)).sum());
    for frame in &frames {
        for _ in 0..frame.units {
            let (stored, later) = rest.split_at_checked(id_bytes(frame.kind))?;
            let mut id = [0; 32];
            id[..stored.len()].copy_from_slice(stored);
            ids.push(UnitId(id));
            rest = later;
        }
    }
    let data: u64 = frames.iter().map(|frame| u64::from(frame.stored)).sum();
    let whole = HEADER_BYTES as u64 + data + end.len() as u64;
    (whole == size).then(|| PackIndex::build(frames, ids))
}

fn parse_record(bytes: &[u8]) -> Option<FrameRecord> {
    let record = FrameRecord {
        stored: u32::from_le_bytes(bytes[..4].try_into().ok()?),
        plain: u32::from_le_bytes(bytes[4..8].try_into().ok()?),
        codec: Codec::parse(bytes[8])?,
        kind: match bytes[9] {
            0 => FrameKind::Pages,
            1 => FrameKind::Slice,
            2 => FrameKind::Map,
            _ => return None,
        },
        units: u16::from_le_bytes(bytes[10..12].try_into().ok()?),
    };
    let whole = record.units > 0
        && record.plain > 0
        && record.plain <= FRAME_PLAIN_BYTES_MAX
        && record.plain.is_multiple_of(u32::from(record.units));
    whole.then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VaultId;
    use crate::vault::keys::MasterKey;
    use crate::vault::seal::ObjectKind;

    /// A compressor, a processor or a memory that errs between the node's bytes and the seal.
    #[test]
    fn a_frame_that_was_sealed_wrong_is_seen_before_it_is_stored() {
        let master = MasterKey::from_bytes([7; 32]);
        let vault = VaultId::from_bytes([1; 16]);
        let key = ObjectKey::create(&master, vault, ObjectKind::Pack, "packs/00/pack").unwrap();
        let bytes: Vec<u8> = (0..FRAME_BYTES).map(|at| (at % 251) as u8).collect();
        let ids = vec![UnitId::ZERO; 16];
        let plain = PlainFrame { kind: FrameKind::Pages, ids, bytes: bytes.clone() };
        let sealed = seal_frame(&key, 3, &plain, Effort::Fast, Vec::new()).unwrap();
        assert!(opens_to(&key, 3, sealed.record, &sealed.bytes, &bytes));
        let mut wrong = bytes.clone();
        wrong[4096] ^= 1;
        assert!(!opens_to(&key, 3, sealed.record, &sealed.bytes, &wrong));
        let mut frame = Vec::new();
        let codec = Codec::compress(&wrong, Effort::Balanced, &mut frame).unwrap();
        key.seal(4, Purpose::Data, &[], &mut frame).unwrap();
        let record = FrameRecord { stored: frame.len() as u32, codec, ..sealed.record };
        assert!(!opens_to(&key, 4, record, &frame, &bytes), "compressed from other bytes");
        assert!(!opens_to(&key, 5, record, &frame, &wrong), "sealed under another number");
    }
}
