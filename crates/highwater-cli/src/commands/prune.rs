//! `prune`: deletes what was forgotten long enough ago, and what no snapshot needs.

use highwater::Result;
use highwater::vault::prune::{self, PruneOptions, PrunePlan, Pruned, Rewriting, Why};
use highwater::vault::{Actor, GRACE, Vault};
use serde_json::json;

use super::record;
use crate::answer::Answer;
use crate::cli::{PruneArgs, PruneHowArgs};
use crate::context::Context;
use crate::{format, output};

pub(crate) fn run(context: &Context, args: &PruneArgs) -> Result<Answer> {
    let vault = context.vault(&args.vault)?;
    carry_out(context, &vault, &context.actor()?, &args.how, args.dry_run)
}

/// Plans, says what the plan is, and carries it out.
pub(super) fn carry_out(
    context: &Context,
    vault: &Vault,
    actor: &Actor,
    args: &PruneHowArgs,
    dry_run: bool,
) -> Result<Answer> {
    let unused_max = args.max_unused.unwrap_or(Rewriting::USUAL.unused_max);
    let bytes_max = args.max_rewrite.unwrap_or(Rewriting::USUAL.bytes_max);
    let rewriting = Rewriting { unused_max, bytes_max };
    let options = PruneOptions::default()
        .grace(args.grace.unwrap_or(GRACE))
        .rewrite(Some(rewriting).filter(|_| !unused_max.is_all()));
    let plan = prune::plan(vault, actor, &options, &context.control)?;
    let document = |pruned: Option<&Pruned>| {
        json!({
            "dry_run": dry_run,
            "plan": plan,
            "manifests": pruned.map_or(0, |pruned| pruned.manifests),
            "packs": pruned.map_or(0, |pruned| pruned.packs),
            "bytes": pruned.map_or(0, |pruned| pruned.bytes),
            "rewritten": pruned.map(|pruned| pruned.rewritten),
        })
    };
    if dry_run {
        let human = format!("{}\nNothing was changed.", lines(&plan));
        return Ok(Answer::new(document(None), human).warnings(plan.warnings.clone()));
    }
    if !context.json {
        // What destroys is said before it is done.
        output::tell(&lines(&plan))?;
    }
    let pruned = prune::run(vault, actor, &plan, &context.control)?;
    let mut human = format!(
        "{} and {} deleted, {} freed.",
        format::count(pruned.manifests, "manifest", "manifests"),
        format::count(pruned.packs, "pack", "packs"),
        format::bytes(pruned.bytes)
    );
    if pruned.rewritten.packs > 0 {
        human.push_str(&format!(
            "\n{} rewritten for {}, {} copied; a prune after the grace period deletes the old ones.",
            format::count(pruned.rewritten.packs, "pack", "packs"),
            format::count(pruned.rewritten.manifests, "snapshot", "snapshots"),
            format::bytes(pruned.rewritten.bytes)
        ));
    }
    Ok(Answer::new(document(Some(&pruned)), human).warnings(plan.warnings.clone()))
}

fn lines(plan: &PrunePlan) -> String {
    let mut lines = Vec::new();
    let goes = plan.manifests.iter().map(|doomed| {
        let why = match doomed.why {
            Why::Forgotten => "forgotten",
            Why::Replaced => "replaced by a later generation",
            Why::Fenced => "committed behind the fence",
        };
        vec![record::short(&doomed.snapshot), doomed.node.to_string(), why.to_owned()]
    });
    let waits = plan.waiting.iter().map(|waiting| {
        let until = match waiting.until {
            Some(until) => format!("stays until {}", format::time(until)),
            None => "kept: a running backup or prune needs it".to_owned(),
        };
        vec![record::short(&waiting.snapshot), waiting.node.to_string(), until]
    });
    let rows: Vec<Vec<String>> = goes.chain(waits).collect();
    if !rows.is_empty() {
        lines.push(format::table(&["SNAPSHOT", "NODE", ""], &[], rows));
    }
    lines.push(format!(
        "{} to delete, {} to free; {} stay.",
        format::count(plan.packs, "pack", "packs"),
        format::bytes(plan.bytes),
        format::bytes(plan.bytes_needed)
    ));
    if let Some(rewrite) = plan.rewrite.filter(|rewrite| rewrite.packs > 0) {
        lines.push(format!(
            "{} to rewrite, {} to copy: {} in packs of the snapshots are unneeded.",
            format::count(rewrite.packs, "pack", "packs"),
            format::bytes(rewrite.bytes),
            format::bytes(rewrite.bytes_unused)
        ));
    }
    if plan.packs_young > 0 {
        lines.push(format!(
            "{} in no snapshot, but younger than two days: a running backup may need them.",
            format::count(plan.packs_young, "pack", "packs")
        ));
    }
    lines.join("\n")
}
