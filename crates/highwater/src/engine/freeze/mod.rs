//! Freeze: a running node that nobody can change is stopped for as long as an image of its files
//! takes, and continued whatever happens.
//!
//! What is captured is what the node's processes would have left had they been killed at that
//! instant: the state from which an engine recovers that survives a crash of its process. It says
//! nothing of a power loss.

mod estimate;
mod image;
mod processes;
mod stop;
mod supervisor;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use supervisor::supervise;

use super::{Barrier, Captured, Layout, barrier, discover, rocksdb, scratch};
use crate::control::Cancel;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Result};
use image::{Ground, Pace};
use processes::{Files, Writer};
use stop::{Stopping, while_stopped};

/// How the name of the private directory of an image begins.
const IMAGE_PREFIX: &str = ".highwater-freeze-";

/// How long a node is stopped at most, where nothing else is asked for: what a peer or a client
/// takes for a slow answer, not for a lost connection.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A pause that exceeds its estimate by this factor, and by this time, is worth a word.
const EXCESS_FACTOR: u32 = 2;
const EXCESS_MIN: Duration = Duration::from_millis(50);

/// The ways out of a pause that would be too long.
const WAYS_OUT: &str = "allow more (--max-pause), keep the node directory on a file system with \
                        reflinks (XFS, Btrfs), or use a checkpoint hook";

/// Which node is stopped, and for how long at most.
///
/// Not for a process that another thread of this one waits for: it would be told of the stop.
#[derive(Clone, Debug, Default)]
pub struct Freeze {
    /// A process of the node. All others that can write a file of it are stopped with it.
    pub pid: u32,
    /// How long they are stopped at most; `None`: one second.
    pub pause_max: Option<Duration>,
    /// A program and its arguments that run [`supervise`] over standard input and output. It is
    /// needed where ptrace is not permitted: the node is stopped by SIGSTOP then, and this is who
    /// continues it should this process die.
    pub supervisor: Option<Vec<OsString>>,
    /// Gives the capture up, and continues the node; a backup puts its own here.
    pub cancel: Cancel,
}

/// What the last look at a node showed, at which nobody was found any more who had to be stopped.
type Still = Mutex<Option<(Layout, Files)>>;

/// Captures the node while it stands still.
pub(super) fn capture(layout: &Layout, freeze: &Freeze, env: &Env) -> Result<Captured> {
    processes::exists(freeze.pid)?;
    let begin = env.monotonic();
    let before = discover::discover_still(&layout.dir, &layout.options)?;
    refuse_faulty(&before)?;
    let files = Files::of(&before)?;
    let writers = writers(&before, &files, &BTreeSet::new())?;
    named_is_among(freeze.pid, &writers)?;
    let look = env.monotonic().saturating_sub(begin);

    let pause_max = freeze.pause_max.unwrap_or(PAUSE_MAX);
    let mut ground = Ground::prepare(&before, env)?;
    let threads = writers.iter().map(|writer| processes::threads(writer.pid).len()).sum();
    let estimate = ground.estimate(&before, look, threads, env)?;
    estimate.allow(pause_max)?;

    let still: Still = Mutex::new(None);
    let others = |stopped: &BTreeSet<u32>| {
        let now = discover::discover_still(&layout.dir, &layout.options)?;
        let files = Files::of(&now)?;
        let found = self::writers(&now, &files, stopped)?;
        *still.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, files));
        Ok(found)
    };
    let how = Stopping {
        env,
        cancel: &freeze.cancel,
        pause_max,
        supervisor: freeze.supervisor.as_deref(),
        others: &others,
    };
    let (image, pause) = while_stopped(&writers, &how, |expired| {
        env.fault(FaultPoint::FreezeStopped)?;
        let seen = still.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (now, files) = seen.ok_or_else(|| Error::bug("a stopped node was not looked at"))?;
        refuse_faulty(&now)?;
        let pace = Pace { expired, cancel: &freeze.cancel, env };
        let time = env.now();
        let parts = ground.take(&now, &pace)?;
        files.unmoved(&now)?;
        Ok((now, time, parts))
    })?;
    env.fault(FaultPoint::FreezeContinued)?;
    let (layout, time, parts) = image;
    let mut warnings = Vec::new();
    if pause > estimate.pause * EXCESS_FACTOR && pause > estimate.pause + EXCESS_MIN {
        warnings.push(format!(
            "the node was stopped for {} ms, where {} ms were expected",
            pause.as_millis(),
            estimate.pause.as_millis()
        ));
    }
    Ok(Captured {
        parts: image::captures(parts, env)?,
        layout,
        barrier: Barrier::Frozen,
        time,
        pause,
        marks: BTreeMap::new(),
        warnings,
    })
}

fn refuse_faulty(layout: &Layout) -> Result<()> {
    match layout.refusals.first() {
        Some(refusal) => Err(barrier::refused(refusal)),
        None => Ok(()),
    }
}

/// Who can write the files of `layout` and is not stopped yet; refused where one of them can't be
/// stopped, or captured so.
fn writers(layout: &Layout, files: &Files, stopped: &BTreeSet<u32>) -> Result<Vec<Writer>> {
    let look = processes::look(files)?;
    if !look.hidden.is_empty() {
        return Err(Error::conflict(format!(
            "the node is used by processes that this user may not stop: {}",
            look.hidden.join(", ")
        ))
        .hint("run as root"));
    }
    let (known, fresh): (Vec<Writer>, Vec<Writer>) =
        look.writers.into_values().partition(|writer| stopped.contains(&writer.pid));
    known.iter().try_for_each(|writer| processes::refuse_memory(writer, layout))?;
    processes::refuse(&fresh, layout)?;
    Ok(fresh)
}

/// A process that writes nothing here is the wrong one, however well the others could be stopped.
fn named_is_among(pid: u32, writers: &[Writer]) -> Result<()> {
    if writers.iter().any(|writer| writer.pid == pid) {
        return Ok(());
    }
    let name = super::process::command(pid);
    let error =
        Error::conflict(format!("process {pid} ({name}) has no file of the node open for writing"));
    let names: Vec<String> = writers.iter().map(Writer::named).collect();
    Err(if names.is_empty() {
        error.hint("nobody has: back up without --freeze; or run as root to see all processes")
    } else {
        error.hint(format!("these have: {}", names.join(", ")))
    })
}

/// Removes the images that captures left which did not live to do so, whatever captures now.
pub(super) fn collect(layout: &Layout) -> Result<()> {
    let homes: BTreeSet<PathBuf> =
        layout.parts.iter().map(|part| rocksdb::scratch_parent(&layout.dir, &part.root)).collect();
    let mut there = homes.iter().filter(|home| home.is_dir());
    there.try_for_each(|home| scratch::collect(home, IMAGE_PREFIX))
}
