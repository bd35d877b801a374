//! What a caller hands to a long operation: the environment, a way to cancel, a sink for progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::env::Env;
use crate::error::{Error, Result};

/// A flag that stops an operation at its next step; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the operation to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// [`Error::interrupted`] once [`Cancel::cancel`] was called.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// What an operation reports while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stage begins; `bytes_total` is what it will pass over.
    Stage {
        /// A few words: `capture`, `commit`, `export`, `import`, `fetch`, `verify`, `exchange`.
        name: &'static str,
        /// Bytes of the node's files that the stage passes over; 0 where it counts none.
        bytes_total: u64,
    },
    /// So many more bytes of the stage are done (read, or skipped as unchanged).
    Bytes(u64),
}

/// What a caller hands to a long operation; clones share everything.
#[derive(Clone)]
pub struct Control {
    /// Clock, randomness and fault points.
    pub env: Env,
    /// Stops the operation.
    pub cancel: Cancel,
    progress: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Control {
    /// A control that reports nothing.
    pub fn new(env: Env) -> Control {
        Control { env, cancel: Cancel::default(), progress: Arc::new(|_| {}) }
    }

    /// With a sink for progress; it is called from several threads and must be quick.
    pub fn on_event(mut self, sink: impl Fn(Event) + Send + Sync + 'static) -> Control {
        self.progress = Arc::new(sink);
        self
    }

    /// Reports an event to the sink.
    pub fn report(&self, event: Event) {
        (self.progress)(event);
    }
}
