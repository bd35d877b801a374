//! Reading leaves the node as it was: the whole directory, byte for byte and time for time, after every
//! command that reads it, on every kind of database, at rest and in use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use rust_rocksdb::{DB, Options};

use crate::freeze::engines::python_with_lmdb;
use crate::node;
use crate::scene::Scene;

/// What is known of an entry: type and rights, owner, size, time, content.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Option<Vec<u8>>,
}

/// All of a node directory but Highwater's own, whose making changes the time of the directory above.
fn look(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let found = path.symlink_metadata().unwrap();
        if found.is_dir() {
            let inner = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            pending.extend(inner.filter(|path| *path != dir.join(".highwater")));
        }
        let modified = if path == dir { (0, 0) } else { (found.mtime(), found.mtime_nsec()) };
        // To close a lock file would give up the lock of a database that this test has open.
        let read = found.is_file() && !path.ends_with("LOCK");
        let content = read.then(|| fs::read(&path).unwrap());
        let owner = (found.uid(), found.gid());
        seen.insert(path, Seen { mode: found.mode(), owner, modified, content });
    }
    seen
}

/// Runs each command that reads, and compares. `code` is what a backup answers.
#[track_caller]
fn assert_unchanged(scene: &Scene, what: &str, code: i32) {
    let node = scene.path("node");
    let before = look(&node);
    let path = node.to_str().unwrap();
    let commands: [(&[&str], Option<i32>); 8] = [
        (&["inspect", path], None),
        (&["backup", path, "--no-barrier"], Some(code)),
        (&["backup", path, "--no-barrier"], Some(code)),
        (&["status"], None),
        (&["check", "--read-data"], None),
        (&["restore", "latest", path, "--plan", "--force"], None),
        (&["guard", "list", path], None),
        (&["recover", path], None),
    ];
    for (words, code) in commands {
        let ran = scene.run(words);
        assert!(code.is_none() || ran.code == code, "{what}: {words:?}: {ran:?}");
        let after = look(&node);
        let differs: Vec<_> = before
            .keys()
            .chain(after.keys())
            .filter(|path| before.get(*path) != after.get(*path))
            .collect();
        assert!(differs.is_empty(), "{what}: {words:?} changed {differs:?}");
    }
    let left = crate::tree::names(&node.join(".highwater"));
    assert!(!left.iter().any(|name| name.contains("sqlite-")), "{what}: {left:?}");
}

fn empty_node() -> Scene {
    let scene = Scene::new();
    fs::create_dir(scene.path("node")).unwrap();
    scene
}

/// A SQLite in write-ahead mode, as its node left it: ended by a kill, so that rows are in the log alone.
fn killed(path: &Path) {
    let program = "import sqlite3, sys, os, signal
c = sqlite3.connect(sys.argv[1])
c.execute('pragma journal_mode=wal')
c.execute('create table t (a)')
c.executemany('insert into t values (?)', [(i,) for i in range(1000)])
c.commit()
os.kill(os.getpid(), signal.SIGKILL)";
    Command::new("python3").args(["-c", program]).arg(path).status().unwrap();
    assert!(path.with_extension("db-wal").metadata().unwrap().len() > 0);
}

fn rows(path: &Path) -> i64 {
    let query = "SELECT count(*) FROM t";
    Connection::open(path).unwrap().query_row(query, (), |row| row.get(0)).unwrap()
}

#[test]
fn a_node_of_everything_is_left_as_it_was() {
    assert_unchanged(&Scene::with_node(), "a node at rest", 0);
}

#[test]
fn a_rocksdb_without_its_lock_file_gets_none() {
    let scene = empty_node();
    drop(DB::open_default(scene.path("node/store")).unwrap());
    fs::remove_file(scene.path("node/store/LOCK")).unwrap();
    assert_unchanged(&scene, "without LOCK", 0);
}

#[test]
fn a_rocksdb_in_use_is_left_as_it_is() {
    let scene = empty_node();
    let mut options = Options::default();
    options.create_if_missing(true);
    let _open = DB::open(&options, scene.path("node/store")).unwrap();
    assert_unchanged(&scene, "a RocksDB in use", 0);
}

#[test]
fn a_sqlite_at_rest_gets_no_files_beside_it() {
    for mode in ["wal", "delete", "truncate", "persist"] {
        let scene = empty_node();
        let open = Connection::open(scene.path("node/app.db")).unwrap();
        open.pragma_update(None, "journal_mode", mode).unwrap();
        open.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        drop(open);
        assert_unchanged(&scene, mode, 0);
    }
}

#[test]
fn a_sqlite_whose_node_was_killed_keeps_its_log_and_all_rows_are_taken() {
    for shm in [true, false] {
        let scene = empty_node();
        let path = scene.path("node/app.db");
        killed(&path);
        if !shm {
            fs::remove_file(scene.path("node/app.db-shm")).unwrap();
        }
        assert_unchanged(&scene, "after a kill", 0);
        let target = scene.path("restored");
        scene.restore("latest", &target).ok();
        assert_eq!(rows(&target.join("app.db")), 1000);
    }
}

#[test]
fn an_empty_sqlite_beside_a_full_log_is_refused_and_the_log_stays() {
    let scene = empty_node();
    killed(&scene.path("node/app.db"));
    fs::write(scene.path("node/app.db"), "").unwrap();
    assert_unchanged(&scene, "an emptied database", 5);
    let ran = scene.backup();
    assert!(ran.json["error"]["entry"].as_str().unwrap().contains("app.db"), "{ran:?}");
    let inspected = scene.run(["inspect".as_ref(), scene.path("node").as_os_str()]);
    assert!(inspected.json.to_string().contains("app.db is empty"), "{inspected:?}");
}

#[test]
fn a_hot_journal_stays_where_it_is() {
    for emptied in [false, true] {
        let scene = empty_node();
        let path = scene.path("node/app.db");
        let program = "import sqlite3, sys, os, signal
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('create table t (a, b)')
c.executemany('insert into t values (?, randomblob(300))', [(i,) for i in range(500)])
c.execute('pragma cache_size=1')
c.execute('begin immediate')
c.execute('update t set b = randomblob(300)')
os.kill(os.getpid(), signal.SIGKILL)";
        Command::new("python3").args(["-c", program]).arg(&path).status().unwrap();
        if emptied {
            fs::write(&path, "").unwrap();
        }
        assert_unchanged(&scene, "a hot journal", if emptied { 5 } else { 4 });
    }
}

#[test]
fn a_sqlite_in_use_is_left_as_it_is() {
    for mode in ["wal", "delete"] {
        let scene = empty_node();
        let open = Connection::open(scene.path("node/app.db")).unwrap();
        open.pragma_update(None, "journal_mode", mode).unwrap();
        open.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        let shm = scene.path("node/app.db-shm");
        // Readers leave their marks in it.
        let before = shm.exists().then(|| fs::read(&shm).unwrap());
        let path = scene.path("node");
        let seen = look(&path);
        scene.backup().ok();
        let mut now = look(&path);
        let mut seen = seen;
        if before.is_some() {
            seen.remove(&shm);
            now.remove(&shm);
        }
        assert!(seen == now, "{mode}");
        drop(open);
    }
}

#[test]
fn page_files_are_left_as_they_are() {
    let scene = empty_node();
    let store = redb::Database::create(scene.path("node/state.redb")).unwrap();
    let write = store.begin_write().unwrap();
    write.open_table(crate::freeze::child::TABLE).unwrap().insert(1, &b"one"[..]).unwrap();
    write.commit().unwrap();
    drop(store);
    if let Some(python) = python_with_lmdb() {
        let program = "import lmdb, sys
store = lmdb.open(sys.argv[1])
with store.begin(write=True) as write: write.put(b'a', b'b')";
        let status =
            Command::new(python).args(["-c", program]).arg(scene.path("node/lmdb")).status();
        assert!(status.unwrap().success());
    }
    fs::write(scene.path("node").join(node::LEDGER), "no database").unwrap();
    assert_unchanged(&scene, "page files", 0);
}
