//! The protocol over HTTP: bytes in, bytes out, and every error one that a client understands.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use bytes::BytesMut;
use futures::StreamExt as _;
use highwater::Env;
use highwater_gate::{Calls, RunningCall, Tokens, bearer};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use vss_api::error::VssError;
use vss_api::kv_store::KvStore as _;
use vss_api::types::{ErrorCode, ErrorResponse, GetObjectRequest, KeyValue, PutObjectRequest};
use vss_prost::Message;

use crate::limits::{LEAST_RATE, Limits, SHORT_MAX};
use crate::observe::{Event, Log};
use crate::share::{Held, Shares, Turn};
use crate::{Auth, Service, extensions, wire};

/// Every answer carries it; newer clients look for it first.
const VERSION_HEADER: HeaderName = HeaderName::from_static("vss-protocol-version");
const VERSION: HeaderValue = HeaderValue::from_static("0");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// How long a body may be that does not state its length.
const UNSIZED_MAX: usize = 1 << 20;
/// Bytes of an answer that are handed on at once.
const SENT_AT_ONCE: usize = 64 << 10;
/// A value up to this length is read before there is memory for it.
const SMALL: usize = 64 << 10;
/// What all requests share.
pub(crate) struct VssState {
    pub(crate) service: Service,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) env: Env,
    pub(crate) log: Option<Log>,
    pub(crate) shares: Arc<Shares>,
    /// Who may see figures.
    pub(crate) figures: Figures,
}

impl VssState {
    /// Tells whoever has asked to be told; the log has it as well, but a failure only where nobody has asked.
    pub(crate) fn tell(&self, event: &Event) {
        match event {
            Event::Answered { method, code, took, bytes } => {
                tracing::debug!(method, code, ?took, bytes, "answered");
            }
            Event::Failed { method, message } if self.log.is_none() => {
                tracing::warn!(method, message, "failed");
            }
            Event::Failed { .. } => {}
        }
        if let Some(log) = &self.log {
            log(event);
        }
    }
}

/// Who may see the figures of all users together.
pub(crate) enum Figures {
    /// Whoever reaches the server: this machine.
    Everybody,
    /// Whoever has one of these tokens.
    Bearers(Tokens),
    Nobody,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    Put,
    Delete,
    List,
    Health,
    Ready,
    Metrics,
    Capabilities,
    Digest,
    Policy,
    History,
    Nothing,
}

impl Call {
    fn of(method: &Method, path: &str) -> Call {
        let post = |call| if method == Method::POST { call } else { Call::Nothing };
        let get = |call| {
            if method == Method::GET || method == Method::HEAD { call } else { Call::Nothing }
        };
        match path {
            "/vss/getObject" => post(Call::Get),
            "/vss/putObjects" => post(Call::Put),
            "/vss/deleteObject" => post(Call::Delete),
            "/vss/listKeyVersions" => post(Call::List),
            "/healthz" => get(Call::Health),
            "/readyz" => get(Call::Ready),
            "/metrics" => get(Call::Metrics),
            "/highwater/v1/capabilities" => get(Call::Capabilities),
            "/highwater/v1/digest" => post(Call::Digest),
            "/highwater/v1/policy" => post(Call::Policy),
            "/highwater/v1/history" => post(Call::History),
            _ => Call::Nothing,
        }
    }

    /// For metrics and logs: none of it comes from the client.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Call::Get => "getObject",
            Call::Put => "putObjects",
            Call::Delete => "deleteObject",
            Call::List => "listKeyVersions",
            Call::Health => "healthz",
            Call::Ready => "readyz",
            Call::Metrics => "metrics",
            Call::Capabilities => "capabilities",
            Call::Digest => "digest",
            Call::Policy => "policy",
            Call::History => "history",
            Call::Nothing => "other",
        }
    }
}

pub(crate) fn router(state: Arc<VssState>) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(Shared(state): Shared<Arc<VssState>>, request: Request) -> Response {
    let begun = state.env.monotonic();
    let call = Call::of(request.method(), request.uri().path());
    let running = request.extensions().get::<Calls>().map(Calls::begin);
    let (mut response, bytes) = route(&state, call, request).await;
    response.headers_mut().insert(VERSION_HEADER, VERSION);
    let took = state.env.monotonic().saturating_sub(begun);
    let code = response.status().as_u16();
    if !matches!(call, Call::Health | Call::Ready | Call::Metrics) {
        let method = call.name();
        metrics::histogram!("highwater_vss_request_seconds", "method" => method, "code" => code.to_string())
            .record(took.as_secs_f64());
    }
    state.tell(&Event::Answered { method: call.name(), code, took, bytes });
    keep(response, running)
}

/// Counts the call until its answer has left.
fn keep(response: Response, running: Option<RunningCall>) -> Response {
    response.map(|body| Body::new(Kept { body, _running: running }))
}

/// A body, and the call that it answers. Its length stays known.
struct Kept {
    body: Body,
    _running: Option<RunningCall>,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Bytes in several pieces, and the memory that is reckoned for them until they have left.
struct Pieces {
    pieces: VecDeque<Bytes>,
    _held: Held,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.front_mut() else { return Poll::Ready(None) };
        // Whoever sends them takes the next one once the last one has left: a whole value would be taken
        // at once, and held by nobody who counts.
        let piece = piece.split_to(piece.len().min(SENT_AT_ONCE));
        if self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// The answer, and how long the request's body was.
async fn route(state: &Arc<VssState>, call: Call, request: Request) -> (Response, usize) {
    match call {
        Call::Health => return (document(StatusCode::OK, "{\"healthy\":true}"), 0),
        Call::Ready => return (ready(state).await, 0),
        Call::Metrics => return (figures(state, request.headers()).await, 0),
        Call::Capabilities => return (extensions::capabilities(), 0),
        Call::Nothing => {
            let fault = VssError::InvalidRequestError("there is no such call here".to_owned());
            return (failed(state, call, &fault), 0);
        }
        _ => {}
    }
    let mut length = 0;
    let done = attend(state, call, request, &mut length).await;
    (done.unwrap_or_else(|fault| failed(state, call, &fault)), length)
}

/// Takes a request in, once there is room for it, and does what it asks for.
async fn attend(
    state: &Arc<VssState>,
    call: Call,
    request: Request,
    length: &mut usize,
) -> Result<Response, VssError> {
    let user = user(state, request.headers())?;
    let calls = request.extensions().get::<Calls>();
    let network = calls.and_then(Calls::network);
    let end = Instant::now() + state.limits.request_wait;
    let turn = state.shares.turn(&user, network, end).await?;
    let (bytes, held) = body(state, &turn, call, request).await?;
    *length = bytes.len();
    let end = Instant::now() + state.limits.request_wait;
    let state = Arc::clone(state);
    let done = match call {
        // A write that waits holds its body, and so what is counted for that.
        Call::Put | Call::Delete => {
            let bytes = Bytes::from_owner(Counted { bytes, _held: held });
            timeout_at(end, state.work(call, user, bytes, (turn, Held::default()), end)).await
        }
        _ => {
            let work = state.work(call, user, bytes, (turn, held), end);
            timeout_at(end, ToItsEnd(Some(Box::pin(work)))).await
        }
    };
    done.map_err(|_| VssError::InternalServerError("the request took too long".to_owned()))?
}

/// Bytes, and the memory that is reckoned for them until the last part of them is gone.
struct Counted {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

type Work = Pin<Box<dyn Future<Output = Result<Response, VssError>> + Send>>;

/// A read that goes on by itself once nobody waits for it, since the database does: so it keeps what is
/// counted for it.
struct ToItsEnd(Option<Work>);

impl Future for ToItsEnd {
    type Output = Result<Response, VssError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let done = std::task::ready!(work.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(done)
    }
}

impl Drop for ToItsEnd {
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

/// Who asks. Where nobody is asked, a page in a browser of this machine must not pass for somebody.
fn user(state: &VssState, headers: &HeaderMap) -> Result<String, VssError> {
    if state.auth.is_none() && headers.contains_key(ORIGIN) {
        return Err(VssError::AuthError("a page in a browser is not served here".to_owned()));
    }
    state.auth.user(headers, &state.env)
}

/// A request's body, with the memory that is reckoned for it: the user's own at once, everybody's as it
/// comes.
async fn body(
    state: &VssState,
    turn: &Turn,
    call: Call,
    request: Request,
) -> Result<(Bytes, Held), VssError> {
    let invalid = |why: &str| VssError::InvalidRequestError(why.to_owned());
    let limit = match call {
        Call::Put => state.limits.body_bytes,
        _ => state.limits.body_bytes.min(SHORT_MAX),
    };
    let said = request.headers().get(CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let most = said.unwrap_or(UNSIZED_MAX.min(limit));
    if most > limit {
        return Err(VssError::InvalidRequestError(format!(
            "the request has more than {limit} bytes"
        )));
    }
    let mut pace = Pace::new(state.limits.request_wait);
    let mut held = turn.announced(wire::put_bytes(most), pace.end).await?;
    let mut stream = request.into_body().into_data_stream();
    let (mut bytes, mut first) = (BytesMut::new(), Bytes::new());
    loop {
        let piece = match timeout_at(pace.end, stream.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) => return Err(invalid("the request's body did not arrive")),
            Ok(None) => break,
            Err(_) => return Err(invalid("the request's body did not arrive in time")),
        };
        let length = first.len() + bytes.len();
        if piece.len() > most - length {
            return Err(invalid("the request's body is longer than it may be"));
        }
        let more = wire::put_bytes(length + piece.len()) - wire::put_bytes(length);
        held.add(turn.arrived(more, pace.end).await?);
        pace.arrived(piece.len());
        // Most requests are one piece, which is then not copied.
        if length == 0 {
            first = piece;
        } else {
            if !first.is_empty() {
                bytes.extend_from_slice(&std::mem::take(&mut first));
            }
            bytes.extend_from_slice(&piece);
        }
    }
    let whole = if bytes.is_empty() { first } else { bytes.freeze() };
    match said {
        Some(said) if whole.len() != said => Err(invalid("the request's body did not arrive")),
        _ => Ok((whole, held)),
    }
}

/// How long is waited for more of a body: once its first time is over, for so many bytes a second.
struct Pace {
    wait: Duration,
    end: Instant,
    /// Bytes that have come since `end` was set.
    bytes: u64,
}

impl Pace {
    fn new(wait: Duration) -> Pace {
        Pace { wait, end: Instant::now() + wait, bytes: 0 }
    }

    fn arrived(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= LEAST_RATE.saturating_mul(self.wait.as_secs().max(1)) {
            (self.end, self.bytes) = (Instant::now() + self.wait, 0);
        }
    }
}

impl VssState {
    /// Does what a request asks for. What is held is held until that is done.
    async fn work(
        self: Arc<VssState>,
        call: Call,
        user: String,
        bytes: Bytes,
        (turn, held): (Turn, Held),
        end: Instant,
    ) -> Result<Response, VssError> {
        let service = &self.service;
        match call {
            Call::Get => {
                let request: GetObjectRequest = decode(bytes)?;
                drop(held);
                self.get(user, request, &turn, end).await
            }
            Call::Put => Ok(message(&service.put(user, decode_put(bytes)?).await?)),
            Call::Delete => Ok(message(&service.delete(user, decode(bytes)?).await?)),
            Call::List => {
                let _place = turn.long(end).await?;
                Ok(message(&service.list_key_versions(user, decode(bytes)?).await?))
            }
            Call::Digest | Call::History => {
                let _place = turn.long(end).await?;
                extensions::serve(service, call, user, &bytes).await
            }
            _ => extensions::serve(service, call, user, &bytes).await,
        }
    }

    /// Reads a value, for a long one once there is memory for it. It is sent as it was read.
    async fn get(
        &self,
        user: String,
        request: GetObjectRequest,
        turn: &Turn,
        end: Instant,
    ) -> Result<Response, VssError> {
        let find = async |most: usize| {
            let _place = turn.read(end).await?;
            self.service.find(user.clone(), &request, most).await
        };
        let (mut most, mut held) = (SMALL, Held::default());
        let (version, value) = loop {
            let found = find(most).await?;
            if let Some(value) = found.value {
                break (found.version, value);
            }
            drop(held);
            // Twice: as the database gives it, and as it is sent.
            held = turn.memory(found.bytes.saturating_mul(2), end).await?;
            most = found.bytes;
        };
        let key = KeyValue { key: request.key, version, value: Bytes::new() };
        let pieces = [wire::get_response(&key, value.len()), value];
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let body = Body::new(Pieces { pieces, _held: held });
        Ok(octets(StatusCode::OK, body))
    }
}

/// A put, once it is known to have no more than it may.
pub(crate) fn decode_put(bytes: Bytes) -> Result<PutObjectRequest, VssError> {
    wire::check(&bytes).map_err(|fault| VssError::InvalidRequestError(fault.text()))?;
    decode(bytes)
}

pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, VssError> {
    M::decode(bytes).map_err(|_| {
        VssError::InvalidRequestError(
            "the request's body is not the message of this call".to_owned(),
        )
    })
}

fn message(message: &impl Message) -> Response {
    bytes(StatusCode::OK, message.encode_to_vec())
}

fn bytes(status: StatusCode, bytes: Vec<u8>) -> Response {
    octets(status, Body::from(bytes))
}

fn octets(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, BYTES);
    response
}

/// A document of JSON.
pub(crate) fn document(status: StatusCode, text: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error as the protocol has it. What went wrong inside is reported only to the operator.
fn failed(state: &VssState, call: Call, fault: &VssError) -> Response {
    let (status, code, text) = match fault {
        VssError::ConflictError(why) => (StatusCode::CONFLICT, ErrorCode::ConflictException, why),
        VssError::InvalidRequestError(why) => {
            (StatusCode::BAD_REQUEST, ErrorCode::InvalidRequestException, why)
        }
        VssError::NoSuchKeyError(why) => {
            (StatusCode::NOT_FOUND, ErrorCode::NoSuchKeyException, why)
        }
        VssError::AuthError(why) => (StatusCode::UNAUTHORIZED, ErrorCode::AuthException, why),
        VssError::InternalServerError(why) => {
            state.tell(&Event::Failed { method: call.name(), message: why.clone() });
            let masked = "the server failed; its operator can see why".to_owned();
            let body = ErrorResponse {
                error_code: ErrorCode::InternalServerException.into(),
                message: masked,
            };
            return bytes(StatusCode::INTERNAL_SERVER_ERROR, body.encode_to_vec());
        }
    };
    let body = ErrorResponse { error_code: code.into(), message: text.clone() };
    bytes(status, body.encode_to_vec())
}

/// The figures, for those who may see them.
async fn figures(state: &Arc<VssState>, headers: &HeaderMap) -> Response {
    let may = match &state.figures {
        Figures::Everybody => Ok(true),
        Figures::Nobody => Ok(false),
        Figures::Bearers(_) => {
            let text = headers.get(AUTHORIZATION).and_then(bearer).unwrap_or_default().to_owned();
            let state = Arc::clone(state);
            // The file of tokens is looked at.
            let find = move || match &state.figures {
                Figures::Bearers(tokens) => Ok(tokens.find(&text)?.is_some()),
                _ => Ok(false),
            };
            tokio::task::spawn_blocking(find).await.unwrap_or_else(|error| {
                Err(highwater::Error::bug("a look panicked").with_source(error))
            })
        }
    };
    match may {
        Ok(true) => highwater_gate::figures::answer(highwater_gate::figures::counted()),
        Ok(false) => {
            let why = "metrics need a token of this server";
            failed(state, Call::Metrics, &VssError::AuthError(why.to_owned()))
        }
        Err(error) => failed(state, Call::Metrics, &VssError::InternalServerError(error.summary())),
    }
}

/// Whether a write could land now.
async fn ready(state: &VssState) -> Response {
    let wait = state.limits.request_wait.min(Duration::from_secs(5));
    let ready = tokio::time::timeout(wait, state.service.backend().ready()).await;
    match ready {
        Ok(Ok(())) => document(StatusCode::OK, "{\"ready\":true,\"reasons\":[]}"),
        _ => document(
            StatusCode::SERVICE_UNAVAILABLE,
            "{\"ready\":false,\"reasons\":[\"database\"]}",
        ),
    }
}
