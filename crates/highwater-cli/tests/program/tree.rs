//! Directory trees as values: read, compared and copied, whatever is in them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Every entry below a directory by its path; the directory itself is the empty path.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// An entry, with its permission bits where it has some of its own.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Dir(u32),
    File(u32, Vec<u8>),
    Link(PathBuf),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Dir(mode) => write!(f, "directory {mode:04o}"),
            Entry::File(mode, bytes) => {
                let sum = bytes.iter().fold(17u64, |sum, byte| {
                    sum.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(*byte)
                });
                write!(f, "file {mode:04o}, {} bytes ~{sum:016x}", bytes.len())
            }
            Entry::Link(to) => write!(f, "link to {}", to.display()),
        }
    }
}

/// The tree below `root`; `None` where there is nothing. Highwater's own directory is left out.
pub(crate) fn read(root: &Path) -> Option<Tree> {
    root.symlink_metadata().ok()?;
    let mut tree = Tree::new();
    collect(root, Path::new(""), &mut tree);
    Some(tree)
}

fn collect(root: &Path, below: &Path, tree: &mut Tree) {
    let path = if below == Path::new("") { root.to_path_buf() } else { root.join(below) };
    let found = path.symlink_metadata().unwrap();
    let mode = found.mode() & 0o7777;
    let entry = if found.is_symlink() {
        Entry::Link(fs::read_link(&path).unwrap())
    } else if found.is_dir() {
        for name in names(&path) {
            if below == Path::new("") && name == ".highwater" {
                continue;
            }
            collect(root, &below.join(name), tree);
        }
        Entry::Dir(mode)
    } else {
        Entry::File(mode, fs::read(&path).unwrap())
    };
    tree.insert(below.to_path_buf(), entry);
}

/// Copies a tree, Highwater's own directory included, with its modes.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        let (source, target) = (from.join(&name), to.join(&name));
        let found = source.symlink_metadata().unwrap();
        if found.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source).unwrap(), &target).unwrap();
        } else if found.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
    fs::set_permissions(to, fs::Permissions::from_mode(from.metadata().unwrap().mode())).unwrap();
}

/// The names in a directory, sorted; none where it is missing.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The regular files below a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(dir) {
        let path = dir.join(name);
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The two trees are equal; else only what differs is shown.
#[track_caller]
pub(crate) fn assert_equal(found: &Tree, expected: &Tree, what: &str) {
    let differs: Vec<String> = found
        .keys()
        .chain(expected.keys())
        .filter(|path| found.get(*path) != expected.get(*path))
        .map(|path| {
            format!("{}: {:?} instead of {:?}", path.display(), found.get(path), expected.get(path))
        })
        .collect();
    assert!(differs.is_empty(), "{what}: {differs:#?}");
}
