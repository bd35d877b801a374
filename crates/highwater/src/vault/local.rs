//! A local directory as what is behind a store: private from the first byte on, durable when a put
//! returns, and never a half-written object under its name.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use self::temporary::{Temporary, remove_if_dead};
use super::medium::{Arrival, Listed, Medium, Take, TakeName, Way, absent, failed};
use crate::direct::AlignedBuffer;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::Time;

mod temporary;

pub(crate) const TEMPORARY: &str = ".tmp";
const LOST_AND_FOUND: &str = "lost+found";

/// A local directory.
///
/// An object is a file under its name; a name's components are directories, which stay when they
/// are empty. No component begins with a dot. What is being written lies in `.tmp/`, each file
/// locked (`flock`) by its writer for as long as that lives.
pub(crate) struct LocalStore {
    directory: Arc<Directory>,
}

impl LocalStore {
    /// Makes a store in a directory that is missing or empty, else conflict. Its parent must exist.
    pub(crate) fn create(root: &Path, env: &Env) -> Result<LocalStore> {
        let root = absolute(root)?;
        let name = root.display().to_string();
        let failed =
            |error: io::Error| Error::io(format!("{name} can't be made"), error).with_entry(&name);
        match DirBuilder::new().mode(0o700).create(&root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !(root.is_dir() && is_empty(&root).map_err(failed)?) {
                    return Err(Error::conflict(format!("{name} exists and is not empty"))
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
    pub(crate) fn open(root: &Path, env: &Env) -> Result<LocalStore> {
        let root = absolute(root)?;
        let name = root.display().to_string();
        let failed = |error| Error::io(format!("{name} can't be opened"), error);
        if !fs::metadata(&root).map_err(|error| failed(error).with_entry(&name))?.is_dir() {
            let what = format!("{name} is not a directory");
            return Err(Error::not_found(what).with_entry(&name));
        }
        Ok(LocalStore::at(root, env))
    }

    /// Removes what writers that died have left in `.tmp/`; what a living one writes stays.
    pub(crate) fn collect_leftovers(&self) -> Result<()> {
        let directory = &self.directory.temporary;
        let failed = |path: &Path, error| {
            let name = path.display().to_string();
            Error::io(format!("{name} can't be removed"), error).with_entry(name)
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

    /// A new object on its way.
    fn upload(&self, name: &str) -> Result<Upload> {
        let path = self.directory.path_of(name)?;
        let file = Temporary::new(&self.directory, name)?;
        Ok(Upload { name: name.to_owned(), path, file: Some(file) })
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

impl Medium for LocalStore {
    fn collect_temporary(&self) -> Result<()> {
        self.collect_leftovers()
    }

    fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>> {
        let (file, size) = self.directory.open(name)?;
        if size > most {
            return Ok(None);
        }
        read_exact(name, &file, 0..size).map(Some)
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let (file, size) = self.directory.open(name)?;
        let range = range.start..range.end.min(size);
        if range.is_empty() {
            let what = format!("it has {size} bytes, none of those that are asked for");
            return Err(failed(name, io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        read_exact(name, &file, range)
    }

    /// Past the page cache where the range is a large one.
    fn read(&self, name: &str, range: Range<u64>, buffer: &mut AlignedBuffer) -> Result<()> {
        let path = self.directory.path_of(name)?;
        buffer.read(&path, range).map_err(|error| absent_or_failed(name, error))
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        match fs::symlink_metadata(self.directory.path_of(name)?) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed(name, error)),
        }
    }

    /// Only what a put can make is an object: a file whose name has no component with a dot in front.
    fn list(&self, prefix: Option<&str>, take: &mut Take<'_>) -> Result<()> {
        let prefix = prefix.unwrap_or_default();
        if prefix.is_empty() || is_name(prefix) {
            let place = if prefix.is_empty() { "the vault" } else { prefix };
            let mut listed = |name: String, entry: &fs::DirEntry| {
                let metadata = entry.metadata()?;
                Ok(take(Listed { name, size: metadata.len(), modified: modified(&metadata) }))
            };
            self.directory.walk(place, prefix, &mut listed).map(drop)
        } else {
            Ok(())
        }
    }

    fn names(&self, prefix: Option<&str>, take: &mut TakeName<'_>) -> Result<()> {
        let prefix = prefix.unwrap_or_default();
        if prefix.is_empty() || is_name(prefix) {
            let place = if prefix.is_empty() { "the vault" } else { prefix };
            self.directory.walk(place, prefix, &mut |name, _| Ok(take(name))).map(drop)
        } else {
            Ok(())
        }
    }

    fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let mut upload = self.upload(name)?;
        upload.append(&bytes)?;
        upload.publish()
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.directory.path_of(name)?;
        match fs::remove_file(&path) {
            Err(error) if is_absent(&error) => return Ok(()),
            removed => removed.map_err(|error| failed(name, error))?,
        }
        let parent = path.parent().unwrap_or(&self.directory.root);
        sync_directory(parent).map_err(|error| failed(name, error))
    }

    fn begin<'a>(&'a self, name: &str) -> Result<Box<dyn Way<'a> + 'a>> {
        Ok(Box::new(self.upload(name)?))
    }
}

/// A large object, create-only: each piece is written by the call that hands it over. Dropped, its file
/// is removed.
#[derive(Debug)]
struct Upload {
    name: String,
    path: PathBuf,
    /// `None` once a piece could not be written.
    file: Option<Temporary>,
}

impl Upload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut file = self.open()?;
        file.append(bytes).map_err(|error| failed(&self.name, error))?;
        self.file = Some(file);
        Ok(())
    }

    /// Gives the object its name; it is durable then. `false` where one of that name exists.
    fn publish(mut self) -> Result<bool> {
        self.open()?.publish(&self.name, &self.path)
    }

    fn open(&mut self) -> Result<Temporary> {
        let over = || failed(&self.name, io::Error::other("it can't go on: it has failed"));
        self.file.take().ok_or_else(over)
    }
}

impl<'a> Way<'a> for Upload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    /// Made durable by a thread of its own: whoever fills the next object need not wait for the disk meanwhile.
    fn finish(self: Box<Self>) -> Result<Option<Arrival<'a>>> {
        let name = self.name.clone();
        let publish = move || {
            let name = self.name.clone();
            if self.publish()? {
                return Ok(());
            }
            Err(Error::conflict(format!("the vault has an object {name} already")).with_entry(name))
        };
        let thread = std::thread::Builder::new().name("publish".to_owned()).spawn(publish);
        let thread = thread.map_err(|error| failed(&name, error))?;
        let panicked =
            move |_| Err(Error::bug("the thread that publishes panicked").with_entry(name));
        Ok(Some(Box::new(move || thread.join().unwrap_or_else(panicked))))
    }

    fn abort(self: Box<Self>) -> Result<()> {
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

/// What is done with each file of a directory.
type TakeEntry<'a> = dyn FnMut(String, &fs::DirEntry) -> io::Result<ControlFlow<()>> + 'a;

impl Directory {
    fn path_of(&self, name: &str) -> Result<PathBuf> {
        if !is_name(name) {
            let what = format!("`{name}` can't be the name of an object in a directory");
            return Err(failed(name, io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        Ok(self.root.join(name))
    }

    /// An object's file and its size.
    fn open(&self, name: &str) -> Result<(File, u64)> {
        let path = self.path_of(name)?;
        // Not blocking: a FIFO under an object's name would wait for its writer for ever.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened =
            OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path);
        let file = opened.map_err(|error| absent_or_failed(name, error))?;
        let metadata = file.metadata().map_err(|error| failed(name, error))?;
        if !metadata.is_file() {
            return Err(absent(name).with_source(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Ok((file, metadata.len()))
    }

    /// Makes the directory `path` and those above it, each durable before it is used.
    fn make_durable(&self, path: &Path) -> io::Result<()> {
        if self.durable.lock().contains(path) && path.is_dir() {
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
        self.durable.lock().insert(path.to_path_buf());
        Ok(())
    }

    /// Hands over what is below `prefix`, for a list of what is below `place`. Of each file nothing is asked that
    /// its directory does not tell: a vault has many.
    fn walk(&self, place: &str, prefix: &str, take: &mut TakeEntry<'_>) -> Result<ControlFlow<()>> {
        let at = |error| failed(place, error);
        let entries = match fs::read_dir(self.root.join(prefix)) {
            // A store that has vanished is not an empty one.
            Err(error) if is_absent(&error) && !prefix.is_empty() => {
                return Ok(ControlFlow::Continue(()));
            }
            entries => entries.map_err(at)?,
        };
        for entry in entries {
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_plain(name)) else { continue };
            if prefix.is_empty() && name == LOST_AND_FOUND {
                continue;
            }
            let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let found = match entry.file_type() {
                Err(error) if is_absent(&error) => continue,
                found => found.map_err(at)?,
            };
            let next = if found.is_dir() {
                self.walk(place, &name, take)?
            } else if found.is_file() {
                match take(name, &entry) {
                    // It was deleted since the directory was read.
                    Err(error) if is_absent(&error) => continue,
                    next => next.map_err(at)?,
                }
            } else {
                let what = format!("`{name}` is neither a file nor a directory");
                return Err(at(io::Error::new(io::ErrorKind::InvalidData, what)));
            };
            if next.is_break() {
                return Ok(next);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A range of a file, which must be there whole.
fn read_exact(name: &str, file: &File, range: Range<u64>) -> Result<Bytes> {
    let at = |error| failed(name, error);
    let length = usize::try_from(range.end - range.start);
    let mut bytes = vec![0; length.map_err(|error| at(io::Error::other(error)))?];
    file.read_exact_at(&mut bytes, range.start).map_err(at)?;
    Ok(bytes.into())
}

fn modified(metadata: &fs::Metadata) -> Time {
    let nanos = metadata.mtime().checked_mul(1_000_000_000);
    Time::from_nanos(nanos.and_then(|nanos| nanos.checked_add(metadata.mtime_nsec())).unwrap_or(0))
}

/// Whether an object of that name can be a file here.
fn is_name(name: &str) -> bool {
    name.split('/').all(is_plain)
}

/// Whether a component of a name can be a file's name here.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && !part.contains(|c: char| c.is_ascii_control())
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

fn absolute(root: &Path) -> Result<PathBuf> {
    std::path::absolute(root).map_err(|error| Error::io("the vault's path", error))
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

fn absent_or_failed(name: &str, error: io::Error) -> Error {
    if is_absent(&error) { absent(name).with_source(error) } else { failed(name, error) }
}

#[cfg(test)]
mod tests;
