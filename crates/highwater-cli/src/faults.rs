//! Lets a crash test choose a write step at which the program dies or fails.

use std::sync::atomic::{AtomicU64, Ordering};

use highwater::env::{FaultPoint, Faults};
use highwater::{Env, Error, Result};
use rustix::process::{Signal, getpid, kill_process};

const POINT: &str = "HIGHWATER_FAULT_POINT";
const ACTION: &str = "HIGHWATER_FAULT_ACTION";
const COUNT: &str = "HIGHWATER_FAULT_COUNT";

/// The variables that choose a fault.
pub(crate) const VARIABLES: &[&str] = &[POINT, ACTION, COUNT];

/// What happens at the chosen step.
enum Action {
    /// `kill -9`.
    Kill,
    /// An error that may pass.
    Error,
    /// The disk is full.
    DiskFull,
}

/// One fault, at the n-th passage of its step.
struct ChosenFault {
    point: FaultPoint,
    action: Action,
    count: u64,
    passed: AtomicU64,
}

/// The environment with the fault that the variables choose, or with none.
pub(crate) fn environment() -> Result<Env> {
    let env = Env::system();
    let Some(name) = variable(POINT)? else { return Ok(env) };
    let point = FaultPoint::ALL
        .iter()
        .copied()
        .find(|point| point.name() == name)
        .ok_or_else(|| Error::input(format!("{POINT}: there is no fault point `{name}`")))?;
    let action = match variable(ACTION)?.as_deref() {
        None | Some("kill") => Action::Kill,
        Some("error") => Action::Error,
        Some("enospc") => Action::DiskFull,
        Some(other) => return Err(Error::input(format!("{ACTION}: `{other}` is not an action"))),
    };
    let count = match variable(COUNT)? {
        None => 1,
        Some(text) => text.parse().map_err(|_| Error::input(format!("{COUNT}: no number")))?,
    };
    Ok(env.with_faults(ChosenFault { point, action, count, passed: AtomicU64::new(0) }))
}

fn variable(name: &str) -> Result<Option<String>> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    value.into_string().map(Some).map_err(|_| Error::input(format!("{name} is not UTF-8")))
}

impl Faults for ChosenFault {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point != self.point || self.passed.fetch_add(1, Ordering::SeqCst) + 1 != self.count {
            return Ok(());
        }
        match self.action {
            Action::Kill => {
                kill_process(getpid(), Signal::KILL)
                    .map_err(|error| Error::io("killing itself", error))?;
                // The signal ends the process before the call returns; other threads can't go on.
                Err(Error::bug("the program survived its kill -9"))
            }
            Action::Error => Err(Error::unavailable(format!("fault at {}", point.name()))),
            Action::DiskFull => {
                Err(Error::io(format!("fault at {}", point.name()), rustix::io::Errno::NOSPC))
            }
        }
    }
}
