//! The stores of a Fiber node in its directory: read, and marked in a copy that is not the node's yet.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use highwater::guard::{Adapter, ChannelRecord, GuardedStore, Latch, Phase, Withheld};
use highwater::ids::RelPath;
use highwater::{Error, Kind, Result};

use super::sqlite::Sqlite;
use super::{ChannelId, Rows, SQLITE, STORES, TENANTS, channels, stale};
use crate::profile::below;

/// The file without which a RocksDB can't be opened.
const ROCKSDB: &str = "CURRENT";
/// What Highwater keeps in a node directory: no node lies in it.
const OWN_DIR: &str = ".highwater";
/// No node lies deeper in its directory.
const DEPTH_MAX: usize = 16;

/// Lists the channels of a Fiber node, and marks them, in a node directory that is not the node's yet, or no
/// longer: nobody else has its stores open.
///
/// A channel is named by its id; one of a store other than `fiber/store` by the path of that store, and its
/// id. Every channel that is in use is marked by the node's own state for what may be old, all of a store in
/// one step. Others that could be punished, since they are signed for or closing, can't be marked so: they are
/// listed as marked, and what holds them is that the entry point of their store is withheld.
///
/// A store of a version that is not known, or whose node does not know that state, is an error of the kind
/// input, before anything is written: then withholding it is all that can be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct FiberAdapter;

impl Adapter for FiberAdapter {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        Ok(Box::new(Stores { stores: find(dir)?, marked: None }))
    }
}

/// Where a store's rows are.
pub(super) trait Medium {
    /// All rows whose keys begin with one of [`super::PREFIXES`].
    fn rows(&self) -> Result<Rows>;
    /// Replaces the values of rows that are there: all of them or none, durable when it returns.
    fn put(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;
}

/// The stores of a node directory.
struct Stores {
    stores: Vec<Store>,
    /// What is marked, once all is that can be.
    marked: Option<BTreeSet<String>>,
}

/// One of them.
struct Store {
    path: RelPath,
    medium: Box<dyn Medium>,
}

impl GuardedStore for Stores {
    fn channels(&mut self) -> Result<Vec<ChannelRecord>> {
        let mut records = Vec::new();
        for store in &self.stores {
            for channel in store.told(channels(&store.rows()?))? {
                records.push(ChannelRecord { id: store.name(channel.id), ..channel.record() });
            }
        }
        Ok(records)
    }

    fn mark_stale(&mut self, id: &str) -> Result<()> {
        let marked = match self.marked.take() {
            Some(marked) => marked,
            None => {
                self.mark()?;
                self.stale()?.into_iter().collect()
            }
        };
        let found = marked.contains(id);
        self.marked = Some(marked);
        match found {
            true => Ok(()),
            false => {
                let why = "there is no channel of this name that could be punished";
                Err(Error::not_found(why).with_entry(id))
            }
        }
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for store in &self.stores {
            let rows = store.rows()?;
            // Where only one of a channel's two rows says so, it is not marked.
            let unmarked: BTreeSet<Vec<u8>> =
                store.told(stale(&rows))?.into_iter().map(|(key, _)| key).collect();
            let left = |id: ChannelId| unmarked.iter().any(|key| key.ends_with(&id.0));
            for channel in store.told(channels(&rows))? {
                if channel.phase() == Phase::Open && (unmarked.is_empty() || !left(channel.id)) {
                    names.push(store.name(channel.id));
                }
            }
        }
        Ok(names)
    }
}

impl Stores {
    /// Nothing is written before all stores were read, and can be marked.
    fn mark(&self) -> Result<()> {
        let mut all = Vec::new();
        for store in &self.stores {
            all.push((store, store.told(stale(&store.rows()?))?));
        }
        for (store, puts) in all.iter().filter(|(_, puts)| !puts.is_empty()) {
            store.told(store.medium.put(puts))?;
        }
        Ok(())
    }
}

impl Store {
    fn name(&self, id: ChannelId) -> String {
        match self.path == below(&RelPath::root(), STORES[0]) {
            true => id.to_string(),
            false => format!("{}/{id}", self.path),
        }
    }

    fn rows(&self) -> Result<Rows> {
        self.told(self.medium.rows())
    }

    fn told<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| of_store(&self.path, error))
    }
}

/// With the store in front of the row that an error is about.
pub(super) fn of_store(store: &RelPath, error: Error) -> Error {
    let entry = match error.entry() {
        Some(row) => format!("{store}: {row}"),
        None => store.to_string(),
    };
    error.with_entry(entry)
}

/// The stores in `dir`, wherever in it nodes lie; by no link.
fn find(dir: &Path) -> Result<Vec<Store>> {
    let withheld = Latch::read(dir)?.map_or_else(Vec::new, |latch| latch.withheld);
    let mut stores = Vec::new();
    let mut left = vec![(RelPath::root(), 0)];
    while let Some((at, depth)) = left.pop() {
        for name in directories(&at.under(dir))? {
            let path = at.join(&name);
            if is_store(&path) {
                let medium = medium(dir, &path, &withheld)?;
                stores.extend(medium.map(|medium| Store { path: path.clone(), medium }));
            }
            if depth < DEPTH_MAX && path != below(&RelPath::root(), OWN_DIR) {
                left.push((path, depth + 1));
            }
        }
    }
    stores.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(stores)
}

/// Whether a directory has the name of a store, beside or below whatever stands there.
fn is_store(path: &RelPath) -> bool {
    let ends = |end: &str| {
        let depth = end.split('/').count();
        let above = (0..depth).try_fold(path.clone(), |path, _| path.parent());
        above.is_some_and(|above| below(&above, end) == *path)
    };
    let tenant =
        || path.parent().is_some_and(|tenants| tenants.as_bytes().ends_with(TENANTS.as_bytes()));
    STORES.iter().any(|store| ends(store)) || tenant()
}

/// What a store is kept in, where it is in the node's place or withheld from it; `None` where neither is
/// there.
fn medium(dir: &Path, path: &RelPath, withheld: &[Withheld]) -> Result<Option<Box<dyn Medium>>> {
    let waits = |path: &RelPath| withheld.iter().find(|withheld| withheld.path == *path);
    let stands = |path: &RelPath| -> Result<Option<PathBuf>> {
        let place = waits(path).map_or(path, |withheld| &withheld.place).under(dir);
        Ok(is_file(&place)?.then_some(place))
    };
    let main = below(path, SQLITE);
    match (stands(&main)?, stands(&below(path, ROCKSDB))?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::input(
            "the store is there in SQLite and in RocksDB, and which one the node uses can't be told",
        )
        .with_entry(path.to_string())
        .with_remedy("move the one away that the node does not use")),
        (Some(file), None) => {
            let log = below(path, &format!("{SQLITE}-wal"));
            let withheld = waits(&main).is_some();
            Ok(Some(Box::new(Sqlite { file, withheld, log_withheld: waits(&log).is_some() })))
        }
        (None, Some(current)) => Ok(Some(Box::new(RocksDb { dir: path.under(dir), current }))),
    }
}

/// A store in RocksDB.
struct RocksDb {
    dir: PathBuf,
    /// Its `CURRENT`, there or where it waits.
    current: PathBuf,
}

impl Medium for RocksDb {
    fn rows(&self) -> Result<Rows> {
        Err(unread(&self.dir, &self.current))
    }

    fn put(&self, _puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        Err(unread(&self.dir, &self.current))
    }
}

fn unread(_dir: &Path, _current: &Path) -> Error {
    Error::input("a store in RocksDB is not read yet")
        .with_remedy("it is held back by withholding it")
}

/// The names of the directories in `dir`; a link is none.
fn directories(dir: &Path) -> Result<Vec<OsString>> {
    let met = |error| Error::io("listing a directory", error).with_entry(dir.display().to_string());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(met)? {
        let entry = entry.map_err(met)?;
        if entry.file_type().map_err(met)?.is_dir() {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

/// Whether a regular file stands there; a link is none.
fn is_file(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_file()),
        Err(error) => {
            let error = Error::io("looking at a file", error);
            match error.kind() {
                Kind::NotFound => Ok(false),
                _ => Err(error.with_entry(path.display().to_string())),
            }
        }
    }
}

/// A path as SQLite takes it in a URI.
pub(super) fn uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                uri.push(char::from(*byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
