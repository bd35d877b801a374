//! Memory that goes round: what held a batch or a sealed frame holds the next one.
//!
//! Blocks of some megabytes that are taken and given back by different threads leave an allocator
//! with several times of what is in use, and with pages to be cleared again and again.

use parking_lot::Mutex;

/// So many blocks are kept at most.
const BLOCKS_MAX: usize = 16;
/// A block is so many times as long as what it is taken for, at most: a frame of pages does not hold that of a slice.
const LONGER_MAX: usize = 4;
/// A block is made one part in so many longer than it is asked to be, so that what held a frame holds it sealed, too.
const SPARE_PARTS: usize = 64;

/// Blocks that nobody uses at the moment.
#[derive(Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty block with room for `bytes` at least.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut free = self.free.lock();
        let fits = |block: &Vec<u8>| (bytes..=bytes * LONGER_MAX).contains(&block.capacity());
        match free.iter().rposition(fits) {
            Some(place) => free.swap_remove(place),
            None => {
                // One of another length makes room for the one that takes its place.
                free.pop();
                drop(free);
                Vec::with_capacity(bytes + bytes / SPARE_PARTS)
            }
        }
    }

    /// Takes a block back.
    pub(super) fn give(&self, mut block: Vec<u8>) {
        block.clear();
        let mut free = self.free.lock();
        if block.capacity() > 0 && free.len() < BLOCKS_MAX {
            free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_round_empty_and_is_large_enough() {
        let buffers = Buffers::default();
        let mut block = buffers.take(100);
        block.extend_from_slice(&[7; 100]);
        let place = block.as_ptr();
        buffers.give(block);
        let again = buffers.take(50);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        buffers.give(again);
        assert!(buffers.take(1000).capacity() >= 1000);
        assert_eq!(buffers.free.lock().len(), 0, "the small one was let go");
        buffers.give(Vec::with_capacity(1000));
        assert!(buffers.take(100).capacity() < 1000, "no small thing holds a large block");
    }
}
