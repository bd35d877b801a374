//! Entry points: the files without which no database of a directory opens; and what stands in the
//! place of one that is withheld.
//!
//! A directory with a note in it takes its place, so that nothing opens, replaces or deletes it:
//! an entry point that was absent would be taken for a database that has to be created.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::Statx;
use rustix::io::Errno;

use crate::durable::{self, Inode};
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::node::OWN_DIR;
use crate::rooted::{Owner, RootedPath};

/// The note inside a placeholder.
const NOTE: &str = "withheld-by-highwater";
/// What a file system keeps at its root for itself.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";
/// The numbers at the beginning of Berkeley DB's B-trees, hashes and queues.
const BERKELEY_MAGICS: [u32; 3] = [0x0005_3162, 0x0006_1561, 0x0004_2253];
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

/// The entry points of the databases in a directory, as far as they can be found by looking.
#[derive(Debug, Default)]
pub(crate) struct EntryPoints {
    /// Those that are there, a main file before its logs.
    pub(crate) present: BTreeSet<RelPath>,
    /// The placeholders of those that are withheld.
    pub(crate) withheld: BTreeSet<RelPath>,
}

/// Looks for entry points: those that bring a database to life, and those that would do so without
/// it (SQLite's logs). `named` are known by other means, as far as they are there.
pub(crate) fn find(root: &RootedPath, named: &[RelPath]) -> Result<EntryPoints> {
    let own = RelPath::root().join(OsStr::new(OWN_DIR));
    let (mut files, mut withheld) = (BTreeSet::new(), BTreeSet::new());
    walk(root, &mut |path, found, _| {
        if durable::is_file(found) && !path.is_within(&own) {
            match path.parent() {
                Some(placeholder) if path.name() == NOTE && placeholder != RelPath::root() => {
                    withheld.insert(placeholder);
                }
                _ => drop(files.insert(path.clone())),
            }
        }
        Ok(())
    })?;
    let manifests: BTreeSet<RelPath> = files
        .iter()
        .filter(|path| path.name().as_encoded_bytes().starts_with(b"MANIFEST-"))
        .filter_map(RelPath::parent)
        .collect();
    let mut present = BTreeSet::new();
    for path in &files {
        let is_point = named.contains(path)
            || match path.parent() {
                Some(parent) if is_pointer(path.name()) => manifests.contains(&parent),
                _ => opens_database(&root.at(path))?,
            };
        if is_point {
            present.extend(logs(path).filter(|log| files.contains(log)));
            present.insert(path.clone());
        }
    }
    Ok(EntryPoints { present, withheld })
}

fn logs(main: &RelPath) -> impl Iterator<Item = RelPath> + '_ {
    LOGS.iter().map(move |suffix| {
        let name = [main.name().as_bytes(), suffix.as_bytes()].concat();
        main.parent().unwrap_or_else(RelPath::root).join(OsStr::from_bytes(&name))
    })
}

/// Whether a file names the MANIFEST that counts: of RocksDB, LevelDB, or Pebble.
fn is_pointer(name: &OsStr) -> bool {
    name == "CURRENT" || name.as_encoded_bytes().starts_with(b"marker.manifest.")
}

/// The name of the part whose database an entry point opens: its directory where it always has the
/// same name, else its main file.
pub(super) fn part_of(point: &RelPath, present: &BTreeSet<RelPath>) -> String {
    let owner = match point.name().as_bytes() {
        b"MANIFEST" => point.parent().unwrap_or_else(RelPath::root),
        _ if is_pointer(point.name()) => point.parent().unwrap_or_else(RelPath::root),
        _ => {
            let main = present.iter().find(|main| logs(main).any(|log| log == *point));
            main.unwrap_or(point).clone()
        }
    };
    match owner.to_string().as_str() {
        "" => ".".to_owned(),
        // The plain files have that name for themselves.
        "files" => "./files".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether a file begins as the main file of a database does. One that this user may not read might.
fn opens_database(path: &RootedPath) -> Result<bool> {
    let wrong = |error| durable::met(path, "read", error);
    let file = match path.open_file() {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(true),
        // Gone since the look, or no file any more.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput
            ) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(wrong(error)),
    };
    let mut head = Vec::with_capacity(32);
    file.take(32).read_to_end(&mut head).map_err(wrong)?;
    let word = |at: usize| head.get(at..at + 4);
    let berkeley = |word: &[u8]| {
        BERKELEY_MAGICS
            .iter()
            .any(|magic| word == magic.to_le_bytes() || word == magic.to_be_bytes())
    };
    Ok(head.starts_with(b"SQLite format 3\0")
        || head.starts_with(b"redb\x1A\x0A\xA9\x0D\x0A")
        || head.starts_with(b"Bdgr")
        || matches!(word(16), Some(b"\xDE\xC0\xEF\xBE" | b"\xED\xDA\x0C\xED"))
        || head.get(21..28) == Some(b"\x11\x4C\xEF\xBD\x9D\x65\x59")
        || word(12).is_some_and(berkeley))
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

/// Whether a placeholder stands at `place`.
pub(crate) fn is_placeholder(place: &RootedPath) -> Result<bool> {
    let dir = durable::stat(place)?.is_some_and(|found| durable::is_dir(&found));
    Ok(dir && durable::stat(&place.join(NOTE))?.is_some())
}
