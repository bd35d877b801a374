use std::process::Command;
use std::sync::Barrier;

use futures::executor::block_on;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{GetRange, ObjectStoreExt as _, UpdateVersion};

use super::*;
use crate::Kind;
use crate::env::{FaultPoint, Faults};

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

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn put(store: &LocalStore, at: &str, bytes: &[u8], mode: PutMode) -> Result<PutResult> {
    block_on(store.put_opts(&name(at), PutPayload::from(bytes.to_vec()), mode.into()))
}

fn get(store: &LocalStore, at: &str) -> Result<Vec<u8>> {
    block_on(async { Ok(store.get(&name(at)).await?.bytes().await?.to_vec()) })
}

fn names(store: &LocalStore, prefix: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(name);
    let found: Vec<ObjectMeta> = block_on(store.list(prefix.as_ref()).try_collect()).unwrap();
    found.into_iter().map(|meta| meta.location.to_string()).collect()
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let source = std::error::Error::source(error)?;
    Some(source.downcast_ref::<io::Error>()?.kind())
}

#[test]
fn what_is_put_is_got() {
    let StorePlace { store, directory: _keep } = StorePlace::new();
    for content in [&b""[..], b"x", &[7; 300_000]] {
        let put = put(&store, "a/b/c", content, PutMode::Overwrite).unwrap();
        assert_eq!(get(&store, "a/b/c").unwrap(), content);
        let head = block_on(store.head(&name("a/b/c"))).unwrap();
        assert_eq!((head.size, head.e_tag), (content.len() as u64, put.e_tag));
    }
}

#[test]
fn a_create_only_put_keeps_what_is_there() {
    let place = StorePlace::new();
    put(&place.store, "a", b"first", PutMode::Create).unwrap();
    let error = put(&place.store, "a", b"second", PutMode::Create).unwrap_err();
    assert!(matches!(&error, Error::AlreadyExists { path, .. } if path == "a"), "{error}");
    assert_eq!(get(&place.store, "a").unwrap(), b"first");
    let update = PutMode::Update(UpdateVersion { e_tag: None, version: None });
    let error = put(&place.store, "a", b"third", update).unwrap_err();
    assert!(matches!(error, Error::NotSupported { .. }));
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
                        match put(&store, at, &[racer; 1000], PutMode::Create) {
                            Ok(_) => Some(racer),
                            Err(Error::AlreadyExists { .. }) => None,
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(get(&place.store, &at).unwrap(), [won[0]; 1000]);
    }
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn modes_are_private() {
    let place = StorePlace::new();
    put(&place.store, "packs/ab/one", b"x", PutMode::Create).unwrap();
    let mode =
        |path: &str| fs::metadata(place.root().join(path)).unwrap().permissions().mode() & 0o7777;
    for directory in ["", ".tmp", "packs", "packs/ab"] {
        assert_eq!(mode(directory), 0o700, "{directory}");
    }
    assert_eq!(mode("packs/ab/one"), 0o600);

    let mut upload = block_on(place.store.put_multipart(&name("two"))).unwrap();
    block_on(upload.put_part("x".into())).unwrap();
    let writing = fs::read_dir(place.root().join(TEMPORARY)).unwrap().next().unwrap().unwrap();
    assert_eq!(writing.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn ranges_are_cut_at_the_end_and_refused_beyond_it() {
    let StorePlace { store, directory: _keep } = StorePlace::new();
    put(&store, "a", b"0123456789", PutMode::Create).unwrap();
    let ranged = |range: GetRange| {
        let options = GetOptions { range: Some(range), ..Default::default() };
        block_on(async {
            let found = store.get_opts(&name("a"), options).await?;
            assert_eq!(found.meta.size, 10);
            let range = found.range.clone();
            let bytes = found.bytes().await?;
            assert_eq!(range.end - range.start, bytes.len() as u64);
            Ok::<_, Error>(bytes)
        })
    };
    for (range, expected) in [
        (GetRange::Bounded(0..10), "0123456789"),
        (GetRange::Bounded(2..5), "234"),
        (GetRange::Bounded(8..100), "89"),
        (GetRange::Offset(7), "789"),
        (GetRange::Suffix(3), "789"),
        (GetRange::Suffix(100), "0123456789"),
    ] {
        assert_eq!(ranged(range.clone()).unwrap(), expected, "{range}");
    }
    for range in [GetRange::Bounded(10..11), GetRange::Bounded(5..5), GetRange::Offset(10)] {
        assert!(matches!(ranged(range.clone()), Err(Error::Generic { .. })), "{range}");
    }
    let parts = block_on(store.get_ranges(&name("a"), &[1..2, 8..10])).unwrap();
    assert_eq!(parts, ["1", "89"]);
}

#[test]
fn a_range_beyond_the_bound_comes_in_pieces() {
    let place = StorePlace::new();
    put(&place.store, "a", b"", PutMode::Create).unwrap();
    let file = OpenOptions::new().write(true).open(place.root().join("a")).unwrap();
    file.set_len(READ_WHOLE_MAX + READ_PIECE + 5).unwrap();
    file.write_all_at(b"end", READ_WHOLE_MAX + READ_PIECE + 2).unwrap();
    let sizes = |range: Range<u64>| -> Vec<usize> {
        let options = GetOptions::new().with_range(Some(range));
        let stream = block_on(place.store.get_opts(&name("a"), options)).unwrap().into_stream();
        block_on(stream.map_ok(|bytes| bytes.len()).try_collect()).unwrap()
    };
    assert_eq!(sizes(3..READ_WHOLE_MAX + 3), [READ_WHOLE_MAX as usize]);
    let pieces = sizes(0..READ_WHOLE_MAX + READ_PIECE + 5);
    assert_eq!(pieces.len(), 10);
    assert_eq!((pieces[0], pieces[9]), (READ_PIECE as usize, 5));
    let (at, end) = (name("a"), READ_WHOLE_MAX + READ_PIECE..u64::MAX);
    assert_eq!(block_on(place.store.get_range(&at, end)).unwrap(), "\0\0end");
}

#[test]
fn an_object_that_shrinks_while_it_is_read_is_an_error() {
    let place = StorePlace::new();
    put(&place.store, "a", &[1; 100], PutMode::Create).unwrap();
    let found = block_on(place.store.get(&name("a"))).unwrap();
    OpenOptions::new().write(true).open(place.root().join("a")).unwrap().set_len(50).unwrap();
    let error = block_on(found.bytes()).unwrap_err();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::UnexpectedEof));
}

#[test]
fn what_is_missing_is_not_found() {
    let place = StorePlace::new();
    put(&place.store, "a/b", b"x", PutMode::Create).unwrap();
    for missing in ["c", "c/d", "a", "a/b/c"] {
        let not_found = |error: Error| assert!(matches!(error, Error::NotFound { .. }), "{error}");
        not_found(get(&place.store, missing).unwrap_err());
        not_found(block_on(place.store.head(&name(missing))).unwrap_err());
        not_found(block_on(place.store.delete(&name(missing))).unwrap_err());
        not_found(block_on(place.store.copy(&name(missing), &name("z"))).unwrap_err());
    }
    let error = put(&place.store, "a/b/c", b"x", PutMode::Create).unwrap_err();
    assert!(matches!(error, Error::Generic { .. }), "{error}");
    for directory in ["a", ""] {
        let error = put(&place.store, directory, b"x", PutMode::Overwrite).unwrap_err();
        assert!(matches!(error, Error::Generic { .. }), "{error}");
    }
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn attributes_are_refused_rather_than_lost() {
    let place = StorePlace::new();
    let attributes = Attributes::from_iter([(object_store::Attribute::ContentType, "text/plain")]);
    let at = name("a");
    let put = place.store.put_opts(&at, "x".into(), attributes.clone().into());
    assert!(matches!(block_on(put), Err(Error::NotSupported { .. })));
    let put = place.store.put_multipart_opts(&at, attributes.into());
    assert!(matches!(block_on(put), Err(Error::NotSupported { .. })));
}

#[test]
fn hidden_names_are_refused() {
    let place = StorePlace::new();
    for hidden in [".tmp/x", ".x", "a/.b/c"] {
        let error = put(&place.store, hidden, b"x", PutMode::Create).unwrap_err();
        assert_eq!(io_kind(&error), Some(io::ErrorKind::InvalidInput), "{hidden}");
        assert_eq!(io_kind(&get(&place.store, hidden).unwrap_err()), io_kind(&error));
    }
    assert!(Name::parse("../x").is_err() && Name::parse("a//b").is_err());
}

#[test]
fn a_list_has_each_object_and_nothing_else() {
    let place = StorePlace::new();
    for at in ["vault.json", "keys/1", "packs/ab/1", "packs/ab/2", "packs/cd/3", "packs-x"] {
        put(&place.store, at, b"x", PutMode::Create).unwrap();
    }
    let _writing = block_on(place.store.put_multipart(&name("packs/ab/4"))).unwrap();
    fs::write(place.root().join("packs/.hidden"), "x").unwrap();
    fs::create_dir(place.root().join(LOST_AND_FOUND)).unwrap();
    fs::write(place.root().join(LOST_AND_FOUND).join("x"), "x").unwrap();

    let all = ["keys/1", "packs-x", "packs/ab/1", "packs/ab/2", "packs/cd/3", "vault.json"];
    assert_eq!(names(&place.store, None), all);
    assert_eq!(names(&place.store, Some("packs")), ["packs/ab/1", "packs/ab/2", "packs/cd/3"]);
    assert_eq!(names(&place.store, Some("packs/ab")), ["packs/ab/1", "packs/ab/2"]);
    assert!(names(&place.store, Some("packs/ab/1")).is_empty());
    assert!(names(&place.store, Some("none")).is_empty());
    let after: Vec<ObjectMeta> =
        block_on(place.store.list_with_offset(None, &name("packs/ab/1")).try_collect()).unwrap();
    assert_eq!(after.len(), 3);

    let level = block_on(place.store.list_with_delimiter(Some(&name("packs")))).unwrap();
    assert!(level.objects.is_empty());
    assert_eq!(level.common_prefixes, [name("packs/ab"), name("packs/cd")]);
    let level = block_on(place.store.list_with_delimiter(None)).unwrap();
    assert_eq!(level.common_prefixes, [name("keys"), name("packs")]);
    assert_eq!(level.objects.len(), 2);

    std::os::unix::fs::symlink("ab", place.root().join("packs/link")).unwrap();
    let list: Result<Vec<ObjectMeta>> = block_on(place.store.list(None).try_collect());
    assert_eq!(io_kind(&list.unwrap_err()), Some(io::ErrorKind::InvalidData));
}

#[test]
fn a_vanished_store_is_no_empty_one() {
    let place = StorePlace::new();
    fs::remove_dir(place.root()).unwrap();
    let list: Result<Vec<ObjectMeta>> = block_on(place.store.list(None).try_collect());
    assert!(list.is_err());
    assert!(put(&place.store, "a", b"x", PutMode::Create).is_err());
    assert!(!place.root().exists(), "a put must not make the root, which may be unmounted");
}

#[test]
fn copies_renames_and_deletes() {
    let StorePlace { store, directory: _keep } = StorePlace::new();
    put(&store, "a", b"a", PutMode::Create).unwrap();
    put(&store, "b", b"b", PutMode::Create).unwrap();
    let error = block_on(store.copy_if_not_exists(&name("a"), &name("b"))).unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }));
    block_on(store.copy(&name("a"), &name("b"))).unwrap();
    assert_eq!(get(&store, "b").unwrap(), b"a");
    block_on(store.rename_if_not_exists(&name("b"), &name("d/e"))).unwrap();
    assert_eq!(names(&store, None), ["a", "d/e"]);
    block_on(store.delete(&name("d/e"))).unwrap();
    let locations = futures::stream::iter([Ok(name("a")), Ok(name("gone"))]).boxed();
    let deleted: Vec<Result<Name>> = block_on(store.delete_stream(locations).collect());
    assert!(matches!(&deleted[..], [Ok(_), Err(Error::NotFound { .. })]));
    assert!(names(&store, None).is_empty());
}

#[test]
fn an_upload_is_seen_when_it_is_complete_and_creates_only() {
    let place = StorePlace::new();
    let mut upload = block_on(place.store.put_multipart(&name("p/1"))).unwrap();
    let parts: Vec<UploadPart> =
        ["one ", "two ", "three"].into_iter().map(|part| upload.put_part(part.into())).collect();
    // The order is that of the calls, whatever the order of waiting.
    for part in parts.into_iter().rev() {
        block_on(part).unwrap();
    }
    assert!(names(&place.store, None).is_empty());
    block_on(upload.complete()).unwrap();
    assert_eq!(get(&place.store, "p/1").unwrap(), b"one two three");
    assert!(block_on(upload.complete()).is_err());
    assert!(block_on(upload.put_part("more".into())).is_err());

    let mut second = block_on(place.store.put_multipart(&name("p/1"))).unwrap();
    block_on(second.put_part("other".into())).unwrap();
    let error = block_on(second.complete()).unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }));
    assert_eq!(get(&place.store, "p/1").unwrap(), b"one two three");
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn an_upload_that_is_aborted_or_dropped_leaves_nothing() {
    let place = StorePlace::new();
    for abort in [true, false] {
        let mut upload = block_on(place.store.put_multipart(&name("a"))).unwrap();
        block_on(upload.put_part("x".into())).unwrap();
        assert_eq!(place.leftovers(), 1);
        if abort {
            block_on(upload.abort()).unwrap();
            assert_eq!(place.leftovers(), 0);
            assert!(block_on(upload.complete()).is_err());
        }
        drop(upload);
        assert_eq!(place.leftovers(), 0);
    }
    assert!(names(&place.store, None).is_empty());
}

struct FailAt(FaultPoint);

impl Faults for FailAt {
    fn reached(&self, point: FaultPoint) -> crate::Result<()> {
        if point == self.0 { Err(crate::Error::unavailable("told to fail")) } else { Ok(()) }
    }
}

#[test]
fn a_failing_step_leaves_neither_object_nor_temporary_file() {
    for point in [FaultPoint::LocalPutSync, FaultPoint::LocalPutLink] {
        let place = StorePlace::with(&Env::system().with_faults(FailAt(point)));
        for mode in [PutMode::Create, PutMode::Overwrite] {
            let error = put(&place.store, "a/b", b"x", mode).unwrap_err();
            assert!(error.to_string().contains("told to fail"), "{error}");
        }
        let mut upload = block_on(place.store.put_multipart(&name("a/b"))).unwrap();
        block_on(upload.put_part("x".into())).unwrap();
        assert!(block_on(upload.complete()).is_err());
        assert!(names(&place.store, None).is_empty());
        assert_eq!(place.leftovers(), 0);
    }
}

struct DieAt(FaultPoint);

impl Faults for DieAt {
    fn reached(&self, point: FaultPoint) -> crate::Result<()> {
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
    put(&store, "a/b", &[1; 100_000], PutMode::Create).unwrap();
}

#[test]
fn what_a_killed_writer_leaves_is_collected_and_a_living_one_is_left_alone() {
    for point in [FaultPoint::LocalPutSync, FaultPoint::LocalPutLink] {
        let place = StorePlace::new();
        let mut living = block_on(place.store.put_multipart(&name("living"))).unwrap();
        block_on(living.put_part("x".into())).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "vault::local::tests::child_that_dies_in_a_put"])
            .env(CHILD_STORE, place.root())
            .env(CHILD_POINT, point.name())
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(9));
        assert_eq!(place.leftovers(), 2);
        assert!(names(&place.store, None).is_empty());

        let other = LocalStore::open(&place.root(), &Env::system()).unwrap();
        other.collect_leftovers().unwrap();
        assert_eq!(place.leftovers(), 1);
        put(&other, "a/b", b"again", PutMode::Create).unwrap();
        block_on(living.complete()).unwrap();
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
                        put(store, &format!("{writer}/{number}"), b"x", PutMode::Create).unwrap();
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
    let kind = |made: crate::Result<LocalStore>| made.map_err(|error| error.kind()).err();
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
    let error = put(&store, "big", &vec![1; 20 << 20], PutMode::Create).unwrap_err();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::StorageFull), "{error}");

    let mut upload = block_on(store.put_multipart(&name("big"))).unwrap();
    block_on(upload.put_part(vec![1; 6 << 20].into())).unwrap();
    let error = block_on(upload.put_part(vec![1; 16 << 20].into())).unwrap_err();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::StorageFull), "{error}");
    // A part's future need not be awaited: the upload itself must not complete.
    assert!(block_on(upload.complete()).is_err());
    assert_eq!(fs::read_dir(mount.0.path().join(TEMPORARY)).unwrap().count(), 0);
    assert!(names(&store, None).is_empty());
    put(&store, "small", &[1; 512 << 10], PutMode::Create).unwrap();

    mount.make_read_only();
    let store = LocalStore::open(mount.0.path(), &Env::system()).unwrap();
    assert_eq!(get(&store, "small").unwrap().len(), 512 << 10);
    for error in [
        put(&store, "more", b"x", PutMode::Create).unwrap_err(),
        block_on(store.delete(&name("small"))).unwrap_err(),
    ] {
        assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
    }
}
