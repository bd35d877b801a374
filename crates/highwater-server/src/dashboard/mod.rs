//! The dashboard: pages for a browser, made on the server. They only show; where an operator would act,
//! they show the command to copy. Nothing is loaded from anywhere else, and without its script a page
//! is whole.

mod commands;
mod format;
mod pages;
mod replica;
mod session;
mod standing;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Extension, Form, Path, Request, State as Shared};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use highwater::agent::Agent;
use highwater::{Error, Kind};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::fault::CallFault;
use crate::state::{Caller, Identity, ServerState};

use commands::Server;
use pages::{Frame, Login, Message, NodePage, OperationPage, Overview, Scene};
use session::Sessions;

/// Everything comes from the server itself, and nothing stands in a page but text.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    // Not `no-referrer`: a browser would send the origin `null` with its forms.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// What the pages are made from.
struct Desk {
    state: Arc<ServerState>,
    sessions: Sessions,
}

/// The pages.
pub(crate) fn router(state: Arc<ServerState>) -> Router {
    let sessions = Sessions::new(state.secure);
    let desk = Arc::new(Desk { state, sessions });
    let pages = Router::new()
        .route("/", get(overview))
        .route("/nodes/{node}", get(node))
        .route("/operations/{operation}", get(operation))
        .layer(from_fn_with_state(Arc::clone(&desk), admit));
    Router::new()
        .route("/login", get(login).post(log_in))
        .route("/logout", post(log_out))
        .merge(pages)
        .layer(from_fn(no_store))
        .merge(assets())
        .layer(from_fn(harden))
        .with_state(desk)
}

/// Style, script and icon: files without a secret, that the way in needs too.
fn assets() -> Router<Arc<Desk>> {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text) })
    };
    Router::new()
        .route("/assets/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/assets/live.js", file("text/javascript; charset=utf-8", include_str!("live.js")))
        .route("/assets/icon.svg", file("image/svg+xml", include_str!("icon.svg")))
}

async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a page shows stays in no cache.
async fn no_store(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Lets in who bears a token or has a session, and shows everybody else the way in.
async fn admit(Shared(desk): Shared<Arc<Desk>>, mut request: Request, next: Next) -> Response {
    let found = request.extensions().get::<Identity>().cloned();
    let identity = found.unwrap_or_else(|| desk.state.stranger());
    let headers = request.headers().clone();
    let asking = Arc::clone(&desk);
    let admitted = desk.state.run(move |state| {
        let identity = asking.known(state, identity, &headers)?;
        state.take(&identity)?;
        Ok(identity)
    });
    match admitted.await {
        Ok(identity) if identity.caller.is_some() => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Ok(_) => see_other("/login", None),
        Err(fault) => desk.failed(fault),
    }
}

impl Desk {
    /// Who asks: by the token of the request, else by that of the session.
    fn known(
        &self,
        state: &ServerState,
        seen: Identity,
        headers: &HeaderMap,
    ) -> Result<Identity, CallFault> {
        let Some(tokens) = state.tokens.as_ref().filter(|_| seen.caller.is_none()) else {
            return Ok(seen);
        };
        let session = self.sessions.token(headers, state.env.monotonic());
        let token = match session {
            Some(token) => tokens.find_hash(&token)?,
            None => None,
        };
        let caller = token.map(|token| Caller { label: token.label, scope: token.scope });
        Ok(Identity { caller, ..seen })
    }

    /// A page from the state of the agents, made where it may block.
    async fn page<T: Template + Send + 'static>(
        &self,
        identity: Identity,
        headers: &HeaderMap,
        make: impl FnOnce(&Scene, &ServerState) -> highwater::Result<T> + Send + 'static,
    ) -> Response {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
        let host = host.to_owned();
        let made = self.state.run(move |state| {
            let scene = Scene {
                agents: state.agents.all(),
                now: state.env.now(),
                server: Server {
                    scheme: if state.secure { "https" } else { "http" },
                    host,
                    token: state.tokens.is_some(),
                },
                session: identity.caller.filter(|_| state.tokens.is_some()).map(|c| c.label),
            };
            Ok(make(&scene, state)?)
        });
        match made.await {
            Ok(page) => html(StatusCode::OK, &page),
            Err(fault) => self.failed(fault),
        }
    }

    /// A page that says why there is none.
    fn failed(&self, fault: CallFault) -> Response {
        let heading = match &fault {
            CallFault::Error(error) if error.kind() == Kind::NotFound => "Not found",
            CallFault::Error(error) if error.kind() == Kind::Input => "Not understood",
            _ => "This page can't be shown",
        };
        let mut text = fault.message();
        if let Some(hint) = fault.hint() {
            text = format!("{text}: {hint}");
        }
        let heading = heading.to_owned();
        let message = Message { frame: bare(&heading), heading, text };
        html(fault.http_code(), &message)
    }
}

/// The frame of a page that shows nothing of any node.
fn bare(title: &str) -> Frame {
    Frame {
        title: title.to_owned(),
        version: crate::VERSION,
        now: None,
        nodes: Vec::new(),
        session: None,
    }
}

fn html(code: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (code, Html(text)).into_response(),
        Err(error) => {
            CallFault::from(Error::bug("a page can't be made").with_source(error)).into_response()
        }
    }
}

fn see_other(place: &'static str, cookie: Option<HeaderValue>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(place));
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

async fn overview(
    Shared(desk): Shared<Arc<Desk>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> Response {
    desk.page(identity, &headers, |scene, _| Overview::new(scene)).await
}

async fn node(
    Shared(desk): Shared<Arc<Desk>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Response {
    let make = move |scene: &Scene, state: &ServerState| {
        let agent: Agent = state.agents.find(&name)?;
        NodePage::new(scene, &agent)
    };
    desk.page(identity, &headers, make).await
}

async fn operation(
    Shared(desk): Shared<Arc<Desk>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let make = move |scene: &Scene, state: &ServerState| {
        let (_, operation) = state.agents.operation(&id)?;
        Ok(OperationPage::new(scene, &operation))
    };
    desk.page(identity, &headers, make).await
}

/// The way in, where one is needed.
async fn login(Shared(desk): Shared<Arc<Desk>>) -> Response {
    match desk.state.tokens {
        Some(_) => html(StatusCode::OK, &Login { frame: bare("Sign in"), problem: None }),
        None => see_other("/", None),
    }
}

/// What the way in sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    token: String,
}

async fn log_in(
    Shared(desk): Shared<Arc<Desk>>,
    Extension(identity): Extension<Identity>,
    Form(given): Form<Given>,
) -> Response {
    let asking = Arc::clone(&desk);
    let opened = desk.state.run(move |state| {
        let Some(tokens) = &state.tokens else { return Ok(None) };
        let stranger = Identity { caller: None, ..identity };
        state.take(&stranger)?;
        let text = given.token.trim();
        if tokens.find(text)?.is_none() {
            state.record(&stranger, "/login", "", "unauthenticated")?;
            return Err(CallFault::Unauthenticated);
        }
        let token = blake3::hash(text.as_bytes());
        Ok(Some(asking.sessions.begin(token, state.env.monotonic())?))
    });
    match opened.await {
        Ok(cookie) => see_other("/", cookie),
        Err(CallFault::Unauthenticated) => {
            let problem = Some("The agent does not know this token. It may have been revoked.");
            html(StatusCode::UNAUTHORIZED, &Login { frame: bare("Sign in"), problem })
        }
        Err(fault) => desk.failed(fault),
    }
}

async fn log_out(Shared(desk): Shared<Arc<Desk>>, headers: HeaderMap) -> Response {
    match desk.sessions.end(&headers) {
        Ok(cookie) => see_other("/login", Some(cookie)),
        Err(error) => desk.failed(error.into()),
    }
}
