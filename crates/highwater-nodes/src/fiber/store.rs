//! The stores of a Fiber node in its directory: read, and marked in a copy that is not the node's yet.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use highwater::engine::rocksdb;
use highwater::guard::{Adapter, ChannelRecord, GuardedStore, Latch, Withheld};
use highwater::ids::RelPath;
use highwater::{Error, Kind, Result};

use super::sqlite::Sqlite;
use super::{
    Channel, ChannelId, PREFIXES, ROCKSDB, Rows, SQLITE, STORES, TENANTS, channels, is_marked,
    knows_marks, marks_fit, stale,
};
use crate::profile::below;

/// What Highwater keeps in a node directory: no node lies in it.
const OWN_DIR: &str = ".highwater";
/// No node lies deeper in its directory.
const DEPTH_MAX: usize = 16;

/// Lists the channels of a Fiber node, and marks them, in a node directory that is not the node's yet, or no
/// longer: nobody else has its stores open.
///
/// A channel is named by its id; one of a store other than `fiber/store` by the path of that store, and its
/// id. Every channel that is in use is marked by the node's own state for what may be old: the first one that is
/// asked for marks all, each store in one step. Others that could be punished, since they are signed for or
/// closing, have no mark, and none has where the node is too old to know that state: what holds them is that the
/// entry point of their store is withheld.
///
/// A store of a version that is not known is an error of the kind input, before anything is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct FiberAdapter;

impl Adapter for FiberAdapter {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        Ok(Box::new(Stores { stores: find(dir)?, markable: None, marked: None }))
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
    /// What can be marked, once that was asked.
    markable: Option<BTreeSet<String>>,
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

    fn has_mark(&mut self, id: &str) -> Result<bool> {
        if self.markable.is_none() {
            self.markable = Some(self.names(marks_fit)?);
        }
        Ok(self.markable.as_ref().is_some_and(|markable| markable.contains(id)))
    }

    fn mark_stale(&mut self, id: &str) -> Result<()> {
        if self.marked.is_none() {
            self.mark()?;
            self.marked = Some(self.names(is_marked)?);
        }
        match self.marked.as_ref().is_some_and(|marked| marked.contains(id)) {
            true => Ok(()),
            false => {
                let why = "there is no channel of this name that could be marked";
                Err(Error::not_found(why).with_entry(id))
            }
        }
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        self.names(is_marked).map(Vec::from_iter)
    }
}

impl Stores {
    /// The names of the channels of which `is` holds.
    fn names(&self, is: fn(&Rows, &Channel) -> Result<bool>) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for store in &self.stores {
            let rows = store.rows()?;
            for channel in store.told(channels(&rows))? {
                if store.told(is(&rows, &channel))? {
                    names.insert(store.name(channel.id));
                }
            }
        }
        Ok(names)
    }

    /// Nothing is written before all stores were read.
    fn mark(&self) -> Result<()> {
        let mut all = Vec::new();
        for store in &self.stores {
            let rows = store.rows()?;
            if store.told(knows_marks(&rows))? {
                all.push((store, store.told(stale(&rows))?));
            }
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
    let current = below(path, ROCKSDB);
    match (stands(&main)?, stands(&current)?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::input(
            "the store exists both in SQLite and in RocksDB, and it is unknown which one the node uses",
        )
        .with_entry(path.to_string())
        .with_remedy("move away the one that the node does not use")),
        (Some(file), None) => {
            let log = below(path, &format!("{SQLITE}-wal"));
            let withheld = waits(&main).is_some();
            Ok(Some(Box::new(Sqlite { file, withheld, log_withheld: waits(&log).is_some() })))
        }
        (None, Some(place)) => {
            let waits = waits(&current).map(|_| place);
            Ok(Some(Box::new(RocksDb { dir: path.under(dir), waits })))
        }
    }
}

/// A store in RocksDB.
struct RocksDb {
    dir: PathBuf,
    /// Where its `CURRENT` waits, where that is withheld.
    waits: Option<PathBuf>,
}

impl Medium for RocksDb {
    fn rows(&self) -> Result<Rows> {
        match &self.waits {
            Some(current) => rocksdb::rows_withheld(&self.dir, current, PREFIXES),
            None => rocksdb::rows(&self.dir, PREFIXES),
        }
    }

    /// By one more log, as a crash would have left it: the node's own, older RocksDB reads nothing else of it.
    fn put(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        if self.waits.is_some() {
            return Err(Error::conflict(
                "the store is withheld, and nothing is written to it there",
            ));
        }
        rocksdb::append(&self.dir, puts)
    }
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
