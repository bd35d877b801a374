//! The replica over real servers: what arrives through kills, cuts and delays; who may write; what is
//! denied.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

#[path = "postgres/mod.rs"]
mod cluster;
mod proxy;
mod wire;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use highwater::replica::local::{LocalStore, MemoryStore, Space, SqliteStore};
use highwater::replica::remote::{VssAuth, VssRemote};
use highwater::replica::{
    Class, Classes, HeadState, Permissions, Remote, ReplicaKeys, ReplicatedStore, Started,
};
use highwater::{Env, Kind, Result};
use highwater_server::vss::{Auth, Backend, Postgres, Running, Sqlite, VssServer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use cluster::Cluster;
use proxy::{Fate, Proxy};

const LONG: Duration = Duration::from_secs(120);
const STORE: &str = "node";
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// How clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Signature,
    Nobody,
}

/// Where the server keeps it.
#[derive(Clone, Copy, Debug)]
enum Where {
    Sqlite,
    Postgresql,
}

/// A server in this process.
struct Served {
    runtime: Runtime,
    running: Option<Running>,
    address: SocketAddr,
    who: Who,
    _dir: TempDir,
    cluster: Option<Cluster>,
}

impl Served {
    fn start(place: Where, who: Who) -> Served {
        let (dir, runtime) = (TempDir::new().unwrap(), Runtime::new().unwrap());
        let (backend, cluster): (Arc<dyn Backend>, _) = match place {
            Where::Sqlite => (Arc::new(Sqlite::serve(dir.path(), &Env::system()).unwrap()), None),
            Where::Postgresql => {
                let cluster = Cluster::start(&[]);
                let url = cluster.database();
                let backend = runtime.block_on(Postgres::connect(&url, Env::system()));
                (Arc::new(backend.unwrap()), Some(cluster))
            }
        };
        let auth = if who == Who::Signature { Auth::signature() } else { Auth::none() };
        let start = VssServer::builder(backend).auth(auth).start();
        let running = runtime.block_on(start).unwrap();
        let address = running.address();
        Served { runtime, running: Some(running), address, who, _dir: dir, cluster }
    }

    fn remote(&self) -> Arc<dyn Remote> {
        remote(self.address, self.who, &keys())
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

fn remote(address: SocketAddr, who: Who, keys: &ReplicaKeys) -> Arc<dyn Remote> {
    let auth = match who {
        Who::Signature => VssAuth::Signature(keys.signing_key()),
        Who::Nobody => VssAuth::None,
    };
    let url = format!("http://{address}/vss");
    Arc::new(VssRemote::builder(url, keys.store()).auth(auth).build().unwrap())
}

fn open(
    local: Arc<dyn LocalStore>,
    remote: &Arc<dyn Remote>,
    permissions: Permissions,
) -> Result<(ReplicatedStore, Started)> {
    let classes = Classes::all(Class::LocalFirst).with("r/", Class::RemoteFirst);
    ReplicatedStore::builder(local, Arc::clone(remote), keys())
        .classes(classes)
        .owner("alice")
        .permissions(permissions)
        .open()
}

/// A new node.
fn fresh(remote: &Arc<dyn Remote>) -> (Arc<MemoryStore>, ReplicatedStore) {
    let local = Arc::<MemoryStore>::default();
    let new = Permissions { allow_empty: true, ..Permissions::default() };
    let (store, started) = open(Arc::clone(&local) as _, remote, new).unwrap();
    assert_eq!(started, Started::New);
    (local, store)
}

fn take_over() -> Permissions {
    Permissions { take_over: Some("the machine is lost".to_owned()), ..Permissions::default() }
}

fn data(local: &dyn LocalStore) -> Rows {
    local.scan(Space::Data, b"", None, usize::MAX).unwrap().into_iter().collect()
}

/// What a machine that lost everything gets; the digest of the head is compared on the way.
fn hydrated(remote: &Arc<dyn Remote>) -> Rows {
    let local = Arc::<MemoryStore>::default();
    let (store, started) = open(Arc::clone(&local) as _, remote, take_over()).unwrap();
    let rows = data(&*local);
    let found = matches!(started, Started::Hydrated { values, .. } if values == rows.len() as u64);
    assert!(found, "{started:?}, {} rows", rows.len());
    store.stop().unwrap();
    rows
}

/// A call beside the protocol; nobody is asked who calls.
fn ask(address: SocketAddr, call: &str, body: &Value) -> Value {
    let mut client = wire::Client::connect(address).unwrap();
    let path = format!("/highwater/v1/{call}");
    let answer = client.post(&path, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// Keys of the store on the server: values, one head, one root.
fn count(address: SocketAddr) -> u64 {
    ask(address, "digest", &json!({ "store_id": STORE }))["count"].as_u64().unwrap()
}

fn write_some(store: &ReplicatedStore) {
    for round in 0..300u32 {
        store.write(format!("k{}", round % 150), round.to_le_bytes()).unwrap();
    }
    store.write("r/monitor", vec![9; 3 << 20]).unwrap();
    store.write("empty", "").unwrap();
    store.remove("k3").unwrap();
    store.remove("never").unwrap();
}

#[test]
fn what_is_written_comes_back_on_an_empty_disk() {
    for place in [Where::Sqlite, Where::Postgresql] {
        for who in [Who::Signature, Who::Nobody] {
            let served = Served::start(place, who);
            let (remote, dir) = (served.remote(), TempDir::new().unwrap());
            let disk = |name: &str| Arc::new(SqliteStore::open(dir.path().join(name)).unwrap());
            let local = disk("first");
            let new = Permissions { allow_empty: true, ..Permissions::default() };
            let (store, _) = open(Arc::clone(&local) as _, &remote, new).unwrap();
            write_some(&store);
            store.flush(LONG).unwrap();
            let status = store.status().unwrap();
            assert_eq!(
                (status.pending_writes, status.values, status.state),
                (0, 151, HeadState::Open),
                "{place:?} {who:?}"
            );
            store.release().unwrap();
            let empty = disk("second");
            let (store, started) =
                open(Arc::clone(&empty) as _, &remote, Permissions::default()).unwrap();
            assert!(matches!(started, Started::Hydrated { values: 151, .. }), "{started:?}");
            assert!(data(&*empty) == data(&*local), "{place:?} {who:?}");
            // And goes on from there.
            store.write("r/monitor", "next").unwrap();
            store.stop().unwrap();
            let (store, started) =
                open(Arc::clone(&empty) as _, &remote, Permissions::default()).unwrap();
            assert_eq!(started, Started::Resumed);
            drop(store);
            assert!(hydrated(&remote) == data(&*empty), "{place:?} {who:?}");
        }
    }
}

#[test]
fn whoever_is_taken_over_fails_at_its_next_write() {
    for (place, who) in [(Where::Sqlite, Who::Signature), (Where::Postgresql, Who::Nobody)] {
        let served = Served::start(place, who);
        let remote = served.remote();
        let (_, alice) = fresh(&remote);
        alice.write("r/1", "alice's").unwrap();
        let elsewhere = Arc::<MemoryStore>::default();
        let refused = open(Arc::clone(&elsewhere) as _, &remote, Permissions::default());
        assert_eq!(refused.err().unwrap().kind(), Kind::Fenced);
        let (bob, _) = open(elsewhere, &remote, take_over()).unwrap();
        assert_eq!(bob.read(b"r/1").unwrap().as_deref(), Some(b"alice's".as_slice()));
        let told = alice.write("r/1", "alice's again").unwrap_err();
        assert_eq!(told.kind(), Kind::Fenced);
        assert!(told.to_string().contains("the machine is lost"), "{told}");
        bob.write("r/1", "bob's").unwrap();
        assert_eq!(alice.write("k", "v").unwrap_err().kind(), Kind::Fenced);
        bob.stop().unwrap();
        assert_eq!(hydrated(&remote)[b"r/1".as_slice()], b"bob's");
    }
}

#[test]
fn other_keys_are_denied_and_another_signature_sees_nothing() {
    let other = || ReplicaKeys::from_entropy(&[8; 32], STORE).unwrap();
    for (who, kind) in [(Who::Nobody, Kind::Denied), (Who::Signature, Kind::NotFound)] {
        let served = Served::start(Where::Sqlite, who);
        let (_, store) = fresh(&served.remote());
        store.write("r/1", "a").unwrap();
        store.release().unwrap();
        let theirs = remote(served.address, who, &other());
        let opened = ReplicatedStore::builder(Arc::<MemoryStore>::default(), theirs, other())
            .permissions(take_over())
            .open();
        assert_eq!(opened.err().unwrap().kind(), kind, "{who:?}");
        assert_eq!(hydrated(&served.remote()).len(), 1);
    }
    // Whoever shows nothing where a signature is asked for.
    let served = Served::start(Where::Sqlite, Who::Signature);
    let told = remote(served.address, Who::Nobody, &keys()).get("k").unwrap_err();
    assert_eq!(told.kind(), Kind::Denied);
}

#[test]
fn a_store_with_a_fence_takes_a_replica_as_it_is() {
    for place in [Where::Sqlite, Where::Postgresql] {
        let served = Served::start(place, Who::Nobody);
        ask(served.address, "policy", &json!({ "store_id": STORE, "fence": true }));
        let remote = served.remote();
        let (local, store) = fresh(&remote);
        write_some(&store);
        store.release().unwrap();
        let (store, started) =
            open(Arc::clone(&local) as _, &remote, Permissions::default()).unwrap();
        assert_eq!(started, Started::Resumed);
        store.write("r/1", "a").unwrap();
        assert!(hydrated(&remote) == data(&*local), "{place:?}");
        assert_eq!(store.write("r/1", "b").unwrap_err().kind(), Kind::Fenced);
        // The fence holds: a writer that knows of no head is refused.
        let mut client = wire::Client::connect(served.address).unwrap();
        assert_eq!(client.put(&wire::put(STORE, "v.x", -1, b"x")).unwrap().status, 400);
    }
}

/// A server that is a process of its own.
struct Process(Child);

const PROCESS: &str = "HIGHWATER_TEST_REPLICA_SERVER";

impl Process {
    /// Serves what is in `dir`, at `address`, and returns once it does.
    fn start(dir: &Path, address: SocketAddr) -> (Process, SocketAddr) {
        let said = dir.join("address");
        for _ in 0..20 {
            let _ = std::fs::remove_file(&said);
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "server_process"])
                .env(PROCESS, format!("{address} {}", dir.display()))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut process = Process(child);
            // The port may be taken for a moment; then it ends.
            while process.0.try_wait().unwrap().is_none() {
                if let Ok(address) = std::fs::read_to_string(&said) {
                    return (process, address.parse().unwrap());
                }
                Env::system().pause(Duration::from_millis(5));
            }
        }
        panic!("the server does not start");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Nothing by itself: what [`Process`] runs, until its input ends.
#[test]
fn server_process() {
    let Ok(told) = std::env::var(PROCESS) else { return };
    let (address, dir) = told.split_once(' ').unwrap();
    let runtime = Runtime::new().unwrap();
    let backend = Sqlite::serve(&Path::new(dir).join("data"), &Env::system()).unwrap();
    let server = VssServer::builder(Arc::new(backend)).auth(Auth::none());
    let running = runtime.block_on(server.listen(address.parse().unwrap()).start()).unwrap();
    let said = Path::new(dir).join("address");
    std::fs::write(said.with_extension("new"), running.address().to_string()).unwrap();
    std::fs::rename(said.with_extension("new"), said).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Writes some hundred values of both classes, and calls `at` with the number of those that returned.
fn write_on(store: &ReplicatedStore, at: &AtomicU32) {
    for number in 0..400u32 {
        let class = if number % 4 == 0 { "r/" } else { "" };
        store.write(format!("{class}{}", number % 90), number.to_le_bytes()).unwrap();
        at.store(number, Ordering::SeqCst);
    }
}

#[test]
fn a_server_that_is_killed_again_and_again_has_all_of_it_once() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let (process, address) = Process::start(dir.path(), "127.0.0.1:0".parse().unwrap());
    let remote = remote(address, Who::Nobody, &keys());
    let (local, store) = fresh(&remote);
    let at = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(&store, &at));
        let mut process = Some(process);
        for kill in [40, 150, 151, 300] {
            while at.load(Ordering::SeqCst) < kill && !writer.is_finished() {
                std::thread::yield_now();
            }
            drop(process.take());
            process = Some(Process::start(dir.path(), address).0);
        }
        writer.join().unwrap();
        store.flush(LONG).unwrap();
        assert!(!store.status().unwrap().fenced);
        let rows = data(&*local);
        assert_eq!(count(address), rows.len() as u64 + 2);
        assert!(hydrated(&remote) == rows);
    });
}

#[test]
fn a_server_whose_database_is_killed_has_all_of_it_once() {
    let served = Served::start(Where::Postgresql, Who::Nobody);
    let (remote, cluster) = (served.remote(), served.cluster.as_ref().unwrap());
    let (local, store) = fresh(&remote);
    let at = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(&store, &at));
        for kill in [40, 200] {
            while at.load(Ordering::SeqCst) < kill && !writer.is_finished() {
                std::thread::yield_now();
            }
            cluster.kill();
            cluster.start_again();
        }
        writer.join().unwrap();
    });
    store.flush(LONG).unwrap();
    let rows = data(&*local);
    assert_eq!(count(served.address), rows.len() as u64 + 2);
    assert!(hydrated(&remote) == rows);
}

/// Fates at random: of ten requests six pass.
fn at_random(mut seed: u64) -> impl FnMut() -> Fate + Send + 'static {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = seed >> 33;
        match drawn % 10 {
            0 => Fate::LoseRequest,
            1 | 2 => Fate::LoseAnswer,
            3 => Fate::Late(Duration::from_millis(drawn / 10 % 100)),
            _ => Fate::Pass,
        }
    }
}

#[test]
fn whatever_is_cut_or_late_an_acknowledged_write_is_there_and_nobody_is_fenced() {
    for (place, seed) in [(Where::Sqlite, 1), (Where::Postgresql, 2)] {
        let served = Served::start(place, Who::Signature);
        let proxy = Proxy::start(served.address, Duration::ZERO);
        let through = remote(proxy.address, Who::Signature, &keys());
        let (local, mut store) = fresh(&through);
        for start in 0..3u64 {
            proxy.set_fates(at_random(seed * 1000 + start));
            for number in 0..25u32 {
                let value = [start.to_le_bytes(), u64::from(number).to_le_bytes()].concat();
                store.write(format!("r/{}", number % 7), value.clone()).unwrap();
                let key = format!("r/{}", number % 7);
                assert_eq!(store.read(key.as_bytes()).unwrap(), Some(value));
            }
            store.stop().unwrap();
            // A start under the same conditions fails now and then, and is never told of another owner.
            store = loop {
                match open(Arc::clone(&local) as _, &through, Permissions::default()) {
                    Ok((store, started)) => {
                        assert_eq!(started, Started::Resumed);
                        break store;
                    }
                    Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
                }
            };
        }
        proxy.set_fates(|| Fate::Pass);
        store.write("r/last", "x").unwrap();
        assert!(!store.status().unwrap().fenced);
        store.stop().unwrap();
        assert!(hydrated(&served.remote()) == data(&*local), "{place:?}");
    }
}

/// The figures are for who reads them; what is asserted is how many requests are under way.
#[test]
#[expect(clippy::print_stderr, reason = "a measure, for who runs it by hand")]
fn a_restore_asks_for_many_values_at_once() {
    const VALUES: usize = 20_000;
    const SINGLE: usize = 100;
    let served = Served::start(Where::Sqlite, Who::Signature);
    let direct = served.remote();
    let (local, store) = fresh(&direct);
    for number in 0..VALUES {
        store.write(format!("key {number}"), number.to_le_bytes()).unwrap();
    }
    store.flush(LONG).unwrap();
    store.release().unwrap();
    let proxy = Proxy::start(served.address, Duration::from_millis(20));
    let slow = remote(proxy.address, Who::Signature, &keys());
    let env = Env::system();
    let begun = env.monotonic();
    let names = slow.list("v.", None).unwrap().keys;
    for (name, _) in &names[..SINGLE] {
        slow.get(name).unwrap().unwrap();
    }
    let single = (env.monotonic() - begun).as_secs_f64() / (SINGLE + 1) as f64;
    assert_eq!(proxy.most_at_once(), 1);
    let begun = env.monotonic();
    let rows = hydrated(&slow);
    let all = (env.monotonic() - begun).as_secs_f64();
    assert!(rows == data(&*local) && rows.len() == VALUES);
    assert_eq!(proxy.most_at_once(), 64);
    eprintln!(
        "{VALUES} values over 20 ms an answer: {all:.1} s; one by one {:.1} ms each, {:.1} times as long",
        single * 1000.0,
        single * VALUES as f64 / all
    );
}

#[test]
fn a_certificate_is_looked_at() {
    let dir = TempDir::new().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([Path::new("-keyout"), &key, Path::new("-out"), &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let runtime = Runtime::new().unwrap();
    let backend = Sqlite::serve(dir.path(), &Env::system()).unwrap();
    let server = VssServer::builder(Arc::new(backend)).tls(&cert, &key);
    let running = runtime.block_on(server.start()).unwrap();
    let url = format!("https://{}/vss", running.address());
    let signed =
        || VssRemote::builder(url.as_str(), STORE).auth(VssAuth::Signature(keys().signing_key()));
    let trusting: Arc<dyn Remote> = Arc::new(signed().ca_file(&cert).build().unwrap());
    let (local, store) = fresh(&trusting);
    write_some(&store);
    store.flush(LONG).unwrap();
    assert!(hydrated(&trusting) == data(&*local));
    let told = signed().build().unwrap().get("k").unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable);
    assert!(told.to_string().contains("certificate"), "{told}");
    runtime.block_on(running.shutdown()).unwrap();
}
