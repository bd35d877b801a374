//! `forget`: hides snapshots by a policy or by name, or brings one back.

use highwater::vault::forget::{self, ForgetOptions, ForgetPlan, Forgot, Goes, NodePlan};
use highwater::vault::retention::{Reason, Retention};
use highwater::{Error, Result};
use serde_json::{Value, json};

use super::{prune, record};
use crate::answer::Answer;
use crate::cli::ForgetArgs;
use crate::context::Context;
use crate::format;

pub(crate) fn run(context: &Context, args: &ForgetArgs) -> Result<Answer> {
    if !args.prune && args.how.is_given() {
        return Err(
            Error::input("these options are only for a prune").with_remedy("give --prune as well")
        );
    }
    let vault = context.vault(&args.vault)?;
    let actor = context.actor()?;
    if let Some(snapshot) = &args.undo {
        let snapshot = forget::undo(&vault, &actor, snapshot, &context.control)?;
        let human = format!("Snapshot {snapshot} is back.");
        return Ok(Answer::new(json!({"snapshot": snapshot}), human));
    }
    let options = ForgetOptions::default()
        .node(context.settings.node(args.node.as_ref()))
        .retention(retention(args))
        .snapshots(args.snapshots.clone());
    let plan = forget::plan(&vault, &options)?;
    let forgot = match args.dry_run {
        true => None,
        false => Some(forget::run(&vault, &actor, &plan, &context.control)?),
    };
    let mut document = json!({
        "dry_run": args.dry_run,
        "nodes": plan.nodes,
        "forgotten": forgot.as_ref().map_or(0, |forgot| forgot.snapshots.len()),
        "until": forgot.as_ref().and_then(|forgot| forgot.until),
        "prune": Value::Null,
        "warnings": plan.warnings,
    });
    let mut human = human(&plan, forgot.as_ref());
    let mut warnings = record::with_ways_out(plan.warnings);
    if args.prune {
        let pruned = prune::carry_out(context, &vault, &actor, &args.how, args.dry_run)?;
        human = format!("{human}\n\n{}", pruned.human);
        document["prune"] = pruned.json;
        warnings.extend(pruned.warnings);
    }
    Ok(Answer::new(document, human).warnings(warnings))
}

fn retention(args: &ForgetArgs) -> Retention {
    Retention {
        last: args.keep_last.unwrap_or(0),
        hourly: args.keep_hourly.unwrap_or(0),
        daily: args.keep_daily.unwrap_or(0),
        weekly: args.keep_weekly.unwrap_or(0),
        monthly: args.keep_monthly.unwrap_or(0),
        within: args.keep_within,
        tags: args.keep_tag.clone(),
    }
}

fn human(plan: &ForgetPlan, forgot: Option<&Forgot>) -> String {
    let mut lines: Vec<String> = plan.nodes.iter().map(node_lines).collect();
    let goes = plan.nodes.iter().map(|node| node.forget.len() as u64).sum();
    let snapshots = format::count(goes, "snapshot", "snapshots");
    lines.push(match forgot {
        None => format!("{snapshots} would be forgotten; nothing was changed."),
        Some(Forgot { until: Some(until), .. }) => format!(
            "{snapshots} forgotten. Until {} `highwater forget --undo SNAPSHOT` brings one back; \
             a later `highwater prune` deletes them.",
            format::time(*until)
        ),
        Some(_) => "Nothing to forget.".to_owned(),
    });
    lines.join("\n\n")
}

fn node_lines(node: &NodePlan) -> String {
    let time = |time: Option<highwater::ids::Time>| {
        time.map_or_else(|| "can't be opened".to_owned(), format::time)
    };
    let keep = node.keep.iter().map(|keep| {
        let reasons: Vec<String> = keep.reasons.iter().map(reason).collect();
        vec![record::short(&keep.snapshot), time(keep.time), "keep".to_owned(), reasons.join(", ")]
    });
    let forget = node.forget.iter().map(|Goes { snapshot, time: at }| {
        vec![record::short(snapshot), time(*at), "FORGET".to_owned(), String::new()]
    });
    let rows = keep.chain(forget).collect();
    let table = format::table(&["SNAPSHOT", "TIME", "", "WHY"], &[], rows);
    format!("Node {}\n{table}", node.node)
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Tag(tag) => format!("tag {tag}"),
        Reason::Unacknowledged => "has something that the newest one lacks".to_owned(),
        Reason::Restored => "newest that passed a restore test".to_owned(),
        other => record::word(other),
    }
}
