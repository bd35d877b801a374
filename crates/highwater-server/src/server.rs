//! A server on one port.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use highwater::{Env, Error, Result};
use http::{HeaderName, HeaderValue};
use tokio::task::JoinHandle;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::audit::Audit;
use crate::auth::Tokens;
use crate::connection::{self, Gate};
use crate::limits::Limits;
use crate::state::ServerState;
use crate::{Agents, access, dashboard, grpc, health, metrics, rpc, tls};

/// How long running calls get to end when a server stops.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;

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
    tls: Option<tls::Files>,
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
        self.tls = Some(tls::Files { cert: cert.into(), key: key.into() });
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
        let tls = self.tls.as_ref().map(|files| tls::load(&files.cert, &files.key)).transpose()?;
        let audit = self.audit.map(Audit::new);
        if let Some(audit) = &audit {
            audit.try_open()?;
        }
        let name = self.address.to_string();
        let failed = |error| Error::io("listening", error).with_entry(&name);
        let listener = TcpListener::bind(self.address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = ServerState {
            tokens: self.tokens,
            audit,
            secure: self.tls.is_some(),
            ..ServerState::new(self.agents, self.limits, self.env)
        };
        let state = Arc::new(state);
        let router = router(&state).await?;
        let handle = Handle::new();
        let task = serve(listener, router, tls, &state.limits, &handle).map_err(failed)?;
        Ok(Running { address, handle, state, task })
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
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    state: Arc<ServerState>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more calls, lets those that run end, ends streams, and returns when all have. What takes
    /// longer than ten seconds is cut off. The agents go on.
    ///
    /// # Errors
    /// Unavailable where it had stopped by itself, and why.
    pub async fn shutdown(self) -> Result<()> {
        self.state.stopping.send_replace(true);
        self.handle.graceful_shutdown(Some(SHUTDOWN_WAIT));
        let ended = self.task.await;
        let ended =
            ended.map_err(|error| Error::bug("the server has panicked").with_source(error))?;
        ended.map_err(|error| Error::io("serving", error).with_entry(self.address.to_string()))
    }
}

fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<RustlsConfig>,
    limits: &Limits,
    handle: &Handle<SocketAddr>,
) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    let mut server = axum_server::from_tcp(listener)?.handle(handle.clone());
    let http = server.http_builder();
    http.http1().max_buf_size(HEAD_BYTES_MAX);
    http.http2()
        .max_concurrent_streams(limits.calls_per_connection)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let gate = Gate::new(*limits);
    Ok(match tls {
        Some(tls) => {
            let acceptor = RustlsAcceptor::new(tls).handshake_timeout(limits.request_wait);
            tokio::spawn(server.acceptor(acceptor.acceptor(gate)).serve(service))
        }
        None => tokio::spawn(server.acceptor(gate).serve(service)),
    })
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
        .layer(from_fn_with_state(shared(), connection::count))
        // A page of another origin must not make anything of an answer that it can't read.
        .layer(header("x-content-type-options", "nosniff"))
        .layer(header("cross-origin-resource-policy", "same-origin")))
}
