//! A node that the program knows, in the hands of somebody who knows no flag.

use std::fs;

use rusqlite::Connection;
use serde_json::json;

use crate::world::World;

/// A Core Lightning node in `node`.
fn world() -> World {
    let world = World::with_vault();
    let bitcoin = world.path("node/bitcoin");
    fs::create_dir_all(&bitcoin).unwrap();
    fs::write(bitcoin.join("hsm_secret"), [7; 32]).unwrap();
    fs::write(bitcoin.join("gossip_store"), "gossip").unwrap();
    let database = Connection::open(bitcoin.join("lightningd.sqlite3")).unwrap();
    let sql = "CREATE TABLE vars (name TEXT PRIMARY KEY, intval INTEGER); \
               INSERT INTO vars VALUES ('data_version', 1700);";
    database.execute_batch(sql).unwrap();
    world
}

fn write(world: &World) {
    let database = Connection::open(world.path("node/bitcoin/lightningd.sqlite3")).unwrap();
    let sql = "UPDATE vars SET intval = intval + 1 WHERE name = 'data_version'";
    assert_eq!(database.execute(sql, ()).unwrap(), 1);
}

#[test]
fn who_knows_no_flag_is_kept_from_starting_an_old_channel_node_and_told_why() {
    let world = world();
    let seen = world.run(&["inspect", "node", "--json"]).code(0).json();
    let [kind] = &seen["kinds"].as_array().unwrap()[..] else { panic!("{seen}") };
    assert_eq!((&kind["kind"], &kind["at"]), (&json!("core-lightning"), &json!("bitcoin")));
    assert_eq!(kind["lean"], json!(["bitcoin/gossip_store"]));

    let first = world.on_vault(&["backup", "node"]).code(0).json();
    assert_eq!(first["kinds"], json!(["core-lightning"]), "{first}");
    assert_eq!(
        (&first["guard"], &first["marks"]),
        (&json!("databases"), &json!({"data_version": 1700}))
    );
    write(&world);
    let told = world.run(&["backup", "node", "--vault", "vault", "--key-file", "key"]).code(0);
    assert!(
        told.stdout.contains("revoked") && told.stdout.contains("core-lightning"),
        "{}",
        told.stdout
    );

    // The older one of the two, over the node: what is new is not lost, and what is old does not start.
    let id = first["snapshot"].as_str().unwrap();
    let restore = ["restore", id, "node", "--force", "--vault", "vault", "--key-file", "key"];
    let restored = world.run(&restore).code(0);
    let said = format!("{}{}", restored.stdout, restored.stderr);
    for word in ["core-lightning", "revoked", "docs/nodes.md", "`data_version`", "1 below", "1701"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    let main = world.path("node/bitcoin/lightningd.sqlite3");
    assert!(main.is_dir(), "the database can be opened");
    assert!(Connection::open(&main).and_then(|db| db.execute("SELECT 1", ())).is_err());
    assert!(world.path("node/bitcoin/hsm_secret").is_file());
    world.run(&["guard", "release", "node", "--all", "--reason", "a test"]).code(10);
    world
        .run(&["guard", "release", "node", "--all", "--although-old", "--reason", "a test"])
        .code(0);
    assert!(main.is_file());
}

#[test]
fn the_way_out_needs_a_reason_which_is_recorded() {
    let world = world();
    world.on_vault(&["backup", "node", "--unguarded", " "]).code(2);
    let reason = "a node of the test network, without channels";
    let backup = world.on_vault(&["backup", "node", "--unguarded", reason]).code(0).json();
    assert_eq!(backup["guard"], json!(null));
    let shown = world.on_vault(&["show", "latest"]).code(0).json();
    assert_eq!(shown["tags"]["unguarded"], json!(reason), "{shown}");
    assert_eq!(shown["kinds"], json!(["core-lightning"]));
    world.on_vault(&["restore", "latest", "elsewhere"]).code(0);
    assert!(world.path("elsewhere/bitcoin/lightningd.sqlite3").is_file());
}

#[test]
fn what_a_known_node_fetches_again_is_left_out_on_request() {
    let world = world();
    world.on_vault(&["backup", "node", "--lean"]).code(0);
    world.on_vault(&["restore", "latest", "elsewhere"]).code(0);
    assert!(!world.path("elsewhere/bitcoin/gossip_store").exists());
    assert!(world.path("elsewhere/bitcoin/hsm_secret").is_file());
    // What is known of nobody has nothing to leave out.
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("other/file"), "content").unwrap();
    world.on_vault(&["backup", "other", "--lean"]).code(2);
}
