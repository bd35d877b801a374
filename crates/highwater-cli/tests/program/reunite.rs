//! `replica restore` with a vault: files and keys of one node, brought together by one command.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use highwater_replica::local::{LocalStore as _, Space, SqliteStore};
use highwater_replica::remote::{VssAuth, VssRemote};
use highwater_replica::{Permissions, ReplicaKeys, ReplicatedStore};
use rusqlite::Connection;
use serde_json::Value;

use crate::vss::Server;
use crate::world::{Answered, World};

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
const STORE: &str = "highwater";
const LONG: Duration = Duration::from_secs(60);
const KEYS: &str = "keys.sqlite";
const NODE: &str = "node";

/// A node with channels in a replicated store, assets in a database beside it, and a key file; a server,
/// and a vault that the same words open.
struct Scene {
    world: World,
    server: Option<Server>,
}

impl Scene {
    fn new() -> Scene {
        let world = World::new();
        world.write_secret("words", WORDS);
        let init = ["init", "vault", "--mnemonic-file", "words", "--no-recovery-slot", "--json"];
        world.run(&init).code(0);
        fs::create_dir(world.path(NODE)).unwrap();
        fs::write(world.path(NODE).join("node.key"), "the node's key").unwrap();
        let mut scene = Scene { world, server: None };
        scene.serve();
        scene.add_asset("first");
        scene
    }

    fn serve(&mut self) {
        let arguments = ["vss", "serve", "--data-dir", "stores"];
        self.server = Some(Server::start_as(&self.world, &arguments, "signature"));
    }

    fn node_dir(&self) -> PathBuf {
        self.world.path(NODE)
    }

    fn remote(&self) -> (ReplicaKeys, Arc<VssRemote>) {
        let keys = ReplicaKeys::from_mnemonic(WORDS, STORE).unwrap();
        let auth = VssAuth::Signature(keys.signing_key());
        (keys, Arc::new(VssRemote::builder(self.url(), STORE).auth(auth).build().unwrap()))
    }

    fn url(&self) -> String {
        format!("http://{}/vss", self.server.as_ref().unwrap().address)
    }

    /// The store in a node directory, opened as a node does.
    fn open(&self, dir: &str) -> highwater::Result<ReplicatedStore> {
        let (keys, remote) = self.remote();
        let local = SqliteStore::open(self.world.path(dir).join(KEYS))?;
        let permissions = Permissions { allow_empty: true, ..Permissions::default() };
        ReplicatedStore::builder(Arc::new(local), remote, keys)
            .owner("the node")
            .permissions(permissions)
            .open()
            .map(|(store, _)| store)
    }

    /// Channels as they are after `writes` writes each.
    fn write(store: &ReplicatedStore, writes: std::ops::Range<u32>) {
        for number in writes {
            store.write(format!("channel/{}", number % 7), number.to_le_bytes()).unwrap();
        }
    }

    fn add_asset(&self, name: &str) {
        let assets = Connection::open(self.node_dir().join("assets.sqlite")).unwrap();
        assets.pragma_update(None, "journal_mode", "wal").unwrap();
        assets.execute("CREATE TABLE IF NOT EXISTS asset (name TEXT NOT NULL)", ()).unwrap();
        assets.execute("INSERT INTO asset VALUES (?1)", (name,)).unwrap();
    }

    fn back_up(&self, more: &[&str]) -> Value {
        let common = ["--vault", "vault", "--mnemonic-file", "words", "--json"];
        self.world.run(&[&["backup", NODE], &common[..], more].concat()).code(0).json()
    }

    /// The command that brings both streams together in `dir`.
    fn reunite(&self, dir: &str, more: &[&str]) -> Answered {
        self.world.run(&[&self.words(&["restore", dir])[..], more].concat())
    }

    fn words<'a>(&self, command: &[&'a str]) -> Vec<&'a str> {
        let url: &'a str = Box::leak(self.url().into_boxed_str());
        let common = ["--server", url, "--vault", "vault", "--mnemonic-file", "words", "--json"];
        [&["replica"], command, &common].concat()
    }

    /// The machine is gone with all that it had.
    fn lose(&self) {
        fs::remove_dir_all(self.node_dir()).unwrap();
        let _ = fs::remove_dir_all(self.world.path("home/.local"));
    }

    fn values(&self, dir: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        values(&self.world.path(dir).join(KEYS))
    }
}

fn values(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let store = SqliteStore::open(path).unwrap();
    store.scan(Space::Data, b"", None, usize::MAX).unwrap().into_iter().collect()
}

fn assets(dir: &Path) -> Vec<String> {
    let assets = Connection::open(dir.join("assets.sqlite")).unwrap();
    let mut query = assets.prepare("SELECT name FROM asset").unwrap();
    query.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn channels_and_assets_come_back_by_one_command_and_the_words() {
    let scene = Scene::new();
    let node = scene.open(NODE).unwrap();
    Scene::write(&node, 0..100);
    scene.add_asset("second");
    node.flush(LONG).unwrap();
    let backed_up = scene.back_up(&[]);
    let shown = ["show", "latest", "--vault", "vault", "--mnemonic-file", "words", "--json"];
    let shown = scene.world.run(&shown).code(0).json();
    let parts = shown["parts"].as_array().unwrap();
    let point = &parts.iter().find(|part| part["name"] == KEYS).unwrap()["replica"];
    assert_eq!((&point["seq"], &point["acknowledged"]), (&100.into(), &100.into()), "{shown}");
    assert!(
        parts.iter().find(|part| part["name"] == "assets.sqlite").unwrap()["replica"].is_null()
    );
    let listed = ["snapshots", "--vault", "vault", "--mnemonic-file", "words", "--json"];
    let listed = scene.world.run(&listed).code(0).json();
    assert_eq!(listed[0]["replica"][0]["part"], KEYS, "{listed}");
    node.release().unwrap();
    drop(node);
    let before = scene.values(NODE);
    scene.lose();

    let report = scene.reunite(NODE, &[]).code(0).json();
    assert_eq!(
        (&report["matched"], &report["snapshot"], &report["quarantined"]),
        (&true.into(), &backed_up["snapshot"], &0.into()),
        "{report}"
    );
    assert_eq!(report["pair"]["files_seq"], report["pair"]["keys_seq"], "{report}");
    assert_eq!(report["pair"]["parts_apart"], serde_json::json!(["files"]), "{report}");
    assert_eq!(scene.values(NODE), before);
    assert_eq!(assets(&scene.node_dir()), ["first", "second"]);
    assert_eq!(fs::read_to_string(scene.node_dir().join("node.key")).unwrap(), "the node's key");
    assert_eq!(left(&scene), ["home", "node", "stores", "vault", "words"]);
    // It is a running node's at once, and what it writes is replicated and backed up.
    let node = scene.open(NODE).unwrap();
    Scene::write(&node, 100..120);
    node.flush(LONG).unwrap();
    let taken = [
        "owner",
        "take-over",
        "--vault",
        "vault",
        "--node",
        NODE,
        "--reason",
        "new machine",
        "--mnemonic-file",
        "words",
        "--json",
    ];
    scene.world.run(&taken).code(0);
    scene.back_up(&[]);
    node.release().unwrap();
    drop(node);
    // Over what is there only where that is said; then it is kept.
    scene.reunite(NODE, &[]).code(4).error("conflict");
    let report = scene.reunite(NODE, &["--force"]).code(0).json();
    assert_eq!((&report["matched"], &report["pair"]["keys_seq"]), (&true.into(), &120.into()));
    assert!(Path::new(report["kept"].as_str().unwrap()).join(KEYS).exists(), "{report}");
}

/// What is there beside the node.
fn left(scene: &Scene) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(scene.world.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn assert_warned(report: &Value, text: &str) {
    let mut warnings = report["warnings"].as_array().unwrap().iter();
    assert!(warnings.any(|warning| warning.as_str().unwrap().contains(text)), "{report}");
}

#[test]
fn files_that_are_older_than_the_keys_are_told_by_how_much() {
    let scene = Scene::new();
    let node = scene.open(NODE).unwrap();
    Scene::write(&node, 0..20);
    let first = scene.back_up(&[])["snapshot"].clone();
    Scene::write(&node, 20..43);
    let second = scene.back_up(&[])["snapshot"].clone();
    Scene::write(&node, 43..50);
    scene.add_asset("after the last backup");
    node.release().unwrap();
    let before = scene.values(NODE);
    scene.lose();
    let report = scene.reunite(NODE, &[]).code(0).json();
    assert_eq!((&report["matched"], &report["snapshot"]), (&false.into(), &second), "{report}");
    assert_eq!(
        (&report["pair"]["writes_between"], &report["pair"]["writes_lost"]),
        (&7.into(), &0.into()),
        "{report}"
    );
    assert_warned(&report, "7 writes older");
    assert_eq!(scene.values(NODE), before, "the keys are the newest all the same");
    assert_eq!(assets(&scene.node_dir()), ["first"]);
    // An older one where it is asked for.
    scene.open(NODE).unwrap().release().unwrap();
    scene.lose();
    let asked = first.as_str().unwrap();
    let report = scene.reunite(NODE, &["--snapshot", asked]).code(0).json();
    assert_eq!((&report["snapshot"], &report["pair"]["writes_between"]), (&first, &30.into()));
}

#[test]
fn a_store_that_no_snapshot_knows_comes_back_alone_where_that_is_asked_for() {
    let scene = Scene::new();
    scene.back_up(&[]);
    let node = scene.open(NODE).unwrap();
    Scene::write(&node, 0..9);
    node.release().unwrap();
    let before = scene.values(NODE);
    scene.lose();
    let error = scene.reunite(NODE, &[]).code(3).error("not_found");
    assert!(error["error"]["message"].as_str().unwrap().contains("1 record no point"), "{error}");
    scene.reunite(NODE, &["--snapshot", "latest"]).code(3).error("not_found");
    scene.reunite(NODE, &["--keys-only", "a/b"]).code(2).error("input");
    // Nothing was taken by what was refused: the store is still given up.
    assert_eq!(left(&scene), ["home", "stores", "vault", "words"]);
    let owner = ["owner", "show", "--server", &scene.url(), "--mnemonic-file", "words", "--json"];
    let owner = scene.world.run(&[&["replica"], &owner[..]].concat()).code(0).json();
    assert_eq!(owner["state"], "released", "{owner}");
    let report = scene.reunite(NODE, &["--keys-only", KEYS]).code(0).json();
    assert_eq!((&report["matched"], &report["values"]), (&false.into(), &7.into()), "{report}");
    assert_warned(&report, "keys alone");
    assert_eq!(scene.values(NODE), before);
    assert_eq!(left(&scene), ["home", "node", "stores", "vault", "words"]);
}

#[test]
fn files_that_have_seen_what_the_server_never_had_are_refused() {
    let mut scene = Scene::new();
    let node = scene.open(NODE).unwrap();
    Scene::write(&node, 0..10);
    node.flush(LONG).unwrap();
    scene.server = None;
    Scene::write(&node, 10..13);
    scene.back_up(&[]);
    drop(node);
    scene.lose();
    scene.serve();
    let words = scene.words(&["owner", "take-over", NODE, "--reason", "the disk died"]);
    let take = |more: &[&str]| scene.world.run(&[&words, more].concat());
    scene.reunite(NODE, &["--accept-inconsistent-restore"]).code(6).error("fenced");
    let error = take(&[]).code(3).error("not_found");
    assert!(error["error"]["message"].as_str().unwrap().contains("seen 3 writes"), "{error}");
    take(&["--snapshot", "latest"]).code(5).error("corrupt");
    assert!(!scene.node_dir().exists());
    // By its numbers the snapshot lies below what another owner has written since.
    let other = scene.words(&["owner", "take-over", "other", "--reason", "the disk died"]);
    scene.world.run(&[&other[..], &["--keys-only", KEYS]].concat()).code(0);
    let store = scene.open("other").unwrap();
    Scene::write(&store, 10..30);
    store.release().unwrap();
    let error = scene.reunite(NODE, &[]).code(3).error("not_found");
    assert!(error["error"]["message"].as_str().unwrap().contains("seen 3 writes"), "{error}");
    let report = scene.reunite(NODE, &["--accept-inconsistent-restore"]).code(0).json();
    assert_eq!(
        (&report["matched"], &report["pair"]["writes_lost"], &report["pair"]["keys_seq"]),
        (&false.into(), &3.into(), &30.into()),
        "{report}"
    );
    assert_warned(&report, "3 writes that the server never had");
}

#[test]
fn a_guarded_directory_is_withheld_until_it_is_released() {
    let scene = Scene::new();
    let node = scene.open(NODE).unwrap();
    Scene::write(&node, 0..10);
    node.flush(LONG).unwrap();
    scene.back_up(&["--guarded"]);
    node.release().unwrap();
    let before = scene.values(NODE);
    scene.lose();
    let report = scene.reunite(NODE, &[]).code(0).json();
    assert_eq!((&report["matched"], &report["quarantined"]), (&true.into(), &2.into()), "{report}");
    assert!(fs::File::open(scene.node_dir().join(KEYS)).unwrap().metadata().unwrap().is_dir());
    assert!(scene.open(NODE).is_err());
    let release = ["guard", "release", NODE, "--all", "--reason", "looked at it", "--json"];
    scene.world.run(&release).code(0);
    assert_eq!(scene.values(NODE), before);
    scene.open(NODE).unwrap().release().unwrap();
    // Keys alone can't be held back.
    let forget = ["forget", "--vault", "vault", "--mnemonic-file", "words", "--json"];
    let snapshot = report["snapshot"].as_str().unwrap();
    scene.world.run(&[&forget[..], &[snapshot]].concat()).code(0);
    fs::remove_dir_all(scene.node_dir()).unwrap();
    scene.reunite(NODE, &[]).code(3).error("not_found");
    scene.reunite(NODE, &["--keys-only", KEYS]).code(10).error("quarantined");
}

#[test]
fn channels_that_loading_may_close_are_named_and_asked_for() {
    let scene = Scene::new();
    let node = scene.open(NODE).unwrap();
    node.write("//manager", "1").unwrap();
    node.write("monitors//channel-a", "2").unwrap();
    node.write("monitor_updates/channel-b/9", "1").unwrap();
    node.flush(LONG).unwrap();
    scene.back_up(&[]);
    node.release().unwrap();
    scene.lose();
    let error = scene.reunite(NODE, &[]).code(10).error("quarantined");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("channel-a, channel-b"), "{error}");
    assert!(!scene.node_dir().exists());
    let report = scene.reunite(NODE, &["--accept-closing-channels"]).code(0).json();
    assert_eq!(report["matched"], true, "{report}");
    // The same of a database alone.
    scene.open(NODE).unwrap().release().unwrap();
    let url = scene.url();
    let alone =
        ["replica", "restore", "keys", "--server", &url, "--mnemonic-file", "words", "--json"];
    scene.world.run(&alone).code(10).error("quarantined");
    scene.world.run(&[&alone[..], &["--accept-closing-channels"]].concat()).code(0);
    assert_eq!(values(&scene.world.path("keys")).len(), 3);
}

/// A restore that is killed anywhere leaves no node directory, or the whole one; the same command, or
/// `recover`, goes on.
#[cfg(feature = "fault-points")]
#[test]
fn a_pair_killed_anywhere_is_finished_by_the_same_command() {
    use highwater::env::FaultPoint;
    use std::os::unix::process::ExitStatusExt as _;

    let entries =
        [FaultPoint::RestoreWithhold, FaultPoint::RestoreEntry, FaultPoint::RestoreReveal];
    let ours = |point: &FaultPoint| {
        let name = point.name();
        (name.starts_with("restore.") || name.starts_with("pair.")) && !entries.contains(point)
    };
    let scene = Scene::new();
    let node = scene.open(NODE).unwrap();
    Scene::write(&node, 0..20);
    node.flush(LONG).unwrap();
    scene.back_up(&[]);
    node.release().unwrap();
    let before = scene.values(NODE);
    scene.lose();
    for point in FaultPoint::ALL.iter().copied().filter(ours) {
        let name = point.name();
        let mut command = scene.world.command(&scene.words(&["restore", NODE]));
        let killed = command.env("HIGHWATER_FAULT_POINT", name).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{name}: {killed:?}");
        let behind = [FaultPoint::RestoreKeep, FaultPoint::RestoreDone].contains(&point);
        if scene.node_dir().exists() {
            assert!(behind, "{name}");
            assert_eq!(assets(&scene.node_dir()), ["first"], "{name}");
        }
        if point == FaultPoint::RestoreDone {
            let recover = scene.world.run(&["recover", NODE, "--json"]).code(0).json();
            assert_eq!(recover["outcome"], "new", "{recover}");
        } else {
            let report = scene.reunite(NODE, &[]).code(0).json();
            assert_eq!(
                (&report["finished"], &report["matched"]),
                (&behind.into(), &true.into()),
                "{name}: {report}"
            );
        }
        assert_eq!(scene.values(NODE), before, "{name}");
        assert_eq!(assets(&scene.node_dir()), ["first"], "{name}");
        assert_eq!(left(&scene), ["home", "node", "stores", "vault", "words"], "{name}");
        scene.open(NODE).unwrap().release().unwrap();
        fs::remove_dir_all(scene.node_dir()).unwrap();
    }
}
