//! `serve`: the agent as operators run it, over its port and its signals.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

use highwater_replica::local::SqliteStore;
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::freeze::child::Writer;
use crate::vss::Server;
use crate::world::{ROWS, World, assert_node, make_node};

const LONG: Duration = Duration::from_secs(60);

/// A running agent, killed when it is dropped.
struct Served {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    /// Starts it, and waits until it listens.
    fn start(world: &World) -> Served {
        Served::start_with(world, &[])
    }

    /// The same, with variables.
    fn start_with(world: &World, variables: &[(&str, &str)]) -> Served {
        let mut command = world.command(&["serve", "--config", "highwater.toml", "--json"]);
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut served = Served { child, lines, address: String::new() };
        let line = served.event("listening");
        served.address = line["address"].as_str().unwrap().to_owned();
        served
    }

    /// The next line that it tells.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The next line of this event; those of others are passed over.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let line = self.line();
            if line["event"] == name {
                return line;
            }
        }
    }

    /// The operation of a task, once it has ended.
    fn ended(&mut self, task: &str) -> Value {
        loop {
            let line = self.event("operation");
            if line["task"] == task && line["finished_at"].is_string() {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Status and body of a request.
    fn http(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let (address, length) = (&self.address, body.len());
        let request = format!(
            "{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    fn call(&self, method: &str, params: &Value) -> Value {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (status, body) = self.http("POST /rpc", &call.to_string());
        assert_eq!(status, 200, "{body}");
        let start = body.find('{').unwrap();
        let end = body.rfind('}').unwrap();
        serde_json::from_str(&body[start..=end]).unwrap()
    }
}

/// Settings of one node, with what is added to them.
fn configure(world: &World, more: &str) {
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndata_dir = \"agent\"\n\
         [vault]\nurl = \"vault\"\nkey_file = \"key\"\n\
         [[node]]\nname = \"node\"\ndir = \"node\"\n{more}"
    );
    std::fs::write(world.path("highwater.toml"), text).unwrap();
}

#[test]
fn a_node_is_backed_up_by_interval_tested_and_kept_by_its_policy() {
    let world = World::with_node();
    configure(
        &world,
        "interval = \"1\"\nrestore_test = \"1h\"\npriority = \"normal\"\nno_barrier = true\n\
         [node.retention]\nlast = 2\n",
    );
    let mut served = Served::start(&world);
    for _ in 0..4 {
        let backup = served.ended("backup");
        assert_eq!(backup["state"], "completed", "{backup}");
    }
    let document = world.on_vault(&["snapshots"]).code(0).json();
    assert!(document.as_array().unwrap().len() <= 4, "{document}");
    served.signal(Signal::TERM);
    served.event("stopped");
    assert!(served.child.wait().unwrap().success());
    assert!(!world.on_vault(&["status"]).code(0).json()["nodes"].as_array().unwrap().is_empty());
}

#[test]
fn a_backup_by_rpc_is_an_operation_whose_history_survives_a_kill() {
    let world = World::with_node();
    configure(&world, "no_barrier = true\n");
    let mut served = Served::start(&world);
    assert_eq!(served.http("GET /healthz", "").0, 200);
    let started = served.call("backup_now", &json!({"node": "node"}));
    let id = started["result"]["operation"].as_str().unwrap().to_owned();
    assert_eq!(served.ended("backup")["id"], json!(id));
    served.signal(Signal::KILL);
    served.child.wait().unwrap();
    let served = Served::start(&world);
    let found = served.call("backup_status", &json!({"operation": id}));
    assert_eq!(found["result"]["state"], "completed", "{found}");
    world.on_vault(&["restore", "latest", "back"]).code(0);
    assert_node(&world.path("back"), ROWS);
}

#[test]
fn an_operation_that_was_running_when_the_agent_was_killed_has_failed() {
    let world = World::with_node();
    configure(&world, "no_barrier = true\n");
    let dies = [("HIGHWATER_FAULT_POINT", "backup.manifest")];
    let mut served = Served::start_with(&world, &dies);
    let started = served.call("backup_now", &json!({}));
    let id = started["result"]["operation"].as_str().unwrap().to_owned();
    // It is killed when all packs are there, and the manifest is not.
    assert!(!served.child.wait().unwrap().success());
    let mut served = Served::start(&world);
    let found = served.call("backup_status", &json!({"operation": id}));
    assert_eq!(found["result"]["state"], "failed", "{found}");
    // What it had announced is collected, and the next one works.
    served.call("backup_now", &json!({}));
    assert_eq!(served.ended("backup")["state"], "completed");
}

#[test]
fn a_reload_takes_nodes_in_and_out_and_refuses_what_is_wrong() {
    let world = World::with_node();
    configure(&world, "no_barrier = true\n");
    make_node(&world.path("second"));
    let mut served = Served::start(&world);
    let nodes = |served: &Served| {
        let info = served.call("backup_info", &json!({}));
        let nodes = info["result"]["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["node"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&served), ["node"]);
    configure(&world, "no_barrier = true\n[[node]]\nname = \"second\"\ndir = \"second\"\n");
    served.signal(Signal::HUP);
    served.event("reloaded");
    assert_eq!(nodes(&served), ["node", "second"]);
    for wrong in ["nonsense = 1\n", "cron = \"never\"\n", "priority = \"high\"\n"] {
        configure(&world, wrong);
        served.signal(Signal::HUP);
        let refused = served.event("not_reloaded");
        assert!(refused["error"]["message"].is_string(), "{refused}");
        assert_eq!(nodes(&served), ["node", "second"]);
    }
    configure(&world, "no_barrier = true\n");
    served.signal(Signal::HUP);
    served.event("reloaded");
    assert_eq!(nodes(&served), ["node"]);
}

/// A disk that is not mounted yet keeps no other node from being backed up.
#[test]
fn a_missing_directory_keeps_no_other_node_from_being_served() {
    let world = World::with_node();
    configure(&world, "no_barrier = true\n[[node]]\nname = \"gone\"\ndir = \"nowhere\"\n");
    let mut command = world.command(&["serve", "--config", "highwater.toml", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let mut served = Served { child, lines, address: String::new() };
    let missing = served.event("missing");
    assert_eq!(missing["node"], "gone");
    let line = served.event("listening");
    served.address = line["address"].as_str().unwrap().to_owned();
    served.call("backup_now", &json!({"node": "gone"}));
    let failed = served.ended("backup");
    assert_eq!((&failed["state"], &failed["node"]), (&json!("failed"), &json!("gone")), "{failed}");
    served.call("backup_now", &json!({"node": "node"}));
    assert_eq!(served.ended("backup")["state"], "completed");
    // Once it is there, it is backed up.
    make_node(&world.path("nowhere"));
    served.call("backup_now", &json!({"node": "gone"}));
    let done = served.ended("backup");
    assert_eq!((&done["state"], &done["node"]), (&json!("completed"), &json!("gone")), "{done}");
}

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// The node's own store, in the node directory or elsewhere.
fn open_store(world: &World, server: &str, file: &str, owner: &str) -> ReplicatedStore {
    let keys = ReplicaKeys::from_mnemonic(WORDS, "node").unwrap();
    let auth = VssAuth::Signature(keys.signing_key());
    let remote = VssRemote::builder(server, "node").auth(auth).build().unwrap();
    let permissions = Permissions {
        allow_empty: true,
        take_over: Some("a test".to_owned()),
        ..Permissions::default()
    };
    let local = SqliteStore::open(world.path(file)).unwrap();
    ReplicatedStore::builder(Arc::new(local), Arc::new(remote), keys)
        .owner(owner)
        .permissions(permissions)
        .open()
        .unwrap()
        .0
}

/// Settings of a node whose replica is on `server`, with what is added to them.
fn configure_replica(world: &World, server: &str, more: &str) {
    configure(
        world,
        &format!(
            "no_barrier = true\n[node.replica]\nlocal = \"../data/state.sqlite\"\nserver = \"{server}\"\n\
             store = \"node\"\nmnemonic_file = \"words\"\ninterval = \"20ms\"\n{more}"
        ),
    );
}

/// The body of an answer; who asks too often is refused for a moment.
fn patient(served: &Served, head: &str, body: &str) -> String {
    loop {
        let (status, body) = served.http(head, body);
        if status != 429 {
            assert_eq!(status, 200, "{body}");
            return body;
        }
    }
}

fn call_patient(served: &Served, method: &str) -> Value {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}});
    serde_json::from_str(&patient(served, "POST /rpc", &call.to_string())).unwrap()
}

/// Asks until the answer is such.
fn replica_once(served: &Served, is: impl Fn(&Value) -> bool) -> Value {
    loop {
        let info = call_patient(served, "replica_info")["result"].take();
        if is(&info) {
            return info;
        }
    }
}

#[test]
fn the_replica_of_another_process_is_looked_at_from_beside() {
    let world = World::with_vault();
    world.write_secret("words", WORDS);
    // Beside the node directory, where nothing but the looks opens it.
    make_node(&world.path("node"));
    std::fs::create_dir(world.path("data")).unwrap();
    let stores = Server::start_as(&world, &["vss", "serve", "--data-dir", "stores"], "signature");
    let url = format!("http://{}/vss", stores.address);
    configure_replica(&world, &url, "");
    let mut served = Served::start(&world);
    let missing = replica_once(&served, |info| info["last_error"].is_string());
    assert!(missing["last_error"].as_str().unwrap().contains("no such database"), "{missing}");
    assert_eq!(
        (&missing["pending_writes"], &missing["backup_exists"]),
        (&Value::Null, &json!(false))
    );
    let node = open_store(&world, &url, "data/state.sqlite", "the node");
    node.write("k", "v").unwrap();
    node.flush(LONG).unwrap();
    let well = replica_once(&served, |info| info["acknowledged"] == 1 && info["fenced"] == false);
    assert_eq!(
        (&well["backup_exists"], &well["backup_required"], &well["epoch"], &well["last_error"]),
        (&json!(true), &json!(false), &json!(1), &Value::Null),
        "{well}"
    );
    let refused = call_patient(&served, "replica_flush");
    assert_eq!(refused["error"]["data"]["kind"], "conflict", "{refused}");
    assert!(
        refused["error"]["data"]["hint"].as_str().unwrap().contains("replica_flush"),
        "{refused}"
    );
    // A node that has ended is looked at as well.
    node.stop().unwrap();
    let at = well["seen"].clone();
    let is_new = |info: &Value| info["seen"] != at && info["last_error"].is_null();
    let ended = replica_once(&served, is_new);
    assert_eq!((&ended["backup_exists"], &ended["epoch"]), (&json!(true), &json!(1)), "{ended}");
    let other = open_store(&world, &url, "elsewhere.sqlite", "mallory");
    let fenced = replica_once(&served, |info| info["fenced"] == true);
    assert!(fenced["last_error"].as_str().unwrap().contains("mallory"), "{fenced}");
    let metrics = patient(&served, "GET /metrics", "");
    assert!(metrics.contains("highwater_replica_fenced{node=\"node\"} 1"), "{metrics}");
    other.stop().unwrap();
    // The same node, and a server that has nothing.
    let empty = Server::start_as(&world, &["vss", "serve", "--data-dir", "none"], "signature");
    configure_replica(&world, &format!("http://{}/vss", empty.address), "");
    served.signal(Signal::HUP);
    served.event("reloaded");
    let lost = replica_once(&served, |info| info["state"] == "lost");
    assert_eq!((&lost["backup_exists"], &lost["fenced"]), (&json!(false), &json!(false)), "{lost}");
    for wrong in
        ["unknown = 1\n", "key_file = \"key\"\n", "auth = \"token\"\n", "ca_file = \"none\"\n"]
    {
        configure_replica(&world, &url, wrong);
        served.signal(Signal::HUP);
        let refused = served.event("not_reloaded");
        assert!(refused["error"]["message"].is_string(), "{refused}");
        assert_eq!(replica_once(&served, |_| true)["state"], "lost", "{wrong}");
    }
    configure_replica(&world, "http://192.0.2.1/vss", "");
    world.run(&["serve", "--config", "highwater.toml", "--json"]).code(2).error("input");
}

#[test]
fn a_running_rocksdb_is_captured_live_or_frozen_and_goes_on() {
    for (capture, barrier) in [("auto", "live"), ("freeze", "frozen"), ("offline", "")] {
        let world = World::with_vault();
        std::fs::create_dir(world.path("node")).unwrap();
        let mut writer = Writer::start("rocksdb", &world.path("node"));
        // A busy machine makes pauses longer than a second.
        let pause = if capture == "offline" { "" } else { "max_pause = \"30s\"\n" };
        configure(&world, &format!("capture = \"{capture}\"\n{pause}"));
        let mut served = Served::start(&world);
        served.call("backup_now", &json!({}));
        let backup = served.ended("backup");
        writer.more();
        if barrier.is_empty() {
            assert_eq!(backup["kind"], "conflict", "{backup}");
            continue;
        }
        assert_eq!(backup["state"], "completed", "{backup}");
        let shown = world.on_vault(&["show", "latest"]).code(0).json();
        assert_eq!(shown["barrier"], barrier, "{shown}");
    }
}

#[test]
fn settings_that_are_wrong_start_nothing() {
    let world = World::with_node();
    let wrong = [
        ("interval = \"0s\"\n", "input"),
        ("interval = \"6h\"\ncron = \"0 * * * *\"\n", "input"),
        ("capture = \"sometimes\"\n", "input"),
        ("capture = \"offline\"\npid_file = \"pid\"\n", "input"),
        ("retentoin = 1\n", "input"),
        ("[[node]]\nname = \"node\"\ndir = \"other\"\n", "input"),
    ];
    for (more, kind) in wrong {
        configure(&world, more);
        let answer = world.run(&["serve", "--config", "highwater.toml", "--json"]);
        answer.error(kind);
    }
    configure(&world, "");
    let settings = std::fs::read_to_string(world.path("highwater.toml")).unwrap();
    let open = settings.replace("127.0.0.1:0", "0.0.0.0:0");
    std::fs::write(world.path("highwater.toml"), open).unwrap();
    world.run(&["serve", "--config", "highwater.toml", "--json"]).code(2).error("input");
    std::fs::write(world.path("highwater.toml"), "[vault]\nurl = \"vault\"\n").unwrap();
    world.run(&["serve", "--config", "highwater.toml", "--json"]).code(2).error("input");
}

/// lnd's static backup is the way back of whoever has lost the rest, and lnd writes it at each channel that is opened.
#[test]
fn a_new_static_backup_of_an_lnd_is_a_reason_for_a_backup() {
    let world = World::with_vault();
    let graph = world.path("node/data/graph/mainnet");
    let chain = world.path("node/data/chain/bitcoin/mainnet");
    std::fs::create_dir_all(&graph).unwrap();
    std::fs::create_dir_all(&chain).unwrap();
    let database = rusqlite::Connection::open(graph.join("channel.sqlite")).unwrap();
    let table = "CREATE TABLE channeldb_kv (key BLOB, value BLOB, parent_id INTEGER, id INTEGER PRIMARY KEY);";
    database.execute_batch(table).unwrap();
    drop(database);
    std::fs::write(chain.join("channel.backup"), "no channels").unwrap();
    configure(&world, "");
    let mut served = Served::start(&world);
    // The first one is made at the start, whatever happens.
    served.ended("backup");
    let fresh = chain.join("channel.backup.new");
    std::fs::write(&fresh, "one channel").unwrap();
    std::fs::rename(&fresh, chain.join("channel.backup")).unwrap();
    let backup = served.ended("backup");
    assert_eq!(backup["state"], "completed", "{backup}");
    served.signal(Signal::TERM);
    served.event("stopped");
    let restored =
        world.run(&["restore", "latest", "new", "--vault", "vault", "--key-file", "key"]).code(0);
    for word in ["restorechanbackup", "channel.backup", "fees"] {
        assert!(restored.stdout.contains(word), "{word}: {}", restored.stdout);
    }
    let kept = world.path("new/data/chain/bitcoin/mainnet/channel.backup");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "one channel");
}
