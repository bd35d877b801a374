//! A backup that is running: a second one, Ctrl-C, SIGTERM.

use std::process::{Child, Stdio};
use std::time::Duration;

use highwater::Env;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::world::{Answered, World, answered};

/// Starts a backup that takes long, and waits until its intent stands in the vault.
fn start_slow_backup(world: &World) -> Child {
    std::fs::write(world.path("node/large"), crate::world::noise(48 << 20)).expect("a large file");
    let vault = ["--vault", "vault", "--key-file", "key", "--json"];
    let arguments = [&["backup", "node", "--limit-rate", "1M"][..], &vault].concat();
    let mut command = world.command(&arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let env = Env::system();
    let begun = || {
        let intents = std::fs::read_dir(world.path("vault/intents"));
        intents.is_ok_and(|mut intents| intents.next().is_some())
    };
    while !begun() {
        assert_eq!(child.try_wait().expect("a child"), None, "the backup ended too early");
        env.pause(Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill_process(pid.expect("a process id"), signal).expect("a signal");
}

fn ended(child: Child) -> Answered {
    answered(child.wait_with_output().expect("the program ends"))
}

#[test]
fn a_second_backup_at_once_is_a_conflict() {
    let world = World::with_node();
    let first = start_slow_backup(&world);
    world.on_vault(&["backup", "node"]).code(4).error("conflict");
    signal(&first, Signal::INT);
    ended(first).code(130);
    std::fs::remove_file(world.path("node/large")).expect("the large file");
    world.on_vault(&["backup", "node"]).code(0);
}

#[test]
fn a_signal_leaves_no_snapshot_and_exits_with_130() {
    for chosen in [Signal::INT, Signal::TERM] {
        let world = World::with_node();
        let backup = start_slow_backup(&world);
        signal(&backup, chosen);
        ended(backup).code(130).error("interrupted");
        assert_eq!(world.on_vault(&["snapshots"]).code(0).json(), json!([]));
        world.on_vault(&["check", "--read-data"]).code(0);
    }
}
