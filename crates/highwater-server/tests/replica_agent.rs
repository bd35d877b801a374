//! The replica of a node as its agent tells of it: a real store, kept on a real server of stores, behind
//! the agent's own port.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use highwater::agent::{Agent, Rules};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Vault};
use highwater::{Env, Result};
use highwater_replica::agent::OwnReplica;
use highwater_replica::local::MemoryStore;
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore};
use highwater_server::{Agents, Running, Scope, Server, Tokens};
use highwater_vss::{Auth, Running as Stores, Sqlite, VssServer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A server of stores, and an agent's server.
struct World {
    dir: TempDir,
    runtime: Runtime,
    stores: Stores,
    agents: Agents,
    running: Running,
    token: Option<String>,
}

impl World {
    fn new(scope: Option<Scope>) -> World {
        let (dir, runtime) = (TempDir::new().unwrap(), Runtime::new().unwrap());
        let backend = Sqlite::serve(&dir.path().join("stores"), &Env::system()).unwrap();
        let stores = VssServer::builder(Arc::new(backend)).auth(Auth::signature()).start();
        let stores = runtime.block_on(stores).unwrap();
        let agents = Agents::default();
        let mut server = Server::builder(agents.clone());
        let token = scope.map(|scope| {
            let tokens = Tokens::at(dir.path().join("tokens.toml"));
            let text = tokens.create("caller", scope, &Env::system()).unwrap().text;
            (tokens, text)
        });
        let token = token.map(|(tokens, text)| {
            server = Server::builder(agents.clone()).tokens(tokens);
            text
        });
        let running = runtime.block_on(server.start()).unwrap();
        World { dir, runtime, stores, agents, running, token }
    }

    /// The store `store` on the server, over an empty one here.
    fn open(&self, store: &str, owner: &str) -> Result<Arc<ReplicatedStore>> {
        let keys = ReplicaKeys::from_entropy(&[7; 32], store)?;
        let url = format!("http://{}/vss", self.stores.address());
        let auth = VssAuth::Signature(keys.signing_key());
        let remote = VssRemote::builder(url, store).auth(auth).build()?;
        let permissions = Permissions {
            allow_empty: true,
            take_over: Some("a test".to_owned()),
            ..Permissions::default()
        };
        let local = Arc::<MemoryStore>::default();
        let opened = ReplicatedStore::builder(local, Arc::new(remote), keys)
            .owner(owner)
            .permissions(permissions)
            .open();
        opened.map(|(store, _)| Arc::new(store))
    }

    /// An agent of a node, which does nothing by itself.
    fn add(&self, node: &str, store: Option<&Arc<ReplicatedStore>>) {
        let path = |name: &str| self.dir.path().join(name);
        let location: Location = path("vault").to_str().unwrap().parse().unwrap();
        let secret = Secret::Key([7; 32].into());
        let vault = match path("vault").exists() {
            true => Vault::open_with(&location, &secret, &Env::system()).unwrap(),
            false => {
                Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system())
                    .unwrap()
                    .vault
            }
        };
        std::fs::create_dir(path(node)).unwrap();
        let actor = Actor { state_dir: path("state"), name: "test".to_owned() };
        let rules = Rules::default().first_after(None);
        let agent = Agent::builder(path(node), vault, actor).rules(rules);
        let agent = match store {
            Some(store) => agent.replica(OwnReplica::of(store)),
            None => agent,
        };
        self.agents.add(agent.start().unwrap());
    }

    fn http(&self, line: &str, body: &str) -> String {
        let (address, length) = (self.running.address(), body.len());
        let mut stream = TcpStream::connect(address).unwrap();
        let token = self.token.as_ref();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}Content-Type: \
             application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The result of a call, or its error.
    fn call(&self, method: &str, params: Value) -> Value {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let body = self.http("POST /rpc", &call.to_string());
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        match answer["result"].take() {
            Value::Null => answer["error"].take(),
            result => result,
        }
    }

    fn kind(&self, method: &str, params: Value) -> String {
        self.call(method, params)["data"]["kind"].as_str().unwrap().to_owned()
    }

    fn stop(self) {
        self.runtime.block_on(self.running.shutdown()).unwrap();
        self.runtime.block_on(self.stores.shutdown()).unwrap();
    }
}

/// Prometheus has nothing to say about names, units, HELP and TYPE.
fn assert_clean(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: scripts/setup installs it");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{text}");
}

#[test]
fn a_node_tells_what_waits_and_flushes_when_it_is_asked() {
    let world = World::new(None);
    world.add("plain", None);
    assert_eq!(world.kind("get_replica", json!({})), "not_found");
    let store = world.open("alice", "alice@here").unwrap();
    world.add("alice", Some(&store));
    for number in 0..100u32 {
        store.write(format!("k{number}"), number.to_le_bytes()).unwrap();
    }
    // One node has a replica: none need be named.
    let flushed = world.call("flush_replica", json!({}));
    assert_eq!(flushed["pending_writes"], 0, "{flushed}");
    let info = world.call("get_replica", json!({ "node": "alice" }));
    let expected = json!({
        "node": "alice", "backup_exists": true, "backup_required": false, "pending_writes": 0,
        "pending_bytes": 0, "lag_seconds": 0.0, "last_error": null, "epoch": 1, "state": "open",
        "fenced": false, "acknowledged": 100, "written": 100, "seen": null,
    });
    assert_eq!(info, expected);
    for method in ["get_replica", "flush_replica"] {
        assert_eq!(world.kind(method, json!({ "node": "plain" })), "not_found");
        assert_eq!(world.kind(method, json!({ "node": "nobody" })), "not_found");
        assert_eq!(world.kind(method, json!({ "nodes": "alice" })), "input");
    }
    let other = world.open("bob", "bob@here").unwrap();
    world.add("bob", Some(&other));
    assert_eq!(world.kind("get_replica", json!({})), "input");
    assert_eq!(world.call("get_replica", json!({ "node": "bob" }))["acknowledged"], 0);
    let nodes = world.call("get_status", json!({}));
    assert_eq!(nodes["nodes"][0]["replica"]["epoch"], 1, "{nodes}");
    assert!(nodes["nodes"][2]["replica"].is_null(), "{nodes}");
    assert!(nodes["capabilities"].as_array().unwrap().contains(&json!("replica")));
    world.stop();
}

#[test]
fn metrics_are_those_of_the_contract_and_who_is_fenced_is_told_on_every_face() {
    let world = World::new(None);
    let store = world.open("alice", "alice@here").unwrap();
    world.add("alice", Some(&store));
    world.add("plain", None);
    store.write("k", "v").unwrap();
    world.call("flush_replica", json!({}));
    let well = world.http("GET /metrics", "");
    for line in [
        "highwater_replica_info{node=\"alice\"} 1",
        "highwater_replica_pending_writes{node=\"alice\"} 0",
        "highwater_replica_pending_bytes{node=\"alice\"} 0",
        "highwater_replica_lag_seconds{node=\"alice\"} 0",
        "highwater_replica_backup_exists{node=\"alice\"} 1",
        "highwater_replica_fenced{node=\"alice\"} 0",
        "highwater_replica_lost{node=\"alice\"} 0",
        "highwater_replica_failing{node=\"alice\"} 0",
    ] {
        assert!(well.lines().any(|found| found == line), "{line} is not in\n{well}");
        let name = line.split('{').next().unwrap();
        assert!(well.contains(&format!("# HELP {name} ")), "no help: {name}");
        assert!(!well.contains(&format!("{name}{{node=\"plain\"")), "{name}\n{well}");
    }
    assert_clean(&well);
    let _other = world.open("alice", "mallory@there").unwrap();
    store.write("k", "w").unwrap();
    assert_eq!(world.kind("flush_replica", json!({})), "fenced");
    let info = world.call("get_replica", json!({}));
    assert_eq!((&info["fenced"], &info["backup_exists"]), (&json!(true), &json!(false)), "{info}");
    assert!(info["last_error"].as_str().unwrap().contains("mallory@there"), "{info}");
    let fenced = world.http("GET /metrics", "");
    for name in [
        "fenced{node=\"alice\"} 1",
        "failing{node=\"alice\"} 1",
        "pending_writes{node=\"alice\"} 1",
    ] {
        assert!(fenced.contains(name), "{name} is not in\n{fenced}");
    }
    assert_clean(&fenced);
    let ready: Value = serde_json::from_str(&world.http("GET /readyz", "")).unwrap();
    assert!(ready["reasons"].as_array().unwrap().contains(&json!("replica_fenced")), "{ready}");
    let page = world.http("GET /", "");
    assert!(page.contains("Fenced") && page.contains("mallory@there"), "{page}");
    // What is not known any more has no sample.
    drop(store);
    let closed = world.http("GET /metrics", "");
    assert!(closed.contains("highwater_replica_failing{node=\"alice\"} 1"), "{closed}");
    assert!(!closed.contains("highwater_replica_pending_writes"), "{closed}");
    assert_clean(&closed);
    world.stop();
}

#[test]
fn who_may_look_may_not_flush() {
    let world = World::new(Some(Scope::Read));
    let store = world.open("alice", "alice@here").unwrap();
    world.add("alice", Some(&store));
    assert_eq!(world.call("get_replica", json!({}))["node"], "alice");
    assert_eq!(world.kind("flush_replica", json!({})), "denied");
    world.stop();
    let world = World::new(Some(Scope::Backup));
    let store = world.open("alice", "alice@here").unwrap();
    world.add("alice", Some(&store));
    assert_eq!(world.call("flush_replica", json!({}))["node"], "alice");
    world.stop();
}
