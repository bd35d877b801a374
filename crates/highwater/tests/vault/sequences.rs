//! Random edits, a backup after each few of them, and every snapshot restores byte for byte.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Edit {
    /// Pages of the page file from a place on, made of a seed; 0: zero bytes.
    Pages {
        at: usize,
        count: usize,
        seed: u64,
    },
    /// The page file's length.
    Length(usize),
    /// A plain file, new or anew.
    Write {
        file: u8,
        length: usize,
        seed: u64,
    },
    Rename {
        from: u8,
        to: u8,
    },
    Remove(u8),
    Backup {
        rehash: bool,
    },
}

const PAGES_MAX: usize = 60;

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (1..PAGES_MAX, 1..8_usize, 0..4_u64)
            .prop_map(|(at, count, seed)| Edit::Pages { at, count, seed }),
        1 => (24..PAGES_MAX * 4096).prop_map(Edit::Length),
        2 => (0..4_u8, 0..70_000_usize, 0..3_u64)
            .prop_map(|(file, length, seed)| Edit::Write { file, length, seed }),
        1 => (0..4_u8, 0..4_u8).prop_map(|(from, to)| Edit::Rename { from, to }),
        1 => (0..4_u8).prop_map(Edit::Remove),
        3 => prop::bool::weighted(0.1).prop_map(|rehash| Edit::Backup { rehash }),
    ]
}

fn plain(file: u8) -> String {
    format!("plain/{file}")
}

fn apply(bench: &Bench, pages: &mut Vec<u8>, edit: &Edit) {
    match *edit {
        Edit::Pages { at, count, seed } => {
            let range = (at * 4096).min(pages.len())..((at + count) * 4096).min(pages.len());
            let fresh = if seed == 0 { vec![0; range.len()] } else { noise(seed, range.len()) };
            pages[range].copy_from_slice(&fresh);
            bench.write("page.db", &pages);
        }
        Edit::Length(length) => {
            pages.resize(length, 7);
            bench.write("page.db", &pages);
        }
        Edit::Write { file, length, seed } => bench.write(&plain(file), noise(seed, length)),
        Edit::Rename { from, to } => {
            let (from, to) = (bench.node().join(plain(from)), bench.node().join(plain(to)));
            if from.exists() {
                fs::rename(from, to).unwrap();
            }
        }
        Edit::Remove(file) => {
            let path = bench.node().join(plain(file));
            if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
        Edit::Backup { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_snapshot_of_a_changing_node_restores(
        edits in prop::collection::vec(edit(), 5..40)
    ) {
        let bench = Bench::new();
        let mut pages = page_file(1, 30);
        bench.write("page.db", &pages);
        let mut taken = vec![(bench.backup().snapshot, tree(&bench.node()))];
        for edit in edits.iter().chain([&Edit::Backup { rehash: false }]) {
            apply(&bench, &mut pages, edit);
            if let Edit::Backup { rehash } = *edit {
                let mut options = BackupOptions::default();
                options.rehash = rehash;
                let report = bench.backup_with(&options);
                taken.push((report.snapshot, tree(&bench.node())));
            }
        }
        for (snapshot, expected) in &taken {
            bench.assert_restores(*snapshot, expected);
        }
        bench.assert_sound();
    }
}
