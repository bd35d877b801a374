//! `kit`: the recovery kit, sealed from what a node wrote for it, shown, and opened without a vault.

use std::path::Path;

use highwater::kit::{self, Kit, KitHeader};
use highwater::vault::{SlotKind, Vault};
use highwater::{Error, Kind, Result};
use serde_json::{Value, json};

use super::record;
use crate::answer::Answer;
use crate::cli::{KitCommand, KitExportArgs, KitOpenArgs, KitShowArgs};
use crate::context::Context;
use crate::{format, places};

pub(crate) fn run(context: &Context, command: &KitCommand) -> Result<Answer> {
    match command {
        KitCommand::Export(args) => export(context, args),
        KitCommand::Show(args) => show(args),
        KitCommand::Open(args) => open(context, args),
    }
}

fn export(context: &Context, args: &KitExportArgs) -> Result<Answer> {
    let content = match &args.from {
        Some(file) => kit::read_content(file)?,
        None => kit::read_beside(&args.node_dir)?,
    };
    let node = context.settings.node(args.node.as_ref());
    let kit = Kit::of_dir(&args.node_dir, node.as_ref(), content, context.env().now())?;
    let vault = context.vault_for_node(&args.vault, &args.node_dir)?;
    context.refuse_own_files(&args.vault.key, &args.output)?;
    refuse_inside(&args.output, &args.node_dir, &vault)?;
    let bytes = kit::seal(&vault, &kit)?;
    kit::write_file(&args.output, &bytes, args.force, context.env()).map_err(
        |error| match error.kind() {
            Kind::Conflict => error.with_remedy("give another name, or --force to replace it"),
            _ => error,
        },
    )?;
    let header = kit::describe(&bytes)?;
    let warnings = warnings(&kit, &header);
    let mut document = content_document(&kit);
    document["output"] = json!(places::text(&args.output));
    document["vault"] = json!(header.vault);
    document["bytes"] = json!(header.bytes);
    document["slots"] = json!(header.slots);
    document["warnings"] = json!(warnings);
    let human = format!(
        "Sealed the recovery kit of node {} into {}: {}, {}, {}.",
        kit.node,
        places::text(&args.output),
        format::count(kit.channels.len() as u64, "channel", "channels"),
        format::count(kit.identity.len() as u64, "identity key", "identity keys"),
        format::bytes(header.bytes),
    );
    Ok(Answer::new(document, human).warnings(warnings))
}

/// A kit is for the day when node and vault are gone.
fn refuse_inside(output: &Path, node_dir: &Path, vault: &Vault) -> Result<()> {
    let vault = vault.location().paths().iter().map(|path| (path.as_path(), "vault"));
    for (dir, what) in vault.chain([(node_dir, "node directory")]) {
        if places::is_inside(output, dir)? {
            return Err(Error::input(format!("the kit would be lost with the {what}"))
                .with_remedy("write it elsewhere, and keep it on another machine")
                .with_entry(places::text(output)));
        }
    }
    Ok(())
}

fn warnings(kit: &Kit, header: &KitHeader) -> Vec<String> {
    let mut warnings = Vec::new();
    if kit.channels.is_empty() {
        warnings.push("there is no channel in the kit".to_owned());
    }
    if header.slots.iter().any(|slot| slot.kind == SlotKind::Passphrase) {
        warnings.push(
            "the vault has a passphrase slot: whoever gets the kit can try passphrases on it"
                .to_owned(),
        );
    }
    warnings
}

fn show(args: &KitShowArgs) -> Result<Answer> {
    let header = kit::describe(&kit::read_file(&args.kit)?)
        .map_err(|error| error.with_entry(places::text(&args.kit)))?;
    let mut document = json!(header);
    document["kit"] = json!(places::text(&args.kit));
    let fields = [
        ("sealed", format::time(header.time)),
        ("vault", header.vault.to_string()),
        ("size", format::bytes(header.bytes)),
        ("format", header.version.to_string()),
    ];
    let human = format!("{}\n\n{}", format::fields(&fields), record::slot_table(&header.slots));
    Ok(Answer::new(document, human))
}

fn open(context: &Context, args: &KitOpenArgs) -> Result<Answer> {
    let secret = context.settings.key(&args.key)?.load()?;
    let kit = kit::open(&kit::read_file(&args.kit)?, &secret)
        .map_err(|error| error.with_entry(places::text(&args.kit)))?;
    let text = kit.to_json()?;
    if args.output == Path::new("-") {
        let human = String::from_utf8_lossy(&text).trim_end().to_owned();
        return Ok(Answer::new(json!(kit), human));
    }
    kit::write_file(&args.output, &text, false, context.env())?;
    let mut document = content_document(&kit);
    document["output"] = json!(places::text(&args.output));
    let human = format!(
        "Opened the recovery kit of node {}, sealed {}: {} and the identity keys are in {}.",
        kit.node,
        format::time(kit.time),
        format::count(kit.channels.len() as u64, "channel", "channels"),
        places::text(&args.output),
    );
    Ok(Answer::new(document, human))
}

/// What a kit holds, without its secrets.
fn content_document(kit: &Kit) -> Value {
    json!({
        "node": kit.node,
        "uid": kit.uid,
        "time": kit.time,
        "channels": kit.channels.len(),
        "identity": kit.identity.iter().map(|key| &key.name).collect::<Vec<_>>(),
    })
}
