//! `replica migrate`: from a store that an LDK node has written by itself to a node with a replica.

use std::sync::Arc;

use highwater_replica::local::{LocalStore as _, Space, SqliteStore};
use highwater_replica::remote::{Item, Put, Remote as _, RemotePut, VssAuth, VssRemote};
use highwater_replica::{ReplicaKeys, ReplicatedStore, Started};

use crate::vss::Server;
use crate::world::{Answered, World};

/// What `ldk-node` 0.7.1 wrote to a server, of a seed of 64 times 42: names, and values in hex.
const FIXTURE: &str = include_str!("../../../highwater-replica/tests/fixtures/ldk-node-0.7.1.txt");
const OLD: &str = "wallet";

struct Scene {
    world: World,
    server: Server,
}

impl Scene {
    /// A world with a server that has the node's store, and seeds.
    fn new() -> Scene {
        let world = World::new();
        std::fs::write(world.path("seed"), [42; 64]).unwrap();
        std::fs::write(world.path("other-seed"), [43; 64]).unwrap();
        std::fs::write(world.path("short-seed"), [42; 63]).unwrap();
        let arguments = ["vss", "serve", "--data-dir", "stores"];
        let server = Server::start_as(&world, &arguments, "none");
        let scene = Scene { world, server };
        let items = FIXTURE.lines().map(|line| {
            let (key, value) = line.split_once(' ').unwrap();
            (key.to_owned(), bytes(value))
        });
        scene.put(items.collect());
        scene
    }

    fn remote(&self, store: &str) -> VssRemote {
        let url = format!("http://{}/vss", self.server.address);
        VssRemote::builder(url, store).auth(VssAuth::None).build().unwrap()
    }

    fn put(&self, items: Vec<(String, Vec<u8>)>) {
        let items = items.into_iter().map(|(key, value)| Item { key, version: -1, value });
        let put = RemotePut { items: items.collect(), deletes: Vec::new() };
        assert_eq!(self.remote(OLD).put(&put).unwrap(), Put::Landed);
    }

    fn migrate(&self, store: &str, seed: &[&str]) -> Answered {
        let url = format!("http://{}/vss", self.server.address);
        let common = ["replica", "migrate", "node.sqlite", "--server", &url, "--from-store", store];
        self.world.run(&[&common, seed, &["--json"]].concat())
    }

    /// What a refusal leaves: nothing.
    fn assert_nothing_is_left(&self) {
        for entry in std::fs::read_dir(self.world.path(".")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains("node.sqlite"), "{name}");
        }
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_store_of_an_ldk_node_becomes_one_with_a_replica() {
    let scene = Scene::new();
    let done = scene.migrate(OLD, &["--seed-file", "seed"]).code(0).json();
    assert_eq!((&done["values"], &done["schema"]), (&10.into(), &1.into()), "{done}");
    let local = Arc::new(SqliteStore::open(scene.world.path("node.sqlite")).unwrap());
    let rows = local.scan(Space::Data, b"", None, usize::MAX).unwrap();
    let bytes: usize = rows.iter().map(|(_, value)| value.len()).sum();
    assert_eq!((rows.len(), &done["bytes"]), (10, &bytes.into()));
    assert!(local.get(Space::Data, b"//manager").unwrap().is_some());
    scene.migrate(OLD, &["--seed-file", "seed"]).code(4).error("conflict");

    // A node that opens it fills a new store on the server.
    let keys = || ReplicaKeys::from_entropy(&[7; 32], "new").unwrap();
    let remote = Arc::new(scene.remote("new"));
    let open = ReplicatedStore::builder(local, Arc::clone(&remote) as _, keys()).open();
    let (store, started) = open.unwrap();
    assert_eq!(started, Started::Filling);
    store.flush(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(store.status().unwrap().values, 10);
    store.release().unwrap();
    // The old store is as it was.
    let mut listed = scene.remote(OLD).list("", None).unwrap().keys;
    listed.sort();
    let names: Vec<&str> = FIXTURE.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(listed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), names);
}

#[test]
fn what_cant_be_migrated_leaves_nothing() {
    let scene = Scene::new();
    scene.world.write_secret("words", "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong");
    scene.world.write_secret("passphrase", "secret");
    scene.migrate(OLD, &["--seed-file", "other-seed"]).code(7).error("denied");
    scene.migrate(OLD, &["--mnemonic-file", "words"]).code(7).error("denied");
    let words = ["--mnemonic-file", "words", "--mnemonic-passphrase-file", "passphrase"];
    scene.migrate(OLD, &words).code(7).error("denied");
    scene.migrate("empty", &["--seed-file", "seed"]).code(3).error("not_found");
    scene.migrate(OLD, &["--seed-file", "short-seed"]).code(2).error("input");
    scene.migrate(OLD, &[]).code(2);
    scene.migrate(OLD, &["--seed-file", "seed", "--mnemonic-file", "words"]).code(2);
    scene.assert_nothing_is_left();

    let (name, value) = FIXTURE.lines().next_back().unwrap().split_once(' ').unwrap();
    let mut damaged = bytes(value);
    damaged[5] ^= 1;
    scene.put(vec![(name.to_owned(), damaged)]);
    let error = scene.migrate(OLD, &["--seed-file", "seed"]).code(5).error("corrupt");
    let entry = error["error"]["entry"].as_str().unwrap();
    assert_eq!(entry.split('/').count(), 3, "{error}");
    scene.assert_nothing_is_left();
    scene.put(vec![(name.to_owned(), bytes(value))]);

    // One that was interrupted, or still runs.
    std::fs::write(scene.world.path(".node.sqlite.migrating"), "").unwrap();
    scene.migrate(OLD, &["--seed-file", "seed"]).code(4).error("conflict");
    std::fs::remove_file(scene.world.path(".node.sqlite.migrating")).unwrap();
    scene.migrate(OLD, &["--seed-file", "seed"]).code(0);
}
