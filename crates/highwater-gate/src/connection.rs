//! What one connection may cost: so many at once, so long without a request, so long without taking
//! what is sent. Slow clients, and those that have gone without a word, give their place back.

use std::future::{Future as _, Ready, ready};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tower::Layer as _;

use crate::seats::{Seat, Seats, network};

/// What a connection may cost, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Connections at once; one more takes the place of one that rests, or is closed.
    pub connections: usize,
    /// Calls at once on one connection of HTTP/2.
    pub calls_per_connection: u32,
    /// A connection must have brought its first request by then.
    pub request_wait: Duration,
    /// A connection without a call is closed after that.
    pub idle_wait: Duration,
    /// A client that takes nothing of what is sent is given up after that.
    pub write_wait: Duration,
}

/// Takes connections in: while there is a place for one, and else in the place of one that rests.
#[derive(Clone)]
pub(crate) struct Gate {
    seats: Arc<Seats>,
    patience: Patience,
}

impl Gate {
    pub(crate) fn new(patience: Patience) -> Gate {
        Gate { seats: Arc::new(Seats::new(patience.connections)), patience }
    }

    fn enter(&self, stream: TcpStream) -> io::Result<(Patient, Calls)> {
        let network = network(stream.peer_addr()?.ip());
        let seat = Seats::take(&self.seats, network).ok_or_else(|| io::Error::other("full"))?;
        stream.set_nodelay(true)?;
        let calls = seat.calls.clone();
        let (quiet, stuck) = (None, None);
        let patience = self.patience;
        let patient = Patient { stream, calls: calls.clone(), patience, quiet, stuck, seat };
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
#[derive(Clone)]
pub struct Calls(Arc<Counts>);

struct Counts {
    network: IpAddr,
    begun: AtomicUsize,
    running: AtomicUsize,
    /// When a call began or ended last, as the gate counts such events.
    moved: AtomicU64,
    clock: Arc<AtomicU64>,
}

/// A call that runs while somebody has this.
#[derive(Clone)]
pub struct RunningCall {
    _call: Arc<OneCall>,
}

struct OneCall(Calls);

impl Counts {
    fn touch(&self) {
        self.moved.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Calls {
    /// Of a connection from `network`, where `clock` counts what happens on any of them.
    pub(crate) fn new(network: IpAddr, clock: Arc<AtomicU64>) -> Calls {
        let (begun, running) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counts = Counts { network, begun, running, moved: AtomicU64::new(0), clock };
        counts.touch();
        Calls(Arc::new(counts))
    }

    /// Where it comes from; none for this machine, which is also whatever stands in front of the server.
    pub fn network(&self) -> Option<IpAddr> {
        Some(self.0.network).filter(|network| !network.is_loopback())
    }

    /// Whether a call runs, and when that changed last.
    pub(crate) fn standing(&self) -> (bool, u64) {
        (self.0.running.load(Ordering::Relaxed) > 0, self.0.moved.load(Ordering::Relaxed))
    }

    /// A call of this connection begins; it ends when what this returns is gone.
    pub fn begin(&self) -> RunningCall {
        self.0.touch();
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        RunningCall { _call: Arc::new(OneCall(self.clone())) }
    }
}

impl RunningCall {
    /// The call of a request, for an answer that goes on after its head.
    pub fn of(extensions: &http::Extensions) -> Option<RunningCall> {
        extensions.get().cloned()
    }
}

impl Drop for OneCall {
    fn drop(&mut self) {
        self.0.0.touch();
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection with an end to its patience.
pub(crate) struct Patient {
    stream: TcpStream,
    calls: Calls,
    patience: Patience,
    /// While no call runs: when it ends, and how many had begun when that was reckoned.
    quiet: Option<(usize, Pin<Box<Sleep>>)>,
    /// While the client takes nothing: when it ends.
    stuck: Option<Pin<Box<Sleep>>>,
    seat: Seat,
}

impl Patient {
    /// An error once its place is another one's.
    fn unseated(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.seat.is_taken(cx) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    /// An error once no call has run for too long. What has been read counts for nothing: a request
    /// that arrives byte by byte is not a request.
    fn is_quiet_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let begun = self.calls.0.begun.load(Ordering::Relaxed);
        if self.calls.0.running.load(Ordering::Relaxed) > 0 {
            self.quiet = None;
            return false;
        }
        if self.quiet.as_ref().is_none_or(|(at, _)| *at != begun) {
            let patience = &self.patience;
            let wait = if begun == 0 { patience.request_wait } else { patience.idle_wait };
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
        let wait = self.patience.write_wait;
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
        self.unseated(cx)?;
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
        self.unseated(cx)?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unseated(cx)?;
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
        self.unseated(cx)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Counts a call until it is answered, and gives its body so long to arrive. An answer that lasts keeps
/// what is counted: [`RunningCall::of`].
///
/// A middleware, whose state is how long a body may take to arrive as a whole.
pub async fn count(Shared(wait): Shared<Duration>, mut request: Request, next: Next) -> Response {
    if let Some(calls) = request.extensions().get::<Calls>() {
        let running = calls.begin();
        request.extensions_mut().insert(running);
    }
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
