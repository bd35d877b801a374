//! What is stored of nodes of the shapes that people keep: bytes, which are the same on every machine.

use std::path::Path;
use std::process::Command;

use highwater::vault::Effort;
use highwater::{Actor, Backup};

/// Megabytes of each shape.
const SIZE_MB: &str = "6";
/// The most that may be stored of each, as a part of what it has: a little more than it is today.
const STORED_MAX: [(&str, f64); 4] =
    [("channels", 0.80), ("transactions", 0.88), ("accounts", 0.60), ("settings", 0.56)];

fn stored(node: &Path, effort: Effort) -> f64 {
    let scratch = tempfile::tempdir().expect("a directory");
    let vault = highwater_bench::new_vault(scratch.path()).expect("a vault");
    let actor = Actor::new(scratch.path().join("state"), "operator@bench");
    let report = Backup::of(node).effort(effort).with(|options| options.adopt = true);
    let report = report.run(&vault, &actor).expect("a backup");
    report.bytes_stored as f64 / report.bytes_total as f64
}

#[test]
fn as_few_bytes_are_stored_of_each_shape_as_were_measured() {
    let scratch = tempfile::tempdir().expect("a directory");
    let made = Command::new(env!("CARGO_BIN_EXE_shapes")).arg(scratch.path()).arg(SIZE_MB).output();
    let made = made.expect("the program runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (name, most) in STORED_MAX {
        let node = scratch.path().join(name);
        let [fast, balanced, dense] =
            [Effort::Fast, Effort::Balanced, Effort::Dense].map(|effort| stored(&node, effort));
        assert!(balanced <= most, "{name}: {balanced:.3} of it is stored, more than {most}");
        assert!(balanced < fast, "{name}: {balanced:.3} is not less than {fast:.3}");
        assert!(dense < balanced * 1.01, "{name}: {dense:.3} is more than {balanced:.3}");
    }
}
