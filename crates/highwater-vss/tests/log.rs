//! What a replica's sender and the server of stores log: counts and kinds; nothing of what is kept.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::Env;
use highwater_replica::local::MemoryStore;
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore};
use highwater_vss::{Auth, Sqlite, VssServer};
use tracing_subscriber::fmt::MakeWriter;

const LONG: Duration = Duration::from_secs(120);

/// All that is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

#[test]
fn puts_are_logged_and_nothing_of_what_they_hold() {
    let lines = Lines::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(lines.clone())
        .init();
    let (dir, runtime) = (tempfile::tempdir().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let backend = Sqlite::serve(dir.path(), &Env::system()).unwrap();
    let server = VssServer::builder(Arc::new(backend)).auth(Auth::none()).start();
    let server = runtime.block_on(server).unwrap();

    let url = format!("http://{}/vss", server.address());
    let remote = VssRemote::builder(url, "store-of-alice").auth(VssAuth::None).build().unwrap();
    let keys = ReplicaKeys::from_entropy(&[7; 32], "store-of-alice").unwrap();
    let local = Arc::new(MemoryStore::default());
    let new = Permissions { allow_empty: true, ..Permissions::default() };
    let open = ReplicatedStore::builder(local, Arc::new(remote), keys).permissions(new).open();
    let (store, _) = open.unwrap();
    store.write(b"channels/alice", b"her-balance").unwrap();
    store.flush(LONG).unwrap();
    runtime.block_on(server.shutdown()).unwrap();
    // Told or not, it is tried; and so is the end, which has to wait for it.
    let _ = store.write(b"channels/bob", b"his-balance");
    store.flush(Duration::from_secs(1)).unwrap_err();
    drop(store);

    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for told in [
        "replica: head taken epoch=1",
        "replica: put landed writes=1",
        "answered method=\"putObjects\" code=200",
        "replica: put not known to have landed kind=Unavailable",
    ] {
        assert!(logged.contains(told), "{told}: {logged}");
    }
    let hex = hex::encode([7; 32]);
    for private in ["alice", "bob", "balance", "channels", &hex] {
        let ours = logged.lines().filter(|line| line.contains("highwater"));
        let saying: Vec<&str> = ours.filter(|line| line.contains(private)).collect();
        assert!(saying.is_empty(), "{private}: {saying:?}");
    }
}
