//! A store whose threads are led through one schedule after the other, over a store and a server in memory. Each
//! schedule is drawn at random; where all threads wait for one another, or one of them goes round in circles, the
//! test fails and prints the schedule.
//!
//! What must hold in each: whoever waits is told; what was told to be written is in the store, and on the server
//! where that was told; no call of store or server is made under the lock.

use std::sync::Mutex;

use highwater::Error;
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::{Config, MaxSteps, Runner, thread};

use super::*;
use crate::book::Book;
use crate::order::tests::assert_whole;
use crate::owner::Start;
use crate::remote::{Listed, Put, RemotePut, Versioned};
use led::store::ReplicatedStore as Store;
use led::sync::{FOR_EVER, assert_free};

#[allow(
    clippy::duplicate_mod,
    dead_code,
    unreachable_pub,
    reason = "files of the store, once more; not all of them is used here, and none of it public"
)]
mod led;

/// A schedule takes a few hundred steps, or does not end.
const STEPS_MAX: usize = 100_000;
/// The stack of a thread that seals, and writes JSON.
const STACK: usize = 1 << 19;
/// How often a schedule of the second sort lets another thread go first.
const CHANGES: usize = 4;

/// Schedules of each test and sort.
fn schedules() -> usize {
    std::env::var("HIGHWATER_REPLICA_SCHEDULES").map_or(500, |count| count.parse().unwrap())
}

/// Leads a test through schedules in which any thread goes on at any step, and through such where one goes on for
/// as long as it can: there the others are late by far.
fn lead(test: fn()) {
    run(RandomScheduler::new_from_seed(1, schedules()), test);
    run(PctScheduler::new_from_seed(1, CHANGES, schedules()), test);
}

fn run(scheduler: impl Scheduler + 'static, test: fn()) {
    let mut config = Config::new();
    (config.stack_size, config.max_steps) = (STACK, MaxSteps::FailAfter(STEPS_MAX));
    Runner::new(scheduler, config).run(test);
}

/// A store or a server that is called from threads that are led: others may go on before each call and behind it.
struct Away<T> {
    inner: Arc<T>,
    calls: AtomicU64,
    /// How many commits there are until one fails.
    left: Mutex<Option<u64>>,
}

impl<T> Away<T> {
    fn new(inner: &Arc<T>) -> Arc<Away<T>> {
        let inner = Arc::clone(inner);
        Arc::new(Away { inner, calls: AtomicU64::new(0), left: Mutex::default() })
    }

    fn call<R>(&self, call: impl FnOnce(&T) -> R) -> R {
        assert_free();
        self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = call(&self.inner);
        self.calls.fetch_add(1, Ordering::SeqCst);
        answer
    }

    /// Whether this is the commit that fails.
    fn fails(&self, ops: &[Op]) -> bool {
        // What the sender writes has no number of a write.
        let commits = ops.iter().any(|op| op.space == Space::Book && op.key == b"seq");
        let mut left = self.left.lock().unwrap();
        *left = left.and_then(|left| if commits { left.checked_sub(1) } else { Some(left) });
        commits && *left == Some(0)
    }
}

impl LocalStore for Away<MemoryStore> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.call(|store| store.get(space, key))
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<local::Rows> {
        self.call(|store| store.scan(space, prefix, after, limit))
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        if self.fails(ops) {
            return Err(Error::unavailable("the disk is full"));
        }
        self.call(|store| store.write(ops))
    }
}

impl Remote for Away<MemoryRemote> {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.call(|server| server.get(key))
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        self.call(|server| server.put(put))
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        self.call(|server| server.list(prefix, page))
    }
}

/// A node on its first day, and what is behind its store.
struct Node {
    disk: Arc<Away<MemoryStore>>,
    server: Arc<MemoryRemote>,
    store: Arc<Store>,
}

impl Node {
    fn new(bound: Bound) -> Node {
        let (disk, server) = (Away::new(&Arc::default()), Arc::<MemoryRemote>::default());
        let permissions = Permissions { allow_empty: true, ..Permissions::default() };
        let (store, _) = Store::builder(Arc::clone(&disk) as _, Away::new(&server) as _, keys())
            .classes(classes().in_order())
            .bound(bound)
            .permissions(permissions)
            .open()
            .unwrap();
        Node { disk, server, store: Arc::new(store) }
    }

    /// A thread of the node's.
    fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let store = Arc::clone(&self.store);
        thread::spawn(move || work(&store))
    }

    /// The store holds what the server does, but for what is never sent, and all of this in it. Each of its keys has
    /// its place in the order.
    fn check(&self, told: &[(&str, &str)]) {
        assert_whole(&self.disk.inner);
        let mut here = data(&self.disk.inner);
        here.retain(|key, _| !key.starts_with(b"l/"));
        let there = taken_over(Arc::clone(&self.server) as _).unwrap();
        assert_eq!(here, there, "the server has something else than the store");
        for (key, value) in told {
            assert_eq!(
                there.get(key.as_bytes()).map(Vec::as_slice),
                Some(value.as_bytes()),
                "{key}"
            );
        }
    }
}

/// What another machine gets, which is the owner then.
fn taken_over(remote: Arc<dyn Remote>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let disk = Arc::<MemoryStore>::default();
    let take_over = Some("the machine is lost".to_owned());
    let start = Start {
        book: Book::of(Arc::clone(&disk) as _),
        remote,
        keys: Arc::new(keys()),
        env: Env::system(),
        owner: "another",
        permissions: &Permissions { take_over, ..Permissions::default() },
        is_replicated: &|_| true,
    };
    start.run()?;
    Ok(data(&disk))
}

fn put(key: &str, value: &str) -> Vec<Write> {
    vec![Write { key: key.into(), value: Some(value.into()) }]
}

/// Those writes of which it was told that they were made, the last one of each key.
type Told = Vec<(&'static str, &'static str)>;

/// Writes in order, for as long as the store takes them.
fn write(store: &Store, writes: &[(&'static str, &'static str)]) -> Told {
    let mut told = BTreeMap::new();
    for (key, value) in writes {
        match store.write(*key, *value) {
            Ok(()) => drop(told.insert(*key, *value)),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable, "{error}");
                break;
            }
        }
    }
    told.into_iter().collect()
}

/// Threads of all sorts, at work while the store ends.
fn at_work(node: &Node) -> Vec<thread::JoinHandle<Told>> {
    vec![
        node.thread(|store| write(store, &[("a", "1"), ("r/a", "1"), ("a", "2")])),
        node.thread(|store| write(store, &[("l/c", "1"), ("r/b", "1")])),
        node.thread(|store| {
            let (first, last) = (store.submit(put("c", "1")), store.submit(put("r/d", "1")));
            // Nobody waits for this one.
            drop(store.submit(put("l/d", "1")));
            let told = |key, outcome: Result<()>| outcome.ok().map(|()| (key, "1"));
            [told("r/d", block_on(last)), told("c", block_on(first))]
                .into_iter()
                .flatten()
                .collect()
        }),
    ]
}

fn joined(threads: Vec<thread::JoinHandle<Told>>) -> Told {
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn a_release_under_load_leaves_nothing_behind_that_was_told_to_be_written() {
    lead(|| {
        let node = Node::new(Bound::default());
        let threads = at_work(&node);
        node.store.release().unwrap();
        node.check(&joined(threads).into_iter().filter(|(key, _)| *key != "l/c").collect::<Told>());
    });
}

#[test]
fn a_stop_under_load_leaves_nobody_waiting() {
    lead(|| {
        let node = Node::new(Bound::default());
        let ended = node.store.ended();
        let threads = at_work(&node);
        node.store.stop().unwrap();
        block_on(ended).unwrap();
        let (here, told) = (data(&node.disk.inner), joined(threads));
        for (key, value) in told {
            assert_eq!(
                here.get(key.as_bytes()).map(Vec::as_slice),
                Some(value.as_bytes()),
                "{key}"
            );
        }
        let flushed = node.store.flush(FOR_EVER).map_err(|error| error.kind());
        assert!(matches!(flushed, Ok(()) | Err(Kind::Unavailable)), "{flushed:?}");
        assert_eq!(kind(node.store.write("a", "3")), Kind::Unavailable);
        assert_eq!(kind(block_on(node.store.submit(put("a", "3")))), Kind::Unavailable);
    });
}

#[test]
fn a_flush_and_a_remote_first_write_return_once_the_server_has_it_whatever_gets_lost() {
    lead(|| {
        let node = Node::new(Bound::default());
        let lost = (0..thread_rng().gen_range(0..4)).map(|_| match thread_rng().gen_range(0..3) {
            0 => Some(RemoteFault::Request),
            1 => Some(RemoteFault::Answer),
            _ => None,
        });
        node.server.fail(lost.collect::<Vec<_>>());
        let is_there = |server: &MemoryRemote, key: &str| {
            assert!(server.values().contains_key(&keys().name_of(key.as_bytes())), "{key}");
        };
        let flushes = ["a", "b"].map(|key| {
            let server = Arc::clone(&node.server);
            node.thread(move |store| {
                store.write(key, "1").unwrap();
                store.flush(FOR_EVER).unwrap();
                is_there(&server, key);
            })
        });
        let server = Arc::clone(&node.server);
        let waits = node.thread(move |store| {
            // Together with a key that would not wait by itself, and written over before it is there.
            let both = store.submit([put("r/c", "1"), put("d", "1")].concat());
            store.write("d", "2").unwrap();
            block_on(both).unwrap();
            is_there(&server, "d");
        });
        node.store.write("d", "0").unwrap();
        flushes.into_iter().chain([waits]).for_each(|thread| thread.join().unwrap());
        node.store.flush(FOR_EVER).unwrap();
        let status = node.store.status().unwrap();
        assert_eq!((status.pending_writes, status.pending_bytes), (0, 0), "the count is wrong");
        node.store.stop().unwrap();
        node.server.set_calm();
        node.check(&[("a", "1"), ("b", "1"), ("r/c", "1")]);
    });
}

#[test]
fn beyond_the_bound_all_get_through_in_the_end() {
    lead(|| {
        let node = Node::new(Bound { writes: 1, bytes: 1 << 20 });
        let threads = vec![
            node.thread(|store| write(store, &[("a", "1"), ("a", "2")])),
            node.thread(|store| write(store, &[("b", "1"), ("r/b", "1")])),
            node.thread(|store| {
                block_on(store.submit(put("c", "1"))).unwrap();
                vec![("c", "1")]
            }),
        ];
        let told = joined(threads);
        assert_eq!(told.len(), 4, "{told:?}");
        node.store.release().unwrap();
        node.check(&told);
    });
}

#[test]
fn a_write_that_the_disk_refuses_is_told_to_its_writer_and_holds_up_nobody() {
    lead(|| {
        let node = Node::new(Bound::default());
        *node.disk.left.lock().unwrap() = Some(thread_rng().gen_range(1..4));
        let threads = vec![
            node.thread(|store| write(store, &[("a", "1"), ("r/a", "1")])),
            node.thread(|store| write(store, &[("r/b", "1"), ("b", "1")])),
        ];
        let told = joined(threads);
        // It goes on where it had stopped.
        node.store.flush(FOR_EVER).unwrap();
        *node.disk.left.lock().unwrap() = None;
        node.store.write("r/c", "1").unwrap();
        assert_eq!(node.store.status().unwrap().pending_writes, 0, "the count is wrong");
        node.store.release().unwrap();
        node.check(&told);
    });
}

#[test]
fn whoever_waits_is_told_that_another_owner_has_taken_over() {
    lead(|| {
        let node = Node::new(Bound { writes: 2, bytes: 1 << 20 });
        let ended = node.store.ended();
        let server = Away::new(&node.server);
        let other = thread::spawn(move || {
            loop {
                match taken_over(Arc::clone(&server) as _) {
                    // A put of the owner's came between.
                    Err(error) if error.kind() == Kind::Fenced => {}
                    taken => break taken.unwrap(),
                }
            }
        });
        let until_fenced = |outcome: &Result<()>| {
            let fenced = |error: &Error| assert_eq!(error.kind(), Kind::Fenced, "{error}");
            outcome.as_ref().map_err(fenced).is_ok()
        };
        let remote_first = node.thread(move |store| {
            ["r/a", "r/b"].map(|key| (key, until_fenced(&store.write(key, "1"))))
        });
        let flushes = node.thread(move |store| {
            until_fenced(&store.write("c", "1"));
            until_fenced(&store.flush(FOR_EVER));
            until_fenced(&block_on(store.submit(put("d", "1"))));
        });
        let there = other.join().unwrap();
        for (key, told) in remote_first.join().unwrap() {
            assert!(!told || there.contains_key(key.as_bytes()), "{key} is lost");
        }
        flushes.join().unwrap();
        assert_eq!(kind(node.store.write("r/e", "1")), Kind::Fenced);
        assert_eq!(kind(block_on(ended)), Kind::Fenced);
        assert_eq!(kind(node.store.release()), Kind::Fenced);
    });
}
