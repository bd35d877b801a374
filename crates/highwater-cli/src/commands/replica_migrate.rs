//! `replica migrate`: from a store that `ldk-node` has written by itself to a database that can have a
//! replica.

use std::sync::Arc;

use highwater::vault::Secret;
use highwater::{Error, Result};
use highwater_replica::ldk_node::{LdkNodeKeys, LdkNodeStore, Migrated};
use highwater_replica::migrate_to;
use highwater_replica::remote::{VssAuth, VssRemote};
use serde_json::json;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::cli::ReplicaMigrateArgs;
use crate::context::Context;
use crate::{format, places};

use super::replica::read_token;

pub(super) fn run(context: &Context, args: &ReplicaMigrateArgs) -> Result<Answer> {
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
    let Migrated { schema, values, bytes } = migrate_to(&store, &args.output)?;
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
            .map_err(|error| Error::io("reading the seed", error).with_entry(places::text(file)))?;
        let seed = <&[u8; 64]>::try_from(read.as_slice()).map_err(|_| {
            Error::input("the seed is not 64 bytes long")
                .with_entry(places::text(file))
                .with_remedy("it is the node's file `keys_seed`")
        })?;
        return LdkNodeKeys::from_seed(seed);
    }
    let file = args.seed.mnemonic_file.as_ref();
    let file = file.ok_or_else(|| Error::bug("neither words nor a seed were given"))?;
    let Secret::Mnemonic(words) = Secret::from_mnemonic_file(file)? else {
        return Err(Error::bug("a file of words yielded a secret of another kind"));
    };
    match &args.mnemonic_passphrase_file {
        None => LdkNodeKeys::from_mnemonic(&words, ""),
        Some(file) => match Secret::from_passphrase_file(file)? {
            Secret::Passphrase(passphrase) => LdkNodeKeys::from_mnemonic(&words, &passphrase),
            _ => Err(Error::bug("a passphrase file yielded a secret of another kind")),
        },
    }
}
