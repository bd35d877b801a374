//! Object stores over the network: their clients, with bounded retries and time-outs, and what their
//! errors ask of the operator.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "s3")]
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
#[cfg(feature = "azure")]
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, HttpErrorKind};
#[cfg(feature = "gcs")]
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::error::{Error, Kind, Result};

use super::location::RemoteLocation;
use super::provider::{Provider, Role};

mod medium;
mod requests;
mod runtime;

pub(super) use medium::RemoteMedium;
use requests::{Counted, Counts};

/// A request is sent again so often.
const RETRIES_MAX: usize = 6;
/// No request is sent again once so much time has passed since it was sent first.
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection is given up after so long.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// A request is given up after so long: several parts of 8 MiB share a slow line.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(300);

/// A client with connections of its own, whose requests are counted.
fn client(location: &RemoteLocation, counts: &Arc<Counts>) -> Result<Arc<dyn ObjectStore>> {
    choose_tls();
    let allow_http = allows_http(location)?;
    let options = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIME_MAX)
        .with_timeout(REQUEST_TIME_MAX)
        .with_allow_http(allow_http);
    let wrong = |error: object_store::Error| {
        // Its own words may quote a setting.
        let what = match &error {
            object_store::Error::Generic { .. } => "one is wrong or missing",
            _ => "one of them has no value of its kind",
        };
        Error::input(format!("the settings of the store are not usable: {what}"))
            .with_entry(location.to_string())
            .with_remedy(location.provider().credentials_hint())
            .with_source(error)
    };
    let counted = Counted(Arc::clone(counts));
    let objects: Arc<dyn ObjectStore> = match location.provider() {
        #[cfg(feature = "s3")]
        Provider::S3 => Arc::new(under(location, s3(location, options, counted).map_err(wrong)?)),
        #[cfg(feature = "gcs")]
        Provider::Gcs => Arc::new(under(location, gcs(location, options, counted).map_err(wrong)?)),
        #[cfg(feature = "azure")]
        Provider::Azure => {
            Arc::new(under(location, azure(location, options, counted).map_err(wrong)?))
        }
        #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
        _ => return Err(location.not_built()),
    };
    Ok(objects)
}

#[cfg(feature = "s3")]
fn s3(
    location: &RemoteLocation,
    options: ClientOptions,
    counted: Counted,
) -> object_store::Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::new()
        .with_client_options(options)
        .with_http_connector(counted)
        .with_retry(retries())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_bucket_name(location.bucket());
    for (name, value) in others(location) {
        builder = builder.with_config(name.parse()?, value);
    }
    builder.build()
}

#[cfg(feature = "gcs")]
fn gcs(
    location: &RemoteLocation,
    options: ClientOptions,
    counted: Counted,
) -> object_store::Result<object_store::gcp::GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(options)
        .with_http_connector(counted)
        .with_retry(retries())
        .with_bucket_name(location.bucket());
    for (name, value) in others(location) {
        builder = builder.with_config(name.parse()?, value);
    }
    builder.build()
}

#[cfg(feature = "azure")]
fn azure(
    location: &RemoteLocation,
    options: ClientOptions,
    counted: Counted,
) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(options)
        .with_http_connector(counted)
        .with_retry(retries())
        .with_container_name(location.bucket());
    for (name, value) in others(location) {
        builder = builder.with_config(name.parse()?, value);
    }
    builder.build()
}

fn under<T: ObjectStore>(location: &RemoteLocation, store: T) -> PrefixStore<T> {
    PrefixStore::new(store, location.prefix())
}

/// The settings that go to the store as they are.
fn others(location: &RemoteLocation) -> impl Iterator<Item = (&String, &String)> {
    let provider = location.provider();
    location.settings().iter().filter(move |(name, _)| provider.role(name) != Some(Role::AllowHttp))
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF_MIN, max_backoff: BACKOFF_MAX, base: 2.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIME_MAX,
    }
}

/// Makes ring the TLS of the process, unless the program has chosen one.
fn choose_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Whoever was faster has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Whether requests may go out over plain HTTP: to this machine, or where a setting says so.
fn allows_http(location: &RemoteLocation) -> Result<bool> {
    let provider = location.provider();
    let of_role = |role: Role| {
        let settings = location.settings().iter();
        settings.filter(move |(name, _)| provider.role(name).as_ref() == Some(&role))
    };
    let mut allowed = false;
    for (name, value) in of_role(Role::AllowHttp) {
        allowed = match value.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(Error::input(format!("the setting {name} is neither true nor false"))),
        };
    }
    let mut plain = false;
    for (name, value) in of_role(Role::Endpoint) {
        let url = reqwest::Url::parse(value).map_err(|_| {
            Error::input(format!("the setting {name} is no URL"))
                .with_remedy("write it as https://HOST or https://HOST:PORT")
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::input(format!("the setting {name} has credentials in it"))
                .with_remedy(provider.credentials_hint()));
        }
        if url.scheme() != "http" {
            continue;
        }
        plain = true;
        if !allowed && !is_loopback(&url) {
            return Err(Error::input(format!(
                "the setting {name} would send requests over plain HTTP to another machine"
            ))
            .with_entry(location.to_string())
            .with_remedy("use https; or set AWS_ALLOW_HTTP (GOOGLE_…, AZURE_…) to true"));
        }
    }
    Ok(allowed || plain)
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An error of a remote store as the library's. Its own text is not repeated: it may be long, and
/// holds what the server chose to say of the request.
fn describe(location: &RemoteLocation, name: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let text = error.to_string();
    let (code, status) = (code_of(&text), status_of(&text));
    let code_text = code.map(|code| format!(" ({code})")).unwrap_or_default();
    let here = location.to_string();
    let hint = location.provider().credentials_hint();
    if asks_for_metadata(&text) {
        return Error::denied("no credentials were found, and no instance metadata answers")
            .with_entry(here)
            .with_remedy(hint)
            .with_source(error);
    }
    let described = match &error {
        _ if matches!(code, Some("NoSuchBucket" | "ContainerNotFound")) => {
            Error::not_found(format!("there is no such bucket: {here}"))
                .with_entry(here)
                .with_remedy("make the bucket first, or look at its name and at the endpoint")
        }
        E::NotFound { .. } => {
            Error::not_found(format!("the vault has no object {name}")).with_entry(name)
        }
        E::AlreadyExists { .. } | E::Precondition { .. } => {
            Error::conflict(format!("the vault's object {name} is there already{code_text}"))
                .with_entry(name)
        }
        // Of a list the status alone tells.
        _ if matches!(status, Some("401" | "403")) => {
            Error::denied(format!("the store refuses the credentials{code_text}"))
                .with_entry(here)
                .with_remedy(hint)
        }
        _ if matches!(code, Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired")) => {
            Error::denied(format!("the store refuses the credentials{code_text}"))
                .with_entry(here)
                .with_remedy("get new ones: they are valid for some hours only")
        }
        _ if text.contains("incorrectly configured region")
            || code == Some("AuthorizationHeaderMalformed") =>
        {
            Error::input("the bucket is in another region")
                .with_entry(here)
                .with_remedy("set AWS_REGION")
        }
        _ => Error::new(
            Kind::Unavailable,
            format!("the store can't be used now: {}", reason(&error, code)),
        )
        .with_entry(here)
        .with_remedy("look at the endpoint and at the network, and try again"),
    };
    described.with_source(error)
}

/// Why a request failed, in a few words.
fn reason(error: &object_store::Error, code: Option<&str>) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut kind = None;
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return io.to_string();
        }
        if let Some(http) = current.downcast_ref::<HttpError>() {
            kind = Some(http.kind());
        }
        cause = current.source();
    }
    let text = error.to_string();
    let status = status_of(&text);
    match (kind, status, code) {
        (_, Some(status), Some(code)) => format!("it answers {status} {code}"),
        (_, Some(status), None) => format!("it answers {status}"),
        (Some(HttpErrorKind::Timeout), ..) => "no answer in time".to_owned(),
        (Some(HttpErrorKind::Connect), ..) => "no connection".to_owned(),
        (Some(HttpErrorKind::Interrupted | HttpErrorKind::Request), ..) => {
            "the connection broke off".to_owned()
        }
        _ => "its answer is not understood".to_owned(),
    }
}

/// The status of the answer.
fn status_of(text: &str) -> Option<&str> {
    let status = text.split_once("status code: ")?.1.get(..3)?;
    status.bytes().all(|byte| byte.is_ascii_digit()).then_some(status)
}

/// The code in the body of an S3, GCS or Azure error.
fn code_of(text: &str) -> Option<&str> {
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    let plain =
        !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then_some(code)
}

/// Whether it was the question for instance credentials that failed.
fn asks_for_metadata(text: &str) -> bool {
    ["://169.254.169.254", "://metadata.google.internal", "/latest/api/token"]
        .iter()
        .any(|place| text.contains(place))
}

#[cfg(test)]
mod endless;
#[cfg(all(feature = "s3", feature = "gcs", feature = "azure"))]
#[cfg(test)]
mod tests;
