//! The crates of the workspace: that none of them steps out of its lints, and that each is ready to be
//! published, or says that it is not.

use std::collections::BTreeSet;

use super::{Problem, Tree};

/// A crate earns its place by different dependencies, another audience or special build flags.
const CRATES: &[&str] = &[
    "crates/highwater",
    "crates/highwater-bench",
    "crates/highwater-cli",
    "crates/highwater-gate",
    "crates/highwater-guard",
    "crates/highwater-nodes",
    "crates/highwater-replica",
    "crates/highwater-server",
    "crates/highwater-sim",
    "crates/highwater-vss",
    "xtask",
];

/// Crates with a workspace of their own: what they link can't be linked into a program of this one, or is
/// much and of no use to it, or is built by another toolchain. They inherit no lints, so they state them.
const APART: &[&str] = &[
    "bindings/uniffi",
    "examples/backup-restore",
    "examples/fiber-node",
    "examples/rocksdb-binding",
    "examples/tmkms-state",
    "examples/vss-clients",
    "fuzz",
];

/// What a registry shows of a crate, and what keeps its package small.
const PUBLISHED: &[&str] = &["description", "readme", "keywords", "categories", "include"];

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
        if value(&file.text, "package", "publish") != Some("false") {
            problems.extend(published(&file.path, &file.text));
        }
    }
    problems.extend(versions(&root.text));
    if value(&root.text, "workspace.lints.rust", "unsafe_code") != Some("\"forbid\"") {
        problems.push(Problem::new(ROOT, 1, "the workspace must forbid unsafe code"));
    }
    problems
}

/// What a crate lacks to be published.
fn published(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for key in PUBLISHED.iter().filter(|key| value(text, "package", key).is_none()) {
        let message = format!("`{key}` is missing; or say `publish = false`");
        problems.push(Problem::new(path, 1, message));
    }
    for (number, line) in text.lines().enumerate() {
        if line.contains("path = \"../") {
            let message = "a path without a version: take it from the workspace, which has both";
            problems.push(Problem::new(path, number + 1, message));
        }
    }
    problems
}

/// The crates depend on each other in the version that they all have.
fn versions(root: &str) -> Vec<Problem> {
    let ours = value(root, "workspace.package", "version").unwrap_or("none");
    let inside = root.lines().enumerate().filter(|(_, line)| line.contains("path = \"crates/"));
    let stale = inside.filter(|(_, line)| !line.contains(&format!("{{ version = {ours},")));
    stale
        .map(|(number, line)| {
            let name = line.split_whitespace().next().unwrap_or(line);
            let message = format!("`{name}` must have the version {ours}, that of the workspace");
            Problem::new("Cargo.toml", number + 1, message)
        })
        .collect()
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
