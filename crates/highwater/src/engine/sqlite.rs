//! SQLite databases, captured through SQLite itself while the node writes.
//!
//! No function here opens a database, its `-wal` or its `-shm` but through a SQLite connection:
//! closing any other descriptor of them would drop the POSIX locks that the process holds, another
//! process would then delete the log, and acknowledged rows with it. What has to be known besides
//! comes from `stat` and `lgetxattr`. The same holds between two copies of SQLite in one process,
//! so a node that links one of its own is captured from another process.

mod barrier;
mod check;
mod failure;
mod image;
mod point;
mod source;
mod stamp;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::{Barrier, CaptureOptions, FoundPart, PartCapture};
use crate::env::Env;
use crate::error::Result;

pub(super) use check::check;

use source::Source;

/// The first sixteen bytes of every SQLite 3 database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whether `bytes`, the beginning of a file, are those of a SQLite database.
pub(super) fn header(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Begins a read transaction on each of `parts` in the node directory `layout_dir`, and says
/// whether all of them show one instant.
///
/// # Errors
/// Conflict where another process keeps a database locked, or where one waits for the recovery
/// that only its node may do; denied where SQLite may not read it.
pub(super) fn begin_all(
    layout_dir: &Path,
    parts: &[&FoundPart],
    options: &CaptureOptions,
    env: &Env,
) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
    let mut sources = Vec::with_capacity(parts.len());
    for part in parts {
        sources.push(Source::open(layout_dir, part)?);
    }
    let barrier = barrier::begin(&mut sources, env)?;
    let mut captures: Vec<Box<dyn PartCapture>> = Vec::with_capacity(sources.len());
    for source in sources {
        captures.push(Box::new(image::Image::new(source, options, env)?));
    }
    Ok((captures, barrier))
}
