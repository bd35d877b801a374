//! A block-based table of RocksDB: which blocks it has, and whether each is what was written.
//!
//! The layout is told in RocksDB's wiki, "Rocksdb BlockBasedTable Format", and in the sources that
//! `footer`, `block` and `checksum` name.

use std::borrow::Cow;
use std::fs::File;

use super::block::{self, IndexStyle, plain_bytes_max};
use super::checksum::{Checksum, context};
use super::footer::{FOOTER_BYTES, Footer, Handle, TRAILER_BYTES, handle, u32_at, varint};
use super::{VerifyFault, damaged, read_at};

/// No block is longer.
const BLOCK_BYTES_MAX: u64 = 1 << 30;

pub(in super::super) const INDEX: &[u8] = b"rocksdb.index";
pub(in super::super) const PROPERTIES: &[u8] = b"rocksdb.properties";
const PARTITIONED_FILTER: &[u8] = b"partitionedfilter.";
const INDEX_TYPE: &[u8] = b"rocksdb.block.based.table.index.type";
const INDEX_DELTA: &[u8] = b"rocksdb.index.value.is.delta.encoded";
const INDEX_USER_KEY: &[u8] = b"rocksdb.index.key.is.user.key";
const EMBEDDED_BLOBS: &[u8] = b"rocksdb.embedded.blob.stats";
/// The number that an ingestion of older releases wrote into a finished table.
const GLOBAL_SEQNO: &[u8] = b"rocksdb.external_sst_file.global_seqno";
const GLOBAL_SEQNO_BYTES: usize = 8;
/// What an ingestion writes beside it: from its second version on there is a number for all keys.
const EXTERNAL_VERSION: &[u8] = b"rocksdb.external_sst_file.version";
const EXTERNAL_VERSION_GLOBAL: u32 = 2;

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
    pub(super) fn open(file: &File, size: u64) -> Result<Table, VerifyFault> {
        let from = Blocks::open(file, size)?;
        let footer = from.footer;
        let mut finder = Finder { from, patched: None, blocks: Vec::new() };
        let gap = finder.find()?;
        let Finder { mut blocks, patched, .. } = finder;
        blocks.retain(|block| block.size > 0);
        blocks.sort_unstable();
        blocks.dedup();
        refuse_overlap(&blocks)?;
        if blocks.last().is_some_and(|last| last.end().is_none_or(|end| end > footer.offset)) {
            return damaged("its index leads beyond its end");
        }
        // A block is held whole until its checksum has been compared.
        if blocks.iter().any(|block| block.size > BLOCK_BYTES_MAX) {
            return Err(VerifyFault::Unknown("because one of its blocks is larger than 1 GiB"));
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
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<(), VerifyFault> {
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
    pub(super) fn end(&self) -> Result<(), VerifyFault> {
        if self.next == self.blocks.len() { Ok(()) } else { damaged("it was cut") }
    }

    fn verify(&self, block: Handle, stored: &[u8]) -> Result<(), VerifyFault> {
        let patched = self.patched.filter(|(handle, _)| *handle == block).map(|(_, at)| at);
        if fits(self.checksum, self.context, block, stored, patched) {
            return Ok(());
        }
        damaged(format!("the checksum of its block at byte {} does not fit", block.offset))
    }
}

/// Damage where blocks, sorted by place, have bytes in common.
fn refuse_overlap(blocks: &[Handle]) -> Result<(), VerifyFault> {
    let overlap = |pair: &[Handle]| pair[0].end().is_none_or(|end| end > pair[1].offset);
    if blocks.windows(2).any(overlap) { damaged("its blocks overlap") } else { Ok(()) }
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

/// The blocks of a table, read one by one.
pub(in super::super) struct Blocks<'a> {
    file: &'a File,
    /// Of the file.
    size: u64,
    pub(in super::super) footer: Footer,
}

/// Looks for the blocks of a table.
struct Finder<'a> {
    from: Blocks<'a>,
    patched: Option<(Handle, usize)>,
    blocks: Vec<Handle>,
}

/// What the properties of a table tell of its blocks.
#[derive(Default)]
pub(in super::super) struct Properties {
    index_type: u32,
    delta: bool,
    /// The keys of its index are without sequence number and type.
    pub(in super::super) user_keys: bool,
    embedded_blobs: bool,
    external_version: u32,
    /// Where in the block the number is that may have been written later, and what it is.
    global_seqno: Option<(usize, u64)>,
}

impl Properties {
    fn parse(plain: &[u8]) -> Result<Properties, VerifyFault> {
        let mut found = Properties::default();
        block::each_pair(plain, |name, place| {
            let mut value = &plain[place.clone()];
            let word = value.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            match name {
                INDEX_TYPE => found.index_type = word,
                INDEX_DELTA => found.delta = varint(&mut value).is_some_and(|delta| delta != 0),
                INDEX_USER_KEY => found.user_keys = varint(&mut value).is_some_and(|is| is != 0),
                EMBEDDED_BLOBS => found.embedded_blobs = true,
                EXTERNAL_VERSION => found.external_version = word,
                GLOBAL_SEQNO => {
                    let number = <[u8; GLOBAL_SEQNO_BYTES]>::try_from(value).ok();
                    let found_at = number.map(|bytes| (place.start, u64::from_le_bytes(bytes)));
                    found.global_seqno = found.global_seqno.or(found_at);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// How the values of its index are written, in a table of this version.
    pub(in super::super) fn style(&self, version: u32) -> IndexStyle {
        IndexStyle {
            delta: self.delta,
            escape: version >= VERSION_ESCAPE,
            first_key: self.index_type == WITH_FIRST_KEY,
        }
    }

    /// Whether its index leads to indexes.
    pub(in super::super) fn two_levels(&self) -> bool {
        self.index_type == TWO_LEVELS
    }

    /// The number that all keys of an ingested table have in the place of their own: what stands in the table,
    /// or, where nothing was written there, the highest one of which the MANIFEST tells.
    pub(in super::super) fn sequence(&self, highest: u64) -> Result<Option<u64>, VerifyFault> {
        if self.external_version < EXTERNAL_VERSION_GLOBAL {
            return Ok(None);
        }
        match self.global_seqno {
            Some((_, number)) if number != 0 && number != highest => {
                damaged("its sequence number is not the one that the MANIFEST tells")
            }
            _ => Ok(Some(highest)),
        }
    }
}

impl Finder<'_> {
    /// Finds all blocks, from the metaindex on. Returns what no checksum covers.
    fn find(&mut self) -> Result<Option<&'static str>, VerifyFault> {
        let footer = self.from.footer;
        let metaindex = self.from.load(footer.metaindex)?;
        self.blocks.push(footer.metaindex);
        let metaindex = self.from.expand(&metaindex)?;
        let (mut properties, mut index, mut filters) = (None, footer.index, Vec::new());
        let named_before = index.is_some();
        let blocks = &mut self.blocks;
        block::each_pair(&metaindex, |name, value| {
            let Some(handle) = handle(&mut &metaindex[value]) else {
                return damaged("its metaindex was changed");
            };
            blocks.push(handle);
            match name {
                PROPERTIES => properties = Some(handle),
                INDEX if !named_before => index = Some(handle),
                _ if name.starts_with(PARTITIONED_FILTER) => filters.push(handle),
                _ => {}
            }
            Ok(())
        })?;
        let properties = match properties {
            Some(handle) => {
                let (found, patched) = self.from.properties(handle)?;
                self.patched = patched.map(|at| (handle, at));
                found
            }
            None => Properties::default(),
        };
        let style = properties.style(footer.version);
        let Some(index) = index else { return damaged("it has no index") };
        self.index(index, style, properties.two_levels())?;
        filters.sort_unstable();
        refuse_overlap(&filters)?;
        for filter in filters {
            self.index(filter, IndexStyle { first_key: false, ..style }, false)?;
        }
        Ok(properties.embedded_blobs.then_some("because it holds blobs of its own"))
    }

    /// Adds an index and what it leads to; with two levels that are indexes again.
    fn index(&mut self, index: Handle, style: IndexStyle, levels: bool) -> Result<(), VerifyFault> {
        let stored = self.from.load(index)?;
        // Each block has a trailer in the file.
        let room = (self.from.size / TRAILER_BYTES).saturating_sub(self.blocks.len() as u64);
        let mut found = block::handles(&self.from.expand(&stored)?, style, room)?;
        drop(stored);
        self.blocks.push(index);
        if !levels {
            self.blocks.append(&mut found);
            return Ok(());
        }
        // A part that is named many times would be read and expanded as often.
        found.sort_unstable();
        refuse_overlap(&found)?;
        found.into_iter().try_for_each(|part| self.index(part, style, false))
    }
}

impl<'a> Blocks<'a> {
    /// Reads the footer of the table in `file`.
    pub(in super::super) fn open(file: &'a File, size: u64) -> Result<Blocks<'a>, VerifyFault> {
        let tail = size.min(FOOTER_BYTES as u64);
        let footer = Footer::parse(&read_at(file, size - tail, tail as usize)?, size)?;
        Ok(Blocks { file, size, footer })
    }

    /// The properties of the table, and where in their block a number was changed after it was checksummed.
    pub(in super::super) fn properties(
        &self,
        handle: Handle,
    ) -> Result<(Properties, Option<usize>), VerifyFault> {
        let stored = self.read(handle)?;
        let sound = self.fits(handle, &stored, None);
        let parsed = self.expand(&stored).and_then(|plain| {
            let in_place = matches!(plain, Cow::Borrowed(_));
            Properties::parse(&plain).map(|found| (in_place, found))
        });
        let (in_place, found) = match parsed {
            Err(_) if !sound => return damaged(PROPERTIES_DAMAGED),
            parsed => parsed?,
        };
        if sound {
            return Ok((found, None));
        }
        // Where the checksum does not fit, the block may be anything: only the one number that may
        // have been changed is looked for.
        let place = found.global_seqno.map(|(at, _)| at).filter(|_| in_place);
        match place.filter(|at| self.fits(handle, &stored, Some(*at))) {
            Some(at) => Ok((found, Some(at))),
            None => damaged(PROPERTIES_DAMAGED),
        }
    }

    /// What a block that leads to others holds.
    pub(in super::super) fn expand<'b>(
        &self,
        stored: &'b [u8],
    ) -> Result<Cow<'b, [u8]>, VerifyFault> {
        block::expand(stored, self.footer.version, plain_bytes_max(self.size))
    }

    fn fits(&self, handle: Handle, stored: &[u8], patched: Option<usize>) -> bool {
        fits(self.footer.checksum, self.footer.context, handle, stored, patched)
    }

    /// Reads and verifies a block, its trailer included.
    pub(in super::super) fn load(&self, handle: Handle) -> Result<Vec<u8>, VerifyFault> {
        let stored = self.read(handle)?;
        if self.fits(handle, &stored, None) {
            return Ok(stored);
        }
        damaged(format!("the checksum of its block at byte {} does not fit", handle.offset))
    }

    fn read(&self, handle: Handle) -> Result<Vec<u8>, VerifyFault> {
        let end = handle.end().filter(|&end| end <= self.footer.offset);
        if end.is_none() || handle.size > BLOCK_BYTES_MAX {
            return damaged("it leads to a block beyond its end");
        }
        Ok(read_at(self.file, handle.offset, (handle.size + TRAILER_BYTES) as usize)?)
    }
}
