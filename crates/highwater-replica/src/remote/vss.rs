//! A server of the Versioned Storage Service, over HTTP. What its answers mean is in `answer`, who asks in
//! `auth`.

use std::fs;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use highwater::env::Env;
use highwater::{Error, Remedy, Result};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Certificate, Client, Url, redirect};
use vss_api::types::{
    GetObjectRequest, GetObjectResponse, KeyValue, ListKeyVersionsRequest, ListKeyVersionsResponse,
    PutObjectRequest, PutObjectResponse,
};
use vss_prost::Message;

use super::{Listed, Put, Remote, RemotePut, VALUES_BYTES_MAX, Versioned};

mod answer;
mod auth;
#[cfg(test)]
mod tests;

use answer::Answer;
use auth::Signer;
pub use auth::VssAuth;

/// After this time, a connection attempt is given up.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// After this time, a request is given up by default: a put of some megabytes on a slow line takes that long.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// Values that are asked for at once.
const GETS_IN_FLIGHT_MAX: usize = 64;
/// Names of one page: servers give no more.
const PAGE: i32 = 100;
/// Most bytes of an answer that has the only requested value.
const VALUE_BYTES_MAX: usize = 1 << 30;
/// Most bytes of an answer that has a value, while others are in flight: a larger value is requested again, alone.
const SHARED_BYTES_MAX: usize = 2 << 20;
/// Most bytes of any other answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Threads that drive the connections.
const DRIVERS: usize = 2;
/// Threads that look up addresses.
const RESOLVERS_MAX: usize = 2;

const URL_HINT: &str = "write it as https://HOST/vss, or http://127.0.0.1:9737/vss on this machine";

/// One store on a server. Its calls block, on any thread, also one that belongs to a runtime.
pub struct VssRemote {
    line: Arc<Line>,
    runtime: Runtime,
}

/// How a server is reached: [`VssRemote::builder`].
pub struct VssBuilder {
    url: String,
    store: String,
    auth: VssAuth,
    allow_http: bool,
    ca_file: Option<PathBuf>,
    timeout: Duration,
    env: Env,
}

/// What all requests share.
struct Line {
    client: Client,
    url: String,
    store: String,
    signer: Signer,
    timeout: Duration,
}

/// What drives requests. It can be dropped anywhere: a plain runtime panics where another one's tasks run.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl VssBuilder {
    /// How the server learns who asks; not at all by default.
    #[must_use]
    pub fn auth(mut self, auth: VssAuth) -> VssBuilder {
        self.auth = auth;
        self
    }

    /// Lets requests go out over plain HTTP to other machines. To this one they always may.
    #[must_use]
    pub fn allow_http(mut self, allow: bool) -> VssBuilder {
        self.allow_http = allow;
        self
    }

    /// Certificates as PEM: the server's must be signed by one of these, whatever else the system trusts.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> VssBuilder {
        self.ca_file = Some(path.into());
        self
    }

    /// After this time, a request is given up.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> VssBuilder {
        self.timeout = timeout;
        self
    }

    /// The clock that signatures are made by.
    #[must_use]
    pub fn env(mut self, env: Env) -> VssBuilder {
        self.env = env;
        self
    }

    /// The server. Nothing is sent yet.
    ///
    /// # Errors
    /// Input where the URL is none, or sends requests over plain HTTP to another machine; where a token or
    /// a key can't be used, or the file holds no certificates. What reading that file says.
    pub fn build(self) -> Result<VssRemote> {
        let (url, is_plain) = address(&self.url, self.allow_http)?;
        let signer = Signer::new(self.auth, self.env)?;
        let mut client = Client::builder()
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(self.timeout)
            .redirect(redirect::Policy::none())
            .referer(false);
        if is_loopback(&url) {
            // What may be plain because it stays on this machine must stay on it.
            client = client.no_proxy();
        }
        if let Some(path) = &self.ca_file {
            if is_plain {
                return Err(Error::input("certificates were given, but http:// uses none")
                    .with_remedy("write the URL as https://HOST/vss"));
            }
            client = client.tls_certs_only(certificates(path)?);
        }
        choose_tls();
        let client = client.build().map_err(|error| {
            Error::unavailable("the client of the server can't be made")
                .with_remedy("look whether the system's certificates are there")
                .with_remedy(Remedy::Certificates)
                .with_source(error)
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(DRIVERS)
            .max_blocking_threads(RESOLVERS_MAX)
            .thread_name("highwater-vss")
            .enable_all()
            .build()
            .map_err(|error| Error::io("starting the runtime of the server's client", error))?;
        let url = url.as_str().trim_end_matches('/').to_owned();
        let line = Line { client, url, store: self.store, signer, timeout: self.timeout };
        Ok(VssRemote { line: Arc::new(line), runtime: Runtime(Some(runtime)) })
    }
}

impl VssRemote {
    /// The store `store` of the server whose calls are below `url`.
    pub fn builder(url: impl Into<String>, store: impl Into<String>) -> VssBuilder {
        VssBuilder {
            url: url.into(),
            store: store.into(),
            auth: VssAuth::None,
            allow_http: false,
            ca_file: None,
            timeout: REQUEST_TIME_MAX,
            env: Env::system(),
        }
    }

    /// Runs requests on the threads that are theirs, and waits.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let runtime = self.runtime.0.as_ref();
        let runtime = runtime.ok_or_else(|| Error::bug("a request after the end"))?;
        runtime.spawn(async move {
            // Nobody waits where the process ends.
            let _ = done.send(work.await);
        });
        wait.recv().unwrap_or_else(|_| Err(Error::bug("a request has panicked")))
    }
}

impl Remote for VssRemote {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let (line, key) = (Arc::clone(&self.line), key.to_owned());
        self.run(async move { line.get(&key).await })
    }

    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>> {
        let (line, keys) = (Arc::clone(&self.line), keys.to_vec());
        self.run(async move {
            let gets = keys.clone().into_iter().map(|key| {
                let line = Arc::clone(&line);
                async move { line.get_at_most(&key, SHARED_BYTES_MAX).await }
            });
            let mut gets = futures::stream::iter(gets).buffered(GETS_IN_FLIGHT_MAX);
            let (mut found, mut bytes) = (Vec::new(), 0);
            while bytes < VALUES_BYTES_MAX
                && let Some(Got::Whole(value)) = gets.try_next().await?
            {
                bytes += value.as_ref().map_or(0, |(_, value)| value.len());
                found.push(value);
            }
            // What else is on its way is given up.
            drop(gets);
            if let (true, Some(key)) = (found.is_empty(), keys.first()) {
                found.push(line.get(key).await?);
            }
            Ok(found)
        })
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        let items = put.items.iter();
        let deletes = put.deletes.iter();
        let request = PutObjectRequest {
            store_id: self.line.store.clone(),
            global_version: None,
            transaction_items: items
                .map(|item| key_value(&item.key, item.version, &item.value))
                .collect(),
            delete_items: deletes.map(|(key, version)| key_value(key, *version, &[])).collect(),
        };
        let line = Arc::clone(&self.line);
        self.run(async move {
            match line.call("putObjects", &request, ANSWER_BYTES_MAX).await? {
                Answer::Message(PutObjectResponse {}) => Ok(Put::Landed),
                Answer::Conflict => Ok(Put::Conflict),
                Answer::Missing => Err(line.no_answer()),
            }
        })
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        let request = ListKeyVersionsRequest {
            store_id: self.line.store.clone(),
            key_prefix: Some(prefix.to_owned()),
            page_size: Some(PAGE),
            page_token: page.map(str::to_owned),
        };
        let line = Arc::clone(&self.line);
        self.run(async move {
            let answer = line.call("listKeyVersions", &request, ANSWER_BYTES_MAX).await?;
            let Answer::Message(ListKeyVersionsResponse { key_versions, next_page_token, .. }) =
                answer
            else {
                return Err(line.no_answer());
            };
            let next = next_page_token.filter(|token| !token.is_empty());
            if next.is_some() && next == request.page_token {
                return Err(Error::unavailable("the server's list does not go on")
                    .with_entry(&line.url)
                    .with_remedy("it gives the same page again and again: look at the server"));
            }
            let keys = key_versions.into_iter().map(|item| (item.key, item.version));
            // A prefix is a pattern to some servers.
            let prefix = request.key_prefix.unwrap_or_default();
            Ok(Listed { keys: keys.filter(|(key, _)| key.starts_with(&prefix)).collect(), next })
        })
    }
}

/// What was asked for, unless it is too large to be taken beside others.
enum Got {
    Whole(Option<Versioned>),
    TooLarge,
}

impl Line {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        match self.get_at_most(key, VALUE_BYTES_MAX).await? {
            Got::Whole(found) => Ok(found),
            Got::TooLarge => Err(self.too_large(VALUE_BYTES_MAX)),
        }
    }

    async fn get_at_most(&self, key: &str, most: usize) -> Result<Got> {
        let request = GetObjectRequest { store_id: self.store.clone(), key: key.to_owned() };
        match self.call_at_most("getObject", &request, most).await? {
            None => Ok(Got::TooLarge),
            Some(Answer::Missing) => Ok(Got::Whole(None)),
            Some(Answer::Message(GetObjectResponse { value: Some(found) }))
                if found.key == request.key =>
            {
                Ok(Got::Whole(Some((found.version, found.value.into()))))
            }
            Some(Answer::Message(_) | Answer::Conflict) => Err(self.no_answer()),
        }
    }

    /// One request, and the whole of its answer, up to `most` bytes.
    async fn call<M: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        most: usize,
    ) -> Result<Answer<M>> {
        let answer = self.call_at_most(method, request, most).await?;
        answer.ok_or_else(|| self.too_large(most))
    }

    fn too_large(&self, most: usize) -> Error {
        Error::unavailable(format!("the server's answer has more than {most} bytes"))
            .with_entry(&self.url)
            .with_remedy("look whether it is a VSS server, and at the URL")
    }

    /// The same; `None` where the answer has more.
    async fn call_at_most<M: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        most: usize,
    ) -> Result<Option<Answer<M>>> {
        let mut post = self
            .client
            .post(format!("{}/{method}", self.url))
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(request.encode_to_vec());
        if let Some(header) = self.signer.header()? {
            post = post.header(AUTHORIZATION, header);
        }
        let mut response = post.send().await.map_err(|error| self.broken(error))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        if response.content_length().is_some_and(|length| length > most as u64) {
            return Ok(None);
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + piece.len() > most {
                return Ok(None);
            }
            body.extend_from_slice(&piece);
        }
        self.read(status, &headers, body).map(Some)
    }
}

fn key_value(key: &str, version: i64, value: &[u8]) -> KeyValue {
    KeyValue { key: key.to_owned(), version, value: Bytes::copy_from_slice(value) }
}

/// The URL, and whether it is one of plain HTTP.
fn address(url: &str, allow_http: bool) -> Result<(Url, bool)> {
    let parsed = Url::parse(url)
        .map_err(|_| Error::input("the server's URL is none").with_remedy(URL_HINT))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(Error::input("the server's URL has a name or a password in it")
            .with_remedy("a server knows its users by tokens or signatures"));
    }
    if parsed.host_str().is_none() || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(Error::input(
            "the server's URL has more, or less, than scheme, host, port and path",
        )
        .with_remedy(URL_HINT));
    }
    match parsed.scheme() {
        "https" => Ok((parsed, false)),
        "http" if allow_http || is_loopback(&parsed) => Ok((parsed, true)),
        "http" => {
            Err(Error::input("the server's URL sends requests over plain HTTP to another machine")
                .with_entry(parsed.as_str())
                .with_remedy("use https")
                .with_remedy(Remedy::AllowHttp))
        }
        _ => Err(Error::input("the server's URL is neither https nor http").with_remedy(URL_HINT)),
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let entry = path.display().to_string();
    let pem = fs::read(path)
        .map_err(|error| Error::io("reading the certificates", error).with_entry(&entry))?;
    let none = || {
        Error::input("the file holds no certificates")
            .with_entry(&entry)
            .with_remedy("it must hold certificates as PEM")
    };
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| none().with_source(error))?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// Makes ring the TLS of the process, unless the program has chosen one.
fn choose_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Whoever was faster has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
