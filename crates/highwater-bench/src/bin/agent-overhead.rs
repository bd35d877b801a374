//! What an attached agent costs a node that writes: `cargo run --release --package highwater-bench
//! --bin agent-overhead -- DIR [SECONDS] [ROUNDS]`. A RocksDB takes batches of a hundred rows as fast as it can: without an agent,
//! with one that is idle, with one that backs up without a break, with as many checkpoints and nothing else (what no
//! backup of a RocksDB can do without), and with an agent that backs up at the node's own priority; each for some
//! seconds, in turn, on a database of its own. Prints a JSON document with the medians: rows a second, how much less
//! than without an agent, and the backups (or checkpoints) in all rounds.
#![allow(clippy::print_stdout, reason = "a program that tells what it measures")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use highwater::Env;
use highwater::agent::{Agent, OperationState, Priority, Rules, Task};
use highwater::backup::BackupOptions;
use highwater::engine::CheckpointHook;
use highwater::vault::Actor;
use rust_rocksdb::checkpoint::Checkpoint;
use rust_rocksdb::{DB, WriteBatch};
use serde_json::json;

use highwater_bench::{Outcome, new_vault, number};

/// Rows of a batch, and bytes of a row.
const BATCH: u64 = 100;
const VALUE_BYTES: usize = 400;
/// Rows that are there before anything is measured.
const FIRST: u64 = 500_000;

#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Idle,
    Backups(Priority),
    /// As many as there were backups before.
    Checkpoints,
}

/// What is measured in turn, by the names that it is printed under.
const ALL: [(&str, Beside); 5] = [
    ("nothing", Beside::Nothing),
    ("idle_agent", Beside::Idle),
    ("backups", Beside::Backups(Priority::Low)),
    ("checkpoints", Beside::Checkpoints),
    ("backups_at_normal_priority", Beside::Backups(Priority::Normal)),
];

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let (seconds, rounds) = (number(2, 10)?, number(3, 3)?);
    let mut found = ALL.map(|_| (Vec::new(), 0));
    let time = Duration::from_secs(seconds);
    for _ in 0..rounds {
        let mut before = 0;
        for ((name, beside), (rates, backups)) in ALL.into_iter().zip(&mut found) {
            let dir = dir.join(name);
            let (rate, made) = measure(&dir, beside, time, before)?;
            before = made;
            std::fs::remove_dir_all(&dir)?;
            rates.push(rate);
            *backups += made;
        }
    }
    let mut printed = json!({"seconds": seconds, "rounds": rounds});
    let mut alone = None;
    for ((name, _), (rates, backups)) in ALL.into_iter().zip(found) {
        let rate = median(rates);
        let alone = *alone.get_or_insert(rate);
        printed[name] = json!({
            "rows_per_second": rate, "lost_percent": 100.0 - 100.0 * rate / alone, "backups": backups,
        });
    }
    println!("{printed}");
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// Rows a second, and how many backups were made meanwhile. `before` are those that were made beside what was measured
/// last.
fn measure(dir: &Path, beside: Beside, time: Duration, before: u64) -> Outcome<(f64, u64)> {
    std::fs::create_dir_all(dir.join("node"))?;
    let store = Arc::new(DB::open_default(dir.join("node/store"))?);
    let mut next = 0;
    while next < FIRST {
        write(&store, &mut next)?;
    }
    store.flush()?;
    let agent = match beside {
        Beside::Nothing | Beside::Checkpoints => None,
        Beside::Idle => Some(agent(dir, &store, Priority::Low)?),
        Beside::Backups(priority) => Some(agent(dir, &store, priority)?),
    };
    if let Some(agent) = &agent {
        // The first backup takes all of it; it is no part of what is measured.
        agent.wait(agent.begin(Task::Backup)?.id)?;
    }
    let (stop, stopped) = mpsc::channel::<()>();
    let (rate, backups) = std::thread::scope(|scope| {
        let (agent, copied) = (&agent, &store);
        let backing_up = scope.spawn(move || -> Outcome<u64> {
            let mut made = 0;
            if let Beside::Checkpoints = beside {
                let pause = time / u32::try_from(before)?.max(1);
                while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    let copy = dir.join("checkpoint");
                    Checkpoint::new(copied)?.create_checkpoint(&copy)?;
                    std::fs::remove_dir_all(copy)?;
                    made += 1;
                }
            }
            while let (Some(agent), Beside::Backups(_), Err(TryRecvError::Empty)) =
                (agent, beside, stopped.try_recv())
            {
                let done = agent.wait(agent.begin(Task::Backup)?.id)?;
                match done.state {
                    OperationState::Completed => made += 1,
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
        drop(stop);
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

fn agent(dir: &Path, store: &Arc<DB>, priority: Priority) -> Outcome<Agent> {
    let store = Arc::clone(store);
    let hook: CheckpointHook =
        Arc::new(move |target| Ok(Checkpoint::new(&store)?.create_checkpoint(target)?));
    let mut options = BackupOptions::default();
    options.capture.hooks.push(("store".to_owned(), hook));
    let actor = Actor { state_dir: dir.join("state"), name: "agent-overhead".to_owned() };
    let rules = Rules::default().first_after(None);
    let agent = Agent::builder(dir.join("node"), new_vault(dir)?, actor);
    Ok(agent.options(options).rules(rules).priority(priority).start()?)
}
