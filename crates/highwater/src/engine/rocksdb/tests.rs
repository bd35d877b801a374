use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::engine::conformance::tests::Holder;
use crate::engine::{CaptureOptions, Captured, Depth, DiscoverOptions, Layout, capture, discover};

fn held(path: &Path) -> RootedPath {
    RootedPath::open(path).unwrap()
}

fn look(node: &Path) -> Layout {
    discover(node, &DiscoverOptions::default()).unwrap()
}

fn take(node: &Path, options: &CaptureOptions) -> Result<Captured> {
    capture(&look(node), options, &Env::system())
}

/// Writes all that a capture streams below `copy`, and ends it.
fn store(mut captured: Captured, copy: &Path) {
    for part in &mut captured.parts {
        for (index, entry) in part.entries().to_vec().iter().enumerate() {
            let path = entry.path.under(copy);
            if entry.kind == crate::engine::EntryType::Dir {
                fs::create_dir_all(&path).unwrap();
                continue;
            }
            let mut content = Vec::new();
            part.stream(index, &mut |piece| {
                match piece {
                    Piece::Data(bytes) => content.extend_from_slice(bytes),
                    Piece::Hole(length) => content.resize(content.len() + length as usize, 0),
                }
                Ok(())
            })
            .unwrap();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
    captured.parts.into_iter().for_each(|part| drop(part.finish().unwrap()));
}

fn ldb(db: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new("ldb").arg(format!("--db={}", db.display())).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn check_both(copy: &Path) -> Vec<String> {
    let root = RelPath::from_bytes(b"store").unwrap();
    let mut warnings = Vec::new();
    for depth in [Depth::Open, Depth::Full] {
        let checked = crate::engine::check(
            copy,
            EngineKind::ROCKSDB,
            &root,
            depth,
            &crate::engine::Engines::default(),
        )
        .unwrap();
        warnings.extend(checked.warnings);
    }
    warnings
}

#[test]
fn names_have_roles() {
    let role = |name: &str| FileName::of(name.as_ref());
    assert_eq!(role("CURRENT"), Some(FileName::Current));
    assert_eq!(role("MANIFEST-000005"), Some(FileName::Manifest));
    assert_eq!(role("OPTIONS-000007"), Some(FileName::Options));
    assert_eq!(role("OPTIONS-000007.dbtmp"), Some(FileName::Temporary));
    assert_eq!(role("1234567.sst"), Some(FileName::Table(1_234_567)));
    assert_eq!(role("000012.log"), Some(FileName::Log(12)));
    assert_eq!(role("LOG.old.1700000000000000"), Some(FileName::Info));
    for other in ["CURRENT~", "MANIFEST", "OPTIONS-", "node.log", "12.txt", "+1.sst", "a.sst"] {
        assert_eq!(role(other), None, "{other}");
    }
}

/// What an older release wrote is captured, and its own program still opens the restored copy after
/// it was checked.
#[test]
fn a_database_of_an_older_release_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let (node, copy) = (dir.path().join("node"), dir.path().join("copy"));
    fs::create_dir(&node).unwrap();
    ldb(&node.join("store"), &["--create_if_missing", "put", "key", "value"]);
    ldb(&node.join("store"), &["create_column_family", "peers"]);
    ldb(&node.join("store"), &["--column_family=peers", "put", "other", "thing"]);
    let captured = take(&node, &CaptureOptions::default()).unwrap();
    assert_eq!(captured.parts[0].engine_version().as_deref(), Some("7.8.3"));
    store(captured, &copy);
    let expected = if cfg!(feature = "rocksdb") { 0 } else { 2 };
    assert_eq!(check_both(&copy).len(), expected);
    assert_eq!(ldb(&copy.join("store"), &["get", "key"]).trim(), "value");
    assert_eq!(
        ldb(&copy.join("store"), &["--column_family=peers", "get", "other"]).trim(),
        "thing"
    );
}

#[test]
fn a_lock_held_elsewhere_names_its_holder_and_the_ways_out() {
    let dir = tempfile::tempdir().unwrap();
    ldb(&dir.path().join("store"), &["--create_if_missing", "put", "key", "value"]);
    let holder = Holder::record(&dir.path().join("store/LOCK"));
    let offline = CaptureOptions { offline: true, ..CaptureOptions::default() };
    let error = take(dir.path(), &offline).err().unwrap();
    assert_eq!((error.kind(), error.entry()), (Kind::Conflict, Some("store")));
    assert!(error.message().contains(&format!("(pid {})", holder.pid())), "{error}");
    assert!(error.hint().unwrap().contains("checkpoint hook"));
    let live = take(dir.path(), &CaptureOptions::default()).unwrap();
    assert_eq!(live.barrier, crate::engine::Barrier::Live);
    drop((live, holder));
    assert!(take(dir.path(), &offline).is_ok());
}

/// As long as the capture lives, the engine's own program can't open the database for writing.
#[test]
fn the_lock_is_held_until_the_end_although_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (node, copy) = (dir.path().join("node"), dir.path().join("copy"));
    fs::create_dir(&node).unwrap();
    let db = node.join("store");
    ldb(&db, &["--create_if_missing", "put", "key", "value"]);
    let mut captured = take(&node, &CaptureOptions::default()).unwrap();
    let put = || {
        let arguments = [format!("--db={}", db.display()), "put".into(), "k".into(), "v".into()];
        Command::new("ldb").args(arguments).output().unwrap().status.success()
    };
    let part = &mut captured.parts[0];
    for index in 0..part.entries().len() {
        part.stream(index, &mut |_| Ok(())).unwrap();
    }
    assert!(!put(), "the lock was given up");
    store(captured, &copy);
    assert!(put(), "the lock was not given up");
}

#[test]
fn a_table_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("store");
    ldb(&db, &["--create_if_missing", "put", "key", "value"]);
    ldb(&db, &["compact"]);
    let (name, path) = regular_files(&held(&db))
        .unwrap()
        .into_iter()
        .find(|(name, _)| matches!(FileName::of(name), Some(FileName::Table(_))))
        .unwrap();
    fs::remove_file(path.path()).unwrap();
    let refusals = look(dir.path()).refusals;
    assert_eq!(refusals[0].entry().unwrap(), format!("store/{}", name.to_str().unwrap()));
    assert_eq!(refusals[0].kind(), Kind::Input);
    let root = RelPath::from_bytes(b"store").unwrap();
    let error = crate::engine::check(
        dir.path(),
        EngineKind::ROCKSDB,
        &root,
        Depth::Open,
        &crate::engine::Engines::default(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.entry(), Some(refusals[0].entry().unwrap()));
}

#[test]
fn a_log_directory_elsewhere_is_refused_and_an_old_path_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    fs::create_dir(&node).unwrap();
    ldb(&node.join("store"), &["--create_if_missing", "put", "key", "value"]);
    let set = |wal_dir: &str| {
        let number = "OPTIONS-999999";
        fs::write(node.join("store").join(number), format!("[DBOptions]\n  wal_dir={wal_dir}\n"))
            .unwrap();
        look(&node).refusals
    };
    assert!(set("").is_empty());
    assert!(set(node.join("store/").to_str().unwrap()).is_empty());
    assert!(set(".").is_empty());
    assert!(set("/where/it/was/before/it/moved").is_empty());
    let elsewhere = set(dir.path().to_str().unwrap());
    assert_eq!((elsewhere.len(), elsewhere[0].kind()), (1, Kind::Input));
    assert!(elsewhere[0].message().contains("wal_dir"));
    assert_eq!(set("..").len(), 1);
}

#[test]
fn a_hook_that_fails_or_does_nothing_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("store");
    ldb(&db, &["--create_if_missing", "put", "key", "value"]);
    let hook = |hook: CheckpointHook| CaptureOptions {
        hooks: vec![("store".to_owned(), hook)],
        ..CaptureOptions::default()
    };
    let failing = take(dir.path(), &hook(Arc::new(|_| Err("no space".into())))).err().unwrap();
    assert_eq!(failing.kind(), Kind::Unavailable);
    assert!(failing.message().contains("no space"));
    let idle = take(dir.path(), &hook(Arc::new(|_| Ok(())))).err().unwrap();
    assert_eq!((idle.kind(), idle.entry()), (Kind::Input, Some("store")));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn leftovers_are_collected_unless_a_capture_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = RelPath::from_bytes(b"store").unwrap();
    let env = Env::system();
    let stale = dir.path().join(".highwater-checkpoint-0123");
    fs::create_dir_all(stale.join("checkpoint")).unwrap();
    let used = Scratch::create(&scratch::parent(&held(dir.path()), &root), CHECKPOINT_PREFIX, &env)
        .unwrap();
    assert!(!stale.exists());
    let second =
        Scratch::create(&scratch::parent(&held(dir.path()), &root), CHECKPOINT_PREFIX, &env)
            .unwrap();
    assert!(used.path().path().exists() && second.path().path().exists());
    let mode = fs::metadata(used.path().path()).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o700);
    used.remove().unwrap();
    let path = second.path().path();
    drop(second);
    assert!(!path.exists());
    let inside = Scratch::create(
        &scratch::parent(&held(dir.path()), &RelPath::root()),
        CHECKPOINT_PREFIX,
        &env,
    )
    .unwrap();
    assert!(inside.path().path().starts_with(dir.path().join(".highwater")));
}

#[cfg(feature = "rocksdb")]
mod real {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rust_rocksdb::checkpoint::Checkpoint;
    use rust_rocksdb::{DB, DBCompressionType, DBPath, IteratorMode, Options, WriteBatch};

    use super::*;
    use crate::engine::Barrier;

    fn options() -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options
    }

    fn hooks(hooks: Vec<(&str, Arc<DB>)>) -> CaptureOptions {
        let hooks = hooks.into_iter().map(|(name, db)| {
            let hook: CheckpointHook =
                Arc::new(move |path| Ok(Checkpoint::new(&db)?.create_checkpoint(path)?));
            (name.to_owned(), hook)
        });
        CaptureOptions { hooks: hooks.collect(), ..CaptureOptions::default() }
    }

    #[test]
    fn every_compression_and_blob_files_survive_and_damage_is_found() {
        for compression in [
            DBCompressionType::None,
            DBCompressionType::Snappy,
            DBCompressionType::Lz4,
            DBCompressionType::Zstd,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (node, copy) = (dir.path().join("node"), dir.path().join("copy"));
            fs::create_dir(&node).unwrap();
            let mut options = options();
            options.set_compression_type(compression);
            options.set_enable_blob_files(true);
            options.set_min_blob_size(4000);
            let db = DB::open(&options, node.join("store")).unwrap();
            for key in 0..200u32 {
                db.put(key.to_be_bytes(), vec![b'v'; 100 * (key as usize % 50)]).unwrap();
            }
            db.flush().unwrap();
            db.put("last", "in the log alone").unwrap();
            drop(db);
            store(take(&node, &CaptureOptions::default()).unwrap(), &copy);
            assert_eq!(check_both(&copy), Vec::<String>::new());
            for kind in ["sst", "blob"] {
                damage(&copy, kind);
            }
            let db = DB::open(&options, copy.join("store")).unwrap();
            assert_eq!(db.iterator(IteratorMode::Start).flatten().count(), 201);
            assert_eq!(db.get("last").unwrap().unwrap(), b"in the log alone");
        }
    }

    /// Flips a byte of a table or blob file, and puts it back.
    fn damage(copy: &Path, kind: &str) {
        let files = regular_files(&held(&copy.join("store"))).unwrap();
        let ends = |path: &PathBuf| path.extension().is_some_and(|extension| extension == kind);
        let path = files.into_iter().map(|(_, path)| path.path()).find(ends).unwrap();
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[40] ^= 1;
        fs::write(&path, bad).unwrap();
        let root = RelPath::from_bytes(b"store").unwrap();
        let found = crate::engine::check(
            copy,
            EngineKind::ROCKSDB,
            &root,
            Depth::Full,
            &crate::engine::Engines::default(),
        );
        assert_eq!(found.unwrap_err().kind(), Kind::Corrupt, "{kind}");
        fs::write(&path, good).unwrap();
    }

    /// Ends the writer also where the test fails.
    struct StopOnDrop<'a>(&'a AtomicBool);

    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// One batch writes the same number into two column families; a restored copy has the same one
    /// in both, at least the one from before the capture, and lacks none before it.
    #[test]
    fn a_live_database_that_keeps_writing_is_captured_at_one_instant() {
        let dir = tempfile::tempdir().unwrap();
        let (node, copy) = (dir.path().join("node"), dir.path().join("copy"));
        fs::create_dir(&node).unwrap();
        let db = DB::open_cf(&options(), node.join("store"), ["default", "peers"]).unwrap();
        let db = Arc::new(db);
        let write = |number: u32| {
            let mut batch = WriteBatch::default();
            batch.put(number.to_be_bytes(), vec![0; 200]);
            batch.put_cf(&db.cf_handle("peers").unwrap(), number.to_be_bytes(), vec![1; 300]);
            db.write(&batch).unwrap();
        };
        (0..500).for_each(write);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 500;
                while !stop.load(Ordering::Relaxed) {
                    write(number);
                    number += 1;
                    if number % 300 == 0 {
                        db.flush_cf(&db.cf_handle("peers").unwrap()).unwrap();
                    }
                }
            });
            let _stop = StopOnDrop(&stop);
            let captured = take(&node, &hooks(vec![("store", Arc::clone(&db))])).unwrap();
            assert_eq!(captured.barrier, Barrier::Single);
            store(captured, &copy);
        });
        assert_eq!(check_both(&copy), Vec::<String>::new());
        let restored = DB::open_cf(&options(), copy.join("store"), ["default", "peers"]).unwrap();
        let keys = |name: &str| -> Vec<u32> {
            let rows =
                restored.iterator_cf(&restored.cf_handle(name).unwrap(), IteratorMode::Start);
            rows.map(|row| u32::from_be_bytes((*row.unwrap().0).try_into().unwrap())).collect()
        };
        let (first, second) = (keys("default"), keys("peers"));
        assert_eq!(first, second);
        assert!(first.len() >= 500);
        assert_eq!(first, (0..first.len() as u32).collect::<Vec<_>>());
        assert_eq!(look(&node).parts.len(), 2);
    }

    #[test]
    fn two_databases_with_hooks_share_the_nodes_instant() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| Arc::new(DB::open(&options(), dir.path().join(name)).unwrap());
        let (one, two) = (open("one"), open("two"));
        one.put("key", "value").unwrap();
        let both = hooks(vec![("one", one), ("two", Arc::clone(&two))]);
        assert_eq!(take(dir.path(), &both).unwrap().barrier, Barrier::Hook);
        drop(both);
        // `one` is closed and can be locked; it doesn't move.
        let options = hooks(vec![("two", two)]);
        assert_eq!(take(dir.path(), &options).unwrap().barrier, Barrier::Single);
    }

    #[test]
    fn a_database_open_in_this_process_needs_a_hook_and_keeps_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let db = DB::open(&options(), dir.path().join("store")).unwrap();
        db.put("key", "value").unwrap();
        let error = take(dir.path(), &CaptureOptions::default()).err().unwrap();
        assert_eq!((error.kind(), error.entry()), (Kind::Conflict, Some("store")));
        assert!(error.hint().unwrap().contains("hook"));
        let path = format!("--db={}", dir.path().join("store").display());
        let other = Command::new("ldb").args([&path, "put", "a", "b"]).output().unwrap();
        assert!(!other.status.success(), "the node's own lock was given up");
    }

    #[test]
    fn tables_in_another_path_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        fs::create_dir(&node).unwrap();
        let mut options = options();
        let elsewhere = dir.path().join("elsewhere");
        options.set_db_paths(&[DBPath::new(&elsewhere, 1 << 30).unwrap()]);
        let db = DB::open(&options, node.join("store")).unwrap();
        db.put("key", "value").unwrap();
        db.flush().unwrap();
        drop(db);
        let refusals = look(&node).refusals;
        assert_eq!((refusals.len(), refusals[0].kind()), (1, Kind::Input));
        assert!(refusals[0].entry().unwrap().ends_with(".sst"), "{}", refusals[0].entry().unwrap());
    }

    #[test]
    fn what_only_the_node_knows_is_stood_in_for_or_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let mut merging = options();
        merging.set_merge_operator_associative("node.concat", |_, old, operands| {
            let mut value = old.unwrap_or_default().to_vec();
            operands.iter().for_each(|operand| value.extend_from_slice(operand));
            Some(value)
        });
        let db = DB::open(&merging, dir.path().join("store")).unwrap();
        db.merge("key", "a").unwrap();
        db.flush().unwrap();
        db.merge("key", "b").unwrap();
        db.put("other", "in the log, after a merge").unwrap();
        drop(db);
        assert_eq!(check_both(dir.path()), Vec::<String>::new());
        let store = dir.path().join("store");
        let opened = open::open(&store, &version::read(&held(&store)).unwrap()).unwrap();
        assert_eq!(open::rows(&opened, "default").unwrap(), 2);
        drop(opened);

        let dir = tempfile::tempdir().unwrap();
        let mut ordered = options();
        ordered.set_comparator("node.order", Box::new(|a, b| b.cmp(a)));
        drop(DB::open(&ordered, dir.path().join("store")).unwrap());
        assert!(check_both(dir.path()).iter().all(|warning| warning.contains("node.order")));

        let dir = tempfile::tempdir().unwrap();
        let mut reversed = options();
        reversed.set_comparator("rocksdb.ReverseBytewiseComparator", Box::new(|a, b| b.cmp(a)));
        drop(DB::open(&reversed, dir.path().join("store")).unwrap());
        assert_eq!(check_both(dir.path()), Vec::<String>::new());
    }

    /// A table is known by its identity once it is old enough; one that was written a moment ago
    /// could be written again within the same tick.
    #[test]
    fn identities_are_given_to_tables_that_are_old_enough() {
        let dir = tempfile::tempdir().unwrap();
        let db = DB::open(&options(), dir.path().join("store")).unwrap();
        db.put("key", "value").unwrap();
        db.flush().unwrap();
        drop(db);
        let known = |time: i64| -> Vec<String> {
            let env = Env::system().with_clock(At(time));
            let captured = capture(&look(dir.path()), &CaptureOptions::default(), &env).unwrap();
            let entries = captured.parts[0].entries().iter();
            let known = entries.filter(|entry| entry.identity.is_some());
            known.map(|entry| entry.path.to_string()).collect()
        };
        let tables: Vec<_> = regular_files(&held(&dir.path().join("store")))
            .unwrap()
            .into_iter()
            .filter(|(name, _)| matches!(FileName::of(name), Some(FileName::Table(_))))
            .collect();
        let written = metadata::stamp(&tables[0].1).unwrap().mtime_ns;
        assert!(known(written + 1_999_999_999).is_empty());
        assert!(known(written - 1_000_000_000).is_empty(), "a time in the future was trusted");
        let found = known(written + 2_000_000_000);
        assert_eq!(found, [format!("store/{}", tables[0].0.to_str().unwrap())]);
    }

    struct At(i64);

    impl crate::env::Clock for At {
        fn now(&self) -> crate::ids::Time {
            crate::ids::Time::from_nanos(self.0)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn pause(&self, _: Duration) {}
    }
}
