//! Databases that nobody writes to meanwhile: images, identities, refusals, the check.

use std::fs;

use super::child::{Peer, count_elsewhere};
use super::*;
use crate::engine::sqlite::capture::begin_all;
use crate::engine::sqlite::image::Image;
use crate::engine::sqlite::source::Source;
use crate::rooted::RootedPath;

#[test]
fn header_is_recognised() {
    assert!(is_header(b"SQLite format 3\0\x10\0"));
    assert!(!is_header(b"SQLite format 3"));
    assert!(!is_header(b"SQLite format 2\0"));
}

#[test]
fn images_hold_every_row_in_each_mode_and_page_size() {
    for mode in ["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"] {
        for page in [512, 1024, 4096, 65536] {
            let node = Node::new();
            let writer = node.database("db", mode, page);
            fill(&writer, 500, 700);
            let expected = rows(&writer);
            let capture = node.begin("db", &Env::system());
            assert_eq!(capture.entries()[0].units, Units::Pages { bytes: page.max(4096) });
            assert_eq!(capture.engine_version().as_deref(), Some(rusqlite::version()));
            assert_eq!(capture.consistency(), crate::engine::Consistency::Sqlite);
            let (_dir, image) = save(capture, || {});
            assert_sound(&image);
            assert_eq!(rows(&Connection::open(&image).unwrap()), expected);
            drop(writer);
            if mode != "WAL" {
                let (_dir, image) = node.image("db");
                assert!(fs::read(image).unwrap() == fs::read(node.path("db")).unwrap());
            }
        }
    }
}

#[test]
fn a_large_log_is_merged() {
    let node = Node::new();
    let writer = node.database("db", "WAL", 4096);
    writer.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(())).unwrap();
    for _ in 0..8 {
        fill(&writer, 1000, 1500);
        writer.execute("UPDATE rows SET body = randomblob(1400) WHERE id % 3 = 0", []).unwrap();
        writer.execute("DELETE FROM rows WHERE id % 7 = 0", []).unwrap();
    }
    assert!(fs::metadata(node.path("db-wal")).unwrap().len() > 30_000_000);
    assert!(fs::metadata(node.path("db")).unwrap().len() < 100_000);
    let (_dir, image) = node.image("db");
    assert_sound(&image);
    assert_eq!(rows(&Connection::open(image).unwrap()), rows(&writer));
}

#[test]
fn the_log_of_a_dead_node_is_merged_and_left() {
    let node = Node::new();
    drop(node.database("db", "WAL", 4096));
    let peer = Peer::start("insert", &[&node.path("db")]);
    while peer.next() < 50 {}
    peer.kill();
    fs::remove_file(node.path("db-shm")).unwrap();
    let before = (fs::read(node.path("db")).unwrap(), fs::read(node.path("db-wal")).unwrap());
    let (_dir, image) = node.image("db");
    assert_sound(&image);
    assert!(one(&Connection::open(image).unwrap(), "SELECT count(*) FROM rows") >= 50);
    assert!(before.0 == fs::read(node.path("db")).unwrap());
    assert!(before.1 == fs::read(node.path("db-wal")).unwrap());
}

#[test]
fn a_private_copy_serves_where_pages_are_not_handed_out() {
    for (mode, page) in [("WAL", 4096), ("DELETE", 512), ("WAL", 65536)] {
        let node = Node::new();
        let writer = node.database("db", mode, page);
        fill(&writer, 2000, 700);
        let env = Env::system();
        let mut sources = vec![
            Source::open(
                &RootedPath::open(node.dir.path()).unwrap(),
                &found("db".as_ref()),
                Company::Anybody,
                &env,
            )
            .unwrap(),
        ];
        assert_eq!(barrier::begin(&mut sources, &env).unwrap(), Barrier::Single);
        let options = CaptureOptions::default();
        let mut image = Image::new(sources.remove(0), &options, &env).unwrap();
        image.pages = false;
        let (_dir, image) = save(Box::new(image), || {});
        assert_sound(&image);
        assert_eq!(rows(&Connection::open(image).unwrap()), rows(&writer));
        for entry in fs::read_dir(node.dir.path()).unwrap() {
            let name = entry.unwrap().file_name();
            let own = name == ".highwater";
            assert!(own || name.as_bytes().starts_with(b"db"), "{name:?} was left behind");
        }
        assert_eq!(fs::read_dir(node.path(".highwater")).unwrap().count(), 0);
    }
}

#[test]
fn a_database_beyond_4_gib_comes_out_whole() {
    const PAGE: u64 = 65536;
    const PAGES: u32 = 65540;
    let node = Node::new();
    let writer = node.database("db", "DELETE", 65536);
    fill(&writer, 100, 10_000);
    drop(writer);
    // More pages by the header, which the file holds as a hole; the last one has some content.
    let file = fs::OpenOptions::new().read(true).write(true).open(node.path("db")).unwrap();
    let used = usize::try_from(file.metadata().unwrap().len()).unwrap();
    file.set_len(u64::from(PAGES) * PAGE).unwrap();
    use std::os::unix::fs::FileExt as _;
    file.write_all_at(&PAGES.to_be_bytes(), 28).unwrap();
    file.write_all_at(&[7; 100], u64::from(PAGES - 1) * PAGE + 40).unwrap();
    let mut head = vec![0; used];
    file.read_exact_at(&mut head, 0).unwrap();
    drop(file);

    // How long it takes is not the question here.
    let patient = CaptureOptions { block_max: Some(Duration::MAX), ..CaptureOptions::default() };
    let (mut captures, _) = node.begin_with(&["db"], &patient, &Env::system()).unwrap();
    let mut capture = captures.remove(0);
    let size = capture.entries()[0].size;
    assert_eq!(size, u64::from(PAGES) * PAGE);
    let zeros = vec![0; 1 << 20];
    let tail = u64::from(PAGES - 1) * PAGE;
    let (mut offset, mut first, mut last) = (0_u64, Vec::new(), Vec::new());
    capture
        .stream(0, &mut |piece| {
            let Piece::Data(bytes) = piece else { panic!("a page image has no holes") };
            let end = offset + bytes.len() as u64;
            if first.len() < used {
                first.extend_from_slice(bytes);
            } else if end <= tail {
                assert!(bytes == &zeros[..bytes.len()], "not zero at {offset}");
            } else {
                last.extend_from_slice(
                    &bytes[usize::try_from(tail.saturating_sub(offset)).unwrap()..],
                );
            }
            offset = end;
            Ok(())
        })
        .unwrap();
    assert_eq!(offset, size);
    assert!(first[..used] == head[..]);
    assert!(first[used..].iter().all(|&byte| byte == 0));
    assert_eq!(last.len() as u64, PAGE);
    assert!(
        last[40..140] == [7; 100] && last[..40] == [0; 40] && last[140..].iter().all(|&b| b == 0)
    );
}

#[test]
fn identity_stays_until_a_commit() {
    for mode in ["WAL", "DELETE"] {
        let node = Node::new();
        let writer = node.database("db", mode, 4096);
        fill(&writer, 100, 100);
        let identity =
            |env: &Env| -> Option<Identity> { node.begin("db", env).entries()[0].identity.clone() };
        let (env, _) = test_env();
        let first = identity(&env).unwrap();
        assert_eq!(identity(&env).unwrap(), first);
        assert_eq!(identity(&Env::system()), None, "too young to be trusted");
        let size = fs::metadata(node.path("db")).unwrap().len();
        writer.execute("UPDATE rows SET body = zeroblob(100) WHERE id = 7", []).unwrap();
        assert_eq!(fs::metadata(node.path("db")).unwrap().len(), size);
        let second = identity(&env).unwrap();
        assert_ne!(second, first);
        if mode == "WAL" {
            let frames = |identity: &Identity| -> i64 {
                identity.engine.rsplit(':').next().unwrap().parse().unwrap()
            };
            assert!(frames(&second) > frames(&first));
        }
        assert_eq!(identity(&env).unwrap(), second);
    }
}

#[test]
fn a_reader_does_not_change_the_identity_of_a_database_at_rest() {
    let node = Node::new();
    drop(node.database("db", "WAL", 4096));
    assert!(!node.path("db-wal").exists());
    let (env, _) = test_env();
    let first = node.begin("db", &env).entries()[0].identity.clone().unwrap();
    assert!(first.engine.contains("wal=none"), "{}", first.engine);
    assert_eq!(node.begin("db", &env).entries()[0].identity.clone().unwrap(), first);
}

#[test]
fn metadata_is_that_of_the_file() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let node = Node::new();
    drop(node.database("db", "DELETE", 4096));
    fs::set_permissions(node.path("db"), fs::Permissions::from_mode(0o640)).unwrap();
    let flags = rustix::fs::XattrFlags::CREATE;
    let value = [b'x', 0, 255];
    let kept = rustix::fs::lsetxattr(node.path("db"), "user.note", &value, flags).is_ok();
    let capture = node.begin("db", &Env::system());
    let meta = &capture.entries()[0].meta;
    let actual = fs::metadata(node.path("db")).unwrap();
    assert_eq!(meta.mode, 0o640);
    assert_eq!((meta.uid, meta.gid), (actual.uid(), actual.gid()));
    assert_eq!(meta.mtime_ns, actual.mtime() * 1_000_000_000 + actual.mtime_nsec());
    if kept {
        assert!(meta.xattrs.contains(&("user.note".to_owned(), "7800ff".to_owned())));
    }
}

#[test]
fn a_hot_journal_is_refused_and_left() {
    let node = Node::new();
    let writer = node.database("db", "DELETE", 4096);
    fill(&writer, 2000, 1000);
    drop(writer);
    let peer = Peer::start("crash", &[&node.path("db")]);
    peer.next();
    peer.kill();
    let before = (fs::read(node.path("db")).unwrap(), fs::read(node.path("db-journal")).unwrap());
    assert!(before.1.len() > 100_000);
    let error = node.begin_all(&["db"], &test_env().0).err().unwrap();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("hot journal"), "{error}");
    assert!(error.hint().unwrap().contains("start the node once"));
    assert!(before.0 == fs::read(node.path("db")).unwrap());
    assert!(before.1 == fs::read(node.path("db-journal")).unwrap());
    // The node recovers it, and all is well again.
    assert_eq!(count_elsewhere(&node.path("db")), 2000);
    let (_dir, image) = node.image("db");
    assert_sound(&image);
}

#[test]
fn an_exclusive_lock_is_refused() {
    for mode in ["WAL", "DELETE"] {
        let node = Node::new();
        drop(node.database("db", mode, 4096));
        let peer = Peer::start("exclusive", &[&node.path("db")]);
        peer.next();
        let error = node.begin_all(&["db"], &test_env().0).err().unwrap();
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert_eq!(error.entry(), Some("db"));
        assert!(error.hint().unwrap().contains("locking_mode"));
        peer.end();
        let (_dir, image) = node.image("db");
        assert_sound(&image);
    }
}

#[test]
fn a_transaction_in_rollback_mode_ends_in_time() {
    let node = Node::new();
    let writer = node.database("db", "DELETE", 4096);
    fill(&writer, 1000, 1000);
    let (env, moved) = test_env();
    let dir = tempfile::tempdir().unwrap();

    let capture = node.begin("db", &env);
    let advance = || {
        moved.fetch_add(11_000_000_000, Ordering::Relaxed);
    };
    let error = save_at(capture, &dir.path().join("late"), advance).err().unwrap();
    assert_eq!(error.kind(), Kind::Conflict);
    for way_out in [crate::Remedy::HigherRate, crate::Remedy::LongerBlock] {
        assert!(error.remedies().contains(&way_out));
    }
    assert!(error.hint().unwrap().contains("WAL"));
    writer.execute("DELETE FROM rows WHERE id = 1", []).unwrap();

    let options =
        CaptureOptions { block_max: Some(Duration::from_secs(3600)), ..CaptureOptions::default() };
    let capture = node.begin_with(&["db"], &options, &env).unwrap().0.remove(0);
    let finished = save_at(capture, &dir.path().join("allowed"), advance).unwrap();
    assert!(finished.blocked >= Duration::from_secs(11));
    assert!(finished.warnings[0].contains("rollback-journal"));

    writer.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    let finished = save_at(node.begin("db", &env), &dir.path().join("wal"), advance).unwrap();
    assert_eq!(finished.blocked, Duration::ZERO);
    assert_eq!(finished.warnings, Vec::<String>::new());
}

#[test]
fn names_may_be_any_bytes() {
    let node = Node::new();
    let name = std::ffi::OsStr::from_bytes(b"we\xff?rd %41#&.sqlite");
    let writer = Connection::open(node.path(name)).unwrap();
    writer
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE rows(id INTEGER, body BLOB)")
        .unwrap();
    let part = found(Path::new(name));
    let (mut captures, _) = begin_all(
        &RootedPath::open(node.dir.path()).unwrap(),
        &[&part],
        &CaptureOptions::default(),
        &Env::system(),
    )
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join(name);
    save_at(captures.remove(0), &image, || {}).unwrap();
    assert_sound(&image);
}

/// An image with all kinds of content, and what a check must leave as it is.
fn restored(sql: &str) -> (tempfile::TempDir, PathBuf) {
    let node = Node::new();
    let writer = node.database("db", "WAL", 4096);
    fill(&writer, 300, 500);
    writer.execute_batch(sql).unwrap();
    node.image("db")
}

#[test]
fn a_check_leaves_everything_as_it_is() {
    let (dir, image) = restored("CREATE VIRTUAL TABLE words USING fts5(word)");
    let before = fs::read(&image).unwrap();
    for depth in [Depth::Open, Depth::Full] {
        assert_eq!(check_file(&image, depth).unwrap().warnings, Vec::<String>::new());
    }
    assert!(before == fs::read(&image).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_check_finds_what_is_wrong() {
    let (_dir, image) = restored("");
    let whole = fs::read(&image).unwrap();
    let kind = |depth| check_file(&image, depth).err().map(|error| error.kind());

    fs::write(&image, &whole[..whole.len() - 4096]).unwrap();
    assert_eq!(kind(Depth::Open), Some(Kind::Corrupt));
    fs::write(&image, [&whole[..], &[0; 4096]].concat()).unwrap();
    assert_eq!(kind(Depth::Open), Some(Kind::Corrupt));
    fs::write(&image, [&[0; 16], &whole[16..]].concat()).unwrap();
    assert_eq!(kind(Depth::Open), Some(Kind::Corrupt));

    let mut damaged = whole.clone();
    damaged[10 * 4096..11 * 4096].fill(0x55);
    fs::write(&image, damaged).unwrap();
    assert_eq!(kind(Depth::Open), None);
    assert_eq!(kind(Depth::Full), Some(Kind::Corrupt));
    fs::write(&image, whole).unwrap();
    assert_eq!(kind(Depth::Full), None);
}

#[test]
fn what_only_the_node_knows_is_a_warning() {
    let (_dir, image) = restored(
        "CREATE TABLE names(name TEXT COLLATE NOCASE UNIQUE);
         INSERT INTO names VALUES ('a'), ('b');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'NODEWISE');",
    );
    assert_eq!(check_file(&image, Depth::Open).unwrap().warnings, Vec::<String>::new());
    let warnings = check_file(&image, Depth::Full).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("`names`"), "{warnings:?}");
}

/// What the log holds is checked with the database, in a copy that is gone afterwards.
#[test]
fn a_log_beside_a_restored_database_is_applied_to_a_copy() {
    let node = Node::new();
    let writer = node.database("db", "WAL", 4096);
    fill(&writer, 300, 500);
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image.sqlite");
    fs::copy(node.path("db"), &image).unwrap();
    let log = dir.path().join("image.sqlite-wal");
    fs::copy(node.path("db-wal"), &log).unwrap();
    fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let before = (fs::read(&image).unwrap(), fs::read(&log).unwrap());
    for depth in [Depth::Open, Depth::Full] {
        assert_eq!(check_file(&image, depth).unwrap().warnings, Vec::<String>::new());
    }
    assert!(before == (fs::read(&image).unwrap(), fs::read(&log).unwrap()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

    writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    fs::remove_file(&image).unwrap();
    let mut damaged = fs::read(node.path("db")).unwrap();
    damaged[10 * 4096..11 * 4096].fill(0x55);
    fs::write(&image, damaged).unwrap();
    fs::write(&log, [1; 100]).unwrap();
    assert_eq!(check_file(&image, Depth::Full).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// To roll it back would take the file that it names, the node's own, for done.
#[test]
fn a_journal_of_several_databases_is_left_alone() {
    let (dir, image) = restored("");
    let magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    fs::write(dir.path().join("image.sqlite-journal"), [&[1; 100][..], &magic].concat()).unwrap();
    for depth in [Depth::Open, Depth::Full] {
        let warnings = check_file(&image, depth).unwrap().warnings;
        assert!(warnings[0].contains("over several databases"), "{warnings:?}");
    }
}

#[test]
fn a_database_that_is_gone_is_not_found() {
    let error = Node::new().begin_all(&["db"], &Env::system()).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
}
