//! Relative links in Markdown lead to files that exist, and to headings that exist in them.

use super::{Problem, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&file.text) {
            if let Some(problem) = broken(tree, &file.path, target) {
                problems.push(Problem::new(&file.path, line, problem));
            }
        }
    }
    problems
}

/// The targets of `[text](target)` outside fenced blocks, with their lines.
pub(crate) fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            if let Some(end) = rest.find(')') {
                links.push((number + 1, rest[..end].trim()));
            }
        }
    }
    links
}

fn broken(tree: &Tree, from: &str, target: &str) -> Option<String> {
    if is_outside(target) {
        return None;
    }
    let heading = target.split_once('#').map_or("", |(_, heading)| heading);
    let Some(full) = leads_to(from, target).filter(|full| tree.paths.contains(full)) else {
        return Some(format!("`{target}` leads nowhere"));
    };
    let file = tree.file(&full)?;
    let found = heading.is_empty()
        || !full.ends_with(".md")
        || file.text.lines().any(|line| anchor(line).is_some_and(|anchor| anchor == heading));
    (!found).then(|| format!("`{full}` has no heading `#{heading}`"))
}

/// Whether a target is none of the tree's.
fn is_outside(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// The path, from the root of the tree, of what a target in the file `from` names; `None` where that is not
/// in the tree.
pub(crate) fn leads_to(from: &str, target: &str) -> Option<String> {
    if is_outside(target) {
        return None;
    }
    match target.split_once('#').map_or(target, |(path, _)| path) {
        "" => Some(from.to_string()),
        path => resolve(from, path),
    }
}

/// `path` as seen from the file `from`; `None` where it leaves the tree.
fn resolve(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The anchor that a heading is given.
fn anchor(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let letters = title.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    Some(letters.collect())
}
