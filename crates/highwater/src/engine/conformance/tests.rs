use std::any::Any;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Fixture, run};
use crate::engine::EngineKind;
use crate::engine::pages::testing::fixture;

/// A process that runs a few lines of Python which hold a file, print a line and wait for the end of
/// their input.
pub(crate) struct Holder(Child);

impl Holder {
    pub(crate) fn new(script: &str, path: &Path) -> Holder {
        let mut child = Command::new("python3")
            .args(["-c", &format!("{script}\nprint('ready', flush=True)\nsys.stdin.read()")])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it prints a line");
        assert_eq!(line, "ready\n");
        Holder(child)
    }

    /// Holds a record lock, as RocksDB and LevelDB do.
    pub(crate) fn record(path: &Path) -> Holder {
        Holder::new(
            "import sys,fcntl\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)",
            path,
        )
    }

    /// Has a file open.
    pub(crate) fn open(path: &Path) -> Holder {
        Holder::new("import sys\nf=open(sys.argv[1],'rb')", path)
    }

    /// Has a file mapped and no descriptor of it.
    pub(crate) fn mapped(path: &Path) -> Holder {
        Holder::new(
            "import sys,mmap\nf=open(sys.argv[1],'rb')\nm=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\nf.close()",
            path,
        )
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("it ends");
    }
}

struct Plain;

impl Fixture for Plain {
    fn engine(&self) -> EngineKind {
        EngineKind::FILES
    }

    fn create(&self, dir: &Path) {
        fs::create_dir_all(dir.join("keys/empty")).unwrap();
        fs::write(dir.join("keys/identity"), b"secret").unwrap();
        fs::write(dir.join("config.toml"), vec![7; 5 << 20]).unwrap();
        fs::write(dir.join("nothing"), b"").unwrap();
        let sparse = fs::File::create(dir.join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 20) - 3).unwrap();
    }

    fn change(&self, dir: &Path) {
        fs::write(dir.join("keys/identity"), b"other").unwrap();
    }

    fn hold(&self, _: &Path) -> Option<Box<dyn Any>> {
        None
    }

    fn exclusive(&self) -> bool {
        false
    }

    fn verify(&self, dir: &Path, changed: bool) {
        let expected: &[u8] = if changed { b"other" } else { b"secret" };
        assert_eq!(fs::read(dir.join("keys/identity")).unwrap(), expected);
        assert!(dir.join("keys/empty").is_dir());
        assert_eq!(fs::read(dir.join("config.toml")).unwrap(), vec![7; 5 << 20]);
        assert!(fs::read(dir.join("sparse")).unwrap().ends_with(b"\0end"));
    }
}

/// A database that is one page file, in two states that its real engine has written.
struct PageFile {
    engine: EngineKind,
    name: &'static str,
    states: [&'static str; 2],
}

impl PageFile {
    fn state(&self, changed: bool) -> Vec<u8> {
        fixture(self.states[usize::from(changed)])
    }
}

impl Fixture for PageFile {
    fn engine(&self) -> EngineKind {
        self.engine
    }

    fn create(&self, dir: &Path) {
        fs::write(dir.join(self.name), self.state(false)).unwrap();
    }

    fn change(&self, dir: &Path) {
        fs::write(dir.join(self.name), self.state(true)).unwrap();
    }

    fn hold(&self, dir: &Path) -> Option<Box<dyn Any>> {
        Some(Box::new(Holder::open(&dir.join(self.name))))
    }

    fn exclusive(&self) -> bool {
        // Without its lock file an LMDB has no lock that could be taken: nobody had it open, before and
        // after.
        self.engine != EngineKind::LMDB
    }

    fn verify(&self, dir: &Path, changed: bool) {
        assert!(fs::read(dir.join(self.name)).unwrap() == self.state(changed));
    }
}

fn passes(fixture: &dyn Fixture) {
    let scratch = tempfile::tempdir().unwrap();
    run(fixture, scratch.path());
}

#[test]
fn plain_files() {
    passes(&Plain);
}

#[test]
fn redb() {
    let states = ["redb-small", "redb-many"];
    passes(&PageFile { engine: EngineKind::REDB, name: "a.redb", states });
}

#[test]
fn bbolt() {
    let states = ["bbolt-small-1k", "bbolt-many"];
    passes(&PageFile { engine: EngineKind::BBOLT, name: "channel.db", states });
}

#[test]
fn lmdb() {
    let states = ["lmdb-small-1k", "lmdb-many"];
    passes(&PageFile { engine: EngineKind::LMDB, name: "data.mdb", states });
}

struct Badger;

impl Fixture for Badger {
    fn engine(&self) -> EngineKind {
        EngineKind::BADGER
    }

    fn create(&self, dir: &Path) {
        fs::create_dir(dir.join("badger")).unwrap();
        fs::write(dir.join("badger/MANIFEST"), b"Bdgr\0\0\0\x08").unwrap();
        fs::write(dir.join("badger/000001.vlog"), b"first").unwrap();
        fs::write(dir.join("badger/KEYREGISTRY"), b"keys").unwrap();
    }

    fn change(&self, dir: &Path) {
        fs::write(dir.join("badger/000002.vlog"), b"second").unwrap();
    }

    fn hold(&self, dir: &Path) -> Option<Box<dyn Any>> {
        Some(Box::new(Holder::open(&dir.join("badger/000001.vlog"))))
    }

    fn verify(&self, dir: &Path, changed: bool) {
        assert_eq!(fs::read(dir.join("badger/000001.vlog")).unwrap(), b"first");
        assert_eq!(dir.join("badger/000002.vlog").exists(), changed);
    }
}

#[test]
fn badger() {
    passes(&Badger);
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use std::sync::Arc;

    use rust_rocksdb::checkpoint::Checkpoint;
    use rust_rocksdb::{DB, Options};

    use super::*;
    use crate::engine::CaptureOptions;

    fn open(dir: &Path) -> DB {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        DB::open_cf(&options, dir.join("store"), ["default", "peers"]).unwrap()
    }

    fn put(db: &DB, value: &str) {
        let peers = db.cf_handle("peers").unwrap();
        db.put("default-key", value).unwrap();
        db.put_cf(&peers, "peers-key", value).unwrap();
    }

    fn verify(dir: &Path, value: &str) {
        let db = open(dir);
        let peers = db.cf_handle("peers").unwrap();
        assert_eq!(db.get("default-key").unwrap().unwrap(), value.as_bytes());
        assert_eq!(db.get_cf(&peers, "peers-key").unwrap().unwrap(), value.as_bytes());
        assert_eq!(db.get("flushed").unwrap().unwrap(), b"table");
    }

    fn create(dir: &Path) {
        let db = open(dir);
        db.put("flushed", "table").unwrap();
        db.flush().unwrap();
        put(&db, "first");
    }

    struct Offline;

    impl Fixture for Offline {
        fn engine(&self) -> EngineKind {
            EngineKind::ROCKSDB
        }

        fn create(&self, dir: &Path) {
            create(dir);
        }

        fn change(&self, dir: &Path) {
            put(&open(dir), "second");
        }

        fn options(&self, _: &Path) -> CaptureOptions {
            CaptureOptions { offline: true, ..CaptureOptions::default() }
        }

        fn hold(&self, dir: &Path) -> Option<Box<dyn Any>> {
            Some(Box::new(Holder::record(&dir.join("store/LOCK"))))
        }

        fn verify(&self, dir: &Path, changed: bool) {
            verify(dir, if changed { "second" } else { "first" });
        }
    }

    struct Hook;

    impl Fixture for Hook {
        fn engine(&self) -> EngineKind {
            EngineKind::ROCKSDB
        }

        fn create(&self, dir: &Path) {
            create(dir);
        }

        fn change(&self, dir: &Path) {
            put(&open(dir), "second");
        }

        fn options(&self, dir: &Path) -> CaptureOptions {
            let db = open(dir);
            CaptureOptions {
                hooks: vec![(
                    "store".to_owned(),
                    Arc::new(move |path| Ok(Checkpoint::new(&db)?.create_checkpoint(path)?)),
                )],
                ..CaptureOptions::default()
            }
        }

        fn hold(&self, _: &Path) -> Option<Box<dyn Any>> {
            None
        }

        fn exclusive(&self) -> bool {
            false
        }

        fn verify(&self, dir: &Path, changed: bool) {
            verify(dir, if changed { "second" } else { "first" });
        }
    }

    #[test]
    fn rocksdb_offline() {
        passes(&Offline);
    }

    /// Another process has its lock all the while.
    struct Live(std::cell::RefCell<Option<Holder>>);

    impl Fixture for Live {
        fn engine(&self) -> EngineKind {
            EngineKind::ROCKSDB
        }

        fn create(&self, dir: &Path) {
            create(dir);
            self.0.replace(Some(Holder::record(&dir.join("store/LOCK"))));
        }

        fn change(&self, dir: &Path) {
            self.0.take();
            put(&open(dir), "second");
            self.0.replace(Some(Holder::record(&dir.join("store/LOCK"))));
        }

        fn hold(&self, _: &Path) -> Option<Box<dyn Any>> {
            None
        }

        fn exclusive(&self) -> bool {
            false
        }

        fn verify(&self, dir: &Path, changed: bool) {
            verify(dir, if changed { "second" } else { "first" });
        }
    }

    #[test]
    fn rocksdb_live() {
        passes(&Live(std::cell::RefCell::new(None)));
    }

    /// Without OPTIONS and IDENTITY the same files are a LevelDB's.
    struct LevelDb;

    impl Fixture for LevelDb {
        fn engine(&self) -> EngineKind {
            EngineKind::LEVELDB
        }

        fn create(&self, dir: &Path) {
            create(dir);
            for entry in fs::read_dir(dir.join("store")).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if name.starts_with("OPTIONS") || name == "IDENTITY" {
                    fs::remove_file(path).unwrap();
                }
            }
        }

        fn change(&self, dir: &Path) {
            fs::write(dir.join("store/000099.log"), "more").unwrap();
        }

        fn hold(&self, dir: &Path) -> Option<Box<dyn Any>> {
            Some(Box::new(Holder::record(&dir.join("store/LOCK"))))
        }
    }

    #[test]
    fn leveldb() {
        passes(&LevelDb);
    }

    #[test]
    fn rocksdb_by_hook() {
        passes(&Hook);
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use rusqlite::Connection;

    use super::*;

    struct Sqlite {
        journal: &'static str,
    }

    impl Fixture for Sqlite {
        fn engine(&self) -> EngineKind {
            EngineKind::SQLITE
        }

        fn create(&self, dir: &Path) {
            let db = Connection::open(dir.join("node.sqlite")).unwrap();
            db.pragma_update(None, "journal_mode", self.journal).unwrap();
            db.execute_batch("CREATE TABLE t (value TEXT); INSERT INTO t VALUES ('first')")
                .unwrap();
        }

        fn change(&self, dir: &Path) {
            let db = Connection::open(dir.join("node.sqlite")).unwrap();
            db.execute("INSERT INTO t VALUES ('second')", []).unwrap();
        }

        fn hold(&self, _: &Path) -> Option<Box<dyn Any>> {
            None
        }

        fn exclusive(&self) -> bool {
            false
        }

        fn verify(&self, dir: &Path, changed: bool) {
            let db = Connection::open(dir.join("node.sqlite")).unwrap();
            let mut rows = db.prepare("SELECT value FROM t ORDER BY rowid").unwrap();
            let values: Vec<String> =
                rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            let expected: &[&str] = if changed { &["first", "second"] } else { &["first"] };
            assert_eq!(values, expected);
        }
    }

    #[test]
    fn sqlite_with_a_log() {
        passes(&Sqlite { journal: "WAL" });
    }

    #[test]
    fn sqlite_with_a_rollback_journal() {
        passes(&Sqlite { journal: "DELETE" });
    }
}
