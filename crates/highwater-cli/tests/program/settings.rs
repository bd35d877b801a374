//! Flag, environment, file; and nothing unknown.

use crate::world::{World, answered};

#[test]
fn an_unknown_variable_or_name_in_the_file_is_a_wrong_call() {
    let world = World::with_vault();
    let mut command = world.command(&["snapshots", "--json"]);
    let output = command.env("HIGHWATER_VALUT", "vault").output().expect("the program starts");
    let document = answered(output).code(2).error("input");
    let message = document["error"]["message"].as_str().expect("a message");
    assert!(message.contains("HIGHWATER_VALUT"), "{message}");

    std::fs::write(world.path("h.toml"), "[vault]\nurll = \"vault\"\n").expect("a file");
    let document = world.run(&["snapshots", "--config", "h.toml", "--json"]).code(2).error("input");
    assert_eq!(document["error"]["entry"], "h.toml");
    world.run(&["snapshots", "--config", "none.toml", "--json"]).code(3).error("not_found");
}

#[test]
fn vault_and_key_come_from_the_environment_or_the_file() {
    let world = World::with_vault();
    let mut command = world.command(&["snapshots", "--json"]);
    command.env("HIGHWATER_VAULT", "vault").env("HIGHWATER_KEY_FILE", "key");
    let output = command.output().expect("the program starts");
    assert_eq!(answered(output).code(0).json(), serde_json::json!([]));

    let config = world.path("home/.config/highwater");
    std::fs::create_dir_all(&config).expect("a directory");
    let (vault, key) = (world.path("vault"), world.path("key"));
    let text = format!("[vault]\nurl = {vault:?}\nkey_file = {key:?}\n");
    std::fs::write(config.join("highwater.toml"), text).expect("a file");
    world.run(&["snapshots", "--json"]).code(0);
    world.run(&["snapshots", "--vault", "nowhere", "--json"]).code(3).error("not_found");
}

#[test]
fn without_a_vault_or_a_key_the_call_is_wrong() {
    let world = World::with_vault();
    world.run(&["snapshots", "--key-file", "key", "--json"]).code(2).error("input");
    world.run(&["snapshots", "--vault", "vault", "--json"]).code(2).error("input");
}
