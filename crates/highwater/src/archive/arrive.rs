//! An archive that is read while it arrives, so that it need not be read again once it is written.

use std::io::{Read, Write};
use std::thread::ScopedJoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::control::Control;
use crate::error::{Error, Result};

use super::Received;
use super::read::Reader;

/// Pieces on their way from who writes to who reads.
const PIECES_MAX: usize = 4;

/// Writes to the file, and shows every byte to the reader.
pub(super) struct Arriving<'a> {
    out: &'a mut dyn Write,
    /// `None` once the reader has found that this is not an archive, and said why.
    shown: Option<Sender<Vec<u8>>>,
}

impl<'a> Arriving<'a> {
    pub(super) fn new(out: &'a mut dyn Write, shown: Sender<Vec<u8>>) -> Arriving<'a> {
        Arriving { out, shown: Some(shown) }
    }
}

impl Write for Arriving<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(bytes)?;
        if self.shown.as_ref().is_some_and(|shown| shown.send(bytes.to_vec()).is_err()) {
            self.shown = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// The pieces, as one stream; it ends when nobody can send any more.
struct Pieces {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.piece.len() {
            let Ok(piece) = self.pieces.recv() else { return Ok(0) };
            (self.piece, self.at) = (piece, 0);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Reads what arrives on a thread of `scope`, called `name` in errors, to its end marker.
pub(super) fn read<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    name: String,
    control: &'scope Control,
) -> (Sender<Vec<u8>>, ScopedJoinHandle<'scope, Result<Received>>) {
    let (shown, pieces) = bounded(PIECES_MAX);
    let reading = scope.spawn(move || {
        let pieces = Pieces { pieces, piece: Vec::new(), at: 0 };
        Reader::open(&name, Box::new(pieces), control)?.whole()
    });
    (shown, reading)
}

/// What was read.
pub(super) fn outcome(reading: ScopedJoinHandle<'_, Result<Received>>) -> Result<Received> {
    reading.join().unwrap_or_else(|_| Err(Error::bug("a reader of an archive panicked")))
}
