//! Archive files as a vault that can only be read: its objects are ranges of the files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path as Name;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};

use crate::control::{Control, Event};
use crate::error::{Error, Remedy, Result};
use crate::ids::{NodeName, SnapshotId, encode};
use crate::vault::pack::pack_name;
use crate::vault::store::Store;
use crate::vault::{HEADER_NAME, Location, Manifest, MasterKey, Secret, SnapshotName, Vault};

use super::Input;
use super::chain::{self, Begun};
use super::read::Entry;
use super::write::packs_beyond;

/// Archive files, opened as a vault.
pub struct Opened {
    /// The vault: it holds what the archives hold, and nothing can be written to it.
    pub vault: Vault,
    /// The snapshot of the last archive.
    pub snapshot: SnapshotId,
    /// Its node.
    pub node: NodeName,
}

/// Opens archive files as a vault that can only be read, once every byte of all of them was verified.
/// The first one is whole, each other one an increment on the one before it.
///
/// # Errors
/// Corrupt where any byte is not what was written; conflict where the files are no chain in this
/// order; denied where `secret` opens no slot; input where they are of different vaults.
pub fn open(paths: &[PathBuf], secret: &Secret, control: &Control) -> Result<Opened> {
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        files.push(open_file(path)?);
    }
    let input = |(path, file): (&PathBuf, &File)| -> Result<Input<'static>> {
        let name = encode(path.as_os_str().as_bytes());
        let again = file.try_clone().map_err(|error| Error::io(&name, error).with_entry(&name))?;
        Ok(Input { name, read: Box::new(again) })
    };
    let inputs = paths.iter().zip(&files).map(input).collect::<Result<Vec<_>>>()?;
    let begun = chain::begin(inputs, control)?;
    chain::refuse_gap(&begun)?;
    let master = chain::unlock(&begun, secret)?;
    let bytes_total = begun.iter().map(|archive| archive.reader.header.bytes).sum();
    control.report(Event::Stage { name: "verify", bytes_total });
    let mut store =
        ArchiveStore { files: files.into_iter().map(Arc::new).collect(), objects: BTreeMap::new() };
    let mut read = Vec::with_capacity(paths.len());
    for (place, archive) in begun.into_iter().enumerate() {
        read.push(read_whole(archive, place, &master, &mut store, control)?);
    }
    let location = Location::Archive(
        paths
            .iter()
            .map(|path| std::path::absolute(path).map_err(|error| Error::io(path.display(), error)))
            .collect::<Result<_>>()?,
    );
    let vault = Vault::open_in(Store::archive(Arc::new(store))?, &location, secret, &control.env)?;
    let mut before: Option<Manifest> = None;
    for whole in &read {
        before = Some(whole.verify(&vault, before.as_ref())?);
    }
    let last = before.ok_or_else(|| Error::bug("no archive was read"))?;
    Ok(Opened { vault, snapshot: last.snapshot, node: last.node })
}

fn open_file(path: &PathBuf) -> Result<File> {
    let name = encode(path.as_os_str().as_bytes());
    let failed = |error| Error::io(format!("{name} can't be read"), error).with_entry(&name);
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::input("an archive that is restored from has to be a file")
            .with_entry(&name)
            .with_remedy("write the stream to a file first")
            .with_remedy(Remedy::ImportArchive));
    }
    Ok(file)
}

/// An archive that was read to its end.
struct Whole {
    archive: String,
    snapshot: SnapshotId,
    content: crate::vault::ContentId,
    manifest: Entry,
    packs: Vec<Entry>,
}

/// Reads an archive to its end, and notes where its objects are.
fn read_whole(
    archive: Begun<'_>,
    place: usize,
    master: &MasterKey,
    store: &mut ArchiveStore,
    control: &Control,
) -> Result<Whole> {
    let Begun { mut reader, preamble, manifest } = archive;
    preamble.verify(master)?;
    reader.authenticate(master)?;
    let vault_json = preamble.vault.to_bytes()?;
    store.objects.insert(HEADER_NAME.to_owned(), Object::Held(vault_json.into()));
    for slot in &preamble.slots {
        store.objects.insert(slot.object_name(), Object::Held(slot.to_bytes()?.into()));
    }
    let report = |piece: &[u8]| {
        control.report(Event::Bytes(piece.len() as u64));
        Ok(())
    };
    let mut packs = Vec::new();
    let mut next = Some(manifest.clone());
    while let Some(entry) = next {
        reader.pass(&entry, &mut |piece| report(piece))?;
        let range = Object::Range { file: place, offset: entry.offset, size: entry.size };
        if store.objects.insert(entry.name.clone(), range).is_some() {
            return Err(reader.wrong("an object comes twice"));
        }
        if entry != manifest {
            packs.push(entry);
        }
        next = reader.next()?;
    }
    reader.end(master)?;
    let (snapshot, content) = (reader.header.snapshot, reader.header.content);
    Ok(Whole { archive: reader.name().to_owned(), snapshot, content, manifest, packs })
}

impl Whole {
    /// Opens the manifest, and compares it with what else the archive holds.
    fn verify(&self, vault: &Vault, before: Option<&Manifest>) -> Result<Manifest> {
        let wrong = |what: &str| Error::corrupt(what).with_entry(&self.archive);
        let name = SnapshotName::parse(&self.manifest.name)
            .ok_or_else(|| wrong("it holds no manifest where one should be"))?;
        let object = vault.store().get(&self.manifest.name)?;
        let (manifest, content) = vault.open_manifest(&name, &object)?;
        if manifest.snapshot != self.snapshot || content != self.content {
            return Err(wrong("its manifest is not the one that it announces"));
        }
        let beyond = packs_beyond(&manifest, before);
        let same = beyond.len() == self.packs.len()
            && beyond
                .iter()
                .zip(&self.packs)
                .all(|(pack, entry)| pack_name(pack.id) == entry.name && pack.size == entry.size);
        if !same {
            return Err(wrong("its packs are not the ones that the snapshot needs"));
        }
        Ok(manifest)
    }
}

/// Where an object of an archive is.
#[derive(Debug)]
enum Object {
    /// In memory.
    Held(Bytes),
    /// In a file.
    Range { file: usize, offset: u64, size: u64 },
}

impl Object {
    fn size(&self) -> u64 {
        match self {
            Object::Held(bytes) => bytes.len() as u64,
            Object::Range { size, .. } => *size,
        }
    }
}

/// The objects of archive files.
#[derive(Debug)]
struct ArchiveStore {
    /// Kept open: what is read later is what was verified, whatever a name leads to by then.
    files: Vec<Arc<File>>,
    objects: BTreeMap<String, Object>,
}

impl ArchiveStore {
    fn meta(&self, name: &str, object: &Object) -> object_store::Result<ObjectMeta> {
        let modified = match object {
            Object::Range { file, .. } => self.files[*file].metadata().map_err(generic)?.mtime(),
            Object::Held(_) => 0,
        };
        Ok(ObjectMeta {
            location: Name::from(name),
            last_modified: (std::time::UNIX_EPOCH
                + std::time::Duration::from_secs(u64::try_from(modified).unwrap_or(0)))
            .into(),
            size: object.size(),
            e_tag: None,
            version: None,
        })
    }

    fn read(&self, object: &Object, range: &std::ops::Range<u64>) -> std::io::Result<Bytes> {
        match object {
            Object::Held(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Object::Range { file, offset, .. } => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                self.files[*file].read_exact_at(&mut bytes, offset + range.start)?;
                Ok(bytes.into())
            }
        }
    }
}

impl fmt::Display for ArchiveStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveStore({} files)", self.files.len())
    }
}

#[async_trait]
impl ObjectStore for ArchiveStore {
    async fn put_opts(
        &self,
        location: &Name,
        _: PutPayload,
        _: PutOptions,
    ) -> object_store::Result<PutResult> {
        Err(refused(location))
    }

    async fn put_multipart_opts(
        &self,
        location: &Name,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(refused(location))
    }

    async fn get_opts(
        &self,
        location: &Name,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let object = self.objects.get(location.as_ref()).ok_or_else(|| StoreError::NotFound {
            path: location.to_string(),
            source: "no archive holds it".into(),
        })?;
        let meta = self.meta(location.as_ref(), object)?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(meta.size).map_err(generic)?,
            None => 0..meta.size,
        };
        let wanted = if options.head { 0..0 } else { range.clone() };
        let bytes = self.read(object, &wanted).map_err(generic)?;
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Name>>,
    ) -> BoxStream<'static, object_store::Result<Name>> {
        locations.map(|location| Err(refused(&location?))).boxed()
    }

    fn list(&self, prefix: Option<&Name>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let below = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let found: Vec<_> = self
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with(&below))
            .map(|(name, object)| self.meta(name, object))
            .collect();
        stream::iter(found).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Name>) -> object_store::Result<ListResult> {
        Err(StoreError::NotSupported { source: "listing an archive by folders".into() })
    }

    async fn copy_opts(&self, _: &Name, to: &Name, _: CopyOptions) -> object_store::Result<()> {
        Err(refused(to))
    }
}

fn refused(location: &Name) -> StoreError {
    StoreError::PermissionDenied {
        path: location.to_string(),
        source: "an archive can't be written: import it into a vault".into(),
    }
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Generic { store: "archive", source: source.into() }
}
