//! What one connection may cost: so many at once, so long without a request, so long without taking
//! what is sent. Slow clients, and those that have gone without a word, give their place back.

use std::future::{Future as _, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::middleware::{AddExtension, Next};
use axum::response::Response;
use axum_server::accept::Accept;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tower::Layer as _;

use crate::limits::Limits;
use crate::state::State;

/// Takes connections in while there is a place for one.
#[derive(Clone)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    limits: Limits,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Gate {
        Gate { places: Arc::new(Semaphore::new(limits.connections)), limits }
    }

    fn enter(&self, stream: TcpStream) -> io::Result<(Patient, Calls)> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(io::Error::other)?;
        stream.set_nodelay(true)?;
        let calls = Calls::default();
        let (quiet, stuck) = (None, None);
        let limits = self.limits;
        let patient = Patient { stream, calls: calls.clone(), limits, quiet, stuck, _place: place };
        Ok((patient, calls))
    }
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Patient;
    type Service = AddExtension<S, Calls>;
    type Future = Ready<io::Result<(Patient, AddExtension<S, Calls>)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let entered = self.enter(stream);
        ready(entered.map(|(patient, calls)| (patient, Extension(calls).layer(service))))
    }
}

/// The calls of one connection.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    running: AtomicUsize,
}

/// A call that runs while somebody has this.
#[derive(Clone)]
pub(crate) struct Running {
    _call: Arc<OneCall>,
}

struct OneCall(Calls);

impl Calls {
    pub(crate) fn begin(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Running { _call: Arc::new(OneCall(self.clone())) }
    }
}

impl Running {
    /// The call of a request, for an answer that goes on after its head.
    pub(crate) fn of(extensions: &http::Extensions) -> Option<Running> {
        extensions.get().cloned()
    }
}

impl Drop for OneCall {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection with an end to its patience.
pub(crate) struct Patient {
    stream: TcpStream,
    calls: Calls,
    limits: Limits,
    /// While no call runs: when it ends, and how many had begun when that was reckoned.
    quiet: Option<(usize, Pin<Box<Sleep>>)>,
    /// While the client takes nothing: when it ends.
    stuck: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Patient {
    /// An error once no call has run for too long. What has been read counts for nothing: a request
    /// that arrives byte by byte is no request.
    fn is_quiet_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let begun = self.calls.0.begun.load(Ordering::Relaxed);
        if self.calls.0.running.load(Ordering::Relaxed) > 0 {
            self.quiet = None;
            return false;
        }
        if self.quiet.as_ref().is_none_or(|(at, _)| *at != begun) {
            let limits = &self.limits;
            let wait = if begun == 0 { limits.request_wait } else { limits.idle_wait };
            self.quiet = Some((begun, Box::pin(sleep(wait))));
        }
        self.quiet.as_mut().is_some_and(|(_, end)| end.as_mut().poll(cx).is_ready())
    }

    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let wait = self.limits.write_wait;
        let end = self.stuck.get_or_insert_with(|| Box::pin(sleep(wait)));
        end.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() && self.is_quiet_too_long(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // An answer ends with this. HTTP/1 then waits for what it has asked for already: nobody reads
        // until something comes, so the wait for it begins here.
        if flushed.is_ready() && self.is_quiet_too_long(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Counts a call until it is answered, and gives its body so long to arrive. An answer that lasts keeps
/// what is counted: [`Running::of`].
pub(crate) async fn count(
    Shared(state): Shared<Arc<State>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(calls) = request.extensions().get::<Calls>() {
        let running = calls.begin();
        request.extensions_mut().insert(running);
    }
    let wait = state.limits.request_wait;
    next.run(request.map(|body| Body::from_stream(hasty(body, wait)))).await
}

/// A body that fails where it does not arrive in time.
fn hasty(body: Body, wait: Duration) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let end = Instant::now() + wait;
    stream::unfold(body.into_data_stream(), move |mut body| async move {
        let next = timeout_at(end, body.next()).await;
        let late = |_| Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))));
        next.unwrap_or_else(late).map(|bytes| (bytes, body))
    })
}
