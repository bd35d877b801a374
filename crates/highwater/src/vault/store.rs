//! The object store under a vault, as blocking calls that speak the library's errors.
//!
//! Object stores answer asynchronously; capture and restore are threads that may block. One runtime
//! on the calling thread joins the two.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path as Name;
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
};

use crate::direct::AlignedBuffer;
use crate::error::{Error, Kind, Result};
use crate::ids::Time;

use super::local::LocalStore;

/// Parts of an upload are at least this long, but for the last one: S3 takes no smaller ones.
const UPLOAD_PART_BYTES: usize = 8 << 20;
/// What is written at once may reach beyond a part by so much before it is sent.
const UPLOAD_SLACK_BYTES: usize = 5 << 20;

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
    objects: Arc<dyn ObjectStore>,
    /// The same store, where it is a local directory.
    local: Option<Arc<LocalStore>>,
    runtime: tokio::runtime::Runtime,
}

impl Store {
    /// A local directory.
    pub(crate) fn local(local: LocalStore) -> Result<Store> {
        let local = Arc::new(local);
        Ok(Store { local: Some(Arc::clone(&local)), ..Store::new(local)? })
    }

    pub(crate) fn new(objects: Arc<dyn ObjectStore>) -> Result<Store> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Error::io("starting the object store's runtime", error))?;
        Ok(Store { objects, local: None, runtime })
    }

    /// Removes temporary files of writers that were killed.
    pub(crate) fn collect_temporary(&self) -> Result<()> {
        self.local.as_ref().map_or(Ok(()), |local| local.collect_leftovers())
    }

    /// Puts a new object; `false` where one of that name exists, which then stays as it is.
    pub(crate) fn put_new(&self, name: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from_bytes(bytes.into());
        let name_path = Name::from(name);
        let put = self.objects.put_opts(&name_path, payload, options);
        match self.runtime.block_on(put) {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(store_error(name, error)),
        }
    }

    /// The whole of an object.
    pub(crate) fn get(&self, name: &str) -> Result<Bytes> {
        let name_path = Name::from(name);
        let get = async { self.objects.get(&name_path).await?.bytes().await };
        self.runtime.block_on(get).map_err(|error| store_error(name, error))
    }

    /// Bytes of an object; fewer where the object ends before, corrupt where it has none of them:
    /// only what was promised by a size that was stored is asked for.
    pub(crate) fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let name_path = Name::from(name);
        let get = self.objects.get_range(&name_path, range.clone());
        self.runtime.block_on(get).or_else(|error| match self.size(name)? {
            Some(size) if size <= range.start => {
                Err(Error::corrupt(format!("it was cut to {size} bytes")).entry(name))
            }
            _ => Err(store_error(name, error)),
        })
    }

    /// A range of an object in `buffer`, where it may be changed; corrupt where the object ends before.
    pub(crate) fn read(
        &self,
        name: &str,
        range: Range<u64>,
        buffer: &mut AlignedBuffer,
    ) -> Result<()> {
        let Some(local) = &self.local else {
            let bytes = self.get_range(name, range)?;
            buffer.clear();
            buffer.extend(&bytes);
            return Ok(());
        };
        local.read(&Name::from(name), range.clone(), buffer).or_else(|error| {
            match self.size(name)? {
                Some(size) if size < range.end => {
                    Err(Error::corrupt(format!("it was cut to {size} bytes")).entry(name))
                }
                _ => Err(store_error(name, error)),
            }
        })
    }

    /// An object's size; `None` where there is no such object.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.objects.head(&Name::from(name))) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(name, error)),
        }
    }

    /// All objects below a prefix (`None`: all of them), by name.
    pub(crate) fn list(&self, prefix: Option<&str>) -> Result<Vec<Listed>> {
        let prefix_path = prefix.map(Name::from);
        let list = self
            .objects
            .list(prefix_path.as_ref())
            .map_ok(|meta| Listed {
                name: meta.location.to_string(),
                size: meta.size,
                modified: Time::from_nanos(meta.last_modified.timestamp_nanos_opt().unwrap_or(0)),
            })
            .try_collect::<Vec<_>>();
        let mut listed = self
            .runtime
            .block_on(list)
            .map_err(|error| store_error(prefix.unwrap_or("the vault"), error))?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Deletes an object; one that is gone already is no error.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        match self.runtime.block_on(self.objects.delete(&Name::from(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(name, error)),
        }
    }

    /// Begins a large object, which becomes visible when it is finished.
    pub(crate) fn upload(&self, name: &str) -> Result<Upload<'_>> {
        let upload = self
            .runtime
            .block_on(self.objects.put_multipart(&Name::from(name)))
            .map_err(|error| store_error(name, error))?;
        Ok(Upload { store: self, name: name.to_owned(), upload, pending: Vec::new(), bytes: 0 })
    }
}

/// A large object on its way.
pub(crate) struct Upload<'a> {
    store: &'a Store,
    name: String,
    upload: Box<dyn MultipartUpload>,
    pending: Vec<u8>,
    bytes: u64,
}

impl Upload<'_> {
    /// Adds bytes at the end.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if self.pending.len() >= UPLOAD_PART_BYTES { self.send() } else { Ok(()) }
    }

    /// Makes the object visible, durable, under its name.
    pub(crate) fn finish(mut self) -> Result<u64> {
        if !self.pending.is_empty() {
            self.send()?;
        }
        self.store
            .runtime
            .block_on(self.upload.complete())
            .map_err(|error| store_error(&self.name, error))?;
        Ok(self.bytes)
    }

    /// Gives the object up; nothing of it stays.
    pub(crate) fn abort(mut self) -> Result<()> {
        self.store
            .runtime
            .block_on(self.upload.abort())
            .map_err(|error| store_error(&self.name, error))
    }

    fn send(&mut self) -> Result<()> {
        let part = std::mem::replace(
            &mut self.pending,
            Vec::with_capacity(UPLOAD_PART_BYTES + UPLOAD_SLACK_BYTES),
        );
        let put = self.upload.put_part(PutPayload::from_bytes(part.into()));
        self.store.runtime.block_on(put).map_err(|error| store_error(&self.name, error))
    }
}

/// An object store's error as the library's, naming the object.
fn store_error(name: &str, error: object_store::Error) -> Error {
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
            return Error::io(format!("the vault's object {name}"), again).entry(name);
        }
        cause = current.source();
    }
    let message = match kind {
        Kind::NotFound => format!("the vault has no object {name}"),
        _ => format!("the vault's object {name}: {error}"),
    };
    Error::new(kind, message).entry(name).source(error)
}
