//! SQLite.

use std::path::Path;

use super::{Barrier, CaptureOptions, Checked, Depth, FoundPart, PartCapture};
use crate::env::Env;
use crate::error::{Error, Result};

/// Begins the capture of all SQLite databases.
pub(super) fn begin_all(
    _dir: &Path,
    _parts: &[&FoundPart],
    _options: &CaptureOptions,
    _env: &Env,
) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
    Err(Error::bug("not yet"))
}

/// Checks one database.
pub(super) fn check(_path: &Path, _depth: Depth) -> Result<Checked> {
    Err(Error::bug("not yet"))
}

/// Whether a file that begins so is a database.
pub(super) fn header(bytes: &[u8]) -> bool {
    bytes.starts_with(b"SQLite format 3\0")
}
