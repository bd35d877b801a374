//! A ledger and nodes as processes, and what a test asks them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use highwater::Env;
use highwater::vault::{CreateOptions, Location, Secret, Vault};
use serde_json::{Value, json};

use super::tap::Tap;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_channel-node");
/// What a test waits for comes within so many looks, 20 milliseconds apart.
pub(crate) const LOOKS_MAX: usize = 3000;

/// The node that calls the other one.
pub(crate) const ALICE: usize = 0;
pub(crate) const BOB: usize = 1;

pub(crate) struct World {
    dir: tempfile::TempDir,
    ledger: Process,
    nodes: Vec<Node>,
    aside: Option<Process>,
}

pub(crate) struct Node {
    name: &'static str,
    pub(crate) policy: &'static str,
    /// It is told of the vault.
    pub(crate) vault: bool,
    pub(crate) flags: Vec<String>,
    process: Option<Process>,
    key: String,
}

struct Process {
    child: Child,
    hello: Value,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    /// A ledger, a vault, and two nodes that run and are connected: 0 calls 1.
    pub(crate) fn new(policy: &'static str) -> World {
        let mut world = World::stopped(policy);
        world.start(0);
        world.start(1);
        world.connect();
        world
    }

    /// The same, and all that the two say to each other goes over a wire that listens. The policy is
    /// node 0's; node 1 has no witness.
    pub(crate) fn tapped(policy: &'static str, tap: &Tap) -> World {
        let mut world = World::stopped(policy);
        world.nodes[1].policy = "peer";
        world.nodes[0].flags.push(format!("--peer=bob={}", tap.address()));
        world.start_tapped(1, tap);
        world.start_tapped(0, tap);
        world
    }

    /// A ledger, a vault, and two nodes that don't run yet.
    fn stopped(policy: &'static str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::create_key_file(&dir.path().join("vault.key")).unwrap();
        let vault = Location::Local(dir.path().join("vault"));
        Vault::create_with(&vault, &secret, &CreateOptions::default(), &Env::system()).unwrap();
        let ledger = Process::start(&["ledger"], &[]);
        let mut world = World { dir, ledger, nodes: Vec::new(), aside: None };
        for name in ["alice", "bob"] {
            let init = program(&["init", text(&world.home(name))]);
            let key = init["node"].as_str().unwrap().to_owned();
            let flags = Vec::new();
            world.nodes.push(Node { name, policy, vault: true, flags, process: None, key });
        }
        world
    }

    pub(crate) fn node(&mut self, who: usize) -> &mut Node {
        &mut self.nodes[who]
    }

    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn home_of(&self, who: usize) -> PathBuf {
        self.home(self.nodes[who].name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn vault_flags(&self) -> Vec<String> {
        let (vault, key) = (self.path("vault"), self.path("vault.key"));
        ["--vault", text(&vault), "--key-file", text(&key)].map(str::to_owned).to_vec()
    }

    pub(crate) fn start(&mut self, who: usize) {
        let home = self.home_of(who);
        let ledger = self.ledger();
        let node = &self.nodes[who];
        let mut flags = if node.vault { self.vault_flags() } else { Vec::new() };
        flags.extend(node.flags.iter().cloned());
        let name = node.name;
        let arguments = ["run", "--dir", text(&home), "--name", name, "--ledger", &ledger];
        let policy = ["--policy", node.policy].map(str::to_owned);
        flags.extend(policy);
        self.nodes[who].process = Some(Process::start(&arguments, &flags));
    }

    /// Starts a node, and waits until it has a session over the wire where both run.
    pub(crate) fn start_tapped(&mut self, who: usize, tap: &Tap) {
        self.start(who);
        if who == 1 {
            tap.lead_to(self.running(1).hello["listen"].as_str().unwrap().parse().unwrap());
        }
        if self.nodes.iter().all(|node| node.process.is_some()) {
            self.await_session();
        }
    }

    /// Waits until each node has a session with the other.
    pub(crate) fn await_session(&self) {
        for who in [0, 1] {
            let key = json!(self.nodes[1 - who].key);
            self.wait(who, |list| list["sessions"].as_array().unwrap().contains(&key));
        }
    }

    /// Node 0 calls node 1 from now on.
    pub(crate) fn connect(&mut self) {
        let address = self.running(1).hello["listen"].clone();
        self.ask(0, json!({ "command": "connect", "name": "bob", "address": address }));
        let key = json!(self.nodes[1].key);
        self.wait(0, |list| list["sessions"].as_array().unwrap().contains(&key));
    }

    /// Ends a node as a power cut does.
    pub(crate) fn kill(&mut self, who: usize) {
        self.nodes[who].process = None;
    }

    /// Ends a node as an operator does; whether it ended well.
    pub(crate) fn stop(&mut self, who: usize) -> bool {
        let mut process = self.nodes[who].process.take().unwrap();
        let stopped = request(&process, "control", json!({ "command": "stop" }));
        assert_eq!(stopped["ok"], "done");
        process.child.wait().unwrap().success()
    }

    /// Puts the process of a node aside, so that another can be started in its place.
    pub(crate) fn set_aside(&mut self, who: usize) {
        self.aside = self.nodes[who].process.take();
    }

    /// The process that was set aside ends on its own: its exit code, and its last words.
    pub(crate) fn last_words_aside(&mut self) -> (Option<i32>, Value) {
        let mut process = self.aside.take().unwrap();
        let ended = (0..LOOKS_MAX).find_map(|_| {
            Env::system().pause(Duration::from_millis(20));
            process.child.try_wait().unwrap()
        });
        let code = ended.expect("it ends").code();
        let mut words = String::new();
        let stderr = process.child.stderr.take().unwrap();
        BufReader::new(stderr).read_line(&mut words).unwrap();
        (code, serde_json::from_str(&words).unwrap_or_default())
    }

    /// Asks a node; the whole reply.
    pub(crate) fn reply(&self, who: usize, question: Value) -> Value {
        request(self.running(who), "control", question)
    }

    /// Asks a node, which agrees.
    pub(crate) fn ask(&self, who: usize, question: Value) -> Value {
        let mut reply = self.reply(who, question.clone());
        assert!(reply.get("error").is_none(), "{question}: {reply}");
        reply["ok"].take()
    }

    pub(crate) fn list(&self, who: usize) -> Value {
        self.ask(who, json!({ "command": "list" }))
    }

    /// Waits until the list of a node is as wanted.
    pub(crate) fn wait(&self, who: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut list = Value::Null;
        for _ in 0..LOOKS_MAX {
            list = self.list(who);
            if wanted(&list) {
                return list;
            }
            Env::system().pause(Duration::from_millis(20));
        }
        panic!("it never came: {list:#}");
    }

    pub(crate) fn channel(list: &Value, id: &str) -> Value {
        let channels = list["channels"].as_array().unwrap();
        channels.iter().find(|channel| channel["id"] == id).cloned().unwrap_or_default()
    }

    /// Waits until a channel is in that state.
    pub(crate) fn wait_state(&self, who: usize, id: &str, state: &str) -> Value {
        let list = self.wait(who, |list| World::channel(list, id)["state"] == state);
        World::channel(&list, id)
    }

    /// Opens a channel from node 0 to node 1.
    pub(crate) fn open(&self) -> String {
        let open = json!({ "command": "open", "peer": "bob", "ours": 50_000, "theirs": 50_000 });
        let id = self.ask(0, open)["channel"].as_str().unwrap().to_owned();
        for who in [0, 1] {
            self.wait(who, |list| {
                self.advance(1);
                World::channel(list, &id)["state"] == "open"
            });
        }
        id
    }

    /// A payment that the peer of `from` asks for: the command, and its hash.
    pub(crate) fn payment(&self, from: usize, id: &str, amount: u64) -> (Value, Value) {
        let invoice = self.ask(1 - from, json!({ "command": "invoice" }));
        let hash = invoice["invoice"].clone();
        let pay = json!({ "command": "pay", "channel": id, "amount": amount, "hash": hash });
        (pay, hash)
    }

    /// Waits until a payment has arrived, and its payer has the proof.
    pub(crate) fn await_paid(&self, from: usize, hash: &Value) {
        let paid = || {
            let payment = self.ask(from, json!({ "command": "payment", "hash": hash }));
            payment["state"]["paid"].is_string()
        };
        self.wait(from, |_| paid());
    }

    /// Pays, and sees it arrive on both sides.
    pub(crate) fn pay(&self, from: usize, id: &str, amount: u64) {
        let (pay, hash) = self.payment(from, id, amount);
        self.ask(from, pay);
        for who in [from, 1 - from] {
            self.wait(who, |list| World::channel(list, id)["settled"] == true);
        }
        let payment = self.ask(from, json!({ "command": "payment", "hash": hash }));
        assert!(payment["state"]["paid"].is_string(), "{payment}");
    }

    /// Where the ledger listens.
    pub(crate) fn ledger(&self) -> String {
        self.ledger.hello["listen"].as_str().unwrap().to_owned()
    }

    pub(crate) fn advance(&self, blocks: u64) {
        let question = json!({ "command": "advance", "blocks": blocks });
        assert!(request(&self.ledger, "listen", question)["ok"].is_object());
    }

    pub(crate) fn view(&self, id: &str) -> Value {
        request(&self.ledger, "listen", json!({ "command": "view", "channel": id }))["ok"].take()
    }

    /// Adds blocks one by one until the ledger has paid the channel out; what the two got.
    pub(crate) fn paid(&self, id: &str) -> (u64, u64) {
        for _ in 0..LOOKS_MAX {
            let view = self.view(id);
            if let Some(opener) = view["paid"]["opener"].as_u64() {
                return (opener, view["paid"]["acceptor"].as_u64().unwrap());
            }
            // The nodes look at each block, so that they can punish within the delay.
            self.advance(1);
            for _ in 0..10 {
                Env::system().pause(Duration::from_millis(20));
            }
        }
        panic!("never paid: {:#}", self.view(id));
    }

    pub(crate) fn backup(&self, who: usize) -> Value {
        self.ask(who, json!({ "command": "backup" }))
    }

    /// Brings the newest backup back.
    pub(crate) fn restore(&self, who: usize, original_gone: bool) -> Value {
        self.restore_snapshot(who, original_gone, "latest")
    }

    /// Brings a backup back.
    pub(crate) fn restore_snapshot(&self, who: usize, original_gone: bool, id: &str) -> Value {
        let home = self.home_of(who);
        let name = self.nodes[who].name;
        let mut arguments =
            vec!["restore", text(&home), "--force", "--name", name, "--snapshot", id];
        if original_gone {
            arguments.extend(["--original-gone", "its disk was burnt"]);
        }
        let flags = self.vault_flags();
        arguments.extend(flags.iter().map(String::as_str));
        program(&arguments)
    }

    fn running(&self, who: usize) -> &Process {
        self.nodes[who].process.as_ref().expect("it runs")
    }
}

impl Process {
    fn start(arguments: &[&str], more: &[String]) -> Process {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let hello = serde_json::from_str(&line).unwrap_or_default();
        Process { child, hello }
    }
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

/// Runs the program to its end; its answer.
pub(crate) fn program(arguments: &[&str]) -> Value {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn request(process: &Process, port: &str, question: Value) -> Value {
    let address = process.hello[port].as_str().expect("it has said where it listens");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{question}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("{question}: `{line}`"))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
