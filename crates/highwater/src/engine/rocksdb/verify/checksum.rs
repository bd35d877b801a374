//! The checksums of a RocksDB table (`ComputeBuiltinChecksum` and `ChecksumModifierForContext` in
//! RocksDB's `table/format.cc` and `format.h`).

pub(super) use super::super::records::mask;

/// What the last byte of a block is multiplied by before it goes into its XXH3.
const LAST_BYTE_PRIME: u32 = 0x6b90_83d9;

/// How the blocks of a table are checksummed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    None,
    Crc32c,
    XxHash,
    XxHash64,
    Xxh3,
}

impl Checksum {
    pub(super) fn parse(kind: u8) -> Option<Checksum> {
        Some(match kind {
            0 => Checksum::None,
            1 => Checksum::Crc32c,
            2 => Checksum::XxHash,
            3 => Checksum::XxHash64,
            4 => Checksum::Xxh3,
            _ => return None,
        })
    }

    /// The checksum of `bytes`, as it is stored where there is no context.
    pub(super) fn of(self, bytes: &[u8]) -> u32 {
        match self {
            Checksum::None => 0,
            Checksum::Crc32c => mask(crc32c::crc32c(bytes)),
            Checksum::XxHash => xxhash_rust::xxh32::xxh32(bytes, 0),
            Checksum::XxHash64 => xxhash_rust::xxh64::xxh64(bytes, 0) as u32,
            Checksum::Xxh3 => match bytes.split_last() {
                None => 0,
                Some((last, rest)) => {
                    let hash = xxhash_rust::xxh3::xxh3_64(rest) as u32;
                    hash ^ u32::from(*last).wrapping_mul(LAST_BYTE_PRIME)
                }
            },
        }
    }
}

/// What is added to the checksum of a block, so that one block is not taken for another; zero where
/// the table has no context.
pub(super) fn context(base: u32, offset: u64) -> u32 {
    if base == 0 { 0 } else { base ^ (offset as u32).wrapping_add((offset >> 32) as u32) }
}
