//! The keys of a node, all from one seed: its identity, and for each channel, by index, a signing key
//! and the chain of revocation secrets (as in BOLT 3, so that 48 values keep all of the peer's).

use std::fmt;

use k256::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use k256::ecdsa::{self, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::{
    PaymentHash, PeerId, Preimage, PublicKey, RevocationHash, RevocationSecret, Signature,
};

/// The secrets of a node.
#[derive(Clone)]
pub struct NodeKeys {
    seed: [u8; 32],
    id: PeerId,
}

impl NodeKeys {
    /// The seed.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// From the seed that the node's key file holds.
    pub fn new(seed: [u8; 32]) -> NodeKeys {
        NodeKeys { seed, id: Key::derive(&seed, "identity", 0).public() }
    }

    /// The key that the node is known by.
    pub fn identity(&self) -> Key {
        Key::derive(&self.seed, "identity", 0)
    }

    /// The node's name among its peers.
    pub fn peer_id(&self) -> PeerId {
        self.id
    }

    /// The keys of the channel of that index. An index is used once.
    pub fn channel(&self, index: u64) -> ChannelKeys {
        ChannelKeys {
            signing: Key::derive(&self.seed, "channel", index),
            revocation: derive(&self.seed, "revocation", index),
        }
    }

    /// The preimage of the invoice of that index.
    pub fn preimage(&self, index: u64) -> Preimage {
        Preimage(derive(&self.seed, "invoice", index))
    }
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKeys")
    }
}

/// The secrets of one channel.
pub struct ChannelKeys {
    /// Signs the peer's commitments.
    pub signing: Key,
    revocation: [u8; 32],
}

impl ChannelKeys {
    /// What revokes our commitment of that number.
    pub fn secret(&self, number: u64) -> RevocationSecret {
        RevocationSecret(descend(self.revocation, INDEX_BITS, index_of(number)))
    }

    /// Its hash, which the commitment carries.
    pub fn revocation_hash(&self, number: u64) -> RevocationHash {
        self.secret(number).hash()
    }
}

/// A signing key.
#[derive(Clone)]
pub struct Key(SigningKey);

impl Key {
    fn derive(seed: &[u8; 32], label: &str, index: u64) -> Key {
        let mut bytes = derive(seed, label, index);
        loop {
            // All but one in 2^128 values are keys.
            match SigningKey::from_slice(&bytes) {
                Ok(key) => return Key(key),
                Err(_) => bytes = derive(&bytes, label, index),
            }
        }
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        let point = self.0.verifying_key().to_sec1_point(true);
        PublicKey(point.as_bytes().try_into().expect("a compressed point has 33 bytes"))
    }

    /// Signs a digest, with the deterministic nonce of RFC 6979: one digest, one signature.
    pub fn sign(&self, digest: &[u8; 32]) -> Signature {
        let signature: ecdsa::Signature =
            self.0.sign_prehash(digest).expect("a digest of 32 bytes can be signed");
        Signature(signature.to_bytes().into())
    }
}

impl PublicKey {
    /// Whether `signature` over `digest` is by this key.
    pub fn verifies(&self, digest: &[u8; 32], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_sec1_bytes(&self.0) else { return false };
        let Ok(signature) = ecdsa::Signature::from_slice(&signature.0) else { return false };
        key.verify_prehash(digest, &signature).is_ok()
    }
}

impl RevocationSecret {
    /// What a commitment carries of it.
    pub fn hash(&self) -> RevocationHash {
        RevocationHash(Sha256::digest(self.0).into())
    }
}

impl Preimage {
    /// What a payment carries of it.
    pub fn hash(&self) -> PaymentHash {
        PaymentHash(Sha256::digest(self.0).into())
    }
}

/// The digest of a document under a tag that nothing else is signed under.
pub fn tagged(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = Sha256::digest(tag.as_bytes());
    let mut hash = Sha256::new_with_prefix(tag);
    hash.update(tag);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn derive(seed: &[u8; 32], label: &str, index: u64) -> [u8; 32] {
    tagged(&format!("highwater-sim/{label}"), &[seed, &index.to_be_bytes()])
}

/// How many bits the number of a commitment has.
const INDEX_BITS: u32 = 48;

/// Secrets are given out from the highest index down, since each derives those below it in its tree.
fn index_of(number: u64) -> u64 {
    let last = (1 << INDEX_BITS) - 1;
    assert!(number <= last, "a channel ends before its numbers do");
    last - number
}

/// Walks from a node of the tree down to `index`: each bit that is set among the lower `bits` flips
/// that bit and hashes.
fn descend(mut value: [u8; 32], bits: u32, index: u64) -> [u8; 32] {
    for bit in (0..bits).rev() {
        if index & (1 << bit) != 0 {
            value[bit as usize / 8] ^= 1 << (bit % 8);
            value = Sha256::digest(value).into();
        }
    }
    value
}

/// The peer's revocation secrets: all of them, in at most 49 values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretStore {
    /// For each count of trailing zero bits, the last index that has it, and its secret.
    known: Vec<Option<(u64, RevocationSecret)>>,
}

impl SecretStore {
    /// Takes the secret of the next number. `false`, and nothing taken, where it does not derive the
    /// ones before it: the peer made it up.
    #[must_use]
    pub fn take(&mut self, number: u64, secret: RevocationSecret) -> bool {
        let index = index_of(number);
        let bucket = index.trailing_zeros().min(INDEX_BITS) as usize;
        let derives = |(older, value): &(u64, RevocationSecret)| {
            descend(secret.0, bucket as u32, *older) == value.0
        };
        if !self.known.iter().take(bucket).flatten().all(derives) {
            return false;
        }
        if self.known.len() <= bucket {
            self.known.resize(bucket + 1, None);
        }
        self.known[bucket] = Some((index, secret));
        true
    }

    /// The secret of that number, if it was taken.
    pub fn secret(&self, number: u64) -> Option<RevocationSecret> {
        let index = index_of(number);
        self.known.iter().enumerate().find_map(|(bucket, known)| {
            let (root, secret) = (*known)?;
            let covers = bucket >= INDEX_BITS as usize || root >> bucket == index >> bucket;
            covers.then(|| RevocationSecret(descend(secret.0, bucket as u32, index)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_that_was_taken_is_known_again_and_no_other() {
        let keys = NodeKeys::new([7; 32]).channel(3);
        let mut store = SecretStore::default();
        for number in 0..300 {
            assert_eq!(store.secret(number), None);
            assert!(store.take(number, keys.secret(number)));
            for old in 0..=number {
                assert_eq!(store.secret(old), Some(keys.secret(old)));
            }
        }
    }

    #[test]
    fn a_secret_of_another_chain_is_refused() {
        let (keys, other) = (NodeKeys::new([7; 32]).channel(3), NodeKeys::new([7; 32]).channel(4));
        let mut store = SecretStore::default();
        assert!(store.take(0, keys.secret(0)));
        let before = store.clone();
        assert!(!store.take(1, other.secret(1)));
        assert_eq!(store, before);
    }

    #[test]
    fn one_digest_has_one_signature_that_verifies_under_one_key() {
        let (key, other) = (NodeKeys::new([1; 32]).identity(), NodeKeys::new([2; 32]).identity());
        let signature = key.sign(&[9; 32]);
        assert_eq!(signature, key.sign(&[9; 32]));
        assert!(key.public().verifies(&[9; 32], &signature));
        assert!(!key.public().verifies(&[8; 32], &signature));
        assert!(!other.public().verifies(&[9; 32], &signature));
    }
}
