//! `show`: one snapshot.

use highwater::Result;
use highwater::vault::manifest::PartRecord;
use highwater::vault::{PartSummary, SnapshotInfo};
use serde_json::{Value, json};

use super::record;
use crate::answer::Answer;
use crate::cli::ShowArgs;
use crate::context::Context;
use crate::format;

pub(crate) fn run(context: &Context, args: &ShowArgs) -> Result<Answer> {
    let selector = context.selector(&args.snapshot, args.node.as_ref())?;
    let info = context.vault(&args.vault)?.resolve(&selector)?;
    let warnings = record::with_ways_out(info.shrunk_warning().into_iter().collect());
    Ok(Answer::new(document(&info), human(&info)).warnings(warnings))
}

fn document(info: &SnapshotInfo) -> Value {
    let manifest = &info.manifest;
    json!({
        "snapshot": manifest.snapshot,
        "generation": manifest.generation,
        "node": manifest.node,
        "uid": manifest.uid,
        "seq": manifest.seq,
        "epoch": manifest.epoch,
        "parent": manifest.parent,
        "time": manifest.time,
        "barrier": manifest.barrier,
        "kind": manifest.kinds.first(),
        "kinds": manifest.kinds,
        "together": manifest.together,
        "guarded": manifest.guard_kind().is_some(),
        "guard": manifest.guard_kind(),
        "program": manifest.program,
        "restore": manifest.restore,
        "schema": manifest.schema,
        "level": info.level,
        "marks": record::marks(&manifest.marks),
        "channels": record::channel_list(&manifest.marks),
        "claimed_marks": record::claimed(&manifest.marks),
        "tags": manifest.tags,
        "parts": manifest.parts.iter().map(part_document).collect::<Value>(),
        "bytes_total": manifest.bytes_total(),
        "bytes_read": manifest.bytes_read,
        "bytes_stored": info.bytes_stored(),
        "shrunk": info.shrunk,
        "acknowledged": info.acknowledged,
    })
}

fn part_document(part: &PartRecord) -> Value {
    json!({
        "name": part.name,
        "engine": part.engine,
        "engine_version": part.engine_version,
        "consistency": part.consistency,
        "replica": part.replica,
        "files": part.files(),
        "bytes": part.bytes(),
    })
}

fn human(info: &SnapshotInfo) -> String {
    let manifest = &info.manifest;
    let none = || "none".to_owned();
    let mut fields = vec![
        ("snapshot", manifest.snapshot.to_string()),
        ("node", format!("{}, number {}", manifest.node, manifest.seq.0)),
        ("time", format::time(manifest.time)),
        ("level", record::word(&info.level)),
        ("barrier", record::word(&manifest.barrier)),
        ("parent", manifest.parent.map_or_else(none, |parent| parent.to_string())),
        ("epoch", manifest.epoch.0.to_string()),
        ("size", sizes(info)),
        ("program", format!("highwater {}", manifest.program)),
    ];
    if let Some(schema) = &manifest.schema {
        fields.push(("schema", schema.to_string()));
    }
    if !manifest.kinds.is_empty() {
        fields.push(("kind", manifest.kinds.join(", ")));
    }
    if let Some(kind) = manifest.guard_kind() {
        fields.push(("guarded", record::guarded(kind, &manifest.kinds)));
    }
    for part in &manifest.parts {
        if let Some(point) = &part.replica {
            fields.push(("replica", record::point_line(&part.name, point)));
        }
    }
    if !manifest.marks.is_empty() {
        fields.push(("marks", record::mark_line(&manifest.marks)));
    }
    if let Some(known) = &info.acknowledged {
        let text =
            format!("shrank, {} by {}: {}", format::time(known.time), known.by, known.reason);
        fields.push(("acknowledged", text));
    }
    if !manifest.tags.is_empty() {
        fields.push(("tags", record::tag_line(&manifest.tags)));
    }
    let parts: Vec<_> = manifest.parts.iter().map(PartSummary::of).collect();
    format!("{}\n\n{}", format::fields(&fields), record::part_table(&parts))
}

fn sizes(info: &SnapshotInfo) -> String {
    let manifest = &info.manifest;
    format!(
        "{}, of which {} read and {} stored",
        format::bytes(manifest.bytes_total()),
        format::bytes(manifest.bytes_read),
        format::bytes(info.bytes_stored())
    )
}
