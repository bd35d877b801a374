//! The thread of an agent: takes what is due or asked for, one at a time.
//!
//! The state that threads share is never held over input or output, but for that of the clock: so a
//! caller never waits for a running operation, a slow disk or a vault.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;

use crate::control::{Cancel, Control, Priority};
use crate::engine::Engines;
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::ids::{NodeName, Time};
use crate::vault::retention::Retention;
use crate::vault::{Actor, Level};

use super::OptionsHook;
use super::active::Active;
use super::history::History;
use super::operation::{Done, Operation, OperationId, OperationState, Task, Trigger};
use super::replica::ReplicaSource;
use super::seen::Seen;
use super::snapshot::Snapshot;
use super::vaults::VaultSource;
use super::when::{Chore, Now, Rules, When};

/// How many ended operations are kept in memory if the history can't be written; older ones are dropped.
pub(super) const UNWRITTEN_MAX: usize = 1000;
/// How much later than usual a task is tried again, at most, if it got in another agent's way.
const JITTER_MAX: Duration = Duration::from_secs(30);
/// A conflict shows once it has been met so often in a row.
const CONFLICTS: u32 = 4;

/// All that an agent is.
pub(super) struct Worker {
    pub(super) node: NodeName,
    pub(super) dir: PathBuf,
    /// Where restore tests work: a directory that this agent alone makes and removes.
    pub(super) scratch: PathBuf,
    pub(super) engines: Option<Engines>,
    pub(super) vault: VaultSource,
    pub(super) actor: Actor,
    pub(super) options: OptionsHook,
    pub(super) priority: Priority,
    pub(super) replica: Option<Box<dyn ReplicaSource>>,
    pub(super) env: Env,
    pub(super) history: History,
    pub(super) changes: watch::Sender<u64>,
    pub(super) state: Mutex<Shared>,
    pub(super) wake: Condvar,
    /// The snapshots that were opened; held by who looks at the vault.
    pub(super) opened: Mutex<Seen>,
    /// Held by who writes to the history what waits for it.
    pub(super) writing: Mutex<()>,
    pub(super) lock: File,
}

/// What the threads share.
pub(super) struct Shared {
    pub(super) when: When,
    pub(super) retention: Retention,
    /// What waits, and what runs: that is the first one.
    pub(super) active: VecDeque<Active>,
    stopping: bool,
    /// Stops a chore that runs.
    chore: Cancel,
    pub(super) snapshots: Option<Vec<Snapshot>>,
    pub(super) seen: Option<Time>,
    pub(super) last_backup: Option<Operation>,
    pub(super) last_restore_test: Option<Operation>,
    pub(super) restore_tested: Option<Time>,
    /// What is still to be written to the history, in the order in which it was asked for.
    unwritten: Vec<Operation>,
    pub(super) trouble: Trouble,
}

/// What can't be done, and why; each goes as soon as it can.
#[derive(Default)]
pub(super) struct Trouble {
    pub(super) vault: Option<String>,
    pub(super) history: Option<String>,
    pub(super) retention: Option<String>,
    pub(super) scratch: Option<String>,
    /// The agent's thread has ended by a panic.
    pub(super) thread: Option<String>,
}

/// What the thread does next.
enum Next {
    Operation(OperationId),
    Chore(Chore, Cancel),
    Stop,
}

/// Keeps a second agent from working with the same data directory.
pub(super) fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("agent.lock");
    let failed =
        |error| Error::io("opening the agent's lock", error).with_entry(path.display().to_string());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::conflict("another agent runs here")
            .with_entry(data_dir.display().to_string())
            .with_remedy("stop it, or give this one another data directory")),
        Err(error) => Err(failed(error.into())),
    }
}

impl Shared {
    /// From what the history tells. What an earlier process left unfinished ends here.
    ///
    /// # Errors
    /// What reading the history says.
    pub(super) fn new(
        rules: Rules,
        retention: Retention,
        history: &History,
        env: &Env,
    ) -> Result<Shared> {
        rules.refuse_loops()?;
        let now = Now { monotonic: env.monotonic(), wall: env.now() };
        let mut unwritten = history.unfinished()?;
        for operation in &mut unwritten {
            operation.state = OperationState::Failed;
            operation.kind = Some(Kind::Interrupted.name().to_owned());
            operation.reason = Some("the process ended before the operation did".to_owned());
            operation.finished_at = Some(now.wall);
        }
        let interrupted = |task| unwritten.iter().rev().find(|one| one.task == task).cloned();
        let last = |task| Ok(interrupted(task).or(history.last_ended(task)?));
        let success = |task| history.last_success(task);
        let (backup, test) = (success(Task::Backup)?, success(Task::RestoreTest)?);
        let began = |one: &Option<Operation>| one.as_ref().and_then(|one| one.started_at);
        Ok(Shared {
            when: When::new(rules, began(&backup), began(&test), now),
            retention,
            active: VecDeque::new(),
            stopping: false,
            chore: Cancel::default(),
            snapshots: None,
            seen: None,
            last_backup: last(Task::Backup)?,
            last_restore_test: last(Task::RestoreTest)?,
            restore_tested: test.and_then(|test| test.finished_at),
            unwritten,
            trouble: Trouble::default(),
        })
    }

    /// Remembers how an operation ended, and what follows.
    fn note_end(&mut self, operation: Operation, now: Now) {
        let Operation { task, trigger, state, .. } = operation;
        self.when.ended(task, trigger, state, now);
        if state != OperationState::Cancelled {
            match task {
                Task::Backup => self.last_backup = Some(operation.clone()),
                Task::RestoreTest => self.last_restore_test = Some(operation.clone()),
                Task::Check | Task::CheckData => {}
            }
        }
        if (task, state) == (Task::RestoreTest, OperationState::Completed) {
            self.restore_tested = operation.finished_at;
        }
        self.record(operation);
    }

    /// Has an operation written to the history as it stands, by the next [`Worker::write_history`].
    fn record(&mut self, operation: Operation) {
        match self.unwritten.iter_mut().find(|unwritten| unwritten.id == operation.id) {
            Some(unwritten) => *unwritten = operation,
            None => self.unwritten.push(operation),
        }
        let excess = self.unwritten.len().saturating_sub(UNWRITTEN_MAX);
        self.unwritten.drain(..excess);
    }

    /// The operation as this process knows it.
    fn in_memory(&self, id: OperationId) -> Option<Operation> {
        let active = self.active.iter().find(|active| active.operation.id == id);
        let unwritten = || self.unwritten.iter().find(|operation| operation.id == id).cloned();
        active.map(Active::now).or_else(unwritten)
    }
}

impl Worker {
    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.state.lock()
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: self.env.monotonic(), wall: self.env.now() }
    }

    fn tell(&self) {
        self.changes.send_modify(|number| *number += 1);
        self.wake.notify_all();
    }

    pub(super) fn set_rules(&self, rules: Rules, retention: Retention) -> Result<()> {
        rules.refuse_loops()?;
        let now = self.now();
        let mut shared = self.shared();
        shared.retention = retention;
        shared.when.set_rules(rules, now);
        drop(shared);
        self.tell();
        Ok(())
    }

    /// Puts a task at the end of what waits.
    pub(super) fn ask(&self, task: Task, trigger: Trigger) -> Result<Operation> {
        let mut shared = self.shared();
        if shared.stopping {
            return Err(Error::conflict("the agent stops").with_entry(self.node.to_string()));
        }
        let operation = self.enqueue(&mut shared, task, trigger)?;
        drop(shared);
        self.write_history();
        self.tell();
        Ok(operation)
    }

    fn enqueue(&self, shared: &mut Shared, task: Task, trigger: Trigger) -> Result<Operation> {
        if let Some(twin) = shared.active.iter().find(|active| active.operation.task == task) {
            let (id, state) = (twin.operation.id, twin.operation.state.name());
            return Err(Error::conflict(format!(
                "a {} of node {} is {state} already: {id}",
                task.name().replace('_', " "),
                self.node
            ))
            .with_entry(self.node.to_string()));
        }
        let operation = Operation {
            id: OperationId::random(&self.env)?,
            node: self.node.clone(),
            task,
            trigger,
            state: OperationState::Queued,
            stage: String::new(),
            bytes_done: 0,
            bytes_total: 0,
            queued_at: self.env.now(),
            started_at: None,
            finished_at: None,
            reason: None,
            kind: None,
            snapshot: None,
            location: self.vault.location().to_owned(),
            warnings: Vec::new(),
        };
        shared.active.push_back(Active::new(operation.clone()));
        shared.record(operation.clone());
        Ok(operation)
    }

    pub(super) fn changed(&self) {
        let now = self.now();
        self.shared().when.changed(now);
        self.wake.notify_all();
    }

    /// From memory first: what is taken out of it was written before.
    pub(super) fn operation(&self, id: OperationId) -> Result<Operation> {
        let known = self.shared().in_memory(id);
        if let Some(known) = known {
            return Ok(known);
        }
        let found = self.history.get(id)?;
        found.ok_or_else(|| Error::not_found(format!("there is no operation {id}")))
    }

    pub(super) fn operations(&self, max: u32) -> Result<Vec<Operation>> {
        let shared = self.shared();
        let ids = shared.unwritten.iter().map(|operation| operation.id);
        let active = shared.active.iter().map(|active| active.operation.id);
        let mut fresh: Vec<Operation> = Vec::new();
        for id in ids.chain(active) {
            if !fresh.iter().any(|known| known.id == id) {
                fresh.extend(shared.in_memory(id));
            }
        }
        drop(shared);
        let mut operations = self.history.list(max)?;
        for operation in &mut operations {
            let known = fresh.iter().position(|known| known.id == operation.id);
            let Some(known) = known.map(|place| fresh.remove(place)) else { continue };
            // It may have ended between the two looks.
            if !operation.state.is_final() {
                *operation = known;
            }
        }
        // What was never written is younger than all that was.
        for operation in fresh {
            if self.history.get(operation.id)?.is_none() {
                operations.insert(0, operation);
            }
        }
        operations.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(operations)
    }

    pub(super) fn cancel(&self, id: OperationId) -> Result<Operation> {
        let now = self.now();
        let mut shared = self.shared();
        let place = shared.active.iter().position(|active| active.operation.id == id);
        let Some(place) = place else {
            drop(shared);
            return self.operation(id);
        };
        if shared.active[place].operation.state == OperationState::Running {
            shared.active[place].cancel();
            return Ok(shared.active[place].now());
        }
        let Some(active) = shared.active.remove(place) else {
            return Err(Error::bug("an operation has no place in the queue"));
        };
        let mut operation = active.operation;
        operation.end(Err(Error::interrupted()), true, now.wall);
        if operation.trigger != Trigger::Manual {
            // Else it would be due again at once.
            shared.when.began(operation.task, now);
        }
        shared.note_end(operation.clone(), now);
        drop(shared);
        self.write_history();
        self.tell();
        Ok(operation)
    }

    /// Waits until an operation has ended; at most for the given time, if there is one.
    pub(super) fn wait(&self, id: OperationId, max: Option<Duration>) -> Result<Operation> {
        let active =
            |shared: &mut Shared| shared.active.iter().any(|active| active.operation.id == id);
        self.wake.wait_while_for(&mut self.shared(), active, max.unwrap_or(Duration::MAX));
        self.operation(id)
    }

    /// Lets another agent work with the data directory, once the thread has ended: somebody may still hold
    /// this one, to read what it did.
    pub(super) fn unlock(&self) {
        // What can't be unlocked is when the last of them is dropped.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }

    /// Lets the thread end once what runs has ended.
    pub(super) fn stop(&self) {
        let mut shared = self.shared();
        shared.stopping = true;
        shared.active.iter_mut().for_each(Active::cancel);
        shared.chore.cancel();
        drop(shared);
        self.tell();
    }

    /// The whole life of the agent's thread.
    pub(super) fn run(&self) {
        let life = || {
            self.write_history();
            self.collect_scratch();
            self.look_at_vault();
            self.tell();
            loop {
                match self.next() {
                    Next::Operation(id) => self.run_one(id),
                    Next::Chore(chore, cancel) => self.do_chore(chore, cancel),
                    Next::Stop => return,
                }
            }
        };
        // Operations catch their own. What gets here was panicked with by a clock or a recorder of
        // metrics, which are the caller's: nobody must wait for ever for what will not end.
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(life)) {
            let told = super::panic::panicked(panic.as_ref()).to_string();
            // The agent's own clock may be what has panicked.
            let now = Env::system().now();
            let mut shared = self.shared();
            shared.stopping = true;
            shared.trouble.thread = Some(format!("the agent has ended: {told}"));
            while let Some(active) = shared.active.pop_front() {
                let mut operation = active.now();
                operation.end(Err(Error::bug(told.clone())), false, now);
                shared.record(operation);
            }
            drop(shared);
            self.write_history();
            self.tell();
        }
    }

    fn next(&self) -> Next {
        let mut shared = self.shared();
        loop {
            let now = self.now();
            if shared.stopping {
                // What waits has not begun: it ends as it stands.
                while let Some(mut active) = shared.active.pop_front() {
                    active.operation.end(Err(Error::interrupted()), true, now.wall);
                    shared.record(active.operation);
                }
                drop(shared);
                self.write_history();
                self.tell();
                return Next::Stop;
            }
            // In line with what callers ask for, so that neither keeps the other from its turn.
            for (task, trigger) in shared.when.due(now) {
                let waits = shared.active.iter().any(|active| active.operation.task == task);
                if !waits && let Err(error) = self.enqueue(&mut shared, task, trigger) {
                    shared.trouble.vault = Some(error.summary());
                    shared.when.began(task, now);
                    shared.when.ended(task, trigger, OperationState::Failed, now);
                }
            }
            if let Some(first) = shared.active.front() {
                return Next::Operation(first.operation.id);
            }
            if let Some(chore) = shared.when.chore_due(now) {
                shared.chore = Cancel::default();
                return Next::Chore(chore, shared.chore.clone());
            }
            let wait = shared.when.wait(now).max(Duration::from_millis(1));
            self.wake.wait_for(&mut shared, wait);
        }
    }

    fn run_one(&self, id: OperationId) {
        let now = self.now();
        let mut shared = self.shared();
        // It may have been cancelled meanwhile.
        let Some(active) = shared.active.front_mut().filter(|active| active.operation.id == id)
        else {
            return;
        };
        active.operation.state = OperationState::Running;
        active.operation.started_at = Some(now.wall);
        let (task, operation) = (active.operation.task, active.operation.clone());
        let mut control = active.control(&self.env, &self.changes);
        control.priority = self.priority;
        shared.when.began(task, now);
        shared.record(operation);
        drop(shared);
        self.write_history();
        self.tell();
        metrics::gauge!("highwater_operations_running").increment(1.0);
        let span = tracing::info_span!("operation", node = %self.node, %id, ?task);
        let work = || control.cancel.check().and_then(|()| self.carry_out(task, &control));
        let outcome = span.in_scope(work);
        metrics::gauge!("highwater_operations_running").decrement(1.0);
        self.look_at_vault();
        self.vault.rest();
        self.end(id, outcome);
    }

    fn end(&self, id: OperationId, outcome: Result<Done>) {
        let now = self.now();
        let mut shared = self.shared();
        let place = shared.active.iter().position(|active| active.operation.id == id);
        let ended = place.and_then(|place| shared.active.remove(place)).map(|active| {
            let mut operation = active.now();
            operation.end(outcome, active.cancelled, now.wall);
            shared.note_end(operation.clone(), now);
            operation
        });
        drop(shared);
        self.write_history();
        self.tell();
        if let Some(Operation { node, task, state, kind, .. }) = &ended {
            let kind = kind.as_deref().unwrap_or("none");
            tracing::info!(%node, %id, ?task, ?state, error = kind, "operation ended");
        }
        if let Some(Operation { task: Task::Backup, state: OperationState::Failed, kind, .. }) =
            ended
        {
            let kind = kind.unwrap_or_default();
            metrics::counter!("highwater_backup_failures_total", "kind" => kind).increment(1);
        }
    }

    fn do_chore(&self, chore: Chore, cancel: Cancel) {
        let mut control = Control::new(self.env.clone());
        control.cancel = cancel;
        control.priority = self.priority;
        match chore {
            Chore::Look => self.look_at_vault(),
            Chore::Retention => {
                // What it says shows in the status, and has it tried again.
                let _ = self.retain(&control);
                self.vault.rest();
            }
        }
        self.tell();
    }

    /// What became of a chore.
    pub(super) fn note_chore(&self, chore: Chore, failure: Option<&Error>) {
        let now = self.now();
        let byte = self.env.random::<1>().unwrap_or_default()[0];
        let jitter = JITTER_MAX.mul_f64(f64::from(byte) / 255.0);
        let mut shared = self.shared();
        let failures = shared.when.chore_ended(chore, failure.is_some(), jitter, now);
        // That another agent is at it now and then is no trouble.
        let passing = |error: &&Error| error.kind() == Kind::Conflict && failures < CONFLICTS;
        let told = failure.filter(|error| !passing(error)).map(ToString::to_string);
        match chore {
            Chore::Look => shared.trouble.vault = told,
            Chore::Retention => shared.trouble.retention = told,
        }
    }

    /// Writes to the history what waits for it. What can't be written stays in memory, shows, and is
    /// tried again with the next one: a disk that is full keeps no backup from another one.
    fn write_history(&self) {
        let _writing = self.writing.lock();
        loop {
            let Some(first) = self.shared().unwritten.first().cloned() else { return };
            let put = self.history.put(&first);
            let mut shared = self.shared();
            match put {
                // It may have gone on meanwhile: then it is written again.
                Ok(()) => {
                    shared.unwritten.retain(|unwritten| *unwritten != first);
                    shared.trouble.history = None;
                }
                Err(error) => {
                    shared.trouble.history = Some(error.summary());
                    return;
                }
            }
        }
    }

    /// Whether the newest snapshot, as it was seen last, has failed its restore test.
    pub(super) fn newest_failed(&self) -> bool {
        let shared = self.shared();
        let newest = shared.snapshots.iter().flatten().next_back();
        newest.is_some_and(|newest| newest.level == Level::Failed)
    }

    /// Sees which snapshots of the node there are.
    fn look_at_vault(&self) {
        let mut opened = self.opened.lock();
        let seen = self.vault.get().and_then(|vault| opened.look(&vault, &self.node));
        drop(opened);
        self.note_chore(Chore::Look, seen.as_ref().err());
        let Ok(snapshots) = seen else { return };
        let now = self.env.now();
        let mut shared = self.shared();
        shared.snapshots = Some(snapshots);
        shared.seen = Some(now);
    }
}

/// The directory below `scratch` that only the agent with this data directory uses.
pub(super) fn scratch_of(scratch: &Path, data_dir: &Path) -> PathBuf {
    let whose = blake3::hash(data_dir.as_os_str().as_encoded_bytes()).to_hex();
    scratch.join(format!(".highwater-agent-{}", &whose[..16]))
}
