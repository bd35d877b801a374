//! Where README.md or a document of `docs` calls the program, it has the command.

use std::collections::BTreeMap;

use super::rust::{is_word, matching};
use super::{Problem, Tree};

const PROGRAM: &str = "crates/highwater-cli/src/";
const ROOT: &str = "Command";

/// By the name of the enum: its commands, and the name of what each of them takes.
type Commands = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let commands = commands(tree);
    if !commands.contains_key(ROOT) {
        let message =
            format!("no `enum {ROOT}` with `Subcommand`: what are the program's commands?");
        return vec![Problem::new(PROGRAM, 1, message)];
    }
    let mut problems = Vec::new();
    let read =
        |path: &str| path == "README.md" || path.starts_with("docs/") && path.ends_with(".md");
    for file in tree.files.iter().filter(|file| read(&file.path)) {
        for (line, call) in calls(&file.text) {
            if let Some(word) = unknown(&commands, call) {
                let message = format!("the program has no command `{word}`");
                problems.push(Problem::new(&file.path, line, message));
            }
        }
    }
    problems
}

/// What follows the program's name, with the lines: in fenced blocks to the line's end, elsewhere behind a
/// backtick one word, since such a text may be another name that begins like a call.
fn calls(text: &str) -> Vec<(usize, &str)> {
    const NAME: &str = "highwater ";
    let mut calls = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        for (at, _) in line.match_indices(NAME) {
            let before = line[..at].chars().next_back();
            let call = &line[at + NAME.len()..];
            if fenced && before.is_none_or(|c| c.is_whitespace() || "/(\"'`".contains(c)) {
                calls.push((number + 1, call));
            } else if before == Some('`') {
                calls.push((number + 1, call.split([' ', '`']).next().unwrap_or(call)));
            }
        }
    }
    calls
}

/// The words of a call up to the one that is no command, where one should be.
fn unknown(commands: &Commands, call: &str) -> Option<String> {
    let mut level = commands.get(ROOT);
    let mut said = Vec::new();
    for word in call.split_whitespace() {
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(word.len());
        let word = &word[..end];
        // A flag, a placeholder in capitals, or nothing but a sign.
        let known = level.filter(|_| word.starts_with(|c: char| c.is_ascii_lowercase()))?;
        said.push(word);
        let Some(takes) = known.get(word) else { return Some(said.join(" ")) };
        level = commands.get(takes);
    }
    None
}

/// The enums that derive `Subcommand`.
fn commands(tree: &Tree) -> Commands {
    let mut commands = Commands::new();
    for (_, rust) in tree.rust().filter(|(file, _)| file.path.starts_with(PROGRAM)) {
        for (at, _) in rust.code.match_indices("#[derive(") {
            let rest = &rust.code[at..];
            let Some((derived, rest)) = rest.split_once(")]") else { continue };
            let Some((_, item)) = rest.split_once("enum ") else { continue };
            let Some((name, _)) = item.split_once(" {") else { continue };
            if derived.contains("Subcommand") && name.bytes().all(is_word) {
                commands.insert(name.into(), variants(&item[name.len() + 1..]));
            }
        }
    }
    commands
}

/// The variants of an enum's body, as commands, each with the name of what it holds.
fn variants(body: &str) -> BTreeMap<String, String> {
    let bytes = body.as_bytes();
    let end = matching(bytes, 0);
    let mut variants = BTreeMap::new();
    let mut at = 1;
    while at < end {
        match bytes[at] {
            b'#' => at = matching(bytes, at + 1) + 1,
            byte if is_word(byte) => {
                let length = bytes[at..end].iter().take_while(|byte| is_word(**byte)).count();
                let name = kebab(&body[at..at + length]);
                at += length;
                let mut holds = "";
                if matches!(bytes[at], b'(' | b'{') {
                    let close = matching(bytes, at);
                    holds = &body[at + 1..close];
                    at = close + 1;
                }
                variants.insert(name, holds.into());
            }
            _ => at += 1,
        }
    }
    variants
}

/// `TakeOver` is called `take-over`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(letter.to_ascii_lowercase());
    }
    kebab
}
