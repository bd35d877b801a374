//! What `highwater.toml` says of a node's replica, under `[node.replica]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::{Error, Result};
use serde::Deserialize;

use super::one_key;
use crate::cli::ReplicaAuth;
use crate::keys::KeySource;

/// The store's id where none is given, as on the command line.
const STORE: &str = "highwater";
/// How often a replica is looked at by default.
const INTERVAL: Duration = Duration::from_secs(15);

/// The table, as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplicaTable {
    local: PathBuf,
    server: String,
    store: Option<String>,
    auth: Option<ReplicaAuth>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_http: bool,
    mnemonic_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "super::agent::duration")]
    interval: Option<Duration>,
}

/// Where the replica of a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReplicaSettings {
    /// The node's database.
    pub(crate) local: PathBuf,
    pub(crate) server: String,
    pub(crate) store: String,
    pub(crate) auth: ReplicaAuth,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) allow_http: bool,
    pub(crate) key: KeySource,
    pub(crate) interval: Duration,
}

impl ReplicaTable {
    /// The settings; relative paths start at `base`, that of the database at the node directory.
    pub(super) fn resolve(self, base: &Path, dir: &Path) -> Result<ReplicaSettings> {
        let keys = [self.key_file, None, self.mnemonic_file];
        let key = one_key(keys.map(|file| file.map(|file| base.join(file))), "[node.replica]")?
            .ok_or_else(|| {
                Error::input("[node.replica] names no key")
                    .with_remedy("write `mnemonic_file` or `key_file`, with the node's own secret")
            })?;
        let auth = self.auth.unwrap_or(ReplicaAuth::Signature);
        if (auth == ReplicaAuth::Token) != self.token_file.is_some() {
            return Err(Error::input(
                "`token_file` and `auth = \"token\"` of [node.replica] belong together",
            ));
        }
        Ok(ReplicaSettings {
            local: dir.join(self.local),
            server: self.server,
            store: self.store.unwrap_or_else(|| STORE.to_owned()),
            auth,
            token_file: self.token_file.map(|file| base.join(file)),
            ca_file: self.ca_file.map(|file| base.join(file)),
            allow_http: self.allow_http,
            key,
            interval: self.interval.unwrap_or(INTERVAL),
        })
    }
}
