//! A server on one port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use highwater::{Env, Error, Result};
use highwater_gate::{Port, Serving, TlsFiles, Tokens};
use http::{HeaderName, HeaderValue};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::audit::Audit;
use crate::limits::Limits;
use crate::state::ServerState;
use crate::{Agents, access, dashboard, grpc, health, metrics, rpc};

/// The network faces of agents.
pub struct Server;

impl Server {
    /// A server for `agents`, on a free port of 127.0.0.1 where nothing else is said.
    pub fn builder(agents: Agents) -> ServerBuilder {
        ServerBuilder {
            agents,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            tokens: None,
            audit: None,
            limits: Limits::default(),
            env: Env::system(),
        }
    }
}

/// How a server is made: [`Server::builder`].
pub struct ServerBuilder {
    agents: Agents,
    address: SocketAddr,
    tls: Option<TlsFiles>,
    tokens: Option<Tokens>,
    audit: Option<PathBuf>,
    limits: Limits,
    env: Env,
}

impl ServerBuilder {
    /// Where it listens. Other than on loopback it needs TLS and tokens.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> ServerBuilder {
        self.address = address;
        self
    }

    /// The files of a chain of certificates and of its private key, as PEM.
    #[must_use]
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ServerBuilder {
        self.tls = Some(TlsFiles { cert: cert.into(), key: key.into() });
        self
    }

    /// Who is let in: each call needs a token then, on loopback too.
    #[must_use]
    pub fn tokens(mut self, tokens: Tokens) -> ServerBuilder {
        self.tokens = Some(tokens);
        self
    }

    /// The file that gets a line of JSON for each refusal, and for each call that changes something,
    /// before it does. Without it nothing is recorded.
    #[must_use]
    pub fn audit(mut self, file: impl Into<PathBuf>) -> ServerBuilder {
        self.audit = Some(file.into());
        self
    }

    /// How much it does at once.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> ServerBuilder {
        self.limits = limits;
        self
    }

    /// Clock and randomness.
    #[must_use]
    pub fn env(mut self, env: Env) -> ServerBuilder {
        self.env = env;
        self
    }

    /// Starts the server on the runtime that this is called on.
    ///
    /// # Errors
    /// Input where it would listen other than on loopback without TLS and tokens, and where certificate
    /// or key can't be used; what reading the files, opening the audit file and taking the port say.
    pub async fn start(self) -> Result<Running> {
        self.refuse_open()?;
        if let Some(tokens) = &self.tokens {
            tokens.list()?;
        }
        let audit = self.audit.map(Audit::new);
        if let Some(audit) = &audit {
            audit.try_open()?;
        }
        let port = Port::open(self.address, self.tls.as_ref(), self.limits.patience())?;
        let state = ServerState {
            tokens: self.tokens,
            audit,
            secure: self.tls.is_some(),
            ..ServerState::new(self.agents, self.limits, self.env)
        };
        let state = Arc::new(state);
        let serving = port.serve(router(&state).await?)?;
        Ok(Running { serving, state })
    }

    fn refuse_open(&self) -> Result<()> {
        if self.address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let missing = match (&self.tls, &self.tokens) {
            (Some(_), Some(_)) => return Ok(()),
            (None, Some(_)) => "TLS",
            (Some(_), None) => "tokens",
            (None, None) => "TLS and tokens",
        };
        Err(Error::input(format!("{} is not loopback, and there is no {missing}", self.address))
            .with_remedy("give the server a certificate, a key and a file of tokens, or let it listen on 127.0.0.1"))
    }
}

/// A server that runs. Dropped, it goes on.
pub struct Running {
    serving: Serving,
    state: Arc<ServerState>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// Takes no more calls, lets those that run end, ends streams, and returns when all have. What takes
    /// longer than ten seconds is cut off. The agents go on.
    ///
    /// # Errors
    /// Unavailable where it had stopped by itself, and why.
    pub async fn shutdown(self) -> Result<()> {
        self.state.stopping.send_replace(true);
        self.serving.shutdown().await
    }
}

/// All faces; `identify` sees each request first.
async fn router(state: &Arc<ServerState>) -> Result<Router> {
    let shared = || Arc::clone(state);
    let router = Router::new()
        .merge(grpc::router(state).await?)
        .merge(rpc::router(state)?)
        .merge(health::router(shared()))
        .merge(dashboard::router(shared()))
        .merge(metrics::router(shared()).layer(from_fn_with_state(shared(), access::readers)));
    let header = |name, value| {
        SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    Ok(router
        .fallback(access::nothing)
        .layer(from_fn_with_state(shared(), access::identify))
        .layer(from_fn_with_state(state.limits.request_wait, highwater_gate::count))
        // A page of another origin must not make anything of an answer that it can't read.
        .layer(header("x-content-type-options", "nosniff"))
        .layer(header("cross-origin-resource-policy", "same-origin")))
}
