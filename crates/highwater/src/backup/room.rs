//! How many bytes may be on their way from the assembler to the writer.
//!
//! Frames of pages are sixty times shorter than those of slices: a bound on their number would let
//! the workers stand still whenever the writer waits for its disk.

use parking_lot::{Condvar, Mutex};

use super::buffers::Buffers;
use super::messages::Halt;

/// Bytes of frames between assembler and writer, before compression.
const BYTES_MAX: usize = 24 << 20;

/// What assembler and writer share of memory.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    /// Given back by the writer, for frames to come.
    pub(super) buffers: &'a Buffers,
    /// Taken by the assembler, given back by the writer.
    pub(super) room: &'a Room,
}

/// Room for so many bytes; whoever takes some waits until there is enough.
pub(super) struct Room {
    state: Mutex<RoomState>,
    changed: Condvar,
}

struct RoomState {
    taken: usize,
    closed: bool,
}

impl Room {
    pub(super) fn new() -> Room {
        let state = Mutex::new(RoomState { taken: 0, closed: false });
        Room { state, changed: Condvar::new() }
    }

    /// Takes room for `bytes`; for more than there is in all, once nothing else is on its way.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Halt> {
        let mut state = self.state.lock();
        let full = |state: &mut RoomState| {
            !state.closed && state.taken > 0 && state.taken + bytes > BYTES_MAX
        };
        self.changed.wait_while(&mut state, full);
        if state.closed {
            return Err(Halt::Stopped);
        }
        state.taken += bytes;
        Ok(())
    }

    /// Gives room back.
    pub(super) fn give(&self, bytes: usize) {
        self.state.lock().taken -= bytes;
        self.changed.notify_all();
    }

    /// Lets nobody wait any more once it is dropped: the writer has ended, however it did.
    pub(super) fn closing(&self) -> Closing<'_> {
        Closing(self)
    }
}

/// Closes the room when it is dropped.
pub(super) struct Closing<'a>(&'a Room);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_waits_for_some_or_for_the_end() {
        let room = Room::new();
        room.take(BYTES_MAX + 1).ok().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| room.take(1).is_ok());
            room.give(BYTES_MAX + 1);
            assert!(waiting.join().unwrap());
            room.take(BYTES_MAX - 1).ok().unwrap();
            let waiting = scope.spawn(|| room.take(1).is_ok());
            drop(room.closing());
            assert!(!waiting.join().unwrap(), "the writer has ended");
        });
    }
}
