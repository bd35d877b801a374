//! Entry points: the files without which no database of a directory opens; and what stands in the
//! place of one that is withheld.
//!
//! A directory with a note in it takes its place, so that nothing opens, replaces or deletes it:
//! an entry point that was absent would be taken for a database that has to be created.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::Statx;
use rustix::io::Errno;

use crate::durable::{self, Inode};
use crate::engine::{self, Engines};
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::node::OWN_DIR;
use crate::rooted::{Owner, RootedPath};

/// The note inside a placeholder.
const NOTE: &str = "withheld-by-highwater";
/// What a file system keeps at its root for itself.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";
/// What would bring a SQLite database back to life without its main file.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// Shows every entry of a node directory, a directory before what is in it, with what the file
/// system says of it and of its parent. Mount points are shown, not entered; what an operation keeps
/// inside the directory is not shown.
pub(crate) fn walk(
    root: &RootedPath,
    visit: &mut dyn FnMut(&RelPath, &Statx, &Statx) -> Result<()>,
) -> Result<()> {
    let Some(top) = durable::stat(root)? else { return Ok(()) };
    let skipped =
        [RelPath::from_bytes(b".highwater/restore")?, RelPath::from_bytes(b"lost+found")?];
    let mut open = vec![(RelPath::root(), top)];
    while let Some((dir, dir_stat)) = open.pop() {
        // Held, so that no name in it is looked up by its whole path.
        let place = root.at(&dir);
        let held = match place.enter() {
            Ok(held) => held,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(durable::met(&place, "open", errno)),
        };
        for name in durable::names(&held)? {
            let path = dir.join(&name);
            if skipped.contains(&path) {
                continue;
            }
            let Some(found) = durable::stat(&held.join(&name))? else { continue };
            visit(&path, &found, &dir_stat)?;
            if durable::is_dir(&found) && !durable::is_mount(&found, &dir_stat) {
                open.push((path, found));
            }
        }
    }
    Ok(())
}

/// By what entry points are known.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Paths that a snapshot tells, as far as they are there, and the names of the parts that they open.
    pub(crate) named: &'a [(RelPath, String)],
    /// The engines that recognise a database by looking.
    pub(crate) engines: &'a Engines,
}

impl<'a> Known<'a> {
    /// By looking alone.
    pub(crate) fn by(engines: &'a Engines) -> Known<'a> {
        Known { named: &[], engines }
    }
}

/// The entry points of the databases in a directory, as far as they can be found by looking.
#[derive(Debug, Default)]
pub(crate) struct EntryPoints {
    /// Those that are there, a main file before its logs, and the name of the part that each opens.
    pub(crate) present: BTreeMap<RelPath, String>,
    /// The placeholders of those that are withheld.
    pub(crate) withheld: BTreeSet<RelPath>,
}

/// Looks for entry points: those that bring a database to life, and those that would do so without it
/// (SQLite's logs). A file that this user may not read might be one.
pub(crate) fn find(root: &RootedPath, known: Known<'_>) -> Result<EntryPoints> {
    let Known { named, engines } = known;
    let own = RelPath::root().join(OsStr::new(OWN_DIR));
    let (mut files, mut withheld) = (BTreeMap::new(), BTreeSet::new());
    walk(root, &mut |path, found, _| {
        if durable::is_file(found) && !path.is_within(&own) {
            match path.parent() {
                Some(placeholder) if path.name() == NOTE && placeholder != RelPath::root() => {
                    withheld.insert(placeholder);
                }
                _ => drop(files.insert(path.clone(), found.stx_size)),
            }
        }
        Ok(())
    })?;
    let sizes = files.iter().map(|(path, size)| (path.clone(), *size));
    let recognised = engine::in_files(root, sizes, engines)?;
    let mut present = BTreeMap::new();
    let mut add = |point: &RelPath, part: &str| {
        for path in logs(point).filter(|log| files.contains_key(log)).chain([point.clone()]) {
            present.entry(path).or_insert_with(|| part.to_owned());
        }
    };
    for part in &recognised.parts {
        let points = engines.entry_points(part.engine, &part.root, part.entries.iter());
        points.iter().flatten().for_each(|point| add(point, &part.name));
    }
    let named = named.iter().filter(|(path, _)| files.contains_key(path));
    named.for_each(|(point, part)| add(point, part));
    recognised.possible.iter().for_each(|point| add(point, &engine::part_name(point)));
    Ok(EntryPoints { present, withheld })
}

fn logs(main: &RelPath) -> impl Iterator<Item = RelPath> + '_ {
    LOGS.iter().map(move |suffix| {
        let name = [main.name().as_bytes(), suffix.as_bytes()].concat();
        main.parent().unwrap_or_else(RelPath::root).join(OsStr::from_bytes(&name))
    })
}

/// Makes what stands in the place of an entry point, for `owner`, and tells its inode; `told` says how
/// the entry point comes back.
pub(crate) fn make_placeholder(
    place: &RootedPath,
    told: &str,
    owner: Option<Owner>,
) -> Result<Inode> {
    let note = format!("withheld by highwater: {told}\n");
    match owner {
        Some(owner) => {
            durable::make_dir_for(place, owner)?;
            durable::write_file_for(&place.join(NOTE), note.as_bytes(), owner)?;
        }
        None => {
            durable::make_dir(place)?;
            durable::write_file(&place.join(NOTE), note.as_bytes())?;
        }
    }
    durable::sync_dir(place)?;
    durable::inode(place)?.ok_or_else(|| Error::conflict("a placeholder vanished"))
}

/// Whether this is the path of the note inside a placeholder.
pub(super) fn is_note(path: &RelPath) -> bool {
    path.name() == NOTE && path.parent().is_some_and(|parent| parent != RelPath::root())
}

/// Whether a placeholder stands at `place`.
pub(crate) fn is_placeholder(place: &RootedPath) -> Result<bool> {
    let dir = durable::stat(place)?.is_some_and(|found| durable::is_dir(&found));
    Ok(dir && durable::stat(&place.join(NOTE))?.is_some())
}
