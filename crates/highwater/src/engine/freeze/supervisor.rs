//! The supervisor: a small process that sends SIGCONT to what we have stopped if we die before we
//! can. It hears lines on its standard input, and the end of that input is our death.
//!
//! `limit MS`: longer than that without a word, and it continues them too. `watch PID STARTED`:
//! answered by `watching PID`. `done`: all go on, it ends.

use std::ffi::OsString;
use std::io::{Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::processes::Stat;
use crate::error::{Error, Result};

/// How long it is waited for an answer of the supervisor.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How much longer than we are allowed to the supervisor waits for us.
const GRACE: Duration = Duration::from_secs(1);

/// The longest line of either side.
const LINE_BYTES_MAX: usize = 64;

/// The running supervisor.
pub(super) struct Supervisor {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Supervisor {
    /// Starts `command`, which is to run [`supervise`].
    pub(super) fn start(command: &[OsString], pause_max: Duration) -> Result<Supervisor> {
        let failed = |source| Error::io("can't start the supervisor of the freeze", source);
        let [program, arguments @ ..] = command else {
            return Err(Error::input("the command of the freeze's supervisor is empty"));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::bug("a piped child has no pipes"));
        };
        let limit = pause_max.saturating_add(GRACE).as_millis();
        writeln!(input, "limit {limit}").map_err(failed)?;
        Ok(Supervisor { child, input, output })
    }

    /// Returns once the supervisor would continue the process.
    pub(super) fn watch(&mut self, pid: u32, started: u64) -> Result<()> {
        let failed = |source| Error::io("the supervisor of the freeze does not answer", source);
        writeln!(self.input, "watch {pid} {started}").map_err(failed)?;
        let expected = format!("watching {pid}\n");
        let mut answer = vec![0; expected.len()];
        let mut length = 0;
        while length < answer.len() {
            if !readable(self.output.as_fd(), Some(ANSWER_MAX))? {
                return Err(failed(std::io::ErrorKind::TimedOut.into()));
            }
            match self.output.read(&mut answer[length..]).map_err(failed)? {
                0 => return Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
                read => length += read,
            }
        }
        if answer == expected.as_bytes() {
            return Ok(());
        }
        Err(Error::bug("the supervisor of the freeze gave a strange answer"))
    }

    /// All go on: it is needed no more.
    pub(super) fn dismiss(mut self) {
        // Where this fails it has ended already, or does what it would do at our death, which does
        // no harm to those that go on.
        let _ = writeln!(self.input, "done");
        drop(self.input);
        let _ = self.child.wait();
    }
}

/// Runs a supervisor: `input` and `output` are the pipes of the process that started it. Returns once
/// it is dismissed, or has continued what it watched.
///
/// # Errors
/// Input where a line has no meaning; unavailable where a pipe fails. What was watched was continued
/// then as well.
pub fn supervise(input: BorrowedFd<'_>, output: &mut dyn Write) -> Result<()> {
    // A signal to the terminal or to the group of the one that started it is not meant for it. It
    // fails in a process that leads a group already, which is as good.
    let _ = rustix::process::setsid();
    let mut watched = Vec::new();
    let heard = listen(input, output, &mut watched);
    match heard {
        Ok(Heard::Dismissed) => Ok(()),
        other => {
            for process in &watched {
                // One that has ended needs no signal.
                let _ = pidfd_send_signal(process, Signal::CONT);
            }
            other.map(|_| ())
        }
    }
}

enum Heard {
    Dismissed,
    /// The other side is gone, or silent for too long.
    Lost,
}

fn listen(
    input: BorrowedFd<'_>,
    output: &mut dyn Write,
    watched: &mut Vec<OwnedFd>,
) -> Result<Heard> {
    let failed = |errno: rustix::io::Errno| Error::io("the supervisor's input", errno);
    let mut limit = None;
    let mut line = Vec::new();
    loop {
        if !readable(input, limit)? {
            return Ok(Heard::Lost);
        }
        let mut byte = [0];
        match rustix::io::read(input, &mut byte) {
            Ok(0) => return Ok(Heard::Lost),
            Ok(_) if byte[0] != b'\n' && line.len() < LINE_BYTES_MAX => {
                line.push(byte[0]);
                continue;
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(failed(errno)),
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        match *text.split(' ').collect::<Vec<_>>() {
            ["done"] => return Ok(Heard::Dismissed),
            ["limit", millis] => limit = Some(Duration::from_millis(number(millis)?)),
            ["watch", pid, started] => {
                watched.push(open(number(pid)?, number(started)?)?);
                writeln!(output, "watching {pid}")
                    .and_then(|()| output.flush())
                    .map_err(|source| Error::io("the supervisor's output", source))?;
            }
            _ => return Err(Error::input("the supervisor of a freeze is not run by hand")),
        }
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::input("the supervisor was told no number"))
}

/// The process that was started at that time under that id, and no later one.
fn open(pid: u64, started: u64) -> Result<OwnedFd> {
    let gone = || Error::not_found(format!("process {pid} has ended"));
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let process =
        pidfd_open(id, PidfdFlags::empty()).map_err(|errno| Error::io("a process", errno))?;
    let stat = u32::try_from(pid).ok().and_then(|pid| Stat::of(pid, None));
    if stat.is_some_and(|stat| stat.started == started) { Ok(process) } else { Err(gone()) }
}

/// Whether something can be read, or the other side is gone; `false` once the time is over.
fn readable(file: BorrowedFd<'_>, time: Option<Duration>) -> Result<bool> {
    let time = time.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    });
    loop {
        let mut files = [PollFd::from_borrowed_fd(file, PollFlags::IN)];
        match poll(&mut files, time.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::io("waiting for a pipe", errno)),
        }
    }
}
