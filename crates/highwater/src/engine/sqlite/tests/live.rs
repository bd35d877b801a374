//! Databases that a writer changes while they are captured.

use super::child::{Peer, count_elsewhere, unlocked_elsewhere};
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
        assert!(!unlocked_elsewhere(&node.path("db")), "the node has lost its lock");
        let acknowledged = 1 + 51 * (round + 1);
        assert_eq!(count_elsewhere(&node.path("db")), acknowledged);
        assert!(node.path("db-wal").exists(), "another process has ended the node's log");
    }
    database.execute("INSERT INTO rows(body) VALUES (3)", []).unwrap();
    assert_eq!(count_elsewhere(&node.path("db")), 155);
    assert_eq!(one(&database, "SELECT count(*) FROM rows"), 155);
    drop(database);
    assert!(unlocked_elsewhere(&node.path("db")));
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

/// Begins beside a writer that commits one row to both databases, so often as `times` says, each
/// time between the look at their versions and the begin of a transaction. Gives the rows of both.
fn begin_beside_commits(modes: [&str; 2], times: u64) -> (Barrier, [i64; 2]) {
    let node = Node::new();
    let writers = ["a", "b"].map(|name| node.path(name));
    drop((node.database("a", modes[0], 4096), node.database("b", modes[1], 4096)));
    let writers = writers.map(|path| Connection::open(path).unwrap());
    for writer in &writers {
        writer.busy_timeout(Duration::ZERO).unwrap();
    }
    let (writers, left) = (std::sync::Mutex::new(writers), AtomicU64::new(times));
    let asked = move || {
        let left = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left.is_err() {
            return;
        }
        for writer in writers.lock().unwrap().iter() {
            // Refused where our lock stands on a database in rollback-journal mode.
            if writer.execute("INSERT INTO rows(body) VALUES (1)", []).is_err() {
                return;
            }
        }
    };
    let clock = TestClock { moved: Arc::default(), asked: Box::new(asked) };
    let (captures, barrier) =
        node.begin_all(&["a", "b"], &Env::system().with_clock(clock)).unwrap();
    let counts = captures.into_iter().map(|capture| {
        let (_dir, image) = save(capture, || {});
        one(&Connection::open(image).unwrap(), "SELECT count(*) FROM rows")
    });
    let counts: Vec<i64> = counts.collect();
    (barrier, [counts[0], counts[1]])
}

#[test]
fn databases_that_move_meanwhile_are_begun_anew() {
    for modes in [["WAL", "WAL"], ["WAL", "DELETE"], ["DELETE", "WAL"], ["DELETE", "DELETE"]] {
        for times in [0, 1, 2, 3, 20, 21] {
            let (barrier, [a, b]) = begin_beside_commits(modes, times);
            assert_eq!(barrier, Barrier::Single);
            assert!(a == b, "{modes:?} {times}: {a} {b}");
        }
    }
}

#[test]
fn databases_that_never_stand_still_have_no_common_instant() {
    assert_eq!(begin_beside_commits(["WAL", "WAL"], u64::MAX).0, Barrier::None);
}
