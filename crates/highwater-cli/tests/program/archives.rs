//! Archives by the program: files, pipes between two processes, a restore without a vault, full
//! disks, signals.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::node::{self, Age};
use crate::scene::{Mounted, Ran, Scene, finish};
use crate::tree;

/// A node in its new state, with a snapshot of each of its two.
fn two_snapshots() -> (Scene, [String; 2]) {
    let scene = Scene::with_node();
    let first = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
    node::go_on(&scene.path("node"));
    let second = scene.backup().ok()["snapshot"].as_str().unwrap().to_owned();
    (scene, [first, second])
}

fn export(scene: &Scene, words: &[&str]) -> Ran {
    let mut command = scene.command(["export"].iter().chain(words));
    finish(command.current_dir(scene.path("")).spawn().unwrap())
}

/// Imports into the vault `place`, with a state directory of its own.
fn import(scene: &Scene, place: &str, archives: &[&str]) -> Ran {
    let words = ["import"].into_iter().chain(archives.iter().copied());
    let mut command = scene.command(words);
    command.env("HIGHWATER_VAULT", scene.path(place)).current_dir(scene.path(""));
    finish(command.env("HIGHWATER_STATE_DIR", scene.path("other state")).spawn().unwrap())
}

fn restore_from(scene: &Scene, target: &Path, archives: &[&str], more: &[&str]) -> Ran {
    let words = ["restore".as_ref(), target.as_os_str(), "--from".as_ref()];
    let archives = archives.iter().chain(more).map(OsStr::new);
    let mut command = scene.command(words.into_iter().chain(archives));
    finish(command.env_remove("HIGHWATER_VAULT").current_dir(scene.path("")).spawn().unwrap())
}

#[test]
fn a_snapshot_travels_as_a_file_and_its_increment_after_it() {
    let (scene, [first, second]) = two_snapshots();
    let whole = export(&scene, &[&first]).ok();
    let file = whole["output"].as_str().unwrap().to_owned();
    assert!(file.starts_with("node-2") && file.ends_with("Z.hwa"), "{whole}");
    assert_eq!((&whole["since"], &whole["format"]), (&Value::Null, &Value::from(1)));
    let path = scene.path(&file);
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    assert_eq!(whole["bytes"], found.len());
    export(&scene, &[&first]).failed(4, "conflict");
    export(&scene, &[&first, "--force"]).ok();
    let increment = ["latest", "--since", &first, "--output", "new.hwa"];
    let increment = export(&scene, &increment).ok();
    assert_eq!(
        (increment["snapshot"].as_str(), increment["since"].as_str()),
        (Some(second.as_str()), Some(first.as_str()))
    );

    let imported = import(&scene, "copy", &[&file, "new.hwa"]).ok();
    assert_eq!((&imported["created"], &imported["imported"]), (&true.into(), &2.into()));
    let again = import(&scene, "copy", &[&file, "new.hwa"]).ok();
    assert_eq!((&again["created"], &again["imported"]), (&false.into(), &0.into()));
    assert_eq!(again["snapshots"][1]["already_there"], true);
    import(&scene, "copy", &["new.hwa", &file]).failed(4, "conflict");
    import(&scene, "elsewhere", &["new.hwa"]).failed(4, "conflict");
    assert!(!scene.path("elsewhere").exists());

    fs::remove_dir_all(scene.path("vault")).unwrap();
    restore_from(&scene, &scene.path("a"), &[&file], &[]).ok();
    assert_eq!(node::start(&scene.path("a")), Ok(Age::Old));
    let both = [file.as_str(), "new.hwa"];
    let plan = restore_from(&scene, &scene.path("b"), &both, &["--plan"]).ok();
    assert_eq!(plan["snapshot"], second.as_str());
    assert!(!scene.path("b").exists());
    restore_from(&scene, &scene.path("b"), &both, &[]).ok();
    assert_eq!(node::start(&scene.path("b")), Ok(Age::New));
    restore_from(&scene, &scene.path("a"), &both, &[]).failed(4, "conflict");
    restore_from(&scene, &scene.path("a"), &both, &["--force"]).ok();
    assert_eq!(node::start(&scene.path("a")), Ok(Age::New));
    restore_from(&scene, &scene.path("c"), &["new.hwa", &file], &[]).failed(4, "conflict");
    restore_from(&scene, &scene.path("c"), &["missing.hwa"], &[]).failed(3, "not_found");
    let mut command = scene.command(["restore", "latest", "c", "--from", "new.hwa"]);
    finish(command.spawn().unwrap()).failed(2, "input");
    assert!(!scene.path("c").exists());
}

#[test]
fn a_damaged_archive_touches_nothing() {
    let (scene, [_, second]) = two_snapshots();
    export(&scene, &[&second, "--output", "a.hwa"]).ok();
    let before = tree::read(&scene.path("node")).unwrap();
    let sound = fs::read(scene.path("a.hwa")).unwrap();
    for (at, cut) in [(sound.len() - 1, false), (sound.len() / 2, false), (sound.len() - 88, true)]
    {
        let mut bytes = sound.clone();
        if cut {
            bytes.truncate(at)
        } else {
            bytes[at] ^= 4
        }
        fs::write(scene.path("bad.hwa"), bytes).unwrap();
        let error = restore_from(&scene, &scene.path("node"), &["bad.hwa"], &["--force"]);
        assert_eq!(error.failed(5, "corrupt")["entry"], "bad.hwa");
        import(&scene, "copy", &["bad.hwa"]).failed(5, "corrupt");
        assert!(!scene.path("copy").exists());
        assert!(!scene.path(".highwater-node").exists(), "nothing was staged");
    }
    tree::assert_equal(&tree::read(&scene.path("node")).unwrap(), &before, "the target");
}

#[test]
fn an_export_goes_into_an_import_through_a_pipe() {
    let (scene, [_, second]) = two_snapshots();
    let mut exporting = scene
        .command(["export", "latest", "--output", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = exporting.stdout.take().unwrap();
    let mut command = scene.command(["import", "-"]);
    command.env("HIGHWATER_VAULT", scene.path("copy")).env("HIGHWATER_STATE_DIR", scene.path("s"));
    let imported = finish(command.stdin(stdout).spawn().unwrap()).ok();
    assert_eq!(imported["snapshots"][0]["snapshot"], second.as_str());
    let output = exporting.wait_with_output().unwrap();
    assert!(output.status.success());
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&told["output"], &told["bytes"]), (&"-".into(), &imported["bytes_read"]));

    // Whoever read it has gone; the error does not go where the archive went.
    let mut exporting = scene
        .command(["export", "latest", "--output", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 100];
    exporting.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = exporting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["error"]["kind"], "unavailable", "{told}");
    assert!(told["error"]["hint"].as_str().unwrap().contains("went away"), "{told}");
    let nothing = scene.command(["export", "1234", "--output", "-"]).output().unwrap();
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(3), 0));
}

#[test]
fn an_export_onto_a_full_disk_leaves_nothing() {
    let (mut scene, [_, second]) = two_snapshots();
    fs::create_dir(scene.path("small")).unwrap();
    let Some(mounted) = Mounted::at(&scene.path("small"), "64k") else { return };
    scene.move_into(&mounted);
    let seen = scene.seen("small");
    let at = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    let error = export(&scene, &[&second, "--output", &at("small/a.hwa")]);
    let error = error.failed(8, "unavailable");
    assert!(error["message"].as_str().unwrap().contains("No space left"), "{error}");
    assert_eq!(tree::names(&seen), [""; 0]);
    // The same on the way in.
    export(&scene, &[&second, "--output", &at("a.hwa")]).ok();
    let error = import(&scene, "small/copy", &[&at("a.hwa")]).failed(8, "unavailable");
    assert!(error["message"].as_str().unwrap().contains("No space left"), "{error}");
    assert_eq!(tree::names(&seen), [""; 0]);
}

#[test]
fn a_signal_ends_an_import_that_waits_and_leaves_nothing() {
    let (scene, [_, second]) = two_snapshots();
    export(&scene, &[&second, "--output", "a.hwa"]).ok();
    let bytes = fs::read(scene.path("a.hwa")).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = scene.command(["import", "-"]);
    command.env("HIGHWATER_VAULT", scene.path("copy")).env("HIGHWATER_STATE_DIR", scene.path("s"));
    let importing = command.stdin(reader).spawn().unwrap();
    drop(command);
    std::io::Write::write_all(&mut writer, &bytes[..bytes.len() / 2]).unwrap();
    // The other end is silent, and stays open.
    kill_process(Pid::from_child(&importing), Signal::INT).unwrap();
    finish(importing).failed(130, "interrupted");
    drop(writer);
    assert!(!scene.path("copy").exists());
}

#[test]
fn an_archive_is_kept_out_of_the_vault_and_the_node() {
    let (scene, [_, second]) = two_snapshots();
    export(&scene, &[&second, "--output", "vault/a.hwa"]).failed(2, "input");
    export(&scene, &[&second, "--output", "node/a.hwa"]).ok();
    let refused = restore_from(&scene, &scene.path("node"), &["node/a.hwa"], &["--force"]);
    refused.failed(2, "input");
    export(&scene, &[&second, "--output", "vault"]).failed(2, "input");
    export(&scene, &[&second, "--output", "nowhere/a.hwa"]).failed(3, "not_found");
}
