//! The rule of EIP-3076, on databases with the tables of Lighthouse.
#![allow(clippy::print_stdout, reason = "the counts of a search are for who reads its output")]

use std::collections::BTreeSet;

use rusqlite::{Connection, MAIN_DB};

use super::*;
use crate::floor::Slots;
use crate::tests::signers::{KEY, LIGHTHOUSE};

/// What a validator signs: a block of a slot, or a vote from a source to a target; and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Block(u64, u8),
    Vote(u64, u64, u8),
}

impl Message {
    /// Whether somebody who shows both is paid for it.
    fn is_slashable_with(self, other: Message) -> bool {
        match (self, other) {
            (Message::Block(slot, root), Message::Block(other, other_root)) => {
                slot == other && root != other_root
            }
            (Message::Vote(s1, t1, root), Message::Vote(s2, t2, other_root)) => {
                let double = t1 == t2 && (root != other_root || s1 != s2);
                double || (s1 < s2 && t2 < t1) || (s2 < s1 && t1 < t2)
            }
            _ => false,
        }
    }
}

/// One validator of a database.
#[derive(Clone, Debug, Default)]
struct Rows {
    blocks: Vec<(u64, Vec<u8>)>,
    votes: Vec<(u64, u64, Vec<u8>)>,
}

impl Rows {
    fn read(file: &[u8]) -> Rows {
        let mut database = Connection::open_in_memory().unwrap();
        database.deserialize_read_exact(MAIN_DB, file, file.len(), true).unwrap();
        let mut rows = Rows::default();
        let number = |value: i64| u64::try_from(value).unwrap();
        let mut blocks = database.prepare("SELECT slot, signing_root FROM signed_blocks").unwrap();
        let mut found = blocks.query(()).unwrap();
        while let Some(row) = found.next().unwrap() {
            rows.blocks.push((number(row.get(0).unwrap()), row.get(1).unwrap()));
        }
        let mut votes = database
            .prepare("SELECT source_epoch, target_epoch, signing_root FROM signed_attestations")
            .unwrap();
        let mut found = votes.query(()).unwrap();
        while let Some(row) = found.next().unwrap() {
            let (source, target) = (number(row.get(0).unwrap()), number(row.get(1).unwrap()));
            rows.votes.push((source, target, row.get(2).unwrap()));
        }
        rows
    }

    /// Whether a validator client with these rows signs it, by the conditions of the standard as Lighthouse
    /// keeps them: nothing that conflicts with a row, and nothing that is not above the lowest ones.
    fn allow(&self, message: Message) -> bool {
        let same = |known: &[u8], root: u8| known == [root; 32] && root != 0;
        match message {
            Message::Block(slot, root) => {
                if let Some((_, known)) = self.blocks.iter().find(|row| row.0 == slot) {
                    return same(known, root);
                }
                self.blocks.iter().map(|row| row.0).min().is_none_or(|lowest| slot > lowest)
            }
            Message::Vote(source, target, root) => {
                if source > target {
                    return false;
                }
                if let Some((_, _, known)) = self.votes.iter().find(|row| row.1 == target) {
                    return same(known, root);
                }
                let surround = |(s, t, _): &(u64, u64, Vec<u8>)| {
                    (*s < source && *t > target) || (*s > source && *t < target)
                };
                let sources = self.votes.iter().map(|row| row.0).min();
                let targets = self.votes.iter().map(|row| row.1).min();
                !self.votes.iter().any(surround)
                    && sources.is_none_or(|lowest| source >= lowest)
                    && targets.is_none_or(|lowest| target > lowest)
            }
        }
    }
}

/// A validator at work: all that it signed, and its database after each.
struct Life {
    random: Rng,
    database: Connection,
    epoch: u64,
    signed: Vec<Message>,
    files: Vec<Vec<u8>>,
}

fn empty() -> Connection {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(LIGHTHOUSE).unwrap();
    let key = format!("0x{KEY}");
    database.execute("INSERT INTO validators (id, public_key) VALUES (1, ?1)", (key,)).unwrap();
    database
}

/// Epochs of four slots, so that few have many.
const SLOTS: u64 = 4;

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = Rng::with_seed(seed);
        let epoch = 2 + random.u64(..10);
        Life { random, database: empty(), epoch, signed: Vec::new(), files: Vec::new() }
    }

    fn sign(&mut self, message: Message) {
        let file = self.file();
        if !Rows::read(&file).allow(message) {
            return;
        }
        let number = |value: u64| i64::try_from(value).unwrap();
        match message {
            Message::Block(slot, root) => self.database.execute(
                "INSERT INTO signed_blocks VALUES (1, ?1, ?2)",
                (number(slot), [root; 32]),
            ),
            Message::Vote(source, target, root) => self.database.execute(
                "INSERT INTO signed_attestations VALUES (1, ?1, ?2, ?3)",
                (number(source), number(target), [root; 32]),
            ),
        }
        .unwrap();
        self.signed.push(message);
        let file = self.file();
        self.files.push(file);
    }

    fn file(&mut self) -> Vec<u8> {
        self.database.serialize(MAIN_DB).unwrap().to_vec()
    }

    /// Votes in so many epochs, from sources that fall behind where the chain is not final, and proposes.
    fn runs(&mut self, epochs: u64) {
        for _ in 0..epochs {
            let behind = 1 + if self.random.u64(..3) == 0 { self.random.u64(..4) } else { 0 };
            let source = self.epoch.saturating_sub(behind);
            let root = 1 + u8::try_from(self.random.u64(..100)).unwrap();
            if self.random.u64(..3) == 0 {
                let slot = self.epoch * SLOTS + self.random.u64(..SLOTS);
                self.sign(Message::Block(slot, root));
            }
            if self.random.u64(..5) > 0 {
                self.sign(Message::Vote(source, self.epoch, root));
            }
            self.epoch += 1;
        }
    }

    fn copy(&mut self, how: Rollback) -> Vec<u8> {
        let count = self.files.len();
        match how {
            Rollback::OneStep => self.files[count.saturating_sub(2)].clone(),
            Rollback::Many | Rollback::Chain => {
                let at = self.random.usize(..count);
                self.files[at].clone()
            }
            Rollback::Clone => {
                let file = self.files[count - 1].clone();
                self.runs(3);
                file
            }
        }
    }

    /// Something that a client with these rows signs, and that is paid for beside what the original signed.
    fn slashable(&self, file: &[u8]) -> Option<(Message, Message)> {
        let rows = Rows::read(file);
        let end = self.epoch + 3;
        let blocks = (0..end * SLOTS).map(|slot| Message::Block(slot, 200));
        let votes =
            (0..end).flat_map(|source| (source..end).map(move |to| Message::Vote(source, to, 200)));
        blocks.chain(votes).filter(|message| rows.allow(*message)).find_map(|message| {
            let other = self.signed.iter().find(|other| message.is_slashable_with(**other))?;
            Some((message, *other))
        })
    }
}

fn raise(file: &[u8], slot: u64, epoch: u64) -> Vec<u8> {
    let stated = stated(Basis::Latest, &[("slot", slot), ("epoch", epoch)]);
    let raised = Slots.raise(file, &stated, &BTreeMap::new()).unwrap();
    raised.content.unwrap_or_else(|| file.to_vec())
}

#[test]
fn a_validator_above_its_floor_is_paid_to_nobody() {
    let mut runs: BTreeMap<Rollback, usize> = BTreeMap::new();
    let mut signed = BTreeSet::new();
    for seed in 1..=100 {
        for how in ROLLBACKS {
            let mut life = Life::new(seed);
            life.runs(6);
            if life.files.is_empty() {
                continue;
            }
            let times = if how == Rollback::Chain { 3 } else { 1 };
            for _ in 0..times {
                let copy = life.copy(how);
                let (slot, epoch) = (life.epoch * SLOTS, life.epoch);
                let file = raise(&copy, slot, epoch);
                *runs.entry(how).or_default() += 1;
                assert_eq!(life.slashable(&file), None, "{seed} {how:?}");
                let mut database = empty();
                database.deserialize_read_exact(MAIN_DB, &file[..], file.len(), false).unwrap();
                // Once the chain has gone on it votes again.
                let before = life.signed.len();
                (life.database, life.epoch) = (database, epoch + 5);
                life.runs(4);
                signed.insert(life.signed.len() > before);
            }
        }
    }
    println!("rollbacks: {runs:?}");
    assert!(runs.values().sum::<usize>() >= 500, "{runs:?}");
    assert!(signed.contains(&true), "nothing is ever signed above a floor");
}

/// Changes a database by hand.
fn with(file: &[u8], sql: &str) -> Vec<u8> {
    let mut database = Connection::open_in_memory().unwrap();
    database.deserialize_read_exact(MAIN_DB, file, file.len(), false).unwrap();
    database.execute_batch(sql).unwrap();
    database.serialize(MAIN_DB).unwrap().to_vec()
}

#[test]
fn floors_beside_the_history_or_without_a_source_are_paid_for() {
    let (mut beside, mut sourceless, mut none) = (0, 0, 0);
    for seed in 1..=100 {
        let mut life = Life::new(seed);
        life.runs(6);
        if life.files.is_empty() {
            continue;
        }
        let copy = life.copy(Rollback::Many);
        let (slot, epoch) = (life.epoch * SLOTS, life.epoch);
        let rows = |source: u64| {
            format!(
                "INSERT INTO signed_blocks VALUES (1, {slot}, zeroblob(32)); \
                 INSERT INTO signed_attestations VALUES (1, {source}, {epoch}, zeroblob(32));"
            )
        };
        let forget = "DELETE FROM signed_blocks; DELETE FROM signed_attestations;";
        beside += usize::from(life.slashable(&with(&copy, &rows(epoch))).is_some());
        let without = with(&copy, &format!("{forget}{}", rows(0)));
        sourceless += usize::from(life.slashable(&without).is_some());
        none += usize::from(life.slashable(&copy).is_some());
    }
    println!("of 100: beside the history {beside}, without a source {sourceless}, no floor {none}");
    assert!(beside > 0 && sourceless > 0 && none > 0, "{beside} {sourceless} {none}");
}

#[test]
fn validators_that_have_signed_nothing_get_the_floor_too() {
    let mut life = Life::new(7);
    life.runs(6);
    let other = KEY.replace('b', "c");
    let file = with(
        &life.file(),
        &format!("INSERT INTO validators (id, public_key, enabled) VALUES (9, '0x{other}', FALSE)"),
    );
    let floor = stated(Basis::Latest, &[("slot", 400), ("epoch", 100)]);
    let raised = Slots.raise(&file, &floor, &BTreeMap::new()).unwrap();
    let expected = [("slot", 400), ("source", 100), ("target", 100), ("validators", 2)];
    assert_eq!(raised.to, numbers(&expected));
    let content = raised.content.unwrap();
    let rows = Rows::read(&content);
    assert_eq!((rows.blocks.len(), rows.votes.len()), (2, 2));
    let again = Slots.raise(&content, &floor, &BTreeMap::new()).unwrap();
    assert_eq!((again.content, again.to), (None, raised.to));
    let anew = Slots.raise(&content, &stated(Basis::NewChain, &[]), &BTreeMap::new()).unwrap();
    assert_eq!(anew.to, numbers(&[("validators", 2)]));
    assert!(Rows::read(&anew.content.unwrap()).blocks.is_empty());
}

#[test]
fn no_floor_lies_below_what_is_known() {
    let mut life = Life::new(7);
    life.runs(6);
    let file = life.file();
    let epoch = life.epoch;
    let seen = numbers(&[("slot", 900), ("source", 190), ("target", 200)]);
    for (given, seen) in [
        (&[("slot", 4), ("epoch", 3)][..], &BTreeMap::new()),
        (&[("slot", 899), ("epoch", 220)], &seen),
        (&[("slot", 950), ("epoch", 199)], &seen),
        (&[("slot", epoch), ("epoch", epoch * 4)], &BTreeMap::new()),
        (&[("slot", u64::MAX), ("epoch", 9)], &BTreeMap::new()),
    ] {
        let error = Slots.raise(&file, &stated(Basis::Latest, given), seen).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{given:?}: {error}");
    }
    for (basis, given, kind) in [
        (Basis::Latest, &[][..], Kind::Quarantined),
        (Basis::Latest, &[("slot", 4000)], Kind::Quarantined),
        (Basis::NewChain, &[("epoch", 40)], Kind::Quarantined),
        (Basis::Accepted, &[("slot", 4000), ("epoch", 1000)], Kind::Input),
    ] {
        let error = Slots.raise(&file, &stated(basis, given), &BTreeMap::new()).unwrap_err();
        assert_eq!(error.kind(), kind, "{basis:?} {given:?}: {error}");
    }
}

#[test]
fn a_database_that_lighthouse_does_not_write_is_refused() {
    let whole = empty().serialize(MAIN_DB).unwrap().to_vec();
    let mut logged = whole.clone();
    logged[18] = 2;
    let mut torn = whole.clone();
    torn.truncate(whole.len() / 2);
    let view = "DROP TABLE signed_blocks; CREATE TABLE other (validator_id, slot, signing_root); \
                CREATE VIEW signed_blocks AS SELECT * FROM other;";
    let files = [
        Vec::new(),
        b"{}".to_vec(),
        logged,
        torn,
        with(&whole, "DROP TABLE signed_attestations;"),
        with(&whole, view),
        with(&whole, "UPDATE validators SET public_key = '0xzz';"),
        with(&whole, "UPDATE validators SET public_key = x'00ff';"),
        with(&whole, "INSERT INTO signed_blocks VALUES (1, -5, zeroblob(32));"),
        with(&whole, "INSERT INTO signed_blocks VALUES (1, 'many', zeroblob(32));"),
    ];
    for (number, file) in files.iter().enumerate() {
        let stated = stated(Basis::Latest, &[("slot", 400), ("epoch", 100)]);
        let error = Slots.raise(file, &stated, &BTreeMap::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{number}: {error}");
    }
    // What a schema does behind a write is not done.
    let trigger = with(
        &whole,
        "CREATE TRIGGER late AFTER INSERT ON signed_blocks BEGIN DELETE FROM signed_blocks; END;",
    );
    assert_eq!(Rows::read(&raise(&trigger, 400, 100)).blocks.len(), 1);
}
