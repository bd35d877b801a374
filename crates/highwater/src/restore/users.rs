//! Who has a node directory open, which nobody may while it is exchanged.

use std::path::Path;

use crate::durable;
use crate::engine::{self, Engines, User};
use crate::error::{Error, Result};

/// Tells who has files of a directory open: [`crate::engine::users`], but in tests.
pub(super) type Users = fn(&Path, &Engines) -> Result<Vec<User>>;

/// Nobody may have the directory open.
pub(super) fn refuse_users(target: &Path, engines: &Engines) -> Result<()> {
    users(target, engines)?.into_iter().next().map_or(Ok(()), Err)
}

/// The processes that have a file of the target open, each as what it is refused with.
pub(super) fn users(target: &Path, engines: &Engines) -> Result<Vec<Error>> {
    if durable::stat(target)?.is_none() {
        return Ok(Vec::new());
    }
    let refused = |user: engine::User| {
        Error::conflict(format!("{user} has {} open", user.file))
            .with_entry(user.file.to_string())
            .with_remedy("stop the node first")
    };
    Ok(engine::users(target, engines)?.into_iter().map(refused).collect())
}
