//! Marks of stores that LDK's own code has written: two nodes with channels between them that pay each other, and
//! whose monitors LDK persists and reads back by itself.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

#[allow(dead_code, reason = "a part of these nodes is for who loses a machine")]
#[path = "../../highwater-replica/tests/ldk/node.rs"]
mod node;
#[path = "../../highwater-replica/tests/ldk/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::backup::{self, BackupOptions};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Vault};
use highwater::{Control, Env};
use highwater_nodes::Known;
use lightning::util::persist::KVStoreSync as _;
use lightning_persister::fs_store::FilesystemStore;
use rusqlite::{Connection, params};

use node::{Node, Plain, Store, connect, update_ids};
use wire::deliver;

const CHANNELS: u32 = 3;

struct Two {
    alice: Node,
    bob: Node,
    paid: u32,
}

impl Two {
    fn new() -> Two {
        let node = |seed| Node::new(seed, Store::Plain(Arc::<Plain>::default()));
        let (alice, bob) = (node(1), node(2));
        connect(&alice, &bob);
        let mut two = Two { alice, bob, paid: 0 };
        for number in 0..CHANNELS {
            two.alice.open(&two.bob, number);
            two.settle();
        }
        two
    }

    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let any = deliver(&self.alice, &self.bob) | deliver(&self.bob, &self.alice);
            self.alice.events();
            self.bob.events();
            self.alice.persist();
            self.bob.persist();
            quiet = if any { 0 } else { quiet + 1 };
        }
    }

    fn pay(&mut self, channel: usize) {
        self.paid += 1;
        let mut id = [0; 32];
        id[..4].copy_from_slice(&self.paid.to_le_bytes());
        assert!(self.alice.pay(&self.bob, 20_000 + u64::from(self.paid), channel, id));
        self.settle();
    }
}

fn plain(node: &Node) -> &Plain {
    match &node.store {
        Store::Plain(plain) => plain,
        Store::Replicated(..) => panic!("its store is in memory"),
    }
}

/// As `lightning-persister` keeps it.
fn as_files(node: &Node, dir: &Path) {
    let _ = fs::remove_dir_all(dir);
    let store = FilesystemStore::new(dir.join("store"));
    for ((primary, secondary, key), value) in plain(node).rows() {
        store.write(&primary, &secondary, &key, value).unwrap();
    }
}

/// As `ldk-node` keeps it (`io/sqlite_store/mod.rs`).
fn as_sqlite(node: &Node, dir: &Path) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    let mut database = Connection::open(dir.join("ldk_node_data.sqlite")).unwrap();
    let table = "CREATE TABLE ldk_node_data (primary_namespace TEXT NOT NULL, secondary_namespace TEXT DEFAULT '' NOT \
                 NULL, key TEXT NOT NULL CHECK (key <> ''), value BLOB, PRIMARY KEY (primary_namespace, \
                 secondary_namespace, key)); PRAGMA user_version = 2;";
    database.execute_batch(table).unwrap();
    let all = database.transaction().unwrap();
    for ((primary, secondary, key), value) in plain(node).rows() {
        let row = "INSERT INTO ldk_node_data VALUES (?1, ?2, ?3, ?4)";
        all.execute(row, params![primary, secondary, key, value]).unwrap();
    }
    all.commit().unwrap();
}

/// The marks of the channels in a directory, as a backup reads them.
fn marks(scratch: &Path, dir: &Path, kind: &str) -> BTreeMap<String, u64> {
    let env = Env::system();
    let location: Location = scratch.join("vault").display().to_string().parse().unwrap();
    let key = scratch.join("key");
    let secret = match key.exists() {
        true => Secret::from_key_file(&key).unwrap(),
        false => {
            let secret = Secret::create_key_file(&key).unwrap();
            Vault::create_with(&location, &secret, &CreateOptions::default(), &env).unwrap();
            secret
        }
    };
    let vault = Vault::open_with(&location, &secret, &env).unwrap();
    let actor = Actor { state_dir: scratch.join("state"), name: "node@host".into() };
    let mut options = BackupOptions::default();
    options.recogniser = Some(Arc::new(Known));
    options.node = Some(dir.file_name().unwrap().to_str().unwrap().parse().unwrap());
    options.adopt = true;
    let report = backup::run(&vault, dir, &actor, &options, &Control::new(env)).unwrap();
    assert_eq!(report.kinds, [kind]);
    let channel =
        |name: &str| Some(name.strip_prefix("channel.")?.strip_suffix(".update")?.to_owned());
    report.marks.iter().filter_map(|(name, mark)| Some((channel(name)?, mark.value))).collect()
}

#[test]
fn the_numbers_of_monitors_are_those_that_ldk_reads() {
    let scratch = tempfile::tempdir().unwrap();
    let (files, database): (PathBuf, PathBuf) =
        (scratch.path().join("files"), scratch.path().join("database"));
    let mut two = Two::new();
    let mut moved = 0;
    let mut before = BTreeMap::new();
    // Whole monitors are written anew after some updates, and those are removed then: on either side of that.
    for round in 0..12 {
        two.pay(round % CHANNELS as usize);
        let expected = update_ids(1, &two.alice.store);
        assert_eq!(expected.len(), CHANNELS as usize);
        as_files(&two.alice, &files);
        assert_eq!(marks(scratch.path(), &files, "ldk-filesystem"), expected, "round {round}");
        as_sqlite(&two.alice, &database);
        assert_eq!(marks(scratch.path(), &database, "ldk-node"), expected, "round {round}");
        moved += usize::from(expected != before);
        before = expected;
    }
    assert_eq!(moved, 12, "a payment moved nothing");
}
