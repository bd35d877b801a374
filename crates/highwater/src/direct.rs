//! Large files written from start to end past the page cache, where the file system can.
//!
//! A backup or a restore moves more bytes than a node's machine has to spare: through the page cache
//! they would push out the node's own pages, and copying them there costs more time than the disk
//! takes. Direct I/O asks for aligned memory, offsets and lengths; what is left over at the end of
//! a file is written in the ordinary way.

use std::fs::File;
use std::io::{self, Write as _};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Memory, offset and length of a direct write are multiples of this: a page, which is a multiple of
/// every block size that file systems ask for.
const ALIGNMENT: usize = 4096;
/// So much is written at once: enough for a disk to run at its full speed.
const BUFFER_BYTES: usize = 8 << 20;

/// A file that is written from its start to its end. Files shorter than the buffer are written in
/// the ordinary way. Nothing is durable before the caller syncs the file.
#[derive(Debug)]
pub(crate) struct SequentialWriter {
    file: File,
    /// One alignment longer than what is used, so that an aligned part can be found in it.
    memory: Vec<u8>,
    start: usize,
    filled: usize,
    /// Whether direct I/O may still be tried: no write was refused.
    direct: bool,
    /// Whether the buffer was full once.
    large: bool,
}

impl SequentialWriter {
    /// A writer of `file`, which is empty. Memory is taken with the first byte.
    pub(crate) fn new(file: File) -> SequentialWriter {
        SequentialWriter { file, memory: Vec::new(), start: 0, filled: 0, direct: true, large: false }
    }

    /// The file; what was written may not be in it before [`SequentialWriter::finish`].
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Adds bytes at the end.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.memory.is_empty() {
            self.memory = vec![0; BUFFER_BYTES + ALIGNMENT];
            self.start = self.memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.filled));
            let begin = self.start + self.filled;
            self.memory[begin..begin + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == BUFFER_BYTES {
                self.write_direct(BUFFER_BYTES)?;
                self.filled = 0;
                self.large = true;
            }
        }
        Ok(())
    }

    /// Writes what is left, and gives the memory back.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        // A file that fitted into the buffer is small: the page cache is the right place for it.
        let whole = if self.large { self.filled / ALIGNMENT * ALIGNMENT } else { 0 };
        if whole > 0 {
            self.write_direct(whole)?;
        }
        self.file.write_all(&self.memory[self.start + whole..self.start + self.filled])?;
        self.filled = 0;
        self.memory = Vec::new();
        Ok(())
    }

    /// Writes the first `length` bytes of the buffer, past the page cache where that is not refused.
    /// The flag is on for this write alone, so that whoever else uses the file is not bound by it.
    fn write_direct(&mut self, length: usize) -> io::Result<()> {
        let bytes = &self.memory[self.start..self.start + length];
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        self.direct = self.direct
            && bytes.as_ptr().align_offset(ALIGNMENT) == 0
            && rustix::fs::fcntl_setfl(&self.file, flags | OFlags::DIRECT).is_ok();
        if !self.direct {
            return self.file.write_all(bytes);
        }
        let written = write_whole_blocks(&self.file, bytes);
        rustix::fs::fcntl_setfl(&self.file, flags)?;
        let written = written?;
        if written < length {
            self.direct = false;
            self.file.write_all(&self.memory[self.start + written..self.start + length])?;
        }
        Ok(())
    }
}

/// Writes until all is written, or until the file system refuses to go on in this way; returns how
/// much was written.
fn write_whole_blocks(file: &File, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(file, &bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
        // A short write leaves an offset at which the next direct one would be refused.
        if !written.is_multiple_of(ALIGNMENT) {
            break;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[usize]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut writer = SequentialWriter::new(File::create(&path).unwrap());
        let mut meant = Vec::new();
        for (number, &length) in pieces.iter().enumerate() {
            let piece: Vec<u8> = (0..length).map(|at| (at * 7 + number) as u8).collect();
            writer.write(&piece).unwrap();
            meant.extend(piece);
        }
        writer.finish().unwrap();
        let found = std::fs::read(&path).unwrap();
        assert!(found == meant, "{pieces:?}: {} of {} bytes", found.len(), meant.len());
    }

    #[test]
    fn every_byte_arrives_whatever_the_lengths() {
        written(&[]);
        written(&[0, 1]);
        written(&[BUFFER_BYTES]);
        written(&[BUFFER_BYTES - 1, 1, 1]);
        written(&[3, BUFFER_BYTES, 5000, 2 * BUFFER_BYTES, 17]);
    }

    /// A file that takes no direct I/O, and one that takes it no further: the rest goes the other way.
    #[test]
    fn a_refusal_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut writer = SequentialWriter::new(File::create(&path).unwrap());
        writer.direct = false;
        writer.write(&vec![7; BUFFER_BYTES + 9]).unwrap();
        writer.finish().unwrap();
        assert!(std::fs::read(&path).unwrap() == vec![7; BUFFER_BYTES + 9]);

        // At an odd offset the file system refuses.
        let mut file = File::create(&path).unwrap();
        file.write_all(b"odd").unwrap();
        let mut writer = SequentialWriter::new(file);
        writer.write(&vec![9; BUFFER_BYTES + 1]).unwrap();
        writer.finish().unwrap();
        let found = std::fs::read(&path).unwrap();
        assert_eq!(&found[..3], b"odd");
        assert!(found[3..] == vec![9; BUFFER_BYTES + 1]);
    }
}
