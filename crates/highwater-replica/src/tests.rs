//! The replica over stores and servers in memory: what arrives, who may write, what is found out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater::env::Env;
use highwater::{Kind, Result};

use super::local::{MemoryStore, Op, Space};
use super::remote::{MemoryRemote, RemoteFault};
use super::*;

mod incidents;
mod parts;
#[cfg(feature = "sqlite")]
mod points;
mod schedules;
mod simulation;
mod waiting;

/// A way to change what a server holds.
type Tamper<'a> = &'a dyn Fn(&mut BTreeMap<String, remote::Versioned>);

const LONG: Duration = Duration::from_secs(60);

fn keys() -> ReplicaKeys {
    ReplicaKeys::from_entropy(&[7; 32], "store").unwrap()
}

fn classes() -> Classes {
    Classes::all(Class::LocalFirst).with("r/", Class::RemoteFirst).with("l/", Class::LocalOnly)
}

struct Open<'a> {
    local: &'a Arc<MemoryStore>,
    remote: &'a Arc<MemoryRemote>,
    permissions: Permissions,
    owner: &'a str,
}

impl<'a> Open<'a> {
    fn of(local: &'a Arc<MemoryStore>, remote: &'a Arc<MemoryRemote>) -> Open<'a> {
        Open { local, remote, permissions: Permissions::default(), owner: "alice" }
    }

    fn with(mut self, with: impl FnOnce(&mut Permissions)) -> Open<'a> {
        with(&mut self.permissions);
        self
    }

    fn open(self) -> Result<(ReplicatedStore, Started)> {
        ReplicatedStore::builder(Arc::clone(self.local) as _, Arc::clone(self.remote) as _, keys())
            .classes(classes())
            .owner(self.owner)
            .permissions(self.permissions)
            .open()
    }
}

/// A new store on a new server.
fn fresh() -> (Arc<MemoryStore>, Arc<MemoryRemote>, ReplicatedStore) {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    let (store, started) =
        Open::of(&local, &remote).with(|may| may.allow_empty = true).open().unwrap();
    assert_eq!(started, Started::New);
    (local, remote, store)
}

fn data(local: &MemoryStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    local.scan(Space::Data, b"", None, usize::MAX).unwrap().into_iter().collect()
}

/// What a machine that lost everything gets.
fn hydrated(remote: &Arc<MemoryRemote>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let local = Arc::<MemoryStore>::default();
    let (store, started) = Open::of(&local, remote)
        .with(|may| may.take_over = Some("the machine is lost".to_owned()))
        .open()?;
    assert!(matches!(started, Started::Hydrated { .. }), "{started:?}");
    store.stop()?;
    Ok(data(&local))
}

fn kind<T>(result: Result<T>) -> Kind {
    result.err().expect("an error").kind()
}

#[test]
fn what_is_written_comes_back_on_an_empty_disk() {
    let (local, remote, store) = fresh();
    for round in 0..300u32 {
        store.write(format!("k{}", round % 70), round.to_le_bytes()).unwrap();
    }
    store.write("r/monitor", "state").unwrap();
    store.remove("k3").unwrap();
    store.remove("never").unwrap();
    store.write("l/cache", "stays here").unwrap();
    store.flush(LONG).unwrap();
    let status = store.status().unwrap();
    assert_eq!((status.pending_writes, status.values, status.state), (0, 70, HeadState::Open));
    let mut expected = data(&local);
    expected.remove(b"l/cache".as_slice());
    assert_eq!(hydrated(&remote).unwrap(), expected);
}

#[test]
fn a_server_sees_neither_keys_nor_values() {
    let (_, remote, store) = fresh();
    store.write("r/secret-key", "secret-value").unwrap();
    for (name, (_, value)) in remote.values() {
        let all = [name.as_bytes(), &value].concat();
        assert!(!all.windows(6).any(|window| window == b"secret"), "{name}");
    }
}

#[test]
fn a_remote_first_write_is_on_the_server_before_it_returns_and_seen_here_after() {
    let (_, remote, store) = fresh();
    let before = remote.puts();
    store.write("r/1", "a").unwrap();
    assert_eq!(remote.puts(), before + 1);
    assert_eq!(store.read(b"r/1").unwrap().as_deref(), Some(b"a".as_slice()));
    // Two requests and one answer are lost.
    let lost = [Some(RemoteFault::Request), Some(RemoteFault::Request), Some(RemoteFault::Answer)];
    remote.fail(lost);
    store.write("r/1", "b").unwrap();
    assert_eq!(store.read(b"r/1").unwrap().as_deref(), Some(b"b".as_slice()));
    assert_eq!(hydrated(&remote).unwrap()[b"r/1".as_slice()], b"b");
}

#[test]
fn a_local_first_write_is_there_while_the_server_is_not() {
    let (local, remote, store) = fresh();
    remote.fail(vec![Some(RemoteFault::Request); 1000]);
    store.write("k", "v").unwrap();
    assert_eq!(store.read(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
    assert_eq!(kind(store.flush(Duration::from_millis(1))), Kind::Unavailable);
    assert_eq!(store.status().unwrap().pending_writes, 1);
    store.stop().unwrap();
    remote.fail([]);
    let reachable = Arc::new(MemoryRemote::default());
    reachable.set_values(remote.values());
    let (store, started) = Open::of(&local, &reachable).open().unwrap();
    assert_eq!(started, Started::Resumed);
    store.flush(LONG).unwrap();
    assert_eq!(hydrated(&reachable).unwrap()[b"k".as_slice()], b"v");
}

#[test]
fn what_waited_for_the_server_and_was_never_acknowledged_is_undone() {
    let (local, remote, store) = fresh();
    store.write("r/1", "acknowledged").unwrap();
    let lost = Arc::new(MemoryRemote::default());
    lost.set_values(remote.values());
    store.stop().unwrap();
    // As a crash leaves it: in the queue, and on no server.
    let book = book::Book::of(Arc::clone(&local) as _);
    let seq = book.last_seq().unwrap() + 1;
    let queued = book::Queued {
        seq,
        way: book::Way::RemoteFirst,
        at: highwater::ids::Time::default(),
        key: b"r/1".to_vec(),
        value: Some(b"never told".to_vec()),
        more: false,
    };
    local.write(&[queued.op(), book::seq_op(seq)]).unwrap();
    let (store, _) = Open::of(&local, &lost).open().unwrap();
    store.flush(LONG).unwrap();
    assert_eq!(store.read(b"r/1").unwrap().as_deref(), Some(b"acknowledged".as_slice()));
    assert_eq!(store.status().unwrap().pending_writes, 0);
    store.write("r/2", "goes on").unwrap();
    let all = hydrated(&lost).unwrap();
    assert_eq!(all[b"r/1".as_slice()], b"acknowledged");
    assert_eq!(all[b"r/2".as_slice()], b"goes on");
}

#[test]
fn whoever_was_taken_over_stops_and_says_who_and_why() {
    let (_, remote, alice) = fresh();
    alice.write("r/1", "a").unwrap();
    let local = Arc::<MemoryStore>::default();
    let refused = Open { owner: "bob", ..Open::of(&local, &remote) }.open();
    let error = refused.err().unwrap();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(error.to_string().contains("alice"), "{error}");
    let take = |may: &mut Permissions| may.take_over = Some("alice burnt down".to_owned());
    let (bob, _) = Open { owner: "bob", ..Open::of(&local, &remote) }.with(take).open().unwrap();
    assert_eq!(bob.read(b"r/1").unwrap().as_deref(), Some(b"a".as_slice()));
    bob.write("r/1", "b").unwrap();
    let error = alice.write("r/1", "c").unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(
        error.to_string().contains("bob") && error.to_string().contains("burnt down"),
        "{error}"
    );
    assert!(alice.status().unwrap().fenced);
    // And from then on without asking.
    assert_eq!(kind(alice.write("k", "d")), Kind::Fenced);
    assert_eq!(hydrated(&remote).unwrap()[b"r/1".as_slice()], b"b");
}

#[test]
fn a_release_lets_the_next_owner_in_without_ceremony() {
    let (local, remote, alice) = fresh();
    alice.write("k", "v").unwrap();
    alice.release().unwrap();
    let elsewhere = Arc::<MemoryStore>::default();
    let (bob, started) = Open { owner: "bob", ..Open::of(&elsewhere, &remote) }.open().unwrap();
    assert!(matches!(started, Started::Hydrated { values: 1, .. }), "{started:?}");
    bob.release().unwrap();
    // The first directory is behind by an owner: it must not act.
    assert_eq!(kind(Open::of(&local, &remote).open()), Kind::Fenced);
    // The second one goes on.
    let (bob, started) = Open { owner: "bob", ..Open::of(&elsewhere, &remote) }.open().unwrap();
    assert_eq!(started, Started::Resumed);
    bob.write("r/1", "x").unwrap();
}

#[test]
fn of_a_store_and_its_copy_one_goes_on() {
    let (local, remote, store) = fresh();
    store.write("r/1", "a").unwrap();
    store.stop().unwrap();
    let copy = Arc::new(local.copy());
    let (first, _) = Open::of(&local, &remote).open().unwrap();
    first.write("r/1", "b").unwrap();
    assert_eq!(kind(Open::of(&copy, &remote).open()), Kind::Fenced);
    first.write("r/1", "c").unwrap();
}

#[test]
fn other_keys_are_denied_before_anything_is_written() {
    let (local, remote, store) = fresh();
    store.write("r/1", "a").unwrap();
    store.stop().unwrap();
    let before = remote.values();
    let other = || ReplicaKeys::from_entropy(&[8; 32], "store").unwrap();
    for local in [local, Arc::default()] {
        let opened = ReplicatedStore::builder(local as _, Arc::clone(&remote) as _, other())
            .permissions(Permissions { take_over: Some("x".to_owned()), ..Permissions::default() })
            .open();
        assert_eq!(kind(opened), Kind::Denied);
    }
    assert_eq!(remote.values(), before);
}

#[test]
fn a_server_that_lost_everything_is_filled_again() {
    let (local, remote, store) = fresh();
    for number in 0..1500u32 {
        store.write(format!("k{number}"), "v").unwrap();
    }
    store.flush(LONG).unwrap();
    store.stop().unwrap();
    remote.set_values(BTreeMap::new());
    let (store, started) = Open::of(&local, &remote).open().unwrap();
    assert_eq!(started, Started::Filling);
    store.flush(LONG).unwrap();
    assert_eq!(store.status().unwrap().state, HeadState::Open);
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
}

#[test]
fn replication_turned_on_late_sends_what_was_there() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    for number in 0..700u32 {
        local.write(&[Op::put(Space::Data, format!("k{number}"), "v")]).unwrap();
    }
    local.write(&[Op::put(Space::Data, *b"l/cache", "v")]).unwrap();
    let (store, started) = Open::of(&local, &remote).open().unwrap();
    assert_eq!(started, Started::Filling);
    store.flush(LONG).unwrap();
    assert_eq!(hydrated(&remote).unwrap().len(), 700);
    // Another store with values of its own has nothing to do with them.
    let other = Arc::<MemoryStore>::default();
    other.write(&[Op::put(Space::Data, *b"mine", "v")]).unwrap();
    assert_eq!(kind(Open::of(&other, &remote).open()), Kind::Conflict);
}

#[test]
fn a_half_filled_server_is_no_source() {
    let (local, remote, store) = fresh();
    for number in 0..3000u32 {
        store.write(format!("k{number}"), "v").unwrap();
    }
    store.stop().unwrap();
    remote.set_values(BTreeMap::new());
    // It is begun, and every put after that is lost.
    let faults = std::iter::repeat_n(None, 6).chain(vec![Some(RemoteFault::Request); 5000]);
    remote.fail(faults);
    let (store, started) = Open::of(&local, &remote).open().unwrap();
    assert_eq!(started, Started::Filling);
    // All that can be sent was: the next one fails.
    while store.status().unwrap().last_error.is_none() {
        std::thread::yield_now();
    }
    store.stop().unwrap();
    let left = Arc::new(MemoryRemote::default());
    left.set_values(remote.values());
    let values = left.values().keys().filter(|name| name.starts_with("v.")).count();
    assert!(values > 0 && values < 3000, "{values} were sent");
    assert_eq!(kind(hydrated(&left)), Kind::Corrupt);
}

#[test]
fn a_server_that_was_set_back_is_noticed_and_written_over_only_when_told() {
    let (local, remote, store) = fresh();
    for key in ["a", "b", "gone"] {
        store.write(key, "old").unwrap();
    }
    store.flush(LONG).unwrap();
    let old = remote.values();
    store.write("a", "new").unwrap();
    store.remove("gone").unwrap();
    store.flush(LONG).unwrap();
    store.stop().unwrap();
    remote.set_values(old);
    assert_eq!(kind(Open::of(&local, &remote).open()), Kind::Corrupt);
    let (store, started) =
        Open::of(&local, &remote).with(|may| may.accept_older = true).open().unwrap();
    assert_eq!(started, Started::Filling);
    store.flush(LONG).unwrap();
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
}

#[test]
fn an_empty_store_and_an_empty_server_are_a_question() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    assert_eq!(kind(Open::of(&local, &remote).open()), Kind::NotFound);
    assert!(remote.values().is_empty());
}

#[test]
fn whatever_a_server_does_to_single_values_is_found_out() {
    let (_, remote, store) = fresh();
    for key in ["a", "b", "c"] {
        store.write(key, "1").unwrap();
    }
    store.flush(LONG).unwrap();
    let earlier = remote.values();
    for key in ["a", "b", "c"] {
        store.write(key, "2").unwrap();
    }
    store.flush(LONG).unwrap();
    store.release().unwrap();
    let good = remote.values();
    let names: Vec<String> = good.keys().filter(|name| name.starts_with("v.")).cloned().collect();
    let tampered = |tamper: Tamper<'_>| {
        let mut values = good.clone();
        tamper(&mut values);
        let server = Arc::new(MemoryRemote::default());
        server.set_values(values);
        hydrated(&server)
    };
    assert!(tampered(&|_| ()).is_ok());
    // Dropped; one for another; an older one; a flipped bit; one given twice.
    let cases: [Tamper<'_>; 5] = [
        &|values| drop(values.remove(&names[0])),
        &|values| drop(values.insert(names[0].clone(), values[&names[1]].clone())),
        &|values| drop(values.insert(names[0].clone(), earlier[&names[0]].clone())),
        &|values| *values.get_mut(&names[0]).unwrap().1.last_mut().unwrap() ^= 1,
        &|values| drop(values.insert(format!("v.{}", "0".repeat(64)), values[&names[0]].clone())),
    ];
    for (number, case) in cases.iter().enumerate() {
        assert_eq!(kind(tampered(*case)), Kind::Corrupt, "case {number}");
    }
    // All of it of an earlier instant is one instant: only who remembers more can tell.
    let server = Arc::new(MemoryRemote::default());
    server.set_values(earlier);
    assert!(hydrated(&server).is_ok());
}

#[test]
fn a_writer_that_does_not_know_of_heads_is_detected() {
    let (_, remote, store) = fresh();
    store.write("k", "v").unwrap();
    store.flush(LONG).unwrap();
    store.release().unwrap();
    let mut values = remote.values();
    let name = values.keys().find(|name| name.starts_with("v.")).unwrap().clone();
    values.insert(name, (1, b"whatever".to_vec()));
    remote.set_values(values);
    assert_eq!(kind(hydrated(&remote)), Kind::Corrupt);
}

#[test]
fn a_transaction_is_on_the_server_whole_or_not() {
    let (_, remote, store) = fresh();
    let write = |key: &str, value: &str| Write {
        key: key.as_bytes().to_vec(),
        value: Some(value.as_bytes().to_vec()),
    };
    store.commit(vec![write("r/1", "a"), write("k", "a"), write("l/x", "a")]).unwrap();
    assert_eq!(hydrated(&remote).unwrap().len(), 2);
}

#[test]
fn transactions_that_pile_up_are_on_the_server_whole_or_not() {
    const WRITES: usize = 300;
    let (local, remote, store) = fresh();
    let before = remote.values();
    remote.fail(vec![Some(RemoteFault::Request); 10_000]);
    for transaction in 0..5 {
        let write = |number: usize| Write {
            key: format!("{transaction}/{number}").into_bytes(),
            value: Some(b"v".to_vec()),
        };
        store.commit((0..WRITES).map(write).collect()).unwrap();
    }
    store.stop().unwrap();
    let mut halves = 0;
    for calls in 0..12 {
        let (local, cut) = (Arc::new(local.copy()), Arc::<MemoryRemote>::default());
        cut.set_values(before.clone());
        cut.fail(std::iter::repeat_n(None, calls).chain(vec![Some(RemoteFault::Request); 10_000]));
        let Ok((store, _)) = Open::of(&local, &cut).open() else { continue };
        let waits =
            |status: ReplicaStatus| status.pending_writes > 0 && status.last_error.is_none();
        while waits(store.status().unwrap()) {
            std::thread::yield_now();
        }
        store.stop().unwrap();
        let values = cut.values().keys().filter(|name| name.starts_with("v.")).count();
        assert_eq!(values % WRITES, 0, "{values} after {calls} calls");
        halves += u32::from(values > 0 && values < 5 * WRITES);
    }
    assert!(halves > 0, "no cut was in the middle");
}

#[test]
fn beyond_the_bound_writes_wait_and_are_not_lost() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    let permissions = Permissions { allow_empty: true, ..Permissions::default() };
    let (store, _) =
        ReplicatedStore::builder(Arc::clone(&local) as _, Arc::clone(&remote) as _, keys())
            .bound(Bound { writes: 5, bytes: 1 << 20 })
            .permissions(permissions)
            .open()
            .unwrap();
    remote.fail(vec![Some(RemoteFault::Request); 6]);
    for number in 0..200u32 {
        store.write(format!("k{number}"), "v").unwrap();
        assert!(store.status().unwrap().pending_writes <= 6);
    }
    store.flush(LONG).unwrap();
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
}

#[test]
fn many_threads_write_and_the_server_has_what_the_store_has() {
    let (local, remote, store) = fresh();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..100u32 {
                    store
                        .write(format!("shared{}", round % 5), format!("{thread} {round}"))
                        .unwrap();
                    if round % 10 == 0 {
                        store.write(format!("r/{thread}"), round.to_le_bytes()).unwrap();
                    }
                }
            });
        }
    });
    store.flush(LONG).unwrap();
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
}

#[test]
fn a_store_in_memory_keeps_the_contract() {
    let memory: Arc<dyn LocalStore> = Arc::new(MemoryStore::default());
    local::conformance::check(&|| Ok(Arc::clone(&memory))).unwrap();
}

#[cfg(feature = "sqlite")]
#[test]
fn a_store_in_sqlite_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = || {
        let store = local::SqliteStore::open(dir.path().join("store.sqlite"))?;
        Ok(Arc::new(store) as Arc<dyn LocalStore>)
    };
    local::conformance::check(&sqlite).unwrap();
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_keeps_the_contract_with_families_of_its_own_and_with_the_nodes() {
    use local::RocksStore;
    use rust_rocksdb::{DB, Options, SliceTransform};
    let dir = tempfile::tempdir().unwrap();
    let (own, nodes) = (dir.path().join("own"), dir.path().join("node"));
    local::conformance::check(&|| Ok(Arc::new(RocksStore::open(&own)?) as Arc<dyn LocalStore>))
        .unwrap();
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(1));
    let over = || {
        let db = DB::open_cf(&options, &nodes, ["state", "replica"]).unwrap();
        Ok(Arc::new(RocksStore::over(Arc::new(db), "state", "replica")?) as Arc<dyn LocalStore>)
    };
    local::conformance::check(&over).unwrap();
    let db = Arc::new(DB::open_cf(&options, &nodes, ["state", "replica"]).unwrap());
    let over = |data: &str, book: &str| RocksStore::over(Arc::clone(&db), data, book);
    assert_eq!(kind(over("state", "missing")), Kind::Input);
    assert_eq!(kind(over("state", "state")), Kind::Input);
    // One that is open, and one of somebody else.
    assert_eq!(kind(RocksStore::open(&nodes)), Kind::Conflict);
    drop(db);
    assert_eq!(kind(RocksStore::open(&nodes)), Kind::Input);
}
