//! ev-node on Badger: states that Badger itself wrote, and the heights that it reads in them.
//!
//! `fixtures/ev-node` has one database at the end of each of three lives, which `src/badger/make-badger.go` made with
//! Badger 4.5.1 (`lives`): each was killed, and the next one made a table of its log. A log only grows, so an earlier
//! state is the same files with a log that ends earlier, and zeros behind. `HEIGHTS` tells where it can end, also
//! within a transaction, as after a power cut, and which height Badger then found.
//!
//! A node that comes back to a state goes on as the one that was recorded did: it writes the same blocks again, and
//! its log goes on behind the last whole transaction, where Badger would begin a new log.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::writers::{Marks, Writer};

const SIGNER: &str = "config/signer.json";
const DATABASE: &str = "data/evm-single";
const LIVES: usize = 3;
/// Badger makes a log so long beforehand: twice the size of a table in memory, which was 256 KiB here.
const LOG_BYTES: u64 = 2 * (256 << 10);
const LONGER: &str = "the recorded node has no more states: a longer one is made by make-badger.go";

/// Where the log ends, and what Badger reads then.
struct State {
    life: usize,
    end: usize,
    height: Option<u64>,
    /// It ends within a transaction, which does not count.
    torn: bool,
}

pub(crate) struct EvNode {
    /// The files of each life at its end, by their names.
    lives: Vec<BTreeMap<String, Vec<u8>>>,
    states: Vec<State>,
    at: usize,
    /// How many states of each life it came to: whole ones, and those that end within a transaction.
    came_to: [[usize; 2]; LIVES],
}

impl EvNode {
    pub(crate) fn new() -> EvNode {
        let mut node =
            EvNode { lives: Vec::new(), states: Vec::new(), at: 0, came_to: [[0; 2]; LIVES] };
        for life in 0..LIVES {
            let mut files = read(&recorded().join((life + 1).to_string()));
            let heights = String::from_utf8(files.remove("HEIGHTS").unwrap()).unwrap();
            node.lives.push(files);
            node.states.extend(heights.lines().map(|line| state(life, line)));
        }
        node
    }

    /// That it was in every life, whose databases differ, and that the power was cut.
    pub(crate) fn check_course(&self) {
        println!("ev-node, states of each life, whole and torn: {:?}", self.came_to);
        assert!(self.came_to.iter().all(|[whole, _]| *whole > 0));
        assert!(self.came_to.iter().any(|[_, torn]| *torn > 0));
    }

    /// The files of the state that it is in.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let State { life, end, .. } = self.states[self.at];
        let mut files = self.lives[life].clone();
        for (_, log) in files.iter_mut().filter(|(name, _)| name.ends_with(".mem")) {
            log.truncate(end);
            log.resize(LOG_BYTES as usize, 0);
        }
        files
    }

    /// Makes what stands in the directory the state that it is in; what has not changed is not touched.
    fn put(&self, dir: &Path) {
        let dir = dir.join(DATABASE);
        let (old, new) = (read(&dir), self.files());
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            fs::remove_file(dir.join(name)).unwrap();
        }
        for (name, content) in new.iter().filter(|(name, content)| old.get(*name) != Some(content))
        {
            fs::write(dir.join(name), content).unwrap();
        }
    }
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ev-node")
}

fn read(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect()
}

/// A line of `HEIGHTS`: `END absent` or `END height N`, and `torn` behind it.
fn state(life: usize, line: &str) -> State {
    let words: Vec<&str> = line.split(' ').collect();
    let height = (words[1] == "height").then(|| words[2].parse().unwrap());
    State { life, end: words[0].parse().unwrap(), height, torn: line.ends_with("torn") }
}

impl Writer for EvNode {
    fn kind(&self) -> &'static str {
        "ev-node"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &[SIGNER]
    }

    fn begin(&mut self, dir: &Path) {
        fs::create_dir_all(dir.join("config")).unwrap();
        fs::create_dir_all(dir.join(DATABASE)).unwrap();
        fs::write(dir.join(SIGNER), b"a key").unwrap();
        self.at = 0;
        self.put(dir);
    }

    /// The next transaction: a block, or what became of one. Now and then the power is cut within it.
    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        self.at += 1;
        if self.states.get(self.at).expect(LONGER).torn && dice.u64(..4) != 0 {
            self.at += 1;
        }
        let State { life, torn, .. } = self.states[self.at];
        self.came_to[life][usize::from(torn)] += 1;
        self.put(dir);
    }

    fn marks(&self) -> Marks {
        self.states[self.at]
            .height
            .map(|height| ("height".to_owned(), height))
            .into_iter()
            .collect()
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(&self.at).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        self.at = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        assert!(read(&dir.join(DATABASE)) == self.files(), "another state than {}", self.at);
        assert_eq!(fs::read(dir.join(SIGNER)).unwrap(), b"a key");
    }
}
