//! A VSS server on one port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use highwater::{Env, Error, Result};
use highwater_gate::{Port, Serving, TlsFiles, Tokens, figures};
use tokio::task::AbortHandle;

use crate::backend::Refusal;
use crate::http::{self, Figures, VssState};
use crate::limits::Limits;
use crate::observe::{Event, Log};
use crate::share::Shares;
use crate::{Auth, Backend, Service};

/// Old values that nobody need keep are deleted so often.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// A server of stores.
pub struct VssServer;

impl VssServer {
    /// A server over `backend`, on a free port of 127.0.0.1 and by signatures where nothing else is said.
    pub fn builder(backend: Arc<dyn Backend>) -> VssBuilder {
        VssBuilder {
            backend,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            allow_http: false,
            auth: Auth::signature(),
            tokens: None,
            limits: Limits::default(),
            env: Env::system(),
            log: None,
        }
    }
}

/// How a server is made: [`VssServer::builder`].
pub struct VssBuilder {
    backend: Arc<dyn Backend>,
    address: SocketAddr,
    tls: Option<TlsFiles>,
    allow_http: bool,
    auth: Auth,
    tokens: Option<Tokens>,
    limits: Limits,
    env: Env,
    log: Option<Log>,
}

impl VssBuilder {
    /// Where it listens. Other than on loopback it needs TLS.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> VssBuilder {
        self.address = address;
        self
    }

    /// The files of a chain of certificates and of its private key, as PEM.
    #[must_use]
    pub fn tls(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> VssBuilder {
        self.tls = Some(TlsFiles { cert: cert.into(), key: key.into() });
        self
    }

    /// Serves without TLS on other addresses than loopback too: something in front of it has TLS.
    #[must_use]
    pub fn allow_http(mut self, allow: bool) -> VssBuilder {
        self.allow_http = allow;
        self
    }

    /// How clients show who they are.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> VssBuilder {
        self.auth = auth;
        self
    }

    /// Whose tokens show the figures under `/metrics`. Without any, they are shown on loopback alone.
    #[must_use]
    pub fn tokens(mut self, tokens: Tokens) -> VssBuilder {
        self.tokens = Some(tokens);
        self
    }

    /// How much it does at once.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> VssBuilder {
        self.limits = limits;
        self
    }

    /// The clock.
    #[must_use]
    pub fn env(mut self, env: Env) -> VssBuilder {
        self.env = env;
        self
    }

    /// Gets told what happens, on the thread that it happens on.
    #[must_use]
    pub fn log(mut self, log: impl Fn(&Event) + Send + Sync + 'static) -> VssBuilder {
        self.log = Some(Box::new(log));
        self
    }

    /// Starts the server on the runtime that this is called on.
    ///
    /// # Errors
    /// Input where it would serve others than this machine without TLS, or without asking who they are,
    /// and where certificate or key can't be used; what taking the port says.
    pub async fn start(self) -> Result<Running> {
        self.refuse_open()?;
        if let Some(tokens) = &self.tokens {
            tokens.list()?;
        }
        let port = Port::open(self.address, self.tls.as_ref(), self.limits.patience())?;
        let loopback = self.address.ip().to_canonical().is_loopback();
        let figures = match self.tokens {
            Some(tokens) => Figures::Bearers(tokens),
            None if loopback => Figures::Everybody,
            None => Figures::Nobody,
        };
        let (backend, reads) = (Arc::clone(&self.backend), self.backend.reads());
        let state = Arc::new(VssState {
            service: Service::with(self.backend, &self.env),
            auth: self.auth,
            figures,
            shares: Arc::new(Shares::new(self.limits, reads)),
            limits: self.limits,
            env: self.env,
            log: self.log,
        });
        let serving = port.serve(http::router(Arc::clone(&state)))?;
        let upkeep = vec![
            tokio::spawn(prune(Arc::clone(&state))).abort_handle(),
            tokio::spawn(figures::upkeep()).abort_handle(),
        ];
        Ok(Running { serving, backend, upkeep })
    }

    fn refuse_open(&self) -> Result<()> {
        if self.address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let address = self.address;
        if self.auth.is_none() {
            return Err(Error::input(format!(
                "{address} is not loopback, and there is no authentication"
            ))
            .with_remedy("take signatures or tokens, or listen on 127.0.0.1"));
        }
        if self.tls.is_none() && !self.allow_http {
            return Err(Error::input(format!("{address} is not loopback, and there is no TLS"))
                .with_remedy(
                    "give a certificate and a key; or allow HTTP, where something in front has TLS",
                ));
        }
        Ok(())
    }
}

/// A server that runs. Dropped, it goes on.
pub struct Running {
    serving: Serving,
    backend: Arc<dyn Backend>,
    upkeep: Vec<AbortHandle>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// Takes no more requests, lets those that run end, and closes the database once they have: no write
    /// that was answered is lost. What takes longer than ten seconds is cut off.
    ///
    /// # Errors
    /// Unavailable where it had stopped by itself, and why.
    pub async fn shutdown(self) -> Result<()> {
        let ended = self.serving.shutdown().await;
        self.upkeep.iter().for_each(AbortHandle::abort);
        self.backend.close().await;
        ended
    }
}

/// Deletes what no policy keeps, now and then.
async fn prune(state: Arc<VssState>) {
    let mut due = tokio::time::interval(PRUNE_EVERY);
    loop {
        due.tick().await;
        if let Err(Refusal::Failed(error)) = state.service.backend().prune().await {
            state.tell(&Event::Failed { method: "prune", message: error.summary() });
        }
    }
}
