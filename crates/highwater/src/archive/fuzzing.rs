//! What fuzzers call: an archive as it arrives, as it is and with hashes that fit.

use super::format::{self, Header};
use super::read::Reader;
use crate::control::Control;
use crate::env::Env;
use crate::error::Result;
use crate::ids::{SnapshotId, VaultId};
use crate::vault::{ContentId, HEADER_NAME, Header as VaultHeader, MasterKey};

/// A vault's header and one of its slots, without which no archive gets anywhere.
const VAULT: &[u8] = include_bytes!("../../tests/fixtures/vault.json");
const SLOT: &[u8] = include_bytes!("../../tests/fixtures/slot-key.json");

/// The bytes are an archive; and objects, each behind the lengths of its name and of itself.
pub(crate) fn archive(bytes: &[u8]) {
    drop(read_by(bytes, None));
    let master = MasterKey::from_bytes([0xa5; 32]);
    read_by(bytes, Some(&master)).expect_err("nobody has the vault's key");

    let sound = archive_of(bytes, &master);
    if read_by(&sound, None).is_ok() {
        // It may hold something that is no manifest.
        drop(read_by(&sound, Some(&master)));
        read_by(&sound[..sound.len() - 1], None).expect_err("a cut archive is not whole");
        read_by(&[&sound[..], &[0]].concat(), None).expect_err("something follows its end");
        let mut changed = sound;
        let at = changed.len() / 2;
        changed[at] ^= 1;
        read_by(&changed, None).expect_err("a changed byte is found");
    }
}

/// Reads all of it, with the vault's key or without.
fn read_by(bytes: &[u8], master: Option<&MasterKey>) -> Result<()> {
    let control = Control::new(Env::system());
    let mut reader = Reader::open("archive", Box::new(bytes), &control)?;
    let Some(master) = master else { return reader.whole().map(drop) };
    reader.authenticate(master)?;
    let (_, entry) = reader.preamble()?;
    let manifest = reader.manifest(&entry)?;
    assert_eq!(manifest.len() as u64, entry.size);
    while let Some(entry) = reader.next()? {
        let mut passed = 0;
        reader.pass(&entry, &mut |piece| {
            passed += piece.len() as u64;
            Ok(())
        })?;
        assert_eq!(passed, entry.size);
    }
    let length = reader.end(master)?;
    assert_eq!(length, bytes.len() as u64);
    Ok(())
}

fn archive_of(mut bytes: &[u8], master: &MasterKey) -> Vec<u8> {
    let vault =
        VaultHeader::parse(VAULT).map_or(VaultId::from_bytes([7; 16]), |header| header.vault);
    let slot = serde_json::from_slice::<serde_json::Value>(SLOT).unwrap_or_default();
    let slot = format!("keys/{}", slot["slot"].as_str().unwrap_or_default());
    let mut objects = vec![(HEADER_NAME.as_bytes(), VAULT), (slot.as_bytes(), SLOT)];
    while let Some((&[name, low, high], rest)) = bytes.split_first_chunk::<3>() {
        let (name, rest) = rest.split_at(usize::from(name).min(rest.len()));
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (object, rest) = rest.split_at(length.min(rest.len()));
        objects.push((name, object));
        bytes = rest;
    }
    let taken = objects.iter().map(|(name, object)| {
        (format::HEAD_BYTES + name.len() + object.len() + format::HASH_BYTES) as u64
    });
    let header = Header {
        vault,
        snapshot: SnapshotId::from_bytes([7; 16]),
        content: ContentId([7; 32]),
        since: None,
        objects: objects.len() as u64,
        bytes: taken.sum::<u64>() + (format::HEADER_BYTES + format::MARKER_BYTES) as u64,
    };
    let mut archive = header.to_bytes(master).to_vec();
    for (name, object) in objects {
        let mut head = format::object_head("", object.len() as u64);
        head[4..8].copy_from_slice(&(name.len() as u32).to_le_bytes());
        archive.extend_from_slice(&head);
        archive.extend_from_slice(name);
        archive.extend_from_slice(object);
        let hash = blake3::hash(&archive);
        archive.extend_from_slice(hash.as_bytes());
    }
    let (before, hash) = (archive.len() as u64, blake3::hash(&archive));
    archive.extend_from_slice(&format::marker(&header, header.objects, before, &hash, master));
    archive
}
