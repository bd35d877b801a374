//! What is in a log (`*.mem`): entries that are in no table yet (`memtable.go`, `value.go` and `structs.go`
//! of Badger).
//!
//! A log is replayed up to the first entry that is not whole, or that is not where one of its
//! kind can be. An entry that is part of a transaction counts once the mark of the transaction's end
//! is read. The file is longer than what was written: zeros follow.

use super::{Captured, Error, Found, VALUE_BYTES_MAX, damaged, fits, is_of, varint, version};

/// A number of the key that the file is encrypted with, and the beginning of initialisation vectors.
const HEAD_BYTES: u64 = 20;
/// Positions in a log have 32 bits.
const LOG_BYTES_MAX: u64 = u32::MAX as u64;
/// No key is longer, with its version.
const KEY_BYTES_MAX: u32 = 1 << 16;
/// Badger writes so many zeros behind each entry: as long as the head of an entry can be.
const ZEROS: u64 = 22;
const CHUNK_BYTES: u64 = 64 << 10;

const IN_TRANSACTION: u8 = 1 << 6;
const TRANSACTION_ENDS: u8 = 1 << 7;

/// What a log gives.
pub(super) struct Replayed {
    pub(super) newest: Option<Found>,
    /// Whether it goes on behind what counts.
    pub(super) torn: bool,
}

/// Replays a log for the newest version of a key.
pub(super) fn replay(captured: &Captured<'_>, file: &str, key: &[u8]) -> Result<Replayed, Error> {
    let size = captured.size(file)?;
    if size > LOG_BYTES_MAX {
        return Err(Error::TooLarge { file: file.to_owned(), what: "entries", bytes: size });
    }
    if size < HEAD_BYTES {
        return Ok(Replayed { newest: None, torn: true });
    }
    if captured.read(file, 0, 8, 8, "a head")?.iter().any(|&byte| byte != 0) {
        return Err(Error::Encrypted(file.to_owned()));
    }
    let mut log = Log { captured, file, size, at: HEAD_BYTES, chunk: Vec::new(), used: 0 };
    let (newest, end) = committed(&mut log, key)?;
    let behind = captured.read(file, end, ZEROS.min(size - end), ZEROS, "an end")?;
    Ok(Replayed { newest, torn: behind.iter().any(|&byte| byte != 0) })
}

/// The newest version that counts, and where what counts ends.
fn committed(log: &mut Log<'_>, key: &[u8]) -> Result<(Option<Found>, u64), Error> {
    let (mut newest, mut pending) = (None, None);
    // The version of the transaction that is being read, if it is not 0.
    let mut transaction = 0;
    let mut end = log.at;
    while let Some(entry) = log.entry(key)? {
        let at = version(&entry.key);
        let found = is_of(&entry.key, key).then(|| entry.found(log.file, at));
        if entry.meta & IN_TRANSACTION != 0 {
            if transaction == 0 {
                transaction = at;
            }
            if transaction != at {
                break;
            }
            newer(&mut pending, found);
            continue;
        }
        if entry.meta & TRANSACTION_ENDS != 0 {
            if decimal(&entry.value) != Some(transaction) {
                break;
            }
            transaction = 0;
            newer(&mut newest, pending.take());
        } else {
            if transaction != 0 {
                break;
            }
            newer(&mut newest, found);
        }
        end = log.at;
    }
    Ok((newest, end))
}

/// Of two versions with one number, the later one counts.
fn newer(newest: &mut Option<Found>, found: Option<Found>) {
    if let Some(found) = found
        && newest.as_ref().is_none_or(|newest| found.version >= newest.version)
    {
        *newest = Some(found);
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// An entry. Its value is kept only if it is of use, and then only as far as it may be returned.
struct Entry {
    meta: u8,
    expires: u64,
    key: Vec<u8>,
    value: Vec<u8>,
    length: u64,
}

impl Entry {
    fn found(&self, file: &str, version: u64) -> Found {
        let mut found = Found::new(file, version, self.meta, self.expires, &self.value);
        found.length = self.length;
        found
    }
}

/// A log that is read a chunk at a time.
struct Log<'a> {
    captured: &'a Captured<'a>,
    file: &'a str,
    size: u64,
    at: u64,
    chunk: Vec<u8>,
    /// So many bytes of the chunk are behind us.
    used: usize,
}

impl Log<'_> {
    /// The next entry, if there is a whole one.
    fn entry(&mut self, wanted: &[u8]) -> Result<Option<Entry>, Error> {
        let mut sum = 0;
        let (Some(meta), Some(_)) = (self.byte(&mut sum)?, self.byte(&mut sum)?) else {
            return Ok(None);
        };
        let mut numbers = [0; 3];
        for number in &mut numbers {
            match self.number(&mut sum)? {
                Some(read) => *number = read,
                None => return Ok(None),
            }
        }
        // Badger keeps the lower half of lengths.
        let (key_bytes, length, expires) = (numbers[0] as u32, numbers[1] as u32, numbers[2]);
        let length = u64::from(length);
        let whole = u64::from(key_bytes) + length + 4 <= self.size - self.at;
        if key_bytes == 0 || key_bytes > KEY_BYTES_MAX || !whole {
            return Ok(None);
        }
        let mut entry = Entry { meta, expires, key: Vec::new(), value: Vec::new(), length };
        let key = &mut entry.key;
        self.each(key_bytes.into(), &mut sum, |part| key.extend_from_slice(part))?;
        let used = is_of(key, wanted) || meta & TRANSACTION_ENDS != 0;
        let value = &mut entry.value;
        self.each(length, &mut sum, |part| {
            let room = if used { VALUE_BYTES_MAX + 1 - value.len() } else { 0 };
            value.extend_from_slice(&part[..part.len().min(room)]);
        })?;
        let mut stored = 0;
        self.each(4, &mut 0, |part| {
            stored = part.iter().fold(stored, |sum, &byte| sum << 8 | u32::from(byte));
        })?;
        Ok(fits(sum, stored.into()).then_some(entry))
    }

    /// Hands on so many bytes, which have to be there, and adds them to a checksum.
    fn each(
        &mut self,
        bytes: u64,
        sum: &mut u32,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let mut left = bytes;
        while left > 0 {
            if self.used == self.chunk.len() {
                let bytes = CHUNK_BYTES.min(self.size - self.at);
                self.chunk = self.captured.read(self.file, self.at, bytes, bytes, "an entry")?;
                self.used = 0;
            }
            let part = &self.chunk[self.used..];
            if part.is_empty() {
                return damaged(self.file, "an entry is cut");
            }
            let part = &part[..part.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            *sum = crc32c::crc32c_append(*sum, part);
            take(part);
            self.used += part.len();
            self.at += part.len() as u64;
            left -= part.len() as u64;
        }
        Ok(())
    }

    /// The next byte; none at the end.
    fn byte(&mut self, sum: &mut u32) -> Result<Option<u8>, Error> {
        if self.at == self.size {
            return Ok(None);
        }
        let mut byte = None;
        self.each(1, sum, |part| byte = part.first().copied())?;
        Ok(byte)
    }

    /// The next number of 7 bits a byte; none at the end. Badger does not open a log with one that is
    /// too large.
    fn number(&mut self, sum: &mut u32) -> Result<Option<u64>, Error> {
        let mut bytes = [0; 10];
        for place in &mut bytes {
            let Some(byte) = self.byte(sum)? else { return Ok(None) };
            *place = byte;
            if byte < 0x80 {
                break;
            }
        }
        match varint(&mut bytes.as_slice()) {
            Some(number) => Ok(Some(number)),
            None => damaged(self.file, "a number has more than 64 bits"),
        }
    }
}
