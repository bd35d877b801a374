//! Where snapshots live: sealed objects in a directory or an object store.
//!
//! The format is documented byte by byte in `docs/vault-format.md`. Nothing here knows of engines:
//! a vault keeps entries made of units, whatever wrote them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::env::Env;
use crate::error::{Error, Remedy, Result};
use crate::ids::{Epoch, NodeName, SlotId, Time, VaultId, WriterId};

mod actor;
mod check;
mod checked;
pub(crate) mod codec;
pub(crate) mod document;
mod folder;
pub mod forget;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod header;
#[cfg(test)]
mod hostile;
mod import;
mod intent;
mod keys;
mod local;
mod location;
pub mod manifest;
mod nodes;
pub(crate) mod pack;
mod probe;
pub mod prune;
pub(crate) mod read;
mod remote;
pub mod retention;
pub(crate) mod runs;
pub(crate) mod seal;
mod sealed;
#[cfg(test)]
#[path = "../../tests/servers/mod.rs"]
pub(crate) mod servers;
pub mod shrink;
mod snapshots;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod trash;
pub(crate) mod upload;
pub(crate) mod witness;

pub(crate) use actor::{Known, Lock, boot};
pub use check::{CheckOptions, CheckReport, Fault, check};
pub use checked::{Coverage, Share};
pub(crate) use folder::Folder;
pub(crate) use header::{Header, NAME as HEADER_NAME};
pub(crate) use intent::{BACKUP_TIME_MAX, Intent};
pub(crate) use keys::{MasterKey, SLOTS_MAX, SlotDoc};
pub(crate) use local::TEMPORARY;
pub use location::{Location, RemoteLocation};
pub use manifest::Manifest;
pub(crate) use nodes::{NodeRecord, copied, unrecorded};
pub(crate) use snapshots::{ContentId, MANIFEST_VERSION, SnapshotName};
pub use trash::GRACE;

use pack::UnitKeys;
use read::PackCache;
use shrink::{Acknowledged, Loss};
use store::Store;
use trash::TrashCache;

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
    /// It failed a restore test: never `latest`.
    Failed,
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
    /// The size of the manifest's own object.
    pub manifest_bytes: u64,
    /// What it lacks that an earlier one has, and nobody has acknowledged.
    pub shrunk: Vec<Loss>,
    /// Who has acknowledged what it lacks, and why.
    pub acknowledged: Option<Acknowledged>,
}

impl SnapshotInfo {
    /// Bytes that were stored for it: packs and manifest.
    pub fn bytes_stored(&self) -> u64 {
        self.manifest.bytes_stored + self.manifest_bytes
    }
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

/// How a vault is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// With a recovery slot.
    pub recovery: bool,
    /// Also in a store that does not keep two writers apart. Nobody can take over there, and no
    /// witness can be kept.
    pub unfenced: bool,
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
pub struct Vault {
    store: Store,
    location: Location,
    header: Header,
    master: MasterKey,
    keys: UnitKeys,
    env: Env,
    packs: PackCache,
    trash: TrashCache,
}

impl Vault {
    /// Makes a vault with one slot for `secret` and, if wished, a recovery slot. A directory or
    /// prefix that holds anything already is a conflict.
    pub fn create(
        location: &Location,
        secret: &Secret,
        recovery: bool,
        env: &Env,
    ) -> Result<Created> {
        let options = CreateOptions { recovery, ..CreateOptions::default() };
        Vault::create_with(location, secret, &options, env)
    }

    /// Makes a vault. A directory or prefix that holds anything already is a conflict; so is a
    /// store that was found not to keep two writers apart, unless that is accepted.
    pub fn create_with(
        location: &Location,
        secret: &Secret,
        options: &CreateOptions,
        env: &Env,
    ) -> Result<Created> {
        let store = location.create_store(env)?;
        let master = MasterKey::generate()?;
        let id = VaultId::random(env)?;
        let traits = store.probe(env)?.judge(&location.to_string(), options.unfenced)?;
        let header = Header::new(id, env.now(), traits, &master)?;
        let vault = Vault::assemble(store, location.clone(), header, master, env.clone());
        vault.add_slot(secret, "first")?;
        let recovery_words = match options.recovery {
            true => {
                let words = keys::recovery_words()?;
                vault.add_slot(&Secret::Mnemonic(words.clone()), "recovery")?;
                Some(words)
            }
            false => None,
        };
        // The header comes last: a directory without one is no vault, whatever else it holds.
        let header = vault.header.to_bytes()?;
        let put = vault.store.put_new(header::NAME, header.clone())?;
        if !put || vault.store.get(header::NAME)? != header {
            return Err(Error::conflict("another vault was made in the same place"));
        }
        Ok(Created { vault, recovery_words })
    }

    /// Opens a vault.
    ///
    /// # Errors
    /// Not found where there is none; denied where `secret` opens no slot; corrupt where a slot or
    /// the header is damaged; input where a newer program made it.
    pub fn open(location: &Location, secret: &Secret, env: &Env) -> Result<Vault> {
        Vault::open_in(location.open_store(env)?, location, secret, env)
    }

    /// The id of the vault at a place, which no secret is needed for; `None` where there is none.
    pub(crate) fn id_at(location: &Location, env: &Env) -> Result<Option<VaultId>> {
        let bytes = location.open_store(env).and_then(|store| store.get(header::NAME));
        match bytes {
            Err(error) if error.kind() == crate::Kind::NotFound => Ok(None),
            bytes => Ok(Some(Header::parse(&bytes?)?.vault)),
        }
    }

    /// Makes a copy of a vault where nothing is: its id, its key and its slots, and no snapshot yet.
    /// What its own store can do is found out anew. What was put is removed again where that fails.
    pub(crate) fn create_copy(
        location: &Location,
        header: &Header,
        slots: &[SlotDoc],
        master: MasterKey,
        env: &Env,
    ) -> Result<Vault> {
        let store = match location.create_store(env) {
            Err(error) if error.kind() == crate::Kind::Conflict => {
                import::begun_copy(location, slots, env)?.ok_or(error)?
            }
            store => store?,
        };
        let filled = import::fill_copy(&store, header, slots, &master, location, env);
        match filled {
            Ok(header) => Ok(Vault::assemble(store, location.clone(), header, master, env.clone())),
            Err(error) => {
                import::empty_copy(&store, slots)?;
                Err(error)
            }
        }
    }

    /// Opens the vault that a store holds.
    pub(crate) fn open_in(
        store: Store,
        location: &Location,
        secret: &Secret,
        env: &Env,
    ) -> Result<Vault> {
        let bytes = store.get(header::NAME).map_err(|error| match error.kind() {
            // Of a bucket that is not there the store's own error tells more.
            crate::Kind::NotFound if error.entry() == Some(header::NAME) => {
                Error::not_found("there is no vault here")
                    .with_entry(location.to_string())
                    .with_remedy(Remedy::CreateVault)
            }
            _ => error,
        })?;
        let header = Header::parse(&bytes)?;
        let (mut slots, mut damage) = (Vec::new(), None);
        for listed in keys::slot_names(&store)? {
            let read = store.get(&listed).and_then(|bytes| SlotDoc::parse(&listed, &bytes));
            match read {
                Ok(slot) => slots.push(slot),
                Err(error) if error.kind() == crate::Kind::Corrupt => damage = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(master) = SlotDoc::unlock(&slots, secret)? {
            header.verify(&master)?;
            return Ok(Vault::assemble(store, location.clone(), header, master, env.clone()));
        }
        // A damaged slot may be the one that the secret opens: that must not look like a wrong key.
        Err(damage.unwrap_or_else(|| {
            Error::denied("this key opens no slot of the vault")
                .with_entry(location.to_string())
                .with_remedy("another key file, the passphrase, or the recovery words may open it")
        }))
    }

    fn assemble(
        store: Store,
        location: Location,
        header: Header,
        master: MasterKey,
        env: Env,
    ) -> Vault {
        let id = header.vault;
        let keys = UnitKeys {
            page: master.derive(id.as_bytes(), &[b"hw1 page"]),
            slice: master.derive(id.as_bytes(), &[b"hw1 slice"]),
        };
        let (packs, trash) = (PackCache::default(), TrashCache::default());
        Vault { store, location, header, master, keys, env, packs, trash }
    }

    /// The vault's id.
    pub fn id(&self) -> VaultId {
        self.header.vault
    }

    /// Input where it is made of archives: they can't be written.
    pub(crate) fn refuse_read_only(&self) -> Result<()> {
        match self.location {
            Location::Archive(_) => Err(self.location.read_only()),
            Location::Local(_) | Location::Remote(_) => Ok(()),
        }
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether its store keeps two writers apart: an object can be created exactly once.
    pub fn is_fenced(&self) -> bool {
        self.header.store.create_only
    }

    /// What the operator should know of the vault, whatever it holds.
    pub fn warnings(&self) -> Vec<String> {
        if self.is_fenced() {
            return Vec::new();
        }
        vec![
            "the vault's store does not keep two writers apart: see to it that one machine alone \
             backs up each node into it"
                .to_owned(),
        ]
    }

    /// Input where the store does not keep two writers apart, and what follows for what was asked.
    pub(crate) fn refuse_unfenced(&self, consequence: &str) -> Result<()> {
        if self.is_fenced() {
            return Ok(());
        }
        Err(Error::input(format!(
            "the store of this vault does not keep two writers apart: {consequence}"
        ))
        .with_entry(self.location().to_string())
        .with_remedy("make a vault in a store that can create an object exactly once"))
    }

    /// The key slots, by id.
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        Ok(self.slot_documents()?.iter().map(SlotDoc::info).collect())
    }

    /// Adds a slot; nothing is sealed again.
    pub fn add_slot(&self, secret: &Secret, label: &str) -> Result<SlotInfo> {
        if keys::slot_names(&self.store)?.len() >= SLOTS_MAX {
            return Err(Error::conflict(format!("the vault has {SLOTS_MAX} key slots already"))
                .with_remedy(Remedy::RemoveKey));
        }
        let slot = SlotDoc::wrap(secret, label, self.id(), &self.master, &self.env)?;
        if !self.store.put_new(&slot.object_name(), slot.to_bytes()?)? {
            return Err(Error::bug("two key slots with one random id"));
        }
        Ok(slot.info())
    }

    /// Removes a slot by its id or a unique prefix of it. The last one can't be removed. A copy of
    /// the vault's key that somebody made with the slot is not revoked.
    pub fn remove_slot(&self, slot: &str) -> Result<SlotInfo> {
        let slots = self.slot_documents()?;
        let mut fitting =
            slots.iter().filter(|known| known.info().slot.to_string().starts_with(slot));
        let (Some(found), None) = (fitting.next(), fitting.next()) else {
            return Err(Error::not_found(format!("`{slot}` names no slot, or more than one"))
                .with_remedy(Remedy::ListKeys));
        };
        if slots.len() == 1 {
            return Err(Error::conflict("the last key slot can't be removed")
                .with_entry(found.object_name())
                .with_remedy(
                    "add another one first: without a slot nothing in the vault can be opened",
                ));
        }
        self.store.delete(&found.object_name())?;
        Ok(found.info())
    }

    /// The key slots as stored, each made under this vault's key.
    pub(crate) fn slot_documents(&self) -> Result<Vec<SlotDoc>> {
        let mut slots = Vec::new();
        for name in keys::slot_names(&self.store)? {
            let slot = SlotDoc::parse(&name, &self.store.get(&name)?)?;
            slot.verify(&self.master)?;
            slots.push(slot);
        }
        Ok(slots)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn master(&self) -> &MasterKey {
        &self.master
    }

    pub(crate) fn unit_keys(&self) -> &UnitKeys {
        &self.keys
    }

    /// Gives back the memory that indexes of packs take; they are read again where they are needed.
    pub fn forget_packs(&self) {
        self.packs.forget();
    }

    pub(crate) fn pack_cache(&self) -> &PackCache {
        &self.packs
    }

    pub(crate) fn trash_cache(&self) -> &TrashCache {
        &self.trash
    }

    /// Removes temporary files of writers that were killed.
    pub(crate) fn collect_temporary(&self) -> Result<()> {
        self.store.collect_temporary()
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }
}
