//! `diff`: what one snapshot has that another has not.

use std::collections::{BTreeMap, BTreeSet};

use highwater::Result;
use highwater::ids::RelPath;
use highwater::vault::Manifest;
use highwater::vault::manifest::{EntryRecord, channels, totals};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::cli::DiffArgs;
use crate::context::Context;
use crate::format;

pub(crate) fn run(context: &Context, args: &DiffArgs) -> Result<Answer> {
    let vault = context.vault(&args.vault)?;
    let resolve = |snapshot: &str| -> Result<Manifest> {
        let selector = context.selector(snapshot, args.node.as_ref())?;
        Ok(vault.resolve(&selector)?.manifest)
    };
    let (from, to) = (resolve(&args.from)?, resolve(&args.to)?);
    let difference = Difference::between(&from, &to);
    Ok(Answer::new(difference.document(&from, &to), difference.human(&from, &to)))
}

/// What tells two manifests apart.
struct Difference<'a> {
    parts_added: Vec<&'a str>,
    parts_removed: Vec<&'a str>,
    added: Vec<&'a EntryRecord>,
    removed: Vec<&'a EntryRecord>,
    /// The newer record, and whether its content is another one (not only its metadata).
    changed: Vec<(&'a EntryRecord, bool)>,
    /// Marks of the whole node, and over all channels the sum of each counter.
    marks: BTreeMap<&'a str, Moved>,
    /// The marks of each channel, or key, of which one moved.
    channels: BTreeMap<&'a str, BTreeMap<&'a str, Moved>>,
}

/// A mark in the one snapshot and in the other, where they differ.
type Moved = (Option<u64>, Option<u64>);
/// How many channels are named for people; documents name all.
const CHANNELS_NAMED_MAX: usize = 20;

impl<'a> Difference<'a> {
    fn between(from: &'a Manifest, to: &'a Manifest) -> Difference<'a> {
        let (old, new) = (by_path(from), by_path(to));
        let missing_in = |this: &BTreeMap<&RelPath, &'a EntryRecord>,
                          other: &BTreeMap<&RelPath, &'a EntryRecord>| {
            let missing = this.iter().filter(|(path, _)| !other.contains_key(*path));
            missing.map(|(_, entry)| *entry).collect::<Vec<_>>()
        };
        let changed = new.iter().filter_map(|(path, new)| {
            let old = old.get(path)?;
            let content = !old.same_content(new);
            (content || old.meta != new.meta).then_some((*new, content))
        });
        let names = |manifest: &'a Manifest| -> BTreeSet<&'a str> {
            manifest.parts.iter().map(|part| part.name.as_str()).collect()
        };
        let (old_parts, new_parts) = (names(from), names(to));
        Difference {
            parts_added: new_parts.difference(&old_parts).copied().collect(),
            parts_removed: old_parts.difference(&new_parts).copied().collect(),
            added: missing_in(&new, &old),
            removed: missing_in(&old, &new),
            changed: changed.collect(),
            marks: moved(&totals(&from.marks), &totals(&to.marks)),
            channels: moved_channels(from, to),
        }
    }

    fn document(&self, from: &Manifest, to: &Manifest) -> Value {
        let paths = |entries: &[&EntryRecord]| -> Value {
            entries.iter().map(|entry| json!(entry.path)).collect()
        };
        let moved = |(name, (from, to)): (&&str, &Moved)| {
            ((*name).to_owned(), json!({"from": from, "to": to}))
        };
        let channels = self.channels.iter();
        let channels: Value = channels
            .map(|(id, marks)| json!({"id": id, "marks": marks.iter().map(moved).collect::<Value>()}))
            .collect();
        json!({
            "from": from.snapshot,
            "to": to.snapshot,
            "parts": {"added": self.parts_added, "removed": self.parts_removed},
            "files": {
                "added": paths(&self.added),
                "removed": paths(&self.removed),
                "changed": self.changed.iter().map(|(entry, content)| {
                    json!({"path": entry.path, "content": content, "bytes": entry.size})
                }).collect::<Value>(),
            },
            "bytes": {"from": from.bytes_total(), "to": to.bytes_total()},
            "marks": self.marks.iter().map(moved).collect::<Value>(),
            "channels": channels,
        })
    }

    fn human(&self, from: &Manifest, to: &Manifest) -> String {
        let mut lines = vec![
            format!(
                "from  {} of {}, {}",
                from.snapshot,
                format::time(from.time),
                format::bytes(from.bytes_total())
            ),
            format!(
                "to    {} of {}, {}",
                to.snapshot,
                format::time(to.time),
                format::bytes(to.bytes_total())
            ),
            String::new(),
        ];
        let before = lines.len();
        lines.extend(self.parts_added.iter().map(|name| format!("+ part {name}")));
        lines.extend(self.parts_removed.iter().map(|name| format!("- part {name}")));
        let sized = |sign: char, entry: &EntryRecord| {
            format!("{sign} {} ({})", entry.path, format::bytes(entry.size))
        };
        lines.extend(self.added.iter().map(|entry| sized('+', entry)));
        lines.extend(self.removed.iter().map(|entry| sized('-', entry)));
        lines.extend(self.changed.iter().map(|(entry, content)| {
            let what = if *content { format::bytes(entry.size) } else { "metadata".to_owned() };
            format!("~ {} ({what})", entry.path)
        }));
        lines
            .extend(self.marks.iter().map(|(name, moved)| format!("mark {name}: {}", told(moved))));
        lines.extend(self.channels.iter().take(CHANNELS_NAMED_MAX).map(|(id, marks)| {
            let marks: Vec<String> =
                marks.iter().map(|(what, moved)| format!("{what} {}", told(moved))).collect();
            format!("channel {id}: {}", marks.join(", "))
        }));
        let more = self.channels.len().saturating_sub(CHANNELS_NAMED_MAX);
        if more > 0 {
            lines.push(format!("{more} more channels moved."));
        }
        if lines.len() == before {
            lines.push("No difference.".to_owned());
        }
        lines.join("\n")
    }
}

fn by_path(manifest: &Manifest) -> BTreeMap<&RelPath, &EntryRecord> {
    manifest.entries().map(|entry| (&entry.path, entry)).collect()
}

fn told((from, to): &Moved) -> String {
    let value = |mark: &Option<u64>| mark.map_or_else(|| "none".to_owned(), |n| n.to_string());
    format!("{} to {}", value(from), value(to))
}

/// The marks that differ.
fn moved<'a>(
    from: &BTreeMap<&'a str, u64>,
    to: &BTreeMap<&'a str, u64>,
) -> BTreeMap<&'a str, Moved> {
    let names = from.keys().chain(to.keys());
    let pair = |name: &&'a str| (*name, (from.get(name).copied(), to.get(name).copied()));
    names.map(pair).filter(|(_, (from, to))| from != to).collect()
}

/// The channels, or keys, of which a mark differs.
fn moved_channels<'a>(
    from: &'a Manifest,
    to: &'a Manifest,
) -> BTreeMap<&'a str, BTreeMap<&'a str, Moved>> {
    let (old, new) = (channels(&from.marks), channels(&to.marks));
    let none = BTreeMap::new();
    let both = |id: &&'a str| {
        let marks = |side: &BTreeMap<&'a str, BTreeMap<&'a str, u64>>| {
            side.get(id).unwrap_or(&none).clone()
        };
        (*id, moved(&marks(&old), &marks(&new)))
    };
    old.keys().chain(new.keys()).map(both).filter(|(_, moved)| !moved.is_empty()).collect()
}
