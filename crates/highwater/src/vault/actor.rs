//! Who acts: the writer id and the locks of one user on one machine, outside every node directory,
//! so that no capture clones them.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::env::Env;
use crate::error::{Error, Remedy, Result};
use crate::ids::{NodeName, SnapshotId, VaultId, WriterId};

/// Who acts on a vault: where this user keeps its writer id and locks, and how it names itself.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The user's state directory for Highwater (`~/.local/state/highwater`); made if missing.
    pub state_dir: PathBuf,
    /// `user@machine`, recorded with ownership.
    pub name: String,
}

/// How far the snapshots got that an installation remembers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// The last of them is about to be committed: it may never be.
    Tried,
    /// It is in the vault, and recorded.
    Committed,
}

/// Stands behind the ids where the last of them was committed.
const COMMITTED: &str = "committed";

/// Held for as long as a backup of a node, or a prune of a vault, runs on this machine.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it gives the lock up")] File);

impl Actor {
    /// Of this state directory, known to others by this name.
    pub fn new(state_dir: impl Into<PathBuf>, name: impl Into<String>) -> Actor {
        Actor { state_dir: state_dir.into(), name: name.into() }
    }

    /// The writer id of this user here; made at the first use.
    pub(crate) fn writer(&self, env: &Env) -> Result<WriterId> {
        make_private_dir(&self.state_dir)?;
        let path = self.state_dir.join("writer");
        match std::fs::read_to_string(&path) {
            Ok(text) => return text.trim_end().parse().map_err(|_| damaged(&path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::io("reading the writer id", error).with_entry(name(&path)));
            }
        }
        let writer = WriterId::random(env)?;
        let fresh = self.state_dir.join(format!("writer.{writer}"));
        let failed = |error| Error::io("writing the writer id", error).with_entry(name(&path));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.write_all(format!("{writer}\n").as_bytes())?;
            file.sync_all()
        };
        write().map_err(failed)?;
        // A link fails where another process was first; its id is the one that counts then.
        let linked = std::fs::hard_link(&fresh, &path);
        std::fs::remove_file(&fresh).map_err(failed)?;
        match linked {
            Ok(()) => sync_dir(&self.state_dir).map(|()| writer),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.writer(env),
            Err(error) => Err(failed(error)),
        }
    }

    /// Remembers which snapshots of a node this installation knows to be its newest: the one that
    /// stands, the one that the node's record tells of, and the one that it is about to commit; once that
    /// is committed, it alone. What is in the vault beyond them was put by a copy of this installation;
    /// where an older one is the newest, the vault was set back.
    pub(crate) fn remember(
        &self,
        vault: VaultId,
        node: &NodeName,
        known: &[SnapshotId],
        state: Known,
    ) -> Result<()> {
        let dir = self.state_dir.join("known");
        make_private_dir(&dir)?;
        let path = dir.join(format!("{vault}-{node}"));
        let mut text: String = known.iter().map(|snapshot| format!("{snapshot}\n")).collect();
        if state == Known::Committed {
            text.push_str(&format!("{COMMITTED}\n"));
        }
        replace_private(&path, "remembering a snapshot", text.as_bytes())
    }

    /// Whether a snapshot is one that this installation knows; also where it has no memory of any.
    pub(crate) fn knows(
        &self,
        vault: VaultId,
        node: &NodeName,
        snapshot: SnapshotId,
    ) -> Result<bool> {
        let path = self.state_dir.join("known").join(format!("{vault}-{node}"));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().any(|line| line == snapshot.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(Error::io("reading what is known", error).with_entry(name(&path))),
        }
    }

    /// Whether this installation knows that a snapshot of the node was committed.
    pub(crate) fn has_committed(&self, vault: VaultId, node: &NodeName) -> Result<bool> {
        let path = self.state_dir.join("known").join(format!("{vault}-{node}"));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().any(|line| line == COMMITTED)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("reading what is known", error).with_entry(name(&path))),
        }
    }

    /// Locks a node of a vault for a backup; a conflict where one runs already.
    pub(crate) fn lock_node(&self, vault: VaultId, node: &NodeName) -> Result<Lock> {
        let busy = Error::conflict(format!("a backup of node {node} is running already"))
            .with_entry(node.to_string());
        self.lock(&format!("{vault}-{node}"), Some(busy))
    }

    /// Locks a vault against a second forget or prune of this user here. Those of two machines are
    /// safe beside one another without it.
    pub(crate) fn lock_vault(&self, vault: VaultId) -> Result<Lock> {
        let busy = Error::conflict("a forget or a prune of this vault is running already");
        self.lock(&format!("{vault}"), Some(busy))
    }

    /// Waits for whoever writes to one of the small files in the state directory at this moment.
    pub(super) fn lock_memory(&self, file: &str) -> Result<Lock> {
        self.lock(file, None)
    }

    /// Takes a lock; where somebody has it, waits, or fails with `busy`.
    fn lock(&self, file: &str, busy: Option<Error>) -> Result<Lock> {
        let dir = self.state_dir.join("locks");
        make_private_dir(&dir)?;
        let path = dir.join(file);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io("opening a lock", error).with_entry(name(&path)))?;
        let operation = match busy {
            Some(_) => FlockOperation::NonBlockingLockExclusive,
            None => FlockOperation::LockExclusive,
        };
        match flock(&file, operation) {
            Ok(()) => Ok(Lock(file)),
            Err(error) => Err(match busy.filter(|_| error == rustix::io::Errno::WOULDBLOCK) {
                Some(busy) => busy.with_remedy("wait for it to end"),
                None => Error::io("taking a lock", error).with_entry(name(&path)),
            }),
        }
    }
}

/// The id of this run of the kernel; clones that run at once have different ones.
pub(crate) fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim_end().to_owned())
}

pub(super) fn make_private_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Error::io("making the state directory", error).with_entry(name(dir)))
}

/// Replaces a file of the state directory, of mode 0600, durably and in one step; `what` is being done.
/// Who writes the same file at once holds a lock.
pub(super) fn replace_private(path: &Path, what: &str, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().ok_or_else(|| Error::bug("a state file without a directory"))?;
    let fresh = path.with_added_extension("new");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|error| Error::io(what, error).with_entry(name(path)))?;
    sync_dir(dir)
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| Error::io("syncing the state directory", error).with_entry(name(dir)))
}

fn damaged(path: &Path) -> Error {
    Error::corrupt("the writer id is damaged")
        .with_entry(name(path))
        .with_remedy("remove the file")
        .with_remedy(Remedy::TakeOver(None))
}

pub(super) fn name(path: &Path) -> String {
    crate::ids::encode(PathBuf::from(path).as_os_str().as_encoded_bytes())
}
