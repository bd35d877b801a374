//! Each engine, frozen while it writes, opened by itself afterwards.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use highwater::Env;
use redb::ReadableDatabase as _;
use rusqlite::{Connection, OpenFlags};
use rust_rocksdb::{DB, IteratorMode, Options};

use super::child::{FAMILIES, TABLE, Writer};
use super::{assert_frozen, scene};
use crate::node::bytes;
use crate::scene::{Scene, finish, skip};
use crate::strangers::is_there;

/// Rows before the first freeze.
const ROWS: u64 = 400;

/// How many rows a restored RocksDB has; every column family has the same, each as it was written.
pub(crate) fn rows_of(dir: &Path) -> u64 {
    let store = DB::open_cf(&Options::default(), dir.join("store"), FAMILIES).unwrap();
    let counts = FAMILIES.map(|name| {
        let family = store.cf_handle(name).unwrap();
        let rows = (0..).zip(store.iterator_cf(&family, IteratorMode::Start));
        let rows = rows.map(|(number, row): (u64, _)| {
            let (key, value) = row.unwrap();
            assert_eq!(*key, number.to_be_bytes());
            assert_eq!(*value, *bytes(name, number, 1000));
        });
        rows.count() as u64
    });
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    counts[0]
}

/// Every acknowledged row of three column families, in tables and in the log, is there; the node's
/// own tables are linked, known again by the next backup, and not read twice.
#[test]
fn a_rocksdb_that_writes_is_frozen_and_restored() {
    let scene = scene();
    let mut writer = Writer::start("rocksdb", &scene.path("node"));
    let mut before = writer.at_least(ROWS);
    for round in 0..3 {
        let document = scene.freeze(&writer.pid(), &["--mark", "height=7"]).ok();
        assert_frozen(&scene, &document);
        assert_eq!(document["claimed_marks"], serde_json::json!(["height"]));
        let restored = scene.thawed(&format!("restored-{round}"));
        let rows = rows_of(&restored);
        assert!(rows > before, "{before} was acknowledged, {rows} rows are there");
        before = writer.more();
    }
}

#[test]
fn a_table_that_was_linked_is_not_read_again() {
    let scene = scene();
    let mut writer = Writer::start("rocksdb", &scene.path("node"));
    writer.at_least(ROWS * 10);
    // Times are trusted once they are two seconds old.
    let env = Env::system();
    let start = env.monotonic();
    while env.monotonic() - start < Duration::from_millis(2500) {
        writer.more();
    }
    scene.freeze(&writer.pid(), &[]).ok();
    let second = scene.freeze(&writer.pid(), &[]).ok();
    let number = |name: &str| second[name].as_u64().unwrap();
    assert!(number("bytes_read") < number("bytes_total"), "{second}");
    assert!(rows_of(&scene.thawed("restored")) > ROWS * 10);
}

#[test]
fn a_benchmark_of_rocksdb_is_frozen_in_full_flight() {
    if !is_there("db_bench") {
        return;
    }
    let scene = scene();
    let store = scene.path("node/store");
    let mut bench = Command::new("db_bench")
        .args(["--benchmarks=fillrandom", "--sync=1", "--num=100000000", "--value_size=400"])
        .args(["--write_buffer_size=500000", "--threads=4"])
        .arg(format!("--db={}", store.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let env = Env::system();
    let tables = || {
        let names = crate::tree::names(&store);
        names.iter().filter(|name| name.ends_with(".sst")).count()
    };
    while !store.exists() || tables() < 3 {
        assert_eq!(bench.try_wait().unwrap(), None, "the benchmark has ended");
        env.pause(Duration::from_millis(5));
    }
    for round in 0..3 {
        let document = scene.freeze(&bench.id().to_string(), &[]).ok();
        assert_frozen(&scene, &document);
        let restored = scene.thawed(&format!("restored-{round}"));
        let db = format!("--db={}", restored.join("store").display());
        let checked = Command::new("ldb").args([&db, "checkconsistency"]).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(bench.try_wait().unwrap(), None, "the benchmark has ended");
    }
    bench.kill().unwrap();
    bench.wait().unwrap();
}

#[test]
fn an_engine_that_is_not_read_here_is_frozen_and_opened_by_itself() {
    let scene = scene();
    let mut writer = Writer::start("redb", &scene.path("node"));
    for round in 0..3 {
        let before = writer.at_least(ROWS + round);
        let document = scene.freeze(&writer.pid(), &[]).ok();
        assert_frozen(&scene, &document);
        assert_eq!(document["parts"][0]["engine"], "redb");
        let restored = scene.thawed(&format!("restored-{round}"));
        let store = redb::Database::open(restored.join("node.redb")).unwrap();
        let read = store.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        for row in 0..=before {
            let value = table.get(row).unwrap().unwrap_or_else(|| panic!("row {row} is lost"));
            assert_eq!(value.value(), bytes("redb", row, 500));
        }
        writer.more();
    }
}

/// A python that knows LMDB: Debian's has its package.
pub(crate) fn python_with_lmdb() -> Option<&'static str> {
    let knows = |python: &&str| crate::strangers::attempt(python, &["-c", "import lmdb"]);
    let found = ["/usr/bin/python3", "python3"].into_iter().find(knows);
    if found.is_none() {
        skip("python3 has no lmdb (Debian: python3-lmdb)");
    }
    found
}

/// LMDB writes by system calls, and recovers; with `MDB_WRITEMAP` it writes through memory.
#[test]
fn an_lmdb_is_frozen_and_one_that_writes_through_memory_is_not() {
    let Some(python) = python_with_lmdb() else { return };
    let scene = scene();
    let writer = |mode: &str| {
        let program = "import lmdb, sys
store = lmdb.open(sys.argv[1], map_size=1 << 28, writemap=sys.argv[2] == 'writemap')
row = store.stat()['entries']
while True:
    with store.begin(write=True) as write:
        write.put(b'%010d' % row, b'value %d' % row)
    print(row, flush=True)
    row += 1";
        let mut command = Command::new(python);
        command.args(["-c", program]).arg(scene.path("node/lmdb")).arg(mode);
        Writer::of(command, scene.path("said-by-lmdb"))
    };
    let mut through_calls = writer("calls");
    let before = through_calls.at_least(50);
    let document = scene.freeze(&through_calls.pid(), &[]).ok();
    assert_frozen(&scene, &document);
    assert_eq!(document["parts"][0]["engine"], "lmdb");
    let restored = scene.thawed("restored");
    let reader = "import lmdb, sys
with lmdb.open(sys.argv[1]).begin() as read:
    for row, (key, value) in enumerate(read.cursor()):
        assert (key, value) == (b'%010d' % row, b'value %d' % row)
print(row)";
    let read = Command::new(python).args(["-c", reader]).arg(restored.join("lmdb")).output();
    let read = read.unwrap();
    let last: u64 = String::from_utf8(read.stdout).unwrap().trim().parse().unwrap();
    assert!(last >= before, "{before} was acknowledged, {last} is there");
    through_calls.more();
    drop(through_calls);

    let mut through_memory = writer("writemap");
    let ran = scene.freeze(&through_memory.pid(), &[]);
    assert_eq!(ran.json["error"]["entry"], "lmdb/data.mdb");
    ran.failed(4, "conflict");
    through_memory.more();
}

/// Payments that a restored SQLite has, without a gap, after its own check.
fn payments_of(dir: &Path) -> u64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let ledger = Connection::open_with_flags(dir.join("ledger.sqlite"), flags).unwrap();
    let one = |query: &str| ledger.query_row(query, (), |row| row.get::<_, i64>(0)).unwrap();
    let checked: String = ledger.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok");
    let count = one("SELECT count(*) FROM payment");
    assert_eq!(one("SELECT max(id) FROM payment"), count - 1);
    count.cast_unsigned()
}

#[test]
fn a_sqlite_that_writes_is_frozen_in_either_mode() {
    for mode in ["wal", "delete"] {
        let scene = scene();
        let mut writer = Writer::start(mode, &scene.path("node"));
        for round in 0..3 {
            let before = writer.at_least(100 + round);
            let document = scene.freeze(&writer.pid(), &[]).ok();
            assert_frozen(&scene, &document);
            let restored = scene.thawed(&format!("restored-{round}"));
            assert!(!restored.join("ledger.sqlite-shm").exists());
            let payments = payments_of(&restored);
            assert!(payments > before, "{mode}: {before} acknowledged, {payments} are there");
            writer.more();
        }
    }
}

/// The transaction that was open is undone, by the journal that was captured with it.
#[test]
fn a_hot_journal_belongs_to_a_frozen_snapshot() {
    let scene = scene();
    let writer = Writer::start("spill", &scene.path("node"));
    let journal = scene.path("node/ledger.sqlite-journal");
    assert!(fs::metadata(journal).unwrap().len() > 0);
    scene.freeze(&writer.pid(), &[]).ok();
    let restored = scene.thawed("restored");
    assert!(restored.join("ledger.sqlite-journal").exists());
    assert_eq!(payments_of(&restored), 100);
}

/// The second process writes down what the first has made durable: at one instant, it is never
/// ahead.
#[test]
fn all_processes_that_write_are_frozen_at_one_instant() {
    let scene = scene();
    let mut leader = Writer::start("rocksdb", &scene.path("node"));
    let mut follower = Writer::follow("follow", &scene.path("node"), leader.said());
    for round in 0..6 {
        leader.more();
        follower.more();
        let pid = if round % 2 == 0 { leader.pid() } else { follower.pid() };
        let document = scene.freeze(&pid, &[]).ok();
        assert_frozen(&scene, &document);
        let restored = scene.path(&format!("restored-{round}"));
        scene.restore("latest", &restored).ok();
        let log = fs::read_to_string(restored.join("follow.log")).unwrap();
        let last: u64 = log.lines().last().unwrap().parse().unwrap();
        let rows = rows_of(&restored);
        assert!(rows > last, "row {last} was written down, {rows} rows are there");
    }
}

/// Prints how long a thousand links take.
#[test]
#[expect(clippy::print_stderr, reason = "a figure, not an assertion")]
fn a_thousand_tables_are_linked() {
    let scene = scene();
    let mut writer = Writer::start("tables", &scene.path("node"));
    writer.at_least(1000);
    let document = scene.freeze(&writer.pid(), &[]).ok();
    assert_frozen(&scene, &document);
    eprintln!("1,000 tables: the node was stopped for {} ms", document["pause_ms"]);
    writer.more();
}

/// Where the file system shares extents between files, nothing is copied byte by byte.
#[test]
fn a_large_file_that_moves_is_cloned_where_that_can_be_done() {
    let mut scene = scene();
    let root = rustix::process::geteuid().is_root();
    if !root || !crate::strangers::attempt("mkfs.xfs", &["-V"]) {
        return skip("no XFS can be made here, which takes root and mkfs.xfs");
    }
    let (image, node) = (scene.path("xfs.img"), scene.path("node"));
    fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
    let image = image.to_str().unwrap();
    assert!(crate::strangers::attempt("mkfs.xfs", &["-q", "-m", "reflink=1", image]));
    let script = r#"mount -o loop "$0" "$1" && echo 1 && echo 2 && exec 3>"$1/large" && cat /dev/zero \
                    | head -c 200000000 >&3 && echo 3 && read end"#;
    let mut mounter = Command::new("unshare");
    mounter.args(["-m", "sh", "-c", script]).args([image, node.to_str().unwrap()]);
    mounter.stdin(Stdio::piped());
    let mut mounted = Writer::of(mounter, scene.path("said-by-mounter"));
    if mounted.newest().is_none() {
        return skip("no loop device can be mounted here");
    }
    mounted.at_least(3);
    let pid = mounted.pid();
    scene.launch_by(&["nsenter", "--target", &pid, "--mount"]);
    // There is no room for a copy.
    assert_eq!(scene.freeze(&pid, &[]).ok()["barrier"], "frozen");
}

/// A signal to the program ends the backup, and the node goes on.
#[test]
fn a_signal_continues_the_node() {
    let scene: Scene = scene();
    let mut writer = Writer::start("log", &scene.path("node"));
    let large = vec![7; 300 << 20];
    fs::write(scene.path("node/large"), &large).unwrap();
    for _ in 0..20 {
        let program = scene.command(scene.freezing(&writer.pid(), &[])).spawn().unwrap();
        writer.wait_stopped(true);
        let pid = rustix::process::Pid::from_child(&program);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ran = finish(program);
        fs::write(scene.path("node/large"), b"small").unwrap();
        super::assert_goes_on(&scene, &mut writer);
        if ran.code == Some(130) {
            assert_eq!(ran.json["error"]["kind"], "interrupted");
            return;
        }
        // This test was slower than the copy.
        fs::write(scene.path("node/large"), &large).unwrap();
    }
    panic!("the signal always came too late");
}
