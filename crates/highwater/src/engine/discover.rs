//! Finds the parts of a node directory: a walk that follows no link, then the recognition of
//! databases by their files, then everything else.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::engines::{Database, NodeUse};
use super::found::{NodeKind, Tree};
use super::metadata::Stamp;
use super::{DiscoverOptions, EngineKind, Layout};
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;
use crate::{durable, node};

mod links;
mod sniff;

pub(crate) use sniff::in_files;

/// Directories deeper than this are no node's.
const DEPTH_MAX: usize = 64;

/// Highwater's own directory in a node directory.
const OWN_DIR: &str = ".highwater";
/// How the names of its work directories begin.
const WORK_PREFIX: &[u8] = b".highwater-";

/// How the names of its scratch directories begin, before an id of 16 hex digits.
const SCRATCH_PREFIXES: [&[u8]; 3] =
    [b".highwater-checkpoint-", b".highwater-freeze-", b".highwater-sqlite-"];

/// The name of the part that holds the plain files.
const FILES: &str = "files";

/// Finds the parts of `dir`.
pub(super) fn discover(dir: &Path, options: &DiscoverOptions) -> Result<Layout> {
    find(dir, options, NodeUse::Running)
}

/// The same in a node that stands still, or is about to: who uses a file is not a reason to refuse it,
/// and every file is taken as it is.
pub(super) fn discover_still(dir: &Path, options: &DiscoverOptions) -> Result<Layout> {
    find(dir, options, NodeUse::Still)
}

fn find(dir: &Path, options: &DiscoverOptions, node: NodeUse) -> Result<Layout> {
    let dir = RootedPath::open(dir).map_err(|error| match error.kind() {
        crate::Kind::NotFound => {
            Error::not_found(format!("there is no directory {}", dir.display()))
        }
        _ => error,
    })?;
    node::refuse_link(&dir)?;
    let mut globs = Globs::new(&options.exclude)?;
    let mut tree = Tree::new(&dir);
    walk(&mut tree, &RelPath::root(), 0, &mut globs)?;

    let mut refusals = Vec::new();
    let mut parts = sniff::databases(&tree, &options.engines)?.parts;
    // What belongs to a database never becomes a plain file, and no glob takes a single file out of
    // one: a database without its log would restore without its last writes.
    let claimed: BTreeSet<RelPath> =
        parts.iter().flat_map(|part| part.entries.iter().cloned()).collect();
    parts.retain(|part| !globs.excludes(&part.root));
    let plain: Vec<RelPath> = tree
        .nodes
        .keys()
        .filter(|path| !claimed.contains(*path) && !globs.excludes(path))
        .cloned()
        .collect();
    let mut notes = globs.unmatched();
    links::check(&tree, &plain, options, &mut refusals)?;
    sniff::overwritten(&tree, &plain, &mut refusals);
    if node == NodeUse::Running {
        sniff::unknown_logs(&tree, &plain, &mut refusals)?;
        sniff::mapped(&tree, &plain, &mut refusals)?;
    }
    for part in &parts {
        let engine = options.engines.of(part)?;
        refusals.extend(engine.refusals(&Database { dir: &dir, part, engine }, node)?);
    }
    notes.extend(sniff::backups(&tree, &plain));
    parts.push(tree.part(FILES.to_owned(), EngineKind::FILES, RelPath::root(), plain));
    Ok(Layout { dir: dir.path(), held: dir, parts, refusals, notes, options: options.clone() })
}

/// All that stands at and below `roots` now and is not left out, with the stamp of each file.
pub(super) fn inside(layout: &Layout, roots: &[RelPath]) -> Result<Vec<(RelPath, Option<Stamp>)>> {
    let mut globs = Globs::new(&layout.options.exclude)?;
    let mut found = Vec::new();
    for root in roots {
        let seen = layout.held.at(root).stat();
        let seen =
            seen.map_err(|errno| Error::io("can't look at it", errno).with_entry(shown(root)))?;
        if let Some(seen) = seen.filter(|_| !globs.excludes(root)) {
            look_inside(&layout.held, root, 0, &seen, &mut globs, &mut found)?;
        }
    }
    Ok(found)
}

fn look_inside(
    dir: &RootedPath,
    path: &RelPath,
    depth: usize,
    seen: &Statx,
    globs: &mut Globs,
    found: &mut Vec<(RelPath, Option<Stamp>)>,
) -> Result<()> {
    refuse_deep(path, depth)?;
    let kind = FileType::from_raw_mode(seen.stx_mode.into());
    found.push((path.clone(), (kind == FileType::RegularFile).then(|| Stamp::of(seen))));
    if kind != FileType::Directory {
        return Ok(());
    }
    let failed = |errno: Errno| Error::io("can't list it", errno).with_entry(shown(path));
    let (held, names) = match dir.at(path).enter().and_then(|held| Ok((held.names()?, held))) {
        Ok((names, held)) => (held, names),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    for name in names {
        let Some(seen) = held.join(&name).stat().map_err(failed)? else { continue };
        let inner = path.join(&name);
        if !is_own(&inner, dir)? && !globs.excludes(&inner) {
            look_inside(dir, &inner, depth + 1, &seen, globs, found)?;
        }
    }
    Ok(())
}

fn refuse_deep(dir: &RelPath, depth: usize) -> Result<()> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    let problem = format!("{dir} lies more than {DEPTH_MAX} directories deep");
    Err(Error::input(problem).with_entry(dir.to_string()))
}

fn walk(tree: &mut Tree, dir: &RelPath, depth: usize, globs: &mut Globs) -> Result<()> {
    refuse_deep(dir, depth)?;
    let failed = |errno: Errno| Error::io("can't list it", errno).with_entry(shown(dir));
    // Held, so that all that is listed is of one directory.
    let (held, names) = match tree.dir.at(dir).enter().and_then(|held| Ok((held.names()?, held))) {
        Ok((names, held)) => (held, names),
        // A running node removes directories at any time, and may put something else there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if depth > 0 => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    for name in names {
        // A running node removes files at any time.
        let Some(seen) = held.join(&name).stat().map_err(failed)? else { continue };
        let inner = dir.join(&name);
        let kind = match FileType::from_raw_mode(seen.stx_mode.into()) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Dir,
            FileType::Symlink => NodeKind::Link,
            _ => NodeKind::Other,
        };
        if kind == NodeKind::Dir && (is_own(&inner, &tree.dir)? || globs.excludes(&inner)) {
            continue;
        }
        tree.insert(inner.clone(), kind, seen.stx_size);
        if kind == NodeKind::Dir {
            walk(tree, &inner, depth + 1, globs)?;
        }
    }
    Ok(())
}

/// Highwater's own directories are part of no node: `.highwater` itself, those in which a capture
/// makes a copy or a checkpoint, and the work directory of a restore beside a directory inside.
fn is_own(path: &RelPath, dir: &RootedPath) -> Result<bool> {
    if path.as_bytes() == OWN_DIR.as_bytes() {
        return Ok(true);
    }
    let name = path.name().as_bytes();
    let scratch = SCRATCH_PREFIXES.iter().any(|prefix| {
        name.strip_prefix(*prefix)
            .is_some_and(|id| id.len() == 16 && id.iter().all(u8::is_ascii_hexdigit))
    });
    if scratch || !name.starts_with(WORK_PREFIX) {
        return Ok(scratch);
    }
    let has = |file: &str| Ok(durable::stat(&dir.at(path).join(file))?.is_some());
    Ok(has("lock")? && (has("journal.json")? || has("kept.json")?))
}

/// A path as parts and messages name it.
fn shown(path: &RelPath) -> String {
    if *path == RelPath::root() { ".".to_owned() } else { path.to_string() }
}

/// A database's name; the plain files keep theirs for themselves.
pub(crate) fn part_name(root: &RelPath) -> String {
    let name = shown(root);
    if name == FILES { format!("./{name}") } else { name }
}

/// The globs of what is left out, and whether each has left something out.
struct Globs {
    globs: Vec<(String, GlobMatcher, bool)>,
}

impl Globs {
    /// `*` stays within a name, `**` does not; a glob without a slash fits a name at any depth.
    fn new(patterns: &[String]) -> Result<Globs> {
        let mut globs = Vec::new();
        for pattern in patterns {
            let whole = match pattern.trim_end_matches('/') {
                name if name.contains('/') => name.trim_start_matches('/').to_owned(),
                name => format!("**/{name}"),
            };
            let glob = GlobBuilder::new(&whole).literal_separator(true).build();
            let glob = glob.map_err(|source| {
                Error::input(format!("`{pattern}` is no glob: {}", source.kind()))
                    .with_entry(pattern.clone())
            })?;
            globs.push((pattern.clone(), glob.compile_matcher(), false));
        }
        Ok(Globs { globs })
    }

    /// Whether the entry, or a directory above it, is left out.
    fn excludes(&mut self, path: &RelPath) -> bool {
        let mut excluded = false;
        for (_, glob, used) in &mut self.globs {
            let mut above = Some(path.clone());
            while let Some(path) = above.filter(|path| *path != RelPath::root()) {
                if glob.is_match(path.as_path()) {
                    *used = true;
                    excluded = true;
                }
                above = path.parent();
            }
        }
        excluded
    }

    /// What is left out comes and goes: a glob that fits nothing today is not a reason to have no backup.
    fn unmatched(&self) -> Vec<String> {
        let idle = self.globs.iter().filter(|(_, _, used)| !used);
        let told = |pattern: &String| {
            format!(
                "the glob `{pattern}` leaves nothing out: globs fit paths inside the node directory, and a database is \
                 left out whole"
            )
        };
        idle.map(|(pattern, _, _)| told(pattern)).collect()
    }
}

#[cfg(test)]
mod tests;
