//! What a replica keeps in the node's own store, beside its values: which writes are on their way, and
//! what the server is known to hold.

use std::sync::Arc;

use highwater::ids::Time;
use highwater::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::digest::Tag;
use super::head::Placed;
use super::local::{LocalStore, Op, Space};
use super::order::{self, Order};

/// Keys of the book.
const CHECK: &[u8] = b"check";
const HEAD: &[u8] = b"head";
const HYDRATING: &[u8] = b"hydrating";
const FILLING: &[u8] = b"filling";
const LEARNING: &[u8] = b"learning";
const SEQ: &[u8] = b"seq";
const ATTEMPTS: &[u8] = b"attempt/";
const QUEUE: &[u8] = b"queue/";
const TAGS: &[u8] = b"tag/";
/// Rows of one look.
const ROWS: usize = 512;

/// How a write is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is in the node's store already.
    LocalFirst,
    /// It goes into the node's store once the server has it.
    RemoteFirst,
}

/// A write that the server may not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) seq: u64,
    pub(super) way: Way,
    pub(super) at: Time,
    pub(super) key: Vec<u8>,
    /// None: a delete.
    pub(super) value: Option<Vec<u8>>,
    /// The next one is of the same transaction: the server has both or neither.
    pub(super) more: bool,
}

/// What the server holds of a key once a put has landed; none: nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) name: String,
    #[serde(with = "hex::serde")]
    tag: Vec<u8>,
}

impl Change {
    pub(super) fn new(name: String, tag: Option<Tag>) -> Change {
        Change { name, tag: tag.map(|tag| tag.0.to_vec()).unwrap_or_default() }
    }
}

/// A value that a server has, and the number of the write that it is of.
pub(super) struct Fetched {
    pub(super) name: String,
    pub(super) tag: Tag,
    pub(super) seq: u64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// A put that was made durable here before it was sent: if its answer is lost, this distinguishes it from
/// one of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attempt {
    /// The head that it writes.
    pub(super) placed: Placed,
    /// The head that it replaces by another one, where it does.
    pub(super) from: Option<(String, i64)>,
    pub(super) changes: Vec<Change>,
}

/// The book of one store.
#[derive(Clone)]
pub(super) struct Book {
    pub(super) local: Arc<dyn LocalStore>,
    /// Where it is kept.
    order: Option<Arc<Order>>,
}

impl Book {
    pub(super) fn of(local: Arc<dyn LocalStore>) -> Book {
        Book { local, order: None }
    }

    /// One that keeps the order in which keys come to be, from [`Book::complete_order`] on.
    ///
    /// # Errors
    /// What the local store says.
    pub(super) fn in_order(local: Arc<dyn LocalStore>) -> Result<Book> {
        let book = Book::of(local);
        let put = book.head()?.map(|placed| placed.head.put);
        let order = Order::find(&*book.local, put)?;
        Ok(Book { order: Some(Arc::new(order)), ..book })
    }

    /// Gives every key its place in the order, where that is kept and one has none. Nobody may write meanwhile.
    ///
    /// # Errors
    /// What the local store says.
    pub(super) fn complete_order(&self) -> Result<()> {
        match (&self.order, self.head()?) {
            (Some(order), Some(placed)) => order.complete(&*self.local, placed.head.put),
            _ => Ok(()),
        }
    }

    pub(super) fn is_in_order(&self) -> bool {
        self.order.is_some()
    }

    /// Adds what goes with the values of a transaction.
    ///
    /// # Errors
    /// What the local store says.
    pub(super) fn follow(&self, ops: &mut Vec<Op>) -> Result<()> {
        self.order.as_ref().map_or(Ok(()), |order| order.follow(&*self.local, ops))
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        let Some(bytes) = self.local.get(Space::Book, key)? else { return Ok(None) };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|error| damaged(key).with_source(error))
    }

    pub(super) fn check(&self) -> Result<Option<Vec<u8>>> {
        self.local.get(Space::Book, CHECK)
    }

    pub(super) fn set_check(&self, check: &[u8; 32]) -> Result<()> {
        self.local.write(&[Op::put(Space::Book, CHECK, *check)])
    }

    /// The head that the server is known to have taken.
    pub(super) fn head(&self) -> Result<Option<Placed>> {
        self.get(HEAD)
    }

    /// Whether a hydration has begun and not ended: the values here are none.
    pub(super) fn is_hydrating(&self) -> Result<bool> {
        Ok(self.local.get(Space::Book, HYDRATING)?.is_some())
    }

    /// The write up to which the server is being filled, where it is.
    pub(super) fn filling(&self) -> Result<Option<u64>> {
        self.get(FILLING)
    }

    pub(super) fn last_seq(&self) -> Result<u64> {
        Ok(self.get(SEQ)?.unwrap_or(0))
    }

    /// Puts that may have landed, oldest first.
    pub(super) fn attempts(&self) -> Result<Vec<Attempt>> {
        let rows = self.local.scan(Space::Book, ATTEMPTS, None, usize::MAX)?;
        rows.iter()
            .map(|(key, bytes)| {
                serde_json::from_slice(bytes).map_err(|error| damaged(key).with_source(error))
            })
            .collect()
    }

    /// Keeps an attempt, durably.
    pub(super) fn keep(&self, attempt: &Attempt) -> Result<()> {
        let bytes = serde_json::to_vec(attempt)
            .map_err(|error| Error::bug("a put can't be written down").with_source(error))?;
        self.local.write(&[Op::put(Space::Book, attempt_key(attempt), bytes)])
    }

    /// What the server holds of a name.
    pub(super) fn tag(&self, name: &str) -> Result<Option<Tag>> {
        let key = [TAGS, name.as_bytes()].concat();
        let Some(bytes) = self.local.get(Space::Book, &key)? else { return Ok(None) };
        Ok(Some(Tag(bytes.try_into().map_err(|_| damaged(&key))?)))
    }

    /// At most `limit` writes that wait, in order, after `after`.
    pub(super) fn queued(&self, after: u64, limit: usize) -> Result<Vec<Queued>> {
        let rows = self.local.scan(Space::Book, QUEUE, Some(&queue_key(after)), limit)?;
        rows.iter()
            .map(|(key, bytes)| read_queued(key, bytes).ok_or_else(|| damaged(key)))
            .collect()
    }

    /// All that waits: the last write of it, how many, and their bytes.
    pub(super) fn waiting(&self) -> Result<(u64, u64, u64)> {
        let (mut after, mut writes, mut bytes) = (0, 0, 0);
        loop {
            let rows = self.queued(after, ROWS)?;
            let Some(last) = rows.last() else { return Ok((after, writes, bytes)) };
            after = last.seq;
            writes += rows.len() as u64;
            bytes += rows.iter().map(Queued::bytes).sum::<u64>();
        }
    }

    /// The steps by which a landed put becomes what is known: its head, its tags, its writes out of the
    /// queue, and those that waited for the server into the store. Writes that left the queue, and their
    /// bytes.
    ///
    /// Durable with the next write only: if the machine stops before, the attempt is still known, and is
    /// looked up and adopted again.
    pub(super) fn adopt(&self, attempt: &Attempt) -> Result<(u64, u64)> {
        let (mut writes, mut bytes) = (0, 0);
        let mut ops = vec![self.head_op(&attempt.placed)?];
        for change in &attempt.changes {
            let key = [TAGS, change.name.as_bytes()].concat();
            ops.push(match change.tag.is_empty() {
                true => Op::delete(Space::Book, key),
                false => Op::put(Space::Book, key, change.tag.clone()),
            });
        }
        let last = attempt.placed.head.seq;
        // All before that has left the queue: to look there again is to pass what was deleted.
        let mut after = self.head()?.map_or(0, |known| known.head.seq);
        loop {
            let rows = self.queued(after, ROWS)?;
            for queued in rows.iter().take_while(|queued| queued.seq <= last) {
                writes += 1;
                bytes += queued.bytes();
                ops.push(Op::delete(Space::Book, queue_key(queued.seq)));
                if queued.way == Way::RemoteFirst {
                    ops.push(Op {
                        space: Space::Data,
                        key: queued.key.clone(),
                        value: queued.value.clone(),
                    });
                }
            }
            match rows.last() {
                Some(queued) if queued.seq < last => after = queued.seq,
                _ => break,
            }
        }
        if self.filling()?.is_some_and(|to| to <= last) {
            ops.push(Op::delete(Space::Book, FILLING));
        }
        // Whoever takes the head has ended all puts of before; later there is one at a time.
        match attempt.placed.head.version {
            1 => ops.extend(self.forget_attempts()?),
            _ => ops.push(Op::delete(Space::Book, attempt_key(attempt))),
        }
        self.follow(&mut ops)?;
        ops.extend(self.order.as_ref().and_then(|order| order.at(attempt.placed.head.put)));
        self.local.apply(&ops)?;
        Ok((writes, bytes))
    }

    fn head_op(&self, placed: &Placed) -> Result<Op> {
        let bytes = serde_json::to_vec(placed)
            .map_err(|error| Error::bug("a head can't be written down").with_source(error))?;
        Ok(Op::put(Space::Book, HEAD, bytes))
    }

    fn forget_attempts(&self) -> Result<Vec<Op>> {
        let rows = self.local.scan(Space::Book, ATTEMPTS, None, usize::MAX)?;
        Ok(rows.into_iter().map(|(key, _)| Op::delete(Space::Book, key)).collect())
    }

    /// Takes back what waits for the server and was never acknowledged: nobody was told that it is
    /// written. How many writes that were.
    pub(super) fn undo_remote_first(&self) -> Result<u64> {
        let (mut undone, mut after) = (0, 0);
        loop {
            let rows = self.queued(after, ROWS)?;
            let Some(last) = rows.last() else { return Ok(undone) };
            after = last.seq;
            let remote = rows.iter().filter(|queued| queued.way == Way::RemoteFirst);
            let ops: Vec<Op> =
                remote.map(|queued| Op::delete(Space::Book, queue_key(queued.seq))).collect();
            undone += ops.len() as u64;
            self.local.write(&ops)?;
        }
    }

    /// Begins anew with a server, of which it has to be learned what it holds: all values go into the
    /// queue. While it is learned and not filled, this has not ended: it is begun again, since what was in
    /// the queue is gone.
    pub(super) fn fill(&self, now: Time, is_replicated: &dyn Fn(&[u8]) -> bool) -> Result<()> {
        let begun = Op::put(Space::Book, LEARNING, *b"1");
        self.local.write(&[begun, Op::delete(Space::Book, FILLING)])?;
        self.clear(Space::Book, TAGS)?;
        // What waits is among the values, but for what waits for the server: that is undone by this. Not
        // before: a server that is back may have it, and then it has to be learned.
        self.clear(Space::Book, QUEUE)?;
        let mut seq = self.last_seq()?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.local.scan(Space::Data, b"", after.as_deref(), ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            let mut ops = Vec::new();
            for (key, value) in rows.into_iter().filter(|(key, _)| is_replicated(key)) {
                seq += 1;
                let way = Way::LocalFirst;
                ops.push(Queued { seq, way, at: now, key, value: Some(value), more: false }.op());
            }
            ops.push(seq_op(seq));
            self.local.write(&ops)?;
        }
        self.local.write(&[self.filling_op()?])
    }

    /// The step that remembers up to which write the server is filled by what waits: not at all where
    /// nothing does.
    fn filling_op(&self) -> Result<Op> {
        let last = self.waiting()?.0;
        Ok(match last {
            0 => Op::delete(Space::Book, FILLING),
            last => Op::put(Space::Book, FILLING, last.to_string()),
        })
    }

    /// Whether it has to be learned what the server holds.
    pub(super) fn is_learning(&self) -> Result<bool> {
        Ok(self.local.get(Space::Book, LEARNING)?.is_some())
    }

    /// What the server holds: a value that is not here any more is to be deleted there.
    pub(super) fn learn(&self, values: Vec<(String, Tag, Vec<u8>)>, now: Time) -> Result<()> {
        let (mut ops, mut seq) = (Vec::new(), self.last_seq()?);
        for (name, tag, key) in values {
            ops.push(Op::put(Space::Book, [TAGS, name.as_bytes()].concat(), tag.0));
            if self.local.get(Space::Data, &key)?.is_none() {
                seq += 1;
                let way = Way::LocalFirst;
                ops.push(Queued { seq, way, at: now, key, value: None, more: false }.op());
            }
        }
        ops.push(seq_op(seq));
        self.local.write(&ops)
    }

    pub(super) fn end_learning(&self) -> Result<()> {
        self.local.write(&[Op::delete(Space::Book, LEARNING), self.filling_op()?])
    }

    /// Whether there are values of the node's.
    pub(super) fn has_data(&self) -> Result<bool> {
        Ok(!self.local.scan(Space::Data, b"", None, 1)?.is_empty())
    }

    /// Begins a hydration: what is here goes.
    pub(super) fn begin_hydration(&self) -> Result<()> {
        let mut ops = vec![Op::put(Space::Book, HYDRATING, *b"1")];
        ops.extend(order::forgotten());
        self.local.write(&ops)?;
        self.order.iter().for_each(|order| order.forget());
        for rows in order::all() {
            self.clear(Space::Book, rows)?;
        }
        self.clear(Space::Data, b"")?;
        self.clear(Space::Book, TAGS)?;
        self.clear(Space::Book, QUEUE)
    }

    /// Values that were read, with their tags.
    pub(super) fn hydrate(&self, values: Vec<Fetched>) -> Result<()> {
        let mut ops = Vec::with_capacity(4 * values.len());
        for Fetched { name, tag, seq, key, value } in values {
            if self.is_in_order() {
                ops.extend(order::hydrated(&key, seq));
            }
            ops.push(Op::put(Space::Data, key, value));
            ops.push(Op::put(Space::Book, [TAGS, name.as_bytes()].concat(), tag.0));
        }
        self.local.write(&ops)
    }

    /// Ends a hydration: what is here is the store.
    pub(super) fn end_hydration(&self, seq: u64) -> Result<()> {
        let mut ops = vec![Op::delete(Space::Book, HYDRATING), seq_op(seq)];
        let (Some(order), Some(placed)) = (&self.order, self.head()?) else {
            // Not here: what this start writes from now on would have no place.
            return self.local.write(&ops);
        };
        ops.extend(order::all_hydrated(placed.head.put, seq));
        self.local.write(&ops)?;
        order.is_hydrated(seq);
        Ok(())
    }

    fn clear(&self, space: Space, prefix: &[u8]) -> Result<()> {
        loop {
            let rows = self.local.scan(space, prefix, None, ROWS)?;
            if rows.is_empty() {
                return Ok(());
            }
            let ops: Vec<Op> = rows.into_iter().map(|(key, _)| Op::delete(space, key)).collect();
            self.local.write(&ops)?;
        }
    }
}

impl Queued {
    pub(super) fn bytes(&self) -> u64 {
        (self.key.len() + self.value.as_ref().map_or(0, Vec::len)) as u64
    }

    /// As the queue keeps it: way and whether more follows, time, whether it has a value, length of the key, key, value.
    pub(super) fn op(&self) -> Op {
        let value = self.value.as_deref();
        let mut bytes = Vec::with_capacity(14 + self.key.len() + value.map_or(0, <[u8]>::len));
        bytes.push(u8::from(self.way == Way::RemoteFirst) | u8::from(self.more) << 1);
        bytes.extend_from_slice(&self.at.as_nanos().to_le_bytes());
        bytes.push(u8::from(value.is_some()));
        bytes.extend_from_slice(&u32::try_from(self.key.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(value.unwrap_or_default());
        Op::put(Space::Book, queue_key(self.seq), bytes)
    }
}

fn read_queued(key: &[u8], bytes: &[u8]) -> Option<Queued> {
    let seq = u64::from_be_bytes(key.strip_prefix(QUEUE)?.try_into().ok()?);
    let (flags, rest) = bytes.split_first()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (has_value, rest) = rest.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some(Queued {
        seq,
        way: if flags & 1 == 1 { Way::RemoteFirst } else { Way::LocalFirst },
        at: Time::from_nanos(i64::from_le_bytes(*at)),
        key: key.to_vec(),
        value: (*has_value == 1).then(|| value.to_vec()),
        more: flags & 2 == 2,
    })
}

fn attempt_key(attempt: &Attempt) -> Vec<u8> {
    [ATTEMPTS, hex::encode(attempt.placed.head.put).as_bytes()].concat()
}

fn queue_key(seq: u64) -> Vec<u8> {
    [QUEUE, &seq.to_be_bytes()].concat()
}

/// The step that remembers the last number given.
pub(super) fn seq_op(seq: u64) -> Op {
    Op::put(Space::Book, SEQ, seq.to_string())
}

fn damaged(key: &[u8]) -> Error {
    Error::corrupt("what the replica keeps in the node's store is damaged")
        .with_entry(highwater::ids::encode(key))
}
