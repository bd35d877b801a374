//! The log on standard error: what is in it, what never is, and that there is none unless it is asked for.

use serde_json::Value;

use crate::world::World;

const BACKUP: [&str; 8] =
    ["backup", "node", "--vault", "vault", "--key-file", "key", "--mark", "height=7"];

/// A world with a node whose names and content nobody else needs to see.
fn world() -> World {
    let world = World::with_vault();
    let dir = world.path("node/wallets-of-alice");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("seed-phrase"), "abandon ability").expect("a file");
    world
}

#[test]
fn what_is_done_is_logged_once_it_is_asked_for() {
    let world = world();
    let silent = world.run(&BACKUP).code(0);
    assert!(!silent.stderr.contains("committed"), "{}", silent.stderr);
    let told = world.run(&[&BACKUP[..], &["-v"]].concat()).code(0);
    assert!(told.stderr.contains("INFO backup{node=node}: committed snapshot="), "{}", told.stderr);
    assert!(!told.stderr.contains("DEBUG"), "{}", told.stderr);
    let steps = world.run(&[&BACKUP[..], &["-vv"]].concat()).code(0);
    for step in ["capture: close time.busy=", "marks: close time.busy=", "stage stage=\"commit\""] {
        assert!(steps.stderr.contains(step), "{step}: {}", steps.stderr);
    }
}

#[test]
fn a_line_of_the_log_is_an_object_where_json_is_asked_for() {
    let world = world();
    let json = ["--json", "--log-format", "json"];
    let told = world.run(&[&BACKUP[..], &json].concat()).code(0);
    let answer = told.json();
    let lines: Vec<Value> = told
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect();
    let committed = lines.iter().find(|line| line["message"] == "committed").expect("it is told");
    assert_eq!(committed["snapshot"], answer["snapshot"]);
    assert_eq!(committed["spans"][0]["node"], "node");
}

#[test]
fn no_name_in_the_node_and_no_secret_is_logged() {
    let world = world();
    let told = world.run(&[&BACKUP[..], &["-vv", "--rehash"]].concat()).code(0);
    let key = std::fs::read_to_string(world.path("key")).expect("the key file");
    for private in ["wallets-of-alice", "seed-phrase", "abandon", key.trim()] {
        assert!(!told.stderr.contains(private), "{private}: {}", told.stderr);
    }
}
