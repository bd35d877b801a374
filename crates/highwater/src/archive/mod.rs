//! A snapshot, or an increment, as one stream or file that verifies itself.
//!
//! An archive is the vault's own sealed objects, one behind the other, under the vault's key still:
//! nothing is sealed again, and nothing of it can be read without a secret of the vault. It is
//! written and read once, from its beginning to its end, in bounded memory, so that it can go through
//! a pipe or over a network. The format is documented in `docs/archive-format.md`.
//!
//! ```
//! # use highwater::{Actor, Backup, Secret, Vault};
//! # let scratch = tempfile::tempdir().unwrap();
//! # std::env::set_current_dir(scratch.path()).unwrap();
//! # std::fs::create_dir("node").unwrap();
//! # std::fs::write("node/state", "seven channels").unwrap();
//! # let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
//! # let vault = Vault::create(&"vault".parse()?, &secret)?;
//! # let actor = Actor::new("state", "operator@node-1");
//! # let backup = Backup::of("node").run(&vault, &actor)?;
//! use std::path::Path;
//! use highwater::archive::{Export, ExportOptions};
//! use highwater::Selector;
//!
//! let selector = Selector { snapshot: backup.snapshot.to_string(), ..Selector::default() };
//! let export = Export::new(&vault, &ExportOptions::default().selector(selector))?;
//! let report = export.write_file(Path::new("node.hwa"), false, &vault.control())?;
//! assert_eq!(report.bytes, std::fs::metadata("node.hwa").unwrap().len());
//! # Ok::<(), highwater::Error>(())
//! ```

mod arrive;
mod chain;
mod file;
mod format;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod import;
mod read;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::control::Control;
use crate::error::Result;
use crate::ids::{NodeName, SnapshotId, VaultId};
use crate::vault::{Selector, Vault};

pub use import::{import, import_into};
pub use store::{Opened, open};

use write::Settled;

/// The version of the format that this program writes.
pub const FORMAT_VERSION: u16 = format::FORMAT_VERSION;

/// Which snapshot is exported.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The snapshot.
    pub selector: Selector,
    /// An older snapshot of the node, which the other side has already: what it holds is left out.
    pub since: Option<Selector>,
}

setters! {
    ExportOptions {
        selector: Selector,
        since: Option<Selector>,
    }
}

/// An export that is settled and not yet written.
pub struct Export<'a> {
    vault: &'a Vault,
    settled: Settled,
}

/// What an export did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its node.
    pub node: NodeName,
    /// The snapshot that it builds on.
    pub since: Option<SnapshotId>,
    /// Packs in the archive.
    pub packs: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// BLAKE3 of all that stands before the end marker, in hex.
    pub hash: String,
    /// How long it took.
    pub duration: Duration,
}

impl<'a> Export<'a> {
    /// Settles which snapshot is exported, and from which one on.
    ///
    /// # Errors
    /// Those of [`Vault::resolve`]; input where `since` is not older than the snapshot.
    pub fn new(vault: &'a Vault, options: &ExportOptions) -> Result<Export<'a>> {
        Ok(Export { vault, settled: write::settle(vault, options)? })
    }

    /// The snapshot.
    pub fn snapshot(&self) -> SnapshotId {
        self.settled.header.snapshot
    }

    /// The snapshot that the archive builds on.
    pub fn since(&self) -> Option<SnapshotId> {
        self.settled.header.since.map(|(since, _)| since)
    }

    /// The marks inside the snapshot: those of the node at its barrier.
    pub fn marks(&self) -> BTreeMap<String, u64> {
        let marks = &self.settled.snapshot.manifest.marks;
        marks.iter().map(|(name, mark)| (name.clone(), mark.value)).collect()
    }

    /// The exact length of the archive.
    pub fn bytes(&self) -> u64 {
        self.settled.header.bytes
    }

    /// A name for the file: node, and the time of the snapshot in UTC, as
    /// `node-20261121T083000Z.hwa`.
    pub fn file_name(&self) -> String {
        let manifest = &self.settled.snapshot.manifest;
        let time = manifest.time.to_string();
        let seconds = time.split(['.', 'Z']).next().unwrap_or_default();
        format!("{}-{}Z.hwa", manifest.node, seconds.replace(['-', ':'], ""))
    }

    /// Writes the archive. Every frame is opened on its way: damage in the vault is an error, and the output
    /// then lacks its end marker, so that nobody takes it for an archive.
    pub fn write(&self, out: &mut dyn Write, control: &Control) -> Result<ExportReport> {
        let _span = tracing::info_span!("export", snapshot = %self.snapshot()).entered();
        let report = write::write(self.vault, &self.settled, out, control)?;
        tracing::info!(packs = report.packs, bytes = report.bytes, "exported");
        Ok(report)
    }

    /// Writes the archive to a file of mode 0600: whole and durable, or not at all. An existing file of
    /// that name is a conflict, or is replaced if that is allowed.
    pub fn write_file(
        &self,
        path: &Path,
        replace: bool,
        control: &Control,
    ) -> Result<ExportReport> {
        file::write(path, replace, &control.env, |out| self.write(out, control), |_| Ok(()))
            .map(|(report, ())| report)
    }
}

/// What an archive that was received says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its vault.
    pub vault: VaultId,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The snapshot that it builds on.
    pub since: Option<SnapshotId>,
    /// Its length.
    pub bytes: u64,
}

/// Writes an archive that comes from elsewhere to a file of mode 0600: whole and durable, or not at
/// all. `write` brings its bytes, which are read while they arrive, up to the end marker, and `accept` may
/// refuse what it turns out to be.
///
/// No key is needed, so that nothing here tells who made the archive: who opens or imports it
/// verifies that, with the key.
///
/// # Errors
/// Conflict where the file exists and is not to be replaced, found before `write` is called; corrupt
/// where the bytes are no whole archive; what `write` and `accept` say.
pub fn receive<T>(
    path: &Path,
    replace: bool,
    control: &Control,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
    accept: impl FnOnce(&T, &Received) -> Result<()>,
) -> Result<(T, Received)> {
    std::thread::scope(|scope| {
        let name = crate::ids::encode(path.as_os_str().as_encoded_bytes());
        let (shown, reading) = arrive::read(scope, name, control);
        let write = |out: &mut dyn Write| write(&mut arrive::Arriving::new(out, shown));
        file::write(path, replace, &control.env, write, |written| {
            let received = arrive::outcome(reading)?;
            accept(written, &received)?;
            Ok(received)
        })
    })
}

/// Conflict if a file of this name exists and is not to be replaced, for callers that want to know in
/// advance. Writing the file checks this as well.
pub fn refuse_existing(path: &Path, replace: bool) -> Result<()> {
    file::refuse_existing(path, replace)
}

/// An archive that is read.
pub struct Input<'a> {
    /// What errors call it: its path.
    pub name: String,
    /// Its bytes.
    pub read: Box<dyn Read + 'a>,
}

/// What an import did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImportReport {
    /// The vault.
    pub vault: VaultId,
    /// The vault was made by this import, as a copy of the archives' one.
    pub created: bool,
    /// The snapshots of the archives, in their order.
    pub snapshots: Vec<Imported>,
    /// Bytes of the archives.
    pub bytes_read: u64,
    /// Bytes of the packs that the vault did not have.
    pub bytes_stored: u64,
    /// How long it took.
    pub duration: Duration,
}

/// A snapshot of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its id.
    pub snapshot: SnapshotId,
    /// Its node.
    pub node: NodeName,
    /// The snapshot that its archive builds on.
    pub since: Option<SnapshotId>,
    /// The vault had it already, the same to the last byte; nothing was changed.
    pub already_there: bool,
}
