//! The lock of a store, its waits and its threads: those of the standard library. `tests/schedules` puts others
//! in their place, which are led through one schedule after the other.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(super) use std::sync::{Condvar, MutexGuard as Guard};
pub(super) use std::thread::{Builder, JoinHandle};

/// A mutex that stays usable where a thread has panicked under it.
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the lock up until `on` is notified, for as long as `waits` says so.
    pub(super) fn wait_while<'a>(
        &'a self,
        guard: Guard<'a, T>,
        on: &Condvar,
        waits: impl FnMut(&mut T) -> bool,
    ) -> Guard<'a, T> {
        on.wait_while(guard, waits).unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, at most for the given time.
    pub(super) fn wait_at_most<'a>(
        &'a self,
        guard: Guard<'a, T>,
        on: &Condvar,
        wait: Duration,
        waits: impl FnMut(&mut T) -> bool,
    ) -> Guard<'a, T> {
        let waited = on.wait_timeout_while(guard, wait, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
