//! Who has which file open, read from `/proc` without opening any of the files.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::{User, metadata};
use crate::durable;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// The inode of the process namespace that the kernel begins with (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A file, whatever it is called: device and inode.
pub(super) type FileId = (u64, u64);

/// The files that this process has open, by device and inode.
///
/// Closing any descriptor of a file drops every POSIX lock that the process holds on it, so such a
/// file must not be opened here: another process would take the node's database for abandoned.
pub(super) fn own_files() -> Result<BTreeSet<FileId>> {
    let _looking = looking();
    files_open()
}

fn files_open() -> Result<BTreeSet<FileId>> {
    Descriptors::of_this_process()?.files(&[])
}

/// The descriptors of this process, listed as often as needed by one descriptor.
pub(super) struct Descriptors {
    listing: Dir,
}

impl Descriptors {
    pub(super) fn of_this_process() -> Result<Descriptors> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::open(OWN_DESCRIPTORS, flags, Mode::empty());
        let listing = listing.and_then(Dir::new).map_err(unlisted)?;
        Ok(Descriptors { listing })
    }

    /// The files that this process has open now, but for these descriptors, which are not looked at: a file is among
    /// them where another descriptor is of it.
    pub(super) fn files(&mut self, but: &[RawFd]) -> Result<BTreeSet<FileId>> {
        self.listing.rewind();
        let mut files = BTreeSet::new();
        for descriptor in &mut self.listing {
            let descriptor = descriptor.map_err(unlisted)?;
            let number = descriptor.file_name().to_str().ok().and_then(|name| name.parse().ok());
            let Some(number) = number.filter(|number: &RawFd| !but.contains(number)) else {
                continue;
            };
            // One of another thread may be gone by now.
            if let Ok(found) = fs::metadata(format!("{OWN_DESCRIPTORS}/{number}"))
                && found.is_file()
            {
                files.insert((found.dev(), found.ino()));
            }
        }
        Ok(files)
    }
}

/// Where the kernel lists the descriptors of the process that asks.
const OWN_DESCRIPTORS: &str = "/proc/self/fd";

fn unlisted(errno: Errno) -> Error {
    Error::io("can't list the process's own descriptors", errno)
}

/// Taken by those who look into files that this process may have open: what one of them has open for a moment, another
/// one would take for the node's own.
pub(super) fn looking() -> MutexGuard<'static, ()> {
    static LOOKING: Mutex<()> = Mutex::new(());
    LOOKING.lock()
}

/// Whether this process has the file open.
pub(super) fn is_own(place: &RootedPath) -> Result<bool> {
    let _looking = looking();
    has_open(place)
}

/// The same, for who is [`looking`] already.
pub(super) fn has_open(place: &RootedPath) -> Result<bool> {
    match durable::stat(place)? {
        Some(found) => Ok(files_open()?.contains(&metadata::id_of(&found))),
        None => Ok(false),
    }
}

/// How long a look at the locks of this process is good for.
const LOCKS_GOOD: Duration = Duration::from_secs(1);

/// The files on which this process holds POSIX record locks, as of a moment ago: of a machine on which others hold
/// many, a look at all locks for each of many files would take long.
pub(super) struct OwnLocks {
    seen: RefCell<Option<(Duration, BTreeSet<u64>)>>,
    env: Env,
}

impl OwnLocks {
    pub(super) fn new(env: &Env) -> OwnLocks {
        OwnLocks { seen: RefCell::new(None), env: env.clone() }
    }

    /// Whether it holds one on a file with this inode.
    ///
    /// The device is not compared: some file systems show another one in the list of locks. A system that tells
    /// no locks is taken to have none.
    pub(super) fn held(&self, inode: u64) -> bool {
        let now = self.env.monotonic();
        let mut seen = self.seen.borrow_mut();
        match &*seen {
            Some((at, locked)) if now.saturating_sub(*at) < LOCKS_GOOD => locked.contains(&inode),
            _ => seen.insert((now, own_locks())).1.contains(&inode),
        }
    }
}

/// The inodes of files on which this process holds record locks.
fn own_locks() -> BTreeSet<u64> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let own = std::process::id().to_string();
    let mut locked = BTreeSet::new();
    for line in locks.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(1) == Some(&"POSIX") && fields.get(4) == Some(&own.as_str()) {
            let inode = fields.get(5).and_then(|file| file.rsplit(':').next()?.parse::<u64>().ok());
            locked.extend(inode);
        }
    }
    locked
}

/// The files at or below `dir` that other processes have open, as far as this user may see them: by path,
/// and, of processes that see other mounts than this one, by device and inode.
pub(super) fn users(dir: &Path) -> Result<Vec<User>> {
    let dir =
        dir.canonicalize().map_err(|source| Error::io(format!("{}", dir.display()), source))?;
    let processes =
        fs::read_dir("/proc").map_err(|source| Error::io("can't list processes", source))?;
    let (own, mounts) = (std::process::id(), mounts(Path::new("/proc/self")));
    let (mut users, mut elsewhere) = (BTreeSet::new(), BTreeMap::new());
    for process in processes {
        let process = process.map_err(|source| Error::io("can't list processes", source))?;
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        // A process that ended meanwhile, or that this user may not look into, shows no files.
        let place = process.path();
        let files = files_below(&place, &dir);
        if !files.is_empty() {
            let user = |file| User { pid, command: command(pid), file };
            users.extend(files.into_iter().map(user));
        } else if mounts != self::mounts(&place) {
            elsewhere.extend(open_files(&place).map(|id| (id, pid)));
        }
    }
    if !elsewhere.is_empty() {
        find_by_id(&dir, &elsewhere, &mut users);
    }
    Ok(users.into_iter().collect())
}

/// The mounts that a process sees, by the name of their namespace.
fn mounts(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

/// The regular files that a process has open.
fn open_files(process: &Path) -> impl Iterator<Item = FileId> + use<> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    let found = descriptors.filter_map(|descriptor| fs::metadata(descriptor.ok()?.path()).ok());
    found.filter(fs::Metadata::is_file).map(|found| (found.dev(), found.ino()))
}

/// Looks for files with these ids at and below `dir`; what can't be listed is passed over.
fn find_by_id(dir: &Path, ids: &BTreeMap<FileId, u32>, users: &mut BTreeSet<User>) {
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(entries.map(|entry| entry.path()));
        } else if let Some(&pid) = ids.get(&(found.dev(), found.ino()))
            && let Some(file) = below(&path, dir)
        {
            users.insert(User { pid, command: command(pid), file });
        }
    }
}

/// The files at or below `dir` that other processes write through memory, as far as this user may see
/// them: such a write sets no time until the kernel gets to it.
pub(super) fn mapped_for_writing(dir: &Path) -> Result<Vec<User>> {
    let dir =
        dir.canonicalize().map_err(|source| Error::io(format!("{}", dir.display()), source))?;
    let processes =
        fs::read_dir("/proc").map_err(|source| Error::io("can't list processes", source))?;
    let mut users = BTreeSet::new();
    for process in processes {
        let process = process.map_err(|source| Error::io("can't list processes", source))?;
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let shared = mappings(&process.path()).into_iter().filter(|(_, shared)| *shared);
        let files = shared.filter_map(|(path, _)| below(&path, &dir));
        users.extend(files.map(|file| User { pid, command: command(pid), file }));
    }
    Ok(users.into_iter().collect())
}

/// Whether no process is hidden from this one: root, in the first of all process namespaces.
pub(super) fn sees_all() -> bool {
    let first = fs::metadata("/proc/self/ns/pid").is_ok_and(|found| found.ino() == FIRST_NAMESPACE);
    first && crate::rooted::is_root()
}

/// The name of a process, as the kernel gives it; `?` once it has ended.
pub(super) fn command(pid: u32) -> String {
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(name) => crate::ids::encode(name.trim_ascii_end()),
        Err(_) => "?".to_owned(),
    }
}

/// Users as a few words: `rocksnode (pid 812), ldb (pid 9)`.
pub(super) fn names(users: &[User]) -> String {
    let names: BTreeSet<String> = users.iter().map(User::to_string).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn files_below(process: &Path, dir: &Path) -> BTreeSet<RelPath> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    let open = descriptors.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok());
    // A directory that is somebody's working directory is no descriptor; one that is being listed is
    // no open file either.
    let files = open.filter(|path| path.starts_with(dir) && !path.is_dir());
    let mapped = mappings(process).into_iter().map(|(path, _)| path);
    files.chain(mapped).filter_map(|path| below(&path, dir)).collect()
}

fn below(path: &Path, dir: &Path) -> Option<RelPath> {
    let inner = path.strip_prefix(dir).ok()?;
    let name = inner.as_os_str().as_bytes();
    RelPath::from_bytes(name.strip_suffix(b" (deleted)").unwrap_or(name)).ok()
}

/// The files that a process has mapped, and whether it writes to them so: the sixth and the second field
/// of each line of its `maps`, in which the kernel writes a newline of a name as `\012`.
fn mappings(process: &Path) -> Vec<(PathBuf, bool)> {
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    let mut files = Vec::new();
    for line in maps.split(|&byte| byte == b'\n') {
        let Some(start) = line.iter().position(|&byte| byte == b'/') else { continue };
        let name = unescaped(&line[start..]);
        let rights = line.split(|&byte| byte == b' ').nth(1);
        let written = rights.is_some_and(|rights| rights.contains(&b'w') && rights.contains(&b's'));
        files.push((PathBuf::from(std::ffi::OsStr::from_bytes(&name)), written));
    }
    files
}

fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            bytes.push(b'\n');
            rest = tail;
            continue;
        }
        bytes.push(*first);
        rest = tail;
    }
    bytes
}

#[cfg(test)]
mod tests;
