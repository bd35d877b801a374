//! `docs/SUMMARY.md`, the order in which the site shows the documents: it lists each document of `docs/` once,
//! and each other one that a listed document leads to.

use std::collections::BTreeSet;

use super::links::{leads_to, links};
use super::{Problem, Tree};

pub(crate) const PATH: &str = "docs/SUMMARY.md";

/// The listed documents, by their paths from the root of the tree, with their lines.
pub(crate) fn documents(summary: &str) -> Vec<(usize, String)> {
    links(summary)
        .into_iter()
        .filter_map(|(line, target)| Some((line, leads_to(PATH, target)?)))
        .collect()
}

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(summary) = tree.file(PATH) else {
        return vec![Problem::new(PATH, 1, "missing: it orders the documents of the site")];
    };
    let mut problems = Vec::new();
    let mut listed = BTreeSet::from([PATH.to_string()]);
    for (line, path) in documents(&summary.text) {
        if listed.contains(&path) {
            problems.push(Problem::new(PATH, line, format!("`{path}` is listed already")));
        }
        listed.insert(path);
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        if !listed.contains(&file.path) {
            if file.path.starts_with("docs/") {
                let message = format!("`{PATH}` does not list it, so the site lacks it");
                problems.push(Problem::new(&file.path, 1, message));
            }
            continue;
        }
        for (line, target) in links(&file.text) {
            let Some(path) = leads_to(&file.path, target) else { continue };
            // Those of `docs/` are told of above.
            let other = path.ends_with(".md") && !path.starts_with("docs/");
            if other && !listed.contains(&path) {
                let message = format!("it leads to `{path}`, which `{PATH}` does not list");
                problems.push(Problem::new(&file.path, line, message));
            }
        }
    }
    problems
}
