//! What fuzzers call: logs and tables as they are, and writes of which it is known what they come to.

use std::collections::BTreeMap;
use std::fs::File;

use super::super::verify::fuzzing::{Forge, entry, sound, varint};
use super::{Files, Rows, read};
use crate::engine::fuzzing::{file_of, log_of};
use crate::error::{Error, Result};

const CURRENT: &[u8] = b"MANIFEST-000001\n";
/// What rows may take of memory here.
const ROOM: u64 = 1 << 20;
const LAST: u64 = (1 << 56) - 1;
const PUT: u8 = 1;
const GONE: u8 = 0;
const SINGLE: u8 = 7;
const RANGE: u8 = 15;

/// The files of a database in memory.
struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    sizes: BTreeMap<String, u64>,
}

impl Memory {
    /// A database with at most one table, which lies between these bounds, and one log.
    fn of(table: Option<(Vec<u8>, [Vec<u8>; 2])>, log: Vec<u8>) -> Memory {
        let mut edit = [[1].as_slice(), &text(b"leveldb.BytewiseComparator")].concat();
        edit.extend_from_slice(&[2, 9, 3, 20, 4, 0]);
        let mut files = BTreeMap::new();
        if let Some((table, [smallest, largest])) = table {
            edit.extend_from_slice(&[100, 0, 7]);
            edit.extend_from_slice(&varint(table.len() as u64));
            edit.extend_from_slice(&[text(&smallest), text(&largest)].concat());
            edit.extend_from_slice(&[0, 0]);
            files.insert("000007.sst".to_owned(), table);
        }
        files.insert("MANIFEST-000001".to_owned(), log_of(&[&edit]));
        files.insert("000009.log".to_owned(), log);
        let sizes = files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
        Memory { files, sizes }
    }

    fn rows(&mut self, prefixes: &[&[u8]]) -> Result<Rows> {
        let mut room = ROOM;
        let rows = read(self, CURRENT, prefixes, &mut room)?;
        let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes as u64 <= ROOM - room, "rows take more memory than was counted");
        Ok(rows)
    }
}

impl Files for Memory {
    fn sizes(&self) -> &BTreeMap<String, u64> {
        &self.sizes
    }

    fn open(&mut self, name: &str) -> Result<(File, u64)> {
        let bytes = self.files.get(name).ok_or_else(|| Error::not_found("no such file"))?;
        Ok((file_of(bytes), bytes.len() as u64))
    }

    fn entry(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// The bytes are a log, what a block of rows holds, and a table, the first two behind their lengths. And they are
/// writes, three bytes each: the first ones are in a table, the others in the log.
pub(crate) fn rows(bytes: &[u8]) {
    strange(bytes);
    known(bytes);
}

fn strange(bytes: &[u8]) {
    let Some((&[a, b, c, d], rest)) = bytes.split_first_chunk::<4>() else { return };
    let length = |low, high| usize::from(u16::from_le_bytes([low, high]));
    let (log, rest) = rest.split_at(length(a, b).min(rest.len()));
    let (block, table) = rest.split_at(length(c, d).min(rest.len()));
    let all = || [vec![0; 8], vec![0xff; 16]];
    let mut forge = Forge::unbound();
    let handle = forge.block(block, 0);
    let index = forge.block(&sound(&entry(&[0xff; 16], &handle)), 0);
    let deletions = forge.block(block, 0);
    let metaindex = forge.block(&sound(&entry(b"rocksdb.range_del", &deletions)), 0);
    let forged = forge.end(5, &metaindex, &index);
    for table in [None, Some(table.to_vec()), Some(forged)] {
        let mut database = Memory::of(table.map(|table| (table, all())), log.to_vec());
        let Ok(found) = database.rows(&[b""]) else { continue };
        let some = database.rows(&[b"a", b"b"]).expect("what is read is read again");
        let begins = |key: &[u8]| key.starts_with(b"a") || key.starts_with(b"b");
        let expected: Rows = found.into_iter().filter(|(key, _)| begins(key)).collect();
        assert_eq!(some, expected, "what is asked for changes what is found");
    }
}

/// One write.
struct Op {
    kind: u8,
    key: Vec<u8>,
    /// The value, or where a range ends.
    value: Vec<u8>,
    sequence: u64,
}

impl Op {
    fn of(sequence: u64, [kind, key, more]: [u8; 3]) -> Op {
        let name = |byte: u8| {
            vec![b'a' + (byte & 3), byte >> 2 & 3][..1 + usize::from(byte >> 7)].to_vec()
        };
        let kind = [PUT, PUT, GONE, SINGLE, RANGE][usize::from(kind % 5)];
        let value = match kind {
            PUT => vec![more; usize::from(more % 9)],
            RANGE => name(more),
            _ => Vec::new(),
        };
        Op { kind, key: name(key), value, sequence }
    }

    /// Its key as a table has it.
    fn internal(&self) -> Vec<u8> {
        internal(&self.key, self.sequence, self.kind)
    }
}

fn internal(key: &[u8], sequence: u64, kind: u8) -> Vec<u8> {
    [key, &(sequence << 8 | u64::from(kind)).to_le_bytes()].concat()
}

/// The order of a table: keys rise, the sequence numbers of one fall.
fn place(internal: &[u8]) -> (Vec<u8>, std::cmp::Reverse<u64>) {
    let (key, trailer) = internal.split_last_chunk::<8>().expect("a key has a trailer");
    (key.to_vec(), std::cmp::Reverse(u64::from_le_bytes(*trailer)))
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as u64), bytes].concat()
}

fn known(bytes: &[u8]) {
    let numbered = bytes.as_chunks::<3>().0.iter().take(200).enumerate();
    let ops: Vec<Op> = numbered.map(|(at, op)| Op::of(at as u64 + 1, *op)).collect();
    let (early, late) = ops.split_at(ops.len() / 2);
    let mut expected = Rows::new();
    for op in &ops {
        match op.kind {
            PUT => drop(expected.insert(op.key.clone(), op.value.clone())),
            RANGE => expected.retain(|key, _| *key < op.key || *key >= op.value),
            _ => drop(expected.remove(&op.key)),
        }
    }
    let log = match late.first() {
        None => Vec::new(),
        Some(first) => {
            let mut batch = first.sequence.to_le_bytes().to_vec();
            batch.extend_from_slice(&(late.len() as u32).to_le_bytes());
            for op in late {
                batch.extend_from_slice(&[&[op.kind], text(&op.key).as_slice()].concat());
                if matches!(op.kind, PUT | RANGE) {
                    batch.extend_from_slice(&text(&op.value));
                }
            }
            log_of(&[&batch])
        }
    };
    let found = Memory::of(table_of(early), log).rows(&[b""]);
    assert_eq!(found.expect("a sound database is read"), expected);
}

/// A table of these writes, as a flush under a snapshot of each instant would leave it; and its bounds.
fn table_of(ops: &[Op]) -> Option<(Vec<u8>, [Vec<u8>; 2])> {
    let real = |op: &&Op| op.kind != RANGE || op.key < op.value;
    let mut sorted: Vec<&Op> = ops.iter().filter(real).collect();
    sorted.sort_by_key(|op| place(&op.internal()));
    let ends = |op: &&Op| match op.kind {
        RANGE => internal(&op.value, LAST, RANGE),
        _ => op.internal(),
    };
    let smallest = sorted.first()?.internal();
    let largest = sorted.iter().map(ends).max_by_key(|key| place(key))?;
    let (mut rows, mut ranges) = (Vec::new(), Vec::new());
    for op in sorted {
        let entries = if op.kind == RANGE { &mut ranges } else { &mut rows };
        entries.extend_from_slice(&entry(&op.internal(), &op.value));
    }
    let mut forge = Forge::unbound();
    let handle = forge.block(&sound(&rows), 0);
    let index = forge.block(&sound(&entry(&largest, &handle)), 0);
    let ranges = forge.block(&sound(&ranges), 0);
    let metaindex = forge.block(&sound(&entry(b"rocksdb.range_del", &ranges)), 0);
    Some((forge.end(5, &metaindex, &index), [smallest, largest]))
}
