//! What a replica costs a node: `cargo run --release --package highwater-bench --bin replica-cost -- DIR
//! ADDRESS [SECONDS] [ROUNDS] [KEYS]`, with a server of stores at ADDRESS that asks nobody who they are. Prints a JSON document:
//! synced writes a second to a bare RocksDB and through a replicated store over one, with 1, 8 and 64
//! threads; how long after its commit a write is acknowledged by the server, at a thousand writes a second;
//! an empty disk filled over a slow link, beside key by key; writes that wait for the server over that link.
#![allow(clippy::print_stdout, reason = "a program that tells what it measures")]

mod link;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater::{Env, Result};
use highwater_bench::{Outcome, number};
use highwater_replica::local::{LocalStore, MemoryStore, Op, RocksStore, Rows, Space};
use highwater_replica::remote::VssRemote;
use highwater_replica::{
    Class, Classes, Permissions, Remote, ReplicaKeys, ReplicatedStore, Started,
};
use rust_rocksdb::{DB, WriteOptions};
use serde_json::{Value, json};

use link::Link;

const VALUE_BYTES: usize = 1 << 10;
/// Keys of each thread, which it writes again and again.
const KEYS: u64 = 1000;
const THREADS: [usize; 3] = [1, 8, 64];
/// Writes a second while the lag is measured.
const PACE: u32 = 1000;
/// How long the link takes, each way.
const DELAY: Duration = Duration::from_millis(20);
/// Keys that are read one by one; all of them would take an hour.
const SINGLE: usize = 500;
const CHANNELS: usize = 64;
const LONG: Duration = Duration::from_secs(600);

/// Writes a value, durably.
type WriteOne<'a> = dyn Fn(&[u8], &[u8]) -> Outcome<()> + Sync + 'a;
/// When a write was committed, and when it was known to be on the server.
type Times = (Option<Duration>, Option<Duration>);

/// Where it is measured.
struct World {
    dir: PathBuf,
    server: SocketAddr,
    time: Duration,
    env: Env,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, server, ..] = arguments.as_slice() else {
        return Err("give a directory and the address of a server".into());
    };
    let (seconds, rounds, keys) = (number(3, 10)?, number(4, 3)?, number(5, 100_000)?);
    let world = World {
        dir: PathBuf::from(dir),
        server: server.parse()?,
        time: Duration::from_secs(seconds),
        env: Env::system(),
    };
    let printed = json!({
        "seconds": seconds, "rounds": rounds,
        "writes": world.writes(rounds)?,
        "lag": world.lag()?,
        "hydration": world.hydration(usize::try_from(keys)?)?,
        "remote_first": world.remote_first()?,
    });
    println!("{printed}");
    Ok(())
}

impl World {
    fn remote(&self, store: &str, address: SocketAddr) -> Outcome<(Arc<dyn Remote>, ReplicaKeys)> {
        // No two runs share a store.
        let entropy = *blake3::hash(self.dir.as_os_str().as_encoded_bytes()).as_bytes();
        let keys = ReplicaKeys::from_entropy(&entropy, store)?;
        let url = format!("http://{address}/vss");
        Ok((Arc::new(VssRemote::builder(url, keys.store()).build()?), keys))
    }

    fn open(
        &self,
        store: &str,
        address: SocketAddr,
        local: Arc<dyn LocalStore>,
    ) -> Outcome<(ReplicatedStore, Started)> {
        let (remote, keys) = self.remote(store, address)?;
        let classes = Classes::all(Class::LocalFirst).with("channel/", Class::RemoteFirst);
        let may = Permissions { allow_empty: true, ..Permissions::default() };
        let builder = ReplicatedStore::builder(local, remote, keys);
        Ok(builder.classes(classes).permissions(may).owner("bench").open()?)
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a second, bare and replicated, in turn.
    fn writes(&self, rounds: u64) -> Outcome<Vec<Value>> {
        let mut found = Vec::new();
        for threads in THREADS {
            let (mut bare, mut replicated) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                let place = self.place("bare");
                let store = DB::open_default(&place)?;
                let mut synced = WriteOptions::default();
                synced.set_sync(true);
                let write = |key: &[u8], value: &[u8]| Ok(store.put_opt(key, value, &synced)?);
                bare.push(self.rate(threads, &write)?);
                drop(store);
                std::fs::remove_dir_all(place)?;

                let place = self.place("replicated");
                let local = Arc::new(RocksStore::open(&place)?);
                let (store, _) = self.open(&format!("w {threads} {round}"), self.server, local)?;
                let write = |key: &[u8], value: &[u8]| Ok(store.write(key, value)?);
                replicated.push(self.rate(threads, &write)?);
                store.flush(LONG)?;
                store.release()?;
                std::fs::remove_dir_all(place)?;
            }
            let (bare, replicated) = (median(bare), median(replicated));
            found.push(json!({
                "threads": threads, "bare": bare, "replicated": replicated,
                "percent": 100.0 * replicated / bare,
            }));
        }
        Ok(found)
    }

    fn rate(&self, threads: usize, write: &WriteOne<'_>) -> Outcome<f64> {
        let done = AtomicU64::new(0);
        let begin = self.env.monotonic();
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|thread| {
                    let done = &done;
                    scope.spawn(move || -> Outcome<()> {
                        let mut round = 0;
                        while self.env.monotonic() - begin < self.time {
                            let key = format!("{thread}/{}", round % KEYS);
                            write(key.as_bytes(), &value(round))?;
                            done.fetch_add(1, Ordering::Relaxed);
                            round += 1;
                        }
                        Ok(())
                    })
                })
                .collect();
            running.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err("a writer has panicked".into()))
            })
        })?;
        let took = self.env.monotonic() - begin;
        Ok(done.load(Ordering::Relaxed) as f64 / took.as_secs_f64())
    }

    /// From the commit of a write to its acknowledgement by the server.
    fn lag(&self) -> Outcome<Value> {
        let place = self.place("lag");
        let watched = Arc::new(Watched {
            store: RocksStore::open(&place)?,
            env: self.env.clone(),
            times: Mutex::default(),
        });
        let (store, _) = self.open("lag", self.server, Arc::clone(&watched) as _)?;
        let (begin, each) = (self.env.monotonic(), Duration::from_secs(1) / PACE);
        let mut written = 0;
        loop {
            let due = each * written;
            let now = self.env.monotonic() - begin;
            if now >= self.time {
                break;
            }
            if due > now {
                self.env.pause(due - now);
            }
            let round = u64::from(written);
            store.write(format!("k{}", round % KEYS), value(round))?;
            written += 1;
        }
        let took = self.env.monotonic() - begin;
        store.flush(LONG)?;
        store.release()?;
        std::fs::remove_dir_all(place)?;
        let mut lags = watched.lags();
        let rate = f64::from(written) / took.as_secs_f64();
        Ok(json!({ "writes_per_second": rate, "ms": spread(&mut lags, 1e3) }))
    }

    /// An empty disk, over the link.
    fn hydration(&self, keys: usize) -> Outcome<Value> {
        let (store, _) = self.open("all", self.server, Arc::<MemoryStore>::default())?;
        for key in 0..keys {
            store.write(format!("key {key}"), value(key as u64))?;
        }
        store.flush(LONG)?;
        store.release()?;
        let link = Link::to(self.server, DELAY)?;
        let (slow, _) = self.remote("all", link.address)?;
        let names = slow.list("v.", None)?.keys;
        let mut single = Vec::new();
        for (name, _) in names.iter().cycle().take(SINGLE) {
            let begin = self.env.monotonic();
            slow.get(name)?.ok_or("a value is gone")?;
            single.push((self.env.monotonic() - begin).as_secs_f64());
        }
        let single = single.iter().sum::<f64>() / SINGLE as f64;
        let place = self.place("hydrated");
        let begin = self.env.monotonic();
        let local = Arc::new(RocksStore::open(&place)?);
        let (store, started) = self.open("all", link.address, local)?;
        let seconds = (self.env.monotonic() - begin).as_secs_f64();
        if !matches!(started, Started::Hydrated { values, .. } if values == keys as u64) {
            return Err(format!("not all was there: {started:?}").into());
        }
        store.release()?;
        std::fs::remove_dir_all(place)?;
        Ok(json!({
            "keys": keys, "seconds": seconds, "single_ms": single * 1e3, "read_one_by_one": SINGLE,
            "times": single * keys as f64 / seconds,
        }))
    }

    /// Writes that wait for the server, one channel for each thread, over the link.
    fn remote_first(&self) -> Outcome<Value> {
        let link = Link::to(self.server, DELAY)?;
        let place = self.place("remote-first");
        let local = Arc::new(RocksStore::open(&place)?);
        let (store, _) = self.open("channels", link.address, local)?;
        let lags = Mutex::new(Vec::new());
        let begin = self.env.monotonic();
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..CHANNELS)
                .map(|channel| {
                    let (store, lags) = (&store, &lags);
                    scope.spawn(move || -> Outcome<()> {
                        let mut round = 0;
                        while self.env.monotonic() - begin < self.time {
                            let from = self.env.monotonic();
                            store.write(format!("channel/{channel}"), value(round))?;
                            let took = (self.env.monotonic() - from).as_secs_f64();
                            lags.lock().unwrap_or_else(PoisonError::into_inner).push(took);
                            round += 1;
                        }
                        Ok(())
                    })
                })
                .collect();
            running.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err("a writer has panicked".into()))
            })
        })?;
        let took = self.env.monotonic() - begin;
        store.release()?;
        std::fs::remove_dir_all(place)?;
        let mut lags = lags.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(json!({
            "threads": CHANNELS, "round_trip_ms": DELAY.as_secs_f64() * 2e3,
            "writes_per_second": lags.len() as f64 / took.as_secs_f64(),
            "round_trips": spread(&mut lags, 1.0 / (2.0 * DELAY.as_secs_f64())),
        }))
    }
}

/// A store that takes down when a write was committed, and when the sender knew that the server has it.
struct Watched {
    store: RocksStore,
    env: Env,
    times: Mutex<BTreeMap<u64, Times>>,
}

impl Watched {
    /// In seconds.
    fn lags(&self) -> Vec<f64> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = |(committed, known): &Times| {
            Some(known.as_ref()?.saturating_sub(*committed.as_ref()?).as_secs_f64())
        };
        times.values().filter_map(lag).collect()
    }
}

impl LocalStore for Watched {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Rows> {
        self.store.scan(space, prefix, after, limit)
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        let before = self.env.monotonic();
        self.store.write(ops)?;
        let after = self.env.monotonic();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        for op in ops.iter().filter(|op| op.space == Space::Book) {
            let digits = op.key.strip_prefix(b"queue/").and_then(|digits| digits.try_into().ok());
            let Some(seq) = digits.map(u64::from_be_bytes) else { continue };
            let entry = times.entry(seq).or_default();
            match op.value {
                Some(_) => entry.0 = Some(after),
                None => entry.1 = Some(before),
            }
        }
        Ok(())
    }
}

/// Bytes that don't compress.
fn value(round: u64) -> Vec<u8> {
    let mut value = vec![0; VALUE_BYTES];
    blake3::Hasher::new().update(&round.to_le_bytes()).finalize_xof().fill(&mut value);
    value
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// Middle, 99 of a hundred, and the most.
fn spread(seconds: &mut [f64], times: f64) -> Value {
    seconds.sort_by(f64::total_cmp);
    let at = |share: usize| {
        let place = (seconds.len() * share / 100).min(seconds.len().saturating_sub(1));
        seconds.get(place).copied().unwrap_or_default() * times
    };
    json!({ "p50": at(50), "p99": at(99), "max": at(100), "of": seconds.len() })
}
