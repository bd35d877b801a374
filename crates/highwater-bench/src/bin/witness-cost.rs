//! What a witness in a local vault costs: raises a second and their latency, beside appending the
//! same bytes to one file with an fsync each: `cargo run --release --package highwater-bench --bin
//! witness-cost -- DIR [SECONDS]`. DIR is made, and removed again; it says which disk is measured.
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater::Env;
use highwater::guard::{Move, Raised, VaultWitness, Witness};
use highwater::ids::NodeName;
use highwater_guard::Ours;

use highwater_bench::{Outcome, new_vault, number};

const CHANNELS: [usize; 2] = [10, 100];
const THREADS: [usize; 3] = [1, 8, 64];
const SECONDS: u64 = 2;

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let time = Duration::from_secs(number(2, SECONDS)?);
    fs::create_dir(&dir)?;
    println!("| channels | bytes | threads | raises/s | a put | p50 ms | p99 ms | p50 to bare |");
    println!("|---|---|---|---|---|---|---|---|");
    for channels in CHANNELS {
        let place = dir.join(format!("{channels}"));
        fs::create_dir(&place)?;
        let (witness, node) = (start(&place)?, Node::new(channels));
        // Every channel is in the record before anything is measured.
        (0..channels).try_for_each(|channel| node.step(&witness, channel).map(drop))?;
        let bytes = newest_bytes(&place)?;
        let bare = bare(&place, bytes, time)?;
        print_row(channels, bytes, "bare", &bare, time, None, &bare);
        for threads in THREADS {
            let before = witness.record().number;
            let raises = raises(&witness, &node, threads, time)?;
            let puts = (witness.record().number - before) as f64;
            let each = raises.len() as f64 / puts;
            print_row(channels, bytes, &threads.to_string(), &raises, time, Some(each), &bare);
        }
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn start(place: &Path) -> Outcome<Witness> {
    let node: NodeName = "node".parse()?;
    let store = VaultWitness::new(Arc::new(new_vault(place)?), node.clone())?;
    Ok(Witness::take_over(Arc::new(store), node, "witness-cost".to_owned(), &Env::system())?)
}

/// The channels of a node: one move of each at a time.
struct Node(Vec<Mutex<u64>>);

impl Node {
    fn new(channels: usize) -> Node {
        Node((0..channels).map(|_| Mutex::new(0)).collect())
    }

    /// Moves a channel on, and says how long the witness took for it.
    fn step(&self, witness: &Witness, channel: usize) -> Outcome<Duration> {
        let mut number = self.0[channel].lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let (signed, epoch) = (Some(*number), witness.epoch());
        let ours = Ours { signed, revoked: *number, received: *number, closing: false, epoch };
        // As long as the id of a channel is.
        let step = Move { channel: format!("{channel:064x}"), ours };
        let env = Env::system();
        let begin = env.monotonic();
        match witness.raise(&[step], &[])? {
            Raised::Durable => Ok(env.monotonic() - begin),
            Raised::SwitchedOff => Err("the witness is off".into()),
        }
    }
}

/// What all raises of some threads took, each on the channels in turn.
fn raises(
    witness: &Witness,
    node: &Node,
    threads: usize,
    time: Duration,
) -> Outcome<Vec<Duration>> {
    let end = Env::system().monotonic() + time;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut took = Vec::new();
                    let mut channel = thread % node.0.len();
                    while Env::system().monotonic() < end {
                        took.push(node.step(witness, channel)?);
                        channel = (channel + threads) % node.0.len();
                    }
                    Outcome::Ok(took)
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in running {
            all.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(all)
    })
}

/// What appending and syncing as many bytes takes.
fn bare(place: &Path, bytes: u64, time: Duration) -> Outcome<Vec<Duration>> {
    let env = Env::system();
    let mut file = File::create_new(place.join("bare"))?;
    let record = vec![7; usize::try_from(bytes)?];
    let mut took = Vec::new();
    let end = env.monotonic() + time;
    while env.monotonic() < end {
        let begin = env.monotonic();
        file.write_all(&record)?;
        file.sync_all()?;
        took.push(env.monotonic() - begin);
    }
    Ok(took)
}

/// The size of the newest record, as stored.
fn newest_bytes(place: &Path) -> Outcome<u64> {
    let mut records = Vec::new();
    for entry in fs::read_dir(place.join("vault/witness/node"))? {
        records.push(entry?.path());
    }
    Ok(fs::metadata(records.iter().max().ok_or("no record")?)?.len())
}

fn print_row(
    channels: usize,
    bytes: u64,
    threads: &str,
    took: &[Duration],
    time: Duration,
    each: Option<f64>,
    bare: &[Duration],
) {
    let at = |took: &[Duration], percent: usize| {
        let mut took = took.to_vec();
        took.sort();
        took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0
    };
    let (rate, p50, p99) = (took.len() as f64 / time.as_secs_f64(), at(took, 50), at(took, 99));
    let each = each.map_or(String::new(), |each| format!("{each:.1}"));
    let ratio = p50 / at(bare, 50);
    println!(
        "| {channels} | {bytes} | {threads} | {rate:.0} | {each} | {p50:.2} | {p99:.2} | {ratio:.1} |"
    );
}
