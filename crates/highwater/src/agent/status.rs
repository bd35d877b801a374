//! How a node stands, for operators.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Kind};
use crate::ids::{NodeName, Time};
use crate::vault::Level;
use crate::vault::shrink;
use crate::{guard, restore};

use super::active::Active;
use super::operation::Operation;
use super::replica::ReplicaStanding;
use super::snapshot::Snapshot;
use super::worker::Worker;

/// How a node stands.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The node.
    pub node: NodeName,
    /// Its directory.
    pub dir: PathBuf,
    /// The vault.
    pub location: String,
    /// The time of this answer.
    pub now: Time,
    /// A restore or rollback of the directory is running, or was interrupted: nothing is backed up.
    pub maintenance: bool,
    /// The node's snapshots, oldest first, as they were seen last; `None`: not seen yet.
    pub snapshots: Option<Vec<Snapshot>>,
    /// When they were seen.
    pub seen: Option<Time>,
    /// Channels and databases in quarantine; `None` where it can't be told.
    pub quarantined: Option<u64>,
    /// What runs or waits, in order.
    pub active: Vec<Operation>,
    /// The last backup that succeeded or failed.
    pub last_backup: Option<Operation>,
    /// The last restore test that succeeded or failed.
    pub last_restore_test: Option<Operation>,
    /// When a restore test has last succeeded.
    pub restore_tested: Option<Time>,
    /// Backups that have failed in a row.
    pub failures: u32,
    /// A newest snapshot that is older than this is stale; whole seconds in documents.
    #[serde(rename = "age_max_seconds", serialize_with = "seconds")]
    pub age_max: Duration,
    /// When the next backup starts by itself.
    pub next_backup: Option<Time>,
    /// How its replica stands, where it has one.
    pub replica: Option<ReplicaStanding>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

impl Status {
    /// The newest snapshot that is known to be as good as `level`, or better.
    pub fn newest(&self, level: Level) -> Option<&Snapshot> {
        self.snapshots.iter().flatten().rev().find(|snapshot| snapshot.level >= level)
    }

    /// How old that is, in seconds; `None` also where it lies in the future, so that nobody can tell.
    pub fn age_seconds(&self, level: Level) -> Option<u64> {
        let newest = self.newest(level).filter(|newest| !newest.time.is_ahead_of(self.now))?;
        Some(self.now.seconds_since(newest.time))
    }

    /// Whether the newest snapshot is too old, or of no known age, or there is none; `None`: they were
    /// not seen yet.
    pub fn is_stale(&self) -> Option<bool> {
        self.snapshots.as_ref()?;
        let age = self.age_seconds(Level::Sealed);
        Some(age.is_none_or(|age| age > self.age_max.as_secs()))
    }

    /// That the newest snapshot lies in the future, if it does, as one sentence.
    pub fn future(&self) -> Option<String> {
        let newest =
            self.newest(Level::Sealed).filter(|newest| newest.time.is_ahead_of(self.now))?;
        Some(format!(
            "the newest snapshot is dated in the future, {}: a clock was wrong then, or is wrong now",
            newest.time
        ))
    }

    /// What the newest snapshot lacks that an earlier one has, and nobody has acknowledged, as one
    /// sentence.
    pub fn shrunk(&self) -> Option<String> {
        let newest = self.newest(Level::Sealed)?;
        shrink::sentence(&newest.node, newest.snapshot, &newest.shrunk)
    }

    /// Adds what the snapshots tell to the warnings.
    fn with_snapshots_told(mut self) -> Status {
        let told = [self.future(), self.shrunk()];
        self.warnings.extend(told.into_iter().flatten());
        self
    }
}

impl Worker {
    /// How the node stands: from memory, two small files of its directory, and its replicated store.
    pub(super) fn status(&self) -> Status {
        let now = self.now();
        let mut warnings = Vec::new();
        let standing = guard::standing(&self.dir);
        let quarantined = match &standing {
            Ok(held) => Some(held.as_ref().map_or(0, |held| held.quarantined())),
            Err(error) => {
                warnings.push(error.summary());
                None
            }
        };
        let maintenance = match restore::refuse_interrupted(&self.dir) {
            Ok(()) => false,
            Err(error) if error.kind() == Kind::Conflict => true,
            Err(error) => {
                warnings.push(error.summary());
                false
            }
        };
        warnings.extend(self.history.warning.clone());
        let replica = self.replica.as_ref().map(|replica| replica.standing(now.wall));
        let shared = self.shared();
        let trouble = &shared.trouble;
        let told = [
            &trouble.thread,
            &trouble.vault,
            &trouble.history,
            &trouble.retention,
            &trouble.scratch,
        ];
        warnings.extend(told.into_iter().flatten().cloned());
        Status {
            node: self.node.clone(),
            dir: self.dir.clone(),
            location: self.vault.location().to_owned(),
            now: now.wall,
            maintenance,
            snapshots: shared.snapshots.clone(),
            seen: shared.seen,
            quarantined,
            active: shared.active.iter().map(Active::now).collect(),
            last_backup: shared.last_backup.clone(),
            last_restore_test: shared.last_restore_test.clone(),
            restore_tested: shared.restore_tested,
            failures: shared.when.failures(),
            age_max: shared.when.age_max(),
            next_backup: shared.when.next_backup(now),
            replica,
            warnings,
        }
        .with_snapshots_told()
    }

    /// Sends what waits of the replica.
    pub(super) fn flush_replica(&self, wait: Duration) -> Result<ReplicaStanding, Error> {
        let replica = self.replica.as_ref().ok_or_else(|| {
            Error::not_found("the node has no replica").with_entry(self.node.to_string())
        })?;
        replica.flush(wait)?;
        Ok(replica.standing(self.now().wall))
    }
}
