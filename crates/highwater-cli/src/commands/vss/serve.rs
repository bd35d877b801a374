//! `vss serve`: a server of stores.

use std::net::SocketAddr;
use std::path::Path;

use highwater::{Error, Result};
use highwater_server::Tokens;
use highwater_vss::{Auth, Event, Limits, VssServer};
use sd_notify::NotifyState;
use serde_json::json;

use crate::answer::Answer;
use crate::cli::{VssAuth, VssServeArgs};
use crate::commands::serve::{Signals, notify, tell};
use crate::context::Context;

use super::database::{self, As};

/// Where it listens if nothing is said.
const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9737);

pub(super) async fn run(context: &Context, args: &VssServeArgs) -> Result<Answer> {
    let mut signals = Signals::listen()?;
    let settings = context.settings.vss();
    let auth = auth(
        args.auth.or(settings.auth).unwrap_or(VssAuth::Signature),
        args.jwt_key.as_deref().or(settings.jwt_key.as_deref()),
    )?;
    let backend = database::open(context, &args.database, As::Server).await?;
    let (json, requests) = (context.json, args.log_requests);
    let mut server = VssServer::builder(backend)
        .listen(args.listen.or(settings.listen).unwrap_or(LISTEN))
        .allow_http(args.allow_http || settings.allow_http)
        .auth(auth)
        .env(context.env().clone())
        .log(move |event| told(json, requests, event));
    if let Some(tokens) = args.tokens.as_ref().or(settings.tokens.as_ref()) {
        server = server.tokens(Tokens::at(tokens));
    }
    if let Some(bytes) = args.max_request.or(settings.max_request) {
        server = server.limits(limits(bytes)?);
    }
    let flags = args.tls_cert.clone().zip(args.tls_key.clone());
    if let Some((cert, key)) = flags.or_else(|| settings.tls.clone()) {
        server = server.tls(cert, key);
    }
    let running = server.start().await?;
    let address = running.address();
    tell(
        context,
        &json!({"event": "listening", "address": address}),
        &format!("Listening on {address}"),
    );
    notify(&[NotifyState::Ready]);
    signals.end().await;
    notify(&[NotifyState::Stopping]);
    tell(context, &json!({"event": "stopping"}), "Stopping");
    running.shutdown().await?;
    Ok(Answer::new(json!({"event": "stopped"}), "Stopped"))
}

/// Limits by which a put of this length can be taken, and others beside it.
fn limits(request: u64) -> Result<Limits> {
    let fits = |bytes: &usize| (1..=1 << 30).contains(bytes);
    let body_bytes = usize::try_from(request).ok().filter(fits).ok_or_else(|| {
        Error::input(format!("no request can have {request} bytes"))
            .with_remedy("the largest put has 1 byte to 1073741824")
    })?;
    let usual = Limits::default();
    Ok(Limits {
        body_bytes,
        user_bytes: usual.user_bytes.max(body_bytes.saturating_mul(2)),
        memory_bytes: usual.memory_bytes.max(body_bytes.saturating_mul(8)),
        ..usual
    })
}

fn auth(how: VssAuth, jwt_key: Option<&Path>) -> Result<Auth> {
    match (how, jwt_key) {
        (VssAuth::Jwt, Some(file)) => {
            let name = file.display().to_string();
            let pem = std::fs::read_to_string(file)
                .map_err(|error| Error::io("reading the key", error).with_entry(&name))?;
            Auth::jwt(&pem).map_err(|error| error.with_entry(name))
        }
        (VssAuth::Jwt, None) => {
            Err(Error::input("tokens need a key to be verified with").with_remedy("give --jwt-key"))
        }
        (_, Some(_)) => Err(Error::input("--jwt-key is only for --auth jwt")),
        (VssAuth::Signature, None) => Ok(Auth::signature()),
        (VssAuth::None, None) => Ok(Auth::none()),
    }
}

/// Tells what the server does. Nothing of an event names a user, a store, a key or a value.
fn told(json: bool, requests: bool, event: &Event) {
    match event {
        Event::Answered { method, code, took, bytes } if requests => {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let document = json!({
                "event": "answered", "method": method, "code": code, "micros": micros,
                "bytes": bytes,
            });
            let text = format!("{method} {code}, {micros} µs, {bytes} bytes");
            crate::commands::serve::tell_as(json, &document, &text);
        }
        Event::Failed { method, message } => {
            let document = json!({"event": "failed", "method": method, "message": message});
            let text = format!("{method} failed: {message}");
            crate::commands::serve::tell_as(json, &document, &text);
        }
        _ => {}
    }
}
