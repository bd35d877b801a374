//! Where node directories are worked in, files are reached by `crate::rooted` alone: a path would be
//! looked up again, and its owner may have exchanged what it leads to. `clippy.toml` knows no folders,
//! and the vault, whose directory nobody else may write, goes by paths.

use super::{Problem, Tree};

const SOURCE: &str = "crates/highwater/src/";

/// Where the rule holds.
const PLACES: &[&str] = &["engine", "restore", "guard", "node", "durable"];

/// Where it does not, and why.
const EXCEPT: &[(&str, &str)] = &[
    ("engine/conformance.rs", "a suite for tests"),
    ("engine/process.rs", "reads the kernel's own files"),
    ("engine/freeze/processes.rs", "reads the kernel's own files"),
    ("engine/discover/links.rs", "asks where a link of the node leads, for a message"),
    ("engine/sqlite/fuzzing.rs", "makes the files that SQLite is to open; no program calls it"),
    ("engine/rocksdb.rs", "compares the path of an option with that of the database"),
    ("restore/plan.rs", "looks up the vault's directory"),
];

/// What takes a path and acts on what is there.
const CALLS: &[&str] = &[
    "std::fs::read",
    "std::fs::write",
    "std::fs::metadata",
    "std::fs::symlink_metadata",
    "std::fs::rename",
    "std::fs::copy",
    "std::fs::hard_link",
    "std::fs::remove_",
    "std::fs::create_",
    "std::fs::set_permissions",
    "std::os::unix::fs::symlink",
    "std::os::unix::fs::chown",
    "std::os::unix::fs::lchown",
    "use std::fs;",
    "use std::fs::{",
    "File::open",
    "File::create",
    "File::options",
    "OpenOptions",
    "DirBuilder",
    ".exists()",
    ".canonicalize()",
    ".read_dir()",
    ".symlink_metadata()",
    "rustix::fs::open(",
    "rustix::fs::stat(",
    "rustix::fs::statvfs(",
    "rustix::fs::CWD",
];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, rust) in tree.rust() {
        let Some(inside) = file.path.strip_prefix(SOURCE) else { continue };
        let top = inside.split(['/', '.']).next().unwrap_or(inside);
        if !PLACES.contains(&top) || EXCEPT.iter().any(|(path, _)| *path == inside) {
            continue;
        }
        for call in CALLS {
            for (at, _) in rust.code.match_indices(call).filter(|(at, _)| !rust.in_test(*at)) {
                let message = format!("`{call}` goes by a path: use `crate::rooted`");
                problems.push(Problem::new(&file.path, rust.line(at), message));
            }
        }
    }
    problems
}
