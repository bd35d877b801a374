//! Tables that were made to cost memory or time: each is told apart, before that much is taken.

use std::fs;
use std::os::unix::fs::FileExt as _;

use super::*;

/// The names of a table's blocks, as a metaindex has them.
const PROPERTIES: &[u8] = b"rocksdb.properties";
const ZSTD: u8 = 7;
const STORED: u8 = 0;

fn varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    numbers.iter().for_each(|number| varint(*number, &mut bytes));
    bytes
}

/// An entry of a block: bytes that its key shares with the one before, the rest of the key, its value.
fn entry(shared: u64, fresh: &[u8], value: &[u8]) -> Vec<u8> {
    let head = numbers(&[shared, fresh.len() as u64, value.len() as u64]);
    [&head, fresh, value].concat()
}

/// A table without checksums that is put together block by block.
#[derive(Default)]
struct Forge {
    /// The blocks are behind a hole of this many bytes.
    hole: u64,
    bytes: Vec<u8>,
}

impl Forge {
    /// Adds a block of `entries`, and tells its handle.
    fn block(&mut self, entries: &[u8], codec: u8) -> Vec<u8> {
        let plain = [entries, &0_u32.to_le_bytes(), &1_u32.to_le_bytes()].concat();
        let body = match codec {
            ZSTD => {
                let packed = zstd::bulk::compress(&plain, 19).unwrap();
                [numbers(&[plain.len() as u64]), packed].concat()
            }
            _ => plain,
        };
        let handle = numbers(&[self.hole + self.bytes.len() as u64, body.len() as u64]);
        self.bytes.extend_from_slice(&body);
        self.bytes.extend_from_slice(&[codec, 0, 0, 0, 0]);
        handle
    }

    /// Ends the table, and opens it.
    fn open(mut self, properties: &[u8], index: &[u8]) -> std::result::Result<Table, VerifyFault> {
        let metaindex = self.block(&entry(0, PROPERTIES, properties), STORED);
        let mut footer = vec![0];
        footer.extend_from_slice(&[&metaindex, index].concat());
        footer.resize(41, 0);
        footer.extend_from_slice(&5_u32.to_le_bytes());
        footer.extend_from_slice(&0x88e2_41b7_85f4_cff7_u64.to_le_bytes());
        self.bytes.extend_from_slice(&footer);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.sst");
        fs::write(&path, b"").unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&self.bytes, self.hole).unwrap();
        Table::open(&file, file.metadata().unwrap().len())
    }
}

fn two_levels() -> Vec<u8> {
    entry(0, b"rocksdb.block.based.table.index.type", &2_u32.to_le_bytes())
}

#[test]
fn what_is_forged_here_is_a_table() {
    let mut forge = Forge::default();
    let data = forge.block(b"", STORED);
    let part = forge.block(&entry(0, b"key", &data), ZSTD);
    let index = forge.block(&entry(0, b"key", &part), STORED);
    let properties = forge.block(&two_levels(), ZSTD);
    forge.open(&properties, &index).unwrap();
}

#[test]
fn a_block_is_not_expanded_to_more_than_its_file_can_need() {
    let zeros = vec![0; 8 << 20];
    for properties in [false, true] {
        let mut forge = Forge::default();
        let large = forge.block(&entry(0, b"key", &zeros), ZSTD);
        let small = forge.block(b"", STORED);
        assert!(forge.bytes.len() < 2000, "{} bytes", forge.bytes.len());
        let opened = match properties {
            true => forge.open(&large, &small),
            false => forge.open(&small, &large),
        };
        let why = "because one of its blocks expands to more than such a file needs";
        assert!(matches!(opened, Err(VerifyFault::Unknown(found)) if found == why), "{properties}");
    }
}

#[test]
fn a_name_that_many_entries_share_is_held_once() {
    // Each entry is eight bytes and stands for a name of 4,000 bytes: all of them for 400 MB.
    let mut entries = entry(0, &[b'n'; 4000], b"");
    for _ in 0..100_000 {
        entries.extend_from_slice(&entry(4000, b"", b"val"));
    }
    let mut forge = Forge::default();
    let properties = forge.block(&entries, ZSTD);
    let index = forge.block(b"", STORED);
    forge.open(&properties, &index).unwrap();

    let mut forge = Forge::default();
    let properties = forge.block(&entry(0, &[b'n'; 5000], b""), ZSTD);
    let index = forge.block(b"", STORED);
    let why = "because it holds a name or a key that is longer than any known one";
    let opened = forge.open(&properties, &index);
    assert!(matches!(opened, Err(VerifyFault::Unknown(found)) if found == why));
}

#[test]
fn an_index_names_no_more_blocks_than_there_is_room_for() {
    let mut forge = Forge::default();
    let data = forge.block(b"", STORED);
    let index = forge.block(&entry(0, b"k", &data).repeat(50_000), ZSTD);
    let properties = forge.block(b"", STORED);
    let opened = forge.open(&properties, &index);
    let told = "its index names more blocks than it has room for";
    assert!(matches!(opened, Err(VerifyFault::Damaged(found)) if found == told));
}

#[test]
fn a_part_of_an_index_is_expanded_once() {
    let mut forge = Forge::default();
    let part = forge.block(b"", ZSTD);
    let index = forge.block(&entry(0, b"k", &part).repeat(3), STORED);
    let properties = forge.block(&two_levels(), STORED);
    let opened = forge.open(&properties, &index);
    assert!(matches!(opened, Err(VerifyFault::Damaged(found)) if found == "its blocks overlap"));
}

#[test]
fn a_block_that_would_fill_memory_is_not_held() {
    let mut forge = Forge { hole: (2 << 30) + 5, ..Forge::default() };
    let index = forge.block(&entry(0, b"k", &numbers(&[0, 2 << 30])), STORED);
    let properties = forge.block(b"", STORED);
    let why = "because one of its blocks is larger than 1 GiB";
    let opened = forge.open(&properties, &index);
    assert!(matches!(opened, Err(VerifyFault::Unknown(found)) if found == why));
}
