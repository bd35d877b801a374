//! Two machines and a server, from one seed, step by step: transactions of several keys and classes,
//! crashes before and after each write, lost requests and answers, puts that come late, partitions, clocks
//! that jump, owners that release, are taken over, or both at once; in every other seed also a server that
//! is wiped, shows nothing for a while, or is set back.
//!
//! What must hold: after every put the server's values are what the owner's store held after some
//! transaction of its, whole, and later than the put before (invariant 6); a put lands on the head that its
//! owner has left, or takes the head and changes no value (invariant 7); what a node was told is on the
//! server is in the next owner's store, and in its own; a store is what its node wrote; each of its keys has its
//! place in the order, wherever that is kept, also after starts that did not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use highwater::env::{Clock, Random};
use highwater::ids::Time;

use super::*;
use crate::book::Book;
use crate::owner::Start;
use crate::remote::Versioned;
use crate::sender::{Sender, Step};
use crate::shared::Shared;
use machine::{Log, Machine, Mortal, Process, Transaction};
use server::{Landing, Line, Server};

mod machine;
mod server;

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// Steps of a run.
const STEPS: u32 = 400;
/// Keys that are never sent begin with it.
const LOCAL: &[u8] = b"l/";
/// Writes that may wait, as a node bounds them.
const BOUND: u64 = 24;

/// What a search over all seeds has to come by, so that it shows something.
const PASSED: &[&str] = &[
    "new",
    "resumed",
    "hydrated",
    "filled",
    "undone",
    "released",
    "dies",
    "fenced",
    "refused as older",
    "written over",
    "found empty",
    "half filled",
    "shows nothing",
    "set back",
    "is back",
    "cut",
];

/// A generator of numbers; good enough to choose by.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A wall clock that is set.
#[derive(Clone, Default)]
struct Set(Arc<AtomicI64>);

impl Clock for Set {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn pause(&self, _: Duration) {}
}

/// Names and ids, one after the other.
struct Named(AtomicU64);

impl Random for Named {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        let digest = blake3::hash(&number.to_le_bytes());
        bytes.copy_from_slice(&digest.as_bytes()[..bytes.len()]);
        Ok(())
    }
}

/// What a server shows.
#[derive(Clone, Default)]
struct Shown {
    rows: BTreeMap<String, Versioned>,
    values: Values,
    /// Name and version of the head.
    held: Option<(String, i64)>,
    owner: usize,
    seq: u64,
    state: Option<HeadState>,
    /// The last write that a node was told of as being there.
    told: u64,
}

struct World {
    dice: Dice,
    keys: Arc<ReplicaKeys>,
    env: Env,
    clock: Set,
    server: Arc<Server>,
    machines: Vec<Machine>,
    shown: Shown,
    /// What it has shown before.
    before: Vec<Shown>,
    /// What it would show, had it not lost it.
    hidden: Option<Shown>,
    /// It is a server that loses what it has taken.
    loses: bool,
    /// And it has.
    lost: bool,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, keys: &Arc<ReplicaKeys>) -> World {
        let server = Arc::new(Server::new(Arc::clone(keys)));
        let clock = Set::default();
        let named = Named(AtomicU64::new(seed << 32));
        World {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            keys: Arc::clone(keys),
            env: Env::system().with_clock(clock.clone()).with_random(named),
            clock,
            machines: (0..2).map(|_| Machine::new(Line::to(&server))).collect(),
            server,
            shown: Shown::default(),
            before: Vec::new(),
            hidden: None,
            loses: seed.is_multiple_of(2),
            lost: false,
            trace: Vec::new(),
        }
    }

    fn note(&mut self, number: usize, what: &str) {
        self.trace.push(format!("{number} {what}"));
    }

    /// What has landed is what it must be.
    fn look(&mut self) {
        for Landing { placed, values } in self.server.landings() {
            let (head, number) = (&placed.head, placed.head.owner.parse::<usize>().unwrap());
            if head.version == 1 {
                assert_eq!(values, self.shown.values, "whoever takes the head changes a value");
                let fills = self.shown.held.is_none() || head.state == HeadState::Filling;
                self.machines[number].fills |= fills;
                if fills {
                    // What the server has is none of what it had.
                    self.shown.told = 0;
                }
            } else {
                let on = Some((placed.name.clone(), head.version - 1));
                assert_eq!(self.shown.held, on, "a put has landed beside the head");
                let log = &self.machines[number].log;
                if head.state != HeadState::Filling && head.seq >= log.from {
                    let expected = log.at(head.seq).expect("half a transaction is on the server");
                    assert_eq!(values, expected, "the server is at no write of its owner's");
                }
                assert!(head.seq >= self.shown.seq, "the server goes back");
            }
            self.note(number, &format!("lands {} {:?} {}", head.version, head.state, head.seq));
            self.shown.held = Some((placed.name, head.version));
            (self.shown.owner, self.shown.seq) = (number, head.seq);
            (self.shown.state, self.shown.values) = (Some(head.state), values);
        }
    }

    fn weather(&mut self, number: usize) {
        let faults: Vec<_> = (0..self.dice.roll(5))
            .map(|_| match self.dice.roll(5) {
                0 => Some(RemoteFault::Request),
                1 => Some(RemoteFault::Answer),
                2 => Some(RemoteFault::Late(self.dice.roll(6) as u32)),
                _ => None,
            })
            .collect();
        self.machines[number].line.fail(faults);
    }

    fn start(&mut self, number: usize, permissions: &Permissions, life: u64) {
        let released = self.shown.state == Some(HeadState::Released);
        let machine = &mut self.machines[number];
        assert!(machine.process.is_none());
        if machine.deposed {
            // Whoever must not act begins again with an empty disk, as the hint says.
            if permissions.take_over.is_none() && !released {
                return;
            }
            machine.replace();
        }
        let book = Book::of(Arc::clone(&machine.disk) as _);
        let known = book.head().unwrap().is_some() || !book.attempts().unwrap().is_empty();
        let empty = !known || book.is_hydrating().unwrap();
        let happens = self.dice.roll(2) == 0;
        let mortal = Arc::new(Mortal::new(&machine.disk, life, happens));
        // Some starts keep the order of the keys; those of an older program do not.
        let book = match self.dice.roll(3) {
            0 => Book::of(Arc::clone(&mortal) as _),
            _ => Book::in_order(Arc::clone(&mortal) as _).unwrap(),
        };
        let start = Start {
            book,
            remote: Arc::clone(&machine.line) as _,
            keys: Arc::clone(&self.keys),
            env: self.env.clone(),
            owner: &number.to_string(),
            permissions,
            is_replicated: &|key| !key.starts_with(LOCAL),
        };
        let ran = start.run();
        let seen = self.shown.clone();
        self.look();
        match ran {
            Ok((sender, started)) => self.started(number, started, sender, mortal),
            Err(error) => {
                self.note(number, &format!("does not start: {:?}", error.kind()));
                self.not_started(number, &error, &mortal, empty, &seen);
            }
        }
    }

    fn started(&mut self, number: usize, started: Started, sender: Sender, mortal: Arc<Mortal>) {
        assert_eq!(self.shown.owner, number, "who started is not the owner");
        let shared = Shared::new(
            sender.book.clone(),
            classes(),
            Bound::default(),
            self.env.clone(),
            &sender,
        )
        .unwrap();
        let landed = self.shown.seq;
        let machine = &mut self.machines[number];
        let (found, fills) = (machine.values(), std::mem::take(&mut machine.fills));
        let what = match started {
            Started::New => {
                assert!(found.is_empty() && self.shown.values.is_empty());
                "new"
            }
            Started::Hydrated { .. } => {
                self.hydrated(number);
                "hydrated"
            }
            Started::Resumed if !fills => {
                let undone = machine.log.undo(landed);
                if self.shown.state == Some(HeadState::Open) {
                    assert_eq!(machine.log.at(landed).as_ref(), Some(&self.shown.values));
                }
                machine.check(landed);
                if undone > 0 {
                    self.trace.push(format!("{number} undone"));
                }
                "resumed"
            }
            // There may have been nothing to fill it with.
            Started::Filling | Started::Resumed => {
                machine.log.check_plausible(&found);
                let from = shared.state().line.given();
                machine.log = Log { base: found, from, ..Log::default() };
                "filled"
            }
        };
        self.note(number, what);
        self.machines[number].process = Some(Process { mortal, sender, shared });
        self.machines[number].check_order();
    }

    /// A machine has what the server has, as it was told, and goes on from there.
    fn hydrated(&mut self, number: usize) {
        let found = self.machines[number].values();
        assert_ne!(self.shown.state, Some(HeadState::Filling), "half of a store");
        assert_eq!(found, self.shown.values, "not what the server has");
        assert!(self.shown.seq >= self.shown.told, "an acknowledged write is lost");
        self.machines[number].log = Log { base: found, from: self.shown.seq, ..Log::default() };
    }

    /// A start may fail where it has a reason to.
    fn not_started(
        &mut self,
        number: usize,
        error: &highwater::Error,
        mortal: &Mortal,
        empty: bool,
        seen: &Shown,
    ) {
        let what = match error.kind() {
            Kind::Bug => {
                assert!(mortal.is_dead(), "{error}");
                let book = Book::of(Arc::clone(&mortal.store) as _);
                let whole = book.head().unwrap().is_some() && !book.is_hydrating().unwrap();
                if empty && whole && self.shown.owner == number {
                    self.hydrated(number);
                }
                "dies"
            }
            Kind::Unavailable => "waits",
            Kind::Fenced => {
                let other = self.shown.owner != number;
                assert!(other || self.lost || empty, "the rightful owner is fenced: {error}");
                self.machines[number].deposed = true;
                "fenced"
            }
            Kind::Corrupt if seen.state == Some(HeadState::Filling) && empty => {
                assert_eq!(seen.held, self.shown.held, "who can't use it takes the head");
                "half filled"
            }
            Kind::Corrupt => {
                assert!(self.lost, "{error}");
                "refused as older"
            }
            Kind::NotFound => {
                assert!(seen.held.is_none(), "{error}");
                self.machines[number].deposed = !empty;
                "found empty"
            }
            _ => panic!("machine {number}: {error}"),
        };
        self.note(number, what);
    }

    fn key(&mut self) -> Vec<u8> {
        let class = [b"k/", b"k/", b"r/", b"l/"][self.dice.roll(4) as usize];
        [class.as_slice(), &[self.dice.roll(4) as u8]].concat()
    }

    fn write(&mut self, number: usize) {
        let several = if self.dice.roll(2) == 0 { 1 } else { 1 + self.dice.roll(4) };
        let writes: Vec<Write> = (0..several)
            .map(|_| Write {
                key: self.key(),
                value: (self.dice.roll(4) > 0).then(|| self.dice.roll(1000).to_le_bytes().to_vec()),
            })
            .collect();
        let machine = &mut self.machines[number];
        let Some(process) = &machine.process else { return };
        if process.shared.state().line.pending().0 >= BOUND {
            return;
        }
        let landed = process.sender.held.head.seq;
        let (own, sent): (Vec<_>, Vec<_>) = writes
            .iter()
            .map(|write| (write.key.clone(), write.value.clone()))
            .partition(|(key, _)| key.starts_with(LOCAL));
        let waits = sent
            .iter()
            .any(|(key, _)| key.starts_with(b"r/") || machine.log.waits_for(key, landed));
        let before = process.mortal.done();
        let committed = process.shared.commit(writes, false);
        if process.mortal.done() > before {
            for (key, value) in own {
                match value {
                    Some(value) => machine.own.insert(key, value),
                    None => machine.own.remove(&key),
                };
            }
            if !sent.is_empty() {
                let last = process.shared.state().line.given();
                let transaction = Transaction { waits, told: false, writes: sent };
                let known = machine.log.transactions.insert(last, transaction);
                assert!(known.is_none(), "a number is given twice");
            }
        }
        match committed {
            Ok(committed) => {
                assert_eq!(committed.remote_first, waits);
                let (_, writes, bytes) = process.sender.book.waiting().unwrap();
                assert_eq!(
                    process.shared.state().line.pending(),
                    (writes, bytes),
                    "the bound is wrong"
                );
                machine.check_order();
            }
            Err(error) => {
                assert!(process.mortal.is_dead(), "{error}");
                machine.process = None;
                self.note(number, "dies");
            }
        }
    }

    /// One put; whether another one may follow.
    fn send(&mut self, number: usize) -> bool {
        let Some(process) = &mut self.machines[number].process else { return false };
        let stepped = process.sender.step();
        self.look();
        match stepped {
            Ok(Step::Landed(writes, bytes)) => {
                assert_eq!(number, self.shown.owner, "a deposed owner has landed a put");
                let machine = &mut self.machines[number];
                let process = machine.process.as_ref().expect("it has sent");
                let landed = process.sender.held.head.seq;
                process.shared.landed(&process.sender, (writes, bytes));
                machine.log.tell(landed);
                machine.check(landed);
                machine.check_order();
                self.shown.told = self.shown.told.max(landed);
                true
            }
            Ok(Step::Idle | Step::Held(_) | Step::Uncertain(_)) => false,
            Err(error) => {
                self.ended(number, &error);
                false
            }
        }
    }

    /// A process has ended by itself.
    fn ended(&mut self, number: usize, error: &highwater::Error) {
        let machine = &mut self.machines[number];
        let process = machine.process.take().expect("it has ended");
        let what = match error.kind() {
            Kind::Fenced => {
                let other = self.shown.owner != number && self.shown.held.is_some();
                assert!(other || self.lost, "the rightful owner was fenced: {error}");
                machine.deposed = other;
                "fenced"
            }
            _ if process.mortal.is_dead() => "dies",
            Kind::Unavailable => "waits",
            _ => panic!("machine {number}: {error}"),
        };
        self.note(number, what);
    }

    fn release(&mut self, number: usize) {
        let Some(process) = &mut self.machines[number].process else { return };
        let released = process.sender.release();
        self.look();
        if let Err(error) = released {
            return self.ended(number, &error);
        }
        let machine = &mut self.machines[number];
        machine.process = None;
        if self.shown.state == Some(HeadState::Released) {
            let last = machine.log.transactions.keys().next_back().copied();
            assert!(last.is_none_or(|last| last == self.shown.seq), "something was not sent");
            machine.log.tell(self.shown.seq);
            self.shown.told = self.shown.told.max(self.shown.seq);
            self.note(number, "released");
        }
    }

    /// Whatever waits is sent, where nothing is in the way.
    fn drain(&mut self, number: usize) {
        while self.send(number) {}
    }

    fn remember(&mut self) {
        let rows = self.server.memory.values();
        self.before.push(Shown { rows, ..self.shown.clone() });
    }

    fn show(&mut self, shown: Shown) {
        self.server.memory.set_values(shown.rows.clone());
        // What was on its way to the server is lost with what the server was.
        self.server.drop_late();
        self.shown = shown;
        self.lost = true;
    }

    /// The server loses all, some, or finds again what it had lost.
    fn lose(&mut self) {
        match (self.dice.roll(3), self.hidden.take()) {
            (0 | 1, Some(hidden)) if self.shown.held.is_none() => {
                self.show(hidden);
                self.note(9, "is back");
            }
            (0, _) => {
                let rows = self.server.memory.values();
                self.hidden = Some(Shown { rows, ..self.shown.clone() });
                self.show(Shown::default());
                self.note(9, "shows nothing");
            }
            _ if !self.before.is_empty() => {
                let place = self.dice.roll(self.before.len() as u64) as usize;
                let before = self.before[place].clone();
                self.show(before);
                self.note(9, "set back");
            }
            _ => {}
        }
    }

    fn step(&mut self) {
        let number = self.dice.roll(2) as usize;
        match self.dice.roll(40) {
            0..13 => self.write(number),
            13..23 => drop(self.send(number)),
            23 => self.drain(number),
            24..28 => self.weather(number),
            28 if self.dice.roll(2) == 0 => self.machines[number].process = None,
            29..35 if self.machines[number].process.is_none() => {
                let older = self.dice.roll(3) == 0;
                let permissions = Permissions {
                    take_over: (self.dice.roll(4) == 0).then(|| "simulated".to_owned()),
                    accept_older: older,
                    ..Permissions::default()
                };
                let most = if self.dice.roll(3) == 0 { 12 } else { 120 };
                let life = 1 + self.dice.roll(most);
                self.start(number, &permissions, life);
                if older && self.trace.last() == Some(&format!("{number} filled")) {
                    self.note(number, "written over");
                }
            }
            35 if self.dice.roll(3) == 0 => self.release(number),
            36 if self.dice.roll(2) == 0 => {
                let what = if self.machines[number].line.toggle() { "cut" } else { "mended" };
                self.note(number, what);
            }
            37 => {
                let jumps = (self.dice.roll(1 << 40) as i64 - (1 << 39)) << 20;
                self.clock.0.store(jumps, Ordering::SeqCst);
            }
            38 => self.remember(),
            39 if self.loses => self.lose(),
            _ => {}
        }
    }

    /// The weather is calm, and who can goes on; then the machines are lost.
    fn end(&mut self) {
        self.machines.iter().for_each(|machine| machine.line.calm());
        let goes_on = Permissions { accept_older: true, ..Permissions::default() };
        for number in [self.shown.owner, 1 - self.shown.owner] {
            if self.machines[number].process.is_none() {
                self.start(number, &goes_on, u64::MAX);
            }
            self.drain(number);
        }
        self.machines.push(Machine::new(Line::to(&self.server)));
        let take = Permissions { take_over: Some("lost".to_owned()), ..Permissions::default() };
        self.start(2, &take, u64::MAX);
        let done = self.machines[2].process.is_some();
        assert!(done || self.loses, "nobody gets what is there");
    }
}

fn run(seed: u64, keys: &Arc<ReplicaKeys>) -> Vec<String> {
    let mut world = World::new(seed, keys);
    let new = Permissions { allow_empty: true, ..Permissions::default() };
    while world.machines[0].process.is_none() {
        world.start(0, &new, 40);
    }
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
    world.trace
}

/// How many seeds; `make nightly` runs more.
fn seeds() -> u64 {
    std::env::var("HIGHWATER_REPLICA_SEEDS").map_or(3000, |seeds| seeds.parse().unwrap())
}

#[test]
fn the_server_follows_one_owner_s_history_whatever_goes_wrong() {
    let keys = Arc::new(keys());
    let mut passed = BTreeSet::new();
    for seed in 1..=seeds() {
        let ran = std::panic::catch_unwind(|| run(seed, &keys));
        let trace = ran.unwrap_or_else(|_| panic!("seed {seed}"));
        passed.extend(trace.into_iter().filter_map(|line| line.get(2..).map(str::to_owned)));
    }
    for what in PASSED {
        assert!(passed.contains(*what), "no seed has come by: {what}");
    }
}

#[test]
fn one_seed_gives_one_run() {
    let keys = Arc::new(keys());
    for seed in [1, 2, 3, 40, 51] {
        assert!(run(seed, &keys) == run(seed, &keys), "seed {seed}");
    }
    assert!(run(1, &keys) != run(3, &keys));
}
