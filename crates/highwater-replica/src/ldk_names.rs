//! What stores of LDK are made of in each of its versions: names, how they are replicated, and what its traits ask
//! for, in our terms.

use std::pin::Pin;
use std::time::Duration;

use highwater::{Error, Result};

use super::class::{Carried, Class, Classes};
use super::store::ReplicatedStore;
use super::write::Write;

/// Names of LDK, the same in all of its versions; `tests/ldk` compares them.
const ARCHIVED: &str = "archived_monitors";
const MANAGER: &str = "manager";
const MONITORS: &str = "monitors";
const UPDATES: &str = "monitor_updates";
const GRAPH: &str = "network_graph";
const SCORER: &str = "scorer";
/// The scores that `ldk-node` gets from others.
const SCORES: &str = "external_pathfinding_scores_cache";
/// The longest name.
const NAME_MAX: usize = 120;

/// How long an update waits for its manager, which LDK writes within milliseconds.
const CARRIED_WAIT: Duration = Duration::from_secs(1);
/// Rows of one look, with their values.
const ROWS: usize = 64;

/// How a node persists its monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// LDK goes on while a write is under way, and holds back what depends on it.
    Asynchronous,
    /// LDK waits within the write.
    Synchronous,
}

/// How LDK's keys are replicated.
pub(crate) fn classes(persistence: Persistence) -> Classes {
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

/// What the keys of a namespace begin with.
pub(crate) fn prefix(primary: &str, secondary: &str) -> Result<Vec<u8>> {
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
    if name.len() <= NAME_MAX && name.chars().all(fits) {
        return Ok(());
    }
    Err(Error::input("a name of LDK has letters, digits, `_` and `-`, 120 at most")
        .with_entry(name))
}

/// The name of a key whose namespaces are known.
pub(crate) fn name(key: &[u8], prefix: &[u8]) -> Result<String> {
    let name = key.get(prefix.len()..).unwrap_or_default().to_vec();
    String::from_utf8(name).map_err(|_| Error::corrupt("a key of LDK is no text"))
}

/// Both namespaces and the name.
type Names = (String, String, String);

/// The names that a key is made of.
fn names(bytes: &[u8]) -> Result<Names> {
    let told = std::str::from_utf8(bytes).unwrap_or_default();
    let mut parts = told.splitn(3, '/').map(str::to_owned);
    let names = parts.next().zip(parts.next()).zip(parts.next());
    match names {
        Some(((primary, secondary), name)) if key(&primary, &secondary, &name).is_ok() => {
            Ok((primary, secondary, name))
        }
        _ => Err(Error::input("the store has a key that LDK has no names for")
            .with_entry(highwater::ids::encode(bytes))
            .with_remedy("move it into a store of its own: LDK would leave it behind")),
    }
}

/// What LDK waits for.
pub(crate) type Later<T, E> = Pin<Box<dyn Future<Output = std::result::Result<T, E>> + Send>>;

impl ReplicatedStore {
    pub(crate) fn read_of(&self, primary: &str, secondary: &str, name: &str) -> Result<Vec<u8>> {
        let found = self.read(&key(primary, secondary, name)?)?;
        found.ok_or_else(|| Error::not_found("there is no such value").with_entry(name))
    }

    /// Writes a value, or deletes it.
    pub(crate) fn write_of(&self, key: Result<Vec<u8>>, value: Option<Vec<u8>>) -> Result<()> {
        self.commit(vec![Write { key: key?, value }])
    }

    pub(crate) fn remove_of(&self, key: Result<Vec<u8>>, lazy: bool) -> Result<()> {
        match lazy {
            true => self.remove_lazily(key?),
            false => self.write_of(key, None),
        }
    }

    pub(crate) fn names_of(&self, primary: &str, secondary: &str) -> Result<Vec<String>> {
        let prefix = prefix(primary, secondary)?;
        self.collect(&prefix, |key| name(key, &prefix))
    }

    pub(crate) fn all_names(&self) -> Result<Vec<Names>> {
        self.collect(b"", names)
    }

    /// Something of each key with a prefix.
    fn collect<T>(&self, prefix: &[u8], of: impl Fn(&[u8]) -> Result<T>) -> Result<Vec<T>> {
        let (mut all, mut after): (Vec<T>, Option<Vec<u8>>) = (Vec::new(), None);
        loop {
            let rows = self.scan(prefix, after.as_deref(), ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(all) };
            after = Some(last.clone());
            for (key, _) in rows {
                all.push(of(&key)?);
            }
        }
    }

    /// A write, or a delete, whose place is fixed when this returns.
    pub(crate) fn later<E: Send + 'static>(
        &self,
        key: Result<Vec<u8>>,
        value: Option<Vec<u8>>,
        lazy: bool,
        told: fn(Error) -> E,
    ) -> Later<(), E> {
        match key {
            Ok(key) => {
                let submitted = self.submit_as(vec![Write { key, value }], lazy);
                Box::pin(async move { submitted.await.map_err(told) })
            }
            Err(error) => Box::pin(std::future::ready(Err(told(error)))),
        }
    }
}

/// The store traits of one version of LDK, which its crates have alike.
macro_rules! store_traits {
    ($lightning:ident) => {
        use $lightning::io;
        use $lightning::util::persist::{KVStore, KVStoreSync};

        use super::ldk_names::Later;

        impl KVStoreSync for ReplicatedStore {
            fn read(&self, primary: &str, secondary: &str, name: &str) -> io::Result<Vec<u8>> {
                self.read_of(primary, secondary, name).map_err(told)
            }

            fn write(
                &self,
                primary: &str,
                secondary: &str,
                name: &str,
                value: Vec<u8>,
            ) -> io::Result<()> {
                self.write_of(key(primary, secondary, name), Some(value)).map_err(told)
            }

            fn remove(
                &self,
                primary: &str,
                secondary: &str,
                name: &str,
                lazy: bool,
            ) -> io::Result<()> {
                self.remove_of(key(primary, secondary, name), lazy).map_err(told)
            }

            fn list(&self, primary: &str, secondary: &str) -> io::Result<Vec<String>> {
                self.names_of(primary, secondary).map_err(told)
            }
        }

        #[allow(
            refining_impl_trait,
            reason = "one of the versions names the type, the other its bounds"
        )]
        impl KVStore for ReplicatedStore {
            fn read(
                &self,
                primary: &str,
                secondary: &str,
                name: &str,
            ) -> Later<Vec<u8>, io::Error> {
                now(self.read_of(primary, secondary, name))
            }

            fn write(
                &self,
                primary: &str,
                secondary: &str,
                name: &str,
                value: Vec<u8>,
            ) -> Later<(), io::Error> {
                self.later(key(primary, secondary, name), Some(value), false, told)
            }

            fn remove(
                &self,
                primary: &str,
                secondary: &str,
                name: &str,
                lazy: bool,
            ) -> Later<(), io::Error> {
                self.later(key(primary, secondary, name), None, lazy, told)
            }

            fn list(&self, primary: &str, secondary: &str) -> Later<Vec<String>, io::Error> {
                now(self.names_of(primary, secondary))
            }
        }

        fn now<T: Send + 'static>(outcome: Result<T>) -> Later<T, io::Error> {
            Box::pin(std::future::ready(outcome.map_err(told)))
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
    };
}
pub(crate) use store_traits;
