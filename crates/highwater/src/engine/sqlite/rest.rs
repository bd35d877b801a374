//! How a database is opened so that nothing of the node's is made, changed or removed: SQLite makes a
//! `-shm` beside a database with a write-ahead log, and removes a log that it takes for left over.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use super::stamp::Stamps;
use crate::durable;
use crate::engine::scratch::Scratch;
use crate::engine::{lock, process};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::node::OWN_DIR;
use crate::rooted::RootedPath;

/// How the name of the private directory of a copy begins.
pub(super) const COPY_PREFIX: &str = ".highwater-sqlite-";

/// Where the header says by which kind of journal the database is written and read (the file format,
/// 1.3.3); 2 is the write-ahead log.
const VERSIONS: u64 = 18;
const LOGGED: u8 = 2;

/// Between two looks at whether a file's times have settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(5);
/// A time that has not settled after so many lies in the future: any later write sets another one.
const SETTLE_LOOKS_MAX: u32 = 420;

/// Who else in this process could have the database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Company {
    /// Whoever embeds this library.
    Anybody,
    /// Nobody: this process does nothing else.
    Nobody,
}

/// How a database is opened.
pub(super) enum Way {
    /// Where it is, with SQLite's locks.
    Live,
    /// Where it is, as a file that nobody writes.
    Immutable,
    /// By further names of its files in a private directory, in which SQLite makes what it needs.
    Aside(Scratch),
}

/// Decides how the database at `path` in the node directory `dir` is opened; `before` is taken anew
/// where that changes it.
pub(super) fn way(
    dir: &RootedPath,
    path: &RootedPath,
    before: &mut Stamps,
    company: Company,
    env: &Env,
) -> Result<Way> {
    let journal = durable::stat(&path.with_suffix("-journal"))?.map_or(0, |seen| seen.stx_size);
    let wal = before.wal.as_ref().map_or(0, |wal| wal.size);
    let used = is_in_use(path, company)?;
    // What discovery refuses may have happened since.
    if before.main.size == 0 && (wal > 0 || journal > 0 && !used) {
        return Err(changed(path));
    }
    if used {
        return Ok(Way::Live);
    }
    if is_read_only(path)? {
        return Ok(if wal == 0 && journal == 0 { Way::Immutable } else { Way::Live });
    }
    // Without a write-ahead log SQLite makes nothing, and keeps writers out meanwhile.
    let beside = durable::stat(&path.with_suffix("-wal"))?.is_some();
    if !beside && !is_logged(path)? {
        return Ok(Way::Live);
    }
    settle(path, before, env)?;
    if wal == 0 && journal == 0 {
        return Ok(Way::Immutable);
    }
    aside(dir, path, before, env)
}

/// Whether anybody has it open, as far as SQLite's locks tell.
fn is_in_use(path: &RootedPath, company: Company) -> Result<bool> {
    Ok(company == Company::Anybody && process::is_own(path)? || lock::sqlite_held(path)?)
}

/// Whether the header names the write-ahead log.
fn is_logged(path: &RootedPath) -> Result<bool> {
    let failed = |error| durable::met(path, "read", error);
    let file: File = path.open_file().map_err(failed)?;
    let mut versions = [0; 2];
    match file.read_exact_at(&mut versions, VERSIONS) {
        Ok(()) => Ok(versions.contains(&LOGGED)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn is_read_only(path: &RootedPath) -> Result<bool> {
    let mount = path
        .above()
        .enter()
        .and_then(|home| rustix::fs::fstatvfs(home.held()))
        .map_err(|error| Error::io("can't look at the mount of a database", error))?;
    Ok(mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Waits until the times of the files are old enough that any later write sets others.
fn settle(path: &RootedPath, before: &mut Stamps, env: &Env) -> Result<()> {
    for _ in 0..SETTLE_LOOKS_MAX {
        if before.is_settled(env.now()) {
            break;
        }
        env.pause(SETTLE_PAUSE);
        *before = Stamps::take(path)?;
    }
    Ok(())
}

/// Gives the database and its logs further names in a private directory; what can't be linked is copied.
fn aside(dir: &RootedPath, path: &RootedPath, before: &mut Stamps, env: &Env) -> Result<Way> {
    let scratch = Scratch::create(&dir.join(OWN_DIR), COPY_PREFIX, env)?;
    for suffix in ["", "-wal", "-journal"] {
        let from = path.with_suffix(suffix);
        if durable::stat(&from)?.is_some_and(|seen| durable::is_file(&seen)) {
            put(&from, &scratch.path().join(DATABASE).with_suffix(suffix))?;
        }
    }
    let after = Stamps::take(path)?;
    if !after.same_content(before) {
        return Err(changed(path));
    }
    *before = after;
    Ok(Way::Aside(scratch))
}

/// The name of a database in a private directory.
pub(super) const DATABASE: &str = "database";

fn put(from: &RootedPath, to: &RootedPath) -> Result<()> {
    match from.link_to(to) {
        Ok(()) => return Ok(()),
        // Another file system, one without links, or a file of somebody else's.
        Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::NOTSUP | Errno::ACCESS) => {}
        Err(errno) => return Err(durable::met(from, "link", errno)),
    }
    let failed = |error| durable::met(from, "copy", error);
    let mut source = from.open_file().map_err(failed)?;
    let mut copy = to.create_new().map_err(failed)?;
    std::io::copy(&mut source, &mut copy).map(drop).map_err(failed)
}

/// The conflict of a database that was written while nobody was known to use it.
pub(super) fn changed(path: &RootedPath) -> Error {
    Error::conflict(format!("{path} was written while it was read: the node has started meanwhile"))
        .with_remedy("try again")
        .with_entry(path.path().display().to_string())
}
