//! `restore`: a plan that prints, or the plan carried out.

use std::path::PathBuf;

use highwater::archive;
use highwater::guard::{GuardKind, Released};
use highwater::restore::{self, Exchange, RestoreOptions, RestorePlan, RestoreReport};
use highwater::vault::{Selector, Vault};
use highwater::{Error, Result};
use serde_json::{Value, json};

use super::{guard, record};
use crate::answer::Answer;
use crate::cli::RestoreArgs;
use crate::context::Context;
use crate::{format, places, remedy};

pub(crate) fn run(context: &Context, args: &RestoreArgs) -> Result<Answer> {
    let Source { vault, node_dir, mut selector } = source(context, args)?;
    selector.before = args.before;
    selector.require = args.require;
    let mut options = RestoreOptions::default();
    options.selector = selector;
    options.part = args.part.clone();
    options.force = args.force;
    options.owner = args.owner;
    options.setid = args.setid;
    options.schema = args.schema;
    options.original_gone = original_gone(context, args.original_gone.as_deref())?;
    if args.plan {
        let plan = restore::preview(&vault, &node_dir, &options)?;
        let refused = |error: &Error| {
            let hint = remedy::hint(error).map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("the restore would be refused: {}{hint}", error.summary())
        };
        let warnings = record::with_ways_out(plan.warnings.clone());
        let warnings: Vec<String> = plan.refusals.iter().map(refused).chain(warnings).collect();
        let answer =
            Answer::new(plan_document(&plan, &options, &warnings), plan_human(&plan, &options));
        return Ok(answer.warnings(warnings));
    }
    let plan = restore::plan(&vault, &node_dir, &options)?;
    options.second_belt = highwater_nodes::second_belt(&plan.kinds);
    let report = restore::run(&vault, &plan, &options, &context.control)?;
    let (kinds, below) = (plan.kinds, plan.marks_below);
    let mut warnings = record::with_ways_out(plan.warnings);
    warnings.extend(
        report.warnings.iter().filter(|text| !warnings.contains(text)).cloned().collect::<Vec<_>>(),
    );
    if report.quarantined > 0
        && let Err(error) =
            highwater_nodes::floor::raise_to_seen(&report.target, &context.who(), &context.control)
    {
        let why = error.summary();
        warnings.push(format!("its signer's state is withheld as it was backed up: {why}"));
    }
    let document = document(&report, &below, &warnings);
    let hold = highwater::guard::standing(&report.target)?.map(|standing| standing.kind);
    let because = hold.and_then(|_| known(&kinds));
    Ok(Answer::new(document, human(&report, hold, because)).warnings(warnings))
}

/// What is restored from, and to where.
struct Source {
    vault: Vault,
    node_dir: PathBuf,
    selector: Selector,
}

/// A snapshot of a vault; or the last one of a chain of archives, all of which are verified first.
fn source(context: &Context, args: &RestoreArgs) -> Result<Source> {
    let Some(node_dir) = args.node_dir.clone() else {
        let node_dir = PathBuf::from(&args.snapshot);
        let key = context.settings.key(&args.vault.key)?;
        key.refuse_inside_node(&node_dir)?;
        let opened = archive::open(&args.from, &key.load()?, &context.control)?;
        let node = args.node.clone().or(Some(opened.node));
        let snapshot = opened.snapshot.to_string();
        let selector = Selector { snapshot, node, ..Selector::default() };
        return Ok(Source { vault: opened.vault, node_dir, selector });
    };
    let snapshot = args.snapshot.to_str().ok_or_else(|| {
        Error::input("the name of the snapshot is not UTF-8")
            .with_remedy("the snapshot comes first")
    })?;
    let selector = context.selector(snapshot, args.node.as_ref())?;
    let vault = context.vault_for_node(&args.vault, &node_dir)?;
    Ok(Source { vault, node_dir, selector })
}

/// The operator's statement, with who made it and when.
pub(super) fn original_gone(context: &Context, reason: Option<&str>) -> Result<Option<Released>> {
    let Some(reason) = reason.map(str::trim) else { return Ok(None) };
    if reason.is_empty() {
        return Err(Error::input("--original-gone says nothing")
            .with_remedy("say how you know that the node runs nowhere else"));
    }
    let (reason, by) = (reason.to_owned(), context.who());
    Ok(Some(Released { reason, by, time: context.env().now() }))
}

fn document(report: &RestoreReport, below: &[String], warnings: &[String]) -> Value {
    json!({
        "snapshot": report.snapshot,
        "target": places::text(&report.target),
        "bytes": report.bytes,
        "seconds": format::seconds(report.duration),
        "kept": report.kept.as_deref().map(places::text),
        "quarantined": report.quarantined,
        "marks_below": below,
        "marked": report.marked,
        "warnings": warnings,
    })
}

fn human(report: &RestoreReport, hold: Option<GuardKind>, because: Option<String>) -> String {
    let mut lines = vec![format!(
        "Restored {} to {}: {} in {}",
        report.snapshot,
        places::text(&report.target),
        format::bytes(report.bytes),
        format::duration(report.duration)
    )];
    if let Some(kept) = &report.kept {
        lines.push(format!(
            "The old directory is kept in {}; `highwater rollback` brings it back.",
            places::text(kept)
        ));
    }
    lines.extend(guard::line(&report.target, report.quarantined, hold));
    if report.marked > 0 {
        lines.push(format!(
            "{} also marked stale in the node's own database, which comes back when the last of them is released.",
            format::count(report.marked, "channel is", "channels are")
        ));
    }
    lines.extend(because);
    lines.join("\n")
}

fn plan_document(plan: &RestorePlan, options: &RestoreOptions, warnings: &[String]) -> Value {
    json!({
        "plan": true,
        "snapshot": plan.snapshot,
        "node": plan.node,
        "time": plan.time,
        "level": plan.level,
        "target": places::text(&plan.target),
        "exchange": exchange_word(plan.exchange),
        "staging": places::text(&plan.staging),
        "keep": plan.keep.as_deref().map(places::text),
        "part": options.part,
        "parts": record::parts(&plan.parts),
        "bytes": plan.bytes,
        "owner": options.owner.map(|(user, group)| format!("{user}:{group}")),
        "force": options.force,
        "hold": plan.hold,
        "reasons": plan.reasons,
        "marks_below": plan.marks_below,
        "kinds": plan.kinds,
        "because": known(&plan.kinds),
        "warnings": warnings,
    })
}

fn exchange_word(exchange: Exchange) -> &'static str {
    match exchange {
        Exchange::Create => "create",
        Exchange::Whole => "whole",
        Exchange::Entries => "entries",
    }
}

fn plan_human(plan: &RestorePlan, options: &RestoreOptions) -> String {
    let exchange = match plan.exchange {
        Exchange::Create => "staging becomes the target, which does not exist yet",
        Exchange::Whole => "directory against directory, in one step",
        Exchange::Entries => {
            "entry against entry inside the mount point, databases withheld meanwhile"
        }
    };
    let mut fields = vec![
        ("snapshot", format!("{} of {}, {}", plan.snapshot, plan.node, format::time(plan.time))),
        ("level", record::word(&plan.level)),
        ("target", places::text(&plan.target)),
        ("staging", places::text(&plan.staging)),
        ("exchange", exchange.to_owned()),
    ];
    if let Some(keep) = &plan.keep {
        fields.push(("keeps", format!("the old directory, in {}", places::text(keep))));
    }
    if let Some((user, group)) = options.owner {
        fields.push(("owner", format!("{user}:{group}")));
    }
    fields.push(("writes", format::bytes(plan.bytes)));
    if let Some(hold) = plan.hold {
        let what = match hold {
            GuardKind::Channels => "the channels are quarantined",
            GuardKind::Databases => "the databases are withheld until `guard release`",
        };
        fields.push(("holds", format!("{what}: {}", plan.reasons.join("; "))));
        fields.extend(known(&plan.kinds).map(|text| ("because", text)));
    }
    format!(
        "{}\n\n{}\n\nNothing was changed.",
        format::fields(&fields),
        record::part_table(&plan.parts)
    )
}

/// Why a node of a known kind is held back, and where its way out is described.
fn known(kinds: &[String]) -> Option<String> {
    let (name, danger, way_out) = kinds.iter().find_map(|kind| {
        let profile = highwater_nodes::profile(kind)?;
        Some((profile.name(), profile.danger()?, profile.way_out()))
    })?;
    let way_out = way_out.map(|way_out| format!(" {way_out}")).unwrap_or_default();
    Some(format!(
        "This is a {name} node: {danger}.{way_out} What to do next: docs/nodes.md, `{name}`."
    ))
}
