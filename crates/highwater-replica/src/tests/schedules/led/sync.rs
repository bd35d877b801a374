//! What `replica/sync.rs` has, led by a scheduler.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Mutex, MutexGuard};

pub(super) use shuttle::sync::Condvar;
pub(super) use shuttle::thread::{Builder, JoinHandle};

/// No test waits for so long: a shorter wait may end at any time, this one ends by a notification or never.
pub(in super::super) const FOR_EVER: Duration = Duration::from_secs(60);

shuttle::thread_local! {
    /// How many locks this thread holds.
    static HELD: Cell<u32> = Cell::new(0);
}

/// This thread holds no lock.
pub(in super::super) fn assert_free() {
    assert_eq!(HELD.with(Cell::get), 0, "something is called under the lock");
}

/// Counts a lock for as long as it is held.
struct Held;

impl Held {
    fn new() -> Held {
        HELD.with(|held| held.set(held.get() + 1));
        Held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A thread that is ended from outside has no count any more.
        let _ = HELD.try_with(|held| held.set(held.get() - 1));
    }
}

pub(super) struct Lock<T>(Mutex<T>);

pub(super) struct Guard<'a, T> {
    value: MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> Guard<'_, T> {
        // One alone: there is no order between two.
        assert_free();
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Guard { value, _held: Held::new() }
    }

    pub(super) fn wait_while<'a>(
        &'a self,
        guard: Guard<'a, T>,
        on: &Condvar,
        waits: impl FnMut(&mut T) -> bool,
    ) -> Guard<'a, T> {
        let waited = on.wait_while(guard.value, waits);
        Guard { value: waited.unwrap_or_else(PoisonError::into_inner), ..guard }
    }

    pub(super) fn wait_at_most<'a>(
        &'a self,
        mut guard: Guard<'a, T>,
        on: &Condvar,
        wait: Duration,
        mut waits: impl FnMut(&mut T) -> bool,
    ) -> Guard<'a, T> {
        if wait >= FOR_EVER {
            return self.wait_while(guard, on, waits);
        }
        while waits(&mut guard) && thread_rng().gen_ratio(1, 2) {
            drop(guard);
            shuttle::thread::yield_now();
            guard = self.lock();
        }
        guard
    }
}
