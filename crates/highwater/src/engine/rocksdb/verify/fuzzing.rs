//! What fuzzers call: tables and blob files, as they are, and with what a fuzzer can't guess filled in.

use super::VerifyFault;
use super::blob::Blob;
use super::checksum::{context, mask};
use super::table::Table;
use crate::engine::fuzzing::file_of;

const TABLE_MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const BLOB_MAGIC: u32 = 2_395_959;
const RECORD_HEADER_BYTES: usize = 32;
const BLOB_HEADER_BYTES: usize = 30;

/// The bytes are a table. Whether it is sound does not depend on the pieces that it comes in.
pub(crate) fn table(bytes: &[u8]) {
    let whole = table_passes(bytes, bytes.len().max(1));
    let pieces = table_passes(bytes, 61);
    assert_eq!(whole.map_err(told), pieces.map_err(told));
}

fn table_passes(bytes: &[u8], piece: usize) -> Result<(), VerifyFault> {
    let file = file_of(bytes);
    let mut table = Table::open(&file, bytes.len() as u64)?;
    let _ = table.gap();
    bytes.chunks(piece).try_for_each(|piece| table.pass(piece))?;
    table.end()
}

/// The bytes tell of a table what its version is and how its blocks are compressed, and are what its
/// properties, its index and a partition of that hold: the fuzzer need not find handles and trailers.
pub(crate) fn block(bytes: &[u8]) {
    let Some((&[version, codec, kind, delta], rest)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let Some((lengths, rest)) = rest.split_first_chunk::<4>() else { return };
    let length = |at: usize| usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
    let (index, rest) = rest.split_at(length(0).min(rest.len()));
    let (partition, properties) = rest.split_at(length(2).min(rest.len()));
    let version = u32::from(version % 9);
    let mut forge = Forge { bytes: Vec::new(), base: u32::from(version >= 6) };
    let partition = forge.block(partition, codec);
    let index = forge.block(index, codec);
    let properties = match properties {
        [] => {
            let kind = u32::from(kind % 4).to_le_bytes();
            let entries = [
                entry(b"rocksdb.block.based.table.index.type", &kind),
                entry(b"rocksdb.index.value.is.delta.encoded", &[delta % 2]),
            ];
            forge.block(&sound(&entries.concat()), 0)
        }
        raw => forge.block(raw, codec),
    };
    let names: [(&[u8], &[u8]); 3] = [
        (b"partitionedfilter.bloom", &partition),
        (b"rocksdb.index", &index),
        (b"rocksdb.properties", &properties),
    ];
    let entries: Vec<u8> =
        names.into_iter().flat_map(|(name, handle)| entry(name, handle)).collect();
    let metaindex = forge.block(&sound(&entries), 0);
    table(&forge.end(version, &metaindex, &index));
}

/// A table without checksums.
pub(in super::super) struct Forge {
    bytes: Vec<u8>,
    /// What its blocks are bound to; 0 for nothing.
    base: u32,
}

impl Forge {
    /// With blocks that are bound to nothing.
    pub(in super::super) fn unbound() -> Forge {
        Forge { bytes: Vec::new(), base: 0 }
    }

    /// Adds a block, and tells its handle.
    pub(in super::super) fn block(&mut self, body: &[u8], codec: u8) -> Vec<u8> {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(body);
        self.bytes.push(codec);
        self.bytes.extend_from_slice(&context(self.base, offset).to_le_bytes());
        [varint(offset), varint(body.len() as u64)].concat()
    }

    pub(in super::super) fn end(self, version: u32, metaindex: &[u8], index: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes;
        let offset = bytes.len() as u64;
        let mut footer = [0; 53];
        if self.base == 0 {
            let handles = [metaindex, index].concat();
            footer[1..1 + handles.len()].copy_from_slice(&handles);
        } else {
            let mut rest = metaindex;
            let (_, length) = (super::footer::varint(&mut rest), super::footer::varint(&mut rest));
            footer[1..5].copy_from_slice(&[0x3e, 0x00, 0x7a, 0x00]);
            footer[5..9].copy_from_slice(&context(self.base, offset).to_le_bytes());
            footer[9..13].copy_from_slice(&self.base.to_le_bytes());
            footer[13..17].copy_from_slice(&(length.unwrap_or(0) as u32).to_le_bytes());
        }
        footer[41..45].copy_from_slice(&version.to_le_bytes());
        footer[45..].copy_from_slice(&TABLE_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&footer);
        bytes
    }
}

/// A block of names: entries and one restart point.
pub(in super::super) fn sound(entries: &[u8]) -> Vec<u8> {
    [entries, &0_u32.to_le_bytes(), &1_u32.to_le_bytes()].concat()
}

pub(in super::super) fn entry(name: &[u8], value: &[u8]) -> Vec<u8> {
    let lengths = [varint(0), varint(name.len() as u64), varint(value.len() as u64)].concat();
    [&lengths, name, value].concat()
}

pub(in super::super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The bytes are a blob file, and the content of one that is sound, in which every change is found.
pub(crate) fn blob(bytes: &[u8]) {
    let whole = blob_passes(bytes, bytes.len().max(1));
    assert_eq!(whole.map_err(told), blob_passes(bytes, 61).map_err(told));

    let Some((place, content)) = bytes.split_first_chunk::<2>() else { return };
    let mut sound = blob_of(content);
    blob_passes(&sound, 61).expect("a sound blob file passes");
    // The header has no checksum; what follows it has.
    let changed = sound.len() - BLOB_HEADER_BYTES;
    let at = BLOB_HEADER_BYTES + usize::from(u16::from_le_bytes(*place)) % changed;
    sound[at] ^= 1;
    blob_passes(&sound, 61).expect_err("a changed blob file does not pass");
}

fn blob_passes(bytes: &[u8], piece: usize) -> Result<(), VerifyFault> {
    let file = file_of(bytes);
    let mut blob = Blob::open(&file, bytes.len() as u64)?;
    bytes.chunks(piece).try_for_each(|piece| blob.pass(piece))?;
    blob.end()
}

/// Each key and value has as many bytes as the byte before them says.
fn blob_of(mut content: &[u8]) -> Vec<u8> {
    let mut file = vec![0; BLOB_HEADER_BYTES];
    file[..4].copy_from_slice(&BLOB_MAGIC.to_le_bytes());
    file[4..8].copy_from_slice(&1_u32.to_le_bytes());
    let mut count = 0_u64;
    while let Some((&length, rest)) = content.split_first() {
        let (record, rest) = rest.split_at(usize::from(length).min(rest.len()));
        let key = record.len() / 3;
        let mut header = Vec::with_capacity(RECORD_HEADER_BYTES);
        header.extend_from_slice(&(key as u64).to_le_bytes());
        header.extend_from_slice(&((record.len() - key) as u64).to_le_bytes());
        header.extend_from_slice(&u64::from(length).to_le_bytes());
        header.extend_from_slice(&mask(crc32c::crc32c(&header)).to_le_bytes());
        header.extend_from_slice(&mask(crc32c::crc32c(record)).to_le_bytes());
        file.extend_from_slice(&header);
        file.extend_from_slice(record);
        content = rest;
        count += 1;
    }
    let mut footer = BLOB_MAGIC.to_le_bytes().to_vec();
    footer.extend_from_slice(&count.to_le_bytes());
    footer.extend_from_slice(&[0; 16]);
    footer.extend_from_slice(&mask(crc32c::crc32c(&footer)).to_le_bytes());
    file.extend_from_slice(&footer);
    file
}

fn told(fault: VerifyFault) -> String {
    format!("{fault:?}")
}
