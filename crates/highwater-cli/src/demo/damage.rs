//! A copy of a vault with one byte flipped.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use highwater::{Error, Result};

/// Copies a directory with all that is in it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |error| Error::io("the copy of the vault", error);
    std::fs::create_dir(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

/// Flips one byte in the middle of the largest object.
pub(super) fn flip_byte(vault: &Path) -> Result<()> {
    let failed = |error| Error::io("the copy of the vault", error);
    let mut largest = (0, PathBuf::new());
    find_largest(vault, &mut largest)?;
    let (size, path) = largest;
    let file = std::fs::File::options().read(true).write(true).open(path).map_err(failed)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, size / 2).map_err(failed)?;
    file.write_all_at(&[byte[0] ^ 1], size / 2).map_err(failed)
}

fn find_largest(dir: &Path, largest: &mut (u64, PathBuf)) -> Result<()> {
    let failed = |error| Error::io("the copy of the vault", error);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_dir() {
            find_largest(&entry.path(), largest)?;
        } else if metadata.len() > largest.0 {
            *largest = (metadata.len(), entry.path());
        }
    }
    Ok(())
}
