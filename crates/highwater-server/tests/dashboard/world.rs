//! Agents of real node directories with a real vault, a server before them, and a clock that the test
//! holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::agent::{Agent, AgentBuilder, OperationState, Rules, Task};
use highwater::backup::BackupOptions;
use highwater::env::Clock;
use highwater::guard::{Cause, GuardKind, Latch, Recorded};
use highwater::ids::Time;
use highwater::vault::{Actor, CreateOptions, Location, Secret, Vault};
use highwater::{Env, Error};
use highwater_replica::agent::OwnReplica;
use highwater_replica::local::MemoryStore;
use highwater_replica::remote::MemoryRemote;
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore};
use highwater_server::{Agents, Running, Server, ServerBuilder};
use tokio::runtime::Runtime;

/// How much further one step of a held operation leads.
const STEP: Duration = Duration::from_secs(4);

/// A clock that can be put forward, and whose pauses, once it is held, last until the test lets them end.
struct Steps {
    system: Env,
    ahead_seconds: AtomicI64,
    passed_millis: AtomicU64,
    held: AtomicBool,
    steps: Mutex<Receiver<()>>,
}

struct SharedClock(Arc<Steps>);

impl Clock for SharedClock {
    fn now(&self) -> Time {
        let ahead = self.0.ahead_seconds.load(Ordering::SeqCst) * 1_000_000_000;
        Time::from_nanos(self.0.system.now().as_nanos() + ahead)
    }

    fn monotonic(&self) -> Duration {
        let passed = self.0.passed_millis.load(Ordering::SeqCst);
        self.0.system.monotonic() + Duration::from_millis(passed)
    }

    fn pause(&self, duration: Duration) {
        if !self.0.held.load(Ordering::SeqCst) {
            return self.0.system.pause(duration);
        }
        // Whoever holds it may be gone; nothing waits then.
        let _ = self.0.steps.lock().unwrap().recv();
        self.0.passed_millis.fetch_add(STEP.as_millis() as u64, Ordering::SeqCst);
    }
}

/// A temporary directory with nodes and a vault, agents that do nothing by themselves, and a server.
pub(crate) struct World {
    /// Each message lets one pause end. It goes first: what is held ends with it, so that an agent that
    /// is dropped waits for nothing.
    steps: Option<Sender<()>>,
    runtime: Runtime,
    running: Option<Running>,
    agents: Agents,
    clock: Arc<Steps>,
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        let (steps, receiver) = channel();
        let clock = Steps {
            system: Env::system(),
            ahead_seconds: AtomicI64::new(0),
            passed_millis: AtomicU64::new(0),
            held: AtomicBool::new(false),
            steps: Mutex::new(receiver),
        };
        World {
            runtime: Runtime::new().unwrap(),
            running: None,
            agents: Agents::default(),
            clock: Arc::new(clock),
            steps: Some(steps),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn env(&self) -> Env {
        Env::system().with_clock(SharedClock(Arc::clone(&self.clock)))
    }

    /// Lets time pass, as the nodes and the server see it.
    pub(crate) fn put_forward(&self, duration: Duration) {
        let seconds = i64::try_from(duration.as_secs()).unwrap();
        self.clock.ahead_seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// From now on what pauses waits for [`World::step`].
    pub(crate) fn hold(&self) {
        self.clock.held.store(true, Ordering::SeqCst);
    }

    /// Lets so many pauses end.
    pub(crate) fn step(&self, times: usize) {
        for _ in 0..times {
            self.steps.as_ref().unwrap().send(()).unwrap();
        }
    }

    /// Lets all go on.
    pub(crate) fn let_go(&mut self) {
        self.steps = None;
    }

    fn vault(&self) -> Vault {
        let location: Location = self.path("vault").to_str().unwrap().parse().unwrap();
        let secret = Secret::Key([7; 32].into());
        match self.path("vault").exists() {
            true => Vault::open_with(&location, &secret, &self.env()).unwrap(),
            false => {
                Vault::create_with(&location, &secret, &CreateOptions::default(), &self.env())
                    .unwrap()
                    .vault
            }
        }
    }

    fn builder(&self, name: &str, bytes: usize) -> AgentBuilder {
        let dir = self.path(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("state.bin"), noise(bytes)).unwrap();
        let actor = Actor { state_dir: self.path("state"), name: "test@host".to_owned() };
        let rules = Rules::default().first_after(None);
        Agent::builder(dir, self.vault(), actor).rules(rules).env(self.env())
    }

    fn add(&self, builder: AgentBuilder) -> Agent {
        let agent = builder.start().unwrap();
        self.agents.add(agent.clone());
        agent
    }

    /// A node of which nothing is known yet.
    pub(crate) fn fresh(&self, name: &str) -> Agent {
        self.add(self.builder(name, 300_000))
    }

    /// A node that was backed up once, with these tags and marks.
    pub(crate) fn backed_up(
        &self,
        name: &str,
        tags: &[(&str, &str)],
        marks: &[(&str, u64)],
    ) -> Agent {
        let mut options = BackupOptions::default();
        options.tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        options.marks = marks.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let agent = self.add(self.builder(name, 5_000_000).options(options));
        assert_eq!(run(&agent, Task::Backup), OperationState::Completed);
        agent
    }

    /// A node whose store is replicated to a server in memory, and that server.
    pub(crate) fn replicated(&self, name: &str) -> (Arc<ReplicatedStore>, Arc<MemoryRemote>) {
        let remote = Arc::<MemoryRemote>::default();
        let store = open_store(&remote, name);
        self.add(self.builder(name, 300_000).replica(OwnReplica::of(&store)));
        (store, remote)
    }

    /// A node whose backups go only as far as the test lets them, 4 MiB a step.
    pub(crate) fn held_back(&self, name: &str) -> Agent {
        let mut options = BackupOptions::default();
        options.rate_max = Some(1 << 20);
        self.add(self.builder(name, 48 << 20).options(options))
    }

    /// A node whose backups fail with this reason.
    pub(crate) fn failing(&self, name: &str, reason: &'static str) -> Agent {
        let options = move || Err(Error::denied(reason));
        self.add(self.builder(name, 300_000).options_from(options))
    }

    /// Puts a node's channels in quarantine; the numbers are what the node remembers.
    pub(crate) fn quarantine(&self, agent: &Agent, channels: &[(&str, Recorded)]) {
        let channels: BTreeMap<String, Recorded> =
            channels.iter().map(|(id, recorded)| ((*id).to_owned(), recorded.clone())).collect();
        let latch = Latch {
            version: 1,
            kind: GuardKind::Channels,
            node: agent.node().clone(),
            uid: None,
            cause: Cause::Restore,
            restore: None,
            snapshot: None,
            time: self.env().now(),
            reasons: Vec::new(),
            marks: BTreeMap::new(),
            channels,
            listed: true,
            old: None,
            withheld: Vec::new(),
            release: None,
            original_gone: None,
            floors: Vec::new(),
        };
        latch.write(agent.dir(), &self.env()).unwrap();
    }

    /// Starts the server; its address.
    pub(crate) fn serve(&mut self) -> String {
        self.serve_as(|builder| builder)
    }

    pub(crate) fn serve_as(&mut self, more: impl FnOnce(ServerBuilder) -> ServerBuilder) -> String {
        let builder = more(Server::builder(self.agents.clone()).env(self.env()));
        let running = self.runtime.block_on(builder.start()).unwrap();
        let address = format!("http://{}", running.address());
        self.running = Some(running);
        address
    }

    /// Ends the server.
    pub(crate) fn stop_serving(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown()).unwrap();
        }
    }
}

/// Opens a store on a server, over an empty one here, whoever has it there.
pub(crate) fn open_store(remote: &Arc<MemoryRemote>, owner: &str) -> Arc<ReplicatedStore> {
    let keys = ReplicaKeys::from_entropy(&[7; 32], "store").unwrap();
    let permissions = Permissions {
        allow_empty: true,
        take_over: Some("a test".to_owned()),
        ..Permissions::default()
    };
    let local = Arc::<MemoryStore>::default();
    let opened = ReplicatedStore::builder(local, Arc::clone(remote) as _, keys)
        .owner(owner)
        .permissions(permissions)
        .open();
    Arc::new(opened.unwrap().0)
}

/// Runs a task to its end.
pub(crate) fn run(agent: &Agent, task: Task) -> OperationState {
    let asked = agent.begin(task).unwrap();
    agent.wait(asked.id).unwrap().state
}

/// Waits until an agent's operation is in this state.
pub(crate) fn wait_for(agent: &Agent, task: Task, state: OperationState) {
    let mut changes = agent.changes();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        loop {
            let operations = agent.operations(10).unwrap();
            if operations.iter().any(|one| one.task == task && one.state == state) {
                return;
            }
            changes.changed().await.unwrap();
        }
    });
}

/// Bytes that no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// The text of an answer to a plain request, with its head.
pub(crate) fn fetch(address: &str, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let host = address.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let (line, rest) = request.split_once("\r\n").unwrap_or((request, "\r\n"));
    write!(stream, "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{rest}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A file of tokens with one of the scope `read`; its text.
pub(crate) fn token(path: &Path) -> (highwater_server::Tokens, String) {
    let tokens = highwater_server::Tokens::at(path);
    let made = tokens.create("operator", highwater_server::Scope::Read, &Env::system()).unwrap();
    (tokens, made.text)
}
