//! A large object on its way into a store. It is visible under its name, whole, once it is finished,
//! or never.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as Name;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::{Error, Result};

use super::location::RemoteLocation;
use super::store::{Medium, REMOTE_PACK_BYTES, Store, put_remote};
use super::{local, remote};

/// Parts of an upload are so long, but for the last one: S3 takes none below 5 MiB, and some stores
/// none that differ in length.
const UPLOAD_PART_BYTES: usize = 8 << 20;
/// An object of at most so many bytes is put by one request, create-only.
const WHOLE_BYTES_MAX: usize = 20 << 20;
/// Room for what waits, at first: a pack, and a little.
const PENDING_BYTES: usize = REMOTE_PACK_BYTES as usize + (1 << 20);
/// What is written at once may reach beyond a part by so much before that is sent.
const UPLOAD_SLACK_BYTES: usize = 5 << 20;

type Sent = object_store::Result<()>;

/// A large object on its way.
pub(crate) struct Upload<'a> {
    store: &'a Store,
    name: String,
    way: Way,
    pending: Vec<u8>,
    bytes: u64,
}

/// How its parts travel.
enum Way {
    /// Into a directory, by the call that hands the bytes over.
    Local(local::Upload),
    /// One request for a small object, else parts. They travel while more is written.
    Parallel { parts: Arc<Semaphore>, begun: Option<Begun> },
}

/// A multipart upload of a remote store.
struct Begun {
    upload: Box<dyn MultipartUpload>,
    sent: JoinSet<Sent>,
}

impl<'a> Upload<'a> {
    pub(super) fn begin(store: &'a Store, name: &str) -> Result<Upload<'a>> {
        let way = match &store.medium {
            Medium::Remote { parts, .. } => Way::Parallel { parts: Arc::clone(parts), begun: None },
            Medium::Local(local) => {
                let begun = local.begin(&Name::from(name));
                Way::Local(begun.map_err(|error| store.error(name, error))?)
            }
            Medium::Archive => return Err(Error::bug("an archive is only read").with_entry(name)),
        };
        let pending = match &way {
            Way::Local(_) => Vec::new(),
            Way::Parallel { .. } => Vec::with_capacity(PENDING_BYTES),
        };
        Ok(Upload { store, name: name.to_owned(), way, pending, bytes: 0 })
    }

    /// Adds bytes at the end.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        if let Way::Local(upload) = &mut self.way {
            return upload.append(bytes).map_err(|error| self.store.error(&self.name, error));
        }
        self.pending.extend_from_slice(bytes);
        // Some stores take nothing but parts of one length.
        let whole = matches!(self.way, Way::Parallel { begun: None, .. });
        if whole && self.pending.len() <= WHOLE_BYTES_MAX {
            return Ok(());
        }
        while self.pending.len() >= UPLOAD_PART_BYTES {
            self.send(UPLOAD_PART_BYTES)?;
        }
        Ok(())
    }

    /// Ends the object. It is visible and durable under its name once [`Ending::wait`] returns;
    /// until then its last parts may be on their way.
    pub(crate) fn finish(mut self) -> Result<Ending<'a>> {
        if !self.pending.is_empty() && matches!(self.way, Way::Parallel { begun: Some(_), .. }) {
            self.send(self.pending.len())?;
        }
        let (store, name, bytes) = (self.store, self.name, self.bytes);
        let task = match self.way {
            Way::Local(mut upload) => {
                upload.end().map_err(|error| store.error(&name, error))?;
                None
            }
            Way::Parallel { parts, begun } => {
                let object = Object::new(store, &name)?;
                let task = match begun {
                    Some(begun) => store.runtime.spawn(complete(object, begun, bytes)),
                    None => {
                        let permit = permit(store, &parts)?;
                        store.runtime.spawn(put_whole(object, self.pending, permit))
                    }
                };
                Some(task)
            }
        };
        Ok(Ending { store, name, bytes, task })
    }

    /// Gives the object up; nothing of it stays.
    pub(crate) fn abort(self) -> Result<()> {
        let (store, name) = (self.store, self.name);
        let given_up = match self.way {
            // Dropped, its file is removed.
            Way::Local(_) => Ok(()),
            Way::Parallel { begun: Some(begun), .. } => store.runtime.block_on(give_up(begun)),
            Way::Parallel { begun: None, .. } => Ok(()),
        };
        given_up.map_err(|error| store.error(&name, error))
    }

    /// Sends the first `length` bytes of what waits.
    fn send(&mut self, length: usize) -> Result<()> {
        let (store, name) = (self.store, &self.name);
        let Way::Parallel { parts, begun } = &mut self.way else { return Ok(()) };
        let mut rest = Vec::with_capacity(UPLOAD_PART_BYTES + UPLOAD_SLACK_BYTES);
        rest.extend_from_slice(&self.pending[length..]);
        let mut part = std::mem::replace(&mut self.pending, rest);
        part.truncate(length);
        let part = PutPayload::from_bytes(Bytes::from(part));
        let begun = match begun {
            Some(begun) => begun,
            None => {
                begun.insert(Begun { upload: begin_multipart(store, name)?, sent: JoinSet::new() })
            }
        };
        let permit = permit(store, parts)?;
        let put = begun.upload.put_part(part);
        let sending = async move {
            let sent = put.await;
            drop(permit);
            sent
        };
        begun.sent.spawn_on(sending, store.runtime.handle());
        arrived(begun).map_err(|error| store.error(name, error))
    }
}

/// A large object that was ended, and may not have arrived.
pub(crate) struct Ending<'a> {
    store: &'a Store,
    name: String,
    bytes: u64,
    task: Option<JoinHandle<Result<()>>>,
}

impl Ending<'_> {
    /// Waits until the object is visible and durable; its size.
    pub(crate) fn wait(self) -> Result<u64> {
        let Some(task) = self.task else { return Ok(self.bytes) };
        match self.store.runtime.block_on(task) {
            Ok(sent) => sent.map(|()| self.bytes),
            Err(_) => Err(Error::bug("an upload panicked").with_entry(self.name)),
        }
    }
}

fn begin_multipart(store: &Store, name: &str) -> Result<Box<dyn MultipartUpload>> {
    store
        .runtime
        .block_on(store.objects.put_multipart(&Name::from(name)))
        .map_err(|error| store.error(name, error))
}

/// The first error among the parts that have arrived or failed by now.
fn arrived(begun: &mut Begun) -> Sent {
    while let Some(sent) = begun.sent.try_join_next() {
        sent.unwrap_or_else(|error| Err(broken(error)))?;
    }
    Ok(())
}

/// The object of a remote store that an upload makes.
struct Object {
    objects: Arc<dyn ObjectStore>,
    location: Arc<RemoteLocation>,
    name: String,
}

impl Object {
    fn new(store: &Store, name: &str) -> Result<Object> {
        let location = store.remote_location();
        let location = location.ok_or_else(|| Error::bug("a local upload has no parts"))?;
        let (objects, location) = (Arc::clone(&store.objects), Arc::clone(location));
        Ok(Object { objects, location, name: name.to_owned() })
    }
}

/// Waits until one more request may be on its way.
fn permit(store: &Store, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let permit = store.runtime.block_on(Arc::clone(permits).acquire_owned());
    permit.map_err(|_| Error::bug("the store was closed"))
}

/// Puts a small object by one request. Its name is new, its content sealed.
async fn put_whole(object: Object, bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> Result<()> {
    let Object { objects, location, name } = object;
    let put = put_remote(objects, location, name.clone(), Bytes::from(bytes)).await;
    drop(permit);
    match put? {
        true => Ok(()),
        false => Err(Error::conflict("the vault has such an object already").with_entry(name)),
    }
}

/// Waits for the parts and makes one object of them; gives it up where that fails.
async fn complete(object: Object, mut begun: Begun, bytes: u64) -> Result<()> {
    let mut parts = Ok(());
    while let (Ok(()), Some(sent)) = (&parts, begun.sent.join_next().await) {
        parts = sent.unwrap_or_else(|error| Err(broken(error)));
    }
    let done = match parts {
        Ok(()) => begun.upload.complete().await.map(drop),
        Err(error) => Err(error),
    };
    let Err(error) = done else { return Ok(()) };
    // It may be the answer alone that was lost.
    let found = object.objects.head(&Name::from(object.name.as_str())).await;
    if found.is_ok_and(|found| found.size == bytes) {
        return Ok(());
    }
    // What can't be given up now goes by the rule for uploads that nobody ended.
    let _ = give_up(begun).await;
    Err(remote::describe(&object.location, &object.name, error))
}

async fn give_up(mut begun: Begun) -> Sent {
    begun.sent.shutdown().await;
    begun.upload.abort().await
}

fn broken(error: tokio::task::JoinError) -> object_store::Error {
    object_store::Error::JoinError { source: error }
}
