//! Sizes of files and functions, and the list of functions that may be longer.

use super::{Problem, Tree};

const FILE_LINES_MAX: usize = 1000;
const FILE_LINES_AIM: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const FUNCTION_LINES_AIM: usize = 40;
const ARCHITECTURE_LINES_MAX: usize = 300;

/// A function that may be longer, and why. The list may only shrink: an entry that is not needed
/// any more is a problem, and so is a function that outgrows its entry.
pub(super) struct Allowed {
    pub(super) path: &'static str,
    pub(super) function: &'static str,
    pub(super) lines: usize,
    pub(super) reason: &'static str,
}

pub(super) const ALLOWED: &[Allowed] = &[];

pub(super) fn check(tree: &Tree, allowed: &[Allowed]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, rust) in tree.rust() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            let message = format!("{lines} lines; {FILE_LINES_MAX} at most: split it");
            problems.push(Problem::new(&file.path, 1, message));
        }
        for function in &rust.functions {
            let entry = allowed
                .iter()
                .find(|entry| entry.path == file.path && entry.function == function.name);
            let max = entry.map_or(FUNCTION_LINES_MAX, |entry| entry.lines);
            if function.lines > max {
                let message = format!(
                    "function `{}` has {} lines; {max} at most",
                    function.name, function.lines
                );
                problems.push(Problem::new(&file.path, function.line, message));
            }
        }
    }
    for entry in allowed {
        let needed =
            tree.file(entry.path).and_then(|file| file.rust.as_ref()).is_some_and(|rust| {
                rust.functions
                    .iter()
                    .any(|f| f.name == entry.function && f.lines > FUNCTION_LINES_MAX)
            });
        if !needed {
            let message =
                format!("`{}` needs no place on the list of long functions", entry.function);
            problems.push(Problem::new(entry.path, 1, message));
        }
        if entry.reason.is_empty() {
            let message = format!("`{}` is long without a reason", entry.function);
            problems.push(Problem::new(entry.path, 1, message));
        }
    }
    if let Some(file) = tree.file("ARCHITECTURE.md")
        && file.text.lines().count() > ARCHITECTURE_LINES_MAX
    {
        let message = format!("more than {ARCHITECTURE_LINES_MAX} lines");
        problems.push(Problem::new(&file.path, ARCHITECTURE_LINES_MAX + 1, message));
    }
    problems
}

/// How many files and functions are above what is aimed at.
pub(super) fn counts(tree: &Tree) -> String {
    let long = tree
        .rust()
        .flat_map(|(_, rust)| &rust.functions)
        .filter(|function| function.lines > FUNCTION_LINES_AIM)
        .count();
    let functions: usize = tree.rust().map(|(_, rust)| rust.functions.len()).sum();
    let lines = |text: &str| text.lines().count();
    let large = tree.rust().filter(|(file, _)| lines(&file.text) > FILE_LINES_AIM).count();
    format!(
        "{} Rust files, {} lines, {large} files over {FILE_LINES_AIM} lines, {functions} functions, \
         {long} over {FUNCTION_LINES_AIM} lines, {} on the list over {FUNCTION_LINES_MAX}",
        tree.rust().count(),
        tree.rust().map(|(file, _)| lines(&file.text)).sum::<usize>(),
        ALLOWED.len(),
    )
}
