//! Cutting a file's content into batches of whole units, at no more than a given rate.

use std::time::Duration;

use crate::control::Control;
use crate::engine::{Piece, Units};
use crate::error::Result;
use crate::vault::read::unit_shape;

use super::buffers::Buffers;

/// Pages are hashed together up to so many bytes; slices are hashed each by itself.
const PAGES_BYTES: u64 = 1 << 20;

/// Between two looks at whether the caller has cancelled.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Neighbouring units of a file; the last one of the file may be short.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
}

/// A piece of the file as whole units.
pub(super) enum Cut {
    Batch(Batch),
    Zeros { units: u64, bytes: u64 },
}

/// Collects pieces into batches.
pub(super) struct Batcher<'a> {
    buffers: &'a Buffers,
    unit: u64,
    batch: usize,
    bytes: Vec<u8>,
}

impl<'a> Batcher<'a> {
    pub(super) fn new(units: Units, size: u64, buffers: &'a Buffers) -> Batcher<'a> {
        let (unit, _) = unit_shape(units);
        let batch = match units {
            Units::Pages { .. } => PAGES_BYTES.max(unit) / unit * unit,
            Units::Slices => unit,
        };
        let bytes = buffers.take(batch.min(size) as usize);
        Batcher { buffers, unit, batch: batch as usize, bytes }
    }

    /// Takes a piece and hands on what is whole; returns the piece's length.
    pub(super) fn push(
        &mut self,
        piece: Piece<'_>,
        out: &mut dyn FnMut(Cut) -> Result<()>,
    ) -> Result<u64> {
        match piece {
            Piece::Data(data) => {
                self.extend(data, out)?;
                Ok(data.len() as u64)
            }
            Piece::Hole(length) => {
                self.hole(length, out)?;
                Ok(length)
            }
        }
    }

    fn extend(&mut self, mut data: &[u8], out: &mut dyn FnMut(Cut) -> Result<()>) -> Result<()> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(self.batch - self.bytes.len()));
            self.bytes.extend_from_slice(now);
            data = later;
            if self.bytes.len() == self.batch {
                self.flush(out)?;
            }
        }
        Ok(())
    }

    fn hole(&mut self, mut length: u64, out: &mut dyn FnMut(Cut) -> Result<()>) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let partial = self.bytes.len() as u64 % self.unit;
        let mut fill = if partial == 0 { 0 } else { (self.unit - partial).min(length) };
        length -= fill;
        let whole = length / self.unit;
        let rest = length % self.unit;
        loop {
            while fill > 0 {
                let part = fill.min(ZEROS.len() as u64);
                self.extend(&ZEROS[..part as usize], out)?;
                fill -= part;
            }
            if length == 0 {
                return Ok(());
            }
            if whole > 0 {
                self.flush(out)?;
                out(Cut::Zeros { units: whole, bytes: whole * self.unit })?;
            }
            fill = rest;
            length = 0;
        }
    }

    /// Hands on what is left; only the end of a file may leave less than a unit.
    pub(super) fn flush(&mut self, out: &mut dyn FnMut(Cut) -> Result<()>) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.bytes, self.buffers.take(self.batch));
        out(Cut::Batch(Batch { bytes }))
    }
}

impl Drop for Batcher<'_> {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.bytes));
    }
}

/// Bytes a second that may be read.
pub(super) struct Rate {
    bytes_max: Option<u64>,
    start: Option<Duration>,
    passed: u64,
}

impl Rate {
    pub(super) fn new(bytes_max: Option<u64>) -> Rate {
        Rate { bytes_max, start: None, passed: 0 }
    }

    /// Counts bytes that were read, and waits until they were due; a cancellation ends the waiting.
    pub(super) fn pass(&mut self, bytes: u64, control: &Control) -> Result<()> {
        let Some(max) = self.bytes_max else { return Ok(()) };
        let start = *self.start.get_or_insert_with(|| control.env.monotonic());
        self.passed += bytes;
        let due = start + Duration::from_secs_f64(self.passed as f64 / max as f64);
        while let Some(early) = due.checked_sub(control.env.monotonic()) {
            if early.is_zero() {
                break;
            }
            control.cancel.check()?;
            control.env.pause(early.min(PAUSE_MAX));
        }
        Ok(())
    }
}
