//! The newest value of one key in the files of a Badger v4 database, without Badger and without a live
//! database: what its manifest names as live tables, and the logs of what was not in a table yet.
//!
//! The files can come from hostile hands. Every length is held against the file that claims it, or against a
//! fixed bound, before anything is allocated; nothing is kept of what is read but the value that is
//! looked for. A checksum tells an accident from what was written. It does not tell who wrote.
//!
//! What Badger would mend silently, by leaving out a table that is damaged, is an error here: the
//! newest value may be in that table. Where its rules end a log early, at the first entry that
//! is not whole, they end it here too, and the reading says so.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod log;
mod manifest;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

/// Where ev-node keeps the height of its store: `/t`, under the prefix that it puts before its own keys.
pub(crate) const HEIGHT_KEY: &[u8] = b"/0/t";

const MANIFEST: &str = "MANIFEST";
const REGISTRY: &str = "KEYREGISTRY";
const LOG_SUFFIX: &str = ".mem";
/// The registry of keys of a database without encryption begins with 16 bytes of any kind and this.
const REGISTRY_TEXT: &[u8] = b"Hello Badger";
const REGISTRY_TEXT_AT: u64 = 16;
/// Every key is stored with so many bytes behind it, which stand for its version.
const VERSION_BYTES: usize = 8;
/// No value that is longer is returned.
const VALUE_BYTES_MAX: usize = 64 << 10;

const DELETED: u8 = 1 << 0;
const POINTER: u8 = 1 << 1;

/// The captured files of one database.
///
/// Who captures them from a running node takes the logs (`*.mem`) first, then `MANIFEST`, then the
/// tables. A log whose content moved to a table meanwhile is then in one of them at least, and a table
/// that was compacted away meanwhile is missing, which is an error, and no silent loss.
pub(crate) trait Files {
    /// The name of each file and how many bytes it has.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Fills the whole buffer with what is in a file from an offset on.
    fn read_at(&self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The files can't be listed.
    #[error("the files can't be listed: {0}")]
    List(io::Error),
    /// A file can't be read.
    #[error("{file} can't be read: {error}")]
    Read {
        /// Its name.
        file: String,
        /// What went wrong.
        error: io::Error,
    },
    /// A file that has to be there is not.
    #[error("{0} is missing")]
    Missing(String),
    /// A file is not as any Badger writes it.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// Its name.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file has something that this reader does not know.
    #[error("{file} has {what}, which is not known here")]
    Unknown {
        /// Its name.
        file: String,
        /// What it has.
        what: &'static str,
    },
    /// The manifest is of another version of the format than 8, which is Badger v4's (and v3's).
    #[error("the manifest is of version {0} of Badger's format, and not of 8")]
    Version(u16),
    /// The manifest belongs to another application.
    #[error("the manifest is marked as another application's, by the number {0}")]
    Foreign(u16),
    /// A file is encrypted.
    #[error("{0} is encrypted")]
    Encrypted(String),
    /// Something is larger than its bound.
    #[error("{file} has {what} of {bytes} bytes, more than are read")]
    TooLarge {
        /// The file's name.
        file: String,
        /// What is too large.
        what: &'static str,
        /// So large it claims to be.
        bytes: u64,
    },
    /// The newest value is in the value log, which is not read.
    #[error("{0} has only a pointer to the newest value")]
    Pointer(String),
    /// The newest value ends at a time, and there is no clock here.
    #[error("{0} has a newest value that ends at a time")]
    Expires(String),
    /// What is stored as a height has another length than a height.
    #[error("the height is stored in {0} bytes, and not in 8")]
    Height(usize),
}

/// What the files say of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The newest version of the key; none if it was never written, or if that is forgotten.
    pub(crate) newest: Option<Stored>,
    /// A log goes on behind its last whole transaction, or the manifest behind its last whole set of changes.
    /// A crash leaves that behind, and Badger drops it when it is opened; but so does damage to what
    /// was whole once, and then this answer can be older than what was written.
    pub(crate) torn: bool,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// When it was written, in Badger's count of transactions.
    pub(crate) version: u64,
    /// Its value; none if the key was deleted with this version.
    pub(crate) value: Option<Vec<u8>>,
}

/// Finds the newest version of a key.
pub(crate) fn newest(files: &dyn Files, key: &[u8]) -> Result<Reading, Error> {
    let captured = Captured::list(files)?;
    let (tables, mut torn) = manifest::tables(&captured)?;
    captured.not_encrypted()?;
    let mut newest = None;
    for file in captured.logs()? {
        let replayed = log::replay(&captured, file, key)?;
        torn |= replayed.torn;
        // A later log wins over an earlier one, as a later entry does.
        if replayed.newest.as_ref().map(|found| found.version) >= version_of(&newest) {
            newest = replayed.newest.or(newest);
        }
    }
    for table in &tables {
        let found = table::newest(&captured, table, key)?;
        if found.as_ref().map(|found| found.version) > version_of(&newest) {
            newest = found;
        }
    }
    Ok(Reading { newest: newest.map(Found::stored).transpose()?, torn })
}

/// The height of ev-node's store; none if it has none yet, or if it was deleted.
pub(crate) fn height(files: &dyn Files) -> Result<Option<u64>, Error> {
    newest(files, HEIGHT_KEY)?.height()
}

impl Reading {
    /// The newest version as a height: 8 bytes, the lowest first.
    pub(crate) fn height(&self) -> Result<Option<u64>, Error> {
        let Some(value) = self.newest.as_ref().and_then(|stored| stored.value.as_deref()) else {
            return Ok(None);
        };
        match value.try_into() {
            Ok(bytes) => Ok(Some(u64::from_le_bytes(bytes))),
            Err(_) => Err(Error::Height(value.len())),
        }
    }
}

/// Whether a checksum is the one that is stored. A fuzzer can't guess one: for it every checksum fits, so that it
/// comes to what is behind.
fn fits(sum: u32, stored: u64) -> bool {
    cfg!(fuzzing) || u64::from(sum) == stored
}

fn version_of(found: &Option<Found>) -> Option<u64> {
    found.as_ref().map(|found| found.version)
}

/// A version of the key, as it lies in a file. What is unfit to be returned is an error only if no newer
/// version is found.
struct Found {
    file: String,
    version: u64,
    meta: u8,
    expires: u64,
    /// At most one byte more than may be returned.
    value: Vec<u8>,
    length: u64,
}

impl Found {
    fn new(file: &str, version: u64, meta: u8, expires: u64, value: &[u8]) -> Found {
        let kept = &value[..value.len().min(VALUE_BYTES_MAX + 1)];
        let length = value.len() as u64;
        Found { file: file.to_owned(), version, meta, expires, value: kept.to_vec(), length }
    }

    fn stored(self) -> Result<Stored, Error> {
        let Found { file, version, meta, expires, value, length } = self;
        if meta & DELETED != 0 {
            return Ok(Stored { version, value: None });
        }
        if expires != 0 {
            return Err(Error::Expires(file));
        }
        if meta & POINTER != 0 {
            return Err(Error::Pointer(file));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::TooLarge { file, what: "a value", bytes: length });
        }
        Ok(Stored { version, value: Some(value) })
    }
}

/// The version of a key as it is stored: behind the key, counted down from the highest number. Nothing
/// that is no longer than a version has one.
fn version(stored: &[u8]) -> u64 {
    match stored.split_last_chunk::<VERSION_BYTES>() {
        Some((key, last)) if !key.is_empty() => u64::MAX - u64::from_be_bytes(*last),
        _ => 0,
    }
}

/// Whether a key, as it is stored, is a version of this one.
fn is_of(stored: &[u8], key: &[u8]) -> bool {
    stored.split_last_chunk::<VERSION_BYTES>().is_some_and(|(stored, _)| stored == key)
}

/// Takes a number of 7 bits a byte from the front, the lowest first.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        if shift == 63 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn damaged<T>(file: &str, what: &'static str) -> Result<T, Error> {
    Err(Error::Damaged { file: file.to_owned(), what })
}

/// The files and how large each one is said to be.
struct Captured<'a> {
    files: &'a dyn Files,
    sizes: BTreeMap<String, u64>,
}

impl<'a> Captured<'a> {
    fn list(files: &'a dyn Files) -> Result<Captured<'a>, Error> {
        let sizes = files.list().map_err(Error::List)?.into_iter().collect();
        Ok(Captured { files, sizes })
    }

    fn size(&self, file: &str) -> Result<u64, Error> {
        self.sizes.get(file).copied().ok_or_else(|| Error::Missing(file.to_owned()))
    }

    /// Reads so many bytes, which have to be in the file, and no more than `max`; if they are more, `what`
    /// they are is told.
    fn read(
        &self,
        file: &str,
        at: u64,
        bytes: u64,
        max: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let size = self.size(file)?;
        if at.checked_add(bytes).is_none_or(|end| end > size) {
            return damaged(file, "it is cut");
        }
        let too_large = || Error::TooLarge { file: file.to_owned(), what, bytes };
        let count = usize::try_from(bytes).ok().filter(|_| bytes <= max).ok_or_else(too_large)?;
        let mut content = vec![0; count];
        let read = self.files.read_at(file, at, &mut content);
        read.map_err(|error| Error::Read { file: file.to_owned(), error })?;
        Ok(content)
    }

    /// That the registry of keys was not written with a key, if there is one.
    fn not_encrypted(&self) -> Result<(), Error> {
        if !self.sizes.contains_key(REGISTRY) {
            return Ok(());
        }
        let bytes = REGISTRY_TEXT.len() as u64;
        let text = self.read(REGISTRY, REGISTRY_TEXT_AT, bytes, bytes, "a head")?;
        if text == REGISTRY_TEXT { Ok(()) } else { Err(Error::Encrypted(REGISTRY.to_owned())) }
    }

    /// The names of the logs, from the first to the last.
    fn logs(&self) -> Result<Vec<&str>, Error> {
        let mut logs = Vec::new();
        for name in self.sizes.keys() {
            let Some(number) = name.strip_suffix(LOG_SUFFIX) else { continue };
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            match number.parse::<u32>() {
                Ok(number) if digits => logs.push((number, name.as_str())),
                _ => return Err(Error::Unknown { file: name.clone(), what: "a name" }),
            }
        }
        logs.sort_unstable();
        Ok(logs.into_iter().map(|(_, name)| name).collect())
    }
}
