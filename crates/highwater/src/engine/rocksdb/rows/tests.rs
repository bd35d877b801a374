//! What is read from the files of databases is what RocksDB itself reads from them: of two releases, in many
//! formats, with rows written, deleted and deleted in ranges, in tables and in logs.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::version::Bounds;
use super::gather::Entry;
use super::*;

fn key(user: &[u8], sequence: u64, kind: u64) -> Vec<u8> {
    [user, &(sequence << 8 | kind).to_le_bytes()].concat()
}

fn bounds(smallest: (&[u8], u64, u64), largest: (&[u8], u64, u64)) -> Bounds {
    let key = |(user, sequence, kind): (&[u8], u64, u64)| key(user, sequence, kind);
    Bounds { smallest: key(smallest), largest: key(largest) }
}

#[test]
fn prefixes_are_found_among_their_neighbours() {
    let prefixes = Prefixes::of(&[b"b", b"bc", b"d\xff", b"\x00"]);
    for (key, wanted) in [
        (&b""[..], false),
        (b"\x00", true),
        (b"\x00a", true),
        (b"a", false),
        (b"b", true),
        (b"bcx", true),
        (b"c", false),
        (b"d", false),
        (b"d\xffz", true),
        (b"e", false),
    ] {
        assert_eq!(prefixes.has(key), wanted, "{key:?}");
        assert_eq!(prefixes.touch(key, key), wanted, "{key:?}");
    }
    assert!(prefixes.touch(b"a", b"c"));
    assert!(prefixes.touch(b"bx", b"c"), "what begins within a prefix");
    assert!(!prefixes.touch(b"c", b"d"));
    assert!(prefixes.touch(b"d", b"e"));
    assert!(!prefixes.touch(b"e", b"z"));
    let all = Prefixes::of(&[b""]);
    assert!(all.has(b"") && all.has(b"any") && all.touch(b"x", b"y"));
    assert!(!Prefixes::of(&[]).has(b"any"));
}

#[test]
fn the_entry_with_the_highest_number_counts_wherever_it_is_found() {
    let prefixes = Prefixes::of(&[b""]);
    let entries =
        [(3, Entry::Put(&b"three"[..])), (5, Entry::Put(b"five")), (4, Entry::Gone), (1, MERGED)];
    for order in 0..entries.len() {
        let mut room = 1 << 30;
        let mut gather = Gather::new(&prefixes, &mut room);
        for at in 0..entries.len() {
            let (sequence, entry) = entries[(at + order) % entries.len()];
            gather.point(b"key", sequence, entry).unwrap();
        }
        assert_eq!(gather.finish().unwrap(), Rows::from([(b"key".to_vec(), b"five".to_vec())]));
    }
    let mut room = 256 << 20;
    let mut gather = Gather::new(&prefixes, &mut room);
    gather.point(b"key", 3, Entry::Put(b"three")).unwrap();
    gather.point(b"key", 3, Entry::Put(b"three")).unwrap();
    let two = gather.point(b"key", 3, Entry::Put(b"other"));
    assert!(matches!(two, Err(VerifyFault::Damaged(_))), "one number, two values");
}

const MERGED: Entry<'_> = Entry::Other(log::MERGE);

#[test]
fn what_only_the_node_can_read_is_refused_where_it_is_the_newest() {
    let prefixes = Prefixes::of(&[b""]);
    let mut room = 256 << 20;
    let mut gather = Gather::new(&prefixes, &mut room);
    gather.point(b"key", 3, MERGED).unwrap();
    gather.point(b"key", 4, Entry::Gone).unwrap();
    assert!(gather.finish().unwrap().is_empty());
    let mut room = 256 << 20;
    let mut gather = Gather::new(&prefixes, &mut room);
    gather.point(b"key", 4, MERGED).unwrap();
    gather.range(b"a", b"z", 5, None).unwrap();
    assert!(gather.finish().unwrap().is_empty());
    let mut room = 256 << 20;
    let mut gather = Gather::new(&prefixes, &mut room);
    gather.point(b"key", 4, MERGED).unwrap();
    assert!(matches!(gather.finish(), Err(VerifyFault::Unknown(log::MERGE))));
}

/// From where to where, with which sequence number, within which table.
type Deleted<'a> = (&'a [u8], &'a [u8], u64, Option<Bounds>);

/// Which of the rows `a` to `e`, with the sequence numbers 1 to 5, are left by deletions.
fn left(deletions: &[Deleted<'_>]) -> String {
    let prefixes = Prefixes::of(&[b""]);
    let mut room = 256 << 20;
    let mut gather = Gather::new(&prefixes, &mut room);
    for (start, end, sequence, bounds) in deletions {
        gather.range(start, end, *sequence, bounds.as_ref()).unwrap();
    }
    for (at, name) in b"abcde".iter().enumerate() {
        gather.point(&[*name], at as u64 + 1, Entry::Put(b"")).unwrap();
    }
    let rows = gather.finish().unwrap();
    rows.into_keys().map(|key| char::from(key[0])).collect()
}

#[test]
fn a_range_is_deleted_up_to_its_end_for_what_is_older() {
    assert_eq!(left(&[(b"b", b"d", 9, None)]), "ade");
    assert_eq!(left(&[(b"b", b"d", 3, None)]), "acde", "not what is as new");
    assert_eq!(left(&[(b"", b"z", 3, None)]), "cde");
    assert_eq!(left(&[(b"a", b"c", 9, None), (b"b", b"e", 4, None)]), "de");
    assert_eq!(left(&[(b"d", b"e", 9, None), (b"a", b"b", 9, None), (b"a", b"z", 1, None)]), "bce");
    assert_eq!(left(&[(b"d", b"b", 9, None)]), "abcde");
    assert_eq!(left(&[(b"b\0", b"c", 9, None)]), "abcde");
}

/// A deletion counts no further than its table reaches, whatever it says of itself.
#[test]
fn a_deletion_ends_with_its_table() {
    const END: u64 = (1 << 56) - 1;
    let cut = |smallest, largest| left(&[(b"a", b"z", 9, Some(bounds(smallest, largest)))]);
    assert_eq!(cut((b"b", 7, 1), (b"d", 4, 1)), "ae");
    // The table ends right before the key.
    assert_eq!(cut((b"b", 7, 1), (b"d", END, 15)), "ade");
    // Only what is older than the first entry, or newer than the last one, of a key that others share.
    assert_eq!(cut((b"b", 2, 1), (b"d", 5, 1)), "ade");
    assert_eq!(cut((b"b", 1, 1), (b"d", 0, 0)), "abe");
}

#[test]
fn rows_that_take_too_much_memory_are_refused() {
    let prefixes = Prefixes::of(&[b"k"]);
    let mut room = 256 << 20;
    let mut gather = Gather::new(&prefixes, &mut room);
    let large = vec![0; 100 << 20];
    for name in [b"k1", b"x1", b"k2", b"x2", b"k1", b"k2"] {
        gather.point(name, 1, Entry::Put(&large)).unwrap();
    }
    gather.point(b"k2", 2, Entry::Put(&large)).unwrap();
    let third = gather.point(b"k3", 1, Entry::Put(&large));
    assert!(matches!(third, Err(VerifyFault::Unknown(why)) if why.contains("memory")));
}

/// One batch, as a log has it.
fn batch(sequence: u64, count: u32, writes: &[u8]) -> Vec<u8> {
    [&sequence.to_le_bytes()[..], &count.to_le_bytes(), writes].concat()
}

fn told(bytes: &[u8]) -> std::result::Result<Vec<(u32, u64)>, VerifyFault> {
    let mut found = Vec::new();
    log::batch(bytes, &mut |write| {
        found.push((write.family, write.sequence));
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn a_batch_has_as_many_writes_as_it_says() {
    let writes = b"\x01\x01k\x01v\x03\x02hi\x0d\x05\x07\x01k\x01v\x0f\x01a\x01b\x00\x01k";
    assert_eq!(told(&batch(7, 4, writes)).unwrap(), [(0, 7), (7, 8), (0, 9), (0, 10)]);
    for count in [0, 3, 5] {
        assert!(matches!(told(&batch(7, count, writes)), Err(VerifyFault::Damaged(_))), "{count}");
    }
    for cut in 1..writes.len() {
        let cut = told(&batch(7, 4, &writes[..cut]));
        assert!(matches!(cut, Err(VerifyFault::Damaged(_))));
    }
    assert!(told(&batch(7, 1, b"\x01\x01k\xff\xff\xff\xff\xff\x7f")).is_err());
    assert!(matches!(told(&batch(u64::MAX, 1, b"\x00\x01k")), Err(VerifyFault::Damaged(_))));
    assert!(matches!(told(&batch((1 << 56) - 1, 1, b"\x00\x01k")), Err(VerifyFault::Damaged(_))));
    for prepared in [b"\x09".as_slice(), b"\x0a\x01x", b"\x0b\x01x", b"\x12", b"\x13"] {
        let refused = told(&batch(7, 0, prepared));
        assert!(matches!(refused, Err(VerifyFault::Unknown(why)) if why.contains("two phases")));
    }
    assert!(matches!(told(&batch(7, 0, b"\x40")), Err(VerifyFault::Unknown(_))));
}

/// What a fuzzer would try, without one: bytes at random, and a database with some bytes changed.
#[test]
fn writes_at_random_come_to_what_they_must() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..1500 {
        let mut bytes = vec![0; random.usize(..600)];
        random.fill(&mut bytes);
        fuzzing::rows(&bytes);
    }
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/rocksdb_rows");
    let database = std::fs::read(seeds.join("database")).unwrap();
    for _ in 0..1500 {
        let mut bytes = database.clone();
        for _ in 0..random.u8(1..5) {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(..8);
        }
        fuzzing::rows(&bytes);
    }
}

fn ldb(db: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new("ldb").arg(format!("--db={}", db.display())).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `ldb` of an older release tells of all rows.
fn scanned(db: &Path) -> Rows {
    let scan = ldb(db, &["scan", "--hex", "--no_value=false"]);
    let bytes = |text: &str| hex::decode(text.trim().trim_start_matches("0x")).unwrap();
    let row = |line: &str| line.split_once(" : ").map(|(key, value)| (bytes(key), bytes(value)));
    scan.lines().filter_map(row).collect()
}

#[test]
fn rows_of_an_older_release_are_read_in_all_its_formats() {
    let dir = tempfile::tempdir().unwrap();
    let mut made = 0;
    for version in 2..=5 {
        for (number, more) in [
            &["--checksum_type=1", "--compression_type=none"][..],
            &["--checksum_type=2", "--compression_type=snappy", "--index_with_first_key=1"],
            &["--checksum_type=3", "--compression_type=zlib", "--partition_index=1"],
            &["--checksum_type=4", "--compression_type=zstd", "--use_data_block_hash_index=1"],
            &["--checksum_type=4", "--compression_type=lz4", "--max_num_range_tombstones=50"],
        ]
        .iter()
        .enumerate()
        {
            let db: PathBuf = dir.path().join(format!("{version}-{number}"));
            let output = Command::new("db_bench")
                .args(["--benchmarks=fillrandom,compact,overwrite", "--num=3000", "--seed=7"])
                .args(["--value_size=80", "--statistics=0", "--metadata_block_size=256"])
                .args(["--range_tombstone_width=9", "--writes_per_range_tombstone=50"])
                .arg(format!("--format_version={version}"))
                .arg(format!("--db={}", db.display()))
                .args(*more)
                .output();
            if !output.is_ok_and(|output| output.status.success()) {
                continue;
            }
            made += 1;
            let all = scanned(&db);
            assert!(all.len() > 500, "{} rows", all.len());
            assert_eq!(rows(&db, &[b""]).unwrap(), all, "version {version} {more:?}");
            let some = |from: &[u8]| -> Rows {
                let begins = |key: &&Vec<u8>| key.starts_with(from);
                let keys = all.keys().filter(begins);
                keys.map(|key| (key.clone(), all[key].clone())).collect()
            };
            let prefix: Vec<u8> = all.keys().nth(200).unwrap()[..7].to_vec();
            assert!(!some(&prefix).is_empty());
            assert_eq!(rows(&db, &[&prefix]).unwrap(), some(&prefix));
        }
    }
    assert!(made >= 10, "db_bench made {made} databases");
}

#[cfg(feature = "rocksdb")]
mod linked;
