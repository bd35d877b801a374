//! For tests: a node with an agent, a real server in front of it, and ways to break what it sends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt as _};
use highwater::agent::{Agent, OperationState, Rules, Task, VaultSource};
use highwater::archive::{Export, ExportOptions};
use highwater::backup::BackupOptions;
use highwater::vault::{Actor, CreateOptions, Location, Secret, Selector, Vault};
use highwater::{Control, Env};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::Agents;
use crate::client::PullOptions;
use crate::grpc::Services;
use crate::limits::Limits;
use crate::state::ServerState;
use crate::stream::Messages;
use crate::v1::backups_server::{Backups, BackupsServer};
use crate::v1::{self, StreamRequest};

/// Changes the messages of a stream on their way out.
pub(crate) type Tamper = Arc<dyn Fn(&StreamRequest, Messages) -> Messages + Send + Sync>;

/// Nothing is changed.
pub(crate) fn honest() -> Tamper {
    Arc::new(|_, messages| messages)
}

/// A node with one database and one file, its agent, its vault.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) agent: Agent,
    pub(crate) state: Arc<ServerState>,
    pub(crate) runtime: Runtime,
    /// The height that the node reports at a barrier.
    pub(crate) height: Arc<AtomicU64>,
    /// What a backup waits for before it begins.
    pub(crate) gate: Arc<Mutex<()>>,
}

pub(crate) fn secret() -> Secret {
    Secret::Key(zeroize::Zeroizing::new([7; 32]))
}

/// Bytes that don't compress.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

impl Bench {
    /// A node of some five chunks.
    pub(crate) fn new() -> Bench {
        Bench::of_bytes(9 << 19)
    }

    pub(crate) fn of_bytes(bytes: usize) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::create_with(
            &place(dir.path()),
            &secret(),
            &CreateOptions::default(),
            &Env::system(),
        )
        .unwrap();
        let node = dir.path().join("node");
        std::fs::create_dir(&node).unwrap();
        std::fs::write(node.join("large"), noise(bytes, 0)).unwrap();
        let database = rusqlite::Connection::open(node.join("state.sqlite")).unwrap();
        database.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1);").unwrap();
        Bench::in_dir(dir, VaultSource::from(vault.vault))
    }

    /// The same node behind another way to its vault.
    pub(crate) fn in_dir(dir: tempfile::TempDir, vault: VaultSource) -> Bench {
        let height = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Mutex::new(()));
        let (reported, opened) = (Arc::clone(&height), Arc::clone(&gate));
        let actor = Actor { state_dir: dir.path().join("state"), name: "test".to_owned() };
        let agent = Agent::builder(dir.path().join("node"), vault, actor)
            .rules(Rules::default().first_after(None))
            .data_dir(dir.path().join("data"))
            .options_from(move || {
                drop(opened.lock().unwrap());
                let height = reported.load(Ordering::Relaxed);
                let marks = (height > 0).then(|| ("height".to_owned(), height));
                let mut options = BackupOptions::default();
                options.marks = marks.into_iter().collect();
                Ok(options)
            });
        std::fs::create_dir_all(dir.path().join("data")).unwrap();
        std::fs::create_dir_all(dir.path().join("out")).unwrap();
        let agent = agent.start().unwrap();
        let agents = Agents::default();
        agents.add(agent.clone());
        let runtime = Runtime::new().unwrap();
        let limits = Limits { streams: 2, ..Limits::default() };
        let state = Arc::new(ServerState::new(agents, limits, Env::system()));
        Bench { dir, agent, state, runtime, height, gate }
    }

    /// Where pulls go.
    pub(crate) fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// The names of all that pulls have left.
    pub(crate) fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.out()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The node changes, and is backed up.
    pub(crate) fn back_up(&self, seed: u64) -> String {
        std::fs::write(self.dir.path().join("node/small"), noise(4096, seed)).unwrap();
        let done = self.agent.wait(self.agent.begin(Task::Backup).unwrap().id).unwrap();
        assert_eq!((done.state, done.reason), (OperationState::Completed, None));
        done.snapshot.unwrap().to_string()
    }

    pub(crate) fn vault(&self) -> Arc<Vault> {
        self.agent.vault().get().unwrap()
    }

    /// The archive as the library writes it.
    pub(crate) fn export(&self, snapshot: &str, since: Option<&str>) -> Vec<u8> {
        let select = |id: &str| Selector { snapshot: id.to_owned(), ..Selector::default() };
        let options = ExportOptions::default().selector(select(snapshot)).since(since.map(select));
        let mut bytes = Vec::new();
        let vault = self.vault();
        let export = Export::new(&vault, &options).unwrap();
        let report = export.write(&mut bytes, &Control::new(Env::system())).unwrap();
        assert_eq!((report.bytes, export.bytes()), (bytes.len() as u64, bytes.len() as u64));
        bytes
    }

    /// Serves the agent on a port of its own, for as long as the bench lives.
    pub(crate) fn serve(&self, tamper: Tamper) -> SocketAddr {
        self.serve_with(tamper, &["stream", "stream.resume"], None)
    }

    pub(crate) fn serve_with(
        &self,
        tamper: Tamper,
        capabilities: &'static [&'static str],
        identity: Option<Identity>,
    ) -> SocketAddr {
        let face = Face { services: Services(Arc::clone(&self.state)), tamper, capabilities };
        self.runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut server = Server::builder();
            if let Some(identity) = identity {
                server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
            }
            let serving = server
                .add_service(BackupsServer::new(face))
                .serve_with_incoming(TcpListenerStream::new(listener));
            self.runtime.spawn(serving);
            address
        })
    }

    /// A pull of the newest snapshot from there.
    pub(crate) fn latest(&self, address: SocketAddr) -> PullOptions {
        PullOptions { snapshot: Some("latest".to_owned()), ..self.fresh(address) }
    }

    /// A pull of a backup that is made for it.
    pub(crate) fn fresh(&self, address: SocketAddr) -> PullOptions {
        PullOptions {
            url: format!("http://{address}"),
            output: Some(self.out().join("a.hwa")),
            ..PullOptions::default()
        }
    }
}

/// The vault of a bench.
pub(crate) fn place(dir: &Path) -> Location {
    Location::Local(dir.join("vault"))
}

/// A server that can do nothing but stream.
struct Face {
    services: Services,
    tamper: Tamper,
    capabilities: &'static [&'static str],
}

type Answer<T> = Result<Response<T>, Status>;
type Operations = Pin<Box<dyn Stream<Item = Result<v1::Operation, Status>> + Send>>;

macro_rules! unable {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(fn $name<'a, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("not here")) })
        })*
    };
}

#[tonic::async_trait]
impl Backups for Face {
    type WatchOperationStream = Operations;
    type StreamStream = Messages;

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Answer<v1::GetStatusResponse> {
        let mut answer = self.services.get_status(request).await?;
        let capabilities = self.capabilities.iter().map(|&name| name.to_owned());
        answer.get_mut().capabilities = capabilities.collect();
        Ok(answer)
    }

    async fn stream(&self, request: Request<StreamRequest>) -> Answer<Messages> {
        let asked = request.get_ref().clone();
        let answer = self.services.stream(request).await?;
        Ok(answer.map(|messages| (self.tamper)(&asked, messages)))
    }

    unable! {
        start_backup(v1::StartBackupRequest) -> v1::Operation;
        get_operation(v1::GetOperationRequest) -> v1::Operation;
        list_operations(v1::ListOperationsRequest) -> v1::ListOperationsResponse;
        cancel_operation(v1::CancelOperationRequest) -> v1::Operation;
        watch_operation(v1::WatchOperationRequest) -> Operations;
        list_snapshots(v1::ListSnapshotsRequest) -> v1::ListSnapshotsResponse;
        get_snapshot(v1::GetSnapshotRequest) -> v1::Snapshot;
        check(v1::CheckRequest) -> v1::Operation;
    }
}

/// Lets `count` messages through, then ends with `end`, or as if all were well. What is not longer stays
/// as it is.
pub(crate) fn cut(messages: Messages, count: usize, end: Option<Status>) -> Messages {
    let left = (messages, count, end);
    Box::pin(futures::stream::unfold(left, async |(mut messages, count, end)| {
        let next = messages.next().await?;
        match (count, end) {
            (0, end) => {
                let nothing: Messages = Box::pin(futures::stream::empty());
                Some((Err(end?), (nothing, 0, None)))
            }
            (_, end) => Some((next, (messages, count - 1, end))),
        }
    }))
}
