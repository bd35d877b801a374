//! What is found of the wanted rows, merged by sequence number.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use super::super::verify::{VerifyFault, damaged};
use super::super::version::Bounds;
use super::Rows;

/// What an entry takes besides its key and its value.
const ENTRY_BYTES: u64 = 128;
/// The blocks that may hold wanted rows can be expanded to so many bytes, together: rows that fit into memory do
/// not lie among more.
const LOOKED_AT_BYTES_MAX: u64 = 16 << 30;
/// The highest sequence number.
pub(in super::super) const SEQUENCE_MAX: u64 = (1 << 56) - 1;

const TOO_MANY: VerifyFault =
    VerifyFault::Unknown("because its rows take more memory than they are given");
const TOO_MUCH: VerifyFault =
    VerifyFault::Unknown("because more than 16 GiB would have to be looked at");

/// How the keys of wanted rows begin.
pub(super) struct Prefixes(Vec<Vec<u8>>);

impl Prefixes {
    pub(super) fn of(prefixes: &[&[u8]]) -> Prefixes {
        let mut sorted: Vec<Vec<u8>> = prefixes.iter().map(|prefix| prefix.to_vec()).collect();
        sorted.sort();
        // One that begins with another one asks for nothing more.
        sorted.dedup_by(|longer, before| longer.starts_with(before));
        Prefixes(sorted)
    }

    /// Whether a row of this key is wanted.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        let at = self.0.partition_point(|prefix| prefix.as_slice() <= key);
        at.checked_sub(1).is_some_and(|at| key.starts_with(&self.0[at]))
    }

    /// Whether a wanted key can be among those from `first` to `last`, both included.
    pub(super) fn touch(&self, first: &[u8], last: &[u8]) -> bool {
        let from = |prefix: &Vec<u8>| prefix.as_slice() <= last;
        let not_below = |prefix: &Vec<u8>| first <= prefix.as_slice() || first.starts_with(prefix);
        self.0.iter().any(|prefix| from(prefix) && not_below(prefix))
    }
}

/// What an entry says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Entry<'a> {
    Put(&'a [u8]),
    Gone,
    /// What only the node makes a value of.
    Other(&'static str),
}

impl Entry<'_> {
    fn bytes(self) -> u64 {
        match self {
            Entry::Put(value) => value.len() as u64,
            Entry::Gone | Entry::Other(_) => 0,
        }
    }
}

#[derive(Debug)]
enum Newest {
    Put(Vec<u8>),
    Gone,
    Other(&'static str),
}

impl Newest {
    fn of(entry: Entry<'_>) -> Newest {
        match entry {
            Entry::Put(value) => Newest::Put(value.to_vec()),
            Entry::Gone => Newest::Gone,
            Entry::Other(what) => Newest::Other(what),
        }
    }

    fn entry(&self) -> Entry<'_> {
        match self {
            Newest::Put(value) => Entry::Put(value),
            Newest::Gone => Entry::Gone,
            Newest::Other(what) => Entry::Other(what),
        }
    }

    fn is(&self, entry: Entry<'_>) -> bool {
        self.entry() == entry
    }

    fn bytes(&self) -> u64 {
        self.entry().bytes()
    }
}

/// A place in the order of all entries: keys rise, and the sequence numbers of one key fall. `trailer` is a
/// sequence number and the type behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    key: Vec<u8>,
    trailer: u64,
}

impl Position {
    /// Before all entries of a key.
    fn before(key: &[u8]) -> Position {
        Position { key: key.to_vec(), trailer: u64::MAX }
    }

    /// Right behind an entry.
    fn behind(key: &[u8], trailer: u64) -> Position {
        match trailer.checked_sub(1) {
            Some(trailer) => Position { key: key.to_vec(), trailer },
            // The next key is the same with a zero at its end.
            None => Position { key: [key, &[0]].concat(), trailer: u64::MAX },
        }
    }

    fn cmp_to(&self, key: &[u8], trailer: u64) -> Ordering {
        self.key.as_slice().cmp(key).then(trailer.cmp(&self.trailer))
    }

    fn cmp_position(&self, other: &Position) -> Ordering {
        self.cmp_to(&other.key, other.trailer)
    }
}

/// A deletion of all older entries from one place up to another, which is not among them.
#[derive(Debug)]
struct Deletion {
    from: Position,
    to: Position,
    sequence: u64,
}

/// What was found by now.
pub(super) struct Gather<'a> {
    prefixes: &'a Prefixes,
    rows: BTreeMap<Vec<u8>, (u64, Newest)>,
    deletions: Vec<Deletion>,
    /// Bytes of memory that are left for rows and deletions.
    room: &'a mut u64,
    looked_at: u64,
}

impl<'a> Gather<'a> {
    pub(super) fn new(prefixes: &'a Prefixes, room: &'a mut u64) -> Gather<'a> {
        let (rows, deletions) = (BTreeMap::new(), Vec::new());
        Gather { prefixes, rows, deletions, room, looked_at: 0 }
    }

    pub(super) fn prefixes(&self) -> &'a Prefixes {
        self.prefixes
    }

    /// Records that a block of this many bytes is looked at.
    pub(super) fn look_at(&mut self, bytes: u64) -> Result<(), VerifyFault> {
        self.looked_at = self.looked_at.saturating_add(bytes);
        if self.looked_at > LOOKED_AT_BYTES_MAX { Err(TOO_MUCH) } else { Ok(()) }
    }

    /// An entry of a key.
    pub(super) fn point(
        &mut self,
        key: &[u8],
        sequence: u64,
        entry: Entry<'_>,
    ) -> Result<(), VerifyFault> {
        if !self.prefixes.has(key) {
            return Ok(());
        }
        let value = entry.bytes();
        match self.rows.get_mut(key) {
            None => {
                self.take(key.len() as u64 + value + ENTRY_BYTES)?;
                self.rows.insert(key.to_vec(), (sequence, Newest::of(entry)));
                Ok(())
            }
            Some((known, _)) if *known > sequence => Ok(()),
            // A log keeps what is in a table by now.
            Some((known, before)) if *known == sequence => match before.is(entry) {
                true => Ok(()),
                false => damaged(format!("two entries have the sequence number {sequence}")),
            },
            Some((known, before)) => {
                let left = self.room.saturating_add(before.bytes()).checked_sub(value);
                *self.room = left.ok_or(TOO_MANY)?;
                (*known, *before) = (sequence, Newest::of(entry));
                Ok(())
            }
        }
    }

    /// A deletion of all keys from `start` up to `end`, as far as it lies within a table with these bounds.
    pub(super) fn range(
        &mut self,
        start: &[u8],
        end: &[u8],
        sequence: u64,
        bounds: Option<&Bounds>,
    ) -> Result<(), VerifyFault> {
        if start >= end || !self.prefixes.touch(start, end) {
            return Ok(());
        }
        self.take((start.len() + end.len()) as u64 + ENTRY_BYTES)?;
        let (mut from, mut to) = (Position::before(start), Position::before(end));
        if let Some(Bounds { smallest, largest }) = bounds {
            let (Some((first, begin)), Some((last, end))) = (split(smallest), split(largest))
            else {
                return damaged("the MANIFEST tells no bounds of it");
            };
            if from.cmp_to(first, begin).is_lt() {
                from = Position { key: first.to_vec(), trailer: begin };
            }
            let bound = Position::behind(last, end);
            if bound.cmp_position(&to).is_lt() {
                to = bound;
            }
        }
        self.deletions.push(Deletion { from, to, sequence });
        Ok(())
    }

    fn take(&mut self, bytes: u64) -> Result<(), VerifyFault> {
        let left = self.room.checked_sub(bytes).ok_or(TOO_MANY)?;
        *self.room = left;
        Ok(())
    }

    /// The rows that are there.
    pub(super) fn finish(self) -> Result<Rows, VerifyFault> {
        let Gather { rows, mut deletions, .. } = self;
        deletions.sort_by(|a, b| a.from.cmp_position(&b.from));
        let mut coming = deletions.into_iter().peekable();
        // Those that have begun, the latest one first.
        let mut begun: BinaryHeap<Begun> = BinaryHeap::new();
        let mut found = Rows::new();
        for (key, (sequence, newest)) in rows {
            // Whatever its type is: a bound that has its sequence number has it within.
            let (least, most) = (sequence << 8, sequence << 8 | 0xff);
            while let Some(next) = coming.next_if(|next| next.from.cmp_to(&key, least).is_le()) {
                begun.push(Begun(next));
            }
            while begun.peek().is_some_and(|first| first.0.to.cmp_to(&key, most).is_le()) {
                begun.pop();
            }
            if begun.peek().is_some_and(|first| first.0.sequence > sequence) {
                continue;
            }
            match newest {
                Newest::Put(value) => drop(found.insert(key, value)),
                Newest::Gone => {}
                Newest::Other(why) => return Err(VerifyFault::Unknown(why)),
            }
        }
        Ok(found)
    }
}

/// A deletion, the later the greater.
struct Begun(Deletion);

impl PartialEq for Begun {
    fn eq(&self, other: &Begun) -> bool {
        self.0.sequence == other.0.sequence
    }
}

impl Eq for Begun {}

impl PartialOrd for Begun {
    fn partial_cmp(&self, other: &Begun) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Begun {
    fn cmp(&self, other: &Begun) -> Ordering {
        self.0.sequence.cmp(&other.0.sequence)
    }
}

/// A key, and the sequence number with the type behind it.
pub(super) fn split(key: &[u8]) -> Option<(&[u8], u64)> {
    let (key, trailer) = key.split_last_chunk::<8>()?;
    Some((key, u64::from_le_bytes(*trailer)))
}
