//! `vault.json`: what kind of store this is, and which vault. Plain, canonical, checksummed, and
//! authenticated under the vault's key.

use serde::{Deserialize, Serialize};

use super::document;
use super::folder::HEADER;
use super::keys::MasterKey;
use crate::error::{Error, Result};
use crate::ids::{Time, VaultId};

const FORMAT: &str = "highwater";

/// What the probe found the store to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreTraits {
    /// A create-only put fails where the object exists, also in a race.
    pub(crate) create_only: bool,
    /// A put under a condition fails where the object has changed, also in a race.
    pub(crate) compare_and_set: bool,
}

/// The header of a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The vault.
    pub(crate) vault: VaultId,
    /// When it was made.
    pub(crate) created: Time,
    /// What its store was found to do.
    pub(crate) store: StoreTraits,
    mac: [u8; 32],
}

/// The header as stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    format: String,
    version: u32,
    vault: VaultId,
    created: Time,
    store: StoreTraits,
    mac: String,
    blake3: String,
}

impl Header {
    /// The header of a new vault, authenticated under its key.
    pub(crate) fn new(
        vault: VaultId,
        created: Time,
        store: StoreTraits,
        master: &MasterKey,
    ) -> Result<Header> {
        let mut header = Header { vault, created, store, mac: [0; 32] };
        let mac = ring::hmac::sign(&header.mac_key(master), &header.authenticated()?);
        header.mac.copy_from_slice(mac.as_ref());
        Ok(header)
    }

    /// Reads a header. Input where a newer program made the vault: nothing may be written then.
    /// Corrupt where a byte is wrong. Whether the vault's key made it, [`Header::verify`] says.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Header> {
        let wire: Wire = document::open(HEADER, bytes)?;
        if wire.format != FORMAT {
            return Err(document::damaged(HEADER, "it does not describe a vault"));
        }
        let Wire { vault, created, store, .. } = wire;
        let header = Header { vault, created, store, mac: document::bytes_of(HEADER, &wire.mac)? };
        if header.to_bytes()? != bytes {
            return Err(document::damaged(HEADER, "it is not in the form that highwater writes"));
        }
        Ok(header)
    }

    /// The bytes to be stored.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        document::seal(&self.wire(hex::encode(self.mac)))
    }

    /// Corrupt where this header was not made under the vault's key.
    pub(crate) fn verify(&self, master: &MasterKey) -> Result<()> {
        ring::hmac::verify(&self.mac_key(master), &self.authenticated()?, &self.mac).map_err(|_| {
            Error::corrupt(format!("{HEADER} was not written with this vault's key"))
                .with_entry(HEADER)
        })
    }

    fn wire(&self, mac: String) -> Wire {
        Wire {
            format: FORMAT.to_owned(),
            version: document::VERSION,
            vault: self.vault,
            created: self.created,
            store: self.store,
            mac,
            blake3: document::UNSEALED.to_owned(),
        }
    }

    fn authenticated(&self) -> Result<Vec<u8>> {
        document::body(&self.wire(String::new()))
    }

    fn mac_key(&self, master: &MasterKey) -> ring::hmac::Key {
        let key = master.derive(&[], &[b"hw1 vault mac", self.vault.as_bytes()]);
        ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &*key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::vault::document::tests::{every_damage_is_found, forged};

    const FIXTURE: &[u8] = include_bytes!("../../tests/fixtures/vault.json");

    fn master() -> MasterKey {
        MasterKey::from_bytes([7; 32])
    }

    fn header() -> Header {
        let created = Time::from_nanos(1_790_000_000_123_456_789);
        let store = StoreTraits { create_only: true, compare_and_set: false };
        Header::new(VaultId::from_bytes([1; 16]), created, store, &master()).unwrap()
    }

    #[test]
    fn the_fixture_opens_for_ever() {
        assert_eq!(header().to_bytes().unwrap(), FIXTURE);
        let read = Header::parse(FIXTURE).unwrap();
        assert_eq!(read, header());
        read.verify(&master()).unwrap();
    }

    #[test]
    fn another_key_did_not_write_it() {
        let error = header().verify(&MasterKey::from_bytes([8; 32])).unwrap_err();
        assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some(HEADER)));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        every_damage_is_found(FIXTURE, |bytes| Header::parse(bytes).err());
    }

    #[test]
    fn a_newer_vault_is_not_damage() {
        let newer = forged(FIXTURE, "\"version\": 1,", "\"version\": 2,\n  \"more\": [],");
        let error = Header::parse(&newer).unwrap_err();
        assert_eq!((error.kind(), error.entry()), (Kind::Input, Some(HEADER)));
        assert!(error.to_string().contains("made by a newer highwater"));
    }

    #[test]
    fn a_forged_field_passes_the_checksum_but_not_the_key() {
        let forgery = forged(FIXTURE, "\"create_only\": true", "\"create_only\": false");
        let error = Header::parse(&forgery).unwrap().verify(&master()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        for (from, to) in [
            ("\"version\": 1,", "\"version\":  1,"),
            ("\"version\": 1,", "\"version\": 0,"),
            ("\"version\": 1,", "\"version\": 1,\n  \"more\": 1,"),
            ("\"highwater\"", "\"lowwater\""),
            ("\"mac\": \"", "\"mac\": \"00"),
            ("123456789Z", "123456789+00:00"),
        ] {
            let error = Header::parse(&forged(FIXTURE, from, to)).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{to}");
        }
    }
}
