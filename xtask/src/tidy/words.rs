//! Words that have no place in the tree: what hides a test, what is not written yet, what only one
//! machine knows, and white space at the end of a line.

use super::{Problem, Tree};

/// In code, and why not.
const CODE: &[(&str, &str)] = &[
    ("#[ignore", "a test that is not run shows nothing"),
    ("todo!", "write it, or return an error"),
    ("unimplemented!", "write it, or return an error"),
];

/// Absolute paths that only one machine has; split, so that this file names none.
const MACHINE: &[&str] = &[concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/fa", "rm/")];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, rust) in tree.rust() {
        for (word, reason) in CODE {
            for at in rust.places(word) {
                let message = format!("`{word}`: {reason}");
                problems.push(Problem::new(&file.path, rust.line(at), message));
            }
        }
        for at in rust.places("thread::sleep").filter(|at| rust.in_test(*at)) {
            let message = "a test that sleeps: wait for what it waits for";
            problems.push(Problem::new(&file.path, rust.line(at), message));
        }
    }
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                problems.push(Problem::new(
                    &file.path,
                    number + 1,
                    "white space at the line's end",
                ));
            }
            if let Some(path) = MACHINE.iter().find(|path| names(line, path)) {
                let message = format!("`{path}` is a path of one machine");
                problems.push(Problem::new(&file.path, number + 1, message));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            let last = file.text.lines().count();
            problems.push(Problem::new(&file.path, last, "no line end at the end"));
        }
    }
    problems
}

/// Whether `line` names the absolute path: what stands before it is not part of a longer path.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_.-~}>*)".contains(c))
    })
}
