//! Marks: told by the node at the barrier, or claimed by the caller; two databases of a node that
//! writes without a break are captured at the instant of its marks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use highwater::Kind;
use highwater::engine::{Barrier, HoldHook};
use rusqlite::Connection;

use super::*;

/// A node that writes each step into two databases, one after the other.
struct Node {
    databases: [Connection; 2],
    height: u64,
}

impl Node {
    fn open(dir: &Path) -> Node {
        let open = |name: &str| {
            let database = Connection::open(dir.join(name)).unwrap();
            database.pragma_update(None, "journal_mode", "wal").unwrap();
            database.pragma_update(None, "synchronous", "off").unwrap();
            database.execute_batch("create table steps (height integer)").unwrap();
            database
        };
        Node { databases: [open("channels.sqlite"), open("wallet.sqlite")], height: 0 }
    }

    fn step(&mut self) {
        self.height += 1;
        for database in &self.databases {
            database
                .execute("insert into steps values (?1)", [i64::try_from(self.height).unwrap()])
                .unwrap();
        }
    }
}

fn highest(database: &Path) -> u64 {
    let database = Connection::open(database).unwrap();
    let height: i64 =
        database.query_row("select max(height) from steps", [], |row| row.get(0)).unwrap();
    u64::try_from(height).unwrap()
}

fn holding(node: &Arc<Mutex<Node>>) -> BackupOptions {
    let node = Arc::clone(node);
    let hold: HoldHook = Arc::new(move |capture| {
        let node = node.lock().unwrap();
        capture(BTreeMap::from([("height".to_owned(), node.height)]));
        Ok(())
    });
    let mut options = BackupOptions::default();
    options.capture.hold = Some(hold);
    options
}

#[test]
fn marks_and_databases_of_a_held_node_are_of_one_instant() {
    let bench = Bench::new();
    let node = Arc::new(Mutex::new(Node::open(&bench.node())));
    node.lock().unwrap().step();
    let stop = AtomicBool::new(false);
    let reports = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                node.lock().unwrap().step();
            }
        });
        let reports: Vec<BackupReport> =
            (0..5).map(|_| bench.backup_with(&holding(&node))).collect();
        stop.store(true, Ordering::SeqCst);
        reports
    });
    for report in reports {
        assert_eq!(report.barrier, Barrier::Hook);
        let mark = report.marks["height"];
        assert!(!mark.claimed);
        let restored = bench.restore(report.snapshot);
        assert_eq!(highest(&restored.join("channels.sqlite")), mark.value);
        assert_eq!(highest(&restored.join("wallet.sqlite")), mark.value);
    }
}

#[test]
fn a_mark_is_told_or_claimed_not_both() {
    let bench = Bench::new();
    let node = Arc::new(Mutex::new(Node::open(&bench.node())));
    node.lock().unwrap().step();
    let claim = |name: &str| {
        let mut options = holding(&node);
        options.marks.insert(name.to_owned(), 9);
        options
    };
    let twice = bench.backup_as("alice", &claim("height"), &control());
    assert_eq!(kind(twice), Kind::Input);
    assert!(bench.vault.snapshots(None).unwrap().is_empty());
    let report = bench.backup_with(&claim("round"));
    assert_eq!((report.marks["height"].value, report.marks["height"].claimed), (1, false));
    assert_eq!((report.marks["round"].value, report.marks["round"].claimed), (9, true));
}
