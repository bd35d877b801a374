//! lnd on bbolt, written and read by bbolt itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fastrand::Rng;

use crate::bbolt::{self, CommittedState, Program};
use crate::writers::{Channel, Channels, Marks, Writer, next};

const FILE: &str = "data/graph/mainnet/channel.db";

/// Its process is there for one step, as bbolt lets nobody else read meanwhile.
pub(crate) struct OnBbolt {
    program: Program,
    known: Known,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Known {
    steps: u64,
    channels: Channels,
}

impl Known {
    fn open(&self) -> BTreeMap<String, bbolt::Channel> {
        let as_read = |(id, channel): (&String, &Channel)| {
            let Channel { local, remote, pending, .. } = *channel;
            (id.clone(), bbolt::Channel { local, remote, signed: pending.then_some(remote + 1) })
        };
        self.channels.iter().filter(|(_, channel)| !channel.closed).map(as_read).collect()
    }

    /// That it is what bbolt finds.
    fn check(&self, state: &CommittedState) {
        let closed: BTreeSet<String> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.closed)
            .map(|(id, _)| id.clone())
            .collect();
        assert!(state.wrote.is_empty());
        let found = (state.steps, &state.channels, &state.closed);
        assert_eq!(found, (self.steps, &self.open(), &closed));
    }
}

/// A channel's funding output as people write it: the number that `write-lnd.go` is told is in it.
fn id(number: usize) -> String {
    format!("{}{number:08x}:{}", "ab".repeat(28), number % 3)
}

impl OnBbolt {
    pub(crate) fn new() -> OnBbolt {
        OnBbolt { program: Program::build(false), known: Known::default() }
    }
}

impl Writer for OnBbolt {
    fn kind(&self) -> &'static str {
        "lnd on bbolt"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &[FILE]
    }

    fn begin(&mut self, dir: &Path) {
        let file = dir.join(FILE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let (lnd, empty) = self.program.open(&file);
        self.known.check(&empty);
        lnd.quit();
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        let before = self.known.channels.clone();
        let it = next(&mut self.known.channels, dice, id);
        let number = usize::from_str_radix(&it[56..64], 16).unwrap();
        let now = self.known.channels[&it];
        let command = match before.get(&it) {
            None => format!("open {number}"),
            Some(_) if now.closed => format!("close {number}"),
            Some(old) if now.local > old.local => format!("step {number} local"),
            Some(old) if now.remote > old.remote => format!("step {number} remote"),
            Some(_) => format!("sign {number}"),
        };
        let (mut lnd, found) = self.program.open(&dir.join(FILE));
        assert_eq!(found.steps, self.known.steps);
        self.known.steps += 1;
        self.known.check(&lnd.ask(&command));
        lnd.quit();
    }

    fn marks(&self) -> Marks {
        bbolt::marks(&self.known.open())
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(&self.known).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        self.known = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        let (lnd, found) = self.program.open(&dir.join(FILE));
        self.known.check(&found);
        lnd.quit();
    }
}
