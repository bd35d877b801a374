//! The node directory: the seed of its keys, and its channel database.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use highwater::{Env, Error, Result};
use serde_json::{Value, json};

use crate::keys::NodeKeys;
use crate::store::SqliteStore;

/// 64 hex digits and a newline; nobody else may read it.
const IDENTITY: &str = "identity.key";

/// Makes a node directory.
pub(super) fn init(dir: &Path, env: &Env) -> Result<Value> {
    let io = |error| Error::io(dir.display(), error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    let seed: [u8; 32] = env.random()?;
    let path = dir.join(IDENTITY);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| Error::io(path.display(), error))?;
    writeln!(file, "{}", hex::encode(seed)).and_then(|()| file.sync_all()).map_err(io)?;
    SqliteStore::open(dir, true)?;
    Ok(json!({ "node": NodeKeys::new(seed).peer_id() }))
}

/// Opens a node directory.
pub(super) fn open(dir: &Path) -> Result<(NodeKeys, SqliteStore)> {
    let path = dir.join(IDENTITY);
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io(path.display(), error))?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut seed)
        .map_err(|_| Error::input("it is not 64 hex digits and a newline").entry(IDENTITY))?;
    Ok((NodeKeys::new(seed), SqliteStore::open(dir, false)?))
}
