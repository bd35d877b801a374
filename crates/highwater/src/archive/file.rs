//! The file of an archive: out of sight until it is whole and durable, then its name in one step.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::direct::SequentialWriter;
use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::encode;

const SUFFIX: &[u8] = b".part";

/// Writes the file `path` through `write`, and asks `verify` before it gets its name. Whatever fails,
/// nothing of it stays.
pub(super) fn write<T, V>(
    path: &Path,
    replace: bool,
    env: &Env,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
    verify: impl FnOnce(&T) -> Result<V>,
) -> Result<(T, V)> {
    let text = || encode(path.as_os_str().as_bytes());
    let name = path
        .file_name()
        .ok_or_else(|| Error::input("the output has no file name").with_entry(text()))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    refuse_existing(path, replace)?;
    collect(parent, name)?;
    let part = Part::new(parent, name, env)?;
    let failed = |error| Error::io("writing the archive", error).with_entry(text());
    let mut direct = Direct(SequentialWriter::new(part.file.try_clone().map_err(failed)?));
    let written = write(&mut direct)?;
    direct.0.finish().map_err(failed)?;
    let verified = verify(&written)?;
    env.fault(FaultPoint::ExportSync)?;
    part.file.sync_all().map_err(failed)?;
    env.fault(FaultPoint::ExportRename)?;
    part.publish(&parent.join(name), replace)?;
    durable::sync_dir(parent)?;
    Ok((written, verified))
}

/// Conflict where the name is taken.
pub(super) fn refuse_existing(path: &Path, replace: bool) -> Result<()> {
    match durable::stat(path)? {
        Some(found) if !durable::is_file(&found) => {
            Err(Error::conflict("the output exists, and is not a file")
                .with_entry(encode(path.as_os_str().as_bytes())))
        }
        Some(_) if !replace => Err(exists(path)),
        _ => Ok(()),
    }
}

/// An archive goes past the page cache, as packs do; its end is written by who finishes it.
struct Direct(SequentialWriter);

impl Write for Direct {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file on its way; dropping it removes it.
struct Part {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Part {
    fn new(parent: &Path, name: &OsStr, env: &Env) -> Result<Part> {
        let path = parent.join(part_name(name, &hex::encode(env.random::<8>()?)));
        let failed = |error: std::io::Error| {
            Error::io("making the archive", error).with_entry(encode(path.as_os_str().as_bytes()))
        };
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let part = Part { path: path.clone(), file, published: false };
        // Who collects what the dead have left leaves alone what is locked.
        flock(&part.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| failed(error.into()))?;
        Ok(part)
    }

    fn publish(mut self, path: &Path, replace: bool) -> Result<()> {
        if replace {
            durable::replace(&self.path, path)?;
        } else {
            durable::rename_new(&self.path, path).map_err(|error| match error.kind() {
                Kind::Conflict => exists(path),
                _ => error,
            })?;
        }
        self.published = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.published {
            // What can't be removed, the next export to the same name collects.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::conflict("the output exists already")
        .with_entry(encode(path.as_os_str().as_bytes()))
        .with_remedy("give another name")
        .with_remedy(Remedy::ReplaceFile)
}

/// `.NAME.<hex>.part`
fn part_name(name: &OsStr, random: &str) -> OsString {
    let bytes = [b".", name.as_bytes(), b".", random.as_bytes(), SUFFIX].concat();
    OsStr::from_bytes(&bytes).to_owned()
}

/// Removes what exports to the same name have left that were killed.
fn collect(parent: &Path, name: &OsStr) -> Result<()> {
    let prefix = [b".", name.as_bytes(), b"."].concat();
    for found in durable::names(parent)? {
        let random = found.as_bytes().strip_prefix(prefix.as_slice());
        let random = random.and_then(|rest| rest.strip_suffix(SUFFIX));
        if !random.is_some_and(|hex| hex.len() == 16 && hex.iter().all(u8::is_ascii_hexdigit)) {
            continue;
        }
        let path = parent.join(&found);
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}
