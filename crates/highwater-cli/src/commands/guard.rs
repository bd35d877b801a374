//! `guard`: what of a node directory is quarantined, and letting it go on.

use std::path::Path;
use std::time::Duration;

use highwater::guard::{
    self, GuardKind, Held, HeldState, Latch, Recorded, Released, Standing, Which,
};
use highwater::{Error, Kind, Result, restore};
use highwater_nodes::floor::Prepared;
use serde_json::{Value, json};

use super::{floors, record};
use crate::answer::Answer;
use crate::cli::{GuardCommand, GuardReleaseArgs, GuardShowArgs, GuardWaitArgs, TargetArgs};
use crate::context::Context;
use crate::{format, output, places};

/// The numbers of a channel, as people read them.
const NUMBERS: [&str; 5] = ["signed", "revoked", "received", "closing", "epoch"];
/// What is printed if there is no latch.
const NOTHING: &str = "Nothing is quarantined.";

pub(crate) fn run(context: &Context, command: &GuardCommand) -> Result<Answer> {
    match command {
        GuardCommand::List(args) => list(args),
        GuardCommand::Show(args) => show(args),
        GuardCommand::Release(args) => release(context, args),
        GuardCommand::Wait(args) => wait(context, args),
    }
}

fn list(args: &TargetArgs) -> Result<Answer> {
    refuse_missing(&args.node_dir)?;
    let Some(standing) = guard::standing(&args.node_dir)? else {
        let nothing = json!({
            "channels": [], "node": null, "kind": null, "cause": null, "snapshot": null,
            "since": null,
        });
        return Ok(Answer::new(nothing, NOTHING));
    };
    let document = json!({
        "channels": standing.held,
        "node": standing.node,
        "kind": standing.kind,
        "cause": standing.cause,
        "snapshot": standing.snapshot,
        "since": standing.since,
    });
    let failed = (standing.quarantined() > 0).then_some(Kind::Quarantined);
    let human = format!("{}\n\n{}", origin(&standing), table(&standing));
    Ok(Answer::new(document, human).failed(failed))
}

fn show(args: &GuardShowArgs) -> Result<Answer> {
    refuse_missing(&args.node_dir)?;
    let (Some(standing), Some(latch)) =
        (guard::standing(&args.node_dir)?, Latch::read(&args.node_dir)?)
    else {
        if let Some(channel) = &args.channel {
            return Err(Error::not_found("nothing of this node is quarantined").with_entry(channel));
        }
        return last(args);
    };
    let wanted = |held: &&Held| args.channel.as_ref().is_none_or(|channel| held.id == *channel);
    let held: Vec<&Held> = standing.held.iter().filter(wanted).collect();
    if let (true, Some(channel)) = (held.is_empty(), &args.channel) {
        return Err(Error::not_found(format!("`{channel}` is not in quarantine"))
            .with_entry(channel)
            .with_remedy("`highwater guard list` shows what is in quarantine"));
    }
    let document = json!({
        "node": latch.node,
        "uid": latch.uid,
        "kind": latch.kind,
        "cause": latch.cause,
        "restore": latch.restore,
        "snapshot": latch.snapshot,
        "since": latch.time,
        "reasons": latch.reasons,
        "old": latch.old,
        "marks": latch.marks,
        "listed": latch.listed,
        "release": latch.release,
        "original_gone": latch.original_gone,
        "floors": latch.floors,
        "channels": held.iter().map(|held| held_document(&latch, held)).collect::<Value>(),
    });
    let mut paragraphs = vec![head(&standing, &latch)];
    paragraphs.extend(held.iter().map(|held| held_fields(&latch, held)));
    Ok(Answer::new(document, paragraphs.join("\n\n")))
}

/// What was quarantined last, and who released it.
fn last(args: &GuardShowArgs) -> Result<Answer> {
    let Some(latch) = Latch::last(&args.node_dir)? else {
        return Ok(Answer::new(json!({"channels": [], "node": null, "last": null}), NOTHING));
    };
    let withheld = latch.withheld.iter().filter_map(|one| Some((&one.part, one.release.as_ref()?)));
    let channels = latch.channels.iter().filter_map(|(id, one)| Some((id, one.release.as_ref()?)));
    let node = latch.node.to_string();
    // Of a node whose channels were not listed.
    let unlisted = latch.release.as_ref().filter(|_| latch.kind == GuardKind::Channels);
    let whole = unlisted.map(|release| (&node, release));
    let mut released: Vec<(&String, &Released)> = withheld.chain(channels).chain(whole).collect();
    released.dedup();
    let rows = |(id, release): &(&String, &Released)| json!({"id": id, "by": release.by, "reason": release.reason, "time": release.time});
    let document = json!({
        "channels": [],
        "node": null,
        "last": {
            "node": latch.node,
            "kind": latch.kind,
            "cause": latch.cause,
            "snapshot": latch.snapshot,
            "since": latch.time,
            "old": latch.old,
            "floors": latch.floors,
            "released": released.iter().map(rows).collect::<Value>(),
        },
    });
    let mut lines = vec![NOTHING.to_owned()];
    let how = cause(latch.cause);
    let snapshot = latch.snapshot.as_ref().map(record::short).unwrap_or_default();
    lines.push(format!(
        "Until its release the node {node} was, {how} {snapshot}, since {}.",
        format::time(latch.time)
    ));
    lines.extend(latch.old.as_ref().map(guard::Old::words));
    lines.extend(released.iter().map(|(id, release)| {
        let time = format::time(release.time);
        format!("{id}: released by {}, {time}: {}", release.by, release.reason)
    }));
    lines.extend(latch.floors.iter().map(floors::line));
    Ok(Answer::new(document, lines.join("\n")))
}

fn release(context: &Context, args: &GuardReleaseArgs) -> Result<Answer> {
    refuse_missing(&args.node_dir)?;
    let which = match &args.channel {
        Some(channel) => Which::Channel(channel.clone()),
        None => Which::All,
    };
    let by = context.who();
    // Durable before anything is let go.
    let prepared = floors::raise(context, args, &which)?;
    let although_old = args.although_old || prepared.covers;
    let release = if although_old { guard::release_although_old } else { guard::release };
    let stands = release(&args.node_dir, &which, &args.reason, &by, &context.control)?;
    let is_meant = |held: &&Held| args.channel.as_ref().is_none_or(|channel| held.id == *channel);
    let released: Vec<&Held> =
        stands.iter().filter(is_meant).filter(|held| held.state == HeldState::Released).collect();
    let left: Vec<&Held> = stands.iter().filter(|held| held.state.holds()).collect();
    let document = json!({
        "released": released, "held": left, "by": by, "reason": args.reason.trim(),
        "floors": prepared.floors,
    });
    let human = release_lines(&released, &left, &prepared);
    Ok(Answer::new(document, human).warnings(prepared.warnings))
}

fn release_lines(released: &[&Held], left: &[&Held], prepared: &Prepared) -> String {
    let names = |held: &[&Held]| {
        let names: Vec<&str> = held.iter().map(|held| held.id.as_str()).collect();
        names.join(", ")
    };
    let mut lines: Vec<String> = prepared.floors.iter().map(floors::line).collect();
    if released.is_empty() && left.is_empty() {
        lines.push(NOTHING.to_owned());
        return lines.join("\n");
    }
    if !released.is_empty() {
        lines.push(format!("Released: {}.", names(released)));
        let upon = match prepared.covers {
            true => {
                "You take responsibility that the original has stopped for good, and that its chain was no further than you stated: above the floor, the signer signs whatever it is asked to."
            }
            false => {
                "You take responsibility that this state is current: if the node has run on anywhere, what it signs from now on can cost the money in its channels."
            }
        };
        lines.push(upon.to_owned());
    }
    if !left.is_empty() {
        lines.push(format!("Still held: {}.", names(left)));
    }
    lines.join("\n")
}

fn wait(context: &Context, args: &GuardWaitArgs) -> Result<Answer> {
    let (dir, timeout) = (&args.node_dir, args.patience.timeout);
    refuse_unready(dir)?;
    if let Some(standing) = guard::standing(dir)? {
        say_waiting(dir, standing.held.iter().filter(|held| held.state.holds()), timeout);
    }
    guard::wait(dir, timeout, &context.control)?;
    Ok(Answer::new(json!({"quarantined": 0}), NOTHING))
}

/// Waits until nothing keeps the node in `dir` from being started.
pub(super) fn wait_to_start(
    context: &Context,
    dir: &Path,
    timeout: Option<Duration>,
) -> Result<()> {
    refuse_unready(dir)?;
    if let Some(standing) = guard::standing(dir)? {
        say_waiting(dir, standing.in_the_way(), timeout);
    }
    guard::wait_to_start(dir, timeout, &context.control)?;
    // A restore may have begun meanwhile.
    refuse_unready(dir)
}

/// Says what is waited for, before the wait begins.
fn say_waiting<'a>(dir: &Path, held: impl Iterator<Item = &'a Held>, timeout: Option<Duration>) {
    let names: Vec<&str> = held.map(|held| held.id.as_str()).collect();
    if !names.is_empty() && timeout != Some(Duration::ZERO) {
        output::note(&format!(
            "waiting for the release of {}: `highwater guard list {}` says why",
            names.join(", "),
            places::text(dir)
        ));
    }
}

/// A node can't start from a directory that is not there, nor from one whose restore was interrupted.
fn refuse_unready(dir: &Path) -> Result<()> {
    refuse_missing(dir)?;
    restore::refuse_interrupted(dir)
}

pub(super) fn refuse_missing(dir: &Path) -> Result<()> {
    let name = places::text(dir);
    let found = std::fs::metadata(dir)
        .map_err(|error| Error::io("the node directory", error).with_entry(name.as_str()))?;
    if found.is_dir() {
        return Ok(());
    }
    Err(Error::input("the node directory is not a directory").with_entry(name))
}

/// What a report says of `quarantined` databases or channels; `None` of none.
pub(super) fn line(dir: &Path, quarantined: u64, kind: Option<GuardKind>) -> Option<String> {
    if quarantined == 0 {
        return None;
    }
    let dir = places::text(dir);
    Some(match kind {
        Some(GuardKind::Channels) => format!(
            "Its channels are quarantined: the node judges them once it runs; `highwater guard list {dir}` shows its progress."
        ),
        _ => format!(
            "{} withheld. Is this the newest state of the node, and is no other copy running? \
             `highwater guard list {dir}` tells what is known. Where both are certain, `highwater guard \
             release {dir} --all --reason \"…\"` lets the node go on.",
            format::count(quarantined, "part is", "parts are")
        ),
    })
}

fn origin(standing: &Standing) -> String {
    let how = cause(standing.cause);
    let snapshot = standing.snapshot.map(|snapshot| format!(" {}", record::short(&snapshot)));
    let since = format::time(standing.since);
    format!("Node {}, {how}{}, since {since}", standing.node, snapshot.unwrap_or_default())
}

fn cause(cause: guard::Cause) -> &'static str {
    match cause {
        guard::Cause::Restore => "restored from",
        guard::Cause::Rollback => "brought back by a rollback of",
        guard::Cause::Witness => "behind its witness",
    }
}

fn table(standing: &Standing) -> String {
    let listed = |held: &Held| held.state != HeldState::Withheld;
    let what = match standing.kind {
        GuardKind::Channels => "CHANNEL",
        GuardKind::Databases if standing.held.iter().any(listed) => "DATABASE, CHANNEL",
        GuardKind::Databases => "DATABASE",
    };
    let row = |held: &Held| vec![held.id.clone(), record::word(&held.state), held.reason.clone()];
    let rows = standing.held.iter().map(row).collect();
    format::table(&[what, "STATE", "REASON"], &[], rows)
}

fn held_document(latch: &Latch, held: &Held) -> Value {
    let recorded = latch.channels.get(&held.id);
    json!({
        "id": held.id,
        "state": held.state,
        "reason": held.reason,
        "ours": recorded.and_then(|recorded| recorded.ours),
        "evidence": recorded.and_then(|recorded| recorded.evidence),
        "verdict": recorded.and_then(|recorded| recorded.verdict),
        "release": release_of(latch, held),
        "withheld": withheld_paths(latch, held),
    })
}

fn release_of<'a>(latch: &'a Latch, held: &Held) -> Option<&'a Released> {
    let withheld = latch.withheld.iter().find(|withheld| withheld.part == held.id);
    withheld.and_then(|withheld| withheld.release.as_ref()).or_else(|| latch.released(&held.id))
}

fn withheld_paths(latch: &Latch, held: &Held) -> Vec<String> {
    let of_part = latch.withheld.iter().filter(|withheld| withheld.part == held.id);
    of_part.map(|withheld| withheld.path.to_string()).collect()
}

fn head(standing: &Standing, latch: &Latch) -> String {
    let mut lines = vec![origin(standing)];
    lines.extend(latch.old.as_ref().map(guard::Old::words));
    lines.extend(latch.reasons.iter().cloned());
    if let Some(gone) = &latch.original_gone {
        let time = format::time(gone.time);
        lines.push(format!("The original is gone, says {}, {time}: {}", gone.by, gone.reason));
    }
    if !latch.marks.is_empty() {
        let marks: Vec<String> =
            latch.marks.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.push(format!("The vault has seen {}.", marks.join(" ")));
    }
    lines.extend(latch.floors.iter().map(floors::line));
    lines.join("\n")
}

fn held_fields(latch: &Latch, held: &Held) -> String {
    let mut fields = vec![
        ("name", held.id.clone()),
        ("state", record::word(&held.state)),
        ("reason", held.reason.clone()),
    ];
    let paths = withheld_paths(latch, held);
    if !paths.is_empty() {
        fields.push(("withheld", paths.join(", ")));
    }
    // Of a database nothing is recorded but its release.
    let is_channel = |recorded: &&Recorded| {
        latch.kind == GuardKind::Channels || recorded.ours.is_some() || recorded.verdict.is_some()
    };
    if let Some(recorded) = latch.channels.get(&held.id).filter(is_channel) {
        let evidence = json!(recorded.evidence);
        fields.push(("ours", pairs(&json!(recorded.ours))));
        for name in ["chain", "backup", "witness", "report", "policy"] {
            fields.push((name, pairs(&evidence[name])));
        }
        fields.push(("verdict", pairs(&json!(recorded.verdict))));
    }
    if let Some(release) = release_of(latch, held) {
        let time = format::time(release.time);
        fields.push(("release", format!("by {}, {time}: {}", release.by, release.reason)));
    }
    format::fields(&fields)
}

/// An object on one line, as `signed 6, revoked 5`, the numbers in the order of [`NUMBERS`].
fn pairs(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let place = |name: &str| NUMBERS.iter().position(|number| *number == name);
            let mut named: Vec<(&String, &Value)> = object.iter().collect();
            named.sort_by_key(|(name, _)| place(name).unwrap_or(NUMBERS.len()));
            let pairs: Vec<String> =
                named.iter().map(|(name, value)| format!("{name} {}", pairs(value))).collect();
            pairs.join(", ")
        }
        Value::Null => "not known".to_owned(),
        other => record::word(other),
    }
}
