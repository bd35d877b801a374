//! The program as the supervisor of a freeze: it continues a stopped node if the backup that stopped it
//! dies. Only a backup starts it, so help, completions and manual pages don't know it.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;

use highwater::engine::freeze;
use highwater::{Error, Result};

/// The one argument that asks for it.
const ARGUMENT: &str = "--supervise-freeze";

/// How a backup starts it.
pub(crate) fn command() -> Result<Vec<OsString>> {
    let program = std::env::current_exe()
        .map_err(|error| Error::io("can't find the path of this program", error))?;
    Ok(vec![program.into_os_string(), ARGUMENT.into()])
}

/// Whether the program was started as one.
pub(crate) fn is_asked_for(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, only] if only == OsStr::new(ARGUMENT))
}

/// Watches until it is dismissed, or alone.
pub(crate) fn run() -> Result<()> {
    freeze::supervise(std::io::stdin().as_fd(), &mut std::io::stdout())
}
