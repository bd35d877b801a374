//! The order in which keys came to be, beside the values: for stores whose [`Classes`] ask for it.
//!
//! A key has a number from the moment at which it is first seen here, keeps it however often it is written, and
//! loses it when it is deleted. Numbers only rise: a key that comes back is the newest one. Both rows of a key
//! are written with its value, in the same transaction, so that one look at the rows is one instant of the store.
//!
//! A start that does not keep the order, as of an older program, leaves the rows behind as they were. The rows
//! name the put of the head that they are complete for, which every start replaces: who finds another one there
//! goes through all keys once. What has no number then is newer than all that has one, and the last in the
//! alphabet is the newest of it.
//!
//! [`Classes`]: super::Classes

use std::cmp::Ordering as Compared;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use highwater::{Error, Result};

use super::local::{LocalStore, Op, Rows, Space};

/// Keys of the book: the number of a key; the keys of a group, newest first.
const NUMBERS: &[u8] = b"made/";
const GROUPS: &[u8] = b"order/";
/// Which order this is: another one, where all numbers were given anew.
const ORDER: &[u8] = b"made";
/// The put of the head that the rows are complete for; and about the last number given. They stand beside what
/// the same transactions write anyway.
const COMPLETE: &[u8] = b"head.made";
const LAST: &[u8] = b"seq.made";

/// A start begins in another block of numbers: the last number that was written down may be one of before, where
/// two threads gave some at once.
const BLOCK_BITS: u32 = 32;
/// Rows of one look; with their values, where they are the node's.
const ROWS: usize = 64;
/// Steps of one transaction that goes through all keys.
const STEPS: usize = 1024;

/// Random bytes of a put, by which it is known.
type PutId = [u8; 16];

/// A key with its number.
pub(super) type Numbered = (u64, Vec<u8>);

/// What gives the numbers of one store.
pub(super) struct Order {
    next: AtomicU64,
    /// The rows are those of all keys, and are kept so.
    complete: AtomicBool,
}

impl Order {
    /// What a store has of it, whose head is that of `put`.
    ///
    /// # Errors
    /// What the local store says.
    pub(super) fn find(local: &dyn LocalStore, put: Option<PutId>) -> Result<Order> {
        let known = local.get(Space::Book, COMPLETE)?;
        let complete = put.is_some_and(|put| known.as_deref() == Some(put.as_slice()));
        let order = Order { next: AtomicU64::default(), complete: AtomicBool::new(complete) };
        order.begin_block(last(local)?);
        Ok(order)
    }

    fn begin_block(&self, last: u64) {
        let block = (last >> BLOCK_BITS) + 2;
        self.next.store(block << BLOCK_BITS, Ordering::SeqCst);
    }

    fn is_complete(&self) -> bool {
        self.complete.load(Ordering::SeqCst)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Adds the rows that go with the values of a transaction. Nobody else may write the same keys meanwhile.
    ///
    /// # Errors
    /// What the local store says.
    pub(super) fn follow(&self, local: &dyn LocalStore, ops: &mut Vec<Op>) -> Result<()> {
        if !self.is_complete() {
            return Ok(());
        }
        let mut now: HashMap<&[u8], Option<u64>> = HashMap::new();
        let (mut rows, mut last) = (Vec::new(), None);
        for op in ops.iter().filter(|op| op.space == Space::Data) {
            let before = match now.get(op.key.as_slice()) {
                Some(before) => *before,
                None => number_of(local, &op.key)?,
            };
            let after = match (&op.value, before) {
                (Some(_), None) => {
                    let number = self.number();
                    rows.extend(put(&op.key, number));
                    last = Some(number);
                    last
                }
                (None, Some(number)) => {
                    rows.extend(delete(&op.key, number));
                    None
                }
                (Some(_), Some(_)) | (None, None) => before,
            };
            now.insert(&op.key, after);
        }
        drop(now);
        rows.extend(last.map(last_op));
        ops.append(&mut rows);
        Ok(())
    }

    /// The step by which the rows are those beside the head of `put`, which the same transaction writes.
    pub(super) fn at(&self, put: PutId) -> Option<Op> {
        self.is_complete().then(|| Op::put(Space::Book, COMPLETE, put))
    }

    /// Nothing is known of the keys that come now.
    pub(super) fn forget(&self) {
        self.complete.store(false, Ordering::SeqCst);
    }

    /// All keys have the numbers that they were [given](hydrated), up to `last`.
    pub(super) fn is_hydrated(&self, last: u64) {
        self.begin_block(last);
        self.complete.store(true, Ordering::SeqCst);
    }

    /// Goes through all keys, where it has to, so that each one has its rows, and no other one has. Nobody may
    /// write meanwhile.
    ///
    /// # Errors
    /// What the local store says.
    pub(super) fn complete(&self, local: &dyn LocalStore, put: PutId) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        let mut values = Cursor::new(local, Space::Data, b"");
        let mut numbers = Cursor::new(local, Space::Book, NUMBERS);
        let mut ops = Vec::new();
        loop {
            let (value, number) = (values.peek()?, numbers.peek()?);
            let compared = match (value, number) {
                (None, None) => break,
                (Some(_), None) => Compared::Less,
                (None, Some(_)) => Compared::Greater,
                (Some((key, _)), Some((row, _))) => key.as_slice().cmp(&row[NUMBERS.len()..]),
            };
            if compared != Compared::Greater {
                let (key, _) = values.take();
                if compared == Compared::Less {
                    let number = self.number();
                    ops.extend(self::put(&key, number));
                    ops.push(last_op(number));
                }
            }
            if compared != Compared::Less {
                let (row, number) = numbers.take();
                if compared == Compared::Greater {
                    ops.extend(delete(&row[NUMBERS.len()..], read_number(&row, &number)?));
                }
            }
            if ops.len() >= STEPS {
                local.write(&std::mem::take(&mut ops))?;
            }
        }
        if local.get(Space::Book, ORDER)?.is_none() {
            ops.push(Op::put(Space::Book, ORDER, put));
        }
        ops.push(Op::put(Space::Book, COMPLETE, put));
        local.write(&ops)?;
        self.complete.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// The steps that forget which keys have numbers; the rows of all of them are under [`all`].
pub(super) fn forgotten() -> [Op; 2] {
    [Op::delete(Space::Book, COMPLETE), Op::delete(Space::Book, ORDER)]
}

/// Where the rows of all keys are.
pub(super) fn all() -> [&'static [u8]; 2] {
    [NUMBERS, GROUPS]
}

/// The rows of a key that a server has: the number of its last write, since of the first one nothing is told.
pub(super) fn hydrated(key: &[u8], seq: u64) -> [Op; 2] {
    put(key, seq)
}

/// The steps that end a hydration: another order, of all keys, under the head of `put`.
pub(super) fn all_hydrated(put: PutId, last: u64) -> [Op; 3] {
    [Op::put(Space::Book, ORDER, put), Op::put(Space::Book, COMPLETE, put), last_op(last)]
}

/// Which order a store has, where it has one.
///
/// # Errors
/// What the local store says.
#[cfg(feature = "ldk-0-3")]
pub(super) fn which(local: &dyn LocalStore) -> Result<Option<Vec<u8>>> {
    local.get(Space::Book, ORDER)
}

/// At most `limit` keys of a group, with their numbers, newest first, behind the place `after`. A group is what a
/// key begins with, up to its last `/`.
///
/// # Errors
/// Input where `after` is the place of a key that is not of the group; what the local store says.
pub(super) fn newest(
    local: &dyn LocalStore,
    group: &[u8],
    after: Option<(u64, &[u8])>,
    limit: usize,
) -> Result<Vec<Numbered>> {
    let prefix = group_rows(group);
    let after =
        after.map(|(number, key)| match key.strip_prefix(group) {
            Some(name) => Ok(place(group, number, name)),
            None => Err(Error::input("the place is not of this group")
                .with_entry(highwater::ids::encode(key))),
        });
    let rows = local.scan(Space::Book, &prefix, after.transpose()?.as_deref(), limit)?;
    let numbered = rows.into_iter().map(|(row, _)| {
        let Some((number, name)) = row[prefix.len()..].split_first_chunk::<8>() else {
            return Err(damaged(&row));
        };
        Ok((!u64::from_be_bytes(*number), [group, name].concat()))
    });
    numbered.collect()
}

fn put(key: &[u8], number: u64) -> [Op; 2] {
    let (row, place) = rows_of(key, number);
    [Op::put(Space::Book, row, number.to_le_bytes()), Op::put(Space::Book, place, Vec::new())]
}

fn delete(key: &[u8], number: u64) -> [Op; 2] {
    let (row, place) = rows_of(key, number);
    [Op::delete(Space::Book, row), Op::delete(Space::Book, place)]
}

fn last_op(number: u64) -> Op {
    Op::put(Space::Book, LAST, number.to_le_bytes())
}

fn rows_of(key: &[u8], number: u64) -> (Vec<u8>, Vec<u8>) {
    let name = key.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (group, name) = key.split_at(name);
    ([NUMBERS, key].concat(), place(group, number, name))
}

/// Behind its length, so that no group's rows are among those of another one.
fn group_rows(group: &[u8]) -> Vec<u8> {
    [GROUPS, &(group.len() as u64).to_be_bytes(), group].concat()
}

/// Higher numbers come first.
fn place(group: &[u8], number: u64, name: &[u8]) -> Vec<u8> {
    [group_rows(group).as_slice(), (!number).to_be_bytes().as_slice(), name].concat()
}

fn number_of(local: &dyn LocalStore, key: &[u8]) -> Result<Option<u64>> {
    let row = [NUMBERS, key].concat();
    let Some(number) = local.get(Space::Book, &row)? else { return Ok(None) };
    read_number(&row, &number).map(Some)
}

fn last(local: &dyn LocalStore) -> Result<u64> {
    local.get(Space::Book, LAST)?.map_or(Ok(0), |number| read_number(LAST, &number))
}

fn read_number(row: &[u8], number: &[u8]) -> Result<u64> {
    Ok(u64::from_le_bytes(number.try_into().map_err(|_| damaged(row))?))
}

fn damaged(row: &[u8]) -> Error {
    Error::corrupt("the order of the keys in the node's store is damaged")
        .with_entry(highwater::ids::encode(row))
}

/// Rows in order, some at a time. What is written behind the row that it stands at is not seen.
struct Cursor<'a> {
    local: &'a dyn LocalStore,
    space: Space,
    prefix: &'static [u8],
    rows: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    after: Option<Vec<u8>>,
    ended: bool,
}

impl<'a> Cursor<'a> {
    fn new(local: &'a dyn LocalStore, space: Space, prefix: &'static [u8]) -> Cursor<'a> {
        let rows = Rows::new().into_iter();
        Cursor { local, space, prefix, rows, after: None, ended: false }
    }

    fn peek(&mut self) -> Result<Option<&(Vec<u8>, Vec<u8>)>> {
        if self.rows.as_slice().is_empty() && !self.ended {
            let rows = self.local.scan(self.space, self.prefix, self.after.as_deref(), ROWS)?;
            self.ended = rows.is_empty();
            if let Some((last, _)) = rows.last() {
                self.after = Some(last.clone());
            }
            self.rows = rows.into_iter();
        }
        Ok(self.rows.as_slice().first())
    }

    /// The row that was looked at.
    fn take(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.rows.next().unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests;
