//! Files of the real engine (`tests/fixtures/pages/make-lmdb.py`), sound and damaged.

use fastrand::Rng;

use super::*;
use crate::engine::pages::PageFault;
use crate::engine::pages::testing::{broken, fixture, full, mutate, sound};

const ALL: [(&str, usize); 9] = [
    ("lmdb-empty", 4096),
    ("lmdb-many", 4096),
    ("lmdb-many-16k", 16384),
    ("lmdb-small-1k", 1024),
    ("lmdb-freed", 4096),
    ("lmdb-killed", 4096),
    ("lmdb-short", 4096),
    ("lmdb-compacted", 4096),
    ("lmdb-custom", 4096),
];

#[test]
fn sound_files_are_sound() {
    for (name, page) in ALL {
        let bytes = fixture(name);
        let seen = sound(check, name, &bytes);
        assert_eq!(seen.pages as usize, bytes.len() / page, "{name}");
        assert_eq!(seen.lost, 0, "{name}");
        let custom = seen.unlooked.iter().any(|line| line.contains("order"));
        assert_eq!(custom, name == "lmdb-custom", "{name}: {:?}", seen.unlooked);
    }
}

#[test]
fn pages_behind_the_end_are_free() {
    let bytes = fixture("lmdb-short");
    let seen = sound(check, "lmdb-short", &bytes);
    assert!(seen.free > 0 && seen.reached + seen.free > seen.pages, "{seen:?}");
    let cut = &bytes[..3 * 4096];
    assert!(broken(check, "cut", cut).starts_with("The file is cut"));
}

/// The pages of a kind, by the flags in their headers; free ones as well.
fn pages(bytes: &[u8], page: usize, flags: u16) -> Vec<usize> {
    let starts = (2 * page..bytes.len()).step_by(page);
    starts.filter(|&at| u16_at(bytes, at + 10) == Some(flags)).collect()
}

/// The newer meta page.
fn meta_at(bytes: &[u8], page: usize) -> usize {
    let txnid = |at: usize| u64_at(bytes, at + 16 + 128);
    if txnid(0) < txnid(page) { page } else { 0 }
}

/// Changes bytes of a sound file.
fn with(bytes: &[u8], at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

#[test]
fn a_file_that_is_cut_is_damaged() {
    for (name, page) in ALL {
        let bytes = fixture(name);
        let meta = meta_at(&bytes, page);
        let used = (u64_at(&bytes, meta + 16 + 120).unwrap() as usize + 1) * page;
        let used = used.min(bytes.len());
        for length in [0, 10, page, page + 100, used / 2, used - page, used - 1] {
            let file = crate::engine::pages::testing::file(&bytes[..length]);
            for depth in [Depth::Open, Depth::Full] {
                let result = check(&file, depth);
                // Free pages at the end are not missed.
                let sound = result.as_ref().is_ok_and(|_| length + page >= used);
                let damaged = matches!(result, Err(PageFault::Damaged(_)));
                assert!(damaged || (sound && name != "lmdb-many"), "{name} {length}: {result:?}");
            }
        }
    }
}

#[test]
fn lmdb_needs_both_meta_pages() {
    let bytes = fixture("lmdb-many");
    for at in [0, 4096] {
        assert!(broken(check, "zeroed", &with(&bytes, at, &[0; 4096])).contains("Meta page"));
    }
    broken(check, "both", &with(&bytes, 0, &[0; 8192]));
    broken(check, "magic", &with(&bytes, 17, &[1]));
    broken(check, "meta flag", &with(&bytes, 10, &[0]));
    broken(check, "transaction", &with(&bytes, 16 + 128, &[0xff]));
    broken(check, "page size", &with(&bytes, 16 + 24, &[1]));
}

#[test]
fn other_formats_are_not_called_damaged() {
    let bytes = fixture("lmdb-many");
    let mut later = with(&bytes, 20, &[2]);
    later[4096 + 20] = 2;
    let mut short = bytes.clone();
    short.copy_within(16..400, 12);
    let mut long = bytes.clone();
    long.copy_within(16..400, 24);
    long[16..24].fill(0);
    let swapped = with(&bytes, 16, &MAGIC.to_be_bytes());
    for bytes in [later, short, long, swapped] {
        assert!(matches!(full(check, &bytes), Err(PageFault::Unknown(_))));
    }
}

#[test]
fn each_structure_is_checked() {
    for (name, page) in [("lmdb-many", 4096), ("lmdb-small-1k", 1024)] {
        let bytes = fixture(name);
        let meta = meta_at(&bytes, page) + 16;
        let free = Record::at(Dialect::Lmdb, &bytes, meta + 24).unwrap();
        let main = Record::at(Dialect::Lmdb, &bytes, meta + 72).unwrap();
        let root = main.root as usize * page;
        let leaf = if main.depth == 1 {
            root
        } else {
            let node = u16_at(&bytes, root + 16).unwrap() as usize;
            u32_at(&bytes, root + node).unwrap() as usize * page
        };
        for (what, at, patch) in [
            ("root beyond", meta + 72 + 40, 1_u64 << 40),
            ("root of the list", meta + 72 + 40, free.root),
            ("depth", meta + 72 + 6, 33),
            ("entries", meta + 72 + 32, main.counts.entries + 1),
            ("last page", meta + 120, 3),
        ] {
            let width = if what == "depth" { 2 } else { 8 };
            broken(check, what, &with(&bytes, at, &patch.to_le_bytes()[..width]));
        }
        for (what, at) in [
            ("number", leaf),
            ("flags", leaf + 10),
            ("lower", leaf + 12),
            ("upper", leaf + 14),
            ("first offset", leaf + 16),
        ] {
            let flip = bytes[at] ^ 0x41;
            broken(check, what, &with(&bytes, at, &[flip]));
        }
        let node = leaf + u16_at(&bytes, leaf + 16).unwrap() as usize;
        broken(check, "length of a key", &with(&bytes, node + 6, &[0xff]));
        broken(check, "length of a value", &with(&bytes, node, &[0xff]));
        broken(check, "flags of a node", &with(&bytes, node + 4, &[0xf0]));
    }
}

#[test]
fn a_branch_leads_only_to_pages_of_its_own() {
    let bytes = fixture("lmdb-many");
    let mut tried = 0;
    for branch in pages(&bytes, 4096, 1) {
        let node = branch + u16_at(&bytes, branch + 18).unwrap() as usize;
        let own = branch as u64 / 4096;
        let seen = full(check, &with(&bytes, node, &[0xff; 4]));
        if seen.is_ok() {
            // A free page looks like a branch as well.
            continue;
        }
        tried += 1;
        let free = with_free(&bytes);
        for child in [own, 0, 1, bytes.len() as u64 / 4096, free] {
            broken(check, "child", &with(&bytes, node, &child.to_le_bytes()[..4]));
        }
    }
    assert!(tried > 2);
}

/// A page that the newest entry of the list of free pages names.
fn with_free(bytes: &[u8]) -> u64 {
    let meta = meta_at(bytes, 4096) + 16;
    let free = Record::at(Dialect::Lmdb, bytes, meta + 24).unwrap();
    assert_eq!(free.depth, 1);
    let root = free.root as usize * 4096;
    let node = root + u16_at(bytes, root + 16).unwrap() as usize;
    u64_at(bytes, node + 8 + 8 + 8).unwrap()
}

#[test]
fn the_list_of_free_pages_is_checked() {
    let bytes = fixture("lmdb-many");
    let meta = meta_at(&bytes, 4096) + 16;
    let free = Record::at(Dialect::Lmdb, &bytes, meta + 24).unwrap();
    let main = Record::at(Dialect::Lmdb, &bytes, meta + 72).unwrap();
    let root = free.root as usize * 4096;
    let node = root + u16_at(&bytes, root + 16).unwrap() as usize;
    for (what, at, number) in [
        ("transaction", node + 8, u64::MAX),
        ("count", node + 16, 1 << 20),
        ("meta page", node + 24, 1),
        ("beyond", node + 24, 1 << 30),
        ("in use", node + 24, main.root),
        ("itself", node + 24, free.root),
    ] {
        broken(check, what, &with(&bytes, at, &number.to_le_bytes()));
    }
    let first = &bytes[node + 24..node + 32];
    broken(check, "twice", &with(&bytes, node + 32, first));
}

#[test]
fn large_values_have_their_pages() {
    let bytes = fixture("lmdb-many");
    let mut found = 0;
    for at in pages(&bytes, 4096, 4) {
        for patch in [[0; 4], [0xff; 4]] {
            found += usize::from(full(check, &with(&bytes, at + 12, &patch)).is_err());
        }
        found += usize::from(full(check, &with(&bytes, at, &[0xff])).is_err());
    }
    assert!(found >= 12, "{found}");
}

#[test]
fn no_change_makes_the_check_fall() {
    let mut found = 0;
    for (seed, (name, page, count)) in [
        ("lmdb-small-1k", 1024, 12_000),
        ("lmdb-compacted", 4096, 4000),
        ("lmdb-short", 4096, 4000),
    ]
    .into_iter()
    .enumerate()
    {
        found += mutate(check, &fixture(name), page, count, seed as u64 + 1);
    }
    assert!(found > 4000, "{found}");
}

#[test]
fn no_noise_makes_the_check_fall() {
    let mut random = Rng::with_seed(9);
    let bytes = fixture("lmdb-small-1k");
    for _ in 0..200 {
        let mut noise = bytes.clone();
        random.fill(&mut noise[2048..]);
        broken(check, "noise", &noise);
    }
}
