//! `key`: the slots of a vault.

use highwater::{Kind, Result};
use serde_json::json;

use super::record;
use crate::answer::Answer;
use crate::cli::{KeyAddArgs, KeyCommand, KeyRemoveArgs, VaultArgs};
use crate::context::Context;
use crate::keys::KeySource;

pub(crate) fn run(context: &Context, command: &KeyCommand) -> Result<Answer> {
    match command {
        KeyCommand::Add(args) => add(context, args),
        KeyCommand::List(args) => list(context, args),
        KeyCommand::Remove(args) => remove(context, args),
    }
}

fn add(context: &Context, args: &KeyAddArgs) -> Result<Answer> {
    let new = KeySource::of_new(&args.new)?;
    new.refuse_inside_vault(&context.settings.location(args.vault.vault.as_deref())?)?;
    let secret = new.load().map_err(|error| match (error.kind(), &new) {
        (Kind::NotFound, KeySource::Key(path)) => error.with_remedy(format!(
            "only `init` makes a key file; `(umask 077; openssl rand -hex 32 > {})` makes one too",
            path.display()
        )),
        _ => error,
    })?;
    let slot = context.vault(&args.vault)?.add_slot(&secret, &args.label)?;
    let human = format!("Added slot {}.", slot.slot);
    Ok(Answer::new(json!(slot), human))
}

fn list(context: &Context, args: &VaultArgs) -> Result<Answer> {
    let slots = context.vault(args)?.slots()?;
    Ok(Answer::new(json!(slots), record::slot_table(&slots)))
}

fn remove(context: &Context, args: &KeyRemoveArgs) -> Result<Answer> {
    let slot = context.vault(&args.vault)?.remove_slot(&args.slot)?;
    let human = format!(
        "Removed slot {}; its {} no longer opens the vault.",
        slot.slot,
        record::word(&slot.kind)
    );
    Ok(Answer::new(json!(slot), human))
}
