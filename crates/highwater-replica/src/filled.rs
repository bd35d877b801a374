//! A database of the values that a server has: filled beside the name that it will have, and given that name
//! once it is whole and nobody has it open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::env::Env;
use highwater::{Error, Kind, Remedy, Result};

use super::between::ahead_of_manager;
use super::class::{Class, Classes};
use super::inspect::remembers;
use super::keys::ReplicaKeys;
use super::ldk_node::{LdkNodeStore, Migrated};
use super::local::SqliteStore;
use super::owner::{Permissions, Started};
use super::remote::Remote;
use super::store::{ReplicaStatus, ReplicatedStore};

/// How many channels are named in an error.
const CHANNELS_NAMED_MAX: usize = 20;

/// How a database is filled from a server.
#[derive(Clone, Debug, Default)]
pub struct FillOptions {
    /// Who will own the store, as others are told.
    pub owner: String,
    /// What the owner has agreed to.
    pub permissions: Permissions,
    /// Channels that loading may close, since their monitors are newer than the manager, are accepted.
    pub accept_closing_channels: bool,
}

/// What a database was filled with.
#[derive(Clone, Debug)]
pub struct Filled {
    /// How the store stands.
    pub status: ReplicaStatus,
    /// Bytes of values that were fetched.
    pub bytes: u64,
}

/// Makes the database at `output`, which must not exist yet, from what the server has, and takes the store
/// over for it. What was fetched before an interruption is kept beside it, and the next call continues.
///
/// # Errors
/// Conflict where something is at `output`; quarantined where loading may close channels that it names, the
/// store being ours and the values waiting; as [`ReplicaBuilder::open`](super::ReplicaBuilder::open).
pub fn restore_to(
    output: &Path,
    remote: Arc<dyn Remote>,
    keys: &ReplicaKeys,
    options: &FillOptions,
    env: &Env,
) -> Result<Filled> {
    let staging = beside(output, ".hydrating")?;
    let filled = fill(&staging, &remote, keys, options, env).or_else(|error| {
        // What was refused before anything was fetched leaves nothing behind. The memory of what was
        // stays where it is.
        if !remembers(Arc::new(SqliteStore::open(&staging)?))? {
            SqliteStore::remove(&staging)?;
        }
        Err(error)
    })?;
    SqliteStore::move_to(&staging, output)?;
    Ok(filled)
}

/// Fills one database, and gives it up: it may be moved afterwards.
pub(crate) fn fill(
    database: &Path,
    remote: &Arc<dyn Remote>,
    keys: &ReplicaKeys,
    options: &FillOptions,
    env: &Env,
) -> Result<Filled> {
    let local = Arc::new(SqliteStore::open(database)?);
    // In the order of the last writes: whoever opens it next may ask for one, and nothing else tells it then.
    let (store, started) =
        ReplicatedStore::builder(Arc::clone(&local) as _, Arc::clone(remote), keys.clone())
            .classes(Classes::all(Class::LocalFirst).in_order())
            .owner(options.owner.clone())
            .env(env.clone())
            .permissions(options.permissions.clone())
            .open()?;
    let status = store.status()?;
    // Asked before the owner writes.
    let closing = match options.accept_closing_channels {
        true => Vec::new(),
        false => ahead_of_manager(&*local, &**remote, keys)?,
    };
    store.stop()?;
    drop((store, local));
    refuse_closing(&closing)?;
    let bytes = match started {
        Started::Hydrated { bytes, .. } => bytes,
        _ => 0,
    };
    Ok(Filled { status, bytes })
}

/// Refuses to hand over a store whose channels loading may close, naming them.
fn refuse_closing(channels: &[String]) -> Result<()> {
    if channels.is_empty() {
        return Ok(());
    }
    let mut named = channels[..channels.len().min(CHANNELS_NAMED_MAX)].join(", ");
    if channels.len() > CHANNELS_NAMED_MAX {
        named.push_str(&format!(" and {} more", channels.len() - CHANNELS_NAMED_MAX));
    }
    Err(Error::new(
        Kind::Quarantined,
        format!(
            "loading may close {} channels, whose monitors are newer than the manager: {named}",
            channels.len()
        ),
    )
    .with_remedy(Remedy::AcceptClosingChannels)
    .with_remedy("leave the store, which is ours and stays filled"))
}

/// Makes the database at `output`, which must not exist yet, from a store that `ldk-node` itself has written.
///
/// # Errors
/// Conflict where something is at `output`, or another migration to it runs or was interrupted; as
/// [`LdkNodeStore::copy_to`].
pub fn migrate_to(store: &LdkNodeStore, output: &Path) -> Result<Migrated> {
    let staging = beside(output, ".migrating")?;
    SqliteStore::create(&staging).map_err(|error| match error.kind() {
        Kind::Conflict => Error::conflict("another migration runs, or was interrupted")
            .with_entry(staging.display().to_string())
            .with_remedy("where none runs, delete this file"),
        _ => error,
    })?;
    let copied = SqliteStore::open(&staging).and_then(|local| store.copy_to(&local));
    match copied.and_then(|done| SqliteStore::move_to(&staging, output).map(|()| done)) {
        Ok(done) => Ok(done),
        Err(error) => {
            SqliteStore::remove(&staging)?;
            Err(error)
        }
    }
}

/// Where a database waits until it is whole.
fn beside(output: &Path, end: &str) -> Result<PathBuf> {
    if output.symlink_metadata().is_ok() {
        return Err(Error::conflict("the database exists")
            .with_entry(output.display().to_string())
            .with_remedy("name one that does not; nothing is overwritten"));
    }
    let name = output.file_name().ok_or_else(|| Error::input("the output names no file"))?;
    let mut staging = std::ffi::OsString::from(".");
    staging.push(name);
    staging.push(end);
    Ok(output.with_file_name(staging))
}
