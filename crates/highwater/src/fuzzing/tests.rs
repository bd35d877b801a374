use std::path::Path;

use super::*;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 15] = [
    ("archive", archive),
    ("guard_latch", guard_latch),
    ("key_slot", key_slot),
    ("kit", kit),
    ("manifest", manifest),
    ("pages", pages),
    ("restore_journal", restore_journal),
    ("rocksdb_blob", rocksdb_blob),
    ("rocksdb_block", rocksdb_block),
    ("rocksdb_manifest", rocksdb_manifest),
    ("rocksdb_rows", rocksdb_rows),
    ("rocksdb_table", rocksdb_table),
    ("runs", runs),
    ("sealed", sealed),
    ("sqlite", sqlite),
];

#[test]
fn every_seed_keeps_what_is_promised() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, target) in TARGETS {
        let mut files = 0;
        for file in std::fs::read_dir(seeds.join(name)).unwrap() {
            target(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "{name} has no seed");
    }
}
