//! The sealed file: a plain header with the vault's key slots, and the kit sealed under the vault's
//! key, so that whatever opens the vault opens the kit without it.
//!
//! Nothing is compressed: a peer chooses its own address, and a length that depends on that and on a
//! secret at once would tell of the secret.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Kit, parse, secret};
use crate::error::{Error, Remedy, Result};
use crate::ids::{Time, VaultId};
use crate::vault::seal::{HEADER_BYTES, ObjectKey, ObjectKind, Purpose, TAG_BYTES};
use crate::vault::{MasterKey, Secret, SlotDoc, SlotInfo, Vault, document};

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;

const MAGIC: &[u8; 8] = b"HWRECKIT";
const FORMAT: &str = "highwater-kit";
const FORMAT_VERSION: u16 = 1;
/// Magic, version, two bytes of zero, length of the header.
const PREFIX_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 32;
/// The plain text of the body has a multiple of this length: its size tells about how many channels
/// there are, within twenty or so.
const PAD_BYTES: usize = 8 << 10;
/// Length of the JSON, ahead of it.
const LENGTH_BYTES: usize = 4;
/// The name that the body is bound to.
const OBJECT: &str = "kit";
/// What errors are about; who knows the file's name puts it in its place.
const NAME: &str = "the recovery kit";

/// What a kit tells without a key.
#[derive(Clone, Debug, Serialize)]
pub struct KitHeader {
    /// The version of the format.
    pub version: u32,
    /// The vault whose key slots open it.
    pub vault: VaultId,
    /// When it was sealed.
    pub time: Time,
    /// The slots that open it.
    pub slots: Vec<SlotInfo>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The plain header, as stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    vault: VaultId,
    time: Time,
    slots: Vec<SlotDoc>,
    blake3: String,
}

/// Seals `kit` for the key slots that `vault` has now.
pub fn seal(vault: &Vault, kit: &Kit) -> Result<Vec<u8>> {
    kit.validate().map_err(Error::input)?;
    let header = document::seal(&Header {
        format: FORMAT.to_owned(),
        version: document::VERSION,
        vault: vault.id(),
        time: kit.time,
        slots: vault.slot_documents()?,
        blake3: document::UNSEALED.to_owned(),
    })?;
    let length = u32::try_from(header.len()).map_err(|_| Error::bug("a header of 4 GiB"))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&header);

    let mut body = plain(kit)?;
    let key = ObjectKey::create(vault.master(), vault.id(), ObjectKind::Kit, OBJECT)?;
    key.seal(0, Purpose::Last, &bytes, &mut body)?;
    bytes.extend_from_slice(key.header());
    bytes.extend_from_slice(&body);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    if Parsed::of(&bytes)?.open(vault.master())? != *kit {
        return Err(Error::bug("a sealed kit opens to something else"));
    }
    Ok(bytes)
}

/// What the kit in `bytes` tells without a key.
///
/// # Errors
/// Corrupt where a byte is not what was written, input where a newer program wrote it. The entry is
/// `the recovery kit`; who read it from a file can put the file's name there.
pub fn describe(bytes: &[u8]) -> Result<KitHeader> {
    let header = Parsed::of(bytes)?.header;
    Ok(KitHeader {
        version: header.version,
        vault: header.vault,
        time: header.time,
        slots: header.slots.iter().map(SlotDoc::info).collect(),
        bytes: bytes.len() as u64,
    })
}

/// Opens the kit in `bytes`; no vault is needed.
///
/// # Errors
/// Denied where `secret` opens none of its slots; else those of [`describe`].
pub fn open(bytes: &[u8], secret: &Secret) -> Result<Kit> {
    let parsed = Parsed::of(bytes)?;
    if let Some(master) = SlotDoc::unlock(&parsed.header.slots, secret)? {
        return parsed.open(&master);
    }
    Err(Error::denied("this key opens no slot of the recovery kit")
        .with_entry(NAME)
        .with_remedy("give any key that opened the vault when the kit was sealed")
        .with_remedy(Remedy::ShowKit))
}

/// The parts of a file whose checksum fits.
struct Parsed<'a> {
    header: Header,
    /// All before the sealed body; bound into its seal.
    before: &'a [u8],
    body: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// The checksum stands at the end in every version, so that damage is distinguished from a newer format.
    fn of(bytes: &'a [u8]) -> Result<Parsed<'a>> {
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
            return Err(damaged("it does not begin as a recovery kit"));
        }
        let end = bytes.len().checked_sub(CHECKSUM_BYTES);
        let end =
            end.filter(|end| *end >= PREFIX_BYTES).ok_or_else(|| damaged("it is cut short"))?;
        let (bytes, checksum) = bytes.split_at(end);
        if blake3::hash(bytes).as_bytes() != checksum {
            return Err(damaged("its checksum does not fit"));
        }
        let (prefix, rest) = bytes.split_at(PREFIX_BYTES);
        let version = u16::from_le_bytes([prefix[8], prefix[9]]);
        if version > FORMAT_VERSION {
            let what = format!(
                "the recovery kit has format {version}; this program knows up to {FORMAT_VERSION}"
            );
            return Err(Error::input(what).with_entry(NAME).with_remedy("use a newer highwater"));
        }
        if version != FORMAT_VERSION || prefix[10..12] != [0; 2] {
            return Err(damaged("its first bytes are not as highwater writes them"));
        }
        let length = u32::from_le_bytes([prefix[12], prefix[13], prefix[14], prefix[15]]) as usize;
        let (header, body) = rest
            .split_at_checked(length)
            .ok_or_else(|| damaged("its header is longer than the file"))?;
        let header: Header = document::open(NAME, header)?;
        if header.format != FORMAT || header.slots.iter().any(|slot| slot.vault() != header.vault) {
            return Err(damaged("its header does not describe a recovery kit"));
        }
        Ok(Parsed { header, before: &bytes[..PREFIX_BYTES + length], body })
    }

    fn open(&self, master: &MasterKey) -> Result<Kit> {
        for slot in &self.header.slots {
            slot.verify(master)?;
        }
        let vault = self.header.vault;
        let key = ObjectKey::parse(master, vault, ObjectKind::Kit, OBJECT, self.body)
            .map_err(|error| error.with_entry(NAME))?;
        let mut frame = Zeroizing::new(self.body[HEADER_BYTES..].to_vec());
        let plain = key
            .open(0, Purpose::Last, self.before, &mut frame)
            .ok_or_else(|| damaged("it was not sealed with this vault's key"))?;
        let kit: Kit = parse(unpad(plain)?, |why| damaged(&why))?;
        kit.validate().map_err(|why| damaged(&why))?;
        if kit.time != self.header.time {
            return Err(damaged("its header tells another time"));
        }
        Ok(kit)
    }
}

/// Length, JSON and zeros, with room for the tag.
fn plain(kit: &Kit) -> Result<Zeroizing<Vec<u8>>> {
    let json = secret::json(kit, false, 0)?;
    let length = u32::try_from(json.len()).map_err(|_| Error::input("the kit is too large"))?;
    let padded = (LENGTH_BYTES + json.len()).next_multiple_of(PAD_BYTES);
    let mut plain = Zeroizing::new(Vec::with_capacity(padded + TAG_BYTES));
    plain.extend_from_slice(&length.to_le_bytes());
    plain.extend_from_slice(&json);
    plain.resize(padded, 0);
    Ok(plain)
}

fn unpad(plain: &[u8]) -> Result<&[u8]> {
    let wrong = || damaged("its content has no length that fits");
    let (length, rest) = plain.split_first_chunk::<LENGTH_BYTES>().ok_or_else(wrong)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (json, zeros) = rest.split_at_checked(length).ok_or_else(wrong)?;
    let padded = (LENGTH_BYTES + length).next_multiple_of(PAD_BYTES);
    if plain.len() != padded || zeros.iter().any(|byte| *byte != 0) {
        return Err(wrong());
    }
    Ok(json)
}

fn damaged(why: &str) -> Error {
    Error::corrupt(format!("{NAME} is damaged: {why}"))
        .with_entry(NAME)
        .with_remedy("another copy of it may be whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_padding_that_highwater_writes_is_read() {
        let padded = |length: u32, json: &[u8], total: usize| {
            let mut plain = [&length.to_le_bytes(), json].concat();
            plain.resize(total, 0);
            plain
        };
        assert_eq!(unpad(&padded(2, b"{}", 8192)).unwrap(), b"{}");
        assert_eq!(unpad(&padded(8188, &[b' '; 8188], 8192)).unwrap().len(), 8188);
        let mut more = padded(2, b"{}", 8192);
        more[8191] = 1;
        for wrong in [
            more,
            padded(2, b"{}", 8191),
            padded(2, b"{}", 16384),
            padded(8189, b"{}", 8192),
            padded(u32::MAX, b"{}", 8192),
            padded(2, b"{} ...", 8192),
            vec![0; 3],
            Vec::new(),
        ] {
            assert_eq!(unpad(&wrong).unwrap_err().kind(), crate::Kind::Corrupt);
        }
    }
}
