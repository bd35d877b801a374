//! A RocksDB that another process has open, captured while that one writes.
//!
//! What is captured is what a crash of the process would have left at one instant: a version of the
//! MANIFEST, the tables that it names, and the logs from there on, up to where they end. No lock is taken
//! and nothing is written; each file is held by a descriptor, which keeps its bytes whatever becomes of its
//! name.
//!
//! The order makes it one instant. A flush puts a log's writes into a table, tells the MANIFEST, and
//! removes the log. So logs are held first, then the MANIFEST is read, then its tables are held, and the
//! logs are looked for again after each step: what a table does not have yet is in a log that is held. A log
//! that came and went between two looks would be missing; the MANIFEST, asked after each of them, tells
//! whether one can have. What no log tells (tables that were ingested or dropped as such, column families
//! that come or go) must not have happened in between. Otherwise all begins again, with what is held.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use rustix::fs::MemfdFlags;

use super::records::{self, End, Extent};
use super::version::{self, Version};
use super::{FileName, identity, newest_options, number_option, option, refusals, regular_files};
use crate::durable;
use crate::engine::files::{FileSet, HeldFile, KnownBy, Listed};
use crate::engine::metadata::{self, Found, Stamp};
use crate::engine::{EntryType, FoundPart, Units};
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, OPEN_FILES, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// How long is tried again, and how long is waited in between.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// Logs whose files are reused are copied, up to this many bytes together.
const COPIED_BYTES_MAX: u64 = 256 << 20;

/// Releases from this one on are known to tell, with each flush, which logs are of no more use.
const TELLS_LOGS: (u64, u64) = (7, 8);

/// What was captured of a database in use.
pub(super) struct Image {
    pub(super) set: FileSet,
    pub(super) version: Version,
    pub(super) options: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Why an attempt came to nothing.
enum Failed {
    /// The database went on in a way that the attempt can't follow.
    Moved(String),
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Error(error)
    }
}

type Attempt<T> = std::result::Result<T, Failed>;

fn moved<T>(why: impl Into<String>) -> Attempt<T> {
    Err(Failed::Moved(why.into()))
}

/// Captures the database of `part`, which another process has open.
///
/// # Errors
/// Conflict where it does not rest for an instant, or recovers in a way that a copy can't; the first
/// refusal of its directory.
pub(super) fn capture(dir: &RootedPath, part: &FoundPart, env: &Env) -> Result<Image> {
    let place = dir.at(&part.root);
    if let Some(refusal) = refusals(&place, &part.name)?.into_iter().next() {
        return Err(refusal);
    }
    let db = place.enter().map_err(|errno| durable::met(&place, "open", errno))?;
    let options = newest_options(&db)?;
    let known = options.as_deref();
    if option(known, "best_efforts_recovery") == Some("true") {
        return Err(Error::conflict(format!(
            "{} is in use, and opens without its logs (best_efforts_recovery): what is only in them would \
             be lost",
            part.name
        ))
        .with_entry(&*part.name)
        .with_remedy(Remedy::CheckpointHook).with_remedy("stop it"));
    }
    let (major, minor) = release(known);
    let mut taking = Taking {
        part,
        place,
        db,
        env,
        tells_logs: (major, minor) >= TELLS_LOGS,
        recycles: number_option(known, "recycle_log_file_num") > 0,
        torn_logs: option(known, "avoid_flush_during_recovery") == Some("true"),
        manifest: String::new(),
        logs: BTreeMap::new(),
        tables: BTreeMap::new(),
    };
    let (version, set) = taking.until_it_holds()?;
    let mut warnings = Vec::new();
    if option(known, "manual_wal_flush") == Some("true") {
        warnings.push(format!(
            "{} writes its log only when it decides to (manual_wal_flush): what it had not yet written is \
             not in the snapshot, as after a crash",
            part.name
        ));
    }
    Ok(Image { set, version, options, warnings })
}

/// The release of RocksDB that has the database open, as far as its OPTIONS tell.
fn release(options: Option<&str>) -> (u64, u64) {
    let mut numbers = option(options, "rocksdb_version").unwrap_or_default().split('.');
    let mut number = || numbers.next().and_then(|number| number.parse().ok()).unwrap_or_default();
    (number(), number())
}

/// A capture in the making, with all that is held by now.
struct Taking<'a> {
    part: &'a FoundPart,
    place: RootedPath,
    /// The database's directory, held.
    db: RootedPath,
    env: &'a Env,
    /// Whoever has it open tells with each flush which logs are of no more use.
    tells_logs: bool,
    /// The file of a log becomes that of another one.
    recycles: bool,
    /// A log that a crash has cut may be followed by others.
    torn_logs: bool,
    /// The MANIFEST that stood when files were held. While it does, no number of a file is used twice.
    manifest: String,
    logs: BTreeMap<u64, File>,
    tables: BTreeMap<String, File>,
}

/// The version that is captured.
struct Base {
    version: Version,
    file: File,
}

/// What is known of the logs.
struct LogWatch {
    /// All logs up to this one are held, as far as they were there.
    newest: u64,
    /// Logs below this number may be gone.
    gone: u64,
}

/// A log, and how much of it is captured.
struct Log {
    number: u64,
    file: File,
    bytes: u64,
    found: Found,
}

impl Taking<'_> {
    fn until_it_holds(&mut self) -> Result<(Version, FileSet)> {
        let end = self.env.monotonic() + PATIENCE;
        loop {
            let why = match self.attempt() {
                Ok(done) => return Ok(done),
                Err(Failed::Moved(why)) => why,
                Err(Failed::Error(error)) => return Err(error),
            };
            if self.env.monotonic() >= end {
                return Err(Error::conflict(format!(
                    "{} is in use, and was at no instant of {} s as it can be captured: {why}",
                    self.part.name,
                    PATIENCE.as_secs()
                ))
                .with_entry(&*self.part.name)
                .with_remedy("try again when it writes less")
                .with_remedy(Remedy::Freeze(None))
                .with_remedy("stop it"));
            }
            self.env.pause(PAUSE);
        }
    }

    fn attempt(&mut self) -> Attempt<(Version, FileSet)> {
        self.same_process()?;
        let newest = self.hold_logs()?;
        self.env.fault(FaultPoint::LiveLogs)?;
        let base = self.base()?;
        self.env.fault(FaultPoint::LiveManifest)?;
        let mut watch = LogWatch { newest, gone: self.gone(&base.version) };
        self.look(&base, &mut watch)?;
        self.hold_tables(&base.version)?;
        self.env.fault(FaultPoint::LiveTables)?;
        self.look(&base, &mut watch)?;
        let logs = self.ends(&base.version, watch.newest)?;
        self.env.fault(FaultPoint::LiveEnds)?;
        let gone = self.since(&base)?;
        if self.recycles && gone != self.gone(&base.version) {
            return moved("the file of a log may be another log's by now");
        }
        let logs = self.cut(logs)?;
        let set = FileSet::of_held(self.files(&base, logs)?, self.env)?;
        Ok((base.version, set))
    }

    fn gone(&self, version: &Version) -> u64 {
        version.obsolete_logs(self.tells_logs)
    }

    /// Whoever opens the database begins a new MANIFEST, and may use numbers of files again.
    fn same_process(&mut self) -> Attempt<()> {
        let manifest = match version::current(&self.db) {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == Kind::NotFound => return moved("it has no CURRENT"),
            Err(error) => return Err(error.into()),
        };
        if manifest != self.manifest {
            (self.logs, self.tables) = (BTreeMap::new(), BTreeMap::new());
            self.manifest = manifest;
        }
        Ok(())
    }

    /// Holds the logs that are there. The newest of those that were there when this began.
    fn hold_logs(&mut self) -> Attempt<u64> {
        let newest = self.logs_there()?.last_key_value().map_or(0, |(&number, _)| number);
        // Listed again: a list that is made while a log is made may have a newer one and lack that.
        for (number, name) in self.logs_there()? {
            if !self.logs.contains_key(&number)
                && let Some(file) = self.open(&name)?
            {
                self.logs.insert(number, file);
            }
        }
        Ok(newest)
    }

    fn logs_there(&self) -> Result<BTreeMap<u64, OsString>> {
        let names = self.db.names().map_err(|errno| durable::met(&self.db, "list", errno))?;
        let log = |name: OsString| match FileName::of(&name) {
            Some(FileName::Log(number)) => Some((number, name)),
            _ => None,
        };
        Ok(names.into_iter().filter_map(log).collect())
    }

    /// Opens a file; `None` where there is none by now.
    fn open(&self, name: impl AsRef<std::ffi::OsStr>) -> Result<Option<File>> {
        let place = self.db.join(name.as_ref());
        match place.open_file() {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_none(&error) => Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                Err(Error::unavailable(format!(
                    "{} has more files than this process may hold open ({} by now)",
                    self.part.name,
                    self.tables.len() + self.logs.len()
                ))
                .with_entry(&*self.part.name)
                .with_remedy(OPEN_FILES)
                .with_remedy(Remedy::Freeze(None)))
            }
            Err(error) => {
                let entry = format!("{}/{}", self.part.name, place.name().display());
                Err(durable::met(&place, "open", error).with_entry(entry))
            }
        }
    }

    /// Reads the MANIFEST, up to where it ends now.
    fn base(&self) -> Attempt<Base> {
        let Some(file) = self.open(&self.manifest)? else { return moved("its MANIFEST is gone") };
        let bytes = version::held(&self.manifest, &file, 0)?;
        match version::parse(&self.manifest, &bytes) {
            Ok(version) => Ok(Base { version, file }),
            Err(error) if bytes.is_empty() => moved(error.to_string()),
            Err(error) => Err(error.into()),
        }
    }

    /// Holds the logs that have come since the last look. None may have come and gone.
    fn look(&mut self, base: &Base, watch: &mut LogWatch) -> Attempt<()> {
        let newest = self.hold_logs()?;
        let gone = self.since(base)?;
        if gone != watch.gone && gone > watch.newest {
            return moved("a log came and went between two looks");
        }
        *watch = LogWatch { newest: newest.max(watch.newest), gone };
        Ok(())
    }

    /// Logs below the number may be gone by now. All that has happened since the version can be told from
    /// logs.
    fn since(&self, base: &Base) -> Attempt<u64> {
        match version::current(&self.db) {
            Ok(manifest) if manifest == self.manifest => {}
            _ => return moved("it began a new MANIFEST"),
        }
        let since = base.version.since(&base.file, self.tells_logs)?;
        if since.untold {
            return moved(
                "tables were ingested or dropped as such, or a column family came or went",
            );
        }
        Ok(since.log_min)
    }

    /// Holds the tables and blob files of a version, and no others.
    fn hold_tables(&mut self, version: &Version) -> Attempt<()> {
        let mut before = std::mem::take(&mut self.tables);
        let tables = version
            .tables()
            .into_keys()
            .map(|number| [format!("{number:06}.sst"), format!("{number:06}.ldb")]);
        let blobs =
            version.blobs().into_iter().map(|number| [format!("{number:06}.blob"), String::new()]);
        for names in tables.chain(blobs) {
            let mut held = None;
            for name in names.iter().filter(|name| !name.is_empty()) {
                let file = match before.remove(name) {
                    Some(file) => Some(file),
                    None => self.open(name)?,
                };
                if let Some(file) = file {
                    held = Some((name.clone(), file));
                    break;
                }
            }
            let Some((name, file)) = held else {
                return moved(format!("{} is gone", names[0]));
            };
            self.tables.insert(name, file);
        }
        Ok(())
    }

    /// Where the logs end: the newest one first. Before the first write goes into one, the one before it is
    /// written to its end.
    fn ends(&self, version: &Version, newest: u64) -> Attempt<Vec<Log>> {
        let mut logs = Vec::new();
        let mut copied = 0;
        let failed = |error| self.failed(error);
        let needed = version.first_log();
        for (&number, file) in self.logs.range(needed.min(newest)..=newest).rev() {
            let mut found = metadata::look_file(file).map_err(failed)?;
            let bytes = found.stamp.size;
            let file = if self.recycles {
                copied += bytes;
                if copied > COPIED_BYTES_MAX {
                    return Err(self.logs_too_long().into());
                }
                let copy = match copy(file, bytes) {
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return moved("the file of a log is another log's by now");
                    }
                    copy => copy.map_err(failed)?,
                };
                found.stamp = Stamp::of_file(&copy).map_err(failed)?;
                copy
            } else {
                file.try_clone().map_err(failed)?
            };
            found.names = 1;
            logs.push(Log { number, file, bytes, found });
        }
        logs.reverse();
        Ok(logs)
    }

    /// Each log up to the end of its last whole record: all of one that others follow.
    fn cut(&mut self, logs: Vec<Log>) -> Attempt<Vec<Log>> {
        let mut cut: Vec<Log> = Vec::new();
        let mut torn = None;
        for log in logs {
            let extent: Extent = records::extent(&log.file, log.number, log.bytes)
                .map_err(|error| self.failed(error))?;
            if extent.recycled && !self.recycles {
                self.recycles = true;
                return moved("the files of its logs are used again");
            }
            if let End::Damaged(why) = extent.end {
                let file = format!("{}/{:06}.log", self.part.name, log.number);
                return Err(Error::corrupt(format!("{file} is damaged: {why}"))
                    .with_entry(file)
                    .with_remedy(
                        "look whether the node still starts from a copy; restore it from a snapshot \
                         where it does not",
                    )
                    .into());
            }
            if let Some(number) = torn.filter(|_| extent.writes && !self.torn_logs) {
                return moved(format!(
                    "{number:06}.log ends within a record, and others follow it"
                ));
            }
            if extent.end == End::Torn {
                torn = Some(log.number);
            }
            let stamp = Stamp { size: extent.bytes, ..log.found.stamp };
            cut.push(Log { bytes: extent.bytes, found: Found { stamp, ..log.found }, ..log });
        }
        Ok(cut)
    }

    /// All files of the image, sorted.
    fn files(&mut self, base: &Base, logs: Vec<Log>) -> Attempt<Vec<HeldFile>> {
        let root = &self.part.root;
        let mut files = Vec::new();
        if *root != RelPath::root() {
            let found = metadata::look(&self.place).map_err(|error| self.failed(error))?;
            files.push(self.entry(root.clone(), None, found, KnownBy::Content));
        }
        for log in logs {
            let path = root.join(format!("{:06}.log", log.number).as_ref());
            files.push(HeldFile {
                grows: true,
                ..self.entry(path, Some(log.file), log.found, KnownBy::OldStamp)
            });
        }
        let identity = identity(&self.db, &base.version);
        for (name, file) in std::mem::take(&mut self.tables) {
            let found = metadata::look_file(&file).map_err(|error| self.failed(error))?;
            let known_by = KnownBy::Engine(identity.clone());
            files.push(self.entry(root.join(name.as_ref()), Some(file), found, known_by));
        }
        let manifest = base.file.try_clone().map_err(|error| self.failed(error))?;
        let mut found = metadata::look_file(&manifest).map_err(|error| self.failed(error))?;
        found.stamp.size = base.version.bytes;
        let path = root.join(self.manifest.as_ref());
        files.push(HeldFile {
            grows: true,
            ..self.entry(path, Some(manifest), found, KnownBy::Content)
        });
        self.small_files(&mut files)?;
        files.sort_by(|a, b| a.listed.path.cmp(&b.listed.path));
        Ok(files)
    }

    /// CURRENT, which names the MANIFEST that was read, and what tells of the database besides.
    fn small_files(&self, files: &mut Vec<HeldFile>) -> Attempt<()> {
        for (name, place) in regular_files(&self.db)? {
            let path = self.part.root.join(&name);
            match FileName::of(&name) {
                Some(FileName::Lock) => {
                    let found = metadata::look(&place).map_err(|error| self.failed(error))?;
                    // One with content is left out: to open it is to give up a lock that is held.
                    if found.kind == EntryType::File && found.stamp.size == 0 {
                        files.push(self.entry(path, None, found, KnownBy::Content));
                    }
                }
                Some(
                    role @ (FileName::Current
                    | FileName::Options
                    | FileName::Identity
                    | FileName::Info),
                ) => {
                    let Some(file) = self.open(&name)? else { continue };
                    let found = metadata::look_file(&file).map_err(|error| self.failed(error))?;
                    let grows = role == FileName::Info;
                    let entry = self.entry(path, Some(file), found, KnownBy::Content);
                    files.push(HeldFile { grows, ..entry });
                }
                _ => {}
            }
        }
        match version::current(&self.db) {
            Ok(manifest) if manifest == self.manifest => Ok(()),
            _ => moved("it began a new MANIFEST"),
        }
    }

    fn entry(
        &self,
        path: RelPath,
        file: Option<File>,
        found: Found,
        known_by: KnownBy,
    ) -> HeldFile {
        let source =
            if path == self.part.root { self.place.clone() } else { self.place.join(path.name()) };
        let listed = Listed { path, source, units: Units::Slices, pinned: false, known_by };
        HeldFile { listed, found, file, grows: false }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("can't read {}", self.part.name), error).with_entry(&*self.part.name)
    }

    fn logs_too_long(&self) -> Error {
        Error::conflict(format!(
            "{} is in use, uses the files of its logs again, and has more than {} MiB of them",
            self.part.name,
            COPIED_BYTES_MAX >> 20
        ))
        .with_entry(&*self.part.name)
        .with_remedy(Remedy::Freeze(None))
        .with_remedy("stop it")
    }
}

/// Whether nothing is there that RocksDB could have written: no file, a link, a pipe, a directory.
fn is_none(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, NotFound};
    matches!(error.kind(), NotFound | InvalidInput)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// The first bytes of a file, in memory.
fn copy(file: &File, bytes: u64) -> std::io::Result<File> {
    let mut copy = File::from(rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC)?);
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while position < bytes {
        let most = usize::try_from(bytes - position).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..most], position)?;
        copy.write_all(&buffer[..most])?;
        position += most as u64;
    }
    copy.seek(SeekFrom::Start(0))?;
    Ok(copy)
}

#[cfg(test)]
mod tests;
