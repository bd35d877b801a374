//! What `ldk-node` derives from a seed, and what it seals and hides with that: BIP 32, then HMAC-SHA256,
//! then ChaCha20-Poly1305 (RFC 8439). Its own code has it in `io/vss_store.rs` and `builder.rs`, and the
//! client crate in `util/storable_builder.rs` and `util/key_obfuscator.rs`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use highwater::{Error, Result};
use k256::{NonZeroScalar, SecretKey};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hmac;
use vss_api::types::{PlaintextBlob, Storable};
use vss_prost::Message as _;
use zeroize::Zeroizing;

/// The hardened child of the wallet's master key that a store's keys come from.
const STORE_CHILD: u32 = 877;
const HARDENED: u32 = 1 << 31;
const TAG_BYTES: usize = 16;
/// What stands behind a hidden name: its tag, its nonce, hidden too, and the tag of that.
const HIDDEN_BYTES: usize = TAG_BYTES + NONCE_LEN + TAG_BYTES;
const CIPHER: &str = "ChaCha20Poly1305";

/// What opens the store of an `ldk-node`.
pub struct LdkNodeKeys {
    /// Seals values.
    values: LessSafeKey,
    /// Hides names.
    names: LessSafeKey,
    /// Derives the nonces of names.
    nonces: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for LdkNodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LdkNodeKeys(…)")
    }
}

impl LdkNodeKeys {
    /// From the words of the node's mnemonic, and its passphrase; most have none: `""`.
    ///
    /// # Errors
    /// Input where the words are none.
    pub fn from_mnemonic(words: &str, passphrase: &str) -> Result<LdkNodeKeys> {
        let words = bip39::Mnemonic::parse_normalized(words.trim()).map_err(|error| {
            Error::input(format!("the mnemonic is none: {error}")).with_remedy(
                "it has 12 to 24 words of the English list, the last of which checks the others",
            )
        })?;
        LdkNodeKeys::from_seed(&Zeroizing::new(words.to_seed(passphrase)))
    }

    /// From the 64 bytes of the node's seed: its file `keys_seed`.
    ///
    /// # Errors
    /// Input for about one seed in 2^127, of which BIP 32 makes no key.
    pub fn from_seed(seed: &[u8; 64]) -> Result<LdkNodeKeys> {
        let master = hmac_sha512(b"Bitcoin seed", &[seed]);
        LdkNodeKeys::from_secret(&*child(&master, STORE_CHILD | HARDENED)?)
    }

    fn from_secret(secret: &[u8; 32]) -> Result<LdkNodeKeys> {
        let start = extract(secret, b"pseudo_random_key");
        let values = extract(&*start, b"data_encryption_key");
        let names = extract(&*start, &[&values[..], b"obfuscation_key"].concat());
        LdkNodeKeys::from_keys(&values, &names)
    }

    /// From the keys of values and of names.
    fn from_keys(values: &[u8; 32], names: &[u8; 32]) -> Result<LdkNodeKeys> {
        let start = extract(names, b"pseudo_random_key");
        let names = extract(&*start, b"obfuscation_key");
        let nonces = extract(&*start, &[&names[..], b"hashing_key"].concat());
        Ok(LdkNodeKeys { values: chacha(values)?, names: chacha(&names)?, nonces })
    }

    /// Opens a value that was sealed with `bound` beside it; none where it was not.
    pub(super) fn open(&self, sealed: &[u8], bound: &[u8]) -> Option<Vec<u8>> {
        let Storable { data, encryption_metadata } = Storable::decode(sealed).ok()?;
        let how = encryption_metadata?;
        if how.cipher_format != CIPHER {
            return None;
        }
        let nonce = <[u8; NONCE_LEN]>::try_from(&how.nonce[..]).ok()?;
        let tag = <[u8; TAG_BYTES]>::try_from(&how.tag[..]).ok()?;
        let plain = open(&self.values, nonce, bound, &data, tag)?;
        Some(PlaintextBlob::decode(plain.as_slice()).ok()?.value.into())
    }

    /// Seals a value as the client crate does.
    #[cfg(test)]
    pub(super) fn seal(&self, value: &[u8], bound: &[u8], nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let blob = PlaintextBlob { value: value.to_vec().into(), version: -1 };
        let mut data = blob.encode_to_vec();
        let place = Nonce::assume_unique_for_key(nonce);
        let tag = self.values.seal_in_place_separate_tag(place, Aad::from(bound), &mut data);
        let encryption_metadata = Some(vss_api::types::EncryptionMetadata {
            cipher_format: CIPHER.to_owned(),
            nonce: nonce.to_vec().into(),
            tag: tag.unwrap().as_ref().to_vec().into(),
        });
        Storable { data: data.into(), encryption_metadata }.encode_to_vec()
    }

    /// Hides a name, the same way each time.
    pub(super) fn hide(&self, name: &str) -> String {
        let seal = |plain: &mut [u8], material: &[u8]| {
            let nonce = self.nonce(material);
            let place = Nonce::assume_unique_for_key(nonce);
            let tag = self.names.seal_in_place_separate_tag(place, Aad::empty(), plain);
            let tag = tag.expect("a name has less than 256 GiB");
            (nonce, tag)
        };
        let mut hidden = name.as_bytes().to_vec();
        let (mut nonce, tag) = seal(&mut hidden, name.as_bytes());
        let (_, nonce_tag) = seal(&mut nonce, &hidden);
        for part in [tag.as_ref(), &nonce, nonce_tag.as_ref()] {
            hidden.extend_from_slice(part);
        }
        STANDARD_NO_PAD.encode(hidden)
    }

    /// The name that was hidden; none where these keys did not hide it.
    pub(super) fn reveal(&self, hidden: &str) -> Option<String> {
        let bytes = STANDARD_NO_PAD.decode(hidden).ok()?;
        let (text, rest) = bytes.split_at_checked(bytes.len().checked_sub(HIDDEN_BYTES)?)?;
        let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let nonce_tag = <[u8; TAG_BYTES]>::try_from(rest).ok()?;
        let nonce = open(&self.names, self.nonce(text), b"", nonce, nonce_tag)?;
        let nonce = <[u8; NONCE_LEN]>::try_from(nonce.as_slice()).ok()?;
        let name = String::from_utf8(open(&self.names, nonce, b"", text, *tag)?).ok()?;
        (self.hide(&name) == hidden).then_some(name)
    }

    /// A nonce of 8 bytes behind 4 zeros, from what it stands for.
    fn nonce(&self, material: &[u8]) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&extract(&*self.nonces, material)[..8]);
        nonce
    }
}

fn open(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    bound: &[u8],
    sealed: &[u8],
    tag: [u8; TAG_BYTES],
) -> Option<Vec<u8>> {
    let mut plain = sealed.to_vec();
    let (nonce, tag) = (Nonce::assume_unique_for_key(nonce), Tag::from(tag));
    key.open_in_place_separate_tag(nonce, Aad::from(bound), tag, &mut plain, 0..).ok()?;
    Some(plain)
}

/// A hardened child of a BIP 32 key: key and chain code, 32 bytes each, behind one another.
fn child(parent: &[u8; 64], number: u32) -> Result<Zeroizing<[u8; 32]>> {
    let none = || Error::input("the seed is one of which BIP 32 makes no key");
    let (key, chain) = parent.split_at(32);
    let secret = |bytes: &[u8]| SecretKey::from_slice(bytes).map_err(|_| none());
    let parent = secret(key)?;
    let derived = hmac_sha512(chain, &[&[0], key, &number.to_be_bytes()]);
    let step = secret(&derived[..32])?;
    let sum = *parent.to_nonzero_scalar() + *step.to_nonzero_scalar();
    let sum = Option::<NonZeroScalar>::from(NonZeroScalar::new(sum)).ok_or_else(none)?;
    Ok(Zeroizing::new(SecretKey::from(sum).to_bytes().into()))
}

fn hmac_sha512(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 64]> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA512, key));
    parts.iter().for_each(|part| context.update(part));
    let mut out = Zeroizing::new([0; 64]);
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// HMAC-SHA256 of a secret, under a label as its key.
fn extract(secret: &[u8], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, label), secret);
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(tag.as_ref());
    out
}

fn chacha(key: &[u8; 32]) -> Result<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .map(LessSafeKey::new)
        .map_err(|_| Error::bug("ChaCha20-Poly1305 refuses a key of 32 bytes"))
}

#[cfg(test)]
mod tests;
