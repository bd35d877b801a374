//! What somebody who writes to the store, or answers in its place, can make us take: a bounded amount,
//! and an error that names the object.

use std::fs;
use std::path::Path;

use super::*;
use crate::Kind;
use crate::vault::document::tests::forged;

fn vault_in(dir: &Path, secret: &Secret) -> Location {
    let location = Location::Local(dir.join("vault"));
    Vault::create_with(&location, secret, &CreateOptions::default(), &Env::system()).unwrap();
    location
}

fn open(location: &Location, secret: &Secret) -> Result<Vault> {
    Vault::open_with(location, secret, &Env::system())
}

fn key() -> Secret {
    Secret::Key(Zeroizing::new([7; 32]))
}

fn passphrase(text: &str) -> Secret {
    Secret::Passphrase(Zeroizing::new(text.to_owned()))
}

fn assert_error(error: &Error, entry: &str, told: &str) {
    assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some(entry)), "{error}");
    assert!(error.to_string().contains(told), "{error}");
    assert!(error.hint().is_some(), "{error}: no remedy");
}

#[test]
fn a_vault_with_a_header_of_any_length_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let location = vault_in(dir.path(), &key());
    let header = dir.path().join("vault/vault.json");
    let file = fs::OpenOptions::new().write(true).open(header).unwrap();
    file.set_len(100 << 10).unwrap();
    let told = "no highwater wrote it";
    assert_error(&open(&location, &key()).err().unwrap(), "vault.json", told);
    assert_error(&Vault::id_at(&location, &Env::system()).unwrap_err(), "vault.json", told);
}

#[test]
fn a_slot_of_any_length_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let location = vault_in(dir.path(), &key());
    let slot = "keys/00000000000000000000000000000000";
    fs::File::create(dir.path().join("vault").join(slot)).unwrap().set_len(100 << 10).unwrap();
    open(&location, &key()).unwrap();
    let other = Secret::Key(Zeroizing::new([8; 32]));
    assert_error(&open(&location, &other).err().unwrap(), slot, "no highwater wrote it");
}

#[test]
fn more_slots_than_a_vault_has_are_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let location = vault_in(dir.path(), &key());
    for number in 0..SLOTS_MAX {
        fs::write(dir.path().join(format!("vault/keys/{number:032x}")), b"forged").unwrap();
    }
    assert_error(&open(&location, &key()).err().unwrap(), "keys", "more than 1024 objects");
}

/// Puts a slot beside `slot` that differs in what it costs to try it.
fn forge_slot(vault: &Path, slot: &str, number: u32, kdf: &str) -> String {
    let sound = fs::read(vault.join("keys").join(slot)).unwrap();
    let forged_slot = format!("{number:032x}");
    let renamed = forged(&sound, slot, &forged_slot);
    let default = "\"m_kib\": 65536,\n    \"t\": 3";
    fs::write(vault.join("keys").join(&forged_slot), forged(&renamed, default, kdf)).unwrap();
    format!("keys/{forged_slot}")
}

#[test]
fn a_slot_that_is_too_expensive_to_try_is_named_and_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let location = vault_in(dir.path(), &passphrase("correct horse"));
    let path = dir.path().join("vault");
    let slot = open(&location, &passphrase("correct horse")).unwrap().slots().unwrap();
    let slot = slot[0].slot.to_string();
    // Each would take a GiB and many seconds.
    let dear = "\"m_kib\": 1048576,\n    \"t\": 16";
    let first = forge_slot(&path, &slot, 0, dear);
    forge_slot(&path, &slot, 1, dear);
    open(&location, &passphrase("correct horse")).unwrap();
    let error = open(&location, &passphrase("wrong horse")).err().unwrap();
    assert_error(&error, &first, "more key slots for passphrases than can be tried");
}

#[test]
fn many_slots_for_passphrases_are_not_all_tried() {
    let dir = tempfile::tempdir().unwrap();
    let location = vault_in(dir.path(), &passphrase("correct horse"));
    let path = dir.path().join("vault");
    let vault = open(&location, &passphrase("correct horse")).unwrap();
    let slot = vault.slots().unwrap()[0].slot.to_string();
    vault.add_slot(&key(), "second").unwrap();
    // A slot costs sixteen ordinary ones: two of them are tried, not ten.
    for number in 0..10 {
        forge_slot(&path, &slot, number, "\"m_kib\": 196608,\n    \"t\": 16");
    }
    let error = open(&location, &passphrase("wrong horse")).err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.to_string().contains("2 did not open"), "{error}");
    open(&location, &passphrase("correct horse")).unwrap();
    // The way on: another kind of secret costs nothing, and the forged slots are named.
    let error = open(&location, &key()).unwrap().slots().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.entry().unwrap().starts_with("keys/000000"), "{error}");
}
