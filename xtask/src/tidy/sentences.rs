//! Documentation is written in whole sentences: no paragraph of a doc comment breaks off, or begins in the
//! middle of one.

use super::rust::Rust;
use super::tree::File;
use super::{Problem, Tree};

/// What may stand behind the sign that ends a sentence.
const CLOSING: &[char] = &[')', '"', '\'', '*', '_', '’', '”', '`'];

/// What joins a sentence to one before it.
const CONJUNCTIONS: &[&str] = &["and ", "but ", "or "];

/// A line of a doc comment, without its marker.
struct Line<'a> {
    number: usize,
    marker: &'a str,
    text: &'a str,
}

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, rust) in tree.rust() {
        // `clap` prints the comments of arguments as they stand, and help has no full stops.
        let help = rust.places("clap").next().is_some();
        for paragraph in paragraphs(doc_lines(file, rust)) {
            let Some((first, last)) = paragraph.first().zip(paragraph.last()) else { continue };
            if let Some(word) = CONJUNCTIONS.iter().find(|word| first.text.starts_with(**word)) {
                let word = word.trim_end();
                let message = format!("a doc comment begins with `{word}`: write a whole sentence");
                problems.push(Problem::new(&file.path, first.number, message));
            }
            let code = first.text.starts_with('`') && last.text.ends_with('`');
            if code || is_whole(last.text, help) {
                continue;
            }
            let end = last.text.split_whitespace().next_back().unwrap_or_default();
            let message = format!("a doc comment breaks off after `{end}`: write a whole sentence");
            problems.push(Problem::new(&file.path, last.number, message));
        }
    }
    problems
}

/// The paragraphs of prose. One that a list, a table or a block of code follows at once goes on in that.
fn paragraphs(lines: Vec<Line<'_>>) -> Vec<Vec<Line<'_>>> {
    let mut paragraphs = Vec::new();
    let mut prose: Vec<Line<'_>> = Vec::new();
    let mut last = (0, "");
    let (mut fenced, mut block) = (false, false);
    for line in lines {
        if last != (line.number - 1, line.marker) {
            paragraphs.push(std::mem::take(&mut prose));
            (fenced, block) = (false, false);
        }
        last = (line.number, line.marker);
        let fence = line.text.starts_with("```");
        fenced ^= fence;
        if line.text.is_empty() && !fenced {
            paragraphs.push(std::mem::take(&mut prose));
            block = false;
        } else if fenced || fence || block || is_block(line.text) {
            prose.clear();
            block = true;
        } else {
            prose.push(line);
        }
    }
    paragraphs.push(prose);
    paragraphs
}

/// All lines of doc comments, in order; what stands in a literal is none.
fn doc_lines<'a>(file: &'a File, rust: &Rust) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    let mut at = 0;
    for (number, whole) in file.text.split_inclusive('\n').enumerate() {
        let text = whole.trim();
        let begin = at + (whole.len() - whole.trim_start().len());
        at += whole.len();
        let marker = ["///", "//!"].into_iter().find(|marker| text.starts_with(marker));
        let Some(marker) = marker.filter(|_| !text.starts_with("////")) else { continue };
        if !rust.literals.iter().any(|literal| literal.contains(&begin)) {
            lines.push(Line { number: number + 1, marker, text: text[marker.len()..].trim() });
        }
    }
    lines
}

/// A list item, a row of a table, a heading, a quotation or the target of a link.
fn is_block(text: &str) -> bool {
    let numbered = text.trim_start_matches(|c: char| c.is_ascii_digit());
    ["- ", "* ", "+ ", "|", "#", ">", "<"].iter().any(|sign| text.starts_with(sign))
        || numbered.len() < text.len() && (numbered.starts_with(". ") || numbered.starts_with(") "))
        || text.starts_with('[') && text.contains("]: ")
}

/// Whether a sentence can end like this. Help only must not stop at a comma.
fn is_whole(text: &str, help: bool) -> bool {
    let text = text.trim_end_matches(CLOSING);
    text.is_empty()
        || text.ends_with(['.', ':', '?', '!', '…'])
        || help && !text.ends_with([',', ';', '-'])
}
