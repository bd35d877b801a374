//! What Highwater keeps inside a node directory: `.highwater/node.json`, which tells one node from
//! another and one restore from the next. It is never part of a capture.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::env::Env;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{GuardKind, NodeName, NodeUid, RestoreId};
use crate::rooted::RootedPath;

/// Highwater's own directory in a node directory.
pub(crate) const OWN_DIR: &str = ".highwater";
const NAME: &str = ".highwater/node.json";
/// The file in [`OWN_DIR`].
pub(crate) const FILE: &str = "node.json";
/// A longer one is none of ours.
const BYTES_MAX: u64 = 64 << 10;

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
    /// Reads it; `None` where the directory has none yet, or is not there.
    pub(crate) fn read(dir: &Path) -> Result<Option<NodeFile>> {
        match RootedPath::open(dir) {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            dir => NodeFile::read_at(&dir?),
        }
    }

    /// The same, in a directory that is held.
    pub(crate) fn read_at(dir: &RootedPath) -> Result<Option<NodeFile>> {
        let text = match dir.join(OWN_DIR).join(FILE).read(BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("reading the node's id", error).with_entry(NAME)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::corrupt(format!("the node's id can't be read: {error}"))
                .with_entry(NAME)
                .with_remedy("remove the file")
                .with_remedy(Remedy::Adopt)
        })
    }

    /// Writes it, durable, in one step. It belongs to the owner of the directory. As long as it tells of
    /// one and the same restore it keeps the time of that.
    pub(crate) fn write(&self, dir: &RootedPath, env: &Env) -> Result<()> {
        let own = make_own_dir(dir)?;
        let mut text = serde_json::to_vec(self)
            .map_err(|error| Error::bug("the node's id can't be written").with_source(error))?;
        text.push(b'\n');
        let fresh = own.join(format!("node.json.{}", hex::encode(env.random::<8>()?)));
        durable::write_file_for(&fresh, &text, dir.owner()?)?;
        let place = own.join(FILE);
        let before = NodeFile::read_at(dir).ok().flatten().and_then(|before| before.restore);
        if self.restore.is_some()
            && before == self.restore
            && let Some(found) = durable::stat(&place)?
        {
            durable::keep_time(&fresh, &found)?;
        }
        durable::replace(&fresh, &place)?;
        durable::sync_dir(dir)
    }
}

/// Makes [`OWN_DIR`] in a node directory, for the directory's owner, where it is missing.
pub(crate) fn make_own_dir(dir: &RootedPath) -> Result<RootedPath> {
    let own = dir.join(OWN_DIR);
    if durable::make_dir_for(&own, dir.owner()?)? {
        durable::sync_dir(dir)?;
    }
    Ok(own)
}

/// Refuses a node directory whose [`OWN_DIR`] is not a directory but, for example, a link: whatever is to be
/// kept there would end up elsewhere.
pub(crate) fn refuse_link(dir: &RootedPath) -> Result<()> {
    let own = dir.join(OWN_DIR);
    match durable::stat(&own)? {
        Some(found) if !durable::is_dir(&found) => {
            Err(Error::conflict(format!("{own} is not a directory"))
                .with_entry(OWN_DIR)
                .with_remedy(
                    "highwater keeps its own files there: look who made it, and remove it",
                ))
        }
        _ => Ok(()),
    }
}

/// The name given, or that of the directory, without the dots by which it is hidden.
pub(crate) fn node_name(dir: &Path, given: Option<&NodeName>) -> Result<NodeName> {
    if let Some(name) = given {
        return Ok(name.clone());
    }
    let name = dir.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let name = name.trim_start_matches('.');
    name.parse().map_err(|error: Error| error.with_remedy(Remedy::NameNode(None)))
}
