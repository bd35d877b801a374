//! `check`: manifests and sizes, every byte, or a restore into a scratch directory.

use std::collections::BTreeMap;
use std::path::Path;

use highwater::engine::{Checked, Engines};
use highwater::ids::NodeName;
use highwater::vault::{self, CheckFault, CheckOptions, CheckReport, Selector, Vault};
use highwater::{Kind, Result, restore};
use serde_json::json;

use super::record;
use crate::answer::Answer;
use crate::cli::CheckArgs;
use crate::context::Context;
use crate::format;

pub(crate) fn run(context: &Context, args: &CheckArgs) -> Result<Answer> {
    let vault = context.vault(&args.vault)?;
    let node = context.settings.node(args.node.as_ref());
    let mut report = check(context, args, &vault, node.as_ref())?;
    let mut warnings = std::mem::take(&mut report.warnings);
    let mut tested = 0;
    let mut unchecked = Vec::new();
    if args.restore_test {
        let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
        for selector in to_test(context, args, &vault, node.as_ref())? {
            let checked = restore_test(context, &vault, &selector, &scratch, &mut report)?;
            warnings.extend(checked.warnings);
            unchecked.extend(checked.unchecked);
            tested += 1;
        }
    }
    report.ok = report.errors.is_empty();
    let document = json!({
        "ok": report.ok,
        "snapshots": report.snapshots,
        "chunks": report.chunks,
        "bytes": report.bytes,
        "coverage": report.coverage,
        "restore_tests": tested,
        "unchecked": unchecked,
        "errors": report.errors,
        "warnings": warnings,
    });
    let failed = (!report.ok).then_some(Kind::Corrupt);
    Ok(Answer::new(document, human(args, &report, tested, &unchecked))
        .warnings(warnings)
        .failed(failed))
}

/// One snapshot, all snapshots of a node, or all of the vault.
fn check(
    context: &Context,
    args: &CheckArgs,
    vault: &Vault,
    node: Option<&NodeName>,
) -> Result<CheckReport> {
    let selector = match &args.snapshot {
        Some(snapshot) => Some(context.selector(snapshot, node)?),
        None => None,
    };
    let options = CheckOptions::default()
        .selector(selector)
        .node(node.cloned())
        .read_data(args.read_data)
        .subset(args.subset)
        .actor(if args.read_data { Some(context.actor()?) } else { None });
    vault::check(vault, &options, &context.control)
}

/// The snapshot that was named, or the newest of each node.
fn to_test(
    context: &Context,
    args: &CheckArgs,
    vault: &Vault,
    node: Option<&NodeName>,
) -> Result<Vec<Selector>> {
    if let Some(snapshot) = &args.snapshot {
        return Ok(vec![context.selector(snapshot, node)?]);
    }
    // From oldest to newest within a node: the last one stays.
    let mut newest: BTreeMap<NodeName, String> = BTreeMap::new();
    vault.each_snapshot(node, |info| {
        newest.insert(info.manifest.node, info.manifest.snapshot.to_string());
    })?;
    let selector = |snapshot| Selector { snapshot, ..Selector::default() };
    Ok(newest.into_values().map(selector).collect())
}

/// Damage that the restore finds is a fault like any other; what keeps it from being made is not.
fn restore_test(
    context: &Context,
    vault: &Vault,
    selector: &Selector,
    scratch: &Path,
    report: &mut CheckReport,
) -> Result<Checked> {
    let error = match restore::test(vault, selector, scratch, &Engines::default(), &context.control)
    {
        Ok(checked) => return Ok(checked),
        Err(error) if error.kind() == Kind::Corrupt => error,
        Err(error) => return Err(error),
    };
    let fault = CheckFault {
        entry: error.entry().unwrap_or(&selector.snapshot).to_owned(),
        problem: error.message().to_owned(),
        snapshots: Vec::new(),
    };
    if !report.errors.contains(&fault) {
        report.errors.push(fault);
    }
    Ok(Checked::default())
}

/// How many snapshots are named with a fault; the document names all.
const NAMED_MAX: usize = 5;

fn fault_line(fault: &CheckFault) -> String {
    let named: Vec<String> =
        fault.snapshots.iter().rev().take(NAMED_MAX).map(record::short).collect();
    let more = fault.snapshots.len().saturating_sub(NAMED_MAX);
    let needed = match (named.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(" (needed by {})", named.join(", ")),
        (false, more) => format!(" (needed by {} and {more} older ones)", named.join(", ")),
    };
    format!("BAD  {}: {}{needed}", fault.entry, fault.problem)
}

fn human(args: &CheckArgs, report: &CheckReport, tested: u64, unchecked: &[String]) -> String {
    let snapshots = format::count(report.snapshots, "snapshot", "snapshots");
    let mut lines = vec![if args.read_data {
        let chunks = format::count(report.chunks, "chunk", "chunks");
        format!("{snapshots}: {chunks} opened and compared, {} read", format::bytes(report.bytes))
    } else {
        format!(
            "{snapshots}: manifests opened, {} of objects found with their sizes",
            format::bytes(report.bytes)
        )
    }];
    if let Some(coverage) = &report.coverage {
        let read = format!(
            "{} of {} in packs were read",
            format::bytes(coverage.bytes_read),
            format::bytes(coverage.bytes)
        );
        let since = coverage.since.map(|since| format!(" since {}", format::time(since)));
        lines.push(format!("{read}{}", since.unwrap_or_default()));
    }
    if tested > 0 {
        lines.push(format!(
            "{} restored to scratch, opened and checked by their engines",
            format::count(tested, "snapshot", "snapshots")
        ));
    }
    if !unchecked.is_empty() {
        lines.push(format!(
            "not checked, beyond their bytes: {}; a snapshot with these does not count as restored",
            unchecked.join(", ")
        ));
    }
    lines.extend(report.errors.iter().map(fault_line));
    lines.push(if report.ok {
        "No fault.".to_owned()
    } else {
        format::count(report.errors.len() as u64, "fault.", "faults.")
    });
    lines.join("\n")
}
