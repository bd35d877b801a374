//! Who acts on a vault.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Who acts on a vault: where this user keeps its writer id and locks, and how it names itself.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Actor {
    /// The user's state directory for Highwater; made if it is missing.
    pub state_directory: String,
    /// A name as `user@machine`, recorded with ownership and releases.
    pub name: String,
}

impl Actor {
    /// The one that was given, or else the standard one.
    pub(crate) fn or_standard(actor: Option<Actor>) -> Result<highwater::Actor> {
        let actor = actor.map_or_else(standard_actor, Ok)?;
        Ok(highwater::Actor::new(actor.state_directory, actor.name))
    }
}

/// The actor that the program `highwater` is for the same user: its state directory is `$HIGHWATER_STATE_DIR`, or
/// `$XDG_STATE_HOME/highwater`, or `~/.local/state/highwater`.
///
/// # Errors
/// Input where the environment tells no such directory.
#[uniffi::export]
pub fn standard_actor() -> Result<Actor> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = |name: &str| variable(name).map(PathBuf::from);
    let state = path("HIGHWATER_STATE_DIR")
        .or_else(|| {
            let of_home = || path("HOME").map(|home| home.join(".local/state"));
            Some(path("XDG_STATE_HOME").or_else(of_home)?.join("highwater"))
        })
        .filter(|path| path.is_absolute());
    let state = state.ok_or_else(|| {
        Error::from(
            highwater::Error::input("there is no directory to keep the state of this user in")
                .with_remedy("set HOME or XDG_STATE_HOME, or give an actor"),
        )
    })?;
    let user = match variable("USER").and_then(|user| user.into_string().ok()) {
        Some(user) => user,
        None => rustix::process::getuid().as_raw().to_string(),
    };
    let uname = rustix::system::uname();
    Ok(Actor {
        state_directory: state.display().to_string(),
        name: format!("{user}@{}", uname.nodename().to_string_lossy()),
    })
}
