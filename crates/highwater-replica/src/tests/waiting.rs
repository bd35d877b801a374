//! Writes that nobody waits for in a thread, writes that are held back, and what is seen of them here.

use std::future::Future as _;
use std::task::{Context, Poll, Waker};

use super::*;

fn carried(wait: Duration) -> Classes {
    classes().with_carried(Carried {
        by: b"manager".to_vec(),
        after: b"r/full/".to_vec(),
        within: b"r/update/".to_vec(),
        wait,
    })
}

fn opened(classes: Classes) -> (Arc<MemoryStore>, Arc<MemoryRemote>, ReplicatedStore) {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    let store = ReplicatedStore::builder(Arc::clone(&local) as _, Arc::clone(&remote) as _, keys())
        .classes(classes)
        .permissions(Permissions { allow_empty: true, ..Permissions::default() });
    (local, remote, store.open().unwrap().0)
}

fn put(key: &str, value: &str) -> Vec<Write> {
    vec![Write { key: key.into(), value: Some(value.into()) }]
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

#[test]
fn what_is_held_back_is_put_with_what_carries_it() {
    let (_, remote, store) = opened(carried(LONG));
    let puts = remote.puts();
    let update = store.submit(put("r/update/1", "one"));
    let full = store.submit(put("r/full/1", "all"));
    // A manager that was made before the update says nothing of it.
    wait(store.submit(put("manager", "old"))).unwrap();
    let mut update = Box::pin(update);
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(update.as_mut().poll(&mut context).map(|_| ()), Poll::Pending);
    assert_eq!(remote.puts(), puts);
    wait(store.submit(put("manager", "it has one in it"))).unwrap();
    wait(update).unwrap();
    wait(full).unwrap();
    // One put took all of it.
    assert_eq!(remote.puts(), puts + 1);
    assert_eq!(hydrated(&remote).unwrap().len(), 3);
}

#[test]
fn what_nothing_carries_is_sent_alone_in_the_end() {
    let (_, remote, store) = opened(carried(Duration::from_millis(20)));
    wait(store.submit(put("r/update/1", "one"))).unwrap();
    assert_eq!(store.read(b"r/update/1").unwrap().as_deref(), Some(&b"one"[..]));
    // A release does not wait for it.
    let later = store.submit(put("r/update/2", "two"));
    store.release().unwrap();
    wait(later).unwrap();
    assert_eq!(hydrated(&remote).unwrap().len(), 2);
}

#[test]
fn a_later_write_is_not_undone_by_an_earlier_one_that_had_to_wait() {
    let (local, remote, store) = opened(classes());
    remote.fail([Some(RemoteFault::Request), Some(RemoteFault::Request)]);
    // In one transaction with a key that waits for the server it waits, too; alone it would not.
    let first = store.submit(vec![
        Write { key: b"r/a".to_vec(), value: Some(b"1".to_vec()) },
        Write { key: b"b".to_vec(), value: Some(b"1".to_vec()) },
    ]);
    let second = store.submit(put("b", "2"));
    let lazy = store.submit_as(vec![Write { key: b"r/a".to_vec(), value: None }], true);
    let (first, second, lazy) = wait(async { futures::join!(first, second, lazy) });
    first.and(second).and(lazy).unwrap();
    store.flush(LONG).unwrap();
    assert_eq!(store.read(b"b").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(store.read(b"r/a").unwrap(), None);
    store.stop().unwrap();
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
}

#[test]
fn a_lazy_delete_waits_for_no_server() {
    let (_, remote, store) = opened(classes());
    store.write(&b"r/a"[..], &b"1"[..]).unwrap();
    remote.fail(vec![Some(RemoteFault::Request); 1000]);
    store.remove_lazily(&b"r/a"[..]).unwrap();
    assert_eq!(store.read(b"r/a").unwrap(), None);
    remote.set_calm();
    store.flush(LONG).unwrap();
}

#[test]
fn beyond_the_bound_futures_wait_and_no_write_is_lost() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    let (store, _) =
        ReplicatedStore::builder(Arc::clone(&local) as _, Arc::clone(&remote) as _, keys())
            .bound(Bound { writes: 2, bytes: 1 << 20 })
            .permissions(Permissions { allow_empty: true, ..Permissions::default() })
            .open()
            .unwrap();
    remote.fail(vec![Some(RemoteFault::Request); 1_000_000]);
    let writes: Vec<_> = (0..6).map(|n| store.submit(put(&format!("k{n}"), "v"))).collect();
    let mut all = Box::pin(futures::future::join_all(writes));
    let mut context = Context::from_waker(Waker::noop());
    assert!(all.as_mut().poll(&mut context).is_pending());
    remote.set_calm();
    assert!(wait(all).iter().all(Result::is_ok));
    assert_eq!(data(&local).len(), 6);
}

#[test]
fn whoever_waits_for_the_end_is_told_who_took_over() {
    let (_, remote, store) = opened(classes());
    let ended = store.ended();
    let waits = store.submit(put("r/a", "1"));
    wait(waits).unwrap();
    hydrated(&remote).unwrap();
    let late = wait(store.submit(put("r/a", "2")));
    assert_eq!(kind(late), Kind::Fenced);
    let error = wait(ended).unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert!(error.to_string().contains("the machine is lost"), "{error}");
    assert_eq!(kind(wait(store.submit(put("b", "1")))), Kind::Fenced);
    let (_, _, other) = opened(classes());
    let ended = other.ended();
    other.stop().unwrap();
    wait(ended).unwrap();
    assert_eq!(kind(wait(other.submit(put("b", "1")))), Kind::Unavailable);
}

/// A disk that forgets what was not synced, once its power is cut.
#[derive(Default)]
struct Volatile {
    now: MemoryStore,
    durable: std::sync::Mutex<Vec<Op>>,
}

impl Volatile {
    /// What is on it after a cut.
    fn after_a_cut(&self) -> Arc<MemoryStore> {
        let disk = MemoryStore::default();
        disk.write(&self.durable.lock().unwrap()).unwrap();
        Arc::new(disk)
    }
}

impl LocalStore for Volatile {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.now.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<local::Rows> {
        self.now.scan(space, prefix, after, limit)
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        self.now.write(ops)?;
        let rows = |space| self.now.scan(space, b"", None, usize::MAX).unwrap().into_iter();
        let all = [Space::Data, Space::Book].into_iter();
        let puts = all.flat_map(|space| rows(space).map(move |(k, v)| Op::put(space, k, v)));
        *self.durable.lock().unwrap() = puts.collect();
        Ok(())
    }

    fn apply(&self, ops: &[Op]) -> Result<()> {
        self.now.write(ops)
    }
}

#[test]
fn a_power_cut_takes_back_nothing_that_the_server_has() {
    let (disk, remote) = (Arc::<Volatile>::default(), Arc::<MemoryRemote>::default());
    let (store, _) =
        ReplicatedStore::builder(Arc::clone(&disk) as _, Arc::clone(&remote) as _, keys())
            .classes(classes())
            .permissions(Permissions { allow_empty: true, ..Permissions::default() })
            .open()
            .unwrap();
    for round in 0..5u8 {
        store.write(vec![b'r', b'/', round], vec![round]).unwrap();
        let after = disk.after_a_cut();
        // The write itself is on the server alone, if nothing was synced since.
        let again = Arc::<MemoryRemote>::default();
        again.set_values(remote.values());
        let (restarted, started) = Open::of(&after, &again).open().unwrap();
        assert_eq!(started, Started::Resumed);
        assert_eq!(restarted.read(&[b'r', b'/', round]).unwrap(), Some(vec![round]));
    }
    store.write(&b"k"[..], &b"v"[..]).unwrap();
    assert_eq!(disk.after_a_cut().get(Space::Data, b"k").unwrap().as_deref(), Some(&b"v"[..]));
}
