//! The examples: programs that run and end by themselves.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs an example as cargo has built it, beside the tests; it has to say all of this in this order.
fn tells(name: &str, expected: &[&str]) {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    let Output { status, stdout, stderr } = Command::new(built).output().unwrap();
    assert!(status.success(), "{name}: {status}: {}", String::from_utf8_lossy(&stderr));
    let told = String::from_utf8(stdout).unwrap();
    let mut rest = told.as_str();
    for text in expected {
        let Some((_, after)) = rest.split_once(text) else {
            panic!("{name} does not say `{text}` in its place:\n{told}")
        };
        rest = after;
    }
}

#[test]
fn the_example_of_a_replica_fills_an_empty_disk() {
    let (sent, filled) = ("2 values, 0 not yet sent", "filled from the server: 2 values");
    tells("replica", &[sent, "refused: ", filled, "monitors/1: state 7", "peers/1: "]);
}

#[test]
fn the_example_for_ldk_reads_its_monitor_on_another_machine() {
    tells("ldk", &["written: [\"channel-1\"]", "read on another machine: update 41"]);
}
