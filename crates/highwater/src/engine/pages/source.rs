//! The file that is checked.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::engine::pages::bytes::part;
use crate::engine::pages::{Result, damaged};

/// A file at rest, and its size.
pub(crate) struct Source<'a> {
    file: &'a File,
    size: u64,
}

impl<'a> Source<'a> {
    /// The file, as long as it is now.
    pub(crate) fn new(file: &'a File) -> Result<Source<'a>> {
        Ok(Source { file, size: file.metadata()?.len() })
    }

    /// Bytes in the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from a place on.
    pub(crate) fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = u64::try_from(buffer.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > self.size) {
            return damaged(format!(
                "The file is cut: it has {} bytes, and what is at byte {offset} goes on behind its end.",
                self.size
            ));
        }
        Ok(self.file.read_exact_at(buffer, offset)?)
    }

    /// `length` bytes at a place; the caller has bound the length.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.fill(offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// Bytes that are read at once through a window.
const WINDOW_BYTES: u64 = 4096;

/// A part of a file that is read in small pieces, most of them one after the other.
pub(crate) struct Window {
    offset: u64,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Of `length` bytes from a place on.
    pub(crate) fn new(offset: u64, length: u64) -> Window {
        Window { offset, length, start: 0, bytes: Vec::new() }
    }

    /// `length` bytes at a place in the part; the caller has bound the length.
    pub(crate) fn get(&mut self, source: &Source<'_>, at: u64, length: u64) -> Result<&[u8]> {
        let end = self.start.saturating_add(self.bytes.len() as u64);
        if at < self.start || at.saturating_add(length) > end {
            let ahead = self.length.saturating_sub(at).min(WINDOW_BYTES.max(length));
            self.bytes.resize(usize::try_from(ahead).unwrap_or(0), 0);
            self.start = at;
            source.fill(self.offset.saturating_add(at), &mut self.bytes)?;
        }
        let from = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match part(&self.bytes, from, length) {
            Some(bytes) => Ok(bytes),
            None => damaged(format!("What is at byte {} is cut.", self.offset)),
        }
    }
}
