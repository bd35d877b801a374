//! The file of a bbolt or Bolt database (bbolt: `internal/common/meta.go`, `page.go`, `bucket.go`,
//! `inode.go` and `types.go` for the format, `db.go` for the choice of the meta page, `tx_check.go` for
//! what its own check calls an error).

use std::fs::File;

use crate::engine::pages::bytes::{part, u32_at, u64_at};
use crate::engine::pages::source::Source;
use crate::engine::pages::{Depth, Result, Seen, damaged, unknown};

mod look;
#[cfg(test)]
mod tests;
mod walk;

pub use look::{Bolt, Bucket, Item, Value};

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// `PgidNoFreelist`: free pages are found by a walk over the others.
const NO_FREE_LIST: u64 = u64::MAX;
/// Bytes of the header of a page: id (8), flags (2), count (2), overflow (4).
const HEADER_BYTES: usize = 16;
/// Bytes of a meta page behind its header: the last eight are the checksum of the others.
const META_BYTES: usize = 64;
/// Where the second meta page is looked for: at so many bytes times a power of two.
const PAGE_BYTES_FIRST: u64 = 1024;
const PAGE_BYTES_STEPS: u32 = 14;
/// A meta page has to fit, and no page is larger than what is looked for.
const PAGE_BYTES_MIN: u64 = 128;
const PAGE_BYTES_MAX: u64 = PAGE_BYTES_FIRST << PAGE_BYTES_STEPS;

/// What a meta page tells.
#[derive(Clone, Copy, Debug)]
struct Meta {
    page_bytes: u64,
    root: u64,
    free_list: u64,
    /// The first page that was never in use.
    limit: u64,
    txid: u64,
}

/// Checks the file of a bbolt database.
///
/// One of the two meta pages may be damaged: bbolt then goes on with the other one.
///
/// A page that is neither in use nor listed as free is reported as lost, and is not damage: bbolt's own check
/// calls it an error, but bbolt itself makes such files (1.3.6 where a transaction deletes buckets that
/// it has changed).
///
/// # Errors
/// Damaged; unknown where it is of another version or of the other byte order.
pub(in crate::engine) fn check(file: &File, depth: Depth) -> Result<Seen> {
    let source = Source::new(file)?;
    let (meta, both) = newest(&source)?;
    let pages = source.size().checked_div(meta.page_bytes).unwrap_or(0);
    if meta.limit > pages {
        return damaged(format!(
            "The file is cut: it has {pages} whole pages of {} bytes, and {} are in use.",
            meta.page_bytes, meta.limit
        ));
    }
    if !(2..meta.limit).contains(&meta.root)
        || (meta.free_list != NO_FREE_LIST && !(2..meta.limit).contains(&meta.free_list))
    {
        return damaged("The meta page leads to a page that there is not.");
    }
    let mut seen = Seen { pages, reached: 2, ..Seen::default() };
    if !both {
        seen.unlooked.push(format!(
            "One of the meta pages is damaged; bbolt goes on with transaction {}.",
            meta.txid
        ));
    }
    if depth == Depth::Open {
        seen.unlooked.push("Only the meta pages and the size of the file were looked at.".into());
        return Ok(seen);
    }
    walk::all(&source, meta, &mut seen)?;
    seen.unlooked
        .push("The bytes of values were not checked: bbolt keeps no checksums of them.".into());
    Ok(seen)
}

/// What was found where a meta page should be.
enum Found {
    Meta(Meta),
    /// It has the magic number, and names another version.
    Version(u32),
    /// The magic number is in the other byte order.
    Swapped,
    Nothing,
}

/// The meta page of the last transaction, and whether both are sound.
fn newest(source: &Source<'_>) -> Result<(Meta, bool)> {
    let first = found(source, 0)?;
    let second = match &first {
        Found::Meta(meta) => found(source, meta.page_bytes)?,
        _ => second(source)?,
    };
    let both = match (first, second) {
        (Found::Meta(one), Found::Meta(two)) if one.page_bytes == two.page_bytes => {
            return Ok((if two.txid > one.txid { two } else { one }, true));
        }
        (Found::Meta(_), Found::Meta(_)) => {
            return damaged("The two meta pages name different sizes of a page.");
        }
        (Found::Meta(meta), _) | (_, Found::Meta(meta)) => return Ok((meta, false)),
        both => both,
    };
    match both {
        (Found::Version(one), Found::Version(two)) if one == two => {
            unknown(format!("The file is of version {one} of bbolt's format, not of {VERSION}."))
        }
        (Found::Swapped, _) => unknown(
            "The file was written on a host of the other byte order, which is not known here.",
        ),
        _ => damaged("Both meta pages are damaged."),
    }
}

/// The second meta page, where the first one does not tell how long it is.
fn second(source: &Source<'_>) -> Result<Found> {
    let mut other = Found::Nothing;
    for step in 0..=PAGE_BYTES_STEPS {
        let offset = PAGE_BYTES_FIRST << step;
        match found(source, offset)? {
            Found::Meta(meta) if meta.page_bytes == offset => return Ok(Found::Meta(meta)),
            Found::Version(version) => other = Found::Version(version),
            _ => {}
        }
    }
    Ok(other)
}

fn found(source: &Source<'_>, offset: u64) -> Result<Found> {
    let mut bytes = [0; HEADER_BYTES + META_BYTES];
    let end = offset.saturating_add(bytes.len() as u64);
    if end > source.size() {
        return Ok(Found::Nothing);
    }
    source.fill(offset, &mut bytes)?;
    let Some(bytes) = part(&bytes, HEADER_BYTES, META_BYTES) else { return Ok(Found::Nothing) };
    Ok(match (u32_at(bytes, 0), u32_at(bytes, 4)) {
        (Some(MAGIC), Some(VERSION)) => parse(bytes).map_or(Found::Nothing, Found::Meta),
        (Some(MAGIC), Some(version)) => Found::Version(version),
        (Some(magic), _) if magic.swap_bytes() == MAGIC => Found::Swapped,
        _ => Found::Nothing,
    })
}

fn parse(bytes: &[u8]) -> Option<Meta> {
    let meta = Meta {
        page_bytes: u64::from(u32_at(bytes, 8)?),
        root: u64_at(bytes, 16)?,
        free_list: u64_at(bytes, 32)?,
        limit: u64_at(bytes, 40)?,
        txid: u64_at(bytes, 48)?,
    };
    let sound = u64_at(bytes, 56)? == fnv(part(bytes, 0, 56)?)
        && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&meta.page_bytes);
    sound.then_some(meta)
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
