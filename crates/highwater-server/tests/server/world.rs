//! A node with an agent, a server before it, and clients.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use highwater::agent::{Agent, AgentBuilder, Rules, VaultSource};
use highwater::backup::BackupOptions;
use highwater::vault::{Actor, CreateOptions, Location, Secret, Vault};
use highwater::{Env, Error};
use highwater_server::v1::backups_client::BackupsClient;
use highwater_server::v1::guard_client::GuardClient;
use highwater_server::{Agents, Running, Scope, Server, ServerBuilder, Tokens};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tonic::transport::{Channel, Endpoint};

/// A temporary directory with a node, a vault and an agent that does nothing by itself.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) agents: Agents,
}

impl World {
    /// With one node, called `node`.
    pub(crate) fn new() -> World {
        let world = World::empty();
        world.add("node");
        world
    }

    pub(crate) fn empty() -> World {
        World { agents: Agents::default(), dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One more node with an agent, in the same vault.
    pub(crate) fn add(&self, name: &str) -> Agent {
        let node = make_node(&self.path(name));
        self.add_agent(Agent::builder(node, self.vault(), self.actor()))
    }

    pub(crate) fn add_agent(&self, builder: AgentBuilder) -> Agent {
        let rules = Rules::default().first_after(None);
        // What a vault waits for must not wait on a thread of the test's runtime.
        let agent = block_in_place(|| builder.rules(rules).start().unwrap());
        self.agents.add(agent.clone());
        agent
    }

    /// A node whose backups stand still where they begin, until they are let go.
    pub(crate) fn add_held(&self, name: &str) -> Hold {
        let (tell, reached) = mpsc::unbounded_channel();
        let (go, wait) = std::sync::mpsc::channel();
        let wait = std::sync::Mutex::new(wait);
        let builder = Agent::builder(make_node(&self.path(name)), self.vault(), self.actor());
        self.add_agent(builder.options_from(move || {
            tell.send(()).unwrap();
            // An error is the end of the test.
            let _ = wait.lock().unwrap().recv();
            Ok(BackupOptions::default())
        }));
        Hold { reached, go }
    }

    /// An agent whose vault can't be opened, and why.
    pub(crate) fn add_without_vault(&self, name: &str, why: fn() -> Error) -> Agent {
        let source = VaultSource::new("nowhere", move || Err(why()));
        self.add_agent(Agent::builder(make_node(&self.path(name)), source, self.actor()))
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor { state_dir: self.path("state"), name: "test".to_owned() }
    }

    /// The vault of the world.
    pub(crate) fn vault(&self) -> Vault {
        let location: Location = self.path("vault").to_str().unwrap().parse().unwrap();
        let secret = Secret::Key([7; 32].into());
        block_in_place(|| match self.path("vault").exists() {
            true => Vault::open_with(&location, &secret, &Env::system()).unwrap(),
            false => {
                Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system())
                    .unwrap()
                    .vault
            }
        })
    }

    pub(crate) fn server(&self) -> ServerBuilder {
        Server::builder(self.agents.clone())
    }

    /// A token of each scope, in a file.
    pub(crate) fn tokens(&self) -> (Tokens, [String; 3]) {
        let tokens = Tokens::at(self.path("tokens.toml"));
        let make = |scope: Scope| {
            tokens.create(&format!("{}-caller", scope.name()), scope, &Env::system()).unwrap().text
        };
        let texts = [Scope::Read, Scope::Backup, Scope::Admin].map(make);
        (tokens, texts)
    }

    /// The lines of the audit file.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A server without tokens, on loopback.
    pub(crate) async fn serve(&self) -> Serving {
        Serving::of(self.server()).await
    }
}

/// Backups that stand still.
pub(crate) struct Hold {
    reached: mpsc::UnboundedReceiver<()>,
    go: std::sync::mpsc::Sender<()>,
}

impl Hold {
    /// Waits until a backup stands.
    pub(crate) async fn reached(&mut self) {
        self.reached.recv().await.unwrap();
    }

    /// Lets one go on.
    pub(crate) fn release(&self) {
        self.go.send(()).unwrap();
    }
}

/// A request with a token.
pub(crate) fn bearing<T>(token: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// A small SQLite database in a directory of its own.
pub(crate) fn make_node(dir: &Path) -> PathBuf {
    std::fs::create_dir(dir).unwrap();
    let database = rusqlite::Connection::open(dir.join("state.sqlite")).unwrap();
    database.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1);").unwrap();
    dir.to_owned()
}

/// A server that runs, and clients of it.
pub(crate) struct Serving {
    pub(crate) running: Running,
}

impl Serving {
    pub(crate) async fn of(builder: ServerBuilder) -> Serving {
        Serving { running: builder.start().await.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address()
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address())).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn backups(&self) -> BackupsClient<Channel> {
        BackupsClient::new(self.channel().await)
    }

    pub(crate) async fn guard(&self) -> GuardClient<Channel> {
        GuardClient::new(self.channel().await)
    }

    /// Sends a request as it is written, and reads to the end of the answer.
    pub(crate) async fn raw(&self, request: impl Into<Vec<u8>>) -> Answer {
        raw(self.address(), request.into()).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &str) -> Answer {
        let host = self.address();
        self.raw(format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    /// Posts a document to `/rpc`.
    pub(crate) async fn post(&self, body: &str, headers: &str) -> Answer {
        let (host, length) = (self.address(), body.len());
        self.raw(format!(
            "POST /rpc HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        ))
        .await
    }

    /// Calls a method of JSON-RPC, and returns the whole answer.
    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Value {
        self.rpc_with("", method, params).await
    }

    /// The same with these headers.
    pub(crate) async fn rpc_with(&self, headers: &str, method: &str, params: Value) -> Value {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.post(&call.to_string(), headers).await;
        serde_json::from_str(&answer.body).unwrap()
    }
}

/// Sends bytes, and reads to the end of the answer.
pub(crate) async fn raw(address: SocketAddr, request: Vec<u8>) -> Answer {
    let work = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        // A server that has read enough closes; what it said is there.
        let _ = stream.write_all(&request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(&answer)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// What a server has said by HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(answer: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let (_, headers) = head.split_once("\r\n").unwrap_or(("", ""));
        Answer { code, headers: headers.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
