//! Copies of files, as cheap as the file system makes them: it shares their extents, or only what is stored is copied.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// How much is copied between two looks at whether to go on.
const PIECE_BYTES: usize = 1 << 20;

/// What a copy took.
pub(crate) enum Copied {
    /// The file system shares the extents.
    Cloned,
    /// This many bytes.
    Bytes(u64),
}

/// Copies the first `size` bytes of a file into an empty one: all its extents where the file system can share them,
/// else bytes, holes left out. `go_on` is asked before each piece.
///
/// # Errors
/// What `go_on` says; conflict where the file is shorter by now; those of the file system.
pub(crate) fn copy(
    source: &File,
    target: &File,
    size: u64,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<Copied> {
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(Copied::Cloned);
    }
    let failed = |source| Error::io("can't copy it", source);
    let holes = holes(source, size).map_err(failed)?;
    target.set_len(size).map_err(failed)?;
    let mut buffer = vec![0; PIECE_BYTES.min(usize::try_from(size).unwrap_or(PIECE_BYTES))];
    let (mut position, mut bytes) = (0, 0);
    for (hole, length) in holes.into_iter().chain([(size, 0)]) {
        while position < hole {
            go_on()?;
            let most = usize::try_from(hole - position).unwrap_or(usize::MAX).min(buffer.len());
            match source.read_at(&mut buffer[..most], position) {
                Ok(0) => return Err(Error::conflict("it became shorter while it was copied")),
                Ok(read) => {
                    target.write_all_at(&buffer[..read], position).map_err(failed)?;
                    position += read as u64;
                    bytes += read as u64;
                }
                Err(source) if source.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(failed(source)),
            }
        }
        position = hole + length;
    }
    Ok(Copied::Bytes(bytes))
}

/// The holes of the first `size` bytes of an open file: offset and length, sorted, not touching.
pub(crate) fn holes(file: impl AsFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut holes = Vec::new();
    let mut position = 0;
    while position < size {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(position)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            // A file system that can't tell has no holes.
            Err(Errno::INVAL) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        if data > position {
            holes.push((position, data - position));
        }
        if data == size {
            break;
        }
        position = match rustix::fs::seek(&file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(size),
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
    }
    Ok(holes)
}
