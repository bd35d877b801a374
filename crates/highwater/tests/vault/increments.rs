//! What the second backup reads and stores.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use super::*;

const PAGE: usize = 4096;

fn put(bench: &Bench, range: std::ops::Range<u64>) {
    let mut options = rust_rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_disable_auto_compactions(true);
    let db = rust_rocksdb::DB::open(&options, bench.node().join("store")).unwrap();
    for key in range {
        db.put(key.to_be_bytes(), noise(key, 1000)).unwrap();
    }
    db.flush().unwrap();
}

fn insert(bench: &Bench, range: std::ops::Range<u32>) {
    let sql = database(bench);
    sql.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v BLOB); BEGIN")
        .unwrap();
    for id in range {
        sql.execute("INSERT INTO t VALUES (?1, ?2)", (id, noise(id.into(), 3000))).unwrap();
    }
    sql.execute_batch("COMMIT").unwrap();
}

#[test]
fn tables_and_pages_that_have_not_changed_are_not_read_again() {
    let bench = Bench::new();
    insert(&bench, 0..300);
    put(&bench, 0..3000);
    let mut options = BackupOptions::default();
    options.capture.allow_no_barrier = true;
    let first = bench.backup_with(&options);
    assert_eq!(first.bytes_read, first.bytes_total);
    assert!(first.bytes_total > 3_500_000, "{}", first.bytes_total);

    // The short files of RocksDB are read every time; they hold no data.
    let second = bench.backup_with(&options);
    assert!(second.bytes_read < 100_000, "{}", second.bytes_read);
    assert_eq!(bench.packs_stored(&second), 0);
    assert_eq!(second.parent, Some(first.snapshot));

    put(&bench, 3000..3100);
    let third = bench.backup_with(&options);
    assert!(third.bytes_read < 300_000, "{}", third.bytes_read);
    assert!((100_000..300_000).contains(&third.bytes_stored), "{}", third.bytes_stored);
    let restored = bench.restore(third.snapshot);
    assert_same(&tables(&restored), &tables(&bench.node()));

    options.rehash = true;
    let rehashed = bench.backup_with(&options);
    assert_eq!(rehashed.bytes_read, rehashed.bytes_total);
    assert_eq!(bench.packs_stored(&rehashed), 0);
    bench.assert_sound();
}

/// The tables of a RocksDB, and its `CURRENT`.
fn tables(node: &Path) -> Tree {
    let mut all = tree(&node.join("store"));
    all.retain(|name, _| name.ends_with(b".sst") || name == b"CURRENT");
    assert!(all.len() > 1);
    all
}

fn database(bench: &Bench) -> rusqlite::Connection {
    rusqlite::Connection::open(bench.node().join("node.sqlite")).unwrap()
}

#[test]
fn a_hundredth_of_a_sqlites_pages_costs_a_twentieth_at_most() {
    const ROWS: u32 = 4000;
    let bench = Bench::new();
    insert(&bench, 0..ROWS);
    let full = bench.backup();

    // A row fills a page: these are a hundredth of the pages, all over the file.
    let sql = database(&bench);
    sql.execute_batch("BEGIN").unwrap();
    for change in 0..ROWS / 100 {
        let id = (change * 7919 + 13) % ROWS;
        let fresh = noise((ROWS + id).into(), 3000);
        assert_eq!(sql.execute("UPDATE t SET v = ?2 WHERE id = ?1", (id, fresh)).unwrap(), 1);
    }
    sql.execute_batch("COMMIT").unwrap();
    drop(sql);
    let more = bench.backup();
    assert!(more.bytes_stored > 0, "the change was not seen");
    assert!(
        more.bytes_stored * 20 <= full.bytes_stored,
        "{} after {}",
        more.bytes_stored,
        full.bytes_stored
    );
    let restored = bench.restore(more.snapshot).join("node.sqlite");
    let rows = |path: &Path| -> Vec<(u32, Vec<u8>)> {
        let sql = rusqlite::Connection::open(path).unwrap();
        let mut all = sql.prepare("SELECT id, v FROM t ORDER BY id").unwrap();
        let rows = all.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    assert!(rows(&restored) == rows(&bench.node().join("node.sqlite")));
    bench.assert_sound();
}

#[test]
fn the_backup_after_a_restore_has_what_was_written_since() {
    let bench = Bench::new();
    insert(&bench, 0..100);
    bench.write("a", noise(1, 50_000));
    bench.write("page.db", page_file(2, 20));
    let mut options = BackupOptions::default();
    options.capture.allow_no_barrier = true;
    let old = bench.backup_with(&options);
    let old_tree = tree(&bench.node());
    insert(&bench, 100..200);
    bench.write("a", noise(3, 50_000));
    bench.backup_with(&options);

    restore_to(&bench.vault, old.snapshot, &bench.node(), true, None).unwrap();
    assert_same(&tree(&bench.node()), &old_tree);
    let same = bench.backup_with(&options);
    assert_eq!(same.bytes_read, same.bytes_total, "an identity from before the restore was used");
    bench.assert_restores(same.snapshot, &old_tree);

    insert(&bench, 100..130);
    bench.write("a", noise(4, 50_000));
    bench.write("page.db", page_file(5, 20));
    let next = bench.backup_with(&options);
    assert!(next.bytes_stored > 30 * 3000, "{}", next.bytes_stored);
    bench.assert_restores(next.snapshot, &tree(&bench.node()));
    let after = bench.backup_with(&options);
    assert!(after.bytes_read < after.bytes_total, "the SQLite is known again");
    assert_eq!(bench.packs_stored(&after), 0);
    bench.assert_restores(after.snapshot, &tree(&bench.node()));
    bench.assert_restores(old.snapshot, &old_tree);
    bench.assert_sound();
}

/// Plain files are known by their stamps, once those are old enough to tell a later write; the change time can't be
/// set by anybody.
#[test]
fn plain_files_that_have_not_changed_are_not_read_again() {
    let bench = Bench::new();
    for file in 0..40 {
        bench.write(&format!("file-{file:02}"), noise(file, 700));
    }
    let first = bench.backup();
    assert_eq!((first.bytes_read, first.bytes_total), (40 * 700, 40 * 700));
    let second = bench.backup();
    assert_eq!(second.bytes_read, 0, "{second:?}");
    bench.assert_restores(second.snapshot, &tree(&bench.node()));

    // Another content of the same size, by the same name, with the same time.
    let path = bench.node().join("file-07");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, noise(99, 700)).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let third = bench.backup();
    assert_eq!(third.bytes_read, 700);
    bench.assert_restores(third.snapshot, &tree(&bench.node()));

    let mut options = BackupOptions::default();
    options.rehash = true;
    let rehashed = bench.backup_with(&options);
    assert_eq!(rehashed.bytes_read, 40 * 700);
    bench.assert_sound();
}

/// Inodes are given out again: the same name, size, time and inode prove nothing after a restore.
#[test]
fn tables_that_look_unchanged_are_read_after_a_restore() {
    let bench = Bench::new();
    put(&bench, 0..3000);
    let first = bench.backup();
    assert!(bench.backup().bytes_read < first.bytes_total, "they are trusted before it");
    let kept = restore_to(&bench.vault, first.snapshot, &bench.node(), true, None).unwrap();
    let kept = kept.kept.unwrap().join("store");
    for name in tables(&bench.node()).into_keys().filter(|name| name.ends_with(b".sst")) {
        let name = OsStr::from_bytes(&name);
        let restored = bench.node().join("store").join(name);
        fs::remove_file(&restored).unwrap();
        fs::hard_link(kept.join(name), restored).unwrap();
    }
    let after = bench.backup();
    assert_eq!(after.bytes_read, after.bytes_total);
    assert!(bench.backup().bytes_read < after.bytes_total, "they are trusted again");
}

#[test]
fn a_renamed_file_is_found_by_its_content() {
    let bench = Bench::new();
    bench.write("old-name", noise(1, 9 << 20));
    bench.backup();
    fs::rename(bench.node().join("old-name"), bench.node().join("new-name")).unwrap();
    let second = bench.backup();
    assert_eq!((second.bytes_read, bench.packs_stored(&second)), (9 << 20, 0));
    bench.assert_restores(second.snapshot, &tree(&bench.node()));
}

#[test]
fn pages_that_go_back_to_what_they_were_are_right_in_every_snapshot() {
    let bench = Bench::new();
    let mut states = Vec::new();
    for round in 0..6 {
        let mut bytes = page_file(1, 40);
        if round % 2 == 1 {
            bytes[20 * PAGE..25 * PAGE].copy_from_slice(&noise(9, 5 * PAGE));
        }
        bench.write("page.db", bytes);
        states.push((bench.backup().snapshot, tree(&bench.node())));
    }
    for (snapshot, expected) in &states {
        bench.assert_restores(*snapshot, expected);
    }
    bench.assert_sound();
}

#[test]
fn a_page_file_may_shrink_grow_end_within_a_page_and_become_zero() {
    let bench = Bench::new();
    let mut states = Vec::new();
    for length in [30 * PAGE, 10 * PAGE, 10 * PAGE + 100, 10 * PAGE + 99, 50 * PAGE, PAGE, 0] {
        let mut bytes = page_file(1, 50);
        bytes.truncate(length);
        bench.write("page.db", &bytes);
        states.push((bench.backup().snapshot, tree(&bench.node())));
    }
    let mut zeroed = page_file(1, 8);
    zeroed[PAGE..].fill(0);
    bench.write("page.db", &zeroed);
    bench.write("plain", vec![0; (4 << 20) + 5]);
    states.push((bench.backup().snapshot, tree(&bench.node())));
    for (snapshot, expected) in &states {
        bench.assert_restores(*snapshot, expected);
    }
    bench.assert_sound();
}

/// Over a GiB long, with data at both ends of both leaves, and holes between.
fn far(file: &File, seed: u64, length: u64) {
    file.set_len(length).unwrap();
    for (at, place) in [(1, PAGE as u64), (2, (1 << 30) - 3), (3, (1 << 30) + 70_000)] {
        file.write_all_at(&noise(seed + at, 10_000), place).unwrap();
    }
    file.write_all_at(&noise(seed, 100), length - 100).unwrap();
}

fn same_bytes(a: &Path, b: &Path) {
    let (a, b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let length = a.metadata().unwrap().len();
    assert_eq!(length, b.metadata().unwrap().len());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < length {
        let size = (length - at).min(1 << 20) as usize;
        a.read_exact_at(&mut left[..size], at).unwrap();
        b.read_exact_at(&mut right[..size], at).unwrap();
        assert!(left[..size] == right[..size], "the MiB at {at}");
        at += size as u64;
    }
}

#[test]
fn a_file_over_several_leaves_comes_back() {
    let bench = Bench::new();
    let names = ["plain", "page.db"];
    for (seed, name) in names.into_iter().enumerate() {
        bench.write(name, page_file(5, 1));
        let path = bench.node().join(name);
        if name == "plain" {
            fs::write(&path, b"no database").unwrap();
        }
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        far(&file, seed as u64 * 10, (1 << 30) + (5 << 20) + 17);
    }
    let first = bench.backup();
    assert!(first.bytes_stored < 40 << 20, "holes are not stored: {}", first.bytes_stored);
    let page = OpenOptions::new().write(true).open(bench.node().join("page.db")).unwrap();
    page.write_all_at(&noise(77, PAGE), (1 << 30) + (1 << 20)).unwrap();
    drop(page);
    let second = bench.backup();
    assert!(second.bytes_stored < 3 * PAGE as u64, "{}", second.bytes_stored);
    let restored = bench.restore(second.snapshot);
    for name in names {
        same_bytes(&restored.join(name), &bench.node().join(name));
    }
}
