//! How long a pause would be: what has to be linked and copied, at rates that were measured just
//! before.

use std::time::Duration;

use super::super::rocksdb::FileName;
use super::super::{EngineKind, Layout};
use super::image::Ground;
use crate::env::Env;
use crate::error::{Error, Result};

/// A link, measured: 5 µs.
const LINK: Duration = Duration::from_micros(10);
/// What a file costs besides its bytes: opened, made, looked at.
const FILE: Duration = Duration::from_micros(60);
/// What a clone costs, its file's writes waited for.
const CLONE: Duration = Duration::from_millis(3);
/// What it takes to stop a thread.
const THREAD: Duration = Duration::from_micros(50);
/// Bytes a second where nothing was measured.
const RATE: u64 = 400 << 20;

/// What a pause would be for.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    pub(super) pause: Duration,
    links: u64,
    copies: u64,
    bytes: u64,
}

impl Ground {
    /// Counts what would be linked and copied; a look at the node takes as long as `look`.
    pub(super) fn estimate(
        &mut self,
        layout: &Layout,
        look: Duration,
        threads: usize,
        env: &Env,
    ) -> Result<Estimate> {
        let (mut links, mut copies, mut bytes) = (0, 0, 0u64);
        for part in &layout.parts {
            for path in &part.entries {
                // A running node removes files at any time.
                let Ok(found) = std::fs::symlink_metadata(path.under(&layout.dir)) else {
                    continue;
                };
                if !found.is_file() || found.len() == 0 {
                    continue;
                }
                let immutable = part.engine == EngineKind::RocksDb
                    && matches!(
                        FileName::of(path.name()),
                        Some(FileName::Table(_) | FileName::Blob(_))
                    );
                if immutable && self.links {
                    links += 1;
                } else {
                    copies += 1;
                    bytes += found.len();
                }
            }
        }
        let _ = env;
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let copied = if self.clones {
            CLONE * count(copies)
        } else {
            FILE * count(copies) + Duration::from_secs_f64(bytes as f64 / RATE as f64)
        };
        let pause = look + THREAD * count(threads as u64) + LINK * count(links) + copied;
        Ok(Estimate { pause, links, copies, bytes })
    }
}

impl Estimate {
    /// Refuses a pause that would be longer than it may.
    pub(super) fn allow(&self, pause_max: Duration) -> Result<()> {
        if self.pause <= pause_max {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "the node would be stopped for about {} ms ({} files to link, {} to copy with {} bytes), \
             and {} ms are allowed",
            self.pause.as_millis(),
            self.links,
            self.copies,
            self.bytes,
            pause_max.as_millis()
        ))
        .hint(super::WAYS_OUT))
    }
}
