//! What a caller hands to a long operation: the environment, a way to cancel, a sink for progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::RelPath;

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
    /// This many more bytes of the stage are done (read, or skipped as unchanged).
    Bytes(u64),
    /// A file of the node is begun, by its path in the node directory.
    File(RelPath),
}

/// Who goes first if there is not enough processor time for all: an operation, or everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// The operation takes its part, as the thread that asked for it.
    Normal,
    /// It takes what others leave of the processor: its threads are as nice as can be. Where the disk's
    /// scheduler ranks by that (`bfq`), of the disk too.
    Low,
}

/// How nice threads of [`Priority::Low`] are. Beside a thread that never rests, such a one still gets a
/// seventieth of a core: a backup takes longer on a busy machine, and comes to its end. It has several, so
/// that with a thirtieth each they would slow a node down that never rests.
const LOW_NICE: i32 = 19;

impl Priority {
    /// Makes the calling thread, and what it will start, as nice as this. Nothing takes that back without
    /// a privilege: so only threads that end with their work are told.
    fn enter(self) {
        use rustix::process::{getpriority_process, setpriority_process};
        // Of Linux's `PRIO_PROCESS`, nobody means the calling thread alone.
        let nice = || getpriority_process(None).unwrap_or_default();
        if self == Priority::Low && nice() < LOW_NICE {
            // Where a sandbox forbids even this, the work is done all the same.
            let _ = setpriority_process(None, LOW_NICE);
        }
    }
}

/// What a caller hands to a long operation; clones share everything.
///
/// ```
/// # use highwater::{Actor, Backup, Secret, Vault};
/// # let scratch = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(scratch.path()).unwrap();
/// # std::fs::create_dir("node").unwrap();
/// # std::fs::write("node/state", "seven channels").unwrap();
/// # let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
/// # let vault = Vault::create(&"vault".parse()?, &secret)?;
/// # let actor = Actor::new("state", "operator@node-1");
/// # let backup = Backup::of("node").run(&vault, &actor)?;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use highwater::Event;
///
/// let read = Arc::new(AtomicU64::new(0));
/// let counter = Arc::clone(&read);
/// let control = vault.control().on_event(move |event| {
///     if let Event::Bytes(bytes) = event {
///         counter.fetch_add(bytes, Ordering::Relaxed);
///     }
/// });
/// let cancel = control.cancel.clone(); // `cancel.cancel()` ends the operation at its next step
/// Backup::of("node").control(control).run(&vault, &actor)?;
/// assert_eq!(read.load(Ordering::Relaxed), backup.bytes_total);
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone)]
pub struct Control {
    /// Clock, randomness and fault points.
    pub env: Env,
    /// Stops the operation.
    pub cancel: Cancel,
    pub(crate) priority: Priority,
    progress: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Control {
    /// A control that reports nothing.
    pub fn new(env: Env) -> Control {
        Control {
            env,
            cancel: Cancel::default(),
            priority: Priority::Normal,
            progress: Arc::new(|_| {}),
        }
    }

    /// With a sink for progress; it is called from several threads and must be quick.
    pub fn on_event(mut self, sink: impl Fn(Event) + Send + Sync + 'static) -> Control {
        self.progress = Arc::new(sink);
        self
    }

    /// Reports an event to the sink, and a stage to the log.
    pub fn report(&self, event: Event) {
        if let Event::Stage { name, bytes_total } = &event {
            tracing::debug!(stage = name, bytes_total, "stage");
        }
        (self.progress)(event);
    }

    /// Does a part of the operation that nobody waits for, threads that it starts included, at the
    /// operation's priority. The calling thread, which may be anybody's, stays as it is.
    pub(crate) fn work<T: Send>(&self, part: impl FnOnce() -> T + Send) -> T {
        if self.priority == Priority::Normal {
            return part();
        }
        let span = tracing::Span::current();
        let done = std::thread::scope(|scope| {
            let part = scope.spawn(|| {
                self.priority.enter();
                span.in_scope(part)
            });
            part.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
