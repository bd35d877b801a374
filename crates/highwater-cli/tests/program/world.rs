//! A world of its own for each test: a directory with a home, a key, a vault and a node.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rusqlite::Connection;
use rust_rocksdb::{DB, IteratorMode, Options};
use serde_json::Value;

/// Rows of each column family and of the SQLite of the node.
pub(crate) const ROWS: u32 = 500;
/// The column families of the node's RocksDB.
pub(crate) const FAMILIES: [&str; 2] = ["default", "channels"];

/// What the program answered.
pub(crate) struct Answered {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answered {
    /// The one document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no document: {error}\n{}{}", self.stdout, self.stderr))
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Answered {
        assert_eq!(self.code, Some(expected), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Checks that it is an error of this kind, with all fields of its document.
    #[track_caller]
    pub(crate) fn error(self, kind: &str) -> Value {
        let document = self.json();
        let error = document["error"].as_object().expect("an error document");
        assert_eq!(error["kind"], kind, "{document}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{document}");
        assert!(error.contains_key("hint") && error.contains_key("entry"), "{document}");
        document
    }
}

/// A directory with all that a test needs.
pub(crate) struct World {
    root: tempfile::TempDir,
}

impl World {
    /// An empty one.
    pub(crate) fn new() -> World {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(root.path().join("home")).expect("a home");
        World { root }
    }

    /// One with a vault.
    pub(crate) fn with_vault() -> World {
        let world = World::new();
        world.run(&["init", "vault", "--key-file", "key", "--json"]).code(0);
        world
    }

    /// One with a vault and a node.
    pub(crate) fn with_node() -> World {
        let world = World::with_vault();
        make_node(&world.path("node"));
        world
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The program, with no setting but the arguments; relative paths are meant from the root.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let ours = ["HIGHWATER_", "XDG_", "AWS_", "GOOGLE_", "AZURE_"];
            if ours.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(self.root.path()).env("HOME", self.path("home"));
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Answered {
        answered(self.command(arguments).output().expect("the program starts"))
    }

    /// Runs a command on the vault with its key, for a document.
    pub(crate) fn on_vault(&self, arguments: &[&str]) -> Answered {
        let vault = ["--vault", "vault", "--key-file", "key", "--json"];
        self.run(&[arguments, &vault].concat())
    }

    /// Writes a file with mode 0600.
    pub(crate) fn write_secret(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    }
}

/// What a process that has ended said.
pub(crate) fn answered(output: Output) -> Answered {
    Answered {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Bytes that don't compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// The value of a row.
fn value(name: &str, row: u32) -> String {
    format!("{name} {row} ").repeat(20)
}

/// A RocksDB with rows in tables and in its log alone, a SQLite in WAL mode, a key file.
pub(crate) fn make_node(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(dir).expect("a directory");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let store = DB::open_cf(&options, dir.join("store"), FAMILIES).expect("a RocksDB");
    for name in FAMILIES {
        let family = store.cf_handle(name).expect("a column family");
        for row in 0..ROWS {
            if row == ROWS / 2 {
                store.flush_cf(family).expect("a flush");
            }
            store.put_cf(family, row.to_be_bytes(), value(name, row)).expect("a row");
        }
    }
    drop(store);
    let ledger = Connection::open(dir.join("ledger.sqlite")).expect("a SQLite");
    ledger.pragma_update(None, "journal_mode", "wal").expect("WAL mode");
    ledger
        .execute("CREATE TABLE payment (id INTEGER PRIMARY KEY, body TEXT NOT NULL)", ())
        .expect("a table");
    add_payments(&ledger, 0..ROWS);
    drop(ledger);
    std::fs::write(dir.join("node.key"), "the node's key").expect("a key file");
    let mode = std::fs::Permissions::from_mode(0o400);
    std::fs::set_permissions(dir.join("node.key"), mode).expect("a mode");
}

/// Adds payments to the SQLite of a node, one a transaction.
pub(crate) fn add_payments(ledger: &Connection, rows: std::ops::Range<u32>) {
    for row in rows {
        ledger
            .execute("INSERT INTO payment VALUES (?1, ?2)", (row, value("payment", row)))
            .expect("a payment");
    }
}

/// Asserts that the node has exactly the rows that [`make_node`] wrote, and `payments` payments.
pub(crate) fn assert_node(dir: &Path, payments: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let options = Options::default();
    let store = DB::open_cf_for_read_only(&options, dir.join("store"), FAMILIES, false);
    let store = store.expect("the RocksDB opens");
    for name in FAMILIES {
        let family = store.cf_handle(name).expect("a column family");
        let rows: Vec<(u32, String)> = store
            .iterator_cf(family, IteratorMode::Start)
            .map(|row| {
                let (key, value) = row.expect("a row");
                let key = u32::from_be_bytes((*key).try_into().expect("four bytes"));
                (key, String::from_utf8(value.into_vec()).expect("UTF-8"))
            })
            .collect();
        let expected: Vec<(u32, String)> = (0..ROWS).map(|row| (row, value(name, row))).collect();
        assert_eq!(rows, expected);
    }
    assert_eq!(payments_of(&dir.join("ledger.sqlite")), payments);
    let key = dir.join("node.key");
    assert_eq!(std::fs::read_to_string(&key).expect("the key file"), "the node's key");
    let mode = std::fs::metadata(&key).expect("the key file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o400);
}

/// How many payments a SQLite has; each of them is what was written, without a gap.
fn payments_of(path: &Path) -> u32 {
    let ledger = Connection::open(path).expect("the SQLite opens");
    let mut query = ledger.prepare("SELECT id, body FROM payment ORDER BY id").expect("a query");
    let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    let mut next = 0;
    for row in rows {
        let (id, body): (u32, String) = row.expect("a row");
        assert_eq!((id, body), (next, value("payment", next)));
        next += 1;
    }
    next
}

/// Every regular file below a directory.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
