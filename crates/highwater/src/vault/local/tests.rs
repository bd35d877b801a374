use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::Barrier;

use super::*;
use crate::env::{FaultPoint, Faults};
use crate::error::Kind;
use crate::vault::medium::{Condition, Put};

struct StorePlace {
    directory: tempfile::TempDir,
    store: LocalStore,
}

impl StorePlace {
    fn new() -> StorePlace {
        StorePlace::with(&Env::system())
    }

    fn with(env: &Env) -> StorePlace {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::create(&directory.path().join("vault"), env).unwrap();
        StorePlace { directory, store }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("vault")
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.root().join(TEMPORARY)).map_or(0, Iterator::count)
    }
}

fn put(store: &LocalStore, at: &str, bytes: &[u8]) -> Result<bool> {
    store.put_new(at, Bytes::copy_from_slice(bytes))
}

fn get(store: &LocalStore, at: &str) -> Result<Bytes> {
    Ok(store.get(at, u64::MAX)?.expect("nothing is larger"))
}

fn listed(store: &LocalStore, prefix: Option<&str>) -> Result<Vec<Listed>> {
    let mut found = Vec::new();
    store.list(prefix, &mut |listed| {
        found.push(listed);
        ControlFlow::Continue(())
    })?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn names(store: &LocalStore, prefix: Option<&str>) -> Vec<String> {
    listed(store, prefix).unwrap().into_iter().map(|listed| listed.name).collect()
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let source = std::error::Error::source(error)?;
    Some(source.downcast_ref::<io::Error>()?.kind())
}

#[test]
fn what_is_put_is_got() {
    let StorePlace { store, directory: _keep } = StorePlace::new();
    for (number, content) in [&b""[..], b"x", &[7; 300_000]].into_iter().enumerate() {
        let (name, length) = (format!("a/b/{number}"), content.len() as u64);
        assert!(put(&store, &name, content).unwrap());
        assert_eq!(get(&store, &name).unwrap(), content);
        assert_eq!(store.size(&name).unwrap(), Some(length));
        assert_eq!(store.get(&name, length).unwrap().unwrap(), content);
        if let Some(less) = length.checked_sub(1) {
            assert_eq!(store.get(&name, less).unwrap(), None);
        }
    }
}

#[test]
fn a_create_only_put_keeps_what_is_there() {
    let place = StorePlace::new();
    assert!(put(&place.store, "a", b"first").unwrap());
    assert!(!put(&place.store, "a", b"second").unwrap());
    assert_eq!(get(&place.store, "a").unwrap(), &b"first"[..]);
    let third = || Bytes::from_static(b"third");
    assert_eq!(place.store.put_if("a", third(), &Condition::Absent).unwrap(), Put::Refused);
    let unchanged = Condition::Unchanged(place.store.version("a").unwrap());
    assert_eq!(place.store.put_if("a", third(), &unchanged).unwrap(), Put::Unsupported);
    assert_eq!(get(&place.store, "a").unwrap(), &b"first"[..]);
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn a_race_of_create_only_puts_has_one_winner() {
    let place = StorePlace::new();
    for round in 0..20 {
        let at = format!("d{round}/x");
        let start = Barrier::new(8);
        let won: Vec<u8> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|racer| {
                    let (start, at) = (&start, &at);
                    // A store of its own: another process is no different.
                    let store = LocalStore::open(&place.root(), &Env::system()).unwrap();
                    scope.spawn(move || {
                        start.wait();
                        put(&store, at, &[racer; 1000]).unwrap().then_some(racer)
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(get(&place.store, &at).unwrap(), &[won[0]; 1000][..]);
    }
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn modes_are_private() {
    let place = StorePlace::new();
    put(&place.store, "packs/ab/one", b"x").unwrap();
    let mode =
        |path: &str| fs::metadata(place.root().join(path)).unwrap().permissions().mode() & 0o7777;
    for directory in ["", ".tmp", "packs", "packs/ab"] {
        assert_eq!(mode(directory), 0o700, "{directory}");
    }
    assert_eq!(mode("packs/ab/one"), 0o600);

    let mut upload = place.store.begin("two").unwrap();
    upload.write(b"x").unwrap();
    let writing = fs::read_dir(place.root().join(TEMPORARY)).unwrap().next().unwrap().unwrap();
    assert_eq!(writing.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn ranges_are_cut_at_the_end_and_refused_beyond_it() {
    let StorePlace { store, directory: _keep } = StorePlace::new();
    put(&store, "a", b"0123456789").unwrap();
    for (range, expected) in
        [(0..10, "0123456789"), (2..5, "234"), (8..100, "89"), (9..u64::MAX, "9")]
    {
        assert_eq!(store.get_range("a", range.clone()).unwrap(), expected, "{range:?}");
    }
    for range in [10..11, 5..5, 11..u64::MAX] {
        let error = store.get_range("a", range.clone()).unwrap_err();
        assert_eq!(io_kind(&error), Some(io::ErrorKind::InvalidInput), "{range:?}");
    }
    let [one, other] = store.get_ranges("a", [1..2, 8..10]);
    assert_eq!((one.unwrap(), other.unwrap()), ("1".into(), "89".into()));
    let mut buffer = AlignedBuffer::default();
    store.read("a", 2..5, &mut buffer).unwrap();
    assert_eq!(buffer.bytes(), b"234");
    let error = store.read("a", 8..11, &mut buffer).unwrap_err();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::UnexpectedEof));
}

#[test]
fn what_is_missing_is_not_found() {
    let place = StorePlace::new();
    put(&place.store, "a/b", b"x").unwrap();
    let mut buffer = AlignedBuffer::default();
    for missing in ["c", "c/d", "a", "a/b/c"] {
        let read = place.store.read(missing, 0..1, &mut buffer);
        if missing != "a" {
            assert_eq!(read.unwrap_err().kind(), Kind::NotFound, "{missing}");
            place.store.delete(missing).unwrap();
        }
        for error in [
            get(&place.store, missing).unwrap_err(),
            place.store.get_range(missing, 0..1).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.entry()), (Kind::NotFound, Some(missing)), "{error}");
        }
        assert_eq!(place.store.size(missing).unwrap(), None);
    }
    put(&place.store, "a/b/c", b"x").unwrap_err();
    assert!(!put(&place.store, "a", b"x").unwrap(), "a directory is there");
    put(&place.store, "", b"x").unwrap_err();
    assert_eq!(place.leftovers(), 0);
    assert_eq!(names(&place.store, None), ["a/b"]);
}

#[test]
fn hidden_names_are_refused() {
    let place = StorePlace::new();
    for hidden in [".tmp/x", ".x", "a/.b/c", "../x", "a//b", "/a", "a/", "a\0", "a\n"] {
        let error = put(&place.store, hidden, b"x").unwrap_err();
        assert_eq!(io_kind(&error), Some(io::ErrorKind::InvalidInput), "{hidden}");
        assert_eq!(io_kind(&get(&place.store, hidden).unwrap_err()), io_kind(&error));
    }
    assert_eq!(names(&place.store, Some("..")), [""; 0]);
}

#[test]
fn a_list_has_each_object_and_nothing_else() {
    let place = StorePlace::new();
    for at in ["vault.json", "keys/1", "packs/ab/1", "packs/ab/2", "packs/cd/3", "packs-x"] {
        put(&place.store, at, b"x").unwrap();
    }
    let _writing = place.store.begin("packs/ab/4").unwrap();
    for other in ["packs/.hidden", "packs/line\nbreak"] {
        fs::write(place.root().join(other), "x").unwrap();
    }
    fs::create_dir(place.root().join(LOST_AND_FOUND)).unwrap();
    fs::write(place.root().join(LOST_AND_FOUND).join("x"), "x").unwrap();

    let all = ["keys/1", "packs-x", "packs/ab/1", "packs/ab/2", "packs/cd/3", "vault.json"];
    assert_eq!(names(&place.store, None), all);
    assert_eq!(names(&place.store, Some("packs")), ["packs/ab/1", "packs/ab/2", "packs/cd/3"]);
    assert_eq!(names(&place.store, Some("packs/ab")), ["packs/ab/1", "packs/ab/2"]);
    assert!(names(&place.store, Some("packs/ab/1")).is_empty());
    assert!(names(&place.store, Some("none")).is_empty());
    let mut seen = 0;
    let first = |_| {
        seen += 1;
        ControlFlow::Break(())
    };
    place.store.list(Some("packs"), &mut { first }).unwrap();
    assert_eq!(seen, 1, "a list ends where it is told to");

    std::os::unix::fs::symlink("ab", place.root().join("packs/link")).unwrap();
    let error = listed(&place.store, None).unwrap_err();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::InvalidData), "{error}");
}

#[test]
fn a_vanished_store_is_no_empty_one() {
    let place = StorePlace::new();
    fs::remove_dir(place.root()).unwrap();
    assert!(listed(&place.store, None).is_err());
    assert!(put(&place.store, "a", b"x").is_err());
    assert!(!place.root().exists(), "a put must not make the root, which may be unmounted");
}

#[test]
fn what_is_deleted_is_gone() {
    let StorePlace { store, directory: _keep } = StorePlace::new();
    put(&store, "a", b"a").unwrap();
    put(&store, "d/e", b"b").unwrap();
    store.delete("d/e").unwrap();
    assert_eq!(names(&store, None), ["a"]);
    store.delete("d/e").unwrap();
    assert!(put(&store, "d/e", b"again").unwrap());
}

/// Ends an object, and waits until it has arrived.
fn arrive(upload: Box<dyn Way<'_> + '_>) -> Result<()> {
    upload.finish()?.map_or(Ok(()), |wait| wait())
}

#[test]
fn an_upload_is_seen_when_it_is_complete_and_creates_only() {
    let place = StorePlace::new();
    let mut upload = place.store.begin("p/1").unwrap();
    for part in ["one ", "two ", "three"] {
        upload.write(part.as_bytes()).unwrap();
    }
    assert!(names(&place.store, None).is_empty());
    arrive(upload).unwrap();
    assert_eq!(get(&place.store, "p/1").unwrap(), "one two three");

    let mut second = place.store.begin("p/1").unwrap();
    second.write(b"other").unwrap();
    let error = arrive(second).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Conflict, Some("p/1")), "{error}");
    assert_eq!(get(&place.store, "p/1").unwrap(), "one two three");
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn an_upload_that_is_aborted_or_dropped_leaves_nothing() {
    let place = StorePlace::new();
    for abort in [true, false] {
        let mut upload = place.store.begin("a").unwrap();
        upload.write(b"x").unwrap();
        assert_eq!(place.leftovers(), 1);
        if abort {
            upload.abort().unwrap();
        } else {
            drop(upload);
        }
        assert_eq!(place.leftovers(), 0);
    }
    assert!(names(&place.store, None).is_empty());
}

struct FailAt(FaultPoint);

impl Faults for FailAt {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == self.0 { Err(Error::unavailable("told to fail")) } else { Ok(()) }
    }
}

#[test]
fn a_failing_step_leaves_neither_object_nor_temporary_file() {
    for point in [FaultPoint::LocalPutSync, FaultPoint::LocalPutLink] {
        let place = StorePlace::with(&Env::system().with_faults(FailAt(point)));
        let error = put(&place.store, "a/b", b"x").unwrap_err();
        assert!(error.to_string().contains("told to fail"), "{error}");
        let mut upload = place.store.begin("a/b").unwrap();
        upload.write(b"x").unwrap();
        assert!(arrive(upload).is_err());
        assert!(names(&place.store, None).is_empty());
        assert_eq!(place.leftovers(), 0);
    }
}

struct DieAt(FaultPoint);

impl Faults for DieAt {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == self.0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        Ok(())
    }
}

const CHILD_STORE: &str = "HIGHWATER_TEST_CHILD_STORE";
const CHILD_POINT: &str = "HIGHWATER_TEST_CHILD_POINT";

/// Run by the next test in a process of its own; by itself it does nothing.
#[test]
fn child_that_dies_in_a_put() {
    let Some(root) = std::env::var_os(CHILD_STORE) else { return };
    let wanted = std::env::var(CHILD_POINT).unwrap();
    let point = FaultPoint::ALL.iter().find(|point| point.name() == wanted).unwrap();
    let env = Env::system().with_faults(DieAt(*point));
    let store = LocalStore::open(Path::new(&root), &env).unwrap();
    put(&store, "a/b", &[1; 100_000]).unwrap();
}

#[test]
fn what_a_killed_writer_leaves_is_collected_and_a_living_one_is_left_alone() {
    for point in [FaultPoint::LocalPutSync, FaultPoint::LocalPutLink] {
        let place = StorePlace::new();
        let mut living = place.store.begin("living").unwrap();
        living.write(b"x").unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "vault::local::tests::child_that_dies_in_a_put"])
            .env(CHILD_STORE, place.root())
            .env(CHILD_POINT, point.name())
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(9));
        assert_eq!(place.leftovers(), 2);
        assert!(names(&place.store, None).is_empty());

        let other = LocalStore::open(&place.root(), &Env::system()).unwrap();
        other.collect_leftovers().unwrap();
        assert_eq!(place.leftovers(), 1);
        put(&other, "a/b", b"again").unwrap();
        arrive(living).unwrap();
        other.collect_leftovers().unwrap();
        assert_eq!((names(&other, None).len(), place.leftovers()), (2, 0));
    }
}

#[test]
fn writers_and_collectors_do_not_disturb_each_other() {
    let place = StorePlace::new();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let store = &place.store;
                scope.spawn(move || {
                    for number in 0..25 {
                        put(store, &format!("{writer}/{number}"), b"x").unwrap();
                    }
                })
            })
            .collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            place.store.collect_leftovers().unwrap();
        }
    });
    assert_eq!((names(&place.store, None).len(), place.leftovers()), (100, 0));
}

#[test]
fn the_root_of_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let (env, root) = (Env::system(), directory.path().join("vault"));
    let kind = |made: Result<LocalStore>| made.map_err(|error| error.kind()).err();
    assert_eq!(kind(LocalStore::open(&root, &env)), Some(Kind::NotFound));
    assert_eq!(kind(LocalStore::create(&root.join("deep"), &env)), Some(Kind::NotFound));

    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join(LOST_AND_FOUND)).unwrap();
    LocalStore::create(&root, &env).unwrap();
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    let store = LocalStore::open(&root, &env).unwrap();
    store.collect_leftovers().unwrap();
    assert!(!root.join(TEMPORARY).exists(), "reading writes nothing");

    fs::write(root.join("x"), "").unwrap();
    assert_eq!(kind(LocalStore::create(&root, &env)), Some(Kind::Conflict));
    assert_eq!(kind(LocalStore::open(&root.join("x"), &env)), Some(Kind::NotFound));
    assert_eq!(kind(LocalStore::create(&root.join("x"), &env)), Some(Kind::Conflict));
}

struct Mount(tempfile::TempDir);

impl Mount {
    /// A file system of 10 MiB; `None` where this user may not mount one.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn new() -> Option<Mount> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=10m", "tmpfs"])
            .arg(directory.path())
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no tmpfs can be mounted here, so no full disk was tried");
            return None;
        }
        Some(Mount(directory))
    }

    fn make_read_only(&self) {
        let remount = ["-o", "remount,ro"];
        let status = Command::new("mount").args(remount).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let Some(mount) = Mount::new() else { return };
    let store = LocalStore::create(mount.0.path(), &Env::system()).unwrap();
    let error = put(&store, "big", &vec![1; 20 << 20]).unwrap_err();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::StorageFull), "{error}");

    let mut upload = store.begin("big").unwrap();
    upload.write(&[1; 6 << 20]).unwrap();
    let error = upload.write(&[1; 16 << 20]).unwrap_err();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::StorageFull), "{error}");
    // Whoever goes on all the same gets no object that lacks a piece.
    assert!(upload.write(b"x").is_err());
    assert!(arrive(upload).is_err());
    assert_eq!(fs::read_dir(mount.0.path().join(TEMPORARY)).unwrap().count(), 0);
    assert!(names(&store, None).is_empty());
    put(&store, "small", &[1; 512 << 10]).unwrap();

    mount.make_read_only();
    let store = LocalStore::open(mount.0.path(), &Env::system()).unwrap();
    assert_eq!(get(&store, "small").unwrap().len(), 512 << 10);
    for error in [put(&store, "more", b"x").unwrap_err(), store.delete("small").unwrap_err()] {
        assert_eq!(error.kind(), Kind::Denied, "{error}");
    }
}
