//! Sealed documents: small objects of one frame, JSON inside (manifests, intents, records).

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::Vault;
use super::codec::{Codec, Effort};
use super::limits::object_bytes_max;
use super::seal::{HEADER_BYTES, ObjectKey, ObjectKind, Purpose};

/// The version of every document but a manifest with lists.
pub(crate) const DOCUMENT_VERSION: u32 = 1;
/// No document is longer than this before compression; a longer one is damage or an attack.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;
/// Codec and plain length, ahead of the body.
const PREFIX_BYTES: usize = 9;

/// The sealed bytes of a document that will stand under `name`.
pub(crate) fn seal<T: Serialize>(
    vault: &Vault,
    kind: ObjectKind,
    name: &str,
    document: &T,
) -> Result<Bytes> {
    let plain = serde_json::to_vec(document)
        .map_err(|error| Error::bug("a document can't be written as JSON").with_source(error))?;
    seal_text(vault, kind, name, &plain)
}

/// The sealed bytes of a document whose JSON is `plain`.
pub(super) fn seal_text(
    vault: &Vault,
    kind: ObjectKind,
    name: &str,
    plain: &[u8],
) -> Result<Bytes> {
    let mut body = Vec::new();
    let codec = Codec::compress(plain, Effort::Balanced, &mut body)?;
    let mut frame = Vec::with_capacity(PREFIX_BYTES + body.len() + 16);
    frame.push(codec as u8);
    frame.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    frame.extend_from_slice(&body);
    let key = ObjectKey::create(vault.master(), vault.id(), kind, name)?;
    key.seal(0, Purpose::Last, &[], &mut frame)?;
    let mut object = Vec::with_capacity(HEADER_BYTES + frame.len());
    object.extend_from_slice(key.header());
    object.extend_from_slice(&frame);
    // What is put must be taken again.
    let most = object_bytes_max(name);
    if plain.len() as u64 > DOCUMENT_BYTES_MAX || object.len() as u64 > most {
        return Err(Error::input(format!("the document is too long: a vault takes {most} bytes"))
            .with_entry(name)
            .with_remedy("exclude files that need no backup, or split the node directory"));
    }
    if open_text(vault, kind, name, &object)? != plain {
        return Err(Error::bug("a sealed document opens to something else").with_entry(name));
    }
    Ok(object.into())
}

/// The document in the bytes that stand under `name`. Input where a newer program wrote it: its
/// fields are not known here then, which is no damage.
pub(crate) fn open<T: DeserializeOwned>(
    vault: &Vault,
    kind: ObjectKind,
    name: &str,
    object: &[u8],
) -> Result<T> {
    parse(name, &open_text(vault, kind, name, object)?)
}

/// The document whose JSON is `text`.
pub(super) fn parse<T: DeserializeOwned>(name: &str, text: &[u8]) -> Result<T> {
    parse_up_to(DOCUMENT_VERSION, name, text)
}

/// The document whose JSON is `text`, of a kind that is known up to the version `newest`.
pub(super) fn parse_up_to<T: DeserializeOwned>(newest: u32, name: &str, text: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }

    let unreadable = |error: serde_json::Error| {
        Error::corrupt(format!("its content can't be read: {error}")).with_entry(name)
    };
    let Versioned { version } = serde_json::from_slice(text).map_err(unreadable)?;
    if version > u64::from(newest) {
        return Err(Error::input(format!(
            "the document has version {version}; this program knows version {newest}"
        ))
        .with_entry(name)
        .with_remedy("use the version of highwater that wrote it, or a newer one"));
    }
    serde_json::from_slice(text).map_err(unreadable)
}

/// The JSON of the document in the bytes that stand under `name`.
pub(super) fn open_text(
    vault: &Vault,
    kind: ObjectKind,
    name: &str,
    object: &[u8],
) -> Result<Vec<u8>> {
    let key = ObjectKey::parse(vault.master(), vault.id(), kind, name, object)?;
    let mut frame = object[HEADER_BYTES..].to_vec();
    let plain = key
        .open(0, Purpose::Last, &[], &mut frame)
        .ok_or_else(|| Error::corrupt("its content was changed or cut").with_entry(name))?;
    text_of(name, plain)
}

/// The JSON of the document whose frame held `plain`.
pub(super) fn text_of(name: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let wrong = || Error::corrupt("its content is no document").with_entry(name);
    let (prefix, body) = plain.split_at_checked(PREFIX_BYTES).ok_or_else(wrong)?;
    let length = u64::from_le_bytes(prefix[1..].try_into().map_err(|_| wrong())?);
    if length > DOCUMENT_BYTES_MAX {
        return Err(wrong());
    }
    let codec = Codec::parse(prefix[0]).ok_or_else(wrong)?;
    let mut text = Vec::new();
    codec.expand(body, length as usize, &mut text).ok_or_else(wrong)?;
    Ok(text)
}

/// That an object lies there which no vault has.
pub(crate) fn foreign(object: &str) -> Error {
    Error::corrupt("an object that no highwater puts there").with_entry(object)
}
