//! An agent on a real node directory and a real vault.

mod faults;
mod history;
mod life;
mod priority;
mod when;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::env::Clock;
use crate::ids::Time;
use crate::vault::{CreateOptions, Location, Secret, Vault};

/// A node, a vault and what an agent keeps, in a temporary directory.
struct AgentPlace {
    dir: tempfile::TempDir,
    source: VaultSource,
}

impl AgentPlace {
    fn new() -> AgentPlace {
        let dir = tempfile::tempdir().unwrap();
        let location = location(dir.path());
        let vault =
            Vault::create_with(&location, &secret(), &CreateOptions::default(), &Env::system())
                .unwrap()
                .vault;
        let place = AgentPlace { dir, source: vault.into() };
        std::fs::create_dir(place.node()).unwrap();
        place.database("state.sqlite");
        place
    }

    fn node(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    fn database(&self, name: &str) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.node().join(name)).unwrap();
        let rows = "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (n); \
            INSERT INTO t VALUES (hex(randomblob(9999)));";
        database.execute_batch(rows).unwrap();
        database
    }

    fn actor(&self) -> Actor {
        Actor { state_dir: self.dir.path().join("state"), name: "test".to_owned() }
    }

    /// An agent that does nothing by itself.
    fn builder(&self) -> AgentBuilder {
        Agent::builder(self.node(), self.source.clone(), self.actor()).rules(quiet())
    }

    fn snapshots(&self) -> usize {
        self.source.get().unwrap().snapshots(None).unwrap().len()
    }
}

fn location(dir: &Path) -> Location {
    dir.join("vault").to_str().unwrap().parse().unwrap()
}

fn secret() -> Secret {
    Secret::Key(zeroize::Zeroizing::new([7; 32]))
}

fn quiet() -> Rules {
    Rules { first_after: None, ..Rules::default() }
}

/// Runs a task to its end.
fn run(agent: &Agent, task: Task) -> Operation {
    agent.wait(agent.begin(task).unwrap().id).unwrap()
}

fn completed(agent: &Agent, task: Task) -> Operation {
    let done = run(agent, task);
    assert_eq!((done.state, &done.reason), (OperationState::Completed, &None));
    done
}

/// Waits until what `look` finds is there; asked again after every change.
fn until<T>(agent: &Agent, mut look: impl FnMut() -> Option<T>) -> T {
    let mut changes = agent.changes();
    loop {
        if let Some(found) = look() {
            return found;
        }
        futures::executor::block_on(changes.changed()).unwrap();
    }
}

/// Where a backup begins, and waits to be let go on.
struct Door {
    reached: Receiver<()>,
    open: SyncSender<()>,
}

/// The options of backups that stop at the door.
fn door() -> (Door, impl Fn() -> Result<BackupOptions> + Send + Sync) {
    let (arrive, reached) = sync_channel(9);
    let (open, opened) = sync_channel(9);
    let opened = Mutex::new(opened);
    let options = move || {
        arrive.send(()).unwrap();
        opened.lock().recv().unwrap();
        Ok(BackupOptions::default())
    };
    (Door { reached, open }, options)
}

/// Clocks that a test moves.
#[derive(Clone)]
struct Hands(Arc<Mutex<(Duration, Time)>>);

impl Hands {
    fn new() -> Hands {
        let env = Env::system();
        Hands(Arc::new(Mutex::new((env.monotonic(), env.now()))))
    }

    fn env(&self) -> Env {
        Env::system().with_clock(self.clone())
    }

    /// Lets time pass, and has the agent look.
    fn pass(&self, agent: &Agent, time: Duration) {
        let mut hands = self.0.lock();
        let nanos = i64::try_from(time.as_nanos()).unwrap();
        *hands = (hands.0 + time, Time::from_nanos(hands.1.as_nanos() + nanos));
        drop(hands);
        // Taken, so that the agent is not between a look at the clock and its wait.
        drop(agent.0.worker.shared());
        agent.0.worker.wake.notify_all();
    }
}

impl Clock for Hands {
    fn now(&self) -> Time {
        self.0.lock().1
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().0
    }

    fn pause(&self, duration: Duration) {
        Env::system().pause(duration);
    }
}
