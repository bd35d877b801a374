//! A local directory as an object store: private from the first byte on, durable when a put
//! returns, and never a half-written object under its name.
//!
//! File I/O blocks inside the asynchronous functions, on purpose: the library drives a store from
//! threads that may block, each with a current-thread runtime of its own.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path as Name;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart,
};
use rustix::fs::OFlags;

use self::temporary::{Temporary, remove_if_dead};
use crate::direct::AlignedBuffer;
use crate::env::Env;

mod medium;
mod temporary;

pub(super) use medium::LocalMedium;

pub(crate) const TEMPORARY: &str = ".tmp";
const LOST_AND_FOUND: &str = "lost+found";
const READ_WHOLE_MAX: u64 = 64 << 20;
const READ_PIECE: u64 = 8 << 20;

/// A local directory as an object store.
///
/// An object is a file under its name; a name's components are directories, which stay when they
/// are empty. No component begins with a dot. What is being written lies in `.tmp/`, each file
/// locked (`flock`) by its writer for as long as that lives.
pub(crate) struct LocalStore {
    directory: Arc<Directory>,
}

impl LocalStore {
    /// Makes a store in a directory that is missing or empty, else conflict. Its parent must exist.
    pub(crate) fn create(root: &Path, env: &Env) -> crate::Result<LocalStore> {
        let root = absolute(root)?;
        let name = root.display().to_string();
        let failed = |error: io::Error| {
            crate::Error::io(format!("{name} can't be made"), error).with_entry(&name)
        };
        match DirBuilder::new().mode(0o700).create(&root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !(root.is_dir() && is_empty(&root).map_err(failed)?) {
                    return Err(crate::Error::conflict(format!("{name} exists and is not empty"))
                        .with_entry(&name)
                        .with_remedy("choose a directory that is empty or does not exist"));
                }
                fs::set_permissions(&root, Permissions::from_mode(0o700)).map_err(failed)?;
            }
            made => made.map_err(failed)?,
        }
        sync_directory(&root).map_err(failed)?;
        if let Some(parent) = root.parent() {
            sync_directory(parent).map_err(failed)?;
        }
        Ok(LocalStore::at(root, env))
    }

    /// Opens a store; not found where there is no directory. Nothing is written before the first
    /// put, so that a store on a read-only disk can be read.
    pub(crate) fn open(root: &Path, env: &Env) -> crate::Result<LocalStore> {
        let root = absolute(root)?;
        let name = root.display().to_string();
        let failed = |error| crate::Error::io(format!("{name} can't be opened"), error);
        if !fs::metadata(&root).map_err(|error| failed(error).with_entry(&name))?.is_dir() {
            let what = format!("{name} is not a directory");
            return Err(crate::Error::not_found(what).with_entry(&name));
        }
        Ok(LocalStore::at(root, env))
    }

    /// Begins a streamed put, create-only.
    pub(super) fn begin(&self, location: &Name) -> Result<Upload> {
        let path = self.directory.path_of(location)?;
        let file = Temporary::new(&self.directory)?;
        Ok(Upload { location: location.clone(), path, file: Some(file) })
    }

    /// Reads a range of an object, past the page cache where it is a large one.
    pub(crate) fn read(
        &self,
        location: &Name,
        range: Range<u64>,
        buffer: &mut AlignedBuffer,
    ) -> Result<()> {
        let path = self.directory.path_of(location)?;
        buffer.read(&path, range).map_err(|error| absent_or_failed(location, error))
    }

    /// Removes what writers that died have left in `.tmp/`; what a living one writes stays.
    pub(crate) fn collect_leftovers(&self) -> crate::Result<()> {
        let directory = &self.directory.temporary;
        let failed = |path: &Path, error| {
            let name = path.display().to_string();
            crate::Error::io(format!("{name} can't be removed"), error).with_entry(name)
        };
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| failed(directory, error))?,
        };
        for entry in entries {
            let path = entry.map_err(|error| failed(directory, error))?.path();
            match remove_if_dead(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|error| failed(&path, error))?,
            }
        }
        Ok(())
    }

    fn at(root: PathBuf, env: &Env) -> LocalStore {
        let temporary = root.join(TEMPORARY);
        let durable = Mutex::new(HashSet::from([root.clone()]));
        LocalStore { directory: Arc::new(Directory { root, temporary, env: env.clone(), durable }) }
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStore({})", self.directory.root.display())
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.root.display().fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(
        &self,
        location: &Name,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        refuse_attributes(&options.attributes)?;
        let overwrite = match options.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            PutMode::Update(_) => return Err(unsupported("a put under a condition")),
        };
        let path = self.directory.path_of(location)?;
        let mut file = Temporary::new(&self.directory)?;
        file.write(&payload)?;
        file.publish(location, &path, overwrite)
    }

    /// A streamed put; it is create-only, for a large object is never written twice.
    async fn put_multipart_opts(
        &self,
        location: &Name,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        refuse_attributes(&options.attributes)?;
        Ok(Box::new(self.begin(location)?))
    }

    async fn get_opts(&self, location: &Name, options: GetOptions) -> Result<GetResult> {
        let (file, meta) = self.directory.open(location)?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(meta.size).map_err(generic)?,
            None => 0..meta.size,
        };
        let wanted = if options.head { 0..0 } else { range.clone() };
        Ok(GetResult {
            payload: GetResultPayload::Stream(read_range(file, location.clone(), wanted)),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Name>>,
    ) -> BoxStream<'static, Result<Name>> {
        let directory = Arc::clone(&self.directory);
        locations
            .map(move |location| {
                let location = location?;
                directory.delete(&location)?;
                Ok(location)
            })
            .boxed()
    }

    /// The objects below `prefix`, sorted. Only what a put can make is an object: a file whose
    /// name has no component with a dot in front.
    fn list(&self, prefix: Option<&Name>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let found = self.directory.list(&prefix, Depth::All);
        match found {
            Ok(found) => stream::iter(found.objects.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Name>) -> Result<ListResult> {
        self.directory.list(&prefix.cloned().unwrap_or_default(), Depth::One)
    }

    async fn copy_opts(&self, from: &Name, to: &Name, options: CopyOptions) -> Result<()> {
        let path = self.directory.path_of(to)?;
        let (mut source, _) = self.directory.open(from)?;
        let mut file = Temporary::new(&self.directory)?;
        file.copy(&mut source)?;
        file.publish(to, &path, options.mode == CopyMode::Overwrite)?;
        Ok(())
    }
}

/// A streamed put, create-only. Each part is written by the call that hands it over.
#[derive(Debug)]
pub(super) struct Upload {
    location: Name,
    path: PathBuf,
    /// `None` once a part could not be written, or all is over.
    file: Option<Temporary>,
}

impl Upload {
    fn write(&mut self, payload: &PutPayload) -> Result<()> {
        payload.iter().try_for_each(|bytes| self.append(bytes))
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut file = self.file.take().ok_or_else(|| over("it failed or has ended"))?;
        file.append(bytes)?;
        self.file = Some(file);
        Ok(())
    }

    /// Gives the object its name; it is durable then.
    pub(super) fn end(&mut self) -> Result<PutResult> {
        let file = self.file.take().ok_or_else(|| over("it failed or has ended"))?;
        file.publish(&self.location, &self.path, false)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let written = self.write(&data);
        Box::pin(std::future::ready(written))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.end()
    }

    async fn abort(&mut self) -> Result<()> {
        self.file = None;
        Ok(())
    }
}

/// What a store and its uploads share.
#[derive(Debug)]
struct Directory {
    root: PathBuf,
    temporary: PathBuf,
    env: Env,
    /// Directories whose own entry is known to be durable; another process may have made one and
    /// died before its parent was synced.
    durable: Mutex<HashSet<PathBuf>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    One,
    All,
}

impl Directory {
    fn path_of(&self, location: &Name) -> Result<PathBuf> {
        if location.is_root() || location.parts().any(|part| !is_plain(part.as_ref())) {
            return Err(generic(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{location}` can't be the name of an object in a directory"),
            )));
        }
        Ok(self.root.join(location.as_ref()))
    }

    fn open(&self, location: &Name) -> Result<(File, ObjectMeta)> {
        let path = self.path_of(location)?;
        // Not blocking: a FIFO under an object's name would wait for its writer for ever.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).map_err(generic)?)
            .open(&path);
        let file = opened.map_err(|error| absent_or_failed(location, error))?;
        let metadata = file.metadata().map_err(|error| failed(location.as_ref(), error))?;
        if !metadata.is_file() {
            return Err(not_found(location, io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let meta = meta_of(location.clone(), &metadata)?;
        Ok((file, meta))
    }

    fn delete(&self, location: &Name) -> Result<()> {
        let path = self.path_of(location)?;
        fs::remove_file(&path).map_err(|error| absent_or_failed(location, error))?;
        let parent = path.parent().unwrap_or(&self.root);
        sync_directory(parent).map_err(|error| failed(location.as_ref(), error))
    }

    /// Makes the directory `path` and those above it, each durable before it is used.
    fn make_durable(&self, path: &Path) -> io::Result<()> {
        if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
            && path.is_dir()
        {
            return Ok(());
        }
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        if path == self.root {
            return if path.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) };
        }
        self.make_durable(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
        sync_directory(parent)?;
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_path_buf());
        Ok(())
    }

    fn list(&self, prefix: &Name, depth: Depth) -> Result<ListResult> {
        let mut found = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
            extensions: Default::default(),
        };
        if prefix.is_root() || prefix.parts().all(|part| is_plain(part.as_ref())) {
            self.list_into(prefix, depth, &mut found)?;
        }
        found.objects.sort_by(|a, b| a.location.cmp(&b.location));
        found.common_prefixes.sort();
        Ok(found)
    }

    fn list_into(&self, prefix: &Name, depth: Depth, found: &mut ListResult) -> Result<()> {
        let path = self.root.join(prefix.as_ref());
        let entries = match fs::read_dir(&path) {
            // A store that has vanished is not an empty one.
            Err(error) if is_absent(&error) && !prefix.is_root() => return Ok(()),
            entries => entries.map_err(|error| failed(prefix.as_ref(), error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| failed(prefix.as_ref(), error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_plain(name)) else { continue };
            if prefix.is_root() && name == LOST_AND_FOUND {
                continue;
            }
            let Ok(location) = Name::parse(format!("{prefix}/{name}")) else { continue };
            let metadata = match entry.metadata() {
                // It was deleted since the directory was read.
                Err(error) if is_absent(&error) => continue,
                metadata => metadata.map_err(|error| failed(location.as_ref(), error))?,
            };
            if metadata.is_dir() {
                match depth {
                    Depth::One => found.common_prefixes.push(location),
                    Depth::All => self.list_into(&location, depth, found)?,
                }
            } else if metadata.is_file() {
                found.objects.push(meta_of(location, &metadata)?);
            } else {
                let what = format!("`{location}` is neither a file nor a directory");
                return Err(generic(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
        }
        Ok(())
    }
}

fn read_range(file: File, name: Name, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let len = range.end - range.start;
    let piece = if len <= READ_WHOLE_MAX { len.max(1) } else { READ_PIECE };
    let pieces = (0..len.div_ceil(piece)).map(move |index| {
        let begin = range.start + index * piece;
        let len = usize::try_from(piece.min(range.end - begin)).map_err(generic)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, begin).map_err(|error| failed(name.as_ref(), error))?;
        Ok(Bytes::from(bytes))
    });
    stream::iter(pieces).boxed()
}

fn meta_of(location: Name, metadata: &fs::Metadata) -> Result<ObjectMeta> {
    let modified = metadata.modified().map_err(generic)?;
    let (inode, size) = (metadata.ino(), metadata.size());
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    Ok(ObjectMeta {
        location,
        last_modified: modified.into(),
        size,
        e_tag: Some(format!("{inode:x}-{seconds:x}.{nanos:x}-{size:x}")),
        version: None,
    })
}

/// Whether a component of a name can be a file's name here.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\0'])
}

fn is_empty(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        // An empty file system's own directory.
        if entry?.file_name() != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

fn absolute(root: &Path) -> crate::Result<PathBuf> {
    std::path::absolute(root).map_err(|error| crate::Error::io("the vault's path", error))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

fn absent_or_failed(location: &Name, error: io::Error) -> Error {
    if is_absent(&error) { not_found(location, error) } else { failed(location.as_ref(), error) }
}

fn not_found(location: &Name, error: io::Error) -> Error {
    Error::NotFound { path: location.to_string(), source: Box::new(error) }
}

fn failed(path: &str, error: io::Error) -> Error {
    let denied = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
    if denied.contains(&error.kind()) {
        return Error::PermissionDenied { path: path.to_owned(), source: Box::new(error) };
    }
    generic(error)
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "local", source: source.into() }
}

fn over(why: &'static str) -> Error {
    generic(io::Error::other(format!("the upload can't go on: {why}")))
}

/// A file has nowhere to keep them, and dropping them in silence would lose what was asked for.
fn refuse_attributes(attributes: &Attributes) -> Result<()> {
    if attributes.is_empty() { Ok(()) } else { Err(unsupported("an object with attributes")) }
}

fn unsupported(what: &'static str) -> Error {
    Error::NotSupported { source: format!("{what} in a local directory").into() }
}

#[cfg(test)]
mod tests;
