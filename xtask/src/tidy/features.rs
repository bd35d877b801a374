//! The guide's table of Cargo features: those of each crate, no more and no fewer, and which are on by default.

use std::collections::BTreeMap;

use super::{Problem, Tree};

const GUIDE: &str = "docs/guide.md";
const HEADER: &str = "| crate | feature | default |";

/// Of a crate's feature: whether it is on by default, and the line that says so.
type Features<'a> = BTreeMap<(&'a str, &'a str), (bool, usize)>;

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(guide) = tree.file(GUIDE) else {
        return vec![Problem::new(GUIDE, 1, "missing: it has the table of features")];
    };
    let told = table(&guide.text);
    let mut problems = Vec::new();
    let mut there = Features::new();
    for file in &tree.files {
        let home = file.path.strip_prefix("crates/");
        let Some(name) = home.and_then(|home| home.strip_suffix("/Cargo.toml")) else { continue };
        declared(name, &file.text, &mut there);
        for ((_, feature), (default, line)) in there.iter().filter(|((of, _), _)| *of == name) {
            let message = match told.get(&(name, feature)) {
                None => format!("{GUIDE} has no row for the feature `{feature}` of `{name}`"),
                Some((said, at)) if said != default => {
                    format!("{GUIDE}:{at} is wrong about the default of `{feature}`")
                }
                Some(_) => continue,
            };
            problems.push(Problem::new(&file.path, *line, message));
        }
    }
    for ((name, feature), (_, line)) in &told {
        if !there.contains_key(&(*name, *feature)) {
            let message = format!("`{name}` has no feature `{feature}`");
            problems.push(Problem::new(GUIDE, *line, message));
        }
    }
    problems
}

/// The rows of the table. A crate's name stands in the first of its rows alone.
fn table(text: &str) -> Features<'_> {
    let mut rows = Features::new();
    let mut name = "";
    let lines = text.lines().enumerate().skip_while(|(_, line)| !line.starts_with(HEADER));
    for (number, line) in lines.skip(2).take_while(|(_, line)| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, of, feature, default, ..] = cells.as_slice() else { continue };
        if !of.is_empty() {
            name = of;
        }
        rows.insert((name, feature), (*default == "yes", number + 1));
    }
    rows
}

/// Adds what `[features]` of a manifest declares, each feature on one line.
fn declared<'a>(name: &'a str, manifest: &'a str, features: &mut Features<'a>) {
    let lines = manifest.lines().enumerate().skip_while(|(_, line)| line.trim() != "[features]");
    let mut by_default: Vec<&str> = Vec::new();
    for (number, line) in lines.skip(1).take_while(|(_, line)| !line.starts_with('[')) {
        let Some((feature, list)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        match feature.trim() {
            "default" => by_default = list.split('"').skip(1).step_by(2).collect(),
            feature => {
                features.insert((name, feature), (false, number + 1));
            }
        }
    }
    for feature in by_default {
        if let Some((default, _)) = features.get_mut(&(name, feature)) {
            *default = true;
        }
    }
}
