//! `replica restore` with a vault: a node directory from its two streams.

use std::sync::Arc;

use highwater::ids::RelPath;
use highwater::restore::Pair;
use highwater::vault::Vault;
use highwater::{Error, Result};
use highwater_replica::remote::VssRemote;
use highwater_replica::reunite::{self, ReuniteOptions, ReuniteReport, Streams};
use highwater_replica::{Permissions, Remote, ReplicaKeys};
use serde_json::{Value, json};

use super::{guard, restore};
use crate::answer::Answer;
use crate::cli::{FilesOfVaultArgs, KeyArgs, ReplicaRestoreArgs};
use crate::context::Context;
use crate::{format, places};

/// `reason`: why the store is taken from who has it, where it is.
pub(super) fn run(
    context: &Context,
    args: &ReplicaRestoreArgs,
    keys: &ReplicaKeys,
    remote: VssRemote,
    reason: Option<&str>,
) -> Result<Answer> {
    if args.allow_empty_restore {
        return Err(Error::input("--allow-empty-restore is only for a FILE")
            .with_remedy("a new node needs no vault to be restored from"));
    }
    let vault = open_vault(context, args)?;
    let files = &args.files;
    let options = ReuniteOptions {
        node: context.settings.node(files.node.as_ref()),
        snapshot: files.snapshot.clone(),
        who: context.who(),
        permissions: Permissions {
            take_over: reason.map(str::to_owned),
            accept_inconsistent: args.accept_inconsistent_restore,
            ..Permissions::default()
        },
        force: files.force,
        owner: files.owner,
        accept_closing_channels: args.accept_closing_channels,
        keys_only: files.keys_only.as_deref().map(file_name).transpose()?,
        original_gone: restore::original_gone(context, files.original_gone.as_deref())?,
    };
    let remote: Arc<dyn Remote> = Arc::new(remote);
    let streams = Streams { vault: &vault, keys, remote: &remote };
    let report = reunite::run(streams, &args.output, &options, &context.control)?;
    let hold = highwater::guard::standing(&report.target)?.map(|standing| standing.kind);
    let human = human(&report, guard::line(&report.target, report.quarantined, hold));
    Ok(Answer::new(document(&report), human).warnings(report.warnings))
}

/// The secret of the store opens the vault as well, where no other one is named.
fn open_vault(context: &Context, args: &ReplicaRestoreArgs) -> Result<Vault> {
    let FilesOfVaultArgs {
        vault, vault_key_file, vault_passphrase_file, vault_mnemonic_file, ..
    } = &args.files;
    let location = context.settings.location(vault.as_deref())?;
    let own = KeyArgs {
        key_file: vault_key_file.clone(),
        passphrase_file: vault_passphrase_file.clone(),
        mnemonic_file: vault_mnemonic_file.clone(),
    };
    let named =
        own.key_file.is_some() || own.passphrase_file.is_some() || own.mnemonic_file.is_some();
    let of_store = context.settings.key(&args.replica.key)?;
    let of_vault = if named { context.settings.key(&own)? } else { of_store.clone() };
    for key in [&of_store, &of_vault] {
        key.refuse_inside_vault(&location)?;
        key.refuse_inside_node(&args.output)?;
    }
    Vault::open_with(&location, &of_vault.load()?, context.env())
}

/// One name in a directory.
fn file_name(text: &str) -> Result<RelPath> {
    let path = RelPath::from_bytes(text.as_bytes())?;
    if path.parent().is_some_and(|parent| parent == RelPath::root()) && path != RelPath::root() {
        return Ok(path);
    }
    Err(Error::input("--keys-only names one file, without a directory").with_entry(text))
}

fn document(report: &ReuniteReport) -> Value {
    json!({
        "snapshot": report.pair.as_ref().map(|pair| pair.snapshot),
        "target": places::text(&report.target),
        "matched": report.pair.as_ref().is_some_and(|pair| pair.matched),
        "pair": report.pair,
        "values": report.values,
        "seq": report.seq,
        "epoch": report.epoch,
        "bytes": report.bytes,
        "seconds": format::seconds(report.duration),
        "kept": report.kept.as_deref().map(places::text),
        "quarantined": report.quarantined,
        "finished": report.finished,
        "warnings": report.warnings,
    })
}

fn human(report: &ReuniteReport, hold: Option<String>) -> String {
    let how = if report.finished { "finished what was interrupted" } else { "made" };
    let mut lines = vec![format!(
        "{}: {how} in {}; the store has {} values, as of write {}, and belongs to this directory, under epoch {}.",
        places::text(&report.target),
        format::duration(report.duration),
        report.values,
        report.seq,
        report.epoch
    )];
    lines.extend(report.pair.as_ref().map(matched));
    if let Some(kept) = &report.kept {
        lines.push(format!(
            "The old directory is kept in {}; `highwater rollback` brings it back.",
            places::text(kept)
        ));
    }
    lines.extend(hold);
    lines.join("\n")
}

fn matched(pair: &Pair) -> String {
    let Pair { snapshot, files_seq, .. } = pair;
    let how = match pair.matched {
        true => "files and keys are of one instant",
        false => "files and keys are not of one instant",
    };
    format!("The files are those of snapshot {snapshot}, at write {files_seq}: {how}.")
}
