//! A snapshot that lacks what the one before has: it is told everywhere, and the one before stays,
//! until the content is back or somebody says that the loss is right.

use std::fs;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::world::{Answered, World, noise};

/// A node of two databases and much else, with one snapshot; its id.
fn whole() -> (World, String) {
    let world = World::with_vault();
    fs::create_dir_all(world.path("node/ancient")).unwrap();
    for name in ["channels.db", "small.db"] {
        database(&world, name, 20);
    }
    fs::write(world.path("node/node.key"), "the key").unwrap();
    fs::write(world.path("node/ancient/blocks"), noise(2 << 20)).unwrap();
    let first = id(&backup(&world));
    (world, first)
}

fn database(world: &World, name: &str, rows: u32) {
    let database = Connection::open(world.path("node").join(name)).unwrap();
    database.execute("CREATE TABLE t (a)", ()).unwrap();
    for _ in 0..rows {
        database.execute("INSERT INTO t VALUES (hex(zeroblob(1000)))", ()).unwrap();
    }
}

fn backup(world: &World) -> Value {
    world.on_vault(&["backup", "node"]).code(0).json()
}

fn id(backup: &Value) -> String {
    backup["snapshot"].as_str().unwrap().to_owned()
}

fn status(world: &World) -> Answered {
    world.on_vault(&["status", "--max-age", "26h"])
}

/// All warnings but that of a database which is not in WAL mode.
fn warnings(document: &Value) -> String {
    let texts = document["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    texts.filter(|text| !text.contains("rollback-journal mode")).collect::<Vec<_>>().join("\n")
}

/// What a policy that keeps one snapshot keeps, and why.
fn kept(world: &World) -> (Vec<String>, Value) {
    let plan = world.on_vault(&["forget", "--keep-last", "1"]).code(0).json();
    let keep = plan["nodes"][0]["keep"].as_array().unwrap();
    (keep.iter().map(id).collect(), plan)
}

#[test]
fn what_is_gone_since_the_last_snapshot_is_told_until_somebody_acknowledges_it() {
    let (world, first) = whole();
    status(&world).code(0);
    fs::remove_file(world.path("node/channels.db")).unwrap();
    fs::remove_file(world.path("node/ancient/blocks")).unwrap();
    let second = backup(&world);
    let told = warnings(&second);
    assert!(told.contains("`channels.db` is missing") && told.contains("all in all"), "{told}");
    assert!(told.contains(&first) && told.contains("snapshots acknowledge"), "{told}");

    let stale = status(&world).code(9).json();
    let node = &stale["nodes"][0];
    assert_eq!((&node["stale"], &node["reasons"]), (&json!(true), &json!(["shrunk"])), "{stale}");
    let [part, all] = node["shrunk"].as_array().unwrap().as_slice() else { panic!("{stale}") };
    assert_eq!((&part["part"], &part["how"]), (&json!("channels.db"), &json!("missing")));
    assert!(part["bytes_before"].as_u64().unwrap() > 40_000 && part["bytes"] == 0, "{part}");
    assert_eq!((&all["part"], &all["before"]), (&Value::Null, &json!(first)));
    assert!(warnings(&stale).contains("channels.db"), "{stale}");
    world.on_vault(&["status"]).code(9);

    // The third has no more than the second: it is compared with the first one still.
    let third = id(&backup(&world));
    let (keep, plan) = kept(&world);
    assert_eq!(keep, [third.clone(), first.clone()], "{plan}");
    assert_eq!(plan["nodes"][0]["keep"][1]["reasons"], json!(["unacknowledged"]));
    assert!(warnings(&plan).contains(&third), "{plan}");
    let planned = world.on_vault(&["restore", "latest", "away", "--plan"]).code(0).json();
    assert!(warnings(&planned).contains("channels.db"), "{planned}");

    let acknowledge = ["snapshots", "acknowledge", &third];
    world.on_vault(&acknowledge).code(2).error("input");
    let reason = ["--reason", "moved to another node"];
    world.on_vault(&[&["snapshots", "acknowledge", &first][..], &reason].concat()).code(2);
    let done = world.on_vault(&[&acknowledge[..], &reason].concat()).code(0).json();
    assert_eq!((&done["snapshot"], &done["already"]), (&json!(third), &json!(false)), "{done}");
    status(&world).code(0);
    let shown = world.on_vault(&["show", &third]).code(0).json();
    assert_eq!(
        (&shown["shrunk"], &shown["acknowledged"]["reason"]),
        (&json!([]), &json!(reason[1]))
    );
    let again = world.on_vault(&[&acknowledge[..], &reason].concat()).code(0).json();
    assert_eq!(again["already"], true, "{again}");
    assert_eq!(kept(&world).0, [third]);
    assert_eq!(warnings(&backup(&world)), "");
    status(&world).code(0);
}

#[test]
fn what_comes_back_ends_the_alarm() {
    let (world, first) = whole();
    fs::rename(world.path("node/channels.db"), world.path("channels.db")).unwrap();
    backup(&world);
    status(&world).code(9);
    fs::rename(world.path("channels.db"), world.path("node/channels.db")).unwrap();
    let third = backup(&world);
    assert_eq!(warnings(&third), "");
    status(&world).code(0);
    let (keep, _) = kept(&world);
    assert_eq!(keep, [id(&third)]);
    assert!(!keep.contains(&first));
}

#[test]
fn what_a_glob_leaves_out_is_told_as_such_and_counts() {
    let (world, first) = whole();
    let second = world.on_vault(&["backup", "node", "--exclude", "channels.db"]).code(0).json();
    let told = warnings(&second);
    assert!(told.contains("channels.db") && told.contains("left out by a glob"), "{told}");
    let stale = status(&world).code(9).json();
    assert_eq!(stale["nodes"][0]["shrunk"][0]["excluded"], true, "{stale}");
    assert!(kept(&world).0.contains(&first));
}

#[test]
fn an_emptied_database_and_one_that_lost_half_are_told_and_so_are_plain_files_that_are_all_gone() {
    let (world, _) = whole();
    fs::write(world.path("node/channels.db"), b"").unwrap();
    fs::remove_file(world.path("node/small.db")).unwrap();
    database(&world, "small.db", 1);
    let told = warnings(&backup(&world));
    assert!(told.contains("`channels.db` is empty"), "{told}");
    assert!(told.contains("`small.db` has 8192 bytes of "), "{told}");
    assert!(!told.contains("all in all"), "{told}");

    fs::remove_file(world.path("node/channels.db")).unwrap();
    fs::remove_dir_all(world.path("node/ancient")).unwrap();
    fs::remove_file(world.path("node/node.key")).unwrap();
    let told = warnings(&backup(&world));
    assert!(
        told.contains("all plain files are missing (2097159 bytes before)")
            && told.contains("all in all"),
        "{told}"
    );
    assert!(told.contains("`channels.db` is missing") && told.contains("`small.db` has"), "{told}");
}

#[test]
fn the_last_snapshot_before_a_loss_goes_only_by_name_and_that_is_said() {
    let (world, first) = whole();
    fs::remove_file(world.path("node/channels.db")).unwrap();
    let second = id(&backup(&world));
    let forgot = world.on_vault(&["forget", &first]).code(0).json();
    assert!(warnings(&forgot).contains(&second), "{forgot}");
    // What was lost is still known by the snapshot that lacks it.
    let third = backup(&world);
    assert!(warnings(&third).contains("`channels.db` is missing"), "{third}");
    status(&world).code(9);
    world.on_vault(&["forget", "--undo", &first]).code(0);
    assert!(kept(&world).0.contains(&first));
}
