//! `forget` by the program: policies, names, the way back, and what a forgotten snapshot is to the
//! other commands.

use crate::scene::Scene;
use crate::{node, tree};

/// A scene with so many snapshots, oldest first; the node changes between them.
pub(crate) fn with_snapshots(count: usize) -> (Scene, Vec<String>) {
    let scene = Scene::with_node();
    let snapshots = (0..count)
        .map(|number| {
            if number == 1 {
                node::go_on(&scene.path("node"));
            }
            std::fs::write(scene.path("node").join("number"), number.to_string()).unwrap();
            scene.backup().ok()["snapshot"].as_str().unwrap().to_owned()
        })
        .collect();
    (scene, snapshots)
}

#[test]
fn a_policy_without_a_rule_and_rules_beside_names_are_wrong_calls() {
    let (scene, made) = with_snapshots(1);
    scene.run(["forget"]).failed(2, "input");
    scene.run(["forget", "--keep-last", "1", &made[0]]).failed(2, "input");
    scene.run(["forget", "--undo", &made[0], "--keep-last", "1"]).failed(2, "input");
    scene.run(["forget", "--keep-last", "1", "--grace", "1h"]).failed(2, "input");
    scene.run(["forget", "--keep-last", "1", "--max-unused", "5%"]).failed(2, "input");
    scene.run(["forget", "--keep-tag", ""]).failed(2, "input");
    scene.run(["forget", "0000000000"]).failed(3, "not_found");
    scene.run(["forget", "--keep-last", "1", "--node", "other"]).failed(3, "not_found");
    assert_eq!(scene.snapshots(), made);
}

#[test]
fn a_dry_run_says_all_and_changes_nothing() {
    let (scene, made) = with_snapshots(3);
    let before = tree::files(&scene.path("vault"));
    let plan = scene.run(["forget", "--keep-last", "1", "--dry-run", "--prune"]).ok();
    assert_eq!(tree::files(&scene.path("vault")), before);
    assert_eq!((&plan["dry_run"], &plan["forgotten"]), (&true.into(), &0.into()));
    let node = &plan["nodes"][0];
    assert_eq!(node["keep"][0]["snapshot"], made[2].as_str());
    assert_eq!(node["keep"][0]["reasons"], serde_json::json!(["newest", "latest", "last"]));
    let goes: Vec<&str> = node["forget"]
        .as_array()
        .unwrap()
        .iter()
        .map(|goes| goes["snapshot"].as_str().unwrap())
        .collect();
    assert_eq!(goes, [made[1].as_str(), made[0].as_str()]);
    assert_eq!(plan["prune"]["plan"]["packs"], 0);
    let said = scene.plain_command(["forget", "--keep-last", "1", "--dry-run"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("FORGET") && said.contains("nothing was changed"), "{said}");
}

#[test]
fn a_forgotten_snapshot_is_seen_by_nobody_and_comes_back() {
    let (scene, made) = with_snapshots(3);
    let first = scene.restored(&made[0]);
    let document = scene.run(["forget", "--keep-last", "1"]).ok();
    assert_eq!(document["forgotten"], 2);
    assert!(document["until"].as_str().is_some_and(|until| until.ends_with('Z')), "{document}");
    assert_eq!(scene.snapshots(), [made[2].clone()]);

    let error = scene.restore(&made[0], &scene.path("away")).failed(3, "not_found");
    assert!(error["message"].as_str().unwrap().contains("was forgotten"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("--undo"), "{error}");
    assert_eq!(scene.run(["check", "--read-data"]).ok()["snapshots"], 1);
    scene.run(["forget", &made[0]]).failed(3, "not_found");

    // Nothing of it goes before its time.
    let pruned = scene.run(["prune"]).ok();
    assert_eq!((&pruned["manifests"], &pruned["packs"]), (&0.into(), &0.into()));
    assert_eq!(pruned["plan"]["waiting"].as_array().unwrap().len(), 2);

    scene.run(["forget", "--undo", &made[0][..8]]).ok();
    assert_eq!(scene.snapshots(), [made[0].clone(), made[2].clone()]);
    tree::assert_equal(&scene.restored(&made[0]), &first, "brought back");
    scene.run(["forget", "--undo", &made[0]]).failed(3, "not_found");
    scene.run(["forget", "--undo", &made[1]]).ok();
    assert_eq!(scene.snapshots(), made);
    assert_eq!(tree::names(&scene.path("vault/trash")), [""; 0]);
}

/// The newest snapshot is forgotten by name: the one before is the newest then, for `latest`, for
/// `status` and for the next backup, which is not fenced by it.
#[test]
fn the_newest_goes_only_by_name_and_the_one_before_takes_its_place() {
    let (scene, made) = with_snapshots(3);
    let warnings = scene.run(["forget", &made[2]]).ok()["warnings"].to_string();
    assert!(warnings.contains("newest"), "{warnings}");
    assert_eq!(scene.run(["status"]).ok()["nodes"][0]["newest"], made[1].as_str());
    assert_eq!(scene.run(["show", "latest"]).ok()["snapshot"], made[1].as_str());
    scene.run(["prune", "--grace", "0", "--max-unused", "100%"]).ok();
    assert_eq!(scene.snapshots(), made[..2]);
    assert_eq!(scene.run(["status"]).ok()["warnings"].to_string().matches("missing").count(), 0);
    assert_eq!(scene.run(["show", "latest"]).ok()["snapshot"], made[1].as_str());
    let next = scene.backup().ok();
    assert_eq!((&next["parent"], &next["seq"]), (&made[1].as_str().into(), &4.into()));
    scene.run(["forget", &made[0], &made[1], next["snapshot"].as_str().unwrap()]).ok();
    assert_eq!(scene.snapshots(), [""; 0]);
    scene.run(["prune", "--grace", "0", "--max-unused", "100%"]).ok();
    assert_eq!(scene.backup().ok()["seq"], 5);
    scene.assert_vault_clean("after all was forgotten");
}
