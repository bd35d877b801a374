//! Compression of frames: zstd where it helps, else the bytes as they are.

use std::cell::RefCell;

use zstd::zstd_safe::CParameter;

use crate::error::{Error, Result};

/// A frame is stored compressed where that saves one byte in so many; less is not worth the time to expand it.
const SAVING_MIN: usize = 32;

/// So many bytes at most come out of one of zstd's (RFC 8878, 3.1.1.2): the shortest block has 4 bytes,
/// and is expanded to 128 KiB.
pub(super) const EXPANSION_MAX: usize = 32 << 10;

/// What is longer than this repeats itself at more places than a small table remembers.
const LONG_BYTES: usize = 1 << 20;

/// How a frame's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Raw = 0,
    Zstd = 1,
}

/// How hard the content of files is compressed. What was stored with one can be read, and built on, with any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effort {
    /// Little processor time: repetitions are found, and nothing more. For a store on a fast disk of one's own.
    Fast,
    /// As few bytes as tools store that take several times as long.
    #[default]
    Balanced,
    /// Some bytes in a hundred less, for several times the processor time.
    Dense,
}

/// What zstd is told; where a number is 0, what its level says.
struct Parameters {
    level: i32,
    /// Logarithms: how many places are remembered, and how far back they lie.
    table: u32,
    window: u32,
    /// The shortest repetition that is looked for.
    shortest: u32,
}

impl Effort {
    fn parameters(self, plain: usize) -> Parameters {
        match self {
            // Without entropy coding of literals.
            Effort::Fast => Parameters { level: -10, table: 0, window: 0, shortest: 0 },
            // Level 1 with a window of 4 MiB, a whole frame of a plain file, and a table of one MiB for it, of a quarter
            // of that for a shorter one: tables of RocksDB repeat themselves further back than that level looks.
            Effort::Balanced => {
                let table = if plain > LONG_BYTES { 18 } else { 16 };
                Parameters { level: 1, table, window: 22, shortest: 7 }
            }
            Effort::Dense => Parameters { level: 7, table: 0, window: 0, shortest: 0 },
        }
    }
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
    stored <= plain - plain / SAVING_MIN
}

fn zstd(plain: &[u8], effort: Effort, packed: &mut Vec<u8>) -> Result<()> {
    let failed = |error| Error::io("compressing", error);
    let Parameters { level, table, window, shortest } = effort.parameters(plain.len());
    packed.clear();
    packed.reserve(Codec::bytes_max(plain.len()));
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(level).map_err(failed)?),
        };
        compressor.set_compression_level(level).map_err(failed)?;
        let numbers = [
            CParameter::HashLog(table),
            CParameter::WindowLog(window),
            CParameter::MinMatch(shortest),
        ];
        for number in numbers {
            compressor.set_parameter(number).map_err(failed)?;
        }
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
        assert_eq!(Codec::compress(&zeros, Effort::Balanced, &mut stored).unwrap(), Codec::Zstd);
        let mut plain = Vec::new();
        Codec::Zstd.expand(&stored, zeros.len(), &mut plain).unwrap();
        assert!(plain == zeros, "what shrinks most comes back");
        let mut plain = Vec::new();
        assert!(Codec::Zstd.expand(&stored[..20], 1 << 30, &mut plain).is_none());
        assert_eq!(plain.capacity(), 0);
    }

    /// Bytes that don't shrink.
    fn noise(count: usize, seed: u64) -> Vec<u8> {
        let key = *blake3::hash(&seed.to_le_bytes()).as_bytes();
        let mut bytes = vec![0; count];
        blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn each_effort_stores_less_than_the_one_before_and_is_read_by_the_same_reader() {
        let lines =
            |line: u64| format!("balance_msat={} htlcs={}\n", line * 7919 % 99_991, line % 7);
        let text: Vec<u8> = (0..20_000).flat_map(|line| lines(line).into_bytes()).collect();
        let mut before = text.len();
        // One compressor serves all of them, in any order.
        for effort in [Effort::Fast, Effort::Balanced, Effort::Dense] {
            for _ in 0..2 {
                let (mut stored, mut plain) = (Vec::new(), Vec::new());
                assert_eq!(Codec::compress(&text, effort, &mut stored).unwrap(), Codec::Zstd);
                Codec::Zstd.expand(&stored, text.len(), &mut plain).unwrap();
                assert!(plain == text, "{effort:?}");
                assert!(stored.len() <= before, "{effort:?}: {} of {before}", stored.len());
                before = stored.len();
            }
        }
    }

    #[test]
    fn what_is_repeated_far_back_in_a_slice_is_found() {
        let once = noise(3 << 19, 1);
        let twice = [&once[..], &once].concat();
        let mut stored = Vec::new();
        assert_eq!(Codec::compress(&twice, Effort::Balanced, &mut stored).unwrap(), Codec::Zstd);
        assert!(stored.len() < twice.len() * 6 / 10, "{}", stored.len());
    }

    #[test]
    fn what_saves_too_little_stays_as_it_is() {
        let frame = |parts: usize| [noise(1 << 20, 2), vec![0; (1 << 20) / parts]].concat();
        let mut stored = Vec::new();
        let plain = frame(SAVING_MIN * 2);
        assert_eq!(Codec::compress(&plain, Effort::Balanced, &mut stored).unwrap(), Codec::Raw);
        assert!(stored == plain);
        let plain = frame(SAVING_MIN / 2);
        assert_eq!(Codec::compress(&plain, Effort::Balanced, &mut stored).unwrap(), Codec::Zstd);
    }
}
