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
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use supervisor::supervise;

use super::{Barrier, Captured, FoundPart, Layout, discover, scratch};
use crate::control::Cancel;
use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;
use estimate::Estimate;
use image::Ground;
pub(super) use image::{Pace, copy, no_room};
use processes::{Files, Writer};
use stop::{Holder, Stopping, while_held};

/// How the name of the private directory of an image begins.
pub(super) const IMAGE_PREFIX: &str = ".highwater-freeze-";

/// How long a node is stopped at most, where nothing else is asked for: what a peer or a client
/// takes for a slow answer, not for a lost connection.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often other writers are looked for: those that are stopped start no more.
const ROUNDS_MAX: u32 = 64;

/// The ways out of a pause that would be too long.
fn ways_out() -> [Remedy; 3] {
    let reflinks = "keep the node directory on a file system with reflinks (XFS, Btrfs)";
    [Remedy::LongerPause, reflinks.into(), Remedy::CheckpointHook]
}

/// Which node is stopped, and for how long at most.
///
/// Not for a process that another thread of this one waits for: it would be told of the stop.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
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

impl Freeze {
    /// Stops the node of this process for a second at most, by ptrace.
    pub fn of(pid: u32) -> Freeze {
        Freeze { pid, ..Freeze::default() }
    }
}

/// What a look at a node shows: at the last one before the image is taken, nobody is found any more
/// who has to be stopped.
struct Seen {
    layout: Layout,
    files: Files,
    /// Files that somebody has in memory, where a store changes them without a trace.
    mapped: BTreeSet<RelPath>,
}

/// All that is known and done before the node is stopped.
struct Prepared {
    writers: Vec<Writer>,
    mapped: BTreeSet<RelPath>,
    ground: Ground,
    estimate: Estimate,
    warnings: Vec<String>,
}

/// Captures the node while it stands still.
pub(super) fn capture(layout: &Layout, freeze: &Freeze, env: &Env) -> Result<Captured> {
    let Prepared { writers, mapped, mut ground, estimate, warnings } =
        prepare(layout, freeze, env)?;
    let how = Stopping {
        env,
        cancel: &freeze.cancel,
        pause_max: freeze.pause_max.unwrap_or(PAUSE_MAX),
        supervisor: freeze.supervisor.as_deref(),
    };
    let ((seen, time, parts), pause) = while_held(how, |holder| {
        let seen = stand_still(layout, writers, holder)?;
        env.fault(FaultPoint::FreezeStopped)?;
        let time = env.now();
        let mapped = seen.mapped.union(&mapped).cloned().collect();
        let pace = Pace { expired: holder.expired, cancel: &freeze.cancel, env };
        let parts = ground.take(&seen.layout, &mapped, &pace)?;
        seen.files.unmoved(&seen.layout)?;
        Ok((seen, time, parts))
    })?;
    env.fault(FaultPoint::FreezeContinued)?;
    Ok(Captured {
        points: Vec::new(),
        parts: image::captures(parts, env)?,
        layout: seen.layout,
        barrier: Barrier::Frozen,
        time,
        pause,
        marks: BTreeMap::new(),
        warnings: warnings.into_iter().chain(estimate.exceeded_by(pause)).collect(),
    })
}

/// Refuses what can't be captured, copies what rests, and estimates the pause, while the node runs.
fn prepare(layout: &Layout, freeze: &Freeze, env: &Env) -> Result<Prepared> {
    processes::exists(freeze.pid)?;
    let begin = env.monotonic();
    let (seen, mut writers) = look(layout, &BTreeSet::new())?;
    let said = writers.is_empty().then(|| Writer::said(freeze.pid));
    match &said {
        // A node that opens each file for a moment has none open at most looks.
        Some(said) => {
            processes::refuse(std::slice::from_ref(said), layout)?;
            writers.push(said.clone());
        }
        None => named_is_among(freeze.pid, &writers)?,
    }
    let look_time = env.monotonic().saturating_sub(begin);
    let running = AtomicBool::new(false);
    let pace = Pace { expired: &running, cancel: &freeze.cancel, env };
    let ground = Ground::prepare(&seen.layout, &seen.mapped, &pace)?;
    let threads = writers.iter().map(|writer| processes::threads(writer.pid).len()).sum();
    let estimate = Estimate::of(&ground.work, look_time, threads);
    estimate.allow(freeze.pause_max.unwrap_or(PAUSE_MAX))?;
    let warnings = said.iter().map(|said| {
        format!(
            "{} has no file of the node open for writing: that it is the node is taken for granted",
            said.named()
        )
    });
    let warnings = warnings.collect();
    Ok(Prepared { writers, mapped: seen.mapped, ground, estimate, warnings })
}

/// Stops `writers`, and whoever else is found to write, until a look finds nobody who runs: what that
/// one saw.
fn stand_still(layout: &Layout, writers: Vec<Writer>, holder: &mut Holder<'_>) -> Result<Seen> {
    let mut running = writers;
    for _ in 0..ROUNDS_MAX {
        holder.stop(running)?;
        let (seen, found) = look(layout, &holder.pids)?;
        if found.is_empty() {
            return Ok(seen);
        }
        running = found;
    }
    let names: Vec<String> = running.iter().map(Writer::named).collect();
    let names = names.join(", ");
    Err(Error::conflict(format!("processes that write keep being started: {names}"))
        .with_remedy("try again, or stop the node"))
}

/// Looks at the node, and at who can write its files and is not stopped yet; refused where the node
/// can't be captured as it is, or one of those not be stopped.
fn look(layout: &Layout, stopped: &BTreeSet<u32>) -> Result<(Seen, Vec<Writer>)> {
    let layout = discover::discover_still(&layout.dir, &layout.options)?;
    if let Some(refusal) = layout.refusals.first() {
        return Err(refusal.clone());
    }
    let files = Files::of(&layout)?;
    let found = processes::look(&files)?;
    if !found.hidden.is_empty() {
        return Err(Error::conflict(format!(
            "the node is used by processes that this user may not stop: {}",
            found.hidden.join(", ")
        ))
        .with_remedy("run as root"));
    }
    let writers = found.writers.values();
    let mapped = writers.flat_map(|writer| writer.mapped.iter().cloned()).collect();
    let (known, fresh): (Vec<Writer>, Vec<Writer>) =
        found.writers.into_values().partition(|writer| stopped.contains(&writer.pid));
    known.iter().try_for_each(|writer| processes::refuse_memory(writer, &layout))?;
    processes::refuse(&fresh, &layout)?;
    Ok((Seen { layout, files, mapped }, fresh))
}

/// A process that writes nothing here where others do is the wrong one, however well those could be stopped.
fn named_is_among(pid: u32, writers: &[Writer]) -> Result<()> {
    if writers.iter().any(|writer| writer.pid == pid) {
        return Ok(());
    }
    let name = super::process::command(pid);
    let error =
        Error::conflict(format!("process {pid} ({name}) has no file of the node open for writing"));
    let names: Vec<String> = writers.iter().map(Writer::named).collect();
    Err(error.with_remedy(format!("these have: {}", names.join(", "))))
}

/// Removes the images that captures left which did not live to do so, whatever captures now.
pub(super) fn collect(layout: &Layout) -> Result<()> {
    let parent = |part: &FoundPart| scratch::parent(&layout.held, &part.root);
    let homes: BTreeMap<PathBuf, RootedPath> =
        layout.parts.iter().map(parent).map(|home| (home.path(), home)).collect();
    for home in homes.values() {
        if durable::stat(home)?.is_some_and(|found| durable::is_dir(&found)) {
            scratch::collect(home, IMAGE_PREFIX)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
