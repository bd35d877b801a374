//! One backup: capture the node, seal what changed, commit a snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::control::{Control, Event, Priority};
use crate::engine::{
    self, Barrier, CaptureOptions, Captured, CapturedFiles, Consistency, DiscoverOptions,
    EntryType, Layout, Recognised, Recogniser, SourceEntry,
};
use crate::env::FaultPoint;
use crate::error::{Error, Result};
use crate::ids::{Epoch, GuardKind, NodeName, Seq, SnapshotId};
use crate::node::NodeFile;
use crate::vault::manifest::{EntryRecord, Mark};
use crate::vault::shrink::Loss;
use crate::vault::{
    Actor, BACKUP_TIME_MAX, Effort, Intent, Known, Location, Manifest, PartSummary, Requests,
    SnapshotName, Vault, copied,
};

mod assemble;
mod batch;
mod buffers;
mod call;
mod commit;
mod compare;
mod known;
mod lists;
mod messages;
mod pipeline;
mod plan;
mod room;
mod write;

pub use call::Backup;

use commit::Draft;
use compare::Before;
use known::{Comparison, KnownFiles};
use pipeline::PartToRead;

/// What a backup does besides the common.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct BackupOptions {
    /// The node's name in the vault; the directory's name where `None`.
    pub node: Option<NodeName>,
    /// Tags of the snapshot.
    pub tags: BTreeMap<String, String>,
    /// Marks that the caller claims.
    pub marks: BTreeMap<String, u64>,
    /// Knows the kind of the node, how it is held back, and how its marks are read.
    pub recogniser: Option<Arc<dyn Recogniser>>,
    /// The node's schema version.
    pub schema: Option<u64>,
    /// What is left out, and links that may lead out.
    pub discover: DiscoverOptions,
    /// Hooks, barrier, bounds.
    pub capture: CaptureOptions,
    /// Reads every file, also the unchanged ones.
    pub rehash: bool,
    /// Stores everything anew and builds on no snapshot before: the way on where one is damaged.
    pub full: bool,
    /// Reads no more than so many bytes a second.
    pub rate_max: Option<u64>,
    /// How hard what is stored is compressed.
    pub effort: Effort,
    /// How the node is held back once it is restored or rolled back; `None`: as its backup before
    /// asked for, so that no call forgets it.
    pub guard: Option<GuardKind>,
    /// The node is not held back, whatever an earlier backup or its kind asks for.
    pub unguarded: bool,
    /// This directory goes on as the node of that name, although it carries another uid.
    pub adopt: bool,
}

/// What a backup did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The node's name.
    pub node: NodeName,
    /// Its parts.
    pub parts: Vec<PartSummary>,
    /// Files beside the snapshot before.
    pub changes: Changes,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes read from the node.
    pub bytes_read: u64,
    /// Bytes written to the vault: packs and manifest.
    pub bytes_stored: u64,
    /// The snapshot before.
    pub parent: Option<SnapshotId>,
    /// Its place among the node's snapshots.
    pub seq: Seq,
    /// What kind of instant the databases share.
    pub barrier: Barrier,
    /// How long the node was stopped, held, or a writer of it kept waiting.
    pub pause: Duration,
    /// How long it all took.
    pub duration: Duration,
    /// Marks at the barrier.
    pub marks: BTreeMap<String, Mark>,
    /// The kinds of the node, where they are known.
    pub kinds: Vec<String>,
    /// How it is held back once it is restored.
    pub guard: Option<GuardKind>,
    /// What it lacks that the snapshot before has.
    pub shrunk: Vec<Loss>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Requests to the vault's object store, those since the vault was opened among them; none for one on disk.
    pub requests: Option<Requests>,
}

/// How many files are what they were in the snapshot before; all are new where there is none that was built on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Not in the snapshot before.
    pub new: u64,
    /// With another content.
    pub changed: u64,
    /// With the same content.
    pub unchanged: u64,
    /// Only in the snapshot before.
    pub removed: u64,
}

/// Backs up the node directory `dir` into `vault`.
///
/// # Errors
/// Conflict where a backup of the node runs already, or a part can't be captured as it is; fenced
/// where another writer owns the node; input where the directory is no node directory or the vault
/// lies inside it. Whatever fails before the manifest is put, no snapshot becomes visible; what fails
/// after it leaves one that is whole.
pub fn run(
    vault: &Vault,
    dir: &Path,
    actor: &Actor,
    options: &BackupOptions,
    control: &Control,
) -> Result<BackupReport> {
    let start = control.env.monotonic();
    let layout = engine::discover(dir, &options.discover)?;
    plan::keep_apart(&layout.dir, vault)?;
    crate::guard::hold::refuse_withheld(layout.held())?;
    let node = crate::node::node_name(&layout.dir, options.node.as_ref())?;
    let _span = tracing::info_span!("backup", %node).entered();
    let writer = actor.writer(&control.env)?;
    let _lock = actor.lock_node(vault.id(), &node)?;
    vault.collect_temporary()?;
    vault.collect_leftovers(&node, writer)?;
    let plan::Standing { newest, parent, recorded, lost } = plan::Standing::of(vault, &node)?;
    let known = plan::Known::of(parent.as_ref(), recorded.as_ref());
    let mut identity = plan::identify(vault, layout.held(), &node, known, options.adopt, control)?;
    let mut recognised = options
        .recogniser
        .as_ref()
        .map_or_else(Recognised::default, |recogniser| recogniser.recognise(&layout));
    let asked = options.guard.or(identity.guard).or(recognised.guard);
    identity.guard = asked.filter(|_| !options.unguarded);
    let record = vault.claim(&node, recorded, writer, actor, identity.uid)?;
    let epoch = record.epoch;
    plan::refuse_copy(vault, actor, newest.as_ref(), &record)?;
    let record = plan::record_before(vault, newest.as_ref(), record, writer, control)?;
    let mut warnings = vault.warnings();
    warnings.extend(plan::make_the_node_s(layout.held(), &identity, control)?);
    if lost {
        warnings.extend(vault.node_warnings(&node)?);
    }
    warnings.append(&mut recognised.warnings);
    warnings.extend(layout.notes.iter().cloned());
    let before = Before::of(parent.as_ref(), &record);
    let parent = parent.filter(|_| !options.full);
    let snapshot = SnapshotId::random(&control.env)?;
    control.env.fault(FaultPoint::BackupIntent)?;
    let known = parent.as_ref().map(|parent| parent.snapshot);
    let begun = control.env.now();
    let intent = Intent::of_backup(snapshot, node, identity.uid, known, writer, begun);
    vault.put_intent(&intent)?;
    let base = plan::base(vault, parent, &mut warnings)?;
    Task {
        vault,
        actor,
        layout: &layout,
        recognised,
        intent,
        identity,
        seq: plan::next_seq(newest.as_ref(), &record),
        newest,
        recorded: record.newest.map(|(recorded, _)| recorded),
        base,
        before,
        epoch,
        options,
        control,
        start,
    }
    .carry_out(warnings)
}

/// A backup whose intent stands.
struct Task<'a> {
    vault: &'a Vault,
    actor: &'a Actor,
    layout: &'a Layout,
    recognised: Recognised,
    intent: Intent,
    identity: NodeFile,
    /// The node's newest snapshot, whether its units are used or not, forgotten or not.
    newest: Option<SnapshotName>,
    /// The newest one that the node's record tells of; a prune may have deleted it since.
    recorded: Option<SnapshotId>,
    seq: Seq,
    /// The snapshot whose units are used.
    base: Option<Manifest>,
    before: Before,
    epoch: Epoch,
    options: &'a BackupOptions,
    control: &'a Control,
    /// On the monotonic clock.
    start: Duration,
}

/// A snapshot that is stored, and not yet committed.
struct Made {
    manifest: Manifest,
    /// The size of the manifest's object, once it is put.
    manifest_bytes: u64,
    pause: Duration,
    /// What became of the files of the snapshot before.
    comparison: Comparison,
    warnings: Vec<String>,
}

impl Task<'_> {
    /// Captures, commits, reports; gives up what was stored where that fails.
    fn carry_out(mut self, mut warnings: Vec<String>) -> Result<BackupReport> {
        let mut tried = false;
        let made = self.capture().and_then(|mut made| {
            made.manifest_bytes = self.commit(&mut made.manifest, &mut tried)?;
            Ok(made)
        });
        match made {
            Ok(made) => {
                warnings.extend(made.warnings.iter().cloned());
                let duration = self.control.env.monotonic() - self.start;
                let report = BackupReport {
                    requests: self.vault.requests(),
                    ..Made { warnings, ..made }.report(duration)
                };
                report.log();
                Ok(report)
            }
            // What can't be removed now is collected by the next backup, which finds it by the
            // intent.
            Err(error) => Err(match self.discard(tried) {
                Ok(()) => error,
                Err(_) if error.hint().is_none() => {
                    error.with_remedy("what was stored already is collected by the next backup")
                }
                Err(_) => error,
            }),
        }
    }

    /// Captures the node and stores what the parent does not have.
    fn capture(&mut self) -> Result<Made> {
        let mut options = self.options.capture.clone();
        options.stores.extend(self.recognised.stores.iter().cloned());
        if let Some(freeze) = &mut options.freeze {
            freeze.cancel = self.control.cancel.clone();
        }
        let mut captured = tracing::debug_span!("capture")
            .in_scope(|| engine::capture(self.layout, &options, &self.control.env))?;
        tracing::debug_span!("marks").in_scope(|| self.read_marks(&mut captured));
        let mut known = KnownFiles::take(self.base.as_mut());
        let mut unchanged = Vec::new();
        let mut bytes_total = 0;
        let mut to_read = Vec::with_capacity(captured.parts.len());
        for (part, capture) in captured.parts.iter().enumerate() {
            let mut files = Vec::new();
            for (entry, source) in capture.entries().iter().enumerate() {
                // A plain file that is empty may have been caught while it was written anew.
                let moves =
                    capture.consistency() == Consistency::Files && source.identity.is_none();
                if source.kind != EntryType::File || (source.size == 0 && !moves) {
                    continue;
                }
                match known.leaves(source, |old| self.unchanged(source, old)) {
                    Some(leaves) => unchanged.push(((part, entry), leaves)),
                    None => {
                        bytes_total += source.size;
                        files.push((entry, known.changed(source).map(Box::new)));
                    }
                }
            }
            to_read.push(files);
        }
        let comparison = known.finish();
        let draft = Draft::of(self, &captured, unchanged)?;
        let captured = captured.parts.into_iter().zip(to_read).enumerate();
        let mut parts: Vec<PartToRead> =
            captured.map(|(part, (capture, files))| PartToRead { part, capture, files }).collect();
        // A SQLite in rollback-journal mode keeps its writers waiting until it is read; plain files
        // can vanish until they are; the others are locked, or a checkpoint of their own.
        parts.sort_by_key(|part| match part.capture.consistency() {
            Consistency::Sqlite => 0,
            Consistency::Files => 1,
            _ => 2,
        });
        self.control.report(Event::Stage { name: "capture", bytes_total });
        // Not before, nor where it still holds the node up: who waits for us is not helped by our waiting.
        let mut control = self.control.clone();
        if parts.iter().any(|part| part.capture.holds_up()) {
            control.priority = Priority::Normal;
        }
        let stored = control.work(|| {
            pipeline::run(
                self.vault,
                self.intent.snapshot,
                self.base.as_ref(),
                parts,
                self.options,
                &control,
            )
        })?;
        let packs = stored.packs.len() as u32;
        let mut made = draft.complete(self, stored, comparison)?;
        lists::put(self, &mut made.manifest, packs)?;
        Ok(self.before.settle(self, made))
    }

    /// Reads the marks of a node of a known kind; what can't be read is told.
    fn read_marks(&self, captured: &mut Captured) {
        let Some(reader) = &self.recognised.marks else { return };
        let (marks, errors) = reader.read(&mut CapturedFiles::of(self.layout, &mut captured.parts));
        for (name, value) in marks {
            // What the node or its operator says of a mark goes before what was read.
            if !self.options.marks.contains_key(&name) {
                captured.marks.entry(name).or_insert(value);
            }
        }
        captured.warnings.extend(errors.iter().map(|error| {
            let why = error.summary();
            format!("marks of the node could not be read, and are not recorded: {why}")
        }));
    }

    /// Whether a file is what the parent has, where this directory is still the one that the parent saw: a restore
    /// since then may have put other content behind the same names, sizes and times.
    fn unchanged(&self, source: &SourceEntry, old: &EntryRecord) -> bool {
        let same_directory =
            self.base.as_ref().is_some_and(|base| base.restore == self.identity.restore);
        !self.options.rehash
            && same_directory
            && source.identity.is_some()
            && old.identity == source.identity
            && old.size == source.size
            && old.units == source.units
    }

    /// `tried` becomes true before the manifest is put: from then on it may be visible, whatever is
    /// answered. Tells the size of the manifest.
    fn commit(&self, manifest: &mut Manifest, tried: &mut bool) -> Result<u64> {
        self.control.report(Event::Stage { name: "commit", bytes_total: 0 });
        self.control.cancel.check()?;
        let Intent { snapshot, node, writer, .. } = &self.intent;
        let (names, record) = self.vault.standing_with_record(node)?;
        self.vault.refuse_deposed(node, record.as_ref(), self.epoch, *writer)?;
        // Where a prune has deleted the newest one meanwhile, an older one is the newest.
        let place = |name: &SnapshotName| (name.epoch, name.seq);
        if names.last().map(place) > self.newest.as_ref().map(place) {
            return Err(copied(node));
        }
        let late = self.control.env.monotonic().saturating_sub(self.start) > BACKUP_TIME_MAX;
        if late || !self.vault.intent_stands(*snapshot)? {
            return Err(given_up());
        }
        if let Some(missing) = self.vault.missing_pack(manifest)? {
            return Err(Error::conflict("a pack that was just stored, or built on, is gone")
                .with_entry(missing)
                .with_remedy("back up again"));
        }
        let known = self.newest.iter().map(|newest| newest.snapshot);
        let known: Vec<SnapshotId> = known.chain(self.recorded).chain([*snapshot]).collect();
        self.actor.remember(self.vault.id(), node, &known, Known::Tried)?;
        self.control.env.fault(FaultPoint::BackupManifest)?;
        *tried = true;
        let manifest_bytes = self.vault.put_manifest(manifest)?;
        // A machine that was suspended since it looked for its intent may have been taken for dead: a
        // prune that had not seen the manifest has deleted packs of it then.
        self.control.env.fault(FaultPoint::BackupSecondLook)?;
        let kept = self.vault.intent_stands(*snapshot)? && self.base_stands()?;
        if !kept && !self.vault.stays_without_intent(manifest, &self.actor.name)? {
            return Err(given_up());
        }
        // From here on the snapshot is visible: what fails now does not undo it.
        self.control.env.fault(FaultPoint::BackupNodeRecord)?;
        self.vault.record_snapshot(manifest, *writer)?;
        // From now on a vault that has an older one as its newest was set back.
        self.actor.remember(self.vault.id(), node, &[*snapshot], Known::Committed)?;
        self.control.env.fault(FaultPoint::BackupIntentDelete)?;
        self.vault.delete_intent(*snapshot)?;
        Ok(manifest_bytes)
    }

    /// Whether the very manifest that this one builds on is there: one that its own backup, or a rewriting, has taken
    /// back was kept by no intent.
    fn base_stands(&self) -> Result<bool> {
        let Some(base) = &self.base else { return Ok(true) };
        Ok(self.vault.store().size(&SnapshotName::of(base).object())?.is_some())
    }

    /// Removes what was stored. Once a manifest was tried it may be visible, or become so late, and
    /// others may have built on it: then the packs are left to a prune. What a directory has refused does
    /// not come late.
    fn discard(&self, tried: bool) -> Result<()> {
        let Intent { snapshot, node, .. } = &self.intent;
        let local = matches!(self.vault.location(), Location::Local(_));
        if tried && (!local || self.vault.is_committed(node, *snapshot)?) {
            return self.vault.delete_intent(*snapshot);
        }
        self.vault.discard(*snapshot)
    }
}

fn given_up() -> Error {
    Error::conflict("the backup took too long, and its packs were taken for abandoned")
        .with_remedy("back up again")
}

impl BackupReport {
    fn log(&self) {
        tracing::info!(
            snapshot = %self.snapshot,
            seq = self.seq.0,
            bytes_total = self.bytes_total,
            bytes_read = self.bytes_read,
            bytes_stored = self.bytes_stored,
            pause_ms = self.pause.as_millis() as u64,
            duration_ms = self.duration.as_millis() as u64,
            warnings = self.warnings.len(),
            "committed"
        );
    }
}

impl Made {
    fn report(self, duration: Duration) -> BackupReport {
        let Made { manifest, manifest_bytes, pause, comparison, warnings } = self;
        BackupReport {
            changes: comparison.changes(&manifest),
            snapshot: manifest.snapshot,
            parts: manifest.parts.iter().map(PartSummary::of).collect(),
            bytes_total: manifest.bytes_total(),
            bytes_read: manifest.bytes_read,
            bytes_stored: manifest.bytes_stored + manifest_bytes,
            parent: manifest.parent,
            seq: manifest.seq,
            barrier: manifest.barrier,
            guard: manifest.guard_kind(),
            kinds: manifest.kinds,
            shrunk: manifest.shrunk,
            pause,
            duration,
            node: manifest.node,
            marks: manifest.marks,
            warnings,
            requests: None,
        }
    }
}
