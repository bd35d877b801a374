//! Recognises databases: by the files of a directory, or by the first bytes of a file.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::part_name;
use crate::durable;
use crate::engine::engines::{Engine, Extent};
use crate::engine::found::{FoundDir, FoundFile, Head, Heads, NodeKind, Tree, ends};
use crate::engine::{EngineKind, Engines, FoundPart, lock, process, rocksdb};
use crate::error::{Error, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// The databases among the files of a directory.
#[derive(Debug, Default)]
pub(crate) struct Recognised {
    /// Each, by path.
    pub(crate) parts: Vec<FoundPart>,
    /// Further files by which one may open: those that this user may not read, and main files among those of
    /// another database.
    pub(crate) possible: Vec<RelPath>,
}

/// The databases among `files`, regular ones below `dir` and the directories that they lie in.
pub(crate) fn in_files(
    dir: &RootedPath,
    files: impl Iterator<Item = (RelPath, u64)>,
    engines: &Engines,
) -> Result<Recognised> {
    let mut tree = Tree::new(dir);
    tree.own = Some(process::own_files()?);
    for (path, size) in files {
        let mut above = path.parent();
        while let Some(dir) = above.filter(|dir| !tree.nodes.contains_key(dir)) {
            above = dir.parent();
            if dir != RelPath::root() {
                tree.insert(dir, NodeKind::Dir, 0);
            }
        }
        tree.insert(path, NodeKind::File, size);
    }
    let mut found = databases(&tree, engines)?;
    let roots: BTreeSet<&RelPath> = found.parts.iter().map(|part| &part.root).collect();
    let of_files: Vec<_> =
        engines.all().filter(|engine| engine.extent() == Extent::Files).collect();
    let mut possible = Vec::new();
    for (path, _) in tree
        .nodes
        .iter()
        .filter(|(path, node)| node.kind == NodeKind::File && !roots.contains(path))
    {
        let file = FoundFile::new(&tree, path);
        let mut point = *file.head()? == Head::Denied;
        for engine in &of_files {
            point = point || engine.is_main_file(&file)?;
        }
        if point {
            possible.push(path.clone());
        }
    }
    found.possible = possible;
    Ok(found)
}

/// The databases of a tree, by path.
pub(super) fn databases(tree: &Tree, engines: &Engines) -> Result<Recognised> {
    let mut parts = Vec::new();
    let mut claimed = BTreeSet::new();
    let mut trees: Vec<RelPath> = Vec::new();
    for (path, names) in &tree.files {
        if trees.iter().any(|root| path.is_within(root)) {
            continue;
        }
        let dir = FoundDir { tree, path, names };
        if let Some(engine) = directory_engine(&dir, engines)? {
            let entries = entries_of(&dir, engine.as_ref());
            claimed.extend(entries.iter().cloned());
            if engine.extent() == Extent::Tree {
                trees.push(path.clone());
            }
            parts.push(tree.part(part_name(path), engine.kind(), path.clone(), entries));
        }
    }
    let of_files: Vec<_> =
        engines.all().filter(|engine| engine.extent() == Extent::Files).collect();
    let mut heads = Heads::new(tree);
    let files = tree.nodes.iter().filter(|(_, node)| node.kind == NodeKind::File);
    let mut files = files.map(|(path, _)| path);
    loop {
        let some = files.by_ref().filter(|path| !claimed.contains(*path));
        let some: Vec<&RelPath> = some.take(Heads::FILES_MAX).collect();
        if some.is_empty() {
            break;
        }
        for file in heads.read(&some)? {
            let path = file.path();
            if claimed.contains(path) {
                continue;
            }
            let mut found = None;
            for engine in &of_files {
                if engine.is_main_file(&file)? {
                    found = Some(engine);
                    break;
                }
            }
            if let Some(engine) = found {
                let entries = with_files_beside(tree, path, engine.as_ref());
                claimed.extend(entries.iter().cloned());
                parts.push(tree.part(part_name(path), engine.kind(), path.clone(), entries));
            }
        }
    }
    parts.sort_by(|a, b| a.root.cmp(&b.root));
    Ok(Recognised { parts, possible: Vec::new() })
}

/// The database that a path is, looked at from outside a node directory (a link's target).
pub(super) fn database_at(path: &Path, engines: &Engines) -> Result<Option<EngineKind>> {
    let place = RootedPath::of(path)?;
    let Some(found) = durable::stat(&place)? else { return Ok(None) };
    if durable::is_file(&found) {
        let mut tree = Tree::new(&place.above());
        let main = RelPath::root().join(place.name());
        tree.insert(main.clone(), NodeKind::File, found.stx_size);
        let parts = databases(&tree, engines)?.parts;
        return Ok(parts.iter().find(|part| part.root == main).map(|part| part.engine));
    }
    // To open a device may do anything.
    if !durable::is_dir(&found) {
        return Ok(None);
    }
    let (mut tree, path) = (Tree::new(&place), RelPath::root());
    for name in durable::names(&place)? {
        // By its name: nothing in it is looked into that no engine asks for.
        tree.insert(path.join(&name), NodeKind::File, 0);
    }
    let names = &tree.files[&path];
    let dir = FoundDir { tree: &tree, path: &path, names };
    Ok(directory_engine(&dir, engines)?.map(|engine| engine.kind()))
}

fn directory_engine<'a>(
    dir: &FoundDir<'_>,
    engines: &'a Engines,
) -> Result<Option<&'a std::sync::Arc<dyn Engine>>> {
    for engine in engines.all().filter(|engine| engine.extent() != Extent::Files) {
        if engine.is_directory(dir)? {
            return Ok(Some(engine));
        }
    }
    Ok(None)
}

/// What of a directory is its database's, the directory first.
fn entries_of(dir: &FoundDir<'_>, engine: &dyn Engine) -> Vec<RelPath> {
    let path = dir.path();
    let mut entries: Vec<RelPath> = if engine.extent() == Extent::Tree {
        let inside = |inner: &&RelPath| inner.is_within(path) && *inner != path;
        dir.tree.nodes.keys().filter(inside).cloned().collect()
    } else {
        dir.files().filter(|name| engine.owns(name)).map(|name| path.join(name)).collect()
    };
    if *path != RelPath::root() {
        entries.insert(0, path.clone());
    }
    entries
}

/// A main file and what belongs to it beside it, sorted.
fn with_files_beside(tree: &Tree, main: &RelPath, engine: &dyn Engine) -> Vec<RelPath> {
    let above = main.parent().unwrap_or_else(RelPath::root);
    let beside = engine.beside(main.name()).into_iter().map(|name: OsString| above.join(&name));
    let mut entries: Vec<RelPath> = beside.filter(|path| tree.is_file(path)).collect();
    entries.push(main.clone());
    entries.sort();
    entries
}

/// Refuses a page file whose lock file lies beside it while it begins as no database does: it was one.
pub(super) fn overwritten(tree: &Tree, plain: &[RelPath], refusals: &mut Vec<Error>) {
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
        let problem = format!(
            "{path} is called as the main file of a database is, its lock file lies beside it, and it \
             begins as no database does: it may have been overwritten"
        );
        refusals.push(
            Error::corrupt(problem)
                .with_entry(path.to_string())
                .with_remedy("restore it from a snapshot")
                .with_remedy(Remedy::Exclude),
        );
    }
}

/// What is told of RocksDB's own backups, which are plain files.
pub(super) fn backups(tree: &Tree, plain: &[RelPath]) -> Vec<String> {
    let is_current = |path: &&RelPath| path.name() == "CURRENT";
    let above = plain.iter().filter(is_current).filter_map(RelPath::parent);
    let backups = above.filter(|path| rocksdb::is_backup(path, |path| tree.is_file(path)));
    backups
        .map(|path| format!("{path} is a backup by RocksDB's own means: captured as plain files"))
        .collect()
}

/// Refuses plain files that a process writes through memory: a copy would be of several instants, and no
/// time tells.
pub(super) fn mapped(tree: &Tree, plain: &[RelPath], refusals: &mut Vec<Error>) -> Result<()> {
    for user in process::mapped_for_writing(&tree.dir.path())? {
        if plain.binary_search(&user.file).is_err() || !tree.is_file(&user.file) {
            continue;
        }
        refusals.push(
            Error::conflict(format!("{} is written through memory by {user}", user.file))
                .with_entry(user.file.to_string())
                .with_remedy("stop the node for the time of the backup")
                .with_remedy(Remedy::Exclude),
        );
    }
    Ok(())
}

/// Refuses a file in use that has a `-wal` beside it and is no known database: an encrypted SQLite
/// looks so, and would be torn.
pub(super) fn unknown_logs(
    tree: &Tree,
    plain: &[RelPath],
    refusals: &mut Vec<Error>,
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
        let problem = format!(
            "{main} is in use by {by}, has a log beside it and is no database that is known here \
             (encrypted?)"
        );
        refusals.push(
            Error::conflict(problem)
                .with_entry(main.to_string())
                .with_remedies(lock::ways_out())
                .with_remedy(Remedy::Exclude),
        );
    }
    Ok(())
}
