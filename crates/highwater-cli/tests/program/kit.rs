//! The recovery kit: sealed beside a vault, shown without a key, opened when the vault is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::world::{World, make_node};

/// Digits of the node's identity key.
const IDENTITY: &str = "5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f5e1f";

fn content(channels: u32) -> Value {
    let channel = |number: u32| {
        json!({
            "id": format!("channel {number}"),
            "peer": format!("02{number:064x}"),
            "addresses": [format!("192.0.2.{number}:9735")],
            "funding": format!("{number:064x}:1"),
            "capacity": 100_000 + u64::from(number),
            "keys": {"derivation_index": number.to_string()},
        })
    };
    json!({
        "version": 1,
        "identity": [{"name": "node", "secret": IDENTITY}],
        "channels": (0..channels).map(channel).collect::<Vec<_>>(),
    })
}

/// A world with a vault, its recovery words in `words`, and a node that wrote its content.
fn world_with_kit(channels: u32) -> World {
    let world = World::new();
    let document = world.run(&["init", "vault", "--key-file", "key", "--json"]).code(0).json();
    world.write_secret("words", document["recovery_words"].as_str().expect("words"));
    fs::create_dir_all(world.path("node/.highwater")).expect("a directory");
    world.write_secret("node/.highwater/kit.json", &content(channels).to_string());
    world
}

fn mode(world: &World, name: &str) -> u32 {
    fs::metadata(world.path(name)).expect("a file").permissions().mode() & 0o7777
}

fn read(world: &World, name: &str) -> Value {
    serde_json::from_slice(&fs::read(world.path(name)).expect("a file")).expect("a document")
}

const OPEN: [&str; 4] = ["kit", "open", "kit.hwk", "--json"];

#[test]
fn a_kit_is_exported_shown_and_opened_when_node_and_vault_are_gone() {
    let world = world_with_kit(3);
    let exported = world.on_vault(&["kit", "export", "node", "--output", "kit.hwk"]).code(0).json();
    assert_eq!((&exported["node"], &exported["channels"]), (&json!("node"), &json!(3)));
    assert_eq!((&exported["identity"], &exported["uid"]), (&json!(["node"]), &Value::Null));
    assert_eq!(mode(&world, "kit.hwk"), 0o600);
    let length = fs::metadata(world.path("kit.hwk")).expect("the kit").len();
    assert_eq!(exported["bytes"], length);
    fs::remove_dir_all(world.path("vault")).expect("the vault");
    fs::remove_dir_all(world.path("node")).expect("the node");

    let shown = world.run(&["kit", "show", "kit.hwk", "--json"]).code(0);
    assert!(!shown.stdout.contains("\"node\"") && !shown.stdout.contains(IDENTITY));
    let shown = shown.json();
    assert_eq!((&shown["vault"], &shown["bytes"]), (&exported["vault"], &exported["bytes"]));
    assert_eq!(shown["slots"].as_array().expect("slots").len(), 2);
    let lines = world.run(&["kit", "show", "kit.hwk"]).code(0).stdout;
    assert!(lines.contains("recovery") && lines.contains("mnemonic"), "{lines}");

    for (flag, file, output) in
        [("--key-file", "key", "by-key.json"), ("--mnemonic-file", "words", "by-words.json")]
    {
        let opened = world.run(&[&OPEN[..], &[flag, file, "--output", output]].concat()).code(0);
        assert!(!opened.stdout.contains(IDENTITY), "{}", opened.stdout);
        assert_eq!(opened.json()["channels"], 3);
        assert_eq!(mode(&world, output), 0o600);
        let kit = read(&world, output);
        assert_eq!(kit["channels"], content(3)["channels"]);
        assert_eq!(kit["identity"], content(3)["identity"]);
        assert_eq!((&kit["node"], &kit["time"]), (&json!("node"), &shown["time"]));
    }
}

#[test]
fn a_kit_knows_the_node_that_was_backed_up_under_a_name() {
    let world = world_with_kit(1);
    fs::rename(world.path("node"), world.path("data")).expect("another name");
    let backup = world.on_vault(&["backup", "data", "--node", "alice"]).code(0).json();
    let snapshot = backup["snapshot"].as_str().expect("an id");
    let manifest = world.on_vault(&["show", snapshot]).code(0).json();
    let export = ["kit", "export", "data", "--node", "alice", "--output", "kit.hwk"];
    let exported = world.on_vault(&export).code(0).json();
    assert_eq!((&exported["node"], &exported["uid"]), (&json!("alice"), &manifest["uid"]));
    assert!(exported["uid"].is_string());
    let opened = ["--key-file", "key", "--output", "-"];
    assert_eq!(world.run(&[&OPEN[..], &opened].concat()).code(0).json()["uid"], exported["uid"]);
    // Neither is the content of the kit part of a backup.
    world.on_vault(&["restore", "latest", "again"]).code(0);
    assert!(!world.path("again/.highwater/kit.json").exists());
}

#[test]
fn secrets_are_printed_where_that_is_asked_for() {
    let world = world_with_kit(1);
    world.on_vault(&["kit", "export", "node", "--output", "kit.hwk"]).code(0);
    let open = ["kit", "open", "kit.hwk", "--mnemonic-file", "words", "--output", "-"];
    let plain = world.run(&open).code(0);
    let document = world.run(&[&open[..], &["--json"]].concat()).code(0).json();
    assert_eq!(plain.json(), document);
    assert_eq!(document["identity"][0]["secret"], IDENTITY);
    assert!(!world.path("-").exists());
    world.run(&open[..5]).code(2);
}

#[test]
fn a_passphrase_opens_a_kit_and_is_warned_of() {
    let world = world_with_kit(1);
    world.write_secret("passphrase", "correct horse battery staple\n");
    world.on_vault(&["key", "add", "--new-passphrase-file", "passphrase"]).code(0);
    let export = ["kit", "export", "node", "--output", "kit.hwk", "--vault", "vault"];
    let exported = world.run(&[&export[..], &["--key-file", "key"]].concat()).code(0);
    assert!(exported.stderr.contains("passphrase"), "{}", exported.stderr);
    let open = ["--passphrase-file", "passphrase", "--output", "out.json"];
    world.run(&[&OPEN[..], &open].concat()).code(0);
    assert_eq!(read(&world, "out.json")["identity"], content(1)["identity"]);
}

#[test]
fn a_wrong_key_a_missing_kit_and_what_is_no_kit() {
    let world = world_with_kit(1);
    world.on_vault(&["kit", "export", "node", "--output", "kit.hwk"]).code(0);
    world.write_secret("wrong", &format!("{}\n", "ab".repeat(32)));
    let open = |kit: &str, key: &str| {
        let flags = ["--key-file", key, "--output", "out.json", "--json"];
        world.run(&[&["kit", "open", kit][..], &flags].concat())
    };
    assert_eq!(open("kit.hwk", "wrong").code(7).error("denied")["error"]["entry"], "kit.hwk");
    assert_eq!(open("none.hwk", "key").code(3).error("not_found")["error"]["entry"], "none.hwk");
    assert_eq!(open("key", "key").code(5).error("corrupt")["error"]["entry"], "key");
    open("node", "key").code(2).error("input");
    open("kit.hwk", "none").code(3).error("not_found");
    world.run(&["kit", "show", "none.hwk", "--json"]).code(3).error("not_found");
    assert!(!world.path("out.json").exists());
}

#[test]
fn a_damaged_kit_is_named_and_nothing_is_written() {
    let world = world_with_kit(1);
    world.on_vault(&["kit", "export", "node", "--output", "kit.hwk"]).code(0);
    let sound = fs::read(world.path("kit.hwk")).expect("the kit");
    let mut damages: Vec<Vec<u8>> = [0, 8, 12, 100, 1200, 3000, sound.len() - 1]
        .map(|at| {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            damaged
        })
        .into();
    damages.extend([0, 5, 40, 2000, sound.len() - 1].map(|at| sound[..at].to_vec()));
    damages.push([&sound[..], b"\n"].concat());
    for damaged in damages {
        fs::write(world.path("kit.hwk"), damaged).expect("a damaged kit");
        let open = ["--key-file", "key", "--output", "out.json"];
        let opened = world.run(&[&OPEN[..], &open].concat()).code(5).error("corrupt");
        assert_eq!(opened["error"]["entry"], "kit.hwk");
        let shown = world.run(&["kit", "show", "kit.hwk", "--json"]).code(5).error("corrupt");
        assert_eq!(shown["error"]["entry"], "kit.hwk");
    }
    assert!(!world.path("out.json").exists());
}

#[test]
fn no_output_is_overwritten_unless_that_is_asked_for() {
    let world = world_with_kit(1);
    let export = ["kit", "export", "node", "--output", "kit.hwk"];
    world.on_vault(&export).code(0);
    let first = fs::read(world.path("kit.hwk")).expect("the kit");
    let refused = world.on_vault(&export).code(4).error("conflict");
    assert!(refused["error"]["hint"].as_str().is_some_and(|hint| hint.contains("--force")));
    assert_eq!(fs::read(world.path("kit.hwk")).expect("the kit"), first);
    world.on_vault(&[&export[..], &["--force"]].concat()).code(0);
    assert_ne!(fs::read(world.path("kit.hwk")).expect("the kit"), first);

    world.write_secret("out.json", "mine");
    let open = ["--key-file", "key", "--output", "out.json"];
    world.run(&[&OPEN[..], &open].concat()).code(4).error("conflict");
    assert_eq!(fs::read(world.path("out.json")).expect("the file"), b"mine");
}

#[test]
fn a_kit_that_would_be_lost_with_node_or_vault_is_refused() {
    let world = world_with_kit(1);
    for output in ["node/kit.hwk", "vault/kit.hwk"] {
        world.on_vault(&["kit", "export", "node", "--output", output]).code(2).error("input");
        assert!(!world.path(output).exists());
    }
}

#[test]
fn content_comes_from_the_node_or_from_a_file_and_is_checked() {
    let world = World::with_vault();
    make_node(&world.path("node"));
    let export = ["kit", "export", "node", "--output", "kit.hwk"];
    let missing = world.on_vault(&export).code(3).error("not_found");
    assert!(missing["error"]["hint"].as_str().is_some_and(|hint| hint.contains("--from")));

    let from = |content: &str| {
        world.write_secret("content.json", content);
        world.on_vault(&[&export[..], &["--from", "content.json"]].concat())
    };
    let mut unknown = content(1);
    unknown["channels"][0]["commitment_number"] = json!(7);
    let refused = from(&unknown.to_string()).code(5).error("corrupt");
    assert_eq!(refused["error"]["entry"], "content.json");
    from("{}").code(5).error("corrupt");
    from(&content(1).to_string().replace("\"version\":1", "\"version\":2")).code(2).error("input");
    let mode = fs::Permissions::from_mode(0o644);
    world.write_secret("content.json", &content(1).to_string());
    fs::set_permissions(world.path("content.json"), mode).expect("a mode");
    let readable = [&export[..], &["--from", "content.json"]].concat();
    world.on_vault(&readable).code(7).error("denied");
    fs::remove_file(world.path("content.json")).expect("the content");
    assert!(!world.path("kit.hwk").exists());

    let exported = from(&content(0).to_string()).code(0).json();
    let warning = exported["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("no channel"), "{exported}");
}

#[test]
fn a_hundred_channels_fit_into_a_mail() {
    let world = world_with_kit(100);
    let exported = world.on_vault(&["kit", "export", "node", "--output", "kit.hwk"]).code(0).json();
    assert_eq!(exported["channels"], 100);
    let length = fs::metadata(world.path("kit.hwk")).expect("the kit").len();
    assert!(length < 64 << 10, "{length} bytes");
}
