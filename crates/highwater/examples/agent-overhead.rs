//! What an attached agent costs a node that writes: `cargo run --release --example agent-overhead -- DIR
//! [SECONDS] [ROUNDS]`. A RocksDB takes batches of a hundred rows as fast as it can: without an agent,
//! with one that is idle, and with one that backs up without a break; each for some seconds, in turn, on
//! a database of its own. Prints a JSON document: rows a second, medians, and what is left of them.
#![allow(clippy::print_stdout, reason = "a program that tells what it measures")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::Env;
use highwater::agent::{Agent, Rules, State, Task};
use highwater::backup::BackupOptions;
use highwater::engine::CheckpointHook;
use highwater::vault::{Actor, Location, Secret, Vault};
use rust_rocksdb::checkpoint::Checkpoint;
use rust_rocksdb::{DB, WriteBatch};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Rows of a batch, and bytes of a row.
const BATCH: u64 = 100;
const VALUE_BYTES: usize = 400;
/// Rows that are there before anything is measured.
const FIRST: u64 = 500_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Idle,
    Backups,
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("give a directory")?);
    let number = |argument: Option<std::ffi::OsString>, usual: u64| -> Outcome<u64> {
        match argument.map(|text| text.to_string_lossy().parse()) {
            None => Ok(usual),
            Some(number) => Ok(number?),
        }
    };
    let seconds = number(arguments.next(), 10)?;
    let rounds = number(arguments.next(), 3)?;
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    let mut backups = 0;
    for round in 0..rounds {
        for (place, beside) in
            [Beside::Nothing, Beside::Idle, Beside::Backups].into_iter().enumerate()
        {
            let dir = dir.join(format!("{round}-{place}"));
            let (rate, made) = measure(&dir, beside, Duration::from_secs(seconds))?;
            std::fs::remove_dir_all(&dir)?;
            found[place].push(rate);
            backups += made;
        }
    }
    let [alone, idle, busy] = found.map(median);
    println!(
        "{}",
        json!({
            "seconds": seconds, "rounds": rounds, "backups": backups,
            "rows_per_second": {"alone": alone, "idle_agent": idle, "during_backups": busy},
            "lost_percent": {
                "idle_agent": 100.0 - 100.0 * idle / alone,
                "during_backups": 100.0 - 100.0 * busy / alone,
            },
        })
    );
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// Rows a second, and how many backups were made meanwhile.
fn measure(dir: &Path, beside: Beside, time: Duration) -> Outcome<(f64, u64)> {
    let node = dir.join("node");
    std::fs::create_dir_all(&node)?;
    let store = Arc::new(DB::open_default(node.join("store"))?);
    let mut next = 0;
    while next < FIRST {
        write(&store, &mut next)?;
    }
    store.flush()?;
    let agent = match beside {
        Beside::Nothing => None,
        Beside::Idle | Beside::Backups => Some(agent(dir, &node, &store)?),
    };
    if let Some(agent) = &agent {
        // The first backup takes all of it; it is no part of what is measured.
        agent.wait(agent.begin(Task::Backup)?.id)?;
    }
    let over = AtomicBool::new(false);
    let (rate, backups) = std::thread::scope(|scope| {
        let backing_up = scope.spawn(|| -> Outcome<u64> {
            let mut made = 0;
            while let (Some(agent), Beside::Backups, false) =
                (&agent, beside, over.load(Ordering::Relaxed))
            {
                let done = agent.wait(agent.begin(Task::Backup)?.id)?;
                match done.state {
                    State::Completed => made += 1,
                    _ => return Err(done.reason.unwrap_or_default().into()),
                }
            }
            Ok(made)
        });
        let env = Env::system();
        let (begin, first) = (env.monotonic(), next);
        let mut written = Ok(());
        while env.monotonic() - begin < time && written.is_ok() {
            written = write(&store, &mut next);
        }
        let took = env.monotonic() - begin;
        let rate = (next - first) as f64 / took.as_secs_f64();
        over.store(true, Ordering::Relaxed);
        let backups = backing_up.join().unwrap_or_else(|_| Err("a panic".into()))?;
        written.map(|()| (rate, backups))
    })?;
    if let Some(agent) = agent {
        agent.stop();
    }
    Ok((rate, backups))
}

/// One batch, at keys that are spread over all of them.
fn write(store: &DB, next: &mut u64) -> Outcome<()> {
    let mut batch = WriteBatch::default();
    for row in *next..*next + BATCH {
        let key = row.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let mut value = [0; VALUE_BYTES];
        blake3::Hasher::new().update(&key).finalize_xof().fill(&mut value);
        batch.put(key, value);
    }
    store.write(&batch)?;
    *next += BATCH;
    Ok(())
}

fn agent(dir: &Path, node: &Path, store: &Arc<DB>) -> Outcome<Agent> {
    let env = Env::system();
    let secret = Secret::create_key_file(&dir.join("vault.key"))?;
    let location = Location::Local(std::path::absolute(dir.join("vault"))?);
    let vault = Vault::create(&location, &secret, false, &env)?.vault;
    let store = Arc::clone(store);
    let hook: CheckpointHook =
        Arc::new(move |target| Ok(Checkpoint::new(&store)?.create_checkpoint(target)?));
    let mut options = BackupOptions::default();
    options.capture.hooks.push(("store".to_owned(), hook));
    let actor = Actor { state_dir: dir.join("state"), name: "agent-overhead".to_owned() };
    let rules = Rules { first_after: None, ..Rules::default() };
    Ok(Agent::builder(node, vault, actor).options(options).rules(rules).start()?)
}
