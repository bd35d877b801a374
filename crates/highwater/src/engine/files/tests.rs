use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::*;
use crate::engine::{CaptureOptions, Captured, DiscoverOptions, Revised, capture, discover};

fn take(dir: &Path) -> Captured {
    let layout = discover(dir, &DiscoverOptions::default()).unwrap();
    assert!(layout.refusals.is_empty(), "{:?}", layout.refusals);
    capture(&layout, &CaptureOptions::default(), &Env::system()).unwrap()
}

fn place(captured: &Captured, name: &str) -> usize {
    let entries = captured.parts[0].entries();
    entries.iter().position(|entry| entry.path.to_string() == name).unwrap()
}

fn entry<'a>(captured: &'a Captured, name: &str) -> &'a SourceEntry {
    &captured.parts[0].entries()[place(captured, name)]
}

fn content(captured: &mut Captured, name: &str) -> Result<Vec<u8>> {
    let place = place(captured, name);
    let mut content = Vec::new();
    captured.parts[0].stream(place, &mut |piece| {
        match piece {
            Piece::Data(bytes) => content.extend_from_slice(bytes),
            Piece::Hole(length) => content.resize(content.len() + length as usize, 0),
        }
        Ok(())
    })?;
    Ok(content)
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

const LARGE: usize = SMALL_BYTES_MAX as usize + 12345;

#[test]
fn a_growing_log_is_stored_to_the_length_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    for (name, size) in [("small.log", 1000), ("large.log", LARGE)] {
        let path = dir.path().join(name);
        fs::write(&path, vec![b'x'; size]).unwrap();
        let mut captured = take(dir.path());
        append(&path, b"more");
        assert_eq!(content(&mut captured, name).unwrap(), vec![b'x'; size]);
    }
}

#[test]
fn a_large_file_that_grows_between_two_reads_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.log");
    fs::write(&path, vec![b'x'; LARGE]).unwrap();
    let mut captured = take(dir.path());
    let mut bytes = 0;
    let place = place(&captured, "large.log");
    let streamed = captured.parts[0].stream(place, &mut |piece| {
        append(&path, b"more");
        if let Piece::Data(data) = piece {
            bytes += data.len();
        }
        Ok(())
    });
    streamed.unwrap();
    assert_eq!(bytes, LARGE);
}

#[test]
fn a_large_file_that_is_overwritten_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    for grow in [false, true] {
        fs::write(&path, vec![b'x'; LARGE]).unwrap();
        let mut captured = take(dir.path());
        let place = place(&captured, "large");
        let error = captured.parts[0].stream(place, &mut |_| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"overwritten", 10).unwrap();
            if grow {
                append(&path, b"and grown");
            }
            Ok(())
        });
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.entry()), (crate::Kind::Conflict, Some("large")));
        assert!(error.hint().is_some());
    }
}

/// A write through memory, as another container's process may make it, sets no time.
#[test]
fn what_no_lock_guards_is_compared_by_its_content() {
    use crate::engine::metadata;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    for (write, grow, refused) in [(false, false, false), (true, false, true), (false, true, true)]
    {
        fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
        let place = RootedPath::of(&path).unwrap();
        let listed = Listed {
            path: RelPath::from_bytes(b"data").unwrap(),
            source: place.clone(),
            units: Units::Slices,
            pinned: false,
            known_by: KnownBy::Content,
        };
        let set = FileSet::list([listed], Stability::Watched, &Env::system()).unwrap();
        let before = metadata::stamp(&place).unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        let streamed = set.stream(0, &mut |_| {
            if write {
                file.write_all_at(b"overwritten", 10).unwrap();
                let time = fs::FileTimes::new().set_modified(
                    std::time::UNIX_EPOCH
                        + std::time::Duration::from_nanos(before.mtime_ns.unsigned_abs()),
                );
                file.set_times(time).unwrap();
            } else if grow {
                file.seek(std::io::SeekFrom::End(0)).unwrap();
                file.write_all(b"grown").unwrap();
            }
            Ok(())
        });
        assert_eq!(streamed.is_err(), refused, "{write} {grow}: {streamed:?}");
    }
}

#[test]
fn what_was_replaced_since_the_listing_is_captured_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let changes: [(&dyn Fn(), &[u8]); 3] = [
        (&|| fs::write(&path, b"short").unwrap(), b"short"),
        (&|| fs::write(&path, b"").unwrap(), b""),
        (
            &|| {
                fs::write(dir.path().join("new"), b"another, longer one").unwrap();
                fs::rename(dir.path().join("new"), &path).unwrap();
            },
            b"another, longer one",
        ),
    ];
    for (change, expected) in changes {
        fs::write(&path, b"0123456789").unwrap();
        let mut captured = take(dir.path());
        change();
        let place = place(&captured, "state");
        assert!(captured.parts[0].ready(place).unwrap());
        assert_eq!(entry(&captured, "state").size, expected.len() as u64);
        assert_eq!(content(&mut captured, "state").unwrap(), expected);
        let revised = captured.parts[0].revised();
        assert!(
            matches!(&revised[..], [(0, Revised::Changed(entry))] if entry.size == expected.len() as u64)
        );
        assert!(captured.parts[0].arrived().unwrap().is_empty());
    }
}

/// Where a file went, another name may have come: nothing that was there all the time is missing.
#[test]
fn what_was_moved_since_the_listing_is_captured_by_its_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue-new");
    fs::write(&path, b"a message").unwrap();
    let mut captured = take(dir.path());
    fs::create_dir(dir.path().join("done")).unwrap();
    fs::rename(&path, dir.path().join("done/message")).unwrap();
    symlink("done/message", &path).unwrap();
    assert!(!captured.parts[0].ready(0).unwrap());
    let arrived = captured.parts[0].arrived().unwrap();
    let names: Vec<String> =
        arrived.iter().map(|&at| captured.parts[0].entries()[at].path.to_string()).collect();
    assert_eq!(names, ["done", "done/message", "queue-new"]);
    assert_eq!(content(&mut captured, "done/message").unwrap(), b"a message");
    assert!(captured.parts[0].arrived().unwrap().is_empty());
    let gone = captured.parts[0].revised();
    assert!(gone.iter().any(|(at, revised)| *at == 0 && matches!(revised, Revised::Gone)));
}

/// What was looked into is what is captured, whatever becomes of the file.
#[test]
fn a_head_is_that_of_what_is_captured() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    fs::write(&path, b"height 7").unwrap();
    let mut captured = take(dir.path());
    assert_eq!(captured.parts[0].head(0, 6).unwrap().unwrap(), b"height");
    fs::write(dir.path().join("new"), b"height 8, and more").unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    assert!(captured.parts[0].ready(0).unwrap());
    assert_eq!(content(&mut captured, "state").unwrap(), b"height 7");
}

#[test]
fn a_small_file_rewritten_between_listing_and_reading_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    fs::write(&path, b"0123456789").unwrap();
    let mut captured = take(dir.path());
    fs::write(&path, b"abcdefghij").unwrap();
    assert_eq!(content(&mut captured, "state").unwrap(), b"abcdefghij");
}

#[test]
fn every_kind_of_entry_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mode = |name: &str, mode| {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(path("empty")).unwrap();
    mode("empty", 0o700);
    fs::write(path("key"), b"secret").unwrap();
    mode("key", 0o400);
    fs::write(path("tool"), b"#!").unwrap();
    mode("tool", 0o4755);
    fs::write(path("none"), b"").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"not-\xFF-utf8")), b"content").unwrap();
    symlink("key", path("link")).unwrap();
    symlink("loop", path("loop")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut captured = take(dir.path());

    let kind = |name: &str| entry(&captured, name).kind.clone();
    let target = |target: &str| EntryType::Symlink { target: target.to_owned() };
    assert_eq!(kind("link"), target("key"));
    assert_eq!(kind("loop"), target("loop"));
    assert_eq!(kind("dangling"), target("nowhere"));
    assert_eq!(kind("socket"), EntryType::Socket);
    assert_eq!(kind("fifo"), EntryType::Fifo);
    assert_eq!(kind("empty"), EntryType::Dir);
    let mode = |name: &str| entry(&captured, name).meta.mode;
    assert_eq!((mode("empty"), mode("key"), mode("tool")), (0o700, 0o400, 0o4755));
    assert_eq!(content(&mut captured, "key").unwrap(), b"secret");
    assert_eq!(content(&mut captured, "not-%FF-utf8").unwrap(), b"content");
    for name in ["none", "fifo", "link", "empty"] {
        assert_eq!(content(&mut captured, name).unwrap(), b"");
    }
}

#[test]
fn holes_are_told_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(&[1; 4096], 1 << 20).unwrap();
    file.write_all_at(&[2; 4096], 4 << 20).unwrap();
    drop(file);
    let mut captured = take(dir.path());
    let holes = entry(&captured, "sparse").holes.clone();
    assert_eq!(
        holes,
        [(0, 1 << 20), ((1 << 20) + 4096, (3 << 20) - 4096), ((4 << 20) + 4096, (4 << 20) - 4096)]
    );
    let read = content(&mut captured, "sparse").unwrap();
    assert_eq!(read, fs::read(dir.path().join("sparse")).unwrap());
}

#[test]
fn what_is_written_into_a_hole_meanwhile_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    file.set_len(8 << 20).unwrap();
    let mut captured = take(dir.path());
    file.write_all_at(b"news", 1 << 20).unwrap();
    append(&path, b"grown");
    let error = content(&mut captured, "sparse").unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Conflict);
}

#[test]
fn extended_attributes_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, b"content").unwrap();
    let set = rustix::fs::setxattr(&path, "user.a", b"\x01\xFF", rustix::fs::XattrFlags::empty());
    if set == Err(rustix::io::Errno::NOTSUP) {
        assert_eq!(entry(&take(dir.path()), "file").meta.xattrs, []);
        return;
    }
    set.unwrap();
    let expected = [("user.a".to_owned(), "01ff".to_owned())];
    assert_eq!(entry(&take(dir.path()), "file").meta.xattrs, expected);
}

/// Closing a descriptor of a file drops the process's record locks on it: a node that embeds the
/// library keeps its own.
#[test]
fn a_file_that_this_process_holds_locked_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.lock");
    fs::write(&path, b"12345").unwrap();
    let ours = OpenOptions::new().write(true).open(&path).unwrap();
    rustix::fs::fcntl_lock(&ours, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut captured = take(dir.path());
    let error = content(&mut captured, "node.lock").unwrap_err();
    assert_eq!((error.kind(), error.entry()), (crate::Kind::Conflict, Some("node.lock")));
    drop(captured);
    let inode = metadata::stamp(&RootedPath::of(&path).unwrap()).unwrap().id.1;
    assert!(process::OwnLocks::new(&Env::system()).held(inode));
    drop(ours);
    assert_eq!(content(&mut take(dir.path()), "node.lock").unwrap(), b"12345");
}

/// A clock that stands still.
struct At(Time);

impl crate::env::Clock for At {
    fn now(&self) -> Time {
        self.0
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn pause(&self, _: std::time::Duration) {}
}

/// A stamp tells a later write from none only once it is older than the kernel's clock of files is coarse, and than a
/// write through memory may be late.
#[test]
fn a_young_stamp_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    fs::write(&path, b"0123456789").unwrap();
    fs::create_dir(dir.path().join("inner")).unwrap();
    let stamp = metadata::stamp(&RootedPath::of(&path).unwrap()).unwrap();
    let seen_after = |nanos: i64| {
        let env = Env::system().with_clock(At(Time::from_nanos(stamp.ctime_ns + nanos)));
        let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
        let captured = capture(&layout, &CaptureOptions::default(), &env).unwrap();
        assert_eq!(entry(&captured, "inner").identity, None);
        entry(&captured, "state").identity.clone()
    };
    assert_eq!(seen_after(YOUNG_NS - 1), None);
    let known = seen_after(YOUNG_HIDDEN_NS).unwrap();
    assert_eq!((known.size, known.mtime_ns), (10, stamp.mtime_ns));
    // Whoever sets the modification time back can't set the change time back.
    fs::write(&path, b"9876543210").unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let before = std::time::Duration::from_nanos(stamp.mtime_ns.unsigned_abs());
    file.set_modified(std::time::UNIX_EPOCH + before).unwrap();
    let now = seen_after(2 * YOUNG_HIDDEN_NS).unwrap();
    assert_eq!((now.size, now.mtime_ns, now.inode), (known.size, known.mtime_ns, known.inode));
    assert_ne!(now, known);
}

/// Holes are not read, and what is compared is the same whatever holes two passes find.
#[test]
fn zeros_count_for_nothing_wherever_they_are_stored() {
    let of = |pieces: &[Piece<'_>]| {
        let mut content = Content::new();
        pieces.iter().for_each(|piece| content.add(piece));
        content.finish()
    };
    let zeros = [0; 10_000];
    let sparse =
        of(&[Piece::Hole(4096), Piece::Data(b"a"), Piece::Hole(9000), Piece::Data(b"end")]);
    assert_eq!(
        sparse,
        of(&[
            Piece::Data(&zeros[..4096]),
            Piece::Data(b"a"),
            Piece::Data(&zeros[..9000]),
            Piece::Data(b"end")
        ])
    );
    assert_eq!(
        sparse,
        of(&[
            Piece::Hole(4000),
            Piece::Data(&zeros[..96]),
            Piece::Data(b"a"),
            Piece::Hole(5),
            Piece::Data(&zeros[..8995]),
            Piece::Data(b"end")
        ])
    );
    assert_ne!(
        sparse,
        of(&[Piece::Hole(4097), Piece::Data(b"a"), Piece::Hole(8999), Piece::Data(b"end")])
    );
    assert_ne!(
        sparse,
        of(&[Piece::Hole(8192), Piece::Data(b"a"), Piece::Hole(4904), Piece::Data(b"end")])
    );
    assert_ne!(
        sparse,
        of(&[Piece::Hole(4096), Piece::Data(b"b"), Piece::Hole(9000), Piece::Data(b"end")])
    );
}

fn many(dir: &Path, count: usize) {
    fs::create_dir_all(dir.join("monitors")).unwrap();
    // Too large for memory, and at rest.
    fs::write(dir.join("monitors/graph"), vec![b'x'; LARGE]).unwrap();
    for number in 0..count {
        fs::write(dir.join(format!("monitors/{number}")), b"0").unwrap();
    }
    fs::write(dir.join("manager"), b"0").unwrap();
}

fn store_of(dir: &Path, env: &Env) -> Result<Captured> {
    let layout = discover(dir, &DiscoverOptions::default()).unwrap();
    let stores = ["manager", "monitors"].map(|name| name.parse().unwrap()).to_vec();
    capture(&layout, &CaptureOptions { stores, ..CaptureOptions::default() }, env)
}

/// A step writes one file of the store and then another one: captured while that goes on, they are never further apart
/// than a step.
#[test]
fn files_of_one_store_are_captured_at_one_instant() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    many(dir.path(), 50);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let put = |name: &str, text: &str| {
                let target = dir.path().join(name);
                fs::write(dir.path().join("new"), text).unwrap();
                fs::rename(dir.path().join("new"), target).unwrap();
            };
            let mut step = 0_u64;
            while !done.load(Ordering::SeqCst) {
                step += 1;
                put(&format!("monitors/{}", step % 50), &step.to_string());
                put("manager", &step.to_string());
                Env::system().pause(std::time::Duration::from_millis(25));
            }
        });
        for _ in 0..8 {
            let mut captured = store_of(dir.path(), &Env::system()).unwrap();
            let names: Vec<String> =
                captured.parts[0].entries().iter().map(|entry| entry.path.to_string()).collect();
            let number = |captured: &mut Captured, name: &str| {
                let content = content(captured, name).unwrap();
                String::from_utf8(content).unwrap().parse::<u64>().unwrap()
            };
            let manager = number(&mut captured, "manager");
            assert_eq!(content(&mut captured, "monitors/graph").unwrap(), vec![b'x'; LARGE]);
            let monitors = names
                .iter()
                .filter(|name| name.starts_with("monitors/") && !name.ends_with("graph"));
            let highest = monitors.map(|name| number(&mut captured, name)).max().unwrap();
            assert!(highest == manager || highest == manager + 1, "{highest} {manager}");
            captured.parts.into_iter().for_each(|part| drop(part.finish().unwrap()));
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(left_in(dir.path()), 0, "a copy was left");
}

/// Writes two files of the store at the fourth look at the clock, when the first of them was copied and the other was not.
struct Meddling {
    dir: std::path::PathBuf,
    looks: std::sync::atomic::AtomicU64,
}

impl crate::env::Clock for Meddling {
    fn now(&self) -> Time {
        if self.looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 3 {
            for name in ["monitors/2", "manager"] {
                fs::write(self.dir.join("new"), b"2").unwrap();
                fs::rename(self.dir.join("new"), self.dir.join(name)).unwrap();
            }
        }
        // So late that every stamp is old.
        Time::from_nanos(Env::system().now().as_nanos() + 1_000_000_000)
    }

    fn monotonic(&self) -> std::time::Duration {
        Env::system().monotonic()
    }

    fn pause(&self, _: std::time::Duration) {}
}

#[test]
fn what_changes_between_two_copies_is_copied_again() {
    let dir = tempfile::tempdir().unwrap();
    many(dir.path(), 3);
    let env = Env::system().with_clock(Meddling { dir: dir.path().to_owned(), looks: 0.into() });
    let mut captured = store_of(dir.path(), &env).unwrap();
    let texts = ["manager", "monitors/0", "monitors/2"]
        .map(|name| String::from_utf8(content(&mut captured, name).unwrap()).unwrap());
    assert_eq!(texts, ["2", "0", "2"]);
}

/// Time passes with each pause, and a file of the store is written anew.
struct Restless {
    path: std::path::PathBuf,
    passed: std::sync::atomic::AtomicU64,
}

impl crate::env::Clock for Restless {
    fn now(&self) -> Time {
        Env::system().now()
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.passed.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn pause(&self, _: std::time::Duration) {
        self.passed.fetch_add(500, std::sync::atomic::Ordering::SeqCst);
        fs::write(self.path.with_extension("new"), b"1").unwrap();
        fs::rename(self.path.with_extension("new"), &self.path).unwrap();
    }
}

#[test]
fn a_store_that_never_rests_is_refused_and_what_was_copied_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    many(dir.path(), 3);
    let path = dir.path().join("manager");
    let env = Env::system().with_clock(Restless { path, passed: 0.into() });
    let error = store_of(dir.path(), &env).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (crate::Kind::Conflict, Some("manager")));
    assert!(error.hint().is_some_and(|hint| hint.contains("freeze")), "{error}");
    assert_eq!(left_in(dir.path()), 0);
}

/// What is in Highwater's own directory; it is made where something is to be put there.
fn left_in(node: &Path) -> usize {
    fs::read_dir(node.join(".highwater")).map_or(0, |own| own.count())
}
