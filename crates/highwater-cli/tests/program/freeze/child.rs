//! A process of a node that writes: this test program again, told by the environment to play a role.
//! What it has made durable it says afterwards, a number a line, into a file outside the node
//! directory.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater::Env;
use rusqlite::Connection;
use rust_rocksdb::{DB, Options, WriteBatch, WriteOptions};

const ROLE: &str = "FREEZE_TEST_ROLE";
const DIR: &str = "FREEZE_TEST_DIR";
const LEADER: &str = "FREEZE_TEST_LEADER";

/// How often a file of answers is looked at, and how often before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 60_000;

/// The column families of the RocksDB.
pub(crate) const FAMILIES: [&str; 3] = ["default", "channels", "invoices"];

/// The table of the redb.
pub(crate) const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("rows");

/// A running process, killed when it is dropped.
pub(crate) struct Writer {
    child: Child,
    said: PathBuf,
}

impl Writer {
    /// Starts one that plays `role` on the node in `dir`, and waits until it has begun.
    pub(crate) fn start(role: &str, dir: &Path) -> Writer {
        Writer::follow(role, dir, Path::new(""))
    }

    /// The same, which reads what the writer that says into `leader` has said.
    pub(crate) fn follow(role: &str, dir: &Path, leader: &Path) -> Writer {
        let said = dir.with_file_name(format!("said-by-{role}"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["freeze::child::play", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(DIR, dir)
            .env(LEADER, leader)
            .stdin(Stdio::null());
        Writer::of(command, said)
    }

    /// Any program that says numbers on its standard output.
    pub(crate) fn of(mut command: Command, said: PathBuf) -> Writer {
        let child = command.stdout(File::create(&said).unwrap()).spawn().unwrap();
        let mut writer = Writer { child, said };
        writer.more();
        writer
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn said(&self) -> &Path {
        &self.said
    }

    /// The newest number that it has said.
    pub(crate) fn newest(&self) -> Option<u64> {
        newest(&self.said)
    }

    /// Waits for a number that it had not said before, and tells it.
    pub(crate) fn more(&mut self) -> u64 {
        let before = self.newest();
        self.until(|now| now > before)
    }

    /// Waits until it has said `number`, or more.
    pub(crate) fn at_least(&mut self, number: u64) -> u64 {
        self.until(|now| now >= Some(number))
    }

    fn until(&mut self, enough: impl Fn(Option<u64>) -> bool) -> u64 {
        for _ in 0..LOOKS_MAX {
            let now = self.newest();
            if let Some(number) = now.filter(|_| enough(now)) {
                return number;
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "the writer has ended");
            Env::system().pause(LOOK_EVERY);
        }
        panic!("the writer says no more than {:?}: {}", self.newest(), self.state());
    }

    /// Its state as the kernel tells it: `S (sleeping)`.
    pub(crate) fn state(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("State:"));
        line.unwrap().trim().to_owned()
    }

    /// Waits until the kernel tells another state than stopped, or that one.
    pub(crate) fn wait_stopped(&self, stopped: bool) {
        for _ in 0..LOOKS_MAX {
            if self.state().starts_with(['T', 't']) == stopped {
                return;
            }
            Env::system().pause(LOOK_EVERY);
        }
        panic!("the writer is {}", self.state());
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number on the last whole line that has one.
fn newest(said: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(said).ok()?;
    let whole = &text[..text.rfind('\n')? + 1];
    whole.lines().rev().find_map(|line| line.parse().ok())
}

/// Does nothing, unless this process was started as a [`Writer`].
#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    match role.as_str() {
        "rocksdb" => rocksdb(&dir),
        "tables" => tables(&dir),
        "redb" => redb(&dir),
        "wal" | "delete" => sqlite(&dir, &role),
        "spill" => spill(&dir),
        "log" => follow(&dir, None),
        "follow" => follow(&dir, Some(Path::new(&std::env::var_os(LEADER).unwrap()))),
        other => panic!("no role {other}"),
    }
}

fn say(number: u64) {
    // The first line may have begun with what the test harness says.
    write!(std::io::stdout(), "\n{number}\n").unwrap();
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options
}

/// One row in each column family, in one synced batch; tables are written all the while.
fn rocksdb(dir: &Path) {
    let mut options = options();
    options.set_write_buffer_size(256 << 10);
    let families = FAMILIES.map(|name| (name, options.clone()));
    let store = DB::open_cf_with_opts(&options, dir.join("store"), families).unwrap();
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    for row in 0u64.. {
        let mut batch = WriteBatch::default();
        for name in FAMILIES {
            let family = store.cf_handle(name).unwrap();
            batch.put_cf(&family, row.to_be_bytes(), crate::node::bytes(name, row, 1000));
        }
        store.write_opt(&batch, &synced).unwrap();
        say(row);
    }
}

/// A thousand tables, then rows into the log.
fn tables(dir: &Path) {
    let mut options = options();
    options.set_disable_auto_compactions(true);
    options.set_level_zero_slowdown_writes_trigger(1 << 20);
    options.set_level_zero_stop_writes_trigger(1 << 20);
    let store = DB::open(&options, dir.join("store")).unwrap();
    for row in 0u64.. {
        store.put(row.to_be_bytes(), row.to_be_bytes()).unwrap();
        if row < 1000 {
            store.flush().unwrap();
        }
        say(row);
    }
}

fn redb(dir: &Path) {
    let store = redb::Database::create(dir.join("node.redb")).unwrap();
    for row in 0u64.. {
        let write = store.begin_write().unwrap();
        let value = crate::node::bytes("redb", row, 500);
        write.open_table(TABLE).unwrap().insert(row, value.as_slice()).unwrap();
        write.commit().unwrap();
        say(row);
    }
}

fn sqlite(dir: &Path, mode: &str) {
    let ledger = Connection::open(dir.join("ledger.sqlite")).unwrap();
    ledger
        .execute_batch(&format!(
            "PRAGMA journal_mode = {mode};
             PRAGMA synchronous = FULL;
             CREATE TABLE payment (id INTEGER PRIMARY KEY, body BLOB NOT NULL);"
        ))
        .unwrap();
    for row in 0u64.. {
        let body = crate::node::bytes(mode, row, 700);
        ledger.execute("INSERT INTO payment VALUES (?1, ?2)", (row.cast_signed(), body)).unwrap();
        say(row);
    }
}

/// A hundred rows, and then a transaction that has reached the file and will not end.
fn spill(dir: &Path) {
    let ledger = Connection::open(dir.join("ledger.sqlite")).unwrap();
    ledger
        .execute_batch(
            "PRAGMA journal_mode = DELETE;
             PRAGMA cache_size = 10;
             CREATE TABLE payment (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
             WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 99)
             INSERT INTO payment SELECT i, zeroblob(1000) FROM n;
             BEGIN;
             WITH RECURSIVE n(i) AS (VALUES (100) UNION ALL SELECT i + 1 FROM n WHERE i < 1999)
             INSERT INTO payment SELECT i, zeroblob(1000) FROM n;",
        )
        .unwrap();
    say(99);
    loop {
        Env::system().pause(LOOK_EVERY);
    }
}

/// Appends the numbers that the leader has said, or its own, to a plain file that it keeps open.
fn follow(dir: &Path, leader: Option<&Path>) {
    let path = dir.join("follow.log");
    let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let mut next = 0;
    loop {
        match leader {
            Some(leader) => next = newest(leader).unwrap(),
            None => next += 1,
        }
        log.write_all(format!("{next}\n").as_bytes()).unwrap();
        say(next);
        Env::system().pause(Duration::from_micros(500));
    }
}
