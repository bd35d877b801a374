//! An agent: backs a node up by schedule, on request and after changes, and tests what it stored.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use highwater::agent as library;
use highwater::agent::OptionsHook;
use highwater::backup::BackupOptions as LibraryOptions;
use highwater_replica::agent::OwnReplica;

use crate::actor::Actor;
use crate::backup::{self, BackupOptions};
use crate::error::{Error, Kind, Problem, Result};
use crate::own;
use crate::replica::ReplicatedStore;
use crate::same::same;
use crate::vault::{Level, Vault, time};
use crate::wait::wait;

same! {
    /// What an operation does.
    pub enum Task = library::Task {
        /// Backs the node up.
        Backup,
        /// Looks at the manifests and sizes of the node's snapshots.
        Check,
        /// Opens every byte of the node's snapshots.
        CheckData,
        /// Restores the newest snapshot into a scratch directory, and lets its databases be checked.
        RestoreTest,
    }
}

impl From<Task> for library::Task {
    fn from(task: Task) -> library::Task {
        match task {
            Task::Backup => library::Task::Backup,
            Task::Check => library::Task::Check,
            Task::CheckData => library::Task::CheckData,
            Task::RestoreTest => library::Task::RestoreTest,
        }
    }
}

same! {
    /// What has started an operation.
    pub enum Trigger = library::Trigger {
        /// A caller.
        Manual,
        /// The agent's start.
        Start,
        /// The schedule.
        Schedule,
        /// The node, after a change that must not be lost.
        Event,
        /// A failure before.
        Retry,
    }
}

same! {
    /// Where an operation stands.
    pub enum OperationState = library::OperationState {
        /// It waits for its turn.
        Queued,
        /// It runs.
        Running,
        /// It has done what it was to do.
        Completed,
        /// It has not, and tells why.
        Failed,
        /// It was cancelled; nothing of it is visible.
        Cancelled,
    }
}

same! {
    /// What a server has of a node's store.
    pub enum ReplicaState = library::ReplicaState {
        /// Nothing, and it never had.
        Absent,
        /// Nothing, or less than it has acknowledged.
        Lost,
        /// Not all of it yet.
        Filling,
        /// One instant of it, and an owner that writes on.
        Open,
        /// The same, and its owner has ended in good order.
        Released,
    }
}

/// What an agent does by itself.
#[derive(Clone, Debug, uniffi::Record)]
pub struct AgentRules {
    /// A backup follows so long after the last one began; a second at least.
    #[uniffi(default = None)]
    pub backup_every: Option<Duration>,
    /// Or backups come by this cron expression of five fields, in UTC: `30 3 * * *`. With neither, they come only when
    /// asked for, and after changes.
    #[uniffi(default = None)]
    pub backup_cron: Option<String>,
    /// A backup comes soon after the agent's start.
    #[uniffi(default = true)]
    pub backup_at_start: bool,
    /// How soon that is; ten seconds where nothing is said.
    #[uniffi(default = None)]
    pub first_after: Option<Duration>,
    /// How long after a restore test began the next one comes; none are made where nothing is said.
    #[uniffi(default = None)]
    pub restore_test_every: Option<Duration>,
    /// A backup follows a change once no further one was told for this long; five seconds where nothing is said.
    #[uniffi(default = None)]
    pub debounce: Option<Duration>,
    /// It does not wait longer than this after the first change; a minute where nothing is said.
    #[uniffi(default = None)]
    pub delay_max: Option<Duration>,
    /// A newest snapshot that is older than this is stale; 26 hours where nothing is said.
    #[uniffi(default = None)]
    pub age_max: Option<Duration>,
}

impl AgentRules {
    fn settled(asked: Option<AgentRules>) -> Result<library::Rules> {
        let usual = library::Rules::default();
        let Some(asked) = asked else { return Ok(usual) };
        let backup = match (asked.backup_every, asked.backup_cron) {
            (Some(_), Some(_)) => {
                return Err(highwater::Error::input(
                    "backups come by `backup_every` or by `backup_cron`, not by both",
                )
                .into());
            }
            (Some(every), None) => Some(library::Cadence::Every(every)),
            (None, Some(cron)) => Some(library::Cadence::cron(&cron)?),
            (None, None) => None,
        };
        let first_after = asked.first_after.or(usual.first_after).filter(|_| asked.backup_at_start);
        Ok(library::Rules::default()
            .backup(backup)
            .first_after(first_after)
            .restore_test(asked.restore_test_every)
            .debounce(asked.debounce.unwrap_or(usual.debounce))
            .delay_max(asked.delay_max.unwrap_or(usual.delay_max))
            .age_max(asked.age_max.unwrap_or(usual.age_max)))
    }
}

/// Which snapshots stay once a backup has succeeded; one that fits any of the rules does. Without any rule, all do.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Retention {
    /// So many of the newest.
    #[uniffi(default = 0)]
    pub last: u32,
    /// The newest of each hour, for so many hours that have one.
    #[uniffi(default = 0)]
    pub hourly: u32,
    /// The newest of each day, for so many days that have one.
    #[uniffi(default = 0)]
    pub daily: u32,
    /// The newest of each week, for so many weeks that have one.
    #[uniffi(default = 0)]
    pub weekly: u32,
    /// The newest of each month, for so many months that have one.
    #[uniffi(default = 0)]
    pub monthly: u32,
    /// All that are younger than this, seen from the newest.
    #[uniffi(default = None)]
    pub within: Option<Duration>,
    /// All with one of these tags, of any value where none is given.
    #[uniffi(default)]
    pub tags: HashMap<String, Option<String>>,
}

impl From<Retention> for highwater::vault::retention::Retention {
    fn from(asked: Retention) -> highwater::vault::retention::Retention {
        let Retention { last, hourly, daily, weekly, monthly, within, tags } = asked;
        let tags = tags.into_iter().collect();
        highwater::vault::retention::Retention {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            within,
            tags,
        }
    }
}

/// What an agent does besides the common.
#[derive(Clone, uniffi::Record)]
pub struct AgentOptions {
    /// What it does by itself, and when.
    #[uniffi(default = None)]
    pub rules: Option<AgentRules>,
    /// Which snapshots stay; all of them where nothing is said.
    #[uniffi(default = None)]
    pub retention: Option<Retention>,
    /// How each backup is made, and who makes it. Its hooks must not hold the agent.
    #[uniffi(default = None)]
    pub backup: Option<BackupOptions>,
    /// The node's replicated store: the agent tells how it stands, and flushes it. It keeps the store neither open nor
    /// alive.
    #[uniffi(default = None)]
    pub replica: Option<Arc<ReplicatedStore>>,
    /// Where its history is kept; `.highwater` in the node directory where nothing is said. A restore needs that
    /// directory to itself: stop the agent first, or keep its history elsewhere.
    #[uniffi(default = None)]
    pub data_directory: Option<String>,
    /// Where restore tests work, with room for the node; the data directory where nothing is said.
    #[uniffi(default = None)]
    pub scratch: Option<String>,
    /// Operations work as fast as they can. Else the node goes first.
    #[uniffi(default = false)]
    pub normal_priority: bool,
}

/// One backup, check or restore test.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Operation {
    /// Its handle.
    pub id: String,
    /// What it does.
    pub task: Task,
    /// What has started it.
    pub trigger: Trigger,
    /// Where it stands.
    pub state: OperationState,
    /// What it is doing: a few words; empty before it runs and after it.
    pub stage: String,
    /// Bytes that it has passed over.
    pub bytes_done: u64,
    /// Bytes that it will pass over; 0 where it is not known.
    pub bytes_total: u64,
    /// How much is done, from 0 to 100; none where it can't be told.
    pub percent: Option<u8>,
    /// When it was asked for.
    pub queued_at: SystemTime,
    /// When it began to run.
    pub started_at: Option<SystemTime>,
    /// When it ended.
    pub finished_at: Option<SystemTime>,
    /// Why it failed, or was cancelled.
    pub reason: Option<String>,
    /// The kind of the error that it failed with.
    pub kind: Option<Kind>,
    /// The snapshot that it made or tested.
    pub snapshot: Option<String>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl From<library::Operation> for Operation {
    fn from(operation: library::Operation) -> Operation {
        let percent = operation.percent();
        let kind = operation.kind.as_deref().and_then(highwater::Kind::named);
        Operation {
            id: operation.id.to_string(),
            task: operation.task.into(),
            trigger: operation.trigger.into(),
            state: operation.state.into(),
            stage: operation.stage,
            bytes_done: operation.bytes_done,
            bytes_total: operation.bytes_total,
            percent,
            queued_at: time(operation.queued_at),
            started_at: operation.started_at.map(time),
            finished_at: operation.finished_at.map(time),
            reason: operation.reason,
            kind: kind.map(Kind::from),
            snapshot: operation.snapshot.map(|snapshot| snapshot.to_string()),
            warnings: operation.warnings,
        }
    }
}

/// How a replica stands. What is not known is none, never a zero.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ReplicaStanding {
    /// Whether the server has one whole instant of this store. Not where another owner has taken it.
    pub backup_exists: Option<bool>,
    /// Whether something is still to be sent, or to be decided.
    pub backup_required: Option<bool>,
    /// The number of writes that are durable here and not on the server.
    pub pending_writes: Option<u64>,
    /// Their bytes.
    pub pending_bytes: Option<u64>,
    /// The age of the oldest of them, zero where none waits.
    pub lag: Option<Duration>,
    /// Why writes don't get through, or why it can't be told.
    pub last_error: Option<Problem>,
    /// The number of the ownership under which this store writes.
    pub epoch: Option<u64>,
    /// What the server has.
    pub state: Option<ReplicaState>,
    /// Whether another owner writes: this node must not act any more.
    pub fenced: Option<bool>,
    /// The last write that the server is known to have.
    pub acknowledged: Option<u64>,
    /// The last write of the node.
    pub written: Option<u64>,
}

impl From<library::ReplicaStanding> for ReplicaStanding {
    fn from(standing: library::ReplicaStanding) -> ReplicaStanding {
        ReplicaStanding {
            backup_exists: standing.backup_exists,
            backup_required: standing.backup_required,
            pending_writes: standing.pending_writes,
            pending_bytes: standing.pending_bytes,
            lag: standing.lag,
            last_error: standing.last_error.map(Problem::from),
            epoch: standing.epoch,
            state: standing.state.map(ReplicaState::from),
            fenced: standing.fenced,
            acknowledged: standing.acknowledged,
            written: standing.written,
        }
    }
}

/// A snapshot, as an agent saw it last.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct SeenSnapshot {
    /// Its id.
    pub snapshot: String,
    /// When its instant was.
    pub time: SystemTime,
    /// Its place among the snapshots of the node.
    pub seq: u64,
    /// How far it is known to be good.
    pub level: Level,
    /// Bytes of its files.
    pub bytes_total: u64,
    /// Bytes that were stored for it.
    pub bytes_stored: u64,
}

impl From<&library::Snapshot> for SeenSnapshot {
    fn from(snapshot: &library::Snapshot) -> SeenSnapshot {
        SeenSnapshot {
            snapshot: snapshot.snapshot.to_string(),
            time: time(snapshot.time),
            seq: snapshot.seq.0,
            level: snapshot.level.into(),
            bytes_total: snapshot.bytes_total,
            bytes_stored: snapshot.bytes_stored,
        }
    }
}

/// How a node stands. What it says of snapshots is what the agent saw last in the vault.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct AgentStatus {
    /// The name of the node.
    pub node: String,
    /// The time of this answer.
    pub now: SystemTime,
    /// A restore or rollback of the directory is running, or was interrupted: nothing is backed up.
    pub maintenance: bool,
    /// The node's snapshots, oldest first; none where they were not seen yet.
    pub snapshots: Option<Vec<SeenSnapshot>>,
    /// Whether the newest is too old, or of no known age, or there is none; none where they were not seen yet.
    pub stale: Option<bool>,
    /// How old the newest is.
    pub age: Option<Duration>,
    /// A newest snapshot that is older than this is stale.
    pub age_max: Duration,
    /// Channels and databases in quarantine; none where it can't be told.
    pub quarantined: Option<u64>,
    /// What runs or waits, in order.
    pub active: Vec<Operation>,
    /// The last backup that succeeded or failed.
    pub last_backup: Option<Operation>,
    /// The last restore test that succeeded or failed.
    pub last_restore_test: Option<Operation>,
    /// When a restore test has last succeeded.
    pub restore_tested: Option<SystemTime>,
    /// Backups that have failed in a row.
    pub failures: u32,
    /// When the next backup starts by itself.
    pub next_backup: Option<SystemTime>,
    /// How its replica stands, where it has one.
    pub replica: Option<ReplicaStanding>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl From<library::Status> for AgentStatus {
    fn from(status: library::Status) -> AgentStatus {
        let stale = status.is_stale();
        let age = status.age_seconds(highwater::vault::Level::Sealed).map(Duration::from_secs);
        let snapshots = status.snapshots.as_ref();
        AgentStatus {
            node: status.node.to_string(),
            now: time(status.now),
            maintenance: status.maintenance,
            snapshots: snapshots.map(|seen| seen.iter().map(SeenSnapshot::from).collect()),
            stale,
            age,
            age_max: status.age_max,
            quarantined: status.quarantined,
            active: status.active.into_iter().map(Operation::from).collect(),
            last_backup: status.last_backup.map(Operation::from),
            last_restore_test: status.last_restore_test.map(Operation::from),
            restore_tested: status.restore_tested.map(time),
            failures: status.failures,
            next_backup: status.next_backup.map(time),
            replica: status.replica.map(ReplicaStanding::from),
            warnings: status.warnings,
        }
    }
}

/// An agent of one node, which runs in another process, or in this one without a database that this process has open.
/// It works on a thread of its own, one operation at a time. Whatever fails, fails an operation and shows in the
/// status.
///
/// An object that is dropped stops.
#[derive(uniffi::Object)]
pub struct Agent {
    inner: library::Agent,
}

#[uniffi::export]
impl Agent {
    /// Starts an agent of the node in `directory`. The vault is opened again when it is needed.
    ///
    /// # Errors
    /// Not found where there is no such directory; conflict where another agent works with the data directory; input
    /// where a period is below a second, or a directory of the agent's lies in the node's.
    #[uniffi::constructor(default(options = None))]
    pub fn start(
        vault: Arc<Vault>,
        directory: String,
        options: Option<AgentOptions>,
    ) -> Result<Arc<Agent>> {
        let (rules, retention, asked, replica, data_directory, scratch, normal) = match options {
            Some(asked) => (
                asked.rules,
                asked.retention,
                asked.backup,
                asked.replica,
                asked.data_directory,
                asked.scratch,
                asked.normal_priority,
            ),
            None => (None, None, None, None, None, None, false),
        };
        let (backup, actor) = backup::settled_or_usual(asked)?;
        let node = backup.node.clone();
        let actor = Actor::or_standard(actor)?;
        let rules = AgentRules::settled(rules)?;
        let looks = looking(&directory, backup);
        let mut builder = library::Agent::builder(&directory, vault.source(), actor)
            .rules(rules)
            .retention(retention.map(Into::into).unwrap_or_default())
            .options_from(move || looks());
        if let Some(node) = node {
            builder = builder.node(node);
        }
        if let Some(data_directory) = data_directory {
            builder = builder.data_dir(data_directory);
        }
        if let Some(scratch) = scratch {
            builder = builder.scratch(scratch);
        }
        if normal {
            builder = builder.priority(library::Priority::Normal);
        }
        if let Some(replica) = replica {
            builder = builder.replica(OwnReplica::of(replica.inner()));
        }
        Ok(Arc::new(Agent { inner: builder.start()? }))
    }

    /// The name of the node.
    pub fn node(&self) -> String {
        self.inner.node().to_string()
    }

    /// Begins a task as soon as what runs has ended.
    ///
    /// # Errors
    /// Conflict where the same task waits or runs already, or the agent stops.
    pub fn begin(&self, task: Task) -> Result<Operation> {
        Ok(self.inner.begin(task.into())?.into())
    }

    /// The node has changed in a way that must not be lost: a backup is made soon. Returns at once.
    pub fn changed(&self) {
        self.inner.changed();
    }

    /// An operation, as it stands.
    ///
    /// # Errors
    /// Not found where the agent knows none of this handle; input where it is none.
    pub fn operation(&self, id: String) -> Result<Operation> {
        Ok(self.inner.operation(id.parse().map_err(Error::from)?)?.into())
    }

    /// The newest operations, newest first, of earlier agents of this data directory too; at most `limit`.
    #[uniffi::method(default(limit = 100))]
    pub fn operations(&self, limit: u32) -> Result<Vec<Operation>> {
        Ok(self.inner.operations(limit)?.into_iter().map(Operation::from).collect())
    }

    /// Asks an operation to stop, and returns it as it stands: it may still be running then.
    ///
    /// # Errors
    /// As `operation`.
    pub fn cancel(&self, id: String) -> Result<Operation> {
        Ok(self.inner.cancel(id.parse().map_err(Error::from)?)?.into())
    }

    /// Waits until an operation has ended, for `timeout` at most, and returns it as it stands then.
    ///
    /// # Errors
    /// As `operation`.
    #[uniffi::method(default(timeout = None))]
    pub fn wait(&self, id: String, timeout: Option<Duration>) -> Result<Operation> {
        let id = id.parse().map_err(Error::from)?;
        let operation = match timeout {
            Some(timeout) => self.inner.wait_for(id, timeout)?,
            None => self.inner.wait(id)?,
        };
        Ok(operation.into())
    }

    /// Waits until an operation changes: its state, or its progress, some ten times a second. Returns a number that
    /// rises with each change, as soon as it is above `seen`, and the same number as before once `timeout` has passed.
    pub fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64 {
        let mut changes = self.inner.changes();
        let above = async {
            // An agent that ends changes no more; the number stays.
            changes.wait_for(|now| *now > seen).await.map_or(seen, |now| *now)
        };
        wait(above, Some(timeout)).unwrap_or(seen)
    }

    /// How the node stands.
    pub fn status(&self) -> AgentStatus {
        self.inner.status().into()
    }

    /// Returns once the server has all that the node's replicated store held before, and how it stands then.
    ///
    /// # Errors
    /// Not found where the node has none; fenced where another owner writes; unavailable once `timeout` has passed, and
    /// the sending goes on behind.
    pub fn flush_replica(&self, timeout: Duration) -> Result<ReplicaStanding> {
        Ok(self.inner.flush_replica(timeout)?.into())
    }

    /// Goes on under other rules and another policy; what runs is not disturbed.
    ///
    /// # Errors
    /// Input where a period is below a second; nothing is changed then.
    #[uniffi::method(default(retention = None))]
    pub fn set_rules(&self, rules: AgentRules, retention: Option<Retention>) -> Result<()> {
        let rules = AgentRules::settled(Some(rules))?;
        Ok(self.inner.set_rules(rules, retention.map(Into::into).unwrap_or_default())?)
    }

    /// Cancels what runs, and waits until it has ended: hooks are not called after that, and nothing can be begun.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

/// The options of each backup, which is refused where this process has a database of the node open.
fn looking(directory: &str, options: LibraryOptions) -> OptionsHook {
    let directory = Path::new(directory).to_owned();
    Arc::new(move || {
        own::refuse_open_sqlite(&directory, &options.discover)?;
        Ok(options.clone())
    })
}
