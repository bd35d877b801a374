//! Compression of frames: zstd where it helps, else the bytes as they are.

use std::cell::RefCell;

use crate::error::{Error, Result};

/// zstd's level where time counts: without entropy coding of literals, two to three times as fast as
/// level 1 there and back, for a fifth to a third more bytes.
const ZSTD_LEVEL_FAST: i32 = -10;
/// zstd's level where bytes count: higher ones cost several times as much for a few bytes less.
const ZSTD_LEVEL_DENSE: i32 = 1;
/// A frame is stored compressed where that saves a tenth; less is not worth the time to expand it.
const SAVING_MIN_PARTS_IN_TEN: usize = 1;
/// So much of a long frame is tried first, so that what does not shrink costs little.
const SAMPLE_BYTES: usize = 64 << 10;

/// So many bytes at most come out of one of zstd's (RFC 8878, 3.1.1.2): the shortest block has 4 bytes,
/// and is expanded to 128 KiB.
pub(super) const EXPANSION_MAX: usize = 32 << 10;

/// How a frame's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Raw = 0,
    Zstd = 1,
}

/// What compression should save: the processor's time, or the store's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Effort {
    /// The processor is what the others wait for.
    Fast,
    /// The store is; also what small documents take.
    #[default]
    Dense,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        const { RefCell::new(None) };
}

impl Codec {
    pub(crate) fn parse(byte: u8) -> Option<Codec> {
        match byte {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// So many bytes [`Codec::compress`] may need, and make, of so many.
    pub(crate) fn bytes_max(plain: usize) -> usize {
        zstd::zstd_safe::compress_bound(plain)
    }

    /// Makes the bytes as they are to be stored in `stored`, replacing what was there; tells how.
    pub(crate) fn compress(plain: &[u8], effort: Effort, stored: &mut Vec<u8>) -> Result<Codec> {
        if plain.len() > 4 * SAMPLE_BYTES {
            let middle = plain.len() / 2;
            let sample = &plain[middle..middle + SAMPLE_BYTES];
            zstd(sample, effort, stored)?;
            if !worth(stored.len(), sample.len()) {
                return Ok(Codec::as_it_is(plain, stored));
            }
        }
        zstd(plain, effort, stored)?;
        if worth(stored.len(), plain.len()) {
            return Ok(Codec::Zstd);
        }
        Ok(Codec::as_it_is(plain, stored))
    }

    fn as_it_is(plain: &[u8], stored: &mut Vec<u8>) -> Codec {
        stored.clear();
        stored.extend_from_slice(plain);
        Codec::Raw
    }

    /// Expands `stored` to exactly `length` bytes in `plain`, replacing what was there. `None` where
    /// it is not what [`Codec::compress`] made of so many bytes.
    pub(crate) fn expand(self, stored: &[u8], length: usize, plain: &mut Vec<u8>) -> Option<()> {
        plain.clear();
        match self {
            Codec::Raw => plain.extend_from_slice(stored),
            Codec::Zstd => {
                // A few bytes can claim any length: no room is made for what can't come out of them.
                if length > stored.len().saturating_mul(EXPANSION_MAX) {
                    return None;
                }
                plain.reserve(length);
                DECOMPRESSOR.with_borrow_mut(|slot| {
                    if slot.is_none() {
                        *slot = zstd::bulk::Decompressor::new().ok();
                    }
                    slot.as_mut()?.decompress_to_buffer(stored, plain).ok()
                })?;
            }
        }
        (plain.len() == length).then_some(())
    }
}

fn worth(stored: usize, plain: usize) -> bool {
    stored * 10 <= plain * (10 - SAVING_MIN_PARTS_IN_TEN)
}

fn zstd(plain: &[u8], effort: Effort, packed: &mut Vec<u8>) -> Result<()> {
    let failed = |error| Error::io("compressing", error);
    let level = match effort {
        Effort::Fast => ZSTD_LEVEL_FAST,
        Effort::Dense => ZSTD_LEVEL_DENSE,
    };
    packed.clear();
    packed.reserve(Codec::bytes_max(plain.len()));
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(level).map_err(failed)?),
        };
        compressor.set_compression_level(level).map_err(failed)?;
        compressor.compress_to_buffer(plain, packed).map(drop).map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_made_for_what_can_t_come_out() {
        let mut stored = Vec::new();
        let zeros = vec![0; 1 << 20];
        assert_eq!(Codec::compress(&zeros, Effort::Dense, &mut stored).unwrap(), Codec::Zstd);
        let mut plain = Vec::new();
        Codec::Zstd.expand(&stored, zeros.len(), &mut plain).unwrap();
        assert!(plain == zeros, "what shrinks most comes back");
        let mut plain = Vec::new();
        assert!(Codec::Zstd.expand(&stored[..20], 1 << 30, &mut plain).is_none());
        assert_eq!(plain.capacity(), 0);
    }
}
