//! What has happened: all of it as one hash, the last of it as text.

use std::collections::VecDeque;
use std::fmt;

use sha2::{Digest as _, Sha256};

/// How many events are kept as text.
const KEPT: usize = 2000;

#[derive(Default)]
pub(super) struct Trace {
    step: u64,
    hash: Sha256,
    last: VecDeque<String>,
}

impl Trace {
    pub(super) fn step(&mut self) {
        self.step += 1;
    }

    pub(super) fn event(&mut self, event: fmt::Arguments<'_>) {
        let line = format!("{:>5}  {event}", self.step);
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The hash of all events so far.
    pub(super) fn hash(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// The step, and the events before it.
    pub(super) fn story(&self) -> (u64, String) {
        let lines: Vec<String> = self.last.iter().map(|line| short(line)).collect();
        (self.step, lines.join("\n"))
    }
}

/// The first digits of each key, hash and signature are enough to tell them apart.
fn short(line: &str) -> String {
    let mut text = String::new();
    let mut digits = 0;
    for letter in line.chars() {
        digits = if letter.is_ascii_hexdigit() { digits + 1 } else { 0 };
        if digits <= 8 {
            text.push(letter);
        }
    }
    text
}
