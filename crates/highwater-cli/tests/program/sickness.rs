//! What is sick is said: a clock, a mark that went back, a process in the way, a path that leads
//! nowhere, a name that is not the node's.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater::Control;
use highwater::backup::{self, BackupOptions};
use highwater::env::{Clock, Env};
use highwater::ids::Time;
use highwater::vault::{Actor, Location, Secret, Vault};
use serde_json::{Value, json};

use crate::world::World;

/// A day ahead.
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> Time {
        Time::from_nanos(Env::system().now().as_nanos() + 86_400 * 1_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Env::system().monotonic()
    }

    fn pause(&self, duration: Duration) {
        Env::system().pause(duration);
    }
}

/// A node of one plain file.
fn world() -> World {
    let world = World::with_vault();
    fs::create_dir(world.path("node")).unwrap();
    fs::write(world.path("node/state"), "state").unwrap();
    world
}

fn backup(world: &World, more: &[&str]) -> Value {
    world.on_vault(&[&["backup", "node"], more].concat()).code(0).json()
}

fn back_up_under_a_clock_that_is_ahead(world: &World) {
    let location: Location = world.path("vault").to_str().unwrap().parse().unwrap();
    let env = Env::system().with_clock(Ahead);
    let secret = Secret::from_key_file(&world.path("key")).unwrap();
    let vault = Vault::open_with(&location, &secret, &env).unwrap();
    let actor = Actor { state_dir: world.path("state"), name: "a test".to_owned() };
    let options = BackupOptions::default();
    backup::run(&vault, &world.path("node"), &actor, &options, &Control::new(env)).unwrap();
}

#[test]
fn a_newest_snapshot_of_the_future_is_stale() {
    let world = world();
    back_up_under_a_clock_that_is_ahead(&world);
    let stale = world.on_vault(&["status", "--max-age", "26h"]).code(9).json();
    let node = &stale["nodes"][0];
    assert_eq!((&node["stale"], &node["reasons"]), (&json!(true), &json!(["future"])), "{stale}");
    assert_eq!(node["age_seconds"], Value::Null);
    assert!(stale["warnings"].to_string().contains("is dated in the future"), "{stale}");
    // Who asks for no age is told all the same.
    let told = world.on_vault(&["status"]).code(0).json();
    assert!(told["warnings"].to_string().contains("is dated in the future"), "{told}");
}

#[test]
fn a_mark_below_the_highest_one_is_told_with_both_numbers() {
    let world = world();
    assert_eq!(backup(&world, &["--mark", "height=10"])["warnings"], json!([]));
    let told = backup(&world, &["--mark", "height=7"])["warnings"].to_string();
    assert!(told.contains("`height` is 7") && told.contains("below 10"), "{told}");
    assert_eq!(backup(&world, &["--mark", "height=10"])["warnings"], json!([]));
}

#[test]
fn what_a_backup_has_stored_is_told_with_its_manifest() {
    let world = world();
    backup(&world, &[]);
    let second = backup(&world, &[]);
    let name = second["snapshot"].as_str().unwrap();
    let manifests = crate::world::files_below(&world.path("vault/snapshots"));
    let manifest = manifests.iter().find(|path| path.to_str().unwrap().contains(name)).unwrap();
    assert_eq!(second["bytes_stored"], fs::metadata(manifest).unwrap().len(), "{second}");
    let listed = world.on_vault(&["snapshots"]).code(0).json();
    assert_eq!(listed[1]["bytes_stored"], second["bytes_stored"], "{listed}");
    let shown = world.on_vault(&["show", name]).code(0).json();
    assert_eq!(shown["bytes_stored"], second["bytes_stored"], "{shown}");
}

/// A process that has a file open until its standard input is closed.
fn holder(world: &World, file: &str) -> Child {
    let script = r#"exec 3<"$0" && echo open && read end"#;
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(world.path(file))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    child
}

#[test]
fn a_plan_names_what_would_refuse_the_restore() {
    let world = world();
    backup(&world, &[]);
    let mut holder = holder(&world, "node/state");
    let id = format!("(pid {})", holder.id());
    let restore = ["restore", "latest", "node"];
    let plan = world.on_vault(&[&restore[..], &["--plan"]].concat()).code(0).json();
    let told = plan["warnings"].to_string();
    assert!(told.contains("not empty") && told.contains("--force"), "{told}");
    assert!(told.contains(&id) && told.contains("stop the node first"), "{told}");
    let forced = world.on_vault(&[&restore[..], &["--plan", "--force"]].concat()).code(0).json();
    let told = forced["warnings"].to_string();
    assert!(told.contains(&id) && !told.contains("not empty"), "{told}");
    world.on_vault(&restore).code(4).error("conflict");
    world.on_vault(&[&restore[..], &["--force"]].concat()).code(4).error("conflict");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let free = world.on_vault(&[&restore[..], &["--plan", "--force"]].concat()).code(0).json();
    assert_eq!(free["warnings"], json!([]), "{free}");
}

#[test]
fn there_is_nothing_to_recover_where_no_node_directory_is() {
    let world = world();
    world.run(&["recover", "nope", "--json"]).code(3).error("not_found");
    world.run(&["recover", "no/pe", "--json"]).code(3).error("not_found");
    assert_eq!(world.run(&["recover", "node", "--json"]).code(0).json()["outcome"], "nothing");
    // A directory that is gone, while what a restore has kept of it stands beside it, is looked at.
    backup(&world, &[]);
    world.on_vault(&["restore", "latest", "node", "--force"]).code(0);
    fs::rename(world.path("node"), world.path("moved")).unwrap();
    assert_eq!(world.run(&["recover", "node", "--json"]).code(0).json()["outcome"], "nothing");
}

#[test]
fn a_node_under_a_second_name_is_a_conflict_that_names_the_first() {
    let world = world();
    backup(&world, &[]);
    world.on_vault(&["restore", "latest", "standby"]).code(0);
    let elsewhere = |arguments: &[&str]| {
        let vault = ["--vault", "vault", "--key-file", "key", "--json"];
        let mut command = world.command(&[arguments, &vault].concat());
        command.env("HIGHWATER_STATE_DIR", world.path("state-of-another-machine"));
        crate::world::answered(command.output().unwrap())
    };
    let error = elsewhere(&["backup", "standby"]).code(4).error("conflict");
    let hint = error["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("--node node"), "{error}");
    // No name was claimed by that.
    assert_eq!(
        crate::world::files_below(&world.path("vault/nodes/"))
            .iter()
            .filter(|path| { path.to_str().unwrap().contains("standby") })
            .count(),
        0
    );
    elsewhere(&["backup", "standby", "--node", "node"]).code(6).error("fenced");
    elsewhere(&["backup", "standby", "--adopt"]).code(4).error("conflict");
    // Another node has a name of its own.
    fs::remove_dir_all(world.path("standby/.highwater")).unwrap();
    elsewhere(&["backup", "standby"]).code(0);
}
