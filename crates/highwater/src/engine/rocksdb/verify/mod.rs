//! The checksums of tables and blob files, verified while they are streamed for the first time: a
//! damaged table is not stored as if it were a good one.
//!
//! What is known of a table's blocks is found at its end before the first byte is handed on; then each
//! block is verified as it passes, so that nothing is read twice.

use std::collections::BTreeMap;
use std::fs::File;

use super::super::Piece;
use super::super::engines::still::Verify;
use super::super::files::FileSet;
use super::FileName;
use super::version::Version;
use crate::error::{Error, Result};

mod blob;
pub(super) mod block;
mod checksum;
pub(super) mod footer;
#[cfg(any(fuzzing, test))]
pub(in crate::engine) mod fuzzing;
#[cfg(test)]
mod hostile;
pub(super) mod table;
#[cfg(test)]
mod tests;

use blob::Blob;
use table::Table;

/// How many files are named if something could not be verified.
const NAMED_MAX: usize = 3;
/// A hole is verified as zeros, in pieces of this many bytes.
static ZEROS: [u8; 4096] = [0; 4096];

/// Why a file could not be verified, or was not.
#[derive(Debug)]
pub(super) enum VerifyFault {
    /// A byte of it is not what was written.
    Damaged(String),
    /// It is of a kind that is not known here.
    Unknown(&'static str),
    /// It could not be read.
    Io(std::io::Error),
}

impl From<std::io::Error> for VerifyFault {
    fn from(source: std::io::Error) -> VerifyFault {
        VerifyFault::Io(source)
    }
}

pub(super) fn damaged<T>(what: impl Into<String>) -> std::result::Result<T, VerifyFault> {
    Err(VerifyFault::Damaged(what.into()))
}

/// Verifies the files of one database, and remembers which could not be verified.
pub(in crate::engine) struct Verifier {
    /// The sizes of its tables, as its MANIFEST tells them.
    sizes: BTreeMap<u64, u64>,
    /// Its OPTIONS name no other kind of table: what looks like none is damaged.
    block_based: bool,
    unverified: BTreeMap<&'static str, Vec<String>>,
}

/// What is known of a file that is streamed.
enum StreamedFile {
    Table(Table),
    Blob(Blob),
}

impl Verifier {
    /// For the database that `version` and the content of its newest OPTIONS describe.
    pub(in crate::engine) fn new(version: &Version, options: Option<&str>) -> Verifier {
        let sizes = version.tables().iter().map(|(&number, table)| (number, table.size)).collect();
        let factories = options.into_iter().flat_map(str::lines).filter_map(factory);
        let (known, others): (Vec<&str>, Vec<&str>) =
            factories.partition(|name| *name == "BlockBasedTable");
        let block_based = !known.is_empty() && others.is_empty();
        Verifier { sizes, block_based, unverified: BTreeMap::new() }
    }

    /// Finds out what is to be verified in a table.
    fn table(
        &self,
        file: &File,
        number: u64,
        size: u64,
    ) -> std::result::Result<Table, VerifyFault> {
        match self.sizes.get(&number) {
            Some(&meant) if meant != size => {
                return damaged(format!("it has {size} bytes and should have {meant}"));
            }
            _ => {}
        }
        match Table::open(file, size) {
            Err(VerifyFault::Unknown(footer::STRANGE)) if self.block_based => {
                damaged("its last bytes are not those of a table")
            }
            opened => opened,
        }
    }
}

impl Verify for Verifier {
    /// Streams an entry of `set`; a table or blob file of it is verified on its way.
    ///
    /// # Errors
    /// Corrupt, naming the file, where a checksum in it does not fit.
    fn stream(
        &mut self,
        set: &FileSet,
        index: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(entry) = set.entries().get(index) else { return set.stream(index, sink) };
        let role = FileName::of(entry.path.name());
        if !matches!(role, Some(FileName::Table(_) | FileName::Blob(_))) {
            return set.stream(index, sink);
        }
        let path = entry.path.to_string();
        let file = set.open(index)?;
        let begun = match role {
            Some(FileName::Table(number)) => {
                self.table(&file, number, entry.size).map(StreamedFile::Table)
            }
            _ => Blob::open(&file, entry.size).map(StreamedFile::Blob),
        };
        let mut watch = match begun {
            Ok(watch) => watch,
            Err(VerifyFault::Unknown(why)) => {
                self.unverified.entry(why).or_default().push(path);
                return set.stream(index, sink);
            }
            Err(fault) => return Err(error_of(fault, &path)),
        };
        if let StreamedFile::Table(table) = &watch
            && let Some(why) = table.gap()
        {
            self.unverified.entry(why).or_default().push(path.clone());
        }
        set.stream(index, &mut |piece| {
            let passed = match piece {
                Piece::Data(bytes) => watch.pass(bytes),
                Piece::Hole(length) => watch.pass_zeros(length),
            };
            passed.map_err(|fault| error_of(fault, &path))?;
            sink(piece)
        })?;
        watch.end().map_err(|fault| error_of(fault, &path))
    }

    /// What could not be verified, in plain words.
    fn warnings(&self) -> Vec<String> {
        let line = |(why, files): (&&str, &Vec<String>)| {
            let named = files.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = if files.len() > NAMED_MAX { ", …" } else { "" };
            let count = match files.len() {
                1 => "1 file was".to_owned(),
                count => format!("{count} files were"),
            };
            format!("{count} stored without a check of all checksums, {why}: {named}{more}")
        };
        self.unverified.iter().map(line).collect()
    }
}

/// The kind of table that a line of OPTIONS names.
fn factory(line: &str) -> Option<&str> {
    line.trim().strip_prefix("table_factory=").map(|name| name.trim_end_matches(';'))
}

impl StreamedFile {
    fn pass(&mut self, bytes: &[u8]) -> std::result::Result<(), VerifyFault> {
        match self {
            StreamedFile::Table(table) => table.pass(bytes),
            StreamedFile::Blob(blob) => blob.pass(bytes),
        }
    }

    fn pass_zeros(&mut self, mut length: u64) -> std::result::Result<(), VerifyFault> {
        while length > 0 {
            let piece = length.min(ZEROS.len() as u64);
            self.pass(&ZEROS[..piece as usize])?;
            length -= piece;
        }
        Ok(())
    }

    fn end(&self) -> std::result::Result<(), VerifyFault> {
        match self {
            StreamedFile::Table(table) => table.end(),
            StreamedFile::Blob(blob) => blob.end(),
        }
    }
}

fn error_of(fault: VerifyFault, path: &str) -> Error {
    match fault {
        VerifyFault::Damaged(what) => {
            Error::corrupt(format!("{path} is damaged: {what}")).with_entry(path).with_remedy(
                "restore the database from a snapshot, or let the node's own program repair it; \
                 the snapshots that stand are untouched",
            )
        }
        VerifyFault::Unknown(what) => Error::bug(format!("{path}: {what}")).with_entry(path),
        VerifyFault::Io(source) => Error::io("can't read it", source).with_entry(path),
    }
}

/// Bytes of a file at a place; all of them are there.
fn read_at(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, offset)?;
    Ok(bytes)
}
