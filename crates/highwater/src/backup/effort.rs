//! How hard frames are compressed: as hard as the store is slow.
//!
//! The writer is either kept waiting by the workers, which compress, or by the store. Where it is the
//! workers, denser compression makes the backup longer; where it is the store, every byte less makes
//! it shorter, and the processor would only be idle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::vault::codec::Effort;

/// The effort is settled anew after so many stored bytes.
const WINDOW_BYTES: u64 = 16 << 20;
/// The writer must spend so many parts in ten of the time with the store for it to be the slower one,
const STORE_SLOW_PARTS: u32 = 8;
/// and must fall below so many for the workers to be it again.
const STORE_FAST_PARTS: u32 = 5;

/// The effort of the moment; the writer settles it, the workers ask for it.
#[derive(Default)]
pub(super) struct Gauge {
    dense: AtomicBool,
}

impl Gauge {
    pub(super) fn effort(&self) -> Effort {
        if self.dense.load(Ordering::Relaxed) { Effort::Dense } else { Effort::Fast }
    }
}

/// What the writer has seen since the effort was settled.
pub(super) struct Watch<'a> {
    gauge: &'a Gauge,
    waited: Duration,
    stored: Duration,
    bytes: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(gauge: &'a Gauge) -> Watch<'a> {
        Watch { gauge, waited: Duration::ZERO, stored: Duration::ZERO, bytes: 0 }
    }

    /// A frame of `bytes` was waited for, and then handed to the store.
    pub(super) fn note(&mut self, waited: Duration, stored: Duration, bytes: usize) {
        self.waited += waited;
        self.stored += stored;
        self.bytes += bytes as u64;
        if self.bytes < WINDOW_BYTES {
            return;
        }
        let all = self.waited + self.stored;
        if self.stored * 10 >= all * STORE_SLOW_PARTS {
            self.gauge.dense.store(true, Ordering::Relaxed);
        } else if self.stored * 10 < all * STORE_FAST_PARTS {
            self.gauge.dense.store(false, Ordering::Relaxed);
        }
        *self = Watch::new(self.gauge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_one_settles_it() {
        let gauge = Gauge::default();
        let mut watch = Watch::new(&gauge);
        let window = WINDOW_BYTES as usize;
        let [little, much] = [Duration::from_millis(1), Duration::from_millis(100)];
        assert_eq!(gauge.effort(), Effort::Fast, "until something is known");
        watch.note(little, much, window - 1);
        assert_eq!(gauge.effort(), Effort::Fast, "too little was seen");
        watch.note(little, much, 1);
        assert_eq!(gauge.effort(), Effort::Dense);
        watch.note(much, much * 2, window);
        assert_eq!(gauge.effort(), Effort::Dense, "neither is much slower: it stays");
        watch.note(much, little, window);
        assert_eq!(gauge.effort(), Effort::Fast);
    }
}
