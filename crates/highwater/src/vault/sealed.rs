//! Sealed documents: small objects of one frame, JSON inside (manifests, intents, node records).

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

use super::Vault;
use super::codec::Codec;
use super::seal::{HEADER_BYTES, ObjectKey, ObjectKind, Purpose};

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
        .map_err(|error| Error::bug("a document can't be written as JSON").source(error))?;
    let (codec, body) = Codec::compress(&plain)?;
    let mut frame = Vec::with_capacity(PREFIX_BYTES + body.len() + 16);
    frame.push(codec as u8);
    frame.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    frame.extend_from_slice(&body);
    let key = ObjectKey::create(vault.master(), vault.id(), kind, name)?;
    key.seal(0, Purpose::Last, &[], &mut frame)?;
    let mut object = Vec::with_capacity(HEADER_BYTES + frame.len());
    object.extend_from_slice(key.header());
    object.extend_from_slice(&frame);
    let opened: serde_json::Value = open(vault, kind, name, &object)?;
    let meant: serde_json::Value = serde_json::from_slice(&plain)
        .map_err(|error| Error::bug("a document is not the JSON it was").source(error))?;
    if opened != meant {
        return Err(Error::bug("a sealed document opens to something else").entry(name));
    }
    Ok(object.into())
}

/// The document in the bytes that stand under `name`.
pub(crate) fn open<T: DeserializeOwned>(
    vault: &Vault,
    kind: ObjectKind,
    name: &str,
    object: &[u8],
) -> Result<T> {
    let key = ObjectKey::parse(vault.master(), vault.id(), kind, name, object)?;
    let mut frame = object[HEADER_BYTES..].to_vec();
    let plain = key
        .open(0, Purpose::Last, &[], &mut frame)
        .ok_or_else(|| Error::corrupt("its content was changed or cut").entry(name))?;
    let wrong = || Error::corrupt("its content is no document").entry(name);
    let (prefix, body) = plain.split_at_checked(PREFIX_BYTES).ok_or_else(wrong)?;
    let length = u64::from_le_bytes(prefix[1..].try_into().map_err(|_| wrong())?);
    if length > DOCUMENT_BYTES_MAX {
        return Err(wrong());
    }
    let codec = Codec::parse(prefix[0]).ok_or_else(wrong)?;
    let mut text = Vec::new();
    codec.expand(body, length as usize, &mut text).ok_or_else(wrong)?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::corrupt(format!("its content can't be read: {error}")).entry(name))
}
