//! The object store under a vault, as blocking calls that speak the library's errors.
//!
//! Object stores answer asynchronously; capture and restore are threads that may block. A local
//! directory is driven by the calling thread. A remote store has threads of its own for its
//! connections, so that requests go on while nobody waits for them; they end with the store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as Name;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};

use crate::direct::AlignedBuffer;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::Time;

use super::limits::{LISTED_MAX, object_bytes_max};
use super::local::{LocalMedium, LocalStore};
use super::location::{Location, RemoteLocation};
use super::medium::{Medium, ReadOnly, get_at_most};
#[cfg(feature = "remote")]
use super::remote::{self, RemoteMedium};
use super::runtime::Runtime;
use super::upload::Upload;

/// An object, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// When it was put, by the store's clock.
    pub(crate) modified: Time,
}

/// The objects of one vault.
pub(crate) struct Store {
    medium: Box<dyn Medium>,
    pub(super) runtime: Runtime,
}

impl Store {
    /// The store of a new vault. Conflict where something is there already.
    pub(super) fn create(location: &Location, env: &Env) -> Result<Store> {
        match location {
            Location::Local(path) => Store::local(LocalStore::create(path, env)?),
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
            Location::Local(path) => Store::local(LocalStore::open(path, env)?),
            Location::Archive(_) => Err(location.read_only()),
            Location::Remote(remote) => Store::of_remote(remote),
        }
    }

    /// A local directory.
    pub(crate) fn local(local: LocalStore) -> Result<Store> {
        Ok(Store { medium: Box::new(LocalMedium::new(local)), runtime: Runtime::of_caller()? })
    }

    /// Files that are only read, and answer at once.
    pub(crate) fn archive(objects: Arc<dyn ObjectStore>) -> Result<Store> {
        Ok(Store { medium: Box::new(ReadOnly(objects)), runtime: Runtime::of_caller()? })
    }

    /// An object store over the network, by a client that reaches it.
    #[cfg(feature = "remote")]
    pub(super) fn remote(objects: Arc<dyn ObjectStore>, location: RemoteLocation) -> Result<Store> {
        let medium = Box::new(RemoteMedium::new(objects, location));
        Ok(Store { medium, runtime: Runtime::of_its_own()? })
    }

    /// The store of a remote vault. Nothing is sent yet.
    #[cfg(feature = "remote")]
    fn of_remote(location: &RemoteLocation) -> Result<Store> {
        Store::remote(remote::client(location)?, location.clone())
    }

    /// That this build reaches no store over the network.
    #[cfg(not(feature = "remote"))]
    fn of_remote(location: &RemoteLocation) -> Result<Store> {
        Err(location.not_built())
    }

    /// Its objects.
    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        self.medium.objects()
    }

    /// Whether requests travel over a network.
    pub(super) fn is_remote(&self) -> bool {
        self.medium.is_remote()
    }

    /// The same objects over connections of their own, where there are any.
    pub(super) fn twin(&self) -> Result<Arc<dyn ObjectStore>> {
        self.medium.twin()
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
        let first = self.runtime.block_on(async { self.objects().list(None).next().await });
        first.transpose().map(|first| first.is_none()).map_err(|error| self.error("", error))
    }

    /// Puts a new object; `false` where one of that name exists, which then stays as it is. Its
    /// bytes must be like no others: that is how a put is known again of which the network has
    /// lost the answer.
    pub(crate) fn put_new(&self, name: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        self.medium.put_new(&self.runtime, name, bytes.into())
    }

    /// The whole of an object. Corrupt where it has more bytes than any object of its kind: who can
    /// write to the store must not fill our memory.
    pub(crate) fn get(&self, name: &str) -> Result<Bytes> {
        let most = object_bytes_max(name);
        let get = get_at_most(self.objects().as_ref(), name, most);
        let found = self.runtime.block_on(get).map_err(|error| self.error(name, error))?;
        found.ok_or_else(|| {
            Error::corrupt(format!("{name} has more than {most} bytes: no highwater wrote it"))
                .with_entry(name)
                .with_remedy("put back a good copy of this object, if there is one")
        })
    }

    /// Bytes of an object; fewer where the object ends before, corrupt where it has none of them:
    /// only what was promised by a size that was stored is asked for.
    pub(crate) fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let name_path = Name::from(name);
        let get = self.objects().get_range(&name_path, range.clone());
        self.runtime.block_on(get).or_else(|error| self.explain_range(name, &range, error))
    }

    /// The same for two ranges, asked for at once.
    pub(crate) fn get_ranges(&self, name: &str, ranges: [Range<u64>; 2]) -> Result<[Bytes; 2]> {
        let name_path = Name::from(name);
        let get = |range: &Range<u64>| self.objects().get_range(&name_path, range.clone());
        let [first, second] = &ranges;
        let (one, other) = self.runtime.block_on(async { tokio::join!(get(first), get(second)) });
        let one = one.or_else(|error| self.explain_range(name, first, error))?;
        let other = other.or_else(|error| self.explain_range(name, second, error))?;
        Ok([one, other])
    }

    /// Why there is no such range; bytes, if a shorter one is all that there is.
    fn explain_range(
        &self,
        name: &str,
        range: &Range<u64>,
        error: object_store::Error,
    ) -> Result<Bytes> {
        match self.size(name)? {
            Some(size) if size <= range.start => {
                Err(Error::corrupt(format!("it was cut to {size} bytes")).with_entry(name))
            }
            _ => Err(self.error(name, error)),
        }
    }

    /// A range of an object in `buffer`, where it may be changed; corrupt where the object ends before.
    pub(crate) fn read(
        &self,
        name: &str,
        range: Range<u64>,
        buffer: &mut AlignedBuffer,
    ) -> Result<()> {
        let Some(read) = self.medium.read(&Name::from(name), range.clone(), buffer) else {
            let bytes = self.get_range(name, range)?;
            buffer.clear();
            buffer.extend(&bytes);
            return Ok(());
        };
        read.or_else(|error| match self.size(name)? {
            Some(size) if size < range.end => {
                Err(Error::corrupt(format!("it was cut to {size} bytes")).with_entry(name))
            }
            _ => Err(self.error(name, error)),
        })
    }

    /// An object's size; `None` where there is no such object.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.objects().head(&Name::from(name))) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// All objects below a prefix (`None`: all of them), by name.
    pub(crate) fn list(&self, prefix: Option<&str>) -> Result<Vec<Listed>> {
        self.list_at_most(prefix, LISTED_MAX)
    }

    /// The same; corrupt where there are more than `most`.
    pub(super) fn list_at_most(&self, prefix: Option<&str>, most: usize) -> Result<Vec<Listed>> {
        let place = prefix.unwrap_or("the vault");
        let prefix_path = prefix.map(Name::from);
        let mut stream = self.objects().list(prefix_path.as_ref());
        let mut listed = Vec::new();
        while let Some(meta) = self.runtime.block_on(self.next_listed(place, &mut stream))? {
            if listed.len() == most {
                return Err(Error::corrupt(format!(
                    "more than {most} objects are listed in {place}: no vault has so many"
                ))
                .with_entry(place)
                .with_remedy(
                    "remove with the store's own tool what somebody else has put there, or use \
                     another copy of the vault",
                ));
            }
            listed.push(Listed {
                name: meta.location.to_string(),
                size: meta.size,
                modified: Time::from_nanos(meta.last_modified.timestamp_nanos_opt().unwrap_or(0)),
            });
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// What a list goes on with; pages without an object are waited through for a time.
    async fn next_listed(
        &self,
        place: &str,
        stream: &mut BoxStream<'_, object_store::Result<ObjectMeta>>,
    ) -> Result<Option<ObjectMeta>> {
        let next = stream.try_next();
        let next = match self.medium.list_silence_max() {
            Some(silence) => tokio::time::timeout(silence, next).await,
            None => Ok(next.await),
        };
        let next = next.map_err(|_| {
            Error::unavailable("the store's list does not go on")
                .with_entry(place)
                .with_remedy("look at the store: it answers, and tells of no object")
        })?;
        next.map_err(|error| self.error(place, error))
    }

    /// Deletes an object; one that is gone already is no error.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        match self.runtime.block_on(self.objects().delete(&Name::from(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// Begins a large object, which becomes visible when it is finished.
    pub(crate) fn upload(&self, name: &str) -> Result<Upload<'_>> {
        Upload::begin(self.medium.as_ref(), &self.runtime, name)
    }

    /// An object store's error as the library's, naming the object.
    pub(super) fn error(&self, name: &str, error: object_store::Error) -> Error {
        self.medium.error(name, error)
    }
}

#[cfg(all(test, feature = "s3", feature = "gcs", feature = "azure"))]
mod tests;
