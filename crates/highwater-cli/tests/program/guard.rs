//! A restored node that is held back: withheld databases, the list, the release.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Child;

use highwater::env::FaultPoint;
use serde_json::{Value, json};

use crate::node::{self, Age};
use crate::scene::{Ran, Scene, Strike, counts};
use crate::strangers::{attempt, is_there};
use crate::tree::{self, Tree};

/// The parts of the node that are databases.
pub(crate) const DATABASES: [&str; 2] = [node::LEDGER, node::STORE];
pub(crate) const REASON: &str = "stopped before the backup";

/// A scene with a guarded snapshot of the old node, restored to the path that is returned.
pub(crate) fn withheld() -> (Scene, PathBuf) {
    let scene = Scene::with_node();
    backup(&scene, &["--guarded"]).ok();
    let target = scene.path("target");
    let report = scene.restore("latest", &target).ok();
    assert_eq!(report["quarantined"], 2, "{report}");
    (scene, target)
}

pub(crate) fn backup(scene: &Scene, flags: &[&str]) -> Ran {
    let node = scene.path("node");
    let words = ["backup".as_ref(), node.as_os_str()];
    scene.run(words.into_iter().chain(flags.iter().map(OsStr::new)))
}

/// The words of `guard VERB DIR ARGUMENTS…`.
pub(crate) fn words<'a>(verb: &'a str, dir: &'a Path, arguments: &[&'a str]) -> Vec<&'a OsStr> {
    let words = ["guard".as_ref(), verb.as_ref(), dir.as_os_str()];
    words.into_iter().chain(arguments.iter().map(|word| OsStr::new(*word))).collect()
}

pub(crate) fn guard(scene: &Scene, verb: &str, dir: &Path, arguments: &[&str]) -> Ran {
    scene.run(words(verb, dir, arguments))
}

pub(crate) fn release_all(scene: &Scene, dir: &Path) -> Value {
    guard(scene, "release", dir, &["--all", "--reason", REASON]).ok()
}

/// Names and states in a list.
fn states(list: &Value) -> Vec<(&str, &str)> {
    let list = list.as_array().unwrap().iter();
    list.map(|held| (held["id"].as_str().unwrap(), held["state"].as_str().unwrap())).collect()
}

#[track_caller]
pub(crate) fn assert_withheld(scene: &Scene, dir: &Path) {
    let listed = guard(scene, "list", dir, &[]);
    assert_eq!(listed.code, Some(10), "{listed:?}");
    let expected = DATABASES.map(|name| (name, "withheld"));
    assert_eq!(states(&listed.json["channels"]), expected, "{listed:?}");
    guard(scene, "wait", dir, &["--timeout", "0"]).failed(10, "quarantined");
}

#[track_caller]
fn assert_free(scene: &Scene, dir: &Path) {
    let list = guard(scene, "list", dir, &[]).ok();
    let states = states(&list["channels"]);
    assert!(states.iter().all(|(_, state)| *state == "released"), "{list}");
    guard(scene, "wait", dir, &["--timeout", "0"]).ok();
}

/// The node as it was backed up: reading its SQLite leaves an empty log beside it.
fn backed_up(scene: &Scene) -> Tree {
    let mut found = tree::read(&scene.path("node")).unwrap();
    let logs = ["-wal", "-shm"].map(|suffix| PathBuf::from(format!("{}{suffix}", node::LEDGER)));
    found.retain(|path, _| !logs.contains(path));
    found
}

/// A copy of a node directory, started as the node would.
pub(crate) fn start_a_copy(scene: &Scene, dir: &Path) -> Result<Age, String> {
    let copy = scene.path("copy-for-a-node");
    tree::copy(dir, &copy);
    let started = node::start(&copy);
    fs::remove_dir_all(&copy).unwrap();
    started
}

/// What a process says to its end.
pub(crate) fn rest(stream: &mut impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// `run` with a shell as the node; `$0` of its script is the node directory.
pub(crate) fn start_node(scene: &Scene, dir: &Path, script: &str) -> Child {
    let mut command = scene.plain_command(["run".as_ref(), dir.as_os_str()]);
    command.args(["--", "sh", "-c", script]).arg(dir);
    command.spawn().unwrap()
}

#[test]
fn the_databases_of_a_guarded_snapshot_come_back_withheld_until_they_are_released() {
    let (scene, target) = withheld();
    assert_withheld(&scene, &target);
    let before = tree::read(&target).unwrap();
    assert!(start_a_copy(&scene, &target).is_err());
    // A backup would make the state that is in doubt the newest snapshot.
    scene.run(["backup".as_ref(), target.as_os_str()]).failed(10, "quarantined");
    tree::assert_equal(&tree::read(&target).unwrap(), &before, "a refused backup changes nothing");

    let released = release_all(&scene, &target);
    assert_eq!(states(&released["released"]), DATABASES.map(|name| (name, "released")));
    assert_free(&scene, &target);
    let released = tree::read(&target).unwrap();
    tree::assert_equal(&released, &backed_up(&scene), "what was released");
    assert_eq!(start_a_copy(&scene, &target), Ok(Age::Old));
    guard(&scene, "release", &target, &["--all", "--reason", REASON]).ok();
}

#[test]
fn a_strangers_open_of_a_withheld_database_fails_and_creates_none() {
    let (scene, target) = withheld();
    let (store, ledger) = (target.join(node::STORE), target.join(node::LEDGER));
    assert!(node::start(&target).is_err());
    let (notes, ledger) = (store.join("CURRENT"), ledger.to_str().unwrap());
    assert!(notes.is_dir() && Path::new(ledger).is_dir(), "a note stands in the place of each");
    if is_there("sqlite3") {
        for statement in ["SELECT count(*) FROM payment;", "CREATE TABLE payment (id);"] {
            assert!(!attempt("sqlite3", &[ledger, statement]), "{statement}");
        }
    }
    if is_there("ldb") {
        let db = format!("--db={}", store.display());
        assert!(!attempt("ldb", &[&db, "scan"]));
        assert!(!attempt("ldb", &[&db, "--create_if_missing", "put", "an", "empty one"]));
    }
    assert_withheld(&scene, &target);
    release_all(&scene, &target);
    assert_eq!(node::start(&target), Ok(Age::Old), "nothing was put in their place");
}

#[test]
fn one_database_is_released_alone_and_the_release_is_recorded() {
    let (scene, target) = withheld();
    let release = |channel: &str, reason: &str| {
        guard(&scene, "release", &target, &[channel, "--reason", reason])
    };
    release("no-such", REASON).failed(3, "not_found");
    release(node::LEDGER, "").failed(2, "input");
    release(node::LEDGER, " \t").failed(2, "input");
    assert_withheld(&scene, &target);

    let released = release(node::LEDGER, REASON).ok();
    assert_eq!(states(&released["released"]), [(node::LEDGER, "released")]);
    let listed = guard(&scene, "list", &target, &[]);
    assert_eq!(listed.code, Some(10), "{listed:?}");
    assert!(states(&listed.json["channels"]).contains(&(node::STORE, "withheld")), "{listed:?}");
    let shown = guard(&scene, "show", &target, &[node::LEDGER]).ok();
    let release = &shown["channels"][0]["release"];
    assert_eq!(release["reason"], REASON, "{shown}");
    assert!(release["by"].as_str().unwrap().contains('@'), "{shown}");
    assert!(start_a_copy(&scene, &target).is_err(), "the other one is withheld still");
    release_all(&scene, &target);
    assert_free(&scene, &target);
}

#[test]
fn people_are_told_what_is_held_and_what_a_release_means() {
    let (scene, target) = withheld();
    let said = |words: Vec<&OsStr>, code: i32| {
        let output = scene.plain_command(words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for text in [
        said(words("list", &target, &[]), 10),
        said(words("show", &target, &[]), 0),
        said(vec!["inspect".as_ref(), target.as_os_str()], 0),
    ] {
        assert!(DATABASES.iter().all(|name| text.contains(name)), "{text}");
        assert!(text.contains("withheld"), "{text}");
    }
    let text = said(words("release", &target, &["--all", "--reason", REASON]), 0);
    assert!(DATABASES.iter().all(|name| text.contains(name)), "{text}");
    assert!(text.contains("You take responsibility"), "{text}");
    assert!(said(words("list", &target, &[]), 0).contains("Nothing is quarantined"));
}

#[test]
fn where_nothing_is_quarantined_the_list_is_empty_and_nothing_waits() {
    let scene = Scene::with_node();
    let node = scene.path("node");
    let list = guard(&scene, "list", &node, &[]).ok();
    assert_eq!(list["channels"], json!([]), "{list}");
    guard(&scene, "wait", &node, &[]).ok();
    guard(&scene, "release", &node, &["c", "--reason", REASON]).failed(3, "not_found");
    let nowhere = scene.path("nowhere");
    for (verb, arguments) in [("list", &[][..]), ("show", &[]), ("wait", &["--timeout", "0"])] {
        guard(&scene, verb, &nowhere, arguments).failed(3, "not_found");
    }
    let text = rest(&mut start_node(&scene, &node, r#"ls "$0""#).stdout.take().unwrap());
    assert!(text.contains("node.key"), "{text}");
}

#[test]
fn a_restore_below_a_mark_says_by_how_much_and_withholds() {
    let scene = Scene::with_node();
    let first = backup(&scene, &["--mark", "height=7"]).ok()["snapshot"].clone();
    let first = first.as_str().unwrap();
    backup(&scene, &["--mark", "height=9"]).ok();
    let target = scene.path("target");
    let plan =
        scene.run(["restore".as_ref(), first.as_ref(), target.as_os_str(), "--plan".as_ref()]);
    let plan = plan.ok();
    assert_eq!(plan["hold"], "databases", "{plan}");
    let says_by_how_much = |text: &Value| {
        let text = text.to_string();
        assert!(text.contains("`height` is 2 below the highest seen, 9"), "{text}");
    };
    says_by_how_much(&plan["reasons"]);
    let report = scene.restore(first, &target).ok();
    assert_eq!(report["quarantined"], 2, "{report}");
    assert_withheld(&scene, &target);
    let list = guard(&scene, "list", &target, &[]);
    says_by_how_much(&list.json["channels"][0]["reason"]);
    let words = ["--all", "--reason", REASON, "--although-old"];
    guard(&scene, "release", &target, &words).ok();
    assert_eq!(start_a_copy(&scene, &target), Ok(Age::Old));

    let newest = scene.path("newest");
    assert_eq!(scene.restore("latest", &newest).ok()["quarantined"], 0, "it is at the mark");
    assert_free(&scene, &newest);
}

#[test]
fn the_statement_that_the_original_is_gone_is_recorded() {
    let scene = Scene::with_node();
    backup(&scene, &["--guarded"]).ok();
    let target = scene.path("target");
    let restore = |statement: &str| {
        let words = ["restore".as_ref(), "latest".as_ref(), target.as_os_str()];
        scene.run(words.into_iter().chain(["--original-gone".as_ref(), statement.as_ref()]))
    };
    restore(" ").failed(2, "input");
    restore("its disk is shredded").ok();
    let shown = guard(&scene, "show", &target, &[]).ok();
    assert_eq!(shown["original_gone"]["reason"], "its disk is shredded", "{shown}");
    assert!(shown["original_gone"]["by"].as_str().unwrap().contains('@'), "{shown}");
}

#[test]
fn a_release_killed_anywhere_is_finished_by_the_next_one() {
    let (scene, target) = withheld();
    let expected = backed_up(&scene);
    let model = scene.path("model");
    tree::copy(&target, &model);
    let mut passed = BTreeSet::new();
    let points = [FaultPoint::GuardLatch, FaultPoint::GuardRelease];
    for point in points {
        for count in counts() {
            let what = format!("a release killed at {} ({count})", point.name());
            fs::remove_dir_all(&target).unwrap();
            tree::copy(&model, &target);
            let args = words("release", &target, &["--all", "--reason", REASON]);
            let ran = scene.run_with_fault(Strike::kill(point, count), args);
            if !ran.killed() {
                ran.ok();
                break;
            }
            passed.insert(point.name());
            // What is not released yet can't be opened; what is, is whole.
            let started = start_a_copy(&scene, &target);
            let held = guard(&scene, "wait", &target, &["--timeout", "0"]).code != Some(0);
            assert!(held || started == Ok(Age::Old), "{what}: {started:?}");
            let output = scene
                .plain_command(["run".as_ref(), target.as_os_str()])
                .args(["--timeout", "0", "--", "true"])
                .output()
                .unwrap();
            assert_eq!(output.status.code() == Some(0), !held, "{what}: {output:?}");
            release_all(&scene, &target);
            assert_free(&scene, &target);
            tree::assert_equal(&tree::read(&target).unwrap(), &expected, &what);
            assert_eq!(start_a_copy(&scene, &target), Ok(Age::Old), "{what}");
        }
    }
    assert_eq!(passed, points.map(FaultPoint::name).into(), "points at which a release was killed");
}

#[test]
fn a_rollback_withholds_what_it_brings_back_and_says_so() {
    let scene = Scene::with_node();
    let target = scene.path("target");
    backup(&scene, &["--guarded"]).ok();
    scene.restore("latest", &target).ok();
    release_all(&scene, &target);
    node::go_on(&scene.path("node"));
    backup(&scene, &["--guarded"]).ok();
    assert_eq!(scene.restore("latest", &target).ok()["quarantined"], 2);
    release_all(&scene, &target);

    let rolled = scene.run(["rollback".as_ref(), target.as_os_str()]).ok();
    assert_eq!(rolled["quarantined"], 2, "{rolled}");
    assert_withheld(&scene, &target);
    let show = guard(&scene, "show", &target, &[]).ok();
    assert_eq!(show["cause"], "rollback", "{show}");
    release_all(&scene, &target);
    assert_eq!(start_a_copy(&scene, &target), Ok(Age::Old));
}

/// A latch as a node that embeds the guard leaves it.
fn channels_latch() -> Value {
    let numbers = |signed: u64| {
        json!({
            "signed": signed, "revoked": 4, "received": 4, "closing": false, "epoch": 1,
        })
    };
    let witness = json!({
        "signed": 6, "revoked": 4, "received": 4, "closing": false, "continuous": true,
        "owned": true, "epoch": 1,
    });
    let evidence = |witness: Value| {
        json!({
            "chain": null, "backup": null, "witness": witness, "report": null, "policy": "witness",
        })
    };
    json!({
        "version": 1, "kind": "channels", "node": "node",
        "uid": "00112233445566778899aabbccddeeff", "cause": "restore",
        "restore": "ffeeddccbbaa99887766554433221100",
        "snapshot": "0123456789abcdef0123456789abcdef", "time": "2026-11-21T05:00:00Z",
        "marks": {"channel.a.signed": 6}, "listed": true,
        "channels": {
            "a": {"ours": numbers(5), "evidence": evidence(witness),
                  "verdict": {"blocked": "witness_ahead"}},
            "b": {"ours": numbers(4), "evidence": evidence(Value::Null),
                  "verdict": {"wait": "nothing_heard"}},
            "c": {"ours": numbers(4), "evidence": evidence(Value::Null),
                  "verdict": {"clear": "witness"}},
        },
    })
}

#[test]
fn channels_are_listed_shown_and_released_and_hold_no_node_back_that_judges_itself() {
    let scene = Scene::with_node();
    let node = scene.path("node");
    fs::write(node.join("highwater-quarantine.json"), channels_latch().to_string()).unwrap();
    let listed = guard(&scene, "list", &node, &[]);
    assert_eq!(listed.code, Some(10), "{listed:?}");
    let expected = [("a", "blocked"), ("b", "waiting"), ("c", "clear")];
    assert_eq!(states(&listed.json["channels"]), expected, "{listed:?}");
    guard(&scene, "wait", &node, &["--timeout", "0"]).failed(10, "quarantined");
    let said = rest(start_node(&scene, &node, "echo it runs").stdout.as_mut().unwrap());
    assert_eq!(said, "it runs\n", "it could never judge them otherwise");

    let shown = guard(&scene, "show", &node, &["a"]).ok();
    let channel = &shown["channels"][0];
    assert_eq!(channel["ours"]["signed"], 5, "{shown}");
    assert_eq!(channel["evidence"]["witness"]["signed"], 6, "{shown}");
    assert_eq!(channel["verdict"]["blocked"], "witness_ahead", "{shown}");
    guard(&scene, "show", &node, &["d"]).failed(3, "not_found");
    let output = scene.plain_command(words("show", &node, &["a"])).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["signed 5, revoked 4", "signed 6, revoked 4", "blocked witness_ahead"] {
        assert!(text.contains(part), "{text}");
    }

    guard(&scene, "release", &node, &["a", "--reason", REASON]).ok();
    let shown = guard(&scene, "show", &node, &["a"]).ok();
    assert_eq!(shown["channels"][0]["state"], "released", "{shown}");
    assert_eq!(shown["channels"][0]["release"]["reason"], REASON, "{shown}");
    assert_eq!(shown["channels"][0]["verdict"]["blocked"], "witness_ahead", "what was found stays");
    let left = guard(&scene, "list", &node, &[]);
    assert_eq!(left.code, Some(10), "{left:?}");
    let status = ["status".as_ref(), node.as_os_str()];
    assert_eq!(scene.run(status).ok()["directories"][0]["quarantined"], 1);
    let rest = release_all(&scene, &node);
    assert_eq!(rest["held"], json!([]), "{rest}");
    guard(&scene, "list", &node, &[]).ok();
    guard(&scene, "wait", &node, &["--timeout", "0"]).ok();
}
