//! The server of a replica: a store of versioned values, in the terms of the Versioned Storage Service.

use highwater::{Error, Result};

mod memory;
mod vss;

pub use memory::{MemoryRemote, RemoteFault};
pub use vss::{VssAuth, VssBuilder, VssRemote};

/// A value and its version.
pub type Versioned = (i64, Vec<u8>);

/// One item of a put: version 0 inserts, `n` above 0 replaces version `n`, −1 writes version 1 whatever is
/// there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key's name.
    pub key: String,
    /// What must be there.
    pub version: i64,
    /// The value.
    pub value: Vec<u8>,
}

/// One transaction: items in order, then deletes, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemotePut {
    /// What is written.
    pub items: Vec<Item>,
    /// Keys that are deleted, at these versions; −1: whatever it is, but it must be there.
    pub deletes: Vec<(String, i64)>,
}

/// What became of a put that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// All of it is there, durably.
    Landed,
    /// A version was not the one that was expected. Where an answer was lost before, it may have landed
    /// then.
    Conflict,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Names and versions.
    pub keys: Vec<(String, i64)>,
    /// What the next page is asked with; none: this is the last one.
    pub next: Option<String>,
}

/// A server, as one user sees one store of it. Calls block.
pub trait Remote: Send + Sync {
    /// A value and its version; none where the key is missing.
    ///
    /// # Errors
    /// Unavailable where the server can't be asked, denied where it does not know us.
    fn get(&self, key: &str) -> Result<Option<Versioned>>;

    /// Values in the order of `keys`, as many at once as is good for the server: those of the first
    /// keys, at least one where a key was given. The others are asked for again: together they may be
    /// more than memory holds.
    ///
    /// # Errors
    /// As [`Remote::get`].
    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for key in keys {
            if bytes >= VALUES_BYTES_MAX {
                break;
            }
            let value = self.get(key)?;
            bytes += value.as_ref().map_or(0, |(_, value)| value.len());
            found.push(value);
        }
        Ok(found)
    }

    /// Puts all of it or nothing.
    ///
    /// # Errors
    /// Unavailable where no answer came: whether it landed is not known. Input where the server refuses
    /// it for good, denied where it does not know us: it has not landed.
    fn put(&self, put: &RemotePut) -> Result<Put>;

    /// One page of names that begin with `prefix`.
    ///
    /// # Errors
    /// As [`Remote::get`].
    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed>;
}

/// How many values are requested at once.
const KEYS_AT_ONCE: usize = 256;
/// Values that are handed on together have at most this many bytes, not counting the last of them.
const VALUES_BYTES_MAX: usize = 64 << 20;
/// How many pages of a list are requested at most: servers give up to a hundred names on each.
const PAGES_MAX: u64 = 1 << 20;
/// How much memory the names of a list take at most.
const LISTED_BYTES_MAX: usize = 512 << 20;

/// All names that begin with `prefix`, each once: where keys change meanwhile, a list may repeat them.
///
/// # Errors
/// As [`Remote::list`]; unavailable where the list is longer than that of any store.
pub(super) fn list_all(remote: &dyn Remote, prefix: &str) -> Result<Vec<(String, i64)>> {
    list_at_most(remote, prefix, LISTED_BYTES_MAX)
}

fn list_at_most(remote: &dyn Remote, prefix: &str, bytes_max: usize) -> Result<Vec<(String, i64)>> {
    let (mut all, mut page) = (Vec::new(), None);
    let mut bytes = 0;
    for _ in 0..PAGES_MAX {
        let listed = remote.list(prefix, page.as_deref())?;
        let kept = |(key, _): &(String, i64)| key.len() + size_of::<(String, i64)>();
        bytes += listed.keys.iter().map(kept).sum::<usize>();
        if bytes > bytes_max {
            break;
        }
        all.extend(listed.keys);
        page = listed.next;
        if page.is_none() {
            all.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then(x.cmp(y)));
            all.dedup_by(|(later, _), (first, _)| later == first);
            return Ok(all);
        }
    }
    Err(Error::unavailable("the server's list has no end")
        .with_entry(prefix)
        .with_remedy("look at the server: it tells of more keys than a store can have"))
}

/// Asks for all of `keys`, and passes on each with its value: never more of them are in memory than
/// [`Remote::get_all`] gives at once.
///
/// # Errors
/// As [`Remote::get`], and what `take` says.
pub(super) fn each_value(
    remote: &dyn Remote,
    keys: &[String],
    mut take: impl FnMut(&str, Option<Versioned>) -> Result<()>,
) -> Result<()> {
    let mut left = keys;
    while !left.is_empty() {
        let some = &left[..left.len().min(KEYS_AT_ONCE)];
        let found = remote.get_all(some)?;
        if found.is_empty() || found.len() > some.len() {
            return Err(Error::bug("a server's client gives another number of values"));
        }
        let (now, later) = left.split_at(found.len());
        now.iter().zip(found).try_for_each(|(key, found)| take(key, found))?;
        left = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
