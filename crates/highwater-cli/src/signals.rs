//! SIGINT and SIGTERM cancel the operation at its next step; a second one ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::Cancel;
use highwater::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// Lets the signals raise `cancel`'s flag.
pub(crate) fn cancel_on_signals(cancel: &Cancel) -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag down, passes, and raises it.
        flag::register_conditional_shutdown(signal, INTERRUPTED, cancel.flag())
            .and_then(|_| flag::register(signal, cancel.flag()))
            .map_err(|error| Error::io("the signal handlers", error))?;
    }
    Ok(())
}

/// Gives the signals their usual effect back, for a process that is about to become another program:
/// one that comes from here on ends it, one that came before is reported as an interruption. None is lost
/// between the two.
pub(crate) fn hand_over(cancel: &Cancel) -> Result<()> {
    let handed_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&handed_over))
            .map_err(|error| Error::io("the signal handlers", error))?;
    }
    handed_over.store(true, Ordering::SeqCst);
    cancel.check()
}
