//! Reads the units of old packs that go to new ones: each is opened and compared.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::vault::Vault;
use crate::vault::manifest::PackRef;
use crate::vault::pack::{FrameKind, FrameRecord, UnitId, open_frame, unit_range};

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
