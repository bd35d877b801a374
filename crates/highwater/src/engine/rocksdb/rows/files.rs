//! Where the files of a database are: in a directory, or in a capture.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::durable;
use crate::engine::rocksdb::{CURRENT_BYTES_MAX, regular_files};
use crate::engine::{EntryType, PartCapture, Piece, metadata};
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// What can only be streamed is held in memory while it is read; no more of one file.
const STREAMED_BYTES_MAX: u64 = 256 << 20;
/// A hole in what is streamed is written in pieces of this many bytes.
static ZEROS: [u8; 4096] = [0; 4096];

/// The files of one database.
pub(in super::super) trait Files {
    /// The sizes of its files, by their names.
    fn sizes(&self) -> &BTreeMap<String, u64>;

    /// Opens one of them, and says how many bytes of it are the database's.
    fn open(&mut self, name: &str) -> Result<(File, u64)>;

    /// What messages call it.
    fn entry(&self, name: &str) -> String;

    /// The content of CURRENT.
    fn current(&mut self) -> Result<Vec<u8>> {
        let (file, size) = self.open("CURRENT")?;
        let damaged = || Error::corrupt("CURRENT names no MANIFEST").with_entry("CURRENT");
        if size > CURRENT_BYTES_MAX {
            return Err(damaged());
        }
        bytes(&file, size).map_err(|error| Error::io("can't read CURRENT", error))
    }
}

/// The first bytes of a file.
pub(super) fn bytes(file: &File, size: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The content of a CURRENT that waits somewhere.
pub(super) fn small(place: &RootedPath) -> Result<Vec<u8>> {
    place.read(CURRENT_BYTES_MAX).map_err(|error| durable::met(place, "read", error))
}

fn missing(name: &str, entry: String) -> Error {
    Error::not_found(format!("{name} is missing, which the database needs")).with_entry(entry)
}

/// Those in a directory.
pub(in super::super) struct Dir {
    pub(in super::super) dir: RootedPath,
    sizes: BTreeMap<String, u64>,
}

impl Dir {
    pub(in super::super) fn open(dir: &RootedPath) -> Result<Dir> {
        let mut sizes = BTreeMap::new();
        for (name, place) in regular_files(dir)? {
            let Ok(name) = name.into_string() else { continue };
            sizes.insert(name, metadata::stamp(&place)?.size);
        }
        Ok(Dir { dir: dir.clone(), sizes })
    }
}

impl Files for Dir {
    fn sizes(&self) -> &BTreeMap<String, u64> {
        &self.sizes
    }

    fn open(&mut self, name: &str) -> Result<(File, u64)> {
        let Some(&size) = self.sizes.get(name) else {
            return Err(missing(name, self.entry(name)));
        };
        let place = self.dir.join(name);
        let file = place.open_file().map_err(|error| durable::met(&place, "open", error))?;
        Ok((file, size))
    }

    fn entry(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// Those of a captured part.
pub(super) struct Captured<'a> {
    part: &'a mut dyn PartCapture,
    root: RelPath,
    sizes: BTreeMap<String, u64>,
    /// Where in the capture each is.
    indices: BTreeMap<String, usize>,
}

impl<'a> Captured<'a> {
    pub(super) fn of(part: &'a mut dyn PartCapture, root: &RelPath) -> Captured<'a> {
        let (mut sizes, mut indices) = (BTreeMap::new(), BTreeMap::new());
        for (index, entry) in part.entries().iter().enumerate() {
            let inside = entry.path.parent().as_ref() == Some(root);
            let Some(name) = entry.path.name().to_str().filter(|_| inside) else { continue };
            if entry.kind == EntryType::File {
                sizes.insert(name.to_owned(), entry.size);
                indices.insert(name.to_owned(), index);
            }
        }
        Captured { part, root: root.clone(), sizes, indices }
    }

    /// A file in memory with what the capture streams.
    fn streamed(&mut self, name: &str, index: usize, size: u64) -> Result<File> {
        if size > STREAMED_BYTES_MAX {
            return Err(Error::input(format!(
                "{name} has {size} bytes: at most {STREAMED_BYTES_MAX} are taken into memory"
            ))
            .with_entry(self.entry(name)));
        }
        let failed = |error: std::io::Error| Error::io("can't hold it in memory", error);
        let made = memfd_create("captured", MemfdFlags::CLOEXEC);
        let mut file = File::from(made.map_err(|errno| failed(errno.into()))?);
        self.part.stream(index, &mut |piece| {
            match piece {
                Piece::Data(data) => file.write_all(data),
                Piece::Hole(mut length) => loop {
                    let most = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
                    if let Err(error) = file.write_all(&ZEROS[..most]) {
                        break Err(error);
                    }
                    length -= most as u64;
                    if length == 0 {
                        break Ok(());
                    }
                },
            }
            .map_err(failed)
        })?;
        Ok(file)
    }
}

impl Files for Captured<'_> {
    fn sizes(&self) -> &BTreeMap<String, u64> {
        &self.sizes
    }

    fn open(&mut self, name: &str) -> Result<(File, u64)> {
        let (Some(&index), Some(&size)) = (self.indices.get(name), self.sizes.get(name)) else {
            return Err(missing(name, self.entry(name)));
        };
        let file = match self.part.open(index)? {
            Some(file) => file,
            None => self.streamed(name, index, size)?,
        };
        Ok((file, size))
    }

    fn entry(&self, name: &str) -> String {
        self.root.join(name.as_ref()).to_string()
    }
}
