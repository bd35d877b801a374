//! Databases made and read by strangers' tools, and strangers at the vault: rot, cuts, wrong keys,
//! curious eyes.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use crate::node;
use crate::scene::{Scene, skip};
use crate::tree::{self, Entry};

/// Rows that a writer has acknowledged before a backup begins, and between two.
const ROWS_MORE: u64 = 100;

/// Runs a tool to its good end; what it printed.
fn tool(name: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(name)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a tool that may fail; whether it ended well.
pub(crate) fn attempt(name: &str, args: &[&str]) -> bool {
    let output = Command::new(name).args(args).stdin(Stdio::null()).output().unwrap();
    output.status.success()
}

pub(crate) fn is_there(name: &str) -> bool {
    let mut asked = Command::new(name);
    asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    let there = asked.status().is_ok();
    if !there {
        skip(&format!("{name} is not installed"));
    }
    there
}

/// All rows of each column family, by the older `ldb`, in a copy, since it changes what it opens.
fn scan(scene: &Scene, store: &Path, families: &[&str]) -> Vec<String> {
    let copy = scene.path("scanned");
    tree::copy(store, &copy);
    let db = format!("--db={}", copy.display());
    let rows = families.iter().map(|family| {
        let family = format!("--column_family={family}");
        tool("ldb", &[&db, &family, "scan", "--hex"], "")
    });
    let rows = rows.collect();
    fs::remove_dir_all(copy).unwrap();
    rows
}

/// Backs the node up, loses it and restores it; the store must come back byte for byte.
fn lose_and_restore(scene: &Scene, families: &[&str], rows_min: usize) {
    let node = scene.path("node");
    let store = node.join("db");
    let rows = scan(scene, &store, families);
    for (family, rows) in families.iter().zip(&rows) {
        assert!(rows.lines().count() >= rows_min, "{family} has too few rows: {rows}");
    }
    let logs = tree::files(&store).into_iter().filter(|path| {
        path.extension().is_some_and(|end| end == "log") && path.metadata().unwrap().len() > 0
    });
    assert!(logs.count() > 0, "no row is in the log alone");
    let before = tree::read(&store).unwrap();
    scene.backup().ok();
    tree::assert_equal(&tree::read(&store).unwrap(), &before, "a backup changes the database");
    fs::remove_dir_all(&node).unwrap();
    scene.restore("latest", &node).ok();
    let after = tree::read(&store).unwrap();
    tree::assert_equal(&after, &before, "the restored database");
    assert_eq!(scan(scene, &store, families), rows, "by the older ldb");
}

#[test]
fn what_an_older_ldb_wrote_comes_back_for_it_byte_by_byte() {
    if !is_there("ldb") {
        return;
    }
    let scene = Scene::new();
    fs::create_dir(scene.path("node")).unwrap();
    let db = format!("--db={}", scene.path("node/db").display());
    let families = ["default", "channels", "invoices"];
    tool("ldb", &[&db, "--create_if_missing", "put", "first", "row"], "");
    for family in &families[1..] {
        tool("ldb", &[&db, "create_column_family", family], "");
    }
    for round in 0..3 {
        for family in families {
            let rows: Vec<String> =
                (0..50).map(|row| format!("{family}-{round}-{row} ==> value {row}\n")).collect();
            let family = format!("--column_family={family}");
            tool("ldb", &[&db, &family, "load"], &rows.concat());
        }
    }
    for family in families {
        let family = format!("--column_family={family}");
        tool("ldb", &[&db, &family, "put", "last", "in the log"], "");
    }
    lose_and_restore(&scene, &families, 151);
}

#[test]
fn what_db_bench_wrote_comes_back_byte_by_byte() {
    if !is_there("ldb") || !is_there("db_bench") {
        return;
    }
    let scene = Scene::new();
    fs::create_dir(scene.path("node")).unwrap();
    let db = format!("--db={}", scene.path("node/db").display());
    let shape = ["--num_column_families=3", "--num=4000", "--write_buffer_size=65536"];
    let bench = ["--benchmarks=fillrandom,overwrite", "--value_size=200", "--seed=7"];
    tool("db_bench", &[&[db.as_str()][..], &shape, &bench].concat(), "");
    let families = ["default", "column_family_name_000001", "column_family_name_000002"];
    lose_and_restore(&scene, &families, 500);
}

/// A program of another language that commits one row after the other, and says so.
const WRITER: &str = r#"
import sqlite3, sys
ledger = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
ledger.execute("PRAGMA journal_mode = wal")
ledger.execute("PRAGMA wal_autocheckpoint = 50")
ledger.execute("CREATE TABLE IF NOT EXISTS payment (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
row = 0
while True:
    row += 1
    ledger.execute("INSERT INTO payment VALUES (?, ?)", (row, f"payment {row} " * 30))
    print(row, flush=True)
"#;

#[test]
fn a_sqlite_that_a_stranger_writes_during_the_backup_comes_back_as_a_prefix() {
    if !is_there("python3") {
        return;
    }
    let scene = Scene::new();
    let node = scene.path("node");
    fs::create_dir(&node).unwrap();
    let file = node.join("ledger.sqlite");
    let mut writer = Command::new("python3")
        .args(["-c", WRITER])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let acknowledged = AtomicU64::new(0);
    let begun = std::thread::scope(|threads| {
        let listener = threads.spawn(|| {
            for line in lines {
                acknowledged.store(line.unwrap().parse().unwrap(), Ordering::SeqCst);
            }
        });
        let more = || {
            let wanted = acknowledged.load(Ordering::SeqCst) + ROWS_MORE;
            while acknowledged.load(Ordering::SeqCst) < wanted && !listener.is_finished() {
                std::thread::yield_now();
            }
            acknowledged.load(Ordering::SeqCst)
        };
        let mut begun = Vec::new();
        for _ in 0..5 {
            begun.push(more());
            scene.backup().ok();
        }
        more();
        writer.kill().unwrap();
        begun
    });
    writer.wait().unwrap();
    let written = acknowledged.load(Ordering::SeqCst);
    fs::remove_dir_all(&node).unwrap();

    let snapshots = scene.snapshots();
    assert_eq!(snapshots.len(), begun.len());
    for (snapshot, begun) in snapshots.iter().zip(begun) {
        scene.restore(snapshot, &node).ok();
        let rows = rows_of_a_prefix(&file);
        assert!(rows >= begun, "{rows} rows, although {begun} were acknowledged at the beginning");
        assert!(rows < written, "{rows} rows, more than the {written} at the end");
        let wal = tool("sqlite3", &[file.to_str().unwrap(), "PRAGMA integrity_check"], "");
        assert_eq!(wal, "ok\n", "by another build of SQLite");
    }
}

/// Counts the rows, which must be the first ones that were written, without a gap.
fn rows_of_a_prefix(file: &Path) -> u64 {
    let ledger = Connection::open(file).unwrap();
    let verdict: String = ledger.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let mut query = ledger.prepare("SELECT id, body FROM payment ORDER BY id").unwrap();
    let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let count = (1..).zip(rows).map(|(number, row): (i64, _)| {
        let (id, body): (i64, String) = row.unwrap();
        assert_eq!((id, body), (number, format!("payment {number} ").repeat(30)));
    });
    count.count() as u64
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn no_plain_text_of_the_node_is_in_the_vault() {
    let scene = Scene::with_node();
    scene.backup().ok();
    node::go_on(&scene.path("node"));
    scene.backup().ok();
    let blob = node::bytes("blob", 2, 64);
    let row = node::bytes(node::LEDGER, 3, 32);
    let names =
        ["config.toml", "node.key", "ledger.sqlite", "SQLite format 3", "alias", "MANIFEST"];
    let mut plain: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    plain.extend([node::SECRET.as_bytes(), &blob[16..48], &row]);
    for wanted in &plain[6..] {
        let somewhere = |path: &std::path::PathBuf| contains(&fs::read(path).unwrap(), wanted);
        assert!(tree::files(&scene.path("node")).iter().any(somewhere), "the node has it itself");
    }
    let objects = tree::files(&scene.path("vault"));
    assert!(objects.len() > 6, "{objects:?}");
    for object in objects {
        let bytes = fs::read(&object).unwrap();
        for wanted in &plain {
            let what = String::from_utf8_lossy(wanted);
            assert!(!contains(&bytes, wanted), "{} holds `{what}`", object.display());
            assert!(!object.to_string_lossy().contains(&*what), "{} is named", object.display());
        }
    }
}

/// Changes an object in several ways, one after the other, and puts it back.
fn damage(object: &Path, seed: u64, mut look: impl FnMut(&str)) {
    let good = fs::read(object).unwrap();
    let random = node::bytes("damage", seed, 8 * 9);
    let places = random.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()));
    let places: Vec<usize> = places
        .map(|place| (place % good.len() as u64) as usize)
        .chain([0, good.len() - 1])
        .collect();
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(object, bad).unwrap();
        look(&format!("a flip at {at} of {}", good.len()));
    }
    fs::write(object, &good[..good.len() - 1]).unwrap();
    look("a cut of one byte");
    fs::write(object, [&good[..], b"x"].concat()).unwrap();
    look("a byte more");
    fs::write(object, &good).unwrap();
}

#[test]
fn every_object_that_rots_is_found_and_named() {
    let scene = Scene::with_node();
    scene.backup().ok();
    node::go_on(&scene.path("node"));
    scene.backup().ok();
    let vault = scene.path("vault");
    let mut missed = Vec::new();
    for (seed, object) in (0..).zip(tree::files(&vault)) {
        let name = object.strip_prefix(&vault).unwrap().to_str().unwrap().to_owned();
        damage(&object, seed, |how| {
            let ran = scene.run(["check", "--read-data"]);
            let mut entries: Vec<String> = ran.json["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .chain(ran.json.get("error"))
                .map(|error| error["entry"].as_str().unwrap_or_default().to_owned())
                .collect();
            entries.dedup();
            if ran.code != Some(5) || !entries.iter().any(|entry| entry.contains(&name)) {
                missed.push(format!("{name}, {how}: exit {:?}, {}", ran.code, ran.json));
            }
        });
        assert_eq!(scene.run(["check", "--read-data"]).ok()["ok"], true, "{name} is whole again");
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn a_missing_object_is_found_and_named_and_restores_nothing() {
    let scene = Scene::with_node();
    scene.backup().ok();
    let vault = scene.path("vault");
    let before = tree::read(&scene.path("node")).unwrap();
    for object in tree::files(&vault.join("packs")) {
        let good = fs::read(&object).unwrap();
        fs::remove_file(&object).unwrap();
        let name = object.file_name().unwrap().to_str().unwrap();
        let ran = scene.run(["check"]);
        assert_eq!(ran.code, Some(5), "{ran:?}");
        assert!(ran.json["errors"].to_string().contains(name), "{ran:?}");
        let error = scene.restore("latest", &scene.path("node")).failed(5, "corrupt");
        assert!(error["entry"].as_str().unwrap().contains(name), "{error}");
        let after = tree::read(&scene.path("node")).unwrap();
        tree::assert_equal(&after, &before, "the target");
        fs::write(&object, good).unwrap();
    }
    assert!(!scene.path(".highwater-node").exists(), "staging is gone");
}

#[test]
fn a_wrong_key_opens_nothing() {
    let scene = Scene::with_node();
    scene.backup().ok();
    let before = tree::read(&scene.path("vault")).unwrap();
    fs::write(scene.path("vault.key"), format!("{}\n", "5a".repeat(32))).unwrap();
    for command in [&["snapshots"][..], &["check"], &["status"], &["show", "latest"]] {
        scene.run(command).failed(7, "denied");
    }
    scene.backup().failed(7, "denied");
    scene.restore("latest", &scene.path("back")).failed(7, "denied");
    assert!(!scene.path("back").exists());
    assert!(matches!(before.get(Path::new("vault.json")), Some(Entry::File(0o600, _))));
    tree::assert_equal(&tree::read(&scene.path("vault")).unwrap(), &before, "the vault");
}
