//! What several documents share: parts, key slots and marks.

use std::collections::BTreeMap;

use highwater::backup::Changes;
use highwater::engine::ReplicaPoint;
use highwater::guard::GuardKind;
pub(super) use highwater::vault::manifest::channels;
use highwater::vault::manifest::{Mark, PartRecord, totals};
use highwater::vault::shrink::UNACKNOWLEDGED;
use highwater::vault::{Manifest, PartSummary, Requests, SlotInfo};
use serde_json::{Value, json};

use crate::format;

/// The parts as an array of objects.
pub(super) fn parts(parts: &[PartSummary]) -> Value {
    parts.iter().map(|part| json!(part)).collect()
}

/// The parts as a table.
pub(super) fn part_table(parts: &[PartSummary]) -> String {
    let row = |part: &PartSummary| {
        let (files, bytes) = (part.files.to_string(), format::bytes(part.bytes));
        vec![part.name.clone(), word(&part.engine), files, bytes]
    };
    format::table(&["PART", "ENGINE", "FILES", "SIZE"], &[2, 3], parts.iter().map(row).collect())
}

/// The key slots as a table.
pub(super) fn slot_table(slots: &[SlotInfo]) -> String {
    let row = |slot: &SlotInfo| {
        let (id, kind) = (slot.slot.to_string(), word(&slot.kind));
        vec![id, kind, slot.label.clone(), format::time(slot.created)]
    };
    format::table(&["SLOT", "KIND", "LABEL", "CREATED"], &[], slots.iter().map(row).collect())
}

/// The marks as an object of numbers: those of the whole node, and over all channels the sum of each counter.
pub(super) fn marks(marks: &BTreeMap<String, Mark>) -> Value {
    totals(marks).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

/// The marks of each channel, or of each key, as an array of objects.
pub(super) fn channel_list(marks: &BTreeMap<String, Mark>) -> Value {
    let channel = |(id, marks): (&str, BTreeMap<&str, u64>)| json!({"id": id, "marks": marks});
    channels(marks).into_iter().map(channel).collect()
}

/// The names of the marks that the caller claimed, that no barrier captured.
pub(super) fn claimed(marks: &BTreeMap<String, Mark>) -> Value {
    marks.iter().filter(|(_, mark)| mark.claimed).map(|(name, _)| json!(name)).collect()
}

/// Where the replicated stores of a snapshot stood, part by part.
pub(super) fn points(manifest: &Manifest) -> Value {
    let point = |part: &PartRecord| {
        let ReplicaPoint { store, epoch, seq, acknowledged } = part.replica?;
        Some(json!({
            "part": part.name, "store": store, "epoch": epoch, "seq": seq,
            "acknowledged": acknowledged,
        }))
    };
    manifest.parts.iter().filter_map(point).collect()
}

/// One of them on a line.
pub(super) fn point_line(part: &str, point: &ReplicaPoint) -> String {
    let ReplicaPoint { epoch, seq, acknowledged, .. } = point;
    format!("{part}: write {seq} of epoch {epoch}, {acknowledged} on the server")
}

/// The marks on one line: those of the whole node, and what those of its channels come to.
pub(super) fn mark_line(marks: &BTreeMap<String, Mark>) -> String {
    let claimed = |name: &str| marks.get(name).is_some_and(|mark| mark.claimed);
    let mark = |(name, value): (&str, u64)| {
        format!("{name}={value}{}", if claimed(name) { " (claimed)" } else { "" })
    };
    let count = channels(marks).len();
    let channels = (count > 0).then(|| format!("channels={count}"));
    let marks: Vec<String> = totals(marks).into_iter().map(mark).chain(channels).collect();
    marks.join(" ")
}

/// The tags on one line.
pub(super) fn tag_line(tags: &BTreeMap<String, String>) -> String {
    let tags: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    tags.join(" ")
}

/// The word that stands for a value in documents.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// What a backup found beside the snapshot before.
pub(super) fn changes(changes: &Changes) -> String {
    let Changes { new, changed, unchanged, removed } = changes;
    format!("{new} new, {changed} changed, {unchanged} unchanged, {removed} removed")
}

/// What an operator of an object store counts.
pub(super) fn requests(requests: Requests) -> String {
    let Requests { put, get, list, delete, .. } = requests;
    format!("{put} put, {get} get, {list} list, {delete} delete")
}

/// The beginning of an id: enough for people to tell snapshots apart.
pub(super) fn short(id: &impl std::fmt::Display) -> String {
    id.to_string().chars().take(12).collect()
}

/// The library's warnings, each of what a snapshot lacks followed by the command that says that it is right.
pub(super) fn with_ways_out(warnings: Vec<String>) -> Vec<String> {
    let lacks = warnings.iter().any(|warning| warning.contains(UNACKNOWLEDGED));
    let way_out = lacks.then(|| {
        "`highwater snapshots acknowledge SNAPSHOT --reason TEXT` acknowledges that what a snapshot lacks is missing on purpose"
            .to_owned()
    });
    warnings.into_iter().chain(way_out).collect()
}

/// How a node is held back once it is restored, and why.
pub(super) fn guarded(guard: GuardKind, kinds: &[String]) -> String {
    let what = match guard {
        GuardKind::Channels => "a restore quarantines the channels",
        GuardKind::Databases => "a restore withholds the databases",
    };
    match kinds.iter().find_map(|kind| highwater_nodes::profile(kind)?.danger()) {
        Some(danger) => format!("{what}: {danger}"),
        None => what.to_owned(),
    }
}
