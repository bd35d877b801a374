//! Kills or fails the program at every write step of backup and restore. Whatever happens, a vault
//! holds whole snapshots only, and a node directory is the old one or the new one.

use std::path::Path;

use highwater::env::FaultPoint;
use rusqlite::Connection;
use serde_json::json;

use crate::world::{Answered, ROWS, World, add_payments, answered, assert_node};

/// Steps that only a restore into a mount point passes.
const IN_MOUNT_POINTS: [FaultPoint; 3] =
    [FaultPoint::RestoreWithhold, FaultPoint::RestoreEntry, FaultPoint::RestoreReveal];
/// What happens at the step, with the exit code; a killed program has none.
const ACTIONS: [(&str, Option<i32>); 3] = [("kill", None), ("error", Some(8)), ("enospc", Some(8))];

fn is_of_restore(point: FaultPoint) -> bool {
    point.name().starts_with("restore.")
}

/// Runs a command on the vault, with a fault at the first passage of `point`.
fn with_fault(world: &World, point: FaultPoint, action: &str, arguments: &[&str]) -> Answered {
    let vault = ["--vault", "vault", "--key-file", "key", "--json"];
    let mut command = world.command(&[arguments, &vault].concat());
    command.env("HIGHWATER_FAULT_POINT", point.name()).env("HIGHWATER_FAULT_ACTION", action);
    answered(command.output().expect("the program starts"))
}

#[test]
fn a_backup_that_dies_leaves_whole_snapshots_and_the_next_one_succeeds() {
    for point in FaultPoint::ALL.iter().copied().filter(|point| !is_of_restore(*point)) {
        for (action, code) in ACTIONS {
            let world = World::with_node();
            world.on_vault(&["backup", "node"]).code(0);
            let ledger = Connection::open(world.path("node/ledger.sqlite")).expect("a SQLite");
            add_payments(&ledger, ROWS..ROWS + 10);
            let failed = with_fault(&world, point, action, &["backup", "node"]);
            let what = format!("{action} at {}: {}{}", point.name(), failed.stdout, failed.stderr);
            assert_eq!(failed.code, code, "{what}");

            let snapshots = world.on_vault(&["snapshots"]).code(0).json();
            let count = snapshots.as_array().map_or(0, Vec::len);
            assert!((1..=2).contains(&count), "{what}");
            world.on_vault(&["check", "--read-data"]).code(0);
            world.on_vault(&["backup", "node"]).code(0);
            world.on_vault(&["check", "--read-data"]).code(0);
            world.on_vault(&["restore", "latest", "again"]).code(0);
            assert_node(&world.path("again"), ROWS + 10);
        }
    }
}

#[test]
fn a_restore_that_dies_leaves_the_old_node_or_the_new_one() {
    for point in FaultPoint::ALL.iter().copied().filter(|point| is_of_restore(*point)) {
        if IN_MOUNT_POINTS.contains(&point) {
            continue;
        }
        for (action, code) in ACTIONS {
            let world = World::with_node();
            world.on_vault(&["backup", "node"]).code(0);
            std::fs::write(world.path("node/later"), "the old node").expect("a file");
            let restore = ["restore", "latest", "node", "--force"];
            let failed = with_fault(&world, point, action, &restore);
            let what = format!("{action} at {}: {}{}", point.name(), failed.stdout, failed.stderr);
            assert_eq!(failed.code, code, "{what}");

            let recovered = world.run(&["recover", "node", "--json"]).code(0).json();
            let old = world.path("node/later").exists();
            let expected = if old { json!("old") } else { json!("new") };
            let outcome = &recovered["outcome"];
            assert!(*outcome == expected || *outcome == json!("nothing"), "{outcome}; {what}");
            assert_node(&world.path("node"), ROWS);
            let again = world.run(&["recover", "node", "--json"]).code(0).json();
            assert_eq!(again["outcome"], "nothing", "{what}");

            world.on_vault(&restore).code(0);
            assert!(!world.path("node/later").exists(), "{what}");
            assert_node(&world.path("node"), ROWS);
            assert_no_leftovers(&world, &what);
        }
    }
}

/// Nothing but the kept directory and the lock stays beside the target after a whole restore.
fn assert_no_leftovers(world: &World, what: &str) {
    let mut left = names(&world.path(".highwater-node"));
    left.sort();
    assert_eq!(left, ["kept", "kept.json", "lock"], "{what}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
}
