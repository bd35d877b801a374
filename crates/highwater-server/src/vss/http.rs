//! The protocol over HTTP: bytes in, bytes out, and every error one that a client understands.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use highwater::Env;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use vss_api::error::VssError;
use vss_api::kv_store::KvStore as _;
use vss_api::types::{ErrorCode, ErrorResponse, PutObjectRequest};
use vss_prost::Message;

use super::limits::Limits;
use super::observe::{Event, Log};
use super::plan::{check_count, count_items};
use super::{Auth, Service, extensions};
use crate::connection::{Calls, Running};
use crate::metrics;

/// Every answer carries it; newer clients look for it first.
const VERSION_HEADER: HeaderName = HeaderName::from_static("vss-protocol-version");
const VERSION: HeaderValue = HeaderValue::from_static("0");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// A body that does not say how long it is may be so long.
const UNSIZED_MAX: usize = 1 << 20;
/// The memory of bodies is counted in pieces of so many bytes.
const PIECE: usize = 1 << 10;

/// So many pieces are so many bytes.
pub(crate) fn pieces(bytes: usize) -> usize {
    bytes.div_ceil(PIECE).min(Semaphore::MAX_PERMITS)
}

/// What all requests share.
pub(crate) struct State {
    pub(crate) service: Service,
    pub(crate) auth: Auth,
    pub(crate) limits: Limits,
    pub(crate) env: Env,
    pub(crate) log: Option<Log>,
    /// Pieces of memory for bodies.
    pub(crate) memory: Arc<Semaphore>,
}

impl State {
    pub(crate) fn tell(&self, event: &Event) {
        if let Some(log) = &self.log {
            log(event);
        }
    }
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

pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let begun = state.env.monotonic();
    let call = Call::of(request.method(), request.uri().path());
    let running = request.extensions().get::<Calls>().map(Calls::begin);
    let (mut response, bytes) = route(&state, call, request).await;
    response.headers_mut().insert(VERSION_HEADER, VERSION);
    let took = state.env.monotonic().saturating_sub(begun);
    let code = response.status().as_u16();
    if !matches!(call, Call::Health | Call::Ready | Call::Metrics) {
        metrics::vss_request(call.name(), code, took);
    }
    state.tell(&Event::Answered { method: call.name(), code, took, bytes });
    keep(response, running)
}

/// Counts the call until its answer has left.
fn keep(response: Response, running: Option<Running>) -> Response {
    response.map(|body| Body::new(Kept { body, _running: running }))
}

/// A body, and the call that it answers. Its length stays known.
struct Kept {
    body: Body,
    _running: Option<Running>,
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

/// The answer, and how long the request's body was.
async fn route(state: &Arc<State>, call: Call, request: Request) -> (Response, usize) {
    match call {
        Call::Health => return (document(StatusCode::OK, "{\"healthy\":true}"), 0),
        Call::Ready => return (ready(state).await, 0),
        Call::Metrics => return (metrics::text(), 0),
        Call::Capabilities => return (extensions::capabilities(), 0),
        Call::Nothing => {
            let fault = VssError::InvalidRequestError("there is no such call here".to_owned());
            return (failed(state, call, &fault), 0);
        }
        _ => {}
    }
    let user = match user(state, request.headers()) {
        Ok(user) => user,
        Err(fault) => return (failed(state, call, &fault), 0),
    };
    let (bytes, _memory) = match body(state, request).await {
        Ok(body) => body,
        Err(fault) => return (failed(state, call, &fault), 0),
    };
    let length = bytes.len();
    let end = Instant::now() + state.limits.request_wait;
    let done = match timeout_at(end, serve(state, call, user, bytes)).await {
        Ok(done) => done,
        Err(_) => Err(VssError::InternalServerError("the request took too long".to_owned())),
    };
    (done.unwrap_or_else(|fault| failed(state, call, &fault)), length)
}

/// Who asks. Where nobody is asked, a page in a browser of this machine must not pass for somebody.
fn user(state: &State, headers: &HeaderMap) -> Result<String, VssError> {
    if state.auth.is_none() && headers.contains_key(ORIGIN) {
        return Err(VssError::AuthError("a page in a browser is not served here".to_owned()));
    }
    state.auth.user(headers, &state.env)
}

/// A request's body, with the memory that is reckoned for it.
async fn body(state: &State, request: Request) -> Result<(Bytes, OwnedSemaphorePermit), VssError> {
    let invalid = |why: &str| VssError::InvalidRequestError(why.to_owned());
    let end = Instant::now() + state.limits.request_wait;
    let said = request.headers().get(CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let most = said.unwrap_or(UNSIZED_MAX.min(state.limits.body_bytes));
    if most > state.limits.body_bytes {
        return Err(VssError::InvalidRequestError(format!(
            "the request has more than {} bytes",
            state.limits.body_bytes
        )));
    }
    let pieces = u32::try_from(pieces(most)).unwrap_or(u32::MAX);
    let busy = || VssError::InternalServerError("too much is under way at once".to_owned());
    let memory = timeout_at(end, Arc::clone(&state.memory).acquire_many_owned(pieces));
    let memory = memory.await.map_err(|_| busy())?.map_err(|_| busy())?;
    match timeout_at(end, axum::body::to_bytes(request.into_body(), most)).await {
        Ok(Ok(bytes)) => Ok((bytes, memory)),
        Ok(Err(_)) => Err(invalid("the request's body did not arrive, or is too long")),
        Err(_) => Err(invalid("the request's body did not arrive in time")),
    }
}

async fn serve(
    state: &State,
    call: Call,
    user: String,
    bytes: Bytes,
) -> Result<Response, VssError> {
    let service = &state.service;
    match call {
        Call::Get => Ok(message(&service.get(user, decode(bytes)?).await?)),
        Call::Put => Ok(message(&service.put(user, decode_put(bytes)?).await?)),
        Call::Delete => Ok(message(&service.delete(user, decode(bytes)?).await?)),
        Call::List => Ok(message(&service.list_key_versions(user, decode(bytes)?).await?)),
        _ => extensions::serve(service, call, user, &bytes).await,
    }
}

pub(super) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, VssError> {
    M::decode(bytes).map_err(|_| no_message())
}

/// A put, decoded once it is known how many items it has.
pub(super) fn decode_put(bytes: Bytes) -> Result<PutObjectRequest, VssError> {
    let count = count_items(&bytes).ok_or_else(no_message)?;
    check_count(count).map_err(VssError::InvalidRequestError)?;
    decode(bytes)
}

fn no_message() -> VssError {
    VssError::InvalidRequestError("the request's body is not the message of this call".to_owned())
}

fn message(message: &impl Message) -> Response {
    bytes(StatusCode::OK, message.encode_to_vec())
}

fn bytes(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
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

/// An error as the protocol has it. What went wrong inside is told to the operator alone.
fn failed(state: &State, call: Call, fault: &VssError) -> Response {
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

/// Whether a write could land now.
async fn ready(state: &State) -> Response {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Items of two bytes and then something that is no field: which of both is told says what was
    /// looked at first.
    #[test]
    fn a_put_is_decoded_once_its_items_are_counted() {
        let put = |items: usize| {
            let body = [[0x1a, 0].repeat(items / 2), [0x22, 0].repeat(items - items / 2)].concat();
            decode_put(body.into())
        };
        let request = put(1000).unwrap();
        assert_eq!((request.transaction_items.len(), request.delete_items.len()), (500, 500));
        let body = [[0x1a, 0].repeat(1001), b"\x1a\x02\xff\xff".to_vec()].concat();
        for error in [put(1001).unwrap_err(), decode_put(body.into()).unwrap_err()] {
            let VssError::InvalidRequestError(why) = error else { panic!("{error:?}") };
            assert!(why.ends_with(" items; a put takes 1000"), "{why}");
        }
        // A group, and what a group could hide.
        for body in [&[0x0b, 0x1a, 0, 0x0c][..], &[0x1a, 1], &[0x18], &[0xff; 11]] {
            assert!(decode_put(Bytes::copy_from_slice(body)).is_err(), "{body:?}");
        }
    }
}
