//! `owner`: who may write snapshots of a node.

use highwater::Result;
use highwater::ids::NodeName;
use highwater::vault::{Ownership, Vault};
use serde_json::json;

use crate::answer::Answer;
use crate::cli::{OwnerArgs, OwnerChangeArgs, OwnerCommand};
use crate::context::Context;
use crate::format;

pub(crate) fn run(context: &Context, command: &OwnerCommand) -> Result<Answer> {
    match command {
        OwnerCommand::Show(args) => show(context, args),
        OwnerCommand::Release(args) => release(context, args),
        OwnerCommand::TakeOver(args) => take_over(context, args),
    }
}

fn show(context: &Context, args: &OwnerArgs) -> Result<Answer> {
    let vault = context.vault(&args.vault)?;
    let owner = vault.owner(&node(context, args, &vault)?, &context.actor()?)?;
    Ok(answer(&owner))
}

fn release(context: &Context, args: &OwnerChangeArgs) -> Result<Answer> {
    let vault = context.vault(&args.owner.vault)?;
    let node = node(context, &args.owner, &vault)?;
    Ok(answer(&vault.release(&node, &context.actor()?, &args.reason)?))
}

fn take_over(context: &Context, args: &OwnerChangeArgs) -> Result<Answer> {
    let vault = context.vault(&args.owner.vault)?;
    let node = node(context, &args.owner, &vault)?;
    Ok(answer(&vault.take_over(&node, &context.actor()?, &args.reason)?))
}

/// The node that was named, or the only one of the vault.
fn node(context: &Context, args: &OwnerArgs, vault: &Vault) -> Result<NodeName> {
    match context.settings.node(args.node.as_ref()) {
        Some(node) => Ok(node),
        None => vault.only_node(),
    }
}

fn answer(owner: &Ownership) -> Answer {
    let writer = match (owner.writer, owner.ours) {
        (None, _) => "nobody: the next backup claims it".to_owned(),
        (Some(writer), true) => format!("{writer}, this installation"),
        (Some(writer), false) => format!("{writer}, another installation"),
    };
    let mut fields = vec![
        ("node", owner.node.to_string()),
        ("writer", writer),
        ("epoch", owner.epoch.0.to_string()),
        ("claimed by", owner.claimed_by.clone()),
        ("since", format::time(owner.since)),
    ];
    if let Some(reason) = &owner.reason {
        fields.push(("reason", reason.clone()));
    }
    Answer::new(json!(owner), format::fields(&fields))
}
