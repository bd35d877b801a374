//! `inspect`: parts, who has them open, what a backup would refuse and why.

use highwater::engine::{self, DiscoverOptions, EngineKind, FoundPart, Layout, User};
use highwater::guard::{self, GuardKind, Standing};
use highwater::ids::RelPath;
use highwater::vault::PartSummary;
use highwater::{Error, Result};
use highwater_nodes::Node;
use serde_json::{Value, json};

use super::record;
use crate::answer::Answer;
use crate::cli::InspectArgs;
use crate::context::Context;
use crate::{format, places, remedy};

pub(crate) fn run(context: &Context, args: &InspectArgs) -> Result<Answer> {
    let mut options = DiscoverOptions::default();
    options.exclude = args.files.exclude.clone();
    options.include = args.files.include.clone();
    let mut layout = engine::discover(&args.node_dir, &options)?;
    let known: Vec<Error> = layout.refusals.clone();
    let obstacles = engine::obstacles(&layout, context.env());
    let is_new = |found: &Error| known.iter().all(|known| known.entry() != found.entry());
    layout.refusals.extend(obstacles.into_iter().filter(is_new));
    let users = engine::users(&layout.dir, layout.engines())?;
    let parts: Vec<Seen<'_>> = layout.parts.iter().map(|part| see(part, &layout, &users)).collect();
    let homeless: Vec<&Error> = layout
        .refusals
        .iter()
        .filter(|refusal| !layout.parts.iter().any(|part| concerns(refusal, part)))
        .collect();
    let standing = guard::standing(&layout.dir)?;
    let nodes = highwater_nodes::recognise(&layout);
    let nodes = dangerous_first(nodes);
    let document = json!({
        "dir": places::text(&layout.dir),
        "quarantine": standing,
        "kind": nodes.first().map(|node| node.profile().name()),
        "dangerous": nodes.iter().any(|node| node.profile().danger().is_some()),
        "kinds": nodes.iter().map(node_document).collect::<Value>(),
        "parts": parts.iter().map(Seen::document).collect::<Value>(),
        "refusals": homeless.iter().map(|refusal| refusal_document(refusal)).collect::<Value>(),
        "notes": layout.notes,
    });
    Ok(Answer::new(document, human(&layout, &parts, &homeless, standing.as_ref(), &nodes)))
}

/// The nodes, those first whose old copies are dangerous.
fn dangerous_first(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.sort_by_key(|node| node.profile().danger().is_none());
    nodes
}

/// A part, with what stands between it and a backup.
struct Seen<'a> {
    part: &'a FoundPart,
    users: Vec<&'a User>,
    refused: Option<String>,
}

impl Seen<'_> {
    fn document(&self) -> Value {
        json!({
            "name": self.part.name,
            "engine": self.part.engine,
            "files": self.part.files,
            "bytes": self.part.bytes,
            "in_use_by": self.users.iter().map(|user| user_document(user)).collect::<Value>(),
            "refused": self.refused,
        })
    }
}

fn see<'a>(part: &'a FoundPart, layout: &Layout, users: &'a [User]) -> Seen<'a> {
    let users: Vec<&User> = users.iter().filter(|user| holds(part, &user.file)).collect();
    let problems: Vec<String> =
        layout.refusals.iter().filter(|refusal| concerns(refusal, part)).map(told).collect();
    let refused = (!problems.is_empty()).then(|| problems.join("; "));
    Seen { part, users, refused }
}

fn holds(part: &FoundPart, file: &RelPath) -> bool {
    let among = part.entries.binary_search(file).is_ok();
    among || (part.engine != EngineKind::FILES && file.is_within(&part.root))
}

/// A refusal names the part itself, or one of its files.
fn concerns(refusal: &Error, part: &FoundPart) -> bool {
    refusal.entry().is_some_and(|entry| {
        entry == part.name || entry.parse().is_ok_and(|path: RelPath| holds(part, &path))
    })
}

/// What is wrong, and the ways out.
fn told(refusal: &Error) -> String {
    let hint = remedy::hint(refusal).map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{}{hint}", refusal.message())
}

fn node_document(node: &Node) -> Value {
    let profile = node.profile();
    json!({
        "kind": profile.name(),
        "at": node.at(),
        "danger": profile.danger(),
        "lean": node.lean(),
    })
}

fn user_document(user: &User) -> Value {
    json!({"pid": user.pid, "command": user.command, "file": user.file})
}

fn refusal_document(refusal: &Error) -> Value {
    json!({
        "entry": refusal.entry(),
        "problem": refusal.message(),
        "hint": remedy::hint(refusal).unwrap_or_default(),
        "kind": refusal.kind().name(),
    })
}

fn user_list(users: &[&User]) -> String {
    let mut names: Vec<String> = users.iter().map(ToString::to_string).collect();
    names.dedup();
    names.join(", ")
}

fn human(
    layout: &Layout,
    parts: &[Seen<'_>],
    homeless: &[&Error],
    standing: Option<&Standing>,
    nodes: &[Node],
) -> String {
    let rows: Vec<PartSummary> = parts
        .iter()
        .map(|seen| {
            let part = seen.part;
            let (name, engine) = (part.name.clone(), part.engine);
            PartSummary { name, engine, files: part.files, bytes: part.bytes }
        })
        .collect();
    let total: u64 = layout.parts.iter().map(|part| part.bytes).sum();
    let mut lines =
        vec![format!("{}, {}", places::text(&layout.dir), format::bytes(total)), String::new()];
    lines.push(record::part_table(&rows));
    let mut notes = Vec::new();
    for node in nodes {
        let name = node.profile().name();
        notes.push(match node.profile().danger() {
            Some(danger) => format!("kind     {name}: held back after a restore: {danger}"),
            None => format!("kind     {name}"),
        });
        let lean: Vec<String> = node.lean().iter().map(ToString::to_string).collect();
        if !lean.is_empty() {
            notes.push(format!("lean     --lean leaves out {}", lean.join(", ")));
        }
    }
    for seen in parts {
        if !seen.users.is_empty() {
            notes.push(format!("in use   {}: {}", seen.part.name, user_list(&seen.users)));
        }
        if let Some(refused) = &seen.refused {
            notes.push(format!("refused  {}: {refused}", seen.part.name));
        }
    }
    for refusal in homeless {
        notes.push(format!("refused  {}: {}", refusal.entry().unwrap_or("."), told(refusal)));
    }
    notes.extend(standing.into_iter().flat_map(held_notes));
    notes.extend(layout.notes.iter().map(|note| format!("note     {note}")));
    if !notes.iter().any(|note| note.starts_with("refused")) {
        notes.push("A backup would refuse nothing.".to_owned());
    }
    lines.push(String::new());
    lines.extend(notes);
    lines.join("\n")
}

/// What is quarantined; a database that is withheld can't be backed up either.
fn held_notes(standing: &Standing) -> Vec<String> {
    let word = match standing.kind {
        GuardKind::Channels => "held    ",
        GuardKind::Databases => "refused ",
    };
    let held = standing.held.iter().filter(|held| held.state.holds());
    held.map(|held| format!("{word} {}: {}, {}", held.id, record::word(&held.state), held.reason))
        .collect()
}
