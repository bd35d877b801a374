//! A toy database, an append-only log, and all that Highwater has to be told of it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use highwater::engine::{
    Barrier, Begun, CaptureOptions, Checked, Consistency, Database, Depth, Engine, EngineKind,
    Finished, FoundDir, InUse, Lock, Opens, PartCapture, Piece, SourceEntry,
};
use highwater::{Env, Error, Result};

const RECORDS: &str = "records.log";
const LOCK: &str = "lock";
const MAGIC: &[u8] = b"TOYLOG1\n";
const PIECE_BYTES: u64 = 256 << 10;

/// The database itself: a directory with a lock file, and a file of records, each behind its length and a
/// checksum.
pub(super) struct Log {
    records: File,
    _lock: File,
}

impl Log {
    pub(super) fn open(dir: &Path) -> std::io::Result<Log> {
        fs::create_dir_all(dir)?;
        let lock = OpenOptions::new().create(true).append(true).open(dir.join(LOCK))?;
        lock.try_lock()?;
        let mut records = OpenOptions::new().create(true).append(true).open(dir.join(RECORDS))?;
        if records.metadata()?.len() == 0 {
            records.write_all(MAGIC)?;
        }
        Ok(Log { records, _lock: lock })
    }

    pub(super) fn append(&mut self, record: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(record.len()).map_err(std::io::Error::other)?;
        let head = [length.to_le_bytes(), checksum(record).to_le_bytes()].concat();
        self.records.write_all(&[&head, record].concat())
    }
}

/// The whole records at the beginning of a file, and how many bytes they take.
pub(super) fn records(mut file: &File) -> std::io::Result<(Vec<Vec<u8>>, u64)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut rest = bytes.strip_prefix(MAGIC).unwrap_or_default();
    let mut records = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>()
        && let Some((sum, after)) = after.split_first_chunk::<4>()
        && let Some((record, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize)
        && checksum(record) == u32::from_le_bytes(*sum)
    {
        records.push(record.to_vec());
        rest = after;
    }
    Ok((records, (bytes.len() - rest.len()) as u64))
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// What Highwater has to know of it.
pub(super) struct LogEngine;

impl Engine for LogEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::new("toy-log").expect("it is a name")
    }

    fn opens(&self) -> Opens {
        Opens::Name(RECORDS)
    }

    fn is_directory(&self, found: &FoundDir<'_>) -> Result<bool> {
        Ok(found.has(RECORDS) && found.begins(RECORDS, MAGIC)?)
    }

    fn owns(&self, name: &OsStr) -> bool {
        name == RECORDS || name == LOCK
    }

    fn lock(&self) -> Lock {
        Lock::WholeIn(LOCK)
    }

    fn in_use(&self) -> InUse {
        InUse::Alone
    }

    fn begin(&self, database: &Database<'_>, _: &CaptureOptions, env: &Env) -> Result<Begun> {
        match database.is_held_by_others(self.lock())? {
            true => Ok(Begun::InUse),
            false => database.offline(env).map(Begun::Held),
        }
    }

    fn begin_in_use(
        &self,
        databases: &[Database<'_>],
        _: &CaptureOptions,
        _: &Env,
    ) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
        let begin = |database| Ok(Box::new(Appended::begin(database)?) as Box<dyn PartCapture>);
        let captures: Vec<_> = databases.iter().map(begin).collect::<Result<_>>()?;
        Ok((captures, if databases.len() == 1 { Barrier::Live } else { Barrier::None }))
    }

    fn check(&self, database: &Database<'_>, _: Depth, _: &Env) -> Result<Checked> {
        let file = database.open(&database.root().join(RECORDS.as_ref()))?;
        let failed =
            |error| Error::io("can't read it to check it", error).with_entry(database.name());
        let (found, bytes) = records(&file).map_err(failed)?;
        if bytes == file.metadata().map_err(failed)?.len() {
            return Ok(Checked::default());
        }
        let message = format!("{}: record {} is damaged", database.name(), found.len());
        Err(Error::corrupt(message).with_entry(database.name()))
    }
}

/// A log that somebody appends to: what is there when the capture begins stays as it is, so it is read up
/// to the end of the last whole record.
struct Appended {
    name: String,
    entries: Vec<SourceEntry>,
    records: File,
}

impl Appended {
    fn begin(database: &Database<'_>) -> Result<Appended> {
        let records = database.open(&database.root().join(RECORDS.as_ref()))?;
        let (_, bytes) =
            self::records(&records).map_err(|error| Error::io("can't read it", error))?;
        let mut entries = Vec::new();
        for path in database.entries() {
            let mut entry = database.look(path)?;
            if path.name() == RECORDS {
                entry.size = bytes;
            }
            entries.push(entry);
        }
        Ok(Appended { name: database.name().to_owned(), entries, records })
    }
}

impl PartCapture for Appended {
    fn name(&self) -> &str {
        &self.name
    }

    fn engine(&self) -> EngineKind {
        LogEngine.kind()
    }

    fn engine_version(&self) -> Option<String> {
        Some("1".to_owned())
    }

    fn consistency(&self) -> Consistency {
        Consistency::Live
    }

    fn entries(&self) -> &[SourceEntry] {
        &self.entries
    }

    fn stream(
        &mut self,
        entry: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let (mut at, end) = (0, self.entries[entry].size);
        while at < end {
            let mut piece = vec![0; (end - at).min(PIECE_BYTES) as usize];
            let read = self.records.read_exact_at(&mut piece, at);
            read.map_err(|error| Error::io("can't read it", error).with_entry(&self.name))?;
            sink(Piece::Data(&piece))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        Ok(Finished::default())
    }
}
