//! The data file of a libmdbx environment, of releases 0.11 to 0.13 (`mdbx.c` of libmdbx, `meta_t`,
//! `geo_t` and `meta_validate` for the meta pages, `dxb_read_header` and `dxb_setup` for the choice of one).

use std::fs::File;

use crate::engine::pages::bytes::{u16_at, u32_at, u64_at};
use crate::engine::pages::mdb::page::{Header, META};
use crate::engine::pages::mdb::walk::{Extent, Walk};
use crate::engine::pages::mdb::{Dialect, INTEGER_KEY, Record};
use crate::engine::pages::source::Source;
use crate::engine::pages::{Depth, PageFault, Result, Seen, damaged, unknown};

#[cfg(test)]
mod tests;

/// The magic number; the lowest byte of the word that it is in is the version.
const MAGIC: u64 = 0x0059_659d_bdef_4c11;
/// The version of releases 0.11 to 0.13; 64 is added where lists of free pages ascend.
const VERSION: u64 = 3;
const METAS: u64 = 3;
const META_AT: usize = 20;
const META_BYTES: usize = META_AT + 208;
const PAGE_BYTES_MIN: u32 = 256;
const PAGE_BYTES_MAX: u32 = 0x1_0000;
/// `MAX_PAGENO` and one more.
const PAGES_MAX: u32 = 0x8000_0000;
/// Transactions have lower numbers (`MAX_TXNID`).
const TXNID_END: u64 = 0xffff_ffff_0000_0000;
/// The signature of a meta page whose transaction may not have reached the disk, and of none.
const WEAK_MAX: u64 = 1;
/// The signature of one whose transaction has.
const STEADY: u64 = u64::MAX;

/// What a meta page tells.
#[derive(Clone, Copy, Debug)]
struct Meta {
    page_bytes: u32,
    free: Record,
    main: Record,
    /// The first page that was never in use.
    limit: u32,
    txnid: u64,
    steady: bool,
    /// Features that are not known here.
    features: bool,
}

/// What is where a meta page should be.
enum Found {
    Meta(Meta),
    /// It has the magic number, and names another version.
    Version(u64),
    Damaged,
}

/// Checks the data file of a libmdbx environment (`mdbx.dat`, or what the environment was named).
///
/// One or two of the three meta pages may be damaged. The newest one whose transaction was synced counts,
/// to which libmdbx goes back on another host; a newer one is looked at as well.
///
/// # Errors
/// Damaged, also where the file is shorter than the meta page that counts says (an older one may be of
/// a time when it was longer), or two of them are of one transaction. Unknown where it is of another version, has a feature that is not known here, or is of
/// the other byte order.
pub(in crate::engine) fn check(file: &File, depth: Depth) -> Result<Seen> {
    let source = Source::new(file)?;
    let metas = metas(&source)?;
    let newest = metas.iter().max_by_key(|meta| meta.txnid);
    let steady = metas.iter().filter(|meta| meta.steady).max_by_key(|meta| meta.txnid);
    let (Some(newest), Some(first)) = (newest, steady.or(newest)) else {
        return damaged("All meta pages are damaged.");
    };
    if metas.iter().any(|meta| meta.features) {
        return unknown("The file has a feature of libmdbx that is not known here.");
    }
    let mut seen = Seen::default();
    if depth == Depth::Open {
        whole(&source, first)?;
        seen.pages = source.size().checked_div(u64::from(first.page_bytes)).unwrap_or(0);
        seen.reached = METAS;
        seen.unlooked.push("Only the meta pages and the size of the file were looked at.".into());
        if newest.txnid != first.txnid {
            later(newest, first, whole(&source, newest), &mut seen)?;
        }
        return Ok(seen);
    }
    walk(&source, first, &mut seen)?;
    seen.unlooked.push("The bytes of values were not checked: libmdbx keeps no checksums.".into());
    if (metas.len() as u64) < METAS {
        seen.unlooked.push(format!(
            "Some of the meta pages are damaged; libmdbx goes on with transaction {}.",
            first.txnid
        ));
    }
    if !first.steady {
        seen.unlooked.push(
            "No sound meta page is of a transaction that was synced: libmdbx opens such a file only until \
             the host is booted."
                .into(),
        );
    } else if newest.txnid != first.txnid {
        let mut also = Seen::default();
        let walked = walk(&source, newest, &mut also);
        seen.unlooked.extend(also.unlooked);
        later(newest, first, walked, &mut seen)?;
    }
    Ok(seen)
}

/// Tells of a transaction that was not synced, behind the one that was.
fn later(newest: &Meta, first: &Meta, walked: Result<()>, seen: &mut Seen) -> Result<()> {
    let whole = match walked {
        Ok(()) => "nothing is wrong with it".to_owned(),
        Err(PageFault::Damaged(what)) => format!("it is not whole ({what})"),
        Err(fault) => return Err(fault),
    };
    seen.unlooked.push(format!(
        "Transaction {} was not synced, and {whole}; libmdbx may go back to transaction {}.",
        newest.txnid, first.txnid
    ));
    Ok(())
}

/// All pages in use are in the file, also those that are free.
fn whole(source: &Source<'_>, meta: &Meta) -> Result<()> {
    let used = u64::from(meta.limit).saturating_mul(u64::from(meta.page_bytes));
    if used > source.size() {
        let size = source.size();
        return damaged(format!("The file is cut: it has {size} bytes, and {used} are in use."));
    }
    Ok(())
}

fn walk(source: &Source<'_>, meta: &Meta, seen: &mut Seen) -> Result<()> {
    whole(source, meta)?;
    let pages = source.size().checked_div(u64::from(meta.page_bytes)).unwrap_or(0);
    let limit = u64::from(meta.limit);
    let extent = Extent {
        dialect: Dialect::Mdbx,
        page_bytes: usize::try_from(meta.page_bytes).unwrap_or(0),
        pages,
        limit,
        txnid: meta.txnid,
    };
    let mut walk = Walk::new(source, extent)?;
    walk.free_list(meta.free)?;
    walk.main(meta.main)?;
    seen.pages = pages;
    seen.reached = walk.reached();
    seen.free = walk.free();
    seen.lost = limit.saturating_sub(seen.reached).saturating_sub(seen.free);
    seen.unlooked.extend(walk.unordered());
    seen.unlooked.extend(walk.miscounted());
    Ok(())
}

/// The sound meta pages.
fn metas(source: &Source<'_>) -> Result<Vec<Meta>> {
    let first = found(source, 0, 0)?;
    let size = match &first {
        Found::Meta(meta) => Some(meta.page_bytes),
        _ => size(source)?,
    };
    let mut all = vec![first];
    if let Some(size) = size {
        for index in 1..METAS {
            all.push(found(source, index, size)?);
        }
    }
    let versions: Vec<u64> = all
        .iter()
        .filter_map(|found| if let Found::Version(version) = found { Some(*version) } else { None })
        .collect();
    let metas: Vec<Meta> = all
        .iter()
        .filter_map(|found| if let Found::Meta(meta) = found { Some(*meta) } else { None })
        .collect();
    if let (Some(version), true) = (versions.first(), metas.is_empty()) {
        return unknown(format!("The file is of data version {version} of libmdbx."));
    }
    for (index, meta) in metas.iter().enumerate() {
        if metas.iter().take(index).any(|other| other.txnid == meta.txnid) {
            return damaged(format!("Two meta pages are of transaction {}.", meta.txnid));
        }
        if metas.iter().any(|other| other.page_bytes != meta.page_bytes) {
            return damaged("The meta pages name different sizes of a page.");
        }
    }
    Ok(metas)
}

/// The size of a page, where the first meta page does not tell.
fn size(source: &Source<'_>) -> Result<Option<u32>> {
    let mut size = PAGE_BYTES_MIN;
    while size <= PAGE_BYTES_MAX {
        for index in 1..METAS {
            match found(source, index, size)? {
                Found::Meta(meta) if meta.page_bytes == size => return Ok(Some(size)),
                Found::Version(_) => return Ok(Some(size)),
                _ => {}
            }
        }
        size = size.saturating_mul(2);
    }
    Ok(None)
}

fn found(source: &Source<'_>, index: u64, page_bytes: u32) -> Result<Found> {
    let offset = index.saturating_mul(u64::from(page_bytes));
    if offset.saturating_add(META_BYTES as u64) > source.size() {
        return Ok(Found::Damaged);
    }
    let bytes = source.read(offset, META_BYTES)?;
    let word = u64_at(&bytes, META_AT).unwrap_or_default();
    if word.swap_bytes() >> 8 == MAGIC {
        return unknown("The file was written on a host of the other byte order.");
    }
    if word >> 8 != MAGIC {
        return Ok(Found::Damaged);
    }
    if word & 0xff != VERSION {
        return Ok(Found::Version(word & 0xff));
    }
    Ok(parse(&bytes, index).map_or(Found::Damaged, Found::Meta))
}

/// A meta page that libmdbx would not skip.
fn parse(bytes: &[u8], index: u64) -> Option<Meta> {
    let header = Header::at(Dialect::Mdbx, bytes)?;
    let bytes = bytes.get(META_AT..)?;
    let free = Record::at(Dialect::Mdbx, bytes, 40)?;
    let main = Record::at(Dialect::Mdbx, bytes, 88)?;
    let txnid = u64_at(bytes, 8)?;
    let (lower, upper, limit) = (u32_at(bytes, 24)?, u32_at(bytes, 28)?, u32_at(bytes, 36)?);
    let sign = u64_at(bytes, 168)?;
    let meta = Meta {
        page_bytes: free.item_bytes,
        free: Record { item_bytes: 0, ..free },
        main,
        limit,
        txnid,
        steady: sign > WEAK_MAX,
        features: u16_at(bytes, 16)? != 0 || u16_at(bytes, 18)? != 0,
    };
    let least = u32::try_from(METAS).ok()?;
    let sizes = PAGE_BYTES_MIN..=PAGE_BYTES_MAX;
    let sound = header.number == index
        && header.flags == META
        && meta.page_bytes.is_power_of_two()
        && sizes.contains(&meta.page_bytes)
        && txnid == u64_at(bytes, 176)?
        && (1..TXNID_END).contains(&txnid)
        && (sign <= WEAK_MAX || sign == STEADY)
        && free.flags & INTEGER_KEY != 0
        && (least..=PAGES_MAX).contains(&lower)
        && (lower..=PAGES_MAX).contains(&upper)
        && (least..=PAGES_MAX).contains(&limit);
    sound.then_some(meta)
}
