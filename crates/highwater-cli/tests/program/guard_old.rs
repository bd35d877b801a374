//! What a quarantine knows of the age of a state, what it withholds where there is no database, and what
//! stays on record after the release.

use std::fs;

use serde_json::json;

use crate::guard::{REASON, backup, guard, release_all, withheld};
use crate::node;
use crate::scene::Scene;

/// A guarded node with two snapshots; the ids, the older one first.
fn two_snapshots(scene: &Scene) -> Vec<String> {
    backup(scene, &["--guarded", "--mark", "height=100"]).ok();
    node::go_on(&scene.path("node"));
    backup(scene, &["--mark", "height=200"]).ok();
    scene.snapshots()
}

#[test]
fn a_state_that_is_known_to_be_old_is_released_by_an_explicit_word_alone() {
    let scene = Scene::with_node();
    let snapshots = two_snapshots(&scene);
    let target = scene.path("target");
    scene.restore(&snapshots[0], &target).ok();
    let listed = guard(&scene, "list", &target, &[]);
    let reason = listed.json["channels"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("this state is old") && reason.contains(&snapshots[1]), "{reason}");
    assert!(reason.contains("100 below the highest seen, 200"), "{reason}");
    let shown = guard(&scene, "show", &target, &[]).ok();
    assert_eq!(shown["old"]["newer"], snapshots[1].as_str(), "{shown}");

    let refused = guard(&scene, "release", &target, &["--all", "--reason", REASON]);
    let error = refused.failed(10, "quarantined");
    assert!(error["message"].as_str().unwrap().contains(&snapshots[1]), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("--although-old"), "{error}");
    let one = guard(&scene, "release", &target, &[node::STORE, "--reason", REASON]);
    one.failed(10, "quarantined");
    assert_eq!(guard(&scene, "list", &target, &[]).code, Some(10));

    let words = ["--all", "--reason", REASON, "--although-old"];
    guard(&scene, "release", &target, &words).ok();
    guard(&scene, "list", &target, &[]).ok();
    // It says so to whoever asks later.
    let shown = guard(&scene, "show", &target, &[]).ok();
    assert_eq!(shown["last"]["old"]["newer"], snapshots[1].as_str(), "{shown}");

    // The newest one is not known to be old.
    let newest = scene.path("newest");
    scene.restore("latest", &newest).ok();
    release_all(&scene, &newest);
}

#[test]
fn a_release_is_shown_afterwards() {
    let (scene, target) = withheld();
    let shown = guard(&scene, "show", &scene.path("node"), &[]).ok();
    assert_eq!(shown, json!({"channels": [], "node": null, "last": null}));
    release_all(&scene, &target);
    let shown = guard(&scene, "show", &target, &[]).ok();
    let released = shown["last"]["released"].as_array().unwrap();
    let names: Vec<_> = released.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(names, [node::LEDGER, node::STORE], "{shown}");
    assert!(released.iter().all(|one| one["reason"] == REASON), "{shown}");
    assert!(released[0]["by"].as_str().unwrap().contains('@'), "{shown}");
}

#[test]
fn the_plain_files_of_a_node_without_databases_are_withheld() {
    let scene = Scene::new();
    let dir = scene.path("node");
    fs::create_dir_all(dir.join("config")).unwrap();
    fs::create_dir_all(dir.join("data")).unwrap();
    fs::write(dir.join("config/key.json"), "key").unwrap();
    fs::write(dir.join("data/state.json"), r#"{"height": 100}"#).unwrap();
    fs::write(dir.join("top.json"), "top").unwrap();
    std::os::unix::fs::symlink("data/state.json", dir.join("link")).unwrap();
    backup(&scene, &["--guarded"]).ok();
    let before = crate::tree::read(&dir).unwrap();
    let target = scene.path("target");
    let report = scene.restore("latest", &target).ok();
    assert_eq!(report["quarantined"], 1, "{report}");
    assert_eq!(report["warnings"], json!([]), "{report}");
    for file in ["config/key.json", "data/state.json", "top.json", "link"] {
        assert!(fs::read(target.join(file)).is_err(), "{file} can be read");
    }
    let listed = guard(&scene, "list", &target, &[]);
    assert_eq!(listed.code, Some(10), "{listed:?}");
    assert_eq!(listed.json["channels"][0]["id"], "files", "{listed:?}");
    scene.run(["backup".as_ref(), target.as_os_str()]).failed(10, "quarantined");
    // What a failing start of the node writes meanwhile does not get in the way.
    fs::write(target.join("log"), "can't start").unwrap();
    release_all(&scene, &target);
    fs::remove_file(target.join("log")).unwrap();
    crate::tree::assert_equal(&crate::tree::read(&target).unwrap(), &before, "released");
    // The directory from before comes back withheld as well, since the other one has run.
    scene.restore("latest", &target).ok();
    release_all(&scene, &target);
    scene.run(["rollback".as_ref(), target.as_os_str()]).ok();
    assert!(fs::read(target.join("data/state.json")).is_err());
    release_all(&scene, &target);
    assert!(fs::read(target.join("data/state.json")).is_ok());
}
