//! How hard frames are compressed: as hard as the store is slow.
//!
//! The writer is either kept waiting by the workers, which compress, or by the store. Where it is the
//! workers, denser compression makes the backup longer; where it is the store, every byte less makes
//! it shorter, and the processor would only be idle. Where it is not idle, the store may be slow because
//! it shares the processor with us: then nothing is gained either.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::vault::codec::Effort;

/// The effort is settled anew after so many stored bytes.
const WINDOW_BYTES: u64 = 16 << 20;
/// The store is the slower one when the writer spends so many parts in ten of the time with it.
const STORE_SLOW_PARTS: u32 = 8;
/// The workers are the slower ones again when the writer spends fewer parts in ten than these with the store.
const STORE_FAST_PARTS: u32 = 5;

/// Denser compression costs nothing while so many parts in ten of the processors are idle.
const IDLE_PARTS: u64 = 2;

/// What the processors have done since the machine was started, in ticks of the kernel.
#[derive(Clone, Copy, Default)]
pub(super) struct Ticks {
    pub(super) idle: u64,
    pub(super) all: u64,
}

impl Ticks {
    /// Those of this moment; none where the kernel does not tell.
    pub(super) fn now() -> Ticks {
        std::fs::read_to_string("/proc/stat").map_or(Ticks::default(), |text| Ticks::parse(&text))
    }

    /// The first line of `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal,
    /// and the time of guests, which is user time too.
    fn parse(text: &str) -> Ticks {
        let line = text.lines().next().unwrap_or_default();
        let ticks = line.split_whitespace().skip(1).take(8).map(|field| field.parse().unwrap_or(0));
        ticks.enumerate().fold(Ticks::default(), |sum, (at, ticks): (usize, u64)| Ticks {
            idle: sum.idle + if matches!(at, 3 | 4) { ticks } else { 0 },
            all: sum.all + ticks,
        })
    }
}

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
pub(super) struct WriterWatch<'a> {
    gauge: &'a Gauge,
    waited: Duration,
    stored: Duration,
    bytes: u64,
    ticks: fn() -> Ticks,
    begin: Ticks,
}

impl<'a> WriterWatch<'a> {
    pub(super) fn new(gauge: &'a Gauge, ticks: fn() -> Ticks) -> WriterWatch<'a> {
        let (waited, stored) = (Duration::ZERO, Duration::ZERO);
        WriterWatch { gauge, waited, stored, bytes: 0, ticks, begin: ticks() }
    }

    /// Whether the processors had nothing to do for a good part of the time.
    fn idle(&self) -> bool {
        let now = (self.ticks)();
        let all = now.all.saturating_sub(self.begin.all);
        now.idle.saturating_sub(self.begin.idle) * 10 >= all * IDLE_PARTS
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
            self.gauge.dense.store(self.idle(), Ordering::Relaxed);
        } else if self.stored * 10 < all * STORE_FAST_PARTS {
            self.gauge.dense.store(false, Ordering::Relaxed);
        }
        *self = WriterWatch::new(self.gauge, self.ticks);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A machine that is idle for a third of the time.
    fn ticks() -> Ticks {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let calls = CALLS.fetch_add(1, Ordering::Relaxed);
        Ticks { idle: calls, all: calls * 3 }
    }

    #[test]
    fn the_slower_one_settles_it() {
        let gauge = Gauge::default();
        let mut watch = WriterWatch::new(&gauge, ticks);
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

    #[test]
    fn a_slow_store_is_no_reason_where_the_processors_are_busy() {
        let gauge = Gauge::default();
        let mut watch = WriterWatch::new(&gauge, || Ticks { idle: 0, all: ticks().all });
        let [little, much] = [Duration::from_millis(1), Duration::from_millis(100)];
        watch.note(little, much, WINDOW_BYTES as usize);
        assert_eq!(gauge.effort(), Effort::Fast);
    }

    #[test]
    fn the_ticks_of_the_kernel_are_summed() {
        let text = "cpu  10 1 20 300 40 0 5 2 9 0\ncpu0 5 0 0 0 0 0 0 0 0 0\n";
        let ticks = Ticks::parse(text);
        assert_eq!((ticks.idle, ticks.all), (340, 378));
        assert!(Ticks::now().all > 0);
    }
}
