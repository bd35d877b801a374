//! The object store under a vault, as blocking calls that speak the library's errors.
//!
//! Object stores answer asynchronously; capture and restore are threads that may block. A local
//! directory is driven by the calling thread. A remote store has threads of its own for its
//! connections, so that requests go on while nobody waits for them; they end with the store.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as Name;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tokio::sync::Semaphore;

use crate::direct::AlignedBuffer;
use crate::error::{Error, Kind, Result};
use crate::ids::Time;

use super::folder::Folder;
use super::header;
use super::local::LocalStore;
use super::location::RemoteLocation;
use super::pack::PACK_PLAIN_BYTES_MAX;
use super::remote;
use super::upload::Upload;

/// Threads that drive the connections of a remote store.
const DRIVERS: usize = 2;
/// Threads that look up the addresses of a remote store.
const RESOLVERS_MAX: usize = 2;
/// Small uploads, and parts of large ones, that are on their way to a remote store at once.
pub(crate) const UPLOADS_IN_FLIGHT_MAX: usize = 4;
/// A pack of a remote store is ended after so many bytes, before compression: it travels in one
/// request then, create-only, and several of them at once.
pub(super) const REMOTE_PACK_BYTES: u64 = 8 << 20;
/// Reads of a remote store that are worth asking for at once.
const REMOTE_READS_MAX: usize = 8;
/// A create-only put of whose fate nothing is known is tried so often.
const PUT_TRIES_MAX: usize = 3;
/// No vault has more objects, and no part of a vault: a list that is longer is not read to its end.
const LISTED_MAX: usize = 8 << 20;
/// A list that tells of nothing new for so long does not go on.
const LIST_SILENCE_MAX: Duration = Duration::from_secs(600);
/// No plain document (`vault.json`, a key slot) is longer.
pub(crate) const PLAIN_BYTES_MAX: u64 = 64 << 10;
/// No manifest is longer as stored: it is bounded before compression, and compression may add a little.
pub(crate) const MANIFEST_BYTES_MAX: u64 = (1 << 30) + (1 << 24);
/// Nor is any other sealed document.
const DOCUMENT_BYTES_MAX: u64 = 256 << 20;

/// So many bytes of the object `name` are taken as a whole: nothing that is longer was put by us.
pub(super) fn object_bytes_max(name: &str) -> u64 {
    match Folder::of(name) {
        _ if name == header::NAME => PLAIN_BYTES_MAX,
        Some(Folder::Keys) => PLAIN_BYTES_MAX,
        Some(Folder::Snapshots) => MANIFEST_BYTES_MAX,
        _ => DOCUMENT_BYTES_MAX,
    }
}

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
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) medium: Medium,
    pub(super) runtime: Runtime,
}

/// What drives requests. It can be dropped anywhere: a plain runtime panics where another one's tasks
/// run, and that is where a node may drop its last agent.
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl std::ops::Deref for Runtime {
    type Target = tokio::runtime::Runtime;

    fn deref(&self) -> &tokio::runtime::Runtime {
        self.0.as_ref().expect("it is taken when it is dropped")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is behind a store.
pub(super) enum Medium {
    /// A local directory.
    Local(Arc<LocalStore>),
    /// Files that are only read.
    Archive,
    /// An object store over the network.
    Remote {
        location: Arc<RemoteLocation>,
        /// One permit for each request of an upload that may be on its way.
        parts: Arc<Semaphore>,
    },
}

impl Store {
    /// A local directory.
    pub(crate) fn local(local: LocalStore) -> Result<Store> {
        let local = Arc::new(local);
        let objects: Arc<dyn ObjectStore> = Arc::clone(&local) as _;
        Ok(Store { objects, medium: Medium::Local(local), runtime: caller_runtime()? })
    }

    /// Files that are only read, and answer at once.
    pub(crate) fn archive(objects: Arc<dyn ObjectStore>) -> Result<Store> {
        Ok(Store { objects, medium: Medium::Archive, runtime: caller_runtime()? })
    }

    /// An object store over the network.
    pub(super) fn remote(objects: Arc<dyn ObjectStore>, location: RemoteLocation) -> Result<Store> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(DRIVERS)
            .max_blocking_threads(RESOLVERS_MAX)
            .thread_name("highwater-store")
            .enable_all()
            .build()
            .map_err(|error| Error::io("starting the object store's runtime", error))?;
        let parts = Arc::new(Semaphore::new(UPLOADS_IN_FLIGHT_MAX));
        let medium = Medium::Remote { location: Arc::new(location), parts };
        Ok(Store { objects, medium, runtime: Runtime(Some(runtime)) })
    }

    /// Where it is, where it is not on this machine.
    pub(super) fn remote_location(&self) -> Option<&Arc<RemoteLocation>> {
        match &self.medium {
            Medium::Remote { location, .. } => Some(location),
            Medium::Local(_) | Medium::Archive => None,
        }
    }

    /// The same objects over connections of their own, where there are any.
    pub(super) fn twin(&self) -> Result<Arc<dyn ObjectStore>> {
        match self.remote_location() {
            Some(location) => remote::client(location),
            None => Ok(Arc::clone(&self.objects)),
        }
    }

    /// How many threads should read it at once, where `cores` would read a local one.
    pub(crate) fn readers(&self, cores: usize) -> usize {
        match &self.medium {
            Medium::Remote { .. } => REMOTE_READS_MAX.max(cores),
            Medium::Local(_) | Medium::Archive => cores,
        }
    }

    /// A pack is ended once it holds so many bytes, before compression.
    pub(crate) fn pack_bytes(&self) -> u64 {
        match &self.medium {
            Medium::Remote { .. } => REMOTE_PACK_BYTES,
            Medium::Local(_) | Medium::Archive => PACK_PLAIN_BYTES_MAX,
        }
    }

    /// Removes temporary files of writers that were killed. A remote store keeps none that could
    /// be listed: the parts of an upload that was begun go by a rule of its operator's.
    pub(crate) fn collect_temporary(&self) -> Result<()> {
        match &self.medium {
            Medium::Local(local) => local.collect_leftovers(),
            Medium::Remote { .. } | Medium::Archive => Ok(()),
        }
    }

    /// Whether there is no object at all.
    pub(super) fn is_empty(&self) -> Result<bool> {
        let first = self.runtime.block_on(async { self.objects.list(None).next().await });
        first.transpose().map(|first| first.is_none()).map_err(|error| self.error("", error))
    }

    /// Puts a new object; `false` where one of that name exists, which then stays as it is. Its
    /// bytes must be like no others: that is how a put is known again of which the network has
    /// lost the answer.
    pub(crate) fn put_new(&self, name: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        let bytes: Bytes = bytes.into();
        let name = name.to_owned();
        if let Some(location) = self.remote_location() {
            let put = put_remote(Arc::clone(&self.objects), Arc::clone(location), name, bytes);
            return self.runtime.block_on(put);
        }
        match self.runtime.block_on(put_once(self.objects.as_ref(), &name, &bytes)) {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.error(&name, error)),
        }
    }

    /// The whole of an object. Corrupt where it has more bytes than any object of its kind: who can
    /// write to the store must not fill our memory.
    pub(crate) fn get(&self, name: &str) -> Result<Bytes> {
        let most = object_bytes_max(name);
        let get = get_at_most(self.objects.as_ref(), name, most);
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
        let get = self.objects.get_range(&name_path, range.clone());
        self.runtime.block_on(get).or_else(|error| self.explain_range(name, &range, error))
    }

    /// The same for two ranges, asked for at once.
    pub(crate) fn get_ranges(&self, name: &str, ranges: [Range<u64>; 2]) -> Result<[Bytes; 2]> {
        let name_path = Name::from(name);
        let get = |range: &Range<u64>| self.objects.get_range(&name_path, range.clone());
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
        let Medium::Local(local) = &self.medium else {
            let bytes = self.get_range(name, range)?;
            buffer.clear();
            buffer.extend(&bytes);
            return Ok(());
        };
        local.read(&Name::from(name), range.clone(), buffer).or_else(|error| {
            match self.size(name)? {
                Some(size) if size < range.end => {
                    Err(Error::corrupt(format!("it was cut to {size} bytes")).with_entry(name))
                }
                _ => Err(self.error(name, error)),
            }
        })
    }

    /// An object's size; `None` where there is no such object.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.objects.head(&Name::from(name))) {
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
        let mut stream = self.objects.list(prefix_path.as_ref());
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
        let next = match &self.medium {
            Medium::Remote { .. } => tokio::time::timeout(LIST_SILENCE_MAX, next).await,
            Medium::Local(_) | Medium::Archive => Ok(next.await),
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
        match self.runtime.block_on(self.objects.delete(&Name::from(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// Begins a large object, which becomes visible when it is finished.
    pub(crate) fn upload(&self, name: &str) -> Result<Upload<'_>> {
        Upload::begin(self, name)
    }

    /// An object store's error as the library's, naming the object.
    pub(super) fn error(&self, name: &str, error: object_store::Error) -> Error {
        match self.remote_location() {
            Some(location) => remote::describe(location, name, error),
            None => local_error(name, error),
        }
    }
}

/// What [`Store::put_new`] does at a remote store.
pub(super) async fn put_remote(
    objects: Arc<dyn ObjectStore>,
    location: Arc<RemoteLocation>,
    name: String,
    bytes: Bytes,
) -> Result<bool> {
    let mut tries = 1;
    loop {
        let error = match put_once(objects.as_ref(), &name, &bytes).await {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        // A put that was sent twice meets itself; one that broke off may have landed.
        let exists = matches!(error, object_store::Error::AlreadyExists { .. });
        let error = remote::describe(&location, &name, error);
        if !exists && error.kind() != Kind::Unavailable {
            return Err(error);
        }
        match get_at_most(objects.as_ref(), &name, bytes.len() as u64).await {
            Ok(found) => return Ok(found.is_some_and(|found| found == bytes)),
            // A store may refuse a put because of another one that then failed.
            Err(object_store::Error::NotFound { .. }) if tries < PUT_TRIES_MAX => tries += 1,
            Err(_) => return Err(error),
        }
    }
}

/// The whole of an object; `None` where it has more than `most` bytes, whatever its size is said to be.
async fn get_at_most(
    objects: &dyn ObjectStore,
    name: &str,
    most: u64,
) -> object_store::Result<Option<Bytes>> {
    let found = objects.get(&Name::from(name)).await?;
    if found.meta.size > most {
        return Ok(None);
    }
    let mut stream = found.into_stream();
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while let Some(piece) = stream.try_next().await? {
        length += piece.len() as u64;
        if length > most {
            return Ok(None);
        }
        pieces.push(piece);
    }
    Ok(Some(match <[Bytes; 1]>::try_from(pieces) {
        Ok([whole]) => whole,
        Err(pieces) => pieces.concat().into(),
    }))
}

async fn put_once(
    objects: &dyn ObjectStore,
    name: &str,
    bytes: &Bytes,
) -> object_store::Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let payload = PutPayload::from_bytes(bytes.clone());
    objects.put_opts(&Name::from(name), payload, options).await.map(drop)
}

/// A runtime that goes on while somebody waits for it, on the thread that waits.
fn caller_runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .map(|runtime| Runtime(Some(runtime)))
        .map_err(|error| Error::io("starting the object store's runtime", error))
}

/// An error of a local store as the library's, naming the object.
fn local_error(name: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let kind = match &error {
        E::NotFound { .. } => Kind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } => Kind::Conflict,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Kind::Denied,
        _ => Kind::Unavailable,
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>()
            && kind == Kind::Unavailable
        {
            let again = match io.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(io.kind(), io.to_string()),
            };
            return Error::io(format!("the vault's object {name}"), again).with_entry(name);
        }
        cause = current.source();
    }
    let message = match kind {
        Kind::NotFound => format!("the vault has no object {name}"),
        _ => format!("the vault's object {name}: {error}"),
    };
    Error::new(kind, message).with_entry(name).with_source(error)
}

#[cfg(test)]
mod tests;
