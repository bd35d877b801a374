//! Forget, prune and rewriting that are killed, or fail, at any of their write steps: what is visible
//! restores to its last byte, and the next prune leaves nothing behind.

use std::fs;

use highwater::env::FaultPoint;

use crate::prune::age;
use crate::scene::{Scene, Strike, counts};
use crate::tree::Tree;
use crate::{node, tree};

/// A vault with three snapshots, of which a policy keeps one, and packs that are mostly unneeded.
struct Stage {
    scene: Scene,
    states: Vec<(String, Tree)>,
}

/// Each step is struck at its first few passages.
const COUNTS_MAX: usize = 3;

const FORGET: [&str; 6] = ["forget", "--keep-last", "1", "--prune", "--max-unused", "0.1%"];

impl Stage {
    fn set() -> Stage {
        let scene = Scene::with_node();
        let mut states = Vec::new();
        for number in 0..3 {
            if number == 1 {
                node::go_on(&scene.path("node"));
            }
            fs::write(scene.path("node").join("number"), number.to_string()).unwrap();
            let snapshot = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
            let state = scene.restored(&snapshot);
            states.push((snapshot, state));
        }
        // A backup that was killed has left a pack.
        fs::write(scene.path("node").join("number"), "killed").unwrap();
        let killed = scene.run_with_fault(
            Strike::kill(FaultPoint::BackupManifest, 1),
            ["backup".as_ref(), scene.path("node").as_os_str()],
        );
        assert!(killed.killed());
        // The first is about to be deleted, the second to be forgotten.
        scene.run(["forget", &states[0].0]).ok();
        age(&scene, 49);
        tree::copy(&scene.path("vault"), &scene.path("vault.first"));
        tree::copy(&scene.path("state"), &scene.path("state.first"));
        Stage { scene, states }
    }

    /// As it was; all in it is two days old.
    fn reset(&self) {
        for name in ["vault", "state"] {
            fs::remove_dir_all(self.scene.path(name)).unwrap();
            tree::copy(&self.scene.path(&format!("{name}.first")), &self.scene.path(name));
        }
        age(&self.scene, 49);
    }

    fn assert_whole(&self, what: &str) {
        assert_eq!(self.scene.run(["check", "--read-data"]).ok()["ok"], true, "{what}");
        let listed = self.scene.snapshots();
        assert_eq!(listed.last(), Some(&self.states[2].0), "{what}: the newest stays");
        for snapshot in &listed {
            let (_, state) = self.states.iter().find(|(known, _)| known == snapshot).unwrap();
            tree::assert_equal(&self.scene.restored(snapshot), state, what);
        }
    }

    /// Once nobody disturbs it any more, only what is needed is left.
    fn assert_settles(&self, what: &str) {
        self.scene.run(FORGET).ok();
        self.assert_whole(what);
        for _ in 0..2 {
            age(&self.scene, 49);
            self.scene.run(FORGET).ok();
        }
        self.assert_whole(what);
        self.scene.assert_vault_clean(what);
        assert_eq!(self.scene.snapshots(), [self.states[2].0.clone()], "{what}");
        assert_eq!(tree::names(&self.scene.path("vault/trash")), [""; 0], "{what}");
    }
}

fn of_a_prune() -> Vec<FaultPoint> {
    let ours = |point: &FaultPoint| {
        let step = point.name().split('.').next().unwrap();
        // An undo is no part of it.
        ["forget", "prune", "rewrite", "local"].contains(&step) && *point != FaultPoint::ForgetUndo
    };
    FaultPoint::ALL.iter().copied().filter(ours).collect()
}

#[test]
fn a_prune_killed_anywhere_leaves_whole_snapshots_and_the_next_one_clears_up() {
    let stage = Stage::set();
    for point in of_a_prune() {
        let mut kills = 0;
        for count in counts().take(COUNTS_MAX) {
            let what = format!("killed at {} ({count})", point.name());
            stage.reset();
            let ran = stage.scene.run_with_fault(Strike::kill(point, count), FORGET);
            if !ran.killed() {
                ran.ok();
                break;
            }
            kills += 1;
            stage.assert_whole(&what);
            stage.assert_settles(&what);
        }
        assert!(kills > 0, "no prune passes {}", point.name());
    }
}

#[test]
fn a_prune_that_fails_anywhere_leaves_whole_snapshots() {
    let stage = Stage::set();
    for point in of_a_prune() {
        for (count, action) in [(1, "error"), (2, "enospc")] {
            let what = format!("{action} at {} ({count})", point.name());
            stage.reset();
            let ran = stage.scene.run_with_fault(Strike { point, count, action }, FORGET);
            if ran.code == Some(0) {
                assert!(count > 1, "no prune passes {}", point.name());
                continue;
            }
            ran.failed(8, "unavailable");
            stage.assert_whole(&what);
            stage.assert_settles(&what);
        }
    }
}
