//! What Highwater keeps inside a node directory: `.highwater/node.json`, which tells one node from
//! another and one restore from the next. It is never part of a capture.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::{GuardKind, NodeName, NodeUid, RestoreId};

/// Highwater's own directory in a node directory.
pub(crate) const OWN_DIR: &str = ".highwater";
const NAME: &str = ".highwater/node.json";

/// Who a node directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    /// The node.
    pub(crate) uid: NodeUid,
    /// The restore that made the directory; `None` where none has.
    pub(crate) restore: Option<RestoreId>,
    /// How the node is held back once it is restored or rolled back, where its backups ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<GuardKind>,
}

impl NodeFile {
    /// Reads it; `None` where the directory has none yet.
    pub(crate) fn read(dir: &Path) -> Result<Option<NodeFile>> {
        let text = match std::fs::read(dir.join(NAME)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("reading the node's id", error).entry(NAME)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::corrupt(format!("the node's id can't be read: {error}"))
                .entry(NAME)
                .hint("remove the file, then back up with --adopt to go on under the same name")
        })
    }

    /// Writes it, durable, in one step.
    pub(crate) fn write(&self, dir: &Path, env: &Env) -> Result<()> {
        let failed = |error| Error::io("writing the node's id", error).entry(NAME);
        let own = dir.join(OWN_DIR);
        DirBuilder::new().recursive(true).mode(0o700).create(&own).map_err(failed)?;
        let fresh = own.join(format!("node.json.{}", hex::encode(env.random::<8>()?)));
        let mut text = serde_json::to_vec(self)
            .map_err(|error| Error::bug("the node's id can't be written").source(error))?;
        text.push(b'\n');
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&fresh, dir.join(NAME))?;
            File::open(&own)?.sync_all()?;
            File::open(dir)?.sync_all()
        };
        write().map_err(failed)
    }
}

/// The name given, or that of the directory.
pub(crate) fn node_name(dir: &Path, given: Option<&NodeName>) -> Result<NodeName> {
    if let Some(name) = given {
        return Ok(name.clone());
    }
    let name = dir.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.parse().map_err(|error: Error| error.hint("give the node a name with --node NAME"))
}
