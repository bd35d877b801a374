//! Texts of the library: who embeds it has no flags and no commands, so none of them is named; and what a
//! remedy names is there.

use super::{Problem, Tree};

/// Whose texts are read by more than this project's program.
const LIBRARIES: &[&str] = &[
    "crates/highwater/src/",
    "crates/highwater-guard/src/",
    "crates/highwater-nodes/src/",
    "crates/highwater-replica/src/",
];

/// Where remedies name functions of the library.
const REMEDIES: &str = "crates/highwater/src/error/remedy.rs";

/// The program's commands, as somebody would write them behind its name.
const COMMANDS: &[&str] = &[
    "backup",
    "check",
    "export",
    "forget",
    "guard",
    "import",
    "init",
    "inspect",
    "key",
    "kit",
    "owner",
    "prune",
    "recover",
    "replica",
    "restore",
    "rollback",
    "run",
    "serve",
    "show",
    "snapshots",
    "status",
    "tag",
    "vss",
    "witness",
];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, rust) in tree.rust() {
        if !LIBRARIES.iter().any(|library| file.path.starts_with(library)) {
            continue;
        }
        for literal in rust.literals.iter().filter(|literal| !rust.in_test(literal.start)) {
            let text = file.text[literal.clone()].trim_matches('"');
            let line = rust.line(literal.start);
            if let Some(named) = of_the_program(text) {
                let message =
                    format!("a text of the library names `{named}`, which the program has");
                problems.push(Problem::new(&file.path, line, message));
            }
            if file.path == REMEDIES {
                for named in text.split(", ").filter(|named| named.contains("::")) {
                    if !is_there(tree, named) {
                        let message = format!("a remedy names `{named}`, which is not there");
                        problems.push(Problem::new(&file.path, line, message));
                    }
                }
            }
        }
    }
    problems
}

/// A flag or a command that a text names.
fn of_the_program(text: &str) -> Option<&str> {
    let word = |rest: &str| -> usize {
        rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len())
    };
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let rest = &text[at + 2..];
        if before.is_none_or(|c| c.is_whitespace() || "(`\"".contains(c))
            && rest.starts_with(|c: char| c.is_ascii_lowercase())
        {
            return Some(&text[at..at + 2 + word(rest)]);
        }
    }
    for (at, _) in text.match_indices("highwater ") {
        let rest = &text[at + "highwater ".len()..];
        let command = &rest[..word(rest)];
        if COMMANDS.contains(&command) {
            return Some(&text[at..at + "highwater ".len() + command.len()]);
        }
    }
    text.match_indices("`highwater").next().map(|(at, name)| &text[at + 1..at + name.len()])
}

/// Whether the last name of a path is that of a function or a field of a library.
fn is_there(tree: &Tree, path: &str) -> bool {
    let name = path.rsplit("::").next().unwrap_or(path);
    let declared = [format!("pub fn {name}("), format!("pub {name}:"), format!("pub fn {name}<")];
    let ours = |path: &str| LIBRARIES.iter().any(|library| path.starts_with(library));
    tree.rust()
        .filter(|(file, _)| ours(&file.path))
        .any(|(_, rust)| declared.iter().any(|text| rust.code.contains(text.as_str())))
}
