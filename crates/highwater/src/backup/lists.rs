//! Stores the entries of parts that have many, where the snapshot before does not have the same list.

use std::collections::HashMap;

use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::vault::Manifest;
use crate::vault::lists::{self, Known};
use crate::vault::manifest::PackTable;
use crate::vault::pack::FrameKind;
use crate::vault::writer::{Points, Writer};

use super::Task;

/// Puts the lists into packs of their own, from the snapshot's pack number `first` on, and names them in the manifest.
pub(super) fn put(task: &Task<'_>, manifest: &mut Manifest, first: u32) -> Result<()> {
    let points = Points { pack: FaultPoint::BackupPackBegin, frame: FaultPoint::BackupPackWrite };
    let snapshot = task.intent.snapshot;
    let mut writer = Writer::new(task.vault, snapshot, first, points, task.control);
    let mut known = Known::new();
    let mut sizes: HashMap<PackId, u64> = HashMap::new();
    if let Some(base) = &task.base {
        lists::know(&mut known, base);
        sizes.extend(base.packs.iter().map(|pack| (pack.id, pack.size)));
    }
    let Manifest { parts, packs, .. } = manifest;
    let mut listed = Vec::new();
    for part in &mut *parts {
        let mut put = |id, bytes: &[u8]| writer.add(FrameKind::Map, id, bytes);
        match lists::put_lists(task.vault, part, packs, &mut known, &mut put) {
            Ok(lists) => listed.push(lists),
            Err(error) => {
                // What ended the backup is told, not what follows from it.
                let _ = writer.abort();
                return Err(error);
            }
        }
    }
    writer.finish()?;
    sizes.extend(&writer.packs);
    let unknown = || Error::bug("a list is in a pack of nobody");
    let size_of = |id: PackId| sizes.get(&id).copied().ok_or_else(unknown);
    let mut table = PackTable::of(std::mem::take(packs));
    for (part, listed) in parts.iter_mut().zip(listed) {
        if let Some(listed) = listed {
            lists::name_lists(part, listed, |id| table.number(id, size_of))?;
        }
    }
    *packs = table.packs;
    manifest.bytes_stored += writer.packs.values().sum::<u64>();
    manifest.version = manifest.version_needed();
    Ok(())
}
