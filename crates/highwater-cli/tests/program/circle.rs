//! Back up, destroy, restore, undo; and the demo that tells of it.

use rusqlite::Connection;
use serde_json::json;

use crate::world::{ROWS, World, add_payments, assert_node};

#[test]
fn what_was_backed_up_comes_back_row_by_row() {
    let world = World::with_node();
    let backup = ["backup", "node", "--mark", "height=7", "--tag", "why=test"];
    let first = world.on_vault(&backup).code(0).json();
    assert_eq!(first["node"], "node");
    assert_eq!((&first["seq"], &first["parent"]), (&json!(1), &json!(null)));
    assert_eq!(first["barrier"], "single");
    assert_eq!(first["marks"], json!({"height": 7}));
    for field in ["bytes_total", "bytes_read", "bytes_stored", "seconds", "pause_ms"] {
        assert!(first[field].is_number(), "{field}");
    }
    let parts = first["parts"].as_array().expect("parts");
    let engines: Vec<&str> = parts.iter().filter_map(|part| part["engine"].as_str()).collect();
    assert_eq!(engines, ["sqlite", "rocksdb", "files"]);

    std::fs::remove_dir_all(world.path("node")).expect("the node is gone");
    let restored = world.on_vault(&["restore", "latest", "node"]).code(0).json();
    assert_eq!(restored["snapshot"], first["snapshot"]);
    assert_eq!(restored["bytes"], first["bytes_total"]);
    assert_eq!((&restored["kept"], &restored["quarantined"]), (&json!(null), &json!(0)));
    assert_node(&world.path("node"), ROWS);
}

#[test]
fn a_backup_under_a_writer_holds_all_that_was_committed_before() {
    let world = World::with_node();
    let ledger = Connection::open(world.path("node/ledger.sqlite")).expect("the SQLite");
    add_payments(&ledger, ROWS..ROWS + 50);
    let first = world.on_vault(&["backup", "node"]).code(0).json();
    add_payments(&ledger, ROWS + 50..ROWS + 100);
    let second = world.on_vault(&["backup", "node"]).code(0).json();
    assert_eq!(second["parent"], first["snapshot"]);
    let stored = |backup: &serde_json::Value| backup["bytes_stored"].as_u64().expect("a number");
    assert!(stored(&second) < stored(&first), "an increment is smaller");

    let id = first["snapshot"].as_str().expect("an id");
    world.on_vault(&["restore", &id[..8], "older"]).code(0);
    world.on_vault(&["restore", "latest", "newer"]).code(0);
    assert_node(&world.path("older"), ROWS + 50);
    assert_node(&world.path("newer"), ROWS + 100);
}

#[test]
fn each_effort_stores_less_than_the_one_before_and_builds_on_any() {
    let world = World::with_node();
    let line = |number: u32| format!("{number}: balance_msat={}\n", number.wrapping_mul(7919));
    let text: String = (0..100_000).map(line).collect();
    std::fs::write(world.path("node/history.log"), &text).expect("a file");
    let stored = |backup: serde_json::Value| backup["bytes_stored"].as_u64().expect("a number");
    let full = |effort| {
        let backup = ["backup", "node", "--full", "--effort", effort];
        stored(world.on_vault(&backup).code(0).json())
    };
    let [fast, balanced, dense] = ["fast", "balanced", "dense"].map(full);
    assert!(dense < balanced && balanced < fast, "{dense}, {balanced}, {fast}");
    let usual = stored(world.on_vault(&["backup", "node", "--full"]).code(0).json());
    assert!(usual.abs_diff(balanced) < 1000, "{usual}");

    let next = world.on_vault(&["backup", "node", "--rehash", "--effort", "fast"]).code(0).json();
    assert!(stored(next) < usual / 10, "nothing is stored that is there");
    world.on_vault(&["restore", "latest", "restored"]).code(0);
    assert_node(&world.path("restored"), ROWS);
    let restored = std::fs::read_to_string(world.path("restored/history.log")).expect("a file");
    assert!(restored == text);
}

#[test]
fn a_target_that_holds_something_is_a_conflict_and_force_keeps_it_for_rollback() {
    let world = World::with_node();
    world.on_vault(&["backup", "node"]).code(0);
    std::fs::write(world.path("node/later"), "written after the backup").expect("a file");
    world.on_vault(&["restore", "latest", "node"]).code(4).error("conflict");
    assert!(world.path("node/later").exists());

    let planned =
        world.on_vault(&["restore", "latest", "node", "--force", "--plan"]).code(0).json();
    assert_eq!(planned["exchange"], "whole");
    assert!(world.path("node/later").exists(), "a plan changes nothing");

    let restored = world.on_vault(&["restore", "latest", "node", "--force"]).code(0).json();
    assert!(restored["kept"].is_string());
    assert!(!world.path("node/later").exists());
    assert_node(&world.path("node"), ROWS);

    let undone = world.run(&["rollback", "node", "--json"]).code(0).json();
    assert_eq!(undone["outcome"], "old");
    assert!(world.path("node/later").exists());
    let nothing = world.run(&["recover", "node", "--json"]).code(0).json();
    assert_eq!(nothing["outcome"], "nothing");
}

#[test]
fn a_snapshot_of_a_newer_schema_is_refused_to_an_older_program() {
    let world = World::with_node();
    world.on_vault(&["backup", "node", "--schema", "3"]).code(0);
    world.on_vault(&["restore", "latest", "again", "--schema", "2"]).code(4).error("conflict");
    assert!(!world.path("again").exists());
    world.on_vault(&["restore", "latest", "again", "--schema", "3"]).code(0);
    assert_node(&world.path("again"), ROWS);
}

#[test]
fn what_is_not_there_is_not_found() {
    let world = World::with_node();
    world.on_vault(&["restore", "latest", "again"]).code(3).error("not_found");
    assert!(!world.path("again").exists());
    world.on_vault(&["backup", "missing"]).code(3).error("not_found");
    world.run(&["inspect", "missing", "--json"]).code(3).error("not_found");
    world.run(&["rollback", "node", "--json"]).code(3).error("not_found");
    world.on_vault(&["show", "0123abcd"]).code(3).error("not_found");
    world.on_vault(&["status", "--node", "other"]).code(3).error("not_found");
}

#[test]
fn two_databases_of_which_a_rocksdb_is_open_are_a_conflict() {
    let world = World::with_node();
    let free = world.run(&["inspect", "node", "--json"]).code(0).json();
    for part in free["parts"].as_array().expect("parts") {
        assert!(part["refused"].is_null(), "{part}");
    }
    let families = crate::world::FAMILIES;
    let options = rust_rocksdb::Options::default();
    let store = rust_rocksdb::DB::open_cf(&options, world.path("node/store"), families);
    let store = store.expect("the node opens its RocksDB");
    world.on_vault(&["backup", "node"]).code(4).error("conflict");
    let held = world.run(&["inspect", "node", "--json"]).code(0).json();
    let parts = held["parts"].as_array().expect("parts");
    let part = parts.iter().find(|part| part["engine"] == "rocksdb").expect("the RocksDB");
    assert!(part["refused"].is_null(), "alone it could be captured: {part}");
    assert_eq!(held["refusals"][0]["kind"], "conflict", "{held}");
    assert_eq!(part["in_use_by"][0]["pid"], std::process::id());
    assert_eq!(world.on_vault(&["snapshots"]).code(0).json(), json!([]));
    drop(store);
    world.on_vault(&["backup", "node"]).code(0);
}

#[test]
fn the_demo_ends_with_all_rows_equal_and_leaves_nothing_behind() {
    let world = World::new();
    let scratch = world.path("scratch");
    std::fs::create_dir(&scratch).expect("a directory");
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        crate::world::answered(command.env("TMPDIR", &scratch).output().expect("it starts"))
    };
    let story = run(&["demo"]).code(0);
    assert!(story.stdout.ends_with("All rows equal, no satoshi lost.\n"), "{}", story.stdout);
    let document = run(&["demo", "--json"]).code(0).json();
    assert_eq!(document["ok"], true);
    assert_eq!(document["damage"]["ok"], false);
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    assert!(number(&document["rows"]["sqlite"]) >= number(&document["acknowledged"]));
    let [first, second] = [0, 1].map(|at| number(&document["backups"][at]["bytes_read"]));
    assert!(second < first / 2, "the second backup reads what has changed: {second} of {first}");
    assert_eq!(std::fs::read_dir(&scratch).expect("a directory").count(), 0);
}
