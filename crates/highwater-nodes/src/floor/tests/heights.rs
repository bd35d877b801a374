//! The rule of CometBFT: a vote or a proposal is signed above the last height, round and step alone.
#![allow(clippy::print_stdout, reason = "the counts of a search are for who reads its output")]

use serde_json::{Value, json};

use super::*;
use crate::floor::{COMETBFT, Signer as _, TMKMS};

const ROUND_LAST: u64 = 2_147_483_647;

/// What is asked to be signed: height, round, step, and what for.
type Message = (u64, u64, u64, u64);

/// A signer that keeps its state as CometBFT does, and signs by it.
#[derive(Clone)]
struct Signer {
    file: Vec<u8>,
}

impl Signer {
    fn new() -> Signer {
        Signer { file: b"{\n  \"height\": \"0\",\n  \"round\": 0,\n  \"step\": 0\n}".to_vec() }
    }

    /// Whether it signs this; then it remembers it.
    fn signs(&mut self, message: Message) -> bool {
        let state: Value = serde_json::from_slice(&self.file).unwrap();
        let last = (
            state["height"].as_str().unwrap().parse::<u64>().unwrap(),
            state["round"].as_u64().unwrap(),
            state["step"].as_u64().unwrap(),
        );
        let (height, round, step, what) = message;
        let asked = (height, round, step);
        if asked < last {
            return false;
        }
        if asked == last {
            // It repeats a signature, and gives no other one.
            return state["signbytes"].as_str() == Some(&what.to_string());
        }
        let state = json!({
            "height": height.to_string(), "round": round, "step": step,
            "signature": "c2ln", "signbytes": what.to_string(),
        });
        self.file = serde_json::to_vec_pretty(&state).unwrap();
        true
    }
}

/// An original at work: all that it signed, its file after each, and the height that is being decided.
struct Life {
    random: Rng,
    signer: Signer,
    height: u64,
    signed: Vec<Message>,
    files: Vec<Vec<u8>>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = Rng::with_seed(seed);
        let height = 1 + random.u64(..1000);
        let signer = Signer::new();
        Life { random, signer, height, signed: Vec::new(), files: Vec::new() }
    }

    /// Signs in so many heights, in several rounds of some, and not always all that it could.
    fn runs(&mut self, heights: u64) {
        for _ in 0..heights {
            let rounds = if self.random.u64(..3) == 0 { 1 + self.random.u64(..4) } else { 1 };
            for round in 0..rounds {
                for step in 1..=3 {
                    if self.random.u64(..4) == 0 {
                        continue;
                    }
                    let message = (self.height, round, step, self.random.u64(..1 << 40));
                    self.sign(message);
                }
            }
            self.height += 1;
        }
        // The height at which it stops is not committed.
        let message = (self.height, 0, 1 + self.random.u64(..3), self.random.u64(..1 << 40));
        self.sign(message);
    }

    fn sign(&mut self, message: Message) {
        if self.signer.signs(message) {
            self.signed.push(message);
            self.files.push(self.signer.file.clone());
        }
    }

    fn committed(&self) -> u64 {
        self.height - 1
    }

    /// The file of a copy, and what backups have seen by then.
    fn copy(&mut self, how: Rollback) -> (Vec<u8>, u64) {
        let count = self.files.len();
        let at = match how {
            Rollback::OneStep => count.saturating_sub(2),
            Rollback::Many | Rollback::Chain => self.random.usize(..count),
            Rollback::Clone => {
                let at = count - 1;
                self.runs(2);
                at
            }
        };
        let seen = at + self.random.usize(..(self.files.len() - at));
        (self.files[at].clone(), height_in(&self.files[seen]))
    }
}

fn height_in(file: &[u8]) -> u64 {
    crate::cometbft::height(file, "a test").unwrap()
}

/// What a copy with this file signs that the original has signed otherwise.
fn doubles(file: &[u8], life: &Life) -> usize {
    let conflicting = |(height, round, step, what): &Message| (*height, *round, *step, what + 1);
    let fresh = || Signer { file: file.to_vec() };
    life.signed.iter().filter(|message| fresh().signs(conflicting(message))).count()
}

/// Rolls back at every step of many lives; `floor` makes the file that is released. Tells how many rollbacks of
/// each sort there were, and in how many of them something was signed twice.
fn all_lives(
    floor: impl Fn(&[u8], u64, u64) -> Vec<u8>,
) -> (BTreeMap<Rollback, usize>, BTreeMap<Rollback, usize>) {
    let (mut runs, mut bad) = (BTreeMap::new(), BTreeMap::new());
    for seed in 1..=220 {
        for how in ROLLBACKS {
            let mut life = Life::new(seed);
            life.runs(4);
            let times = if how == Rollback::Chain { 3 } else { 1 };
            for _ in 0..times {
                let (copy, seen) = life.copy(how);
                let committed = life.committed();
                let file = floor(&copy, committed, seen);
                *runs.entry(how).or_insert(0) += 1;
                if doubles(&file, &life) > 0 {
                    *bad.entry(how).or_insert(0) += 1;
                    break;
                }
                // Whatever it is asked: nothing up to the height that is being decided.
                for height in 0..=committed + 1 {
                    for round in [0, 1, 2, 5, ROUND_LAST] {
                        for step in 1..=3 {
                            let mut signer = Signer { file: file.clone() };
                            assert!(!signer.signs((height, round, step, 7)), "{seed} {how:?}");
                        }
                    }
                }
                // It goes on above, and is the original of the next one.
                life.signer = Signer { file };
                life.height = committed + 2;
                life.runs(1 + seed % 3);
            }
        }
    }
    (runs, bad)
}

fn raised(file: &[u8], latest: u64, seen: u64) -> Vec<u8> {
    let stated = stated(Basis::Latest, &[("height", latest)]);
    let raised = COMETBFT.raise(file, &stated, &numbers(&[("height", seen)])).unwrap();
    raised.content.unwrap_or_else(|| file.to_vec())
}

#[test]
fn a_copy_above_its_floor_signs_nothing_that_its_original_could_have_signed() {
    let (runs, bad) = all_lives(raised);
    println!("rollbacks: {runs:?}, signed twice in {bad:?}");
    assert!(runs.values().sum::<usize>() >= 500, "{runs:?}");
    assert_eq!(bad, BTreeMap::new());
}

/// A file with these numbers.
fn set(height: u64, round: u64, step: u64) -> Vec<u8> {
    let state = json!({"height": height.to_string(), "round": round, "step": step});
    serde_json::to_vec(&state).unwrap()
}

#[test]
fn lower_floors_sign_twice() {
    // Signs in the next round of the height that was being decided.
    let without_round =
        |file: &[u8], latest: u64, _: u64| set((latest + 1).max(height_in(file)), 0, 3);
    // Signs the height that was being decided.
    let without_next =
        |file: &[u8], latest: u64, _: u64| set(latest.max(height_in(file)), ROUND_LAST, 3);
    // Signs what was signed after the newest backup.
    let by_marks = |_: &[u8], _: u64, seen: u64| set(seen, ROUND_LAST, 3);
    let none = |file: &[u8], _: u64, _: u64| file.to_vec();
    let floors: [(&str, &Raise); 4] = [
        ("height and step alone", &without_round),
        ("the committed height", &without_next),
        ("the highest mark", &by_marks),
        ("none", &none),
    ];
    for (name, floor) in floors {
        let bad = found_by(floor);
        println!("floor by {name}: signed twice after {bad} of 220 rollbacks");
        assert!(bad > 0, "the test finds nothing that is signed twice with {name}");
    }
}

/// A way to raise a state: from the state, the chain's latest height and the highest mark.
type Raise = dyn Fn(&[u8], u64, u64) -> Vec<u8>;

/// After how many of 220 rollbacks something is signed twice.
fn found_by(floor: &Raise) -> usize {
    let lives = (1..=220).filter(|seed| {
        let mut life = Life::new(*seed);
        life.runs(4);
        let (copy, seen) = life.copy(Rollback::Clone);
        // The original was in a later round of the height that was being decided.
        let message = (life.height, 1, 3, 9);
        assert!(life.signer.signs(message));
        life.signed.push(message);
        doubles(&floor(&copy, life.committed(), seen), &life) > 0
    });
    lives.count()
}

#[test]
fn a_file_keeps_its_form_and_all_that_is_not_of_the_last_signature() {
    let cases = [
        (
            "{\n  \"height\": \"7\",\n  \"round\": 0,\n  \"step\": 2,\n  \"signature\": \"c2ln\",\n  \
             \"signbytes\": \"AB\",\n  \"note\": [1]\n}\n",
            "{\n  \"height\": \"101\",\n  \"round\": 2147483647,\n  \"step\": 3,\n  \"note\": [\n    1\n  ]\n}\n",
        ),
        (r#"{"step":0,"height":7}"#, r#"{"step":3,"height":101,"round":2147483647}"#),
        (
            r#"{"height":"7","round":"1","step":2,"block_id":{"hash":"AB"}}"#,
            r#"{"height":"101","round":"2147483647","step":3,"block_id":null}"#,
        ),
    ];
    for (before, after) in cases {
        for signer in [COMETBFT, TMKMS] {
            let stated = stated(Basis::Latest, &[("height", 100)]);
            let raised = signer.raise(before.as_bytes(), &stated, &BTreeMap::new()).unwrap();
            let content = raised.content.unwrap();
            assert_eq!(String::from_utf8(content.clone()).unwrap(), after);
            assert_eq!(raised.to, numbers(&[("height", 101), ("round", ROUND_LAST), ("step", 3)]));
            let again = signer.raise(&content, &stated, &BTreeMap::new()).unwrap();
            assert_eq!((again.content, again.from), (None, raised.to));
        }
    }
}

fn refused(file: &str, stated: &Stated, seen: u64) -> Error {
    COMETBFT.raise(file.as_bytes(), stated, &numbers(&[("height", seen)])).unwrap_err()
}

#[test]
fn no_floor_lies_below_what_is_known() {
    let file = r#"{"height":"50","round":2,"step":3}"#;
    for (basis, given, seen) in [
        (Basis::Latest, &[("height", 48)][..], 0),
        (Basis::Latest, &[("height", 98)], 100),
        (Basis::Accepted, &[("height", 99), ("round", 9)], 100),
        (Basis::Accepted, &[("height", 50), ("round", 1)], 0),
    ] {
        let error = refused(file, &stated(basis, given), seen);
        assert_eq!(error.kind(), Kind::Input, "{given:?}: {error}");
        assert!(error.message().contains("was reached"), "{error}");
    }
    // The height that is being decided may have been signed already.
    let stated = stated(Basis::Latest, &[("height", 99)]);
    let raised = COMETBFT.raise(file.as_bytes(), &stated, &numbers(&[("height", 100)])).unwrap();
    assert_eq!(raised.to["height"], 100);
}

#[test]
fn what_has_to_be_stated_is_asked_for_and_nothing_else_is_taken() {
    let file = r#"{"height":"50","round":2,"step":3}"#;
    for (basis, given, kind) in [
        (Basis::Latest, &[][..], Kind::Quarantined),
        (Basis::Accepted, &[("height", 60)], Kind::Quarantined),
        (Basis::Accepted, &[], Kind::Quarantined),
        (Basis::Latest, &[("height", 60), ("round", 1)], Kind::Input),
        (Basis::NewChain, &[("round", 1)], Kind::Input),
        (Basis::Latest, &[("height", u64::MAX)], Kind::Input),
        (Basis::Latest, &[("height", i64::MAX as u64)], Kind::Input),
        (Basis::Accepted, &[("height", 60), ("round", 1 << 31)], Kind::Input),
    ] {
        assert_eq!(refused(file, &stated(basis, given), 0).kind(), kind, "{basis:?} {given:?}");
    }
}

#[test]
fn an_accepted_floor_is_taken_as_it_is() {
    let file = r#"{"height":"50","round":2,"step":2,"signature":"c2ln","signbytes":"AB"}"#;
    let accepted = stated(Basis::Accepted, &[("height", 50), ("round", 2)]);
    let raised = COMETBFT.raise(file.as_bytes(), &accepted, &BTreeMap::new()).unwrap();
    assert_eq!(raised.to, numbers(&[("height", 50), ("round", 2), ("step", 3)]));
    // What was signed last is repeated where the floor is that.
    let file = r#"{"height":"50","round":2,"step":3,"signature":"c2ln","signbytes":"AB"}"#;
    assert_eq!(COMETBFT.raise(file.as_bytes(), &accepted, &BTreeMap::new()).unwrap().content, None);
}

#[test]
fn a_new_chain_begins_anew() {
    let file = r#"{"height":"50","round":2,"step":3,"signature":"c2ln","signbytes":"AB"}"#;
    let begin = |given: &[(&str, u64)]| {
        let raised = COMETBFT.raise(
            file.as_bytes(),
            &stated(Basis::NewChain, given),
            &numbers(&[("height", 100)]),
        );
        String::from_utf8(raised.unwrap().content.unwrap()).unwrap()
    };
    assert_eq!(begin(&[]), r#"{"height":"0","round":0,"step":0}"#);
    assert_eq!(begin(&[("height", 3)]), r#"{"height":"4","round":2147483647,"step":3}"#);
}

#[test]
fn a_file_that_no_signer_writes_is_refused() {
    let deep = format!("{{\"height\":\"1\",\"a\":{}", "[".repeat(100_000));
    for file in [
        "",
        "[]",
        "null",
        "{}",
        "{\"height\":\"-1\"}",
        "{\"height\":\"many\"}",
        "{\"height\":null}",
        "{\"height\":\"1\",\"height\":\"2\"}",
        "{\"height\":\"1\",\"Height\":\"2\"}",
        "{\"height\":\"9223372036854775808\"}",
        "{\"height\":\"1\",\"round\":2147483648}",
        "{\"height\":\"1\",\"step\":-1}",
        "{\"height\":\"1\",\"step\":300}",
        "{\"height\":1e400}",
        &deep,
    ] {
        let error = refused(file, &stated(Basis::Latest, &[("height", 60)]), 0);
        assert_eq!(error.kind(), Kind::Corrupt, "{file:.60}: {error}");
    }
}
