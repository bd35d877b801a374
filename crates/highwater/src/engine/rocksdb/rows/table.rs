//! The wanted rows of one table: its index leads to the blocks that may have some, and no other is read.

use std::borrow::Cow;
use std::fs::File;

use super::super::verify::block::{self, IndexStyle, each_entry, each_handle};
use super::super::verify::footer::{Handle, handle};
use super::super::verify::table::{Blocks, INDEX, PROPERTIES, Properties};
use super::super::verify::{VerifyFault, damaged};
use super::super::version;
use super::gather::{Entry, Gather, split};
use super::log::{BLOB, COLUMNS, MERGE, TIMED};
use super::user_key;

/// No key is longer.
const KEY_BYTES_MAX: usize = 8 << 20;
/// No block of rows is expanded to more than this; and no further beyond the least, which any may have, than to so
/// many times what is stored.
const BLOCK_BYTES_MAX: u64 = 256 << 20;
const BLOCK_BYTES_MIN: u64 = 16 << 20;
const BLOCK_BYTES_PER_STORED: u64 = 4096;

const DELETIONS: &[u8] = b"rocksdb.range_del";
const DICTIONARY: &[u8] = b"rocksdb.compression_dict";
/// The type of a deletion of a range.
const RANGE: u8 = 0x0f;

/// Hands the wanted rows of a table of this description to `gather`.
pub(super) fn read(
    file: &File,
    size: u64,
    table: &version::Table,
    gather: &mut Gather<'_>,
) -> Result<(), VerifyFault> {
    if size != table.size {
        return damaged(format!("it has {size} bytes and should have {}", table.size));
    }
    let blocks = Blocks::open(file, size)?;
    let found = Found::of(&blocks, gather)?;
    let Some(index) = found.index else { return damaged("it has no index") };
    let properties = match found.properties {
        Some(handle) => blocks.properties(handle)?.0,
        None => Properties::default(),
    };
    let mut reader = Reader {
        style: properties.style(blocks.footer.version),
        sequence: properties.sequence(table.sequence)?,
        user_keys: properties.user_keys,
        dictionary: found.dictionary,
        blocks,
        table,
        gather,
    };
    if let Some(deletions) = found.deletions {
        reader.deletions(deletions)?;
    }
    reader.index(index, properties.two_levels())
}

/// What the metaindex leads to.
#[derive(Default)]
struct Found {
    index: Option<Handle>,
    properties: Option<Handle>,
    deletions: Option<Handle>,
    dictionary: bool,
}

impl Found {
    fn of(blocks: &Blocks<'_>, gather: &mut Gather<'_>) -> Result<Found, VerifyFault> {
        let mut found = Found { index: blocks.footer.index, ..Found::default() };
        let named_before = found.index.is_some();
        let stored = blocks.load(blocks.footer.metaindex)?;
        let metaindex = blocks.expand(&stored)?;
        gather.look_at(metaindex.len() as u64)?;
        block::each_pair(&metaindex, |name, value| {
            let Some(handle) = handle(&mut &metaindex[value]) else {
                return damaged("its metaindex was changed");
            };
            match name {
                INDEX if !named_before => found.index = Some(handle),
                PROPERTIES => found.properties = Some(handle),
                DELETIONS => found.deletions = Some(handle),
                DICTIONARY => found.dictionary = true,
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }
}

struct Reader<'a, 'g> {
    blocks: Blocks<'a>,
    style: IndexStyle,
    /// The keys of the index are without sequence number and type.
    user_keys: bool,
    /// What all its keys have as their sequence number.
    sequence: Option<u64>,
    dictionary: bool,
    table: &'a version::Table,
    gather: &'a mut Gather<'g>,
}

impl Reader<'_, '_> {
    /// Follows an index to the blocks that may hold wanted rows.
    fn index(&mut self, index: Handle, levels: bool) -> Result<(), VerifyFault> {
        let stored = self.blocks.load(index)?;
        let plain = self.blocks.expand(&stored)?.into_owned();
        drop(stored);
        self.gather.look_at(plain.len() as u64)?;
        let (style, user_keys) = (self.style, self.user_keys);
        // In a first index of two, no first keys follow the handles.
        let style = IndexStyle { first_key: style.first_key && !levels, ..style };
        let mut before: Vec<u8> = Vec::new();
        each_handle(&plain, style, KEY_BYTES_MAX, |key, block| {
            let last = if user_keys { key } else { user_key(key) };
            let wanted = self.gather.prefixes().touch(&before, last);
            before.clear();
            before.extend_from_slice(last);
            match (wanted, levels) {
                (false, _) => Ok(()),
                (true, true) => self.index(block, false),
                (true, false) => self.rows(block),
            }
        })
    }

    /// Reads a block of rows.
    fn rows(&mut self, handle: Handle) -> Result<(), VerifyFault> {
        let stored = self.blocks.load(handle)?;
        let plain = self.expand(&stored)?;
        self.gather.look_at((stored.len() + plain.len()) as u64)?;
        each_entry(&plain, KEY_BYTES_MAX, |key, value| {
            let (key, sequence, kind) = self.parts(key)?;
            let entry = match kind {
                0x00 | 0x07 | 0x14 => Entry::Gone,
                0x01 => Entry::Put(&plain[value]),
                0x02 => Entry::Other(MERGE),
                0x11 => Entry::Other(BLOB),
                0x16 => Entry::Other(COLUMNS),
                0x18 => Entry::Other(TIMED),
                _ => return damaged("a row is of an unknown kind"),
            };
            self.gather.point(key, sequence, entry)
        })
    }

    /// Reads the block of deletions of ranges.
    fn deletions(&mut self, handle: Handle) -> Result<(), VerifyFault> {
        let stored = self.blocks.load(handle)?;
        let plain = self.expand(&stored)?;
        self.gather.look_at((stored.len() + plain.len()) as u64)?;
        each_entry(&plain, KEY_BYTES_MAX, |key, end| {
            let (start, sequence, kind) = self.parts(key)?;
            if kind != RANGE {
                return damaged("a deletion of a range is of another kind");
            }
            self.gather.range(start, &plain[end], sequence, Some(&self.table.bounds))
        })
    }

    fn expand<'b>(&self, stored: &'b [u8]) -> Result<Cow<'b, [u8]>, VerifyFault> {
        let codec = stored.iter().rev().nth(4).copied().unwrap_or_default();
        if self.dictionary && codec != 0 {
            return Err(VerifyFault::Unknown(
                "because its blocks are compressed with a dictionary",
            ));
        }
        let fitting = (stored.len() as u64).saturating_mul(BLOCK_BYTES_PER_STORED);
        let most = fitting.saturating_add(BLOCK_BYTES_MIN).min(BLOCK_BYTES_MAX);
        block::expand(stored, self.blocks.footer.version, most)
    }

    /// The key of a row, its sequence number and its type.
    fn parts<'k>(&self, key: &'k [u8]) -> Result<(&'k [u8], u64, u8), VerifyFault> {
        let Some((key, trailer)) = split(key) else { return damaged("the key of a row is cut") };
        let sequence = self.sequence.unwrap_or(trailer >> 8);
        Ok((key, sequence, trailer as u8))
    }
}
