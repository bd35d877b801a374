//! The vault's key, and the slots that keep it wrapped for each secret that opens the vault.
//!
//! A slot is a plain, canonical, checksummed document. A commitment to the wrapping key tells a
//! wrong secret from a damaged slot; a MAC under the vault's key tells a forged one.

use std::fmt;

use ring::{aead, hkdf, hmac};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::document::{self, damaged};
use super::folder::Folder;
use super::store::Store;
use crate::env::Env;
use crate::error::{Error, Remedy, Result};
use crate::ids::{SlotId, Time, VaultId};

mod secret;

pub use secret::Secret;
pub(crate) use secret::recovery_words;

const SALT_LEN: usize = 32;
const WRAPPED_LEN: usize = 32 + 16;
const LABEL_LEN_MAX: usize = 64;
const PASSPHRASE_LEN_MIN: usize = 8;

const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
const ARGON2_PASSES_MAX: u32 = 16;
const ARGON2_LANES_MAX: u32 = 16;

/// The kind of a key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotKind {
    /// A key file.
    Key,
    /// A passphrase, through Argon2id.
    Passphrase,
    /// A BIP-39 mnemonic.
    Mnemonic,
}

/// A key slot, as `key list` shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SlotInfo {
    /// Its id.
    pub slot: SlotId,
    /// Its kind.
    pub kind: SlotKind,
    /// What it was made for: `first`, `recovery`, or the caller's word.
    pub label: String,
    /// When it was made.
    pub created: Time,
}

/// No vault has more slots; neither has an archive or a kit of it.
pub(crate) const SLOTS_MAX: usize = 1024;
/// Nothing in a slot can be believed before a secret has opened it, and each slot for a passphrase
/// costs an Argon2id. So all of them together may cost what so many ordinary ones do.
const PASSPHRASE_TRIES_MAX: u64 = 32;

/// The key that everything in a vault is sealed under.
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A fresh one from the operating system; injected randomness never reaches it.
    pub(crate) fn generate() -> Result<MasterKey> {
        Ok(MasterKey(secret::random_bytes()?))
    }

    /// From its bytes, which the caller wipes.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> MasterKey {
        MasterKey(Zeroizing::new(bytes))
    }

    /// A key for one purpose: HKDF-SHA256 (RFC 5869) over `salt`. Each part of `info` goes in behind
    /// its length (u32, little-endian), so that no two lists of parts meet; the first part is a
    /// label that begins with `hw1 `.
    pub(crate) fn derive(&self, salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        derive(&*self.0, salt, info)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// A key slot: the vault's key, wrapped for one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotDoc {
    terms: Terms,
    wrapped: [u8; WRAPPED_LEN],
    commitment: [u8; 32],
    mac: [u8; 32],
}

/// What a slot says beside keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    slot: SlotId,
    vault: VaultId,
    kind: SlotKind,
    label: String,
    created: Time,
    kdf: Kdf,
    salt: [u8; SALT_LEN],
}

/// How the wrapping key follows from the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
enum Kdf {
    /// The key file's bytes through HKDF.
    HkdfSha256,
    /// Argon2id (version 19, 32 bytes) of the passphrase, then HKDF.
    Argon2id { m_kib: u32, t: u32, p: u32 },
    /// The BIP-39 seed (64 bytes, no passphrase), then HKDF.
    Bip39HkdfSha256,
}

/// A slot as stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    slot: SlotId,
    vault: VaultId,
    kind: SlotKind,
    label: String,
    created: Time,
    kdf: Kdf,
    salt: String,
    commitment: String,
    wrapped: String,
    mac: String,
    blake3: String,
}

impl SlotDoc {
    /// A new slot for `secret`. A passphrase of less than 8 bytes is refused.
    pub(crate) fn wrap(
        secret: &Secret,
        label: &str,
        vault: VaultId,
        master: &MasterKey,
        env: &Env,
    ) -> Result<SlotDoc> {
        if let Secret::Passphrase(text) = secret
            && text.len() < PASSPHRASE_LEN_MIN
        {
            return Err(Error::input("the passphrase is shorter than 8 bytes")
                .with_remedy("use several random words"));
        }
        let terms = Terms {
            slot: SlotId::random(env)?,
            vault,
            kind: secret.kind(),
            label: label.to_owned(),
            created: env.now(),
            kdf: Kdf::default_of(secret.kind()),
            salt: *secret::random_bytes()?,
        };
        SlotDoc::seal(terms, secret, master)
    }

    /// Reads the slot `name`. Corrupt where a byte is wrong, input where a newer program made it.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<SlotDoc> {
        let wire: Wire = document::open(name, bytes)?;
        let doc = SlotDoc {
            wrapped: document::bytes_of(name, &wire.wrapped)?,
            commitment: document::bytes_of(name, &wire.commitment)?,
            mac: document::bytes_of(name, &wire.mac)?,
            terms: Terms {
                slot: wire.slot,
                vault: wire.vault,
                kind: wire.kind,
                label: wire.label,
                created: wire.created,
                kdf: wire.kdf,
                salt: document::bytes_of(name, &wire.salt)?,
            },
        };
        if doc.to_bytes()? != bytes {
            return Err(damaged(name, "it is not in the form that highwater writes"));
        }
        if doc.object_name() != name {
            return Err(damaged(name, "it is another slot's document"));
        }
        doc.terms.validate().map_err(|why| damaged(name, why))?;
        Ok(doc)
    }

    /// The bytes to be stored.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        document::seal(&self.wire())
    }

    /// The name under which it is stored.
    pub(crate) fn object_name(&self) -> String {
        self.terms.object_name()
    }

    /// The vault that it says it belongs to.
    pub(crate) fn vault(&self) -> VaultId {
        self.terms.vault
    }

    /// What `key list` shows.
    pub(crate) fn info(&self) -> SlotInfo {
        let Terms { slot, kind, label, created, .. } = &self.terms;
        SlotInfo { slot: *slot, kind: *kind, label: label.clone(), created: *created }
    }

    /// The vault's key, where `secret` opens one of the slots; `None` where it opens none. The cheap
    /// ones are tried first, so that one that was forged to be expensive keeps nobody out.
    ///
    /// # Errors
    /// Corrupt where trying all of them would cost more than those of a vault do: somebody has put
    /// slots there. Those of the other errors of a slot that the secret opens.
    pub(crate) fn unlock(slots: &[SlotDoc], secret: &Secret) -> Result<Option<MasterKey>> {
        let mut slots: Vec<&SlotDoc> =
            slots.iter().filter(|slot| slot.terms.kind == secret.kind()).collect();
        slots.sort_by_key(|slot| slot.terms.kdf.cost());
        let cost_max = PASSPHRASE_TRIES_MAX * Kdf::default_of(SlotKind::Passphrase).cost();
        let mut spent: u64 = 0;
        for (tried, slot) in slots.iter().enumerate() {
            spent = spent.saturating_add(slot.terms.kdf.cost());
            // One alone may cost what a slot may.
            if tried > 0 && spent > cost_max {
                return Err(too_many(slot, tried));
            }
            if let Some(master) = slot.unwrap(secret)? {
                return Ok(Some(master));
            }
        }
        Ok(None)
    }

    /// The vault's key, where `secret` opens this slot; `None` where it is not for this secret.
    pub(crate) fn unwrap(&self, secret: &Secret) -> Result<Option<MasterKey>> {
        if secret.kind() != self.terms.kind {
            return Ok(None);
        }
        let keys = SlotKeys::of(secret, &self.terms)?;
        if *keys.commitment != self.commitment {
            return Ok(None);
        }
        let name = self.object_name();
        let forged = || damaged(&name, "it does not open with the secret that it was made for");
        let mut bytes = Zeroizing::new(self.wrapped);
        let plain = sealing_key(&keys.wrapping)?
            .open_in_place(zero_nonce(), self.terms.authenticated(&self.commitment)?, &mut *bytes)
            .map_err(|_| forged())?;
        let mut key: [u8; 32] = <[u8; 32]>::try_from(&*plain).map_err(|_| forged())?;
        let master = MasterKey::from_bytes(key);
        key.zeroize();
        self.verify(&master)?;
        Ok(Some(master))
    }

    /// Corrupt where this slot was not made under the vault's key.
    pub(crate) fn verify(&self, master: &MasterKey) -> Result<()> {
        hmac::verify(&self.terms.mac_key(master), &self.macced()?, &self.mac)
            .map_err(|_| damaged(&self.object_name(), "it was not written with this vault's key"))
    }

    fn seal(terms: Terms, secret: &Secret, master: &MasterKey) -> Result<SlotDoc> {
        terms.validate().map_err(Error::input)?;
        let keys = SlotKeys::of(secret, &terms)?;
        let mut wrapped = [0; WRAPPED_LEN];
        let (text, tag) = wrapped.split_at_mut(32);
        text.copy_from_slice(&*master.0);
        let aad = terms.authenticated(&keys.commitment)?;
        let sealed = sealing_key(&keys.wrapping)?
            .seal_in_place_separate_tag(zero_nonce(), aad, text)
            .map_err(|_| Error::bug("AES-GCM refuses a key of 32 bytes"))?;
        tag.copy_from_slice(sealed.as_ref());
        let mut doc = SlotDoc { terms, wrapped, commitment: *keys.commitment, mac: [0; 32] };
        let mac = hmac::sign(&doc.terms.mac_key(master), &doc.macced()?);
        doc.mac.copy_from_slice(mac.as_ref());
        Ok(doc)
    }

    fn wire(&self) -> Wire {
        let mut wire = self.terms.wire();
        wire.wrapped = hex::encode(self.wrapped);
        wire.commitment = hex::encode(self.commitment);
        wire.mac = hex::encode(self.mac);
        wire
    }

    /// What the MAC covers: all but itself and the checksum.
    fn macced(&self) -> Result<Vec<u8>> {
        document::body(&Wire { mac: String::new(), ..self.wire() })
    }
}

/// In another document a slot stands as in its own, its checksum included.
impl Serialize for SlotDoc {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.to_bytes().map_err(serde::ser::Error::custom)?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(serde::ser::Error::custom)?;
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SlotDoc {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<SlotDoc, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let mut bytes = serde_json::to_vec_pretty(&wire).map_err(serde::de::Error::custom)?;
        bytes.push(b'\n');
        SlotDoc::parse(&Folder::Keys.object(wire.slot), &bytes).map_err(serde::de::Error::custom)
    }
}

impl Terms {
    fn object_name(&self) -> String {
        Folder::Keys.object(self.slot)
    }

    fn validate(&self) -> Result<(), &'static str> {
        let label_fits = (1..=LABEL_LEN_MAX).contains(&self.label.len())
            && !self.label.chars().any(char::is_control);
        if !label_fits {
            return Err("the label of a slot has 1 to 64 bytes and no control characters");
        }
        match (self.kind, self.kdf) {
            (SlotKind::Key, Kdf::HkdfSha256) | (SlotKind::Mnemonic, Kdf::Bip39HkdfSha256) => Ok(()),
            (SlotKind::Passphrase, Kdf::Argon2id { m_kib, t, p }) => {
                let bounded = (1..=ARGON2_LANES_MAX).contains(&p)
                    && (1..=ARGON2_PASSES_MAX).contains(&t)
                    && (8 * p..=ARGON2_MEMORY_KIB_MAX).contains(&m_kib);
                bounded.then_some(()).ok_or("its Argon2id parameters are out of bounds")
            }
            _ => Err("its key derivation is not of its kind"),
        }
    }

    fn wire(&self) -> Wire {
        Wire {
            version: document::VERSION,
            slot: self.slot,
            vault: self.vault,
            kind: self.kind,
            label: self.label.clone(),
            created: self.created,
            kdf: self.kdf,
            salt: hex::encode(self.salt),
            commitment: String::new(),
            wrapped: String::new(),
            mac: String::new(),
            blake3: document::UNSEALED.to_owned(),
        }
    }

    /// The additional data of the wrapping: all but wrapped key, MAC and checksum.
    fn authenticated(&self, commitment: &[u8; 32]) -> Result<aead::Aad<Vec<u8>>> {
        let wire = Wire { commitment: hex::encode(commitment), ..self.wire() };
        Ok(aead::Aad::from(document::body(&wire)?))
    }

    fn mac_key(&self, master: &MasterKey) -> hmac::Key {
        let info: [&[u8]; 3] = [b"hw1 slot mac", self.vault.as_bytes(), self.slot.as_bytes()];
        hmac::Key::new(hmac::HMAC_SHA256, &*master.derive(&self.salt, &info))
    }
}

impl Kdf {
    /// The work of one derivation, in KiB times passes; what HKDF costs is nothing beside it.
    fn cost(self) -> u64 {
        match self {
            Kdf::HkdfSha256 | Kdf::Bip39HkdfSha256 => 0,
            Kdf::Argon2id { m_kib, t, .. } => u64::from(m_kib) * u64::from(t),
        }
    }

    fn default_of(kind: SlotKind) -> Kdf {
        match kind {
            SlotKind::Key => Kdf::HkdfSha256,
            SlotKind::Passphrase => Kdf::Argon2id { m_kib: 64 << 10, t: 3, p: 1 },
            SlotKind::Mnemonic => Kdf::Bip39HkdfSha256,
        }
    }
}

fn too_many(slot: &SlotDoc, tried: usize) -> Error {
    Error::corrupt(format!(
        "there are more key slots for passphrases than can be tried: {tried} did not open, and \
         trying the others would take too long"
    ))
    .with_entry(slot.object_name())
    .with_remedy("open the vault with its key file or the recovery words: slots may have been forged, and the store's own tool removes them").with_remedy(Remedy::ListKeys)
}

/// The keys that a secret gives for one slot.
struct SlotKeys {
    /// Wraps the vault's key, once: a slot's salt is never used again, so its nonce can be zero.
    wrapping: Zeroizing<[u8; 32]>,
    /// Stands in the slot, so that no slot opens under two secrets.
    commitment: Zeroizing<[u8; 32]>,
}

impl SlotKeys {
    fn of(secret: &Secret, terms: &Terms) -> Result<SlotKeys> {
        let (vault, slot) = (terms.vault.as_bytes(), terms.slot.as_bytes());
        let input = input_key(secret, terms)?;
        let kek = derive(&input, &terms.salt, &[b"hw1 slot", vault, slot]);
        Ok(SlotKeys {
            wrapping: derive(&*kek, &terms.salt, &[b"hw1 slot wrap"]),
            commitment: derive(&*kek, &terms.salt, &[b"hw1 slot commitment"]),
        })
    }
}

/// The names of the slots of a vault. Corrupt where there are more than any vault has.
pub(super) fn slot_names(store: &Store) -> Result<Vec<String>> {
    let listed = store.list_at_most(Some(Folder::Keys.name()), SLOTS_MAX)?;
    Ok(listed.into_iter().map(|listed| listed.name).collect())
}

fn input_key(secret: &Secret, terms: &Terms) -> Result<Zeroizing<Vec<u8>>> {
    match (secret, terms.kdf) {
        (Secret::Key(bytes), Kdf::HkdfSha256) => Ok(Zeroizing::new(bytes.to_vec())),
        (Secret::Mnemonic(words), Kdf::Bip39HkdfSha256) => secret::mnemonic_seed(words),
        (Secret::Passphrase(text), Kdf::Argon2id { m_kib, t, p }) => {
            let refused = |error: argon2::Error| match error {
                argon2::Error::OutOfMemory => {
                    Error::unavailable(format!("no {m_kib} KiB of memory for the passphrase"))
                }
                error => Error::bug(format!("Argon2id: {error}")),
            };
            let params = argon2::Params::new(m_kib, t, p, Some(32)).map_err(refused)?;
            let mut output = Zeroizing::new(vec![0; 32]);
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                .hash_password_into(text.as_bytes(), &terms.salt, &mut output)
                .map_err(refused)?;
            Ok(output)
        }
        _ => Err(Error::bug("a secret of another kind than its slot")),
    }
}

fn derive(input: &[u8], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let lens: Vec<[u8; 4]> = info
        .iter()
        .map(|part| u32::try_from(part.len()).expect("a part is a label or a name").to_le_bytes())
        .collect();
    let parts: Vec<&[u8]> =
        lens.iter().zip(info).flat_map(|(len, part)| [len.as_slice(), part]).collect();
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(input)
        .expand(&parts, hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(&mut *key))
        .expect("HKDF gives up to 255 blocks; this is one");
    key
}

fn sealing_key(bytes: &[u8; 32]) -> Result<aead::LessSafeKey> {
    aead::UnboundKey::new(&aead::AES_256_GCM, bytes)
        .map(aead::LessSafeKey::new)
        .map_err(|_| Error::bug("AES-GCM refuses a key of 32 bytes"))
}

fn zero_nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

#[cfg(test)]
mod tests;
