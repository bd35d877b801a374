//! A server as a client sees it: where it is, how it is trusted, how long it is waited for.

use std::net::IpAddr;
use std::time::Duration;

use highwater::Cancel;
use highwater::ids::NodeName;
use highwater::{Control, Env, Error, Remedy, Result};
use http::Uri;
use tokio::runtime::Runtime;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::PullOptions;
use super::failure::{Failure, chain};
use crate::stream::CHUNK_BYTES_MAX;
use crate::v1::GetStatusRequest;
use crate::v1::backups_client::BackupsClient;

/// How soon a signal, or the end of the time, is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// A connection on which nothing comes for so long is asked for a sign of life, and given up when
/// none comes for as long again.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// What may be on its way, unread: of one stream, and of a connection.
const WINDOW_BYTES: u32 = 4 << 20;
/// A message is a chunk and little more.
const MESSAGE_BYTES_MAX: usize = CHUNK_BYTES_MAX + (64 << 10);

pub(super) type Client = BackupsClient<Channel>;

/// A server, and the runtime on which it is talked to.
pub(super) struct Server {
    runtime: Runtime,
    endpoint: Endpoint,
    url: String,
    token: Option<MetadataValue<Ascii>>,
    node: String,
    cancel: Cancel,
    env: Env,
    /// When the time is over, by the monotonic clock.
    deadline: Option<Duration>,
}

/// What a server says of itself.
pub(super) struct Hello {
    /// The selected node.
    pub(super) node: NodeName,
    /// Whether it takes a broken stream up again.
    pub(super) resumes: bool,
}

impl Server {
    pub(super) fn new(options: &PullOptions, control: &Control, start: Duration) -> Result<Server> {
        // One thread beside this one keeps the connection going while this one writes to the disk.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("highwater-pull")
            .enable_all()
            .build()
            .map_err(|error| Error::io("starting to talk to the server", error))?;
        Ok(Server {
            runtime,
            endpoint: endpoint(options)?,
            url: options.url.clone(),
            token: options.token.as_ref().map(|token| bearer(&token.0)).transpose()?,
            node: options.node.as_ref().map(NodeName::to_string).unwrap_or_default(),
            cancel: control.cancel.clone(),
            env: control.env.clone(),
            deadline: options.timeout.map(|timeout| start + timeout),
        })
    }

    /// Asks what the server can do, and which node is selected.
    pub(super) fn greet(&self) -> Result<Hello> {
        let mut client = self.connect().map_err(Failure::into_error)?;
        let request = self.request(GetStatusRequest { node: self.node.clone() });
        let answer = self.wait(client.get_status(request)).map_err(Failure::into_error)?;
        let status = answer.into_inner();
        let can = |what: &str| status.capabilities.iter().any(|capability| capability == what);
        if !can("stream") {
            return Err(Error::input(format!(
                "the server, of version {}, does not stream archives",
                status.version
            ))
            .with_remedy("it is older than this program; or export there, and copy the file"));
        }
        let names: Vec<&str> = status.nodes.iter().map(|node| node.node.as_str()).collect();
        match names[..] {
            [node] => Ok(Hello { node: node.parse()?, resumes: can("stream.resume") }),
            [] => Err(Error::not_found("the server serves no node")),
            _ => Err(Error::input("the server serves several nodes")
                .with_remedy(Remedy::NameNode(None))
                .with_remedy(format!("it serves: {}", names.join(", ")))),
        }
    }

    pub(super) fn connect(&self) -> Result<Client, Failure> {
        let channel = self.wait_for(self.endpoint.connect())?.map_err(|error| {
            Failure::Cut(
                Error::unavailable(format!("{} can't be reached: {}", self.url, chain(&error)))
                    .with_remedy(
                        "is the address right, does the server run, is its certificate trusted?",
                    ),
            )
        })?;
        Ok(BackupsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A request with the token.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    /// Waits for a call.
    pub(super) fn wait<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Failure> {
        self.wait_for(call)?.map_err(Failure::from)
    }

    /// Waits, until a signal comes or the time is over.
    fn wait_for<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        self.runtime.block_on(async {
            let mut future = std::pin::pin!(future);
            loop {
                self.go_on()?;
                if let Ok(done) = tokio::time::timeout(LOOK, &mut future).await {
                    return Ok(done);
                }
            }
        })
    }

    /// Lets time pass.
    pub(super) fn pause(&self, duration: Duration) -> Result<()> {
        let mut left = duration;
        while !left.is_zero() {
            self.go_on()?;
            let now = left.min(LOOK);
            self.env.pause(now);
            left -= now;
        }
        Ok(())
    }

    /// Interrupted, or out of time.
    fn go_on(&self) -> Result<()> {
        self.cancel.check()?;
        if self.deadline.is_some_and(|deadline| self.env.monotonic() >= deadline) {
            return Err(Error::unavailable("the pull took longer than it may")
                .with_remedy(Remedy::LongerTimeout));
        }
        Ok(())
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>> {
    let value: Result<MetadataValue<Ascii>, _> = format!("Bearer {token}").parse();
    let mut value = value.map_err(|_| Error::input("the token can't be sent as it is"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn endpoint(options: &PullOptions) -> Result<Endpoint> {
    let (uri, secure) = address(&options.url, options.allow_http)?;
    let endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(SILENCE_MAX)
        .keep_alive_timeout(SILENCE_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    if !secure {
        return match options.ca {
            None => Ok(endpoint),
            Some(_) => Err(Error::input("certificates were given, but http:// uses none")
                .with_remedy("write the address as https://HOST:PORT")),
        };
    }
    let tls = match &options.ca {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    endpoint.tls_config(tls).map_err(|error| {
        Error::input(format!("the certificates can't be used: {}", chain(&error)))
            .with_remedy("give certificates in PEM form")
            .with_remedy(Remedy::Certificates)
    })
}

/// The address of a server, and whether it is an encrypted one.
fn address(url: &str, allow_http: bool) -> Result<(Uri, bool)> {
    let wrong = |what: &str| {
        Error::input(format!("the address {what}"))
            .with_remedy("write it as https://HOST:PORT, or http://127.0.0.1:PORT on this machine")
            .with_entry(url.escape_debug().to_string())
    };
    let uri: Uri = url.parse().map_err(|_| wrong("is none"))?;
    let host = uri.host().ok_or_else(|| wrong("names no host"))?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has more than scheme, host and port"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Error::input("the address contains a user name or a password")
            .with_remedy(Remedy::Token));
    }
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if allow_http || is_loopback(host) => false,
        Some("http") => {
            return Err(wrong("is on another machine, and not encrypted")
                .with_remedy("use https://")
                .with_remedy(Remedy::AllowHttp));
        }
        _ => return Err(wrong("is neither https:// nor http://")),
    };
    Ok((uri, secure))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
