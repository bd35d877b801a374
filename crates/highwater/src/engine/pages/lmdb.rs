//! The data file of an LMDB environment (`libraries/liblmdb/mdb.c` of LMDB 0.9: `MDB_meta`,
//! `mdb_env_read_header`, `mdb_env_pick_meta`).

use std::fs::File;

use crate::engine::pages::bytes::{u16_at, u32_at, u64_at};
use crate::engine::pages::mdb::page::META;
use crate::engine::pages::mdb::walk::{Extent, Walk};
use crate::engine::pages::mdb::{Dialect, Record};
use crate::engine::pages::source::Source;
use crate::engine::pages::{Depth, Result, Seen, damaged, unknown};

#[cfg(test)]
mod tests;

const MAGIC: u32 = 0xbeef_c0de;
/// Where the magic number is on a meta page: behind the header of a page.
const MAGIC_AT: usize = 16;
/// Where it is with other headers: of a host of 32 bits, and from version 2 on.
const OTHER_MAGIC_AT: [usize; 2] = [12, 24];
const VERSION: u32 = 1;
/// `MAX_PAGESIZE`.
const PAGE_BYTES_MAX: u32 = 0x8000;
/// A meta page has to fit.
const PAGE_BYTES_MIN: u32 = 256;
/// The bytes of a meta page that tell something.
const META_BYTES: usize = MAGIC_AT + 136;

/// What a meta page tells.
#[derive(Clone, Copy, Debug)]
struct Meta {
    page_bytes: u32,
    free: Record,
    main: Record,
    last_page: u64,
    txnid: u64,
}

/// Checks the data file of an LMDB environment (`data.mdb`, or what the environment was named).
///
/// A file that is shorter than the last page in use is sound where all pages behind its end are free:
/// LMDB does not write such pages. A longer one is sound as well, as `MDB_WRITEMAP` makes it as long as
/// the map.
///
/// # Errors
/// Damaged, also where one of its two meta pages is: LMDB opens no file without both. Unknown where it
/// is of another version, of a host of 32 bits or of the other byte order.
pub(in crate::engine) fn check(file: &File, depth: Depth) -> Result<Seen> {
    let source = Source::new(file)?;
    let meta = newest(&source)?;
    let page_bytes = u64::from(meta.page_bytes);
    let pages = source.size().checked_div(page_bytes).unwrap_or(0);
    let Some(limit) = meta.last_page.checked_add(1).filter(|&limit| limit >= 2) else {
        return damaged("The newer meta page says that no page is in use.");
    };
    let extent = Extent {
        dialect: Dialect::Lmdb,
        page_bytes: usize::try_from(meta.page_bytes).unwrap_or(0),
        pages,
        limit,
        txnid: meta.txnid,
    };
    let mut seen = Seen { pages, ..Seen::default() };
    if depth == Depth::Open {
        if limit > pages {
            Walk::new(&source, extent)?.free_list(meta.free)?;
        }
        seen.reached = 2;
        seen.unlooked.push("Only the meta pages and the size of the file were looked at.".into());
        return Ok(seen);
    }
    let mut walk = Walk::new(&source, extent)?;
    walk.free_list(meta.free)?;
    walk.main(meta.main)?;
    seen.reached = walk.reached();
    seen.free = walk.free();
    seen.lost = limit.saturating_sub(seen.reached).saturating_sub(seen.free);
    seen.unlooked.push("The bytes of values were not checked: LMDB keeps no checksums.".into());
    seen.unlooked.extend(walk.unordered());
    seen.unlooked.extend(walk.miscounted());
    Ok(seen)
}

/// The meta page that LMDB would begin with.
fn newest(source: &Source<'_>) -> Result<Meta> {
    let first = meta(source, 0, 0)?;
    let second = meta(source, 1, u64::from(first.page_bytes))?;
    if first.page_bytes != second.page_bytes {
        return damaged("The two meta pages name different sizes of a page.");
    }
    Ok(if first.txnid < second.txnid { second } else { first })
}

fn meta(source: &Source<'_>, index: u64, offset: u64) -> Result<Meta> {
    let bytes = source.read(offset, META_BYTES)?;
    let magic = |at: usize| u32_at(&bytes, at);
    if magic(MAGIC_AT) != Some(MAGIC) {
        let others = OTHER_MAGIC_AT.into_iter().chain([MAGIC_AT]);
        if index == 0
            && others.filter_map(magic).any(|word| word == MAGIC || word.swap_bytes() == MAGIC)
        {
            return unknown(
                "The file is of an LMDB of 32 bits, of the other byte order or of a later version, \
                 which is not known here.",
            );
        }
        return damaged(format!(
            "Meta page {index} is damaged: it has not the magic number of LMDB."
        ));
    }
    let version = u32_at(&bytes, MAGIC_AT + 4);
    if version != Some(VERSION) {
        let version = version.unwrap_or_default();
        return match index {
            0 => unknown(format!("The file is of data version {version} of LMDB, not of 1.")),
            _ => damaged(format!("Meta page {index} is damaged: it names version {version}.")),
        };
    }
    parse(&bytes, index).unwrap_or_else(|| damaged(format!("Meta page {index} is damaged.")))
}

fn parse(bytes: &[u8], index: u64) -> Option<Result<Meta>> {
    let flags = u16_at(bytes, 10)?;
    let free = Record::at(Dialect::Lmdb, bytes, MAGIC_AT + 24)?;
    let main = Record::at(Dialect::Lmdb, bytes, MAGIC_AT + 72)?;
    let meta = Meta {
        page_bytes: free.item_bytes,
        free: Record { item_bytes: 0, ..free },
        main,
        last_page: u64_at(bytes, MAGIC_AT + 120)?,
        txnid: u64_at(bytes, MAGIC_AT + 128)?,
    };
    let size = meta.page_bytes;
    if flags & META == 0 {
        return Some(damaged(format!("Meta page {index} is damaged: it is not marked as one.")));
    }
    if !size.is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&size) {
        return Some(damaged(format!("Meta page {index} is damaged: a page has {size} bytes.")));
    }
    // Transaction N writes meta page N % 2; both are of transaction 0 at first.
    if meta.txnid != 0 && meta.txnid % 2 != index {
        return Some(damaged(format!(
            "Meta page {index} is damaged: transaction {} writes the other one.",
            meta.txnid
        )));
    }
    Some(Ok(meta))
}
