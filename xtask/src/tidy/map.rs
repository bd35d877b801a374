//! The map in ARCHITECTURE.md: every crate, and every module of the libraries that have tables, has its place, and
//! every place is that of something that is there.

use std::collections::BTreeSet;

use super::arrows::{REPLICA, SOURCE};
use super::{Problem, Tree};

const PATH: &str = "ARCHITECTURE.md";
const SECTION: &str = "## Code map";
/// The crates with a table of modules: how its heading begins, and where they are.
const TABLES: &[(&str, &str)] =
    &[("### `crates/highwater`:", SOURCE), ("### `crates/highwater-replica`:", REPLICA)];

/// What no program has, and the root.
const UNMAPPED: &[&str] = &["fuzzing", "lib", "tests"];

/// Something that the map names, and where.
type Named = Vec<(usize, String)>;

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(file) = tree.file(PATH) else {
        return vec![Problem::new(PATH, 1, "missing: it has the map of the code")];
    };
    let lines: Vec<(usize, &str)> = section(&file.text).collect();
    let mut problems = crates(tree, &lines);
    let at = lines.first().map_or(1, |line| line.0);
    let mut unknown = Named::new();
    for (heading, source) in TABLES {
        let (table, missing) = table(tree, &lines, heading, source);
        problems.extend(lacking("table", &table, &modules(tree, source), at));
        unknown.extend(missing);
    }
    let (levels, modules) = (levels(&lines), modules(tree, SOURCE));
    problems.extend(lacking("list of levels", &levels, &modules, at));
    unknown.extend(levels.into_iter().filter(|(_, name)| !modules.contains(name.as_str())));
    for (line, name) in unknown {
        problems.push(Problem::new(PATH, line, format!("the library has no module `{name}`")));
    }
    problems
}

/// The modules that a place of the map does not name.
fn lacking(place: &str, names: &Named, modules: &BTreeSet<&str>, at: usize) -> Vec<Problem> {
    let missing = modules.iter().filter(|module| !names.iter().any(|(_, name)| name == **module));
    let message = |module| format!("the {place} of the code map lacks `{module}`");
    missing.map(|module| Problem::new(PATH, at, message(module))).collect()
}

/// The lines of the code map, with their numbers.
fn section(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let mut lines = lines.skip_while(|(_, line)| *line != SECTION);
    let heading = lines.next();
    heading.into_iter().chain(lines.take_while(|(_, line)| !line.starts_with("## ")))
}

/// Crates are named by the headings of the map.
fn crates(tree: &Tree, lines: &[(usize, &str)]) -> Vec<Problem> {
    let headings = lines.iter().filter(|(_, line)| line.starts_with("### "));
    let named: Named =
        headings.flat_map(|(line, text)| quoted(text).map(|name| (*line, name.into()))).collect();
    let mut problems = Vec::new();
    for (line, name) in named.iter().filter(|(_, name)| name.starts_with("crates/")) {
        if !tree.paths.contains(name) {
            problems.push(Problem::new(PATH, *line, format!("`{name}` is not there")));
        }
    }
    let manifests = tree.files.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
    for home in manifests.filter(|home| home.starts_with("crates/") || *home == "xtask") {
        if !named.iter().any(|(_, name)| name == home) {
            let message = format!("no heading of the code map names the crate `{home}`");
            problems.push(Problem::new(PATH, 1, message));
        }
    }
    problems
}

/// The modules at the top of a library.
fn modules<'a>(tree: &'a Tree, source: &str) -> BTreeSet<&'a str> {
    let inside = tree.rust().filter_map(|(file, _)| file.path.strip_prefix(source));
    let top = inside.map(|path| path.split(['/', '.']).next().unwrap_or(path));
    top.filter(|name| !UNMAPPED.contains(name)).collect()
}

/// What the first cells of a library's table name, and which of it is not there. `…/name` stands beside
/// or below what was named in full before it.
fn table(tree: &Tree, lines: &[(usize, &str)], heading: &str, source: &str) -> (Named, Named) {
    let there = |path: &str| {
        tree.paths.contains(&format!("{source}{path}.rs"))
            || tree.paths.contains(&format!("{source}{path}"))
    };
    let (mut found, mut missing) = (Named::new(), Named::new());
    let lines = lines.iter().skip_while(|(_, line)| !line.starts_with(heading)).skip(1);
    for (line, text) in lines.take_while(|(_, line)| !line.starts_with("### ")) {
        let mut base = "";
        for name in
            quoted(text.strip_prefix('|').and_then(|row| row.split('|').next()).unwrap_or(""))
        {
            let known = match name.strip_prefix("…/") {
                Some(name) => {
                    let above = base.rsplit_once('/').map_or("", |(above, _)| above);
                    there(&format!("{base}/{name}")) || there(&format!("{above}/{name}"))
                }
                None => {
                    base = name;
                    there(name)
                }
            };
            (if known { &mut found } else { &mut missing }).push((*line, name.to_string()));
        }
    }
    (found, missing)
}

/// The names in the first block of the map: single words between wide gaps, before what explains them.
fn levels(lines: &[(usize, &str)]) -> Named {
    let block = lines.iter().skip_while(|(_, line)| !line.starts_with("```")).skip(1);
    let block = block.take_while(|(_, line)| !line.starts_with("```"));
    let names = block.flat_map(|(line, text)| {
        let gaps = text.split("  ").map(str::trim).filter(|piece| !piece.is_empty());
        gaps.take_while(|piece| !piece.contains(' ')).map(|name| (*line, name.to_string()))
    });
    names.collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
