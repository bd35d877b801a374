//! Before any face sees a request: where it comes from, and whose it is.
//!
//! A server without tokens lets whoever reaches its port look, and back up: that is who is on the machine.
//! Nobody releases anything from quarantine without a token. A web page in
//! the operator's browser reaches it too, so such a server answers only to names of this machine (a
//! page that rebinds its own name to 127.0.0.1 still sends that name), and no server answers to a page
//! of another origin.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use highwater::{Error, Result};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue};

use crate::fault::CallFault;
use crate::state::{Caller, Identity, ServerState};
use highwater_gate::{Scope, bearer};

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;

/// Finds out whose a request is, and writes it into the request. A token that is not known is refused
/// here; without any, the faces decide.
pub(crate) async fn identify(
    Shared(state): Shared<Arc<ServerState>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let grpc = is_grpc(request.headers());
    let address = address.ip().to_canonical();
    let found = match asked(&state, &request) {
        Ok(asked) => identity(&state, address, asked).await,
        Err(fault) => Err(fault),
    };
    match found {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(fault) => refuse(fault, grpc),
    }
}

/// Lets a request through where it is known who calls.
pub(crate) async fn known(
    Shared(state): Shared<Arc<ServerState>>,
    request: Request,
    next: Next,
) -> Response {
    let found = request.extensions().get::<Identity>().cloned();
    let identity = found.unwrap_or_else(|| state.stranger());
    if identity.caller.is_some() {
        return next.run(request).await;
    }
    let path = request.uri().path().to_owned();
    let refused = state.run(move |state| state.allow(&identity, Scope::Read, &path, "")).await;
    refuse(refused.err().unwrap_or(CallFault::Unauthenticated), is_grpc(request.headers()))
}

/// Lets a request through where its caller has the scope `read`.
pub(crate) async fn readers(
    Shared(state): Shared<Arc<ServerState>>,
    request: Request,
    next: Next,
) -> Response {
    let found = request.extensions().get::<Identity>().cloned();
    let identity = found.unwrap_or_else(|| state.stranger());
    let path = request.uri().path().to_owned();
    let allowed = state.run(move |state| state.allow(&identity, Scope::Read, &path, "")).await;
    match allowed {
        Ok(_) => next.run(request).await,
        Err(fault) => refuse(fault, is_grpc(request.headers())),
    }
}

/// A token that a request bears, and where it goes.
struct Asked {
    /// `None`: something that is not a token.
    bearer: Option<String>,
    path: String,
}

/// Refuses what a web page may have sent, and takes the token out; `None` where there is none.
fn asked(state: &ServerState, request: &Request) -> Result<Option<Asked>, CallFault> {
    let host = host(request);
    if state.tokens.is_none() && !host.is_some_and(is_this_machine) {
        let error = Error::denied("the request is for another host");
        return Err(error.with_remedy("use localhost or 127.0.0.1, or configure tokens").into());
    }
    if let Some(origin) = request.headers().get(ORIGIN)
        && !is_own(origin, host)
    {
        return Err(Error::denied("the request comes from a web page of another origin").into());
    }
    let header = request.headers().get(AUTHORIZATION).filter(|_| state.tokens.is_some());
    Ok(header.map(|header| Asked {
        bearer: bearer(header).map(str::to_owned),
        path: request.uri().path().to_owned(),
    }))
}

async fn identity(
    state: &Arc<ServerState>,
    address: IpAddr,
    asked: Option<Asked>,
) -> Result<Identity, CallFault> {
    let stranger = Identity { address, ..state.stranger() };
    let Some(asked) = asked else { return Ok(stranger) };
    let looked = state.run(move |state| {
        let found = match (asked.bearer, &state.tokens) {
            (Some(text), Some(tokens)) => tokens.find(&text)?,
            _ => None,
        };
        if let Some(token) = found {
            let caller = Some(Caller { label: token.label, scope: token.scope });
            return Ok(Identity { caller, ..stranger });
        }
        state.take(&stranger)?;
        state.refused(&stranger, &asked.path, "", &CallFault::Unauthenticated)?;
        Err(CallFault::Unauthenticated)
    });
    looked.await
}

/// The host that a request names: HTTP/2 has it in the target, HTTP/1.1 in a header.
fn host(request: &Request) -> Option<&str> {
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    target.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

/// Whether a host is this machine, by a name that no page can take.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an origin is that of the host itself.
fn is_own(origin: &HeaderValue, host: Option<&str>) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some(("http" | "https", origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

/// A refusal as the caller's own protocol says it.
pub(crate) fn refuse(fault: CallFault, grpc: bool) -> Response {
    match grpc {
        true => tonic::Status::from(fault).into_http::<Body>(),
        false => fault.into_response(),
    }
}

/// What is asked for is not there.
pub(crate) async fn nothing(request: Request) -> Response {
    match is_grpc(request.headers()) {
        true => tonic::Status::unimplemented("there is no such service").into_http::<Body>(),
        false => refuse(Error::not_found("there is nothing of this name").into(), false),
    }
}
