//! The commands, one file each: `run` turns arguments into an answer, and prints nothing but
//! the plan of what destroys.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod export;
mod floors;
pub(crate) mod forget;
pub(crate) mod guard;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod kit;
pub(crate) mod man;
pub(crate) mod owner;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod recover;
pub(crate) mod replica;
mod replica_migrate;
pub(crate) mod restore;
mod reunite;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod snapshots;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod vss;

mod record;

/// Whether a path stands for standard input or output.
pub(crate) fn is_stdio(path: &std::path::Path) -> bool {
    path == std::path::Path::new("-")
}
