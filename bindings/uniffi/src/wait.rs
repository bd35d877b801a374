//! Waits in the caller's thread, where the library gives a future.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use highwater::Env;

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the future brings; none where `timeout` passes before. Without one it is waited for as long as it takes.
pub(crate) fn wait<T>(future: impl Future<Output = T>, timeout: Option<Duration>) -> Option<T> {
    let env = Env::system();
    let until = timeout.map(|timeout| env.monotonic().saturating_add(timeout));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return Some(done);
        }
        let Some(until) = until else {
            thread::park();
            continue;
        };
        let left = until.saturating_sub(env.monotonic());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}
