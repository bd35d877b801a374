//! `replica migrate`: from a store that `ldk-node` has written by itself to a database that can have a
//! replica.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::replica::ldk_node::{LdkNodeKeys, LdkNodeStore, Migrated};
use highwater::replica::local::SqliteStore;
use highwater::replica::remote::{VssAuth, VssRemote};
use highwater::vault::Secret;
use highwater::{Error, Result};
use serde_json::json;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::cli::ReplicaMigrateArgs;
use crate::context::Context;
use crate::{format, places};

use super::replica::read_token;

pub(super) fn run(context: &Context, args: &ReplicaMigrateArgs) -> Result<Answer> {
    if args.output.exists() {
        return Err(Error::conflict("the database exists")
            .entry(places::text(&args.output))
            .hint("name one that does not; nothing is overwritten"));
    }
    let auth = match &args.token_file {
        Some(file) => VssAuth::Bearer(read_token(file)?.to_string()),
        None => VssAuth::None,
    };
    let mut server = VssRemote::builder(&args.server, &args.from_store)
        .auth(auth)
        .allow_http(args.allow_http)
        .env(context.env().clone());
    if let Some(file) = &args.ca_file {
        server = server.ca_file(file);
    }
    let store = LdkNodeStore::open(Arc::new(server.build()?), keys(args)?)?;
    let staging = stage(&args.output)?;
    let done = match copy(&store, &staging, &args.output) {
        Ok(done) => done,
        Err(error) => {
            SqliteStore::remove(&staging)?;
            return Err(error);
        }
    };
    let Migrated { schema, values, bytes } = done;
    let schema = schema.number();
    let human = format!(
        "{values} values, {}, from a store of schema {schema}.\n\
         Start the node on this database, with a new store on the server, and never again on the old one.",
        format::bytes(bytes)
    );
    let document = json!({
        "output": places::text(&args.output), "values": values, "bytes": bytes, "schema": schema,
    });
    Ok(Answer::new(document, human))
}

fn keys(args: &ReplicaMigrateArgs) -> Result<LdkNodeKeys> {
    if let Some(file) = &args.seed.seed_file {
        let read = std::fs::read(file)
            .map(Zeroizing::new)
            .map_err(|error| Error::io("reading the seed", error).entry(places::text(file)))?;
        let seed = <&[u8; 64]>::try_from(read.as_slice()).map_err(|_| {
            Error::input("the seed has not 64 bytes")
                .entry(places::text(file))
                .hint("it is the node's file `keys_seed`")
        })?;
        return LdkNodeKeys::from_seed(seed);
    }
    let file = args.seed.mnemonic_file.as_ref();
    let file = file.ok_or_else(|| Error::bug("neither words nor a seed were asked for"))?;
    let Secret::Mnemonic(words) = Secret::from_mnemonic_file(file)? else {
        return Err(Error::bug("a file of words gave another secret"));
    };
    match &args.mnemonic_passphrase_file {
        None => LdkNodeKeys::from_mnemonic(&words, ""),
        Some(file) => match Secret::from_passphrase_file(file)? {
            Secret::Passphrase(passphrase) => LdkNodeKeys::from_mnemonic(&words, &passphrase),
            _ => Err(Error::bug("a file of a passphrase gave another secret")),
        },
    }
}

/// Makes the empty database that is filled, beside where it will be, for nobody else's eyes. That it was
/// not there keeps two migrations apart.
fn stage(output: &Path) -> Result<PathBuf> {
    let name = output.file_name().ok_or_else(|| Error::input("the output names no file"))?;
    let mut staging = std::ffi::OsString::from(".");
    staging.push(name);
    staging.push(".migrating");
    let staging = output.with_file_name(staging);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staging) {
        Ok(_) => Ok(staging),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::conflict("another migration runs, or was interrupted")
                .entry(places::text(&staging))
                .hint("where none runs, delete this file"))
        }
        Err(error) => Err(Error::io("making the database", error).entry(places::text(&staging))),
    }
}

fn copy(store: &LdkNodeStore, staging: &Path, output: &Path) -> Result<Migrated> {
    let local = SqliteStore::open(staging)?;
    let done = store.copy_to(&local)?;
    drop(local);
    SqliteStore::move_to(staging, output)?;
    Ok(done)
}
