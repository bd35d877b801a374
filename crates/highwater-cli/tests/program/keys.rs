//! Keys: missing, malformed, wrong, in the wrong place; slots and the recovery words.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::{ROWS, World, assert_node};

#[test]
fn a_key_that_is_missing_malformed_wrong_or_readable_by_others() {
    let world = World::with_vault();
    let with =
        |key: &str| world.run(&["snapshots", "--vault", "vault", "--key-file", key, "--json"]);
    with("none").code(3).error("not_found");
    world.write_secret("malformed", "0123\n");
    with("malformed").code(2).error("input");
    world.write_secret("wrong", &format!("{}\n", "ab".repeat(32)));
    with("wrong").code(7).error("denied");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path("key"), mode).expect("a mode");
    with("key").code(7).error("denied");
}

#[test]
fn init_makes_a_key_file_that_only_its_owner_reads() {
    let world = World::new();
    let document = world.run(&["init", "vault", "--key-file", "key", "--json"]).code(0).json();
    let key = std::fs::read_to_string(world.path("key")).expect("the key file");
    assert!(key.len() == 65 && key.ends_with('\n'), "64 digits and a newline");
    let metadata = std::fs::metadata(world.path("key")).expect("the key file");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    let words = document["recovery_words"].as_str().expect("recovery words");
    assert!(words.split(' ').count() >= 12);

    let again = world.run(&["init", "vault", "--key-file", "key2", "--json"]).code(4);
    again.error("conflict");
    assert!(!world.path("key2").exists(), "no vault needs it");
}

#[test]
fn the_recovery_words_restore_what_the_key_file_sealed() {
    let world = World::new();
    let document = world.run(&["init", "vault", "--key-file", "key", "--json"]).code(0).json();
    world.write_secret("words", document["recovery_words"].as_str().expect("words"));
    crate::world::make_node(&world.path("node"));
    world.on_vault(&["backup", "node"]).code(0);
    let key = ["--vault", "vault", "--mnemonic-file", "words", "--json"];
    world.run(&[&["restore", "latest", "again"][..], &key].concat()).code(0);
    assert_node(&world.path("again"), ROWS);
}

#[test]
fn the_sheet_names_vault_id_and_the_command() {
    let world = World::new();
    let sheet = world.run(&["init", "vault", "--key-file", "key"]).code(0).stdout;
    let vault = world.path("vault").canonicalize().expect("the vault");
    let command = format!("highwater restore latest NODE_DIR --vault {}", vault.display());
    assert!(sheet.contains(&command) && sheet.contains("--mnemonic-file"), "{sheet}");
    let status = world.on_vault(&["status"]).code(0).json();
    assert_eq!(status["slots"], 2);
}

#[test]
fn a_single_slot_is_warned_of() {
    let world = World::new();
    let init = ["init", "vault", "--key-file", "key", "--no-recovery-slot", "--json"];
    assert!(world.run(&init).code(0).json()["recovery_words"].is_null());
    let status = world.run(&["status", "--vault", "vault", "--key-file", "key"]).code(0);
    assert!(status.stderr.contains("single key slot"), "{}", status.stderr);
    assert_eq!(world.on_vault(&["status"]).code(0).json()["slots"], 1);
}

#[test]
fn slots_come_and_go_and_the_last_one_stays() {
    let world = World::with_vault();
    world.write_secret("passphrase", "correct horse battery staple\n");
    let add = ["key", "add", "--new-passphrase-file", "passphrase", "--label", "paper"];
    let added = world.on_vault(&add).code(0).json();
    assert_eq!((&added["kind"], &added["label"]), (&"passphrase".into(), &"paper".into()));
    let by_passphrase = ["--vault", "vault", "--passphrase-file", "passphrase", "--json"];
    let slots = world.run(&[&["key", "list"][..], &by_passphrase].concat()).code(0).json();
    let slots = slots.as_array().expect("slots");
    assert_eq!(slots.len(), 3);
    for slot in slots.iter().filter(|slot| slot["slot"] != added["slot"]) {
        let slot = slot["slot"].as_str().expect("an id");
        world.run(&[&["key", "remove", slot][..], &by_passphrase].concat()).code(0);
    }
    world.on_vault(&["snapshots"]).code(7).error("denied");
    let last = added["slot"].as_str().expect("an id");
    let kept = world.run(&[&["key", "remove", last][..], &by_passphrase].concat());
    assert_ne!(kept.code, Some(0), "the last slot can't be removed");
    world.run(&[&["snapshots"][..], &by_passphrase].concat()).code(0);
}

#[test]
fn a_key_inside_the_vault_or_the_node_is_refused() {
    let world = World::with_node();
    std::fs::copy(world.path("key"), world.path("node/vault.key")).expect("a copy");
    std::fs::copy(world.path("key"), world.path("vault/vault.key")).expect("a copy");
    for key in ["node/vault.key", "vault/vault.key"] {
        let options = ["--vault", "vault", "--key-file", key, "--json"];
        world.run(&[&["backup", "node"][..], &options].concat()).code(2).error("input");
        let restore = [&["restore", "latest", "node", "--force"][..], &options].concat();
        world.run(&restore).code(2).error("input");
    }
    world.run(&["init", "new", "--key-file", "new/key", "--json"]).code(2).error("input");
    assert!(!world.path("new").exists());
    world.on_vault(&["key", "add", "--new-key-file", "vault/other.key"]).code(2).error("input");
}
