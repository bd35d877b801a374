//! An object store over the network as what is behind a store: packs travel in one request or in parts,
//! several at once, while more is written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path as Name;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use super::{client, describe};
use crate::error::{Error, Kind, Result};
use crate::vault::limits::UPLOADS_IN_FLIGHT_MAX;
use crate::vault::location::RemoteLocation;
use crate::vault::medium::{Medium, Way, get_at_most, put_once};
use crate::vault::runtime::Runtime;

/// A pack of a remote store is ended after so many bytes, before compression: it travels in one
/// request then, create-only, and several of them at once.
const PACK_BYTES: u64 = 8 << 20;
/// Reads of a remote store that are worth asking for at once.
const READS_MAX: usize = 8;
/// A create-only put of whose fate nothing is known is tried so often.
const PUT_TRIES_MAX: usize = 3;
/// A list that tells of nothing new for so long does not go on.
const LIST_SILENCE_MAX: Duration = Duration::from_secs(600);
/// Parts of an upload are so long, but for the last one: S3 takes none below 5 MiB, and some stores
/// none that differ in length.
const UPLOAD_PART_BYTES: usize = 8 << 20;
/// An object of at most so many bytes is put by one request, create-only.
const WHOLE_BYTES_MAX: usize = 20 << 20;
/// Room for what waits, at first: a pack, and a little.
const PENDING_BYTES: usize = PACK_BYTES as usize + (1 << 20);
/// What is written at once may reach beyond a part by so much before that is sent.
const UPLOAD_SLACK_BYTES: usize = 5 << 20;

type Sent = object_store::Result<()>;

/// An object store over the network. It keeps no temporary files that could be listed: the parts of an
/// upload that was begun go by a rule of its operator's.
pub(in crate::vault) struct RemoteMedium {
    objects: Arc<dyn ObjectStore>,
    location: Arc<RemoteLocation>,
    /// One permit for each request of an upload that may be on its way.
    parts: Arc<Semaphore>,
}

impl RemoteMedium {
    /// Of objects that a client reaches.
    pub(in crate::vault) fn new(
        objects: Arc<dyn ObjectStore>,
        location: RemoteLocation,
    ) -> RemoteMedium {
        let parts = Arc::new(Semaphore::new(UPLOADS_IN_FLIGHT_MAX));
        RemoteMedium { objects, location: Arc::new(location), parts }
    }

    fn object(&self, name: &str) -> Object {
        let (objects, location) = (Arc::clone(&self.objects), Arc::clone(&self.location));
        Object { objects, location, name: name.to_owned() }
    }
}

impl Medium for RemoteMedium {
    fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn twin(&self) -> Result<Arc<dyn ObjectStore>> {
        client(&self.location)
    }

    fn readers(&self, cores: usize) -> usize {
        READS_MAX.max(cores)
    }

    fn pack_bytes(&self) -> u64 {
        PACK_BYTES
    }

    fn list_silence_max(&self) -> Option<Duration> {
        Some(LIST_SILENCE_MAX)
    }

    fn put_new(&self, runtime: &Runtime, name: &str, bytes: Bytes) -> Result<bool> {
        runtime.block_on(self.object(name).put_new(bytes))
    }

    fn begin<'a>(&'a self, runtime: &'a Runtime, name: &str) -> Result<Box<dyn Way + 'a>> {
        let (object, pending) = (self.object(name), Vec::with_capacity(PENDING_BYTES));
        Ok(Box::new(Parallel { medium: self, runtime, object, begun: None, pending, bytes: 0 }))
    }

    fn error(&self, name: &str, error: object_store::Error) -> Error {
        describe(&self.location, name, error)
    }
}

/// One request for a small object, else parts. They travel while more is written.
struct Parallel<'a> {
    medium: &'a RemoteMedium,
    runtime: &'a Runtime,
    object: Object,
    begun: Option<Begun>,
    /// What was written and not sent.
    pending: Vec<u8>,
    /// What was written.
    bytes: u64,
}

/// A multipart upload.
struct Begun {
    upload: Box<dyn MultipartUpload>,
    sent: JoinSet<Sent>,
}

impl Way for Parallel<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        // Some stores take nothing but parts of one length.
        if self.begun.is_none() && self.pending.len() <= WHOLE_BYTES_MAX {
            return Ok(());
        }
        while self.pending.len() >= UPLOAD_PART_BYTES {
            self.send(UPLOAD_PART_BYTES)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Option<JoinHandle<Result<()>>>> {
        if !self.pending.is_empty() && self.begun.is_some() {
            self.send(self.pending.len())?;
        }
        let task = match self.begun.take() {
            Some(begun) => self.runtime.spawn(self.object.complete(begun, self.bytes)),
            None => {
                let permit = self.permit()?;
                self.runtime.spawn(self.object.put_whole(self.pending, permit))
            }
        };
        Ok(Some(task))
    }

    fn abort(mut self: Box<Self>) -> Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let given_up = self.runtime.block_on(give_up(begun));
        given_up.map_err(|error| self.object.error(error))
    }
}

impl Parallel<'_> {
    /// Sends the first `length` bytes of what waits.
    fn send(&mut self, length: usize) -> Result<()> {
        let mut rest = Vec::with_capacity(UPLOAD_PART_BYTES + UPLOAD_SLACK_BYTES);
        rest.extend_from_slice(&self.pending[length..]);
        let mut part = std::mem::replace(&mut self.pending, rest);
        part.truncate(length);
        let part = PutPayload::from_bytes(Bytes::from(part));
        let permit = if self.begun.is_some() { Some(self.permit()?) } else { None };
        let begun = match &mut self.begun {
            Some(begun) => begun,
            none => none.insert(Begun {
                upload: self.runtime.block_on(self.object.begin_multipart())?,
                sent: JoinSet::new(),
            }),
        };
        let permit = match permit {
            Some(permit) => permit,
            None => permit_of(self.runtime, &self.medium.parts)?,
        };
        let put = begun.upload.put_part(part);
        let sending = async move {
            let sent = put.await;
            drop(permit);
            sent
        };
        begun.sent.spawn_on(sending, self.runtime.handle());
        arrived(begun).map_err(|error| self.object.error(error))
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit> {
        permit_of(self.runtime, &self.medium.parts)
    }
}

/// Waits until one more request may be on its way.
fn permit_of(runtime: &Runtime, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let permit = runtime.block_on(Arc::clone(permits).acquire_owned());
    permit.map_err(|_| Error::bug("the store was closed"))
}

/// The first error among the parts that have arrived or failed by now.
fn arrived(begun: &mut Begun) -> Sent {
    while let Some(sent) = begun.sent.try_join_next() {
        sent.unwrap_or_else(|error| Err(broken(error)))?;
    }
    Ok(())
}

/// An object that is being made.
struct Object {
    objects: Arc<dyn ObjectStore>,
    location: Arc<RemoteLocation>,
    name: String,
}

impl Object {
    fn error(&self, error: object_store::Error) -> Error {
        describe(&self.location, &self.name, error)
    }

    async fn begin_multipart(&self) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.objects.put_multipart(&Name::from(self.name.as_str())).await;
        begun.map_err(|error| self.error(error))
    }

    /// Puts it by one request; `false` where one of its name exists.
    async fn put_new(&self, bytes: Bytes) -> Result<bool> {
        let objects = self.objects.as_ref();
        let mut tries = 1;
        loop {
            let error = match put_once(objects, &self.name, &bytes).await {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            // A put that was sent twice meets itself; one that broke off may have landed.
            let exists = matches!(error, object_store::Error::AlreadyExists { .. });
            let error = self.error(error);
            if !exists && error.kind() != Kind::Unavailable {
                return Err(error);
            }
            match get_at_most(objects, &self.name, bytes.len() as u64).await {
                Ok(found) => return Ok(found.is_some_and(|found| found == bytes)),
                // A store may refuse a put because of another one that then failed.
                Err(object_store::Error::NotFound { .. }) if tries < PUT_TRIES_MAX => tries += 1,
                Err(_) => return Err(error),
            }
        }
    }

    /// Puts a small object by one request. Its name is new, its content sealed.
    async fn put_whole(self, bytes: Vec<u8>, permit: OwnedSemaphorePermit) -> Result<()> {
        let put = self.put_new(Bytes::from(bytes)).await;
        drop(permit);
        match put? {
            true => Ok(()),
            false => {
                Err(Error::conflict("the vault has such an object already").with_entry(self.name))
            }
        }
    }

    /// Waits for the parts and makes one object of them; gives it up where that fails.
    async fn complete(self, mut begun: Begun, bytes: u64) -> Result<()> {
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
        let found = self.objects.head(&Name::from(self.name.as_str())).await;
        if found.is_ok_and(|found| found.size == bytes) {
            return Ok(());
        }
        // What can't be given up now goes by the rule for uploads that nobody ended.
        let _ = give_up(begun).await;
        Err(self.error(error))
    }
}

async fn give_up(mut begun: Begun) -> Sent {
    begun.sent.shutdown().await;
    begun.upload.abort().await
}

fn broken(error: tokio::task::JoinError) -> object_store::Error {
    object_store::Error::JoinError { source: error }
}
