//! What happened to users of other systems that keep a node's store on a server, done again here. Each test
//! tells the story first; what must not happen again stands in `docs/requirements.md`.

use std::sync::Mutex;

use super::remote::{Listed, Put, RemotePut, Versioned};
use super::*;

type Contents = BTreeMap<String, Versioned>;

/// A server of which every put is kept, and what it has left.
#[derive(Default)]
struct Recorded {
    memory: Arc<MemoryRemote>,
    puts: Mutex<Vec<(RemotePut, Contents)>>,
}

impl Recorded {
    fn puts(&self) -> Vec<(RemotePut, Contents)> {
        self.puts.lock().unwrap().clone()
    }
}

impl Remote for Recorded {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.memory.get(key)
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        let before = self.memory.puts();
        let done = self.memory.put(put);
        if self.memory.puts() > before {
            self.puts.lock().unwrap().push((put.clone(), self.memory.values()));
        }
        done
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        self.memory.list(prefix, page)
    }
}

/// A node of payment channels: states of channels wait for the server, the manager does not.
fn open_node(
    local: &Arc<MemoryStore>,
    remote: &Arc<impl Remote + 'static>,
    permissions: Permissions,
) -> Result<(ReplicatedStore, Started)> {
    ReplicatedStore::builder(Arc::clone(local) as _, Arc::clone(remote) as _, keys())
        .classes(Classes::all(Class::LocalFirst).with("monitors/", Class::RemoteFirst))
        .owner("node")
        .permissions(permissions)
        .open()
}

fn new() -> Permissions {
    Permissions { allow_empty: true, ..Permissions::default() }
}

fn of(contents: &Contents) -> Arc<MemoryRemote> {
    let server = Arc::<MemoryRemote>::default();
    server.set_values(contents.clone());
    server
}

fn number(rows: &BTreeMap<Vec<u8>, Vec<u8>>, key: &str) -> Option<u32> {
    let value = rows.get(key.as_bytes())?;
    Some(u32::from_le_bytes(value.as_slice().try_into().unwrap()))
}

/// Requests, answers and whole puts are lost or late, again and again.
fn bad_weather() -> Vec<Option<RemoteFault>> {
    let faults = [
        Some(RemoteFault::Answer),
        None,
        Some(RemoteFault::Late(3)),
        Some(RemoteFault::Request),
        None,
        None,
    ];
    faults.iter().copied().cycle().take(60).collect()
}

/// I16. A wallet's writes went to the server from a queue in memory, by tasks that ran beside one another:
/// an older value of a key arrived after a newer one and replaced it. What was still in the queue when the
/// program ended was gone. Both left the server at no state that the wallet had ever had.
#[test]
fn a_stale_value_in_the_queue_never_replaces_a_newer_one() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<Recorded>::default());
    let (mut store, _) = open_node(&local, &remote, new()).unwrap();
    for round in 0..20u32 {
        remote.memory.fail(bad_weather());
        for write in 0..5 {
            store.write("manager", (round * 10 + write).to_le_bytes()).unwrap();
        }
        // The program ends while some of them wait, and is started again.
        store.stop().unwrap();
        store = loop {
            match open_node(&local, &remote, Permissions::default()) {
                Ok((store, started)) => {
                    assert_eq!(started, Started::Resumed);
                    break store;
                }
                Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
            }
        };
    }
    remote.memory.set_calm();
    store.flush(LONG).unwrap();
    store.release().unwrap();
    let mut last = None;
    for (_, contents) in remote.puts() {
        let found = number(&hydrated(&of(&contents)).unwrap(), "manager");
        assert!(found >= last, "{found:?} after {last:?}");
        last = found;
    }
    assert_eq!(last, Some(194));
}

/// I16, the other half: what waited was lost at the end of the program.
#[test]
fn what_waits_when_the_program_ends_is_sent_by_the_next_one() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    let (store, _) = open_node(&local, &remote, new()).unwrap();
    let reached = remote.values();
    remote.fail(vec![Some(RemoteFault::Request); 10_000]);
    for write in 0..500u32 {
        store.write(format!("key {write}"), write.to_le_bytes()).unwrap();
    }
    // A release says that it could not send them; the program ends all the same.
    assert_eq!(kind(store.release()), Kind::Unavailable);
    let server = of(&reached);
    let (store, started) = open_node(&local, &server, Permissions::default()).unwrap();
    assert_eq!(started, Started::Resumed);
    store.flush(LONG).unwrap();
    assert_eq!(hydrated(&server).unwrap(), data(&local));
    assert_eq!(data(&local).len(), 500);
}

/// I16 and I23. After a restore the channel manager was older than the monitors, and all channels were
/// closed; in another wallet the monitors were older than the manager, and it refused to start. Each write
/// went to the server by itself, and there the order was another one.
#[test]
fn a_restore_has_manager_and_monitors_of_one_instant_whenever_the_machine_is_lost() {
    const CHANNELS: u32 = 3;
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<Recorded>::default());
    let (store, _) = open_node(&local, &remote, new()).unwrap();
    for update in 0..40u32 {
        remote.memory.fail(bad_weather());
        // As the node does it: the monitor is durable before the manager says so.
        store.write(format!("monitors/{}", update % CHANNELS), update.to_le_bytes()).unwrap();
        store.write("manager", update.to_le_bytes()).unwrap();
    }
    remote.memory.set_calm();
    store.flush(LONG).unwrap();
    store.release().unwrap();
    let mut seen = 0;
    for (_, contents) in remote.puts() {
        let rows = hydrated(&of(&contents)).unwrap();
        let newest =
            (0..CHANNELS).filter_map(|one| number(&rows, &format!("monitors/{one}"))).max();
        let manager = number(&rows, "manager");
        assert!(manager <= newest, "manager {manager:?}, monitors {newest:?}");
        let ahead = newest.map_or(0, |newest| newest - manager.map_or(0, |manager| manager));
        assert!(ahead <= 1, "manager {manager:?}, monitors {newest:?}");
        seen += u32::from(ahead == 1);
    }
    assert!(seen > 0, "no restore was between a monitor and its manager");
}

/// I17. A node wrote a marker of its ownership beside its data and left it there at a clean end; the next
/// machine took it for an owner that runs, and refused the restore.
#[test]
fn a_clean_end_leaves_no_marker_in_the_way_whatever_is_lost() {
    // The calls of a release: which of their answers is lost.
    let lost: [&[Option<RemoteFault>]; 4] = [
        &[],
        &[Some(RemoteFault::Answer)],
        &[Some(RemoteFault::Request)],
        &[Some(RemoteFault::Answer), Some(RemoteFault::Request)],
    ];
    for faults in lost {
        let (local, remote, store) = fresh();
        store.write("k", "v").unwrap();
        store.flush(LONG).unwrap();
        remote.fail(faults.iter().copied());
        let released = store.release();
        remote.set_calm();
        if let Err(error) = released {
            // It says that it is not released, and the same directory goes on and releases it.
            assert_eq!(error.kind(), Kind::Unavailable);
            let (store, started) = Open::of(&local, &remote).open().unwrap();
            assert_eq!(started, Started::Resumed);
            store.release().unwrap();
        }
        let elsewhere = Arc::<MemoryStore>::default();
        let (store, started) = Open::of(&elsewhere, &remote).open().unwrap();
        assert!(matches!(started, Started::Hydrated { values: 1, .. }), "{faults:?}");
        // One that is killed leaves nothing that keeps its own directory out.
        store.stop().unwrap();
        let (_, started) = Open::of(&elsewhere, &remote).open().unwrap();
        assert_eq!(started, Started::Resumed);
    }
}

/// I18. A server was wiped. The node went on, never sent again what had been there, and its status said
/// that all was well.
#[test]
fn a_server_that_is_wiped_under_a_running_node_is_told_filled_and_told_until_it_is() {
    let (local, remote, store) = fresh();
    for write in 0..1500u32 {
        store.write(format!("k{write}"), "v").unwrap();
    }
    store.flush(LONG).unwrap();
    remote.set_values(BTreeMap::new());
    // The next write that leaves finds it out; nobody is told that anybody else writes.
    assert_eq!(kind(store.write("r/1", "never there")), Kind::Unavailable);
    let status = store.status().unwrap();
    assert!(!status.fenced);
    let told = status.last_error.unwrap();
    assert!(told.summary().contains("lost everything"), "{told}");
    store.stop().unwrap_err();
    assert!(remote.values().is_empty());
    // Until all of it is there, the status says so, and nobody restores from it.
    remote.fail(std::iter::repeat_n(None, 6).chain(vec![Some(RemoteFault::Request); 10_000]));
    let (store, started) = Open::of(&local, &remote).open().unwrap();
    assert_eq!(started, Started::Filling);
    let waits = |status: ReplicaStatus| status.pending_writes > 0 && status.last_error.is_none();
    while waits(store.status().unwrap()) {
        std::thread::yield_now();
    }
    let status = store.status().unwrap();
    assert_eq!(status.state, HeadState::Filling);
    assert!(status.pending_writes > 0 && status.pending_writes < 1500, "{status:?}");
    assert_eq!(kind(hydrated(&of(&remote.values()))), Kind::Corrupt);
    store.stop().unwrap();
    remote.set_calm();
    let (store, _) = Open::of(&local, &remote).open().unwrap();
    store.flush(LONG).unwrap();
    let status = store.status().unwrap();
    assert_eq!((status.state, status.values, status.pending_writes), (HeadState::Open, 1500, 0));
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
}

/// I20. A backup was sent in pieces over the pieces of the one before. It failed half-way, and there was
/// neither the old one nor the new one; the restore put together what it found.
#[test]
fn a_fill_that_stops_half_way_is_nobody_s_restore_and_its_owner_goes_on() {
    let (local, remote, store) = fresh();
    for write in 0..1500u32 {
        store.write(format!("k{write}"), "old").unwrap();
    }
    store.flush(LONG).unwrap();
    let old = remote.values();
    for write in 0..1500u32 {
        store.write(format!("k{write}"), "new").unwrap();
    }
    store.flush(LONG).unwrap();
    store.stop().unwrap();
    // The server is set back, and is written over until the line is cut.
    remote.set_values(old);
    let over = |may: &mut Permissions| may.accept_older = true;
    let mut halves = 0;
    for calls in 0..60 {
        let (local, server) = (Arc::new(local.copy()), of(&remote.values()));
        let cut = vec![Some(RemoteFault::Request); 10_000];
        server.fail(std::iter::repeat_n(None, calls).chain(cut));
        if let Ok((store, started)) = Open::of(&local, &server).with(over).open() {
            assert_eq!(started, Started::Filling);
            let waits =
                |status: ReplicaStatus| status.pending_writes > 0 && status.last_error.is_none();
            while waits(store.status().unwrap()) {
                std::thread::yield_now();
            }
            store.stop().unwrap();
        }
        server.set_calm();
        // All old, all new, or refused, with nothing taken from who is filling it.
        match hydrated(&of(&server.values())) {
            Ok(rows) => {
                let mut found: Vec<&Vec<u8>> = rows.values().collect();
                found.dedup();
                assert_eq!((rows.len(), found.len()), (1500, 1), "after {calls} calls");
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Corrupt);
                let before = server.values();
                assert_eq!(kind(hydrated(&server)), Kind::Corrupt);
                assert!(server.values() == before, "a restore that fails changes the server");
                halves += 1;
            }
        }
        let (store, _) = Open::of(&local, &server).with(over).open().unwrap();
        store.flush(LONG).unwrap();
        assert_eq!(hydrated(&server).unwrap(), data(&local));
    }
    assert!(halves > 0, "no cut was in the middle");
}

/// I20, the other side: a restore that is cut off is begun again, and what it had read is not a store.
#[test]
fn a_restore_that_stops_half_way_is_no_store() {
    let (local, remote, store) = fresh();
    for write in 0..600u32 {
        store.write(format!("k{write}"), "v").unwrap();
    }
    store.flush(LONG).unwrap();
    store.release().unwrap();
    for calls in [3, 12, 200, 500, 600] {
        let (empty, server) = (Arc::<MemoryStore>::default(), of(&remote.values()));
        let cut = vec![Some(RemoteFault::Request); 1000];
        server.fail(std::iter::repeat_n(None, calls).chain(cut));
        assert_eq!(kind(Open::of(&empty, &server).open()), Kind::Unavailable, "{calls}");
        // The second attempt is cut off too.
        assert_eq!(kind(Open::of(&empty, &server).open()), Kind::Unavailable);
        server.set_calm();
        let (store, started) = Open::of(&empty, &server).open().unwrap();
        assert!(matches!(started, Started::Hydrated { values: 600, .. }), "{started:?}");
        assert_eq!(data(&empty), data(&local));
        store.stop().unwrap();
    }
}

/// I21. A delete of a key that is not there is a conflict for the whole put. One whose answer was lost was
/// tried again, was refused because the first one had landed, and was tried again for ever.
#[test]
fn a_delete_of_what_is_gone_passes_and_so_does_one_whose_answer_was_lost() {
    let (local, remote, store) = fresh();
    store.write("kept", "v").unwrap();
    for round in 0..10u32 {
        store.write("r/gone", round.to_le_bytes()).unwrap();
        // The put lands, and neither its answer nor that of the look behind it comes.
        remote.fail([Some(RemoteFault::Answer), Some(RemoteFault::Request)]);
        store.remove("r/gone").unwrap();
        // It is gone; and these were never there.
        store.remove("r/gone").unwrap();
        remote.fail([Some(RemoteFault::Answer)]);
        store.remove(format!("r/never {round}")).unwrap();
        // Written, deleted and deleted in one put.
        let write = |value: Option<&str>| Write {
            key: b"r/short".to_vec(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        store.commit(vec![write(Some("v")), write(None), write(None)]).unwrap();
    }
    store.flush(LONG).unwrap();
    let status = store.status().unwrap();
    assert_eq!((status.fenced, status.pending_writes, status.values), (false, 0, 1));
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
}

/// I22. A wallet's restore ran into a time-out, took that for a server with nothing, and began with an
/// empty store, which then was sent over the good one.
#[test]
fn no_time_out_makes_an_empty_node_that_is_sent_over_a_full_one() {
    let (local, remote, store) = fresh();
    for write in 0..20u32 {
        store.write(format!("k{write}"), "v").unwrap();
    }
    store.flush(LONG).unwrap();
    store.stop().unwrap();
    let all = |may: &mut Permissions| {
        *may = Permissions {
            take_over: Some("lost".to_owned()),
            allow_empty: true,
            accept_inconsistent: false,
            accept_older: true,
        };
    };
    let mut failed = 0;
    // Each call of a start in turn times out, and with it all that come after; or it alone.
    for calls in 0..60 {
        for length in [1, 10_000] {
            let (empty, server) = (Arc::<MemoryStore>::default(), of(&remote.values()));
            let cut = vec![Some(RemoteFault::Request); length];
            server.fail(std::iter::repeat_n(None, calls).chain(cut));
            match Open::of(&empty, &server).with(all).open() {
                Ok((store, started)) => {
                    assert!(matches!(started, Started::Hydrated { values: 20, .. }), "{started:?}");
                    drop(store);
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
                    failed += 1;
                }
            }
            server.set_calm();
            assert_eq!(hydrated(&server).unwrap(), data(&local), "after {calls} calls");
        }
    }
    assert!(failed > 20, "{failed}");
}

/// I39. Two owners put values first and a number of the store last, by which the server was to tell them
/// apart. PostgreSQL takes locks in the order of the items: the two waited for one another, and most of
/// their puts ended as errors of a deadlock.
#[test]
fn every_put_begins_with_the_head_under_a_condition() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<Recorded>::default());
    let (store, _) = open_node(&local, &remote, new()).unwrap();
    for write in 0..50u32 {
        store.write(format!("monitors/{write}"), "v").unwrap();
        store.write(format!("k{}", write % 7), "v").unwrap();
        store.remove(format!("k{}", write % 3)).unwrap();
    }
    store.release().unwrap();
    let (store, _) = open_node(&local, &remote, Permissions::default()).unwrap();
    store.release().unwrap();
    let puts = remote.puts();
    assert!(puts.len() > 50);
    for (put, _) in puts {
        let first = &put.items[0];
        assert!(first.key.starts_with("head.") && first.version >= 0, "{first:?}");
        let heads = put.items.iter().filter(|item| item.key.starts_with("head."));
        assert_eq!(heads.count(), 1);
    }
}

/// I40. A server was wiped and filled again by another owner. The versions began anew, and one day the
/// number that the first owner remembered was right again: its write landed, among another one's values.
#[test]
fn an_owner_from_before_a_wipe_lands_nothing_when_its_version_comes_round() {
    let (local, remote, alice) = fresh();
    for write in 0..6u32 {
        alice.write("r/1", write.to_le_bytes()).unwrap();
    }
    let copy = Arc::new(local.copy());
    let version = |remote: &MemoryRemote| {
        let values = remote.values();
        let head = values.iter().find(|(name, _)| name.starts_with("head."));
        head.map(|(_, (version, _))| *version)
    };
    let before = version(&remote).unwrap();
    remote.set_values(BTreeMap::new());
    let (bob, started) = Open { owner: "bob", ..Open::of(&copy, &remote) }.open().unwrap();
    assert_eq!(started, Started::Filling);
    bob.flush(LONG).unwrap();
    while version(&remote).unwrap() < before {
        bob.write("r/1", "bob's").unwrap();
    }
    assert_eq!(version(&remote), Some(before), "bob's versions are past alice's");
    let found = remote.values();
    let error = alice.write("r/1", "alice's").unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(error.to_string().contains("bob"), "{error}");
    assert!(remote.values() == found);
    bob.write("r/1", "bob's, again").unwrap();
    assert_eq!(hydrated(&remote).unwrap()[b"r/1".as_slice()], b"bob's, again");
}
