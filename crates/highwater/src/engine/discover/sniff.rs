//! Recognises databases: by the files of a directory, or by the first bytes of a file.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{NodeKind, Tree, part_name};
use crate::durable;
use crate::engine::rocksdb::FileName;
use crate::engine::{EngineKind, FoundPart, Refusal, lock, process};
use crate::error::{Kind, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// How much of a file is looked at.
const HEAD_BYTES: usize = 64;

/// The shortest beginning of a file by which an engine is known.
const MAGIC_BYTES_MIN: u64 = 9;
/// The shortest main file of any engine that is known: one page of SQLite's smallest. What is shorter
/// is looked into only where its name says that it was one, or a log of SQLite's lies beside it: a node
/// may have a hundred thousand small files.
const DATABASE_BYTES_MIN: u64 = 512;
/// How the names of databases end, those of SQLite's besides.
const DATABASE_SUFFIXES: [&str; 5] = [".mdb", ".mdbx", ".dat", ".redb", ".bolt"];
const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
const BADGER_MAGIC: &[u8] = b"Bdgr";
const LMDB_MAGIC: u32 = 0xBEEF_C0DE;
const BBOLT_MAGIC: u32 = 0xED0C_DAED;
const BBOLT_VERSION: u32 = 2;

/// The number in a libmdbx's first page, without the version in its lowest byte.
const MDBX_MAGIC: u64 = 0x59_659D_BDEF_4C11;
/// The numbers of Berkeley DB's B-trees, hashes, queues and logs, in the byte order of the machine that
/// wrote them.
const BERKELEY_MAGICS: [u32; 4] = [0x0005_3162, 0x0006_1561, 0x0004_2253, 0x0004_0988];

/// The least of a file by which noise is told from anything else, and how many different bytes are in
/// so much of it: of noise some 251 of 256, of anything that people or programs write far fewer.
const PAGE_BYTES_MIN: u64 = 1024;
const NOISE_VALUES_MIN: usize = 235;

/// The files that SQLite keeps beside a database.
const SQLITE_SIBLINGS: [&str; 3] = ["-journal", "-shm", "-wal"];
/// Names by which a file that can't be looked into is taken for SQLite's.
const SQLITE_SUFFIXES: [&str; 3] = [".db", ".sqlite", ".sqlite3"];

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Head {
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
        if claimed.contains(dir)
            && parts
                .iter()
                .any(|part: &FoundPart| part.engine.is_tree() && dir.is_within(&part.root))
        {
            continue;
        }
        let engine = match directory_engine(names) {
            Some(engine) => Some(engine),
            None => by_heads(tree, dir, names)?,
        };
        if let Some(engine) = engine {
            let entries = entries_of(tree, engine, dir, names);
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
    // The newer ones have no CURRENT, the older ones look like RocksDB's.
    if role(FileName::Manifest) && has(names, is_pebbles) {
        return Some(EngineKind::Pebble);
    }
    if !role(FileName::Current) || !role(FileName::Manifest) {
        return None;
    }
    let rocksdb = role(FileName::Options) || role(FileName::Identity);
    Some(if rocksdb { EngineKind::RocksDb } else { EngineKind::LevelDb })
}

/// What of a directory is its database's, the directory first.
fn entries_of(
    tree: &Tree,
    engine: EngineKind,
    dir: &RelPath,
    names: &BTreeSet<OsString>,
) -> Vec<RelPath> {
    let mut entries: Vec<RelPath> = if engine.is_tree() {
        let inside = |path: &&RelPath| path.is_within(dir) && *path != dir;
        tree.nodes.keys().filter(inside).cloned().collect()
    } else {
        names.iter().filter(|name| belongs(engine, name)).map(|name| dir.join(name)).collect()
    };
    if *dir != RelPath::root() {
        entries.insert(0, dir.clone());
    }
    entries
}

/// Databases that are known by names together with the beginning of a file.
fn by_heads(tree: &Tree, dir: &RelPath, names: &BTreeSet<OsString>) -> Result<Option<EngineKind>> {
    let has = |name: &str| names.contains(OsStr::new(name));
    let begins = |name: &str, with: &[u8]| -> Result<bool> {
        let place = tree.dir.at(&dir.join(OsStr::new(name)));
        // One that this process has open is the database's by its neighbours.
        Ok(beginning(&place)?.is_none_or(|head| head.starts_with(with)))
    };
    if has("metadata") && has("lock") && begins("metadata", b"version=")? {
        return Ok(Some(EngineKind::ParityDb));
    }
    if has("conf") && has("db") && begins("conf", b"segment_size:")? {
        return Ok(Some(EngineKind::Sled));
    }
    let journals = tree.nodes.contains_key(&dir.join(OsStr::new("journals")));
    if has("version") && journals && begins("version", b"FJL")? {
        return Ok(Some(EngineKind::Fjall));
    }
    badger(tree, dir, names)
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

/// Whether a name is that of one of Pebble's markers.
fn is_pebbles(name: &OsStr) -> bool {
    let markers: [&[u8]; 2] = [b"marker.manifest.", b"marker.format-version."];
    markers.iter().any(|marker| name.as_bytes().starts_with(marker))
}

/// Whether a file of a database's directory is the database's, by its name.
pub(super) fn belongs(engine: EngineKind, name: &OsStr) -> bool {
    match engine {
        EngineKind::Pebble => {
            FileName::of(name).is_some() || name.as_bytes().starts_with(b"marker.")
        }
        EngineKind::ParityDb => {
            let prefixes: [&[u8]; 3] = [b"table_", b"index_", b"log"];
            name == "metadata"
                || name == "lock"
                || prefixes.iter().any(|prefix| name.as_bytes().starts_with(prefix))
        }
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
    let named = SQLITE_SUFFIXES.iter().any(|suffix| ends(path.name(), suffix));
    let called = named || DATABASE_SUFFIXES.iter().any(|suffix| ends(path.name(), suffix));
    let whole = node.size >= DATABASE_BYTES_MIN || called || !siblings.is_empty();
    if node.size < MAGIC_BYTES_MIN || !whole {
        return Ok(None);
    }
    Ok(match head(&tree.dir.at(path))? {
        Head::Database(EngineKind::Sqlite) => sqlite(siblings),
        Head::Database(engine @ (EngineKind::Lmdb | EngineKind::Mdbx)) => {
            let place = tree.dir.at(path);
            let lock = lock::lock_beside(&place, engine);
            let lock =
                lock.map(|lock| path.parent().unwrap_or_else(RelPath::root).join(lock.name()));
            let lock = lock.filter(|lock| tree.is_file(lock));
            Some((engine, [path.clone()].into_iter().chain(lock).collect()))
        }
        Head::Database(engine) => Some((engine, vec![path.clone()])),
        Head::Ours => {
            if named || !siblings.is_empty() {
                sqlite(siblings)
            } else {
                None
            }
        }
        Head::Plain if encrypted(tree, path, &siblings)? => {
            let mut entries = vec![path.clone()];
            entries.extend(siblings);
            entries.sort();
            Some((EngineKind::EncryptedSqlite, entries))
        }
        Head::BadgerManifest | Head::Plain | Head::Denied => None,
    })
}

/// Whether a file that nothing is known of looks like a SQLite that is encrypted as a whole: by its name
/// or what lies beside it one of SQLite's, of whole pages, and like noise from its first byte on.
fn encrypted(tree: &Tree, path: &RelPath, siblings: &[RelPath]) -> Result<bool> {
    let size = tree.nodes[path].size;
    let named = SQLITE_SUFFIXES.iter().any(|suffix| ends(path.name(), suffix));
    if !named && siblings.is_empty() || size < PAGE_BYTES_MIN || !size.is_multiple_of(512) {
        return Ok(false);
    }
    let Ok(file) = tree.dir.at(path).open_file() else { return Ok(false) };
    let mut page = [0; PAGE_BYTES_MIN as usize];
    if file.read_exact_at(&mut page, 0).is_err() {
        return Ok(false);
    }
    let distinct: BTreeSet<u8> = page.iter().copied().collect();
    Ok(distinct.len() >= NOISE_VALUES_MIN)
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

/// The first bytes of a file; `None` where this process has it open. Of one that can't be read, none.
fn beginning(path: &RootedPath) -> Result<Option<Vec<u8>>> {
    if process::is_own(path)? {
        return Ok(None);
    }
    let Ok(file) = path.open_file() else { return Ok(Some(Vec::new())) };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(|error| durable::met(path, "read", error))?;
    Ok(Some(head))
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

pub(in crate::engine) fn recognise(bytes: &[u8]) -> Head {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        word.map(u32::from_le_bytes)
    };
    let double = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map(u64::from_le_bytes)
    };
    if is_sqlite(bytes) {
        Head::Database(EngineKind::Sqlite)
    } else if bytes.starts_with(REDB_MAGIC) {
        Head::Database(EngineKind::Redb)
    } else if word(16) == Some(LMDB_MAGIC) {
        Head::Database(EngineKind::Lmdb)
    } else if word(16) == Some(BBOLT_MAGIC) && word(20) == Some(BBOLT_VERSION) {
        Head::Database(EngineKind::Bbolt)
    } else if double(20).is_some_and(|word| word >> 8 == MDBX_MAGIC) {
        Head::Database(EngineKind::Mdbx)
    } else if word(12).is_some_and(|word| {
        BERKELEY_MAGICS.iter().any(|&magic| word == magic || word.swap_bytes() == magic)
    }) {
        Head::Database(EngineKind::BerkeleyDb)
    } else if bytes.starts_with(BADGER_MAGIC) {
        Head::BadgerManifest
    } else {
        Head::Plain
    }
}

/// Refuses a SQLite whose main file is empty while a log lies beside it: what is in the log is what is
/// left of it, and SQLite removes the log with whoever opens the database. Only the first transaction
/// of a database in use looks so.
pub(super) fn emptied(tree: &Tree, part: &FoundPart) -> Result<Option<Refusal>> {
    let size = |path: &RelPath| tree.nodes.get(path).map_or(0, |node| node.size);
    if part.engine != EngineKind::Sqlite || size(&part.root) > 0 {
        return Ok(None);
    }
    let (log, journal) = (size(&beside(&part.root, "-wal")), size(&beside(&part.root, "-journal")));
    let main = tree.dir.at(&part.root);
    let begun = || Ok(process::is_own(&main)? || lock::sqlite_held(&main)?);
    if log == 0 && (journal == 0 || begun()?) {
        return Ok(None);
    }
    Ok(Some(Refusal {
        entry: part.name.clone(),
        problem: format!(
            "{} is empty, and a log of {} bytes lies beside it, which SQLite would remove with whoever \
             opens the database next",
            part.name,
            log.max(journal)
        ),
        hint: "copy the log to a safe place before anything opens the database, find out what emptied \
               it, and restore it; or leave both out with an exclude glob"
            .to_owned(),
        kind: Kind::Corrupt,
    }))
}

/// Refuses a page file whose lock file lies beside it while it begins as no database does: it was one.
pub(super) fn overwritten(tree: &Tree, plain: &[RelPath], refusals: &mut Vec<Refusal>) {
    for path in plain {
        let lock = match path.name().to_str() {
            Some("data.mdb") => "lock.mdb",
            Some("mdbx.dat") => "mdbx.lck",
            _ => continue,
        };
        let lock = path.parent().unwrap_or_else(RelPath::root).join(OsStr::new(lock));
        if !tree.is_file(path) || !tree.is_file(&lock) {
            continue;
        }
        refusals.push(Refusal {
            entry: path.to_string(),
            problem: format!(
                "{path} is called as the main file of a database is, its lock file lies beside it, and it \
                 begins as no database does: it may have been overwritten"
            ),
            hint: "restore it from a snapshot; or leave both out with an exclude glob".to_owned(),
            kind: Kind::Corrupt,
        });
    }
}

/// Refuses plain files that a process writes through memory: a copy would be of several instants, and no
/// time tells.
pub(super) fn mapped(tree: &Tree, plain: &[RelPath], refusals: &mut Vec<Refusal>) -> Result<()> {
    for user in process::mapped_for_writing(&tree.dir.path())? {
        if plain.binary_search(&user.file).is_err() || !tree.is_file(&user.file) {
            continue;
        }
        refusals.push(Refusal {
            entry: user.file.to_string(),
            problem: format!("{} is written through memory by {user}", user.file),
            hint: "stop the node for the time of the backup, or leave the file out with an exclude glob"
                .to_owned(),
            kind: Kind::Conflict,
        });
    }
    Ok(())
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
