//! What is beneath a held directory is reached, by whatever kernel; what is not, is not.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Owner, RootedPath, open, trust};
use crate::error::Kind;
use crate::ids::RelPath;

fn rel(path: &str) -> RelPath {
    RelPath::from_bytes(path.as_bytes()).unwrap()
}

/// A directory with a way out of it by every kind of link, and what lies outside.
fn scene() -> (tempfile::TempDir, RootedPath) {
    let world = tempfile::tempdir().unwrap();
    let at = |name: &str| world.path().join(name);
    fs::create_dir_all(at("node/store")).unwrap();
    fs::create_dir(at("outside")).unwrap();
    fs::write(at("outside/secret"), "secret").unwrap();
    fs::write(at("node/store/file"), "plain").unwrap();
    symlink("../outside", at("node/relative")).unwrap();
    symlink(at("outside"), at("node/absolute")).unwrap();
    symlink("store", at("node/inside")).unwrap();
    symlink("../outside/secret", at("node/last")).unwrap();
    let node = RootedPath::open(&at("node")).unwrap();
    (world, node)
}

#[test]
fn both_ways_of_the_kernel_open_the_same() {
    let (_world, node) = scene();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let cases = [
        ("store/file", None),
        ("store", None),
        (".", None),
        ("missing", Some(Errno::NOENT)),
        ("missing/file", Some(Errno::NOENT)),
        ("store/file/below", Some(Errno::NOTDIR)),
        ("relative/secret", Some(Errno::LOOP)),
        ("absolute/secret", Some(Errno::LOOP)),
        ("inside/file", Some(Errno::LOOP)),
        ("last", Some(Errno::LOOP)),
        ("../outside/secret", Some(Errno::XDEV)),
    ];
    for (path, expected) in cases {
        let path = Path::new(path);
        let new = open::beneath(node.held(), path, flags, Mode::empty()).err();
        let old = open::by_names(node.held(), path, flags, Mode::empty()).err();
        assert_eq!((new, old), (expected, expected), "{}", path.display());
    }
}

#[test]
fn no_call_goes_through_a_link() {
    let (world, node) = scene();
    for link in ["relative", "absolute"] {
        let place = node.at(&rel(&format!("{link}/new")));
        assert!(place.create_new().is_err() && place.make_dir().is_err(), "{link}");
        assert!(place.make_link("x".as_ref()).is_err() && place.open_lock().is_err(), "{link}");
        let secret = node.at(&rel(&format!("{link}/secret")));
        assert!(!matches!(secret.stat(), Ok(Some(_))), "{link}");
        assert!(secret.unlink().is_err() && secret.read(100).is_err(), "{link}");
        assert!(secret.set_mode(0o777).is_err(), "{link}");
        assert!(secret.rename(&node.join("stolen"), rustix::fs::RenameFlags::empty()).is_err());
        assert!(node.join(link).enter().is_err() && node.join(link).names().is_err(), "{link}");
    }
    // The last name is the link itself.
    assert!(node.join("last").read(100).is_err() && node.join("last").open_lock().is_err());
    assert!(node.join("last").set_mode(0o777).is_err());
    let found = node.join("last").stat().unwrap().unwrap();
    assert!(FileType::from_raw_mode(found.stx_mode.into()).is_symlink());
    assert_eq!(fs::read_dir(world.path().join("outside")).unwrap().count(), 1);
    let outside = fs::metadata(world.path().join("outside/secret")).unwrap();
    assert_eq!((outside.mode() & 0o777, outside.len()), (0o644, 6));
}

#[test]
fn what_is_entered_stays_the_same_wherever_it_is_moved() {
    let (world, node) = scene();
    let store = node.join("store").enter().unwrap();
    fs::rename(world.path().join("node/store"), world.path().join("moved")).unwrap();
    symlink("../outside", world.path().join("node/store")).unwrap();
    assert_eq!(store.join("file").read(100).unwrap(), b"plain");
    store.join("new").create_new().unwrap();
    assert!(world.path().join("moved/new").exists());
    assert!(!matches!(node.at(&rel("store/secret")).stat(), Ok(Some(_))));
    assert_eq!(store.held_path().canonicalize().unwrap(), world.path().join("moved"));
}

#[test]
fn a_pipe_a_long_file_and_a_file_that_is_there_are_errors() {
    let (world, node) = scene();
    let pipe = world.path().join("node/pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let place = node.join("pipe");
    let kind = |error: std::io::Error| error.kind();
    assert_eq!(place.read(100).map_err(kind).unwrap_err(), std::io::ErrorKind::InvalidInput);
    assert_eq!(place.open_lock().map_err(kind).unwrap_err(), std::io::ErrorKind::InvalidInput);
    let file = node.at(&rel("store/file"));
    assert_eq!(file.read(5).unwrap(), b"plain");
    assert_eq!(file.read(4).map_err(kind).unwrap_err(), std::io::ErrorKind::InvalidData);
    assert_eq!(file.create_new().map_err(kind).unwrap_err(), std::io::ErrorKind::AlreadyExists);
    let (lock, made) = file.open_lock().unwrap();
    assert!(!made && lock.metadata().unwrap().len() == 5, "a lock changes nothing");
    assert!(node.join("lock").open_lock().unwrap().1);
}

#[test]
fn a_node_directory_is_found_through_links_of_ones_own() {
    let (world, node) = scene();
    let shown = world.path().canonicalize().unwrap();
    for path in ["node", "node/.", "node/store/..", "outside/../node", "node/inside/../"] {
        let found = RootedPath::open(&world.path().join(path)).unwrap();
        assert_eq!(found.path(), shown.join("node"), "{path}");
    }
    assert_eq!(RootedPath::open(&node.join("inside").path()).unwrap().name(), "");
    let error = RootedPath::open(&world.path().join("node/missing")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let error = RootedPath::open(&world.path().join("node/store/file")).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    symlink("loop", world.path().join("loop")).unwrap();
    assert!(RootedPath::open(&world.path().join("loop")).is_err());
}

/// Only root has rights that others could borrow.
#[expect(clippy::print_stderr, reason = "a test that can't run here says so")]
fn is_root() -> bool {
    let root = trust::is_root();
    if !root {
        eprintln!("skipped: only root can make files of other users");
    }
    root
}

#[test]
fn root_follows_no_link_of_another_user() {
    if !is_root() {
        return;
    }
    let (world, _node) = scene();
    let theirs = world.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    symlink(world.path().join("outside"), theirs.join("way")).unwrap();
    assert!(RootedPath::open(&theirs.join("way")).is_ok());
    assert!(trust::is_only_ours(&theirs).unwrap());
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    // The directory is theirs, so the link is theirs to replace, whoever made it.
    for path in ["way", "way/secret", "way/../way"] {
        let error = RootedPath::open(&theirs.join(path)).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{path}: {error}");
        assert!(error.hint().is_some());
    }
    assert!(!trust::is_only_ours(&theirs).unwrap());
    assert!(!trust::is_only_ours(&theirs.join("missing/deeper")).unwrap());
    assert!(trust::refuse_for_root(&theirs).is_err());
    // In a directory that all may write, but for what is another one's.
    let open = world.path().join("open");
    fs::create_dir(&open).unwrap();
    symlink(world.path().join("outside"), open.join("ours")).unwrap();
    symlink(world.path().join("outside"), open.join("theirs")).unwrap();
    std::os::unix::fs::lchown(open.join("theirs"), Some(65534), None).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
    assert!(RootedPath::open(&open.join("ours")).is_ok());
    assert!(RootedPath::open(&open.join("theirs")).is_err());
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    assert!(RootedPath::open(&open.join("ours")).is_err());
}

#[test]
fn nothing_is_handed_over_that_was_not_made_here() {
    if !is_root() {
        return;
    }
    let (world, node) = scene();
    let owner = Owner { uid: 65534, gid: 65534 };
    let secret = world.path().join("outside/secret");
    fs::hard_link(&secret, node.join("linked").path()).unwrap();
    for name in ["linked", "last", "absolute", "missing"] {
        node.join(name).hand_over(owner).unwrap();
    }
    let kept = fs::metadata(&secret).unwrap();
    assert_eq!((kept.uid(), kept.mode() & 0o777), (0, 0o644));
    node.join("made").create_new().unwrap();
    node.join("made").set_mode(0o666).unwrap();
    node.join("made").hand_over(owner).unwrap();
    let given = fs::metadata(node.join("made").path()).unwrap();
    assert_eq!((given.uid(), given.mode() & 0o777), (65534, 0o600));
    node.join("store").hand_over(owner).unwrap();
    assert_eq!(node.join("store").owner().unwrap(), owner);
    // What is another one's is theirs to keep.
    node.at(&rel("store")).hand_over(Owner { uid: 0, gid: 0 }).unwrap();
    assert_eq!(node.join("store").owner().unwrap(), owner);
}
