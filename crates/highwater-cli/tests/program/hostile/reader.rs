//! The reader: where root takes another user's SQLite, a child with that user's rights opens it, which
//! knows neither key nor vault and sees nothing but the directory.

use std::fs;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;

use super::ground::{Above, Busy, Ground, give};
use crate::node;

/// Follows every process of its own user: what it runs, what it has open, where it stands, what it was told.
const STALKER: &str = r#"
import os
me, seen = os.getuid(), set()
print('ready', flush=True)
while True:
    for pid in os.listdir('/proc'):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        try:
            if os.stat('/proc/' + pid).st_uid != me:
                continue
            base = '/proc/' + pid + '/'
            told = [os.readlink(base + 'root'), open(base + 'cmdline').read(), open(base + 'environ').read()]
            told += [os.readlink(base + 'fd/' + fd) for fd in os.listdir(base + 'fd')]
            with open(base + 'mem', 'rb') as mem, open(base + 'maps') as maps:
                for line in maps:
                    if ' rw' not in line:
                        continue
                    start, end = (int(half, 16) for half in line.split()[0].split('-'))
                    mem.seek(start)
                    told.append(mem.read(min(end - start, 1 << 22)).decode('latin-1'))
        except (OSError, ValueError, OverflowError):
            continue
        for text in told:
            for word in WORDS:
                if word in text and word not in seen:
                    seen.add(word)
                    print(word, flush=True)
"#;

/// A SQLite of the owner's with a log that was not written back: who copies the main file alone loses
/// rows.
fn live(ground: &Ground, mode: &str) -> Connection {
    let path = ground.node().join("live.sqlite");
    let _ = fs::remove_file(&path);
    let open = Connection::open(&path).unwrap();
    let kept: String =
        open.query_row(&format!("PRAGMA journal_mode={mode}"), (), |row| row.get(0)).unwrap();
    assert_eq!(kept, mode);
    open.execute_batch(
        "PRAGMA wal_autocheckpoint=0; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)",
    )
    .unwrap();
    give(&path);
    for suffix in ["-wal", "-shm"] {
        let beside = ground.node().join(format!("live.sqlite{suffix}"));
        if beside.exists() {
            give(&beside);
        }
    }
    open
}

fn rows(path: &std::path::Path) -> i64 {
    Connection::open(path)
        .unwrap()
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap()
}

#[test]
fn a_database_in_use_is_taken_with_its_log() {
    for mode in ["wal", "delete"] {
        let Some(ground) = Ground::new(Above::Roots) else { return };
        let open = live(&ground, mode);
        ground.on_node(&["backup"], &["--node", "node", "--no-barrier"]).ok();
        open.execute("INSERT INTO t VALUES (3)", ()).unwrap();
        let target = ground.scene.path("taken");
        ground.scene.restore("latest", &target).ok();
        assert_eq!(rows(&target.join("live.sqlite")), 2, "{mode}");
        ground.assert_untouched(mode);
    }
}

#[test]
fn the_reader_tells_its_user_nothing() {
    let Some(ground) = Ground::without_backup(Above::Owners) else { return };
    let key = fs::read_to_string(ground.scene.path("vault.key")).unwrap();
    let vault = ground.scene.path("vault");
    let words = [key.trim(), vault.to_str().unwrap()];
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let program = format!("WORDS = [{}]\n{STALKER}", words.join(", "));
    let said = ground.scene.path("said");
    let mut command = ground.shell("exec /usr/bin/python3 -c \"$E\"");
    command.env_remove("R").env("E", "import sys; exec(sys.stdin.read())");
    fs::write(ground.scene.path("stalker"), program).unwrap();
    command.stdin(fs::File::open(ground.scene.path("stalker")).unwrap());
    command.stdout(fs::File::create(&said).unwrap());
    let stalker = Busy::start(command);
    for round in 0..8 {
        let ledger = Connection::open(ground.node().join(node::LEDGER)).unwrap();
        ledger.execute_batch(&format!("CREATE TABLE more{round} (x)")).unwrap();
        drop(ledger);
        ground.give_node();
        ground.backup().ok();
    }
    drop(stalker);
    assert_eq!(fs::read_to_string(&said).unwrap(), "ready\n");
    ground.assert_untouched("stalked");
}

/// Ends each reader of a program that works on this node.
const KILLER: &str = r#"
import os, signal
def words(pid):
    return open('/proc/' + pid + '/cmdline', 'rb').read()
while True:
    for pid in os.listdir('/proc'):
        if pid.isdigit() and int(pid) != os.getpid():
            try:
                parent = open('/proc/' + pid + '/stat').read().rsplit(')', 1)[1].split()[1]
                if b'read-confined' in words(pid) and os.environb[b'N'] in words(parent):
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:
                pass
"#;

#[test]
fn a_reader_that_its_user_ends_is_no_bug_and_leaves_nothing() {
    let Some(ground) = Ground::without_backup(Above::Roots) else { return };
    let mut command: Command = ground.shell("exec /usr/bin/python3 -c \"$E\"");
    command.env("E", KILLER);
    let killer = Busy::start(command);
    for _ in 0..6 {
        let ran = ground.backup();
        let told = matches!(ran.code, Some(0 | 4 | 8));
        assert!(told, "{ran:?}");
    }
    drop(killer);
    ground.backup().ok();
    assert_ne!(ground.scene.run(["check", "--read-data"]).ok()["ok"], Value::Bool(false));
    let left: Vec<String> = crate::tree::names(&ground.node())
        .into_iter()
        .filter(|name| name.starts_with(".highwater-"))
        .collect();
    assert_eq!(left, [""; 0]);
    ground.assert_untouched("killed readers");
}
