//! `export`: a snapshot, or an increment, as one archive: a file, or standard output.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use highwater::archive::{Export, ExportOptions, ExportReport, FORMAT_VERSION};
use highwater::vault::{Selector, Vault};
use highwater::{Error, Result};
use serde_json::json;

use super::is_stdio;
use crate::answer::Answer;
use crate::cli::ExportArgs;
use crate::context::Context;
use crate::{format, places};

pub(crate) fn run(context: &Context, args: &ExportArgs) -> Result<Answer> {
    let selector = context.selector(&args.snapshot, args.node.as_ref())?;
    let since = args
        .since
        .as_ref()
        .map(|since| context.selector(since, args.node.as_ref()))
        .transpose()?
        .map(|since| Selector { node: None, ..since });
    let to_stdout = args.output.as_deref().is_some_and(is_stdio);
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Error::input("an archive can't be written to a terminal")
            .with_remedy("redirect standard output to a file or a pipe, or give --output FILE"));
    }
    let vault = context.vault(&args.vault)?;
    let export = Export::new(&vault, &ExportOptions::default().selector(selector).since(since))?;
    if to_stdout {
        let report = export.write(&mut std::io::stdout().lock(), &context.control)?;
        return Ok(answer(&report, Path::new("-")));
    }
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(export.file_name()));
    context.refuse_own_files(&args.vault.key, &output)?;
    refuse_inside(&output, &vault)?;
    let report = export.write_file(&output, args.force, &context.control)?;
    Ok(answer(&report, &output))
}

/// A file in the vault that no highwater puts there is damage.
fn refuse_inside(output: &Path, vault: &Vault) -> Result<()> {
    for dir in vault.location().paths() {
        if places::is_inside(output, dir)? {
            return Err(Error::input("the archive would be inside the vault")
                .with_remedy("write it elsewhere, preferably to another machine")
                .with_entry(places::text(output)));
        }
    }
    Ok(())
}

fn answer(report: &ExportReport, output: &Path) -> Answer {
    let document = json!({
        "snapshot": report.snapshot,
        "node": report.node,
        "since": report.since,
        "output": places::text(output),
        "format": FORMAT_VERSION,
        "packs": report.packs,
        "bytes": report.bytes,
        "blake3": report.hash,
        "seconds": format::seconds(report.duration),
    });
    let since = match report.since {
        Some(since) => format!(", what is new since {since}"),
        None => String::new(),
    };
    let human = format!(
        "Exported snapshot {} of node {}{since}, to {}: {} in {}, archive format {FORMAT_VERSION}.",
        report.snapshot,
        report.node,
        if is_stdio(output) { "standard output".to_owned() } else { places::text(output) },
        format::bytes(report.bytes),
        format::duration(report.duration),
    );
    Answer::new(document, human)
}
