//! Which module of the library may use which: arrows point down only. Test code may look up.

use super::rust::{Rust, is_word};
use super::{Problem, Tree};

pub(super) const SOURCE: &str = "crates/highwater/src/";
/// The replica's crate, whose modules have no levels: no two of them may use one another.
pub(super) const REPLICA: &str = "crates/highwater-replica/src/";

/// What each module of the library may use besides itself.
const MODULES: &[(&str, &[&str])] = &[
    // No program calls it.
    ("fuzzing", &["archive", "engine", "guard", "kit", "restore", "vault"]),
    ("error", &[]),
    ("time", &["error"]),
    ("env", &["error", "time"]),
    ("ids", &["error", "env", "time"]),
    ("records", &["error", "ids"]),
    ("control", &["error", "ids", "env"]),
    ("rooted", &["error", "ids"]),
    ("copying", &["error"]),
    ("direct", &["rooted"]),
    ("durable", &["error", "rooted"]),
    ("node", &["error", "ids", "env", "durable", "rooted"]),
    ("kit", &["error", "ids", "env", "durable", "node", "rooted", "vault"]),
    // `guard` wraps a place of the witness that `vault` knows how to keep.
    ("guard", &["error", "ids", "env", "control", "durable", "node", "rooted", "engine", "vault"]),
    (
        "engine",
        &["error", "ids", "env", "control", "copying", "durable", "node", "rooted", "records"],
    ),
    ("vault", &["error", "ids", "env", "control", "direct", "records"]),
    (
        "agent",
        &[
            "error", "ids", "env", "control", "durable", "node", "rooted", "guard", "engine",
            "vault", "backup", "restore",
        ],
    ),
    ("archive", &["error", "ids", "env", "control", "direct", "durable", "vault"]),
    ("backup", &["error", "ids", "env", "control", "node", "rooted", "guard", "engine", "vault"]),
    (
        "restore",
        &[
            "error", "ids", "env", "control", "copying", "direct", "durable", "node", "rooted",
            "guard", "engine", "vault",
        ],
    ),
];

/// What the root of the crate re-exports, and from where.
const ROOT: &[(&str, &str)] = &[
    ("Control", "control"),
    ("Env", "env"),
    ("Error", "error"),
    ("Kind", "error"),
    ("Result", "error"),
];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, rust) in tree.rust() {
        let Some(inside) = file.path.strip_prefix(SOURCE) else { continue };
        if inside == "lib.rs" {
            continue;
        }
        let module: Vec<&str> = module_of(inside);
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module[0]) else {
            let message = format!("module `{}` has no place among the arrows", module[0]);
            problems.push(Problem::new(&file.path, 1, message));
            continue;
        };
        for (at, path) in paths(rust, &module) {
            if rust.in_test(at) || permitted(module[0], allowed, &path) {
                continue;
            }
            let message = format!("`{}` must not use `crate::{}`", module[0], path.join("::"));
            problems.push(Problem::new(&file.path, rust.line(at), message));
        }
    }
    problems
}

/// `vault/local.rs` is `[vault, local]`; `vault/mod.rs` is `[vault]`.
pub(super) fn module_of(inside: &str) -> Vec<&str> {
    let stem = inside.trim_end_matches(".rs");
    stem.strip_suffix("/mod").unwrap_or(stem).split('/').collect()
}

fn permitted(module: &str, allowed: &[&str], path: &[String]) -> bool {
    let first = path[0].as_str();
    let target = ROOT.iter().find(|(name, _)| *name == first).map_or(first, |(_, home)| home);
    target == module || allowed.contains(&target)
}

/// Every path that leaves the file by `crate::` or `super::`, from the root of the crate.
pub(super) fn paths(rust: &Rust, module: &[&str]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in rust.places("crate::") {
        expand(&rust.code[at + "crate::".len()..], &[], at, &mut found);
    }
    for at in rust.places("super::") {
        // The tail of `super::super::` was counted with its head.
        if rust.code[..at].ends_with("::") {
            continue;
        }
        let mut rest = &rust.code[at..];
        let mut up = 0usize;
        while let Some(tail) = rest.strip_prefix("super::") {
            rest = tail;
            up += 1;
        }
        let up = up.saturating_sub(rust.inline_depth(at));
        if up == 0 {
            continue;
        }
        let kept = module.len().saturating_sub(up);
        let base: Vec<String> = module[..kept].iter().map(|name| name.to_string()).collect();
        expand(rest, &base, at, &mut found);
    }
    found.retain(|(_, path)| !path.is_empty());
    found
}

/// Expands `a::{b, c::d}` after `base`.
fn expand(text: &str, base: &[String], at: usize, found: &mut Vec<(usize, Vec<String>)>) {
    let mut path = base.to_vec();
    let mut rest = text.trim_start();
    loop {
        let word: String = rest.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect();
        if word.is_empty() {
            break;
        }
        rest = &rest[word.len()..];
        path.push(word);
        match rest.strip_prefix("::") {
            Some(tail) => rest = tail,
            None => return found.push((at, path)),
        }
    }
    match rest.as_bytes().first() {
        Some(b'{') => {
            for branch in branches(rest) {
                if branch.trim_start().starts_with("self") {
                    found.push((at, path.clone()));
                } else {
                    expand(branch, &path, at, found);
                }
            }
        }
        Some(b'*') => {
            path.push("*".into());
            found.push((at, path));
        }
        _ => found.push((at, path)),
    }
}

/// The parts of `{a, b::{c, d}}` at its first level.
fn branches(text: &str) -> Vec<&str> {
    let mut branches = Vec::new();
    let (mut depth, mut begin) = (0usize, 1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if (byte == b',' && depth == 1) || depth == 0 {
            branches.push(&text[begin..at]);
            begin = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    branches.retain(|branch| !branch.trim().is_empty());
    branches
}
