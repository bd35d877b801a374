//! What is in a table (`*.sst`): blocks of sorted entries, and an index of them at the end
//! (`table/builder.go`, `table/table.go`, `table/iterator.go` and `fb/flatbuffer.fbs` of Badger).

use std::borrow::Cow;
use std::io::Read;

use super::manifest::{Codec, Table, checksum};
use super::{Captured, Error, Found, VERSION_BYTES, damaged, fits, is_of, varint, version};

/// The index names every block and holds 10 bits or so for each key.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// A block has 4 KiB unless one entry is longer: one of 1 MiB and more is in the value log.
const BLOCK_BYTES_MAX: u64 = 16 << 20;
/// A checksum takes 13 bytes at most.
const CHECKSUM_BYTES_MAX: u64 = 32;
/// The same of what zstd looks back at, as a power of two.
const WINDOW_LOG_MAX: u32 = 24;

/// Finds the newest version of a key in a table.
pub(super) fn newest(
    captured: &Captured<'_>,
    table: &Table,
    key: &[u8],
) -> Result<Option<Found>, Error> {
    let file = &table.file();
    let index = Index::read(captured, file)?;
    let lost = || Error::Damaged { file: file.clone(), what: "its index leads nowhere" };
    // The first block that begins at the key or behind it; the key can also be in the one before.
    let (mut first, mut end) = (0, index.count);
    while first < end {
        let middle = first + (end - first) / 2;
        let (base, _) = index.base(middle).ok_or_else(lost)?;
        if base < key {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    let mut newest: Option<Found> = None;
    for number in first.saturating_sub(1)..index.count.min(first + 1) {
        let (base, block) = index.base(number).ok_or_else(lost)?;
        if base > key {
            break;
        }
        let (at, bytes) = index.place(block).ok_or_else(lost)?;
        if u64::from(at) + u64::from(bytes) > index.at {
            return damaged(file, "its index leads nowhere");
        }
        let max = BLOCK_BYTES_MAX;
        let stored = captured.read(file, at.into(), bytes.into(), max, "a block")?;
        let plain = expand(file, &stored, table.codec)?;
        let found = Block::read(file, &plain)?.newest(key)?;
        if found.as_ref().map(|found| found.version) > newest.as_ref().map(|found| found.version) {
            newest = found;
        }
    }
    Ok(newest)
}

/// The index of a table: a table of flatbuffers, which is looked into where it lies.
struct Index {
    bytes: Vec<u8>,
    /// Where it begins in the file, and the blocks end.
    at: u64,
    /// Where its list of blocks begins, and how many there are.
    list: usize,
    count: usize,
}

impl Index {
    /// Reads the index, which its length, a checksum and the length of that follow.
    fn read(captured: &Captured<'_>, file: &str) -> Result<Index, Error> {
        let before = |end: u64, bytes: u64| match end.checked_sub(bytes) {
            Some(at) => Ok(at),
            None => damaged(file, "it is cut"),
        };
        let number_before = |end: u64| -> Result<(u64, u64), Error> {
            let at = before(end, 4)?;
            let bytes = captured.read(file, at, 4, 4, "an end")?;
            Ok((at, bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))))
        };
        let (end, bytes) = number_before(captured.size(file)?)?;
        let at = before(end, bytes)?;
        let sum = captured.read(file, at, bytes, CHECKSUM_BYTES_MAX, "a checksum")?;
        let (end, bytes) = number_before(at)?;
        let at = before(end, bytes)?;
        let bytes = captured.read(file, at, bytes, INDEX_BYTES_MAX, "an index")?;
        verify(file, &bytes, &sum)?;
        let list = u32_at(&bytes, 0)
            .and_then(|root| field(&bytes, root as usize, 0)?)
            .and_then(|at| vector(&bytes, at, 4));
        match list {
            Some((list, count)) if count > 0 => Ok(Index { bytes, at, list, count }),
            _ => damaged(file, "its index leads nowhere"),
        }
    }

    /// The key that a block begins with, without its version, and where the index speaks of the block.
    fn base(&self, number: usize) -> Option<(&[u8], usize)> {
        let at = self.list.checked_add(number.checked_mul(4)?)?;
        let block = at.checked_add(u32_at(&self.bytes, at)? as usize)?;
        let (from, count) = vector(&self.bytes, field(&self.bytes, block, 0)??, 1)?;
        let key = self.bytes.get(from..from.checked_add(count)?)?;
        Some((key.get(..key.len().checked_sub(VERSION_BYTES)?)?, block))
    }

    /// Where in the file a block begins, and how many bytes it has.
    fn place(&self, block: usize) -> Option<(u32, u32)> {
        let number = |slot| match field(&self.bytes, block, slot)? {
            Some(at) => u32_at(&self.bytes, at),
            None => Some(0),
        };
        Some((number(1)?, number(2)?))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Where a field of a table of flatbuffers is, if the table has it.
fn field(bytes: &[u8], table: usize, slot: usize) -> Option<Option<usize>> {
    let back = i64::from(u32_at(bytes, table)?.cast_signed());
    let slots = usize::try_from(i64::try_from(table).ok()?.checked_sub(back)?).ok()?;
    let at = 4 + 2 * slot;
    if at + 2 > usize::from(u16_at(bytes, slots)?) {
        return Some(None);
    }
    match u16_at(bytes, slots.checked_add(at)?)? {
        0 => Some(None),
        offset => Some(Some(table.checked_add(offset.into())?)),
    }
}

/// Where a list of flatbuffers begins, and how many elements of so many bytes it has.
fn vector(bytes: &[u8], at: usize, element: usize) -> Option<(usize, usize)> {
    let list = at.checked_add(u32_at(bytes, at)? as usize)?;
    let (from, count) = (list.checked_add(4)?, u32_at(bytes, list)? as usize);
    let end = from.checked_add(count.checked_mul(element)?)?;
    (end <= bytes.len()).then_some((from, count))
}

fn verify(file: &str, bytes: &[u8], sum: &[u8]) -> Result<(), Error> {
    match checksum(sum) {
        Some(sum) if fits(crc32c::crc32c(bytes), sum) => Ok(()),
        Some(_) => damaged(file, "a part of it has another checksum"),
        None => Err(Error::Unknown { file: file.to_owned(), what: "another kind of checksum" }),
    }
}

/// The content of a block as it is stored.
pub(super) fn expand<'a>(
    file: &str,
    stored: &'a [u8],
    codec: Codec,
) -> Result<Cow<'a, [u8]>, Error> {
    let wrong = || Error::Damaged { file: file.to_owned(), what: "a block can't be expanded" };
    let fitting = |bytes: u64| match bytes <= BLOCK_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::TooLarge { file: file.to_owned(), what: "a block", bytes }),
    };
    let plain = match codec {
        Codec::Plain => return Ok(Cow::Borrowed(stored)),
        Codec::Snappy => {
            fitting(snap::raw::decompress_len(stored).map_err(|_| wrong())? as u64)?;
            snap::raw::Decoder::new().decompress_vec(stored).map_err(|_| wrong())?
        }
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(stored).map_err(|_| wrong())?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| wrong())?;
            let mut plain = Vec::new();
            let read = decoder.take(BLOCK_BYTES_MAX + 1).read_to_end(&mut plain);
            fitting(read.map_err(|_| wrong())? as u64)?;
            plain
        }
    };
    Ok(Cow::Owned(plain))
}

/// A block: its entries, and where each one begins.
pub(super) struct Block<'a> {
    file: &'a str,
    entries: &'a [u8],
    begins: &'a [u8],
    /// What the block begins with, which later keys have a part of.
    base: &'a [u8],
}

impl<'a> Block<'a> {
    pub(super) fn read(file: &'a str, plain: &'a [u8]) -> Result<Block<'a>, Error> {
        let (rest, sum) = Block::parts(plain, 1).ok_or_else(|| Block::cut(file))?;
        verify(file, rest, sum)?;
        let (entries, begins) = Block::parts(rest, 4).ok_or_else(|| Block::cut(file))?;
        let base = Block::key(entries).ok_or_else(|| Block::cut(file))?.1;
        Ok(Block { file, entries, begins, base })
    }

    fn cut(file: &str) -> Error {
        Error::Damaged { file: file.to_owned(), what: "a block is cut" }
    }

    /// What lies before a list of elements of so many bytes, and the list; their number stands behind it.
    fn parts(bytes: &[u8], element: usize) -> Option<(&[u8], &[u8])> {
        let (rest, count) = bytes.split_last_chunk()?;
        let length = (u32::from_be_bytes(*count) as usize).checked_mul(element)?;
        rest.split_at_checked(rest.len().checked_sub(length)?)
    }

    /// How many bytes of the base an entry's key begins with, what follows them, and the entry's value.
    fn key(entry: &[u8]) -> Option<(usize, &[u8], &[u8])> {
        let (shared, bytes) = (u16_at(entry, 0)?, u16_at(entry, 2)?);
        let (own, value) = entry.get(4..)?.split_at_checked(bytes.into())?;
        Some((shared.into(), own, value))
    }

    /// The newest version of a key in the block.
    pub(super) fn newest(&self, key: &[u8]) -> Result<Option<Found>, Error> {
        let mut newest: Option<Found> = None;
        for number in 0..self.begins.len() / 4 {
            let found = self.entry(number, key).ok_or_else(|| Block::cut(self.file))?;
            if let Some(found) = found
                && newest.as_ref().is_none_or(|newest| found.version > newest.version)
            {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// An entry, if it is a version of the key; nothing at all if it is cut.
    fn entry(&self, number: usize, key: &[u8]) -> Option<Option<Found>> {
        let from = u32_at(self.begins, 4 * number)? as usize;
        let to = u32_at(self.begins, 4 * number + 4).map_or(self.entries.len(), |to| to as usize);
        let (shared, own, value) = Block::key(self.entries.get(from..to)?)?;
        let shared = self.base.get(..shared)?;
        if shared.len() + own.len() != key.len() + VERSION_BYTES {
            return Some(None);
        }
        let stored = [shared, own].concat();
        if !is_of(&stored, key) {
            return Some(None);
        }
        let (&[meta, _], mut rest) = value.split_first_chunk()?;
        let expires = varint(&mut rest)?;
        Some(Some(Found::new(self.file, version(&stored), meta, expires, rest)))
    }
}
