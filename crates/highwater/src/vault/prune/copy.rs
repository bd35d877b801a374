//! Copies units from old packs into new ones: opened, compared, sealed again and opened again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::control::{Control, Event};
use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::ids::{PackId, SnapshotId};
use crate::vault::Vault;
use crate::vault::codec::Effort;
use crate::vault::manifest::PackRef;
use crate::vault::pack::{
    FRAME_BYTES, FrameKind, FrameRecord, PACK_UNITS_MAX, PlainFrame, UnitId, open_frame, pack_name,
    seal_frame, seal_index, unit_range,
};
use crate::vault::seal::{ObjectKey, ObjectKind};
use crate::vault::upload::Upload;

/// Frames that were opened lately are kept up to so many plain bytes: neighbours of a file are often
/// neighbours in a frame.
const OPEN_BYTES_MAX: usize = 32 << 20;

/// The content of a frame.
struct Opened {
    record: FrameRecord,
    first: u32,
    plain: Vec<u8>,
}

/// Units of old packs.
pub(super) struct Reader<'a> {
    vault: &'a Vault,
    frames: HashMap<(PackId, usize), Arc<Opened>>,
    order: VecDeque<(PackId, usize)>,
    bytes: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(vault: &'a Vault) -> Reader<'a> {
        Reader { vault, frames: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// A unit, compared with its id.
    pub(super) fn unit(
        &mut self,
        pack: PackRef,
        unit: u32,
    ) -> Result<(FrameKind, UnitId, Vec<u8>)> {
        let open = self.vault.open_pack(pack)?;
        let wrong = || Error::corrupt("a frame of the pack was changed").with_entry(&open.name);
        let (number, place) = open.index.locate(unit).ok_or_else(wrong)?;
        let frame = match self.frames.get(&(pack.id, number)) {
            Some(frame) => Arc::clone(frame),
            None => {
                let range = open.index.range(number);
                let mut stored = self.vault.store().get_range(&open.name, range)?.to_vec();
                let (record, first) = (open.index.frame(number), open.index.first_unit(number));
                let mut plain = Vec::new();
                open_frame(&open.key, number as u64, record, &mut stored, &mut plain)
                    .ok_or_else(wrong)?;
                self.keep((pack.id, number), Opened { record, first, plain })
            }
        };
        debug_assert_eq!(frame.first + place as u32, unit);
        let bytes = frame.plain[unit_range(frame.record, place)].to_vec();
        let kind = frame.record.kind;
        let id = self.vault.unit_keys().id(kind, &bytes);
        if open.index.unit_id(unit) != Some(id) {
            return Err(wrong());
        }
        Ok((kind, id, bytes))
    }

    fn keep(&mut self, at: (PackId, usize), frame: Opened) -> Arc<Opened> {
        let frame = Arc::new(frame);
        self.bytes += frame.plain.len();
        self.frames.insert(at, Arc::clone(&frame));
        self.order.push_back(at);
        while self.bytes > OPEN_BYTES_MAX && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|oldest| self.frames.remove(&oldest));
            self.bytes -= oldest.map_or(0, |frame| frame.plain.len());
        }
        frame
    }
}

/// The pack that is being filled.
struct Filling<'a> {
    id: PackId,
    key: ObjectKey,
    upload: Upload<'a>,
    frames: Vec<FrameRecord>,
    ids: Vec<UnitId>,
    /// Units that were promised a place, those of the pending frame included.
    units: u32,
    plain: u64,
}

/// New packs, named after the rewriting.
pub(super) struct Writer<'a> {
    vault: &'a Vault,
    rewriting: SnapshotId,
    control: &'a Control,
    open: Option<Filling<'a>>,
    pending: PlainFrame,
    /// Where frames are sealed.
    room: Vec<u8>,
    begun: u32,
    pub(super) packs: HashMap<PackId, u64>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(vault: &'a Vault, rewriting: SnapshotId, control: &'a Control) -> Writer<'a> {
        let packs = HashMap::new();
        let (pending, room) = (nothing(), Vec::new());
        Writer { vault, rewriting, control, open: None, pending, room, begun: 0, packs }
    }

    /// Adds a unit; tells where it will be. Pages of one size share frames, others have their own.
    pub(super) fn add(
        &mut self,
        kind: FrameKind,
        id: UnitId,
        bytes: &[u8],
    ) -> Result<(PackId, u32)> {
        let held = self.pending.bytes.len() / self.pending.ids.len().max(1);
        let fits = kind == FrameKind::Pages
            && held == bytes.len()
            && self.pending.bytes.len() + bytes.len() <= FRAME_BYTES;
        if !self.pending.ids.is_empty() && !fits {
            self.send_pending()?;
        }
        let pack_bytes = self.vault.store().pack_bytes();
        let full = self
            .open
            .as_ref()
            .is_none_or(|pack| pack.plain >= pack_bytes || pack.units >= PACK_UNITS_MAX);
        if full {
            self.begin()?;
        }
        let pack = self.open.as_mut().ok_or_else(|| Error::bug("no pack is open"))?;
        let at = (pack.id, pack.units);
        pack.units += 1;
        pack.plain += bytes.len() as u64;
        self.pending.kind = kind;
        self.pending.ids.push(id);
        self.pending.bytes.extend_from_slice(bytes);
        if kind != FrameKind::Pages {
            self.send_pending()?;
        }
        self.control.report(Event::Bytes(bytes.len() as u64));
        Ok(at)
    }

    /// Ends the last pack; all of them are durable then.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.send_pending()?;
        let Some(mut pack) = self.open.take() else { return Ok(()) };
        let end = seal_index(&pack.key, pack.frames, pack.ids)?;
        pack.upload.write(&end)?;
        let size = pack.upload.finish()?.wait()?;
        self.packs.insert(pack.id, size);
        Ok(())
    }

    /// Gives up the pack that was begun.
    pub(super) fn abort(mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |pack| pack.upload.abort())
    }

    fn begin(&mut self) -> Result<()> {
        self.finish()?;
        self.control.env.fault(FaultPoint::RewritePack)?;
        let vault = self.vault;
        let id = vault.pack_id(self.rewriting, self.begun);
        self.begun += 1;
        let name = pack_name(id);
        let key = ObjectKey::create(vault.master(), vault.id(), ObjectKind::Pack, &name)?;
        let mut upload = vault.store().upload(&name)?;
        upload.write(key.header())?;
        let (frames, ids) = (Vec::new(), Vec::new());
        self.open = Some(Filling { id, key, upload, frames, ids, units: 0, plain: 0 });
        Ok(())
    }

    fn send_pending(&mut self) -> Result<()> {
        if self.pending.ids.is_empty() {
            return Ok(());
        }
        let pack =
            self.open.as_mut().ok_or_else(|| Error::bug("a unit was promised to no pack"))?;
        let (number, room) = (pack.frames.len() as u64, std::mem::take(&mut self.room));
        let sealed = seal_frame(&pack.key, number, &self.pending, Effort::Dense, room)?;
        pack.upload.write(&sealed.bytes)?;
        pack.frames.push(sealed.record);
        pack.ids.append(&mut self.pending.ids);
        self.pending.bytes.clear();
        self.room = sealed.bytes;
        self.control.env.fault(FaultPoint::RewriteFrame)
    }
}

fn nothing() -> PlainFrame {
    PlainFrame { kind: FrameKind::Pages, ids: Vec::new(), bytes: Vec::new() }
}
