//! An operation that waits or runs, and how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::control::{Cancel, Control, Event};
use crate::env::Env;

use super::operation::{Operation, OperationState};

/// The shortest time between two reports of progress.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// An operation that waits or runs.
pub(super) struct Active {
    pub(super) operation: Operation,
    pub(super) cancel: Cancel,
    /// Somebody wants it to end.
    pub(super) cancelled: bool,
    live: Arc<Live>,
}

impl Active {
    pub(super) fn new(operation: Operation) -> Active {
        Active { operation, cancel: Cancel::default(), cancelled: false, live: Arc::default() }
    }

    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        self.cancel.cancel();
    }

    /// The operation as it stands. Where it is not known how much there is to do, nothing is done.
    pub(super) fn now(&self) -> Operation {
        let mut operation = self.operation.clone();
        let (done, total) = (&self.live.done, &self.live.total);
        operation.bytes_total = total.load(Ordering::Relaxed);
        operation.bytes_done = done.load(Ordering::Relaxed).min(operation.bytes_total);
        if operation.state == OperationState::Running {
            operation.stage = (*self.live.stage.lock()).to_owned();
        }
        operation
    }

    /// What the operation works with: its progress is reported to those who watch.
    pub(super) fn control(&self, env: &Env, changes: &watch::Sender<u64>) -> Control {
        let (live, clock, changes) = (Arc::clone(&self.live), env.clone(), changes.clone());
        let mut control = Control::new(env.clone()).on_event(move |event| {
            live.note(event);
            if live.tells(clock.monotonic()) {
                changes.send_modify(|number| *number += 1);
            }
        });
        control.cancel = self.cancel.clone();
        control
    }
}

/// What an operation has told of itself.
#[derive(Default)]
struct Live {
    done: AtomicU64,
    total: AtomicU64,
    stage: Mutex<&'static str>,
    told_nanos: AtomicU64,
}

impl Live {
    fn note(&self, event: Event) {
        match event {
            Event::Stage { name, bytes_total } => {
                *self.stage.lock() = name;
                if bytes_total > 0 {
                    self.done.store(0, Ordering::Relaxed);
                    self.total.store(bytes_total, Ordering::Relaxed);
                }
            }
            Event::File(_) => {}
            Event::Bytes(bytes) => {
                self.done.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Whether it is time to report; of several threads, only one gets `true`.
    fn tells(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let told = self.told_nanos.load(Ordering::Relaxed);
        Duration::from_nanos(now.saturating_sub(told)) >= TELL_EVERY
            && self
                .told_nanos
                .compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
