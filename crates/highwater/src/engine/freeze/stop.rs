//! Stopping processes, and continuing them whatever happens.
//!
//! One thread stops them and holds them. It seizes every thread by ptrace where that is permitted:
//! the kernel continues what a thread has seized when that thread ends, also by `kill -9`, so nothing
//! here ever detaches. Elsewhere SIGSTOP does it, and a supervisor sends SIGCONT if we die.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nix::errno::Errno;
use nix::sys::ptrace;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::processes::{Stat, Writer, threads};
use super::supervisor::Supervisor;
use crate::control::Cancel;
use crate::env::Env;
use crate::error::{Error, Remedy, Result};

/// Between two looks at a thread that has not stopped yet.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// How often new threads are looked for: those that are stopped make no more.
const ROUNDS_MAX: u32 = 64;

/// How processes are stopped, and for how long at most.
#[derive(Clone, Copy)]
pub(super) struct Stopping<'a> {
    pub(super) env: &'a Env,
    pub(super) cancel: &'a Cancel,
    pub(super) pause_max: Duration,
    pub(super) supervisor: Option<&'a [OsString]>,
}

/// Stops processes, for as long as the work that has this in its hands is under way.
pub(super) struct Holder<'a> {
    orders: Sender<Vec<Writer>>,
    answers: Receiver<Result<Duration>>,
    /// Those that are stopped.
    pub(super) pids: BTreeSet<u32>,
    since: Option<Duration>,
    /// Raised once they go on because the time is over.
    pub(super) expired: &'a AtomicBool,
}

impl Holder<'_> {
    /// Returns once every thread of `writers` stands still.
    pub(super) fn stop(&mut self, writers: Vec<Writer>) -> Result<()> {
        self.pids.extend(writers.iter().map(|writer| writer.pid));
        // The end of the holding thread says why by itself.
        let over = || Error::conflict("the node goes on already");
        self.orders.send(writers).map_err(|_| over())?;
        let since = self.answers.recv().map_err(|_| over())??;
        self.since.get_or_insert(since);
        Ok(())
    }
}

/// Does `work`, which stops processes by the holder that it is given, and continues them: at its end,
/// when it panics, and when the time is over although it is not done. Tells how long they were
/// stopped.
///
/// The work may wait for a disk for as long as it likes: the holder does nothing but wait for it.
pub(super) fn while_held<R>(
    how: Stopping<'_>,
    work: impl FnOnce(&mut Holder<'_>) -> Result<R>,
) -> Result<(R, Duration)> {
    let expired = AtomicBool::new(false);
    let (orders, ordered) = bounded(0);
    let (answer, answers) = bounded(1);
    let (worked, since, held) = std::thread::scope(|scope| {
        let expired = &expired;
        let thread = scope.spawn(move || hold(how, &ordered, &answer, expired));
        let pids = BTreeSet::new();
        let mut holder = Holder { orders, answers, pids, since: None, expired };
        let worked = work(&mut holder);
        let since = holder.since;
        drop(holder);
        (worked, since, thread.join())
    });
    let end = how.env.monotonic();
    let held = held.unwrap_or_else(|_| Err(Error::bug("the thread that stops a node panicked")));
    match (worked, held) {
        // Work that was given up because the node went on has nothing to say.
        (_, Err(error)) if expired.load(Ordering::SeqCst) => Err(error),
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        (Ok(made), Ok(())) => {
            Ok((made, since.map_or(Duration::ZERO, |since| end.saturating_sub(since))))
        }
    }
}

/// Stops what it is ordered to, until nobody can give orders any more, or the time is over. The end
/// of the thread that runs this continues what it has seized.
fn hold(
    how: Stopping<'_>,
    ordered: &Receiver<Vec<Writer>>,
    answer: &Sender<Result<Duration>>,
    expired: &AtomicBool,
) -> Result<()> {
    let mut set = Set::new(how);
    loop {
        let left = set.deadline().saturating_sub(how.env.monotonic());
        let writers = match ordered.recv_timeout(left) {
            Ok(writers) => writers,
            Err(RecvTimeoutError::Disconnected) => return set.still_stopped(),
            Err(RecvTimeoutError::Timeout) => {
                expired.store(true, Ordering::SeqCst);
                return Err(too_long(how.pause_max));
            }
        };
        let stopped = writers.iter().try_for_each(|writer| set.stop(writer));
        let since = set.since.unwrap_or_else(|| how.env.monotonic());
        let failed = stopped.is_err();
        // Nobody listens where the work has panicked.
        let _ = answer.send(stopped.map(|()| since));
        if failed {
            return Ok(());
        }
    }
}

/// The error of a pause that was not long enough.
pub(super) fn too_long(pause_max: Duration) -> Error {
    Error::conflict(format!(
        "the node was continued, since the image of its files was not taken within {} ms",
        pause_max.as_millis()
    ))
    .with_remedies(super::ways_out())
}

/// What is stopped; dropped, those that were signalled go on, and at the end of the thread those
/// that were seized.
struct Set<'a> {
    how: Stopping<'a>,
    /// When the first one was stopped.
    since: Option<Duration>,
    /// Threads that were seized, by process.
    seized: BTreeMap<u32, BTreeSet<u32>>,
    signalled: Vec<(Writer, OwnedFd)>,
    supervisor: Option<Supervisor>,
}

impl<'a> Set<'a> {
    fn new(how: Stopping<'a>) -> Set<'a> {
        Set { how, since: None, seized: BTreeMap::new(), signalled: Vec::new(), supervisor: None }
    }

    fn deadline(&self) -> Duration {
        self.since.unwrap_or_else(|| self.how.env.monotonic()) + self.how.pause_max
    }

    fn begin(&mut self) {
        self.since.get_or_insert(self.how.env.monotonic());
    }

    /// Stops all threads of a process.
    fn stop(&mut self, writer: &Writer) -> Result<()> {
        if !self.seize(writer)? {
            self.signal(writer)?;
        }
        Ok(())
    }

    /// Seizes every thread; `false` where that is not permitted.
    fn seize(&mut self, writer: &Writer) -> Result<bool> {
        for _ in 0..ROUNDS_MAX {
            let known = self.seized.get(&writer.pid).cloned().unwrap_or_default();
            let mut fresh = threads(writer.pid);
            fresh.retain(|thread| !known.contains(thread));
            if fresh.is_empty() {
                return if known.is_empty() { Err(ended(writer)) } else { Ok(true) };
            }
            for thread in fresh {
                self.begin();
                let id = nix::unistd::Pid::from_raw(thread.cast_signed());
                match ptrace::seize(id, ptrace::Options::empty()) {
                    Ok(()) => {}
                    // It has ended.
                    Err(Errno::ESRCH) => continue,
                    Err(_) if Stat::of(writer.pid, Some(thread)).is_none_or(Stat::ended) => {
                        continue;
                    }
                    Err(_) if !self.seized.contains_key(&writer.pid) => return Ok(false),
                    Err(errno) => return Err(unstoppable(writer, errno.into())),
                }
                self.seized.entry(writer.pid).or_default().insert(thread);
                match ptrace::interrupt(id) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(unstoppable(writer, errno.into())),
                }
            }
            for &thread in self.seized.get(&writer.pid).into_iter().flatten() {
                self.wait(writer, thread, b't')?;
            }
        }
        Err(Error::conflict(format!("{} keeps starting threads", writer.named()))
            .with_remedy("try again"))
    }

    /// Stops it by SIGSTOP, under the eyes of the supervisor.
    fn signal(&mut self, writer: &Writer) -> Result<()> {
        let Some(command) = self.how.supervisor else {
            return Err(Error::denied(format!("{} may not be traced", writer.named()))
                .with_remedy("run as root, or with CAP_SYS_PTRACE"));
        };
        let pid = i32::try_from(writer.pid).ok().and_then(Pid::from_raw);
        let process = pid
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|errno| gone_or(writer, errno))?;
        let stat = Stat::of(writer.pid, None).ok_or_else(|| ended(writer))?;
        let supervisor = match self.supervisor.take() {
            Some(supervisor) => supervisor,
            None => Supervisor::start(command, self.how.pause_max)?,
        };
        self.supervisor.insert(supervisor).watch(writer.pid, stat.started)?;
        self.begin();
        pidfd_send_signal(&process, Signal::STOP).map_err(|errno| gone_or(writer, errno))?;
        self.signalled.push((writer.clone(), process));
        for thread in threads(writer.pid) {
            self.wait(writer, thread, b'T')?;
        }
        Ok(())
    }

    /// Waits until a thread has stopped, or ended.
    fn wait(&self, writer: &Writer, thread: u32, wanted: u8) -> Result<()> {
        loop {
            let Some(stat) = Stat::of(writer.pid, Some(thread)) else { return Ok(()) };
            if stat.state == wanted || stat.ended() {
                return Ok(());
            }
            self.how.cancel.check()?;
            if self.how.env.monotonic() >= self.deadline() {
                let why = if stat.state == b'D' { ": it waits for its disk" } else { "" };
                return Err(Error::conflict(format!(
                    "thread {thread} of {} did not stop within {} ms{why}",
                    writer.named(),
                    self.how.pause_max.as_millis()
                ))
                .with_remedy("try again; the node was continued"));
            }
            self.how.env.pause(LOOK_EVERY);
        }
    }

    /// An error where somebody continued or ended one of them: its files may have moved.
    fn still_stopped(&self) -> Result<()> {
        for (&pid, seized) in &self.seized {
            let running = threads(pid);
            let traced =
                |thread: &u32| Stat::of(pid, Some(*thread)).is_some_and(|s| s.state == b't');
            if running.is_empty() || !running.iter().all(|t| seized.contains(t) && traced(t)) {
                return Err(disturbed(pid));
            }
        }
        for (writer, _) in &self.signalled {
            let pid = writer.pid;
            let running = threads(pid);
            let stopped =
                |thread: &u32| Stat::of(pid, Some(*thread)).is_some_and(|s| s.state == b'T');
            if running.is_empty() || !running.iter().all(stopped) {
                return Err(disturbed(pid));
            }
        }
        Ok(())
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        for (_, process) in &self.signalled {
            // One that has ended needs no signal; who may stop a process may continue it.
            let _ = pidfd_send_signal(process, Signal::CONT);
        }
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.dismiss();
        }
    }
}

fn gone_or(writer: &Writer, errno: rustix::io::Errno) -> Error {
    match errno {
        rustix::io::Errno::SRCH => ended(writer),
        errno => unstoppable(writer, errno.into()),
    }
}

fn ended(writer: &Writer) -> Error {
    Error::conflict(format!("{} has ended", writer.named())).with_remedy(Remedy::NoFreeze)
}

fn unstoppable(writer: &Writer, source: std::io::Error) -> Error {
    Error::conflict(format!(
        "{}, which can write {}, may not be stopped: {source}",
        writer.named(),
        writer.what()
    ))
    .with_entry(writer.what())
    .with_remedy("run as root, or as the user of all that writes there")
    .with_source(source)
}

fn disturbed(pid: u32) -> Error {
    Error::conflict(format!(
        "process {pid} was ended or continued by somebody while it was stopped"
    ))
    .with_remedy("try again")
}
