//! What fuzzers call: the documents of a vault, as stored, and behind their seals.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::codec::EXPANSION_MAX;
use super::document::with_checksum;
use super::header::Header;
use super::intent::Intent;
use super::keys::{MasterKey, SlotDoc};
use super::lists;
use super::manifest::{Manifest, PartRecord, VERSION_OF_LISTS};
use super::nodes::NodeRecord;
use super::runs;
use super::seal::{HEADER_BYTES, ObjectKey, ObjectKind, Purpose};
use super::sealed;
use super::trash::TrashDoc;
use super::{Secret, SlotKind};
use crate::ids::{PackId, VaultId};

const NAME: &str = "intents/fuzzing";

/// The key that all fuzzing seals under.
pub(crate) fn master() -> MasterKey {
    MasterKey::from_bytes([0xa5; 32])
}

/// The vault that all fuzzing is about.
pub(crate) fn vault_id() -> VaultId {
    VaultId::from_bytes([7; 16])
}

/// The bytes are a key slot or the header of a vault, as stored and without its checksum.
pub(crate) fn key_slot(bytes: &[u8]) {
    for stored in [bytes.to_vec(), with_checksum(bytes)] {
        if let Ok(header) = Header::parse(&stored) {
            assert_eq!(header.to_bytes().expect("a header is JSON"), stored);
            header.verify(&master()).expect_err("nobody has the vault's key");
        }
        let named = serde_json::from_slice::<serde_json::Value>(&stored).ok();
        let slot = named.as_ref().and_then(|json| json["slot"].as_str()).unwrap_or_default();
        let Ok(slot) = SlotDoc::parse(&format!("keys/{slot}"), &stored) else { continue };
        assert_eq!(slot.to_bytes().expect("a slot is JSON"), stored);
        let json = serde_json::to_vec(&slot).expect("a slot is JSON");
        let again: SlotDoc = serde_json::from_slice(&json).expect("what is written can be read");
        assert_eq!(again, slot);
        slot.verify(&master()).expect_err("nobody has the vault's key");
        // A passphrase takes a fuzzer's whole time.
        if slot.info().kind == SlotKind::Key {
            let opened = slot.unwrap(&Secret::Key(Zeroizing::new([9; 32])));
            assert!(!matches!(opened, Ok(Some(_))), "a slot was forged");
        }
    }
}

/// The bytes are a sealed object, and what is sealed in one: codec, length, body; and a pack's index.
pub(crate) fn sealed(bytes: &[u8]) {
    let (master, vault) = (master(), vault_id());
    for kind in [ObjectKind::Manifest, ObjectKind::Kit] {
        if let Ok(key) = ObjectKey::parse(&master, vault, kind, NAME, bytes) {
            let mut frame = bytes[HEADER_BYTES..].to_vec();
            assert!(key.open(0, Purpose::Last, &[], &mut frame).is_none(), "a seal was forged");
        }
    }
    if let Ok(text) = sealed::text_of(NAME, bytes) {
        assert!(text.len() <= bytes.len() * EXPANSION_MAX, "{} from {}", text.len(), bytes.len());
        documents(&text);
    }
    super::pack::fuzzing::index(bytes);
}

/// The bytes are the JSON of any document of a vault.
pub(crate) fn documents(text: &[u8]) {
    if let Some(manifest) = there_and_back::<Manifest>(VERSION_OF_LISTS, text) {
        let fault = manifest.fault();
        let entries = manifest.entries().count();
        let plain = |part: &PartRecord| part.lists.is_empty() && part.entry_points.is_empty();
        if manifest.version == 1 && manifest.parts.iter().all(plain) {
            assert!(entries > 0 || fault.is_none(), "no entry, and one with a fault");
        }
        if fault.is_none() {
            let bytes = manifest.parts.iter().map(|part| part.bytes()).max().unwrap_or(0);
            assert!(manifest.bytes_total() >= bytes);
        }
        let _ = manifest.guard_kind();
    }
    if let Some(entries) = lists::parse(text, &[(PackId::from_bytes([8; 16]), 3)].into()) {
        let mut packs = entries.iter().flat_map(|entry| &entry.leaves).flat_map(|leaf| &leaf.packs);
        assert!(packs.all(|&pack| pack == 3), "a leaf leads to a pack that is not listed");
    }
    there_and_back::<NodeRecord>(sealed::DOCUMENT_VERSION, text);
    there_and_back::<Intent>(sealed::DOCUMENT_VERSION, text);
    there_and_back::<TrashDoc>(sealed::DOCUMENT_VERSION, text);
}

/// What is read is written as something that reads as the same.
fn there_and_back<T>(newest: u32, text: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let document: T = sealed::parse_up_to(newest, NAME, text).ok()?;
    let written = serde_json::to_vec(&document).expect("a document is JSON");
    let again: T =
        sealed::parse_up_to(newest, NAME, &written).expect("what is written can be read");
    assert_eq!(document, again);
    Some(document)
}

/// The bytes are how many units a file has, how many packs there are, and its runs.
pub(crate) fn runs(bytes: &[u8]) {
    let Some((&[a, b, c, d, packs], encoded)) = bytes.split_first_chunk::<5>() else { return };
    let units = u64::from(u32::from_le_bytes([a, b, c, d]));
    let Ok(found) = runs::decode(encoded, units, usize::from(packs)) else { return };
    assert_eq!(found.iter().map(|run| u64::from(run.count)).sum::<u64>(), units);
    assert!(found.iter().all(|run| run.at.is_none_or(|at| at.pack < u32::from(packs))));
    let again = runs::encode(&found);
    assert!(again.len() <= encoded.len(), "what is written is longer than what was read");
    assert_eq!(runs::decode(&again, units, usize::from(packs)).ok(), Some(found));
}
