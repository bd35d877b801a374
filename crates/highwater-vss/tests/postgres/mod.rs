//! PostgreSQL on loopback, for tests: on a free port, in a directory of its own, with `fsync` on. It ends
//! with the last test that has it, and where the process of the tests is killed.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each user takes a part")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// A free port may be taken between looking and listening, and after a kill the dead one's processes may
/// still be there: another attempt is made so often.
const STARTS_MAX: usize = 20;

/// A cluster that runs.
pub(crate) struct Cluster {
    // Ends before its directory goes.
    keeper: Mutex<Option<Keeper>>,
    dir: tempfile::TempDir,
    settings: Vec<String>,
    port: u16,
    databases: AtomicU32,
}

/// A shell that starts the server, and stops it once its own input ends.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Cluster {
    /// The one of this process; it ends with the last test that has it.
    pub(crate) fn shared() -> Arc<Cluster> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Cluster::start(&[]));
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// One of its own, with settings of its own.
    pub(crate) fn start(settings: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let mut cluster = Cluster {
            dir,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            port: 0,
            keeper: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        run(cluster
            .command("initdb")
            .args(["--no-sync", "--no-locale", "--encoding=UTF8"])
            .args(["--auth=trust", "--username=highwater", "--pgdata"])
            .arg(cluster.data()));
        for _ in 0..STARTS_MAX {
            cluster.port = free_port();
            if cluster.try_start() {
                return cluster;
            }
        }
        panic!("PostgreSQL does not start: {}", cluster.log());
    }

    /// Starts it again.
    pub(crate) fn start_again(&self) {
        let started = (0..STARTS_MAX).any(|_| self.try_start());
        assert!(started, "PostgreSQL does not start again: {}", self.log());
    }

    /// Kills the first of its processes; the others end when they notice.
    pub(crate) fn kill(&self) {
        kill_process(self.postmaster(), Signal::KILL).unwrap();
        self.keeper.lock().unwrap().take();
    }

    /// Stops it without a checkpoint, as a crash would.
    pub(crate) fn stop(&self) {
        self.keeper.lock().unwrap().take();
    }

    /// The URL of a new database.
    pub(crate) fn database(&self) -> String {
        self.database_with(&[])
    }

    /// The URL of a new database, made with these arguments.
    pub(crate) fn database_with(&self, arguments: &[&str]) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        run(self
            .command("createdb")
            .args(["--host=127.0.0.1", "--username=highwater", "--port", &port])
            .args(arguments)
            .arg(&name));
        self.url(&name)
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://highwater@127.0.0.1:{}/{database}", self.port)
    }

    /// Waits until sessions of that application have ended: what a killed process asked for last may be
    /// carried out after its end.
    pub(crate) fn wait_until_gone(&self, application: &str) {
        let port = self.port.to_string();
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}'"
        );
        loop {
            let output = self
                .command("psql")
                .args(["--host=127.0.0.1", "--username=highwater", "--port", &port])
                .args(["--dbname=postgres", "--no-psqlrc", "--tuples-only", "--no-align"])
                .args(["--command", &count])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            if output.stdout.trim_ascii() == b"0" {
                return;
            }
        }
    }

    /// Gives it a file, in the directory of its data, that it alone reads.
    pub(crate) fn give(&self, file: &Path, name: &str) {
        let path = self.data().join(name);
        run(Command::new("install").args(["-m", "600"]).arg(file).arg(&path));
        if geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(path));
        }
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn postmaster(&self) -> Pid {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        Pid::from_raw(file.lines().next().unwrap().parse().unwrap()).unwrap()
    }

    fn try_start(&self) -> bool {
        let port = self.port;
        let mut options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=on \
             -c shared_buffers=64MB -c deadlock_timeout=100ms"
        );
        for setting in &self.settings {
            options.push_str(&format!(" -c {setting}"));
        }
        let script = r#"
            if "$1/pg_ctl" -D "$2" -l "$3" -o "$4" -w start >/dev/null 2>&1; then
                echo started
                read -r _
                "$1/pg_ctl" -D "$2" -m immediate stop >/dev/null 2>&1
            fi"#;
        let mut child = self
            .command_of(Path::new("sh"))
            .args(["-c", script, "sh"])
            .arg(programs())
            .arg(self.data())
            .arg(self.dir.path().join("log"))
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let keeper = Keeper(child);
        let started = line == "started\n";
        if started {
            *self.keeper.lock().unwrap() = Some(keeper);
        }
        started
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        self.command_of(&programs().join(program))
    }

    /// PostgreSQL does not run as root.
    fn command_of(&self, program: &Path) -> Command {
        let mut command;
        if geteuid().is_root() {
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
            command.arg(program);
        } else {
            command = Command::new(program);
        }
        command.current_dir(self.dir.path()).env("LC_ALL", "C");
        command
    }
}

/// The programs of the newest version that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("scripts/setup installs it");
    let newest = versions
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("scripts/setup installs it");
    Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
