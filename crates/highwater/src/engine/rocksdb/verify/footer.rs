//! The last bytes of a RocksDB table: what its format is, how its blocks are checksummed, where its
//! metaindex is (`table/format.cc` of RocksDB, `Footer`).

use super::checksum::{Checksum, context};
use super::{VerifyFault, damaged};

pub(super) const FOOTER_BYTES: usize = 53;
pub(super) const LEGACY_FOOTER_BYTES: usize = 48;
/// Behind each block: codec (1 byte), checksum (4 bytes).
pub(super) const TRAILER_BYTES: u64 = 5;

const BLOCK_BASED: u64 = 0x88e2_41b7_85f4_cff7;
const BLOCK_BASED_LEGACY: u64 = 0xdb47_7524_8b80_fb57;
const OTHERS: &[(u64, &str)] = &[
    (0x8242_2296_63bf_9564, "because it is a plain table"),
    (0x4f34_18eb_7a8f_13b8, "because it is a plain table"),
    (0x9267_89d0_c5f1_7873, "because it is a cuckoo table"),
];
/// Damage in one byte of a magic number changes no more bits than this.
const BITS_OF_A_BYTE: u32 = 8;

/// The newest version whose layout is known here.
const VERSION_MAX: u32 = 8;
/// From this version on the footer has a checksum, and blocks have a context.
const VERSION_CONTEXT: u32 = 6;
/// From this version on the metaindex need not touch the footer.
const VERSION_GAP: u32 = 8;
const EXTENDED_MAGIC: [u8; 4] = [0x3e, 0x00, 0x7a, 0x00];

/// A part of a table: where it begins, and how long it is without its trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Handle {
    pub(in super::super) offset: u64,
    pub(in super::super) size: u64,
}

impl Handle {
    /// Where what follows it begins.
    pub(super) fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.size)?.checked_add(TRAILER_BYTES)
    }
}

/// What the last bytes of a table tell.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Footer {
    pub(in super::super) version: u32,
    pub(super) checksum: Checksum,
    pub(super) context: u32,
    pub(in super::super) metaindex: Handle,
    /// `None` where the metaindex names it.
    pub(in super::super) index: Option<Handle>,
    /// Where the footer begins: no block reaches beyond.
    pub(in super::super) offset: u64,
}

impl Footer {
    /// Reads the footer in the last bytes (at most [`FOOTER_BYTES`]) of a file of `size` bytes.
    pub(super) fn parse(tail: &[u8], size: u64) -> Result<Footer, VerifyFault> {
        let Some(magic) = tail.last_chunk::<8>() else { return damaged("it is cut") };
        match u64::from_le_bytes(*magic) {
            BLOCK_BASED => Footer::current(tail, size),
            BLOCK_BASED_LEGACY => Footer::legacy(tail, size),
            magic => {
                if let Some((_, why)) = OTHERS.iter().find(|(known, _)| *known == magic) {
                    return Err(VerifyFault::Unknown(why));
                }
                if (magic ^ BLOCK_BASED).count_ones() <= BITS_OF_A_BYTE || magic == 0 {
                    return damaged("its last bytes were changed");
                }
                Err(VerifyFault::Unknown(STRANGE))
            }
        }
    }

    fn legacy(tail: &[u8], size: u64) -> Result<Footer, VerifyFault> {
        let Some(footer) = tail.last_chunk::<LEGACY_FOOTER_BYTES>() else {
            return damaged("it is cut");
        };
        let offset = size - LEGACY_FOOTER_BYTES as u64;
        let (metaindex, index) = handles(&footer[..40])?;
        let checksum = Checksum::Crc32c;
        Ok(Footer { version: 0, checksum, context: 0, metaindex, index: Some(index), offset })
    }

    fn current(tail: &[u8], size: u64) -> Result<Footer, VerifyFault> {
        let Some(footer) = tail.last_chunk::<FOOTER_BYTES>() else { return damaged("it is cut") };
        let offset = size - FOOTER_BYTES as u64;
        let version = u32_at(footer, 41);
        let extended = footer[1..5] == EXTENDED_MAGIC;
        let Some(checksum) = Checksum::parse(footer[0]) else {
            return match extended && version > VERSION_MAX {
                true => Err(VerifyFault::Unknown(NEWER)),
                false => damaged("its footer names a checksum that there is not"),
            };
        };
        if !extended {
            // A newer version would have the extended magic number.
            if version >= VERSION_CONTEXT {
                return damaged("its footer was changed");
            }
            let (metaindex, index) = handles(&footer[1..41])?;
            return Ok(Footer {
                version,
                checksum,
                context: 0,
                metaindex,
                index: Some(index),
                offset,
            });
        }
        let base = u32_at(footer, 9);
        let mut blank = *footer;
        blank[5..9].fill(0);
        let stored = u32_at(footer, 5);
        if stored != checksum.of(&blank).wrapping_add(context(base, offset)) || base == 0 {
            return damaged("its footer was changed");
        }
        if !(VERSION_CONTEXT..=VERSION_MAX).contains(&version) || footer[33..41] != [0; 8] {
            return Err(VerifyFault::Unknown(NEWER));
        }
        let word = u32_at(footer, 13);
        let (length, gap) =
            if version >= VERSION_GAP { (word & 0xffff, word >> 16) } else { (word, 0) };
        let before = u64::from(length) + u64::from(gap) + TRAILER_BYTES;
        let Some(metaindex) = offset.checked_sub(before) else {
            return damaged("its footer leads nowhere");
        };
        let metaindex = Handle { offset: metaindex, size: u64::from(length) };
        Ok(Footer { version, checksum, context: base, metaindex, index: None, offset })
    }
}

pub(super) const STRANGE: &str = "because its last bytes are not those of a table of RocksDB";
const NEWER: &str = "because its format is newer than this program";

/// The handles of metaindex and index.
fn handles(bytes: &[u8]) -> Result<(Handle, Handle), VerifyFault> {
    let mut rest = bytes;
    let mut next = || handle(&mut rest);
    match (next(), next()) {
        (Some(metaindex), Some(index)) => Ok((metaindex, index)),
        _ => damaged("its footer was changed"),
    }
}

/// Reads a handle, and moves on behind it.
pub(in super::super) fn handle(bytes: &mut &[u8]) -> Option<Handle> {
    Some(Handle { offset: varint(bytes)?, size: varint(bytes)? })
}

/// Reads a variable-length number, and moves on behind it.
pub(in super::super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}
