//! How long a pause would be: what has to be linked and copied, at rates that were measured just
//! before.

use std::time::Duration;

use super::image::Work;
use crate::error::{Error, Result};

/// A look at a file that was linked before; what is new is linked in 5 to 20 µs.
const LINK: Duration = Duration::from_micros(10);
/// What a file costs besides its bytes: opened, made, looked at.
const FILE: Duration = Duration::from_micros(60);
/// What a clone costs, its file's writes waited for.
const CLONE: Duration = Duration::from_millis(3);
/// What it takes to stop a thread.
const THREAD: Duration = Duration::from_micros(50);
/// Bytes a second where nothing was measured.
const RATE: u64 = 400 << 20;
/// A long copy is slower than the short one that was measured: it has to wait for the disk.
const SLOWER: f64 = 2.0;

/// A pause that exceeds its estimate by this factor, and by this time, is worth a word.
const EXCESS_FACTOR: u32 = 2;
const EXCESS_MIN: Duration = Duration::from_millis(50);

/// What a pause would be, and for what.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    pub(super) pause: Duration,
    work: Work,
}

impl Estimate {
    /// Of so much work, in a node with so many threads; a look at it takes as long as `look`.
    pub(super) fn of(work: &Work, look: Duration, threads: usize) -> Estimate {
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let copied = if work.clones {
            CLONE * count(work.copies)
        } else {
            let rate = work.rate.map_or(RATE as f64, |rate| rate.max(1) as f64 / SLOWER);
            FILE * count(work.copies) + Duration::from_secs_f64(work.bytes as f64 / rate)
        };
        let pause = look + THREAD * count(threads as u64) + LINK * count(work.links) + copied;
        Estimate { pause, work: work.clone() }
    }

    /// Refuses a pause that would be longer than it may.
    pub(super) fn allow(&self, pause_max: Duration) -> Result<()> {
        if self.pause <= pause_max {
            return Ok(());
        }
        let Work { links, copies, bytes, .. } = self.work;
        Err(Error::conflict(format!(
            "the node would be stopped for about {} ms ({links} files linked, {copies} to copy \
             with {bytes} bytes), and {} ms are allowed",
            self.pause.as_millis().max(1),
            pause_max.as_millis()
        ))
        .with_remedies(super::ways_out()))
    }

    /// What to say of a pause that was far longer.
    pub(super) fn exceeded_by(&self, pause: Duration) -> Option<String> {
        let far = pause > self.pause * EXCESS_FACTOR && pause > self.pause + EXCESS_MIN;
        far.then(|| {
            format!(
                "the node was stopped for {} ms, where {} ms were expected",
                pause.as_millis(),
                self.pause.as_millis()
            )
        })
    }
}
