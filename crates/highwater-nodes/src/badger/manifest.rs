//! Which tables are live: the changes in `MANIFEST`, applied from the first to the last (`manifest.go` and
//! `pb/badgerpb4.proto` of Badger).

use std::collections::BTreeMap;

use super::{Captured, Error, MANIFEST, damaged, fits, varint};

const MAGIC: &[u8] = b"Bdgr";
const VERSION: u16 = 8;
/// The manifest is written anew when a tenth of it is still of use and it has 10,000 deletions: one of
/// 1,000,000 changes has less.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// How the blocks of a table are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Snappy,
    Zstd,
}

/// A live table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) id: u64,
    pub(super) level: u64,
    pub(super) codec: Codec,
}

impl Table {
    pub(super) fn file(&self) -> String {
        format!("{:06}.sst", self.id)
    }
}

/// The live tables, in the order in which Badger asks them: the upper levels first, and of one level what was
/// written last; and whether the manifest goes on behind its last whole set of changes.
pub(super) fn tables(captured: &Captured<'_>) -> Result<(Vec<Table>, bool), Error> {
    let size = captured.size(MANIFEST)?;
    let content = captured.read(MANIFEST, 0, size, MANIFEST_BYTES_MAX, "changes")?;
    let Some((head, mut rest)) = content.split_first_chunk::<8>() else {
        return damaged(MANIFEST, "it is cut");
    };
    let [_, _, _, _, a, b, c, d] = *head;
    if !head.starts_with(MAGIC) {
        return damaged(MANIFEST, "it begins with something else than a manifest");
    }
    match (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])) {
        (0, VERSION) => {}
        (foreign, VERSION) => return Err(Error::Foreign(foreign)),
        (_, version) => return Err(Error::Version(version)),
    }
    let mut live = BTreeMap::new();
    while let Some(set) = set(&mut rest, size)? {
        apply(&mut live, set)?;
    }
    let mut tables: Vec<Table> = live.into_values().collect();
    tables.sort_unstable_by_key(|table| (table.level, u64::MAX - table.id));
    Ok((tables, !rest.is_empty()))
}

/// Takes a set of changes off the front. One that is not whole is the last one, and does not count.
fn set<'a>(rest: &mut &'a [u8], size: u64) -> Result<Option<&'a [u8]>, Error> {
    let Some((head, behind)) = rest.split_first_chunk::<8>() else { return Ok(None) };
    let [a, b, c, d, e, f, g, h] = *head;
    let bytes = u32::from_be_bytes([a, b, c, d]);
    if u64::from(bytes) > size {
        return damaged(MANIFEST, "a set of changes is longer than the file");
    }
    let Some((set, behind)) = behind.split_at_checked(bytes as usize) else { return Ok(None) };
    if !fits(crc32c::crc32c(set), u32::from_be_bytes([e, f, g, h]).into()) {
        return damaged(MANIFEST, "a set of changes has another checksum");
    }
    *rest = behind;
    Ok(Some(set))
}

fn apply(live: &mut BTreeMap<u64, Table>, set: &[u8]) -> Result<(), Error> {
    let cut = || Error::Damaged { file: MANIFEST.to_owned(), what: "a change is cut" };
    let mut rest = set;
    while !rest.is_empty() {
        let (number, field) = field(&mut rest).ok_or_else(cut)?;
        let (1, Field::Bytes(change)) = (number, field) else { continue };
        let mut fields = [0; 7];
        let mut rest = change;
        while !rest.is_empty() {
            let (number, field) = self::field(&mut rest).ok_or_else(cut)?;
            let slot = usize::try_from(number).ok().and_then(|number| fields.get_mut(number));
            if let (Some(slot), Field::Number(value)) = (slot, field) {
                *slot = value;
            }
        }
        change_one(live, fields)?;
    }
    Ok(())
}

/// Applies a change, whose fields stand at their numbers.
fn change_one(live: &mut BTreeMap<u64, Table>, fields: [u64; 7]) -> Result<(), Error> {
    let [_, id, operation, level, key, _, codec] = fields;
    match operation {
        0 => {}
        1 => {
            // A table can be deleted twice: Badger takes no offence since 4.8.
            live.remove(&id);
            return Ok(());
        }
        _ => return damaged(MANIFEST, "a change neither creates nor deletes"),
    }
    let codec = match codec {
        0 => Codec::Plain,
        1 => Codec::Snappy,
        2 => Codec::Zstd,
        _ => {
            let what = "a table that is compressed in another way";
            return Err(Error::Unknown { file: MANIFEST.to_owned(), what });
        }
    };
    let table = Table { id, level, codec };
    if key != 0 {
        return Err(Error::Encrypted(table.file()));
    }
    match live.insert(id, table) {
        None => Ok(()),
        Some(_) => damaged(MANIFEST, "a table is created twice"),
    }
}

/// A field of a message of protocol buffers.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Takes a field and its number off the front.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(rest)?;
    let field = match tag & 7 {
        0 => Field::Number(varint(rest)?),
        kind @ (1 | 5) => {
            *rest = rest.get(if kind == 1 { 8 } else { 4 }..)?;
            Field::Other
        }
        2 => {
            let bytes = usize::try_from(varint(rest)?).ok()?;
            let (bytes, behind) = rest.split_at_checked(bytes)?;
            *rest = behind;
            Field::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, field))
}

/// The checksum in a message of that name: none if it is not whole or of another kind than CRC-32C.
pub(super) fn checksum(message: &[u8]) -> Option<u64> {
    let (mut sum, mut rest) = (0, message);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Field::Number(0)) => {}
            (2, Field::Number(number)) => sum = number,
            _ => return None,
        }
    }
    Some(sum)
}
