//! Servers of stores: ours in this process or in one of its own, and the one that the clients' makers
//! publish, where `VSS_UPSTREAM` names its program.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use highwater::Env;
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Remote, ReplicaKeys};
use highwater_vss::{Auth, Backend, Postgres, Running, Sqlite, VssServer};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::cluster::Cluster;
use super::{keys, wire};

/// The variable that names the program of the clients' makers.
const UPSTREAM: &str = "VSS_UPSTREAM";
/// A port may be taken for a moment; then a server is started again.
const STARTS_MAX: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Signature,
    Nobody,
}

/// Which server it is, and where it keeps its stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Sqlite,
    Postgresql,
    /// Not ours, unmodified, on PostgreSQL; it asks nobody who they are.
    Upstream,
}

/// All servers that there are, each with the ways in which clients show who they are.
pub(crate) fn everywhere() -> Vec<(Where, Who)> {
    let mut all = vec![
        (Where::Sqlite, Who::Signature),
        (Where::Sqlite, Who::Nobody),
        (Where::Postgresql, Who::Signature),
        (Where::Postgresql, Who::Nobody),
    ];
    all.extend(upstream().map(|_| (Where::Upstream, Who::Nobody)));
    all
}

/// One way into each server.
pub(crate) fn each() -> Vec<(Where, Who)> {
    let mut all = vec![(Where::Sqlite, Who::Signature), (Where::Postgresql, Who::Nobody)];
    all.extend(upstream().map(|_| (Where::Upstream, Who::Nobody)));
    all
}

fn upstream() -> Option<PathBuf> {
    std::env::var_os(UPSTREAM).map(PathBuf::from)
}

/// A server, ended when this is dropped.
pub(crate) struct Served {
    runtime: Runtime,
    running: Option<Running>,
    process: Option<Process>,
    pub(crate) address: SocketAddr,
    who: Who,
    dir: TempDir,
    pub(crate) cluster: Option<Cluster>,
}

impl Served {
    pub(crate) fn start(place: Where, who: Who) -> Served {
        let (dir, runtime) = (TempDir::new().unwrap(), Runtime::new().unwrap());
        let cluster = (place != Where::Sqlite).then(|| Cluster::start(&[]));
        let url = cluster.as_ref().map(Cluster::database).unwrap_or_default();
        let (mut running, mut process) = (None, None);
        let address = match place {
            Where::Upstream => {
                let process = process.insert(Process::upstream(&url, dir.path(), None));
                process.address
            }
            Where::Sqlite | Where::Postgresql => {
                let backend: Arc<dyn Backend> = match place {
                    Where::Sqlite => Arc::new(Sqlite::serve(dir.path(), &Env::system()).unwrap()),
                    _ => {
                        let connect = Postgres::connect(&url, Env::system());
                        Arc::new(runtime.block_on(connect).unwrap())
                    }
                };
                let auth = if who == Who::Signature { Auth::signature() } else { Auth::none() };
                let start = VssServer::builder(backend).auth(auth).start();
                running.insert(runtime.block_on(start).unwrap()).address()
            }
        };
        Served { runtime, running, process, address, who, dir, cluster }
    }

    /// One in a process of its own, with a store of its own, that can be killed.
    pub(crate) fn start_process(place: Where) -> Served {
        if place != Where::Sqlite {
            return Served::start(place, Who::Nobody);
        }
        let (dir, runtime) = (TempDir::new().unwrap(), Runtime::new().unwrap());
        let process = Process::ours(dir.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let (address, process) = (process.address, Some(process));
        Served { runtime, running: None, process, address, who: Who::Nobody, dir, cluster: None }
    }

    /// Kills its process, and starts it again at the same address.
    pub(crate) fn kill(&mut self) {
        let process = self.process.take().expect("it is a process of its own");
        let upstream = process.url.clone();
        drop(process);
        self.process = Some(match upstream {
            Some(url) => Process::upstream(&url, self.dir.path(), Some(self.address)),
            None => Process::ours(self.dir.path(), self.address),
        });
    }

    pub(crate) fn remote(&self) -> Arc<dyn Remote> {
        remote(self.address, self.who, &keys())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown()).unwrap();
        }
        // Before the database that it has open.
        self.process.take();
    }
}

pub(crate) fn remote(address: SocketAddr, who: Who, keys: &ReplicaKeys) -> Arc<dyn Remote> {
    let auth = match who {
        Who::Signature => VssAuth::Signature(keys.signing_key()),
        Who::Nobody => VssAuth::None,
    };
    let url = format!("http://{address}/vss");
    Arc::new(VssRemote::builder(url, keys.store()).auth(auth).build().unwrap())
}

/// All names of the store, with their versions.
pub(crate) fn names(remote: &Arc<dyn Remote>) -> Vec<(String, i64)> {
    let (mut all, mut page) = (Vec::new(), None);
    loop {
        let listed = remote.list("", page.as_deref()).unwrap();
        all.extend(listed.keys);
        page = listed.next;
        if page.is_none() {
            return all;
        }
    }
}

/// A call beside the protocol; nobody is asked who calls.
pub(crate) fn ask(address: SocketAddr, call: &str, body: &Value) -> Value {
    let mut client = wire::Client::connect(address).unwrap();
    let path = format!("/highwater/v1/{call}");
    let answer = client.post(&path, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// A server that is a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
    /// Of the database, where it is not ours.
    url: Option<String>,
}

const PROCESS: &str = "HIGHWATER_TEST_REPLICA_SERVER";

impl Process {
    /// Serves what is in `dir`, at `address`, and returns once it does.
    fn ours(dir: &Path, address: SocketAddr) -> Process {
        let said = dir.join("address");
        for _ in 0..STARTS_MAX {
            let _ = std::fs::remove_file(&said);
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "served::server_process"])
                .env(PROCESS, format!("{address} {}", dir.display()))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut process = Process { child, address, url: None };
            // The port may be taken for a moment; then it ends.
            while process.child.try_wait().unwrap().is_none() {
                if let Ok(address) = std::fs::read_to_string(&said) {
                    process.address = address.parse().unwrap();
                    return process;
                }
                Env::system().pause(LOOK_EVERY);
            }
        }
        panic!("the server does not start");
    }

    /// The clients' makers' server, over the database at `url`.
    fn upstream(url: &str, dir: &Path, address: Option<SocketAddr>) -> Process {
        let program = upstream().expect("nobody asks for it where it is not named");
        let (host, database) = url.rsplit_once('/').unwrap();
        let (_, host) = host.split_once('@').unwrap();
        for _ in 0..STARTS_MAX {
            let address = address.unwrap_or_else(free_address);
            let child = Command::new(&program)
                .env("VSS_BIND_ADDRESS", address.to_string())
                .env("VSS_PSQL_USERNAME", "highwater")
                .env("VSS_PSQL_PASSWORD", "highwater")
                .env("VSS_PSQL_ADDRESS", host)
                .env("VSS_PSQL_DEFAULT_DB", "postgres")
                .env("VSS_PSQL_VSS_DB", database)
                .env("VSS_LOG_LEVEL", "warn")
                .env("VSS_LOG_FILE", dir.join("log"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(dir.join("output")).unwrap())
                .spawn()
                .unwrap();
            let mut process = Process { child, address, url: Some(url.to_owned()) };
            while process.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() {
                    return process;
                }
                Env::system().pause(LOOK_EVERY);
            }
        }
        let said = std::fs::read_to_string(dir.join("output")).unwrap_or_default();
        panic!("vss-server does not start: {said}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Nothing by itself: what [`Process::ours`] runs, until its input ends.
#[test]
fn server_process() {
    let Ok(told) = std::env::var(PROCESS) else { return };
    let (address, dir) = told.split_once(' ').unwrap();
    let runtime = Runtime::new().unwrap();
    let backend = Sqlite::serve(&Path::new(dir).join("data"), &Env::system()).unwrap();
    let server = VssServer::builder(Arc::new(backend)).auth(Auth::none());
    let running = runtime.block_on(server.listen(address.parse().unwrap()).start()).unwrap();
    let said = Path::new(dir).join("address");
    std::fs::write(said.with_extension("new"), running.address().to_string()).unwrap();
    std::fs::rename(said.with_extension("new"), said).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
