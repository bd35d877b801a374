//! A node that is backed up by the program while it writes, restored, held back and let go, and opened by its own
//! crates. `HIGHWATER_PROGRAM` names the program.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fiber_node::sample::{self, Sample, VERSION_08, VERSION_09};
use fiber_node::store::{Backend, Rows, Store, channel_rows, make_node, other_rows};
use fiber_types::{ChannelActorData, ChannelState};
use highwater::guard::{Adapter as _, Latch};
use highwater_nodes::fiber::FiberAdapter;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Channels of each state.
const EACH: u64 = 3;

/// A directory with a home, a key and a vault.
struct World {
    root: TempDir,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        let world = World { root };
        world.run(0, &["init", "vault", "--key-file", "key", "--json"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What the program answers, which has to end like that.
    fn run(&self, code: i32, arguments: &[&str]) -> Value {
        let program = std::env::var_os("HIGHWATER_PROGRAM");
        let program =
            program.expect("HIGHWATER_PROGRAM must name the program; `make test-clients` does it");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.root.path()).env("HOME", self.path("home"));
        for name in ["HIGHWATER_PROGRAM", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}{errors}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"))
    }

    fn on_vault(&self, code: i32, arguments: &[&str]) -> Value {
        let vault = ["--vault", "vault", "--key-file", "key", "--json"];
        self.run(code, &[arguments, &vault].concat())
    }
}

/// What a node does: each channel in use moves, one after the other, until it is told to stop.
fn write(
    store: &mut Store,
    mut channels: Vec<ChannelActorData>,
    stop: &AtomicBool,
    moves: &AtomicU64,
) {
    let mut gossip = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        for data in &mut channels {
            data.commitment_numbers.local += 1;
            data.commitment_numbers.remote += 1;
            let sample = sample::v10::stored(VERSION_09, data);
            let mut rows = channel_rows(VERSION_09, &[sample]);
            gossip += 1;
            rows.insert(
                [&[96][..], &(gossip % 500).to_be_bytes()].concat(),
                vec![gossip as u8; 300],
            );
            store.put(&rows).unwrap();
        }
        moves.fetch_add(1, Ordering::Relaxed);
    }
}

/// The marks of the channels of a snapshot.
fn marks_of(world: &World, backup: &Value) -> BTreeMap<String, u64> {
    let shown = world.on_vault(0, &["show", backup["snapshot"].as_str().unwrap()]);
    let mut marks = BTreeMap::new();
    for channel in shown["channels"].as_array().unwrap() {
        let id = channel["id"].as_str().unwrap();
        for (what, value) in channel["marks"].as_object().unwrap() {
            marks.insert(format!("channel.{id}.{what}"), value.as_u64().unwrap());
        }
    }
    marks
}

/// The marks of channels that a store of the node has, by its own crate.
fn marks_in(rows: &Rows) -> BTreeMap<String, u64> {
    let mut marks = BTreeMap::new();
    for (key, value) in rows.iter().filter(|(key, _)| key[0] == 0) {
        let data: ChannelActorData = fiber_types::deserialize(value).unwrap();
        let id = hex::encode(&key[1..]);
        marks.insert(format!("channel.{id}.local"), data.commitment_numbers.local);
        marks.insert(format!("channel.{id}.remote"), data.commitment_numbers.remote);
    }
    marks
}

fn open(node: &Path, backend: Backend) -> fiber_node::Outcome<Store> {
    Store::open(&node.join("fiber/store"), backend)
}

/// That no part of the node's store can be opened, and that its channels are marked where it waits.
fn is_held(node: &Path, backend: Backend, in_use: usize) {
    let main = match backend {
        Backend::RocksDb => node.join("fiber/store/CURRENT"),
        Backend::Sqlite => node.join("fiber/store/data.sqlite"),
    };
    assert!(main.is_dir());
    assert!(open(node, backend).is_err());
    let latch = Latch::read(node).unwrap().unwrap();
    assert!(latch.withheld.iter().any(|withheld| withheld.path.under(node) == main), "{latch:?}");
    let mut opened = FiberAdapter.open(node).unwrap();
    assert_eq!(opened.stale().unwrap().len(), in_use);
}

fn decode(sample: &Sample) -> ChannelActorData {
    fiber_types::deserialize(&sample.value).unwrap()
}

/// Ends the writer, also where the test has failed meanwhile.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two backups while the node writes, which has moved every channel in use between them.
fn back_up_twice(world: &World, mut store: Store, in_use: &[ChannelActorData]) -> (Value, Value) {
    let (stop, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| write(&mut store, in_use.to_vec(), &stop, &moves));
        let _stop = Stop(&stop);
        let moved = |at_least: u64| {
            while moves.load(Ordering::Relaxed) < at_least {
                std::thread::yield_now();
            }
        };
        moved(3);
        let first = world.on_vault(0, &["backup", "node", "--lean"]);
        moved(moves.load(Ordering::Relaxed) + 3);
        (first, world.on_vault(0, &["backup", "node", "--lean"]))
    })
}

/// That every channel that is not closed is named, with a mark where the node has one for its state.
fn is_listed(world: &World, node: &Path, channels: &[Sample]) {
    let listed = world.run(10, &["guard", "list", "node", "--json"]).to_string();
    let latch = Latch::read(node).unwrap().unwrap();
    for sample in channels {
        let id = hex::encode(sample.id);
        let state = decode(sample).state;
        let marked = matches!(state, ChannelState::ChannelReady | ChannelState::Stale);
        let held = latch.channels.get(&id);
        assert_eq!(held.is_none(), matches!(state, ChannelState::Closed(_)), "{id} {state:?}");
        assert_eq!(held.is_some_and(|held| !held.unmarked), marked, "{id} {state:?}");
        assert!(held.is_none() || listed.contains(&id), "{listed}");
    }
}

/// That a store which was let go has each channel as it was, those in use in the state stale, and all else.
fn came_back(rows: &Rows, channels: &[Sample], written: &Rows) {
    for (key, value) in rows {
        match key[0] {
            0 => {
                let data: ChannelActorData = fiber_types::deserialize(value).unwrap();
                let before = channels.iter().find(|sample| sample.key() == *key).unwrap();
                let expected = match decode(before).state {
                    ChannelState::ChannelReady => ChannelState::Stale,
                    state => state,
                };
                assert_eq!(data.state, expected);
                let index = [&[64][..], &data.remote_pubkey.serialize(), data.id.as_ref()].concat();
                let index: ChannelState = fiber_types::deserialize(&rows[&index]).unwrap();
                assert_eq!(index, expected);
            }
            96 | 64 => {}
            _ => assert_eq!(*value, written[key]),
        }
    }
}

fn circle(backend: Backend) {
    let world = World::new();
    let node = world.path("node");
    let mut channels = sample::v10::channels(VERSION_09, 77, EACH);
    channels.iter_mut().for_each(clear_marks);
    let mut written = channel_rows(VERSION_09, &channels);
    written.extend(other_rows(4));
    let store = make_node(&node, backend, &written).unwrap();
    let ready = |data: &ChannelActorData| data.state == ChannelState::ChannelReady;
    let in_use: Vec<ChannelActorData> = channels.iter().map(decode).filter(ready).collect();
    assert_eq!(in_use.len() as u64, EACH);

    let (first, second) = back_up_twice(&world, store, &in_use);
    assert_eq!((&first["kinds"], &first["guard"]), (&json!(["fiber"]), &json!("databases")));
    let (of_first, of_second) = (marks_of(&world, &first), marks_of(&world, &second));
    let newest = marks_in(&open(&node, backend).unwrap().rows().unwrap());
    for (name, mark) in &of_first {
        assert!(*mark <= of_second[name] && of_second[name] <= newest[name], "{name}");
    }
    let moved = of_first.iter().filter(|(name, mark)| **mark < of_second[*name]).count();
    assert_eq!(moved, 2 * in_use.len(), "{first} {second}");

    // The older of the two, over the node.
    let id = first["snapshot"].as_str().unwrap();
    let restored = world.on_vault(0, &["restore", id, "node", "--force"]);
    // Those that were stale before, too.
    let marked = in_use.len() + EACH as usize;
    assert_eq!(restored["marked"], json!(marked), "{restored}");
    is_held(&node, backend, marked);
    is_listed(&world, &node, &channels);
    assert_eq!(fs::read(node.join("fiber/sk")).unwrap(), b"the key of the node");
    assert_eq!(fs::read(node.join("ckb/key")).unwrap(), b"an encrypted key");
    assert!(!node.join("fiber/backups").exists());

    let release = ["guard", "release", "node", "--all", "--reason", "a test", "--json"];
    world.run(10, &release);
    world.run(0, &[&release[..], &["--although-old"]].concat());
    let rows = open(&node, backend).unwrap().rows().unwrap();
    let found = marks_in(&rows);
    assert!(of_first.iter().all(|(name, mark)| found[name] == *mark), "{of_first:?} {found:?}");
    came_back(&rows, &channels, &written);
    println!("{backend:?}: {} rows, {} channels in use came back marked", rows.len(), in_use.len());
}

/// A channel that only has the numbers of a channel that lives.
fn clear_marks(sample: &mut Sample) {
    let mut data: ChannelActorData = fiber_types::deserialize(&sample.value).unwrap();
    data.commitment_numbers = fiber_types::CommitmentNumbers { local: 2, remote: 2 };
    *sample = sample::v10::stored(VERSION_09, &data);
}

#[test]
fn a_node_on_rocksdb_comes_back_marked_and_held() {
    circle(Backend::RocksDb);
}

#[test]
fn a_node_on_sqlite_comes_back_marked_and_held() {
    circle(Backend::Sqlite);
}

/// A node that does not know the state, and one of a version that nobody knows: both are held by what is withheld
/// alone, and come back as they were.
#[test]
fn a_node_that_has_no_mark_is_held_and_comes_back_as_it_was() {
    for backend in [Backend::RocksDb, Backend::Sqlite] {
        let old = channel_rows(VERSION_08, &sample::v08::channels(VERSION_08, 9, 1));
        let mut new = channel_rows(VERSION_09, &sample::v10::channels(VERSION_09, 9, 1));
        new.insert(b"db-version".to_vec(), b"20991231000000".to_vec());
        for (rows, known) in [(old, true), (new, false)] {
            let world = World::new();
            let node = world.path("node");
            drop(make_node(&node, backend, &rows).unwrap());
            let backup = world.on_vault(0, &["backup", "node"]);
            assert_eq!(backup["guard"], json!("databases"));
            assert_eq!(marks_of(&world, &backup).is_empty(), !known, "{backup}");
            let restored = world.on_vault(0, &["restore", "latest", "copy"]);
            let copy = world.path("copy");
            assert!(open(&copy, backend).is_err());
            let told = restored.to_string().contains("not known");
            assert_eq!(told, !known, "{restored}");
            world.run(0, &["guard", "release", "copy", "--all", "--reason", "a test", "--json"]);
            assert_eq!(open(&copy, backend).unwrap().rows().unwrap(), rows);
        }
    }
}
