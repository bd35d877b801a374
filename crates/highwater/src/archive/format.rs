//! The bytes of an archive that are not a vault's own objects: header, object heads, running hashes,
//! end marker. Documented in `docs/archive-format.md`.

use ring::hmac;

use crate::error::{Error, Result};
use crate::ids::{SnapshotId, VaultId};
use crate::vault::{ContentId, MasterKey};

/// The version that this program writes and reads.
pub(super) const FORMAT_VERSION: u16 = 1;
pub(super) const HEADER_BYTES: usize = 208;
pub(super) const HEAD_BYTES: usize = 16;
pub(super) const HASH_BYTES: usize = 32;
pub(super) const MARKER_BYTES: usize = 88;
/// No object's name is longer.
pub(super) const NAME_BYTES_MAX: usize = 512;

const MAGIC: &[u8; 8] = b"HWARCHIV";
const OBJECT_TAG: &[u8; 4] = b"HWOB";
const END_TAG: &[u8; 4] = b"HWEN";
/// What the MAC of the header covers.
const HEADER_MACED: usize = 144;
/// What the hash of the header covers: the MAC as well.
const HEADER_HASHED: usize = 176;
const MARKER_MACED: usize = 56;

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) vault: VaultId,
    pub(super) snapshot: SnapshotId,
    /// What the snapshot is known by.
    pub(super) content: ContentId,
    /// The snapshot that it builds on, whose packs it leaves out.
    pub(super) since: Option<(SnapshotId, ContentId)>,
    /// Objects in it.
    pub(super) objects: u64,
    /// Its length, header and end marker included.
    pub(super) bytes: u64,
}

/// What stands before an object, or at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// An object: the length of its name, and its size.
    Object { name: usize, size: u64 },
    /// No further object.
    End,
}

/// The bytes that an object takes in an archive.
pub(super) fn object_bytes(name: &str, size: u64) -> u64 {
    HEAD_BYTES as u64 + name.len() as u64 + size + HASH_BYTES as u64
}

impl Header {
    pub(super) fn to_bytes(&self, master: &MasterKey) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(self.vault.as_bytes());
        bytes[32..48].copy_from_slice(self.snapshot.as_bytes());
        bytes[64..96].copy_from_slice(&self.content.0);
        if let Some((since, content)) = &self.since {
            bytes[48..64].copy_from_slice(since.as_bytes());
            bytes[96..128].copy_from_slice(&content.0);
        }
        bytes[128..136].copy_from_slice(&self.objects.to_le_bytes());
        bytes[136..144].copy_from_slice(&self.bytes.to_le_bytes());
        let mac = hmac::sign(&mac_key(master, self.vault, HEADER_LABEL), &bytes[..HEADER_MACED]);
        bytes[HEADER_MACED..HEADER_HASHED].copy_from_slice(mac.as_ref());
        let hash = blake3::hash(&bytes[..HEADER_HASHED]);
        bytes[HEADER_HASHED..].copy_from_slice(hash.as_bytes());
        bytes
    }

    /// Reads a header. Corrupt where a byte is wrong, input where a newer program wrote it. Whether
    /// the vault's key made it, [`verify_header`] says.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header> {
        if &bytes[..8] != MAGIC {
            return Err(Error::corrupt("it does not begin as an archive"));
        }
        if blake3::hash(&bytes[..HEADER_HASHED]).as_bytes() != &bytes[HEADER_HASHED..] {
            return Err(Error::corrupt("its header was changed"));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > FORMAT_VERSION {
            return Err(Error::input(format!(
                "the archive has format {version}; this program knows up to {FORMAT_VERSION}"
            ))
            .with_remedy("use the version of highwater that wrote it, or a newer one"));
        }
        let since_content = ContentId(array(bytes, 96));
        let since = match (SnapshotId::from_bytes(array(bytes, 48)), since_content) {
            (id, content) if id.as_bytes() == &[0; 16] && content.0 == [0; 32] => None,
            since => Some(since),
        };
        if version != FORMAT_VERSION || bytes[10..16] != [0; 6] {
            return Err(Error::corrupt("its header is not in the form that highwater writes"));
        }
        Ok(Header {
            vault: VaultId::from_bytes(array(bytes, 16)),
            snapshot: SnapshotId::from_bytes(array(bytes, 32)),
            content: ContentId(array(bytes, 64)),
            since,
            objects: u64::from_le_bytes(array(bytes, 128)),
            bytes: u64::from_le_bytes(array(bytes, 136)),
        })
    }
}

/// Corrupt where the header was not made under the vault's key.
pub(super) fn verify_header(bytes: &[u8; HEADER_BYTES], master: &MasterKey) -> Result<()> {
    let vault = VaultId::from_bytes(array(bytes, 16));
    let mac = &bytes[HEADER_MACED..HEADER_HASHED];
    hmac::verify(&mac_key(master, vault, HEADER_LABEL), &bytes[..HEADER_MACED], mac)
        .map_err(|_| Error::corrupt("its header was not written with the vault's key"))
}

/// What stands before an object.
pub(super) fn object_head(name: &str, size: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(OBJECT_TAG);
    head[4..8].copy_from_slice(&(name.len() as u32).to_le_bytes());
    head[8..].copy_from_slice(&size.to_le_bytes());
    head
}

/// Reads what stands before an object, or the first bytes of the end marker.
pub(super) fn parse_head(head: &[u8; HEAD_BYTES]) -> Option<Head> {
    if &head[..4] == END_TAG {
        return Some(Head::End);
    }
    let name = u32::from_le_bytes(array(head, 4)) as usize;
    let fits = &head[..4] == OBJECT_TAG && (1..=NAME_BYTES_MAX).contains(&name);
    fits.then(|| Head::Object { name, size: u64::from_le_bytes(array(head, 8)) })
}

/// The end of an archive: how many objects and bytes stand before it, and the hash of all of them.
pub(super) fn marker(
    header: &Header,
    objects: u64,
    before: u64,
    hash: &blake3::Hash,
    master: &MasterKey,
) -> [u8; MARKER_BYTES] {
    let mut bytes = [0; MARKER_BYTES];
    bytes[..4].copy_from_slice(END_TAG);
    bytes[8..16].copy_from_slice(&objects.to_le_bytes());
    bytes[16..24].copy_from_slice(&before.to_le_bytes());
    bytes[24..MARKER_MACED].copy_from_slice(hash.as_bytes());
    let mac = hmac::sign(&mac_key(master, header.vault, END_LABEL), &bytes[..MARKER_MACED]);
    bytes[MARKER_MACED..].copy_from_slice(mac.as_ref());
    bytes
}

/// Whether an end marker tells these counts and this hash, whoever has written it.
pub(super) fn marker_counts(
    marker: &[u8; MARKER_BYTES],
    objects: u64,
    before: u64,
    hash: &blake3::Hash,
) -> bool {
    marker[..4] == *END_TAG
        && marker[4..8] == [0; 4]
        && marker[8..16] == objects.to_le_bytes()
        && marker[16..24] == before.to_le_bytes()
        && marker[24..MARKER_MACED] == *hash.as_bytes()
}

const HEADER_LABEL: &[u8] = b"hw1 archive header";
const END_LABEL: &[u8] = b"hw1 archive end";

fn mac_key(master: &MasterKey, vault: VaultId, label: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*master.derive(vault.as_bytes(), &[label]))
}

/// The `N` bytes at a place; the caller knows that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
