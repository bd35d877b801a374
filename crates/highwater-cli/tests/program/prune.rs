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
    assert_eq!(scene.run(["prune"]).ok()["manifests"], 0);
    age(&scene, 1);
    let before = tree::files(&scene.path("vault"));
    let dry = scene.run(["prune", "--dry-run"]).ok();
    assert_eq!(tree::files(&scene.path("vault")), before);
    assert_eq!(dry["plan"]["manifests"].as_array().unwrap().len(), 3);
    let pruned = scene.run(["prune"]).ok();
    assert_eq!(pruned["manifests"], 3);
    assert!(pruned["packs"].as_u64().unwrap() > 0 && pruned["bytes"] == dry["plan"]["bytes"]);
    assert_eq!(scene.snapshots(), [made[3].clone()]);
    tree::assert_equal(&scene.restored(&made[3]), &newest, "what stays");
    scene.assert_vault_clean("pruned");
    assert_eq!(tree::names(&scene.path("vault/trash")), [""; 0]);
    let error = scene.run(["show", &made[0]]).failed(3, "not_found");
    assert!(!error["message"].as_str().unwrap().contains("forgotten"), "{error}");
    let again = scene.run(["prune"]).ok();
    assert_eq!((&again["manifests"], &again["packs"]), (&0.into(), &0.into()));
}
