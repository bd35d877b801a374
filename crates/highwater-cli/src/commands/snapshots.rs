//! `snapshots`: the snapshots of a vault.

use highwater::Result;
use highwater::vault::SnapshotInfo;
use serde_json::{Value, json};

use super::record;
use crate::answer::Answer;
use crate::cli::SnapshotsArgs;
use crate::context::Context;
use crate::format;

pub(crate) fn run(context: &Context, args: &SnapshotsArgs) -> Result<Answer> {
    let vault = context.vault(&args.vault)?;
    let node = context.settings.node(args.node.as_ref());
    let snapshots = vault.snapshots(node.as_ref())?;
    let document = snapshots.iter().map(document).collect();
    if snapshots.is_empty() {
        return Ok(Answer::new(document, "The vault holds no snapshot."));
    }
    let now = context.env().now();
    let rows = snapshots
        .iter()
        .map(|SnapshotInfo { manifest, level }| {
            vec![
                record::short(&manifest.snapshot),
                manifest.node.to_string(),
                format::time(manifest.time),
                format::age(now.seconds_since(manifest.time)),
                format::bytes(manifest.bytes_total()),
                format::bytes(manifest.bytes_stored),
                record::word(level),
                record::mark_line(&manifest.marks),
                record::tag_line(&manifest.tags),
            ]
        })
        .collect();
    let header = ["SNAPSHOT", "NODE", "TIME", "AGE", "SIZE", "STORED", "LEVEL", "MARKS", "TAGS"];
    Ok(Answer::new(document, format::table(&header, &[3, 4, 5], rows)))
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
        "bytes_stored": manifest.bytes_stored,
        "level": info.level,
        "marks": record::marks(&manifest.marks),
        "tags": manifest.tags,
        "replica": record::points(manifest),
    })
}
