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
               INSERT INTO vars VALUES ('data_version', 1700); \
               CREATE TABLE channels (id INTEGER PRIMARY KEY, next_index_local, next_index_remote, \
               full_channel_id BLOB); INSERT INTO channels VALUES (1, 5, 6, x'AA'), (2, 9, 9, x'BB');";
    database.execute_batch(sql).unwrap();
    world
}

fn write(world: &World) {
    let database = Connection::open(world.path("node/bitcoin/lightningd.sqlite3")).unwrap();
    let sql = "UPDATE vars SET intval = intval + 1 WHERE name = 'data_version'; \
               UPDATE channels SET next_index_local = next_index_local + 2 WHERE id = 1;";
    database.execute_batch(sql).unwrap();
}

#[test]
fn who_knows_no_flag_is_kept_from_starting_an_old_channel_node_and_told_why() {
    let world = world();
    let seen = world.run(&["inspect", "node", "--json"]).code(0).json();
    let [kind] = &seen["kinds"].as_array().unwrap()[..] else { panic!("{seen}") };
    assert_eq!((&kind["kind"], &kind["at"]), (&json!("core-lightning"), &json!("bitcoin")));
    assert_eq!(kind["lean"], json!(["bitcoin/gossip_store"]));
    assert_eq!((&seen["kind"], &seen["dangerous"]), (&json!("core-lightning"), &json!(true)));

    let first = world.on_vault(&["backup", "node"]).code(0).json();
    assert_eq!(first["kinds"], json!(["core-lightning"]), "{first}");
    assert_eq!((&first["kind"], &first["guarded"]), (&json!("core-lightning"), &json!(true)));
    // The sums over its channels stand beside the counter of the whole node.
    assert_eq!(first["marks"], json!({"data_version": 1700, "local": 14, "remote": 15}));
    assert_eq!(first["channels"], json!(2));
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
    let words = ["core-lightning", "revoked", "docs/nodes.md", "`data_version`", "1 below", "1701"];
    for word in words.into_iter().chain(["channel aa: `local` is 2 below the highest seen, 7"]) {
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

#[test]
fn the_marks_of_each_channel_are_shown_compared_and_summed() {
    let world = world();
    let first = world.on_vault(&["backup", "node"]).code(0).json();
    write(&world);
    let second = world.on_vault(&["backup", "node"]).code(0).json();
    let (first, second) =
        (first["snapshot"].as_str().unwrap(), second["snapshot"].as_str().unwrap());
    let shown = world.on_vault(&["show", second]).code(0).json();
    let channels = json!([
        {"id": "aa", "marks": {"local": 7, "remote": 6}},
        {"id": "bb", "marks": {"local": 9, "remote": 9}},
    ]);
    assert_eq!(shown["channels"], channels, "{shown}");
    let difference = world.on_vault(&["diff", first, second]).code(0).json();
    let moved = json!([{"id": "aa", "marks": {"local": {"from": 5, "to": 7}}}]);
    assert_eq!(difference["channels"], moved, "{difference}");
    assert_eq!(difference["marks"]["local"], json!({"from": 14, "to": 16}));
    let read = ["diff", first, second, "--vault", "vault", "--key-file", "key"];
    let told = world.run(&read).code(0).stdout;
    assert!(told.contains("channel aa: local 5 to 7") && !told.contains("channel bb"), "{told}");
    let status = world.on_vault(&["status"]).code(0).json();
    let node = &status["nodes"][0];
    let totals = json!({"data_version": 1701, "local": 16, "remote": 15});
    assert_eq!((&node["marks"], &node["channels"]), (&totals, &json!(2)), "{status}");
}

#[test]
fn parts_that_tell_of_one_instant_do_not_come_back_apart() {
    let world = world();
    let accounts = Connection::open(world.path("node/bitcoin/accounts.sqlite3")).unwrap();
    accounts.execute_batch("CREATE TABLE accounts (id); INSERT INTO accounts VALUES (1);").unwrap();
    drop(accounts);
    world.on_vault(&["backup", "node"]).code(0);
    let part = ["restore", "latest", "node", "--force", "--part", "bitcoin/accounts.sqlite3"];
    let refused = world.on_vault(&part).code(4);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("one instant"), "{said}");
    // The keys are no state of theirs, and an empty directory has nothing that they could contradict.
    let into = ["restore", "latest", "elsewhere", "--part", "bitcoin/accounts.sqlite3"];
    world.on_vault(&into).code(0);
    world.on_vault(&["restore", "latest", "node", "--force", "--part", "files"]).code(0);
}

/// A node that keeps LDK's store as files, with a database of something else beside it.
fn ldk(world: &World) {
    let channel = format!("{}_0", "ab".repeat(32));
    fs::create_dir_all(world.path("node/store/monitors")).unwrap();
    fs::write(world.path("node/store/manager"), "manager").unwrap();
    let monitor = [&[1_u8, 1][..], &7_u64.to_be_bytes(), &[7; 400]].concat();
    fs::write(world.path("node/store/monitors").join(channel), monitor).unwrap();
    let wallet = Connection::open(world.path("node/wallet.sqlite")).unwrap();
    wallet.execute_batch("CREATE TABLE wallet (id);").unwrap();
}

#[test]
fn a_node_of_files_is_held_back_by_what_it_needs_whatever_databases_stand_beside() {
    let world = World::with_vault();
    ldk(&world);
    let backup = world.on_vault(&["backup", "node"]).code(0).json();
    assert_eq!((&backup["kind"], &backup["channels"]), (&json!("ldk-filesystem"), &json!(1)));
    world.on_vault(&["restore", "latest", "elsewhere"]).code(0);
    let manager = world.path("elsewhere/store/manager");
    assert!(manager.is_dir() && world.path("elsewhere/wallet.sqlite").is_dir());
    world.run(&["guard", "release", "elsewhere", "--all", "--reason", "a test"]).code(0);
    assert_eq!(fs::read(&manager).unwrap(), b"manager");

    // What a rollback brings back is held back as well.
    world.on_vault(&["restore", "latest", "node", "--force"]).code(0);
    world.run(&["guard", "release", "node", "--all", "--reason", "a test"]).code(0);
    world.run(&["rollback", "node"]).code(0);
    assert!(world.path("node/store/manager").is_dir() && world.path("node/wallet.sqlite").is_dir());
}
