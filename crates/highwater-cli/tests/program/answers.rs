//! The documents of the commands that only look.

use serde_json::{Value, json};

use crate::world::World;

#[test]
fn snapshots_and_show_agree() {
    let world = World::with_node();
    let backup =
        world.on_vault(&["backup", "node", "--tag", "a=b", "--schema", "3"]).code(0).json();
    let list = world.on_vault(&["snapshots"]).code(0).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    for field in ["snapshot", "node", "bytes_total", "bytes_stored", "marks"] {
        assert_eq!(list[0][field], backup[field], "{field}");
    }
    assert_eq!((&list[0]["level"], &list[0]["tags"]), (&json!("sealed"), &json!({"a": "b"})));
    assert!(list[0]["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    let shown = world.on_vault(&["show", "latest"]).code(0).json();
    assert_eq!(shown["snapshot"], backup["snapshot"]);
    assert_eq!(shown["schema"], 3);
    assert_eq!(world.on_vault(&["snapshots", "--node", "other"]).code(0).json(), json!([]));
}

#[test]
fn diff_names_what_was_added_removed_and_changed() {
    let world = World::with_node();
    let write = |name: &str, text: &str| std::fs::write(world.path(name), text).expect("a file");
    write("node/goes", "goes");
    write("node/changes", "before");
    let first = world.on_vault(&["backup", "node", "--mark", "height=7"]).code(0).json();
    std::fs::remove_file(world.path("node/goes")).expect("a file");
    write("node/comes", "comes");
    write("node/changes", "after it");
    let second = world.on_vault(&["backup", "node", "--mark", "height=9"]).code(0).json();
    let ids = [&first, &second].map(|backup| backup["snapshot"].as_str().expect("an id"));
    let diff = world.on_vault(&["diff", ids[0], ids[1]]).code(0).json();
    assert_eq!(diff["files"]["added"], json!(["comes"]));
    assert_eq!(diff["files"]["removed"], json!(["goes"]));
    let changed = json!([{"path": "changes", "content": true, "bytes": 8}]);
    assert_eq!(diff["files"]["changed"], changed);
    assert_eq!(diff["marks"], json!({"height": {"from": 7, "to": 9}}));
    let none = world.on_vault(&["diff", "latest", "latest"]).code(0).json();
    assert_eq!(none["files"], json!({"added": [], "removed": [], "changed": []}));
}

#[test]
fn status_tells_age_and_exits_with_9_once_it_is_too_old() {
    let world = World::with_node();
    let empty = world.on_vault(&["status", "--max-age", "26h"]).code(9).json();
    assert_eq!(empty["nodes"], json!([]), "no backup at all is none that is fresh");
    let backup = world.on_vault(&["backup", "node"]).code(0).json();
    let fresh = world.on_vault(&["status", "--max-age", "26h"]).code(0).json();
    let node = &fresh["nodes"][0];
    assert_eq!((&node["node"], &node["newest"]), (&json!("node"), &backup["snapshot"]));
    assert_eq!((&node["level"], &node["stale"]), (&json!("sealed"), &json!(false)));
    assert!(node["age_seconds"].is_u64());
    let stale = world.on_vault(&["status", "--max-age", "0"]).code(9).json();
    assert_eq!(stale["nodes"][0]["stale"], true);
    world.on_vault(&["status"]).code(0);
}

#[test]
fn check_passes_and_finds_a_flipped_byte() {
    let world = World::with_node();
    world.on_vault(&["backup", "node"]).code(0);
    let good = world.on_vault(&["check", "--read-data"]).code(0).json();
    assert_eq!((&good["ok"], &good["snapshots"]), (&json!(true), &json!(1)));
    assert!(good["chunks"].as_u64().is_some_and(|chunks| chunks > 0));
    assert_eq!(good["errors"], json!([]));

    flip_a_byte_of_a_pack(&world);
    let bad = world.on_vault(&["check", "--read-data"]).code(5).json();
    assert_eq!(bad["ok"], false);
    let error = &bad["errors"][0];
    assert!(error["entry"].is_string() && error["problem"].is_string(), "{bad}");
    let refused = world.on_vault(&["restore", "latest", "again"]).code(5).error("corrupt");
    assert!(refused["error"]["entry"].is_string(), "{refused}");
    assert!(!world.path("again").exists());
}

#[test]
fn one_part_comes_back_alone_and_a_time_selects() {
    let world = World::with_node();
    let first = world.on_vault(&["backup", "node"]).code(0).json();
    let write = |name: &str, text: &str| std::fs::write(world.path(name), text).expect("a file");
    write("node/kept", "stays as it is");
    world.on_vault(&["backup", "node"]).code(0);
    let list = world.on_vault(&["snapshots"]).code(0).json();
    let parts: Vec<&str> = first["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .filter(|part| part["engine"] == "sqlite")
        .map(|part| part["name"].as_str().expect("a name"))
        .collect();
    let database = world.path("node").join(parts[0]);
    std::fs::write(&database, "not a database any more").expect("damage");
    let beside = |suffix: &str| world.path("node").join(format!("{}{suffix}", parts[0]));
    for suffix in ["-wal", "-shm", "-journal"] {
        std::fs::write(beside(suffix), "of a database that is no more").expect("a leftover");
    }
    write("node/kept", "as the node left it");
    let mode = std::fs::metadata(world.path("node")).expect("a node").permissions();
    world.on_vault(&["restore", "latest", "node", "--part", parts[0]]).code(4).error("conflict");
    world.on_vault(&["restore", "latest", "node", "--part", parts[0], "--force"]).code(0);
    assert_eq!(std::fs::metadata(world.path("node")).expect("a node").permissions(), mode);
    let kept = std::fs::read_to_string(world.path("node/kept")).expect("a file");
    assert_eq!(kept, "as the node left it");
    assert!(std::fs::read(&database).expect("a database").starts_with(b"SQLite format 3"));
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(!beside(suffix).exists(), "{suffix} of the old database met the restored one");
    }
    world.on_vault(&["restore", "latest", "x", "--part", "no such part"]).code(3);
    let before = list[0]["time"].as_str().expect("a time");
    let old = world.on_vault(&["restore", "latest", "x", "--before", before]).code(0).json();
    assert_eq!(old["snapshot"], first["snapshot"]);
    let never = ["restore", "latest", "y", "--before", "2020-01-01T00:00:00Z"];
    world.on_vault(&never).code(3).error("not_found");
}

/// What stays is copied as it is: holes are not filled, and what is not copied is told.
#[test]
fn what_stays_beside_a_part_keeps_its_holes() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let world = World::with_node();
    let sparse = world.path("node/preallocated");
    let file = std::fs::File::create(&sparse).expect("a file");
    file.set_len(1 << 30).expect("a length");
    file.write_all_at(b"begin", 0).expect("content");
    file.write_all_at(b"middle", 600 << 20).expect("content");
    drop(file);
    let first = world.on_vault(&["backup", "node", "--no-barrier"]).code(0).json();
    let parts = first["parts"].as_array().expect("parts").iter();
    let part = parts.filter(|part| part["engine"] == "sqlite").map(|part| part["name"].clone());
    let part = part.max_by_key(Value::to_string).expect("a database");
    let _socket = std::os::unix::net::UnixListener::bind(world.path("node/rpc")).expect("a socket");
    let part = part.as_str().expect("a name");
    let answer = world.on_vault(&["restore", "latest", "node", "--part", part, "--force"]).code(0);
    let warnings = answer.json()["warnings"].to_string();
    assert!(warnings.contains("rpc: a socket, pipe or device is not restored"), "{warnings}");
    let stored = std::fs::metadata(&sparse).expect("a file");
    assert_eq!(stored.len(), 1 << 30);
    assert!(stored.blocks() * 512 < 1 << 20, "{} bytes are stored", stored.blocks() * 512);
    let file = std::fs::File::open(&sparse).expect("a file");
    let mut middle = [0; 6];
    file.read_exact_at(&mut middle, 600 << 20).expect("content");
    assert_eq!(&middle, b"middle");
}

/// Who looks for what is not there is told what is.
#[test]
fn lookups_that_fail_name_what_there_is() {
    let world = World::with_node();
    world.on_vault(&["backup", "node", "--no-barrier"]).code(0);
    // The only node needs no name.
    assert_eq!(world.on_vault(&["owner", "show"]).code(0).json()["node"], "node");
    let said = |answer: Value| answer["error"]["message"].as_str().expect("a message").to_owned();
    let unknown = world.on_vault(&["restore", "latest", "x", "--node", "nod"]).code(3);
    assert_eq!(said(unknown.error("not_found")), "the vault knows no node nod: node");
    let never = ["restore", "latest", "x", "--before", "2020-01-01T00:00:00Z"];
    assert!(said(world.on_vault(&never).code(3).error("not_found")).contains("the oldest, "));
    // A directory that is hidden gives its name without the dot.
    std::fs::create_dir(world.path(".lightning")).expect("a directory");
    std::fs::write(world.path(".lightning/key"), "secret").expect("a file");
    let hidden = world.on_vault(&["backup", ".lightning"]).code(0).json();
    assert_eq!(hidden["node"], "lightning");
    let several = world.on_vault(&["owner", "show"]).code(2).error("input");
    assert_eq!(said(several), "the vault holds several nodes: lightning, node");
}

#[test]
fn a_schema_that_the_node_does_not_know_is_refused_and_an_older_one_told() {
    let world = World::with_node();
    world.on_vault(&["backup", "node", "--schema", "7"]).code(0);
    let restore = |target: &str, schema: &str| {
        world.on_vault(&["restore", "latest", target, "--schema", schema])
    };
    restore("a", "6").code(4).error("conflict");
    assert!(!world.path("a").exists());
    assert_eq!(restore("b", "7").code(0).json()["warnings"], json!([]));
    let older = restore("c", "8").code(0).json();
    assert!(older["warnings"].to_string().contains("older"), "{older}");
}

#[test]
fn a_restore_test_raises_the_level() {
    let world = World::with_node();
    world.on_vault(&["backup", "node"]).code(0);
    world.on_vault(&["restore", "latest", "again", "--require", "restored"]).code(3);
    std::fs::create_dir(world.path("scratch")).expect("a directory");
    world.on_vault(&["check", "--restore-test", "--scratch", "scratch"]).code(0);
    assert_eq!(std::fs::read_dir(world.path("scratch")).expect("a directory").count(), 0);
    assert_eq!(world.on_vault(&["snapshots"]).code(0).json()[0]["level"], "restored");
    world.on_vault(&["restore", "latest", "again", "--require", "restored"]).code(0);
}

#[test]
fn another_writer_is_fenced_until_it_takes_over() {
    let world = World::with_node();
    world.on_vault(&["backup", "node"]).code(0);
    let elsewhere = |arguments: &[&str]| {
        let vault = ["--vault", "vault", "--key-file", "key", "--json"];
        let mut command = world.command(&[arguments, &vault].concat());
        let command = command.env("HIGHWATER_STATE_DIR", world.path("elsewhere"));
        crate::world::answered(command.output().expect("the program starts"))
    };
    elsewhere(&["backup", "node"]).code(6).error("fenced");
    let owner = elsewhere(&["owner", "show", "--node", "node"]).code(0).json();
    assert_eq!((&owner["ours"], &owner["epoch"]), (&json!(false), &json!(1)));
    let reason = ["owner", "take-over", "--node", "node", "--reason", "the other machine died"];
    let taken = elsewhere(&reason).code(0).json();
    assert_eq!(
        (&taken["ours"], &taken["reason"]),
        (&json!(true), &json!("the other machine died"))
    );
    elsewhere(&["backup", "node"]).code(0);
    world.on_vault(&["backup", "node"]).code(6).error("fenced");
}

/// In the middle of the largest object below `packs/`.
fn flip_a_byte_of_a_pack(world: &World) {
    let mut dirs = vec![world.path("vault/packs")];
    let mut packs = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { dirs.push(path) } else { packs.push(path) }
        }
    }
    let size = |path: &std::path::PathBuf| path.metadata().expect("a pack").len();
    let pack = packs.into_iter().max_by_key(size).expect("a pack");
    let mut bytes = std::fs::read(&pack).expect("a pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&pack).expect("a pack");
    std::fs::write(&pack, bytes).expect("a pack");
}

/// A database that was damaged before it was captured: sealed faithfully, and found by the engine.
#[test]
fn a_snapshot_that_failed_a_restore_test_is_never_the_latest() {
    let world = World::with_node();
    let good = world.on_vault(&["backup", "node"]).code(0).json();
    let path = world.path("node/more.sqlite");
    let database = rusqlite::Connection::open(&path).expect("a database");
    let rows = "CREATE TABLE t(a TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 \
                FROM n WHERE i < 2000) INSERT INTO t SELECT 'row ' || i FROM n;";
    database.execute_batch(rows).expect("rows");
    database.close().expect("closed");
    let mut bytes = std::fs::read(&path).expect("its bytes");
    bytes[3 * 4096..4 * 4096].fill(0xff);
    std::fs::write(&path, bytes).expect("damage");
    let bad = world.on_vault(&["backup", "node"]).code(0).json();
    world.on_vault(&["check", "--read-data"]).code(0);
    let found = world.on_vault(&["check", "--restore-test"]).code(5).stdout;
    assert!(found.contains("more.sqlite"), "{found}");
    assert_eq!(world.on_vault(&["snapshots"]).code(0).json()[1]["level"], "failed");
    let restored = world.on_vault(&["restore", "latest", "again"]).code(0).json();
    assert_eq!(restored["snapshot"], good["snapshot"]);
    let id = bad["snapshot"].as_str().expect("an id");
    let asked = world.on_vault(&["restore", id, "asked"]).code(0).json();
    assert!(asked["warnings"].to_string().contains("failed a restore test"), "{asked}");
}

/// A machine that was cloned has the same writer id twice: of the two, the first to back up goes on.
#[test]
fn a_clone_of_the_machine_is_fenced_once_the_other_has_written() {
    let world = World::with_node();
    let from = |state: &str| {
        let arguments = ["backup", "node", "--vault", "vault", "--key-file", "key", "--json"];
        let mut command = world.command(&arguments);
        command.env("HIGHWATER_STATE_DIR", world.path(state));
        crate::world::answered(command.output().expect("the program starts"))
    };
    from("original").code(0);
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([world.path("original"), world.path("clone")])
        .status();
    assert!(copied.expect("cp runs").success());
    from("original").code(0);
    let error = from("clone").code(6).error("fenced");
    assert!(error["error"]["message"].to_string().contains("cloned"), "{error}");
    from("original").code(0);
    let reason = ["owner", "take-over", "--node", "node", "--reason", "the clone goes on"];
    let arguments = [&reason[..], &["--vault", "vault", "--key-file", "key", "--json"]].concat();
    let mut command = world.command(&arguments);
    command.env("HIGHWATER_STATE_DIR", world.path("clone"));
    crate::world::answered(command.output().expect("the program starts")).code(0);
    from("clone").code(0);
    from("original").code(6).error("fenced");
}

/// A vault that lost its newest manifest, half of a copy say, must not pass older state for new.
#[test]
fn the_latest_is_refused_where_the_newest_is_missing() {
    let world = World::with_node();
    let first = world.on_vault(&["backup", "node"]).code(0).json();
    world.on_vault(&["backup", "node"]).code(0);
    let manifests = world.path("vault/snapshots/node");
    let names = std::fs::read_dir(&manifests).expect("manifests");
    let newest = names.map(|name| name.expect("a name").path()).max().expect("a manifest");
    std::fs::remove_file(newest).expect("removed");
    world.on_vault(&["restore", "latest", "again"]).code(5).error("corrupt");
    assert!(!world.path("again").exists());
    let status = world.on_vault(&["status"]).code(0).json();
    assert!(status["warnings"].to_string().contains("missing"), "{status}");
    let id = first["snapshot"].as_str().expect("an id");
    world.on_vault(&["restore", id, "again"]).code(0);
    let next = world.on_vault(&["backup", "node"]).code(0).json();
    assert_eq!(next["seq"], 3);
    assert!(next["warnings"].to_string().contains("missing"), "{next}");
    world.on_vault(&["restore", "latest", "newest"]).code(0);
}

#[test]
fn a_backup_builds_on_nothing_that_is_missing_or_damaged() {
    let world = World::with_node();
    world.on_vault(&["backup", "node"]).code(0);
    let packs = crate::world::files_below(&world.path("vault/packs"));
    let largest = packs.iter().max_by_key(|path| path.metadata().expect("a pack").len());
    let largest = largest.expect("a pack");
    let mut bytes = std::fs::read(largest).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(largest, bytes).expect("damage");
    world.on_vault(&["backup", "node", "--full"]).code(0);
    world.on_vault(&["restore", "latest", "healed"]).code(0);
    for pack in crate::world::files_below(&world.path("vault/packs")) {
        std::fs::remove_file(pack).expect("a pack is lost");
    }
    let anew = world.on_vault(&["backup", "node"]).code(0).json();
    assert!(anew["warnings"].to_string().contains("stored anew"), "{anew}");
    assert!(anew["parent"].is_null(), "{anew}");
    world.on_vault(&["restore", "latest", "again"]).code(0);
}

/// What another program calls `.highwater-…` is the node's, and a refused command changes nothing.
#[test]
fn only_our_own_directories_are_left_out_and_a_refused_adoption_changes_nothing() {
    let world = World::with_node();
    std::fs::create_dir_all(world.path("node/sub/.highwater-keys")).expect("a directory");
    std::fs::write(world.path("node/sub/.highwater-keys/k"), "kept").expect("a file");
    world.on_vault(&["backup", "node"]).code(0);
    world.on_vault(&["restore", "latest", "again"]).code(0);
    let kept = std::fs::read_to_string(world.path("again/sub/.highwater-keys/k"));
    assert_eq!(kept.expect("the file"), "kept");
    std::fs::create_dir(world.path("other")).expect("a directory");
    std::fs::write(world.path("other/a"), "a").expect("a file");
    world.on_vault(&["backup", "other"]).code(0);
    let before = std::fs::read(world.path("other/.highwater/node.json")).expect("a node file");
    let arguments = ["backup", "other", "--node", "node", "--adopt"];
    let vault = ["--vault", "vault", "--key-file", "key", "--json"];
    let mut command = world.command(&[&arguments[..], &vault].concat());
    command.env("HIGHWATER_STATE_DIR", world.path("elsewhere"));
    crate::world::answered(command.output().expect("the program starts")).code(6);
    let after = std::fs::read(world.path("other/.highwater/node.json")).expect("a node file");
    assert_eq!(before, after);
}
