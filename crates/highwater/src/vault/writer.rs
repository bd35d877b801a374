//! New packs, filled by one caller, unit after unit: for what is rewritten, and for the lists of entries.

use std::collections::HashMap;

use crate::control::{Control, Event};
use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::ids::{PackId, SnapshotId};

use super::Vault;
use super::codec::Effort;
use super::pack::{
    FRAME_BYTES, FrameKind, FrameRecord, PACK_UNITS_MAX, PlainFrame, UnitId, pack_name, seal_frame,
    seal_index,
};
use super::seal::{ObjectKey, ObjectKind};
use super::upload::Upload;

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

/// Where a crash can happen: before a pack, after a frame.
#[derive(Clone, Copy)]
pub(crate) struct Points {
    pub(crate) pack: FaultPoint,
    pub(crate) frame: FaultPoint,
}

/// New packs, named after the snapshot of an intent.
pub(crate) struct Writer<'a> {
    vault: &'a Vault,
    snapshot: SnapshotId,
    control: &'a Control,
    points: Points,
    open: Option<Filling<'a>>,
    pending: PlainFrame,
    /// Where frames are sealed.
    room: Vec<u8>,
    begun: u32,
    /// The packs that were ended, and their sizes.
    pub(crate) packs: HashMap<PackId, u64>,
}

impl<'a> Writer<'a> {
    /// Packs of the snapshot from its `first`th on: those before it are there.
    pub(crate) fn new(
        vault: &'a Vault,
        snapshot: SnapshotId,
        first: u32,
        points: Points,
        control: &'a Control,
    ) -> Writer<'a> {
        Writer {
            vault,
            snapshot,
            control,
            points,
            open: None,
            pending: nothing(),
            room: Vec::new(),
            begun: first,
            packs: HashMap::new(),
        }
    }

    /// Adds a unit; tells where it will be. Pages of one size share frames, others have their own.
    pub(crate) fn add(
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
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.send_pending()?;
        let Some(mut pack) = self.open.take() else { return Ok(()) };
        let end = seal_index(&pack.key, pack.frames, pack.ids)?;
        pack.upload.write(&end)?;
        let size = pack.upload.finish()?.wait()?;
        self.packs.insert(pack.id, size);
        Ok(())
    }

    /// Gives up the pack that was begun.
    pub(crate) fn abort(mut self) -> Result<()> {
        self.open.take().map_or(Ok(()), |pack| pack.upload.abort())
    }

    fn begin(&mut self) -> Result<()> {
        self.finish()?;
        self.control.env.fault(self.points.pack)?;
        let vault = self.vault;
        let id = vault.pack_id(self.snapshot, self.begun);
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
        let sealed = seal_frame(&pack.key, number, &self.pending, Effort::Balanced, room)?;
        pack.upload.write(&sealed.bytes)?;
        pack.frames.push(sealed.record);
        pack.ids.append(&mut self.pending.ids);
        self.pending.bytes.clear();
        self.room = sealed.bytes;
        self.control.env.fault(self.points.frame)
    }
}

fn nothing() -> PlainFrame {
    PlainFrame { kind: FrameKind::Pages, ids: Vec::new(), bytes: Vec::new() }
}
