//! `snapshots`: the snapshots of a vault, and the word that one lacks something on purpose.

use highwater::Result;
use highwater::vault::SnapshotInfo;
use serde_json::{Value, json};

use super::record;
use crate::answer::Answer;
use crate::cli::{AcknowledgeArgs, SnapshotsArgs, SnapshotsCommand};
use crate::context::Context;
use crate::format;

pub(crate) fn run(context: &Context, args: &SnapshotsArgs) -> Result<Answer> {
    match &args.command {
        Some(SnapshotsCommand::Acknowledge(args)) => acknowledge(context, args),
        None => list(context, args),
    }
}

fn acknowledge(context: &Context, args: &AcknowledgeArgs) -> Result<Answer> {
    let selector = context.selector(&args.snapshot, args.node.as_ref())?;
    let vault = context.vault(&args.vault)?;
    let done = vault.acknowledge(&selector, &args.reason, &context.actor()?)?;
    let known = &done.acknowledged;
    let human = format!(
        "What snapshot {} of {} lacks {} acknowledged by {} at {}: {}",
        known.snapshot,
        done.node,
        if done.already { "was already" } else { "is" },
        known.by,
        format::time(known.time),
        known.reason
    );
    Ok(Answer::new(json!(done), human))
}

fn list(context: &Context, args: &SnapshotsArgs) -> Result<Answer> {
    let vault = context.vault(&args.vault)?;
    let node = context.settings.node(args.node.as_ref());
    let now = context.env().now();
    let (mut documents, mut rows) = (Vec::new(), Vec::new());
    vault.each_snapshot(node.as_ref(), |info| {
        documents.push(document(&info));
        let SnapshotInfo { manifest, level, shrunk, .. } = &info;
        let shrunk = if shrunk.is_empty() { "" } else { " (shrank)" };
        rows.push(vec![
            record::short(&manifest.snapshot),
            manifest.node.to_string(),
            format::time(manifest.time),
            format::age(now.seconds_since(manifest.time)),
            format!("{}{shrunk}", format::bytes(manifest.bytes_total())),
            format::bytes(info.bytes_stored()),
            record::word(level),
            if manifest.guard_kind().is_some() { "yes" } else { "no" }.to_owned(),
            record::mark_line(&manifest.marks),
            record::tag_line(&manifest.tags),
        ]);
    })?;
    if rows.is_empty() {
        return Ok(Answer::new(json!(documents), "The vault holds no snapshot."));
    }
    let header =
        ["SNAPSHOT", "NODE", "TIME", "AGE", "SIZE", "STORED", "LEVEL", "GUARDED", "MARKS", "TAGS"];
    Ok(Answer::new(json!(documents), format::table(&header, &[3, 4, 5], rows)))
}

fn document(info: &SnapshotInfo) -> Value {
    let manifest = &info.manifest;
    json!({
        "snapshot": manifest.snapshot,
        "node": manifest.node,
        "seq": manifest.seq,
        "time": manifest.time,
        "bytes_total": manifest.bytes_total(),
        "bytes_read": manifest.bytes_read,
        "bytes_stored": info.bytes_stored(),
        "level": info.level,
        "kinds": manifest.kinds,
        "guarded": manifest.guard_kind().is_some(),
        "marks": record::marks(&manifest.marks),
        "channels": record::channels(&manifest.marks).len(),
        "tags": manifest.tags,
        "replica": record::points(manifest),
        "shrunk": info.shrunk,
        "acknowledged": info.acknowledged,
    })
}
