//! Whether a database is in use is asked of several witnesses: the program runs here in a process
//! namespace of its own, in which it sees no process of the node, and what is known by the database's lock
//! has to do.

use std::any::Any;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rusqlite::Connection;
use rust_rocksdb::{DB, Options};
use rustix::fs::{FlockOperation, flock};

use crate::freeze::engines::python_with_lmdb;
use crate::node::bytes;
use crate::scene::{Scene, skip};

/// A file that its real engine has written.
fn page_file(name: &str) -> Vec<u8> {
    let fixtures = "../highwater/tests/fixtures/pages";
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixtures).join(format!("{name}.zst"));
    zstd::decode_all(fs::read(place).unwrap().as_slice()).unwrap()
}

/// A scene with an empty node directory.
fn scene() -> Scene {
    let scene = Scene::new();
    fs::create_dir(scene.path("node")).unwrap();
    scene
}

/// From now on the program sees no process but its own; `false`, said aloud, where that can't be had.
fn blindfold(scene: &mut Scene) -> bool {
    let launcher = ["unshare", "--pid", "--fork", "--mount-proc"];
    let works = Command::new("unshare").args(&launcher[1..]).arg("true").status();
    if !works.is_ok_and(|status| status.success()) {
        skip("no process namespace can be made here");
        return false;
    }
    scene.launch_by(&launcher);
    true
}

/// The node is in the vault, then in use: a restore over it is refused and changes nothing; a backup
/// answers `code`.
#[track_caller]
fn assert_refused(make: impl Fn(&Path), open: impl Fn(&Path) -> Option<Box<dyn Any>>, code: i32) {
    let mut scene = scene();
    let node = scene.path("node");
    make(&node);
    scene.backup().ok();
    let Some(open) = open(&node) else { return };
    if !blindfold(&mut scene) {
        return;
    }
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = inode(&node);
    scene.restore("latest", &node).failed(4, "conflict");
    assert_eq!(inode(&node), before, "the node directory was exchanged");
    let plan = scene.run(["restore", "latest", node.to_str().unwrap(), "--plan", "--force"]);
    assert_ne!(plan.code, Some(1), "{plan:?}");
    let ran = scene.backup();
    assert_eq!(ran.code, Some(code), "{ran:?}");
    drop(open);
    scene.restore("latest", &node).ok();
}

#[test]
fn a_rocksdb_in_another_process_namespace_is_not_exchanged() {
    let open = |node: &Path| DB::open_default(node.join("store")).unwrap();
    // It is captured while it is used.
    assert_refused(|node| drop(open(node)), |node| Some(Box::new(open(node))), 0);
}

#[test]
fn a_sqlite_in_another_process_namespace_is_not_exchanged() {
    let open = |node: &Path| {
        let open = Connection::open(node.join("app.db")).unwrap();
        open.pragma_update(None, "journal_mode", "wal").unwrap();
        open.execute_batch("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)").unwrap();
        open
    };
    // It is captured while it is used, as ever.
    assert_refused(|node| drop(open(node)), |node| Some(Box::new(open(node))), 0);
}

#[test]
fn a_redb_in_another_process_namespace_is_not_exchanged() {
    let open = |node: &Path| redb::Database::create(node.join("state.redb")).unwrap();
    assert_refused(|node| drop(open(node)), |node| Some(Box::new(open(node))), 4);
}

/// A bbolt is known by its first page, and locked as a whole by whoever has it open.
#[test]
fn a_bbolt_in_another_process_namespace_is_not_exchanged() {
    let make = |node: &Path| fs::write(node.join("graph.db"), page_file("bbolt-small-1k")).unwrap();
    let open = |node: &Path| -> Option<Box<dyn Any>> {
        let file = fs::File::open(node.join("graph.db")).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        Some(Box::new(file))
    };
    assert_refused(make, open, 4);
}

/// A process that has said that it has begun; it ends with its standard input.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

fn hold(mut command: Command) -> Holder {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    Holder(child)
}

#[test]
fn an_lmdb_in_another_process_namespace_is_neither_exchanged_nor_captured() {
    let Some(python) = python_with_lmdb() else { return };
    let program = "import lmdb, sys
store = lmdb.open(sys.argv[1])
with store.begin(write=True) as write: write.put(b'a', b'b')
print('open', flush=True)
sys.stdin.read()";
    let open = |node: &Path| {
        let mut command = Command::new(python);
        command.args(["-c", program]).arg(node.join("lmdb"));
        hold(command)
    };
    assert_refused(|node| drop(open(node)), |node| Some(Box::new(open(node))), 4);
}

#[test]
fn a_file_that_is_written_through_memory_is_refused_by_name() {
    let scene = scene();
    let node = scene.path("node");
    fs::write(node.join("ring"), vec![0; 1 << 20]).unwrap();
    fs::write(node.join("other"), "rests").unwrap();
    let program = "import mmap, sys
file = open(sys.argv[1], 'r+b')
ring = mmap.mmap(file.fileno(), 0)
file.close()
print('open', flush=True)
sys.stdin.read()";
    let mut command = Command::new("python3");
    command.args(["-c", program]).arg(node.join("ring"));
    let holder = hold(command);
    let error = scene.backup().failed(4, "conflict");
    assert_eq!(error["entry"], "ring", "{error}");
    let node = node.to_str().unwrap();
    scene.run(["backup", node, "--exclude", "ring"]).ok();
    drop(holder);
    scene.backup().ok();
}

/// Names and contents.
type Files<'a> = &'a [(&'a str, &'a [u8])];

/// Files by which an engine is known, as they lie in a directory; each is refused while a process has
/// one of them open, and named.
#[test]
fn what_looks_like_a_database_is_named_and_refused_while_in_use() {
    let noise = bytes("noise", 1, 8192);
    let mdbx = page_file("mdbx-0.13-small");
    let mut berkeley = vec![0; 8192];
    berkeley[12..16].copy_from_slice(&0x0005_3162_u32.to_le_bytes());
    let pebble: Files<'_> = &[
        ("db/MANIFEST-000001", b"x"),
        ("db/marker.manifest.000001.MANIFEST-000001", b""),
        ("db/marker.format-version.000013.013", b""),
        ("db/000004.sst", b"table"),
        ("db/LOCK", b""),
    ];
    let parity: Files<'_> =
        &[("db/metadata", b"version=8\n"), ("db/lock", b""), ("db/table_00_15", b"t")];
    let sled: Files<'_> =
        &[("db/conf", b"segment_size: 524288\n"), ("db/db", b"d"), ("db/blobs/1", b"b")];
    let fjall: Files<'_> =
        &[("db/version", b"FJL\x02"), ("db/journals/0", b"j"), ("db/partitions/p/1", b"p")];
    let cases: [(&str, &str, Files<'_>, &str); 7] = [
        ("pebble", "db", pebble, "db/000004.sst"),
        ("paritydb", "db", parity, "db/table_00_15"),
        ("sled", "db", sled, "db/blobs/1"),
        ("fjall", "db", fjall, "db/partitions/p/1"),
        ("mdbx", "db/mdbx.dat", &[("db/mdbx.dat", &mdbx), ("db/mdbx.lck", b"")], "db/mdbx.dat"),
        ("berkeleydb", "wallet.dat", &[("wallet.dat", &berkeley)], "wallet.dat"),
        ("encryptedsqlite", "app.db", &[("app.db", &noise), ("app.db-wal", b"log")], "app.db"),
    ];
    for (engine, name, files, opened) in cases {
        let scene = scene();
        let node = scene.path("node");
        for (file, content) in files {
            fs::create_dir_all(node.join(file).parent().unwrap()).unwrap();
            fs::write(node.join(file), content).unwrap();
        }
        let path = node.to_str().unwrap();
        let seen = scene.run(["inspect", path]).ok();
        let part = &seen["parts"][0];
        assert_eq!((part["engine"].as_str(), part["name"].as_str()), (Some(engine), Some(name)));
        scene.backup().ok();
        let open = fs::File::options().write(true).open(node.join(opened)).unwrap();
        let error = scene.backup().failed(4, "conflict");
        assert!(error["message"].as_str().unwrap().contains(name), "{engine}: {error}");
        let refused = scene.run(["inspect", path]).ok();
        assert!(refused["parts"][0]["refused"].is_string(), "{engine}: {refused}");
        drop(open);
        let target = scene.path("restored");
        scene.restore("latest", &target).ok();
        for (file, content) in files {
            let kept = fs::read(target.join(file));
            assert!(file.ends_with(".lck") || kept.unwrap() == *content, "{engine}: {file}");
        }
    }
}

#[test]
fn inspect_says_what_a_backup_will_say() {
    let scene = scene();
    let node = scene.path("node");
    let locked = Connection::open(node.join("locked.db")).unwrap();
    locked
        .execute_batch(
            "PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE t (x); INSERT INTO t VALUES (1)",
        )
        .unwrap();
    let one = DB::open(&create(), node.join("one")).unwrap();
    let two = DB::open(&create(), node.join("two")).unwrap();
    let seen = scene.run(["inspect", node.to_str().unwrap()]).ok();
    for part in seen["parts"].as_array().unwrap() {
        let files = part["engine"] == "files";
        assert_eq!(part["refused"].is_null(), part["engine"] != "sqlite", "{part}");
        assert_eq!(part["in_use_by"].as_array().unwrap().is_empty(), files, "{part}");
    }
    scene.backup().failed(4, "conflict");
    drop(locked);
    // Each of the two could be captured, and both have no instant in common.
    let seen = scene.run(["inspect", node.to_str().unwrap()]).ok();
    assert_eq!(seen["refusals"][0]["kind"], "conflict", "{seen}");
    scene.backup().failed(4, "conflict");
    drop((one, two));
    let seen = scene.run(["inspect", node.to_str().unwrap()]).ok();
    assert!(seen["parts"].as_array().unwrap().iter().all(|part| part["refused"].is_null()));
}

fn create() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options
}
