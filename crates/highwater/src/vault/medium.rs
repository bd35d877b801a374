//! What is behind a store: a directory, archive files, or an object store over the network. What differs
//! between them is here; everything else is the store's.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use tokio::task::JoinHandle;

use crate::direct::AlignedBuffer;
use crate::error::{Error, Kind, Result};

use super::limits::PACK_PLAIN_BYTES_MAX;
use super::runtime::Runtime;

/// What is behind a store.
pub(super) trait Medium: Send + Sync {
    /// Its objects.
    fn objects(&self) -> &Arc<dyn ObjectStore>;

    /// Whether requests travel over a network.
    fn is_remote(&self) -> bool {
        false
    }

    /// The same objects over connections of their own, where there are any.
    fn twin(&self) -> Result<Arc<dyn ObjectStore>> {
        Ok(Arc::clone(self.objects()))
    }

    /// How many threads should read it at once, where `cores` would read a local one.
    fn readers(&self, cores: usize) -> usize {
        cores
    }

    /// A pack is ended once it holds so many bytes, before compression.
    fn pack_bytes(&self) -> u64 {
        PACK_PLAIN_BYTES_MAX
    }

    /// A list that tells of nothing new for so long does not go on; `None`: it answers at once.
    fn list_silence_max(&self) -> Option<Duration> {
        None
    }

    /// Removes temporary files of writers that were killed, where any could be found.
    fn collect_temporary(&self) -> Result<()> {
        Ok(())
    }

    /// Puts a new object; `false` where one of that name exists. Its bytes are like no others.
    fn put_new(&self, runtime: &Runtime, name: &str, bytes: Bytes) -> Result<bool> {
        match runtime.block_on(put_once(self.objects().as_ref(), name, &bytes)) {
            Ok(()) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.error(name, error)),
        }
    }

    /// Reads a range straight into `buffer`; `None` where it has no way of its own to do so.
    fn read(
        &self,
        name: &Name,
        range: Range<u64>,
        buffer: &mut AlignedBuffer,
    ) -> Option<object_store::Result<()>> {
        let _ = (name, range, buffer);
        None
    }

    /// Begins a large object.
    fn begin<'a>(&'a self, runtime: &'a Runtime, name: &str) -> Result<Box<dyn Way + 'a>>;

    /// An object store's error as the library's, naming the object.
    fn error(&self, name: &str, error: object_store::Error) -> Error {
        local_error(name, error)
    }
}

/// How a large object travels. Dropped before its end, nothing of it stays that a reader could see.
pub(super) trait Way {
    /// Adds bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Ends the object: at once, or once the task has ended.
    fn finish(self: Box<Self>) -> Result<Option<JoinHandle<Result<()>>>>;

    /// Gives the object up; nothing of it stays.
    fn abort(self: Box<Self>) -> Result<()>;
}

/// Files that are only read, and answer at once.
pub(super) struct ReadOnly(pub(super) Arc<dyn ObjectStore>);

impl Medium for ReadOnly {
    fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.0
    }

    fn begin<'a>(&'a self, _: &'a Runtime, name: &str) -> Result<Box<dyn Way + 'a>> {
        Err(Error::bug("an archive is only read").with_entry(name))
    }
}

/// Puts an object, create-only.
pub(super) async fn put_once(
    objects: &dyn ObjectStore,
    name: &str,
    bytes: &Bytes,
) -> object_store::Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let payload = PutPayload::from_bytes(bytes.clone());
    objects.put_opts(&Name::from(name), payload, options).await.map(drop)
}

/// The whole of an object; `None` where it has more than `most` bytes, whatever its size is said to be.
pub(super) async fn get_at_most(
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
