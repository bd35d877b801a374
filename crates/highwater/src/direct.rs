//! Large reads and writes past the page cache, where the file system can.
//!
//! A backup or a restore moves more bytes than a node's machine has to spare: through the page cache
//! they would push out the node's own pages, and copying them there costs more time than the disk
//! takes. Direct I/O asks for aligned memory, offsets and lengths; what does not fit, and what a file
//! system refuses, goes the ordinary way.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::rooted::RootedPath;

/// Memory, offset and length of a direct write are multiples of this: a page, which is a multiple of
/// every block size that file systems ask for.
const ALIGNMENT: usize = 4096;
/// How much is written at once: enough for a disk to run at its full speed. As much is gathered meanwhile.
const BUFFER_BYTES: usize = 4 << 20;
/// Shorter reads and writes go through the page cache: their cost is that of a call.
const DIRECT_BYTES_MIN: usize = 1 << 20;

/// Bytes in memory that begin at an aligned address, or as far from one as their place in a file.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    used: Range<usize>,
}

impl AlignedBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.used.clone()]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.used.clone()]
    }

    pub(crate) fn len(&self) -> usize {
        self.used.len()
    }

    /// Forgets the bytes; the memory stays for the next ones.
    pub(crate) fn clear(&mut self) {
        self.used = 0..0;
    }

    /// Adds bytes at the end.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.make_room(self.used.len() + bytes.len());
        let end = self.used.end + bytes.len();
        self.memory[self.used.end..end].copy_from_slice(bytes);
        self.used.end = end;
    }

    /// Room for `length` bytes in all; what is held is kept. The first ones begin at an aligned
    /// address.
    fn make_room(&mut self, length: usize) {
        let start = if self.used.is_empty() { self.aligned() } else { self.used.start };
        if start + length <= self.memory.len() {
            self.used = start..start + self.used.len();
            return;
        }
        let old = std::mem::take(self);
        // Twice what was held, so that growing by pieces moves each byte once or twice.
        self.memory = vec![0; length.max(2 * old.len()).max(ALIGNMENT) + ALIGNMENT];
        let start = self.aligned();
        self.memory[start..start + old.len()].copy_from_slice(old.bytes());
        self.used = start..start + old.len();
    }

    fn aligned(&self) -> usize {
        self.memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT)
    }

    /// Reads a range of the file at `path`, which must be there whole.
    pub(crate) fn read(&mut self, path: &Path, range: Range<u64>) -> io::Result<()> {
        let length = to_memory(range.end - range.start)?;
        self.clear();
        if length >= DIRECT_BYTES_MIN
            && let Ok(file) = open_direct(path)
            && self.read_direct(&file, &range)?
        {
            return Ok(());
        }
        self.make_room(length);
        self.used.end = self.used.start + length;
        let read = File::open(path)?.read_exact_at(self.bytes_mut(), range.start);
        if read.is_err() {
            self.clear();
        }
        read
    }

    /// The same past the page cache; `false` where the file system refuses that.
    fn read_direct(&mut self, file: &File, range: &Range<u64>) -> io::Result<bool> {
        let before = to_memory(range.start % ALIGNMENT as u64)?;
        let length = to_memory(range.end - range.start)?;
        let whole = (before + length).next_multiple_of(ALIGNMENT);
        self.make_room(whole);
        let start = self.used.start;
        let (offset, mut filled) = (range.start - before as u64, 0);
        while filled < before + length {
            let place = &mut self.memory[start + filled..start + whole];
            match rustix::io::pread(file, place, offset + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => filled += more,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.used = start + before..start + before + length;
        Ok(true)
    }
}

/// A file whose places are written in any order, by several threads at once.
#[derive(Debug)]
pub(crate) struct PlacedWriter {
    file: File,
    /// The same file, open for direct I/O; `None` where the file system has none.
    direct: Option<File>,
}

impl PlacedWriter {
    /// A writer of the file at `place`, which was just made as `file`.
    pub(crate) fn new(file: File, place: &RootedPath) -> PlacedWriter {
        let direct = place.open_with(OFlags::WRONLY | OFlags::DIRECT, Mode::empty());
        PlacedWriter { file, direct: direct.ok().map(File::from) }
    }

    /// Writes bytes at a place.
    pub(crate) fn write_at(&self, buffer: &AlignedBuffer, offset: u64) -> io::Result<()> {
        let bytes = buffer.bytes();
        let aligned = bytes.as_ptr().align_offset(ALIGNMENT) == 0
            && offset.is_multiple_of(ALIGNMENT as u64)
            && bytes.len() >= DIRECT_BYTES_MIN;
        let mut written = 0;
        if let (true, Some(direct)) = (aligned, &self.direct) {
            let whole = &bytes[..bytes.len() / ALIGNMENT * ALIGNMENT];
            written = write_whole_blocks(whole, |rest, done| {
                rustix::io::pwrite(direct, rest, offset + done as u64)
            })?;
        }
        self.file.write_all_at(&bytes[written..], offset + written as u64)
    }
}

fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path)
}

fn to_memory(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(io::Error::other)
}

/// A file that is written from its start to its end. Files shorter than what is written at once go
/// through the page cache; longer ones are written by a thread of their own, while the next bytes are gathered.
/// Nothing is durable before the caller syncs the file.
#[derive(Debug)]
pub(crate) struct SequentialWriter {
    file: Arc<File>,
    buffer: AlignedBuffer,
    /// Writes what was gathered; `None` until the buffer was full once.
    behind: Option<Behind>,
}

/// The thread that writes one buffer while the next one is filled.
#[derive(Debug)]
struct Behind {
    /// Buffers to write; `None` once there are no more.
    full: Option<SyncSender<AlignedBuffer>>,
    /// Buffers that were written, or why one was not.
    done: Receiver<io::Result<AlignedBuffer>>,
    /// Whether one is being written.
    writing: bool,
    thread: Option<JoinHandle<()>>,
}

impl Behind {
    fn start(file: &Arc<File>) -> io::Result<Behind> {
        let (full, to_write) = sync_channel::<AlignedBuffer>(1);
        let (written, done) = sync_channel(1);
        let file = Arc::clone(file);
        let work = move || {
            let mut direct = true;
            for mut buffer in to_write {
                let outcome = write_past_cache(&file, buffer.bytes(), &mut direct);
                buffer.clear();
                if written.send(outcome.map(|()| buffer)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("write".to_owned()).spawn(work)?;
        Ok(Behind { full: Some(full), done, writing: false, thread: Some(thread) })
    }

    /// Hands over a full buffer once the one before it is written; returns an empty one.
    fn write(&mut self, buffer: AlignedBuffer) -> io::Result<AlignedBuffer> {
        let empty = self.settle()?;
        let sent = self.full.as_ref().map(|full| full.send(buffer));
        self.writing = true;
        match sent {
            Some(Ok(())) => Ok(empty),
            _ => Err(ended()),
        }
    }

    /// Waits until all that was handed over is written; returns the buffer that held it.
    fn settle(&mut self) -> io::Result<AlignedBuffer> {
        if !std::mem::take(&mut self.writing) {
            return Ok(AlignedBuffer::default());
        }
        self.done.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            // What it could not write was told, unless the file is given up.
            let _ = thread.join();
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that writes has ended")
}

impl SequentialWriter {
    /// A writer of `file`, which is empty. Memory is taken with the first byte.
    pub(crate) fn new(file: File) -> SequentialWriter {
        SequentialWriter { file: Arc::new(file), buffer: AlignedBuffer::default(), behind: None }
    }

    /// The file; what was written may not be in it before [`SequentialWriter::finish`].
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Adds bytes at the end.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.buffer.len()));
            self.buffer.extend(now);
            bytes = later;
            if self.buffer.len() == BUFFER_BYTES {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let behind = match self.behind.take() {
            Some(behind) => behind,
            None => Behind::start(&self.file)?,
        };
        let behind = self.behind.insert(behind);
        self.buffer = behind.write(std::mem::take(&mut self.buffer))?;
        Ok(())
    }

    /// Writes what is left, and gives the memory back.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let mut direct = false;
        if let Some(mut behind) = self.behind.take() {
            behind.settle()?;
            direct = true;
        }
        let left = std::mem::take(&mut self.buffer);
        write_past_cache(&self.file, left.bytes(), &mut direct)
    }
}

/// Writes bytes at the end of what was written, past the page cache unless that was refused before. The flag is on for
/// this write alone, so that whoever else uses the file is not bound by it.
fn write_past_cache(mut file: &File, bytes: &[u8], direct: &mut bool) -> io::Result<()> {
    let whole = &bytes[..bytes.len() / ALIGNMENT * ALIGNMENT];
    let mut written = 0;
    if *direct && whole.as_ptr().align_offset(ALIGNMENT) == 0 {
        let flags = rustix::fs::fcntl_getfl(file)?;
        if rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).is_ok() {
            let done = write_whole_blocks(whole, |rest, _| rustix::io::write(file, rest));
            rustix::fs::fcntl_setfl(file, flags)?;
            written = done?;
        }
        *direct = written == whole.len();
    }
    file.write_all(&bytes[written..])
}

/// Writes until all is written, or until the file system refuses to go on in this way; returns how
/// much was written. `write` is handed the rest, and how much was written before it.
fn write_whole_blocks(
    bytes: &[u8],
    write: impl Fn(&[u8], usize) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match write(&bytes[written..], written) {
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

    #[test]
    fn every_range_is_read_as_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..3 * DIRECT_BYTES_MIN + 777).map(|at| (at % 253) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let whole = content.len();
        let mut buffer = AlignedBuffer::default();
        for range in [0..whole, 1..whole, 4095..DIRECT_BYTES_MIN + 4097, 0..1, 5..5, 9..5000] {
            buffer.read(&path, range.start as u64..range.end as u64).unwrap();
            assert!(buffer.bytes() == &content[range.clone()], "{range:?}");
        }
        for range in [whole as u64..whole as u64 + 1, 9..whole as u64 + 9] {
            let error = buffer.read(&path, range).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn places_are_written_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writer =
            PlacedWriter::new(File::create(&path).unwrap(), &RootedPath::of(&path).unwrap());
        let mut meant = vec![0; 3 * DIRECT_BYTES_MIN + 9];
        let mut buffer = AlignedBuffer::default();
        for (at, length) in [(DIRECT_BYTES_MIN, 2 * DIRECT_BYTES_MIN + 9), (0, 4096), (5000, 70)] {
            buffer.clear();
            for piece in vec![at as u8 + 1; length].chunks(5003) {
                buffer.extend(piece);
            }
            writer.write_at(&buffer, at as u64).unwrap();
            meant[at..at + length].fill(at as u8 + 1);
        }
        assert!(std::fs::read(&path).unwrap() == meant);
    }

    /// A file that takes no direct I/O, and one that takes it no further: the rest goes the other way.
    #[test]
    fn a_refusal_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        write_past_cache(&file, &[7; 3 * ALIGNMENT + 9], &mut false).unwrap();
        assert!(std::fs::read(&path).unwrap() == [7; 3 * ALIGNMENT + 9]);

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

    /// What the thread could not write is told by the next write or by the end, and nothing is said to be written.
    #[test]
    fn a_failed_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"").unwrap();
        for more in [0, BUFFER_BYTES] {
            let mut writer = SequentialWriter::new(File::open(&path).unwrap());
            writer.write(&vec![7; BUFFER_BYTES]).unwrap();
            let outcome = writer.write(&vec![7; more]).and_then(|()| writer.finish());
            assert_eq!(outcome.unwrap_err().raw_os_error(), Some(Errno::BADF.raw_os_error()));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
