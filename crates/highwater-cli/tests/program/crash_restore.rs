//! A restore or rollback that is killed at any of its write steps: the node directory is the old
//! one, the new one, or can't be opened until `recover` has made it one of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use highwater::env::FaultPoint;

use crate::node::{self, Age};
use crate::scene::{Mounted, Ran, Scene, Strike, counts};
use crate::tree::{self, Tree};

/// A vault with a snapshot of the old state and one of the new state.
struct Stage {
    scene: Scene,
    first: String,
    old: Tree,
    new: Tree,
}

/// What stands in the node directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Nothing,
    Old,
    New,
}

impl Stage {
    fn set() -> Stage {
        let scene = Scene::with_node();
        let first = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
        let old = scene.restored(&first);
        node::go_on(&scene.path("node"));
        scene.backup().ok();
        let new = scene.restored("latest");
        assert_ne!(old, new);
        Stage { scene, first, old, new }
    }

    /// What stands at `target`, which must be whole.
    fn stands(&self, target: &Path, what: &str) -> Stands {
        let Some(found) = tree::read(target) else { return Stands::Nothing };
        if found == self.old {
            return Stands::Old;
        }
        tree::assert_equal(&found, &self.new, what);
        Stands::New
    }

    fn strike_restore(&self, target: &Path, point: FaultPoint, count: u64) -> Ran {
        let args = ["restore".as_ref(), "latest".as_ref(), target.as_os_str(), "--force".as_ref()];
        self.scene.run_with_fault(Strike::kill(point, count), args)
    }

    fn on_target(&self, command: &str, target: &Path) -> Ran {
        self.scene.run([command.as_ref(), target.as_os_str()])
    }

    /// `recover` ends well and tells what then stands at the target, which it returns; of the work
    /// directory only what is kept is left.
    fn recover(
        &self,
        target: &Path,
        seen: &Path,
        work: &Path,
        before: Stands,
        what: &str,
    ) -> Stands {
        let nothing = || !seen.exists() && !work.exists();
        if nothing() {
            self.on_target("recover", target).failed(3, "not_found");
            return self.stands(seen, what);
        }
        let answer = self.on_target("recover", target).ok();
        let stands = self.stands(seen, what);
        match answer["outcome"].as_str().unwrap() {
            "nothing" => {}
            // The directory from before the restore: what stood there before, be it nothing.
            "old" => assert_eq!(stands, before, "{what}: {answer}"),
            "new" => assert_eq!(stands, Stands::New, "{what}: {answer}"),
            other => panic!("{what}: `{other}`"),
        }
        assert_tidy(work, what);
        let again = self.on_target("recover", target);
        if nothing() {
            again.failed(3, "not_found");
        } else {
            assert_eq!(again.ok()["outcome"], "nothing", "{what}: again");
        }
        stands
    }
}

/// Nothing is left in a work directory but what is kept and its record.
#[track_caller]
fn assert_tidy(work: &Path, what: &str) {
    let mut names = tree::names(work);
    // What earlier restores of the same test have put aside.
    names.retain(|name| name == "kept.json" || !name.starts_with("kept."));
    if work.exists() {
        assert_eq!(names, ["kept", "kept.json", "lock"], "{what}: work directory");
    }
}

fn beside(target: &Path) -> PathBuf {
    let name = format!(".highwater-{}", target.file_name().unwrap().to_str().unwrap());
    target.with_file_name(name)
}

fn of_a_restore() -> impl Iterator<Item = FaultPoint> {
    FaultPoint::ALL.iter().copied().filter(|point| point.name().starts_with("restore."))
}

/// Passed only where the target is a mount point.
const ENTRIES: [FaultPoint; 3] =
    [FaultPoint::RestoreWithhold, FaultPoint::RestoreEntry, FaultPoint::RestoreReveal];

/// Kills restores at every point; `before` is what stands at the target when they begin.
fn kill_restores(stage: &Stage, before: Stands) {
    let target = stage.scene.path("target");
    let model = stage.scene.path("model");
    stage.scene.restore(&stage.first, &model).ok();
    let mut passed = BTreeSet::new();
    for point in of_a_restore() {
        for count in counts() {
            let what = format!("restore over {before:?} killed at {} ({count})", point.name());
            for path in [&target, &beside(&target)] {
                if path.exists() {
                    fs::remove_dir_all(path).unwrap();
                }
            }
            if before == Stands::Old {
                tree::copy(&model, &target);
            }
            let ran = stage.strike_restore(&target, point, count);
            if !ran.killed() {
                ran.ok();
                break;
            }
            passed.insert(point.name());
            let stands = stage.stands(&target, &what);
            assert!(stands == before || stands == Stands::New, "{what}: {stands:?}");
            let after = stage.recover(&target, &target, &beside(&target), before, &what);
            assert!(after == before || after == Stands::New, "{what}: {after:?}");
            assert!(stands == before || after == Stands::New, "{what}: back again");
            let kept = stage.stands(&beside(&target).join("kept"), &what);
            let replaced = before == Stands::Old && after == Stands::New;
            assert_eq!(kept, if replaced { Stands::Old } else { Stands::Nothing }, "{what}: kept");
            stage.scene.restore("latest", &target).ok();
            assert_eq!(stage.stands(&target, &what), Stands::New);
            assert_eq!(node::start(&target), Ok(Age::New));
        }
    }
    let expected: BTreeSet<&str> =
        of_a_restore().filter(|point| !ENTRIES.contains(point)).map(FaultPoint::name).collect();
    assert_eq!(passed, expected, "points at which a restore was killed");
}

#[test]
fn a_restore_to_nothing_killed_anywhere_ends_with_nothing_or_the_new_node() {
    kill_restores(&Stage::set(), Stands::Nothing);
}

#[test]
fn a_restore_over_a_node_killed_anywhere_ends_with_the_old_or_the_new_node() {
    kill_restores(&Stage::set(), Stands::Old);
}

#[test]
fn a_rollback_killed_anywhere_ends_with_the_old_or_the_new_node() {
    let stage = Stage::set();
    let target = stage.scene.path("target");
    let mut passed = BTreeSet::new();
    for point in of_a_restore() {
        for count in counts() {
            let what = format!("rollback killed at {} ({count})", point.name());
            for path in [&target, &beside(&target)] {
                if path.exists() {
                    fs::remove_dir_all(path).unwrap();
                }
            }
            stage.scene.restore(&stage.first, &target).ok();
            stage.scene.restore("latest", &target).ok();
            let args = ["rollback".as_ref(), target.as_os_str()];
            let ran = stage.scene.run_with_fault(Strike::kill(point, count), args);
            if !ran.killed() {
                assert_eq!(ran.ok()["outcome"], "old");
                assert_eq!(stage.stands(&target, &what), Stands::Old);
                break;
            }
            passed.insert(point.name());
            let stands = stage.stands(&target, &what);
            let answer = stage.on_target("recover", &target).ok();
            let after = stage.stands(&target, &what);
            let told = match answer["outcome"].as_str().unwrap() {
                "old" => Stands::Old,
                "new" => Stands::New,
                _ => after,
            };
            assert_eq!(after, told, "{what}: {answer}");
            assert!(stands == Stands::New || after == Stands::Old, "{what}: back again");
            assert_tidy(&beside(&target), &what);
            let (other, word, flags) = match after {
                Stands::Old => (Stands::New, "new", &["--redo"][..]),
                _ => (Stands::Old, "old", &[][..]),
            };
            let kept = stage.stands(&beside(&target).join("kept"), &what);
            assert_eq!(kept, other, "{what}: kept");
            let mut words = vec!["rollback".as_ref(), target.as_os_str()];
            words.extend(flags.iter().map(|flag: &&str| std::ffi::OsStr::new(*flag)));
            assert_eq!(stage.scene.run(words).ok()["outcome"], word, "{what}");
            assert_eq!(stage.stands(&target, &what), other, "{what}: rolled back");
        }
    }
    let expected = ["restore.done", "restore.exchange", "restore.keep"];
    assert_eq!(passed, BTreeSet::from(expected), "points at which a rollback was killed");
}

#[test]
fn a_restore_that_fails_is_undone_or_says_what_finishes_it() {
    let stage = Stage::set();
    let target = stage.scene.path("target");
    stage.scene.restore(&stage.first, &target).ok();
    for point in of_a_restore().filter(|point| !ENTRIES.contains(point)) {
        for (count, action) in counts().flat_map(|count| [(count, "error"), (count, "enospc")]) {
            let what = format!("{action} at {} ({count})", point.name());
            let fault = Strike { point, count, action };
            let args =
                ["restore".as_ref(), "latest".as_ref(), target.as_os_str(), "--force".as_ref()];
            let ran = stage.scene.run_with_fault(fault, args);
            if ran.code == Some(0) {
                assert!(count > 1, "no restore passes {}", point.name());
                stage.scene.restore(&stage.first, &target).ok();
                break;
            }
            let error = ran.failed(8, "unavailable");
            let stands = stage.stands(&target, &what);
            assert!(
                beside(&target).join("journal.json").exists() == says_recover(&error),
                "{what}"
            );
            if !says_recover(&error) {
                assert_eq!(stands, Stands::Old, "{what}");
                assert_tidy(&beside(&target), &what);
                continue;
            }
            let after = stage.recover(&target, &target, &beside(&target), Stands::Old, &what);
            assert!(stands == Stands::Old || after == Stands::New, "{what}: back again");
            if after == Stands::New {
                stage.scene.restore(&stage.first, &target).ok();
            }
        }
    }
}

fn says_recover(error: &serde_json::Value) -> bool {
    error["hint"].as_str().is_some_and(|hint| hint.contains("highwater recover"))
}

/// Both databases, opened as a node does that restarts at this moment, are of `allowed` states or
/// can't be opened; and not of two.
fn assert_no_mixture(scene: &Scene, seen: &Path, what: &str) -> Result<Age, String> {
    let copy = scene.path("copy-for-a-node");
    tree::copy(seen, &copy);
    let started = node::start(&copy);
    fs::remove_dir_all(&copy).unwrap();
    if let Ok(age) = started {
        assert!([Age::Old, Age::New].contains(&age), "{what}");
    }
    started
}

/// Kills `command` at every point inside a mount point that holds `before`.
fn kill_in_a_mount(command: &str, before: Stands) {
    let mut stage = Stage::set();
    let mut passed = BTreeSet::new();
    let mut refused = 0;
    for point in of_a_restore() {
        // Each entry that changes places is a chance for a mixture.
        let all = if ENTRIES.contains(&point) { 1..1000 } else { 0..0 };
        for count in all.chain(counts()) {
            let what = format!("{command} in a mount point killed at {} ({count})", point.name());
            let volume = stage.scene.path("volume");
            fs::create_dir_all(&volume).unwrap();
            let Some(mounted) = Mounted::at(&volume, "64m") else { return };
            stage.scene.move_into(&mounted);
            let seen = stage.scene.seen("volume");
            let work = seen.join(".highwater/restore");
            if before != Stands::Nothing {
                stage.scene.restore(&stage.first, &volume).ok();
            }
            let ran = if command == "rollback" {
                stage.scene.restore("latest", &volume).ok();
                let args = ["rollback".as_ref(), volume.as_os_str()];
                stage.scene.run_with_fault(Strike::kill(point, count), args)
            } else {
                stage.strike_restore(&volume, point, count)
            };
            if !ran.killed() {
                ran.ok();
                break;
            }
            passed.insert(point.name());
            if before != Stands::Nothing {
                refused += usize::from(assert_no_mixture(&stage.scene, &seen, &what).is_err());
            }
            let answer = stage.on_target("recover", &volume).ok();
            let found = tree::read(&seen).unwrap();
            let after = if found.len() == 1 { Stands::Nothing } else { stage.stands(&seen, &what) };
            let (from, to) = match command {
                "rollback" => (Stands::New, Stands::Old),
                _ => (before, Stands::New),
            };
            assert!([from, to].contains(&after), "{what}: {after:?}");
            match answer["outcome"].as_str().unwrap() {
                "old" => assert_ne!(after, Stands::New, "{what}"),
                "new" => assert_eq!(after, Stands::New, "{what}"),
                _ => {}
            }
            assert!(after == to || !ENTRIES.contains(&point), "{what}: only forward");
            assert_tidy(&work, &what);
            stage.scene.restore("latest", &volume).ok();
            assert_eq!(stage.stands(&seen, &what), Stands::New);
            assert_eq!(assert_no_mixture(&stage.scene, &seen, &what), Ok(Age::New));
        }
    }
    assert!(ENTRIES.iter().all(|point| passed.contains(point.name())), "{passed:?}");
    assert!(before == Stands::Nothing || refused > 0, "no node was ever kept from starting");
}

#[test]
fn a_restore_into_a_mount_point_killed_anywhere_never_shows_a_mixture() {
    kill_in_a_mount("restore", Stands::Old);
}

#[test]
fn a_restore_into_an_empty_mount_point_killed_anywhere_ends_empty_or_new() {
    kill_in_a_mount("restore", Stands::Nothing);
}

#[test]
fn a_rollback_in_a_mount_point_killed_anywhere_never_shows_a_mixture() {
    kill_in_a_mount("rollback", Stands::Old);
}
