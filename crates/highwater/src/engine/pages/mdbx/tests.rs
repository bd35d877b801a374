//! Files of three releases of the real engine (`tests/fixtures/pages/make-mdbx.c`), sound and damaged.

use fastrand::Rng;

use super::*;
use crate::engine::pages::testing::{broken, fixture, full, mutate, sound};

const RELEASES: [&str; 3] = ["0.11", "0.12", "0.13"];
const KINDS: [(&str, usize); 6] = [
    ("empty", 4096),
    ("many", 4096),
    ("small", 1024),
    ("freed", 4096),
    ("weak", 4096),
    ("killed", 4096),
];

fn all() -> Vec<(String, &'static str, usize)> {
    let named = |release| KINDS.map(|(kind, page)| (format!("mdbx-{release}-{kind}"), kind, page));
    let mut all: Vec<_> = RELEASES.into_iter().flat_map(named).collect();
    all.push(("mdbx-0.13-wide".to_owned(), "wide", 65536));
    all
}

#[test]
fn sound_files_are_sound() {
    for (name, kind, page) in all() {
        let bytes = fixture(&name);
        let seen = sound(check, &name, &bytes);
        assert_eq!(seen.pages as usize, bytes.len() / page, "{name}");
        assert_eq!(seen.lost, 0, "{name}");
        let weak = seen.unlooked.iter().any(|line| line.contains("nothing is wrong with it"));
        assert!(!seen.unlooked.iter().any(|line| line.contains("damaged")), "{name}");
        assert_eq!(weak, kind == "weak", "{name}: {:?}", seen.unlooked);
    }
}

/// Changes bytes of a sound file.
fn with(bytes: &[u8], at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

/// The meta page of the last transaction, and where it is.
fn newest(bytes: &[u8], page: usize) -> (Meta, usize) {
    let metas =
        (0..3).filter_map(|index| Some((parse(&bytes[index * page..], index as u64)?, index)));
    let (meta, index) = metas.max_by_key(|(meta, _)| meta.txnid).unwrap();
    (meta, index * page + META_AT)
}

#[test]
fn a_file_that_is_cut_is_damaged() {
    for (name, kind, page) in all() {
        let bytes = fixture(&name);
        let used = newest(&bytes, page).0.limit as usize * page;
        for length in [0, 10, page, page + 100, used / 2, used - page, used - 1] {
            let file = crate::engine::pages::testing::file(&bytes[..length]);
            for depth in [Depth::Open, Depth::Full] {
                let result = check(&file, depth);
                let told =
                    |seen: &Seen| seen.unlooked.iter().any(|line| line.contains("not whole"));
                let damaged = matches!(result, Err(PageFault::Damaged(_)));
                let back = kind == "weak" && result.as_ref().is_ok_and(told);
                assert!(damaged || back, "{name} {length}: {result:?}");
            }
        }
        sound(check, &name, &bytes[..used]);
    }
}

#[test]
fn one_sound_meta_page_is_enough() {
    for release in RELEASES {
        let bytes = fixture(&format!("mdbx-{release}-many"));
        let (_, last) = newest(&bytes, 4096);
        for index in 0..3 {
            if index * 4096 + META_AT != last {
                let without = with(&bytes, index * 4096, &[0; 4096]);
                let seen = sound(check, "another one zeroed", &without);
                assert!(seen.unlooked.iter().any(|line| line.contains("meta pages are damaged")));
            }
        }
        broken(check, "all", &with(&bytes, 0, &[0; 3 * 4096]));
        let mut noise = bytes.clone();
        for index in 0..3 {
            noise[index * 4096 + META_AT + 8] ^= 1;
        }
        broken(check, "the transactions", &noise);
    }
}

#[test]
fn other_formats_are_not_called_damaged() {
    let bytes = fixture("mdbx-0.13-many");
    let every = |at: usize, patch: &[u8]| {
        let at = |index: usize| index * 4096 + META_AT + at;
        (0..3).fold(bytes.clone(), |bytes, index| with(&bytes, at(index), patch))
    };
    let swapped = (MAGIC << 8 | 3).to_be_bytes();
    for bytes in [every(0, &[2]), every(0, &[67]), every(0, &swapped), every(18, &[1])] {
        assert!(matches!(full(check, &bytes), Err(PageFault::Unknown(_))));
    }
}

#[test]
fn each_structure_is_checked() {
    for (name, page) in
        [("mdbx-0.11-many", 4096), ("mdbx-0.12-small", 1024), ("mdbx-0.13-many", 4096)]
    {
        let bytes = fixture(name);
        let (Meta { free, main, limit, .. }, meta) = newest(&bytes, page);
        for (what, at, number) in [
            ("root beyond", meta + 88 + 8, limit),
            ("root of the list", meta + 88 + 8, free.root as u32),
            ("root is a meta page", meta + 88 + 8, 2),
            ("entries", meta + 88 + 32, main.counts.entries as u32 + 1),
            ("too few pages", meta + 36, limit / 2),
            ("pages beyond the end", meta + 36, bytes.len() as u32 / page as u32 + 1),
            ("a root of the list", meta + 40 + 8, u32::MAX),
        ] {
            broken(check, what, &with(&bytes, at, &number.to_le_bytes()[..4]));
        }
        let root = main.root as usize * page;
        for (what, at) in
            [("number", 16), ("flags", 10), ("lower", 12), ("upper", 14), ("offset", 20)]
        {
            let flip = bytes[root + at] ^ 0x41;
            broken(check, what, &with(&bytes, root + at, &[flip]));
        }
        let list = free.root as usize * page;
        assert_eq!(free.depth, 1);
        let node = list + 20 + u16_at(&bytes, list + 20).unwrap() as usize;
        for (what, at, number) in [
            ("transaction", node + 12, u32::MAX),
            ("count", node + 16, 1 << 20),
            ("meta page", node + 20, 1),
            ("beyond", node + 20, limit),
            ("in use", node + 20, main.root as u32),
        ] {
            broken(check, what, &with(&bytes, at, &number.to_le_bytes()));
        }
    }
}

#[test]
fn a_transaction_that_was_not_synced_may_be_damaged() {
    for release in RELEASES {
        let bytes = fixture(&format!("mdbx-{release}-weak"));
        let (meta, _) = newest(&bytes, 4096);
        assert!(!meta.steady);
        let root = meta.main.root as usize * 4096;
        let seen = sound(check, "weak", &with(&bytes, root, &[0xff; 200]));
        assert!(seen.unlooked.iter().any(|line| line.contains("not whole")), "{seen:?}");
    }
}

#[test]
fn no_change_makes_the_check_fall() {
    let jobs = [
        ("mdbx-0.11-small", 1024, 6000),
        ("mdbx-0.12-weak", 4096, 4000),
        ("mdbx-0.13-small", 1024, 6000),
        ("mdbx-0.13-empty", 4096, 6000),
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
    let bytes = fixture("mdbx-0.13-small");
    for _ in 0..200 {
        let mut noise = bytes.clone();
        random.fill(&mut noise[3072..]);
        broken(check, "noise", &noise);
    }
}
