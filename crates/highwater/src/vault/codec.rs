//! Compression of frames: zstd where it helps, else the bytes as they are.

use std::cell::RefCell;

use crate::error::{Error, Result};

/// zstd's first level: on pages of text it stored 403 MB where the faster level -5 stored 681, in the
/// same time, since the disk is the bound on two cores.
const ZSTD_LEVEL: i32 = 1;
/// A frame is stored compressed where that saves a tenth; less is not worth the time to expand it.
const SAVING_MIN_PARTS_IN_TEN: usize = 1;
/// So much of a long frame is tried first, so that what does not shrink costs little.
const SAMPLE_BYTES: usize = 64 << 10;

/// How a frame's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Raw = 0,
    Zstd = 1,
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

    /// The bytes as they are to be stored, and how.
    pub(crate) fn compress(plain: &[u8]) -> Result<(Codec, Vec<u8>)> {
        if plain.len() > 4 * SAMPLE_BYTES {
            let middle = plain.len() / 2;
            let sample = &plain[middle..middle + SAMPLE_BYTES];
            if !worth(zstd(sample)?.len(), sample.len()) {
                return Ok((Codec::Raw, plain.to_vec()));
            }
        }
        let packed = zstd(plain)?;
        if worth(packed.len(), plain.len()) {
            Ok((Codec::Zstd, packed))
        } else {
            Ok((Codec::Raw, plain.to_vec()))
        }
    }

    /// Expands `stored` to exactly `length` bytes in `plain`, replacing what was there. `None` where
    /// it is not what [`Codec::compress`] made of so many bytes.
    pub(crate) fn expand(self, stored: &[u8], length: usize, plain: &mut Vec<u8>) -> Option<()> {
        plain.clear();
        match self {
            Codec::Raw => plain.extend_from_slice(stored),
            Codec::Zstd => {
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

fn zstd(plain: &[u8]) -> Result<Vec<u8>> {
    let failed = |error| Error::io("compressing", error);
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?),
        };
        compressor.compress(plain).map_err(failed)
    })
}
