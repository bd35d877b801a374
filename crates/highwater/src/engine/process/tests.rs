use std::fs;
use std::path::Path;

use super::{is_own, own_files, own_locks, users};
use crate::engine::conformance::tests::Holder;
use crate::rooted::RootedPath;

fn file(dir: &Path, name: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, "content").unwrap();
    path
}

#[test]
fn a_process_with_an_open_file_is_a_user_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(users(dir.path()).unwrap(), []);
    let holder = Holder::open(&file(dir.path(), "store with space"));
    let found = users(dir.path()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].pid, holder.pid());
    assert!(found[0].command.starts_with("python3"), "{}", found[0].command);
    assert_eq!(found[0].file.to_string(), "store with space");
    drop(holder);
    assert_eq!(users(dir.path()).unwrap(), []);
}

#[test]
fn a_mapped_file_is_in_use_without_a_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let holder = Holder::mapped(&file(dir.path(), "data.mdb"));
    let found = users(dir.path()).unwrap();
    assert_eq!(found.iter().map(|user| user.pid).collect::<Vec<_>>(), [holder.pid()]);
}

#[test]
fn a_removed_file_that_is_open_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "gone");
    let _holder = Holder::open(&path);
    fs::remove_file(&path).unwrap();
    let found = users(dir.path()).unwrap();
    assert_eq!(found.iter().map(|user| user.file.to_string()).collect::<Vec<_>>(), ["gone"]);
}

fn place(path: &Path) -> RootedPath {
    RootedPath::of(path).unwrap()
}

#[test]
fn our_own_files_are_known_by_inode() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "ours");
    assert!(!is_own(&place(&path)).unwrap());
    let open = fs::File::open(&path).unwrap();
    fs::hard_link(&path, dir.path().join("other name")).unwrap();
    assert!(is_own(&place(&dir.path().join("other name"))).unwrap());
    assert!(!own_files().unwrap().is_empty());
    drop(open);
    assert!(!is_own(&place(&path)).unwrap());
    assert!(!is_own(&place(&dir.path().join("missing"))).unwrap());
}

#[test]
fn our_own_record_locks_are_known() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "locked");
    let open = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let inode = open.metadata().unwrap().ino();
    assert!(!own_locks().contains(&inode));
    rustix::fs::fcntl_lock(&open, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(own_locks().contains(&inode));
    drop(open);
    assert!(!own_locks().contains(&inode));
}
