//! Stores that `ldk-node` has written to a server by itself: all values, opened and verified, and their
//! way into the store of a node that has a replica from then on. How they are kept is in
//! `docs/replica-format.md`, and in `keys` beside this file.
//!
//! Nothing is written to the old store. It has no head, so nothing tells whether its node still writes;
//! all values are therefore read twice. What was the same twice was there at one instant between.

use std::sync::Arc;

use highwater::{Error, Result};

use super::local::{LocalStore, Op, Space};
use super::remote::{Remote, each_value, list_all};

mod keys;
#[cfg(test)]
mod tests;

pub use keys::LdkNodeKeys;

/// Values that are read at once, and written in one transaction.
const AT_ONCE: usize = 64;
/// How many characters a namespace or a key has at most.
const NAME_MAX: usize = 120;
/// Says which schema a store has; the node knows nothing of it.
const SCHEMA_KEY: &str = "vss_schema_version";

/// How names and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LdkNodeSchema {
    /// Namespaces in plain text; no value is bound to its name.
    V0,
    /// Names are hidden, and each value is sealed under its name.
    V1,
}

impl LdkNodeSchema {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            LdkNodeSchema::V0 => 0,
            LdkNodeSchema::V1 => 1,
        }
    }
}

/// The name of a value as LDK has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LdkNodeKey {
    /// The primary namespace; empty for what stands at the top.
    pub primary: String,
    /// The secondary namespace.
    pub secondary: String,
    /// The key.
    pub key: String,
}

impl LdkNodeKey {
    /// The key in a node's store: all three, joined by slashes, the empty ones too.
    pub fn joined(&self) -> String {
        format!("{}/{}/{}", self.primary, self.secondary, self.key)
    }

    /// Whether LDK could have given it.
    fn is_sound(&self) -> bool {
        let sound = |part: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            part.len() <= NAME_MAX && part.bytes().all(known)
        };
        let parts = [&self.primary, &self.secondary, &self.key];
        parts.iter().all(|part| sound(part))
            && !self.key.is_empty()
            && (!self.primary.is_empty() || self.secondary.is_empty())
    }

    fn is_schema(&self) -> bool {
        self.primary.is_empty() && self.key == SCHEMA_KEY
    }
}

/// What was migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// How the old store kept it.
    pub schema: LdkNodeSchema,
    /// Values.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A store that `ldk-node` has written.
pub struct LdkNodeStore {
    remote: Arc<dyn Remote>,
    keys: LdkNodeKeys,
    schema: LdkNodeSchema,
    /// By name on the server, in the order of these.
    names: Vec<(String, LdkNodeKey)>,
}

impl LdkNodeStore {
    /// Looks which values there are.
    ///
    /// # Errors
    /// Not found where the store is empty; denied where these keys open none of its names; corrupt where
    /// they open some and not others, or where the schema is missing; input where it is one of a newer
    /// version; unavailable where the server can't be asked.
    pub fn open(remote: Arc<dyn Remote>, keys: LdkNodeKeys) -> Result<LdkNodeStore> {
        let listed = list(&*remote)?;
        if listed.is_empty() {
            return Err(Error::not_found("there is nothing in this store")
                .with_remedy("look at the store's id, and at who the server takes us for"));
        }
        let found: Vec<Option<(LdkNodeSchema, LdkNodeKey)>> =
            listed.iter().map(|name| read_name(&keys, name)).collect();
        let Some(schema) = found.iter().flatten().map(|(schema, _)| *schema).next() else {
            return Err(Error::denied("these words don't open the store of an ldk-node")
                .with_remedy("is it the right mnemonic, passphrase and store?"));
        };
        let mut names = Vec::with_capacity(listed.len());
        for (name, found) in listed.into_iter().zip(found) {
            match found {
                Some((its, key)) if its == schema && key.is_sound() => names.push((name, key)),
                _ => {
                    return Err(Error::corrupt("a key of the store is none of this ldk-node's")
                        .with_entry(name)
                        .with_remedy("somebody else writes to the store, or has damaged it"));
                }
            }
        }
        let mut store = LdkNodeStore { remote, keys, schema, names };
        if schema == LdkNodeSchema::V1 {
            store.take_schema()?;
        }
        Ok(store)
    }

    /// How it is kept.
    pub fn schema(&self) -> LdkNodeSchema {
        self.schema
    }

    /// The names of its values.
    pub fn keys(&self) -> impl Iterator<Item = &LdkNodeKey> {
        self.names.iter().map(|(_, key)| key)
    }

    /// Reads all values, some at once, and hands each one out as it was stored.
    ///
    /// # Errors
    /// Corrupt where a value is damaged, with its key; conflict where one has gone since; what `each` says;
    /// unavailable where the server can't be asked.
    pub fn read(&self, mut each: impl FnMut(&LdkNodeKey, Vec<u8>) -> Result<()>) -> Result<()> {
        self.read_sealed(|name, key, sealed| each(key, self.open_value(name, key, sealed)?))
    }

    /// Copies all of it into an empty store, under the keys that a node has there
    /// ([`LdkNodeKey::joined`]).
    ///
    /// # Errors
    /// As [`LdkNodeStore::read`]; conflict also where the store here is not empty, or where the old one
    /// changes meanwhile. After an error a part of it is there: throw the store away.
    pub fn copy_to(&self, local: &dyn LocalStore) -> Result<Migrated> {
        for space in [Space::Data, Space::Book] {
            if !local.scan(space, b"", None, 1)?.is_empty() {
                return Err(Error::conflict("the store that is to be filled is not empty"));
            }
        }
        let mut done = Migrated { schema: self.schema, values: 0, bytes: 0 };
        let mut seen = Vec::with_capacity(self.names.len());
        let mut batch = Vec::new();
        self.read_sealed(|name, key, sealed| {
            seen.push(blake3::hash(sealed));
            let value = self.open_value(name, key, sealed)?;
            done.values += 1;
            done.bytes += value.len() as u64;
            batch.push(Op::put(Space::Data, key.joined(), value));
            match batch.len() {
                AT_ONCE => local.write(&std::mem::take(&mut batch)),
                _ => Ok(()),
            }
        })?;
        local.write(&batch)?;
        self.check_unchanged(&seen)?;
        Ok(done)
    }

    /// Each write seals anew, so a value that was written meanwhile differs, whatever it is.
    fn check_unchanged(&self, seen: &[blake3::Hash]) -> Result<()> {
        let mut seen = seen.iter();
        self.read_sealed(|_, key, sealed| match seen.next() {
            Some(hash) if *hash == blake3::hash(sealed) => Ok(()),
            _ => Err(changes(key)),
        })?;
        let listed = list(&*self.remote)?;
        let schema = schema_name(&self.keys);
        let listed = listed.iter().filter(|name| **name != schema);
        if listed.eq(self.names.iter().map(|(name, _)| name)) {
            return Ok(());
        }
        Err(running("keys have come or gone since it was looked at"))
    }

    fn read_sealed(
        &self,
        mut each: impl FnMut(&str, &LdkNodeKey, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for some in self.names.chunks(AT_ONCE) {
            let names: Vec<String> = some.iter().map(|(name, _)| name.clone()).collect();
            let mut keys = some.iter().map(|(_, key)| key);
            each_value(&*self.remote, &names, |name, found| {
                let key = keys.next().ok_or_else(|| Error::bug("a value more than names"))?;
                let (_, sealed) = found.ok_or_else(|| changes(key))?;
                each(name, key, &sealed)
            })?;
        }
        Ok(())
    }

    fn open_value(&self, name: &str, key: &LdkNodeKey, sealed: &[u8]) -> Result<Vec<u8>> {
        let bound: &[u8] = match self.schema {
            LdkNodeSchema::V0 => b"",
            LdkNodeSchema::V1 => name.as_bytes(),
        };
        self.keys.open(sealed, bound).ok_or_else(|| {
            Error::corrupt("a value of the store is not what the node sealed")
                .with_entry(key.joined())
        })
    }

    /// The schema is not a value of the node's.
    fn take_schema(&mut self) -> Result<()> {
        let place = self.names.iter().position(|(_, key)| key.is_schema());
        let missing = || {
            Error::corrupt("the store does not say which schema it has")
                .with_remedy("the server has lost a key, or somebody has deleted it")
        };
        let (name, key) = self.names.remove(place.ok_or_else(missing)?);
        let (_, sealed) = self.remote.get(&name)?.ok_or_else(missing)?;
        match self.open_value(&name, &key, &sealed)?.as_slice() {
            // An enum of LDK's: number of the variant, length of its fields.
            [1, 0] => Ok(()),
            _ => Err(Error::input("the store has a schema that this program does not know")
                .with_remedy("it knows 0 and 1; look for a newer version of highwater")),
        }
    }
}

impl std::fmt::Debug for LdkNodeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LdkNodeStore({:?}, {} values)", self.schema, self.names.len())
    }
}

/// All names, sorted.
fn list(remote: &dyn Remote) -> Result<Vec<String>> {
    Ok(list_all(remote, "")?.into_iter().map(|(name, _)| name).collect())
}

/// What a name says; none where these keys don't open it. Hidden names have no `#` in them, so their
/// number tells the schema.
fn read_name(keys: &LdkNodeKeys, name: &str) -> Option<(LdkNodeSchema, LdkNodeKey)> {
    let parts: Vec<&str> = name.split('#').collect();
    let key = |schema, primary: &str, secondary: &str, hidden: &str| {
        let key = keys.reveal(hidden)?;
        let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
        Some((schema, LdkNodeKey { primary, secondary, key }))
    };
    match parts.as_slice() {
        [hidden] => key(LdkNodeSchema::V0, "", "", hidden),
        [primary, secondary, hidden] => key(LdkNodeSchema::V0, primary, secondary, hidden),
        [place, hidden] => {
            let place = keys.reveal(place)?;
            let (primary, secondary) = place.split_once('#')?;
            key(LdkNodeSchema::V1, primary, secondary, hidden)
        }
        _ => None,
    }
}

fn schema_name(keys: &LdkNodeKeys) -> String {
    format!("{}#{}", keys.hide("#"), keys.hide(SCHEMA_KEY))
}

fn changes(key: &LdkNodeKey) -> Error {
    running("a value has changed since it was looked at").with_entry(key.joined())
}

fn running(what: &str) -> Error {
    Error::conflict(format!("the store changes: {what}"))
        .with_remedy("stop the node that writes to it, and never start it on this store again")
}
