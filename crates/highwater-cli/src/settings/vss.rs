//! What `highwater.toml` says of the versioned store, under `[vss]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::agent::TlsTable;
use crate::cli::VssAuth;

/// The table, as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VssTable {
    listen: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    postgres: Option<String>,
    auth: Option<VssAuth>,
    jwt_key: Option<PathBuf>,
    tls: Option<TlsTable>,
    #[serde(default)]
    allow_http: bool,
    tokens: Option<PathBuf>,
    max_request: Option<u64>,
}

/// What is said of the versioned store; a flag goes before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VssSettings {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) postgres: Option<String>,
    pub(crate) auth: Option<VssAuth>,
    pub(crate) jwt_key: Option<PathBuf>,
    /// Certificate chain and key, as PEM files.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) allow_http: bool,
    /// The file of tokens that show figures.
    pub(crate) tokens: Option<PathBuf>,
    /// Bytes of the largest put.
    pub(crate) max_request: Option<u64>,
}

impl VssTable {
    /// The settings; relative paths start at `base`.
    pub(super) fn resolve(self, base: &Path) -> VssSettings {
        VssSettings {
            listen: self.listen,
            data_dir: self.data_dir.map(|dir| base.join(dir)),
            postgres: self.postgres,
            auth: self.auth,
            jwt_key: self.jwt_key.map(|file| base.join(file)),
            tls: self.tls.map(|tls| tls.files(base)),
            allow_http: self.allow_http,
            tokens: self.tokens.map(|file| base.join(file)),
            max_request: self.max_request,
        }
    }
}
