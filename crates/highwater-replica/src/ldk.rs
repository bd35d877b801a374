//! Under LDK: the store traits of `lightning` 0.2, and how its keys are replicated.
//!
//! A monitor, or an update of one, is [remote-first](Class::RemoteFirst): what LDK waits for before a message
//! leaves is on the server by then. All else is local-first, but for what can be had again, which is never
//! sent.
//!
//! A node hands the same store to LDK's persister of monitors and to its background processor. Which
//! of the two ways in which LDK persists monitors it uses decides what a restored node finds:
//!
//! - [`Asynchronous`](Persistence::Asynchronous), `ChainMonitor::new_async_beta`: LDK holds back what an update
//!   allows until its write is done, and persists its manager meanwhile. The update is sent together with the
//!   manager that knows of it, so a restored node goes on where it was, and no channel closes.
//! - [`Synchronous`](Persistence::Synchronous), what `ldk-node` 0.7 does: the write of an update blocks the
//!   thread that processes the channel, while it holds what the manager's write asks for. So the update is on
//!   the server before the manager that knows of it, and a machine that is lost in between leaves the one
//!   without the other. LDK closes such a channel when it is loaded.

use std::pin::Pin;
use std::time::Duration;

use highwater::error::{Error, Kind, Result};
use lightning::io;
use lightning::util::persist::{
    ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as ARCHIVED,
    CHANNEL_MANAGER_PERSISTENCE_KEY as MANAGER,
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as MONITORS,
    CHANNEL_MONITOR_UPDATE_PERSISTENCE_PRIMARY_NAMESPACE as UPDATES, KVStore, KVStoreSync,
    NETWORK_GRAPH_PERSISTENCE_KEY as GRAPH, SCORER_PERSISTENCE_KEY as SCORER,
};

use super::class::{Carried, Class, Classes};
use super::store::ReplicatedStore;
use super::write::Write;

/// How long an update waits for its manager, which LDK writes within milliseconds.
const CARRIED_WAIT: Duration = Duration::from_secs(1);
/// Rows of one look, with their values.
const ROWS: usize = 64;
/// The scores that `ldk-node` gets from others.
const SCORES: &str = "external_pathfinding_scores_cache";

/// How a node persists its monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// LDK goes on while a write is under way, and holds back what depends on it.
    Asynchronous,
    /// LDK waits within the write.
    Synchronous,
}

/// How LDK's keys are replicated: for [`ReplicaBuilder::classes`](super::ReplicaBuilder::classes).
pub fn classes(persistence: Persistence) -> Classes {
    let prefix = |namespace: &str| format!("{namespace}/");
    let classes = Classes::all(Class::LocalFirst)
        .with(prefix(MONITORS), Class::RemoteFirst)
        .with(prefix(UPDATES), Class::RemoteFirst)
        .with(prefix(ARCHIVED), Class::RemoteFirst)
        .with(format!("//{GRAPH}"), Class::LocalOnly)
        .with(format!("//{SCORER}"), Class::LocalOnly)
        .with(format!("//{SCORES}"), Class::LocalOnly);
    match persistence {
        Persistence::Synchronous => classes,
        Persistence::Asynchronous => classes.with_carried(Carried {
            by: format!("//{MANAGER}").into_bytes(),
            after: prefix(MONITORS).into_bytes(),
            within: prefix(UPDATES).into_bytes(),
            wait: CARRIED_WAIT,
        }),
    }
}

/// The key in the store: both namespaces and the key, with `/` between them, which none of them contains.
///
/// # Errors
/// Input where LDK would not take them: a namespace or key of other characters than letters, digits, `_`
/// and `-`, or of more than 120; no key; a second namespace without a first one.
pub fn key(primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>> {
    if key.is_empty() {
        return Err(Error::input("a value of LDK has no key"));
    }
    prefix(primary, secondary).and_then(|mut name| {
        check(key)?;
        name.extend_from_slice(key.as_bytes());
        Ok(name)
    })
}

fn prefix(primary: &str, secondary: &str) -> Result<Vec<u8>> {
    if primary.is_empty() && !secondary.is_empty() {
        return Err(
            Error::input("a second namespace of LDK needs a first one").with_entry(secondary)
        );
    }
    check(primary)?;
    check(secondary)?;
    Ok(format!("{primary}/{secondary}/").into_bytes())
}

fn check(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() <= lightning::util::persist::KVSTORE_NAMESPACE_KEY_MAX_LEN
        && name.chars().all(fits)
    {
        return Ok(());
    }
    Err(Error::input("a name of LDK has letters, digits, `_` and `-`, 120 at most")
        .with_entry(name))
}

impl ReplicatedStore {
    fn read_of(&self, primary: &str, secondary: &str, name: &str) -> Result<Vec<u8>> {
        let found = self.read(&key(primary, secondary, name)?)?;
        found.ok_or_else(|| Error::not_found("there is no such value").with_entry(name))
    }

    fn names_of(&self, primary: &str, secondary: &str) -> Result<Vec<String>> {
        let prefix = prefix(primary, secondary)?;
        let (mut names, mut after): (Vec<String>, Option<Vec<u8>>) = (Vec::new(), None);
        loop {
            let rows = self.scan(&prefix, after.as_deref(), ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(names) };
            after = Some(last.clone());
            for (key, _) in rows {
                let name = String::from_utf8(key[prefix.len()..].to_vec());
                names.push(name.map_err(|_| Error::corrupt("a key of LDK is no text"))?);
            }
        }
    }
}

impl KVStoreSync for ReplicatedStore {
    fn read(&self, primary: &str, secondary: &str, name: &str) -> io::Result<Vec<u8>> {
        self.read_of(primary, secondary, name).map_err(told)
    }

    fn write(&self, primary: &str, secondary: &str, name: &str, value: Vec<u8>) -> io::Result<()> {
        let key = key(primary, secondary, name).map_err(told)?;
        self.commit(vec![Write { key, value: Some(value) }]).map_err(told)
    }

    fn remove(&self, primary: &str, secondary: &str, name: &str, lazy: bool) -> io::Result<()> {
        let key = key(primary, secondary, name).map_err(told)?;
        match lazy {
            true => self.remove_lazily(key),
            false => self.commit(vec![Write { key, value: None }]),
        }
        .map_err(told)
    }

    fn list(&self, primary: &str, secondary: &str) -> io::Result<Vec<String>> {
        self.names_of(primary, secondary).map_err(told)
    }
}

/// What LDK waits for.
type Later<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'static>>;

fn now<T: Send + 'static>(outcome: Result<T>) -> Later<T> {
    Box::pin(std::future::ready(outcome.map_err(told)))
}

impl ReplicatedStore {
    fn later(&self, key: Result<Vec<u8>>, value: Option<Vec<u8>>, lazy: bool) -> Later<()> {
        match key {
            Ok(key) => {
                let submitted = self.submit_as(vec![Write { key, value }], lazy);
                Box::pin(async move { submitted.await.map_err(told) })
            }
            Err(error) => now(Err(error)),
        }
    }
}

impl KVStore for ReplicatedStore {
    fn read(&self, primary: &str, secondary: &str, name: &str) -> Later<Vec<u8>> {
        now(self.read_of(primary, secondary, name))
    }

    fn write(&self, primary: &str, secondary: &str, name: &str, value: Vec<u8>) -> Later<()> {
        self.later(key(primary, secondary, name), Some(value), false)
    }

    fn remove(&self, primary: &str, secondary: &str, name: &str, lazy: bool) -> Later<()> {
        self.later(key(primary, secondary, name), None, lazy)
    }

    fn list(&self, primary: &str, secondary: &str) -> Later<Vec<String>> {
        now(self.names_of(primary, secondary))
    }
}

/// An error in LDK's terms; it takes no more than a text.
fn told(error: Error) -> io::Error {
    let kind = match error.kind() {
        Kind::NotFound => io::ErrorKind::NotFound,
        Kind::Input => io::ErrorKind::InvalidInput,
        Kind::Corrupt => io::ErrorKind::InvalidData,
        Kind::Denied | Kind::Fenced => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}
