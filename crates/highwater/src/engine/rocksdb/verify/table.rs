//! A block-based table of RocksDB: which blocks it has, and whether each is what was written.
//!
//! The layout is told in RocksDB's wiki, "Rocksdb BlockBasedTable Format", and in the sources that
//! `footer`, `block` and `checksum` name.

use std::collections::BTreeMap;
use std::fs::File;

use super::block::{self, IndexStyle};
use super::checksum::{Checksum, context};
use super::footer::{FOOTER_BYTES, Footer, Handle, TRAILER_BYTES, handle, u32_at, varint};
use super::{Fault, damaged, read_at};

/// No block is longer.
const BLOCK_BYTES_MAX: u64 = 1 << 30;

const INDEX: &[u8] = b"rocksdb.index";
const PROPERTIES: &[u8] = b"rocksdb.properties";
const PARTITIONED_FILTER: &[u8] = b"partitionedfilter.";
const INDEX_TYPE: &[u8] = b"rocksdb.block.based.table.index.type";
const INDEX_DELTA: &[u8] = b"rocksdb.index.value.is.delta.encoded";
const EMBEDDED_BLOBS: &[u8] = b"rocksdb.embedded.blob.stats";
/// The number that an ingestion of older releases wrote into a finished table.
const GLOBAL_SEQNO: &[u8] = b"rocksdb.external_sst_file.global_seqno";
const GLOBAL_SEQNO_BYTES: usize = 8;

const PROPERTIES_DAMAGED: &str = "the checksum of its properties does not fit";

const TWO_LEVELS: u32 = 2;
const WITH_FIRST_KEY: u32 = 3;
const VERSION_ESCAPE: u32 = 8;

/// A table on its way.
pub(super) struct Table {
    checksum: Checksum,
    context: u32,
    /// Sorted, none within another.
    blocks: Vec<Handle>,
    /// A block of properties, and where in it a number was changed after it was checksummed.
    patched: Option<(Handle, usize)>,
    /// What no checksum covers.
    gap: Option<&'static str>,
    /// The block that comes next.
    next: usize,
    at: u64,
    /// The beginning of a block whose rest comes with the next piece.
    carry: Vec<u8>,
}

impl Table {
    /// Finds all blocks of the table in `file`. What is read for that is verified as well.
    pub(super) fn open(file: &File, size: u64) -> Result<Table, Fault> {
        let tail = size.min(FOOTER_BYTES as u64);
        let footer = Footer::parse(&read_at(file, size - tail, tail as usize)?, size)?;
        let mut finder = Finder { file, footer, patched: None, blocks: Vec::new() };
        let gap = finder.find()?;
        let Finder { mut blocks, patched, .. } = finder;
        blocks.retain(|block| block.size > 0);
        blocks.sort_unstable();
        blocks.dedup();
        if blocks.windows(2).any(|pair| pair[0].end().is_none_or(|end| end > pair[1].offset)) {
            return damaged("its blocks overlap");
        }
        if blocks.last().is_some_and(|last| last.end().is_none_or(|end| end > footer.offset)) {
            return damaged("its index leads beyond its end");
        }
        let Footer { checksum, context, .. } = footer;
        let gap = match checksum {
            Checksum::None => Some("because it has none"),
            _ => gap,
        };
        let carry = Vec::new();
        Ok(Table { checksum, context, blocks, patched, gap, next: 0, at: 0, carry })
    }

    /// Why not every byte of data is covered, where that is so.
    pub(super) fn gap(&self) -> Option<&'static str> {
        self.gap
    }

    /// Bytes that a checksum covers, trailers included.
    #[cfg(test)]
    pub(super) fn covered(&self) -> u64 {
        self.blocks.iter().map(|block| block.size + TRAILER_BYTES).sum()
    }

    /// Verifies the blocks that end in `bytes`, the next ones of the table.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let (start, end) = (self.at, self.at + bytes.len() as u64);
        self.at = end;
        while let Some(&block) = self.blocks.get(self.next) {
            let begin = block.offset + self.carry.len() as u64;
            if begin >= end {
                break;
            }
            let block_end = block.offset + block.size + TRAILER_BYTES;
            let from = (begin - start) as usize;
            if block_end > end {
                self.carry.extend_from_slice(&bytes[from..]);
                break;
            }
            let rest = &bytes[from..(block_end - start) as usize];
            if self.carry.is_empty() {
                self.verify(block, rest)?;
            } else {
                self.carry.extend_from_slice(rest);
                let whole = std::mem::take(&mut self.carry);
                self.verify(block, &whole)?;
                self.carry = whole;
                self.carry.clear();
            }
            self.next += 1;
        }
        Ok(())
    }

    /// Whether every block has passed.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.next == self.blocks.len() { Ok(()) } else { damaged("it was cut") }
    }

    fn verify(&self, block: Handle, stored: &[u8]) -> Result<(), Fault> {
        let patched = self.patched.filter(|(handle, _)| *handle == block).map(|(_, at)| at);
        if fits(self.checksum, self.context, block, stored, patched) {
            return Ok(());
        }
        damaged(format!("the checksum of its block at byte {} does not fit", block.offset))
    }
}

/// Whether a block, its trailer included, is what was checksummed; at `patched` zeros were.
fn fits(
    checksum: Checksum,
    base: u32,
    block: Handle,
    stored: &[u8],
    patched: Option<usize>,
) -> bool {
    let covered = stored.len() - 4;
    let expected = u32_at(stored, covered).wrapping_sub(context(base, block.offset));
    if checksum.of(&stored[..covered]) == expected {
        return true;
    }
    let Some(at) = patched else { return false };
    let mut before = stored[..covered].to_vec();
    before[at..at + GLOBAL_SEQNO_BYTES].fill(0);
    checksum.of(&before) == expected
}

/// Looks for the blocks of a table.
struct Finder<'a> {
    file: &'a File,
    footer: Footer,
    patched: Option<(Handle, usize)>,
    blocks: Vec<Handle>,
}

impl Finder<'_> {
    /// Finds all blocks, from the metaindex on. Returns what no checksum covers.
    fn find(&mut self) -> Result<Option<&'static str>, Fault> {
        let metaindex = self.load(self.footer.metaindex)?;
        self.blocks.push(self.footer.metaindex);
        let metaindex = block::expand(&metaindex, self.footer.version)?;
        let mut meta = BTreeMap::new();
        for (name, value) in block::pairs(&metaindex)? {
            let Some(handle) = handle(&mut &metaindex[value]) else {
                return damaged("its metaindex was changed");
            };
            self.blocks.push(handle);
            meta.insert(name, handle);
        }
        let properties = match meta.get(PROPERTIES) {
            Some(&handle) => self.properties(handle)?,
            None => BTreeMap::new(),
        };
        let index_type = properties.get(INDEX_TYPE).and_then(|value| value.first_chunk::<4>());
        let index_type = index_type.map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let delta = properties.get(INDEX_DELTA).and_then(|value| varint(&mut value.as_slice()));
        let style = IndexStyle {
            delta: delta.is_some_and(|delta| delta != 0),
            escape: self.footer.version >= VERSION_ESCAPE,
            first_key: index_type == WITH_FIRST_KEY,
        };
        let Some(index) = self.footer.index.or_else(|| meta.get(INDEX).copied()) else {
            return damaged("it has no index");
        };
        self.index(index, style, index_type == TWO_LEVELS)?;
        let filters = meta.iter().filter(|(name, _)| name.starts_with(PARTITIONED_FILTER));
        for &filter in filters.map(|(_, handle)| handle).collect::<Vec<_>>() {
            self.index(filter, IndexStyle { first_key: false, ..style }, false)?;
        }
        let embedded = properties.contains_key(EMBEDDED_BLOBS);
        Ok(embedded.then_some("because it holds blobs of its own"))
    }

    /// Adds an index and what it leads to; with two levels that are indexes again.
    fn index(&mut self, index: Handle, style: IndexStyle, levels: bool) -> Result<(), Fault> {
        let stored = self.load(index)?;
        let found = block::handles(&block::expand(&stored, self.footer.version)?, style)?;
        drop(stored);
        self.blocks.push(index);
        if !levels {
            self.blocks.extend(found);
            return Ok(());
        }
        found.into_iter().try_for_each(|part| self.index(part, style, false))
    }

    /// The properties of the table.
    fn properties(&mut self, handle: Handle) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
        let stored = self.read(handle)?;
        let sound = self.fits(handle, &stored, None);
        let parsed = block::expand(&stored, self.footer.version)
            .and_then(|plain| block::pairs(&plain).map(|pairs| (plain, pairs)));
        let (plain, pairs) = match parsed {
            Err(_) if !sound => return damaged(PROPERTIES_DAMAGED),
            parsed => parsed?,
        };
        // Where the checksum does not fit, the block may be anything: only the one number that may
        // have been changed is looked for.
        if !sound {
            let mut places = pairs
                .iter()
                .filter(|(name, value)| name == GLOBAL_SEQNO && value.len() == GLOBAL_SEQNO_BYTES);
            let place = places.next().map(|(_, value)| value.start);
            let in_place = matches!(plain, std::borrow::Cow::Borrowed(_));
            let Some(at) = place.filter(|at| in_place && self.fits(handle, &stored, Some(*at)))
            else {
                return damaged(PROPERTIES_DAMAGED);
            };
            self.patched = Some((handle, at));
        }
        Ok(pairs.into_iter().map(|(name, value)| (name, plain[value].to_vec())).collect())
    }

    fn fits(&self, handle: Handle, stored: &[u8], patched: Option<usize>) -> bool {
        fits(self.footer.checksum, self.footer.context, handle, stored, patched)
    }

    /// Reads and verifies a block, its trailer included.
    fn load(&self, handle: Handle) -> Result<Vec<u8>, Fault> {
        let stored = self.read(handle)?;
        if self.fits(handle, &stored, None) {
            return Ok(stored);
        }
        damaged(format!("the checksum of its block at byte {} does not fit", handle.offset))
    }

    fn read(&self, handle: Handle) -> Result<Vec<u8>, Fault> {
        let end = handle.end().filter(|&end| end <= self.footer.offset);
        if end.is_none() || handle.size > BLOCK_BYTES_MAX {
            return damaged("it leads to a block beyond its end");
        }
        Ok(read_at(self.file, handle.offset, (handle.size + TRAILER_BYTES) as usize)?)
    }
}
