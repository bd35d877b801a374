//! Archives: chains of increments, wrong orders, every flipped byte and every cut, pipes, copies of a
//! vault, and the archives that are kept for ever.

use std::io::{Cursor, Read, Write};
use std::sync::Mutex;

use highwater::Event;
use highwater::Kind;
use highwater::archive::{self, Export, ExportOptions, ExportReport, ImportReport, Input};
use highwater::vault::{CheckOptions, CreateOptions, check};

use super::*;

fn select(snapshot: impl ToString) -> Selector {
    Selector { snapshot: snapshot.to_string(), ..Selector::default() }
}

fn export_to(
    vault: &Vault,
    snapshot: SnapshotId,
    since: Option<SnapshotId>,
    out: &mut dyn Write,
) -> Result<ExportReport> {
    let options = ExportOptions::default().selector(select(snapshot)).since(since.map(select));
    Export::new(vault, &options)?.write(out, &control())
}

fn export(vault: &Vault, snapshot: SnapshotId, since: Option<SnapshotId>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let report = export_to(vault, snapshot, since, &mut bytes).unwrap();
    assert_eq!(report.bytes, bytes.len() as u64);
    bytes
}

fn inputs<'a>(archives: &[&'a [u8]]) -> Vec<Input<'a>> {
    let input = |(number, bytes): (usize, &&'a [u8])| Input {
        name: format!("archive {number}"),
        read: Box::new(Cursor::new(*bytes)),
    };
    archives.iter().enumerate().map(input).collect()
}

/// A place next to the bench's vault.
struct VaultPlace {
    location: Location,
    actor: Actor,
}

impl VaultPlace {
    fn new(bench: &Bench, name: &str) -> VaultPlace {
        let location = Location::Local(bench.dir.path().join(name));
        VaultPlace { location, actor: bench.actor(&format!("{name}'s")) }
    }

    fn import(&self, archives: &[&[u8]]) -> Result<ImportReport> {
        archive::import(&self.location, &key(1), inputs(archives), &self.actor, &control())
    }

    fn open(&self) -> Vault {
        Vault::open_with(&self.location, &key(1), &env()).unwrap()
    }

    fn path(&self) -> &Path {
        &self.location.paths()[0]
    }

    fn snapshots(&self) -> Vec<SnapshotId> {
        let snapshots = self.open().snapshots(None).unwrap();
        snapshots.iter().map(|info| info.manifest.snapshot).collect()
    }

    /// Names and sizes of all files, directories too.
    fn content(&self) -> Tree {
        if self.path().exists() { tree(self.path()) } else { Tree::new() }
    }

    fn assert_sound(&self) {
        let options = CheckOptions::default().read_data(true);
        let report = check(&self.open(), &options, &control()).unwrap();
        assert!(report.ok, "{:?}", report.errors);
        assert_eq!(self.content().keys().filter(|name| name.starts_with(b"intents/")).count(), 0);
    }
}

/// Writes archives into files and opens them as a vault.
fn open_files(bench: &Bench, archives: &[&[u8]]) -> Result<archive::Opened> {
    let dir = tempfile::tempdir_in(bench.dir.path()).unwrap();
    let write = |(number, bytes): (usize, &&[u8])| {
        let path = dir.path().join(format!("{number}.hwa"));
        fs::write(&path, bytes).unwrap();
        path
    };
    let paths: Vec<PathBuf> = archives.iter().enumerate().map(write).collect();
    // The files are gone once they are open: what is read is what was verified.
    archive::open(&paths, &key(1), &control())
}

/// A node in several states, each backed up: ids and trees.
fn history(bench: &Bench, states: u64) -> Vec<(SnapshotId, Tree)> {
    let mut pages = page_file(7, 300);
    let mut history = Vec::new();
    for state in 0..states {
        let page = (state as usize * 37 + 5) % 300;
        pages[page * 4096 + 100..][..64].copy_from_slice(&noise(state, 64));
        bench.write("pages.db", &pages);
        bench.write(&format!("file-{}", state % 3), noise(100 + state, 50_000));
        bench.write("sub/always", b"the same");
        if state == 2 {
            fs::remove_file(bench.node().join("file-0")).unwrap();
        }
        history.push((bench.backup().snapshot, tree(&bench.node())));
    }
    history
}

/// The archives of a chain: the first one whole, then increments.
fn chain(bench: &Bench, history: &[(SnapshotId, Tree)]) -> Vec<Vec<u8>> {
    let mut before = None;
    let mut archives = Vec::new();
    for (snapshot, _) in history {
        archives.push(export(&bench.vault, *snapshot, before));
        before = Some(*snapshot);
    }
    archives
}

fn slices(archives: &[Vec<u8>]) -> Vec<&[u8]> {
    archives.iter().map(Vec::as_slice).collect()
}

#[test]
fn a_chain_of_increments_restores_to_exactly_each_state() {
    let bench = Bench::new();
    let history = history(&bench, 5);
    let archives = chain(&bench, &history);
    assert!(archives[1..].iter().all(|archive| archive.len() < archives[0].len() / 2));
    let all = slices(&archives);

    let copy = VaultPlace::new(&bench, "copy");
    let report = copy.import(&all).unwrap();
    assert!(report.created);
    assert_eq!(report.vault, bench.vault.id());
    assert_eq!(report.bytes_read, all.iter().map(|archive| archive.len() as u64).sum::<u64>());
    copy.assert_sound();
    assert_eq!(copy.snapshots(), history.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    let one_by_one = VaultPlace::new(&bench, "one by one");
    for archive in &all {
        one_by_one.import(&[archive]).unwrap();
        one_by_one.assert_sound();
    }
    for (number, (snapshot, expected)) in history.iter().enumerate() {
        for place in [&copy, &one_by_one] {
            let target = bench.dir.path().join("from a copy");
            restore_to(&place.open(), *snapshot, &target, false, None).unwrap();
            assert_same(&tree(&target), expected);
            fs::remove_dir_all(target).unwrap();
        }
        let opened = open_files(&bench, &all[..=number]).unwrap();
        assert_eq!(opened.snapshot, *snapshot);
        let target = bench.dir.path().join("from archives");
        restore_to(&opened.vault, opened.snapshot, &target, false, None).unwrap();
        assert_same(&tree(&target), expected);
        fs::remove_dir_all(target).unwrap();
    }
    // One increment over several snapshots.
    let leap = export(&bench.vault, history[4].0, Some(history[1].0));
    let opened = open_files(&bench, &[all[0], all[1], &leap]).unwrap();
    let target = bench.dir.path().join("from a leap");
    restore_to(&opened.vault, opened.snapshot, &target, false, None).unwrap();
    assert_same(&tree(&target), &history[4].1);
}

#[test]
fn a_gap_a_swap_and_a_repeat_are_refused_before_anything_is_there() {
    let bench = Bench::new();
    let history = history(&bench, 4);
    let archives = chain(&bench, &history);
    let [a, b, c, d] = slices(&archives)[..] else { panic!() };
    let other_base = export(&bench.vault, history[3].0, Some(history[1].0));
    let orders: [&[&[u8]]; 8] =
        [&[b], &[a, c], &[b, a], &[a, c, b], &[a, b, b], &[a, a], &[a, b, d], &[a, b, d, c]];
    for (number, order) in orders.into_iter().enumerate() {
        let place = VaultPlace::new(&bench, "place");
        assert_eq!(kind(place.import(order)), Kind::Conflict, "order {number}");
        assert!(!place.path().exists(), "order {number}: {:?}", place.content().keys());
        assert_eq!(kind(open_files(&bench, order)), Kind::Conflict, "order {number}");
    }
    // A chain to restore from is one chain; to import, each archive needs its base and no more.
    assert_eq!(kind(open_files(&bench, &[a, b, c, &other_base])), Kind::Conflict);
    VaultPlace::new(&bench, "fork").import(&[a, b, &other_base]).unwrap();
    let whole = export(&bench.vault, history[1].0, None);
    assert_eq!(kind(open_files(&bench, &[a, &whole])), Kind::Conflict);

    // The same into a vault that holds something already: it stays as it is.
    let place = VaultPlace::new(&bench, "begun");
    place.import(&[a]).unwrap();
    let before = place.content();
    for (number, order) in [[c, d], [c, b], [d, c]].iter().enumerate() {
        assert_eq!(kind(place.import(order)), Kind::Conflict, "order {number}");
        assert_eq!(without_folders(&place.content()), without_folders(&before));
    }
    place.import(&[b, c, d]).unwrap();
    place.assert_sound();
    assert_eq!(place.snapshots().len(), 4);
}

/// The files of a tree: directories that a vault makes stay when they are empty.
fn without_folders(tree: &Tree) -> Vec<&[u8]> {
    tree.iter().filter(|(_, (kind, _))| *kind == 'f').map(|(name, _)| name.as_slice()).collect()
}

#[test]
fn since_has_to_be_older() {
    let bench = Bench::new();
    let history = history(&bench, 2);
    let mut nowhere = std::io::sink();
    let (old, new) = (history[0].0, history[1].0);
    for (snapshot, since) in [(old, new), (old, old)] {
        let refused = export_to(&bench.vault, snapshot, Some(since), &mut nowhere);
        assert_eq!(kind(refused), Kind::Input);
    }
}

/// A node so small that each byte of its archives can be tried.
fn small() -> (Bench, Vec<Vec<u8>>) {
    let bench = Bench::new();
    bench.write("a", b"one");
    let first = bench.backup().snapshot;
    bench.write("a", b"two");
    let second = bench.backup().snapshot;
    let archives =
        vec![export(&bench.vault, first, None), export(&bench.vault, second, Some(first))];
    (bench, archives)
}

#[test]
fn every_byte_of_an_archive_counts_and_so_does_its_end() {
    let (bench, archives) = small();
    let (whole, increment) = (&archives[0], &archives[1]);
    let place = VaultPlace::new(&bench, "place");
    place.import(&[whole]).unwrap();
    let before = place.content();
    let refused = |damaged: &[u8], what: &str| {
        for (result, way) in [
            (place.import(&[damaged]).map(drop), "import"),
            (open_files(&bench, &[whole, damaged]).map(drop), "restore"),
        ] {
            let error = result.expect_err(&format!("{way}: {what}"));
            assert_eq!(error.kind(), Kind::Corrupt, "{way}: {what}: {error}");
            assert!(error.entry().is_some(), "{way}: {what}: {error}");
        }
    };
    for at in 0..increment.len() {
        let mut damaged = increment.clone();
        damaged[at] ^= 1 << (at % 8);
        refused(&damaged, &format!("byte {at}"));
        refused(&increment[..at], &format!("cut to {at}"));
    }
    for more in [&b"\0"[..], b"HWEN", increment] {
        refused(&[increment, more].concat(), "more behind its end");
    }
    let mut missing = increment.clone();
    for at in [0, 100, 300, increment.len() / 2, increment.len() - 1] {
        missing.remove(at);
        refused(&missing, &format!("a byte less at {at}"));
        missing.clone_from(increment);
    }
    assert_eq!(without_folders(&place.content()), without_folders(&before));
    for (name, (kind, bytes)) in &before {
        assert!(place.content()[name] == (*kind, bytes.clone()));
    }
    place.import(&[increment]).unwrap();
    place.assert_sound();
}

#[test]
fn where_no_vault_is_a_damaged_archive_leaves_nothing() {
    let (bench, archives) = small();
    let place = VaultPlace::new(&bench, "place");
    for at in (0..archives[0].len()).step_by(13) {
        let mut damaged = archives[0].clone();
        damaged[at] ^= 0x80;
        assert_eq!(kind(place.import(&[&damaged])), Kind::Corrupt, "byte {at}");
        assert_eq!(kind(place.import(&[&archives[0][..at]])), Kind::Corrupt, "cut at {at}");
        assert!(!place.path().exists(), "byte {at}");
    }
    // The damage is in the last archive: nothing of the first one becomes visible either.
    let cut = &archives[1][..archives[1].len() - 1];
    assert_eq!(kind(place.import(&[&archives[0], cut])), Kind::Corrupt);
    assert!(!place.path().exists());
    fs::create_dir(place.path()).unwrap();
    assert_eq!(kind(place.import(&[&archives[0], cut])), Kind::Corrupt);
    assert_eq!(place.content(), Tree::new(), "the empty directory that was there");
    place.import(&slices(&archives)).unwrap();
    place.assert_sound();
}

/// Gives one byte at a time.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn an_archive_goes_through_a_pipe() {
    let bench = Bench::new();
    bench.write("large", noise(3, 9 << 20));
    let snapshot = bench.backup().snapshot;
    let place = VaultPlace::new(&bench, "place");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let report = std::thread::scope(|scope| {
        let importing = scope.spawn(|| {
            let input = Input { name: "a pipe".to_owned(), read: Box::new(reader) };
            archive::import(&place.location, &key(1), vec![input], &place.actor, &control())
        });
        export_to(&bench.vault, snapshot, None, &mut writer).unwrap();
        drop(writer);
        importing.join().unwrap().unwrap()
    });
    assert_eq!(report.snapshots[0].snapshot, snapshot);
    place.assert_sound();
    let (_, archives) = small();
    let place = VaultPlace::new(&bench, "drops");
    let input = Input { name: "drops".to_owned(), read: Box::new(Drops(&archives[0])) };
    archive::import(&place.location, &key(1), vec![input], &place.actor, &control()).unwrap();
    place.assert_sound();
}

#[test]
fn who_reads_and_goes_away_ends_the_export() {
    let bench = Bench::new();
    bench.write("large", noise(3, 1 << 20));
    let snapshot = bench.backup().snapshot;
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    let error = export_to(&bench.vault, snapshot, None, &mut writer).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.hint().unwrap().contains("went away"), "{error:?}");
}

#[test]
fn what_is_there_already_is_left_as_it_is() {
    let bench = Bench::new();
    let history = history(&bench, 3);
    let archives = chain(&bench, &history);
    let all = slices(&archives);
    let place = VaultPlace::new(&bench, "place");
    place.import(&all[..2]).unwrap();
    let before = place.content();
    let report = place.import(&all[..2]).unwrap();
    assert!(report.snapshots.iter().all(|imported| imported.already_there));
    assert_eq!((report.bytes_stored, report.created), (0, false));
    assert!(place.content() == before, "nothing was changed, and nothing recorded");
    let report = place.import(&all).unwrap();
    let there: Vec<bool> = report.snapshots.iter().map(|imported| imported.already_there).collect();
    assert_eq!(there, [true, true, false]);
    // Into the vault that it came from.
    let before = bench.objects("");
    let home = VaultPlace { location: bench.vault.location().clone(), actor: bench.actor("alice") };
    assert!(home.import(&all).unwrap().snapshots.iter().all(|imported| imported.already_there));
    assert_eq!(bench.objects(""), before);
    // Of a whole archive only the packs that are missing are stored.
    let whole = export(&bench.vault, history[2].0, None);
    let place = VaultPlace::new(&bench, "other");
    place.import(&all[..1]).unwrap();
    let report = place.import(&[&whole]).unwrap();
    assert!(report.bytes_stored > 0 && report.bytes_stored < whole.len() as u64 / 2);
    place.assert_sound();
    let target = bench.dir.path().join("restored");
    restore_to(&place.open(), history[2].0, &target, false, None).unwrap();
    assert_same(&tree(&target), &history[2].1);
}

#[test]
fn another_vault_and_another_key_are_told_apart() {
    let (bench, archives) = small();
    let archives = slices(&archives);
    let other = VaultPlace::new(&bench, "other");
    Vault::create_with(&other.location, &key(1), &CreateOptions::default(), &env()).unwrap();
    let before = other.content();
    let error = other.import(&archives).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.hint().unwrap().contains("a copy"), "{error:?}");
    assert!(other.content() == before);
    let stranger = Bench::new();
    stranger.write("a", b"b");
    let foreign = export(&stranger.vault, stranger.backup().snapshot, None);
    assert_eq!(kind(other.import(&[archives[0], &foreign])), Kind::Input);

    let place = VaultPlace::new(&bench, "place");
    let denied =
        archive::import(&place.location, &key(2), inputs(&archives), &place.actor, &control());
    assert_eq!(kind(denied), Kind::Denied);
    assert!(!place.path().exists());
    let path = bench.dir.path().join("a.hwa");
    fs::write(&path, archives[0]).unwrap();
    assert_eq!(kind(archive::open(&[path], &key(2), &control())), Kind::Denied);
}

#[test]
fn any_slot_opens_an_archive_and_a_removed_one_does_not_come_back() {
    let bench = Bench::new();
    bench.write("a", b"one");
    let slot = bench.vault.add_slot(&key(2), "second").unwrap();
    let first = bench.backup().snapshot;
    let old = export(&bench.vault, first, None);
    let place = VaultPlace::new(&bench, "place");
    archive::import(&place.location, &key(2), inputs(&[&old]), &place.actor, &control()).unwrap();
    place.open().remove_slot(&slot.slot.to_string()).unwrap();
    bench.write("a", b"two");
    let second = bench.backup().snapshot;
    let increment = export(&bench.vault, second, Some(first));
    place.import(&[&increment]).unwrap();
    assert_eq!(place.open().slots().unwrap().len(), 1);
    assert_eq!(kind(Vault::open_with(&place.location, &key(2), &env())), Kind::Denied);
    place.assert_sound();
}

#[test]
fn marks_and_newest_are_taken_over_and_the_owner_is_not() {
    let bench = Bench::new();
    let mut archives = Vec::new();
    for height in [5, 9] {
        bench.write("a", format!("{height}"));
        let mut options = BackupOptions::default();
        options.marks = [("height".to_owned(), height)].into();
        let before = archives.last().map(|(snapshot, _)| *snapshot);
        let snapshot = bench.backup_with(&options).snapshot;
        archives.push((snapshot, export(&bench.vault, snapshot, before)));
    }
    let place = VaultPlace::new(&bench, "place");
    place.import(&[&archives[0].1, &archives[1].1]).unwrap();
    let owner = place.open().owner(&bench.name(), &place.actor).unwrap();
    assert_eq!((owner.writer, owner.epoch.0), (None, 1));
    let first = by_id(archives[0].0);
    let plan = restore::plan(&place.open(), &bench.dir.path().join("x"), &first).unwrap();
    assert!(plan.reasons.iter().any(|why| why.contains("4 below the highest seen, 9")), "{plan:?}");
    // Who writes next claims the node under a new epoch, and goes on after what was imported.
    let options = BackupOptions::default();
    let vault = place.open();
    let report = backup::run(&vault, &bench.node(), &place.actor, &options, &control()).unwrap();
    assert_eq!((report.seq.0, report.parent), (3, Some(archives[1].0)));
    assert_eq!(vault.owner(&bench.name(), &place.actor).unwrap().epoch.0, 2);
    // A later snapshot of the old history is there, and is not the newest.
    bench.write("a", b"more");
    let third = bench.backup().snapshot;
    let third = export(&bench.vault, third, Some(archives[1].0));
    place.import(&[&third]).unwrap();
    place.assert_sound();
    let latest = place.open().resolve(&select("latest")).unwrap();
    assert_eq!(latest.manifest.snapshot, report.snapshot);
    assert_eq!(place.open().owner(&bench.name(), &place.actor).unwrap().epoch.0, 2);
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_dir(&path, &to),
            false => fs::write(&to, fs::read(&path).unwrap()).unwrap(),
        }
    }
}

#[test]
fn two_copies_that_have_parted_are_not_mixed() {
    let bench = Bench::new();
    bench.write("a", b"one");
    let first = bench.backup().snapshot;
    let twin = VaultPlace::new(&bench, "twin");
    copy_dir(bench.vault.location().paths()[0].as_path(), twin.path());
    bench.write("a", b"two");
    let second = bench.backup().snapshot;
    let increment = export(&bench.vault, second, Some(first));
    // The twin's owner goes on under the same epoch, in the same place.
    let alice = bench.actor("alice");
    fs::remove_dir_all(alice.state_dir.join("known")).unwrap();
    let options = BackupOptions::default();
    let other = backup::run(&twin.open(), &bench.node(), &alice, &options, &control()).unwrap();
    assert_eq!(other.seq.0, 2);
    assert_eq!(kind(twin.import(&[&increment])), Kind::Conflict);
    assert_eq!(twin.snapshots(), [first, other.snapshot]);
    twin.assert_sound();
    // A takeover in the first vault: the twin's owner would go on below it.
    bench.vault.take_over(&bench.name(), &bench.actor("bob"), "moved").unwrap();
    bench.write("a", b"three");
    let third = bench.backup_as("bob", &options, &control()).unwrap().snapshot;
    let third = export(&bench.vault, third, Some(first));
    assert_eq!(kind(twin.import(&[&third])), Kind::Fenced);
    twin.assert_sound();
    twin.open().release(&bench.name(), &alice, "it is a copy from now on").unwrap();
    twin.import(&[&third]).unwrap();
    twin.assert_sound();
    assert_eq!(twin.snapshots().len(), 3);
}

#[test]
fn a_damaged_vault_is_not_exported() {
    let bench = Bench::new();
    bench.write("a", noise(1, 100_000));
    let snapshot = bench.backup().snapshot;
    let pack = bench.objects("packs").remove(0);
    let sound = fs::read(&pack).unwrap();
    for at in [10, 60, sound.len() / 2, sound.len() - 3] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        fs::write(&pack, damaged).unwrap();
        let vault = Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap();
        let output = bench.dir.path().join("a.hwa");
        let options = ExportOptions::default().selector(select(snapshot));
        let export = Export::new(&vault, &options).unwrap();
        let error = export.write_file(&output, false, &control()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "byte {at}: {error}");
        assert!(error.entry().unwrap().starts_with("packs/"), "{error}");
        assert!(!output.exists());
        assert!(parts(&bench).is_empty(), "byte {at}");
    }
}

/// What exports have left beside their outputs.
fn parts(bench: &Bench) -> Vec<PathBuf> {
    let entries = fs::read_dir(bench.dir.path()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "part")).collect()
}

#[test]
fn the_file_of_an_archive_is_whole_private_and_new() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.write("a", b"one");
    let snapshot = bench.backup().snapshot;
    let options = ExportOptions::default().selector(select(snapshot));
    let export = Export::new(&bench.vault, &options).unwrap();
    assert!(export.file_name().starts_with("node-20") && export.file_name().ends_with("Z.hwa"));
    assert_eq!(export.file_name().len(), "node-20261121T083000Z.hwa".len());
    let output = bench.dir.path().join("a.hwa");
    let left = bench.dir.path().join(".a.hwa.0123456789abcdef.part");
    fs::write(&left, b"of an export that was killed").unwrap();
    export.write_file(&output, false, &control()).unwrap();
    assert!(parts(&bench).is_empty());
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::write(&output, b"precious").unwrap();
    assert_eq!(kind(export.write_file(&output, false, &control())), Kind::Conflict);
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    export.write_file(&output, true, &control()).unwrap();
    archive::open(&[output], &key(1), &control()).unwrap();
    assert_eq!(kind(export.write_file(bench.dir.path(), true, &control())), Kind::Conflict);
    assert!(parts(&bench).is_empty());
}

#[test]
fn a_cancelled_export_or_import_leaves_nothing() {
    let bench = Bench::new();
    bench.write("a", noise(1, 9 << 20));
    let snapshot = bench.backup().snapshot;
    let whole = export(&bench.vault, snapshot, None);
    let cancelling = || {
        let seen = Mutex::new(0);
        let control = control();
        let cancel = control.cancel.clone();
        control.on_event(move |event| {
            if let Event::Bytes(bytes) = event {
                let mut seen = seen.lock().unwrap();
                *seen += bytes;
                if *seen > 3 << 20 {
                    cancel.cancel();
                }
            }
        })
    };
    let options = ExportOptions::default().selector(select(snapshot));
    let output = bench.dir.path().join("a.hwa");
    let export = Export::new(&bench.vault, &options).unwrap();
    assert_eq!(kind(export.write_file(&output, false, &cancelling())), Kind::Interrupted);
    assert!(!output.exists() && parts(&bench).is_empty());
    let place = VaultPlace::new(&bench, "place");
    let import = |control: &Control| {
        archive::import(&place.location, &key(1), inputs(&[&whole]), &place.actor, control)
    };
    assert_eq!(kind(import(&cancelling())), Kind::Interrupted);
    assert!(!place.path().exists());
    fs::write(&output, &whole).unwrap();
    assert_eq!(kind(archive::open(&[output], &key(1), &cancelling())), Kind::Interrupted);
}

#[test]
fn nothing_is_written_to_archives() {
    let (bench, archives) = small();
    let opened = open_files(&bench, &slices(&archives)).unwrap();
    assert_eq!(kind(opened.vault.add_slot(&key(3), "third")), Kind::Denied);
    let actor = bench.actor("alice");
    let options = BackupOptions::default();
    assert_eq!(
        kind(backup::run(&opened.vault, &bench.node(), &actor, &options, &control())),
        Kind::Input
    );
    let location = opened.vault.location();
    assert_eq!(kind(Vault::open_with(location, &key(1), &env())), Kind::Input);
    assert_eq!(
        kind(Vault::create_with(location, &key(1), &CreateOptions::default(), &env()).map(drop)),
        Kind::Input
    );
    let options = CheckOptions::default().read_data(true);
    assert!(check(&opened.vault, &options, &control()).unwrap().ok);
}

fn fixture_archives() -> (Vec<u8>, Vec<u8>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    (read("archive-1.hwa"), read("archive-1-since.hwa"))
}

/// The archives of format version 1 that are kept for ever: the two snapshots of the vault that is.
#[test]
fn the_archives_of_version_1_are_read_for_ever() {
    let (dir, vault) = fixture::open();
    let (whole, increment) = fixture_archives();
    let snapshots = vault.snapshots(None).unwrap();
    let [first, second] = &*snapshots else { panic!() };
    let (first, second) = (first.manifest.snapshot, second.manifest.snapshot);
    assert!(export(&vault, first, None) == whole, "an export has no byte of chance in it");
    assert!(export(&vault, second, Some(first)) == increment);

    let secret = fixture::secret();
    let location = Location::Local(dir.path().join("copy"));
    let actor = Actor { state_dir: dir.path().join("state"), name: "a test".into() };
    let both = [whole.as_slice(), increment.as_slice()];
    archive::import(&location, &secret, inputs(&both), &actor, &control()).unwrap();
    let copy = Vault::open_with(&location, &secret, &env()).unwrap();
    let report = check(&copy, &CheckOptions::default().read_data(true), &control()).unwrap();
    assert!(report.ok, "{:?}", report.errors);
    let us = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for (name, bytes) in [("1.hwa", &whole), ("2.hwa", &increment)] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let paths = ["1.hwa", "2.hwa"].map(|name| dir.path().join(name));
    let opened = archive::open(&paths, &secret, &control()).unwrap();
    assert_eq!(opened.snapshot, second);
    for (place, from) in [("a", &vault), ("b", &copy), ("c", &opened.vault)] {
        restore_to(from, second, &dir.path().join(place), false, Some(us)).unwrap();
    }
    let expected = tree(&dir.path().join("a"));
    assert_same(&tree(&dir.path().join("b")), &expected);
    assert_same(&tree(&dir.path().join("c")), &expected);
}
