//! The program `highwater`: back up, check and restore the state of a node.
//!
//! A command is a function from its arguments to an [`answer::Answer`]; it prints nothing. Errors
//! become exit codes in `exit`, and all that is printed goes through `output`.

mod answer;
mod cli;
mod commands;
mod confined;
mod context;
mod credentials;
mod demo;
mod descriptors;
mod exit;
#[cfg(feature = "fault-points")]
mod faults;
mod format;
mod keys;
mod log;
mod output;
mod places;
mod program;
mod progress;
mod prompt;
mod remedy;
mod settings;
mod signals;
mod supervisor;
mod values;

fn main() -> std::process::ExitCode {
    program::main()
}
