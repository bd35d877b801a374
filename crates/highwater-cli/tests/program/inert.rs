//! What the program leaves alone until it is told to: the network, and the replica that is built into it.

use std::process::Command;

use crate::world::{World, answered};

/// The sockets that a run of the program asked for, and the names that its threads were given.
fn traced(world: &World, arguments: &[&str], code: i32) -> String {
    let program = world.command(arguments);
    let trace = world.path("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["--follow-forks", "--quiet=all", "--trace=%network,prctl", "--output"])
        .arg(&trace);
    strace.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    if let Some(dir) = program.get_current_dir() {
        strace.current_dir(dir);
    }
    answered(strace.output().expect("strace runs")).code(code);
    std::fs::read_to_string(trace).expect("what strace wrote")
}

#[test]
fn what_is_not_configured_opens_no_socket_and_has_no_thread() {
    let world = World::with_node();
    let at = ["--vault", "vault", "--key-file", "key", "--json"];
    for words in [
        &["backup", "node"][..],
        &["check", "--read-data"],
        &["snapshots"],
        &["restore", "latest", "copy"],
        &["prune"],
    ] {
        let trace = traced(&world, &[words, &at].concat(), 0);
        assert!(!trace.contains("AF_INET"), "{words:?}: {trace}");
        assert!(!trace.contains("highwater-replica"), "{words:?}: {trace}");
    }
}

#[test]
fn what_is_configured_is_seen_by_the_same_means() {
    let world = World::new();
    let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    world.write_secret("words", words);
    // Nobody listens there.
    let server = ["--server", "http://127.0.0.1:9/vss", "--mnemonic-file", "words", "--json"];
    let trace = traced(&world, &[&["replica", "status"][..], &server].concat(), 8);
    assert!(trace.contains("AF_INET"), "{trace}");
}
