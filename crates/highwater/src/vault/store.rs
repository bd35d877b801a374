//! The objects of a vault, as blocking calls that speak the library's errors: capture and restore are
//! threads that may block. What the objects are kept by is behind [`Medium`].

use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use crate::direct::AlignedBuffer;
use crate::env::Env;
use crate::error::{Error, Result};

use super::limits::{LISTED_MAX, object_bytes_max};
use super::local::LocalStore;
use super::location::{Location, RemoteLocation};
pub(crate) use super::medium::Listed;
use super::medium::{Medium, Requests};
#[cfg(feature = "remote")]
use super::remote::RemoteMedium;
use super::upload::Upload;

/// The objects of one vault.
pub(crate) struct Store {
    medium: Box<dyn Medium>,
}

impl Store {
    /// The store of a new vault. Conflict where something is there already.
    pub(super) fn create(location: &Location, env: &Env) -> Result<Store> {
        match location {
            Location::Local(path) => Ok(Store::of(LocalStore::create(path, env)?)),
            Location::Archive(_) => Err(location.read_only()),
            Location::Remote(remote) => {
                let store = Store::of_remote(remote)?;
                if store.is_empty()? {
                    return Ok(store);
                }
                Err(Error::conflict(format!("{remote} is not empty"))
                    .with_entry(remote.to_string())
                    .with_remedy("choose a prefix that nothing lies below"))
            }
        }
    }

    /// The store of a vault that is there.
    pub(super) fn open(location: &Location, env: &Env) -> Result<Store> {
        match location {
            Location::Local(path) => Ok(Store::of(LocalStore::open(path, env)?)),
            Location::Archive(_) => Err(location.read_only()),
            Location::Remote(remote) => Store::of_remote(remote),
        }
    }

    /// What a medium keeps.
    pub(crate) fn of(medium: impl Medium + 'static) -> Store {
        Store { medium: Box::new(medium) }
    }

    /// The store of a remote vault. Nothing is sent yet.
    #[cfg(feature = "remote")]
    fn of_remote(location: &RemoteLocation) -> Result<Store> {
        RemoteMedium::of(location).map(Store::of)
    }

    /// That this build reaches no store over the network.
    #[cfg(not(feature = "remote"))]
    fn of_remote(location: &RemoteLocation) -> Result<Store> {
        Err(location.not_built())
    }

    /// What its objects are kept by.
    pub(super) fn medium(&self) -> &dyn Medium {
        self.medium.as_ref()
    }

    /// Requests so far; none where nothing travels.
    pub(super) fn requests(&self) -> Option<Requests> {
        self.medium.requests()
    }

    /// How many threads should read it at once, where `cores` would read a local one.
    pub(crate) fn readers(&self, cores: usize) -> usize {
        self.medium.readers(cores)
    }

    /// A pack is ended once it holds so many bytes, before compression.
    pub(crate) fn pack_bytes(&self) -> u64 {
        self.medium.pack_bytes()
    }

    /// Removes temporary files of writers that were killed, where any could be found.
    pub(crate) fn collect_temporary(&self) -> Result<()> {
        self.medium.collect_temporary()
    }

    /// Whether there is no object at all.
    pub(super) fn is_empty(&self) -> Result<bool> {
        let mut empty = true;
        self.medium.list(None, &mut |_| {
            empty = false;
            ControlFlow::Break(())
        })?;
        Ok(empty)
    }

    /// Puts a new object; `false` where one of that name exists, which then stays as it is. Its
    /// bytes must be like no others: that is how a put is known again of which the network has
    /// lost the answer.
    pub(crate) fn put_new(&self, name: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        self.medium.put_new(name, bytes.into())
    }

    /// The whole of an object. Corrupt where it has more bytes than any object of its kind: who can
    /// write to the store must not fill our memory.
    pub(crate) fn get(&self, name: &str) -> Result<Bytes> {
        let most = object_bytes_max(name);
        self.medium.get(name, most)?.ok_or_else(|| {
            Error::corrupt(format!("{name} has more than {most} bytes: no highwater wrote it"))
                .with_entry(name)
                .with_remedy("put back a good copy of this object, if there is one")
        })
    }

    /// Bytes of an object; fewer where the object ends before, corrupt where it has none of them:
    /// only what was promised by a size that was stored is asked for.
    pub(crate) fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let least = range.start.saturating_add(1);
        self.medium.get_range(name, range).or_else(|error| self.explain(name, least, error))
    }

    /// The same for two ranges, asked for at once.
    pub(crate) fn get_ranges(&self, name: &str, ranges: [Range<u64>; 2]) -> Result<[Bytes; 2]> {
        let [least, other_least] =
            [&ranges[0], &ranges[1]].map(|range| range.start.saturating_add(1));
        let [one, other] = self.medium.get_ranges(name, ranges);
        let one = one.or_else(|error| self.explain(name, least, error))?;
        let other = other.or_else(|error| self.explain(name, other_least, error))?;
        Ok([one, other])
    }

    /// A range of an object in `buffer`, where it may be changed; corrupt where the object ends before.
    pub(crate) fn read(
        &self,
        name: &str,
        range: Range<u64>,
        buffer: &mut AlignedBuffer,
    ) -> Result<()> {
        let least = range.end;
        self.medium.read(name, range, buffer).or_else(|error| self.explain(name, least, error))
    }

    /// Why an object could not be read: it was cut to less than `least` bytes, or `error`.
    fn explain<T>(&self, name: &str, least: u64, error: Error) -> Result<T> {
        match self.size(name)? {
            Some(size) if size < least => {
                Err(Error::corrupt(format!("it was cut to {size} bytes")).with_entry(name))
            }
            _ => Err(error),
        }
    }

    /// An object's size; `None` where there is no such object.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>> {
        self.medium.size(name)
    }

    /// All objects below a prefix (`None`: all of them), by name.
    pub(crate) fn list(&self, prefix: Option<&str>) -> Result<Vec<Listed>> {
        self.list_at_most(prefix, LISTED_MAX)
    }

    /// The same; corrupt where there are more than `most`.
    pub(super) fn list_at_most(&self, prefix: Option<&str>, most: usize) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        self.medium.list(prefix, &mut |object| collect(&mut listed, object, most))?;
        refuse_more(prefix, listed.len(), most)?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The names of all objects below a prefix, in order.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.medium.names(Some(prefix), &mut |name| collect(&mut names, name, LISTED_MAX))?;
        refuse_more(Some(prefix), names.len(), LISTED_MAX)?;
        names.sort();
        Ok(names)
    }

    /// Deletes an object; one that is gone already is no error.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        self.medium.delete(name)
    }

    /// Begins a large object, which becomes visible when it is finished.
    pub(crate) fn upload(&self, name: &str) -> Result<Upload<'_>> {
        Upload::begin(self.medium.as_ref(), name)
    }
}

#[cfg(test)]
mod tests;

/// Takes one more, and goes on as long as there are no more than `most`.
fn collect<T>(listed: &mut Vec<T>, one: T, most: usize) -> ControlFlow<()> {
    listed.push(one);
    match listed.len() > most {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

fn refuse_more(prefix: Option<&str>, found: usize, most: usize) -> Result<()> {
    if found <= most {
        return Ok(());
    }
    let place = prefix.unwrap_or("the vault");
    let what = format!("more than {most} objects are listed in {place}: no vault has so many");
    Err(Error::corrupt(what).with_entry(place).with_remedy(
        "remove with the store's own tool what somebody else has put there, or use another copy of the vault",
    ))
}
