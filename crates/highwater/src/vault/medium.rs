//! What is behind a store: a directory, archive files, or an object store over the network, as calls
//! that block. What differs between them is here; everything else is the store's.

use std::io;
use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use serde::Serialize;

use crate::direct::AlignedBuffer;
use crate::error::{Error, Result};
use crate::ids::Time;

use super::limits::PACK_PLAIN_BYTES_MAX;

/// An object, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// When it was put, by the store's clock.
    pub(crate) modified: Time,
}

/// Requests that went to an object store over the network, those that were sent again among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Requests {
    /// Puts of objects and of parts of them, and what begins and ends an upload in parts.
    pub put: u64,
    /// Reads of objects, of ranges of them, and of what is known of them.
    pub get: u64,
    /// Pages of lists.
    pub list: u64,
    /// Deletes.
    pub delete: u64,
}

/// What a put depends on.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// There is no object of that name.
    Absent,
    /// The object is the one that was seen.
    Unchanged(Version),
}

/// By what an object is known to be unchanged, in the words of its store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    #[cfg(feature = "remote")]
    pub(super) e_tag: Option<String>,
    #[cfg(feature = "remote")]
    pub(super) version: Option<String>,
}

/// How a put under a condition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    Refused,
    Unsupported,
}

/// What is done with each object of a list; it tells whether the list goes on.
pub(crate) type Take<'a> = dyn FnMut(Listed) -> ControlFlow<()> + 'a;

/// The same with the name of each.
pub(crate) type TakeName<'a> = dyn FnMut(String) -> ControlFlow<()> + 'a;

/// Waits until an object has arrived.
pub(crate) type Arrival<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// What is behind a store. Its errors name the object.
pub(crate) trait Medium: Send + Sync {
    /// Whether requests travel over a network.
    fn is_remote(&self) -> bool {
        false
    }

    /// Requests so far; none where nothing travels.
    fn requests(&self) -> Option<Requests> {
        None
    }

    /// The same objects over connections of their own; `None` where there are no connections.
    fn twin(&self) -> Result<Option<Box<dyn Medium>>> {
        Ok(None)
    }

    /// How many threads should read it at once, where `cores` would read a local one.
    fn readers(&self, cores: usize) -> usize {
        cores
    }

    /// A pack is ended once it holds so many bytes, before compression.
    fn pack_bytes(&self) -> u64 {
        PACK_PLAIN_BYTES_MAX
    }

    /// Removes temporary files of writers that were killed, where any could be found.
    fn collect_temporary(&self) -> Result<()> {
        Ok(())
    }

    /// The whole of an object; `None` where it has more than `most` bytes, whatever its size is said
    /// to be.
    fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>>;

    /// Bytes of an object; fewer where it ends before, an error where it has none of them.
    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes>;

    /// The same for two ranges, at once where that is faster.
    fn get_ranges(&self, name: &str, ranges: [Range<u64>; 2]) -> [Result<Bytes>; 2] {
        ranges.map(|range| self.get_range(name, range))
    }

    /// Reads a range into `buffer`.
    fn read(&self, name: &str, range: Range<u64>, buffer: &mut AlignedBuffer) -> Result<()> {
        let bytes = self.get_range(name, range)?;
        buffer.clear();
        buffer.extend(&bytes);
        Ok(())
    }

    /// An object's size; `None` where there is no such object.
    fn size(&self, name: &str) -> Result<Option<u64>>;

    /// Hands over the objects below a prefix (`None`: all of them), in any order.
    fn list(&self, prefix: Option<&str>, take: &mut Take<'_>) -> Result<()>;

    /// The same with names alone, where those cost less.
    fn names(&self, prefix: Option<&str>, take: &mut TakeName<'_>) -> Result<()> {
        self.list(prefix, &mut |listed| take(listed.name))
    }

    /// Puts a new object; `false` where one of that name exists. Its bytes are like no others.
    fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool>;

    /// Puts an object by one request under a condition, and tells how that ended; nothing is tried again.
    fn put_if(&self, name: &str, bytes: Bytes, condition: &Condition) -> Result<Put> {
        match condition {
            Condition::Absent if self.put_new(name, bytes)? => Ok(Put::Done),
            Condition::Absent => Ok(Put::Refused),
            Condition::Unchanged(_) => Ok(Put::Unsupported),
        }
    }

    /// By what an object is known to be unchanged.
    fn version(&self, name: &str) -> Result<Version> {
        let _ = name;
        Ok(Version::default())
    }

    /// Deletes an object; one that is gone already is no error.
    fn delete(&self, name: &str) -> Result<()>;

    /// Begins a large object.
    fn begin<'a>(&'a self, name: &str) -> Result<Box<dyn Way<'a> + 'a>>;
}

/// How a large object travels. Dropped before its end, nothing of it stays that a reader could see.
pub(crate) trait Way<'a> {
    /// Adds bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Ends the object: at once, or once it has arrived.
    fn finish(self: Box<Self>) -> Result<Option<Arrival<'a>>>;

    /// Gives the object up; nothing of it stays.
    fn abort(self: Box<Self>) -> Result<()>;
}

/// That there is no object of that name.
pub(crate) fn absent(name: &str) -> Error {
    Error::not_found(format!("the vault has no object {name}")).with_entry(name)
}

/// What the operating system says of an object.
pub(crate) fn failed(name: &str, error: io::Error) -> Error {
    Error::io(format!("the vault's object {name}"), error).with_entry(name)
}
