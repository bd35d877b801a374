use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use super::*;
use crate::engine::{CaptureOptions, DiscoverOptions, Piece};
use crate::env::{Clock, Faults};
use crate::error::Kind;
use crate::ids::Time;
use child::{Writer, is_stopped, wait};

mod child;

/// Does something at each step of a freeze.
struct At<F>(F);

impl<F: Fn(FaultPoint) -> Result<()> + Send + Sync> Faults for At<F> {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        self.0(point)
    }
}

/// An environment that does something while the node is stopped and nothing is copied.
fn stopped(act: impl Fn() + Send + Sync + 'static) -> Env {
    let at = move |point| {
        if point == FaultPoint::FreezeStopped {
            act();
        }
        Ok(())
    };
    Env::system().with_faults(At(at))
}

/// A clock for which every file has rested for an hour.
struct Later;

impl Clock for Later {
    fn now(&self) -> Time {
        Time::from_nanos(Env::system().now().as_nanos() + 3_600_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Env::system().monotonic()
    }

    fn pause(&self, duration: Duration) {
        Env::system().pause(duration);
    }
}

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Node {
        let node = Node { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(node.path("")).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("node").join(name)
    }

    fn capture(&self, freeze: Freeze, env: &Env) -> Result<Captured> {
        let layout = crate::engine::discover(&self.path(""), &DiscoverOptions::default())?;
        let options = CaptureOptions { freeze: Some(freeze), ..CaptureOptions::default() };
        crate::engine::capture(&layout, &options, env)
    }

    /// No directory of an image is left.
    fn is_clear(&self) -> bool {
        let below = [self.path(""), self.path(".highwater")];
        let listed = below.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
        !listed
            .map(|entry| entry.file_name())
            .any(|name| name.to_str().is_some_and(|name| name.starts_with(IMAGE_PREFIX)))
    }
}

/// With time enough on a busy machine.
fn of(writer: &Writer) -> Freeze {
    let pause_max = Some(Duration::from_secs(60));
    Freeze { pid: writer.pid(), pause_max, ..Freeze::default() }
}

/// The content of a captured file.
fn content(captured: &mut Captured, path: &str) -> Vec<u8> {
    let mut content = Vec::new();
    for part in &mut captured.parts {
        let entry = part.entries().iter().position(|entry| entry.path.to_string() == path);
        let Some(entry) = entry else { continue };
        part.stream(entry, &mut |piece| {
            match piece {
                Piece::Data(bytes) => content.extend_from_slice(bytes),
                Piece::Hole(length) => content.resize(content.len() + length as usize, 0),
            }
            Ok(())
        })
        .unwrap();
    }
    content
}

fn finish(captured: Captured) {
    captured.parts.into_iter().for_each(|part| drop(part.finish().unwrap()));
}

/// The last number of a log that a writer appends to.
fn last(log: &[u8]) -> u64 {
    std::str::from_utf8(log).unwrap().lines().last().unwrap().parse().unwrap()
}

#[test]
fn every_thread_stands_still_and_goes_on() {
    let node = Node::new();
    let writer = Writer::start("threads", &node.path(""));
    let (pid, log) = (writer.pid(), node.path("log"));
    let env = stopped(move || {
        assert!(is_stopped(pid));
        let size = fs::metadata(&log).unwrap().len();
        Env::system().pause(Duration::from_millis(20));
        assert_eq!(fs::metadata(&log).unwrap().len(), size);
        assert!(is_stopped(pid));
    });
    for _ in 0..10 {
        let captured = node.capture(of(&writer), &env).unwrap();
        assert_eq!(captured.barrier, Barrier::Frozen);
        assert!(captured.pause >= Duration::from_millis(20));
        finish(captured);
        assert!(node.is_clear());
        writer.more();
    }
}

/// A copy from before the pause is taken only where its original has not moved since.
#[test]
fn a_copy_of_a_file_that_rested_is_not_taken_once_it_moved() {
    let node = Node::new();
    fs::write(node.path("at-rest"), b"rests").unwrap();
    let writer = Writer::start("append", &node.path(""));
    let env = Env::system().with_clock(Later);
    for _ in 0..20 {
        let before = writer.more();
        let mut captured = node.capture(of(&writer), &env).unwrap();
        assert_eq!(content(&mut captured, "at-rest"), b"rests");
        let log = content(&mut captured, "log");
        assert!(last(&log) >= before, "{before} was written, {} is there", last(&log));
        finish(captured);
    }
}

#[test]
fn what_is_recorded_is_the_original_and_holes_stay() {
    let node = Node::new();
    let path = node.path("sparse");
    let sparse = fs::File::create(&path).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"end", 8 << 20).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    drop(sparse);
    let attributed = rustix::fs::setxattr(&path, "user.kind", b"sparse", flags).is_ok();
    let writer = Writer::start("append", &node.path(""));
    let mut captured = node.capture(of(&writer), &Env::system()).unwrap();
    let original = fs::metadata(&path).unwrap();
    let entries = captured.parts.iter().flat_map(|part| part.entries()).cloned();
    let entry = entries.into_iter().find(|entry| entry.path.name() == "sparse").unwrap();
    assert_eq!(entry.meta.mode, 0o640);
    assert_eq!((entry.meta.uid, entry.meta.gid), (original.uid(), original.gid()));
    assert_eq!(entry.meta.mtime_ns, original.mtime() * 1_000_000_000 + original.mtime_nsec());
    assert_eq!(entry.meta.xattrs.len(), usize::from(attributed));
    assert_eq!(entry.holes.len(), 1, "{:?}", entry.holes);
    let read = content(&mut captured, "sparse");
    assert_eq!(read, fs::read(&path).unwrap());
    let images = node.path(".highwater");
    let copies = fs::read_dir(images).unwrap().flatten().filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(IMAGE_PREFIX))
    });
    let copies = copies.flat_map(|home| fs::read_dir(home.path()).unwrap().flatten());
    let sizes: Vec<u64> = copies.map(|copy| copy.metadata().unwrap().blocks() * 512).collect();
    assert!(sizes.iter().all(|stored| *stored < 1 << 20), "{sizes:?}");
    finish(captured);
}

/// SQLite cuts a file off only after the commit that made it shorter: a longer one is whole.
#[test]
#[cfg(feature = "sqlite")]
fn pages_that_a_sqlite_no_longer_counts_are_left_out() {
    let node = Node::new();
    let path = node.path("db.sqlite");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("CREATE TABLE rows(id INTEGER); INSERT INTO rows VALUES (7)").unwrap();
    drop(database);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], &[9; 8192]].concat()).unwrap();
    let writer = Writer::start("append", &node.path(""));
    let mut captured = node.capture(of(&writer), &Env::system()).unwrap();
    assert!(content(&mut captured, "db.sqlite") == whole);
    finish(captured);
    fs::write(node.path("db.sqlite-wal"), [1; 100]).unwrap();
    let mut captured = node.capture(of(&writer), &Env::system()).unwrap();
    assert_eq!(content(&mut captured, "db.sqlite").len(), whole.len() + 8192);
    finish(captured);
}

/// The work hangs, as on a disk that does not answer: the node goes on all the same.
#[test]
fn a_node_goes_on_at_its_bound_while_the_work_hangs() {
    let node = Node::new();
    let writer = Writer::start("append", &node.path(""));
    let pid = writer.pid();
    let env = stopped(move || wait(|| !is_stopped(pid)));
    let freeze = Freeze { pause_max: Some(Duration::from_millis(500)), ..of(&writer) };
    let error = node.capture(freeze, &env).err().unwrap();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("within 500 ms"), "{error}");
    assert!(error.remedies().contains(&crate::Remedy::LongerPause));
    assert!(node.is_clear());
    writer.more();
}

#[test]
fn a_node_goes_on_when_the_capture_is_cancelled() {
    let node = Node::new();
    let writer = Writer::start("append", &node.path(""));
    let freeze = of(&writer);
    let cancel = freeze.cancel.clone();
    let error = node.capture(freeze, &stopped(move || cancel.cancel())).err().unwrap();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(node.is_clear());
    writer.more();
}

#[test]
fn a_node_goes_on_when_the_capture_panics() {
    let node = Node::new();
    let writer = Writer::start("append", &node.path(""));
    let env = stopped(|| panic!("a fault of ours"));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        node.capture(of(&writer), &env).err()
    }));
    assert!(caught.is_err());
    assert!(node.is_clear());
    writer.more();
}

#[test]
fn a_node_that_ends_while_it_is_stopped_is_no_snapshot() {
    let node = Node::new();
    let writer = std::sync::Arc::new(Writer::start("append", &node.path("")));
    let freeze = of(&writer);
    let killer = std::sync::Arc::clone(&writer);
    let env = stopped(move || {
        killer.kill();
        wait(|| !is_stopped(killer.pid()));
    });
    let error = node.capture(freeze, &env).err().unwrap();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("was ended or continued"), "{error}");
    assert!(node.is_clear());
}

/// To open and close it once more would give up this process's locks on it.
#[test]
fn a_file_that_this_process_has_open_is_refused() {
    let node = Node::new();
    fs::write(node.path("own"), b"own").unwrap();
    let writer = Writer::start("append", &node.path(""));
    let own = fs::File::open(node.path("own")).unwrap();
    let error = node.capture(of(&writer), &Env::system()).err().unwrap();
    assert_eq!((error.kind(), error.entry()), (Kind::Conflict, Some("own")));
    drop(own);
    finish(node.capture(of(&writer), &Env::system()).unwrap());
}

/// A file that changes although all its writers are stopped: by somebody who opened it for a moment.
#[test]
fn a_file_that_changes_in_the_pause_is_a_conflict() {
    let node = Node::new();
    fs::write(node.path("other"), b"one").unwrap();
    let writer = Writer::start("append", &node.path(""));
    let other = node.path("other");
    let env = Env::system().with_faults(At(move |point| {
        if point == FaultPoint::FreezeImage {
            fs::write(&other, b"another").unwrap();
        }
        Ok(())
    }));
    let error = node.capture(of(&writer), &env).err().unwrap();
    assert_eq!((error.kind(), error.entry()), (Kind::Conflict, Some("other")));
    assert!(node.is_clear());
    writer.more();
}

#[test]
fn a_process_under_a_debugger_is_refused() {
    let node = Node::new();
    let writer = Writer::start("append", &node.path(""));
    let pid = nix::unistd::Pid::from_raw(writer.pid().cast_signed());
    std::thread::scope(|scope| {
        // The end of this thread lets it go.
        let debugger = scope.spawn(|| {
            nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty()).unwrap();
            let error = std::thread::scope(|scope| {
                let capture = scope.spawn(|| node.capture(of(&writer), &Env::system()).err());
                capture.join().unwrap().unwrap()
            });
            assert_eq!(error.kind(), Kind::Conflict);
            assert!(error.message().contains("a debugger is attached"), "{error}");
        });
        debugger.join().unwrap();
    });
    writer.more();
    finish(node.capture(of(&writer), &Env::system()).unwrap());
}

#[test]
fn hooks_and_a_freeze_exclude_one_another() {
    let node = Node::new();
    let layout = crate::engine::discover(&node.path(""), &DiscoverOptions::default()).unwrap();
    let options = CaptureOptions {
        freeze: Some(Freeze::of(1)),
        hold: Some(std::sync::Arc::new(|_| Ok(()))),
        ..CaptureOptions::default()
    };
    let error = crate::engine::capture(&layout, &options, &Env::system()).err().unwrap();
    assert_eq!(error.kind(), Kind::Input);
}

#[test]
fn a_pause_is_estimated_by_what_it_has_to_do() {
    let work = image::Work { links: 1000, copies: 2, bytes: 1 << 30, clones: false, rate: None };
    let estimate = |work: &image::Work| Estimate::of(work, Duration::from_millis(5), 10);
    let copied = estimate(&work);
    assert_eq!(copied.allow(Duration::from_secs(1)).unwrap_err().kind(), Kind::Conflict);
    copied.allow(Duration::from_secs(5)).unwrap();
    let fast = image::Work { rate: Some(4 << 30), ..work };
    estimate(&fast).allow(Duration::from_secs(1)).unwrap();
    let cloned = image::Work { clones: true, ..work };
    estimate(&cloned).allow(Duration::from_millis(50)).unwrap();
    assert_eq!(copied.exceeded_by(copied.pause), None);
    let said = copied.exceeded_by(copied.pause * 3).unwrap();
    assert!(said.contains("were expected"), "{said}");
}

#[test]
fn only_engines_that_are_known_to_recover_may_write_through_memory() {
    let node = Node::new();
    let put = |name: &str, bytes: &[u8]| {
        let path = node.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let magic = [&[0; 16][..], &0xBEEF_C0DE_u32.to_le_bytes(), &[0; 44]].concat();
    put("lmdb/data.mdb", &magic);
    put("lmdb/lock.mdb", b"lock");
    put("badger/MANIFEST", b"Bdgr\0\0\0\0\0\0");
    put("badger/000001.vlog", b"log");
    put("badger/00001.mem", b"memory");
    put("db.sqlite", b"SQLite format 3\0 and more");
    put("db.sqlite-wal", b"log");
    put("db.sqlite-shm", b"index");
    put("secret.db", b"encrypted, so that nobody knows it");
    put("secret.db-wal", b"log");
    put("secret.db-shm", b"index");
    put("lonely-shm", b"no database");
    put("mapped.dat", b"unknown");
    let layout = discover::discover_still(&node.path(""), &DiscoverOptions::default()).unwrap();
    let recovers = |name: &str| processes::recovers(&layout, &name.parse().unwrap());
    for known in [
        "lmdb/lock.mdb",
        "badger/000001.vlog",
        "badger/00001.mem",
        "db.sqlite-shm",
        "secret.db-shm",
    ] {
        assert!(recovers(known), "{known}");
    }
    for unknown in
        ["lmdb/data.mdb", "badger/MANIFEST", "db.sqlite", "secret.db", "lonely-shm", "mapped.dat"]
    {
        assert!(!recovers(unknown), "{unknown}");
    }
}

/// Names may hold anything, brackets and blanks too.
#[test]
fn a_process_is_told_by_its_state() {
    let own = processes::Stat::of(std::process::id(), None).unwrap();
    assert_eq!(own.parent, std::os::unix::process::parent_id());
    assert!(!own.ended());
    assert!(processes::Stat::of(u32::MAX, None).is_none());
    let expired = AtomicBool::new(true);
    let pace = Pace { expired: &expired, cancel: &Cancel::default(), env: &Env::system() };
    assert!(pace.check().is_err());
    expired.store(false, Ordering::SeqCst);
    pace.check().unwrap();
}
