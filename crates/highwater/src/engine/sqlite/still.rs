//! A SQLite that stands still, captured as files: in the middle of a transaction too, so that its log
//! belongs to it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags};

use super::UNIT_BYTES;
use crate::engine::engines::Database;
use crate::engine::engines::still::{self, Still};
use crate::engine::files::Listed;
use crate::engine::found::ends;
use crate::engine::metadata::Found;
use crate::engine::{EntryType, FoundPart, Units};
use crate::error::{Error, Result};

/// All files but the index of the log: whoever opens the database first makes it anew.
pub(super) fn still(database: &Database<'_>) -> Result<Still> {
    let mut still = still::of_all(database)?;
    still.listed.retain(|listed| !ends(listed.path.name(), "-shm"));
    Ok(Still { settle: Some(settle_pages), ..still })
}

/// SQLite's pages are as large as its header says, and as many, where no log says otherwise: a file is
/// cut off only after the commit that made it shorter.
fn settle_pages(part: &FoundPart, entries: &mut [(Listed, Found)]) -> Result<()> {
    let logged = entries.iter().any(|(listed, found)| {
        listed.path != part.root && found.kind == EntryType::File && found.stamp.size > 0
    });
    for (listed, found) in entries.iter_mut().filter(|(listed, _)| listed.path == part.root) {
        let mut header = [0; 100];
        if found.stamp.size < header.len() as u64 {
            continue;
        }
        let failed =
            |source| Error::io("can't read its copy", source).with_entry(part.name.clone());
        let file = listed.source.open_with(OFlags::RDWR, Mode::empty());
        let file = File::from(file.map_err(|errno| failed(errno.into()))?);
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let word = |at: usize| {
            header[at..at + 4].iter().fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        // 1 stands for 65536.
        let page = match u32::from(u16::from_be_bytes([header[16], header[17]])) {
            1 => 1 << 16,
            page if page.is_power_of_two() => page,
            _ => continue,
        };
        listed.units = Units::Pages { bytes: page.max(UNIT_BYTES) };
        let counted = word(28).saturating_mul(page.into());
        // The count holds where it was written by the last change.
        if !logged && word(24) == word(92) && (1..found.stamp.size).contains(&counted) {
            file.set_len(counted).map_err(failed)?;
            found.stamp.size = counted;
        }
    }
    Ok(())
}
