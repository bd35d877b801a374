//! The sender, which writes to the server: one put at a time, each conditional on the head that the previous one
//! has left. Without threads and clocks of its own, so that a simulation can hold each step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater::env::Env;
use highwater::{Error, Kind, Remedy, Result};

use super::book::{Attempt, Book, Change, Queued};
use super::class::Carried;
use super::head::{self, Head, HeadState, Placed, ROOT};
use super::keys::{EpochKey, ReplicaKeys};
use super::remote::{Item, Put, Remote, RemotePut, list_all};

mod parts;

use parts::Staging;

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
    /// What waits is sent after this time, or with an earlier write.
    Held(Duration),
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
    /// What is held back until another write can be sent with it.
    pub(super) carried: Option<Carried>,
    /// The first write that is held back, and since when, by the monotonic clock.
    alone: Option<(u64, Duration)>,
    /// The transaction that is being sent in parts.
    staging: Option<Staging>,
    /// What a put takes.
    pub(super) limits: Limits,
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
        Ok(Sender {
            book,
            remote,
            keys,
            env,
            held,
            epoch,
            seals: 0,
            carried: None,
            alone: None,
            staging: None,
            limits: Limits::default(),
            sent: None,
        })
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
            Step::Idle | Step::Held(_) | Step::Landed(..) => {
                (self.epoch, self.seals) = (epoch, 0);
                let head = &self.held.head;
                tracing::info!(epoch = head.epoch, seq = head.seq, state = ?head.state, "replica: head taken");
                Ok(())
            }
        }
    }

    /// One put of what waits, or the one before again.
    ///
    /// # Errors
    /// Fenced, for good, where somebody else holds the head; what the node's own store says.
    pub(super) fn step(&mut self) -> Result<Step> {
        if self.sent.is_some() {
            return self.go_on();
        }
        let parts = match self.prepare_parts() {
            // A part could not be asked for.
            Err(error) if error.kind() == Kind::Unavailable => return Ok(Step::Uncertain(error)),
            parts => parts?,
        };
        if !parts {
            let Some(mut writes) = self.batch()? else {
                self.begin_staging()?;
                return self.step();
            };
            if let Some(left) = self.hold(&mut writes) {
                return Ok(Step::Held(left));
            }
            if !self.prepare(writes)? {
                return Ok(Step::Idle);
            }
        }
        self.go_on()
    }

    /// Leaves only what can be sent now; how long the rest waits, where nothing is left.
    fn hold(&mut self, writes: &mut Vec<Queued>) -> Option<Duration> {
        let carried = self.carried.as_ref()?;
        let Some(place) = carried.first_alone(writes) else {
            self.alone = None;
            return None;
        };
        if place > 0 {
            writes.truncate(place);
            return None;
        }
        let (now, seq) = (self.env.monotonic(), writes.first()?.seq);
        let since = match self.alone {
            Some((alone, since)) if alone == seq => since,
            _ => now,
        };
        self.alone = Some((seq, since));
        let left = carried.wait.saturating_sub(now.saturating_sub(since));
        // It has waited for long enough, or as much waits as one put takes.
        if left.is_zero() || self.is_full(writes) {
            return None;
        }
        Some(left)
    }

    /// Says that this owner ends in good order: everything that was written is on the server.
    ///
    /// # Errors
    /// As [`Sender::step`]; unavailable where the server can't be asked.
    pub(super) fn release(&mut self) -> Result<()> {
        self.carried = None;
        loop {
            match self.step()? {
                Step::Idle | Step::Held(_) => break,
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
            Step::Idle | Step::Held(_) | Step::Landed(..) => {
                tracing::info!(seq = self.held.head.seq, "replica: released");
                Ok(())
            }
        }
    }

    /// What the values beside the next head are.
    fn state(&self, first: bool) -> Result<HeadState> {
        Ok(match self.book.filling()? {
            Some(_) => HeadState::Filling,
            // What it holds is about to be written over.
            None if !first && self.book.is_learning()? => HeadState::Filling,
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

    fn head_item(&mut self, placed: &Placed, version: i64) -> Result<Item> {
        self.seals += 1;
        Ok(Item { key: placed.name.clone(), version, value: placed.sealed(&self.keys)? })
    }

    /// Makes a put of these; false where there are none.
    fn prepare(&mut self, writes: Vec<Queued>) -> Result<bool> {
        let Some(last) = writes.last().map(|write| write.seq) else { return Ok(false) };
        let mut latest: BTreeMap<Vec<u8>, Queued> = BTreeMap::new();
        for write in writes {
            latest.insert(write.key.clone(), write);
        }
        let mut head = self.next_head(HeadState::Open)?;
        head.seq = last;
        head.state = self.state_at(last)?;
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

    /// What waits, as much as one put takes, and no half of a transaction; none where the first one fits
    /// into no put.
    fn batch(&self) -> Result<Option<Vec<Queued>>> {
        let mut writes = self.fitting(self.held.head.seq)?;
        let whole = writes.iter().rposition(|write| !write.more).map_or(0, |last| last + 1);
        if whole == 0 && !writes.is_empty() {
            return Ok(None);
        }
        writes.truncate(whole);
        Ok(Some(writes))
    }

    /// What waits behind a write, as much as one put takes: one at least.
    fn fitting(&self, mut after: u64) -> Result<Vec<Queued>> {
        let (mut room, mut writes) = (Room::new(self.limits), Vec::<Queued>::new());
        loop {
            let rows = self.book.queued(after, ROWS)?;
            let Some(last) = rows.last() else { return Ok(writes) };
            after = last.seq;
            for write in rows {
                if !room.takes(&write, self.carried.as_ref()) && !writes.is_empty() {
                    return Ok(writes);
                }
                writes.push(write);
            }
        }
    }

    /// Whether no put takes one more write beside these.
    fn is_full(&self, writes: &[Queued]) -> bool {
        let mut room = Room::new(self.limits);
        let all = writes.iter().all(|write| room.takes(write, self.carried.as_ref()));
        !all || room.items + 2 > self.limits.items || room.bytes >= self.limits.bytes / 2
    }

    /// Makes a put durable here, so that it is known again.
    fn send(&mut self, attempt: Attempt, put: RemotePut) -> Result<()> {
        self.book.keep(&attempt)?;
        self.sent = Some((attempt, put));
        Ok(())
    }

    /// Sends what was made, and finds out what became of it.
    fn go_on(&mut self) -> Result<Step> {
        let done = self.put();
        // Of an error no more than its kind: its text may name what the server was asked for.
        match &done {
            Ok(Step::Uncertain(error)) => {
                tracing::warn!(kind = ?error.kind(), "replica: put not known to have landed")
            }
            Ok(Step::Landed(writes, bytes)) => {
                tracing::debug!(writes, bytes, seq = self.held.head.seq, "replica: put landed");
            }
            Ok(Step::Idle | Step::Held(_)) => {}
            Err(error) => tracing::warn!(kind = ?error.kind(), "replica: put refused"),
        }
        done
    }

    fn put(&mut self) -> Result<Step> {
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

/// What a put takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Items, deletes among them.
    pub(super) items: usize,
    /// Bytes of values; a larger value goes alone.
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { items: ITEMS_MAX, bytes: BYTES_MAX }
    }
}

/// What a put holds.
struct Room {
    limits: Limits,
    items: usize,
    bytes: u64,
}

impl Room {
    /// The head, and the one that it replaces.
    fn new(limits: Limits) -> Room {
        Room { limits, items: 2, bytes: 0 }
    }

    /// Takes one more write; false where that is too much.
    fn takes(&mut self, write: &Queued, carried: Option<&Carried>) -> bool {
        self.items += if write.value.is_some() { 1 } else { 2 };
        // What others are carried by goes with them, however large it is.
        if carried.is_none_or(|carried| carried.by != write.key) {
            self.bytes += write.bytes();
        }
        self.items <= self.limits.items && self.bytes <= self.limits.bytes
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

/// What somebody is told who no longer holds the head.
pub(super) fn deposed(remote: &dyn Remote, keys: &ReplicaKeys) -> Error {
    let heads = list_all(remote, head::HEADS);
    if heads.as_ref().is_ok_and(Vec::is_empty) && matches!(remote.get(ROOT), Ok(None)) {
        return Error::unavailable("the server has lost everything that it had of this store")
            .with_remedy("start the node again: it fills the server from its own store");
    }
    let heads = heads.unwrap_or_default();
    let found = heads.iter().find_map(|(name, _)| {
        let (version, sealed) = remote.get(name).ok()??;
        Placed::open(keys, name, version, &sealed).ok()
    });
    let who = found.map_or("whose head it is can't be read".to_owned(), |found| found.told());
    Error::fenced(format!("another owner writes to the server: {who}"))
        .with_remedy("stop: this one must not act any more")
        .with_remedy(Remedy::ShowOwner)
}
