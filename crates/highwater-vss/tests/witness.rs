//! The guard's witness on real servers: what its contract promises, a copy of a node and its original,
//! answers that are lost.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

#[path = "postgres/mod.rs"]
mod cluster;
#[allow(dead_code, reason = "another test counts what is under way")]
mod proxy;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use highwater::guard::{Move, Raised, Witness, witness_conformance};
use highwater::{Env, Kind, Result};
use highwater_guard::Ours;
use highwater_replica::local::MemoryStore;
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Permissions, Remote, ReplicaKeys, ReplicatedStore, Started, VssWitness};
use highwater_vss::{Auth, Backend, Postgres, Running, Sqlite, VssServer};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use cluster::Cluster;
use proxy::{Fate, Proxy};

const STORE: &str = "node";

/// A server in this process, which knows its users by signatures.
struct Served {
    runtime: Runtime,
    running: Option<Running>,
    address: SocketAddr,
    _dir: TempDir,
    _cluster: Option<Arc<Cluster>>,
}

impl Served {
    fn on_sqlite() -> Served {
        let dir = TempDir::new().unwrap();
        let backend = Arc::new(Sqlite::serve(dir.path(), &Env::system()).unwrap());
        Served::start(backend, dir, None, Runtime::new().unwrap())
    }

    fn on_postgresql() -> Served {
        let (cluster, runtime) = (Cluster::shared(), Runtime::new().unwrap());
        let url = cluster.database();
        let backend = runtime.block_on(Postgres::connect(&url, Env::system()));
        let backend = Arc::new(backend.unwrap());
        Served::start(backend, TempDir::new().unwrap(), Some(cluster), runtime)
    }

    fn both() -> [Served; 2] {
        [Served::on_sqlite(), Served::on_postgresql()]
    }

    fn start(
        backend: Arc<dyn Backend>,
        dir: TempDir,
        cluster: Option<Arc<Cluster>>,
        runtime: Runtime,
    ) -> Served {
        let start = VssServer::builder(backend).auth(Auth::signature()).start();
        let running = runtime.block_on(start).unwrap();
        let address = running.address();
        Served { runtime, running: Some(running), address, _dir: dir, _cluster: cluster }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown()).unwrap();
        }
    }
}

fn keys() -> ReplicaKeys {
    ReplicaKeys::from_entropy(&[7; 32], STORE).unwrap()
}

fn remote(address: SocketAddr) -> Arc<dyn Remote> {
    let server = VssRemote::builder(format!("http://{address}/vss"), STORE);
    Arc::new(server.auth(VssAuth::Signature(keys().signing_key())).build().unwrap())
}

fn place(address: SocketAddr) -> VssWitness {
    VssWitness::new(remote(address), keys(), &Env::system())
}

/// One start of the node, or of a copy of it.
fn start(address: SocketAddr, holder: &str) -> Result<Witness> {
    let name = "node".parse().unwrap();
    Witness::take_over(Arc::new(place(address)), name, holder.to_owned(), &Env::system())
}

fn raise(witness: &Witness, number: u64) -> Result<Raised> {
    let ours = Ours {
        signed: Some(number),
        revoked: number,
        received: number,
        epoch: witness.epoch(),
        ..Ours::default()
    };
    witness.raise(&[Move { channel: "a".to_owned(), ours }], &[])
}

#[test]
fn a_witness_keeps_the_promises_of_its_contract_over_http() {
    for served in Served::both() {
        witness_conformance::run(&|| Box::new(place(served.address)));
    }
}

#[test]
fn of_a_copy_and_its_original_one_fails_at_its_next_raise() {
    for served in Served::both() {
        let original = start(served.address, "original").unwrap();
        for number in 1..=5 {
            assert_eq!(raise(&original, number).unwrap(), Raised::Durable);
        }
        // The copy starts from the disk of the original, as it was then.
        let copy = start(served.address, "copy").unwrap();
        assert_eq!((copy.of("a").unwrap().signed, copy.epoch()), (5, 2));
        let told = raise(&original, 6).unwrap_err();
        assert_eq!(told.kind(), Kind::Fenced);
        assert!(told.to_string().contains("copy"), "{told}");
        assert_eq!(raise(&copy, 6).unwrap(), Raised::Durable);
        assert_eq!(original.confirm().unwrap_err().kind(), Kind::Fenced);
        assert_eq!(start(served.address, "next").unwrap().of("a").unwrap().signed, 6);
    }
}

#[test]
fn of_copies_that_start_at_once_one_goes_on() {
    for served in Served::both() {
        for _ in 0..5 {
            let (gate, address) = (Barrier::new(4), served.address);
            let taken: Vec<Result<Witness>> = thread::scope(|scope| {
                let copies: Vec<_> = (0..4)
                    .map(|copy| {
                        let gate = &gate;
                        scope.spawn(move || {
                            gate.wait();
                            start(address, &format!("copy {copy}"))
                        })
                    })
                    .collect();
                copies.into_iter().map(|copy| copy.join().unwrap()).collect()
            });
            let taken: Vec<Witness> = taken.into_iter().map(|taken| taken.unwrap()).collect();
            let epochs: BTreeSet<u64> = taken.iter().map(Witness::epoch).collect();
            assert_eq!(epochs.len(), 4, "no epoch is given out twice");
            let newest = epochs.last().unwrap();
            let number = taken[0].epoch() * 100 + 1_000;
            for witness in &taken {
                let raised = raise(witness, number);
                if witness.epoch() == *newest {
                    assert_eq!(raised.unwrap(), Raised::Durable);
                } else {
                    assert_eq!(raised.unwrap_err().kind(), Kind::Fenced);
                }
            }
        }
    }
}

#[test]
fn a_lost_answer_is_read_back_and_a_late_put_of_a_deposed_start_does_not_land() {
    for served in Served::both() {
        let proxy = Proxy::start(served.address, Duration::ZERO);
        // Every fifth request of this start is lost, on its way there or back.
        let mut count = 0;
        proxy.set_fates(move || {
            count += 1;
            match count % 10 {
                4 => Fate::LoseAnswer,
                9 => Fate::LoseRequest,
                _ => Fate::Pass,
            }
        });
        let first = start(proxy.address, "first").unwrap();
        for number in 1..=20 {
            assert_eq!(raise(&first, number).unwrap(), Raised::Durable);
        }
        // Its last put is still under way when the next start takes over.
        let later = Duration::from_millis(300);
        proxy.set_fates(move || Fate::Late(later));
        assert_eq!(raise(&first, 21).unwrap_err().kind(), Kind::Unavailable);
        let second = start(served.address, "second").unwrap();
        let known = second.of("a").unwrap().signed;
        assert!((20..=21).contains(&known));
        for number in known + 1..=known + 20 {
            assert_eq!(raise(&second, number).unwrap(), Raised::Durable);
        }
        proxy.set_fates(|| Fate::Pass);
        assert_eq!(raise(&first, 22).unwrap_err().kind(), Kind::Fenced);
        assert_eq!(start(served.address, "third").unwrap().of("a").unwrap().signed, known + 20);
    }
}

#[test]
fn a_witness_and_a_replica_share_a_store() {
    for served in Served::both() {
        let remote = remote(served.address);
        let witness = start(served.address, "us").unwrap();
        let open = |local: Arc<MemoryStore>, permissions: Permissions| {
            let store = ReplicatedStore::builder(local, Arc::clone(&remote), keys());
            store.permissions(permissions).open().unwrap()
        };
        let new = Permissions { allow_empty: true, ..Permissions::default() };
        let (store, started) = open(Arc::default(), new);
        assert_eq!(started, Started::New);
        for number in 1..=3u64 {
            store.write("k", number.to_le_bytes()).unwrap();
            assert_eq!(raise(&witness, number).unwrap(), Raised::Durable);
        }
        store.flush(Duration::from_secs(60)).unwrap();
        store.release().unwrap();
        let (_, started) = open(Arc::default(), Permissions::default());
        assert!(matches!(started, Started::Hydrated { values: 1, .. }), "{started:?}");
        assert_eq!(start(served.address, "next").unwrap().of("a").unwrap().signed, 3);
    }
}
