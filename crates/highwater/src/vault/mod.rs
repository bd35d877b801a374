//! Where snapshots live: sealed objects in a directory or an object store.
//!
//! The format is documented byte by byte in `docs/vault-format.md`. Nothing here knows of engines:
//! a vault keeps entries made of units, whatever wrote them.

use zeroize::Zeroizing;

use crate::control::Control;
use crate::env::Env;
use crate::error::{Error, Remedy, Result};
use crate::ids::VaultId;

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
mod info;
mod intent;
mod keys;
mod limits;
pub(crate) mod lists;
mod local;
mod location;
mod loss;
pub mod manifest;
pub(crate) mod medium;
mod nodes;
pub(crate) mod pack;
mod probe;
mod provider;
pub mod prune;
pub(crate) mod read;
#[cfg(feature = "remote")]
mod remote;
pub mod retention;
pub(crate) mod runs;
pub(crate) mod seal;
mod sealed;
#[cfg(all(feature = "s3", feature = "gcs", feature = "azure"))]
#[cfg(test)]
#[path = "../../tests/servers/mod.rs"]
pub(crate) mod servers;
pub mod shrink;
mod slots;
mod snapshots;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod trash;
pub(crate) mod upload;
pub(crate) mod witness;
pub(crate) mod writer;

pub use actor::Actor;
pub(crate) use actor::{Known, Lock, boot};
pub use check::{CheckFault, CheckOptions, CheckReport, check};
pub use checked::{Coverage, Share};
pub use codec::Effort;
pub(crate) use folder::Folder;
pub(crate) use folder::HEADER as HEADER_NAME;
pub(crate) use header::Header;
pub use info::{Level, Selector, SnapshotInfo};
pub(crate) use intent::{BACKUP_TIME_MAX, Intent};
pub(crate) use keys::{MasterKey, SLOTS_MAX, SlotDoc};
pub use keys::{Secret, SlotInfo, SlotKind};
pub(crate) use limits::{MANIFEST_BYTES_MAX, PLAIN_BYTES_MAX, UPLOADS_IN_FLIGHT_MAX};
pub(crate) use local::TEMPORARY;
pub use location::{Location, RemoteLocation};
pub use manifest::{Manifest, PartSummary, channel_mark, channel_of};
pub use medium::Requests;
pub use nodes::Ownership;
pub(crate) use nodes::{NodeRecord, copied, unrecorded};
pub(crate) use snapshots::ContentId;
pub use snapshots::SnapshotName;
#[cfg(feature = "agent")]
pub(crate) use snapshots::with_others;
pub use trash::GRACE;

use nodes::RecordCache;
use pack::UnitKeys;
use read::PackCache;
use store::Store;
use trash::TrashCache;

/// How a vault is made.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CreateOptions {
    /// With a recovery slot.
    pub recovery: bool,
    /// Also in a store that does not keep two writers apart. Nobody can take over there, and no
    /// witness can be kept.
    pub unfenced: bool,
}

setters! {
    CreateOptions {
        recovery: bool,
        unfenced: bool,
    }
}

/// A new vault.
#[non_exhaustive]
pub struct Created {
    /// The vault, open.
    pub vault: Vault,
    /// The words of the recovery slot, to be shown once; `None` where none was made.
    pub recovery_words: Option<Zeroizing<String>>,
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
    records: RecordCache,
}

impl Drop for Vault {
    fn drop(&mut self) {
        if let Some(Requests { put, get, list, delete }) = self.requests() {
            tracing::info!(put, get, list, delete, "requests to the store");
        }
    }
}

impl Vault {
    /// Makes a vault that `secret` alone opens. Whoever loses the secret has lost the vault: see
    /// [`CreateOptions::recovery`].
    ///
    /// # Errors
    /// Those of [`Vault::create_with`].
    pub fn create(location: &Location, secret: &Secret) -> Result<Vault> {
        Vault::create_with(location, secret, &CreateOptions::default(), &Env::system())
            .map(|created| created.vault)
    }

    /// Makes a vault with one slot for `secret` and, if wished, a recovery slot, in an environment of
    /// the caller's.
    ///
    /// # Errors
    /// Conflict where the directory or prefix holds anything already, and where the store was found not to
    /// keep two writers apart, unless that is accepted. What the store says.
    pub fn create_with(
        location: &Location,
        secret: &Secret,
        options: &CreateOptions,
        env: &Env,
    ) -> Result<Created> {
        let store = Store::create(location, env)?;
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
        let put = vault.store.put_new(HEADER_NAME, header.clone())?;
        if !put || vault.store.get(HEADER_NAME)? != header {
            return Err(Error::conflict("another vault was made in the same place"));
        }
        Ok(Created { vault, recovery_words })
    }

    /// Opens a vault.
    ///
    /// # Errors
    /// Not found where there is none; denied where `secret` opens no slot; corrupt where a slot or
    /// the header is damaged; input where a newer program made it.
    pub fn open(location: &Location, secret: &Secret) -> Result<Vault> {
        Vault::open_with(location, secret, &Env::system())
    }

    /// [`Vault::open`] in an environment of the caller's.
    ///
    /// # Errors
    /// Those of [`Vault::open`].
    pub fn open_with(location: &Location, secret: &Secret, env: &Env) -> Result<Vault> {
        Vault::open_in(Store::open(location, env)?, location, secret, env)
    }

    /// The id of the vault at a place, which no secret is needed for; `None` where there is none.
    pub(crate) fn id_at(location: &Location, env: &Env) -> Result<Option<VaultId>> {
        let bytes = Store::open(location, env).and_then(|store| store.get(HEADER_NAME));
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
        let store = match Store::create(location, env) {
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
        let bytes = store.get(HEADER_NAME).map_err(|error| match error.kind() {
            // Of a bucket that is not there the store's own error tells more.
            crate::Kind::NotFound if error.entry() == Some(HEADER_NAME) => {
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
        let records = RecordCache::default();
        Vault { store, location, header, master, keys, env, packs, trash, records }
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

    /// A control for an operation on it, in the environment that it was opened with.
    pub fn control(&self) -> Control {
        Control::new(self.env.clone())
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// How many requests have gone to its object store since it was opened or made, which is what operators of such
    /// stores count; none for a vault on disk.
    pub fn requests(&self) -> Option<Requests> {
        self.store.requests()
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

    fn record_cache(&self) -> &RecordCache {
        &self.records
    }

    /// Removes temporary files of writers that were killed.
    pub(crate) fn collect_temporary(&self) -> Result<()> {
        self.store.collect_temporary()
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }
}
