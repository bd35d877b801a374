//! A node with two databases that must be of one instant, with Highwater's agent inside: `cargo run
//! --example agent-two-databases -- DIR [--once]`. DIR gets the node, a vault and its key. The node goes
//! on writing while it is backed up; the hold hook keeps its writer still for the instant of the
//! barrier, and tells the height that both databases have there. With `--once` the program backs up,
//! restores what it has, compares the two, and ends; else it goes on until its input does.
#![allow(clippy::print_stdout, reason = "a program that tells what it does")]

use std::error::Error;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater::agent::{Agent, Cadence, OperationState, Rules, Task, VaultSource};
use highwater::backup::BackupOptions;
use highwater::engine::HoldHook;
use highwater::restore::{self, RestoreOptions};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Selector, Vault};
use highwater::{Control, Env};
use rusqlite::Connection;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A node whose blocks and whose state are at one height, but for the moment between two writes.
struct Node {
    blocks: Connection,
    state: Connection,
    height: u64,
}

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let once = std::env::args().any(|argument| argument == "--once");
    let home = dir.join("node");
    std::fs::create_dir_all(&home)?;
    let node = Arc::new(Mutex::new(Node::open(&home)?));
    let (vault, actor) = vault(&dir)?;
    let vault = VaultSource::from(vault);

    // All that the node does for its backups.
    let held = Arc::clone(&node);
    let hold: HoldHook = Arc::new(move |capture| {
        let node = held.lock().unwrap_or_else(PoisonError::into_inner);
        capture([("height".to_owned(), node.height)].into());
        Ok(())
    });
    let mut options = BackupOptions::default();
    options.capture.hold = Some(hold);
    let every = Cadence::Every(Duration::from_secs(6 * 60 * 60));
    let agent = Agent::builder(&home, vault.clone(), actor)
        .options(options)
        .rules(Rules::default().backup(Some(every)))
        .start()?;

    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&node, &ended));
        let outcome = if once {
            run(&agent, Task::Backup)
        } else {
            std::io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(Into::into)
        };
        ended.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer has panicked")??;
        outcome
    })?;
    let marked = agent.status().snapshots.unwrap_or_default().pop();
    agent.stop();
    match marked {
        Some(snapshot) if once => compare(&dir, &vault, snapshot.marks["height"]),
        _ => Ok(()),
    }
}

impl Node {
    fn open(home: &Path) -> Outcome<Node> {
        let open = |name: &str| {
            let database = Connection::open(home.join(name))?;
            let tables = "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (height INT)";
            database.execute_batch(tables)?;
            Outcome::Ok(database)
        };
        let (blocks, state) = (open("blocks.sqlite")?, open("state.sqlite")?);
        let height = height(&blocks)?;
        Ok(Node { blocks, state, height })
    }

    fn step(&mut self) -> Outcome<()> {
        let next = self.height + 1;
        for database in [&self.blocks, &self.state] {
            database.execute("INSERT INTO t VALUES (?)", [i64::try_from(next)?])?;
        }
        self.height = next;
        Ok(())
    }
}

/// What the node does, whatever its backups do.
fn write(node: &Mutex<Node>, ended: &AtomicBool) -> Outcome<()> {
    while !ended.load(Ordering::Relaxed) {
        node.lock().unwrap_or_else(PoisonError::into_inner).step()?;
        std::thread::yield_now();
    }
    Ok(())
}

fn height(database: &Connection) -> Outcome<u64> {
    let height: i64 =
        database.query_row("SELECT coalesce(max(height), 0) FROM t", [], |row| row.get(0))?;
    Ok(u64::try_from(height)?)
}

/// Restores the snapshot, and sees that both databases are at the height that it was marked with.
fn compare(dir: &Path, vault: &VaultSource, marked: u64) -> Outcome<()> {
    let target = dir.join("restored");
    let selector = Selector { snapshot: "latest".to_owned(), ..Selector::default() };
    let mut options = RestoreOptions::default();
    options.selector = selector;
    options.force = true;
    let vault = vault.get()?;
    let plan = restore::plan(&vault, &target, &options)?;
    restore::run(&vault, &plan, &options, &Control::new(Env::system()))?;
    for name in ["blocks.sqlite", "state.sqlite"] {
        let found = height(&Connection::open(target.join(name))?)?;
        println!("{name}: height {found} of {marked}");
        if found != marked {
            return Err("the databases are not of one instant".into());
        }
    }
    Ok(())
}

fn run(agent: &Agent, task: Task) -> Outcome<()> {
    let done = agent.wait(agent.begin(task)?.id)?;
    let snapshot = done.snapshot.map(|snapshot| snapshot.to_string()).unwrap_or_default();
    println!("{} {}: {} bytes {snapshot}", task.name(), done.state.name(), done.bytes_done);
    match done.state {
        OperationState::Completed => Ok(()),
        _ => Err(done.reason.unwrap_or_default().into()),
    }
}

/// The vault beside the node, made at the first start. A real one lies on another machine.
fn vault(dir: &Path) -> Outcome<(Vault, Actor)> {
    let (env, key, path) = (Env::system(), dir.join("vault.key"), dir.join("vault"));
    let location = Location::Local(std::path::absolute(&path)?);
    let vault = if path.exists() {
        Vault::open_with(&location, &Secret::from_key_file(&key)?, &env)?
    } else {
        Vault::create_with(
            &location,
            &Secret::create_key_file(&key)?,
            &CreateOptions::default(),
            &env,
        )?
        .vault
    };
    Ok((vault, Actor { state_dir: dir.join("state"), name: "agent-two-databases".to_owned() }))
}
