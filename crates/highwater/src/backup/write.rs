//! The writer: fills packs with sealed frames, in order.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::control::Control;
use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::vault::Vault;
use crate::vault::pack::{FrameRecord, UnitId, pack_name, seal_index};
use crate::vault::seal::ObjectKey;
use crate::vault::store::Upload;

use super::buffers::Buffers;
use super::effort::{Gauge, Watch};
use super::messages::{Halt, Write};

/// The packs that were written.
#[derive(Default)]
pub(super) struct Written {
    pub(super) packs: HashMap<PackId, u64>,
    pub(super) bytes: u64,
}

struct Pack<'a> {
    id: PackId,
    key: Arc<ObjectKey>,
    upload: Upload<'a>,
    frames: Vec<FrameRecord>,
    ids: Vec<UnitId>,
}

/// Writes packs until the assembler has finished. Whatever ends it before, the pack that was begun
/// is given up.
pub(super) fn write_packs(
    vault: &Vault,
    input: &Receiver<Write>,
    gauge: &Gauge,
    buffers: &Buffers,
    control: &Control,
) -> Result<Written, Halt> {
    let mut written = Written::default();
    let mut open: Option<Pack<'_>> = None;
    let ended =
        write_all(vault, input, Watch::new(gauge), buffers, control, &mut open, &mut written);
    if let (Err(_), Some(pack)) = (&ended, open) {
        pack.upload.abort()?;
    }
    ended.map(|()| written)
}

fn write_all<'a>(
    vault: &'a Vault,
    input: &Receiver<Write>,
    mut watch: Watch<'_>,
    buffers: &Buffers,
    control: &Control,
    open: &mut Option<Pack<'a>>,
    written: &mut Written,
) -> Result<(), Halt> {
    for write in input {
        match write {
            Write::Pack { id, key } => {
                end_pack(open, control, written)?;
                control.env.fault(FaultPoint::BackupPackBegin)?;
                let mut upload = vault.store().upload(&pack_name(id))?;
                upload.write(key.header())?;
                *open = Some(Pack { id, key, upload, frames: Vec::new(), ids: Vec::new() });
            }
            Write::Frame(sealed) => {
                let begin = control.env.monotonic();
                let (sealed, ids) = sealed.recv().map_err(|_| Halt::Stopped)??;
                let sealed_at = control.env.monotonic();
                let Some(pack) = open else {
                    return Err(Error::bug("a frame came before its pack").into());
                };
                pack.upload.write(&sealed.bytes)?;
                let stored = control.env.monotonic() - sealed_at;
                watch.note(sealed_at - begin, stored, sealed.bytes.len());
                pack.frames.push(sealed.record);
                pack.ids.extend(ids);
                buffers.give(sealed.bytes);
                control.env.fault(FaultPoint::BackupPackWrite)?;
            }
            Write::Finished => return Ok(end_pack(open, control, written)?),
        }
    }
    Err(Halt::Stopped)
}

fn end_pack(open: &mut Option<Pack<'_>>, control: &Control, written: &mut Written) -> Result<()> {
    let Some(mut pack) = open.take() else { return Ok(()) };
    let end = seal_index(&pack.key, pack.frames, pack.ids)?;
    pack.upload.write(&end)?;
    control.env.fault(FaultPoint::BackupPackComplete)?;
    let size = pack.upload.finish()?;
    written.packs.insert(pack.id, size);
    written.bytes += size;
    Ok(())
}
