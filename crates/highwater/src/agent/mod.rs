//! An agent: Highwater inside a node, or beside it. It backs the node up by schedule, on request and
//! when the node tells of a change that must not be lost; it tests that what it stored can be restored,
//! forgets what a policy does not keep, and remembers what it did.
//!
//! An agent is one for each node. It works on a thread of its own, one operation at a time. Whatever
//! fails, panics included, fails an operation and shows in [`Agent::status`]; the node goes on.
//!
//! ```no_run
//! # fn main() -> highwater::Result<()> {
//! use std::time::Duration;
//! use highwater::agent::{Agent, Cadence, Rules};
//! use highwater::vault::{Actor, Location, Secret, Vault};
//! # fn secret() -> Secret { unimplemented!() }
//! # fn location() -> Location { unimplemented!() }
//!
//! let vault = Vault::open_with(&location(), &secret(), &highwater::Env::system())?;
//! let actor = Actor { state_dir: "/var/lib/node-state/highwater".into(), name: "node@host".into() };
//! let agent = Agent::builder("/var/lib/node", vault, actor)
//!     .rules(
//!         Rules::default()
//!             .backup(Some(Cadence::Every(Duration::from_secs(6 * 60 * 60))))
//!             .restore_test(Some(Duration::from_secs(7 * 24 * 60 * 60))),
//!     )
//!     .start()?;
//! agent.changed(); // a channel was opened: back up soon
//! let operation = agent.begin(highwater::agent::Task::Backup)?;
//! println!("{} is {}", operation.id, agent.operation(operation.id)?.state.name());
//! agent.stop();
//! # Ok(())
//! # }
//! ```

mod active;
mod history;
mod operation;
mod panic;
mod replica;
mod seen;
mod snapshot;
mod status;
mod tasks;
#[cfg(test)]
mod tests;
mod vaults;
mod when;
mod worker;

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::backup::BackupOptions;
use crate::engine::Engines;
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::guard::{self, Held, Which};
use crate::ids::NodeName;
use crate::node::OWN_DIR;
use crate::vault::Actor;
use crate::vault::retention::Retention;

pub use crate::control::Priority;
pub use operation::{Operation, OperationId, OperationState, Task, Trigger};
pub use replica::{ReplicaSource, ReplicaStanding, ReplicaState};
pub use snapshot::Snapshot;
pub use status::Status;
pub use vaults::VaultSource;
pub use when::{Cadence, Clockwork, Rules};

use history::History;
use worker::{Shared, Worker};

/// Makes the options of the next backup; called before each one, so that what they hold (the process
/// of a node, say) is what it is at that moment.
pub type OptionsHook = Arc<dyn Fn() -> Result<BackupOptions> + Send + Sync>;

/// How an agent is made: [`Agent::builder`].
pub struct AgentBuilder {
    dir: PathBuf,
    vault: VaultSource,
    actor: Actor,
    node: Option<NodeName>,
    data_dir: Option<PathBuf>,
    scratch: Option<PathBuf>,
    engines: Option<Engines>,
    rules: Rules,
    retention: Retention,
    options: OptionsHook,
    priority: Priority,
    replica: Option<Box<dyn ReplicaSource>>,
    env: Env,
}

impl AgentBuilder {
    /// The node's name in the vault; the directory's name where none is given.
    #[must_use]
    pub fn node(mut self, node: NodeName) -> AgentBuilder {
        self.node = Some(node);
        self
    }

    /// Where the history is kept; by default `.highwater` in the node directory. A directory serves one
    /// agent. A restore puts aside whatever is in the node directory, and a history that is open there
    /// would block it: an agent beside the node keeps its history elsewhere.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> AgentBuilder {
        self.data_dir = Some(dir.into());
        self
    }

    /// Where restore tests work; by default the data directory. It needs room for the node.
    #[must_use]
    pub fn scratch(mut self, dir: impl Into<PathBuf>) -> AgentBuilder {
        self.scratch = Some(dir.into());
        self
    }

    /// The engines by which every backup looks at the node, whatever its options say, and every restore test
    /// checks its databases.
    #[must_use]
    pub fn engines(mut self, engines: Engines) -> AgentBuilder {
        self.engines = Some(engines);
        self
    }

    /// What the agent does by itself, and when.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> AgentBuilder {
        self.rules = rules;
        self
    }

    /// Which snapshots stay once a backup has succeeded; all of them by default.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> AgentBuilder {
        self.retention = retention;
        self
    }

    /// Hooks, barrier, tags and bounds of each backup.
    #[must_use]
    pub fn options(self, options: BackupOptions) -> AgentBuilder {
        self.options_from(move || Ok(options.clone()))
    }

    /// The same, made anew before each backup. An error of the function fails that backup.
    #[must_use]
    pub fn options_from(
        mut self,
        options: impl Fn() -> Result<BackupOptions> + Send + Sync + 'static,
    ) -> AgentBuilder {
        self.options = Arc::new(options);
        self
    }

    /// At which priority operations work; by default low, since the node goes first. Hooks, the
    /// barrier and a freeze are never slowed down by it: the node waits for them.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> AgentBuilder {
        self.priority = priority;
        self
    }

    /// The node's replicated store: the agent tells how it stands, and flushes it on request. The source is the
    /// store itself where the agent is a part of the node, and an observer of it where the node is another process.
    #[must_use]
    pub fn replica(mut self, source: impl ReplicaSource + 'static) -> AgentBuilder {
        self.replica = Some(Box::new(source));
        self
    }

    /// Clock, randomness and fault points.
    #[must_use]
    pub fn env(mut self, env: Env) -> AgentBuilder {
        self.env = env;
        self
    }

    /// Starts the agent.
    ///
    /// A damaged history is put aside and begun anew, which shows in [`Status::warnings`]. If it can't be
    /// written later on, backups are made nevertheless.
    ///
    /// # Errors
    /// Input where the directory has no name that can be the node's, where a period is below a second, or
    /// where the data directory or the scratch lie in the node directory but not in `.highwater`; not
    /// found where the node directory does not exist and is to hold the history; conflict where another
    /// agent works with the data directory, or a newer program has; denied or unavailable where the
    /// history can't be written. The vault is not needed yet.
    pub fn start(self) -> Result<Agent> {
        let node = match self.node {
            Some(node) => node,
            None => crate::node::node_name(&self.dir, None)?,
        };
        let data_dir = data_dir(&self.dir, self.data_dir)?;
        let scratch = self.scratch.unwrap_or_else(|| data_dir.clone());
        keep_out(&self.dir, &data_dir)?;
        keep_out(&self.dir, &scratch)?;
        let lock = worker::lock(&data_dir)?;
        let history = History::open(&data_dir.join("agent.sqlite"), self.env.now())?;
        let shared = Shared::new(self.rules, self.retention, &history, &self.env)?;
        let worker = Arc::new(Worker {
            node,
            dir: self.dir,
            scratch: worker::scratch_of(&scratch, &data_dir),
            engines: self.engines,
            vault: self.vault,
            actor: self.actor,
            options: self.options,
            priority: self.priority,
            replica: self.replica,
            env: self.env,
            history,
            changes: watch::channel(0).0,
            state: Mutex::new(shared),
            wake: Condvar::new(),
            opened: Mutex::default(),
            writing: Mutex::default(),
            lock,
        });
        let thread = std::thread::Builder::new()
            .name(format!("highwater-{}", worker.node))
            .spawn({
                let worker = Arc::clone(&worker);
                move || worker.run()
            })
            .map_err(|error| Error::io("starting the agent's thread", error))?;
        let id = thread.thread().id();
        Ok(Agent(Arc::new(Inner { worker, id, thread: Mutex::new(Some(thread)) })))
    }
}

/// Makes the data directory. The node directory is never made: a name that is mistyped is an error.
fn data_dir(node: &Path, given: Option<PathBuf>) -> Result<PathBuf> {
    let dir = given.as_ref().map_or_else(|| node.join(OWN_DIR), PathBuf::clone);
    let made = std::fs::DirBuilder::new().recursive(given.is_some()).mode(0o700).create(&dir);
    let named = |error: Error| error.with_entry(dir.display().to_string());
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(named(Error::io("making the agent's directory", error)));
        }
        _ => {}
    }
    let whole = dir.canonicalize();
    let whole =
        whole.map_err(|error| named(Error::io("looking up the agent's directory", error)))?;
    // SQLite opens the history by its path.
    crate::rooted::refuse_for_root(&whole)?;
    Ok(whole)
}

/// What an agent writes must not be captured as if it were the node's.
fn keep_out(node: &Path, own: &Path) -> Result<()> {
    // A directory that can't be looked up holds nothing of ours.
    let Ok(node) = node.canonicalize() else { return Ok(()) };
    let own = std::path::absolute(own)
        .and_then(|own| own.canonicalize().or(Ok(own)))
        .map_err(|error| Error::io("looking up the agent's directory", error))?;
    if !own.starts_with(&node) || own.starts_with(node.join(OWN_DIR)) {
        return Ok(());
    }
    Err(Error::input("the agent's directory lies in the node directory")
        .with_entry(own.display().to_string())
        .with_remedy(format!("choose one outside it, or in its {OWN_DIR}")))
}

/// An agent of one node; clones share it. When the last of them is dropped, it stops as by
/// [`Agent::stop`]. A hook must not own one: the agent would own itself.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    worker: Arc<Worker>,
    id: ThreadId,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    /// Once it returns, nothing of the node is used any more; but where a hook calls it, which the
    /// thread would wait for in vain.
    fn stop(&self) {
        self.worker.stop();
        if std::thread::current().id() == self.id {
            return;
        }
        // Held meanwhile: a second caller waits as well.
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take() {
            // The thread catches its panics.
            let _ = thread.join();
            self.worker.unlock();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Agent {
    /// An agent of the node in `dir`. `vault` is an open vault, or a [`VaultSource`] that is opened when
    /// it is needed.
    pub fn builder(
        dir: impl Into<PathBuf>,
        vault: impl Into<VaultSource>,
        actor: Actor,
    ) -> AgentBuilder {
        AgentBuilder {
            dir: dir.into(),
            vault: vault.into(),
            actor,
            node: None,
            data_dir: None,
            scratch: None,
            engines: None,
            rules: Rules::default(),
            retention: Retention::default(),
            options: Arc::new(|| Ok(BackupOptions::default())),
            priority: Priority::Low,
            replica: None,
            env: Env::system(),
        }
    }

    /// The node's name.
    pub fn node(&self) -> &NodeName {
        &self.0.worker.node
    }

    /// The node's directory.
    pub fn dir(&self) -> &Path {
        &self.0.worker.dir
    }

    /// The vault, or the way to it.
    pub fn vault(&self) -> &VaultSource {
        &self.0.worker.vault
    }

    /// Who acts on the vault.
    pub fn actor(&self) -> &Actor {
        &self.0.worker.actor
    }

    /// Begins a task as soon as what runs has ended.
    ///
    /// # Errors
    /// Conflict where the same task waits or runs already, or where the agent stops.
    pub fn begin(&self, task: Task) -> Result<Operation> {
        self.0.worker.ask(task, Trigger::Manual)
    }

    /// The node has changed in a way that must not be lost: a backup is made soon. Returns at once.
    pub fn changed(&self) {
        self.0.worker.changed();
    }

    /// An operation, as it stands.
    ///
    /// # Errors
    /// Not found where the agent knows none of this handle.
    pub fn operation(&self, id: OperationId) -> Result<Operation> {
        self.0.worker.operation(id)
    }

    /// The newest operations, newest first; at most `max`.
    pub fn operations(&self, max: u32) -> Result<Vec<Operation>> {
        self.0.worker.operations(max)
    }

    /// Asks an operation to stop, and returns it as it stands: it may still be running then. One that
    /// has ended stays as it is.
    ///
    /// # Errors
    /// Not found where the agent knows none of this handle.
    pub fn cancel(&self, id: OperationId) -> Result<Operation> {
        self.0.worker.cancel(id)
    }

    /// Waits until an operation has ended.
    ///
    /// # Errors
    /// Not found where the agent knows none of this handle.
    pub fn wait(&self, id: OperationId) -> Result<Operation> {
        self.0.worker.wait(id, None)
    }

    /// Waits until an operation has ended, for `max` at most, and returns it as it stands then.
    ///
    /// # Errors
    /// Not found where the agent knows none of this handle.
    pub fn wait_for(&self, id: OperationId, max: Duration) -> Result<Operation> {
        self.0.worker.wait(id, Some(max))
    }

    /// A number that rises whenever an operation changes: progress some ten times a second, states at
    /// once. It is awaited under any executor; who has none looks at it when they like
    /// (`has_changed`), or waits for an end ([`Agent::wait`], [`Agent::wait_for`]).
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.worker.changes.subscribe()
    }

    /// How the node stands. What it says of snapshots is what the agent saw last in the vault.
    pub fn status(&self) -> Status {
        self.0.worker.status()
    }

    /// Returns once the server has all that the node's replicated store held before, and how it stands
    /// then.
    ///
    /// # Errors
    /// Not found where the node has none; fenced where another owner writes; unavailable once `wait` has
    /// passed, which goes on behind; conflict where the node is another process.
    pub fn flush_replica(&self, wait: Duration) -> Result<ReplicaStanding> {
        self.0.worker.flush_replica(wait)
    }

    /// Channels and databases of the node that are quarantined, and those of the same quarantine that
    /// are no longer.
    pub fn quarantine(&self) -> Result<Vec<Held>> {
        match guard::list(self.dir()) {
            Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
            held => held,
        }
    }

    /// Releases channels or databases from quarantine, by a decision of `by`: [`guard::release`].
    ///
    /// # Errors
    /// As that; quarantined where the node's kind asks for more than a reason.
    pub fn release(&self, which: &Which, reason: &str, by: &str) -> Result<Vec<Held>> {
        if let Some(recogniser) = (self.0.worker.options)()?.recogniser {
            let channel = match which {
                Which::Channel(channel) => Some(channel.as_str()),
                Which::All => None,
            };
            recogniser.refuse_release(self.dir(), channel)?;
        }
        let control = crate::Control::new(self.0.worker.env.clone());
        guard::release(self.dir(), which, reason, by, &control)
    }

    /// Goes on under other rules and another policy; what runs is not disturbed, and periods count from
    /// where they did.
    ///
    /// # Errors
    /// Input where a period is below a second; nothing is changed then.
    pub fn set_rules(&self, rules: Rules, retention: Retention) -> Result<()> {
        self.0.worker.set_rules(rules, retention)
    }

    /// Cancels what runs, and waits until it has ended: hooks are not called after that, nothing can be
    /// begun, and another agent can work with the data directory. From a hook it does not wait. Who calls it must not hold what a hook waits for.
    pub fn stop(&self) {
        self.0.stop();
    }
}
