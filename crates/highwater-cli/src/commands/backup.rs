//! `backup`: one snapshot of a node directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater::backup::{self, BackupOptions, BackupReport};
use highwater::engine::freeze::Freeze;
use highwater::engine::{self, DiscoverOptions};
use highwater::guard::GuardKind;
use highwater::ids::RelPath;
use highwater::vault::Effort;
use highwater::{Error, Remedy, Result};
use highwater_nodes::{Known, Node};
use serde_json::{Value, json};

use super::record;
use crate::answer::Answer;
use crate::cli::BackupArgs;
use crate::context::Context;
use crate::{format, places, supervisor};

pub(crate) fn run(context: &Context, args: &BackupArgs) -> Result<Answer> {
    let mut tags = unique("--tag", &args.tag)?;
    if let Some(reason) = &args.unguarded {
        if reason.trim().is_empty() {
            return Err(Error::input("--unguarded needs a reason")
                .with_remedy("say why an old copy of this node does no harm"));
        }
        tags.insert("unguarded".to_owned(), reason.clone());
    }
    let mut options = BackupOptions::default();
    options.node = context.settings.node(args.node.as_ref());
    options.tags = tags;
    options.marks = unique("--mark", &args.mark)?;
    options.schema = args.schema;
    options.discover = discover(args)?;
    options.capture.allow_no_barrier = args.no_barrier;
    options.capture.block_max = args.max_block;
    options.capture.freeze = args.freeze.map(|pid| freeze(pid, args)).transpose()?;
    options.rehash = args.rehash;
    options.full = args.full;
    options.rate_max = args.limit_rate;
    options.effort = args.effort.map(Effort::from).unwrap_or_default();
    options.guard = args.guarded.then_some(GuardKind::Databases);
    options.recogniser = Some(Arc::new(Known));
    options.unguarded = args.unguarded.is_some();
    options.adopt = args.adopt;
    let actor = context.actor()?;
    let vault = context.vault_for_node(&args.vault, &args.node_dir)?;
    let report = backup::run(&vault, &args.node_dir, &actor, &options, &context.control)?;
    let warnings = record::with_ways_out(report.warnings.clone());
    Ok(Answer::new(document(&report, &warnings), human(&report)).warnings(warnings))
}

/// What belongs to the node: with `--lean` without what it fetches or builds again.
fn discover(args: &BackupArgs) -> Result<DiscoverOptions> {
    let mut options = DiscoverOptions::default();
    options.exclude = args.files.exclude.clone();
    options.include = args.files.include.clone();
    if args.lean {
        let layout = engine::discover(&args.node_dir, &options)?;
        let nodes = highwater_nodes::recognise(&layout);
        if nodes.is_empty() {
            return Err(Error::input("no part of this node is known to be safe to leave out")
                .with_entry(places::text(&args.node_dir))
                .with_remedy(Remedy::Exclude));
        }
        let there = |path: &RelPath| layout.dir.join(path.as_path()).exists();
        let lean = nodes.iter().flat_map(Node::lean).filter(there);
        options.exclude.extend(lean.map(|path| format!("/{}", glob_of(&path))));
    }
    Ok(options)
}

/// A glob that fits this path alone.
fn glob_of(path: &RelPath) -> String {
    let literal = |c: char| match c {
        '*' | '?' | '[' | ']' | '{' | '}' => format!("[{c}]"),
        c => c.to_string(),
    };
    path.as_path().to_string_lossy().chars().map(literal).collect()
}

fn freeze(pid: u32, args: &BackupArgs) -> Result<Freeze> {
    let mut freeze = Freeze::of(pid);
    freeze.pause_max = args.max_pause;
    freeze.supervisor = Some(supervisor::command()?);
    Ok(freeze)
}

fn unique<V: Clone>(flag: &str, pairs: &[(String, V)]) -> Result<BTreeMap<String, V>> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value.clone()).is_some() {
            return Err(Error::input(format!("{flag} names `{name}` twice")));
        }
    }
    Ok(map)
}

fn document(report: &BackupReport, warnings: &[String]) -> Value {
    json!({
        "snapshot": report.snapshot,
        "node": report.node,
        "parts": record::parts(&report.parts),
        "files": report.changes,
        "bytes_total": report.bytes_total,
        "bytes_read": report.bytes_read,
        "bytes_stored": report.bytes_stored,
        "requests": report.requests,
        "parent": report.parent,
        "seq": report.seq,
        "kind": report.kinds.first(),
        "kinds": report.kinds,
        "guarded": report.guard.is_some(),
        "guard": report.guard,
        "barrier": report.barrier,
        "pause_ms": u64::try_from(report.pause.as_millis()).unwrap_or(u64::MAX),
        "seconds": format::seconds(report.duration),
        "marks": record::marks(&report.marks),
        "channels": record::channels(&report.marks).len(),
        "claimed_marks": record::claimed(&report.marks),
        "warnings": warnings,
    })
}

fn human(report: &BackupReport) -> String {
    let mut lines = vec![
        format!(
            "Snapshot {} of node {}, number {}, in {}",
            report.snapshot,
            report.node,
            report.seq.0,
            format::duration(report.duration)
        ),
        String::new(),
        record::part_table(&report.parts),
        String::new(),
    ];
    let mut fields = vec![
        (
            "total",
            format!(
                "{}, of which {} read and {} stored",
                format::bytes(report.bytes_total),
                format::bytes(report.bytes_read),
                format::bytes(report.bytes_stored)
            ),
        ),
        ("files", record::changes(&report.changes)),
        ("barrier", record::word(&report.barrier)),
    ];
    if let Some(requests) = report.requests {
        fields.push(("requests", record::requests(requests)));
    }
    if !report.kinds.is_empty() {
        fields.push(("kind", report.kinds.join(", ")));
    }
    if let Some(guard) = report.guard {
        fields.push(("guarded", record::guarded(guard, &report.kinds)));
    }
    if !report.pause.is_zero() {
        fields.push(("pause", format::duration(report.pause)));
    }
    if !report.marks.is_empty() {
        fields.push(("marks", record::mark_line(&report.marks)));
    }
    lines.push(format::fields(&fields));
    lines.join("\n")
}
