//! The server of a replica: a store of versioned values, in the terms of the Versioned Storage Service.

use crate::error::Result;

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

    /// Several values, as many at once as is good for the server; in the order of `keys`.
    ///
    /// # Errors
    /// As [`Remote::get`].
    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>> {
        keys.iter().map(|key| self.get(key)).collect()
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

/// All names that begin with `prefix`, each once: where keys change meanwhile, a list may repeat them.
///
/// # Errors
/// As [`Remote::list`].
pub(super) fn list_all(remote: &dyn Remote, prefix: &str) -> Result<Vec<(String, i64)>> {
    let (mut all, mut page) = (Vec::new(), None);
    loop {
        let listed = remote.list(prefix, page.as_deref())?;
        all.extend(listed.keys);
        page = listed.next;
        if page.is_none() {
            all.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then(x.cmp(y)));
            all.dedup_by(|(later, _), (first, _)| later == first);
            return Ok(all);
        }
    }
}
