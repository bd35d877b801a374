//! Where snapshots live: sealed objects in a directory or an object store.
//!
//! The format is documented byte by byte in `docs/vault-format.md`. Nothing here knows of engines:
//! a vault keeps entries made of units, whatever wrote them.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::control::Control;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::{Epoch, NodeName, SlotId, SnapshotId, Time, VaultId, WriterId};

pub mod manifest;

pub use manifest::Manifest;

/// Where a vault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A local directory, absolute.
    Local(PathBuf),
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Location> {
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(Error::input(format!("a vault at `{scheme}://` is not supported"))
                .hint("give the path of a local directory"));
        }
        let path =
            std::path::absolute(text).map_err(|error| Error::io("the vault's path", error))?;
        Ok(Location::Local(path))
    }
}

/// What opens a key slot.
#[derive(Clone)]
pub enum Secret {
    /// The 32 bytes of a key file.
    Key(Zeroizing<[u8; 32]>),
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The words of a BIP-39 mnemonic, normalised.
    Mnemonic(Zeroizing<String>),
}

/// The kind of a key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotKind {
    /// A key file.
    Key,
    /// A passphrase, through Argon2id.
    Passphrase,
    /// A BIP-39 mnemonic.
    Mnemonic,
}

/// A key slot, as `key list` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct SlotInfo {
    /// Its id.
    pub slot: SlotId,
    /// Its kind.
    pub kind: SlotKind,
    /// What it was made for: `first`, `recovery`, or the caller's word.
    pub label: String,
    /// When it was made.
    pub created: Time,
}

/// How far a snapshot is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every frame was opened and compared before the commit.
    Sealed,
    /// It was restored to a scratch directory, opened, and the engines' own checks passed.
    Restored,
}

/// A snapshot, as `snapshots` lists it.
#[derive(Clone, Debug)]
pub struct SnapshotInfo {
    /// The sealed description.
    pub manifest: Manifest,
    /// How far it is known to be good.
    pub level: Level,
}

/// Which snapshot is meant.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// An id, a unique prefix of one, or `latest`.
    pub snapshot: String,
    /// The node; needed for `latest` where the vault has several.
    pub node: Option<NodeName>,
    /// Only snapshots whose barrier was at this time or before.
    pub before: Option<Time>,
    /// Only snapshots of this level or above.
    pub require: Option<Level>,
}

/// Who may write snapshots of a node.
#[derive(Clone, Debug, Serialize)]
pub struct Ownership {
    /// The node.
    pub node: NodeName,
    /// Rises with each takeover.
    pub epoch: Epoch,
    /// The writer; `None` after a release.
    pub writer: Option<WriterId>,
    /// Whether that is this installation.
    pub ours: bool,
    /// The user and machine of the writer, as it named itself.
    pub claimed_by: String,
    /// Why it was taken over, where it was.
    pub reason: Option<String>,
    /// When.
    pub since: Time,
}

/// A new vault.
pub struct Created {
    /// The vault, open.
    pub vault: Vault,
    /// The words of the recovery slot, to be shown once; `None` where none was made.
    pub recovery_words: Option<Zeroizing<String>>,
}

/// Who acts on a vault: where this user keeps its writer id and locks, and how it names itself.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The user's state directory for Highwater (`~/.local/state/highwater`); made if missing.
    pub state_dir: PathBuf,
    /// `user@machine`, recorded with ownership.
    pub name: String,
}

/// An open vault.
pub struct Vault {}

impl Vault {
    /// Makes a vault with one slot for `secret` and, if wished, a recovery slot. A directory that
    /// holds anything already is a conflict.
    pub fn create(
        location: &Location,
        secret: &Secret,
        recovery: bool,
        env: &Env,
    ) -> Result<Created> {
        let _ = (location, secret, recovery, env);
        Err(Error::bug("not yet"))
    }

    /// Opens a vault. Not found where there is none; denied where `secret` opens no slot.
    pub fn open(location: &Location, secret: &Secret, env: &Env) -> Result<Vault> {
        let _ = (location, secret, env);
        Err(Error::bug("not yet"))
    }

    /// The vault's id.
    pub fn id(&self) -> VaultId {
        VaultId::from_bytes([0; 16])
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        unreachable!("a vault is never made here")
    }

    /// The snapshots, of one node or of all, by node and then from oldest to newest.
    pub fn snapshots(&self, node: Option<&NodeName>) -> Result<Vec<SnapshotInfo>> {
        let _ = node;
        Err(Error::bug("not yet"))
    }

    /// The one snapshot that is meant.
    pub fn resolve(&self, selector: &Selector) -> Result<SnapshotInfo> {
        let _ = selector;
        Err(Error::bug("not yet"))
    }

    /// The key slots.
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        Err(Error::bug("not yet"))
    }

    /// Adds a slot; nothing is sealed again.
    pub fn add_slot(&self, secret: &Secret, label: &str) -> Result<SlotInfo> {
        let _ = (secret, label);
        Err(Error::bug("not yet"))
    }

    /// Removes a slot by its id or a unique prefix of it. The last one can't be removed.
    pub fn remove_slot(&self, slot: &str) -> Result<SlotInfo> {
        let _ = slot;
        Err(Error::bug("not yet"))
    }

    /// Who owns a node.
    pub fn owner(&self, node: &NodeName, actor: &Actor) -> Result<Ownership> {
        let _ = (node, actor);
        Err(Error::bug("not yet"))
    }

    /// Makes `actor` the owner, under a new epoch.
    pub fn take_over(&self, node: &NodeName, actor: &Actor, reason: &str) -> Result<Ownership> {
        let _ = (node, actor, reason);
        Err(Error::bug("not yet"))
    }

    /// Gives the ownership up, so that anybody may claim it.
    pub fn release(&self, node: &NodeName, actor: &Actor, reason: &str) -> Result<Ownership> {
        let _ = (node, actor, reason);
        Err(Error::bug("not yet"))
    }
}

/// What a check looks at.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// One snapshot; all of them where `None`.
    pub selector: Option<Selector>,
    /// Every byte is read, opened and compared, not only manifests and sizes.
    pub read_data: bool,
}

/// A fault that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The object or file.
    pub entry: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// No fault was found.
    pub ok: bool,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Units opened and compared; 0 without `read_data`.
    pub chunks: u64,
    /// Stored bytes read, or whose presence was confirmed.
    pub bytes: u64,
    /// The faults.
    pub errors: Vec<Fault>,
}

/// Checks a vault. Faults are in the report; an error is what kept the check from being made.
pub fn check(vault: &Vault, options: &CheckOptions, control: &Control) -> Result<CheckReport> {
    let _ = (vault, options, control);
    Err(Error::bug("not yet"))
}

impl Secret {
    /// The key in a key file: 64 hex digits and a newline.
    pub fn from_key_file(path: &std::path::Path) -> Result<Secret> {
        let _ = path;
        Err(Error::bug("not yet"))
    }

    /// The passphrase in a file.
    pub fn from_passphrase_file(path: &std::path::Path) -> Result<Secret> {
        let _ = path;
        Err(Error::bug("not yet"))
    }

    /// The mnemonic in a file.
    pub fn from_mnemonic_file(path: &std::path::Path) -> Result<Secret> {
        let _ = path;
        Err(Error::bug("not yet"))
    }

    /// Makes a key file with a new random key; one that exists is a conflict.
    pub fn create_key_file(path: &std::path::Path) -> Result<Secret> {
        let _ = path;
        Err(Error::bug("not yet"))
    }
}
