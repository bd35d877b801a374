//! The program as the helper of a backup that root makes of another user's node: it opens databases with
//! the rights of that user. Only a command starts it, so no command that help, completions or manual
//! pages know.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;

use highwater::engine::confined::serve;
use highwater::{Error, Result};

/// The one argument that asks for it.
const ARGUMENT: &str = "--read-confined";

/// How a command starts it.
pub(crate) fn command() -> Result<Vec<OsString>> {
    let program = std::env::current_exe()
        .map_err(|error| Error::io("can't find the path of this program", error))?;
    Ok(vec![program.into_os_string(), ARGUMENT.into()])
}

/// Whether the program was started as one.
pub(crate) fn is_asked_for(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, only] if only == OsStr::new(ARGUMENT))
}

/// Serves the process that has started it.
pub(crate) fn run() -> Result<()> {
    let socket = std::io::stdout().as_fd().try_clone_to_owned();
    let socket = socket.map_err(|error| Error::io("taking the socket of a helper", error))?;
    serve(std::io::stdin().as_fd(), socket)
}
