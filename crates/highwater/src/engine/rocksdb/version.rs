//! What a RocksDB or LevelDB needs, read from its MANIFEST: a log of version edits (`log_format.h`,
//! `version_edit.cc` of RocksDB), replayed as a recovery does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::records::{self, BLOCK_BYTES, FragmentPlace, Next};
use crate::engine::metadata;
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// A larger MANIFEST is refused rather than read into memory.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// CURRENT holds one name.
pub(in crate::engine) const CURRENT_BYTES_MAX: u64 = 4096;

/// An atomic group has an edit for each column family that is flushed or ingested at once. All of them
/// are held until the last one has come, so that more of them than any database has are refused.
const GROUP_EDITS_MAX: usize = 1 << 16;

/// The type of what tells that the records that follow are compressed.
const COMPRESSION: u8 = 9;

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
    /// Bytes of the MANIFEST up to the end of the last edit that counts.
    pub(in crate::engine) bytes: u64,
    /// No file has this number or a higher one yet, as far as the MANIFEST tells.
    pub(in crate::engine) next_file: u64,
    /// It says of each log that it is there, and how long it is.
    pub(in crate::engine) tells_logs: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Table {
    /// Its size in bytes.
    pub(in crate::engine) size: u64,
    /// The highest sequence number in it.
    pub(in crate::engine) sequence: u64,
    /// Between which keys all that is in it lies.
    pub(in crate::engine) bounds: Arc<Bounds>,
    /// Which of the database's paths it is in; 0 is the first, ordinarily the directory itself.
    pub(in crate::engine) path_id: u32,
    level: u32,
    /// The oldest blob file that it refers to; 0: none.
    blob: u64,
}

/// The first and the last key of a table, with sequence number and type, both within it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) struct Bounds {
    pub(in crate::engine) smallest: Vec<u8>,
    pub(in crate::engine) largest: Vec<u8>,
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
            .flat_map(|family| &family.tables)
            .map(|(&number, table)| (number, table.clone()))
            .collect()
    }

    /// Numbers of the live blob files.
    pub(in crate::engine) fn blobs(&self) -> BTreeSet<u64> {
        self.families.values().flat_map(Family::blobs).collect()
    }
}

/// Reads the version that CURRENT of `dir` points to.
pub(in crate::engine) fn read(dir: &RootedPath) -> Result<Version> {
    let manifest = current(dir)?;
    let file = dir.join(&manifest);
    let size = metadata::seen(&file).map_err(|source| unreadable(&manifest, source))?.stx_size;
    readable(&manifest, size)?;
    let bytes = file.read(MANIFEST_BYTES_MAX).map_err(|source| unreadable(&manifest, source))?;
    parse(&manifest, &bytes)
}

/// The MANIFEST that CURRENT of `dir` names.
pub(in crate::engine) fn current(dir: &RootedPath) -> Result<String> {
    let current = dir.join("CURRENT").read(CURRENT_BYTES_MAX);
    manifest_name(&current.map_err(|source| unreadable("CURRENT", source))?)
}

/// What a MANIFEST that is held open has by now, from the beginning of the block on in which `start` lies.
pub(in crate::engine) fn held(manifest: &str, file: &File, start: u64) -> Result<Vec<u8>> {
    let size = file.metadata().map_err(|source| unreadable(manifest, source))?.len();
    readable(manifest, size)?;
    let start = block_of(start);
    let mut bytes = vec![0; usize::try_from(size.saturating_sub(start)).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start).map_err(|source| unreadable(manifest, source))?;
    Ok(bytes)
}

/// Where the block begins in which a byte lies.
fn block_of(position: u64) -> u64 {
    position - position % BLOCK_BYTES as u64
}

/// Refuses a MANIFEST that is larger than any.
pub(in crate::engine) fn readable(manifest: &str, size: u64) -> Result<()> {
    if size > MANIFEST_BYTES_MAX {
        return Err(Error::unavailable(format!("{manifest} has {size} bytes, too many to read")));
    }
    Ok(())
}

fn unreadable(file: &str, source: impl Into<std::io::Error>) -> Error {
    Error::io(format!("can't read {file}"), source.into())
}

/// The MANIFEST that the content of CURRENT names.
pub(in crate::engine) fn manifest_name(current: &[u8]) -> Result<String> {
    let name = current.strip_suffix(b"\n").and_then(|name| std::str::from_utf8(name).ok());
    let digits = name.and_then(|name| name.strip_prefix("MANIFEST-")).unwrap_or_default();
    match name {
        Some(name) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(name.to_owned())
        }
        _ => Err(Error::corrupt("CURRENT names no MANIFEST").with_entry("CURRENT")),
    }
}

/// The version that the bytes of a MANIFEST describe. A torn last record is what a crash leaves,
/// and ends it.
pub(in crate::engine) fn parse(manifest: &str, bytes: &[u8]) -> Result<Version> {
    let mut version = Version { manifest: manifest.to_owned(), ..Version::default() };
    version.families.insert(0, Family { name: "default".to_owned(), ..Family::default() });
    if version.replay(bytes, 0, &mut |_| {})? == 0 {
        return Err(version.damaged("it holds no record"));
    }
    Ok(version)
}

/// What was done to a database since a version of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Since {
    /// Something that no log tells: tables that were put there or taken away as such, a column family.
    pub(in crate::engine) untold: bool,
    /// Logs below this number may be gone.
    pub(in crate::engine) log_min: u64,
}

impl Version {
    /// Logs from this number on are needed.
    pub(in crate::engine) fn first_log(&self) -> u64 {
        let least = self.families.values().map(|family| family.log).min().unwrap_or_default();
        if self.log_min == 0 { least } else { least.min(self.log_min) }
    }

    /// Logs below this number may be gone: whoever writes the database tells it with each flush, or does
    /// not. Then, as a family that has nothing in the logs does not tell either, the family that tells of the
    /// newest log counts.
    pub(in crate::engine) fn obsolete_logs(&self, told: bool) -> u64 {
        let newest = self.families.values().map(|family| family.log).max().unwrap_or_default();
        if told && self.log_min > 0 { self.log_min } else { newest.max(self.log_min) }
    }

    /// What its MANIFEST, which is held open, tells by now of what came after.
    pub(in crate::engine) fn since(&self, file: &File, told: bool) -> Result<Since> {
        let mut now = self.clone();
        let mut untold = false;
        let bytes = held(&self.manifest, file, self.bytes)?;
        let start = self.bytes - block_of(self.bytes);
        now.replay(&bytes, start, &mut |edit| untold |= edit.is_untold())?;
        Ok(Since { untold, log_min: now.obsolete_logs(told) })
    }

    fn damaged(&self, problem: &str) -> Error {
        let manifest = &*self.manifest;
        Error::corrupt(format!("{manifest} is damaged: {problem}")).with_entry(manifest)
    }

    /// Applies the edits behind the first `start` bytes of the MANIFEST, and counts them.
    fn replay(&mut self, bytes: &[u8], start: u64, each: &mut dyn FnMut(&Edit)) -> Result<u64> {
        let (mut group, mut count) = (Vec::new(), 0);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let mut records = Records { bytes, position: start };
        while let Some(record) = records.next() {
            let record = record.map_err(|problem| self.damaged(problem))?;
            count += 1;
            let edit =
                Edit::decode(&record).ok_or_else(|| self.damaged("an unknown or broken edit"))?;
            // The edits of an atomic group count together, or, where the tail is torn, not at all.
            let remaining = edit.group_remaining;
            if group.len() == GROUP_EDITS_MAX {
                return Err(self.damaged("an atomic group has no end"));
            }
            group.push(edit);
            if remaining.is_none_or(|remaining| remaining == 0) {
                for edit in group.drain(..) {
                    each(&edit);
                    self.apply(edit).map_err(|problem| self.damaged(problem))?;
                }
                self.bytes = records.position as u64;
            }
        }
        Ok(count)
    }

    fn apply(&mut self, edit: Edit) -> Result<(), &'static str> {
        self.sequence = self.sequence.max(edit.sequence);
        self.log_min = self.log_min.max(edit.log_min);
        self.next_file = self.next_file.max(edit.next_file);
        self.tells_logs |= edit.tells_logs;
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

/// The whole records of a MANIFEST.
struct Records<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Records<'a> {
    /// The next fragment; `None` where the tail is torn or was only preallocated.
    fn fragment(&mut self) -> Result<Option<(FragmentPlace, &'a [u8])>, &'static str> {
        loop {
            let left = BLOCK_BYTES - self.position % BLOCK_BYTES;
            let rest = self.bytes.get(self.position..).unwrap_or_default();
            match records::next(rest, left) {
                Next::Border => self.position += left,
                Next::Unwritten | Next::Torn | Next::Damaged { last: true, .. } => return Ok(None),
                Next::Damaged { why, .. } => return Err(why),
                Next::Fragment { place: FragmentPlace::Note, kind: COMPRESSION, .. } => {
                    return Err("its records are compressed");
                }
                Next::Fragment { place, payload, bytes, .. } => {
                    self.position += bytes;
                    return Ok(Some((place, payload)));
                }
            }
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Vec<u8>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut whole: Option<Vec<u8>> = None;
        loop {
            let (place, bytes) = match self.fragment() {
                Err(problem) => return Some(Err(problem)),
                Ok(None) => return None,
                Ok(Some(fragment)) => fragment,
            };
            match (place, &mut whole) {
                (FragmentPlace::Note, None) => {}
                (FragmentPlace::Full, None) => return Some(Ok(bytes.to_vec())),
                (FragmentPlace::First, None) => whole = Some(bytes.to_vec()),
                (FragmentPlace::Middle, Some(begun)) => begun.extend_from_slice(bytes),
                (FragmentPlace::Last, Some(begun)) => {
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
    next_file: u64,
    tells_logs: bool,
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
    /// Whether it changes what the database holds, or how, other than by what is in its logs. A flush
    /// tells the logs that it makes superfluous, a compaction what it puts new tables in the place of.
    fn is_untold(&self) -> bool {
        let family = self.add.is_some() || self.drop;
        let swapped = self.tables.is_empty() == self.deleted.is_empty();
        family || (!swapped && self.log == 0)
    }

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
            3 => self.next_file = input.u64()?,
            9 => {
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
                self.tells_logs = true;
                input.u64()?;
                while input.u32()? != 1 {
                    input.u64()?;
                }
            }
            8197 => {
                input.u64()?;
            }
            8199 => {
                self.tells_logs = true;
                input.slice()?;
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
        let (smallest, largest) = (input.slice()?.to_vec(), input.slice()?.to_vec());
        let bounds = Arc::new(Bounds { smallest, largest });
        let (mut blob, mut sequence) = (0, 0);
        if tag != 7 {
            input.u64()?;
            sequence = input.u64()?;
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
        self.tables.push((number, Table { size, sequence, bounds, path_id, level, blob }));
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

#[cfg(test)]
mod tests;
