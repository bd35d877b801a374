//! Starting a node: `run` and `guard wait`, signals, users, systemd.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use highwater::env::FaultPoint;
use rustix::process::{Pid, Signal, kill_process};

use crate::guard::{
    DATABASES, REASON, assert_withheld, backup, guard, release_all, rest, start_a_copy, start_node,
    withheld, words,
};
use crate::node::{self, Age};
use crate::scene::{PROGRAM, Scene, Strike, finish, skip};
use crate::strangers::is_there;

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// The next line that a process says; it comes once it is said.
fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

/// The same where the databases are withheld: it has said what it waits for, and waits.
fn start_waiting(scene: &Scene, dir: &Path, script: &str) -> Child {
    let mut child = start_node(scene, dir, script);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let said = line(&mut stderr);
    assert!(DATABASES.iter().all(|database| said.contains(database)), "{said}");
    child.stderr = Some(stderr.into_inner());
    child
}

#[test]
fn run_waits_for_a_release_and_then_is_the_node() {
    let (scene, target) = withheld();
    let script = r#"echo "$$"; cat "$0/node.key"; wc -c < "$0/ledger.sqlite"; exit 23"#;
    let mut child = start_waiting(&scene, &target, script);
    assert_withheld(&scene, &target);
    assert_eq!(child.try_wait().unwrap(), None);
    release_all(&scene, &target);
    let pid = child.id();
    let said = rest(child.stdout.as_mut().unwrap());
    let lines: Vec<&str> = said.lines().collect();
    let ledger = fs::metadata(scene.path("node").join(node::LEDGER)).unwrap().len();
    assert_eq!(lines, [pid.to_string(), format!("key {}", node::SECRET), ledger.to_string()]);
    assert_eq!(child.wait().unwrap().code(), Some(23), "the exit code is the node's");
    assert_eq!(start_a_copy(&scene, &target), Ok(Age::Old));
}

#[test]
fn wait_returns_once_all_is_released_and_not_before() {
    let (scene, target) = withheld();
    let mut child = scene.command(words("wait", &target, &[])).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    assert!(line(&mut stderr).contains(node::STORE));
    guard(&scene, "release", &target, &[node::STORE, "--reason", REASON]).ok();
    assert_eq!(child.try_wait().unwrap(), None, "the ledger is withheld still");
    guard(&scene, "release", &target, &[node::LEDGER, "--reason", REASON]).ok();
    finish(child).ok();
}

#[test]
fn who_waits_ends_at_the_timeout_with_10_and_by_a_signal_with_130() {
    let (scene, target) = withheld();
    guard(&scene, "wait", &target, &["--timeout", "20ms"]).failed(10, "quarantined");
    let mut command = scene.plain_command(["run".as_ref(), target.as_os_str()]);
    let output = command.args(["--timeout", "0", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    for signal in [Signal::INT, Signal::TERM] {
        let child = start_waiting(&scene, &target, "echo it runs");
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(130), &b""[..]), "{output:?}");
    }
}

#[test]
fn a_signal_goes_straight_to_the_node() {
    let scene = Scene::with_node();
    let node = scene.path("node");
    // Whether the signal comes before the shell reads or while it does, its end of input follows.
    let script = "trap 'echo stopped; exit 7' TERM; echo ready; read line; exit 1";
    let mut command = scene.plain_command(["run".as_ref(), node.as_os_str()]);
    command.args(["--", "sh", "-c", script]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut stdout), "ready\n");
    send(&child, Signal::TERM);
    drop(child.stdin.take());
    assert_eq!(rest(&mut stdout), "stopped\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));

    // A node that leaves a signal alone dies by it: no handler of ours is left.
    let mut child = start_node(&scene, &node, "echo ready; exec tail -f /dev/null");
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut stdout), "ready\n");
    send(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn a_command_that_cant_be_executed_is_named() {
    let scene = Scene::with_node();
    let node = scene.path("node");
    let run = |program: &OsStr| {
        let words = ["--json".as_ref(), "run".as_ref(), node.as_os_str(), "--".as_ref(), program];
        finish(scene.plain_command(words).spawn().unwrap())
    };
    let error = run("no-such-node".as_ref()).failed(3, "not_found");
    assert_eq!(error["entry"], "no-such-node", "{error}");
    let config = node.join("config.toml");
    let error = run(config.as_os_str()).failed(7, "denied");
    assert_eq!(error["entry"], config.to_str().unwrap(), "{error}");
}

#[test]
fn run_refuses_a_directory_whose_restore_was_interrupted() {
    let scene = Scene::with_node();
    backup(&scene, &["--guarded"]).ok();
    let target = scene.path("target");
    let args = ["restore".as_ref(), "latest".as_ref(), target.as_os_str()];
    let struck = Strike::kill(FaultPoint::RestoreKeep, 1);
    assert!(scene.run_with_fault(struck, args).killed());
    let mut run = scene.plain_command(["run".as_ref(), target.as_os_str()]);
    let output = run.args(["--timeout", "0", "--", "echo", "it runs"]).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(4), &b""[..]), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("highwater recover"), "{said}");
    let wait = guard(&scene, "wait", &target, &["--timeout", "0"]).failed(4, "conflict");
    assert!(wait["hint"].as_str().unwrap().contains("highwater recover"), "{wait}");
    scene.run(["recover".as_ref(), target.as_os_str()]).ok();
    assert_withheld(&scene, &target);
}

#[test]
fn a_node_runs_as_its_own_user_where_root_has_restored_it() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root restores for another user");
    }
    let mut scene = Scene::with_node();
    backup(&scene, &["--guarded"]).ok();
    let target = scene.path("target");
    let restore = |flags: &[&str]| {
        let words = ["restore".as_ref(), "latest".as_ref(), target.as_os_str()];
        scene.run(words.into_iter().chain(flags.iter().map(OsStr::new))).ok()
    };
    restore(&["--owner", "65534:65534"]);
    // What is kept lies in a directory beside the node's that is root's alone.
    restore(&["--owner", "65534:65534", "--force"]);
    scene.lend_to_nobody();
    let ran = |scene: &Scene| {
        let mut command = scene.plain_command(["run".as_ref(), target.as_os_str()]);
        let command = command.args(["--timeout", "0", "--", "wc", "-c"]);
        command.arg(target.join(node::LEDGER)).output().unwrap()
    };
    assert_eq!(ran(&scene).status.code(), Some(10));
    release_all(&scene, &target);
    let output = ran(&scene);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// The units of a document, as they stand in its code blocks.
fn units(document: &str) -> Vec<&str> {
    let blocks = document.split("```ini\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks
        .filter(|block| block.contains("highwater guard") || block.contains("highwater run"))
        .collect()
}

#[test]
fn the_units_of_the_operations_manual_are_understood_by_systemd() {
    if !is_there("systemd-analyze") {
        return;
    }
    let scene = Scene::new();
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let manual = fs::read_to_string(manual).unwrap();
    let units = units(&manual);
    assert_eq!(units.len(), 2, "one that waits, one that is skipped");
    for (number, unit) in units.into_iter().enumerate() {
        // It looks for the programs, which are not installed here.
        let unit = unit.replace("/usr/local/bin/highwater", PROGRAM);
        let unit = unit.replace("/usr/local/bin/node", "/bin/true");
        let path = scene.path(&format!("node-{number}.service"));
        fs::write(&path, unit).unwrap();
        let verify = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&verify.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("node-")).collect();
        assert!(verify.status.success() && ours.is_empty(), "{said}");
    }
}

/// The packaged units too; the one that recovers is named by a node directory.
#[test]
fn the_packaged_units_are_understood_by_systemd() {
    if !is_there("systemd-analyze") {
        return;
    }
    let scene = Scene::new();
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd");
    let mut units = Vec::new();
    for entry in fs::read_dir(packaged).unwrap() {
        let path = entry.unwrap().path();
        let unit = fs::read_to_string(&path).unwrap().replace("/usr/local/bin/highwater", PROGRAM);
        // Neither a user of that name nor the manual's pages are on this machine.
        let unit = unit.replace("User=node\n", "User=daemon\n");
        let unit: Vec<&str> =
            unit.lines().filter(|line| !line.starts_with("Documentation=")).collect();
        let unit = unit.join("\n") + "\n";
        let name = path.file_name().unwrap().to_str().unwrap().replace("@.", "@var-lib-node.");
        fs::write(scene.path(&name), unit).unwrap();
        units.push(name);
    }
    assert!(units.iter().any(|name| name == "highwater-recover@var-lib-node.service"));
    for name in units {
        let verify = Command::new("systemd-analyze").arg("verify").arg(scene.path(&name)).output();
        let verify = verify.unwrap();
        let said = String::from_utf8_lossy(&verify.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("highwater")).collect();
        assert!(verify.status.success() && ours.is_empty(), "{name}: {said}");
    }
}
