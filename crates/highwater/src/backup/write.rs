//! The writer: fills packs with sealed frames, in order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::control::Control;
use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::vault::UPLOADS_IN_FLIGHT_MAX;
use crate::vault::Vault;
use crate::vault::pack::{FrameRecord, UnitId, pack_name, seal_index};
use crate::vault::seal::ObjectKey;
use crate::vault::upload::{Ending, Upload};

use super::messages::{Halt, Write};
use super::room::Memory;

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

/// A pack that was ended and may still be on its way.
struct Ended<'a> {
    id: PackId,
    ending: Ending<'a>,
}

/// The pack that is being filled, and those before it, in order.
#[derive(Default)]
struct Packs<'a> {
    open: Option<Pack<'a>>,
    ended: VecDeque<Ended<'a>>,
}

/// Writes packs until the assembler has finished. Whatever ends it before, the pack that was begun
/// is given up.
pub(super) fn write_packs(
    vault: &Vault,
    input: &Receiver<Write>,
    memory: Memory<'_>,
    control: &Control,
) -> Result<Written, Halt> {
    let mut written = Written::default();
    let mut packs = Packs::default();
    let outcome = write_all(vault, input, memory, control, &mut packs, &mut written);
    if outcome.is_err() {
        // What ended the backup is told, not what follows from it: an unfinished upload is never
        // visible, and the caller removes the packs that are.
        let _ = packs.open.map(|pack| pack.upload.abort());
        for ended in packs.ended {
            let _ = ended.ending.wait();
        }
    }
    outcome.map(|()| written)
}

fn write_all<'a>(
    vault: &'a Vault,
    input: &Receiver<Write>,
    memory: Memory<'_>,
    control: &Control,
    packs: &mut Packs<'a>,
    written: &mut Written,
) -> Result<(), Halt> {
    for write in input {
        match write {
            Write::Pack { id, key } => {
                end_pack(packs, control, written)?;
                control.env.fault(FaultPoint::BackupPackBegin)?;
                let mut upload = vault.store().upload(&pack_name(id))?;
                upload.write(key.header())?;
                packs.open = Some(Pack { id, key, upload, frames: Vec::new(), ids: Vec::new() });
            }
            Write::Frames(sealed) => {
                let frames = sealed.recv().map_err(|_| Halt::Stopped)??;
                let Some(pack) = &mut packs.open else {
                    return Err(Error::bug("a frame came before its pack").into());
                };
                for (sealed, ids) in frames {
                    pack.upload.write(&sealed.bytes)?;
                    pack.frames.push(sealed.record);
                    pack.ids.extend(ids);
                    memory.room.give(sealed.record.plain as usize);
                    memory.buffers.give(sealed.bytes);
                    control.env.fault(FaultPoint::BackupPackWrite)?;
                }
            }
            Write::Finished => {
                end_pack(packs, control, written)?;
                return Ok(await_ended(packs, 0, written)?);
            }
        }
    }
    Err(Halt::Stopped)
}

/// Ends the open pack. It arrives while others are filled; so few are on their way at once that the
/// packs of a backup that is killed are found by their numbers, whichever of them are missing.
fn end_pack(packs: &mut Packs<'_>, control: &Control, written: &mut Written) -> Result<()> {
    let Some(mut pack) = packs.open.take() else { return Ok(()) };
    let end = seal_index(&pack.key, pack.frames, pack.ids)?;
    pack.upload.write(&end)?;
    await_ended(packs, UPLOADS_IN_FLIGHT_MAX - 1, written)?;
    control.env.fault(FaultPoint::BackupPackComplete)?;
    packs.ended.push_back(Ended { id: pack.id, ending: pack.upload.finish()? });
    Ok(())
}

/// Waits until no more than `left` of the packs that were ended are on their way.
fn await_ended(packs: &mut Packs<'_>, left: usize, written: &mut Written) -> Result<()> {
    while packs.ended.len() > left {
        let Some(Ended { id, ending }) = packs.ended.pop_front() else { break };
        let size = ending.wait()?;
        written.packs.insert(id, size);
        written.bytes += size;
    }
    Ok(())
}
