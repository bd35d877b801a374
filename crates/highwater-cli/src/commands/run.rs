//! `run`: a node that can't be changed, started once nothing of its directory is withheld.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use highwater::{Error, Result};

use super::guard;
use crate::answer::Answer;
use crate::cli::RunArgs;
use crate::context::Context;
use crate::signals;

pub(crate) fn run(context: &Context, args: &RunArgs) -> Result<Answer> {
    guard::wait_to_start(context, &args.node_dir, args.patience.timeout)?;
    match become_node(context, &args.command)? {}
}

/// The node takes the place of this process, so that signals and exit code are its own. It returns
/// only where that fails.
fn become_node(context: &Context, command: &[OsString]) -> Result<Infallible> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Error::input("no command was given"))?;
    signals::hand_over(&context.control.cancel)?;
    crate::descriptors::set_back();
    let error = Command::new(program).args(arguments).exec();
    let name = highwater::ids::encode(program.as_bytes());
    let refused = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::not_found(format!(
            "the command `{name}`, or the interpreter in its first line, does not exist"
        ))
        .with_remedy("give its path, or check PATH"),
        ErrorKind::PermissionDenied => {
            Error::denied(format!("the command `{name}` can't be executed"))
                .with_remedy("is it a program, and may this user execute it?")
        }
        _ => Error::io(format!("executing `{name}`"), error),
    };
    Err(refused.with_entry(name))
}
