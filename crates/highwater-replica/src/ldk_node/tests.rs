//! Stores of both schemas on a server in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use highwater::Kind;

use super::*;
use crate::local::MemoryStore;
use crate::remote::{Item, Listed, MemoryRemote, Put, RemotePut, Versioned};

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// What `ldk-node` 0.7.1 wrote to a server, of a seed of 64 times 42: names, and values in hex.
const FIXTURE: &str = include_str!("../../tests/fixtures/ldk-node-0.7.1.txt");

/// What a node has: the manager and the scorer stand at the top.
const VALUES: [(&str, &str, &str, &[u8]); 6] = [
    ("", "", "manager", b"the manager"),
    ("", "", "scorer", b""),
    ("bdk_wallet", "", "descriptor", b"wpkh"),
    ("bdk_wallet", "", "network", b"regtest"),
    ("monitors", "", "00ff_1", &[7; 5_000]),
    ("monitor_updates", "00ff_1", "12", b"update"),
];

fn keys() -> LdkNodeKeys {
    LdkNodeKeys::from_mnemonic(WORDS, "").unwrap()
}

fn name(schema: LdkNodeSchema, (primary, secondary, key): (&str, &str, &str)) -> String {
    let keys = keys();
    match (schema, primary) {
        (LdkNodeSchema::V0, "") => keys.hide(key),
        (LdkNodeSchema::V0, _) => format!("{primary}#{secondary}#{}", keys.hide(key)),
        (LdkNodeSchema::V1, _) => {
            format!("{}#{}", keys.hide(&format!("{primary}#{secondary}")), keys.hide(key))
        }
    }
}

fn sealed(schema: LdkNodeSchema, name: &str, value: &[u8], nonce: u8) -> Vec<u8> {
    match schema {
        LdkNodeSchema::V0 => keys().seal(value, b"", [nonce; 12]),
        LdkNodeSchema::V1 => keys().seal(value, name.as_bytes(), [nonce; 12]),
    }
}

fn write(remote: &dyn Remote, key: String, value: Vec<u8>) {
    let item = Item { key, version: -1, value };
    let put = RemotePut { items: vec![item], deletes: Vec::new() };
    assert_eq!(remote.put(&put).unwrap(), Put::Landed);
}

fn written(schema: LdkNodeSchema) -> Arc<MemoryRemote> {
    let remote = Arc::<MemoryRemote>::default();
    for (nonce, (primary, secondary, key, value)) in (0..).zip(VALUES) {
        let name = name(schema, (primary, secondary, key));
        let sealed = sealed(schema, &name, value, nonce);
        write(&*remote, name, sealed);
    }
    if schema == LdkNodeSchema::V1 {
        let name = schema_name(&keys());
        let sealed = sealed(schema, &name, &[1, 0], 99);
        write(&*remote, name, sealed);
    }
    remote
}

fn expected() -> BTreeMap<String, Vec<u8>> {
    let joined = |(primary, secondary, key, value): (&str, &str, &str, &[u8])| {
        (format!("{primary}/{secondary}/{key}"), value.to_vec())
    };
    VALUES.into_iter().map(joined).collect()
}

fn open(remote: &Arc<MemoryRemote>) -> Result<LdkNodeStore> {
    LdkNodeStore::open(Arc::clone(remote) as _, keys())
}

fn kind<T>(result: Result<T>) -> Kind {
    result.err().expect("an error").kind()
}

const BOTH: [LdkNodeSchema; 2] = [LdkNodeSchema::V0, LdkNodeSchema::V1];

#[test]
fn all_values_of_both_schemas_arrive_and_nothing_is_written_to_the_old_store() {
    for schema in BOTH {
        let remote = written(schema);
        let before = (remote.values(), remote.puts());
        let store = open(&remote).unwrap();
        assert_eq!((store.schema(), store.keys().count()), (schema, VALUES.len()));
        let mut read = BTreeMap::new();
        let each = |key: &LdkNodeKey, value: Vec<u8>| {
            read.insert(key.joined(), value);
            Ok(())
        };
        store.read(each).unwrap();
        assert_eq!(read, expected());

        let local = MemoryStore::default();
        let bytes = VALUES.iter().map(|value| value.3.len() as u64).sum();
        let done = store.copy_to(&local).unwrap();
        assert_eq!(done, Migrated { schema, values: VALUES.len() as u64, bytes });
        let rows = local.scan(Space::Data, b"", None, usize::MAX).unwrap();
        let rows: BTreeMap<String, Vec<u8>> =
            rows.into_iter().map(|(key, value)| (String::from_utf8(key).unwrap(), value)).collect();
        assert_eq!(rows, expected());
        assert!(rows.contains_key("//manager"));
        assert!(local.scan(Space::Book, b"", None, 1).unwrap().is_empty());
        assert_eq!((remote.values(), remote.puts()), before);
        assert_eq!(kind(store.copy_to(&local)), Kind::Conflict, "it is not empty");
    }
}

#[test]
fn a_store_that_ldk_node_0_7_1_has_written_is_read() {
    let remote = Arc::<MemoryRemote>::default();
    for line in FIXTURE.lines() {
        let (name, value) = line.split_once(' ').unwrap();
        write(&*remote, name.to_owned(), hex::decode(value).unwrap());
    }
    let keys = LdkNodeKeys::from_seed(&[42; 64]).unwrap();
    let store = LdkNodeStore::open(Arc::clone(&remote) as _, keys).unwrap();
    assert_eq!(store.schema(), LdkNodeSchema::V1);
    let local = MemoryStore::default();
    assert_eq!(store.copy_to(&local).unwrap().values, 10);
    let rows = local.scan(Space::Data, b"", None, usize::MAX).unwrap();
    let keys: Vec<&str> = rows.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect();
    for key in ["//manager", "//network_graph", "bdk_wallet//descriptor", "bdk_wallet//network"] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    let payments = keys.iter().filter(|key| key.starts_with("payments//")).count();
    assert_eq!(payments, 1, "{keys:?}");
    let other = LdkNodeKeys::from_seed(&[43; 64]).unwrap();
    assert_eq!(kind(LdkNodeStore::open(remote, other)), Kind::Denied);
}

#[test]
fn many_values_arrive() {
    let remote = Arc::<MemoryRemote>::default();
    let mut expected = BTreeMap::new();
    for number in 0..500u32 {
        let key = format!("k{number}");
        let name = name(LdkNodeSchema::V0, ("payments", "", &key));
        let value = number.to_le_bytes().to_vec();
        let sealed = sealed(LdkNodeSchema::V0, &name, &value, 1);
        write(&*remote, name, sealed);
        expected.insert(format!("payments//{key}").into_bytes(), value);
    }
    let local = MemoryStore::default();
    assert_eq!(open(&remote).unwrap().copy_to(&local).unwrap().values, 500);
    let rows: BTreeMap<_, _> =
        local.scan(Space::Data, b"", None, usize::MAX).unwrap().into_iter().collect();
    assert_eq!(rows, expected);
}

#[test]
fn wrong_words_are_denied_and_an_empty_store_is_not_found() {
    let other = || {
        LdkNodeKeys::from_mnemonic("zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong", "").unwrap()
    };
    let passphrase = || LdkNodeKeys::from_mnemonic(WORDS, "another").unwrap();
    for schema in BOTH {
        let remote = written(schema);
        for keys in [other(), passphrase()] {
            let opened = LdkNodeStore::open(Arc::clone(&remote) as _, keys);
            assert_eq!(kind(opened), Kind::Denied, "{schema:?}");
        }
    }
    assert_eq!(kind(open(&Arc::default())), Kind::NotFound);
}

#[test]
fn a_damaged_value_is_named() {
    for schema in BOTH {
        let whole = written(schema).values();
        let monitor = name(schema, ("monitors", "", "00ff_1"));
        let other = name(schema, ("bdk_wallet", "", "descriptor"));
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let remote = written(schema);
            let mut values = whole.clone();
            change(&mut values.get_mut(&monitor).unwrap().1);
            remote.set_values(values);
            let told = open(&remote).unwrap().copy_to(&MemoryStore::default()).unwrap_err();
            (told.kind(), told.entry().map(str::to_owned))
        };
        let damaged = (Kind::Corrupt, Some("monitors//00ff_1".to_owned()));
        assert_eq!(with(&|value| value[100] ^= 1), damaged);
        assert_eq!(with(&|value| value.truncate(100)), damaged);
        assert_eq!(with(&Vec::clear), damaged);
        // A value under another name is noticed where values are bound to their names.
        let swap = |value: &mut Vec<u8>| value.clone_from(&whole[&other].1);
        match schema {
            LdkNodeSchema::V1 => assert_eq!(with(&swap), damaged),
            LdkNodeSchema::V0 => {
                let remote = written(schema);
                let mut values = whole.clone();
                swap(&mut values.get_mut(&monitor).unwrap().1);
                remote.set_values(values);
                open(&remote).unwrap().copy_to(&MemoryStore::default()).unwrap();
            }
        }
    }
}

#[test]
fn foreign_keys_and_a_missing_or_newer_schema_are_refused() {
    for schema in BOTH {
        for (foreign, its) in [
            ("root".to_owned(), Kind::Corrupt),
            ("v.00".to_owned(), Kind::Corrupt),
            ("a#b#c#d".to_owned(), Kind::Corrupt),
            (keys().hide("with/slash"), Kind::Corrupt),
            (format!("{}#{}", keys().hide("#secondary"), keys().hide("k")), Kind::Corrupt),
            (format!("{}#{}", keys().hide("a#b"), keys().hide("")), Kind::Corrupt),
        ] {
            let remote = written(schema);
            write(&*remote, foreign.clone(), Vec::new());
            let told = open(&remote).unwrap_err();
            assert_eq!(told.kind(), its, "{schema:?} {foreign}");
        }
    }
    let remote = written(LdkNodeSchema::V1);
    let name = schema_name(&keys());
    write(&*remote, name.clone(), sealed(LdkNodeSchema::V1, &name, &[2, 0], 5));
    assert_eq!(kind(open(&remote)), Kind::Input);
    let mut values = remote.values();
    values.remove(&name);
    remote.set_values(values);
    assert_eq!(kind(open(&remote)), Kind::Corrupt);
}

/// What a node does to its store.
type Act = Box<dyn FnOnce(&MemoryRemote) + Send>;

/// A node that writes while its store is read.
struct Running {
    remote: Arc<MemoryRemote>,
    /// At which get, and what then.
    at: Mutex<(usize, Option<Act>)>,
}

impl Remote for Running {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let mut at = self.at.lock().unwrap();
        at.0 = at.0.saturating_sub(1);
        if at.0 == 0
            && let Some(act) = at.1.take()
        {
            act(&self.remote);
        }
        self.remote.get(key)
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        self.remote.put(put)
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        self.remote.list(prefix, page)
    }
}

#[test]
fn a_store_that_changes_while_it_is_read_is_refused_whenever_that_is() {
    const SCHEMA: LdkNodeSchema = LdkNodeSchema::V1;
    let manager = name(SCHEMA, ("", "", "manager"));
    let acts: [fn(&MemoryRemote, String); 3] = [
        // The same value again, as a node writes it: sealed anew.
        |remote, name| write(remote, name.clone(), sealed(SCHEMA, &name, b"the manager", 50)),
        |remote, name| {
            let mut values = remote.values();
            values.remove(&name);
            remote.set_values(values);
        },
        |remote, _| {
            let new = name(SCHEMA, ("payments", "", "new"));
            write(remote, new.clone(), sealed(SCHEMA, &new, b"x", 51));
        },
    ];
    // The schema, then each value twice.
    let gets = 1 + 2 * VALUES.len();
    for act in acts {
        let mut refused = 0;
        for at in 2..=gets {
            let manager = manager.clone();
            let act: Act = Box::new(move |remote| act(remote, manager));
            let at = Mutex::new((at, Some(act)));
            let remote = Arc::new(Running { remote: written(SCHEMA), at });
            let store = LdkNodeStore::open(remote, keys()).unwrap();
            let local = MemoryStore::default();
            match store.copy_to(&local) {
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Conflict);
                    refused += 1;
                }
                // It changed before it was read at first, or after it was read at last.
                Ok(done) => assert_eq!(done.values, VALUES.len() as u64),
            }
        }
        assert!(refused >= VALUES.len(), "{refused} of {}", gets - 1);
    }
}
