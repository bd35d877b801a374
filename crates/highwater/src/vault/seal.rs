//! Sealing: every object is encrypted and authenticated under a key of its own.
//!
//! The key of an object is HKDF-SHA256 of the vault's key over a fresh salt, the object's kind, the
//! vault and the object's name; the frames inside are AES-256-GCM (NIST SP 800-38D) with the frame's
//! number as nonce. The additional data binds header, name, frame number and purpose, so that no
//! frame can stand in for another one and no byte is left unauthenticated.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::ids::VaultId;

use super::keys::MasterKey;

/// Bytes of an object's header.
pub(crate) const HEADER_BYTES: usize = 48;
/// Bytes that sealing adds to a frame.
pub(crate) const TAG_BYTES: usize = 16;

const MAGIC: &[u8; 8] = b"HWSEALED";
const FORMAT_VERSION: u16 = 1;
const SALT_BYTES: usize = 32;

/// What an object is for; part of its key and of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Pack = 1,
    Manifest = 2,
    Intent = 3,
    Node = 4,
    Trash = 5,
    Witness = 6,
    Kit = 7,
}

/// What a frame is for; part of its additional data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Data, with more frames to come.
    Data = 0,
    /// The last frame: the index of a pack, the only frame of a document.
    Last = 1,
}

/// The key of one object, with what each of its frames is bound to.
pub(crate) struct ObjectKey {
    key: LessSafeKey,
    header: [u8; HEADER_BYTES],
    bound: Vec<u8>,
}

impl ObjectKey {
    /// The key of a new object. Its salt comes from the operating system and from nowhere else: a
    /// salt used twice would repeat nonces.
    pub(crate) fn create(
        master: &MasterKey,
        vault: VaultId,
        kind: ObjectKind,
        name: &str,
    ) -> Result<ObjectKey> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[10] = kind as u8;
        SystemRandom::new()
            .fill(&mut header[HEADER_BYTES - SALT_BYTES..])
            .map_err(|_| Error::unavailable("the operating system gives no random bytes"))?;
        Ok(ObjectKey::from_header(master, vault, kind, name, header))
    }

    /// The key of a stored object, from its first bytes.
    pub(crate) fn parse(
        master: &MasterKey,
        vault: VaultId,
        kind: ObjectKind,
        name: &str,
        bytes: &[u8],
    ) -> Result<ObjectKey> {
        let header: [u8; HEADER_BYTES] = bytes
            .get(..HEADER_BYTES)
            .and_then(|header| header.try_into().ok())
            .ok_or_else(|| Error::corrupt("cut short: it has no whole header").with_entry(name))?;
        if &header[..8] != MAGIC {
            return Err(Error::corrupt("it does not begin as a sealed object").with_entry(name));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version > FORMAT_VERSION {
            return Err(Error::input(format!(
                "the object has format {version}; this program knows up to {FORMAT_VERSION}"
            ))
            .with_entry(name)
            .with_remedy("use the version of highwater that wrote it, or a newer one"));
        }
        if version != FORMAT_VERSION || header[10] != kind as u8 || header[11..16] != [0; 5] {
            return Err(Error::corrupt("its header is damaged").with_entry(name));
        }
        Ok(ObjectKey::from_header(master, vault, kind, name, header))
    }

    fn from_header(
        master: &MasterKey,
        vault: VaultId,
        kind: ObjectKind,
        name: &str,
        header: [u8; HEADER_BYTES],
    ) -> ObjectKey {
        let salt = &header[HEADER_BYTES - SALT_BYTES..];
        let info: [&[u8]; 4] = [b"hw1 object", &[kind as u8], vault.as_bytes(), name.as_bytes()];
        let bytes: Zeroizing<[u8; 32]> = master.derive(salt, &info);
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).expect("AES-256 takes 32 bytes");
        let mut bound = header.to_vec();
        bound.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bound.extend_from_slice(name.as_bytes());
        ObjectKey { key: LessSafeKey::new(key), header, bound }
    }

    /// The object's first bytes.
    pub(crate) fn header(&self) -> &[u8; HEADER_BYTES] {
        &self.header
    }

    /// Seals `buffer` in place and adds the tag. A number may be used once only for an object.
    pub(crate) fn seal(
        &self,
        number: u64,
        purpose: Purpose,
        extra: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        self.key
            .seal_in_place_append_tag(nonce(number), self.aad(number, purpose, extra), buffer)
            .map_err(|_| Error::bug("a frame is too long to be sealed"))
    }

    /// Opens `buffer` in place; the plain bytes are what is returned. `None` where a bit of it, of
    /// its place or of its name is not what was sealed.
    pub(crate) fn open<'a>(
        &self,
        number: u64,
        purpose: Purpose,
        extra: &[u8],
        buffer: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.key.open_in_place(nonce(number), self.aad(number, purpose, extra), buffer).ok()
    }

    fn aad(&self, number: u64, purpose: Purpose, extra: &[u8]) -> Aad<Vec<u8>> {
        let mut aad = Vec::with_capacity(self.bound.len() + 9 + extra.len());
        aad.extend_from_slice(&self.bound);
        aad.extend_from_slice(&number.to_le_bytes());
        aad.push(purpose as u8);
        aad.extend_from_slice(extra);
        Aad::from(aad)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
