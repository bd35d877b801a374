//! An lnd whose channels are written by the real bbolt: a process of `fixtures/write-lnd.go`, and what it says.
#![allow(clippy::panic, reason = "a test stops where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Where Debian puts what Go programs import.
const GOPATH: &str = "/usr/share/gocode";
const MISSING: &str = "scripts/setup installs what it is built with (Debian: golang-go, golang-github-coreos-bbolt-dev)";

#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Channel {
    pub(crate) local: u64,
    pub(crate) remote: u64,
    /// The peer's next commitment, where it has not revoked the one before.
    pub(crate) signed: Option<u64>,
}

/// What is committed, as bbolt itself reads it.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct CommittedState {
    /// How many transactions there were.
    pub(crate) steps: u64,
    pub(crate) channels: BTreeMap<String, Channel>,
    pub(crate) closed: BTreeSet<String>,
    /// What was written since the last answer without being asked for, a transaction each: what became of one channel;
    /// nothing where it was closed.
    #[serde(default)]
    pub(crate) wrote: Vec<(String, Option<Channel>)>,
}

/// The marks of these channels.
pub(crate) fn marks(channels: &BTreeMap<String, Channel>) -> BTreeMap<String, u64> {
    let both = |(id, channel): (&String, &Channel)| {
        let remote = channel.signed.unwrap_or(channel.remote);
        [(format!("channel.{id}.local"), channel.local), (format!("channel.{id}.remote"), remote)]
    };
    channels.iter().flat_map(both).collect()
}

/// The program, built once for whoever holds it.
pub(crate) struct Program {
    dir: tempfile::TempDir,
    /// Whether each transaction waits for the disk, as it does in lnd.
    sync: bool,
}

impl Program {
    pub(crate) fn build(sync: bool) -> Program {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/write-lnd.go");
        let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let caches =
            caches.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        let cache =
            caches.map_or_else(|| dir.path().join("cache"), |caches| caches.join("highwater/go"));
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(dir.path().join("write-lnd"))
            .arg(source)
            .env_remove("GOFLAGS")
            .env("GO111MODULE", "off")
            .env("GOPATH", GOPATH)
            .env("GOCACHE", cache)
            .env("CGO_ENABLED", "0")
            .output();
        let built = built.unwrap_or_else(|error| panic!("go does not start: {error}; {MISSING}"));
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "write-lnd.go can't be built; {MISSING}:\n{said}");
        Program { dir, sync }
    }

    /// Opens a database, and makes it where it is missing; tells what is in it.
    pub(crate) fn open(&self, database: &Path) -> (Lnd, CommittedState) {
        let mut process = Command::new(self.dir.path().join("write-lnd"))
            .arg(database)
            .args((!self.sync).then_some("nosync"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut lnd = Lnd { process, commands, answers };
        let state = lnd.answer();
        (lnd, state)
    }
}

/// The process. It ends with its input.
pub(crate) struct Lnd {
    pub(crate) process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Lnd {
    /// Gives a command; tells what is committed after it.
    pub(crate) fn ask(&mut self, command: &str) -> CommittedState {
        writeln!(self.commands.as_ref().unwrap(), "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> CommittedState {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// Ends it; tells what it leaves.
    pub(crate) fn quit(mut self) -> CommittedState {
        let state = self.ask("quit");
        assert!(self.process.wait().unwrap().success());
        state
    }
}

impl Drop for Lnd {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.process.wait();
    }
}
