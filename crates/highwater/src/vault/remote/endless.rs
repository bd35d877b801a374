//! A server whose answers never end makes us take a bounded amount of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path as Name;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};

use super::*;
use crate::vault::keys;
use crate::vault::location::Location;
use crate::vault::store::Store;

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

fn store_over(objects: EndlessStore) -> Store {
    let Location::Remote(location) = "s3://b".parse().unwrap() else { unreachable!() };
    Store::of(RemoteMedium::over(Arc::new(objects), &location).unwrap())
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
        let store = store_over(endless);
        assert_error(&store.get(name).unwrap_err(), name, "no highwater wrote it");
        let given = given.load(Ordering::Relaxed);
        assert!(given <= pieces_max, "{name}: {given} MiB were taken");
    }
}

#[test]
fn a_list_of_slots_that_goes_on_for_ever_is_left() {
    let store = store_over(EndlessStore::default());
    assert_error(&keys::slot_names(&store).unwrap_err(), "keys", "no vault has so many");
}
