//! The keys of a replica: all from one secret, by HKDF-SHA256 (RFC 5869) under labels of their own.
//!
//! What leaves the machine is sealed with AES-256-GCM; its place is in the additional data, so that a
//! server can't give one value for another. `docs/replica-format.md` has it byte by byte.

use std::fmt;

use highwater::ids::StoreId;
use highwater::{Error, Remedy, Result};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use zeroize::Zeroizing;

use super::digest::Tag;

/// The first byte of all that is sealed.
const FORMAT: u8 = 1;
/// Bytes of an epoch's name.
pub(super) const EPOCH_BYTES: usize = 16;
/// Bytes of what authenticates a seal.
const SEAL_BYTES: usize = 16;
/// What stands before the sealed bytes of a value: format, epoch, sequence, nonce.
const VALUE_HEAD: usize = 1 + EPOCH_BYTES + 8 + NONCE_LEN;
/// And before those of a document: format, nonce.
const DOCUMENT_HEAD: usize = 1 + NONCE_LEN;

/// How names of values on the server begin.
pub(super) const VALUES: &str = "v.";

/// The secret of a replica, and what comes from it; wiped when they are dropped.
#[derive(Clone)]
pub struct ReplicaKeys {
    root: Zeroizing<[u8; 32]>,
    store: String,
    name: Zeroizing<[u8; 32]>,
    tag: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for ReplicaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaKeys({})", self.store)
    }
}

/// The key of one epoch's values.
pub(super) struct EpochKey {
    key: LessSafeKey,
    pub(super) id: [u8; EPOCH_BYTES],
}

/// A value as it was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) seq: u64,
    pub(super) tag: Tag,
}

impl ReplicaKeys {
    /// From the words of a BIP-39 mnemonic: those of the node's wallet will do.
    ///
    /// # Errors
    /// Input where the words are none.
    pub fn from_mnemonic(words: &str, store: &str) -> Result<ReplicaKeys> {
        let words = bip39::Mnemonic::parse_normalized(words.trim()).map_err(|error| {
            Error::input(format!("the mnemonic is none: {error}")).with_remedy(
                "it has 12 to 24 words of the English list, the last of which checks the others",
            )
        })?;
        let seed = Zeroizing::new(words.to_seed_normalized(""));
        ReplicaKeys::from_secret(&*seed, store)
    }

    /// From 32 bytes that nobody can guess.
    ///
    /// # Errors
    /// A bug alone.
    pub fn from_entropy(entropy: &[u8; 32], store: &str) -> Result<ReplicaKeys> {
        ReplicaKeys::from_secret(entropy, store)
    }

    fn from_secret(secret: &[u8], store: &str) -> Result<ReplicaKeys> {
        let root = derive(secret, &[b"hwr1 root", store.as_bytes()]);
        let of = |label: &[u8]| derive(&*root, &[label]);
        let (name, tag) = (of(b"hwr1 name"), of(b"hwr1 tag"));
        Ok(ReplicaKeys { root, store: store.to_owned(), name, tag })
    }

    /// The store's id on the server.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Which store these keys are of, wherever it is.
    pub fn store_id(&self) -> StoreId {
        StoreId::of_check(&self.check())
    }

    /// What tells these keys from others without telling them.
    pub(super) fn check(&self) -> [u8; 32] {
        *derive(&*self.root, &[b"hwr1 check"])
    }

    /// The key by which this user is known: a scalar of secp256k1, except with a chance of one in 2^127.
    pub fn signing_key(&self) -> Zeroizing<[u8; 32]> {
        derive(&*self.root, &[b"hwr1 sign"])
    }

    /// A key's name on the server: it tells nothing, and is the same each time.
    pub(super) fn name_of(&self, key: &[u8]) -> String {
        format!("{VALUES}{}", blake3::keyed_hash(&self.name, key).to_hex())
    }

    pub(super) fn epoch(&self, id: [u8; EPOCH_BYTES]) -> Result<EpochKey> {
        Ok(EpochKey { key: aes(&derive(&*self.root, &[b"hwr1 seal", &id]))?, id })
    }

    /// What a digest adds up for a value: keyed BLAKE3 over its name, sequence and seal.
    fn tag_of(&self, name: &str, seq: u64, seal: &[u8]) -> Tag {
        let mut hasher = blake3::Hasher::new_keyed(&self.tag);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&seq.to_le_bytes()).update(seal);
        Tag(hasher.finalize().into())
    }

    /// Seals a value under its name.
    pub(super) fn seal(
        &self,
        epoch: &EpochKey,
        name: &str,
        key: &[u8],
        seq: u64,
        value: &[u8],
    ) -> Result<(Vec<u8>, Tag)> {
        let nonce = random::<NONCE_LEN>()?;
        let mut plain = Vec::with_capacity(4 + key.len() + value.len() + SEAL_BYTES);
        let length = u32::try_from(key.len()).map_err(|_| Error::input("a key of 4 GiB"))?;
        plain.extend_from_slice(&length.to_le_bytes());
        plain.extend_from_slice(key);
        plain.extend_from_slice(value);
        let aad = self.value_aad(name, &epoch.id, seq);
        epoch
            .key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut plain)
            .map_err(|_| Error::input("a value is too long to be sealed"))?;
        let mut sealed = Vec::with_capacity(VALUE_HEAD + plain.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&epoch.id);
        sealed.extend_from_slice(&seq.to_le_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        let tag = self.tag_of(name, seq, &plain[plain.len() - SEAL_BYTES..]);
        Ok((sealed, tag))
    }

    /// Opens what a server gave for a name.
    ///
    /// # Errors
    /// Corrupt where it is not what was sealed under that name.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<Opened> {
        let broken =
            || Error::corrupt("a value on the server is not what was sealed").with_entry(name);
        let (head, body) = sealed.split_at_checked(VALUE_HEAD).ok_or_else(broken)?;
        let (format, rest) = head.split_first().ok_or_else(broken)?;
        check_format(*format, name)?;
        let (id, rest) = rest.split_first_chunk::<EPOCH_BYTES>().ok_or_else(broken)?;
        let (seq, rest) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
        let nonce = <[u8; NONCE_LEN]>::try_from(rest).map_err(|_| broken())?;
        let seal = body.len().checked_sub(SEAL_BYTES).ok_or_else(broken)?;
        let seq = u64::from_le_bytes(*seq);
        let tag = self.tag_of(name, seq, &body[seal..]);
        let mut body = body.to_vec();
        let aad = self.value_aad(name, id, seq);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain =
            self.epoch(*id)?.key.open_in_place(nonce, aad, &mut body).map_err(|_| broken())?;
        let (length, plain) = plain.split_first_chunk::<4>().ok_or_else(broken)?;
        let (key, value) =
            plain.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(broken)?;
        if self.name_of(key) != name {
            return Err(broken());
        }
        Ok(Opened { key: key.to_vec(), value: value.to_vec(), seq, tag })
    }

    /// Seals a small document under its name.
    pub(super) fn seal_document(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>> {
        seal_document(&self.document(name)?, self.aad(b"hwr1 document", name), plain)
    }

    /// Opens a document.
    ///
    /// # Errors
    /// Denied where it was sealed under other keys, or under another name.
    pub(super) fn open_document(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        open_document(&self.document(name)?, self.aad(b"hwr1 document", name), name, sealed)
    }

    /// A key of its own for each name: a head is sealed with each put of its epoch, and no nonce must come
    /// twice.
    fn document(&self, name: &str) -> Result<LessSafeKey> {
        aes(&derive(&*self.root, &[b"hwr1 document", name.as_bytes()]))
    }

    /// Seals a state of a witness's object, under the key of the start that the object is named after.
    pub(super) fn seal_witness(
        &self,
        id: &[u8; EPOCH_BYTES],
        name: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>> {
        seal_document(&self.witness(id)?, self.aad(b"hwr1 witness", name), plain)
    }

    /// Opens a state of a witness's object.
    ///
    /// # Errors
    /// As [`ReplicaKeys::open_document`].
    pub(super) fn open_witness(
        &self,
        id: &[u8; EPOCH_BYTES],
        name: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>> {
        open_document(&self.witness(id)?, self.aad(b"hwr1 witness", name), name, sealed)
    }

    fn witness(&self, id: &[u8; EPOCH_BYTES]) -> Result<LessSafeKey> {
        aes(&derive(&*self.root, &[b"hwr1 witness", id]))
    }

    fn value_aad(&self, name: &str, epoch: &[u8; EPOCH_BYTES], seq: u64) -> Aad<Vec<u8>> {
        let mut bytes = self.aad(b"hwr1 value", name).as_ref().to_vec();
        bytes.extend_from_slice(epoch);
        bytes.extend_from_slice(&seq.to_le_bytes());
        Aad::from(bytes)
    }

    /// Purpose, store and name, each behind its length.
    fn aad(&self, purpose: &[u8], name: &str) -> Aad<Vec<u8>> {
        let mut bytes = Vec::new();
        for part in [purpose, self.store.as_bytes(), name.as_bytes()] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Aad::from(bytes)
    }
}

fn seal_document(key: &LessSafeKey, aad: Aad<Vec<u8>>, plain: &[u8]) -> Result<Vec<u8>> {
    let nonce = random::<NONCE_LEN>()?;
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body)
        .map_err(|_| Error::bug("a document is too long to be sealed"))?;
    Ok([&[FORMAT], nonce.as_slice(), &body].concat())
}

fn open_document(
    key: &LessSafeKey,
    aad: Aad<Vec<u8>>,
    name: &str,
    sealed: &[u8],
) -> Result<Vec<u8>> {
    let denied = || {
        Error::denied("these keys don't open what is on the server")
            .with_entry(name)
            .with_remedy(Remedy::ReplicaKeys)
    };
    let (head, body) = sealed.split_at_checked(DOCUMENT_HEAD).ok_or_else(denied)?;
    let (format, nonce) = head.split_first().ok_or_else(denied)?;
    check_format(*format, name)?;
    let nonce = <[u8; NONCE_LEN]>::try_from(nonce).map_err(|_| denied())?;
    let mut body = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let plain = key.open_in_place(nonce, aad, &mut body).map_err(|_| denied())?;
    Ok(plain.to_vec())
}

fn check_format(format: u8, name: &str) -> Result<()> {
    if format == FORMAT {
        return Ok(());
    }
    Err(Error::input(format!(
        "a value on the server has format {format}; this program knows {FORMAT}"
    ))
    .with_entry(name)
    .with_remedy("use the version of highwater that wrote it, or a newer one"))
}

/// HKDF-SHA256 with an empty salt; each part of the label goes in behind its length.
fn derive(secret: &[u8], label: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let lengths: Vec<[u8; 8]> =
        label.iter().map(|part| (part.len() as u64).to_le_bytes()).collect();
    let info: Vec<&[u8]> =
        lengths.iter().zip(label).flat_map(|(length, part)| [length.as_slice(), part]).collect();
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"")
        .extract(secret)
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(&mut *key))
        .expect("HKDF gives up to 255 blocks; this is one");
    key
}

fn aes(key: &[u8; 32]) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key)
        .map(LessSafeKey::new)
        .map_err(|_| Error::bug("AES-GCM refuses a key of 32 bytes"))
}

/// From the operating system: injected randomness never becomes a nonce.
fn random<const N: usize>() -> Result<[u8; N]> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::unavailable("the operating system gives no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
