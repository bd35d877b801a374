//! Files of three releases of the real engine (`tests/fixtures/pages/make-redb.rs`), sound and damaged.

use fastrand::Rng;
use xxhash_rust::xxh3::xxh3_128;

use super::*;
use crate::engine::pages::testing::{broken, fixture, full, mutate, sound};

const ALL: [&str; 10] = [
    "redb-empty",
    "redb-many",
    "redb-small",
    "redb-savepoint",
    "redb-two-phases",
    "redb-killed",
    "redb-compacted",
    "redb-format-2",
    "redb-format-2-killed",
    "redb-format-3",
];
/// Those that were closed.
const CLOSED: [&str; 7] = [
    "redb-empty",
    "redb-many",
    "redb-small",
    "redb-savepoint",
    "redb-compacted",
    "redb-format-2",
    "redb-format-3",
];

#[test]
fn sound_files_are_sound() {
    for name in ALL {
        let seen = sound(check, name, &fixture(name));
        assert!(seen.reached > 0 || name == "redb-empty", "{name}: {seen:?}");
        let repaired = seen.unlooked.iter().any(|line| line.contains("not closed"));
        assert_eq!(repaired, !CLOSED.contains(&name), "{name}: {:?}", seen.unlooked);
    }
}

/// The bytes of a file that was closed that checksums cover: those of the slot, and of pages.
fn covered(bytes: &[u8]) -> Vec<(u64, u64)> {
    let file = crate::engine::pages::testing::file(bytes);
    let source = Source::new(&file).unwrap();
    let header = Header::read(&source).unwrap();
    let (slot, _) = header.slots().unwrap();
    let mut covered = walk::covered(&source, header.layout, slot);
    let at = 64 + 128 * header.primary as u64;
    covered.push((at, at + 128));
    covered
}

/// Changes bytes of a sound file.
fn with(bytes: &[u8], at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

#[test]
fn each_flipped_byte_of_a_page_in_use_is_found() {
    use std::os::unix::fs::FileExt as _;
    for name in CLOSED {
        let bytes = fixture(name);
        let covered = covered(&bytes);
        let total: u64 = covered.iter().map(|(from, to)| to - from).sum();
        let step = (total / 1500).max(1);
        let file = crate::engine::pages::testing::file(&bytes);
        let mut left = 0;
        for (from, to) in covered {
            for at in from..to {
                // The first bytes of each page, and a sample of the others.
                left += 1;
                if left % step != 0 && at - from > 3 {
                    continue;
                }
                let flipped = bytes[at as usize] ^ (1 << (at % 8));
                file.write_all_at(&[flipped], at).unwrap();
                let result = check(&file, Depth::Full);
                let version = at == 64 || at == 192;
                let found = matches!(result, Err(PageFault::Damaged(_)))
                    || (version && matches!(result, Err(PageFault::Unknown(_))));
                assert!(found, "{name} byte {at}: {result:?}");
                file.write_all_at(&bytes[at as usize..=at as usize], at).unwrap();
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_is_damaged() {
    for name in ALL {
        let bytes = fixture(name);
        for length in [0, 10, 319, 4096, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
            let file = crate::engine::pages::testing::file(&bytes[..length]);
            for depth in [Depth::Open, Depth::Full] {
                let result = check(&file, depth);
                let damaged = matches!(result, Err(PageFault::Damaged(_)));
                // Where it was not closed, the counts of the regions come from the size of the file.
                let open = !CLOSED.contains(&name) && length % 4096 == 0 && length > 4096;
                assert!(damaged || open, "{name} {length}: {result:?}");
            }
        }
        let mut longer = bytes.clone();
        longer.extend([0; 100]);
        broken(check, "longer", &longer);
    }
}

#[test]
fn a_cut_file_that_was_not_closed_misses_its_pages() {
    for name in ["redb-killed", "redb-two-phases", "redb-format-2-killed"] {
        let bytes = fixture(name);
        broken(check, name, &bytes[..4096 * 20]);
    }
}

#[test]
fn the_header_is_checked() {
    let bytes = fixture("redb-many");
    for (what, at, patch) in [
        ("magic", 0, 0_u8),
        ("page size", 13, 0x20),
        ("size of a page", 14, 1),
        ("pages of a region", 20, 3),
        ("regions", 24, 9),
        ("pages of the last region", 29, 0xff),
    ] {
        broken(check, what, &with(&bytes, at, &[patch]));
    }
    broken(check, "both slots", &with(&bytes, 64, &[0; 256]));
    broken(check, "the header", &with(&bytes, 0, &[0; 320]));
}

#[test]
fn the_slot_that_does_not_count_may_be_damaged() {
    let bytes = fixture("redb-many");
    let primary = usize::from(bytes[9] & 1);
    sound(check, "the other slot", &with(&bytes, 64 + 128 * (1 - primary) + 70, &[0xaa; 9]));
    // The flag that says which one counts is outweighed by the newer transaction.
    sound(check, "the flag", &with(&bytes, 9, &[bytes[9] ^ 1]));
}

#[test]
fn redb_goes_back_where_a_commit_was_cut_off() {
    let bytes = fixture("redb-format-2-killed");
    let primary = usize::from(bytes[9] & 1);
    let broken_slot = with(&bytes, 64 + 128 * primary + 8, &[0x55]);
    let seen = sound(check, "the slot", &broken_slot);
    let whole = sound(check, "whole", &bytes);
    assert_ne!(seen.reached, whole.reached);
    let file = crate::engine::pages::testing::file(&bytes);
    let source = Source::new(&file).unwrap();
    let header = Header::read(&source).unwrap();
    let (slot, other) = header.slots().unwrap();
    let pages = walk::covered(&source, header.layout, slot);
    let before = walk::covered(&source, header.layout, other.unwrap());
    let new = pages.iter().find(|page| !before.contains(page)).unwrap();
    let root = new.0 as usize + 5;
    let seen = sound(check, "a page", &with(&bytes, root, &[bytes[root] ^ 1]));
    assert!(seen.unlooked.iter().any(|line| line.contains("go back")), "{seen:?}");
}

#[test]
fn other_formats_are_not_called_damaged() {
    let old = fixture("redb-format-1");
    assert!(matches!(full(check, &old), Err(PageFault::Unknown(_))));
    let bytes = fixture("redb-small");
    let mut later = bytes.clone();
    for slot in [64, 192] {
        later[slot] = 4;
        let sum = xxh3_128(&later[slot..slot + 112]);
        later[slot + 112..slot + 128].copy_from_slice(&sum.to_le_bytes());
    }
    let flags = with(&bytes, 9, &[bytes[9] | 0x40]);
    for bytes in [later, flags] {
        assert!(matches!(full(check, &bytes), Err(PageFault::Unknown(_))));
    }
}

/// Only the pages in use: most of a file of redb is room.
fn mutated(name: &str, count: usize, seed: u64) -> usize {
    let bytes = fixture(name);
    let mut random = Rng::with_seed(seed);
    let covered = covered(&bytes);
    let file = crate::engine::pages::testing::file(&bytes);
    let mut found = 0;
    use std::os::unix::fs::FileExt as _;
    for _ in 0..count {
        let (from, to) = covered[random.usize(..covered.len())];
        let at = from as usize + random.usize(..(to - from) as usize).min(random.usize(..64) + 1);
        let patch = &(random.u64(..) >> random.usize(..64)).to_le_bytes()[..1 + random.usize(..8)];
        let patch = &patch[..patch.len().min(bytes.len() - at)];
        file.write_all_at(patch, at as u64).unwrap();
        let result = check(&file, Depth::Full);
        found += usize::from(result.is_err());
        assert!(!matches!(result, Err(PageFault::Io(_))), "{result:?}");
        file.write_all_at(&bytes[at..at + patch.len()], at as u64).unwrap();
    }
    found
}

#[test]
fn no_change_makes_the_check_fall() {
    let mut found = mutated("redb-small", 6000, 1) + mutated("redb-two-phases", 3000, 2);
    found += mutate(check, &fixture("redb-small")[..], 4096, 6000, 3);
    found += mutate(check, &fixture("redb-empty"), 4096, 6000, 4);
    assert!(found > 8000, "{found}");
}

/// The checksums of pages that were changed by someone who can make them fit.
#[test]
fn no_forged_page_makes_the_check_fall() {
    let bytes = fixture("redb-small");
    let file = crate::engine::pages::testing::file(&bytes);
    let source = Source::new(&file).unwrap();
    let header = Header::read(&source).unwrap();
    let (slot, _) = header.slots().unwrap();
    let slot_at = 64 + 128 * header.primary;
    let roots = [(slot.user, 8), (slot.system, 40)];
    let mut random = Rng::with_seed(5);
    for _ in 0..4000 {
        let (root, at) = roots[random.usize(..2)];
        let place = header.layout.place(root.unwrap().page).unwrap();
        let start = place.offset as usize;
        let mut forged = bytes.clone();
        for _ in 0..=random.usize(..4) {
            let place = start + random.usize(..200);
            let value = (random.u64(..) >> random.usize(..64)).to_le_bytes();
            let length = 1 + random.usize(..8);
            forged[place..place + length].copy_from_slice(&value[..length]);
        }
        // The end that is hashed is where the last value ends, as the changed page tells it.
        let count = u16::from_le_bytes([forged[start + 2], forged[start + 3]]) as usize;
        let last = start + 4 + 8 * count.max(1) - 4;
        let end = forged
            .get(last..last + 4)
            .map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap()) as usize);
        let sum = xxh3_128(&forged[start..start + end.clamp(4, 4096)]);
        forged[slot_at + at + 8..slot_at + at + 24].copy_from_slice(&sum.to_le_bytes());
        let sum = xxh3_128(&forged[slot_at..slot_at + 112]);
        forged[slot_at + 112..slot_at + 128].copy_from_slice(&sum.to_le_bytes());
        let _ = full(check, &forged);
    }
}

/// A chain of branches whose checksums fit; both children of the last one are leaves.
#[test]
fn no_depth_makes_the_check_fall() {
    let bytes = fixture("redb-small");
    for depth in [100, 127, 128, 250] {
        let mut forged = bytes.clone();
        let page = |index: usize| 4096 * (index + 1);
        // A list of tables has keys and values that are not fixed: one entry of no bytes.
        let leaf = |forged: &mut Vec<u8>, index: usize| {
            let end = 12_u32.to_le_bytes();
            forged[page(index)..page(index) + 4].copy_from_slice(&[1, 0, 1, 0]);
            forged[page(index) + 4..page(index) + 8].copy_from_slice(&end);
            forged[page(index) + 8..page(index) + 12].copy_from_slice(&end);
            xxh3_128(&forged[page(index)..page(index) + 12])
        };
        let mut sum = leaf(&mut forged, 0);
        let other = leaf(&mut forged, 256);
        for index in 1..depth {
            let start = page(index);
            let mut branch = vec![2, 0, 1, 0, 0, 0, 0, 0];
            branch.extend(sum.to_le_bytes());
            branch.extend(other.to_le_bytes());
            branch.extend((index as u64 - 1).to_le_bytes());
            branch.extend(256_u64.to_le_bytes());
            branch.extend(60_u32.to_le_bytes());
            sum = xxh3_128(&branch);
            forged[start..start + branch.len()].copy_from_slice(&branch);
        }
        let slot = 64 + 128 * usize::from(bytes[9] & 1);
        forged[slot + 8..slot + 16].copy_from_slice(&(depth as u64 - 1).to_le_bytes());
        forged[slot + 16..slot + 32].copy_from_slice(&sum.to_le_bytes());
        forged[slot + 2] = 0;
        let sum = xxh3_128(&forged[slot..slot + 112]);
        forged[slot + 112..slot + 128].copy_from_slice(&sum.to_le_bytes());
        let what = broken(check, "chain", &forged);
        let wanted = if depth > 128 { "deeper" } else { "cut" };
        assert!(what.contains(wanted), "{depth}: {what}");
    }
}
