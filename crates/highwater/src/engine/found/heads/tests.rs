use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::FlockOperation;

use super::{Heads, close_all_but_ours};
use crate::engine::found::{Head, NodeKind, Tree};
use crate::engine::process::{Descriptors, OwnLocks};
use crate::env::Env;
use crate::ids::RelPath;
use crate::rooted::RootedPath;

#[test]
fn a_file_that_came_to_be_open_elsewhere_is_not_closed_and_its_locks_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    for path in [&theirs, &ours] {
        fs::write(path, "content").unwrap();
    }
    let id = |path| fs::metadata(path).map(|seen| (seen.dev(), seen.ino())).unwrap();
    let open = |path| fs::File::open(path).unwrap();
    let looked_into = vec![(0, id(&theirs), open(&theirs)), (1, id(&ours), open(&ours))];
    let closed = looked_into[0].2.as_raw_fd();
    // Between the two looks this process opens its database, and locks it.
    let database = fs::OpenOptions::new().write(true).open(&ours).unwrap();
    rustix::fs::fcntl_lock(&database, FlockOperation::NonBlockingLockExclusive).unwrap();

    let mut descriptors = Descriptors::of_this_process().unwrap();
    let (own, kept) = close_all_but_ours(looked_into, &mut descriptors).unwrap();
    assert_eq!(kept, [1]);
    assert!(own.contains(&id(&ours)) && !own.contains(&id(&theirs)));

    assert!(OwnLocks::new(&Env::system()).held(id(&ours).1));
    assert!(!descriptors.files(&[]).unwrap().contains(&id(&theirs)), "descriptor {closed}");
}

#[test]
fn files_are_told_by_their_first_bytes_and_ours_are_not_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let root = RootedPath::open(dir.path()).unwrap();
    let mut tree = Tree::new(&root);
    let mut paths = Vec::new();
    for (name, size) in
        [("a/0", 600), ("a/1", 100), ("b/2", 600), ("b/3-wal", 600), ("b/gone", 600)]
    {
        let path = name.parse::<RelPath>().unwrap();
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        if name != "b/gone" {
            fs::write(dir.path().join(name), name.repeat(size)).unwrap();
        }
        tree.insert(path.clone(), NodeKind::File, size as u64);
        paths.push(path);
    }
    let _ours = fs::File::open(dir.path().join("b/2")).unwrap();
    let paths: Vec<&RelPath> = paths.iter().collect();
    let found = Heads::new(&tree).read(&paths).unwrap();
    let heads: Vec<Option<&Head>> = found.iter().map(|file| file.head.get()).collect();
    let head = |name: &str| Head::Bytes(name.repeat(64).into_bytes()[..64].to_vec());
    // The small one and the log are looked into when they are asked.
    assert_eq!(
        heads,
        [Some(&head("a/0")), None, Some(&Head::Ours), None, Some(&Head::Bytes(Vec::new()))]
    );
    assert_eq!(*found[1].head().unwrap(), head("a/1"));
    assert_eq!(*found[3].head().unwrap(), head("b/3-wal"));
}

#[test]
fn two_who_look_at_once_do_not_take_each_other_s_files_for_the_node_s() {
    let dir = tempfile::tempdir().unwrap();
    let root = RootedPath::open(dir.path()).unwrap();
    let paths: Vec<RelPath> = (0..32).map(|name| name.to_string().parse().unwrap()).collect();
    for path in &paths {
        fs::write(dir.path().join(path.as_path()), [7; 600]).unwrap();
    }
    let look = || {
        let mut tree = Tree::new(&root);
        for path in &paths {
            tree.insert(path.clone(), NodeKind::File, 600);
        }
        for _ in 0..200 {
            let all: Vec<&RelPath> = paths.iter().collect();
            for file in Heads::new(&tree).read(&all).unwrap() {
                assert_eq!(file.head.get(), Some(&Head::Bytes(vec![7; 64])));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(look);
        scope.spawn(look);
    });
}
