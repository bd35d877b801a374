//! The page image of one database under its read transaction, the write-ahead log merged in.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension as _};

use super::failure::failed;
use super::point;
use super::query;
use super::rest::COPY_PREFIX;
use super::source::Source;
use super::stamp::{self, Stamps};
use crate::engine::scratch::Scratch;
use crate::engine::{
    CaptureOptions, Consistency, EngineKind, EntryType, Finished, Identity, PartCapture, Piece,
    ReplicaPoint, Row, SourceEntry, Units,
};
use crate::env::Env;
use crate::error::{Error, Remedy, Result};
use crate::rooted::RootedPath;

/// How long a writer in rollback-journal mode may be kept waiting, where nothing else is asked for.
const BLOCK_MAX: Duration = Duration::from_secs(30);

/// The smallest unit in which a page file is compared.
const UNIT_BYTES_MIN: u32 = 4096;

/// Bytes handed on at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Pages that a copy takes between two looks at the clock.
const COPY_PAGES: i32 = 1024;

/// The header of page 1.
pub(super) const HEADER_BYTES: usize = 100;

/// Every page in order, as the transaction sees it. The table is in SQLite only where it was built
/// with `SQLITE_ENABLE_DBPAGE_VTAB`. It gives the page with the lock bytes (at 1 GiB), which SQLite
/// never writes, as zeros.
const PAGES: &str = "SELECT pgno, data FROM sqlite_dbpage('main') ORDER BY pgno";
const PAGE_1: &str = "SELECT data FROM sqlite_dbpage('main') WHERE pgno = 1";

/// A part's capture: one file, read through SQLite.
pub(in crate::engine) struct Image {
    source: Source,
    env: Env,
    block_max: Duration,
    page_bytes: u32,
    engine_version: Option<String>,
    /// Whether SQLite hands out pages; else a private copy is made and read.
    pub(super) pages: bool,
    entries: Vec<SourceEntry>,
    /// Where the replicated store in it stands, or why that can't be told.
    point: Result<Option<ReplicaPoint>, String>,
}

impl Image {
    /// Of a source whose transaction has begun.
    pub(super) fn new(source: Source, options: &CaptureOptions, env: &Env) -> Result<Image> {
        let meta = stamp::bare(source.path())?;
        let after = Stamps::take(source.path())?;
        let entry = source.rel().to_string();
        let same = |stamps: &Stamps| (stamps.device, stamps.main.inode);
        if same(&after) != same(source.before()) {
            return Err(Error::conflict(format!("{entry} was replaced by another file"))
                .with_remedy("try again")
                .with_entry(entry));
        }
        let pragma = |name: &str| {
            source
                .connection()
                .query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, u32>(0))
                .map_err(|cause| failed("read", &entry, cause))
        };
        let page_bytes = pragma("page_size")?;
        let page_count = pragma("page_count")?;
        let header = read_header(&source)?;
        let frames = source.log_frames().filter(|now| Some(*now) == source.frames_before());
        let still = after == *source.before() && after.is_trusted(env.now());
        let identity = match (&header, frames) {
            (Some(header), Some(frames)) if still => Some(identity_of(&after, frames, header)),
            _ => None,
        };
        let described = SourceEntry {
            path: source.rel().clone(),
            kind: EntryType::File,
            meta,
            size: u64::from(page_bytes) * u64::from(page_count),
            holes: Vec::new(),
            units: Units::Pages { bytes: page_bytes.max(UNIT_BYTES_MIN) },
            identity,
        };
        Ok(Image {
            point: point::read(source.connection()),
            source,
            env: env.clone(),
            block_max: options.block_max.unwrap_or(BLOCK_MAX),
            page_bytes,
            engine_version: header.as_ref().and_then(version),
            pages: header.is_some(),
            entries: vec![described],
        })
    }

    /// Adds what the file system says of the file besides its size and times.
    pub(super) fn describe(&mut self) -> Result<()> {
        let meta = stamp::described(self.source.path())?;
        self.entries.iter_mut().for_each(|entry| entry.meta = meta.clone());
        Ok(())
    }

    fn entry(&self) -> String {
        self.source.rel().to_string()
    }

    /// An error once a writer could have been waiting for longer than it may.
    fn check_blocked(&self) -> Result<()> {
        let blocked = self.source.blocked(&self.env);
        if blocked <= self.block_max {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "{} is in rollback-journal mode, and reading it kept its writers waiting for more than \
             {} s",
            self.entry(),
            self.block_max.as_secs_f64()
        ))
        .with_remedy(Remedy::HigherRate)
        .with_remedy(Remedy::LongerBlock)
        .with_remedy("let the node use `PRAGMA journal_mode = WAL`, in which no commit waits")
        .with_entry(self.entry()))
    }

    fn stream_pages(&self, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<u64> {
        let entry = self.entry();
        let unread = |cause| failed("read", &entry, cause);
        let page_bytes = self.page_bytes as usize;
        let mut buffer = Vec::with_capacity(PIECE_BYTES.max(page_bytes));
        let mut statement = self.source.connection().prepare(PAGES).map_err(unread)?;
        let mut rows = statement.query([]).map_err(unread)?;
        let mut count: u32 = 0;
        while let Some(row) = rows.next().map_err(unread)? {
            count += 1;
            let number: i64 = row.get(0).map_err(unread)?;
            let page = row.get_ref(1).map_err(unread)?.as_blob().map_err(|cause| {
                Error::bug(format!("a page of {entry} is no blob: {cause}")).with_entry(&*entry)
            })?;
            if number != i64::from(count) || page.len() != page_bytes {
                return Err(Error::bug(format!("page {count} of {entry} came out wrong")));
            }
            buffer.extend_from_slice(page);
            if buffer.len() >= PIECE_BYTES {
                sink(Piece::Data(&buffer))?;
                buffer.clear();
                self.check_blocked()?;
            }
        }
        if !buffer.is_empty() {
            sink(Piece::Data(&buffer))?;
        }
        Ok(u64::from(count) * u64::from(self.page_bytes))
    }

    fn stream_copy(&self, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<u64> {
        let scratch = Scratch::create(&self.source.own_dir(), COPY_PREFIX, &self.env)?;
        let copy = copy_file(&scratch)?;
        let unread = |error| Error::io("can't read the private copy of a database", error);
        self.copy_into(&copy.path())?;
        let mut file = copy.open_file().map_err(unread)?;
        let mut buffer = vec![0; PIECE_BYTES];
        let mut total = 0;
        loop {
            let read = file.read(&mut buffer).map_err(unread)?;
            if read == 0 {
                break;
            }
            total += read as u64;
            sink(Piece::Data(&buffer[..read]))?;
            self.check_blocked()?;
        }
        scratch.remove()?;
        Ok(total)
    }

    /// Copies the database by SQLite's backup. Its steps see one state, since the transaction of
    /// their source stands: a commit beside it restarts nothing.
    fn copy_into(&self, path: &Path) -> Result<()> {
        let entry = self.entry();
        let unread = |cause| failed("copy", &entry, cause);
        let mut target = Connection::open(path).map_err(unread)?;
        // The copy is read once and removed: nothing of it has to survive a crash.
        target
            .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
            .map_err(unread)?;
        {
            let backup = Backup::new(self.source.connection(), &mut target).map_err(unread)?;
            loop {
                match backup.step(COPY_PAGES).map_err(unread)? {
                    StepResult::Done => break,
                    StepResult::More => self.check_blocked()?,
                    _ => {
                        return Err(Error::conflict(format!("{entry} is locked"))
                            .with_remedy("try again")
                            .with_entry(entry));
                    }
                }
            }
        }
        target.close().map_err(|(_, cause)| failed("copy", &entry, cause))
    }
}

impl PartCapture for Image {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn engine(&self) -> EngineKind {
        EngineKind::SQLITE
    }

    fn engine_version(&self) -> Option<String> {
        self.engine_version.clone()
    }

    fn consistency(&self) -> Consistency {
        Consistency::Sqlite
    }

    fn replica(&self) -> Option<ReplicaPoint> {
        self.point.clone().ok().flatten()
    }

    fn holds_up(&self) -> bool {
        self.source.blocks()
    }

    fn entries(&self) -> &[SourceEntry] {
        &self.entries
    }

    fn stream(
        &mut self,
        entry: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(described) = self.entries.get(entry) else {
            return Err(Error::bug(format!("{} has no entry {entry}", self.entry())));
        };
        self.check_blocked()?;
        let total = if self.pages { self.stream_pages(sink)? } else { self.stream_copy(sink)? };
        if total != described.size {
            return Err(Error::corrupt(format!(
                "{} gave {total} bytes where its page count says {}",
                self.entry(),
                described.size
            ))
            .with_entry(self.entry()));
        }
        Ok(())
    }

    fn query(&mut self, sql: &str) -> Result<Option<Vec<Row>>> {
        self.check_blocked()?;
        let entry = self.entry();
        query::rows(self.source.connection_mut(), sql, &entry).map(Some)
    }

    fn finish(mut self: Box<Self>) -> Result<Finished> {
        self.check_blocked()?;
        self.source.check_still()?;
        let blocked = self.source.blocked(&self.env);
        let blocks = self.source.blocks();
        self.source.release()?;
        let mut warnings = Vec::new();
        if let Err(why) = &self.point {
            warnings.push(format!(
                "where the replicated store in {} stands can't be told: {why}",
                self.entry()
            ));
        }
        if blocks {
            warnings.push(format!(
                "{} is in rollback-journal mode: writers may have waited for up to {:.3} s; \
                 `PRAGMA journal_mode = WAL` avoids it",
                self.entry(),
                blocked.as_secs_f64()
            ));
        }
        Ok(Finished { blocked, warnings })
    }
}

/// A private file for a copy; SQLite would make it as readable as the umask lets it.
fn copy_file(scratch: &Scratch) -> Result<RootedPath> {
    let place = scratch.path().join("copy");
    place
        .create_new()
        .map_err(|error| Error::io("can't make a private copy of a database", error))?;
    Ok(place)
}

/// The header under the transaction; `None` where SQLite hands out no pages.
fn read_header(source: &Source) -> Result<Option<[u8; HEADER_BYTES]>> {
    let entry = source.rel().to_string();
    let mut statement = match source.connection().prepare(PAGE_1) {
        Ok(statement) => statement,
        Err(cause) if cause.to_string().contains("no such table") => return Ok(None),
        Err(cause) => return Err(failed("read", &entry, cause)),
    };
    let page: Option<Vec<u8>> = statement
        .query_row([], |row| row.get(0))
        .optional()
        .map_err(|cause| failed("read", &entry, cause))?;
    let header = page.as_deref().and_then(|page| page.first_chunk().copied());
    match header {
        Some(header) if super::is_header(&header) => Ok(Some(header)),
        _ => Err(Error::corrupt(format!("{entry} has no header of SQLite")).with_entry(entry)),
    }
}

fn number(header: &[u8; HEADER_BYTES], offset: usize) -> u32 {
    let bytes = header[offset..].first_chunk().expect("offsets lie inside the header");
    u32::from_be_bytes(*bytes)
}

/// The version of SQLite that wrote the header, as 3.54.0.
pub(super) fn version(header: &[u8; HEADER_BYTES]) -> Option<String> {
    let version = number(header, 96);
    if version == 0 {
        return None;
    }
    Some(format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000))
}

/// By what the database is known to be unchanged: the change counter, which every commit outside of
/// a write-ahead log raises, the state of that log on disk, and how much of it is committed: a
/// writer that stalls between its last write and its commit leaves no other trace of the commit.
fn identity_of(stamps: &Stamps, frames: i64, header: &[u8; HEADER_BYTES]) -> Identity {
    let wal = stamps.wal.as_ref().map_or_else(
        || "none".to_owned(),
        |wal| format!("{}:{}:{}:{frames}", wal.size, wal.mtime_ns, wal.inode),
    );
    Identity {
        size: stamps.main.size,
        mtime_ns: stamps.main.mtime_ns,
        inode: stamps.main.inode,
        engine: format!("sqlite change={} ctime={} wal={wal}", number(header, 24), stamps.ctime_ns)
            .into(),
    }
}
