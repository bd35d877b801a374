//! Owners, crashes, lost requests and answers, requests that come late, a second owner: from one seed, step
//! by step.
//!
//! What must hold: the server's values are what the owner's store held after some write of its history,
//! and not an earlier one than was acknowledged; a remote-first write that was acknowledged is never
//! lost; an owner that was taken over lands nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::error::Error;
use crate::replica::book::{Book, Queued, Way, seq_op};
use crate::replica::local::{LocalStore, Rows};
use crate::replica::owner::Start;
use crate::replica::sender::{Sender, Step};

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

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

/// A store whose process dies after so many writes.
struct Mortal {
    store: Arc<MemoryStore>,
    left: AtomicU64,
}

impl Mortal {
    fn dead() -> Error {
        Error::bug("the process is dead")
    }
}

impl LocalStore for Mortal {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Rows> {
        self.store.scan(space, prefix, after, limit)
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        let alive =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        alive.map_err(|_| Mortal::dead())?;
        self.store.write(ops)
    }
}

/// A machine with a store, and the process that runs on it.
struct Machine {
    disk: Arc<MemoryStore>,
    process: Option<(Arc<Mortal>, Sender)>,
    deposed: bool,
}

struct World {
    dice: Dice,
    remote: Arc<MemoryRemote>,
    machines: Vec<Machine>,
    /// What the values were after each write of the lineage that the server follows, by its number.
    history: BTreeMap<u64, Values>,
    /// The last write that a caller was told of as being on the server.
    acknowledged: u64,
    /// Whose head is on the server: whose writes it follows.
    owner: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let machine = || Machine { disk: Arc::default(), process: None, deposed: false };
        World {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            remote: Arc::default(),
            machines: vec![machine(), machine()],
            history: [(0, Values::new())].into(),
            acknowledged: 0,
            owner: 0,
        }
    }

    /// Some of the next calls go wrong.
    fn weather(&mut self) {
        let faults: Vec<_> = (0..self.dice.roll(4))
            .map(|_| match self.dice.roll(5) {
                0 => Some(RemoteFault::Request),
                1 => Some(RemoteFault::Answer),
                2 => Some(RemoteFault::Late(self.dice.roll(6) as u32)),
                _ => None,
            })
            .collect();
        self.remote.fail(faults);
    }

    fn start(&mut self, number: usize, take_over: bool) {
        if self.machines[number].deposed {
            // Whoever must not act begins again with an empty disk, as the hint says.
            if !take_over {
                return;
            }
            self.machines[number].disk = Arc::default();
        }
        let life = 1 + self.dice.roll(60);
        let mortal = Arc::new(Mortal {
            store: Arc::clone(&self.machines[number].disk),
            left: AtomicU64::new(life),
        });
        let permissions = Permissions {
            allow_empty: true,
            take_over: take_over.then(|| "simulated".to_owned()),
            ..Permissions::default()
        };
        let start = Start {
            book: Book { local: Arc::clone(&mortal) as _ },
            remote: Arc::clone(&self.remote) as _,
            keys: Arc::new(keys()),
            env: Env::system(),
            owner: &number.to_string(),
            permissions: &permissions,
            is_replicated: &|_| true,
        };
        let ran = start.run();
        self.owner = self.holder();
        match ran {
            Ok((sender, started)) => {
                assert_eq!(self.owner, number, "who started is not the owner");
                if matches!(started, Started::Hydrated { .. }) {
                    self.adopted_by(number);
                }
                self.machines[number].process = Some((mortal, sender));
                self.machines[number].deposed = false;
            }
            Err(error) if error.kind() == Kind::Fenced => self.machines[number].deposed = true,
            // Dead, or the server was not reached: the next start goes on.
            Err(error) => assert!(
                matches!(error.kind(), Kind::Bug | Kind::Unavailable),
                "machine {number}: {error}"
            ),
        }
    }

    /// Whose head is on the server.
    fn holder(&self) -> usize {
        let values = self.remote.values();
        let head = values.iter().find(|(name, _)| name.starts_with("head."));
        let Some((name, (version, sealed))) = head else { return 0 };
        let placed = super::super::head::Placed::open(&keys(), name, *version, sealed).unwrap();
        placed.head.owner.parse().unwrap()
    }

    /// A machine has hydrated: what it has is of the history, no older than what was acknowledged, and is
    /// the history's end from now on.
    fn adopted_by(&mut self, number: usize) {
        let values = data(&self.machines[number].disk);
        let book = Book { local: Arc::clone(&self.machines[number].disk) as _ };
        let seq = book.last_seq().unwrap();
        assert_eq!(self.history.get(&seq), Some(&values), "what was hydrated was never a state");
        assert!(seq >= self.acknowledged, "an acknowledged write is lost");
        self.history.retain(|known, _| *known <= seq);
    }

    fn write(&mut self, number: usize) {
        let key = vec![b'k', self.dice.roll(6) as u8];
        let value = (self.dice.roll(4) > 0).then(|| self.dice.roll(1000).to_le_bytes().to_vec());
        let machine = &mut self.machines[number];
        let Some((mortal, sender)) = &machine.process else { return };
        let seq = sender.book.last_seq().unwrap() + 1;
        let way = Way::LocalFirst;
        let at = crate::ids::Time::default();
        let queued = Queued { seq, way, at, key: key.clone(), value: value.clone(), more: false };
        let data_op = Op { space: Space::Data, key: key.clone(), value: value.clone() };
        if mortal.write(&[queued.op(), data_op, seq_op(seq)]).is_err() {
            machine.process = None;
            return;
        }
        // Writes of who lost the head are of no lineage; it stops before it acts on them.
        if number == self.owner {
            let mut values = self.history.values().next_back().cloned().unwrap_or_default();
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
            self.history.insert(seq, values);
        }
    }

    fn send(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        let Some((_, sender)) = &mut machine.process else { return };
        let stepped = sender.step();
        // A put that comes late may have changed it too.
        self.owner = self.holder();
        let owner = self.owner;
        let machine = &mut self.machines[number];
        let Some((_, sender)) = &mut machine.process else { return };
        match stepped {
            Ok(Step::Landed(..)) => {
                assert_eq!(number, owner, "a deposed owner has landed a put");
                self.acknowledged = self.acknowledged.max(sender.held.head.seq);
            }
            Ok(Step::Idle | Step::Held(_) | Step::Uncertain(_)) => {}
            Err(error) if error.kind() == Kind::Fenced => {
                assert_ne!(number, owner, "the rightful owner was fenced: {error}");
                machine.process = None;
                machine.deposed = true;
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Bug, "{error}");
                machine.process = None;
            }
        }
    }

    fn step(&mut self) {
        let number = usize::try_from(self.dice.roll(2)).unwrap();
        match self.dice.roll(20) {
            0..6 => self.write(number),
            6..13 => self.send(number),
            13..16 => self.weather(),
            16 => self.machines[number].process = None,
            17 | 18 if self.machines[number].process.is_none() => self.start(number, false),
            19 if self.machines[number].process.is_none() => {
                let takes = self.dice.roll(4) == 0;
                self.start(number, takes);
            }
            _ => {}
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    while world.machines[0].process.is_none() {
        world.start(0, false);
    }
    for _ in 0..300 {
        world.step();
    }
    // Calm weather: a third machine can take what there is.
    world.remote.set_calm();
    world.machines.push(Machine { disk: Arc::default(), process: None, deposed: false });
    while world.machines[2].process.is_none() {
        world.start(2, true);
    }
}

/// How many seeds; `make nightly` runs more.
fn seeds() -> u64 {
    std::env::var("HIGHWATER_REPLICA_SEEDS").map_or(3000, |seeds| seeds.parse().unwrap())
}

#[test]
fn the_server_follows_one_owner_s_history_whatever_goes_wrong() {
    for seed in 1..=seeds() {
        let ran = std::panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "seed {seed}");
    }
}
