//! What the tests of all formats share.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fastrand::Rng;

use crate::engine::pages::{Depth, PageFault, Result, Seen};

/// A check of one format.
pub(crate) type Check = fn(&File, Depth) -> Result<Seen>;

/// The bytes of a file of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pages");
    let packed = std::fs::read(dir.join(format!("{name}.zst"))).unwrap();
    zstd::decode_all(packed.as_slice()).unwrap()
}

/// A file of these bytes.
pub(crate) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// What a full check finds.
pub(crate) fn full(check: Check, bytes: &[u8]) -> Result<Seen> {
    check(&file(bytes), Depth::Full)
}

/// What is found in a sound file, at both depths.
pub(crate) fn sound(check: Check, name: &str, bytes: &[u8]) -> Seen {
    let file = file(bytes);
    if let Err(fault) = check(&file, Depth::Open) {
        panic!("{name}, opened: {fault}");
    }
    match check(&file, Depth::Full) {
        Ok(seen) => seen,
        Err(fault) => panic!("{name}: {fault}"),
    }
}

/// The sentence about what is damaged.
pub(crate) fn broken(check: Check, what: &str, bytes: &[u8]) -> String {
    match full(check, bytes) {
        Err(PageFault::Damaged(sentence)) => sentence,
        other => panic!("{what}: {other:?}"),
    }
}

/// A number as a hostile file would have it.
fn hostile(random: &mut Rng) -> u64 {
    match random.u8(..6) {
        0 => 0,
        1 => u64::MAX,
        2 => random.u64(..64),
        3 => 1 << random.u8(..64),
        4 => u64::MAX >> random.u8(..64),
        _ => random.u64(..),
    }
}

/// Changes a sound file `count` times in many ways, back to what it was each time, and checks it.
/// Returns how often damage was found. `page` is the size of its pages.
pub(crate) fn mutate(check: Check, bytes: &[u8], page: usize, count: usize, seed: u64) -> usize {
    let file = file(bytes);
    let mut random = Rng::with_seed(seed);
    let mut found = 0;
    for _ in 0..count {
        let mut places = Vec::new();
        for _ in 0..=random.usize(..3) {
            let at = match random.usize(..3) {
                // The headers of pages are hit more often.
                0 => random.usize(..bytes.len()) / page * page + random.usize(..page.min(128)),
                _ => random.usize(..bytes.len()),
            };
            let at = at.min(bytes.len() - 1);
            let value = hostile(&mut random).to_le_bytes();
            let patch = match random.usize(..7) {
                0 => vec![bytes[at] ^ (1 << random.usize(..8))],
                1 => value[..1].to_vec(),
                2 => value[..2].to_vec(),
                3 => value[..4].to_vec(),
                4 => value.to_vec(),
                5 => vec![0; random.usize(..page) + 1],
                _ => {
                    let from = random.usize(..bytes.len() / page) * page;
                    bytes[from..from + page].to_vec()
                }
            };
            let start = if patch.len() == page { at / page * page } else { at };
            let patch = &patch[..patch.len().min(bytes.len() - start)];
            file.write_all_at(patch, start as u64).unwrap();
            places.push((start, patch.len()));
        }
        if random.usize(..50) == 0 {
            file.set_len(random.usize(..bytes.len()) as u64).unwrap();
            places.push((0, bytes.len()));
        }
        for depth in [Depth::Open, Depth::Full] {
            match check(&file, depth) {
                Err(PageFault::Io(source)) => panic!("{source}"),
                Err(PageFault::Damaged(_)) if depth == Depth::Full => found += 1,
                _ => {}
            }
        }
        for (start, length) in places {
            file.write_all_at(&bytes[start..start + length], start as u64).unwrap();
        }
    }
    assert!(check(&file, Depth::Full).is_ok(), "it is what it was");
    found
}
