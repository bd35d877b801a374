//! What fuzzers call: the files of a database in memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use super::{Files, HEIGHT_KEY, MANIFEST, REGISTRY, VALUE_BYTES_MAX, newest};

/// Every byte of a database is read so often at most: once for its content, and once for what finds it.
const READS_MAX: u64 = 4;
/// What reading a database of no bytes may still ask for, in bytes.
const READS_MIN: u64 = 64 << 10;

struct Memory<'a> {
    files: BTreeMap<String, &'a [u8]>,
    read: Cell<u64>,
}

impl Files for Memory<'_> {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.files.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect())
    }

    fn read_at(&self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let content = self.files.get(file).ok_or(io::ErrorKind::NotFound)?;
        let part = content.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.expect("what is read lies in the file"));
        self.read.set(self.read.get() + buf.len() as u64);
        Ok(())
    }
}

/// Each file is a byte that names it, its length in two bytes, the lowest first, and its content: 0 is the
/// manifest, 1 the registry of keys, 2 to 15 are logs, and all above are tables. Checksums fit whatever they are.
pub(crate) fn files(bytes: &[u8]) {
    let mut files = BTreeMap::new();
    let mut rest = bytes;
    while let Some((&[kind, low, high], behind)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (content, behind) = behind.split_at(length);
        let name = match kind {
            0 => MANIFEST.to_owned(),
            1 => REGISTRY.to_owned(),
            2..16 => format!("{:05}.mem", kind - 1),
            _ => format!("{:06}.sst", kind - 15),
        };
        files.insert(name, content);
        rest = behind;
    }
    let size: usize = files.values().map(|content| content.len()).sum();
    let memory = Memory { files, read: Cell::new(0) };
    let reading = newest(&memory, HEIGHT_KEY);
    let read = memory.read.get();
    assert!(read <= READS_MIN + READS_MAX * size as u64, "{read} bytes were read of {size}");
    if let Ok(reading) = reading {
        let value = reading.newest.and_then(|stored| stored.value).unwrap_or_default();
        assert!(value.len() <= VALUE_BYTES_MAX);
    }
}
