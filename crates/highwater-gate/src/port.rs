//! A port that is listened on, and the server behind it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use highwater::{Error, Result};
use tokio::task::JoinHandle;

use crate::connection::{Gate, Patience};
use crate::tls::{self, TlsFiles};

/// How long running calls get to end when a server stops.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A port that is taken, and not yet served. Whoever connects waits.
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
    patience: Patience,
}

impl Port {
    /// Takes a port: a free one where `address` has port 0. With `tls` it is served over TLS alone.
    ///
    /// # Errors
    /// Not found or denied where a file of TLS can't be read; input where certificate or key can't be used;
    /// what taking the port says.
    pub fn open(address: SocketAddr, tls: Option<&TlsFiles>, patience: Patience) -> Result<Port> {
        let tls = tls.map(tls::load).transpose()?;
        let failed = |error| Error::io("listening", error).with_entry(address.to_string());
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Port { listener, address, tls, patience })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves it on the runtime that this is called on. Each request bears its [`Calls`](crate::Calls) and the
    /// address that it comes from (`ConnectInfo<SocketAddr>`).
    ///
    /// # Errors
    /// What the runtime says of the port.
    pub fn serve(self, router: Router) -> Result<Serving> {
        let Port { listener, address, tls, patience } = self;
        let handle = Handle::new();
        let mut server = axum_server::from_tcp(listener)
            .map_err(|error| Error::io("listening", error).with_entry(address.to_string()))?
            .handle(handle.clone());
        let http = server.http_builder();
        // Without `pipeline_flush`: with it, an answer is buffered as a whole whether somebody takes it or not.
        http.http1().max_buf_size(HEAD_BYTES_MAX);
        http.http2()
            .max_concurrent_streams(patience.calls_per_connection)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let gate = Gate::new(patience);
        let task = match tls {
            Some(tls) => {
                let acceptor = RustlsAcceptor::new(tls).handshake_timeout(patience.request_wait);
                tokio::spawn(server.acceptor(acceptor.acceptor(gate)).serve(service))
            }
            None => tokio::spawn(server.acceptor(gate).serve(service)),
        };
        Ok(Serving { address, handle, task })
    }
}

/// A port that is served. Dropped, it goes on.
pub struct Serving {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more calls, lets those that run end, and returns when all have. What takes longer than ten
    /// seconds is cut off.
    ///
    /// # Errors
    /// Unavailable where it had stopped by itself, and why.
    pub async fn shutdown(self) -> Result<()> {
        self.handle.graceful_shutdown(Some(SHUTDOWN_WAIT));
        let ended = self.task.await;
        let ended =
            ended.map_err(|error| Error::bug("the server has panicked").with_source(error))?;
        ended.map_err(|error| Error::io("serving", error).with_entry(self.address.to_string()))
    }
}
