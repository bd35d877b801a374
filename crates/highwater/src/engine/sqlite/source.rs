//! A database of the node, opened to be read: its connections, its read transaction, its header.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::failure::{Failure, failed};
use super::rest::{self, Company, DATABASE, Way};
use super::stamp::Stamps;
use crate::engine::FoundPart;
use crate::engine::scratch::Scratch;
use crate::env::Env;
use crate::error::Result;
use crate::ids::RelPath;
use crate::node::OWN_DIR;
use crate::rooted::RootedPath;

/// The release of SQLite from which on a checkpoint that does nothing is relied on.
const NOOP_VERSION: i32 = 3_054_000;

/// Held while a database is looked at and opened: who closes a file drops the locks that another thread
/// has just taken on it.
static OPENING: Mutex<()> = Mutex::new(());

/// One database and the connections to it.
pub(super) struct Source {
    name: String,
    rel: RelPath,
    dir: RootedPath,
    path: RootedPath,
    connection: Connection,
    /// Sees commits that happen beside the transaction of `connection`.
    probe: Connection,
    /// From before the connections were opened, or before the newest begin.
    before: Stamps,
    /// Opened as a file that nobody writes; [`Source::check_still`] finds out whether that was so.
    immutable: bool,
    /// Where it was opened by further names, as one that nobody uses.
    aside: Option<Scratch>,
    /// As [`Source::log_frames`] said before the newest begin.
    frames_before: Option<i64>,
    begun: Option<Begun>,
}

/// A read transaction.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// On the monotonic clock, from just before the lock was asked for.
    at: Duration,
    wal: bool,
}

impl Source {
    /// Opens the database of `part`.
    pub(super) fn open(
        dir: &RootedPath,
        part: &FoundPart,
        company: Company,
        env: &Env,
    ) -> Result<Source> {
        let _opening = OPENING.lock();
        let path = dir.at(&part.root);
        let mut before = Stamps::take(&path)?;
        let way = rest::way(dir, &path, &mut before, company, env)?;
        let immutable = matches!(way, Way::Immutable);
        let aside = match way {
            Way::Aside(scratch) => Some(scratch),
            Way::Live | Way::Immutable => None,
        };
        let file = match &aside {
            Some(scratch) => scratch.path().join(DATABASE).path(),
            None => path.path(),
        };
        let connect = || {
            let connection = if immutable { open_immutable(&file) } else { connect(&file) };
            connection.map_err(|cause| failed("open", &part.name, cause))
        };
        Ok(Source {
            name: part.name.clone(),
            rel: part.root.clone(),
            connection: connect()?,
            probe: connect()?,
            dir: dir.clone(),
            path,
            before,
            immutable,
            aside,
            frames_before: None,
            begun: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn rel(&self) -> &RelPath {
        &self.rel
    }

    pub(super) fn path(&self) -> &RootedPath {
        &self.path
    }

    /// Highwater's own directory in the node directory.
    pub(super) fn own_dir(&self) -> RootedPath {
        self.dir.join(OWN_DIR)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The same, for who watches over what is asked of it.
    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The state on disk before the transaction began.
    pub(super) fn before(&self) -> &Stamps {
        &self.before
    }

    /// Whether a writer waits for the end of the transaction.
    pub(super) fn blocks(&self) -> bool {
        !self.immutable && self.begun.is_some_and(|begun| !begun.wal)
    }

    /// Whether the transaction reads beside a write-ahead log, so that no commit waits for it.
    pub(super) fn wal(&self) -> bool {
        self.begun.is_some_and(|begun| begun.wal)
    }

    /// How long a writer could have been kept waiting until now.
    pub(super) fn blocked(&self, env: &Env) -> Duration {
        match self.begun {
            Some(begun) if !begun.wal && !self.immutable => {
                env.monotonic().saturating_sub(begun.at)
            }
            _ => Duration::ZERO,
        }
    }

    /// A number that changes with every commit of anybody.
    pub(super) fn data_version(&self) -> Result<i64, Failure> {
        Ok(self.probe.query_row("PRAGMA main.data_version", [], |row| row.get(0))?)
    }

    /// How many frames of the write-ahead log are committed now, −1 without one; `None` where that
    /// can't be told. To be asked after [`Source::data_version`], which opens the log.
    pub(super) fn log_frames(&self) -> Option<i64> {
        if self.immutable {
            return Some(-1);
        }
        // An older SQLite takes a mode that it does not know for a real checkpoint.
        if rusqlite::version_number() < NOOP_VERSION {
            return None;
        }
        self.probe.query_row("PRAGMA main.wal_checkpoint(NOOP)", [], |row| row.get(1)).ok()
    }

    /// What [`Source::log_frames`] said before the transaction began.
    pub(super) fn frames_before(&self) -> Option<i64> {
        self.frames_before
    }

    /// Begins the read transaction, without waiting for a lock.
    pub(super) fn begin(&mut self, env: &Env) -> Result<(), Failure> {
        let at = env.monotonic();
        // Where the file can't be looked at any more, SQLite says why.
        if !self.immutable
            && self.aside.is_none()
            && let Ok(stamps) = Stamps::take(&self.path)
            && stamps.main.inode == self.before.main.inode
        {
            self.before = stamps;
        }
        self.frames_before = self.log_frames();
        self.connection.execute_batch("BEGIN")?;
        // The lock is taken by the first statement that reads; this one needs no schema.
        self.connection.query_row("PRAGMA main.schema_version", [], |row| row.get::<_, i64>(0))?;
        let mode: String =
            self.connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?;
        self.begun = Some(Begun { at, wal: mode.eq_ignore_ascii_case("wal") });
        Ok(())
    }

    /// Ends the read transaction, if there is one.
    pub(super) fn release(&mut self) -> Result<()> {
        self.begun = None;
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection
            .execute_batch("ROLLBACK")
            .map_err(|cause| failed("end the reading of", &self.name, cause))
    }

    /// An error where a database that nobody was to write was written.
    pub(super) fn check_still(&self) -> Result<()> {
        let alone = self.immutable || self.aside.is_some();
        if !alone || Stamps::take(&self.path)?.same_content(&self.before) {
            return Ok(());
        }
        Err(rest::changed(&self.path))
    }
}

/// A connection that reads only, checkpoints nothing when it is closed, and never waits for a lock:
/// waiting is done where the clock is.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// A connection to a database that nobody writes: without locks, and nothing is made beside it.
pub(super) fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri(path), flags)
}

/// `path` as a URI, whatever its bytes.
fn uri(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1&mode=ro");
    uri
}
