//! What is inside the blocks of a RocksDB table that lead to the others: entries of the metaindex and
//! the properties, handles of an index (`table/block_based/block_builder.cc`, `block.cc` and
//! `data_block_footer.cc` of RocksDB; `util/compression.h` for what is compressed).

use std::borrow::Cow;
use std::ops::Range;

use super::footer::{Handle, TRAILER_BYTES, handle, u32_at, varint};
use super::{VerifyFault, damaged};

/// A block that leads to others may be expanded to so many bytes, whatever the file.
const PLAIN_BYTES_MIN: u64 = 1 << 20;
/// Beyond that, to so many times what the whole file has: an index names blocks of the file, and is
/// a small part of it in every table that RocksDB writes.
const PLAIN_BYTES_PER_STORED: u64 = 8;
/// No block is expanded to more.
const PLAIN_BYTES_MAX: u64 = 256 << 20;
/// No name in a metaindex, or of a property, is longer.
const NAME_BYTES_MAX: usize = 4096;
/// A block that would take more memory than what it is good for. It is no damage: its checksum may fit.
const TOO_LARGE: VerifyFault =
    VerifyFault::Unknown("because one of its blocks expands to more than such a file needs");
const LONG_NAME: VerifyFault =
    VerifyFault::Unknown("because it holds a name or a key that is longer than any known one");
/// The bits of a block's last word that count its restart points; the others are flags.
const RESTARTS_MASK: u32 = 0x0fff_ffff;
/// Keys and values lie apart, or something of a later format.
const LAYOUT_FLAGS: u32 = 1 << 30 | 1 << 28;
/// A table of hashes lies between the restart points and the last word: a byte for each of so many as the two
/// bytes before that word say.
const HASHES_FLAG: u32 = 1 << 31;

const INDEX_CHANGED: &str = "its index was changed";

/// How the values of an index are written.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct IndexStyle {
    /// Sizes are told as differences where keys share a prefix.
    pub(in super::super) delta: bool,
    /// A difference of zero stands for a whole handle.
    pub(in super::super) escape: bool,
    /// The first key of the block follows its handle.
    pub(in super::super) first_key: bool,
}

/// How many bytes a block that leads to others, of a file of `size` bytes, may be expanded to.
pub(super) fn plain_bytes_max(size: u64) -> u64 {
    size.saturating_mul(PLAIN_BYTES_PER_STORED).saturating_add(PLAIN_BYTES_MIN).min(PLAIN_BYTES_MAX)
}

/// The content of a block as it is stored, codec in the byte behind it; at most `bytes_max` bytes.
pub(in super::super) fn expand(
    stored: &[u8],
    version: u32,
    bytes_max: u64,
) -> Result<Cow<'_, [u8]>, VerifyFault> {
    let trailer = TRAILER_BYTES as usize;
    let Some(at) = stored.len().checked_sub(trailer) else { return damaged("a block is cut") };
    let (body, codec) = (&stored[..at], stored[at]);
    if codec == 0 {
        return Ok(Cow::Borrowed(body));
    }
    let wrong = || VerifyFault::Damaged("one of its blocks can't be expanded".to_owned());
    // The length is looked at before anything is expanded: a few bytes can claim any.
    let fitting = |length: u64| match length <= bytes_max {
        true => usize::try_from(length).map_err(|_| TOO_LARGE),
        false => Err(TOO_LARGE),
    };
    if codec == 1 {
        let length = snap::raw::decompress_len(body).map_err(|_| wrong())?;
        fitting(length as u64)?;
        let plain = snap::raw::Decoder::new().decompress_vec(body);
        return plain.map(Cow::Owned).map_err(|_| wrong());
    }
    if version < 2 {
        // Older layouts of what is compressed differ for each codec.
        return Err(VerifyFault::Unknown("because one of its blocks is compressed in an old way"));
    }
    let mut rest = body;
    let length = fitting(varint(&mut rest).ok_or_else(wrong)?)?;
    match codec {
        2 => miniz_oxide::inflate::decompress_to_vec_with_limit(rest, length).ok(),
        4 | 5 => lz4_flex::block::decompress(rest, length).ok(),
        7 | 0x40 => zstd::bulk::decompress(rest, length).ok(),
        _ => {
            return Err(VerifyFault::Unknown(
                "because one of its blocks is compressed in an unknown way",
            ));
        }
    }
    .filter(|plain| plain.len() == length)
    .map(Cow::Owned)
    .ok_or_else(wrong)
}

/// The range of a block that its entries take.
fn entries(block: &[u8]) -> Result<Range<usize>, VerifyFault> {
    let Some(last) = block.len().checked_sub(4) else { return damaged("a block is cut") };
    let word = u32_at(block, last);
    if word & LAYOUT_FLAGS != 0 {
        return Err(VerifyFault::Unknown(
            "because one of its blocks has a layout that is not known here",
        ));
    }
    let mut behind = last;
    if word & HASHES_FLAG != 0 {
        let hashes = |at: usize| usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
        let found = last.checked_sub(2).and_then(|at| at.checked_sub(hashes(at)));
        let Some(found) = found else { return damaged("a block has more hashes than bytes") };
        behind = found;
    }
    let restarts = (word & RESTARTS_MASK) as usize;
    let Some(end) = behind.checked_sub(restarts * 4) else {
        return damaged("a block has more restart points than bytes");
    };
    // What lies before the first restart point is a prefix of all keys.
    let begin = if restarts == 0 { 0 } else { u32_at(block, end) as usize };
    if begin > end { damaged("a block begins behind its end") } else { Ok(begin..end) }
}

/// Hands on each entry of a block of names: its name, and where in the block its value is. Only one
/// name is held at a time: entries of three bytes can share one that is as long as the block.
pub(in super::super) fn each_pair(
    block: &[u8],
    take: impl FnMut(&[u8], Range<usize>) -> Result<(), VerifyFault>,
) -> Result<(), VerifyFault> {
    each_entry(block, NAME_BYTES_MAX, take)
}

/// The same of any block of keys and values, whose keys have at most this many bytes.
pub(in super::super) fn each_entry(
    block: &[u8],
    key_bytes_max: usize,
    mut take: impl FnMut(&[u8], Range<usize>) -> Result<(), VerifyFault>,
) -> Result<(), VerifyFault> {
    let range = entries(block)?;
    let (prefix, end) = (range.start, range.end);
    let mut rest = &block[range];
    let mut key = Vec::new();
    while !rest.is_empty() {
        let mut next = || -> Option<(usize, &[u8], Range<usize>)> {
            let shared = varint(&mut rest)? as usize;
            let (unshared, length) = (varint(&mut rest)? as usize, varint(&mut rest)? as usize);
            let (fresh, behind) = rest.split_at_checked(unshared)?;
            let (_, behind) = behind.split_at_checked(length)?;
            rest = behind;
            let value_end = end - behind.len();
            Some((shared, fresh, value_end - length..value_end))
        };
        let found = next().filter(|(shared, ..)| *shared <= key.len());
        let Some((shared, fresh, value)) = found else {
            return damaged("a block of names was changed");
        };
        next_key(&mut key, &block[..prefix], shared, fresh, key_bytes_max)?;
        take(&key, value)?;
    }
    Ok(())
}

/// The key after another one, of which it has the first bytes; without any, those that all keys have.
fn next_key(
    key: &mut Vec<u8>,
    prefix: &[u8],
    shared: usize,
    fresh: &[u8],
    bytes_max: usize,
) -> Result<(), VerifyFault> {
    let prefix = if shared == 0 { prefix } else { &[] };
    if shared > key.len() {
        return damaged("a block of names was changed");
    }
    if shared + prefix.len() + fresh.len() > bytes_max {
        return Err(LONG_NAME);
    }
    key.truncate(shared);
    key.extend_from_slice(prefix);
    key.extend_from_slice(fresh);
    Ok(())
}

/// The handles that an index holds; no more than `count_max`, for which there is room in the file.
pub(super) fn handles(
    block: &[u8],
    style: IndexStyle,
    count_max: u64,
) -> Result<Vec<Handle>, VerifyFault> {
    let mut rest = &block[entries(block)?];
    let mut found = Vec::new();
    let mut before = None;
    while !rest.is_empty() {
        let Some((.., handle)) = next_handle(&mut rest, before, style) else {
            return damaged(INDEX_CHANGED);
        };
        before = Some(handle);
        if found.len() as u64 >= count_max {
            return damaged("its index names more blocks than it has room for");
        }
        found.push(handle);
    }
    Ok(found)
}

/// Hands on each entry of an index: a key that none in the block is beyond, and the handle of the block.
pub(in super::super) fn each_handle(
    block: &[u8],
    style: IndexStyle,
    key_bytes_max: usize,
    mut take: impl FnMut(&[u8], Handle) -> Result<(), VerifyFault>,
) -> Result<(), VerifyFault> {
    let range = entries(block)?;
    let prefix = &block[..range.start];
    let mut rest = &block[range];
    let (mut key, mut before) = (Vec::new(), None);
    while !rest.is_empty() {
        let Some((shared, fresh, handle)) = next_handle(&mut rest, before, style) else {
            return damaged(INDEX_CHANGED);
        };
        before = Some(handle);
        next_key(&mut key, prefix, shared, fresh, key_bytes_max)?;
        take(&key, handle)?;
    }
    Ok(())
}

/// How much its key shares with the one before, the rest of the key, and the handle.
fn next_handle<'a>(
    rest: &mut &'a [u8],
    before: Option<Handle>,
    style: IndexStyle,
) -> Option<(usize, &'a [u8], Handle)> {
    let shared = varint(rest)? as usize;
    let unshared = varint(rest)? as usize;
    if !style.delta {
        let length = varint(rest)? as usize;
        let (fresh, behind) = rest.split_at_checked(unshared)?;
        let (mut value, behind) = behind.split_at_checked(length)?;
        *rest = behind;
        return Some((shared, fresh, handle(&mut value)?));
    }
    let (fresh, behind) = rest.split_at_checked(unshared)?;
    *rest = behind;
    let found = match before.filter(|_| shared > 0) {
        None if shared > 0 => return None,
        None => handle(rest)?,
        Some(before) => match (varint(rest)?, style.escape) {
            (0, true) => handle(rest)?,
            (number, true) => beyond(before, number - 1)?,
            (number, false) => beyond(before, number)?,
        },
    };
    if style.first_key {
        let length = varint(rest)? as usize;
        *rest = rest.split_at_checked(length)?.1;
    }
    Some((shared, fresh, found))
}

/// The block right behind another one, whose size differs by a zigzag number.
fn beyond(before: Handle, number: u64) -> Option<Handle> {
    let delta = (number >> 1) as i64 ^ -((number & 1) as i64);
    Some(Handle { offset: before.end()?, size: before.size.checked_add_signed(delta)? })
}
