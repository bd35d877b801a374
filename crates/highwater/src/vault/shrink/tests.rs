use super::*;
use crate::ids::Time;
use crate::ids::{Epoch, NodeUid, Seq};
use crate::records::{Barrier, Consistency, Metadata};
use crate::vault::manifest::EntryRecord;

fn id(byte: u8) -> SnapshotId {
    SnapshotId::from_bytes([byte; 16])
}

fn entry(path: &str, size: u64, units: Units) -> EntryRecord {
    EntryRecord {
        path: path.parse().unwrap(),
        kind: EntryType::File,
        meta: Metadata { mode: 0o600, uid: 0, gid: 0, mtime_ns: 0, xattrs: Vec::new() },
        size,
        holes: Vec::new(),
        units,
        identity: None,
        leaves: Vec::new(),
    }
}

fn part(name: &str, engine: EngineKind, entries: Vec<EntryRecord>) -> PartRecord {
    PartRecord {
        name: name.to_owned(),
        engine,
        root: if engine == EngineKind::FILES { RelPath::root() } else { name.parse().unwrap() },
        engine_version: None,
        consistency: Consistency::Offline,
        replica: None,
        entry_points: Vec::new(),
        entries,
        lists: Vec::new(),
    }
}

fn sqlite(name: &str, size: u64) -> PartRecord {
    part(name, EngineKind::SQLITE, vec![entry(name, size, Units::Pages { bytes: 4096 })])
}

fn rocksdb(name: &str, current: u64, tables: u64) -> PartRecord {
    let file = |file: &str, size| entry(&format!("{name}/{file}"), size, Units::Slices);
    part(name, EngineKind::ROCKSDB, vec![file("000007.sst", tables), file("CURRENT", current)])
}

fn files(sizes: &[u64]) -> PartRecord {
    let files = sizes.iter().enumerate();
    let entries = files.map(|(at, size)| entry(&format!("file-{at}"), *size, Units::Slices));
    part("files", EngineKind::FILES, entries.collect())
}

fn snapshot(byte: u8, parts: Vec<PartRecord>) -> Manifest {
    Manifest {
        version: 1,
        snapshot: id(byte),
        generation: 0,
        node: "node".parse().unwrap(),
        uid: NodeUid::from_bytes([1; 16]),
        seq: Seq(u64::from(byte)),
        epoch: Epoch(1),
        parent: None,
        time: Time::from_nanos(0),
        barrier: Barrier::Single,
        guarded: false,
        guard: None,
        program: String::new(),
        restore: None,
        schema: None,
        kinds: Vec::new(),
        together: Vec::new(),
        marks: Default::default(),
        tags: Default::default(),
        packs: Vec::new(),
        root: Metadata { mode: 0o700, uid: 0, gid: 0, mtime_ns: 0, xattrs: Vec::new() },
        place: None,
        parts,
        bytes_read: 0,
        bytes_stored: 0,
        shrunk: Vec::new(),
    }
}

/// What the newer one lacks, by part and how; the whole is `*`.
fn lacks(earlier: &Earlier, newer: &mut Manifest) -> Vec<(String, Shrunk)> {
    newer.shrunk = earlier.losses(newer, |_| false);
    let short = |loss: &Loss| (loss.part.clone().unwrap_or_else(|| "*".to_owned()), loss.how);
    newer.shrunk.iter().map(short).collect()
}

fn after(older: &Manifest, acknowledged: &[Acknowledged]) -> Earlier {
    Earlier {
        pending: pending(&older.shrunk, acknowledged),
        ..Earlier::of(older, &crate::vault::nodes::NodeRecord::fresh(&older.node, older.time))
    }
}

fn acknowledge(manifest: &Manifest) -> Acknowledged {
    Acknowledged {
        snapshot: manifest.snapshot,
        reason: "moved".to_owned(),
        by: "me".to_owned(),
        time: Time::from_nanos(0),
        losses: manifest.shrunk.clone(),
    }
}

fn told(part: &str, how: Shrunk) -> (String, Shrunk) {
    (part.to_owned(), how)
}

#[test]
fn a_node_that_grows_or_writes_its_log_into_tables_loses_nothing() {
    let first = snapshot(1, vec![sqlite("a.db", 8192), rocksdb("store", 16, 900), files(&[5000])]);
    let mut same = snapshot(2, first.parts.clone());
    assert_eq!(lacks(&after(&first, &[]), &mut same), []);
    let mut other =
        snapshot(2, vec![sqlite("a.db", 8192), rocksdb("store", 16, 300), files(&[4000, 1])]);
    assert_eq!(lacks(&after(&first, &[]), &mut other), []);
}

#[test]
fn missing_and_empty_and_half_are_three_things() {
    let first = snapshot(
        1,
        vec![sqlite("a.db", 8192), sqlite("b.db", 8192), rocksdb("store", 16, 50_000), files(&[9])],
    );
    let mut emptied = entry("b.db", 0, Units::Slices);
    emptied.size = 0;
    let mut newer = snapshot(
        2,
        vec![
            sqlite("a.db", 4096),
            rocksdb("store", 0, 50_000),
            part("files", EngineKind::FILES, vec![emptied]),
        ],
    );
    let expected =
        [told("a.db", Shrunk::Smaller), told("b.db", Shrunk::Empty), told("store", Shrunk::Empty)];
    assert_eq!(lacks(&after(&first, &[]), &mut newer), expected);
    let mut bare = snapshot(2, vec![sqlite("b.db", 8192), files(&[])]);
    let expected = [
        told("a.db", Shrunk::Missing),
        told("store", Shrunk::Missing),
        told("files", Shrunk::Missing),
        told("*", Shrunk::Smaller),
    ];
    assert_eq!(lacks(&after(&first, &[]), &mut bare), expected);
    assert!(bare.shrunk.iter().all(|loss| loss.before == id(1)));
    // What has nothing loses nothing.
    let mut again = snapshot(3, vec![files(&[])]);
    assert_eq!(lacks(&after(&snapshot(2, vec![files(&[])]), &[]), &mut again), []);
}

#[test]
fn exactly_half_of_the_bytes_is_a_loss_and_one_more_is_none() {
    let first = snapshot(1, vec![files(&[1000, 1001])]);
    let whole = [told("*", Shrunk::Smaller)];
    assert_eq!(lacks(&after(&first, &[]), &mut snapshot(2, vec![files(&[1000])])), whole);
    assert_eq!(lacks(&after(&first, &[]), &mut snapshot(2, vec![files(&[1001])])), []);
}

#[test]
fn a_loss_is_taken_over_until_all_is_back() {
    let first = snapshot(1, vec![sqlite("a.db", 8192), files(&[90_000])]);
    let mut second = snapshot(2, vec![files(&[90_000])]);
    assert_eq!(lacks(&after(&first, &[]), &mut second), [told("a.db", Shrunk::Missing)]);
    // The node makes a new, small one; another loss comes on top.
    let mut third = snapshot(3, vec![sqlite("a.db", 4096), files(&[30_000])]);
    let expected = [told("a.db", Shrunk::Smaller), told("*", Shrunk::Smaller)];
    assert_eq!(lacks(&after(&second, &[]), &mut third), expected);
    let before: Vec<SnapshotId> = third.shrunk.iter().map(|loss| loss.before).collect();
    assert_eq!(before, [id(1), id(2)]);
    assert_eq!((third.shrunk[0].bytes_before, third.shrunk[0].bytes), (8192, 4096));
    let mut fourth = snapshot(4, vec![sqlite("a.db", 8192), files(&[50_000])]);
    assert_eq!(lacks(&after(&third, &[]), &mut fourth), []);
}

#[test]
fn what_is_acknowledged_is_compared_with_no_more_and_a_greater_loss_is_another() {
    let first = snapshot(1, vec![sqlite("a.db", 8192), files(&[100_000])]);
    let mut second = snapshot(2, vec![files(&[40_000])]);
    lacks(&after(&first, &[]), &mut second);
    let known = [acknowledge(&second)];
    assert_eq!(pending(&second.shrunk, &known), []);
    assert_eq!(by_whom(&second.shrunk, known.to_vec()).unwrap().reason, "moved");
    assert_eq!(lacks(&after(&second, &known), &mut snapshot(3, vec![files(&[39_000])])), []);

    // A third that was made before the word was given has taken both over, and is covered by it.
    let mut third = snapshot(3, vec![files(&[39_000])]);
    assert_eq!(lacks(&after(&second, &[]), &mut third).len(), 2);
    assert_eq!(pending(&third.shrunk, &known), []);
    // Not so where much more is gone.
    let mut worse = snapshot(3, vec![files(&[20_000])]);
    lacks(&after(&second, &[]), &mut worse);
    let left = pending(&worse.shrunk, &known);
    assert_eq!(left.iter().map(|loss| loss.part.clone()).collect::<Vec<_>>(), [None]);
    // Nor is a loss from the acknowledged one.
    let mut later = snapshot(4, vec![files(&[1000])]);
    assert_eq!(lacks(&after(&second, &known), &mut later), [told("*", Shrunk::Smaller)]);
    assert_eq!(later.shrunk[0].before, id(2));
}

#[test]
fn a_sentence_names_the_parts_and_what_is_left_of_the_whole() {
    let node: NodeName = "node".parse().unwrap();
    let many: Vec<PartRecord> = (0..40).map(|at| sqlite(&format!("{at}.db"), 4096)).collect();
    let first = snapshot(1, many);
    let mut second = snapshot(2, vec![files(&[])]);
    second.shrunk = after(&first, &[]).losses(&second, |part| part == "0.db");
    let text = sentence(&node, id(2), &second.shrunk).unwrap();
    assert!(text.contains("`0.db` is missing (4096 bytes before, left out by a glob)"), "{text}");
    assert!(text.contains("29 more, all in all 0 bytes are left of 163840"), "{text}");
    assert_eq!(text.matches(&id(1).to_string()).count(), 2, "{text}");
    assert_eq!(sentence(&node, id(2), &[]), None);
}
