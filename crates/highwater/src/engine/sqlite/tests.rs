//! Real databases, with writers in this process and in others. A writer elsewhere is this test
//! program again, told by the environment to play a role.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rusqlite::Connection;

use super::capture::begin_all;
use super::*;
use crate::Kind;
use crate::engine::FoundPart;
use crate::engine::{Checked, Depth, EngineKind, Finished, Identity, Piece, Units};
use crate::env::Clock;
use crate::ids::{RelPath, Time};
use crate::rooted::RootedPath;

mod child;
mod live;
mod still;

/// A clock whose pauses take no time, which can be moved, and which does something each time it is
/// asked how late it is.
struct TestClock {
    moved: Arc<AtomicU64>,
    asked: Box<dyn Fn() + Send + Sync>,
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        // Far enough ahead that every file of the test is old enough to be trusted.
        Time::from_nanos(Env::system().now().as_nanos() + 3_600_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        (self.asked)();
        Duration::from_nanos(self.moved.load(Ordering::Relaxed))
    }

    fn pause(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap();
        self.moved.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// An environment with a [`TestClock`], and what moves it.
fn test_env() -> (Env, Arc<AtomicU64>) {
    let moved = Arc::new(AtomicU64::new(0));
    let clock = TestClock { moved: Arc::clone(&moved), asked: Box::new(|| {}) };
    (Env::system().with_clock(clock), moved)
}

/// A node directory.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Node {
        Node { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new database in the journal mode and of the page size given, with an empty table `rows`.
    fn database(&self, name: &str, mode: &str, page: u32) -> Connection {
        let connection = Connection::open(self.path(name)).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {page}; PRAGMA journal_mode = {mode};
                 PRAGMA synchronous = OFF; CREATE TABLE rows(id INTEGER PRIMARY KEY, body BLOB);
                 CREATE INDEX bodies ON rows(body);"
            ))
            .unwrap();
        connection
    }

    fn begin_all(&self, names: &[&str], env: &Env) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
        self.begin_with(names, &CaptureOptions::default(), env)
    }

    fn begin_with(
        &self,
        names: &[&str],
        options: &CaptureOptions,
        env: &Env,
    ) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
        let parts: Vec<FoundPart> = names.iter().map(|name| found(Path::new(name))).collect();
        let parts: Vec<&FoundPart> = parts.iter().collect();
        begin_all(&RootedPath::open(self.dir.path())?, &parts, options, env)
    }

    fn begin(&self, name: &str, env: &Env) -> Box<dyn PartCapture> {
        let (mut captures, barrier) = self.begin_all(&[name], env).unwrap();
        assert_eq!(barrier, Barrier::Single);
        captures.remove(0)
    }

    /// The image of one database, in a file that is no part of the node.
    fn image(&self, name: &str) -> (tempfile::TempDir, PathBuf) {
        let capture = self.begin(name, &Env::system());
        save(capture, || {})
    }
}

fn found(root: &Path) -> FoundPart {
    let root = RelPath::from_path(root).unwrap();
    FoundPart {
        name: root.to_string(),
        engine: EngineKind::SQLITE,
        entries: vec![root.clone()],
        root,
        files: 1,
        bytes: 0,
    }
}

/// Streams a capture into a file of its own; `between` runs after every piece.
fn save(capture: Box<dyn PartCapture>, between: impl FnMut()) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.sqlite");
    save_at(capture, &path, between).unwrap();
    (dir, path)
}

fn save_at(
    mut capture: Box<dyn PartCapture>,
    path: &Path,
    mut between: impl FnMut(),
) -> Result<Finished> {
    let mut file = std::fs::File::create(path).unwrap();
    capture.stream(0, &mut |piece| {
        match piece {
            Piece::Data(bytes) => file.write_all(bytes).unwrap(),
            Piece::Hole(_) => panic!("a page image has no holes"),
        }
        between();
        Ok(())
    })?;
    assert_eq!(file.metadata().unwrap().len(), capture.entries()[0].size);
    capture.finish()
}

/// Fills `rows` with `count` rows of `bytes` bytes, in one commit.
fn fill(connection: &Connection, count: u32, bytes: u32) {
    connection
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO rows(body) SELECT randomblob(?2) FROM n",
            [count, bytes],
        )
        .unwrap();
}

/// All rows, in order.
fn rows(connection: &Connection) -> Vec<(i64, Vec<u8>)> {
    let mut statement = connection.prepare("SELECT id, body FROM rows ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

fn check_file(path: &Path, depth: Depth) -> Result<Checked> {
    check_here(&RootedPath::of(path)?, depth)
}

fn assert_sound(path: &Path) {
    let checked = check_file(path, Depth::Full).unwrap();
    assert_eq!(checked.warnings, Vec::<String>::new());
}

fn one(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}
