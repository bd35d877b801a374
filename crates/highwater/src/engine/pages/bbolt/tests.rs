//! Files of the real engine (`tests/fixtures/pages/make-bbolt.go`), sound and damaged.

use fastrand::Rng;

use super::*;
use crate::engine::pages::PageFault;
use crate::engine::pages::bytes::u16_at;
use crate::engine::pages::testing::{broken, fixture, full, mutate, sound};

const ALL: [(&str, usize); 9] = [
    ("bbolt-empty", 4096),
    ("bbolt-many", 4096),
    ("bbolt-many-16k", 16384),
    ("bbolt-small-1k", 1024),
    ("bbolt-freed", 256),
    ("bbolt-killed", 4096),
    ("bbolt-unlisted", 4096),
    ("bbolt-copied", 4096),
    ("bbolt-lost", 1024),
];

#[test]
fn sound_files_are_sound() {
    for (name, page) in ALL {
        let bytes = fixture(name);
        let seen = sound(check, name, &bytes);
        assert_eq!(seen.pages as usize, bytes.len() / page, "{name}");
        assert_eq!(seen.lost > 0, name == "bbolt-lost", "{name}: {seen:?}");
        assert_eq!(seen.unlooked.len(), 1 + usize::from(seen.lost > 0), "{name}: {seen:?}");
    }
}

/// The meta page of the last transaction.
fn meta(bytes: &[u8]) -> Meta {
    newest(&Source::new(&crate::engine::pages::testing::file(bytes)).unwrap()).unwrap().0
}

/// Changes bytes of a sound file.
fn with(bytes: &[u8], at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

/// Changes both meta pages, and makes their checksums fit.
fn with_meta(bytes: &[u8], page: usize, at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for start in [HEADER_BYTES, page + HEADER_BYTES] {
        bytes[start + at..start + at + patch.len()].copy_from_slice(patch);
        let sum = fnv(&bytes[start..start + 56]);
        bytes[start + 56..start + 64].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

#[test]
fn a_file_that_is_cut_is_damaged() {
    for (name, page) in ALL {
        let bytes = fixture(name);
        let used = meta(&bytes).limit as usize * page;
        for length in [0, 10, page, page + 90, used / 2, used - page, used - 1] {
            let file = crate::engine::pages::testing::file(&bytes[..length]);
            for depth in [Depth::Open, Depth::Full] {
                let result = check(&file, depth);
                assert!(
                    matches!(result, Err(PageFault::Damaged(_))),
                    "{name} {length}: {result:?}"
                );
            }
        }
        sound(check, name, &bytes[..used]);
    }
}

#[test]
fn one_meta_page_is_enough() {
    let bytes = fixture("bbolt-many");
    let last = meta(&bytes).txid as usize % 2;
    sound(check, "the older one zeroed", &with(&bytes, (1 - last) * 4096, &[0; 4096]));
    // Pages that the transaction before had in use are free, and were not written again yet.
    let before = with(&bytes, last * 4096, &[0; 4096]);
    assert_eq!(meta(&before).txid + 1, meta(&bytes).txid);
    let seen = sound(check, "the newer one zeroed", &before);
    assert!(seen.unlooked.iter().any(|line| line.contains("meta pages is damaged")), "{seen:?}");
    broken(check, "both", &with(&bytes, 0, &[0; 8192]));
    for at in [16, 20, 24, 40, 60, 79] {
        let mut bytes = bytes.clone();
        for page in [0, 4096] {
            bytes[page + at] ^= 4;
        }
        let result = full(check, &bytes);
        assert!(
            matches!(result, Err(PageFault::Damaged(_) | PageFault::Unknown(_))),
            "{at}: {result:?}"
        );
    }
    let copied = fixture("bbolt-copied");
    for page in [0, 4096] {
        sound(check, "a copy", &with(&copied, page, &[0; 4096]));
    }
    let small = fixture("bbolt-small-1k");
    let first = with(&small, 0, &[0; 1024]);
    assert_eq!(meta(&first).page_bytes, 1024);
}

#[test]
fn other_formats_are_not_called_damaged() {
    let bytes = fixture("bbolt-many");
    for bytes in
        [with_meta(&bytes, 4096, 4, &[3]), with_meta(&bytes, 4096, 0, &MAGIC.to_be_bytes())]
    {
        assert!(matches!(full(check, &bytes), Err(PageFault::Unknown(_))));
    }
}

#[test]
fn each_structure_is_checked() {
    for (name, page) in [("bbolt-many", 4096), ("bbolt-small-1k", 1024)] {
        let bytes = fixture(name);
        let Meta { root, free_list, limit, .. } = meta(&bytes);
        for (what, at, number) in [
            ("root is the list", 16, free_list),
            ("root beyond", 16, limit),
            ("root is a meta page", 16, 1),
            ("list is the root", 32, root),
            ("list beyond", 32, u64::MAX - 1),
            ("pages beyond the end", 40, bytes.len() as u64 / page as u64 + 1),
            ("too few pages", 40, limit / 2),
        ] {
            broken(check, what, &with_meta(&bytes, page, at, &number.to_le_bytes()));
        }
        let list = free_list as usize * page;
        let count = u16_at(&bytes, list + 10).unwrap();
        assert!(count > 3, "{count}");
        for (what, at, patch) in [
            ("as many as do not fit", list + 10, 0xfffe_u64),
            ("the count behind", list + 10, 0xffff),
        ] {
            broken(check, what, &with(&bytes, at, &patch.to_le_bytes()[..2]));
        }
        for (what, number) in
            [("root", root), ("beyond", limit), ("meta", 0), ("itself", free_list)]
        {
            broken(check, what, &with(&bytes, list + 16, &number.to_le_bytes()));
        }
        let fewer = with(&bytes, list + 10, &(count - 1).to_le_bytes());
        assert_eq!(sound(check, "one fewer", &fewer).lost, 1);
        let first = bytes[list + 16..list + 24].to_vec();
        broken(check, "twice", &with(&bytes, list + 24, &first));
        let root = root as usize * page;
        for (what, at) in [("id", root), ("flags", root + 8), ("overflow", root + 14)] {
            broken(check, what, &with(&bytes, at, &[0x77]));
        }
        for (what, at) in
            [("flags", 16), ("place", 20), ("length of a key", 25), ("of a value", 30)]
        {
            broken(check, what, &with(&bytes, root + at, &[0x77]));
        }
        broken(check, "fewer elements", &with(&bytes, root + 10, &[1]));
    }
}

/// The pages in use of a kind.
fn used(bytes: &[u8], page: usize, flags: u16) -> Vec<usize> {
    let starts = (2 * page..bytes.len()).step_by(page);
    let of_kind = starts.filter(|&at| u16_at(bytes, at + 8) == Some(flags));
    // A page that is damaged and not missed is free.
    of_kind.filter(|&at| full(check, &with(bytes, at, &[0xff; 8])).is_err()).collect()
}

#[test]
fn a_branch_leads_only_to_pages_of_its_own() {
    let bytes = fixture("bbolt-many");
    let meta = meta(&bytes);
    let list = meta.free_list as usize * 4096;
    let free = u64_at(&bytes, list + 16).unwrap();
    let branches = used(&bytes, 4096, 1);
    assert!(!branches.is_empty());
    for branch in branches {
        for child in [branch as u64 / 4096, 0, free, meta.limit, meta.free_list, meta.root] {
            broken(check, "child", &with(&bytes, branch + 16 + 8, &child.to_le_bytes()));
        }
        let second = bytes[branch + 40..branch + 48].to_vec();
        broken(check, "a child twice", &with(&bytes, branch + 24, &second));
        let key = branch + 32 + u32_at(&bytes, branch + 32).unwrap() as usize;
        broken(check, "order", &with(&bytes, key, &[0xff]));
    }
}

#[test]
fn keys_are_in_order() {
    let bytes = fixture("bbolt-many");
    let leaves = used(&bytes, 4096, 2);
    let mut tried = 0;
    for leaf in leaves.iter().filter(|&&at| u16_at(&bytes, at + 10).unwrap() > 2) {
        let second = leaf + 32 + u32_at(&bytes, leaf + 32 + 4).unwrap() as usize;
        for byte in [0, 0xff] {
            broken(check, "order", &with(&bytes, second, &[byte]));
            tried += 1;
        }
    }
    assert!(tried > 8, "{tried}");
}

#[test]
fn a_bucket_within_a_value_is_checked() {
    let bytes = fixture("bbolt-many");
    let mut tried = 0;
    for leaf in used(&bytes, 4096, 2) {
        for index in 0..u16_at(&bytes, leaf + 10).unwrap() as usize {
            let at = leaf + 16 + 16 * index;
            let word = |place: usize| u32_at(&bytes, at + place).unwrap() as usize;
            let value = at + word(4) + word(8);
            if word(0) != 1 || u64_at(&bytes, value) != Some(0) {
                continue;
            }
            for (what, place, byte) in [("root", 0, 0x55), ("flags", 24, 1), ("count", 27, 9)] {
                broken(check, what, &with(&bytes, value + place, &[byte]));
            }
            broken(check, "length", &with(&bytes, at + 12, &[9]));
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn no_change_makes_the_check_fall() {
    let jobs = [
        ("bbolt-small-1k", 1024, 12_000),
        ("bbolt-empty", 4096, 8_000),
        ("bbolt-unlisted", 4096, 4000),
    ];
    let mut found = 0;
    for (seed, (name, page, count)) in jobs.into_iter().enumerate() {
        found += mutate(check, &fixture(name), page, count, seed as u64 + 1);
    }
    assert!(found > 3000, "{found}");
}

#[test]
fn no_noise_makes_the_check_fall() {
    let mut random = Rng::with_seed(9);
    let bytes = fixture("bbolt-small-1k");
    for _ in 0..200 {
        let mut noise = bytes.clone();
        random.fill(&mut noise[2048..]);
        broken(check, "noise", &noise);
    }
}

/// A chain of branches, each of one element, that begins at the root.
#[test]
fn no_depth_makes_the_check_fall() {
    let page = 1024;
    let pages = 5000_u64;
    let mut bytes = fixture("bbolt-small-1k")[..2 * page].to_vec();
    for id in 2..pages {
        let mut one = vec![0; page];
        one[..8].copy_from_slice(&id.to_le_bytes());
        one[8..12].copy_from_slice(&[1, 0, 1, 0]);
        one[16..24].copy_from_slice(&[16, 0, 0, 0, 1, 0, 0, 0]);
        one[24..32].copy_from_slice(&(id + 1).to_le_bytes());
        one[32] = b'k';
        bytes.extend(one);
    }
    let bytes = with_meta(&bytes, page, 16, &2_u64.to_le_bytes());
    let bytes = with_meta(&bytes, page, 32, &NO_FREE_LIST.to_le_bytes());
    let bytes = with_meta(&bytes, page, 40, &pages.to_le_bytes());
    assert!(matches!(full(check, &bytes), Err(PageFault::Unknown(_))));
}
