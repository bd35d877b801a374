//! Replicas as an agent sees them: from inside the node, and from beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::Kind;
use highwater::agent::{ReplicaSource as _, ReplicaStanding, ReplicaState};
use highwater::env::Env;

use super::watch::look;
use super::*;
use crate::local::{LocalStore, MemoryStore, SqliteStore};
use crate::remote::{MemoryRemote, RemoteFault};
use crate::{Permissions, ReplicaKeys, ReplicatedStore, local_view};

const LONG: Duration = Duration::from_secs(60);

fn keys() -> ReplicaKeys {
    ReplicaKeys::from_entropy(&[7; 32], "store").unwrap()
}

/// Opens a store as `owner` does, whatever that needs.
fn open(
    local: Arc<dyn LocalStore>,
    remote: &Arc<MemoryRemote>,
    owner: &str,
) -> Arc<ReplicatedStore> {
    let permissions = Permissions {
        allow_empty: true,
        take_over: Some("a test".to_owned()),
        ..Permissions::default()
    };
    let (store, _) = ReplicatedStore::builder(local, Arc::clone(remote) as _, keys())
        .owner(owner)
        .permissions(permissions)
        .open()
        .unwrap();
    Arc::new(store)
}

fn after(duration: Duration) -> Time {
    let ahead = i64::try_from(duration.as_nanos()).unwrap();
    Time::from_nanos(Env::system().now().as_nanos() + ahead)
}

/// The fields that decide: exists, required, pending, fenced.
type Short = (Option<bool>, Option<bool>, Option<u64>, Option<bool>);

fn short(standing: &ReplicaStanding) -> Short {
    let ReplicaStanding { backup_exists, backup_required, pending_writes, fenced, .. } = standing;
    (*backup_exists, *backup_required, *pending_writes, *fenced)
}

const WELL: Short = (Some(true), Some(false), Some(0), Some(false));
const FENCED: Option<bool> = Some(true);

#[test]
fn the_node_s_own_store_says_what_waits_since_when_and_why() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    let store = open(local, &remote, "alice");
    let source = OwnReplica::of(&store);
    store.write("k", "v").unwrap();
    source.flush(LONG).unwrap();
    let standing = source.standing(after(LONG));
    assert_eq!(short(&standing), WELL);
    assert_eq!((standing.lag, standing.last_error), (Some(Duration::ZERO), None));
    remote.fail(vec![Some(RemoteFault::Request); 10_000]);
    store.write("k", "w").unwrap();
    while store.status().unwrap().last_error.is_none() {
        std::thread::yield_now();
    }
    let standing = source.standing(after(LONG));
    assert_eq!(short(&standing), (Some(true), Some(true), Some(1), Some(false)));
    assert_eq!((standing.acknowledged, standing.written), (Some(1), Some(2)));
    assert!(standing.lag.unwrap() >= LONG && standing.pending_bytes == Some(2), "{standing:?}");
    assert!(standing.last_error.unwrap().summary().contains("lost"));
    assert_eq!(source.flush(Duration::from_millis(1)).unwrap_err().kind(), Kind::Unavailable);
    drop(store);
    let ended = source.standing(after(LONG));
    assert_eq!(short(&ended), (None, None, None, None));
    assert!(ended.last_error.is_some());
}

#[test]
fn the_node_s_own_store_says_that_it_is_fenced() {
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
    let alice = open(local, &remote, "alice");
    let bob = open(Arc::<MemoryStore>::default(), &remote, "bob");
    alice.write("k", "v").unwrap();
    let source = OwnReplica::of(&alice);
    assert_eq!(source.flush(LONG).unwrap_err().kind(), Kind::Fenced);
    let standing = source.standing(after(LONG));
    assert_eq!(short(&standing), (Some(false), Some(true), Some(1), FENCED));
    assert!(standing.last_error.unwrap().summary().contains("bob"));
    assert_eq!(short(&OwnReplica::of(&bob).standing(after(LONG))), WELL);
}

/// Looks from beside at a database of a node.
fn beside(path: &Path, remote: &Arc<MemoryRemote>) -> Watched {
    let path = path.to_owned();
    Watched {
        local: Box::new(move || SqliteStore::read_only(&path, |store| local_view(store, &keys()))),
        remote: Arc::clone(remote) as _,
        keys: Arc::new(keys()),
        interval: LONG,
        env: Env::system(),
    }
}

#[test]
fn from_beside_it_is_seen_what_waits_and_what_the_server_has_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (path, remote) = (dir.path().join("node.sqlite"), Arc::<MemoryRemote>::default());
    let watched = beside(&path, &remote);
    let missing = look(&watched);
    assert_eq!(short(&missing), (Some(false), Some(true), None, None));
    assert!(missing.last_error.unwrap().summary().contains("no such database"));
    let local = Arc::new(SqliteStore::open(&path).unwrap());
    let nothing = look(&watched);
    assert_eq!(short(&nothing), (Some(false), Some(true), Some(0), Some(false)));
    assert_eq!((nothing.state, nothing.last_error), (Some(ReplicaState::Absent), None));
    let store = open(local, &remote, "alice");
    store.write("k", "v").unwrap();
    store.flush(LONG).unwrap();
    let early = remote.values();
    let standing = look(&watched);
    assert_eq!(short(&standing), WELL);
    assert_eq!((standing.state, standing.epoch), (Some(ReplicaState::Open), Some(1)));
    assert!(standing.seen.is_some() && standing.last_error.is_none(), "{standing:?}");
    store.write("k", "w").unwrap();
    store.flush(LONG).unwrap();
    let late = remote.values();
    for (values, said) in [(BTreeMap::new(), "nothing"), (early, "set back")] {
        remote.set_values(values);
        let lost = look(&watched);
        assert_eq!(short(&lost), (Some(false), Some(true), Some(0), Some(false)));
        assert_eq!(lost.state, Some(ReplicaState::Lost));
        assert!(lost.last_error.unwrap().summary().contains(said));
    }
    remote.set_values(late);
    assert_eq!(short(&look(&watched)), WELL);
    remote.fail([Some(RemoteFault::Request)]);
    let silent = look(&watched);
    assert_eq!(short(&silent), (None, None, Some(0), None));
    assert!(silent.last_error.unwrap().summary().contains("lost") && silent.seen.is_none());
}

#[test]
fn from_beside_another_owner_and_a_copy_are_fenced_and_a_put_on_its_way_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("node.sqlite"), dir.path().join("copy.sqlite"));
    let remote = Arc::<MemoryRemote>::default();
    let store = open(Arc::new(SqliteStore::open(&path).unwrap()), &remote, "alice");
    store.write("k", "v").unwrap();
    store.flush(LONG).unwrap();
    Arc::into_inner(store).unwrap().stop().unwrap();
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(short(&look(&beside(&copy, &remote))), WELL);
    // The answer is lost, and so is each look after it: the put is there, and nobody here knows it.
    let store = open(Arc::new(SqliteStore::open(&path).unwrap()), &remote, "alice");
    let before = remote.puts();
    let mut faults = vec![Some(RemoteFault::Request); 10_000];
    faults[0] = Some(RemoteFault::Answer);
    remote.fail(faults);
    store.write("k", "w").unwrap();
    while remote.puts() == before {
        std::thread::yield_now();
    }
    let calm = Arc::<MemoryRemote>::default();
    calm.set_values(remote.values());
    assert_eq!(short(&look(&beside(&path, &calm))), (Some(true), Some(true), Some(1), Some(false)));
    let foreign = look(&beside(&copy, &calm));
    assert_eq!(short(&foreign), (Some(false), Some(true), Some(0), FENCED));
    let _bob = open(Arc::<MemoryStore>::default(), &calm, "bob");
    let taken = look(&beside(&path, &calm));
    assert_eq!(taken.fenced, FENCED);
    assert!(taken.last_error.unwrap().summary().contains("bob"));
}

#[test]
fn a_watch_looks_at_once_and_ends_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (path, remote) = (dir.path().join("node.sqlite"), Arc::<MemoryRemote>::default());
    let store = open(Arc::new(SqliteStore::open(&path).unwrap()), &remote, "alice");
    store.write("k", "v").unwrap();
    store.flush(LONG).unwrap();
    let (looked, look) = std::sync::mpsc::channel();
    let looked = Mutex::new(looked);
    let watched = beside(&path, &remote);
    let local = watched.local;
    let local = Box::new(move || {
        looked.lock().unwrap().send(()).unwrap();
        local()
    });
    let watch = ReplicaWatch::start(Watched { local, ..beside(&path, &remote) }).unwrap();
    look.recv().unwrap();
    while watch.standing(after(LONG)).seen.is_none() {
        std::thread::yield_now();
    }
    assert_eq!(short(&watch.standing(after(LONG))), WELL);
    assert_eq!(watch.flush(LONG).unwrap_err().kind(), Kind::Conflict);
    drop(watch);
    // Its end has dropped what it looked with.
    assert!(look.recv().is_err());
}

#[test]
fn a_look_that_panics_is_an_error_and_not_the_end() {
    let remote = Arc::<MemoryRemote>::default();
    let watched = beside(Path::new("/nowhere"), &remote);
    let local = Box::new(|| panic!("a fault"));
    let watch = ReplicaWatch::start(Watched { local, ..watched }).unwrap();
    while watch.standing(after(LONG)).last_error.is_none() {
        std::thread::yield_now();
    }
    assert!(watch.standing(after(LONG)).last_error.unwrap().summary().contains("a fault"));
}
