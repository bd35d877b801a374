//! The examples: programs that run and end by themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An example as cargo has built it, beside the tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(built.exists(), "cargo has not built {}", built.display());
    built
}

pub(super) fn run(name: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        Command::new(example(name)).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{name}: {status}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn each_example_of_an_agent_backs_up_and_goes_on_where_it_was() {
    for name in ["agent-sqlite", "agent-rocksdb"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        for _ in 0..2 {
            let told = run(name, &[dir, "--once"]);
            assert!(told.contains("backup completed"), "{told}");
            assert!(told.contains("restore_test completed"), "{told}");
        }
    }
}

#[test]
fn two_databases_behind_a_hold_hook_are_of_the_instant_that_was_marked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for _ in 0..3 {
        let told = run("agent-two-databases", &[dir, "--once"]);
        assert_eq!(told.matches(": height ").count(), 2, "{told}");
    }
}

/// Runs an example that needs no arguments, which has to say all of this in this order.
fn tells(name: &str, expected: &[&str]) {
    let told = run(name, &[]);
    let mut rest = told.as_str();
    for text in expected {
        let Some((_, after)) = rest.split_once(text) else {
            panic!("{name} does not say `{text}` in its place:\n{told}")
        };
        rest = after;
    }
}

#[test]
fn the_example_of_a_backup_lists_checks_and_restores_it() {
    let (listed, checked) = ("listed: ", "checked: 2 snapshots, sound: true");
    tells("backup", &[listed, listed, checked, "restored: channels one, two"]);
}

#[test]
fn the_example_of_a_guarded_node_starts_again_once_it_is_released() {
    let (two, one) = ("has made 2 payments", "restored, held back: 1");
    tells("guard", &[two, one, "does not start", "held back: payments", "made 2 payments"]);
}
