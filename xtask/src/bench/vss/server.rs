//! The servers that are measured, and the PostgreSQL under them, as processes of their own.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::load::now;
use crate::bench::data::run;

/// Whoever starts gets so long, and is looked at so often.
const START_WAIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: &str = "0.05";
/// Ticks of the processor's time that the kernel tells, a second.
const TICKS: f64 = 100.0;

/// What a server keeps its stores in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Sqlite,
    Postgres,
    /// The server that the clients' makers publish, on PostgreSQL.
    Upstream,
}

impl Which {
    pub(super) fn title(self) -> &'static str {
        match self {
            Which::Sqlite => "highwater, SQLite",
            Which::Postgres => "highwater, PostgreSQL",
            Which::Upstream => "vss-server, PostgreSQL",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Which::Sqlite => "sqlite",
            Which::Postgres => "ours",
            Which::Upstream => "upstream",
        }
    }
}

/// A process that is ended when this is dropped.
pub(in crate::bench) struct Server {
    process: Child,
    pub(in crate::bench) address: SocketAddr,
}

impl Server {
    /// Starts one on an empty database of its own.
    pub(super) fn start(which: Which, world: &World<'_>) -> Result<Server> {
        let name = which.name();
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let dir = world.dir.join(name);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(&dir)?,
        }
        let database = || {
            let postgres = world.postgres.context("PostgreSQL was not started")?;
            postgres.fresh(name)?;
            anyhow::Ok(postgres)
        };
        let mut command = Command::new(match which {
            Which::Upstream => world.upstream.context("vss-server was not built")?,
            Which::Sqlite | Which::Postgres => world.program,
        });
        match which {
            Which::Sqlite => command.args(["vss", "serve", "--data-dir"]).arg(&dir),
            Which::Postgres => {
                command.args(["vss", "serve", "--postgres"]).arg(database()?.url(name))
            }
            Which::Upstream => command
                .env("VSS_BIND_ADDRESS", address.to_string())
                .env("VSS_PSQL_USERNAME", USER)
                .env("VSS_PSQL_PASSWORD", USER)
                .env("VSS_PSQL_ADDRESS", format!("127.0.0.1:{}", database()?.port))
                .env("VSS_PSQL_DEFAULT_DB", "postgres")
                .env("VSS_PSQL_VSS_DB", name)
                .env("VSS_LOG_LEVEL", "warn")
                .env("VSS_LOG_FILE", dir.join("log")),
        };
        if which != Which::Upstream {
            command.args(["--auth", "none", "--listen", &address.to_string(), "--json"]);
        }
        let log = dir.join("output");
        let process = command
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {}", which.title()))?;
        let mut server = Server { process, address };
        let begin = now();
        while TcpStream::connect(address).is_err() {
            if server.process.try_wait()?.is_some() || over(begin) {
                bail!("{} does not start: {}", which.title(), std::fs::read_to_string(&log)?);
            }
            pause()?;
        }
        Ok(server)
    }

    /// Resident memory now, and the most that it was, in MiB.
    pub(super) fn memory(&self) -> Result<(f64, f64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let of = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib: f64 = line
                .and_then(|line| line.split_whitespace().nth(1))
                .with_context(|| format!("the kernel tells no {name}"))?
                .parse()?;
            Ok(kib / 1024.0)
        };
        Ok((of("VmRSS")?, of("VmHWM")?))
    }

    /// Seconds of the processor that it has taken.
    pub(super) fn busy(&self) -> Result<f64> {
        busy(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn over(begin: u64) -> bool {
    Duration::from_nanos(now() - begin) > START_WAIT
}

fn pause() -> Result<()> {
    run(Command::new("sleep").arg(LOOK_EVERY))
}

/// Seconds of the processor that a process has taken.
fn busy(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th field behind it.
    let fields = text.rsplit_once(") ").context("a process without fields")?.1;
    let ticks: Vec<f64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| Ok(field.parse()?))
        .collect::<Result<_>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}

/// Where servers are started.
pub(super) struct World<'a> {
    pub(super) dir: &'a Path,
    pub(super) program: &'a Path,
    pub(super) upstream: Option<&'a Path>,
    pub(super) postgres: Option<&'a Postgres>,
}

/// The database's user; on loopback nobody asks it for a password.
const USER: &str = "bench";

/// Rows as those of a store, and a procedure that writes them again and again.
const ALONE: &str = include_str!("alone.sql");

/// A PostgreSQL of its own, with the settings that it comes with.
pub(super) struct Postgres {
    process: Child,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes one in a directory and starts it. As root it runs as the user `nobody`, since it refuses to
    /// run as root.
    pub(super) fn start(dir: &Path) -> Result<Postgres> {
        let bin = bin()?;
        let data = dir.join("postgres");
        match std::fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(&data)?,
        }
        let user = Unprivileged::find()?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&data, Some(user.user), Some(user.group))?;
        }
        let as_user = |program: &str| {
            let mut command = Command::new(bin.join(program));
            command.current_dir(&data);
            if let Some(user) = user {
                command.uid(user.user).gid(user.group);
            }
            command
        };
        run(as_user("initdb")
            .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--pgdata"])
            .arg(&data))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = dir.join("postgres.log");
        let process = as_user("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting PostgreSQL")?;
        let mut postgres = Postgres { process, bin, port };
        let begin = now();
        while postgres.sql("SELECT 1").is_err() {
            if postgres.process.try_wait()?.is_some() || over(begin) {
                bail!("PostgreSQL does not start: {}", std::fs::read_to_string(&log)?);
            }
            pause()?;
        }
        Ok(postgres)
    }

    /// An empty database of that name.
    fn fresh(&self, name: &str) -> Result<()> {
        self.sql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        self.sql(&format!("CREATE DATABASE {name}"))
    }

    fn url(&self, name: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    /// Brings what is in memory to the disk, so that no measurement pays for the one before it.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.sql("CHECKPOINT")
    }

    /// Does what its own housekeeping would do some time later, in the middle of a measurement.
    pub(super) fn settle(&self) -> Result<()> {
        run(Command::new(self.bin.join("vacuumdb"))
            .args(["--all", "--analyze", "--quiet", "--username", USER])
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()]))?;
        self.checkpoint()
    }

    fn sql(&self, text: &str) -> Result<()> {
        run(self.psql("postgres").args(["--command", text]))
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set", "ON_ERROR_STOP=1", "--username", USER, "--dbname", database])
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command
    }

    /// What it can do at most: transactions a second, each of which updates a hundred rows by one
    /// statement, whose values are in its own memory already.
    pub(super) fn limit(&self, time: Duration) -> Result<f64> {
        self.fresh("alone")?;
        run(self.psql("alone").args(["--command", ALONE]))?;
        self.checkpoint()?;
        let call = format!("CALL measure({})", time.as_secs());
        let output = self.psql("alone").args(["--command", &call]).output()?;
        if !output.status.success() {
            bail!("PostgreSQL alone: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    pub(super) fn version(&self) -> Result<String> {
        let output = Command::new(self.bin.join("postgres")).arg("--version").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Seconds of the processor that its processes have taken, those that are there now.
    pub(super) fn busy(&self) -> Result<f64> {
        let own = self.process.id();
        let list = format!("/proc/{own}/task/{own}/children");
        let mut sum = busy(own)?;
        for child in std::fs::read_to_string(list)?.split_whitespace() {
            // It may have ended meanwhile.
            sum += busy(child.parse()?).unwrap_or(0.0);
        }
        Ok(sum)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its own processes end with it: an immediate stop, since nothing of it is kept.
        let id = self.process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        let _ = self.process.wait();
    }
}

/// The newest PostgreSQL, where Debian keeps it, else that of the path.
fn bin() -> Result<PathBuf> {
    let newest = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|entries| {
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
                Some((number, path.join("bin")))
            })
            .max()
    });
    if let Some((_, bin)) = newest {
        return Ok(bin);
    }
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    std::env::split_paths(&path)
        .find(|dir| dir.join("initdb").exists())
        .context("PostgreSQL is needed: Debian's package `postgresql`")
}

#[derive(Clone, Copy)]
struct Unprivileged {
    user: u32,
    group: u32,
}

impl Unprivileged {
    /// Whom to be instead of root; none where this is not root.
    fn find() -> Result<Option<Unprivileged>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let text = std::fs::read_to_string("/etc/passwd")?;
        let line = text.lines().find(|line| line.starts_with("nobody:"));
        let fields: Vec<&str> = line.context("there is no user `nobody`")?.split(':').collect();
        let [_, _, user, group, ..] = fields[..] else { bail!("/etc/passwd can't be read") };
        Ok(Some(Unprivileged { user: user.parse()?, group: group.parse()? }))
    }
}
