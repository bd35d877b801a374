//! Which snapshot the files come from.

use std::path::{Path, PathBuf};

use highwater::ids::{NodeName, RestoreId, SnapshotId, StoreId};
use highwater::records::{Barrier, EngineKind, ReplicaPoint};
use highwater::restore::{self, HydratedStore, Pair, RestoreOptions, RestorePlan};
use highwater::vault::{Level, Manifest, Selector, SnapshotInfo, Vault};
use highwater::{Error, Kind, Remedy, Result};

use super::super::inspect::{Fit, Holder};
use super::{ReuniteOptions, Streams, Taken};

/// A snapshot, and how its store stands to the server's.
pub(super) struct Choice {
    manifest: Manifest,
    pub(super) part: String,
    point: ReplicaPoint,
    fit: Fit,
}

impl Choice {
    /// Of a snapshot that records a point of this store.
    fn of(manifest: Manifest, store: StoreId, held: &Holder) -> Option<Choice> {
        let found = manifest.parts.iter().find_map(|part| {
            let point = part.replica.filter(|point| point.store == store)?;
            Some((part.name.clone(), point))
        });
        let (part, point) = found?;
        Some(Choice { manifest, part, fit: held.fit(&point), point })
    }

    /// The restore of its files, and the options that it is carried out by.
    pub(super) fn plan(
        &self,
        vault: &Vault,
        target: &Path,
        options: &ReuniteOptions,
        hydrated: Option<HydratedStore>,
    ) -> Result<(RestorePlan, RestoreOptions)> {
        // Before the store is taken it is only looked whether the part can be filled at all.
        let hydrated = hydrated.unwrap_or_else(|| HydratedStore {
            part: self.part.clone(),
            database: PathBuf::new(),
            restore: RestoreId::from_bytes([0; 16]),
        });
        let mut chosen = RestoreOptions::default();
        chosen.selector.snapshot = self.manifest.snapshot.to_string();
        chosen.selector.node = Some(self.manifest.node.clone());
        chosen.force = options.force;
        chosen.owner = options.owner;
        chosen.original_gone = options.original_gone.clone();
        chosen.hydrated = Some(hydrated);
        Ok((restore::plan(vault, target, &chosen)?, chosen))
    }

    /// What matches, and what does not.
    pub(super) fn pair(&self, taken: &Taken) -> Pair {
        let (writes_between, writes_lost) = match self.fit {
            Fit::Same => (0, 0),
            Fit::Behind(writes) => (writes, 0),
            Fit::Ahead(writes) => (0, writes),
        };
        let apart = |engine: EngineKind| match engine {
            // Plain files are read one by one, after the barrier.
            EngineKind::FILES => self.manifest.barrier != Barrier::Frozen,
            _ => self.manifest.barrier == Barrier::None,
        };
        let others = self.manifest.parts.iter();
        let others = others.filter(|part| part.name != self.part && part.files() > 0);
        let parts_apart: Vec<_> = others.filter(|part| apart(part.engine)).collect();
        let databases = parts_apart.iter().any(|part| part.engine != EngineKind::FILES);
        Pair {
            snapshot: self.manifest.snapshot,
            part: self.part.clone(),
            matched: self.fit == Fit::Same && !databases,
            files_seq: self.point.seq,
            keys_seq: taken.seq,
            writes_between,
            writes_lost,
            parts_apart: parts_apart.iter().map(|part| part.name.clone()).collect(),
            values: taken.values,
            epoch: taken.epoch,
        }
    }
}

/// The snapshot whose files are restored; none where there is no fit and the keys come back alone.
pub(super) fn choose_or_alone(
    streams: Streams<'_>,
    held: &Holder,
    options: &ReuniteOptions,
) -> Result<Option<Choice>> {
    match choose(streams, held, options) {
        Err(error) if error.kind() == Kind::NotFound && options.keys_only.is_some() => Ok(None),
        chosen => chosen.map(Some),
    }
}

/// The snapshot that was asked for, or the one with the highest point that the server has reached.
pub(super) fn choose(
    streams: Streams<'_>,
    held: &Holder,
    options: &ReuniteOptions,
) -> Result<Choice> {
    let store = streams.keys.store_id();
    if let Some(snapshot) = &options.snapshot {
        let selector = Selector {
            snapshot: snapshot.clone(),
            node: options.node.clone(),
            ..Selector::default()
        };
        let SnapshotInfo { manifest, .. } = streams.vault.resolve(&selector)?;
        let id = manifest.snapshot;
        let choice = Choice::of(manifest, store, held).ok_or_else(|| no_point(id))?;
        return match choice.fit {
            Fit::Ahead(writes) if !options.permissions.accept_inconsistent => {
                Err(ahead(id, writes))
            }
            _ => Ok(choice),
        };
    }
    let mut seen = Seen::default();
    let names = streams.vault.snapshot_names(options.node.as_ref())?;
    let mut done: Option<NodeName> = None;
    for name in names.iter().rev() {
        // Older snapshots of a node stand before the one that fits.
        if done.as_ref() == Some(name.node()) {
            continue;
        }
        let SnapshotInfo { manifest, level, .. } = streams.vault.open_snapshot(name)?;
        let Some(choice) = Choice::of(manifest, store, held) else {
            seen.without += 1;
            continue;
        };
        match choice.fit {
            _ if level == Level::Failed => seen.failed += 1,
            Fit::Ahead(writes) => {
                if seen.ahead.as_ref().is_none_or(|(least, _)| writes < *least) {
                    seen.ahead = Some((writes, choice));
                }
            }
            Fit::Same | Fit::Behind(_) => {
                done = Some(name.node().clone());
                if seen.best.as_ref().is_none_or(|best| best.point.seq < choice.point.seq) {
                    seen.best = Some(choice);
                }
            }
        }
    }
    seen.choice(options)
}

/// What was found among the snapshots.
#[derive(Default)]
struct Seen {
    best: Option<Choice>,
    /// The one that the server lacks the fewest writes of.
    ahead: Option<(u64, Choice)>,
    /// Snapshots without a point of this store.
    without: u64,
    /// Those that failed a restore test.
    failed: u64,
}

impl Seen {
    fn choice(self, options: &ReuniteOptions) -> Result<Choice> {
        if let Some(best) = self.best {
            return Ok(best);
        }
        match self.ahead {
            Some((_, choice)) if options.permissions.accept_inconsistent => return Ok(choice),
            Some((writes, choice)) => {
                return Err(Error::not_found(format!(
                    "no snapshot fits: {} is the nearest, and has seen {writes} writes that the \
                     server never had",
                    choice.manifest.snapshot
                ))
                .with_remedy(Remedy::AcceptInconsistent)
                .with_remedy(Remedy::KeysOnly));
            }
            None => {}
        }
        let Seen { without, failed, .. } = self;
        Err(Error::not_found(format!(
            "no snapshot of the vault fits: {without} record no point of this store, {failed} failed a \
             restore test"
        ))
        .with_remedy(Remedy::KeysOnly).with_remedy(Remedy::Restore))
    }
}

fn no_point(snapshot: SnapshotId) -> Error {
    Error::not_found(format!("snapshot {snapshot} records no point of this store"))
        .with_entry(snapshot.to_string())
        .with_remedy(Remedy::BestSnapshot)
}

fn ahead(snapshot: SnapshotId, writes: u64) -> Error {
    Error::corrupt(format!(
        "the files of snapshot {snapshot} have seen {writes} writes that the server never had"
    ))
    .with_entry(snapshot.to_string())
    .with_remedy(Remedy::BestSnapshot)
    .with_remedy(Remedy::AcceptInconsistent)
}
