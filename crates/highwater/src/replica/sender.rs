//! The one who writes to the server: one put at a time, each conditional on the head that the one before
//! has left. Without threads and clocks of its own, so that a simulation can hold each step.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::book::{Attempt, Book, Change, Queued};
use super::head::{self, Head, HeadState, Placed, ROOT};
use super::keys::{EpochKey, ReplicaKeys};
use super::remote::{Item, Put, Remote, RemotePut, list_all};
use crate::env::Env;
use crate::error::{Error, Kind, Result};

/// Items of one put, deletes among them.
const ITEMS_MAX: usize = 1000;
/// Bytes of values of one put; a larger value goes alone.
const BYTES_MAX: u64 = 8 << 20;
/// Writes that are read from the queue at once.
const ROWS: usize = 64;
/// Nonces of one key are drawn at random; so many seals keep a repetition out of reach, and the next
/// epoch has a key of its own.
const SEALS_MAX: u64 = 1 << 28;

/// What a step did.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing waits.
    Idle,
    /// A put is on the server: writes that no longer wait, and their bytes.
    Landed(u64, u64),
    /// Whether a put has landed is not known, or it can't land now; to be tried again.
    Uncertain(Error),
}

/// A writer that holds the head.
pub(super) struct Sender {
    pub(super) book: Book,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) keys: Arc<ReplicaKeys>,
    pub(super) env: Env,
    /// The head that is ours.
    pub(super) held: Placed,
    epoch: EpochKey,
    seals: u64,
    /// Sent, and not known to have landed.
    sent: Option<(Attempt, RemotePut)>,
}

impl Sender {
    /// A sender that does not hold anything yet: [`Sender::take`] comes next.
    pub(super) fn new(
        book: Book,
        remote: Arc<dyn Remote>,
        keys: Arc<ReplicaKeys>,
        env: Env,
        held: Placed,
    ) -> Result<Sender> {
        let epoch = keys.epoch(head::id_of(&held.name)?)?;
        Ok(Sender { book, remote, keys, env, held, epoch, seals: 0, sent: None })
    }

    /// Puts a head of the next epoch in the place of the one that is held, or where `first` stands, as
    /// the first of all. Returns once it is ours.
    ///
    /// # Errors
    /// Fenced where somebody else took it meanwhile; unavailable where the server can't be asked: the
    /// next call goes on.
    pub(super) fn take(&mut self, owner: &str, reason: Option<&str>, first: bool) -> Result<()> {
        let mut head = self.next_head(HeadState::Open)?;
        head.epoch = self.held.head.epoch + 1;
        head.version = 1;
        head.owner = owner.to_owned();
        head.since = self.env.now();
        head.reason = reason.map(str::to_owned);
        head.state = self.state(first)?;
        let placed = Placed { name: head::name_of(&self.env.random()?), head };
        let from = (!first).then(|| (self.held.name.clone(), self.held.head.version));
        let mut put = RemotePut::default();
        put.items.push(self.head_item(&placed, 0)?);
        match &from {
            Some(from) => put.deletes.push(from.clone()),
            None => put.items.push(Item {
                key: ROOT.to_owned(),
                version: 0,
                value: self.keys.seal_document(ROOT, b"{}")?,
            }),
        }
        let epoch = self.keys.epoch(head::id_of(&placed.name)?)?;
        self.send(Attempt { placed, from, changes: Vec::new() }, put)?;
        match self.go_on()? {
            Step::Uncertain(error) => Err(error),
            Step::Idle | Step::Landed(..) => {
                (self.epoch, self.seals) = (epoch, 0);
                Ok(())
            }
        }
    }

    /// One put of what waits, or the one before again.
    ///
    /// # Errors
    /// Fenced, for good, where somebody else holds the head; what the node's own store says.
    pub(super) fn step(&mut self) -> Result<Step> {
        if self.sent.is_none() && !self.prepare()? {
            return Ok(Step::Idle);
        }
        self.go_on()
    }

    /// Says that this owner ends in good order: everything that was written is on the server.
    ///
    /// # Errors
    /// As [`Sender::step`]; unavailable where the server can't be asked.
    pub(super) fn release(&mut self) -> Result<()> {
        loop {
            match self.step()? {
                Step::Idle => break,
                Step::Landed(..) => {}
                Step::Uncertain(error) => return Err(error),
            }
        }
        if self.held.head.state != HeadState::Open {
            return Ok(());
        }
        let head = self.next_head(HeadState::Released)?;
        let placed = Placed { name: self.held.name.clone(), head };
        let put = RemotePut {
            items: vec![self.head_item(&placed, self.held.head.version)?],
            deletes: Vec::new(),
        };
        self.send(Attempt { placed, from: None, changes: Vec::new() }, put)?;
        match self.go_on()? {
            Step::Uncertain(error) => Err(error),
            Step::Idle | Step::Landed(..) => Ok(()),
        }
    }

    /// What the values beside the next head are.
    fn state(&self, first: bool) -> Result<HeadState> {
        Ok(match self.book.filling()? {
            Some(_) => HeadState::Filling,
            // What its owner had not filled does not become whole by another one.
            None if !first && self.held.head.state == HeadState::Filling => HeadState::Filling,
            None => HeadState::Open,
        })
    }

    /// What stays as it is, under a put of its own.
    fn next_head(&self, state: HeadState) -> Result<Head> {
        let held = &self.held.head;
        let (put, version) = (self.env.random()?, held.version + 1);
        Ok(Head { put, version, state, ..held.clone() })
    }

    fn head_item(&self, placed: &Placed, version: i64) -> Result<Item> {
        Ok(Item { key: placed.name.clone(), version, value: placed.sealed(&self.keys)? })
    }

    /// Makes a put of what waits; false where nothing does.
    fn prepare(&mut self) -> Result<bool> {
        let writes = self.batch()?;
        let Some(last) = writes.last().map(|write| write.seq) else { return Ok(false) };
        let mut latest: BTreeMap<Vec<u8>, Queued> = BTreeMap::new();
        for write in writes {
            latest.insert(write.key.clone(), write);
        }
        let mut head = self.next_head(HeadState::Open)?;
        head.seq = last;
        head.state = match self.book.filling()? {
            Some(to) if to > last => HeadState::Filling,
            _ => HeadState::Open,
        };
        let (mut items, mut deletes, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (key, write) in latest {
            let name = self.keys.name_of(&key);
            let old = self.book.tag(&name)?;
            if let Some(old) = old {
                head.sum.subtract(old);
            }
            match &write.value {
                Some(value) => {
                    let (sealed, tag) =
                        self.keys.seal(&self.epoch, &name, &key, write.seq, value)?;
                    self.seals += 1;
                    head.sum.add(tag);
                    items.push(Item { key: name.clone(), version: -1, value: sealed });
                    changes.push(Change::new(name, Some(tag)));
                }
                // A server that lacks it would refuse a delete alone, which then looks like a new owner.
                None if old.is_some() => {
                    items.push(Item { key: name.clone(), version: -1, value: Vec::new() });
                    deletes.push((name.clone(), -1));
                    changes.push(Change::new(name, None));
                }
                None => {}
            }
        }
        let rotate = self.seals >= SEALS_MAX;
        let (placed, from) = match rotate {
            false => (Placed { name: self.held.name.clone(), head }, None),
            true => {
                head.epoch += 1;
                head.version = 1;
                let name = head::name_of(&self.env.random()?);
                let from = (self.held.name.clone(), self.held.head.version);
                (Placed { name, head }, Some(from))
            }
        };
        // The head stands first: of two writers one is refused there, before either holds anything else
        // that the other one waits for.
        let expected = if rotate { 0 } else { self.held.head.version };
        items.insert(0, self.head_item(&placed, expected)?);
        deletes.extend(from.clone());
        if rotate {
            self.epoch = self.keys.epoch(head::id_of(&placed.name)?)?;
            self.seals = 0;
        }
        self.send(Attempt { placed, from, changes }, RemotePut { items, deletes })?;
        Ok(true)
    }

    /// What waits, as much as one put takes, and no half of a transaction: one of them always fits.
    fn batch(&self) -> Result<Vec<Queued>> {
        let mut writes = self.fitting()?;
        let whole = writes.iter().rposition(|write| !write.more).map_or(0, |last| last + 1);
        if whole == 0 && !writes.is_empty() {
            return Err(Error::corrupt("a transaction in the queue fits into no put"));
        }
        writes.truncate(whole);
        Ok(writes)
    }

    fn fitting(&self) -> Result<Vec<Queued>> {
        let (mut items, mut bytes, mut writes) = (2, 0, Vec::<Queued>::new());
        let mut after = self.held.head.seq;
        loop {
            let rows = self.book.queued(after, ROWS)?;
            let Some(last) = rows.last() else { return Ok(writes) };
            after = last.seq;
            for write in rows {
                items += if write.value.is_some() { 1 } else { 2 };
                bytes += write.bytes();
                if items > ITEMS_MAX || (bytes > BYTES_MAX && !writes.is_empty()) {
                    return Ok(writes);
                }
                writes.push(write);
            }
        }
    }

    /// Makes a put durable here, so that it is known again.
    fn send(&mut self, attempt: Attempt, put: RemotePut) -> Result<()> {
        self.book.keep(&attempt)?;
        self.sent = Some((attempt, put));
        Ok(())
    }

    /// Sends what was made, and finds out what became of it.
    fn go_on(&mut self) -> Result<Step> {
        let Some((attempt, put)) = &self.sent else { return Ok(Step::Idle) };
        let unknown = match self.remote.put(put) {
            Ok(Put::Landed) => return self.landed(),
            Ok(Put::Conflict) => Error::unavailable("the server refused a put and holds our head"),
            Err(error) if error.kind() == Kind::Unavailable => error,
            Err(error) => return Ok(Step::Uncertain(error)),
        };
        match look(&*self.remote, &self.keys, attempt) {
            Ok(Became::Landed) => self.landed(),
            Ok(Became::Nothing) => Ok(Step::Uncertain(unknown)),
            Ok(Became::Deposed) => Err(deposed(&*self.remote, &self.keys)),
            Err(error) if error.kind() == Kind::Corrupt => Err(error),
            Err(error) => Ok(Step::Uncertain(error)),
        }
    }

    fn landed(&mut self) -> Result<Step> {
        let Some((attempt, _)) = &self.sent else { return Ok(Step::Idle) };
        let (writes, bytes) = self.book.adopt(attempt)?;
        self.held = attempt.placed.clone();
        self.sent = None;
        Ok(Step::Landed(writes, bytes))
    }
}

/// What became of a put whose answer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// It is there.
    Landed,
    /// The server is as before it.
    Nothing,
    /// Somebody else holds the head, or it is gone.
    Deposed,
}

/// Reads the head that a put was to write.
pub(super) fn look(remote: &dyn Remote, keys: &ReplicaKeys, attempt: &Attempt) -> Result<Became> {
    let wanted = &attempt.placed;
    if let Some((version, sealed)) = remote.get(&wanted.name)? {
        if version == wanted.head.version {
            let found = Placed::open(keys, &wanted.name, version, &sealed)?;
            let ours = found.head.put == wanted.head.put;
            return Ok(if ours { Became::Landed } else { Became::Deposed });
        }
        let before = attempt.from.is_none() && version == wanted.head.version - 1;
        return Ok(if before { Became::Nothing } else { Became::Deposed });
    }
    // A head that was to be made is not there: is the one that it replaces?
    let Some((name, expected)) = &attempt.from else {
        let first = wanted.head.version == 1 && remote.get(ROOT)?.is_none();
        return Ok(if first { Became::Nothing } else { Became::Deposed });
    };
    Ok(match remote.get(name)? {
        Some((version, _)) if version == *expected => Became::Nothing,
        _ => Became::Deposed,
    })
}

/// What somebody is told who holds the head no longer.
pub(super) fn deposed(remote: &dyn Remote, keys: &ReplicaKeys) -> Error {
    let heads = list_all(remote, head::HEADS).unwrap_or_default();
    let found = heads.iter().find_map(|(name, _)| {
        let (version, sealed) = remote.get(name).ok()??;
        Placed::open(keys, name, version, &sealed).ok()
    });
    let who = found.map_or("whose head it is can't be read".to_owned(), |found| found.told());
    Error::fenced(format!("another owner writes to the server: {who}"))
        .hint("this one must not act any more; `highwater replica owner show` tells more")
}
