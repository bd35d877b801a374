//! What a caller hands to a long call: a sink for progress, and a way to cancel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use highwater::Event;
use highwater::{Control, Env};

use crate::error::{CallbackError, Error, Result};

/// Stops calls at their next step; one may be given to several calls.
#[derive(Debug, Default, uniffi::Object)]
pub struct Cancel {
    state: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    cancelled: bool,
    /// Those of the calls that run, or have ended since the last one began.
    flags: Vec<Weak<AtomicBool>>,
}

#[uniffi::export]
impl Cancel {
    /// One that nobody has cancelled.
    #[uniffi::constructor]
    pub fn new() -> Arc<Cancel> {
        Arc::new(Cancel::default())
    }

    /// Asks the calls that it was given to to stop. A call that it is given to from then on stops at once.
    pub fn cancel(&self) {
        let mut asked = self.asked();
        asked.cancelled = true;
        for flag in asked.flags.drain(..).filter_map(|flag| flag.upgrade()) {
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.asked().cancelled
    }
}

impl Cancel {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels `call` once it is cancelled itself.
    fn stops(&self, call: &highwater::Cancel) {
        let mut asked = self.asked();
        if asked.cancelled {
            call.cancel();
        }
        asked.flags.retain(|flag| flag.strong_count() > 0);
        asked.flags.push(Arc::downgrade(&call.flag()));
    }
}

/// Told how far a long call is, from several threads, one or more at once. A method that fails cancels the call.
#[uniffi::export(with_foreign)]
pub trait Progress: Send + Sync {
    /// A stage begins: `capture`, `commit`, `export`, `import`, `fetch`, `verify`, `exchange`. It will pass over
    /// `bytes_total` bytes of the node's files; 0 where it counts none.
    fn stage(&self, name: String, bytes_total: u64) -> Result<(), CallbackError>;

    /// This many more bytes of the stage are done, read or skipped as unchanged.
    fn bytes(&self, count: u64) -> Result<(), CallbackError>;

    /// A file of the node is begun, by its path in the node directory.
    fn file(&self, path: String) -> Result<(), CallbackError>;
}

/// A long call: the control for it, and what became of its sink.
pub(crate) struct Call {
    control: Control,
    failed: Arc<Mutex<Option<CallbackError>>>,
}

impl Call {
    pub(crate) fn new(progress: Option<Arc<dyn Progress>>, cancel: Option<&Arc<Cancel>>) -> Call {
        let control = Control::new(Env::system());
        if let Some(cancel) = cancel {
            cancel.stops(&control.cancel);
        }
        let failed = Arc::new(Mutex::new(None));
        let Some(progress) = progress else { return Call { control, failed } };
        let (told, stop) = (Arc::clone(&failed), control.cancel.clone());
        let control = control.on_event(move |event| {
            // Not while it is told: one of its threads may wait for another.
            let failed = || told.lock().unwrap_or_else(PoisonError::into_inner);
            if failed().is_some() {
                return;
            }
            if let Err(error) = tell(&*progress, event) {
                failed().get_or_insert(error);
                stop.cancel();
            }
        });
        Call { control, failed }
    }

    /// Makes the call; where its sink has failed, that is why it has.
    pub(crate) fn run<T>(&self, call: impl FnOnce(&Control) -> highwater::Result<T>) -> Result<T> {
        call(&self.control).map_err(|error| {
            let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            match failed {
                Some(failed) if error.kind() == highwater::Kind::Interrupted => {
                    Error::Interrupted {
                        message: format!("the callback for progress has failed: {failed}"),
                        entry: None,
                        remedy: None,
                    }
                }
                _ => error.into(),
            }
        })
    }
}

fn tell(progress: &dyn Progress, event: Event) -> Result<(), CallbackError> {
    match event {
        Event::Stage { name, bytes_total } => progress.stage(name.to_owned(), bytes_total),
        Event::Bytes(count) => progress.bytes(count),
        Event::File(path) => progress.file(path.to_string()),
    }
}
