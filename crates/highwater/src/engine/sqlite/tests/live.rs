//! Databases that a writer changes while they are captured.

use super::child::{Peer, count_elsewhere};
use super::*;

/// Asserts that `image` holds the rows 1, 2, … and no gap, and gives their number.
fn prefix(image: &Path) -> i64 {
    assert_sound(image);
    let image = Connection::open(image).unwrap();
    let count = one(&image, "SELECT count(*) FROM rows");
    assert_eq!(one(&image, "SELECT ifnull(max(id), 0) FROM rows"), count);
    count
}

#[test]
fn a_writer_in_another_process_neither_stops_nor_tears_a_capture() {
    let node = Node::new();
    let database = node.database("db", "WAL", 4096);
    fill(&database, 3000, 1500);
    drop(database);
    let peer = Peer::start("insert", &[&node.path("db")]);
    for _ in 0..3 {
        let acknowledged = peer.newest();
        let capture = node.begin("db", &Env::system());
        let begun = peer.newest();
        let mut pieces = 0;
        // A commit falls between any two pieces.
        let (_dir, image) = save(capture, || {
            peer.newest();
            pieces += 1;
        });
        assert!(pieces > 20);
        let count = prefix(&image);
        assert!((acknowledged..=begun).contains(&count), "{acknowledged} {count} {begun}");
    }
    peer.kill();
}

#[test]
fn a_writer_in_this_process_neither_stops_nor_tears_a_capture() {
    let node = Node::new();
    let database = node.database("db", "WAL", 4096);
    fill(&database, 3000, 1500);
    let capture = node.begin("db", &Env::system());
    let stop = AtomicBool::new(false);
    let (say, said) = channel();
    let stop = &stop;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for id in 3001.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                database.execute("INSERT INTO rows VALUES (?1, randomblob(99))", [id]).unwrap();
                say.send(id).unwrap();
                Env::system().pause(Duration::from_millis(1));
            }
        });
        let (_dir, image) = save(capture, || {
            said.recv_timeout(Duration::from_secs(60)).unwrap();
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(prefix(&image), 3000);
    });
}

/// A descriptor of the file that a capture closed would take the node's locks with it; the next
/// process to come would then delete the log under the node.
#[test]
fn the_node_keeps_its_locks_after_a_capture_in_its_process() {
    let node = Node::new();
    let database = node.database("db", "WAL", 4096);
    database.execute("INSERT INTO rows(body) VALUES (1)", []).unwrap();
    for round in 0..3 {
        fill(&database, 50, 100);
        let (captures, _) = node.begin_all(&["db"], &Env::system()).unwrap();
        for capture in captures {
            save(capture, || {});
        }
        // Given up half-way, too.
        drop(node.begin("db", &Env::system()));
        database.execute("INSERT INTO rows(body) VALUES (2)", []).unwrap();
        let acknowledged = 1 + 51 * (round + 1);
        assert_eq!(count_elsewhere(&node.path("db")), acknowledged);
        assert!(node.path("db-wal").exists(), "another process has ended the node's log");
    }
    database.execute("INSERT INTO rows(body) VALUES (3)", []).unwrap();
    assert_eq!(count_elsewhere(&node.path("db")), 155);
    assert_eq!(one(&database, "SELECT count(*) FROM rows"), 155);
    drop(database);
    assert_sound(&node.path("db"));
}

#[test]
fn a_log_that_begins_anew_is_never_mixed() {
    let node = Node::new();
    let database = node.database("db", "WAL", 4096);
    fill(&database, 400, 900);
    drop(database);
    let peer = Peer::start("restart", &[&node.path("db")]);
    for _ in 0..25 {
        peer.newest();
        let (_dir, image) = node.image("db");
        assert_sound(&image);
        let image = Connection::open(image).unwrap();
        assert_eq!(one(&image, "SELECT count(*) FROM rows"), 400);
        assert_eq!(one(&image, "SELECT count(DISTINCT body) FROM rows"), 1);
    }
    peer.kill();
}

#[test]
fn a_writer_in_rollback_mode_waits_and_nothing_tears() {
    let node = Node::new();
    let database = node.database("db", "DELETE", 4096);
    fill(&database, 300, 900);
    drop(database);
    let peer = Peer::start("insert", &[&node.path("db")]);
    for _ in 0..5 {
        let acknowledged = peer.newest();
        let (_dir, image) = node.image("db");
        assert!(prefix(&image) >= acknowledged);
    }
    peer.kill();
}

#[test]
fn several_databases_show_one_instant() {
    for modes in [["WAL", "WAL"], ["WAL", "DELETE"], ["DELETE", "WAL"], ["DELETE", "DELETE"]] {
        let node = Node::new();
        drop(node.database("a", modes[0], 4096));
        drop(node.database("b", modes[1], 512));
        let peer = Peer::start("pair", &[&node.path("a"), &node.path("b")]);
        for round in 0..8 {
            peer.newest();
            // The order in which they are begun must not matter.
            let names = if round % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
            let (captures, barrier) = node.begin_all(&names, &Env::system()).unwrap();
            assert_eq!(barrier, Barrier::Single);
            let mut values = Vec::new();
            for capture in captures {
                let name = capture.name().to_owned();
                let (_dir, image) = save(capture, || {});
                assert_sound(&image);
                let image = Connection::open(image).unwrap();
                values.push((name, one(&image, "SELECT body FROM rows")));
            }
            values.sort();
            let ahead = values[0].1 - values[1].1;
            assert!((0..=1).contains(&ahead), "{modes:?} {values:?}");
        }
        peer.kill();
    }
}

/// Commits to one database between the look at its version and the begin of its transaction, so
/// often as `times` says.
fn begin_beside_commits(node: &Node, times: u64) -> Result<Barrier> {
    let writer = std::sync::Mutex::new(Connection::open(node.path("a")).unwrap());
    let left = AtomicU64::new(times);
    let asked = move || {
        let left = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left.is_ok() {
            writer.lock().unwrap().execute("INSERT INTO rows(body) VALUES (1)", []).unwrap();
        }
    };
    let clock = TestClock { moved: Arc::default(), asked: Box::new(asked) };
    let env = Env::system().with_clock(clock);
    node.begin_all(&["a", "b"], &env).map(|(_, barrier)| barrier)
}

#[test]
fn a_database_that_moves_meanwhile_is_begun_anew_a_bounded_number_of_times() {
    let node = Node::new();
    let _a = node.database("a", "WAL", 4096);
    let _b = node.database("b", "WAL", 4096);
    assert_eq!(begin_beside_commits(&node, 0).unwrap(), Barrier::Single);
    assert_eq!(begin_beside_commits(&node, 20).unwrap(), Barrier::Single);
    assert_eq!(begin_beside_commits(&node, u64::MAX).unwrap(), Barrier::None);
}
