//! `replica`: a node's key-value store on a server.

use std::path::Path;
use std::sync::Arc;

use highwater::vault::Secret;
use highwater::{Env, Error, Result};
use highwater_replica::local::SqliteStore;
use highwater_replica::remote::{VssAuth, VssBuilder, VssRemote};
use highwater_replica::{
    FillOptions, Filled, HeadState, Holder, LocalState, Permissions, ReplicaKeys, ReplicatedStore,
    holder, local_state, restore_to,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::reunite;
use crate::answer::Answer;
use crate::cli::{
    ReplicaArgs, ReplicaAuth, ReplicaCommand, ReplicaFlushArgs, ReplicaOwnerCommand,
    ReplicaRestoreArgs, ReplicaStatusArgs,
};
use crate::context::Context;
use crate::keys::KeySource;
use crate::{format, places};

use super::replica_migrate;

pub(crate) fn run(context: &Context, command: &ReplicaCommand) -> Result<Answer> {
    match command {
        ReplicaCommand::Status(args) => status(context, args),
        ReplicaCommand::Flush(args) | ReplicaCommand::Owner(ReplicaOwnerCommand::Release(args)) => {
            flush(context, args)
        }
        ReplicaCommand::Restore(args) => restore(context, args, None),
        ReplicaCommand::Migrate(args) => replica_migrate::run(context, args),
        ReplicaCommand::Owner(ReplicaOwnerCommand::Show(args)) => show(context, args),
        ReplicaCommand::Owner(ReplicaOwnerCommand::TakeOver(args)) => {
            restore(context, &args.restore, Some(&args.reason))
        }
    }
}

/// The keys, and the server that they are for.
fn connect(context: &Context, args: &ReplicaArgs) -> Result<(ReplicaKeys, VssRemote)> {
    let source = context.settings.key(&args.key)?;
    let (keys, server) = connection(&source, context.env(), args)?;
    Ok((keys, server.build()?))
}

/// The same under a secret from elsewhere, before a connection is made.
pub(super) fn connection(
    source: &KeySource,
    env: &Env,
    args: &ReplicaArgs,
) -> Result<(ReplicaKeys, VssBuilder)> {
    let keys = match source.load()? {
        Secret::Key(key) => ReplicaKeys::from_entropy(&key, &args.store)?,
        Secret::Mnemonic(words) => ReplicaKeys::from_mnemonic(&words, &args.store)?,
        Secret::Passphrase(_) => {
            return Err(Error::input(
                "a passphrase can be guessed, and a replica has no slot that would slow guessing",
            )
            .with_remedy("give --mnemonic-file or --key-file"));
        }
    };
    let auth = match (args.auth, &args.token_file) {
        (ReplicaAuth::Token, Some(file)) => VssAuth::Bearer(read_token(file)?.to_string()),
        (ReplicaAuth::Token, None) => {
            return Err(Error::input("no token was given").with_remedy("give --token-file"));
        }
        (_, Some(_)) => return Err(Error::input("--token-file is only for --auth token")),
        (ReplicaAuth::Signature, None) => VssAuth::Signature(keys.signing_key()),
        (ReplicaAuth::None, None) => VssAuth::None,
    };
    let mut server = VssRemote::builder(&args.server, &args.store)
        .auth(auth)
        .allow_http(args.allow_http)
        .env(env.clone());
    if let Some(file) = &args.ca_file {
        server = server.ca_file(file);
    }
    Ok((keys, server))
}

pub(super) fn read_token(file: &Path) -> Result<Zeroizing<String>> {
    let name = places::text(file);
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::io("reading the token", error).with_entry(&name))?;
    Ok(Zeroizing::new(Zeroizing::new(text).trim().to_owned()))
}

fn status(context: &Context, args: &ReplicaStatusArgs) -> Result<Answer> {
    let (keys, remote) = connect(context, &args.replica)?;
    let local = match &args.local {
        Some(file) => Some(local_state(existing(file)?, &keys)?),
        None => None,
    };
    let held = holder(&remote, &keys)?;
    let exists = held.as_ref().is_some_and(|held| held.state != HeadState::Filling);
    let required = !exists || local.is_some_and(|local| local.pending_writes > 0);
    let document = json!({
        "server": held, "local": local, "backup_exists": exists, "backup_required": required,
    });
    let backup = match (exists, required) {
        (true, false) => "whole",
        (true, true) => "complete, but behind: the node, or `replica flush`, sends what waits",
        (false, _) => "NONE: the node's next start, or `replica flush`, fills the server",
    };
    let mut fields = vec![("backup", backup.to_owned())];
    fields.extend(server_fields(held.as_ref()));
    fields.extend(local.as_ref().map(local_fields).unwrap_or_default());
    Ok(Answer::new(document, format::fields(&fields)))
}

fn show(context: &Context, args: &ReplicaArgs) -> Result<Answer> {
    let (keys, remote) = connect(context, args)?;
    let held = holder(&remote, &keys)?
        .ok_or_else(|| Error::not_found("the server has nothing for these keys"))?;
    Ok(Answer::new(json!(held), format::fields(&server_fields(Some(&held)))))
}

fn server_fields(held: Option<&Holder>) -> Vec<(&'static str, String)> {
    let Some(held) = held else { return vec![("server", "nothing".to_owned())] };
    let state = match held.state {
        HeadState::Filling => "being filled: nothing can be restored from it yet",
        HeadState::Open => "whole, and held",
        HeadState::Released => "whole, and given up",
    };
    let mut fields = vec![
        ("server", state.to_owned()),
        ("owner", held.owner.clone()),
        ("epoch", held.epoch.to_string()),
        ("since", format::time(held.since)),
        ("values", held.values.to_string()),
        ("last write", held.seq.to_string()),
    ];
    fields.extend(held.reason.clone().map(|reason| ("taken over", reason)));
    fields
}

fn local_fields(local: &LocalState) -> Vec<(&'static str, String)> {
    let waits = match local.pending_writes {
        0 => "nothing".to_owned(),
        writes => format!("{writes} writes, {}", format::bytes(local.pending_bytes)),
    };
    let here = match (local.epoch, local.hydrating) {
        (_, true) => "an unfinished restore".to_owned(),
        (None, false) => "never replicated".to_owned(),
        (Some(epoch), false) => format!("of epoch {epoch}"),
    };
    vec![("here", here), ("waits", waits)]
}

fn flush(context: &Context, args: &ReplicaFlushArgs) -> Result<Answer> {
    let (keys, remote) = connect(context, &args.replica)?;
    let local = existing(&args.local)?;
    let before = local_state(Arc::clone(&local) as _, &keys)?;
    if before.epoch.is_none() {
        return Err(Error::not_found("this database was never replicated")
            .with_entry(places::text(&args.local))
            .with_remedy("only the node can begin replication"));
    }
    let accept_older = args.accept_older_server;
    let store = ReplicatedStore::builder(local, Arc::new(remote), keys)
        .owner(context.who())
        .permissions(Permissions { accept_older, ..Permissions::default() })
        .env(context.env().clone());
    let (store, _) = store.open()?;
    store.flush(args.timeout)?;
    let status = store.status()?;
    store.release()?;
    let human = format!(
        "The server has all {} values, up to write {}; the store is given up.",
        status.values, status.acknowledged
    );
    let document = json!({
        "sent": before.pending_writes, "values": status.values, "seq": status.acknowledged,
    });
    Ok(Answer::new(document, human))
}

fn restore(context: &Context, args: &ReplicaRestoreArgs, reason: Option<&str>) -> Result<Answer> {
    let (keys, remote) = connect(context, &args.replica)?;
    if args.files.vault.is_some() {
        return reunite::run(context, args, &keys, remote, reason);
    }
    let options = FillOptions {
        owner: context.who(),
        permissions: Permissions {
            take_over: reason.map(str::to_owned),
            allow_empty: args.allow_empty_restore,
            accept_inconsistent: args.accept_inconsistent_restore,
            accept_older: false,
        },
        accept_closing_channels: args.accept_closing_channels,
    };
    let Filled { status, bytes } =
        restore_to(&args.output, Arc::new(remote), &keys, &options, context.env())?;
    let human = format!(
        "{} values, {}, as of write {}; this database now owns the store, under epoch {}.\n\
         A payment-channel node that starts on it must know that it is current.",
        status.values,
        format::bytes(bytes),
        status.acknowledged,
        status.epoch
    );
    let document = json!({
        "output": places::text(&args.output), "values": status.values, "bytes": bytes,
        "seq": status.acknowledged, "epoch": status.epoch,
    });
    Ok(Answer::new(document, human))
}

/// A database that is there.
fn existing(file: &Path) -> Result<Arc<SqliteStore>> {
    if !file.exists() {
        return Err(Error::not_found("there is no such database").with_entry(places::text(file)));
    }
    Ok(Arc::new(SqliteStore::open(file)?))
}
