//! Names of files, and the lines that a module opens with.

use super::{Problem, Tree};

/// Names that say nothing of what is inside.
const BANNED: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, _) in tree.rust() {
        let stem = file.path.trim_end_matches(".rs");
        if let Some(name) = stem.split('/').find(|name| BANNED.contains(name)) {
            let message = format!("`{name}` names nothing: call it by what it holds");
            problems.push(Problem::new(&file.path, 1, message));
        }
        // Unit tests say in their names what they show; what they are about stands beside them.
        if !file.path.ends_with("/tests.rs") && !file.text.starts_with("//! ") {
            let message = "a module opens with `//!`: what it is, and why";
            problems.push(Problem::new(&file.path, 1, message));
        }
    }
    problems
}
