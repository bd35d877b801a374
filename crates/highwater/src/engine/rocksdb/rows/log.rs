//! The writes in the logs of a database that its tables do not have yet: batches of them, each with the sequence
//! number of its first one (`db/write_batch.cc` of RocksDB).

use super::super::records::{self, End, FragmentPlace};
use super::super::verify::footer::varint;
use super::super::verify::{VerifyFault, damaged};
use super::super::version::Version;
use super::gather::{Entry, SEQUENCE_MAX};
use super::{Files, error_of};
use crate::error::{Error, Result};

/// No batch is larger: it is held whole until its last part has come.
const BATCH_BYTES_MAX: usize = 256 << 20;
/// Sequence number and count.
const HEADER_BYTES: usize = 12;
/// The type of what tells that the records that follow are compressed.
const COMPRESSION: u8 = 9;

const TOO_LARGE: VerifyFault =
    VerifyFault::Unknown("because one of its batches has more than 256 MiB");
const COMPRESSED: VerifyFault = VerifyFault::Unknown("because its records are compressed");
const PREPARED: VerifyFault = VerifyFault::Unknown(
    "because it holds transactions in two phases, and what becomes of them is open",
);
const STRANGE: VerifyFault = VerifyFault::Unknown("because it holds a write of an unknown kind");

pub(super) const MERGE: &str =
    "because a wanted row was merged, and only the node knows what comes out";
pub(super) const BLOB: &str = "because the value of a wanted row is in another file, as a blob";
pub(super) const COLUMNS: &str = "because a wanted row has columns";
pub(super) const TIMED: &str = "because the value of a wanted row is written together with a time";

/// One write of a batch.
pub(in super::super) struct Write<'a> {
    pub(in super::super) family: u32,
    pub(in super::super) sequence: u64,
    pub(in super::super) what: What<'a>,
}

/// What is written.
pub(in super::super) enum What<'a> {
    Point { key: &'a [u8], entry: Entry<'a> },
    Range { start: &'a [u8], end: &'a [u8] },
}

/// What the logs of a database come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Replayed {
    /// The highest sequence number in them.
    pub(in super::super) sequence: u64,
    /// The log behind which no write follows, where it has something at its end that counts for nothing.
    pub(in super::super) uneven: Option<Uneven>,
}

/// A log that ends with a record of which the rest is missing, or with what is left of the log that had its file
/// before.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Uneven {
    pub(in super::super) name: String,
    /// Bytes up to the end of its last whole record.
    pub(in super::super) whole: u64,
}

/// Hands on each write in the logs that `version` needs, with the number of its log, in order.
pub(in super::super) fn replay(
    files: &mut dyn Files,
    version: &Version,
    each: &mut dyn FnMut(u64, Write<'_>) -> std::result::Result<(), VerifyFault>,
) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    // A crash has cut a log, and no batch has followed yet.
    let mut torn = false;
    let mut next = None;
    let first = version.first_log();
    for (number, name) in files.logs().into_iter().filter(|(number, _)| *number >= first) {
        let (file, size) = files.open(&name)?;
        let entry = files.entry(&name);
        let mut record = Vec::new();
        let mut one = |place, kind, payload: &[u8]| {
            match place {
                FragmentPlace::Note if kind == COMPRESSION => return Err(COMPRESSED),
                FragmentPlace::Note => return Ok(()),
                FragmentPlace::First | FragmentPlace::Full => record.clear(),
                FragmentPlace::Middle | FragmentPlace::Last => {}
            }
            if record.len() + payload.len() > BATCH_BYTES_MAX {
                return Err(TOO_LARGE);
            }
            record.extend_from_slice(payload);
            if matches!(place, FragmentPlace::First | FragmentPlace::Middle) {
                return Ok(());
            }
            let (sequence, count) = header(&record)?;
            // So RocksDB goes on behind a log that was cut, and at nothing else.
            if torn && next != Some(sequence) {
                return damaged("it does not go on where the log before it was cut");
            }
            torn = false;
            replayed.uneven = None;
            next = Some(sequence + count);
            replayed.sequence = replayed.sequence.max((sequence + count).saturating_sub(1));
            batch(&record, &mut |write| each(number, write))
        };
        let extent = records::read(&file, number, size, &mut one)
            .map_err(|fault: VerifyFault| error_of(fault, &entry))?;
        if let End::Damaged(why) = extent.end {
            return Err(Error::corrupt(format!("{entry} is damaged: {why}")).with_entry(entry));
        }
        torn |= extent.end == End::Torn;
        if extent.end == End::Torn || extent.recycled && extent.bytes < size {
            replayed.uneven = Some(Uneven { name, whole: extent.bytes });
        }
    }
    Ok(replayed)
}

/// The first sequence number of a batch, and how many it has.
fn header(batch: &[u8]) -> std::result::Result<(u64, u64), VerifyFault> {
    let Some((&[a, b, c, d, e, f, g, h, i, j, k, l], _)) =
        batch.split_first_chunk::<HEADER_BYTES>()
    else {
        return damaged("one of its records is too short for a batch");
    };
    let sequence = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let count = u64::from(u32::from_le_bytes([i, j, k, l]));
    match sequence <= SEQUENCE_MAX - count {
        true => Ok((sequence, count)),
        false => damaged("a sequence number is beyond the highest"),
    }
}

/// Hands on each write of a batch.
pub(super) fn batch(
    bytes: &[u8],
    each: &mut dyn FnMut(Write<'_>) -> std::result::Result<(), VerifyFault>,
) -> std::result::Result<(), VerifyFault> {
    let (first, count) = header(bytes)?;
    let mut input = &bytes[HEADER_BYTES..];
    let mut found = 0;
    while let Some((&tag, rest)) = input.split_first() {
        input = rest;
        let Some(write) = next(tag, &mut input)? else { continue };
        let sequence = first + found;
        found += 1;
        if found > count {
            break;
        }
        let (family, what) = write;
        each(Write { family, sequence, what })?;
    }
    if found == count {
        Ok(())
    } else {
        damaged("a batch has another number of writes than it says")
    }
}

/// The write behind a tag; `None` where the tag stands for something else than a write.
fn next<'a>(
    tag: u8,
    input: &mut &'a [u8],
) -> std::result::Result<Option<(u32, What<'a>)>, VerifyFault> {
    let cut = || VerifyFault::Damaged("a batch ends within a write".to_owned());
    let family = match tag {
        0x04 | 0x05 | 0x06 | 0x08 | 0x0e | 0x10 | 0x17 | 0x19 => {
            let family = varint(input).ok_or_else(cut)?;
            u32::try_from(family).map_err(|_| cut())?
        }
        _ => 0,
    };
    let mut text = || -> std::result::Result<&'a [u8], VerifyFault> {
        let length = varint(input).and_then(|length| usize::try_from(length).ok());
        let (text, rest) = input.split_at_checked(length.ok_or_else(cut)?).ok_or_else(cut)?;
        *input = rest;
        Ok(text)
    };
    let point = |key, entry| Ok(Some((family, What::Point { key, entry })));
    match tag {
        0x00 | 0x04 | 0x07 | 0x08 => point(text()?, Entry::Gone),
        0x01 | 0x05 => {
            let key = text()?;
            point(key, Entry::Put(text()?))
        }
        0x0e | 0x0f => {
            let start = text()?;
            Ok(Some((family, What::Range { start, end: text()? })))
        }
        0x02 | 0x06 | 0x10 | 0x11 | 0x16 | 0x17 | 0x18 | 0x19 => {
            let key = text()?;
            text()?;
            let why = match tag {
                0x02 | 0x06 => MERGE,
                0x10 | 0x11 => BLOB,
                0x16 | 0x17 => COLUMNS,
                _ => TIMED,
            };
            point(key, Entry::Other(why))
        }
        // What was said beside the writes.
        0x03 => text().map(|_| None),
        // Where a transaction's part would begin, were it one.
        0x0d => Ok(None),
        0x09..=0x0c | 0x12 | 0x13 | 0x15 => Err(PREPARED),
        _ => Err(STRANGE),
    }
}
