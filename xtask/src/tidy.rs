//! The checks of the tree: which module may use which, sizes, names, claims and their tests, links.
//!
//! Each check is a pure function from a [`Tree`] to problems, and has a test in which it fails.

mod arrows;
mod circles;
mod claims;
mod commands;
mod features;
mod glossary;
pub(crate) mod links;
mod map;
mod names;
mod reach;
mod rust;
mod sentences;
mod sizes;
pub(crate) mod summary;
mod texts;
mod tree;
mod words;
mod workspace;

#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use tree::Tree;

/// Something that is not as it should be, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// The file, from the root of the tree.
    pub(crate) path: String,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Problem {
        Problem { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Every check, and the counts that they make on the way.
pub(crate) fn run(tree: &Tree) -> (Vec<Problem>, String) {
    let mut problems = Vec::new();
    problems.extend(arrows::check(tree));
    problems.extend(circles::check(tree));
    problems.extend(sizes::check(tree, sizes::ALLOWED));
    problems.extend(names::check(tree));
    problems.extend(reach::check(tree));
    problems.extend(claims::check(tree));
    problems.extend(words::check(tree));
    problems.extend(texts::check(tree));
    problems.extend(links::check(tree));
    problems.extend(summary::check(tree));
    problems.extend(workspace::check(tree));
    problems.extend(features::check(tree));
    problems.extend(map::check(tree));
    problems.extend(glossary::check(tree));
    problems.extend(sentences::check(tree));
    problems.extend(commands::check(tree));
    problems.sort();
    problems.dedup();
    (problems, format!("{}; {}", sizes::counts(tree), claims::counts(tree)))
}
