//! What a machine does to a backup: full disks, missing permissions, signals, a second one at the
//! same time, a clock that jumps, another node, another owner.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use highwater::Control;
use highwater::backup::{self, BackupOptions};
use highwater::env::{Clock, FaultPoint};
use highwater::ids::Time;
use highwater::vault::Actor;
use highwater::{Env, Kind};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use crate::node::{self, Age};
use crate::scene::{Mounted, Scene, Strike, finish};
use crate::tree;

/// How often a test looks for something that another process is about to do.
const LOOKS_MAX: u64 = 50_000_000;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_backup_onto_a_full_disk_fails_and_leaves_nothing() {
    let mut scene = Scene::with_node();
    let vault = scene.path("vault");
    let Some(mounted) = Mounted::at(&vault, "512k") else { return };
    scene.move_into(&mounted);
    scene.run(["init".as_ref(), vault.as_os_str(), "--no-recovery-slot".as_ref()]).ok();
    let error = scene.backup().failed(8, "unavailable");
    assert!(error["message"].as_str().unwrap().contains("No space left"), "{error}");
    assert_eq!(scene.snapshots(), [""; 0]);
    scene.assert_vault_clean("a full disk");
    assert_eq!(tree::names(&scene.seen("vault").join("packs")).len(), 0);

    let bigger = ["mount", "-o", "remount,size=64m"].map(str::as_ref);
    mounted.run(&[&bigger[..], &[vault.as_os_str()]].concat());
    scene.backup().ok();
    scene.assert_vault_clean("a larger disk");
    assert_eq!(scene.snapshots().len(), 1);
}

#[test]
fn a_restore_onto_a_full_disk_leaves_the_target_untouched() {
    for target in ["volume", "volume/target"] {
        let mut scene = Scene::with_node();
        scene.backup().ok();
        fs::create_dir(scene.path("volume")).unwrap();
        let Some(mounted) = Mounted::at(&scene.path("volume"), "512k") else { return };
        scene.move_into(&mounted);
        let seen = scene.seen(target);
        fs::create_dir_all(&seen).unwrap();
        fs::write(seen.join("precious"), "what stood there before").unwrap();
        let before = tree::read(&scene.seen("volume")).unwrap();
        let error = scene.restore("latest", &scene.path(target)).failed(8, "unavailable");
        assert!(error["message"].as_str().unwrap().contains("No space left"), "{error}");
        let after = tree::read(&scene.seen("volume")).unwrap();
        tree::assert_equal(&after, &before, target);
        assert!(!scene.seen("volume").join(".highwater").exists(), "{target}: staging is gone");
    }
}

/// Of what restores put aside, copies of snapshots go first; what a node has written stays.
#[test]
fn copies_that_restores_put_aside_leave_half_of_the_room() {
    for (size, copies) in [("60m", 2), ("200m", 3)] {
        let mut scene = Scene::with_node();
        fs::write(scene.path("node/large"), vec![7; 8 << 20]).unwrap();
        scene.backup().ok();
        fs::create_dir(scene.path("volume")).unwrap();
        let Some(mounted) = Mounted::at(&scene.path("volume"), size) else { return };
        scene.move_into(&mounted);
        let seen = scene.seen("volume/target");
        fs::create_dir(&seen).unwrap();
        fs::write(seen.join("precious"), vec![1; 8 << 20]).unwrap();
        let target = scene.path("volume/target");
        for _ in 0..5 {
            let words: [&OsStr; 4] =
                ["restore".as_ref(), "latest".as_ref(), target.as_os_str(), "--force".as_ref()];
            scene.run(words).ok();
        }
        let list = ["rollback".as_ref(), target.as_os_str(), "--list".as_ref()];
        let list = scene.run(list).ok();
        let kept = list["kept"].as_array().unwrap();
        let written: Vec<bool> =
            kept.iter().map(|kept| kept["written"].as_bool().unwrap()).collect();
        assert_eq!(written, [vec![false; copies], vec![true]].concat(), "{size}: {list}");
    }
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    let mut scene = Scene::with_node();
    scene.become_nobody();
    let secret = scene.path("node/config.toml");
    set_mode(&secret, 0o000);
    let error = scene.backup().failed(7, "denied");
    assert_eq!(error["entry"], "config.toml", "{error}");
    assert_eq!(scene.snapshots(), [""; 0]);
    set_mode(&secret, 0o600);
    scene.backup().ok();
    scene.assert_vault_clean("a file that could not be read");

    let vault = scene.path("vault");
    let dirs: Vec<_> = tree::names(&vault)
        .iter()
        .map(|name| vault.join(name))
        .filter(|path| path.is_dir())
        .collect();
    dirs.iter().for_each(|dir| set_mode(dir, 0o500));
    set_mode(&vault, 0o500);
    scene.backup().failed(7, "denied");
    assert_eq!(scene.snapshots().len(), 1, "a vault that can't be written can be read");
    dirs.iter().for_each(|dir| set_mode(dir, 0o700));
    set_mode(&vault, 0o700);
    scene.backup().ok();
    scene.assert_vault_clean("a vault that could not be written");
}

#[test]
fn a_read_only_key_in_the_target_is_no_obstacle() {
    let mut scene = Scene::with_node();
    scene.become_nobody();
    scene.backup().ok();
    let target = scene.path("node");
    fs::remove_file(target.join("node.key")).unwrap();
    fs::write(target.join("node.key"), "another key").unwrap();
    set_mode(&target.join("node.key"), 0o400);
    let mine = target.metadata().unwrap().uid();
    std::os::unix::fs::lchown(target.join("node.key"), Some(mine), None).unwrap();
    scene.restore("latest", &target).ok();
    let key = target.join("node.key");
    assert!(fs::read_to_string(&key).unwrap().contains(node::SECRET));
    assert_eq!(key.metadata().unwrap().mode() & 0o7777, 0o400);
    assert_eq!(node::start(&target), Ok(Age::Old));
}

#[test]
fn nothing_is_open_to_others_whatever_the_umask() {
    let mut scene = Scene::with_node();
    scene.launch_by(&["sh", "-c", "umask 000; exec \"$@\"", "sh"]);
    fs::remove_dir_all(scene.path("vault")).unwrap();
    fs::remove_file(scene.path("vault.key")).unwrap();
    let vault = scene.path("vault");
    scene.run(["init".as_ref(), vault.as_os_str()]).ok();
    scene.backup().ok();
    let node_file = scene.path("node/.highwater");
    for place in [vault, scene.path("state"), scene.path("vault.key"), node_file] {
        for (path, entry) in tree::read(&place).unwrap() {
            let (tree::Entry::Dir(mode) | tree::Entry::File(mode, _)) = entry else {
                panic!("a link in {}", place.display())
            };
            let path = place.join(path);
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:04o}", path.display());
        }
    }
    for point in FaultPoint::ALL.iter().filter(|point| point.name().starts_with("restore.")) {
        let target = scene.path("target");
        let args = ["restore".as_ref(), "latest".as_ref(), target.as_os_str(), "--force".as_ref()];
        let ran = scene.run_with_fault(Strike::kill(*point, 1), args);
        let work = scene.path(".highwater-target");
        if ran.killed() && work.exists() {
            let mode = work.metadata().unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o700, "the work directory at {}", point.name());
        }
        let recovered = scene.run(["recover".as_ref(), target.as_os_str()]);
        // Killed before it had made anything, it has left nothing to recover.
        assert!(recovered.code == Some(0) || !target.exists(), "{recovered:?}");
    }
}

/// Starts a backup that takes some seconds, and holds it once its intent stands.
fn held_backup(scene: &Scene) -> Child {
    let mut command = scene.command([
        "backup".as_ref(),
        scene.path("node").as_os_str(),
        "--limit-rate".as_ref(),
        "1M".as_ref(),
    ]);
    let mut child = command.spawn().unwrap();
    let intents = scene.path("vault/intents");
    for _ in 0..LOOKS_MAX {
        if !tree::names(&intents).is_empty() {
            kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
            return child;
        }
        assert_eq!(child.try_wait().unwrap(), None, "the backup ended before its time");
        std::thread::yield_now();
    }
    panic!("the backup never put its intent");
}

#[test]
fn one_backup_of_a_node_at_a_time_and_a_signal_ends_it() {
    for (signal, word) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let scene = Scene::with_node();
        fs::write(scene.path("node/large.bin"), node::bytes("large", 0, 6 << 20)).unwrap();
        let first = held_backup(&scene);
        let error = scene.backup().failed(4, "conflict");
        assert_eq!(error["entry"], "node", "{error}");
        kill_process(Pid::from_child(&first), signal).unwrap();
        kill_process(Pid::from_child(&first), Signal::CONT).unwrap();
        finish(first).failed(130, "interrupted");
        assert_eq!(scene.snapshots(), [""; 0], "{word}");
        scene.assert_vault_clean(word);
        scene.backup().ok();
        scene.assert_vault_clean(word);
    }
}

#[test]
fn nothing_is_restored_over_a_node_that_runs() {
    let scene = Scene::with_node();
    scene.backup().ok();
    let target = scene.path("node");
    let running = Connection::open(target.join(node::LEDGER)).unwrap();
    let rows: i64 =
        running.query_row("SELECT count(*) FROM payment", (), |row| row.get(0)).unwrap();
    assert_eq!(rows, 60);
    let error = scene.restore("latest", &target).failed(4, "conflict");
    assert!(error["hint"].as_str().unwrap().contains("stop the node"), "{error}");
    assert!(!scene.path(".highwater-node").exists(), "nothing was staged");
    running
        .execute("INSERT INTO payment VALUES (60, x'00')", ())
        .expect("the node goes on undisturbed");
    drop(running);
    scene.restore("latest", &target).ok();
    assert_eq!(node::start(&target), Ok(Age::Old));
}

#[test]
fn an_empty_vault_restores_nothing() {
    let scene = Scene::with_node();
    let before = tree::read(&scene.path("node")).unwrap();
    let error = scene.restore("latest", &scene.path("node")).failed(3, "not_found");
    assert!(error["message"].as_str().unwrap().contains("nothing to restore"), "{error}");
    tree::assert_equal(&tree::read(&scene.path("node")).unwrap(), &before, "the target");
    assert!(!scene.path(".highwater-node").exists(), "nothing was staged");
    scene.restore("latest", &scene.path("missing")).failed(3, "not_found");
    assert!(!scene.path("missing").exists());
}

#[test]
fn another_node_of_the_same_name_is_a_conflict() {
    let scene = Scene::with_node();
    scene.backup().ok();
    fs::create_dir(scene.path("elsewhere")).unwrap();
    let other = scene.path("elsewhere/node");
    node::make(&other);
    node::go_on(&other);
    scene.run(["backup".as_ref(), other.as_os_str()]).failed(4, "conflict");
    scene.restore("latest", &scene.path("back")).ok();
    assert_eq!(node::start(&scene.path("back")), Ok(Age::Old));
    scene.run(["backup".as_ref(), other.as_os_str(), "--node".as_ref(), "other".as_ref()]).ok();
    let as_node = ["backup".as_ref(), other.as_os_str(), "--node".as_ref(), "node".as_ref()];
    scene.run(as_node).failed(4, "conflict");
    scene.run(["snapshots", "--node", "node"]).ok();
    let refused = scene.run(["restore".as_ref(), "latest".as_ref(), scene.path("x").as_os_str()]);
    refused.failed(2, "input");
}

/// A clock that stands in the year 2001.
struct Early;

impl Clock for Early {
    fn now(&self) -> Time {
        Time::from_nanos(1_000_000_000_000_000_000)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn pause(&self, _: Duration) {}
}

#[test]
fn the_newest_snapshot_is_the_newest_whatever_the_clock_said() {
    let scene = Scene::with_node();
    scene.backup().ok();
    node::go_on(&scene.path("node"));
    let control = Control::new(Env::system().with_clock(Early));
    let actor = Actor { state_dir: scene.path("state"), name: "a test".into() };
    let options = BackupOptions::default();
    let vault = scene.open_vault();
    let second = backup::run(&vault, &scene.path("node"), &actor, &options, &control).unwrap();
    let listed = scene.run(["snapshots"]).ok();
    assert!(listed[1]["time"].as_str() < listed[0]["time"].as_str(), "{listed}");
    assert_eq!(listed[1]["snapshot"], second.snapshot.to_string());
    scene.restore("latest", &scene.path("back")).ok();
    assert_eq!(node::start(&scene.path("back")), Ok(Age::New));
    let third = scene.backup().ok();
    assert_eq!(third["parent"], second.snapshot.to_string(), "{third}");
    assert_eq!(scene.run(["status", "--max-age", "26h"]).ok()["nodes"][0]["stale"], false);
}

#[test]
fn a_vault_is_the_same_wherever_it_lies() {
    let scene = Scene::with_node();
    scene.backup().ok();
    fs::create_dir(scene.path("other disk")).unwrap();
    let moved = scene.path("other disk/vault of mine");
    tree::copy(&scene.path("vault"), &moved);
    fs::remove_dir_all(scene.path("vault")).unwrap();
    let run = |args: &[&std::ffi::OsStr]| {
        let mut command = scene.command(args);
        finish(command.env("HIGHWATER_VAULT", &moved).spawn().unwrap()).ok()
    };
    assert_eq!(run(&["check".as_ref(), "--read-data".as_ref()])["ok"], true);
    run(&["backup".as_ref(), scene.path("node").as_os_str()]);
    run(&["restore".as_ref(), "latest".as_ref(), scene.path("back").as_os_str()]);
    assert_eq!(node::start(&scene.path("back")), Ok(Age::Old));
}

#[test]
fn who_lost_the_ownership_writes_no_more() {
    let scene = Scene::with_node();
    scene.backup().ok();
    let by_other = |args: &[&std::ffi::OsStr]| {
        let mut command = scene.command(args);
        finish(command.env("HIGHWATER_STATE_DIR", scene.path("other state")).spawn().unwrap())
    };
    let node = scene.path("node");
    let backup = ["backup".as_ref(), node.as_os_str()];
    by_other(&backup).failed(6, "fenced");
    let take = ["owner", "take-over", "--node", "node", "--reason", "a new disk"];
    by_other(&take.map(str::as_ref)).ok();
    by_other(&backup).ok();
    scene.backup().failed(6, "fenced");
    assert_eq!(scene.snapshots().len(), 2);
    scene.assert_vault_clean("a take-over");
}

#[test]
fn a_backup_that_is_overtaken_while_it_runs_is_seen_by_nobody() {
    let scene = Scene::with_node();
    fs::write(scene.path("node/large.bin"), node::bytes("large", 0, 3 << 20)).unwrap();
    let vault = scene.open_vault();
    let other = Actor { state_dir: scene.path("other state"), name: "another".into() };
    let name = "node".parse().unwrap();
    let first = held_backup(&scene);
    vault.take_over(&name, &other, "a new disk").unwrap();
    kill_process(Pid::from_child(&first), Signal::CONT).unwrap();
    finish(first).failed(6, "fenced");
    assert_eq!(scene.snapshots(), [""; 0]);
    let actor = Actor { state_dir: scene.path("state"), name: "the first".into() };
    let options = BackupOptions::default();
    let again =
        backup::run(&vault, &scene.path("node"), &actor, &options, &Control::new(Env::system()));
    assert_eq!(again.unwrap_err().kind(), Kind::Fenced);
}
