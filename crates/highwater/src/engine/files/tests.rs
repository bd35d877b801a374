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

const LARGE: usize = plain::SMALL_BYTES_MAX as usize + 12345;

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
