//! The records of RocksDB's logs: its MANIFEST, and the logs of what was written (`log_format.h`,
//! `log_reader.cc` of RocksDB). A log is cut into blocks, a record into fragments that cross no border of
//! a block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// No fragment crosses a border of such a block.
pub(super) const BLOCK_BYTES: usize = 32 << 10;
pub(super) const HEADER_BYTES: usize = 7;
/// With the number of the log, which tells what is left of the one whose file it had before.
const NUMBERED_HEADER_BYTES: usize = 11;
/// What RocksDB adds to a CRC.
const MASK_DELTA: u32 = 0xa282_ead8;
/// A fragment of a type with this bit may be passed over by who does not know it.
const IGNORABLE: u8 = 1 << 7;
/// Blocks that are read at once.
const READ_BLOCKS: usize = 32;

/// Which part of a record a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FragmentPlace {
    Full,
    First,
    Middle,
    Last,
    /// No part of a record: it tells how the next ones are to be read.
    Note,
}

/// What comes next in a log.
#[derive(Debug)]
pub(super) enum Next<'a> {
    Fragment {
        place: FragmentPlace,
        /// Its type, as it is stored.
        kind: u8,
        payload: &'a [u8],
        /// With its header.
        bytes: usize,
        /// The lowest bits of the log's number, where the fragment has them.
        number: Option<u32>,
    },
    /// Nothing more in this block.
    Border,
    /// Nothing was written here yet.
    Unwritten,
    /// The fragment ends beyond what is there.
    Torn,
    /// What is stored is not what was written; whether nothing follows it.
    Damaged { why: &'static str, last: bool },
}

/// The fragment at the beginning of `rest`: what is left of one block, or of the log.
pub(super) fn next(rest: &[u8], left_in_block: usize) -> Next<'_> {
    if left_in_block < HEADER_BYTES {
        return Next::Border;
    }
    let Some((&[a, b, c, d, low, high, kind], _)) = rest.split_first_chunk::<HEADER_BYTES>() else {
        return if rest.is_empty() { Next::Unwritten } else { Next::Torn };
    };
    let length = usize::from(u16::from_le_bytes([low, high]));
    if kind == 0 && length == 0 {
        return Next::Unwritten;
    }
    let numbered = matches!(kind, 5..=8 | 11 | 131);
    let header = if numbered { NUMBERED_HEADER_BYTES } else { HEADER_BYTES };
    let bytes = header + length;
    if bytes > left_in_block {
        return Next::Damaged { why: "a fragment is longer than its block", last: false };
    }
    let Some(whole) = rest.get(..bytes) else { return Next::Torn };
    if u32::from_le_bytes([a, b, c, d]) != mask(crc32c::crc32c(&whole[6..])) {
        return Next::Damaged { why: "a checksum does not fit", last: rest.len() == bytes };
    }
    let place = match kind {
        1 | 5 => FragmentPlace::Full,
        2 | 6 => FragmentPlace::First,
        3 | 7 => FragmentPlace::Middle,
        4 | 8 => FragmentPlace::Last,
        // The compression of the records that follow, the size of their timestamps.
        9..=11 => FragmentPlace::Note,
        _ if kind & IGNORABLE != 0 => FragmentPlace::Note,
        _ => return Next::Damaged { why: "an unknown type of record", last: false },
    };
    let number = whole[HEADER_BYTES..header].try_into().ok().map(u32::from_le_bytes);
    Next::Fragment { place, kind, payload: &whole[header..], bytes, number }
}

/// A CRC as it is stored beside the data that it covers (`util/crc32c.h`).
pub(super) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// How a log of writes ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Behind a whole record.
    Whole,
    /// Within a record of which the rest is not there.
    Torn,
    /// At a record that is not what was written, with more behind it.
    Damaged(&'static str),
}

/// What of a log of writes can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes up to the end of the last whole record.
    pub(super) bytes: u64,
    /// Whether there is a write among the records.
    pub(super) writes: bool,
    /// Whether its file may have been another log's before, and may become one again.
    pub(super) recycled: bool,
    pub(super) end: End,
}

/// Reads the first `length` bytes of the log with this number.
pub(super) fn extent(file: &File, number: u64, length: u64) -> io::Result<Extent> {
    read(file, number, length, &mut |_, _, _| Ok(()))
}

/// What each fragment is handed to.
type Each<'a, E> = &'a mut dyn FnMut(FragmentPlace, u8, &[u8]) -> Result<(), E>;

/// Reads the first `length` bytes of the log with this number, and passes on each fragment: its place, its
/// type and its payload. The last record may be without its end.
pub(super) fn read<E: From<io::Error>>(
    file: &File,
    number: u64,
    length: u64,
    each: Each<'_, E>,
) -> Result<Extent, E> {
    let mut reader = Reader {
        number: number as u32,
        begun: false,
        extent: Extent { bytes: 0, writes: false, recycled: false, end: End::Whole },
    };
    let most = usize::try_from(length).unwrap_or(usize::MAX).min(READ_BLOCKS * BLOCK_BYTES);
    let mut buffer = vec![0; most];
    let mut position = 0;
    while position < length {
        let most = usize::try_from(length - position).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..most], position)?;
        for block in buffer[..most].chunks(BLOCK_BYTES) {
            let start = position;
            position += block.len() as u64;
            if let Some(end) = reader.block(start, block, position == length, each)? {
                return Ok(reader.ended(end));
            }
        }
    }
    Ok(reader.ended(End::Whole))
}

struct Reader {
    number: u32,
    /// A record has begun, and not ended.
    begun: bool,
    extent: Extent,
}

impl Reader {
    /// Reads one block; how the log ends, where it ends in this one.
    fn block<E>(
        &mut self,
        start: u64,
        block: &[u8],
        is_last: bool,
        each: Each<'_, E>,
    ) -> Result<Option<End>, E> {
        let mut at = 0;
        loop {
            let (place, kind, payload, bytes, number) = match next(&block[at..], BLOCK_BYTES - at) {
                Next::Fragment { place, kind, payload, bytes, number } => {
                    (place, kind, payload, bytes, number)
                }
                Next::Border => return Ok(None),
                Next::Unwritten => return Ok(Some(End::Whole)),
                Next::Torn => return Ok(Some(End::Torn)),
                Next::Damaged { last: true, .. } if is_last => return Ok(Some(End::Torn)),
                // Behind the last record of such a log is what is left of the one before.
                Next::Damaged { .. } if self.extent.recycled => return Ok(Some(End::Whole)),
                Next::Damaged { why, .. } => return Ok(Some(End::Damaged(why))),
            };
            if let Some(number) = number {
                self.extent.recycled = true;
                if number != self.number {
                    return Ok(Some(End::Whole));
                }
            }
            at += bytes;
            match (place, self.begun) {
                (FragmentPlace::Note, false) => self.extent.bytes = start + at as u64,
                (FragmentPlace::Full, false) | (FragmentPlace::Last, true) => {
                    self.extent.bytes = start + at as u64;
                    self.extent.writes = true;
                    self.begun = false;
                }
                (FragmentPlace::First, false) => self.begun = true,
                (FragmentPlace::Middle, true) => {}
                _ => return Ok(Some(End::Damaged("fragments out of order"))),
            }
            each(place, kind, payload)?;
            if at == BLOCK_BYTES {
                return Ok(None);
            }
        }
    }

    fn ended(self, end: End) -> Extent {
        let end = match end {
            // What was there before looks like anything.
            End::Torn if self.extent.recycled => End::Whole,
            End::Whole if self.begun && !self.extent.recycled => End::Torn,
            end => end,
        };
        Extent { end, ..self.extent }
    }
}

#[cfg(test)]
mod tests;
