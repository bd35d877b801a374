//! All that the program prints. A closed pipe ends the printing, not the program.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use highwater::{Error, Result};

use crate::answer::Answer;
use crate::exit;

/// Prints an answer: its document, or its lines and its warnings.
pub(crate) fn answer(answer: &Answer, json: bool) -> Result<()> {
    let printed = if json {
        document(&answer.json)
    } else {
        for warning in &answer.warnings {
            note(&format!("warning: {warning}"));
        }
        line(&answer.human)
    };
    let result = if answer.once { printed } else { forgive_closed(printed) };
    result.map_err(|error| {
        let error = Error::unavailable(format!("the answer could not be printed: {error}"));
        if answer.once {
            return error
                .with_remedy("what was shown once is lost: `highwater key list` shows the slots");
        }
        error
    })
}

/// Prints an error, to standard error for people, to standard output as a document.
pub(crate) fn error(error: &Error, json: bool) {
    if json {
        // There is no better place left to say that this can't be said.
        let _ = document(&exit::document(error));
    } else {
        note(&exit::lines(error));
    }
}

/// Prints an answer to standard error.
pub(crate) fn answer_aside(answer: &Answer, json: bool) {
    if json {
        return note(&answer.json.to_string());
    }
    for warning in &answer.warnings {
        note(&format!("warning: {warning}"));
    }
    note(&answer.human);
}

/// Prints an error to standard error, also as a document.
pub(crate) fn error_aside(error: &Error, json: bool) {
    note(&if json { exit::document(error).to_string() } else { exit::lines(error) });
}

/// Prints what clap has to say where it was asked.
pub(crate) fn help(help: &clap::Error) -> Result<()> {
    let text = help.render();
    let colours = has_colours(&io::stdout());
    let text = if colours { text.ansi().to_string() } else { text.to_string() };
    forgive_closed(write(&mut io::stdout().lock(), text.as_bytes()))
        .map_err(|error| Error::io("standard output", error))
}

/// Prints a line of a report that is written while things happen.
pub(crate) fn tell(text: &str) -> Result<()> {
    forgive_closed(line(text)).map_err(|error| Error::io("standard output", error))
}

/// Prints lines to standard error; where that is closed, nobody listens.
pub(crate) fn note(text: &str) {
    let text = if has_colours(&io::stderr()) { coloured(text) } else { text.to_owned() };
    let _ = write(&mut io::stderr().lock(), format!("{text}\n").as_bytes());
}

/// Whether colours are wanted there: on a terminal that knows them, unless NO_COLOR says no.
fn has_colours(out: &impl anstream::stream::RawStream) -> bool {
    AutoStream::choice(out) != ColorChoice::Never
}

/// What stands at the beginning of a line, or where a table says it, and how it is shown.
const MARKED: [(&str, Style); 4] = [
    ("error:", AnsiColor::Red.on_default().bold()),
    ("warning:", AnsiColor::Yellow.on_default().bold()),
    ("hint:", AnsiColor::Cyan.on_default().bold()),
    ("BAD ", AnsiColor::Red.on_default().bold()),
];
/// From here to the end of a line of a table is what is wrong with it.
const WRONG: &str = "STALE: ";

/// The text with what is bad in colour. Whatever comes from others has no control characters.
fn coloured(text: &str) -> String {
    text.lines().map(coloured_line).collect::<Vec<_>>().join("\n")
}

fn coloured_line(line: &str) -> String {
    let marked = MARKED.iter().find(|(word, _)| line.starts_with(word));
    if let Some((word, style)) = marked {
        return format!("{style}{word}{style:#}{}", &line[word.len()..]);
    }
    let Some(at) = line.find(WRONG) else { return line.to_owned() };
    let style = AnsiColor::Red.on_default().bold();
    format!("{}{style}{}{style:#}", &line[..at], &line[at..])
}

fn document(value: &serde_json::Value) -> io::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    write(&mut io::stdout().lock(), text.as_bytes())
}

fn line(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let text = if has_colours(&io::stdout()) { coloured(text) } else { text.to_owned() };
    write(&mut io::stdout().lock(), format!("{text}\n").as_bytes())
}

fn write(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

fn forgive_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
