//! TLS by rustls with ring, for HTTP/2 and HTTP/1.1.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use highwater::{Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The files of a chain of certificates and of its private key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain: the server's own certificate first.
    pub cert: PathBuf,
    /// The private key of that.
    pub key: PathBuf,
}

/// Reads a chain of certificates and a private key, as PEM.
///
/// # Errors
/// Not found or denied where a file can't be read; input where one is malformed, or where they don't
/// belong together.
pub(crate) fn load(files: &TlsFiles) -> Result<RustlsConfig> {
    let TlsFiles { cert, key } = files;
    let name = |path: &Path| path.display().to_string();
    let chain = read(cert)?;
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| {
        Error::input("the file holds no certificate")
            .with_entry(name(cert))
            .with_remedy("it must be PEM")
    })?;
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| {
        Error::input("the file holds no private key")
            .with_entry(name(key))
            .with_remedy("it must be PEM")
    })?;
    // Chosen here and not for the whole process: a node may have chosen another one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::bug("the versions of TLS").with_source(error))?
        .with_no_client_auth()
        .with_single_cert(chain, secret);
    let mut config = config.map_err(|error| {
        Error::input(format!("certificate and key can't be used: {error}")).with_entry(name(cert))
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let name = path.display().to_string();
    std::fs::read(path).map_err(|error| Error::io("reading the file", error).with_entry(name))
}
