//! What fuzzers call: a recovery kit, which anybody may have kept, and what is sealed in it.

use super::{FORMAT_VERSION, MAGIC, describe, plain, unpad};
use crate::error::Error;
use crate::kit::{Kit, KitContent, parse, secret, validate};
use crate::vault::document;

/// The bytes are a kit, the same without its checksum, the header of one without that header's
/// checksum, what is sealed in one, and the content that a node writes.
pub(crate) fn kit(bytes: &[u8]) {
    drop(describe(bytes));
    described(&with_checksum(bytes.to_vec()));

    let header = document::with_checksum(bytes);
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    file.extend_from_slice(&[0; 2]);
    file.extend_from_slice(&(header.len() as u32).to_le_bytes());
    file.extend_from_slice(&header);
    described(&with_checksum(file));

    content(unpad(bytes).unwrap_or(bytes));
}

fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&file);
    file.extend_from_slice(checksum.as_bytes());
    file
}

fn described(file: &[u8]) {
    let Ok(header) = describe(file) else { return };
    assert_eq!(header.bytes, file.len() as u64);
    let mut changed = file.to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    describe(&changed).expect_err("a changed byte is found");
}

fn content(text: &[u8]) {
    if let Ok(kit) = parse::<Kit>(text, Error::corrupt)
        && kit.validate().is_ok()
    {
        let padded = plain(&kit).expect("a kit is JSON");
        let again = unpad(&padded).expect("what is padded can be read");
        assert_eq!(parse::<Kit>(again, Error::corrupt).expect("what is written can be read"), kit);
    }
    if let Ok(content) = parse::<KitContent>(text, Error::corrupt)
        && validate(&content.identity, &content.channels).is_ok()
    {
        let json = secret::json(&content, true, 1).expect("a content is JSON");
        let again: KitContent = parse(&json, Error::corrupt).expect("what is written can be read");
        assert_eq!(again, content);
    }
}
