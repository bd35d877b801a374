//! The crates of the workspace, and that none of them steps out of its lints.

use std::collections::BTreeSet;

use super::{Problem, Tree};

/// A crate earns its place by different dependencies, another audience or special build flags.
const CRATES: &[&str] = &[
    "crates/highwater",
    "crates/highwater-cli",
    "crates/highwater-guard",
    "crates/highwater-nodes",
    "crates/highwater-server",
    "crates/highwater-sim",
    "xtask",
];

/// Crates with a workspace of their own: what they link can't be linked into a program of this one, or is
/// much and of no use to it, or is built by another toolchain. They inherit no lints, so they state them.
const APART: &[&str] = &[
    "examples/fiber-node",
    "examples/rocksdb-binding",
    "examples/tmkms-state",
    "examples/vss-clients",
    "fuzz",
];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    const ROOT: &str = "Cargo.toml";
    let Some(root) = tree.file(ROOT) else {
        return vec![Problem::new(ROOT, 1, "missing")];
    };
    let mut problems = Vec::new();
    let listed = members(&root.text);
    let known: BTreeSet<&str> = CRATES.iter().copied().collect();
    if listed != known {
        let message = format!("the members are {listed:?}, the crates that are known {known:?}");
        problems.push(Problem::new(ROOT, 1, message));
    }
    for file in &tree.files {
        let Some(home) = file.path.strip_suffix("/Cargo.toml") else { continue };
        if APART.contains(&home) {
            if value(&file.text, "lints.rust", "unsafe_code") != Some("\"forbid\"") {
                problems.push(Problem::new(&file.path, 1, "it must forbid unsafe code"));
            }
            continue;
        }
        if !known.contains(home) {
            problems.push(Problem::new(&file.path, 1, "a crate that is not known"));
        }
        if value(&file.text, "lints", "workspace") != Some("true") {
            problems.push(Problem::new(&file.path, 1, "`[lints] workspace = true` is missing"));
        }
    }
    if value(&root.text, "workspace.lints.rust", "unsafe_code") != Some("\"forbid\"") {
        problems.push(Problem::new(ROOT, 1, "the workspace must forbid unsafe code"));
    }
    problems
}

/// The strings of `members = [...]`.
fn members(text: &str) -> BTreeSet<&str> {
    let Some((_, rest)) = text.split_once("\nmembers") else { return BTreeSet::new() };
    let list = rest.split_once(']').map_or(rest, |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

/// The value of `key` in `[table]`, as written.
fn value<'a>(text: &'a str, table: &str, key: &str) -> Option<&'a str> {
    let header = format!("[{table}]");
    let mut lines = text.lines().skip_while(|line| line.trim() != header).skip(1);
    lines.by_ref().take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim())
    })
}
