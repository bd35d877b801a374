//! The files of kits: whole and durable before they have their name, readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::durable;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// No kit is longer: some ten thousand channels.
pub(super) const KIT_BYTES_MAX: u64 = 16 << 20;

/// Reads a sealed kit, or any file of at most 16 MiB.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let (file, length) = open(path)?;
    read(path, file, length).map(|mut bytes| std::mem::take(&mut *bytes))
}

/// Reads a file with secrets: denied where others than its owner may read it.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let (file, length) = open(path)?;
    private(path, file, length)
}

/// The same in a node directory.
pub(super) fn read_private_at(place: &RootedPath) -> Result<Zeroizing<Vec<u8>>> {
    let path = place.path();
    let file = place.open_file().map_err(|error| failed(&path, error))?;
    let length = bounded(&path, &file)?;
    private(&path, file, length)
}

fn private(path: &Path, file: File, length: u64) -> Result<Zeroizing<Vec<u8>>> {
    let mode = file.metadata().map_err(|error| failed(path, error))?.permissions().mode();
    if mode & 0o077 != 0 {
        let name = path.display().to_string();
        return Err(Error::denied(format!("{name} may be read by others than its owner"))
            .with_remedy(format!("chmod 600 {name}"))
            .with_entry(name));
    }
    read(path, file, length)
}

/// Writes a file of mode 0600 and at most 16 MiB: whole and durable, or not at all. An existing file of
/// that name is a conflict, or is replaced if that is allowed.
pub fn write_file(path: &Path, bytes: &[u8], replace: bool, env: &Env) -> Result<()> {
    let name = path.file_name().ok_or_else(|| {
        Error::input("the path has no file name").with_entry(path.display().to_string())
    })?;
    if bytes.len() as u64 > KIT_BYTES_MAX {
        return Err(Error::input("a kit of more than 16 MiB is none")
            .with_entry(path.display().to_string()));
    }
    let mut fresh = std::ffi::OsString::from(".");
    fresh.push(name);
    fresh.push(format!(".{}", hex::encode(env.random::<8>()?)));
    let fresh = path.with_file_name(fresh);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let written = write_new(&fresh, bytes)
        .map_err(|error| cant_write(path, error))
        .and_then(|()| rename(&fresh, path, replace));
    if let Err(error) = written {
        // The first error says more than one of cleaning up after it.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    durable::sync_dir(parent)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn rename(from: &Path, to: &Path, replace: bool) -> Result<()> {
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    rustix::fs::renameat_with(CWD, from, CWD, to, flags).map_err(|error| match error {
        Errno::EXIST => Error::conflict(format!("{} exists already", to.display()))
            .with_entry(to.display().to_string())
            .with_remedy("give another name, or move it away"),
        Errno::INVAL | Errno::NOSYS => cant_write(to, error.into()).with_remedy(
            "this file system can't create a file in one step: write it elsewhere, and copy it",
        ),
        _ => cant_write(to, error.into()),
    })
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|error| failed(path, error))?;
    let length = bounded(path, &file)?;
    Ok((file, length))
}

/// The length of a file that can be a kit.
fn bounded(path: &Path, file: &File) -> Result<u64> {
    let metadata = file.metadata().map_err(|error| failed(path, error))?;
    let name = path.display().to_string();
    if !metadata.is_file() {
        return Err(Error::input(format!("{name} is not a file")).with_entry(name));
    }
    if metadata.len() > KIT_BYTES_MAX {
        return Err(Error::input(format!("{name} is too long for a kit")).with_entry(name));
    }
    Ok(metadata.len())
}

fn read(path: &Path, file: File, length: u64) -> Result<Zeroizing<Vec<u8>>> {
    // Room for all of it: a buffer that grows leaves copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(length).read_to_end(&mut bytes).map_err(|error| failed(path, error))?;
    Ok(bytes)
}

fn failed(path: &Path, error: io::Error) -> Error {
    let name = path.display().to_string();
    Error::io(format!("{name} can't be read"), error).with_entry(name)
}

fn cant_write(path: &Path, error: io::Error) -> Error {
    let name = path.display().to_string();
    Error::io(format!("{name} can't be written"), error).with_entry(name)
}
