//! What drives the requests of a remote store.

use crate::error::{Error, Result};

/// Threads that drive the connections of a remote store.
const DRIVERS: usize = 2;
/// Threads that look up the addresses of a remote store.
const RESOLVERS_MAX: usize = 2;

/// What drives requests. It can be dropped anywhere: a plain runtime panics where another one's tasks
/// run, and that is where a node may drop its last agent.
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// With threads of its own, so that requests go on while nobody waits for them; they end with it.
    pub(super) fn new() -> Result<Runtime> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(DRIVERS)
            .max_blocking_threads(RESOLVERS_MAX)
            .thread_name("highwater-store")
            .enable_all()
            .build()
            .map(|runtime| Runtime(Some(runtime)))
            .map_err(|error| Error::io("starting the object store's runtime", error))
    }
}

impl std::ops::Deref for Runtime {
    type Target = tokio::runtime::Runtime;

    fn deref(&self) -> &tokio::runtime::Runtime {
        self.0.as_ref().expect("it is taken when it is dropped")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
