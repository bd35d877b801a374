//! Backups.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater::backup;
use highwater_nodes::Known;

use crate::actor::Actor;
use crate::error::{CallbackError, Error, Result};
use crate::guard::GuardKind;
use crate::own;
use crate::progress::{Call, Cancel, Progress};
use crate::vault::Vault;

/// How hard what is stored is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Effort {
    /// Little processor time.
    Fast,
    /// As few bytes as tools store that take several times as long.
    Balanced,
    /// Some bytes in a hundred less, for several times the processor time.
    Dense,
}

impl From<Effort> for highwater::vault::Effort {
    fn from(effort: Effort) -> highwater::vault::Effort {
        match effort {
            Effort::Fast => highwater::vault::Effort::Fast,
            Effort::Balanced => highwater::vault::Effort::Balanced,
            Effort::Dense => highwater::vault::Effort::Dense,
        }
    }
}

/// Makes a checkpoint of a RocksDB of the node.
#[uniffi::export(with_foreign)]
pub trait Checkpoint: Send + Sync {
    /// Makes it in `directory`, which does not exist yet; the library removes it afterwards.
    fn checkpoint(&self, directory: String) -> Result<(), CallbackError>;
}

/// Holds the writers of the node still while a backup takes its instant.
#[uniffi::export(with_foreign)]
pub trait Writers: Send + Sync {
    /// Holds them, and tells the marks of the node at that instant: named counters that only rise.
    fn hold(&self) -> Result<HashMap<String, u64>, CallbackError>;

    /// Lets them go on. It is called once after each hold that did not fail.
    fn go_on(&self) -> Result<(), CallbackError>;
}

/// What a backup does besides the common.
#[derive(Clone, uniffi::Record)]
pub struct BackupOptions {
    /// The name of the node in the vault; that of the directory where there is none.
    #[uniffi(default = None)]
    pub node: Option<String>,
    /// Marks that the caller claims: counters of the node that only rise.
    #[uniffi(default)]
    pub marks: HashMap<String, u64>,
    /// Tags of the snapshot.
    #[uniffi(default)]
    pub tags: HashMap<String, String>,
    /// Globs over paths inside the node directory that are left out.
    #[uniffi(default)]
    pub exclude: Vec<String>,
    /// How the node is held back once it is restored. Where there is none: as its backup before asked for, or as its
    /// kind needs where that is known.
    #[uniffi(default = None)]
    pub guard: Option<GuardKind>,
    /// Why the node need not be held back, whatever its kind or an earlier backup asks for; recorded as the tag
    /// `unguarded`.
    #[uniffi(default = None)]
    pub unguarded: Option<String>,
    /// How hard what is stored is compressed; balanced where there is none.
    #[uniffi(default = None)]
    pub effort: Option<Effort>,
    /// The schema version of the node.
    #[uniffi(default = None)]
    pub schema: Option<u64>,
    /// Reads every file, also the unchanged ones.
    #[uniffi(default = false)]
    pub rehash: bool,
    /// Stores everything anew and builds on no snapshot before.
    #[uniffi(default = false)]
    pub full: bool,
    /// Reads no more than so many bytes a second.
    #[uniffi(default = None)]
    pub rate_max: Option<u64>,
    /// This directory goes on as the node of that name, although it was backed up elsewhere.
    #[uniffi(default = false)]
    pub adopt: bool,
    /// Several databases without a common instant are accepted.
    #[uniffi(default = false)]
    pub allow_no_barrier: bool,
    /// What makes checkpoints of the node's RocksDBs, by the names of their parts.
    #[uniffi(default)]
    pub checkpoints: HashMap<String, Arc<dyn Checkpoint>>,
    /// What holds the writers of the node still.
    #[uniffi(default = None)]
    pub writers: Option<Arc<dyn Writers>>,
    /// Who acts; the standard actor where there is none.
    #[uniffi(default = None)]
    pub actor: Option<Actor>,
}

/// How many files are what they were in the snapshot before; all are new where there is none that was built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Changes {
    /// Not in the snapshot before.
    pub added: u64,
    /// With another content.
    pub changed: u64,
    /// With the same content.
    pub unchanged: u64,
    /// Only in the snapshot before.
    pub removed: u64,
}

/// One database, or all plain files, of a node directory.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Part {
    /// Its path in the node directory, or `files` for the plain files.
    pub name: String,
    /// What keeps its data: `sqlite`, `rocksdb`, `files` and others.
    pub engine: String,
    /// How many files it has.
    pub files: u64,
    /// The bytes of these.
    pub bytes: u64,
}

impl From<highwater::vault::PartSummary> for Part {
    fn from(part: highwater::vault::PartSummary) -> Part {
        let engine = part.engine.name().to_owned();
        Part { name: part.name, engine, files: part.files, bytes: part.bytes }
    }
}

/// What a backup did.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct BackupReport {
    /// The id of the snapshot.
    pub snapshot: String,
    /// The name of the node.
    pub node: String,
    /// The place of the snapshot among those of the node, from 1 on.
    pub seq: u64,
    /// The snapshot before.
    pub parent: Option<String>,
    /// The parts of the node.
    pub parts: Vec<Part>,
    /// The kinds of the node, where they are known.
    pub kinds: Vec<String>,
    /// Files beside the snapshot before.
    pub changes: Changes,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes read from the node.
    pub bytes_read: u64,
    /// Bytes written to the vault.
    pub bytes_stored: u64,
    /// Marks of the node at the instant of the snapshot.
    pub marks: HashMap<String, u64>,
    /// How the node is held back once it is restored.
    pub guard: Option<GuardKind>,
    /// How long the node was held, or a writer of it kept waiting.
    pub pause: Duration,
    /// How long it all took.
    pub duration: Duration,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl From<backup::BackupReport> for BackupReport {
    fn from(report: backup::BackupReport) -> BackupReport {
        let backup::Changes { new, changed, unchanged, removed } = report.changes;
        BackupReport {
            snapshot: report.snapshot.to_string(),
            node: report.node.to_string(),
            seq: report.seq.0,
            parent: report.parent.map(|parent| parent.to_string()),
            parts: report.parts.into_iter().map(Part::from).collect(),
            kinds: report.kinds,
            changes: Changes { added: new, changed, unchanged, removed },
            bytes_total: report.bytes_total,
            bytes_read: report.bytes_read,
            bytes_stored: report.bytes_stored,
            marks: report.marks.into_iter().map(|(name, mark)| (name, mark.value)).collect(),
            guard: report.guard.map(GuardKind::from),
            pause: report.pause,
            duration: report.duration,
            warnings: report.warnings,
        }
    }
}

/// Captures the node in `directory`, which may run meanwhile in other processes, and commits a snapshot of it.
///
/// # Errors
/// Conflict where this process has a SQLite database of the node open, a backup of the node runs already, or a part
/// can't be captured as it is; fenced where another writer owns the node; input where the directory is no node
/// directory or the vault lies inside it; interrupted where it was cancelled, or a callback for progress has failed.
#[uniffi::export(default(options = None, progress = None, cancel = None))]
pub fn backup(
    vault: Arc<Vault>,
    directory: String,
    options: Option<BackupOptions>,
    progress: Option<Arc<dyn Progress>>,
    cancel: Option<Arc<Cancel>>,
) -> Result<BackupReport> {
    let (options, actor) = settled_or_usual(options)?;
    let actor = Actor::or_standard(actor)?;
    let directory = Path::new(&directory);
    own::refuse_open_sqlite(directory, &options.discover)?;
    let report = Call::new(progress, cancel.as_ref())
        .run(|control| backup::run(vault.inner(), directory, &actor, &options, control))?;
    Ok(report.into())
}

/// The options of the library, and who acts.
pub(crate) fn settled_or_usual(
    asked: Option<BackupOptions>,
) -> Result<(backup::BackupOptions, Option<Actor>)> {
    let Some(asked) = asked else { return Ok((usual(), None)) };
    settled(asked)
}

/// Kinds of nodes are recognised whatever was asked for.
fn usual() -> backup::BackupOptions {
    let mut options = backup::BackupOptions::default();
    options.recogniser = Some(Arc::new(Known));
    options
}

fn settled(asked: BackupOptions) -> Result<(backup::BackupOptions, Option<Actor>)> {
    let mut tags = asked.tags;
    if let Some(reason) = &asked.unguarded {
        if reason.trim().is_empty() {
            return Err(highwater::Error::input("`unguarded` needs a reason")
                .with_remedy("say why an old copy of this node does no harm")
                .into());
        }
        tags.insert("unguarded".to_owned(), reason.clone());
    }
    let mut options = usual();
    options.node = asked.node.map(|node| node.parse()).transpose().map_err(Error::from)?;
    options.tags = tags.into_iter().collect();
    options.marks = asked.marks.into_iter().collect();
    options.schema = asked.schema;
    options.discover.exclude = asked.exclude;
    options.rehash = asked.rehash;
    options.full = asked.full;
    options.rate_max = asked.rate_max;
    options.effort = asked.effort.map(Into::into).unwrap_or_default();
    options.guard = asked.guard.map(Into::into);
    options.unguarded = asked.unguarded.is_some();
    options.adopt = asked.adopt;
    options.capture.allow_no_barrier = asked.allow_no_barrier;
    options.capture.hooks = asked.checkpoints.into_iter().map(hook).collect();
    options.capture.hold = asked.writers.map(held);
    Ok((options, asked.actor))
}

fn hook(
    (part, checkpoint): (String, Arc<dyn Checkpoint>),
) -> (String, highwater::engine::CheckpointHook) {
    let hook = move |dir: &Path| -> Result<(), Box<dyn StdError + Send + Sync>> {
        let directory = dir.to_str().ok_or("the path of the checkpoint is not UTF-8")?;
        Ok(checkpoint.checkpoint(directory.to_owned())?)
    };
    (part, Arc::new(hook))
}

fn held(writers: Arc<dyn Writers>) -> highwater::engine::HoldHook {
    Arc::new(move |capture| {
        let marks = writers.hold()?;
        let still = Still { writers: Some(&*writers) };
        capture(marks.into_iter().collect());
        Ok(still.end()?)
    })
}

/// Writers that are held still, and go on whatever becomes of the capture.
struct Still<'a> {
    writers: Option<&'a dyn Writers>,
}

impl Still<'_> {
    fn end(mut self) -> Result<(), CallbackError> {
        self.writers.take().map_or(Ok(()), Writers::go_on)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Some(writers) = self.writers.take() {
            // The capture has panicked, and that is told.
            let _ = writers.go_on();
        }
    }
}
