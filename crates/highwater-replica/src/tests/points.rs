//! Where a store stands: what a capture reads of it, what its node tells, and how that stands to the
//! server.

use std::path::Path;

use highwater::engine::{
    CaptureOptions, Captured, DiscoverOptions, PartCapture, PointHook, ReplicaPoint, capture,
    discover,
};

use super::super::book::{Queued, Way};
use super::super::digest::Sum;
use super::super::head::Head;
use super::local::SqliteStore;
use super::*;

const DATABASE: &str = "keys.sqlite";

fn captured(dir: &Path, options: &CaptureOptions) -> Captured {
    let layout = discover(dir, &DiscoverOptions::default()).unwrap();
    capture(&layout, options, &Env::system()).unwrap()
}

/// What a capture reads of the database, and what it warns of.
fn read(dir: &Path) -> (Option<ReplicaPoint>, Vec<String>) {
    let mut captured = captured(dir, &CaptureOptions::default());
    let part: Box<dyn PartCapture> = captured.parts.remove(0);
    (part.replica(), part.finish().unwrap().warnings)
}

fn open(local: &Arc<SqliteStore>, remote: &Arc<MemoryRemote>) -> ReplicatedStore {
    let permissions = Permissions { allow_empty: true, ..Permissions::default() };
    ReplicatedStore::builder(Arc::clone(local) as _, Arc::clone(remote) as _, keys())
        .classes(classes())
        .permissions(permissions)
        .open()
        .unwrap()
        .0
}

#[test]
fn a_capture_reads_where_a_store_stands_as_its_node_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(SqliteStore::open(dir.path().join(DATABASE)).unwrap());
    let remote = Arc::<MemoryRemote>::default();
    let told = || {
        let (read, warnings) = read(dir.path());
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(read, point(Arc::clone(&local) as _).unwrap());
        read.map(|point| (point.epoch, point.seq, point.acknowledged))
    };
    assert_eq!(told(), None, "never replicated");
    let store = open(&local, &remote);
    for number in 0..5u8 {
        store.write([number], [number]).unwrap();
    }
    store.flush(LONG).unwrap();
    assert_eq!(told(), Some((1, 5, 5)));
    assert_eq!(read(dir.path()).0.unwrap().store, keys().store_id());
    store.stop().unwrap();
    // What waits and is among the values counts; what waits for the server does not.
    let waits = |seq: u64, remote_first: bool| {
        let way = if remote_first { Way::RemoteFirst } else { Way::LocalFirst };
        let at = highwater::ids::Time::default();
        let queued =
            Queued { seq, way, at, key: b"k".to_vec(), value: Some(b"v".to_vec()), more: false };
        local.write(&[queued.op()]).unwrap();
    };
    waits(6, true);
    assert_eq!(told(), Some((1, 5, 5)));
    waits(7, false);
    waits(8, true);
    waits(300, true);
    assert_eq!(told(), Some((1, 7, 5)));
    waits(301, false);
    assert_eq!(told(), Some((1, 301, 5)));
    local.write(&[Op::put(Space::Book, *b"hydrating", *b"1")]).unwrap();
    assert_eq!(told(), None, "half of a restore");
    local.write(&[Op::delete(Space::Book, *b"hydrating")]).unwrap();
    local.write(&[Op::put(Space::Book, *b"head", *b"{")]).unwrap();
    let (point, warnings) = read(dir.path());
    assert_eq!(point, None);
    assert!(warnings.iter().any(|text| text.contains("can't be told")), "{warnings:?}");
}

#[test]
fn a_point_that_a_node_tells_counts_where_the_store_has_stood_still() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data.bin"), b"values of an engine that can't be asked")
        .unwrap();
    let local = Arc::<MemoryStore>::default();
    let remote = Arc::<MemoryRemote>::default();
    let (store, _) = Open::of(&local, &remote).with(|may| may.allow_empty = true).open().unwrap();
    store.write("a", "1").unwrap();
    store.flush(LONG).unwrap();
    let options = |part: &str, hook: PointHook| {
        let mut options = CaptureOptions::default();
        options.points.push((part.to_owned(), hook));
        options
    };
    let ask: PointHook = {
        let local = Arc::clone(&local);
        Arc::new(move || Ok(point(Arc::clone(&local) as _)?))
    };
    let still = captured(dir.path(), &options("files", Arc::clone(&ask)));
    let points: Vec<_> = still.points.iter().map(|(name, point)| (&**name, point.seq)).collect();
    assert_eq!((points, still.warnings), (vec![("files", 1)], Vec::new()));
    let store = Arc::new(store);
    let moves: PointHook = {
        let store = Arc::clone(&store);
        let local = Arc::clone(&local);
        Arc::new(move || {
            store.write("a", "2")?;
            Ok(point(Arc::clone(&local) as _)?)
        })
    };
    let moved = captured(dir.path(), &options("files", moves));
    assert_eq!(moved.points, []);
    assert!(moved.warnings[0].contains("was written while"), "{:?}", moved.warnings);
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let error = capture(&layout, &options("other", ask), &Env::system()).err().unwrap();
    assert_eq!(error.kind(), Kind::Input);
}

#[test]
fn what_an_owner_wrote_that_the_server_never_had_does_not_fit_its_successors() {
    let (local, remote, store) = fresh();
    for number in 0..10u8 {
        store.write([number], [number]).unwrap();
    }
    store.flush(LONG).unwrap();
    let at = |epoch, seq| ReplicaPoint {
        store: keys().store_id(),
        epoch,
        seq,
        acknowledged: seq.min(10),
    };
    let held = |remote: &Arc<MemoryRemote>| holder(&**remote, &keys()).unwrap().unwrap();
    assert_eq!(held(&remote).fit(&at(1, 10)), Fit::Same);
    assert_eq!(held(&remote).fit(&at(1, 4)), Fit::Behind(6));
    assert_eq!(held(&remote).fit(&at(1, 13)), Fit::Ahead(3));
    store.stop().unwrap();
    // A start of the same store breaks nothing.
    let (store, _) = Open::of(&local, &remote).open().unwrap();
    assert_eq!(held(&remote).fit(&at(1, 10)), Fit::Same);
    assert_eq!(held(&remote).breaks, []);
    store.stop().unwrap();
    let next = Arc::<MemoryStore>::default();
    let take = |may: &mut Permissions| may.take_over = Some("the disk died".to_owned());
    let (store, _) = Open::of(&next, &remote).with(take).open().unwrap();
    for number in 0..10u8 {
        store.write([number], [number, 1]).unwrap();
    }
    store.flush(LONG).unwrap();
    // The numbers 11 to 13 were given twice.
    let breaks = [Break { epoch: 2, seq: 10 }];
    assert_eq!(held(&remote).breaks, breaks);
    assert_eq!(held(&remote).fit(&at(1, 13)), Fit::Ahead(3));
    assert_eq!(held(&remote).fit(&at(2, 13)), Fit::Ahead(3));
    assert_eq!(held(&remote).fit(&at(2, 10)), Fit::Behind(10));
    assert_eq!(held(&remote).fit(&at(3, 13)), Fit::Behind(7));
    assert_eq!(held(&remote).fit(&at(3, 20)), Fit::Same);
    store.stop().unwrap();
    // It goes on with what its store remembers of them, also where the server was wiped.
    remote.set_values(BTreeMap::new());
    let (store, _) = Open::of(&next, &remote).open().unwrap();
    store.flush(LONG).unwrap();
    assert_eq!(held(&remote).breaks, breaks);
    // Its epochs go on, so that none of before is taken for one of after.
    assert_eq!((held(&remote).epoch, held(&remote).fit(&at(4, 25))), (4, Fit::Behind(5)));
    store.stop().unwrap();
}

#[test]
fn a_head_remembers_a_bounded_number_of_owners_and_errs_by_refusing() {
    let mut head = Head {
        epoch: 0,
        owner: String::new(),
        since: highwater::ids::Time::default(),
        put: [0; 16],
        version: 1,
        seq: 0,
        sum: Sum::default(),
        state: HeadState::Open,
        reason: None,
        parts: None,
        breaks: Vec::new(),
    };
    for number in 1..=100u64 {
        (head.epoch, head.seq) = (number, number * 10);
        head.add_break();
    }
    assert_eq!(head.breaks.len(), 64);
    assert_eq!(head.breaks[0], Break { epoch: 37, seq: 10 });
    assert_eq!(head.breaks[1], Break { epoch: 38, seq: 380 });
}

#[test]
fn channels_whose_monitors_are_newer_than_the_manager_are_named() {
    let (local, remote, store) = fresh();
    let ahead = || ahead_of_manager(&*local, &*remote, &keys()).unwrap();
    store.write("monitors//c0", "no manager yet").unwrap();
    store.flush(LONG).unwrap();
    assert_eq!(ahead(), ["c0"]);
    store.write("//manager", "1").unwrap();
    store.flush(LONG).unwrap();
    assert_eq!(ahead(), Vec::<String>::new());
    for key in ["monitors//c1", "monitor_updates/c2/7", "monitor_updates/c2/8", "monitors//c1", "x"]
    {
        store.write(key, "later").unwrap();
    }
    store.flush(LONG).unwrap();
    assert_eq!(ahead(), ["c1", "c2"]);
    store.write("//manager", "2").unwrap();
    store.write("archived_monitors//c1", "later").unwrap();
    store.flush(LONG).unwrap();
    assert_eq!(ahead(), Vec::<String>::new());
}
