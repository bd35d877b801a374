//! Recognises databases: by the files of a directory, or by the first bytes of a file.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{NodeKind, Tree, part_name};
use crate::durable;
use crate::engine::process;
use crate::engine::rocksdb::FileName;
use crate::engine::{EngineKind, FoundPart, Refusal};
use crate::error::{Kind, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// How much of a file is looked at.
const HEAD_BYTES: usize = 64;

/// The shortest beginning of a file by which an engine is known.
const MAGIC_BYTES_MIN: u64 = 9;
const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
const BADGER_MAGIC: &[u8] = b"Bdgr";
const LMDB_MAGIC: u32 = 0xBEEF_C0DE;
const BBOLT_MAGIC: u32 = 0xED0C_DAED;
const BBOLT_VERSION: u32 = 2;

/// The files that SQLite keeps beside a database.
const SQLITE_SIBLINGS: [&str; 3] = ["-journal", "-shm", "-wal"];
/// Names by which a file that can't be looked into is taken for SQLite's.
const SQLITE_SUFFIXES: [&str; 3] = [".db", ".sqlite", ".sqlite3"];

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The main file of an engine.
    Database(EngineKind),
    /// Badger's MANIFEST.
    BadgerManifest,
    /// Nothing that is known.
    Plain,
    /// This process has it open, so that it must not be looked into.
    Ours,
    /// This user may not read it.
    Denied,
}

/// The databases of a tree, by path.
pub(super) fn databases(tree: &Tree) -> Result<Vec<FoundPart>> {
    let mut parts = Vec::new();
    let mut claimed = BTreeSet::new();
    for (dir, names) in &tree.files {
        let engine = match directory_engine(names) {
            Some(engine) => Some(engine),
            None => badger(tree, dir, names)?,
        };
        if let Some(engine) = engine {
            let files = names.iter().filter(|name| belongs(engine, name));
            let mut entries: Vec<RelPath> = files.map(|name| dir.join(name)).collect();
            if *dir != RelPath::root() {
                entries.insert(0, dir.clone());
            }
            claimed.extend(entries.iter().cloned());
            parts.push(tree.part(part_name(dir), engine, dir.clone(), entries));
        }
    }
    let files = tree.nodes.iter().filter(|(_, node)| node.kind == NodeKind::File);
    for (path, _) in files {
        if claimed.contains(path) {
            continue;
        }
        if let Some((engine, entries)) = file_engine(tree, path)? {
            claimed.extend(entries.iter().cloned());
            parts.push(tree.part(part_name(path), engine, path.clone(), entries));
        }
    }
    parts.sort_by(|a, b| a.root.cmp(&b.root));
    Ok(parts)
}

/// The database that a path is, looked at from outside a node directory (a link's target).
pub(super) fn database_at(path: &Path) -> Result<Option<EngineKind>> {
    let place = RootedPath::of(path)?;
    let Some(found) = durable::stat(&place)? else { return Ok(None) };
    if durable::is_file(&found) {
        return Ok(match head(&place)? {
            Head::Database(engine) => Some(engine),
            _ => None,
        });
    }
    // To open a device may do anything.
    if !durable::is_dir(&found) {
        return Ok(None);
    }
    Ok(directory_engine(&durable::names(&place)?.into_iter().collect()))
}

fn has(names: &BTreeSet<OsString>, wanted: impl Fn(&OsStr) -> bool) -> bool {
    names.iter().any(|name| wanted(name))
}

fn directory_engine(names: &BTreeSet<OsString>) -> Option<EngineKind> {
    let role = |role: FileName| has(names, |name| FileName::of(name) == Some(role));
    if !role(FileName::Current) || !role(FileName::Manifest) {
        return None;
    }
    let rocksdb = role(FileName::Options) || role(FileName::Identity);
    Some(if rocksdb { EngineKind::RocksDb } else { EngineKind::LevelDb })
}

fn badger(tree: &Tree, dir: &RelPath, names: &BTreeSet<OsString>) -> Result<Option<EngineKind>> {
    let data = |name: &OsStr| {
        name == "KEYREGISTRY" || ends(name, ".vlog") || ends(name, ".sst") || ends(name, ".mem")
    };
    if !names.contains(OsStr::new("MANIFEST")) || !has(names, data) {
        return Ok(None);
    }
    let head = head(&tree.dir.at(&dir.join(OsStr::new("MANIFEST"))))?;
    // One that this process has open is Badger's by its neighbours.
    Ok(matches!(head, Head::BadgerManifest | Head::Ours).then_some(EngineKind::Badger))
}

/// Whether a file of a database's directory is the database's, by its name.
pub(super) fn belongs(engine: EngineKind, name: &OsStr) -> bool {
    match engine {
        EngineKind::Badger => {
            let known = ["MANIFEST", "KEYREGISTRY", "DISCARD", "LOCK"];
            let endings = [".vlog", ".sst", ".mem"];
            known.iter().any(|known| name == *known)
                || endings.iter().any(|ending| ends(name, ending))
        }
        _ => FileName::of(name).is_some(),
    }
}

fn ends(name: &OsStr, ending: &str) -> bool {
    name.as_bytes().ends_with(ending.as_bytes())
}

/// The engine of a single file, and the entries that belong to it.
fn file_engine(tree: &Tree, path: &RelPath) -> Result<Option<(EngineKind, Vec<RelPath>)>> {
    let node = &tree.nodes[path];
    let siblings = siblings(tree, path);
    let sqlite = |siblings: Vec<RelPath>| {
        let mut entries = vec![path.clone()];
        entries.extend(siblings);
        entries.sort();
        Some((EngineKind::Sqlite, entries))
    };
    // A database whose first transaction is still in its log is empty.
    if node.size == 0 {
        let begun = siblings.iter().any(|sibling| !ends(sibling.name(), "-shm"));
        return Ok(if begun { sqlite(siblings) } else { None });
    }
    if node.size < MAGIC_BYTES_MIN {
        return Ok(None);
    }
    Ok(match head(&tree.dir.at(path))? {
        Head::Database(EngineKind::Sqlite) => sqlite(siblings),
        Head::Database(EngineKind::Lmdb) => Some((EngineKind::Lmdb, lmdb_entries(tree, path))),
        Head::Database(engine) => Some((engine, vec![path.clone()])),
        Head::Ours => {
            let named = SQLITE_SUFFIXES.iter().any(|suffix| ends(path.name(), suffix));
            if named || !siblings.is_empty() { sqlite(siblings) } else { None }
        }
        Head::BadgerManifest | Head::Plain | Head::Denied => None,
    })
}

fn siblings(tree: &Tree, path: &RelPath) -> Vec<RelPath> {
    let beside = SQLITE_SIBLINGS.iter().map(|suffix| beside(path, suffix));
    beside.filter(|sibling| tree.is_file(sibling)).collect()
}

fn beside(path: &RelPath, suffix: &str) -> RelPath {
    let mut name = path.name().to_owned();
    name.push(suffix);
    path.parent().unwrap_or_else(RelPath::root).join(&name)
}

/// An LMDB and its lock file: `lock.mdb` beside `data.mdb`, `x-lock` beside `x`.
fn lmdb_entries(tree: &Tree, path: &RelPath) -> Vec<RelPath> {
    let lock = if path.name() == "data.mdb" {
        path.parent().unwrap_or_else(RelPath::root).join(OsStr::new("lock.mdb"))
    } else {
        beside(path, "-lock")
    };
    let mut entries = vec![path.clone()];
    if tree.is_file(&lock) {
        entries.push(lock);
    }
    entries
}

/// Looks at a file's first bytes, unless this process has it open.
pub(super) fn head(path: &RootedPath) -> Result<Head> {
    use std::io::ErrorKind;
    if process::is_own(path)? {
        return Ok(Head::Ours);
    }
    let file = match path.open_file() {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Head::Denied),
        // Gone, or no file any more.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput
            ) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) =>
        {
            return Ok(Head::Plain);
        }
        Err(error) => return Err(durable::met(path, "open", error)),
    };
    let mut bytes = [0; HEAD_BYTES];
    let mut length = 0;
    while length < HEAD_BYTES {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(durable::met(path, "read", source));
            }
        }
    }
    Ok(recognise(&bytes[..length]))
}

#[cfg(feature = "sqlite")]
use crate::engine::sqlite::header as is_sqlite;

/// A database that this build can't capture is recognised all the same.
#[cfg(not(feature = "sqlite"))]
fn is_sqlite(bytes: &[u8]) -> bool {
    bytes.starts_with(b"SQLite format 3\0")
}

fn recognise(bytes: &[u8]) -> Head {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        word.map(u32::from_le_bytes)
    };
    if is_sqlite(bytes) {
        Head::Database(EngineKind::Sqlite)
    } else if bytes.starts_with(REDB_MAGIC) {
        Head::Database(EngineKind::Redb)
    } else if word(16) == Some(LMDB_MAGIC) {
        Head::Database(EngineKind::Lmdb)
    } else if word(16) == Some(BBOLT_MAGIC) && word(20) == Some(BBOLT_VERSION) {
        Head::Database(EngineKind::Bbolt)
    } else if bytes.starts_with(BADGER_MAGIC) {
        Head::BadgerManifest
    } else {
        Head::Plain
    }
}

/// Refuses a file in use that has a `-wal` beside it and is no known database: an encrypted SQLite
/// looks so, and would be torn.
pub(super) fn unknown_logs(
    tree: &Tree,
    plain: &[RelPath],
    refusals: &mut Vec<Refusal>,
) -> Result<()> {
    for log in plain.iter().filter(|path| ends(path.name(), "-wal")) {
        let name = log.name().as_bytes();
        let name = OsStr::from_bytes(&name[..name.len() - "-wal".len()]);
        let main = log.parent().unwrap_or_else(RelPath::root).join(name);
        if name.is_empty() || !tree.is_file(&main) || plain.binary_search(&main).is_err() {
            continue;
        }
        let path = tree.dir.at(&main);
        let users = process::users(&path.path())?;
        if users.is_empty() && !process::is_own(&path)? {
            continue;
        }
        let by = if users.is_empty() { "this process".to_owned() } else { process::names(&users) };
        refusals.push(Refusal {
            entry: main.to_string(),
            problem: format!(
                "{main} is in use by {by}, has a log beside it and is no database that is known \
                 here (encrypted?)"
            ),
            hint:
                "freeze the node (--freeze PID), stop it for the time of the backup, or leave both \
                   out"
                .to_owned(),
            kind: Kind::Conflict,
        });
    }
    Ok(())
}
