//! The glossary in ARCHITECTURE.md: the code uses each of its words, and it has the words that the code turns on.

use super::{Problem, Tree};

const PATH: &str = "ARCHITECTURE.md";
const SECTION: &str = "## Glossary";

/// Words that somebody who reads the code must know, and that mean something else elsewhere.
const CENTRAL: &[&str] = &[
    "archive",
    "barrier",
    "book",
    "carried",
    "digest",
    "engine",
    "entry",
    "epoch",
    "evidence",
    "fence",
    "frame",
    "guard",
    "head",
    "hydrate",
    "increment",
    "intent",
    "kit",
    "latch",
    "leaf",
    "level",
    "manifest",
    "mark",
    "node",
    "owner",
    "pack",
    "part",
    "point",
    "replica",
    "reunite",
    "run",
    "slot",
    "snapshot",
    "staging",
    "tombstone",
    "unit",
    "vault",
    "verdict",
    "witness",
    "withheld",
];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let Some(file) = tree.file(PATH) else {
        return vec![Problem::new(PATH, 1, "missing: it has the glossary")];
    };
    let words = words(&file.text);
    let mut problems = Vec::new();
    for (line, word) in &words {
        if !used(tree, word) {
            let message = format!("no code uses the glossary's `{word}`");
            problems.push(Problem::new(PATH, *line, message));
        }
    }
    for word in CENTRAL {
        if !words.iter().any(|(_, known)| known == word) {
            let message = format!("the glossary lacks `{word}`, which the code turns on");
            problems.push(Problem::new(PATH, 1, message));
        }
    }
    problems
}

/// The words that the glossary explains, with their lines.
fn words(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate().skip_while(|(_, line)| *line != SECTION).skip(1);
    let lines = lines.take_while(|(_, line)| !line.starts_with("## "));
    let rows = lines.filter_map(|(number, line)| Some((number + 1, line.strip_prefix("| ")?)));
    // The first row is the table's heading.
    rows.skip(1)
        .flat_map(|(line, row)| {
            let cell = row.split('|').next().unwrap_or_default();
            cell.split(',').map(move |word| (line, word.trim()))
        })
        .collect()
}

/// Whether a name in the code holds the word, or a text or comment in it the words, where it is several.
fn used(tree: &Tree, word: &str) -> bool {
    let small = word.to_lowercase().replace(' ', "_");
    let tall: String = small.split('_').map(capitalised).collect();
    let sources = tree
        .rust()
        .filter(|(file, _)| file.path.starts_with("crates/") && file.path.contains("/src/"));
    sources.into_iter().any(|(file, rust)| {
        holds(&rust.code, &small)
            || holds(&rust.code, &tall)
            || word.contains(' ') && holds(&file.text, word)
    })
}

/// Whether `word`, or its plural, stands in `text` and is not part of a longer word.
fn holds(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].trim_start_matches('s').chars().next();
        let inner = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase());
        let joined = before.is_some_and(|c| c.is_ascii_alphabetic())
            && !word.starts_with(|c: char| c.is_ascii_uppercase());
        !joined && !inner(after)
    })
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
