//! `pull`: a snapshot, or an increment, from a server into one archive file.

use highwater::{Error, Result};
use highwater_server::client::{self, PullOptions, PullReport, Token};
use serde_json::json;

use super::is_stdio;
use crate::answer::Answer;
use crate::cli::PullArgs;
use crate::context::Context;
use crate::{format, places};

pub(crate) fn run(context: &Context, args: &PullArgs) -> Result<Answer> {
    if args.output.as_deref().is_some_and(is_stdio) {
        return Err(Error::input("a pull goes into a file: it is not valid before its end")
            .with_remedy("give --output FILE; `highwater import` reads it"));
    }
    let ca = |path: &std::path::PathBuf| {
        let name = places::text(path);
        std::fs::read(path)
            .map_err(|error| Error::io(format!("{name} can't be read"), error).with_entry(&name))
    };
    let mut options = PullOptions::default();
    options.url = args.from.clone();
    options.token = args.token_file.as_deref().map(Token::from_file).transpose()?;
    options.ca = args.ca_file.as_ref().map(ca).transpose()?;
    options.allow_http = args.allow_http;
    options.node = context.settings.node(args.node.as_ref());
    options.snapshot = args.snapshot.clone();
    options.since = args.since.clone();
    options.target_height = args.target_height;
    options.output = args.output.clone();
    options.replace = args.force;
    options.timeout = args.timeout;
    Ok(answer(&client::pull(&options, &context.control)?))
}

fn answer(report: &PullReport) -> Answer {
    let document = json!({
        "snapshot": report.snapshot,
        "since": report.since,
        "output": places::text(&report.output),
        "bytes": report.bytes,
        "seconds": format::seconds(report.duration),
        "marks": report.marks,
        "resumed": report.resumed,
    });
    let since = match report.since {
        Some(since) => format!(", what is new since {since}"),
        None => String::new(),
    };
    let marks: Vec<_> = report.marks.iter().map(|(name, mark)| format!("{name} {mark}")).collect();
    let marks = if marks.is_empty() { String::new() } else { format!(", at {}", marks.join(", ")) };
    let resumed = match report.resumed {
        0 => String::new(),
        times => format!("; the connection was resumed {times} times"),
    };
    let human = format!(
        "Pulled snapshot {}{since}{marks}, to {}: {} in {}{resumed}.",
        report.snapshot,
        places::text(&report.output),
        format::bytes(report.bytes),
        format::duration(report.duration),
    );
    Answer::new(document, human)
}
