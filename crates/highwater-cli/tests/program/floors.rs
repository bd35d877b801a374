//! Validators that come back from an old copy: they don't start, and go on above a floor.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::world::{Answered, World};

const STATE: &str = "node/data/priv_validator_state.json";
const REASON: [&str; 2] = ["--reason", "the disk died"];

/// A CometBFT validator in `node`.
fn validator() -> World {
    let world = World::with_vault();
    for dir in ["node/config", "node/data"] {
        fs::create_dir_all(world.path(dir)).unwrap();
    }
    fs::write(world.path("node/config/priv_validator_key.json"), "{}").unwrap();
    sign(&world, 1_234_567);
    world
}

/// It signs this height.
fn sign(world: &World, height: u64) {
    let state = format!(
        "{{\n  \"height\": \"{height}\",\n  \"round\": 0,\n  \"step\": 3,\n  \"signature\": \"c2ln\",\n  \
         \"signbytes\": \"AB\"\n}}"
    );
    let path = world.path(STATE);
    fs::write(&path, state).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
}

fn state(world: &World, path: &str) -> Value {
    serde_json::from_slice(&fs::read(world.path(path)).unwrap()).unwrap()
}

/// Backs up twice, fifty blocks apart, and restores the older one to `target`.
fn fifty_blocks_back(world: &World, target: &str) {
    let first = world.on_vault(&["backup", "node"]).code(0).json();
    assert_eq!(
        (&first["guard"], &first["marks"]),
        (&json!("databases"), &json!({"height": 1_234_567}))
    );
    sign(world, 1_234_617);
    world.on_vault(&["backup", "node"]).code(0);
    let id = first["snapshot"].as_str().unwrap();
    world.on_vault(&["restore", id, target, "--force"]).code(0);
    assert!(fs::read(world.path(&format!("{target}/data/priv_validator_state.json"))).is_err());
}

fn release(world: &World, dir: &str, flags: &[&str]) -> Answered {
    let words = ["guard", "release", dir, "--all", "--json"];
    world.run(&[&words[..], &REASON, flags].concat())
}

#[test]
fn a_validator_restored_fifty_blocks_back_is_let_go_above_a_floor_alone() {
    let world = validator();
    fifty_blocks_back(&world, "node");
    // Neither by itself nor for a reason, be it as good as it may.
    world.run(&["guard", "wait", "node", "--timeout", "0"]).code(10);
    for flags in [&[][..], &["--although-old"]] {
        let refused = release(&world, "node", flags).code(10).error("quarantined");
        let error = &refused["error"];
        assert_eq!(error["entry"], "data/priv_validator_state.json");
        assert!(error["hint"].as_str().unwrap().contains("--floor height=N"), "{error}");
    }
    // The chain is further than that: the vault knows.
    release(&world, "node", &["--floor", "height=1234600"]).code(2).error("input");
    release(&world, "node", &["--floor", "level=1234700"]).code(2).error("input");

    let released = release(&world, "node", &["--floor", "height=1234650"]).code(0).json();
    let [floor] = &released["floors"].as_array().unwrap()[..] else { panic!("{released}") };
    assert_eq!(floor["file"], "data/priv_validator_state.json");
    // It waited with what the vault has seen, not with what the copy remembers.
    assert_eq!(floor["from"], json!({"height": 1_234_617, "round": 0, "step": 0}));
    let to = json!({"height": 1_234_651, "round": 2_147_483_647, "step": 3});
    assert_eq!((&floor["to"], &floor["basis"]), (&to, &json!("latest")));
    let to = json!({"height": "1234651", "round": 2_147_483_647, "step": 3});
    assert_eq!(state(&world, STATE), to);
    let found = fs::metadata(world.path(STATE)).unwrap();
    let dir = fs::metadata(world.path("node")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o640, dir.uid(), dir.gid()));

    // It is recorded, and repeating it is as good.
    let shown = world.run(&["guard", "show", "node", "--json"]).code(0).json();
    let recorded = shown["last"]["floors"].as_array().unwrap();
    assert_eq!((recorded.len(), &recorded[0]["basis"]), (2, &json!("seen")), "{shown}");
    assert_eq!((&recorded[0]["from"]["height"], &recorded[1]), (&json!(1_234_567), floor));
    let shown = world.run(&["guard", "show", "node"]).code(0).stdout;
    assert!(shown.contains("height 1234617 to 1234651"), "{shown}");
    let again = release(&world, "node", &["--floor", "height=1234650"]).code(0).json();
    assert_eq!((&again["floors"], &again["released"]), (&released["floors"], &json!([])));
}

#[test]
fn a_copy_on_another_machine_asks_whether_the_original_is_gone() {
    let world = validator();
    fifty_blocks_back(&world, "elsewhere");
    let floor = ["--floor", "height=1234650"];
    let refused = release(&world, "elsewhere", &floor).code(10).error("quarantined");
    assert!(refused["error"]["hint"].as_str().unwrap().contains("--original-gone"), "{refused}");
    let gone = ["--original-gone", "its disk was shredded"];
    release(&world, "elsewhere", &[&floor[..], &gone].concat()).code(0);
    let path = "elsewhere/data/priv_validator_state.json";
    assert_eq!(state(&world, path)["height"], "1234651");
    let last = fs::read_to_string(world.path("elsewhere/.highwater/quarantine.last.json")).unwrap();
    assert!(last.contains("its disk was shredded"), "{last}");
}

#[test]
fn a_chain_that_was_reset_and_a_validator_alone_have_ways_of_their_own() {
    let world = validator();
    fifty_blocks_back(&world, "node");
    let alone = ["--accept-floor", "it validates alone", "--floor", "height=1234617"];
    release(&world, "node", &alone).code(10).error("quarantined");
    let flags = [&alone[..], &["--floor", "round=4"]].concat();
    release(&world, "node", &[&flags[..], &["--new-chain", "both"]].concat()).code(2);
    let released = release(&world, "node", &flags).code(0).json();
    assert_eq!(released["floors"][0]["basis"], "accepted");
    assert_eq!(released["floors"][0]["reason"], "it validates alone");
    assert_eq!(state(&world, STATE), json!({"height": "1234617", "round": 4, "step": 3}));

    let world = validator();
    fifty_blocks_back(&world, "node");
    let released = release(&world, "node", &["--new-chain", "a test network"]).code(0).json();
    assert_eq!(released["floors"][0]["basis"], "new_chain");
    assert_eq!(state(&world, STATE), json!({"height": "0", "round": 0, "step": 0}));
}

#[test]
fn a_floor_of_what_is_no_signer_is_an_error() {
    let world = World::with_vault();
    fs::create_dir(world.path("node")).unwrap();
    fs::write(world.path("node/file"), "content").unwrap();
    world.on_vault(&["backup", "node", "--guarded"]).code(0);
    world.on_vault(&["restore", "latest", "target"]).code(0);
    release(&world, "target", &["--floor", "height=5"]).code(2).error("input");
    release(&world, "target", &["--new-chain", "why not"]).code(2).error("input");
    assert_eq!(release(&world, "target", &[]).code(0).json()["floors"], json!([]));
    release(&world, "target", &["--floor", "height=5"]).code(4).error("conflict");
}

/// Lighthouse's tables, as `validator_client/slashing_protection` makes them.
const TABLES: &str = "CREATE TABLE validators (id INTEGER PRIMARY KEY, public_key BLOB NOT NULL UNIQUE, \
     enabled BOOL NOT NULL DEFAULT TRUE); \
     CREATE TABLE signed_blocks (validator_id INTEGER NOT NULL, slot INTEGER NOT NULL, \
     signing_root BLOB NOT NULL, FOREIGN KEY (validator_id) REFERENCES validators (id), \
     UNIQUE (validator_id, slot)); \
     CREATE TABLE signed_attestations (validator_id INTEGER, source_epoch INTEGER NOT NULL, \
     target_epoch INTEGER NOT NULL, signing_root BLOB NOT NULL, \
     FOREIGN KEY (validator_id) REFERENCES validators (id), UNIQUE (validator_id, target_epoch));";

fn rows(world: &World, sql: &str) -> Vec<(i64, i64)> {
    let database = world.path("node/validators/slashing_protection.sqlite");
    let database = Connection::open(database).unwrap();
    let mut found = database.prepare(sql).unwrap();
    let rows = found.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn validators_of_lighthouse_are_let_go_above_a_slot_and_an_epoch() {
    let world = World::with_vault();
    fs::create_dir_all(world.path("node/validators")).unwrap();
    let path = world.path("node/validators/slashing_protection.sqlite");
    let database = Connection::open(&path).unwrap();
    database.execute_batch(TABLES).unwrap();
    let (one, two) = ("a1".repeat(48), "b2".repeat(48));
    for (id, key) in [(1, &one), (2, &two)] {
        let sql = "INSERT INTO validators (id, public_key) VALUES (?1, ?2)";
        database.execute(sql, (id, format!("0x{key}"))).unwrap();
    }
    let signed = "INSERT INTO signed_blocks VALUES (1, 320, zeroblob(32)); \
                  INSERT INTO signed_attestations VALUES (1, 9, 10, zeroblob(32));";
    database.execute_batch(signed).unwrap();
    drop(database);
    let first = world.on_vault(&["backup", "node"]).code(0).json();
    // The sums over all keys: one of them has signed.
    let mark = |kind: &str| &first["marks"][kind];
    assert_eq!(
        (mark("slot"), mark("source"), mark("target")),
        (&json!(320), &json!(9), &json!(10))
    );
    let database = Connection::open(&path).unwrap();
    database.execute("INSERT INTO signed_blocks VALUES (1, 352, zeroblob(32))", ()).unwrap();
    drop(database);
    world.on_vault(&["backup", "node"]).code(0);
    let id = first["snapshot"].as_str().unwrap();
    world.on_vault(&["restore", id, "node", "--force"]).code(0);
    assert!(path.is_dir(), "the database can be opened");

    let refused = release(&world, "node", &[]).code(10).error("quarantined");
    let hint = refused["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("--floor slot=N --floor epoch=N"), "{hint}");
    release(&world, "node", &["--floor", "slot=350", "--floor", "epoch=12"]).code(2).error("input");
    let floor = ["--floor", "slot=400", "--floor", "epoch=12"];
    let released = release(&world, "node", &floor).code(0).json();
    let to = json!({"slot": 400, "source": 12, "target": 12, "validators": 2});
    assert_eq!(released["floors"][0]["to"], to, "{released}");
    let blocks = rows(&world, "SELECT validator_id, slot FROM signed_blocks ORDER BY 1");
    assert_eq!(blocks, [(1, 400), (2, 400)]);
    let votes = rows(&world, "SELECT source_epoch, target_epoch FROM signed_attestations");
    assert_eq!(votes, [(12, 12), (12, 12)]);
}

#[test]
fn a_release_killed_anywhere_lets_nothing_go_below_its_floor() {
    use std::os::unix::process::ExitStatusExt as _;
    let world = validator();
    fifty_blocks_back(&world, "node");
    let words = ["guard", "release", "node", "--all", "--floor", "height=1234650", "--json"];
    let words = [&words[..], &REASON].concat();
    let model = world.path("model");
    crate::tree::copy(&world.path("node"), &model);
    let mut killed = std::collections::BTreeMap::new();
    for point in ["guard.latch", "guard.floor", "guard.release"] {
        for count in 1.. {
            fs::remove_dir_all(world.path("node")).unwrap();
            crate::tree::copy(&model, &world.path("node"));
            let mut command = world.command(&words);
            command.env("HIGHWATER_FAULT_POINT", point);
            command.env("HIGHWATER_FAULT_COUNT", count.to_string());
            let ran = command.env("HIGHWATER_FAULT_ACTION", "kill").output().unwrap();
            // Whatever is back is above the floor.
            if let Ok(file) = fs::read(world.path(STATE)) {
                let state: Value = serde_json::from_slice(&file).unwrap();
                assert_eq!(state["height"], "1234651", "{point} {count}");
            }
            if ran.status.signal() != Some(9) {
                assert!(ran.status.success());
                break;
            }
            *killed.entry(point).or_insert(0) += 1;
            world.run(&words).code(0);
            assert_eq!(state(&world, STATE)["height"], "1234651", "{point} {count}");
        }
    }
    assert_eq!(killed.len(), 3, "{killed:?}");
}
