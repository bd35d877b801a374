//! Archive files as a vault that can only be read: its objects are ranges of the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use bytes::Bytes;

use crate::control::{Control, Event};
use crate::error::{Error, Remedy, Result};
use crate::ids::{NodeName, SnapshotId, Time, encode};
use crate::vault::medium::{Listed, Medium, Take, Way, absent, failed};
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
    let mut store = ArchiveStore { files, objects: BTreeMap::new() };
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
    let vault = Vault::open_in(Store::of(store), &location, secret, &control.env)?;
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

/// The objects of archive files, which are only read.
#[derive(Debug)]
struct ArchiveStore {
    /// Kept open: what is read later is what was verified, whatever a name leads to by then.
    files: Vec<File>,
    objects: BTreeMap<String, Object>,
}

impl ArchiveStore {
    fn object(&self, name: &str) -> Result<&Object> {
        self.objects.get(name).ok_or_else(|| absent(name))
    }

    /// A range that the object has.
    fn read(&self, name: &str, object: &Object, range: Range<u64>) -> Result<Bytes> {
        let at = |error| failed(name, error);
        let memory =
            |length: u64| usize::try_from(length).map_err(|error| at(io::Error::other(error)));
        match object {
            Object::Held(bytes) => Ok(bytes.slice(memory(range.start)?..memory(range.end)?)),
            Object::Range { file, offset, .. } => {
                let mut bytes = vec![0; memory(range.end - range.start)?];
                self.files[*file].read_exact_at(&mut bytes, offset + range.start).map_err(at)?;
                Ok(bytes.into())
            }
        }
    }

    /// When the archive was written that an object lies in.
    fn modified(&self, object: &Object) -> io::Result<Time> {
        let seconds = match object {
            Object::Range { file, .. } => self.files[*file].metadata()?.mtime(),
            Object::Held(_) => 0,
        };
        Ok(Time::from_nanos(seconds.max(0).checked_mul(1_000_000_000).unwrap_or(0)))
    }
}

impl Medium for ArchiveStore {
    fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>> {
        let object = self.object(name)?;
        let size = object.size();
        if size > most {
            return Ok(None);
        }
        self.read(name, object, 0..size).map(Some)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let object = self.object(name)?;
        let range = range.start..range.end.min(object.size());
        if range.is_empty() {
            let what = "it has none of the bytes that are asked for";
            return Err(failed(name, io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        self.read(name, object, range)
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.objects.get(name).map(Object::size))
    }

    fn list(&self, prefix: Option<&str>, take: &mut Take<'_>) -> Result<()> {
        let below = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        for (name, object) in self.objects.iter().filter(|(name, _)| name.starts_with(&below)) {
            let modified = self.modified(object).map_err(|error| failed(name, error))?;
            if take(Listed { name: name.clone(), size: object.size(), modified }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn put_new(&self, name: &str, _: Bytes) -> Result<bool> {
        Err(refused(name))
    }

    fn delete(&self, name: &str) -> Result<()> {
        Err(refused(name))
    }

    fn begin<'a>(&'a self, name: &str) -> Result<Box<dyn Way<'a> + 'a>> {
        Err(refused(name))
    }
}

/// Nothing comes here: what writes asks before whether the vault can be written.
fn refused(name: &str) -> Error {
    Error::denied("an archive can't be written").with_entry(name).with_remedy(Remedy::ImportArchive)
}
