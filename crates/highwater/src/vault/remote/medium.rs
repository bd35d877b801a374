//! An object store over the network as what is behind a store: packs travel in one request or in parts,
//! several at once, while more is written.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path as Name;
use object_store::{
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::requests::Counts;
use super::runtime::Runtime;
use super::{client, describe};
use crate::error::{Error, Kind, Result};
use crate::ids::Time;
use crate::vault::limits::UPLOADS_IN_FLIGHT_MAX;
use crate::vault::location::RemoteLocation;
use crate::vault::medium::{Arrival, Condition, Listed, Medium, Put, Requests, Take, Version, Way};

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
    runtime: Arc<Runtime>,
    /// One permit for each request of an upload that may be on its way.
    parts: Arc<Semaphore>,
    counts: Arc<Counts>,
}

impl RemoteMedium {
    /// Of a location. Nothing is sent yet.
    pub(in crate::vault) fn of(location: &RemoteLocation) -> Result<RemoteMedium> {
        let counts = Arc::default();
        let objects = client(location, &counts)?;
        Ok(RemoteMedium { counts, ..RemoteMedium::over(objects, location)? })
    }

    /// Of objects that a client reaches.
    pub(in crate::vault) fn over(
        objects: Arc<dyn ObjectStore>,
        location: &RemoteLocation,
    ) -> Result<RemoteMedium> {
        let (location, runtime) = (Arc::new(location.clone()), Arc::new(Runtime::new()?));
        let parts = Arc::new(Semaphore::new(UPLOADS_IN_FLIGHT_MAX));
        Ok(RemoteMedium { objects, location, runtime, parts, counts: Arc::default() })
    }

    fn object(&self, name: &str) -> Object {
        let (objects, location) = (Arc::clone(&self.objects), Arc::clone(&self.location));
        Object { objects, location, name: name.to_owned() }
    }

    fn error(&self, name: &str, error: object_store::Error) -> Error {
        describe(&self.location, name, error)
    }

    /// Waits until one more request of an upload may be on its way.
    fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = self.runtime.block_on(Arc::clone(&self.parts).acquire_owned());
        permit.map_err(|_| Error::bug("the store was closed"))
    }

    /// What a list goes on with; pages without an object are waited through for a time.
    async fn next_listed(
        &self,
        place: &str,
        stream: &mut BoxStream<'_, object_store::Result<ObjectMeta>>,
    ) -> Result<Option<ObjectMeta>> {
        let next = tokio::time::timeout(LIST_SILENCE_MAX, stream.try_next()).await;
        let next = next.map_err(|_| {
            Error::unavailable("the store's list does not go on")
                .with_entry(place)
                .with_remedy("look at the store: it answers, and tells of no object")
        })?;
        next.map_err(|error| self.error(place, error))
    }
}

impl Medium for RemoteMedium {
    fn is_remote(&self) -> bool {
        true
    }

    fn requests(&self) -> Option<Requests> {
        Some(self.counts.so_far())
    }

    fn twin(&self) -> Result<Option<Box<dyn Medium>>> {
        let objects = client(&self.location, &self.counts)?;
        let (location, runtime) = (Arc::clone(&self.location), Arc::clone(&self.runtime));
        let parts = Arc::new(Semaphore::new(UPLOADS_IN_FLIGHT_MAX));
        let counts = Arc::clone(&self.counts);
        Ok(Some(Box::new(RemoteMedium { objects, location, runtime, parts, counts })))
    }

    fn readers(&self, cores: usize) -> usize {
        READS_MAX.max(cores)
    }

    fn pack_bytes(&self) -> u64 {
        PACK_BYTES
    }

    fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>> {
        let get = get_at_most(self.objects.as_ref(), name, most);
        self.runtime.block_on(get).map_err(|error| self.error(name, error))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let path = Name::from(name);
        let get = self.objects.get_range(&path, range);
        self.runtime.block_on(get).map_err(|error| self.error(name, error))
    }

    fn get_ranges(&self, name: &str, ranges: [Range<u64>; 2]) -> [Result<Bytes>; 2] {
        let path = Name::from(name);
        let [one, other] = ranges.map(|range| self.objects.get_range(&path, range));
        let (one, other) = self.runtime.block_on(async { tokio::join!(one, other) });
        [one, other].map(|got| got.map_err(|error| self.error(name, error)))
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.objects.head(&Name::from(name))) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(name, error)),
        }
    }

    fn list(&self, prefix: Option<&str>, take: &mut Take<'_>) -> Result<()> {
        let place = prefix.unwrap_or("the vault");
        let prefix_path = prefix.map(Name::from);
        let mut stream = self.objects.list(prefix_path.as_ref());
        while let Some(meta) = self.runtime.block_on(self.next_listed(place, &mut stream))? {
            let taken = take(Listed {
                name: meta.location.to_string(),
                size: meta.size,
                modified: Time::from_nanos(meta.last_modified.timestamp_nanos_opt().unwrap_or(0)),
            });
            if taken.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        self.runtime.block_on(self.object(name).put_new(bytes))
    }

    fn put_if(&self, name: &str, bytes: Bytes, condition: &Condition) -> Result<Put> {
        use object_store::Error as E;
        let mode = match condition {
            Condition::Absent => PutMode::Create,
            Condition::Unchanged(Version { e_tag, version }) => {
                PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
            }
        };
        match self.runtime.block_on(put_once(self.objects.as_ref(), name, &bytes, mode)) {
            Ok(()) => Ok(Put::Done),
            Err(E::AlreadyExists { .. } | E::Precondition { .. }) => Ok(Put::Refused),
            Err(E::NotSupported { .. } | E::NotImplemented { .. }) => Ok(Put::Unsupported),
            Err(error) => Err(self.error(name, error)),
        }
    }

    fn version(&self, name: &str) -> Result<Version> {
        let head = self.runtime.block_on(self.objects.head(&Name::from(name)));
        let meta = head.map_err(|error| self.error(name, error))?;
        Ok(Version { e_tag: meta.e_tag, version: meta.version })
    }

    fn delete(&self, name: &str) -> Result<()> {
        match self.runtime.block_on(self.objects.delete(&Name::from(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(name, error)),
        }
    }

    fn begin<'a>(&'a self, name: &str) -> Result<Box<dyn Way<'a> + 'a>> {
        let (object, pending) = (self.object(name), Vec::with_capacity(PENDING_BYTES));
        Ok(Box::new(Parallel { medium: self, object, begun: None, pending, bytes: 0 }))
    }
}

/// Puts an object by one request.
async fn put_once(
    objects: &dyn ObjectStore,
    name: &str,
    bytes: &Bytes,
    mode: PutMode,
) -> object_store::Result<()> {
    let options = PutOptions { mode, ..PutOptions::default() };
    let payload = PutPayload::from_bytes(bytes.clone());
    objects.put_opts(&Name::from(name), payload, options).await.map(drop)
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

/// One request for a small object, else parts. They travel while more is written.
struct Parallel<'a> {
    medium: &'a RemoteMedium,
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

impl<'a> Way<'a> for Parallel<'a> {
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

    fn finish(mut self: Box<Self>) -> Result<Option<Arrival<'a>>> {
        if !self.pending.is_empty() && self.begun.is_some() {
            self.send(self.pending.len())?;
        }
        let runtime = &self.medium.runtime;
        let name = self.object.name.clone();
        let task = match self.begun.take() {
            Some(begun) => runtime.spawn(self.object.complete(begun, self.bytes)),
            None => {
                let permit = self.medium.permit()?;
                runtime.spawn(self.object.put_whole(self.pending, permit))
            }
        };
        Ok(Some(Box::new(move || match runtime.block_on(task) {
            Ok(sent) => sent,
            Err(_) => Err(Error::bug("an upload panicked").with_entry(name)),
        })))
    }

    fn abort(mut self: Box<Self>) -> Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let given_up = self.medium.runtime.block_on(give_up(begun));
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
        let runtime = &self.medium.runtime;
        let begun = match &mut self.begun {
            Some(begun) => begun,
            none => none.insert(Begun {
                upload: runtime.block_on(self.object.begin_multipart())?,
                sent: JoinSet::new(),
            }),
        };
        let permit = self.medium.permit()?;
        let put = begun.upload.put_part(part);
        let sending = async move {
            let sent = put.await;
            drop(permit);
            sent
        };
        begun.sent.spawn_on(sending, runtime.handle());
        arrived(begun).map_err(|error| self.object.error(error))
    }
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
            let error = match put_once(objects, &self.name, &bytes, PutMode::Create).await {
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
