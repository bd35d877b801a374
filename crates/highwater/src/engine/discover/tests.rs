use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::Kind;
use crate::engine::conformance::tests::Holder;

const SQLITE: &[u8] = b"SQLite format 3\0 and so on";

fn look(dir: &Path) -> Layout {
    discover(dir, &DiscoverOptions::default()).unwrap()
}

fn without(dir: &Path, globs: &[&str]) -> Result<Layout> {
    let exclude = globs.iter().map(|&glob| glob.to_owned()).collect();
    discover(dir, &DiscoverOptions { exclude, ..DiscoverOptions::default() })
}

fn names(layout: &Layout) -> Vec<(String, EngineKind)> {
    layout.parts.iter().map(|part| (part.name.clone(), part.engine)).collect()
}

fn entries(layout: &Layout, name: &str) -> Vec<String> {
    let part = layout.parts.iter().find(|part| part.name == name).unwrap();
    part.entries.iter().map(|path| path.to_string()).collect()
}

fn write(dir: &Path, name: &str, content: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn rocksdb(dir: &Path, name: &str) {
    for file in ["CURRENT", "MANIFEST-000001", "IDENTITY", "LOCK", "000004.log", "OPTIONS-000007"] {
        write(dir, &format!("{name}/{file}"), b"");
    }
}

#[test]
fn a_directory_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let missing = discover(&dir.path().join("missing"), &DiscoverOptions::default());
    assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
    write(dir.path(), "file", b"");
    let file = discover(&dir.path().join("file"), &DiscoverOptions::default());
    assert_eq!(file.unwrap_err().kind(), Kind::Input);
}

#[test]
fn parts_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path();
    rocksdb(node, "fiber/store");
    write(node, "fiber/store/notes.txt", b"kept as a plain file");
    for file in ["CURRENT", "MANIFEST-000002", "000003.ldb", "LOCK"] {
        write(node, &format!("graph/{file}"), b"");
    }
    write(node, "ldk.sqlite", SQLITE);
    write(node, "ldk.sqlite-wal", b"log");
    write(node, "ldk.sqlite-shm", b"index");
    write(node, "begun.db", b"");
    write(node, "begun.db-wal", b"log");
    write(node, "a.redb", b"redb\x1A\x0A\xA9\x0D\x0A and so on");
    write(node, "badger/MANIFEST", b"Bdgr\0\0\0\x08 and so on");
    write(node, "badger/000001.vlog", b"");
    write(node, "key", b"secret");
    write(node, ".highwater/journal", b"ours");
    write(node, "fiber/.highwater-checkpoint-0123456789abcdef/x", b"ours");
    let layout = look(node);
    let expected = [
        ("a.redb", EngineKind::REDB),
        ("badger", EngineKind::BADGER),
        ("begun.db", EngineKind::SQLITE),
        ("fiber/store", EngineKind::ROCKSDB),
        ("graph", EngineKind::LEVELDB),
        ("ldk.sqlite", EngineKind::SQLITE),
        ("files", EngineKind::FILES),
    ];
    assert_eq!(names(&layout), expected.map(|(name, engine)| (name.to_owned(), engine)));
    assert_eq!(entries(&layout, "files"), ["fiber", "fiber/store/notes.txt", "key"]);
    assert_eq!(entries(&layout, "begun.db"), ["begun.db", "begun.db-wal"]);
    assert_eq!(entries(&layout, "ldk.sqlite").len(), 3);
    let store = entries(&layout, "fiber/store");
    assert_eq!((store.len(), store[0].as_str()), (7, "fiber/store"));
    let files = layout.parts.last().unwrap();
    assert_eq!((files.files, files.bytes), (2, 26));
}

#[test]
fn the_node_directory_may_be_the_database() {
    let dir = tempfile::tempdir().unwrap();
    rocksdb(&dir.path().join("."), ".");
    write(dir.path(), "key", b"secret");
    let layout = look(dir.path());
    assert_eq!(layout.parts[0].name, ".");
    assert_eq!(entries(&layout, "files"), ["key"]);
}

#[test]
fn a_database_called_files_has_a_name_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    rocksdb(dir.path(), "files");
    let layout = look(dir.path());
    assert_eq!(names(&layout)[0].0, "./files");
    assert_eq!(names(&layout)[1], ("files".to_owned(), EngineKind::FILES));
}

#[test]
fn globs_leave_out_plain_files_and_whole_databases() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path();
    rocksdb(node, "store");
    write(node, "logs/node.log", b"");
    write(node, "logs/deep/old.log", b"");
    write(node, "key", b"");
    write(node, "cache.sqlite", SQLITE);
    write(node, "cache.sqlite-wal", b"");
    let layout = without(node, &["*.log"]).unwrap();
    assert_eq!(entries(&layout, "files"), ["key", "logs", "logs/deep"]);
    assert!(entries(&layout, "store").contains(&"store/000004.log".to_owned()));

    let layout = without(node, &["logs/", "cache.*"]).unwrap();
    assert_eq!(entries(&layout, "files"), ["key"]);
    assert_eq!(names(&layout)[0].0, "store");
    let layout = without(node, &["store", "logs/*.log"]).unwrap();
    assert_eq!(names(&layout)[0].0, "cache.sqlite");
    assert_eq!(entries(&layout, "files"), ["key", "logs", "logs/deep", "logs/deep/old.log"]);

    let error = without(node, &["["]).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Input, Some("[")));
    // What is to be left out comes and goes: a night without it is no night without a backup.
    assert_eq!(layout.notes, [] as [String; 0]);
    for idle in ["nothing", "store/000004.log", "cache.sqlite-wal"] {
        let layout = without(node, &[idle, "key"]).unwrap();
        assert_eq!(layout.notes.len(), 1, "{:?}", layout.notes);
        assert!(layout.notes[0].contains(&format!("`{idle}` leaves nothing out")));
        assert!(entries(&layout, "store").contains(&"store/000004.log".to_owned()));
    }
}

/// RocksDB's backup engine keeps a MANIFEST of each backup, and its tables elsewhere: no database, and no damage.
#[test]
fn a_backup_by_rocksdb_s_own_means_is_plain_files() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path();
    rocksdb(node, "db");
    for file in ["CURRENT", "MANIFEST-000024", "OPTIONS-000026"] {
        write(node, &format!("backups/private/2/{file}"), b"");
        write(node, &format!("private/2/{file}"), b"");
    }
    write(node, "backups/meta/2", b"");
    write(node, "backups/shared_checksum/000022_s_980.sst", b"");
    let layout = look(node);
    // Without its meta file it may be anybody's database.
    let expected = [
        ("db", EngineKind::ROCKSDB),
        ("private/2", EngineKind::ROCKSDB),
        ("files", EngineKind::FILES),
    ];
    assert_eq!(names(&layout), expected.map(|(name, engine)| (name.to_owned(), engine)));
    assert!(entries(&layout, "files").contains(&"backups/private/2/CURRENT".to_owned()));
    assert_eq!(layout.notes.len(), 1, "{:?}", layout.notes);
    assert!(layout.notes[0].starts_with("backups/private/2 is a backup"));
}

/// Pebble names a MANIFEST that never is, so that no older program opens the database.
#[test]
fn a_pebble_is_known_by_the_manifest_that_its_current_names() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["MANIFEST-000001", "OPTIONS-000003", "000002.log", "LOCK"] {
        write(dir.path(), &format!("chaindata/{file}"), b"");
    }
    write(dir.path(), "chaindata/CURRENT", b"MANIFEST-000000\n");
    assert_eq!(names(&look(dir.path()))[0], ("chaindata".to_owned(), EngineKind::PEBBLE));
    write(dir.path(), "chaindata/CURRENT", b"MANIFEST-000001\n");
    assert_eq!(names(&look(dir.path()))[0], ("chaindata".to_owned(), EngineKind::ROCKSDB));
}

#[test]
fn links_inside_are_kept_and_links_that_lead_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    rocksdb(dir.path(), "elsewhere");
    write(dir.path(), "outside.txt", b"");
    write(&node, "real/file", b"");
    symlink("real", node.join("inside")).unwrap();
    symlink(".", node.join("real/self")).unwrap();
    symlink("../real/missing", node.join("real/dangling")).unwrap();
    symlink("loop-b", node.join("loop-a")).unwrap();
    symlink("loop-a", node.join("loop-b")).unwrap();
    assert!(look(&node).refusals.is_empty(), "{:?}", look(&node).refusals);

    for (name, target) in [
        ("store", "../elsewhere"),
        ("config", "../outside.txt"),
        ("far", "/nowhere/at/all"),
        ("up", ".."),
    ] {
        let link = node.join(name);
        symlink(target, &link).unwrap();
        let refusals = look(&node).refusals;
        assert_eq!(refusals.len(), 1, "{name}");
        assert_eq!((refusals[0].kind(), refusals[0].entry().unwrap()), (Kind::Input, name));
        assert_eq!(refusals[0].message().contains("a database"), name == "store");
        let include = |target: &Path| DiscoverOptions {
            include: vec![(name.to_owned(), target.to_path_buf())],
            ..DiscoverOptions::default()
        };
        let agreed = discover(&node, &include(Path::new(target))).unwrap();
        assert!(agreed.refusals.is_empty());
        assert_eq!(discover(&node, &include(Path::new("/other"))).unwrap_err().kind(), Kind::Input);
        assert!(without(&node, &[name]).unwrap().refusals.is_empty());
        fs::remove_file(link).unwrap();
    }
    let unused = vec![("inside".to_owned(), node.join("real"))];
    let options = DiscoverOptions { include: unused, ..DiscoverOptions::default() };
    assert_eq!(discover(&node, &options).unwrap_err().kind(), Kind::Input);
}

/// An SQLCipher database has no header that is known; in use, its file and log would be torn.
#[test]
fn an_unknown_file_with_a_log_is_refused_while_in_use() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "cipher", b"no header that anybody would know");
    write(dir.path(), "cipher-wal", b"log");
    assert!(look(dir.path()).refusals.is_empty());
    let holder = Holder::open(&dir.path().join("cipher"));
    let refusals = look(dir.path()).refusals;
    assert_eq!((refusals[0].kind(), refusals[0].entry().unwrap()), (Kind::Conflict, "cipher"));
    assert!(refusals[0].message().contains(&holder.pid().to_string()));
}

/// Closing a descriptor of a file drops the process's record locks on it: a database that this
/// process has open is recognised without being opened.
#[test]
fn a_file_that_this_process_has_open_keeps_its_locks() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "node.db", SQLITE);
    let path = dir.path().join("node.db");
    let ours = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    rustix::fs::fcntl_lock(&ours, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let layout = look(dir.path());
    assert_eq!(names(&layout)[0], ("node.db".to_owned(), EngineKind::SQLITE));
    let other = "import fcntl,sys\nf=open(sys.argv[1],'r+')\ntry:\n fcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nexcept OSError:\n sys.exit(7)";
    let status = std::process::Command::new("python3").args(["-c", other]).arg(&path).status();
    assert_eq!(status.unwrap().code(), Some(7), "the lock was lost");
}

#[test]
fn a_damaged_rocksdb_is_a_refusal_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    rocksdb(dir.path(), "store");
    let refusals = look(dir.path()).refusals;
    assert_eq!((refusals.len(), refusals[0].entry().unwrap()), (1, "store"));
    assert_eq!(refusals[0].kind(), Kind::Corrupt);
}
