//! Files of a library that use one another in a circle. A file and those in the directory of its name are
//! one house: what goes on between them is theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::arrows::{REPLICA, SOURCE, module_of, paths};
use super::{Problem, Tree};

/// Which files each file uses.
type Edges<'a> = BTreeMap<Vec<&'a str>, BTreeSet<Vec<&'a str>>>;

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    [SOURCE, REPLICA].iter().flat_map(|source| inside(tree, source)).collect()
}

/// Those of one crate.
fn inside(tree: &Tree, source: &str) -> Vec<Problem> {
    let mut files = BTreeMap::new();
    for (file, rust) in tree.rust() {
        let Some(inside) = file.path.strip_prefix(source) else { continue };
        let module = module_of(inside);
        // What only fuzzers and tests call may look up.
        if inside != "lib.rs" && !module.contains(&"fuzzing") {
            files.insert(module, (&file.path, rust));
        }
    }
    let mut edges = Edges::new();
    for (module, (_, rust)) in &files {
        let mut used = BTreeSet::new();
        for (_, path) in paths(rust, module).into_iter().filter(|(at, _)| !rust.in_test(*at)) {
            let known = |length: &usize| {
                files.keys().find(|known| known.len() == *length && path.starts_with_all(known))
            };
            let target = (1..=path.len()).rev().find_map(|length| known(&length));
            if let Some(target) = target.filter(|target| !is_one_house(module, target)) {
                used.insert(target.clone());
            }
        }
        edges.insert(module.clone(), used);
    }
    let circles = circles(&edges);
    let told = |circle: Vec<Vec<&str>>| {
        let names: Vec<String> = circle.iter().map(|module| module.join("/")).collect();
        let message = format!("files use one another in a circle: {}", names.join(", "));
        Problem::new(files[&circle[0]].0, 1, message)
    };
    circles.into_iter().map(told).collect()
}

/// Whether a path begins with all names of a module.
trait StartsWithAll {
    fn starts_with_all(&self, module: &[&str]) -> bool;
}

impl StartsWithAll for Vec<String> {
    fn starts_with_all(&self, module: &[&str]) -> bool {
        self.len() >= module.len() && self.iter().zip(module).all(|(name, known)| name == known)
    }
}

/// Whether one is the other, or lies in the directory of its name.
fn is_one_house(one: &[&str], other: &[&str]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Every set of files each of which reaches each other one.
fn circles<'a>(edges: &Edges<'a>) -> Vec<Vec<Vec<&'a str>>> {
    let reached: BTreeMap<_, _> = edges.keys().map(|file| (file, reach(file, edges))).collect();
    let mut found: BTreeSet<Vec<Vec<&str>>> = BTreeSet::new();
    for (file, reached_from) in &reached {
        let circle: Vec<Vec<&str>> =
            reached_from.iter().filter(|other| reached[other].contains(*file)).cloned().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// All files that one uses, directly or by others.
fn reach<'a>(from: &[&'a str], edges: &Edges<'a>) -> BTreeSet<Vec<&'a str>> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![from.to_vec()];
    while let Some(file) = pending.pop() {
        for next in edges.get(&file).into_iter().flatten() {
            if reached.insert(next.clone()) {
                pending.push(next.clone());
            }
        }
    }
    reached
}
