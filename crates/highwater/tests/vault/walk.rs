//! Deletion and replay: somebody who can write to the store, and has no key, takes objects away or puts
//! old copies back. A walk through every kind of object: each act is found, and by whom; or it does no
//! harm; or the threat model says that it can't be found in the vault, and who can find it.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater::Kind;
use highwater::archive::{self, Export, ExportOptions, Input};
use highwater::env::{FaultPoint, Faults};
use highwater::guard::{Move, VaultWitness, Witness};
use highwater::ids::GuardKind;
use highwater::vault::forget::{self, ForgetOptions};
use highwater::vault::{CheckOptions, check};
use highwater_guard::Ours;

use super::*;

const THREAT_MODEL: &str = include_str!("../../../../docs/threat-model.md");

/// A vault with one of everything, and copies of it from before.
struct Scene {
    bench: Bench,
    first: SnapshotId,
    second: SnapshotId,
    third: SnapshotId,
    witness: Witness,
}

fn marked(height: u64) -> BackupOptions {
    let mut options = BackupOptions::default();
    options.marks = [("height".to_owned(), height)].into();
    options
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// Keeps a copy of the vault at one step of a backup.
struct CopyAt(PathBuf, PathBuf);

impl Faults for CopyAt {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == FaultPoint::BackupManifest {
            copy(&self.0, &self.1);
        }
        Ok(())
    }
}

fn forget_one(bench: &Bench, snapshot: SnapshotId) {
    let options = ForgetOptions::default().snapshots(vec![snapshot.to_string()]);
    let plan = forget::plan(&bench.vault, &options).unwrap();
    forget::run(&bench.vault, &bench.actor("alice"), &plan, &control()).unwrap();
}

fn raise(witness: &Witness, number: u64) -> Result<()> {
    let ours = Ours { signed: Some(number), epoch: witness.epoch(), ..Ours::default() };
    witness.raise(&[Move { channel: "a".to_owned(), ours }], &[]).map(drop)
}

impl Scene {
    fn new() -> Scene {
        let bench = Bench::new();
        bench.vault.add_slot(&key(2), "second").unwrap();
        let backup = |height: u64, control: &Control| {
            bench.write("a", height.to_string());
            bench.backup_as("alice", &marked(height), control).unwrap().snapshot
        };
        let first = backup(10, &control());
        let vault = Arc::new(Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap());
        let store = Arc::new(VaultWitness::new(vault, bench.name()).unwrap());
        let witness = Witness::take_over(store, bench.name(), "holder".to_owned(), &env()).unwrap();
        raise(&witness, 1).unwrap();
        let place = |name: &str| bench.dir.path().join(name);
        copy(&place("vault"), &place("as of the first"));
        let second = backup(20, &control());
        copy(&place("vault"), &place("as of the second"));
        let during = CopyAt(place("vault"), place("during the third"));
        let third = backup(30, &Control::new(env().with_faults(during)));
        raise(&witness, 2).unwrap();
        forget_one(&bench, third);
        copy(&place("vault"), &place("with the third forgotten"));
        let undo = third.to_string();
        forget::undo(&bench.vault, &bench.actor("alice"), &undo, &control()).unwrap();
        forget_one(&bench, first);
        Scene { bench, first, second, third, witness }
    }

    fn vault(&self) -> PathBuf {
        self.bench.dir.path().join("vault")
    }

    /// Puts an object, or a folder of them, back as it was at some time: it alone is there then.
    fn put_back(&self, time: &str, name: &str) {
        self.delete(name);
        copy(&self.bench.dir.path().join(time).join(name), &self.vault().join(name));
    }

    /// Adds what was there at some time to what is there.
    fn add_back(&self, time: &str, name: &str) {
        copy(&self.bench.dir.path().join(time).join(name), &self.vault().join(name));
    }

    fn delete(&self, name: &str) {
        let path = self.vault().join(name);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => drop(fs::remove_file(path)),
        }
    }

    fn delete_newest(&self, folder: &str) {
        fs::remove_file(self.bench.objects(folder).pop().unwrap()).unwrap();
    }

    fn slot(&self, label: &str) -> String {
        let slots = self.bench.vault.slots().unwrap();
        format!("keys/{}", slots.iter().find(|slot| slot.label == label).unwrap().slot)
    }

    fn manifest_of(&self, snapshot: SnapshotId) -> PathBuf {
        let found = self.bench.objects("snapshots").into_iter();
        let named = |path: &PathBuf| path.to_str().unwrap().contains(&snapshot.to_string());
        found.into_iter().find(named).unwrap()
    }

    /// What is seen by whom: nothing where all is as it should be.
    fn observe(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let location = self.bench.vault.location();
        let second = Vault::open_with(location, &key(2), &env());
        if let Err(error) = &second {
            seen.push(format!("second key: {:?}", error.kind()));
        }
        let vault = match (Vault::open_with(location, &key(1), &env()), second) {
            (Ok(vault), _) => vault,
            (Err(error), second) => {
                seen.push(format!("first key: {:?}", error.kind()));
                let Ok(vault) = second else { return seen };
                vault
            }
        };
        let options = CheckOptions::default().read_data(true);
        let faults = check(&vault, &options, &control()).unwrap().errors;
        let folder = |entry: &str| entry.split('/').next().unwrap().to_owned();
        let folders: BTreeSet<String> = faults.iter().map(|fault| folder(&fault.entry)).collect();
        seen.extend(folders.iter().map(|folder| format!("check: {folder}")));
        match vault.resolve(&latest()) {
            Ok(info) if info.manifest.snapshot == self.third => {}
            Ok(_) => seen.push("latest: older".to_owned()),
            Err(error) => {
                assert!(error.hint().is_some(), "{error}: no remedy");
                seen.push(format!("latest: {:?}", error.kind()));
            }
        }
        if self.is_listed(&vault, self.first) {
            seen.push("first: listed again".to_owned());
        }
        let target = self.bench.dir.path().join("target");
        match restore::plan(&vault, &target, &by_id(self.second)) {
            Ok(plan) if plan.hold.is_some() => {}
            Ok(_) => seen.push("second: goes free".to_owned()),
            Err(error) => seen.push(format!("second: {:?}", error.kind())),
        }
        if let Err(error) = raise(&self.witness, 3) {
            seen.push(format!("witness: {:?}", error.kind()));
        }
        self.bench.write("a", "40");
        if let Err(error) = self.bench.backup_as("alice", &marked(40), &control()) {
            assert!(error.hint().is_some(), "{error}: no remedy");
            seen.push(format!("backup: {:?}", error.kind()));
        }
        seen
    }

    fn is_listed(&self, vault: &Vault, snapshot: SnapshotId) -> bool {
        let listed = vault.snapshots(None).unwrap_or_default();
        listed.iter().any(|info| info.manifest.snapshot == snapshot)
    }
}

fn latest() -> Selector {
    Selector { snapshot: "latest".to_owned(), ..Selector::default() }
}

/// What becomes of an act.
enum Told {
    /// Somebody finds it, as listed.
    Found,
    /// It changes nothing that counts.
    Harmless,
    /// Not by looking at the vault: the threat model says so in these words.
    ThreatModel(&'static str),
}

use Told::{Found, Harmless, ThreatModel};

type Row = (&'static str, &'static str, fn(&Scene), &'static [&'static str], Told);

const SET_BACK: &[&str] = &["check: nodes", "latest: Corrupt", "backup: Corrupt"];
const OLDER: &[&str] = &["latest: older", "second: goes free", "backup: Fenced"];
const ONE_NODE: &str = "The newest state of one node, cut off";

const DELETIONS: &[Row] = &[
    ("", "nothing", |_| {}, &[], Harmless),
    (
        "vault.json",
        "the header",
        |scene| scene.delete("vault.json"),
        &["second key: NotFound", "first key: NotFound"],
        Found,
    ),
    ("keys", "a slot", |scene| scene.delete(&scene.slot("first")), &["first key: Denied"], Found),
    (
        "keys",
        "all slots",
        |scene| scene.delete("keys"),
        &["second key: Denied", "first key: Denied"],
        Found,
    ),
    (
        "snapshots",
        "the newest manifest",
        |scene| scene.delete_newest("snapshots"),
        &["check: snapshots", "latest: Corrupt"],
        Found,
    ),
    (
        "snapshots",
        "an older manifest",
        |scene| fs::remove_file(scene.manifest_of(scene.second)).unwrap(),
        &["second: NotFound"],
        ThreatModel("An older snapshot that is deleted is missed by nobody"),
    ),
    ("nodes", "the newest record", |scene| scene.delete_newest("nodes"), &[], Harmless),
    ("nodes", "all records of a node", |scene| scene.delete("nodes/node"), SET_BACK, Found),
    (
        "nodes",
        "all records and the newest manifest",
        |scene| {
            scene.delete("nodes/node");
            scene.delete_newest("snapshots");
        },
        SET_BACK,
        Found,
    ),
    (
        "nodes",
        "the newest record and the newest manifest",
        |scene| {
            scene.delete_newest("nodes");
            scene.delete_newest("snapshots");
        },
        OLDER,
        ThreatModel(ONE_NODE),
    ),
    (
        "snapshots",
        "all manifests of a node",
        |scene| scene.delete("snapshots/node"),
        &["check: snapshots", "latest: NotFound", "second: NotFound"],
        Found,
    ),
    (
        "nodes",
        "a node, whole",
        |scene| {
            scene.delete("snapshots/node");
            scene.delete("nodes/node");
        },
        &["latest: NotFound", "second: NotFound", "backup: Fenced"],
        ThreatModel("A node that is deleted whole"),
    ),
    ("packs", "all packs", |scene| scene.delete("packs"), &["check: packs"], Found),
    (
        "trash",
        "a tombstone",
        |scene| scene.delete("trash"),
        &["first: listed again"],
        ThreatModel("Deleting such a record brings"),
    ),
    (
        "witness",
        "the newest record of a witness",
        |scene| scene.delete_newest("witness"),
        &["witness: Corrupt"],
        Found,
    ),
    ("witness", "a witness", |scene| scene.delete("witness"), &["witness: Corrupt"], Found),
];

const REPLAYS: &[Row] = &[
    (
        "vault.json",
        "the header",
        |scene| scene.put_back("as of the first", "vault.json"),
        &[],
        Harmless,
    ),
    (
        "keys",
        "a slot that was removed",
        |scene| {
            let slot = scene.slot("second");
            scene.bench.vault.remove_slot(slot.strip_prefix("keys/").unwrap()).unwrap();
            scene.put_back("as of the first", &slot);
        },
        &[],
        ThreatModel("a slot that was removed can be put back"),
    ),
    (
        "nodes",
        "the records as of the snapshot before",
        |scene| scene.put_back("as of the second", "nodes"),
        &[],
        Harmless,
    ),
    (
        "nodes",
        "the records as of two snapshots before",
        |scene| scene.put_back("as of the first", "nodes"),
        SET_BACK,
        Found,
    ),
    (
        "nodes",
        "the records from before a takeover",
        |scene| {
            let bob = scene.bench.actor("bob");
            scene.bench.vault.take_over(&scene.bench.name(), &bob, "moved").unwrap();
            scene.bench.backup_as("bob", &marked(35), &control()).unwrap();
            scene.put_back("with the third forgotten", "nodes");
        },
        SET_BACK,
        Found,
    ),
    (
        "snapshots",
        "the manifests as of the snapshot before",
        |scene| scene.put_back("as of the second", "snapshots"),
        &["check: snapshots", "latest: Corrupt"],
        Found,
    ),
    (
        "snapshots",
        "records and manifests of a node",
        |scene| {
            scene.put_back("as of the second", "nodes");
            scene.put_back("as of the second", "snapshots");
        },
        OLDER,
        ThreatModel(ONE_NODE),
    ),
    ("packs", "packs", |scene| scene.add_back("as of the first", "packs"), &[], Harmless),
    (
        "intents",
        "the intent of a backup that has ended",
        |scene| scene.add_back("during the third", "intents"),
        &[],
        Harmless,
    ),
    (
        "trash",
        "a tombstone that was taken back",
        |scene| scene.add_back("with the third forgotten", "trash"),
        &["latest: older"],
        ThreatModel("putting back one that was deleted hides them again"),
    ),
    (
        "witness",
        "the witness",
        |scene| scene.put_back("as of the second", "witness"),
        &["witness: Corrupt"],
        Found,
    ),
    (
        "",
        "the vault",
        |scene| {
            for name in ["keys", "nodes", "packs", "snapshots", "trash", "witness"] {
                scene.delete(name);
            }
            scene.add_back("as of the second", "");
        },
        &[
            "latest: older",
            "first: listed again",
            "second: goes free",
            "witness: Corrupt",
            "backup: Fenced",
        ],
        ThreatModel("An old vault, replayed whole"),
    ),
];

/// The kinds of objects that there are, by the scene and its copies.
fn kinds(scene: &Scene) -> BTreeSet<String> {
    let dirs = [scene.vault(), scene.bench.dir.path().join("during the third")];
    let names = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

fn walk(rows: &[Row], what: &str, besides: &[&str]) {
    let walked: BTreeSet<String> =
        rows.iter().map(|row| row.0).chain(besides.iter().copied()).map(str::to_owned).collect();
    let kinds = kinds(&Scene::new());
    assert!(kinds.is_subset(&walked), "{kinds:?} are there, {walked:?} are walked through");
    let plain = THREAT_MODEL.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut wrong = Vec::new();
    for (_, name, act, expected, told) in rows {
        let scene = Scene::new();
        act(&scene);
        let seen = scene.observe();
        if seen != *expected {
            wrong.push(format!("{what}: {name}: {seen:?} instead of {expected:?}"));
        }
        match told {
            Found => assert!(!expected.is_empty(), "{what}: {name}"),
            Harmless => assert!(expected.is_empty(), "{what}: {name}"),
            ThreatModel(words) => {
                assert!(plain.contains(words), "{what}: {name}: the threat model lacks `{words}`");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_deletion_is_found_or_stands_in_the_threat_model() {
    walk(DELETIONS, "deleted", &["intents"]);
}

#[test]
fn every_replay_is_found_or_stands_in_the_threat_model() {
    walk(REPLAYS, "put back", &[]);
}

/// Deletes the intents at one step of a backup.
struct DeleteIntents(PathBuf);

impl Faults for DeleteIntents {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == FaultPoint::BackupPackComplete {
            fs::remove_dir_all(&self.0).unwrap();
        }
        Ok(())
    }
}

#[test]
fn a_backup_whose_intent_is_deleted_is_given_up() {
    let scene = Scene::new();
    let faults = DeleteIntents(scene.vault().join("intents"));
    scene.bench.write("a", noise(1, 10_000));
    let control = Control::new(env().with_faults(faults));
    let backup = scene.bench.backup_as("alice", &marked(40), &control);
    assert_eq!(kind(backup), Kind::Conflict);
    assert_eq!(scene.observe(), [""; 0]);
}

#[test]
fn a_snapshot_without_its_nodes_record_is_restored_by_its_id_and_held_back() {
    let bench = Bench::new();
    bench.write("a", b"1");
    let first = bench.backup().snapshot;
    bench.write("a", b"2");
    bench.backup();
    fs::remove_dir_all(bench.dir.path().join("vault/nodes/node")).unwrap();
    fs::remove_file(bench.objects("snapshots").pop().unwrap()).unwrap();

    let error = bench.vault.resolve(&latest()).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some("nodes/node")));
    assert!(error.to_string().contains("record of node is missing"), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains(&first.to_string()) && hint.contains("`Vault::take_over`"), "{hint}");
    assert!(bench.vault.node_warnings(&bench.name()).unwrap()[0].contains("is missing"));
    assert_eq!(kind(bench.vault.owner(&bench.name(), &bench.actor("alice"))), Kind::Corrupt);

    let target = bench.dir.path().join("target");
    let plan = restore::plan(&bench.vault, &target, &by_id(first)).unwrap();
    assert_eq!(plan.hold, Some(GuardKind::Databases));
    assert!(plan.reasons.concat().contains("record of node is missing"), "{:?}", plan.reasons);
    assert_eq!(
        restore::run(&bench.vault, &plan, &by_id(first), &control()).unwrap().quarantined,
        1
    );
}

#[test]
fn a_takeover_begins_a_record_anew_that_is_gone() {
    let scene = Scene::new();
    let Scene { bench, second, third, .. } = &scene;
    scene.delete("nodes/node");
    let owner = bench.vault.take_over(&bench.name(), &bench.actor("bob"), "it is lost").unwrap();
    assert!(owner.ours && owner.epoch.0 == 2, "{owner:?}");
    assert_eq!(owner.reason.as_deref(), Some("it is lost"));
    bench.assert_sound();
    assert_eq!(bench.vault.resolve(&latest()).unwrap().manifest.snapshot, *third);
    let target = bench.dir.path().join("target");
    let plan = restore::plan(&bench.vault, &target, &by_id(*second)).unwrap();
    assert_eq!(plan.reasons, ["mark `height` is 10 below the highest seen, 30"]);
    assert_eq!(kind(bench.backup_as("alice", &marked(40), &control())), Kind::Fenced);
    bench.write("a", b"40");
    let next = bench.backup_as("bob", &marked(40), &control()).unwrap();
    assert_eq!((next.parent, next.seq.0), (Some(*third), 4));
    bench.assert_sound();
}

/// Fails once the manifest is there.
struct CutShort;

impl Faults for CutShort {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        match point {
            FaultPoint::BackupNodeRecord => Err(Error::unavailable("the power went")),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_snapshot_that_a_crash_kept_from_being_recorded_is_recorded_by_the_next_backup() {
    let bench = Bench::new();
    bench.write("a", b"1");
    bench.backup();
    for number in 2..5 {
        bench.write("a", number.to_string());
        let cut = Control::new(env().with_faults(CutShort));
        let backup = bench.backup_as("alice", &BackupOptions::default(), &cut);
        assert_eq!(kind(backup), Kind::Unavailable);
        bench.assert_sound();
    }
    let seq = bench.backup().seq.0;
    assert_eq!(seq, 3, "of three that were cut short, one had its manifest put");
    bench.assert_sound();
}

fn exported(bench: &Bench, snapshot: SnapshotId) -> Vec<u8> {
    let selector = Selector { snapshot: snapshot.to_string(), ..Selector::default() };
    let options = ExportOptions::default().selector(selector);
    let mut bytes = Vec::new();
    Export::new(&bench.vault, &options).unwrap().write(&mut bytes, &control()).unwrap();
    bytes
}

fn import(bench: &Bench, place: &str, bytes: &[u8]) -> Result<Vault> {
    let location = Location::Local(bench.dir.path().join(place));
    let input = Input { name: "archive".to_owned(), read: Box::new(bytes) };
    archive::import(&location, &key(1), vec![input], &bench.actor(place), &control())?;
    Vault::open_with(&location, &key(1), &env())
}

#[test]
fn a_vault_that_an_import_has_made_has_records_and_is_told_from_one_that_has_lost_them() {
    let Scene { bench, second, third, .. } = Scene::new();
    let archives = [exported(&bench, second), exported(&bench, third)];
    let vault = import(&bench, "copy", &archives[0]).unwrap();
    assert_eq!(vault.resolve(&latest()).unwrap().manifest.snapshot, second);
    assert!(check(&vault, &CheckOptions::default(), &control()).unwrap().ok);

    fs::remove_dir_all(bench.dir.path().join("copy/nodes/node")).unwrap();
    assert_eq!(kind(vault.resolve(&latest())), Kind::Corrupt);
    assert_eq!(kind(import(&bench, "copy", &archives[1])), Kind::Corrupt);
    assert_eq!(vault.snapshots(None).unwrap().len(), 1, "nothing became visible");
    // What was imported can be imported again: nothing else is there that it could hide.
    let vault = import(&bench, "copy", &archives[0]).unwrap();
    assert_eq!(vault.resolve(&latest()).unwrap().manifest.snapshot, second);
    let vault = import(&bench, "copy", &archives[1]).map(|_| vault).unwrap();
    assert_eq!(vault.resolve(&latest()).unwrap().manifest.snapshot, third);
}

#[test]
fn a_node_with_marks_is_held_back_after_a_restore_from_an_archive() {
    let bench = Bench::new();
    bench.write("a", b"1");
    let plain = bench.backup().snapshot;
    bench.write("a", b"2");
    let counted = bench.backup_with(&marked(20)).snapshot;
    bench.write("a", b"3");
    bench.backup_with(&marked(30));
    for (snapshot, held) in [(plain, false), (counted, true)] {
        let path = bench.dir.path().join(format!("{snapshot}.hwa"));
        fs::write(&path, exported(&bench, snapshot)).unwrap();
        let opened = archive::open(&[path], &key(1), &control()).unwrap();
        let target = bench.dir.path().join(format!("from {snapshot}"));
        let plan = restore::plan(&opened.vault, &target, &by_id(snapshot)).unwrap();
        assert_eq!(plan.hold.is_some(), held, "{:?}", plan.reasons);
        let report = restore::run(&opened.vault, &plan, &by_id(snapshot), &control()).unwrap();
        assert_eq!(report.quarantined > 0, held);
        assert_eq!(plan.reasons.concat().contains("an archive does not tell"), held);
    }
}
