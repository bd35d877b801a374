//! What somebody who writes to the store, or answers in its place, can make us take: a bounded amount,
//! and an error that names the object.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path as Name;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};

use super::*;
use crate::Kind;
use crate::vault::document::tests::forged;

/// Pieces of a body, and objects of a list, after which a reader is taken to go on for ever.
const ENDLESS: usize = 2000;
const PIECE_BYTES: usize = 1 << 20;

/// A store whose objects say that they are small, and never end; nor do its lists.
#[derive(Debug, Default)]
struct EndlessStore {
    given: Arc<AtomicUsize>,
}

impl std::fmt::Display for EndlessStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndlessStore")
    }
}

fn meta(location: Name) -> ObjectMeta {
    let last_modified = std::time::UNIX_EPOCH.into();
    ObjectMeta { location, last_modified, size: 100, e_tag: None, version: None }
}

fn refused() -> StoreError {
    StoreError::NotSupported { source: "it is only read".into() }
}

#[async_trait]
impl ObjectStore for EndlessStore {
    async fn put_opts(
        &self,
        _: &Name,
        _: PutPayload,
        _: PutOptions,
    ) -> object_store::Result<PutResult> {
        Err(refused())
    }

    async fn put_multipart_opts(
        &self,
        _: &Name,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(refused())
    }

    async fn get_opts(&self, location: &Name, _: GetOptions) -> object_store::Result<GetResult> {
        let given = Arc::clone(&self.given);
        let pieces = stream::repeat_with(move || {
            let given = given.fetch_add(1, Ordering::Relaxed);
            assert!(given < ENDLESS, "it is read for ever");
            Ok(Bytes::from(vec![b' '; PIECE_BYTES]))
        });
        Ok(GetResult {
            payload: GetResultPayload::Stream(pieces.boxed()),
            meta: meta(location.clone()),
            range: 0..100,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Name>>,
    ) -> BoxStream<'static, object_store::Result<Name>> {
        locations.map(|_| Err(refused())).boxed()
    }

    fn list(&self, prefix: Option<&Name>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let given = Arc::clone(&self.given);
        stream::repeat_with(move || {
            let given = given.fetch_add(1, Ordering::Relaxed);
            assert!(given < ENDLESS, "it is listed for ever");
            Ok(meta(prefix.clone().join(format!("{given:032x}"))))
        })
        .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Name>) -> object_store::Result<ListResult> {
        Err(refused())
    }

    async fn copy_opts(&self, _: &Name, _: &Name, _: CopyOptions) -> object_store::Result<()> {
        Err(refused())
    }
}

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
fn an_object_is_not_read_beyond_what_its_kind_can_have() {
    for (name, pieces_max) in [
        ("vault.json", 1),
        ("keys/00112233445566778899aabbccddeeff", 1),
        ("nodes/node/00000000000000000001", 257),
        ("trash/00112233445566778899aabbccddeeff", 257),
        ("intents/00112233445566778899aabbccddeeff", 257),
        ("witness/node/00000000000000000001", 257),
        ("snapshots/node/00000001-0000000001-00112233445566778899aabbccddeeff.0", 1041),
    ] {
        let endless = EndlessStore::default();
        let given = Arc::clone(&endless.given);
        let store = Store::archive(Arc::new(endless)).unwrap();
        assert_error(&store.get(name).unwrap_err(), name, "no highwater wrote it");
        let given = given.load(Ordering::Relaxed);
        assert!(given <= pieces_max, "{name}: {given} MiB were taken");
    }
}

#[test]
fn a_list_of_slots_that_goes_on_for_ever_is_left() {
    let store = Store::archive(Arc::new(EndlessStore::default())).unwrap();
    assert_error(&keys::slot_names(&store).unwrap_err(), "keys", "no vault has so many");
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
