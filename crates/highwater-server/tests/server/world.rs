//! A node with an agent, a server before it, and clients.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use highwater::Env;
use highwater::agent::{Agent, Rules};
use highwater::vault::{Actor, Location, Secret, Vault};
use highwater_server::v1::backups_client::BackupsClient;
use highwater_server::v1::guard_client::GuardClient;
use highwater_server::{Agents, Running, Server, ServerBuilder};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

/// A temporary directory with a node, a vault and an agent that does nothing by itself.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) agents: Agents,
}

impl World {
    pub(crate) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let world = World { agents: Agents::default(), dir };
        world.add("node");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One more node with an agent, in the same vault.
    pub(crate) fn add(&self, name: &str) -> Agent {
        let node = make_node(&self.path(name));
        self.add_agent(Agent::builder(node, self.vault(), self.actor()))
    }

    pub(crate) fn add_agent(&self, builder: highwater::agent::AgentBuilder) -> Agent {
        let rules = Rules { first_after: None, ..Rules::default() };
        let agent = builder.rules(rules).start().unwrap();
        self.agents.add(agent.clone());
        agent
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor { state_dir: self.path("state"), name: "test".to_owned() }
    }

    /// The vault of the world.
    pub(crate) fn vault(&self) -> Vault {
        let location: Location = self.path("vault").to_str().unwrap().parse().unwrap();
        let secret = Secret::Key([7; 32].into());
        match self.path("vault").exists() {
            true => Vault::open(&location, &secret, &Env::system()).unwrap(),
            false => Vault::create(&location, &secret, false, &Env::system()).unwrap().vault,
        }
    }

    pub(crate) fn server(&self) -> ServerBuilder {
        Server::builder(self.agents.clone())
    }

    /// A server without tokens, on loopback.
    pub(crate) async fn serve(&self) -> Serving {
        Serving::of(self.server()).await
    }
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
        let (address, request) = (self.address(), request.into());
        let work = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&request).unwrap();
            let mut answer = Vec::new();
            // A server that has read enough closes; what it said is there.
            let _ = stream.read_to_end(&mut answer);
            Answer::parse(&answer)
        };
        tokio::task::spawn_blocking(work).await.unwrap()
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
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.post(&call.to_string(), "").await;
        serde_json::from_str(&answer.body).unwrap()
    }
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
