//! An import, or an export, that is killed or fails at any of its write steps: no half of a snapshot is
//! ever seen, and the next import leaves nothing of it behind.

use std::fs;

use highwater::env::FaultPoint;

use crate::scene::{Ran, Scene, Strike, counts};
use crate::tree::Tree;
use crate::{node, tree};

/// A vault that holds the first of two snapshots, another one that holds both, and two archives.
struct Stage {
    /// Its `vault` is the copy, which imports go into.
    scene: Scene,
    snapshots: [String; 2],
    trees: [Tree; 2],
}

impl Stage {
    fn set() -> Stage {
        let scene = Scene::with_node();
        let first = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
        node::go_on(&scene.path("node"));
        let second = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
        let trees = [scene.restored(&first), scene.restored(&second)];
        let out = |name: &str| scene.path(name).to_str().unwrap().to_owned();
        scene.run(["export", &first, "--output", &out("1.hwa")]).ok();
        scene.run(["export", &second, "--since", &first, "--output", &out("2.hwa")]).ok();
        let stage = Stage { scene, snapshots: [first, second], trees };
        stage.clear();
        stage.import(&["1.hwa"]).ok();
        for name in ["vault", "state"] {
            let kept = stage.scene.path(&format!("{name}.first"));
            tree::copy(&stage.scene.path(name), &kept);
        }
        stage
    }

    fn clear(&self) {
        for name in ["vault", "state"] {
            let _ = fs::remove_dir_all(self.scene.path(name));
        }
    }

    /// As it was before the second import.
    fn reset(&self) {
        self.clear();
        for name in ["vault", "state"] {
            tree::copy(&self.scene.path(&format!("{name}.first")), &self.scene.path(name));
        }
    }

    fn words(&self, archives: &[&str]) -> Vec<String> {
        let path = |name: &&str| self.scene.path(name).to_str().unwrap().to_owned();
        std::iter::once("import".to_owned()).chain(archives.iter().map(path)).collect()
    }

    fn import(&self, archives: &[&str]) -> Ran {
        self.scene.run(self.words(archives))
    }

    /// What is visible is whole; tells how many snapshots are.
    fn assert_whole(&self, what: &str) -> usize {
        assert_eq!(self.scene.run(["check", "--read-data"]).ok()["ok"], true, "{what}");
        let listed = self.scene.snapshots();
        assert_eq!(listed, self.snapshots[..listed.len()], "{what}");
        for (snapshot, expected) in listed.iter().zip(&self.trees) {
            tree::assert_equal(&self.scene.restored(snapshot), expected, what);
        }
        listed.len()
    }
}

fn of_an_import() -> Vec<FaultPoint> {
    let ours = |point: &FaultPoint| {
        let name = point.name();
        name.starts_with("import.") || name.starts_with("local.")
    };
    FaultPoint::ALL.iter().copied().filter(ours).collect()
}

/// Whether the manifest is stored when a fault point is reached.
fn is_after_the_manifest(point: FaultPoint) -> Option<bool> {
    match point {
        FaultPoint::ImportNodeRecord | FaultPoint::ImportIntentDelete => Some(true),
        // Every object passes these.
        FaultPoint::LocalPutSync | FaultPoint::LocalPutLink => None,
        _ => Some(false),
    }
}

#[test]
fn an_import_killed_anywhere_leaves_whole_snapshots_and_the_next_one_clears_up() {
    let stage = Stage::set();
    for point in of_an_import() {
        let mut kills = 0;
        for count in counts() {
            let what = format!("killed at {} ({count})", point.name());
            stage.reset();
            let ran =
                stage.scene.run_with_fault(Strike::kill(point, count), stage.words(&["2.hwa"]));
            if !ran.killed() {
                ran.ok();
                break;
            }
            kills += 1;
            let visible = stage.assert_whole(&what) == 2;
            if let Some(expected) = is_after_the_manifest(point) {
                assert_eq!(visible, expected, "{what}");
            }
            let again = stage.import(&["2.hwa"]).ok();
            assert_eq!(again["imported"], u64::from(!visible), "{what}");
            stage.scene.assert_vault_clean(&what);
            assert_eq!(stage.assert_whole(&what), 2, "{what}");
        }
        let passed = kills > 0 || point == FaultPoint::ImportVault;
        assert!(passed, "no import passes {}", point.name());
    }
}

#[test]
fn an_import_to_where_no_vault_is_can_be_made_again_after_any_kill() {
    let stage = Stage::set();
    for point in of_an_import() {
        let mut kills = 0;
        for count in counts() {
            let what = format!("killed at {} ({count})", point.name());
            stage.clear();
            let both = stage.words(&["1.hwa", "2.hwa"]);
            let ran = stage.scene.run_with_fault(Strike::kill(point, count), &both);
            if !ran.killed() {
                ran.ok();
                break;
            }
            kills += 1;
            stage.import(&["1.hwa", "2.hwa"]).ok();
            stage.scene.assert_vault_clean(&what);
            assert_eq!(stage.assert_whole(&what), 2, "{what}");
        }
        assert!(kills > 0, "no import passes {}", point.name());
    }
}

#[test]
fn an_import_that_fails_anywhere_leaves_nothing_behind() {
    let stage = Stage::set();
    for (fresh, archives) in [(false, &["2.hwa"][..]), (true, &["1.hwa", "2.hwa"])] {
        for point in of_an_import() {
            for (count, action) in counts().flat_map(|count| [(count, "error"), (count, "enospc")])
            {
                let what = format!("{action} at {} ({count})", point.name());
                if fresh {
                    stage.clear()
                } else {
                    stage.reset()
                }
                let words = stage.words(archives);
                let ran = stage.scene.run_with_fault(Strike { point, count, action }, words);
                if ran.code == Some(0) {
                    let passed = count > 1 || (point == FaultPoint::ImportVault && !fresh);
                    assert!(passed, "no import passes {}", point.name());
                    break;
                }
                ran.failed(8, "unavailable");
                if !stage.scene.path("vault").exists() {
                    assert!(fresh, "{what}");
                    continue;
                }
                let visible = stage.assert_whole(&what);
                assert!(visible > 0, "{what}: an empty vault was left");
                stage.scene.assert_vault_clean(&what);
            }
        }
    }
}

#[test]
fn an_export_killed_or_failing_anywhere_leaves_no_archive() {
    let stage = Stage::set();
    let output = stage.scene.path("out");
    let archive = output.join("a.hwa");
    let words = |force: bool| {
        let mut words = vec!["export".to_owned(), "latest".to_owned(), "--output".to_owned()];
        words.push(archive.to_str().unwrap().to_owned());
        words.extend(force.then(|| "--force".to_owned()));
        words
    };
    for point in FaultPoint::ALL.iter().filter(|point| point.name().starts_with("export.")) {
        for (count, action) in [(1, "kill"), (1, "error"), (2, "enospc"), (10, "kill")] {
            for old in [None, Some("what was there")] {
                let what = format!("{action} at {} ({count})", point.name());
                fs::create_dir(&output).unwrap();
                if let Some(old) = old {
                    fs::write(&archive, old).unwrap();
                }
                let ran = stage
                    .scene
                    .run_with_fault(Strike { point: *point, count, action }, words(old.is_some()));
                if ran.code == Some(0) {
                    assert!(count > 1, "no export passes {}", point.name());
                } else {
                    assert_eq!(fs::read_to_string(&archive).ok().as_deref(), old, "{what}");
                    if action != "kill" {
                        ran.failed(8, "unavailable");
                        assert_eq!(
                            tree::names(&output).len(),
                            usize::from(old.is_some()),
                            "{what}"
                        );
                    }
                    stage.scene.run(words(true)).ok();
                    assert_eq!(tree::names(&output), ["a.hwa"], "{what}");
                }
                fs::remove_dir_all(&output).unwrap();
            }
        }
    }
}
