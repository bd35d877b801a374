//! A backup that is killed, or fails, at any of its write steps: no half of a snapshot is ever seen,
//! and the next backup leaves nothing of it behind.

use std::fs;

use highwater::env::FaultPoint;

use crate::scene::{Scene, Strike, counts};
use crate::tree::Tree;
use crate::{node, tree};

/// A node in its new state, and a vault with a snapshot of its old one.
struct Stage {
    scene: Scene,
    first: String,
    old: Tree,
    new: Tree,
    node: Tree,
}

impl Stage {
    fn set() -> Stage {
        let scene = Scene::with_node();
        let first = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
        let old = scene.restored(&first);
        assert_eq!(started(&scene, &first), node::Age::Old);
        node::go_on(&scene.path("node"));
        tree::copy(&scene.path("vault"), &scene.path("vault.first"));
        tree::copy(&scene.path("state"), &scene.path("state.first"));
        let second = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
        let new = scene.restored(&second);
        assert_eq!(started(&scene, &second), node::Age::New);
        assert_ne!(old, new);
        let node = tree::read(&scene.path("node")).unwrap();
        Stage { scene, first, old, new, node }
    }

    /// As it was before the second backup.
    fn reset(&self) {
        for name in ["vault", "state"] {
            fs::remove_dir_all(self.scene.path(name)).unwrap();
            tree::copy(&self.scene.path(&format!("{name}.first")), &self.scene.path(name));
        }
    }

    /// Backs up with a fault.
    fn strike(&self, fault: Strike<'_>) -> crate::scene::Ran {
        self.reset();
        self.scene.run_with_fault(fault, ["backup".as_ref(), self.scene.path("node").as_os_str()])
    }

    /// What is visible is whole; tells whether the struck snapshot is.
    fn assert_whole(&self, what: &str) -> bool {
        assert_eq!(self.scene.run(["check", "--read-data"]).ok()["ok"], true, "{what}");
        let listed = self.scene.snapshots();
        assert_eq!(listed.first(), Some(&self.first), "{what}: {listed:?}");
        assert!(listed.len() <= 2, "{what}: {listed:?}");
        tree::assert_equal(&self.scene.restored(&self.first), &self.old, what);
        if let Some(second) = listed.get(1) {
            tree::assert_equal(&self.scene.restored(second), &self.new, what);
        }
        let node = tree::read(&self.scene.path("node")).unwrap();
        tree::assert_equal(&node, &self.node, &format!("{what}: the node"));
        listed.len() == 2
    }
}

fn started(scene: &Scene, snapshot: &str) -> node::Age {
    let dir = scene.path("started");
    scene.restore(snapshot, &dir).ok();
    let age = node::start(&dir).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    age
}

fn of_a_backup() -> Vec<FaultPoint> {
    let ours = |point: &FaultPoint| {
        let name = point.name();
        name.starts_with("backup.") || name.starts_with("local.")
    };
    FaultPoint::ALL.iter().copied().filter(ours).collect()
}

/// Whether the manifest is stored when a fault point is reached.
fn is_after_the_manifest(point: FaultPoint) -> Option<bool> {
    match point {
        FaultPoint::BackupSecondLook
        | FaultPoint::BackupNodeRecord
        | FaultPoint::BackupIntentDelete => Some(true),
        // Every object passes these.
        FaultPoint::LocalPutSync | FaultPoint::LocalPutLink => None,
        _ => Some(false),
    }
}

#[test]
fn a_backup_killed_anywhere_leaves_whole_snapshots_and_the_next_one_clears_up() {
    let stage = Stage::set();
    for point in of_a_backup() {
        let mut kills = 0;
        for count in counts() {
            let what = format!("killed at {} ({count})", point.name());
            let ran = stage.strike(Strike::kill(point, count));
            if !ran.killed() {
                ran.ok();
                break;
            }
            kills += 1;
            let visible = stage.assert_whole(&what);
            if let Some(expected) = is_after_the_manifest(point) {
                assert_eq!(visible, expected, "{what}");
            }
            stage.scene.backup().ok();
            stage.scene.assert_vault_clean(&what);
            let listed = stage.scene.snapshots();
            assert_eq!(listed.len(), if visible { 3 } else { 2 }, "{what}");
            let newest = listed.last().unwrap();
            tree::assert_equal(&stage.scene.restored(newest), &stage.new, &what);
        }
        assert!(kills > 0, "no backup passes {}", point.name());
    }
}

#[test]
fn a_backup_that_fails_anywhere_leaves_nothing_behind() {
    let stage = Stage::set();
    for point in of_a_backup() {
        for (count, action) in counts().flat_map(|count| [(count, "error"), (count, "enospc")]) {
            let what = format!("{action} at {} ({count})", point.name());
            let ran = stage.strike(Strike { point, count, action });
            if ran.code == Some(0) {
                assert!(count > 1, "no backup passes {}", point.name());
                break;
            }
            ran.failed(8, "unavailable");
            let visible = stage.assert_whole(&what);
            if let Some(expected) = is_after_the_manifest(point) {
                assert_eq!(visible, expected, "{what}");
            }
            stage.scene.assert_vault_clean(&what);
        }
    }
}
