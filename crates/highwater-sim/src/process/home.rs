//! The node directory: the seed of its keys, and its channel database.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use highwater::{Error, Result};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

use crate::keys::NodeKeys;
use crate::store::SqliteStore;

/// 64 hex digits and a newline; nobody else may read it.
const IDENTITY: &str = "identity.key";

/// Makes a node directory.
pub(super) fn init(dir: &Path) -> Result<Value> {
    let io = |error| Error::io(dir.display(), error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| Error::unavailable("the operating system gives no random bytes"))?;
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
        .map_err(|_| Error::input("it is not 64 hex digits and a newline").with_entry(IDENTITY))?;
    Ok((NodeKeys::new(seed), SqliteStore::open(dir, false)?))
}
