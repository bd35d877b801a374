//! A node directory from its two streams: the keys from a server, write by write, and the files from a
//! snapshot of the same history; in one exchange.
//!
//! The store on the server is taken over first, so that what is hydrated stays the newest. Then the
//! snapshot is chosen whose recorded point is the highest that the server has reached, and restored with
//! the hydrated store in the place of its own. What is not of one instant is reported.

mod choose;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use highwater::env::FaultPoint;
use highwater::guard::{self, Released};
use highwater::ids::{NodeName, RelPath, RestoreId};
use highwater::restore::hydrated::{self, HydratedState, Waiting};
use highwater::restore::{self, HydratedStore, Outcome, Pair};
use highwater::vault::Vault;
use highwater::{Control, Event};
use highwater::{Error, Kind, Remedy, Result};

use super::filled::{self, FillOptions};
use super::head::HeadState;
use super::inspect::{Holder, holder, remembers};
use super::keys::ReplicaKeys;
use super::local::SqliteStore;
use super::owner::Permissions;
use super::remote::Remote;
use choose::{choose, choose_or_alone};

/// What is brought together, and how.
#[derive(Clone, Debug, Default)]
pub struct ReuniteOptions {
    /// Snapshots of this node alone.
    pub node: Option<NodeName>,
    /// This snapshot, by its id, a prefix or `latest`; else the one that fits best.
    pub snapshot: Option<String>,
    /// Who this is, for people who ask who owns a store.
    pub who: String,
    /// What becoming the owner may do. `accept_inconsistent` also takes files that have seen more than
    /// the server has.
    pub permissions: Permissions,
    /// A target that holds something is exchanged, and kept for `rollback`.
    pub force: bool,
    /// Owner and group of all that is restored, instead of the recorded ones.
    pub owner: Option<(u32, u32)>,
    /// Channels that loading may close are accepted.
    pub accept_closing_channels: bool,
    /// Where no snapshot fits: a directory with this database alone.
    pub keys_only: Option<RelPath>,
    /// A statement that no other copy of the node runs or ever will.
    pub original_gone: Option<Released>,
}

/// What was brought together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReuniteReport {
    /// The node directory.
    pub target: PathBuf,
    /// What matched; `None` if only the keys came back.
    pub pair: Option<Pair>,
    /// Values of the store.
    pub values: u64,
    /// The last write of the store.
    pub seq: u64,
    /// The number of the ownership that began.
    pub epoch: u64,
    /// Bytes of the snapshot's files.
    pub bytes: u64,
    /// How long it all took.
    pub duration: Duration,
    /// Where the old directory is kept.
    pub kept: Option<PathBuf>,
    /// How much is quarantined, counted as by a restore.
    pub quarantined: u64,
    /// It had been interrupted behind its exchange, and was only finished.
    pub finished: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// The source of both streams.
#[derive(Clone, Copy)]
pub struct Streams<'a> {
    /// The files.
    pub vault: &'a Vault,
    /// The keys of the store.
    pub keys: &'a ReplicaKeys,
    /// The server that has it.
    pub remote: &'a Arc<dyn Remote>,
}

/// Makes the node directory `target` from both streams. After a crash at any point it is the old one or
/// the new one, or `recover` makes it one of them; the same call, repeated, continues.
///
/// # Errors
/// Not found where the server has nothing, or no snapshot fits; corrupt where the server's values are not
/// one instant, or the files have seen writes that it lacks; quarantined where loading would close
/// channels; fenced where another owner has the store; conflict where the target holds something, is in
/// use, or another restore of it runs; and as [`restore::run`].
pub fn run(
    streams: Streams<'_>,
    target: &Path,
    options: &ReuniteOptions,
    control: &Control,
) -> Result<ReuniteReport> {
    let start = control.env.monotonic();
    if let Some(report) = finish(target, start, control)? {
        return Ok(report);
    }
    restore::refuse_interrupted(target)?;
    hydrated::refuse_users(target)?;
    let held = held(streams, options)?;
    // All that can be refused is, before anything is taken on the server.
    let Some(choice) = choose_or_alone(streams, &held, options)? else {
        return alone(streams, target, options, start, control);
    };
    choice.plan(streams.vault, target, options, None)?;
    let waiting = Waiting::open(target)?;
    let taken = take(streams, waiting, options, control)?;
    control.env.fault(FaultPoint::PairHydrated)?;
    let held = self::held(streams, options)?;
    let choice = choose(streams, &held, options)?;
    let pair = choice.pair(&taken);
    let restore = RestoreId::random(&control.env)?;
    taken.waiting.set_state(&HydratedState::new(restore, pair.clone()))?;
    let hydrated =
        HydratedStore { part: choice.part.clone(), database: taken.waiting.database(), restore };
    let (plan, by) = choice.plan(streams.vault, target, options, Some(hydrated))?;
    let report = restore::run(streams.vault, &plan, &by, control)?;
    let mut warnings = plan.warnings;
    warnings.extend(report.warnings);
    warnings.extend(told(&pair));
    Ok(ReuniteReport {
        target: report.target,
        values: pair.values,
        seq: pair.keys_seq,
        epoch: pair.epoch,
        pair: Some(pair),
        bytes: report.bytes,
        duration: control.env.monotonic() - start,
        kept: report.kept,
        quarantined: report.quarantined,
        finished: false,
        warnings,
    })
}

/// What the operator should know of a pair that is not one instant; nothing where it is.
fn told(pair: &Pair) -> Vec<String> {
    let mut told = Vec::new();
    if pair.writes_between > 0 {
        told.push(format!(
            "the files are {} writes older than the keys: they have seen write {}, the keys are of \
             write {}",
            pair.writes_between, pair.files_seq, pair.keys_seq
        ));
    }
    if pair.writes_lost > 0 {
        told.push(format!(
            "the files have seen {} writes that the server never had",
            pair.writes_lost
        ));
    }
    if !pair.parts_apart.is_empty() {
        told.push(format!(
            "the snapshot has no instant in common for the store and these parts: {}",
            pair.parts_apart.join(", ")
        ));
    }
    told
}

/// Finishes one that was interrupted behind its exchange; none where there is nothing to finish.
fn finish(target: &Path, start: Duration, control: &Control) -> Result<Option<ReuniteReport>> {
    let Some(state) = hydrated::waiting(target)? else { return Ok(None) };
    let outcome = restore::recover(target, control)?;
    // What was finished may be another restore.
    if outcome != Outcome::New || !hydrated::is_made(target, &state)? {
        return Ok(None);
    }
    let pair = state.pair().clone();
    let target = target.canonicalize().map_err(|error| Error::io("the node directory", error))?;
    let standing = guard::standing(&target)?;
    Ok(Some(ReuniteReport {
        values: pair.values,
        seq: pair.keys_seq,
        epoch: pair.epoch,
        bytes: 0,
        duration: control.env.monotonic() - start,
        kept: None,
        quarantined: standing.map_or(0, |standing| standing.quarantined()),
        finished: true,
        warnings: told(&pair),
        pair: Some(pair),
        target,
    }))
}

/// Who has the store, which must be whole.
fn held(streams: Streams<'_>, options: &ReuniteOptions) -> Result<Holder> {
    let held = holder(&**streams.remote, streams.keys)?.ok_or_else(|| {
        Error::not_found("the server has nothing for these keys")
            .with_remedy("look whether mnemonic, store and server are the right ones")
    })?;
    if held.state == HeadState::Filling && !options.permissions.accept_inconsistent {
        return Err(Error::corrupt("its owner had not filled the store on the server yet")
            .with_remedy("look for a backup")
            .with_remedy(Remedy::AcceptInconsistent));
    }
    Ok(held)
}

/// A store that is ours, hydrated.
struct Taken {
    waiting: Waiting,
    values: u64,
    seq: u64,
    epoch: u64,
}

/// Becomes the owner, and hydrates.
fn take(
    streams: Streams<'_>,
    waiting: Waiting,
    options: &ReuniteOptions,
    control: &Control,
) -> Result<Taken> {
    control.report(Event::Stage { name: "hydrate", bytes_total: 0 });
    control.cancel.check()?;
    let database = waiting.database();
    let before = database.exists();
    let fill = || {
        let options = FillOptions {
            owner: options.who.clone(),
            permissions: Permissions { allow_empty: false, ..options.permissions.clone() },
            accept_closing_channels: options.accept_closing_channels,
        };
        filled::fill(&database, streams.remote, streams.keys, &options, &control.env)
    };
    let filled = match fill() {
        // Nobody has written to what waited, so that nothing is lost with it.
        Err(error) if error.kind() == Kind::Fenced && before => {
            SqliteStore::remove(&database)?;
            fill()
        }
        filled => filled,
    };
    let status = match filled {
        Ok(filled) => filled.status,
        Err(error) => {
            // The memory of what was taken stays, and the next call takes it up.
            if !remembers(Arc::new(SqliteStore::open(&database)?))? {
                waiting.remove()?;
            }
            return Err(error);
        }
    };
    Ok(Taken { waiting, values: status.values, seq: status.acknowledged, epoch: status.epoch })
}

/// Keys without files: a directory with the one database.
fn alone(
    streams: Streams<'_>,
    target: &Path,
    options: &ReuniteOptions,
    start: Duration,
    control: &Control,
) -> Result<ReuniteReport> {
    let name =
        options.keys_only.as_ref().ok_or_else(|| Error::bug("nobody asked for keys alone"))?;
    refuse_guarded(streams.vault, options)?;
    hydrated::refuse_occupied(target)?;
    let waiting = Waiting::open(target)?;
    let taken = take(streams, waiting, options, control)?;
    control.env.fault(FaultPoint::PairHydrated)?;
    let target = taken.waiting.target().to_path_buf();
    taken.waiting.make_target()?;
    SqliteStore::move_to(&taken.waiting.database(), &name.under(&target))?;
    taken.waiting.remove()?;
    let alone = "these are the keys alone: no snapshot fits, and what the node keeps beside the store \
                 is missing";
    Ok(ReuniteReport {
        target,
        pair: None,
        values: taken.values,
        seq: taken.seq,
        epoch: taken.epoch,
        bytes: 0,
        duration: control.env.monotonic() - start,
        kept: None,
        quarantined: 0,
        finished: false,
        warnings: vec![alone.to_owned()],
    })
}

/// A node whose backups ask for quarantine is not made without: nothing but a snapshot says how.
fn refuse_guarded(vault: &Vault, options: &ReuniteOptions) -> Result<()> {
    // Also what was forgotten says so.
    match vault.guarded(options.node.as_ref())? {
        Some(node) => Err(Error::new(
            Kind::Quarantined,
            format!("{node} is guarded, and keys alone can't be held back"),
        )
        .with_remedy(Remedy::NameNode(None))
        .with_remedy("restore the database to a file, and judge")),
        None => Ok(()),
    }
}
