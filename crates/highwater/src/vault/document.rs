//! The small plain documents of a vault (`vault.json`, key slots): JSON in one canonical form, with
//! a checksum over every byte before it.
//!
//! The checksum is the last line in every version of every document, so that damage is told from a
//! newer format before anything else is looked at. It is no protection against forgery: that is
//! the business of each document's MAC.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The version that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// What the field `blake3` of a wire structure holds until [`seal`] has filled it in.
pub(crate) const UNSEALED: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

const CHECKSUM_BEGIN: &str = "  \"blake3\": \"";
const CHECKSUM_END: &str = "\"\n}\n";
const CHECKSUM_LEN: usize = CHECKSUM_BEGIN.len() + UNSEALED.len() + CHECKSUM_END.len();

/// The canonical bytes of `wire` up to its checksum line. Its last field is `blake3`, holding
/// 64 characters.
pub(super) fn body<T: Serialize>(wire: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(wire)
        .map_err(|error| Error::bug("a document can't be written as JSON").with_source(error))?;
    bytes.push(b'\n');
    let len = bytes.len().checked_sub(CHECKSUM_LEN);
    let len = len.filter(|&len| bytes[len..].starts_with(CHECKSUM_BEGIN.as_bytes()));
    bytes.truncate(len.ok_or_else(|| Error::bug("a document does not end with its checksum"))?);
    Ok(bytes)
}

/// The canonical bytes of `wire`, with its checksum.
pub(crate) fn seal<T: Serialize>(wire: &T) -> Result<Vec<u8>> {
    let mut bytes = body(wire)?;
    let line = checksum_line(&bytes);
    bytes.extend_from_slice(line.as_bytes());
    Ok(bytes)
}

/// Reads the document `name`. Corrupt where any byte is not what was written; input where a newer
/// program wrote it.
pub(crate) fn open<T: Serialize + DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }

    let (before, line) = bytes.split_at(bytes.len().saturating_sub(CHECKSUM_LEN));
    if line != checksum_line(before).as_bytes() {
        return Err(damaged(name, "its checksum does not fit"));
    }
    let no_json = |error: serde_json::Error| damaged(name, "it can't be read").with_source(error);
    let Versioned { version } = serde_json::from_slice(bytes).map_err(no_json)?;
    if version > VERSION {
        let what = format!("version {version} of this format was made by a newer highwater");
        return Err(Error::input(what).with_entry(name).with_remedy("use a newer highwater"));
    }
    let wire: T = serde_json::from_slice(bytes).map_err(no_json)?;
    if version != VERSION || body(&wire)? != before {
        return Err(damaged(name, "it is not in the form that highwater writes"));
    }
    Ok(wire)
}

/// The error of a document whose content is not what was written.
pub(crate) fn damaged(name: &str, why: &str) -> Error {
    Error::corrupt(format!("{name} is damaged: {why}"))
        .with_entry(name)
        .with_remedy("put back a good copy of this object, if there is one")
}

/// The `N` bytes of a hexadecimal field of the document `name`.
pub(super) fn bytes_of<const N: usize>(name: &str, text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| damaged(name, "a field has the wrong length"))?;
    Ok(bytes)
}

/// The document whose bytes up to its checksum line are `body`, whatever that is.
#[cfg(any(fuzzing, test))]
pub(crate) fn with_checksum(body: &[u8]) -> Vec<u8> {
    [body, checksum_line(body).as_bytes()].concat()
}

fn checksum_line(body: &[u8]) -> String {
    format!("{CHECKSUM_BEGIN}{}{CHECKSUM_END}", blake3::hash(body).to_hex())
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::error::{Error, Kind};

    /// Every single flipped bit, every truncation and an extra byte must be found as damage.
    pub(crate) fn every_damage_is_found(bytes: &[u8], parse: impl Fn(&[u8]) -> Option<Error>) {
        assert!(parse(bytes).is_none(), "the document itself is sound");
        let found = |damaged: &[u8], what: &str| {
            let error = parse(damaged).unwrap_or_else(|| panic!("not found: {what}"));
            assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error}");
            assert!(error.entry().is_some(), "{what}: names no object");
        };
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 1 << bit;
                found(&damaged, &format!("bit {bit} of byte {at}"));
            }
            found(&bytes[..at], &format!("cut at {at}"));
        }
        found(&[bytes, b"\n"].concat(), "a byte more");
    }

    /// The same document with one text replaced and the checksum made to fit again.
    pub(crate) fn forged(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(text.contains(from));
        let text = text.replacen(from, to, 1);
        let body = &text.as_bytes()[..text.len() - super::CHECKSUM_LEN];
        [body, super::checksum_line(body).as_bytes()].concat()
    }
}
