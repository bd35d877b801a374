//! Memory that goes round: what held a batch or a sealed frame holds the next one.
//!
//! Blocks of some megabytes that are taken and given back by different threads leave an allocator
//! with several times of what is in use, and with pages to be cleared again and again.

use parking_lot::Mutex;

/// So many blocks are kept at most; more than the queues hold are never in use.
const BLOCKS_MAX: usize = 32;

/// Blocks that nobody uses at the moment.
#[derive(Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty block with room for `bytes` at least.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut free = self.free.lock();
        let fitting = free.iter().rposition(|block| block.capacity() >= bytes);
        match fitting {
            Some(place) => free.swap_remove(place),
            None => {
                // One that is too small makes room for the one that takes its place.
                free.pop();
                drop(free);
                Vec::with_capacity(bytes)
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
    }
}
