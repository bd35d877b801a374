//! How many files this process may hold open: as many as the system lets it. Of a node with hundreds of databases all
//! are open at once.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What it was when the program was started.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit to the highest that this user may set. Where that can't be done, the one that is there holds, and
/// whoever reaches it gets an error.
pub(crate) fn raise() {
    let now = getrlimit(Resource::Nofile);
    let most = Rlimit { current: now.maximum, maximum: now.maximum };
    if now.current != now.maximum && setrlimit(Resource::Nofile, most).is_ok() {
        BEFORE.get_or_init(|| now);
    }
}

/// Sets it back, for another program that takes the place of this one: some take a low limit for granted.
pub(crate) fn set_back() {
    if let Some(before) = BEFORE.get() {
        // It was allowed before, and lowers the limit: nothing keeps it from being set.
        let _ = setrlimit(Resource::Nofile, *before);
    }
}
