//! SIGINT and SIGTERM cancel the operation at its next step; a second one ends the program at once.

use highwater::control::Cancel;
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
