//! `prune` by the program: what goes, what stays, and what is freed.

use crate::forget::with_snapshots;
use crate::scene::Scene;
use crate::tree;

/// Makes every object of the vault so many hours older, for the store's clock.
pub(crate) fn age(scene: &Scene, hours: u64) {
    for path in tree::files(&scene.path("vault")) {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - std::time::Duration::from_secs(hours * 3600)).unwrap();
    }
}

#[test]
fn what_was_forgotten_two_days_ago_is_deleted_and_its_packs_with_it() {
    let (scene, made) = with_snapshots(4);
    let newest = scene.restored(&made[3]);
    scene.run(["forget", "--keep-last", "1"]).ok();
    age(&scene, 47);
    assert_eq!(scene.run(["prune", "--max-unused", "100%"]).ok()["manifests"], 0);
    age(&scene, 1);
    let before = tree::files(&scene.path("vault"));
    let dry = scene.run(["prune", "--dry-run", "--max-unused", "100%"]).ok();
    assert_eq!(tree::files(&scene.path("vault")), before);
    assert_eq!(dry["plan"]["manifests"].as_array().unwrap().len(), 3);
    let pruned = scene.run(["prune", "--max-unused", "100%"]).ok();
    assert_eq!(pruned["manifests"], 3);
    assert!(pruned["packs"].as_u64().unwrap() > 0 && pruned["bytes"] == dry["plan"]["bytes"]);
    assert_eq!(scene.snapshots(), [made[3].clone()]);
    tree::assert_equal(&scene.restored(&made[3]), &newest, "what stays");
    scene.assert_vault_clean("pruned");
    assert_eq!(tree::names(&scene.path("vault/trash")), [""; 0]);
    let error = scene.run(["show", &made[0]]).failed(3, "not_found");
    assert!(!error["message"].as_str().unwrap().contains("forgotten"), "{error}");
    let again = scene.run(["prune", "--max-unused", "100%"]).ok();
    assert_eq!((&again["manifests"], &again["packs"]), (&0.into(), &0.into()));
}

/// The pack of the first snapshot keeps what did not change; most of it is unneeded.
#[test]
fn packs_that_are_mostly_unneeded_are_rewritten_and_the_old_ones_go_two_days_later() {
    let (scene, _) = with_snapshots(3);
    std::fs::write(scene.path("node").join("number"), "last").unwrap();
    let newest = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
    let expected = scene.restored(&newest);
    scene.run(["forget", "--keep-last", "1"]).ok();
    age(&scene, 48);
    let dry = scene.run(["prune", "--dry-run"]).ok();
    assert!(dry["plan"]["rewrite"]["bytes_unused"].as_u64().is_some(), "{dry}");
    let pruned = scene.run(["prune", "--max-unused", "0.1%"]).ok();
    assert!(pruned["rewritten"]["packs"].as_u64().unwrap() > 0, "{pruned}");
    assert_eq!(pruned["rewritten"]["manifests"], 1);
    tree::assert_equal(&scene.restored(&newest), &expected, "rewritten");
    assert_eq!(scene.run(["check", "--read-data", "--restore-test"]).ok()["ok"], true);
    age(&scene, 48);
    let settled = scene.run(["prune", "--max-unused", "0.1%"]).ok();
    assert_eq!(settled["plan"]["manifests"][0]["why"], "replaced");
    assert_eq!(settled["rewritten"]["packs"], 0);
    scene.assert_vault_clean("settled");
    tree::assert_equal(&scene.restored(&newest), &expected, "settled");
    assert_eq!(scene.backup().ok()["parent"], newest.as_str());
}

#[test]
fn a_check_reads_a_share_and_says_how_much_was_read_in_all() {
    let (scene, made) = with_snapshots(3);
    scene.run(["check", "--subset", "5%"]).failed(2, "input");
    scene.run(["check", "--read-data", "--subset", "1/7"]).failed(2, "input");
    let mut bytes = 0;
    for _ in 0..20 {
        let report = scene.run(["check", "--read-data", "--subset", "5%"]).ok();
        assert_eq!(report["snapshots"], 3);
        assert!(report["coverage"]["bytes_read"].as_u64().unwrap() >= bytes, "{report}");
        bytes = report["coverage"]["bytes_read"].as_u64().unwrap();
    }
    let report = scene.run(["check", "--read-data", "--subset", "5%"]).ok();
    assert_eq!(report["coverage"]["bytes_read"], report["coverage"]["bytes"]);
    assert!(report["coverage"]["since"].as_str().is_some());
    let test = ["check", &made[0], "--read-data", "--subset", "50%", "--restore-test"];
    assert_eq!(scene.run(test).ok()["restore_tests"], 1);
    assert_eq!(scene.run(["check"]).ok()["coverage"], serde_json::Value::Null);
    let said = scene.plain_command(["check", "--read-data", "--subset", "1%"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("in packs were read since"), "{said}");
}
