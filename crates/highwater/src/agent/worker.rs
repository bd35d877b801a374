//! The thread of an agent: takes what is due or asked for, one at a time.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;

use crate::control::{Cancel, Control, Event};
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::guard;
use crate::ids::{NodeName, Time};
use crate::restore;
use crate::vault::Actor;
use crate::vault::retention::Retention;

use super::OptionsHook;
use super::history::History;
use super::operation::{Done, Operation, OperationId, State, Task, Trigger};
use super::status::{Snapshot, Status};
use super::vaults::VaultSource;
use super::when::{Now, Rules, When};

/// Progress is told so often at most.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Deleting what was forgotten needs no more than this.
const PRUNE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// All that an agent is.
pub(super) struct Worker {
    pub(super) node: NodeName,
    pub(super) dir: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) vault: VaultSource,
    pub(super) actor: Actor,
    pub(super) options: OptionsHook,
    pub(super) retention: Mutex<Retention>,
    pub(super) env: Env,
    pub(super) history: History,
    pub(super) changes: watch::Sender<u64>,
    pub(super) state: Mutex<Shared>,
    pub(super) wake: Condvar,
    pub(super) _lock: File,
}

/// What the threads share.
#[derive(Default)]
pub(super) struct Shared {
    when: Option<When>,
    /// What waits, and what runs: that is the first one.
    active: VecDeque<Active>,
    stopping: bool,
    snapshots: Option<Vec<Snapshot>>,
    seen: Option<Time>,
    /// An end that could not be written to the history.
    unwritten: Vec<Operation>,
    /// Why the vault or the history can't be used.
    trouble: Option<String>,
    pruned_at: Option<Duration>,
}

struct Active {
    operation: Operation,
    cancel: Cancel,
    cancelled: bool,
    live: Arc<Live>,
}

impl Active {
    fn now(&self) -> Operation {
        let mut operation = self.operation.clone();
        operation.bytes_done = self.live.done.load(Ordering::Relaxed);
        operation.bytes_total = self.live.total.load(Ordering::Relaxed);
        if operation.state == State::Running {
            let stage = self.live.stage.lock().unwrap_or_else(PoisonError::into_inner);
            operation.stage = (*stage).to_owned();
        }
        operation
    }
}

/// What an operation has told of itself.
#[derive(Default)]
struct Live {
    done: AtomicU64,
    total: AtomicU64,
    stage: Mutex<&'static str>,
    told_nanos: AtomicU64,
}

/// Keeps a second agent from working with the same data directory.
pub(super) fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("agent.lock");
    let failed =
        |error| Error::io("opening the agent's lock", error).entry(path.display().to_string());
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
            .entry(data_dir.display().to_string())
            .hint("stop it, or give this one another data directory")),
        Err(error) => Err(failed(error.into())),
    }
}

impl Worker {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { monotonic: self.env.monotonic(), wall: self.env.now() }
    }

    fn tell(&self) {
        self.changes.send_modify(|number| *number += 1);
        self.wake.notify_all();
    }

    pub(super) fn retention(&self) -> Retention {
        self.retention.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn prune_is_due(&self) -> bool {
        let now = self.env.monotonic();
        self.shared().pruned_at.is_none_or(|at| now.saturating_sub(at) >= PRUNE_EVERY)
    }

    pub(super) fn pruned(&self) {
        self.shared().pruned_at = Some(self.env.monotonic());
    }

    /// Ends what an earlier process left unfinished, and reckons what is due.
    pub(super) fn begin(&self, rules: Rules) -> Result<()> {
        for mut operation in self.history.unfinished()? {
            operation.state = State::Failed;
            operation.kind = Some(Kind::Interrupted.name().to_owned());
            operation.reason = Some("the process ended before the operation did".to_owned());
            operation.finished_at = Some(self.env.now());
            self.history.put(&operation)?;
        }
        let (backup, test) = self.last_times()?;
        self.shared().when = Some(When::new(rules, backup, test, self.now()));
        Ok(())
    }

    pub(super) fn set_rules(&self, rules: Rules, retention: Retention) -> Result<()> {
        let (backup, test) = self.last_times()?;
        let now = self.now();
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = retention;
        if let Some(when) = &mut self.shared().when {
            when.set_rules(rules, backup, test, now);
        }
        self.tell();
        Ok(())
    }

    fn last_times(&self) -> Result<(Option<Time>, Option<Time>)> {
        let last = |task| {
            let last = self.history.last(task, State::Completed)?;
            Ok::<_, Error>(last.and_then(|operation| operation.started_at))
        };
        Ok((last(Task::Backup)?, last(Task::RestoreTest)?))
    }

    /// Puts a task at the end of what waits.
    pub(super) fn ask(&self, task: Task, trigger: Trigger) -> Result<Operation> {
        let operation = Operation {
            id: OperationId::random(&self.env)?,
            node: self.node.clone(),
            task,
            trigger,
            state: State::Queued,
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
        let mut shared = self.shared();
        if shared.stopping {
            return Err(Error::conflict("the agent stops").entry(self.node.to_string()));
        }
        if let Some(twin) = shared.active.iter().find(|active| active.operation.task == task) {
            let (id, state) = (twin.operation.id, twin.operation.state.name());
            return Err(Error::conflict(format!(
                "a {} of node {} is {state} already: {id}",
                task.name().replace('_', " "),
                self.node
            ))
            .entry(self.node.to_string()));
        }
        self.history.put(&operation)?;
        shared.active.push_back(Active {
            operation: operation.clone(),
            cancel: Cancel::default(),
            cancelled: false,
            live: Arc::default(),
        });
        drop(shared);
        self.tell();
        Ok(operation)
    }

    pub(super) fn changed(&self) {
        let now = self.now();
        if let Some(when) = &mut self.shared().when {
            when.changed(now);
        }
        self.wake.notify_all();
    }

    pub(super) fn operation(&self, id: OperationId) -> Result<Operation> {
        if let Some(found) = self.in_memory(id) {
            return Ok(found);
        }
        let found = self.history.get(id)?;
        found.ok_or_else(|| Error::not_found(format!("there is no operation {id}")))
    }

    fn in_memory(&self, id: OperationId) -> Option<Operation> {
        let shared = self.shared();
        let active = shared.active.iter().find(|active| active.operation.id == id);
        let unwritten = || shared.unwritten.iter().find(|operation| operation.id == id).cloned();
        active.map(Active::now).or_else(unwritten)
    }

    pub(super) fn operations(&self, max: u32) -> Result<Vec<Operation>> {
        let mut operations = self.history.list(max)?;
        for operation in &mut operations {
            if let Some(fresh) = self.in_memory(operation.id) {
                *operation = fresh;
            }
        }
        Ok(operations)
    }

    pub(super) fn cancel(&self, id: OperationId) -> Result<Operation> {
        let mut shared = self.shared();
        let place = shared.active.iter().position(|active| active.operation.id == id);
        let Some(place) = place else {
            drop(shared);
            return self.operation(id);
        };
        let active = &mut shared.active[place];
        active.cancelled = true;
        active.cancel.cancel();
        if active.operation.state == State::Running {
            return Ok(active.now());
        }
        active.operation.end(Err(Error::interrupted()), true, self.env.now());
        let operation = active.operation.clone();
        self.history.put(&operation)?;
        shared.active.remove(place);
        drop(shared);
        self.tell();
        Ok(operation)
    }

    pub(super) fn wait(&self, id: OperationId) -> Result<Operation> {
        let running =
            |shared: &mut Shared| shared.active.iter().any(|active| active.operation.id == id);
        drop(self.wake.wait_while(self.shared(), running).unwrap_or_else(PoisonError::into_inner));
        self.operation(id)
    }

    /// Lets the thread end once what runs has ended.
    pub(super) fn stop(&self) {
        let mut shared = self.shared();
        shared.stopping = true;
        for active in &mut shared.active {
            active.cancelled = true;
            active.cancel.cancel();
        }
        drop(shared);
        self.wake.notify_all();
    }

    pub(super) fn run(&self) {
        self.look_at_vault();
        while let Some(id) = self.next() {
            self.run_one(id);
        }
    }

    /// Waits for the next operation; `None` once the agent stops.
    fn next(&self) -> Option<OperationId> {
        let mut shared = self.shared();
        loop {
            if shared.stopping {
                // What waits has not begun: it ends as it stands.
                while let Some(mut active) = shared.active.pop_front() {
                    active.operation.end(Err(Error::interrupted()), true, self.env.now());
                    self.write(&mut shared, active.operation);
                }
                drop(shared);
                self.tell();
                return None;
            }
            if let Some(first) = shared.active.front() {
                return Some(first.operation.id);
            }
            let now = self.now();
            let due = shared.when.as_mut().and_then(|when| when.due(now));
            if let Some((task, trigger)) = due {
                drop(shared);
                if let Err(error) = self.ask(task, trigger) {
                    // The history can't be written: that is a failure of the task.
                    self.failed_to_begin(task, &error);
                }
                shared = self.shared();
                continue;
            }
            let wait = shared.when.as_ref().map_or(Duration::MAX, |when| when.wait(now));
            let waited = self.wake.wait_timeout(shared, wait.max(Duration::from_millis(1)));
            shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn failed_to_begin(&self, task: Task, error: &Error) {
        metrics::counter!("highwater_backup_failures_total", "kind" => error.kind().name())
            .increment(1);
        let now = self.now();
        let mut shared = self.shared();
        shared.trouble = Some(error.to_string());
        if let Some(when) = &mut shared.when {
            when.began(task, now);
            when.ended(task, true, now);
        }
    }

    fn run_one(&self, id: OperationId) {
        let now = self.now();
        let mut shared = self.shared();
        let Some(active) = shared.active.front_mut().filter(|active| active.operation.id == id)
        else {
            return;
        };
        active.operation.state = State::Running;
        active.operation.started_at = Some(now.wall);
        let (task, operation) = (active.operation.task, active.operation.clone());
        let control = self.control(active);
        if let Some(when) = &mut shared.when {
            when.began(task, now);
        }
        self.write(&mut shared, operation);
        drop(shared);
        self.tell();
        metrics::gauge!("highwater_operations_running").increment(1.0);
        let outcome = self.carry_out(task, &control);
        metrics::gauge!("highwater_operations_running").decrement(1.0);
        self.look_at_vault();
        self.vault.rest();
        self.end(id, outcome);
    }

    fn end(&self, id: OperationId, outcome: Result<Done>) {
        let now = self.now();
        let mut shared = self.shared();
        let place = shared.active.iter().position(|active| active.operation.id == id);
        if let Some(active) = place.and_then(|place| shared.active.remove(place)) {
            let mut operation = active.now();
            operation.end(outcome, active.cancelled, now.wall);
            let failed = operation.state == State::Failed;
            if failed && operation.task == Task::Backup {
                let kind = operation.kind.clone().unwrap_or_default();
                metrics::counter!("highwater_backup_failures_total", "kind" => kind).increment(1);
            }
            if let (Some(when), State::Completed | State::Failed) =
                (&mut shared.when, operation.state)
            {
                when.ended(operation.task, failed, now);
            }
            self.write(&mut shared, operation);
        }
        drop(shared);
        self.tell();
    }

    /// Writes an operation to the history, and those that could not be written before. One that can't
    /// be is kept in memory, and shows in the status.
    fn write(&self, shared: &mut Shared, operation: Operation) {
        shared.unwritten.retain(|unwritten| unwritten.id != operation.id);
        shared.unwritten.push(operation);
        while let Some(operation) = shared.unwritten.first() {
            match self.history.put(operation) {
                Ok(()) => drop(shared.unwritten.remove(0)),
                Err(error) => {
                    shared.trouble = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// What the operation works with: its progress is told to who watches.
    fn control(&self, active: &Active) -> Control {
        let (live, env) = (Arc::clone(&active.live), self.env.clone());
        let changes = self.changes.clone();
        let mut control = Control::new(self.env.clone()).on_event(move |event| {
            match event {
                Event::Stage { name, bytes_total } => {
                    *live.stage.lock().unwrap_or_else(PoisonError::into_inner) = name;
                    if bytes_total > 0 {
                        live.done.store(0, Ordering::Relaxed);
                        live.total.store(bytes_total, Ordering::Relaxed);
                    }
                }
                Event::Bytes(bytes) => {
                    live.done.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            let now = u64::try_from(env.monotonic().as_nanos()).unwrap_or(u64::MAX);
            let told = live.told_nanos.load(Ordering::Relaxed);
            let due = Duration::from_nanos(now.saturating_sub(told)) >= TELL_EVERY;
            let mine = || {
                let swap = live.told_nanos.compare_exchange(
                    told,
                    now,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                swap.is_ok()
            };
            if due && mine() {
                changes.send_modify(|number| *number += 1);
            }
        });
        control.cancel = active.cancel.clone();
        control
    }

    /// Sees which snapshots of the node there are.
    fn look_at_vault(&self) {
        let seen = self.vault.get().and_then(|vault| vault.snapshots(Some(&self.node)));
        let now = self.env.now();
        let mut shared = self.shared();
        match seen {
            Ok(infos) => {
                shared.snapshots = Some(infos.iter().map(Snapshot::from).collect());
                shared.seen = Some(now);
                shared.trouble = None;
            }
            Err(error) => shared.trouble = Some(error.to_string()),
        }
    }

    pub(super) fn status(&self) -> Status {
        let now = self.now();
        let mut warnings = Vec::new();
        let standing = guard::standing(&self.dir).map_err(|error| warnings.push(error.to_string()));
        let maintenance = restore::refuse_interrupted(&self.dir).is_err();
        let mut last = |task| {
            let found = [State::Completed, State::Failed]
                .into_iter()
                .map(|state| self.history.last(task, state))
                .collect::<Result<Vec<_>>>();
            let found = found.map_err(|error| warnings.push(error.to_string())).unwrap_or_default();
            found.into_iter().flatten().max_by_key(|operation| operation.queued_at)
        };
        let (last_backup, last_restore_test) = (last(Task::Backup), last(Task::RestoreTest));
        let restore_tested = self
            .history
            .last(Task::RestoreTest, State::Completed)
            .map_err(|error| warnings.push(error.to_string()))
            .ok()
            .flatten()
            .and_then(|operation| operation.finished_at);
        let shared = self.shared();
        warnings.extend(shared.trouble.clone());
        let when = shared.when.as_ref();
        Status {
            node: self.node.clone(),
            dir: self.dir.clone(),
            location: self.vault.location().to_owned(),
            now: now.wall,
            maintenance,
            snapshots: shared.snapshots.clone(),
            seen: shared.seen,
            quarantined: standing.ok().map(|held| held.map_or(0, |held| held.quarantined())),
            active: shared.active.iter().map(Active::now).collect(),
            last_backup,
            last_restore_test,
            restore_tested,
            failures: when.map_or(0, When::failures),
            next_backup: when.and_then(|when| when.next_backup(now)),
            warnings,
        }
    }
}
