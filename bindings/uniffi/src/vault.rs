//! Vaults: snapshots, checks, archives.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use highwater::agent::VaultSource;
use highwater::archive::{self, Export, ExportOptions, Input};
use highwater::vault::{CheckOptions, CreateOptions};
use highwater::{Env, Secret, Selector};

use crate::actor::Actor;
use crate::backup::Part;
use crate::error::{Error, Result};
use crate::guard::GuardKind;
use crate::key::Key;
use crate::place;
use crate::progress::{Call, Cancel, Progress};
use crate::same::same;

same! {
    /// How far a snapshot is known to be good.
    pub enum Level = highwater::vault::Level {
        /// It failed a restore test, and is never taken for the latest.
        Failed,
        /// Every frame was opened and compared before the commit.
        Sealed,
        /// It was restored to a scratch directory, opened, and the checks of its databases passed.
        Restored,
    }
}

/// The wall-clock time as the languages have it.
pub(crate) fn time(time: highwater::ids::Time) -> SystemTime {
    let nanos = time.as_nanos();
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    match nanos >= 0 {
        true => SystemTime::UNIX_EPOCH + distance,
        false => SystemTime::UNIX_EPOCH - distance,
    }
}

/// The one snapshot that is meant: an id, a unique beginning of one, or `latest`.
pub(crate) fn selector(snapshot: String, node: Option<String>) -> Result<Selector> {
    let node = node.map(|node| node.parse()).transpose().map_err(Error::from)?;
    Ok(Selector { snapshot, node, ..Selector::default() })
}

/// A snapshot in a vault.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// The name of its node.
    pub node: String,
    /// Its place among the snapshots of the node.
    pub seq: u64,
    /// When its instant was.
    pub time: SystemTime,
    /// How far it is known to be good.
    pub level: Level,
    /// The snapshot that it was built on.
    pub parent: Option<String>,
    /// The kinds of the node, where they were known.
    pub kinds: Vec<String>,
    /// How the node is held back once it is restored.
    pub guard: Option<GuardKind>,
    /// Marks of the node at its instant.
    pub marks: HashMap<String, u64>,
    /// Its tags.
    pub tags: HashMap<String, String>,
    /// The parts of the node.
    pub parts: Vec<Part>,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes that were stored for it.
    pub bytes_stored: u64,
    /// What it lacks that an earlier one has, in a sentence, where it lacks something that nobody has acknowledged.
    pub shrunk: Option<String>,
}

impl From<highwater::vault::SnapshotInfo> for Snapshot {
    fn from(info: highwater::vault::SnapshotInfo) -> Snapshot {
        let (bytes_stored, shrunk) = (info.bytes_stored(), info.shrunk_warning());
        let manifest = info.manifest;
        let part = |part| Part::from(highwater::vault::PartSummary::of(part));
        Snapshot {
            id: manifest.snapshot.to_string(),
            node: manifest.node.to_string(),
            seq: manifest.seq.0,
            time: time(manifest.time),
            level: info.level.into(),
            parent: manifest.parent.map(|parent| parent.to_string()),
            guard: manifest.guard_kind().map(GuardKind::from),
            bytes_total: manifest.bytes_total(),
            parts: manifest.parts.iter().map(part).collect(),
            marks: manifest.marks.into_iter().map(|(name, mark)| (name, mark.value)).collect(),
            tags: manifest.tags.into_iter().collect(),
            kinds: manifest.kinds,
            bytes_stored,
            shrunk,
        }
    }
}

/// A fault that a check found.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct CheckFault {
    /// The object or file.
    pub entry: String,
    /// What is wrong with it.
    pub problem: String,
    /// The snapshots that need it, oldest first, where it is known which do.
    pub snapshots: Vec<String>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct CheckReport {
    /// No fault was found.
    pub ok: bool,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Units opened and compared; 0 where no data was read.
    pub units: u64,
    /// Stored bytes read, or whose presence was confirmed.
    pub bytes: u64,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// The faults.
    pub faults: Vec<CheckFault>,
}

/// What an export did.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ArchiveReport {
    /// The snapshot.
    pub snapshot: String,
    /// The name of its node.
    pub node: String,
    /// The snapshot that the archive builds on.
    pub since: Option<String>,
    /// Bytes of the archive.
    pub bytes: u64,
    /// BLAKE3 of all that stands before the end marker, in hexadecimal digits.
    pub hash: String,
}

/// A snapshot of an archive that was imported.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ImportedSnapshot {
    /// Its id.
    pub snapshot: String,
    /// The name of its node.
    pub node: String,
    /// The vault had it already.
    pub already_there: bool,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ImportReport {
    /// The snapshots of the archives, in their order.
    pub snapshots: Vec<ImportedSnapshot>,
    /// Bytes of the archives.
    pub bytes_read: u64,
    /// Bytes that the vault did not have.
    pub bytes_stored: u64,
}

impl From<archive::ImportReport> for ImportReport {
    fn from(report: archive::ImportReport) -> ImportReport {
        let imported = |one: archive::Imported| ImportedSnapshot {
            snapshot: one.snapshot.to_string(),
            node: one.node.to_string(),
            already_there: one.already_there,
        };
        ImportReport {
            snapshots: report.snapshots.into_iter().map(imported).collect(),
            bytes_read: report.bytes_read,
            bytes_stored: report.bytes_stored,
        }
    }
}

/// A new vault with a recovery slot.
#[derive(Clone, uniffi::Record)]
pub struct CreatedVault {
    /// The vault, open.
    pub vault: Arc<Vault>,
    /// The words that open it as well, to be written down: they are nowhere else.
    pub recovery_words: String,
}

/// An open vault: where snapshots live, sealed. It is a local directory, or a prefix in an object store.
#[derive(uniffi::Object)]
pub struct Vault {
    inner: highwater::Vault,
    secret: Secret,
}

impl Vault {
    pub(crate) fn inner(&self) -> &highwater::Vault {
        &self.inner
    }

    /// The same vault for an agent, which opens it when it needs it.
    pub(crate) fn source(&self) -> VaultSource {
        let (location, secret) = (self.inner.location().clone(), self.secret.clone());
        VaultSource::new(location.to_string(), move || highwater::Vault::open(&location, &secret))
    }
}

#[uniffi::export]
impl Vault {
    /// Makes a vault that `key` alone opens. Whoever loses the key has lost the vault. `location` is a directory, or a
    /// URL as `s3://bucket/prefix`. `settings` has the credentials and all else that the object store needs, by the
    /// names that its client gives them, as `aws_access_key_id` or `aws_endpoint_url_s3`. Where there are none, they
    /// are the variables of the environment that have these names in upper case; no files are read.
    ///
    /// # Errors
    /// Conflict where the directory, or the prefix, holds anything already; input where this build does not reach such
    /// a store, or the store takes no such setting; denied or unavailable as the store says.
    #[uniffi::constructor(default(settings = None))]
    pub fn create(
        location: String,
        key: Arc<Key>,
        settings: Option<HashMap<String, String>>,
    ) -> Result<Arc<Vault>> {
        let inner = highwater::Vault::create(&place::of(&location, settings)?, key.secret())?;
        Ok(Arc::new(Vault { inner, secret: key.secret().clone() }))
    }

    /// Opens a vault. Location and settings are those of the constructor `create`.
    ///
    /// # Errors
    /// Not found where there is none; denied where `key` does not open it; corrupt where it is damaged.
    #[uniffi::constructor(default(settings = None))]
    pub fn open(
        location: String,
        key: Arc<Key>,
        settings: Option<HashMap<String, String>>,
    ) -> Result<Arc<Vault>> {
        let inner = highwater::Vault::open(&place::of(&location, settings)?, key.secret())?;
        Ok(Arc::new(Vault { inner, secret: key.secret().clone() }))
    }

    /// The id of the vault.
    pub fn id(&self) -> String {
        self.inner.id().to_string()
    }

    /// Where it is.
    pub fn location(&self) -> String {
        self.inner.location().to_string()
    }

    /// The snapshots of a node, or of all: by node, then from oldest to newest.
    #[uniffi::method(default(node = None))]
    pub fn snapshots(&self, node: Option<String>) -> Result<Vec<Snapshot>> {
        let node = node.map(|node| node.parse()).transpose().map_err(Error::from)?;
        let mut snapshots = Vec::new();
        self.inner.each_snapshot(node.as_ref(), |info| snapshots.push(Snapshot::from(info)))?;
        Ok(snapshots)
    }

    /// Checks manifests and sizes, and with `read_data` every byte of the vault. What is damaged is told in the
    /// report, and is no error of the call.
    #[uniffi::method(default(read_data = false, node = None, progress = None, cancel = None))]
    pub fn check(
        &self,
        read_data: bool,
        node: Option<String>,
        progress: Option<Arc<dyn Progress>>,
        cancel: Option<Arc<Cancel>>,
    ) -> Result<CheckReport> {
        let mut options = CheckOptions::default();
        options.read_data = read_data;
        options.node = node.map(|node| node.parse()).transpose().map_err(Error::from)?;
        let report = Call::new(progress, cancel.as_ref())
            .run(|control| highwater::vault::check(&self.inner, &options, control))?;
        let fault = |fault: highwater::vault::CheckFault| CheckFault {
            entry: fault.entry,
            problem: fault.problem,
            snapshots: fault.snapshots.iter().map(ToString::to_string).collect(),
        };
        Ok(CheckReport {
            ok: report.ok,
            snapshots: report.snapshots,
            units: report.chunks,
            bytes: report.bytes,
            warnings: report.warnings,
            faults: report.errors.into_iter().map(fault).collect(),
        })
    }

    /// Writes a snapshot to a file, as an archive under the key of the vault: whole, or not at all. With `since`, an
    /// older snapshot of the node, only what is new since then.
    ///
    /// # Errors
    /// Conflict where the file is there and is not to be replaced; not found where there is no such snapshot.
    #[uniffi::method(default(node = None, since = None, replace = false, progress = None, cancel = None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they have names and defaults where it is called"
    )]
    pub fn export_archive(
        &self,
        snapshot: String,
        file: String,
        node: Option<String>,
        since: Option<String>,
        replace: bool,
        progress: Option<Arc<dyn Progress>>,
        cancel: Option<Arc<Cancel>>,
    ) -> Result<ArchiveReport> {
        let since = since.map(|since| selector(since, node.clone())).transpose()?;
        let options = ExportOptions::default().selector(selector(snapshot, node)?).since(since);
        let report = Call::new(progress, cancel.as_ref()).run(|control| {
            let export = Export::new(&self.inner, &options)?;
            export.write_file(Path::new(&file), replace, control)
        })?;
        Ok(ArchiveReport {
            snapshot: report.snapshot.to_string(),
            node: report.node.to_string(),
            since: report.since.map(|since| since.to_string()),
            bytes: report.bytes,
            hash: report.hash,
        })
    }

    /// Imports archives of this vault, in the order of their chain.
    ///
    /// # Errors
    /// Corrupt where a byte of one is not what was written; conflict where one builds on a snapshot that the vault does
    /// not have; input where it is another vault's. Whatever fails, nothing becomes visible.
    #[uniffi::method(default(progress = None, cancel = None, actor = None))]
    pub fn import_archives(
        &self,
        files: Vec<String>,
        progress: Option<Arc<dyn Progress>>,
        cancel: Option<Arc<Cancel>>,
        actor: Option<Actor>,
    ) -> Result<ImportReport> {
        let actor = Actor::or_standard(actor)?;
        let inputs = inputs(files)?;
        let report = Call::new(progress, cancel.as_ref())
            .run(|control| archive::import_into(&self.inner, inputs, &actor, control))?;
        Ok(report.into())
    }
}

fn inputs(files: Vec<String>) -> Result<Vec<Input<'static>>> {
    if files.is_empty() {
        return Err(highwater::Error::input("no archive is to be imported").into());
    }
    let open = |name: String| {
        let file = File::open(&name).map_err(|error| {
            highwater::Error::io("the archive can't be read", error).with_entry(name.as_str())
        })?;
        Ok(Input { name, read: Box::new(BufReader::new(file)) })
    };
    files.into_iter().map(open).collect()
}

/// Makes a vault that `key` opens, and recovery words as well.
///
/// # Errors
/// Those of the constructor `create`.
#[uniffi::export(default(settings = None))]
pub fn create_vault_with_recovery(
    location: String,
    key: Arc<Key>,
    settings: Option<HashMap<String, String>>,
) -> Result<CreatedVault> {
    let location = place::of(&location, settings)?;
    let options = CreateOptions::default().recovery(true);
    let created = highwater::Vault::create_with(&location, key.secret(), &options, &Env::system())?;
    let words = created.recovery_words.ok_or_else(|| highwater::Error::bug("no recovery words"))?;
    let vault = Arc::new(Vault { inner: created.vault, secret: key.secret().clone() });
    Ok(CreatedVault { vault, recovery_words: words.as_str().to_owned() })
}
