//! What a RocksDB or LevelDB needs, read from its MANIFEST: a log of version edits (`log_format.h`,
//! `version_edit.cc` of RocksDB), replayed as a recovery does.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::metadata;
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// A larger MANIFEST is refused rather than read into memory.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// CURRENT holds one name.
const CURRENT_BYTES_MAX: u64 = 4096;

/// An atomic group has an edit for each column family that is flushed or ingested at once. All of them
/// are held until the last one has come, so that more of them than any database has are refused.
const GROUP_EDITS_MAX: usize = 1 << 16;

/// A log file is cut into blocks of this size; no record header crosses a border.
const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const RECYCLABLE_HEADER_BYTES: usize = 11;

/// The newest state that a MANIFEST describes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Version {
    /// The MANIFEST's name.
    pub(in crate::engine) manifest: String,
    /// Column families by id.
    pub(in crate::engine) families: BTreeMap<u32, Family>,
    /// Write-ahead logs below this number are not needed.
    pub(in crate::engine) log_min: u64,
    /// The sequence number of the last write that reached a table.
    pub(in crate::engine) sequence: u64,
}

/// A column family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Family {
    /// Its name.
    pub(in crate::engine) name: String,
    /// Its comparator's name, where the MANIFEST gives one.
    pub(in crate::engine) comparator: Option<String>,
    /// Logs below this number hold nothing of it.
    pub(in crate::engine) log: u64,
    /// Live tables by number.
    pub(in crate::engine) tables: BTreeMap<u64, Table>,
    blobs: BTreeMap<u64, Blob>,
}

/// A live table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Table {
    /// Its size in bytes.
    pub(in crate::engine) size: u64,
    /// Which of the database's paths it is in; 0 is the first, ordinarily the directory itself.
    pub(in crate::engine) path_id: u32,
    level: u32,
    /// The oldest blob file that it refers to; 0: none.
    blob: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Blob {
    count: u64,
    garbage: u64,
}

impl Family {
    /// The numbers of the live blob files, by the rule of RocksDB's `SaveBlobFilesTo`: from the
    /// oldest one that a table refers to, each that a table refers to or that is not all garbage.
    pub(in crate::engine) fn blobs(&self) -> BTreeSet<u64> {
        let linked: BTreeSet<u64> =
            self.tables.values().map(|table| table.blob).filter(|&blob| blob != 0).collect();
        let Some(&oldest) = linked.first() else { return BTreeSet::new() };
        let live = self
            .blobs
            .range(oldest..)
            .filter(|(number, blob)| linked.contains(number) || blob.garbage < blob.count);
        live.map(|(&number, _)| number).collect()
    }
}

impl Version {
    /// Numbers of the live tables.
    pub(in crate::engine) fn tables(&self) -> BTreeMap<u64, Table> {
        self.families
            .values()
            .flat_map(|family| family.tables.iter().map(|(&number, &table)| (number, table)))
            .collect()
    }

    /// Numbers of the live blob files.
    pub(in crate::engine) fn blobs(&self) -> BTreeSet<u64> {
        self.families.values().flat_map(Family::blobs).collect()
    }
}

/// Reads the version that CURRENT of `dir` points to.
pub(in crate::engine) fn read(dir: &RootedPath) -> Result<Version> {
    let current = dir
        .join("CURRENT")
        .read(CURRENT_BYTES_MAX)
        .map_err(|source| Error::io("can't read CURRENT", source))?;
    let manifest = manifest_name(&current)?;
    let file = dir.join(&manifest);
    let what = format!("can't read {manifest}");
    let size = metadata::seen(&file).map_err(|source| Error::io(&what, source))?.stx_size;
    if size > MANIFEST_BYTES_MAX {
        return Err(Error::unavailable(format!("{manifest} has {size} bytes, too many to read")));
    }
    let bytes = file.read(MANIFEST_BYTES_MAX).map_err(|source| Error::io(&what, source))?;
    parse(&manifest, &bytes)
}

/// The MANIFEST that the content of CURRENT names.
pub(in crate::engine) fn manifest_name(current: &[u8]) -> Result<String> {
    let name = current.strip_suffix(b"\n").and_then(|name| std::str::from_utf8(name).ok());
    let digits = name.and_then(|name| name.strip_prefix("MANIFEST-")).unwrap_or_default();
    match name {
        Some(name) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(name.to_owned())
        }
        _ => Err(Error::corrupt("CURRENT names no MANIFEST").entry("CURRENT")),
    }
}

/// The version that the bytes of a MANIFEST describe. A torn last record is what a crash leaves,
/// and ends it.
pub(in crate::engine) fn parse(manifest: &str, bytes: &[u8]) -> Result<Version> {
    let corrupt =
        |problem: &str| Error::corrupt(format!("{manifest} is damaged: {problem}")).entry(manifest);
    let mut version = Version { manifest: manifest.to_owned(), ..Version::default() };
    version.families.insert(0, Family { name: "default".to_owned(), ..Family::default() });
    let mut group = Vec::new();
    let mut records = 0u64;
    for record in Records::new(bytes) {
        let record = record.map_err(corrupt)?;
        let edit = Edit::decode(&record).ok_or_else(|| corrupt("an unknown or broken edit"))?;
        records += 1;
        // The edits of an atomic group count together, or, where the tail is torn, not at all.
        let remaining = edit.group_remaining;
        if group.len() == GROUP_EDITS_MAX {
            return Err(corrupt("an atomic group has no end"));
        }
        group.push(edit);
        if remaining.is_none_or(|remaining| remaining == 0) {
            group.drain(..).try_for_each(|edit| version.apply(edit)).map_err(corrupt)?;
        }
    }
    if records == 0 {
        return Err(corrupt("it holds no record"));
    }
    Ok(version)
}

impl Version {
    fn apply(&mut self, edit: Edit) -> Result<(), &'static str> {
        self.sequence = self.sequence.max(edit.sequence);
        self.log_min = self.log_min.max(edit.log_min);
        if let Some(name) = edit.add {
            self.families.insert(edit.family, Family { name, ..Family::default() });
        }
        if edit.drop {
            self.families.remove(&edit.family);
            return Ok(());
        }
        // Edits may follow for a family that was dropped; RocksDB passes over them.
        let Some(family) = self.families.get_mut(&edit.family) else { return Ok(()) };
        if edit.comparator.is_some() {
            family.comparator = edit.comparator;
        }
        family.log = family.log.max(edit.log);
        for (level, number) in edit.deleted {
            if family.tables.get(&number).is_some_and(|table| table.level == level) {
                family.tables.remove(&number);
            }
        }
        family.tables.extend(edit.tables);
        for (number, count) in edit.blobs {
            family.blobs.insert(number, Blob { count, garbage: 0 });
        }
        for (number, garbage) in edit.garbage {
            let blob = family.blobs.get_mut(&number).ok_or("garbage in an unknown blob file")?;
            blob.garbage = blob.garbage.saturating_add(garbage);
        }
        Ok(())
    }
}

/// The whole records of a log file.
struct Records<'a> {
    bytes: &'a [u8],
    position: usize,
}

enum Fragment<'a> {
    Full(&'a [u8]),
    First(&'a [u8]),
    Middle(&'a [u8]),
    Last(&'a [u8]),
    End,
}

impl<'a> Records<'a> {
    fn new(bytes: &'a [u8]) -> Records<'a> {
        Records { bytes, position: 0 }
    }

    /// The next fragment; the end where the tail is torn or was only preallocated.
    fn fragment(&mut self) -> Result<Fragment<'a>, &'static str> {
        let left = BLOCK_BYTES - self.position % BLOCK_BYTES;
        if left < HEADER_BYTES {
            self.position += left;
        }
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let Some((&[a, b, c, d, low, high, kind], _)) = rest.split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(Fragment::End);
        };
        let length = usize::from(u16::from_le_bytes([low, high]));
        let header = if matches!(kind, 5..=8) { RECYCLABLE_HEADER_BYTES } else { HEADER_BYTES };
        if kind == 0 && length == 0 {
            return Ok(Fragment::End);
        }
        let Some(payload) = rest.get(header..header + length) else { return Ok(Fragment::End) };
        let torn = rest.len() == header + length;
        if unmasked(u32::from_le_bytes([a, b, c, d])) != crc32c(&rest[6..header + length]) {
            return if torn { Ok(Fragment::End) } else { Err("a checksum does not fit") };
        }
        self.position += header + length;
        match kind {
            1 | 5 => Ok(Fragment::Full(payload)),
            2 | 6 => Ok(Fragment::First(payload)),
            3 | 7 => Ok(Fragment::Middle(payload)),
            4 | 8 => Ok(Fragment::Last(payload)),
            _ => Err("an unknown type of record"),
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Vec<u8>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut whole: Option<Vec<u8>> = None;
        loop {
            match (self.fragment(), &mut whole) {
                (Err(problem), _) => return Some(Err(problem)),
                (Ok(Fragment::End), _) => return None,
                (Ok(Fragment::Full(bytes)), None) => return Some(Ok(bytes.to_vec())),
                (Ok(Fragment::First(bytes)), None) => whole = Some(bytes.to_vec()),
                (Ok(Fragment::Middle(bytes)), Some(begun)) => begun.extend_from_slice(bytes),
                (Ok(Fragment::Last(bytes)), Some(begun)) => {
                    begun.extend_from_slice(bytes);
                    return whole.map(Ok);
                }
                _ => return Some(Err("fragments out of order")),
            }
        }
    }
}

/// One version edit, as far as it matters here.
#[derive(Debug, Default)]
struct Edit {
    family: u32,
    add: Option<String>,
    drop: bool,
    comparator: Option<String>,
    log: u64,
    log_min: u64,
    sequence: u64,
    group_remaining: Option<u32>,
    deleted: Vec<(u32, u64)>,
    tables: Vec<(u64, Table)>,
    blobs: Vec<(u64, u64)>,
    garbage: Vec<(u64, u64)>,
}

/// In a tag: a program that does not know it may pass over its length-prefixed value.
const TAG_IGNORABLE: u32 = 1 << 13;
/// In the tag of a custom field: a program that does not know it must not go on.
const FIELD_ESSENTIAL: u32 = 1 << 6;
const TABLE_FIELDS_END: u32 = 1;
const BLOB_FIELDS_END: u32 = 0;
/// The field of a table that says in which of the database's paths it is.
const FIELD_PATH: u32 = FIELD_ESSENTIAL + 1;

impl Edit {
    fn decode(record: &[u8]) -> Option<Edit> {
        let mut edit = Edit::default();
        let mut input = Input(record);
        while !input.0.is_empty() {
            edit.decode_tag(&mut input)?;
        }
        Some(edit)
    }

    fn decode_tag(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.u32()? {
            1 => self.comparator = Some(input.text()?),
            2 => self.log = input.u64()?,
            3 | 9 => {
                input.u64()?;
            }
            4 => self.sequence = input.u64()?,
            5 => {
                input.u32()?;
                input.slice()?;
            }
            6 => self.deleted.push((input.u32()?, input.u64()?)),
            tag @ (7 | 100 | 102 | 103) => self.decode_table(tag, input)?,
            10 => self.log_min = input.u64()?,
            200 => self.family = input.u32()?,
            201 => self.add = Some(input.text()?),
            202 => self.drop = true,
            203 => {
                input.u32()?;
            }
            300 => self.group_remaining = Some(input.u32()?),
            400 | 8194 => {
                let (number, count) = (input.u64()?, input.u64()?);
                input.u64()?;
                input.slice()?;
                input.slice()?;
                input.fields(BLOB_FIELDS_END, |_, _| Some(()))?;
                self.blobs.push((number, count));
            }
            401 | 8195 => {
                let (number, count) = (input.u64()?, input.u64()?);
                input.u64()?;
                input.fields(BLOB_FIELDS_END, |_, _| Some(()))?;
                self.garbage.push((number, count));
            }
            // Additions and deletions of logs in their first form carry no length.
            8196 => {
                input.u64()?;
                while input.u32()? != 1 {
                    input.u64()?;
                }
            }
            8197 => {
                input.u64()?;
            }
            tag if tag & TAG_IGNORABLE != 0 => {
                input.slice()?;
            }
            _ => return None,
        }
        Some(())
    }

    fn decode_table(&mut self, tag: u32, input: &mut Input<'_>) -> Option<()> {
        let (level, number) = (input.u32()?, input.u64()?);
        let mut path_id = if tag == 102 { input.u32()? } else { 0 };
        let size = input.u64()?;
        input.slice()?;
        input.slice()?;
        let mut blob = 0;
        if tag != 7 {
            input.u64()?;
            input.u64()?;
        }
        if tag == 103 {
            let log_min = &mut self.log_min;
            input.fields(TABLE_FIELDS_END, |field, value| {
                match field {
                    3 => *log_min = u64::from_le_bytes(value.try_into().ok()?),
                    4 => blob = Input(value).u64()?,
                    FIELD_PATH => path_id = u32::from(*value.first()?),
                    _ => {}
                }
                Some(())
            })?;
        }
        self.tables.push((number, Table { size, path_id, level, blob }));
        Some(())
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn u64(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.u64()?).ok()
    }

    fn slice(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (slice, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(slice)
    }

    fn text(&mut self) -> Option<String> {
        self.slice().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Custom fields: tag and value each, up to the tag `end`.
    fn fields(
        &mut self,
        end: u32,
        mut each: impl FnMut(u32, &'a [u8]) -> Option<()>,
    ) -> Option<()> {
        loop {
            let field = self.u32()?;
            if field == end {
                return Some(());
            }
            if field & FIELD_ESSENTIAL != 0 && field != FIELD_PATH {
                return None;
            }
            let value = self.slice()?;
            each(field, value)?;
        }
    }
}

fn unmasked(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// CRC-32C (Castagnoli), a byte at a time: a MANIFEST is short.
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: [u32; 256] = crc32c_table();
    !bytes.iter().fold(!0, |crc, &byte| TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8))
}

const fn crc32c_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests;
