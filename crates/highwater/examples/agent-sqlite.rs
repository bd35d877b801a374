//! A node that keeps its state in SQLite, with Highwater's agent inside: `cargo run --example
//! agent-sqlite -- DIR [--once]`. DIR gets the node, a vault and its key. With `--once` the node
//! writes, is backed up and tested, and the program ends; else it goes on until its input does.
#![allow(clippy::print_stdout, reason = "a program that tells what it does")]

use std::error::Error;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::Env;
use highwater::agent::{Agent, Cadence, OperationState, Rules, Task};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Vault};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let once = std::env::args().any(|argument| argument == "--once");
    let node = dir.join("node");
    std::fs::create_dir_all(&node)?;
    let database = rusqlite::Connection::open(node.join("channels.sqlite"))?;
    let table =
        "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS channel (id TEXT, state INT)";
    database.execute_batch(table)?;
    let (vault, actor) = vault(&dir)?;

    // All that the node does for its backups.
    let agent = Agent::builder(&node, vault, actor)
        .rules(
            Rules::default()
                .backup(Some(Cadence::Every(Duration::from_secs(6 * 60 * 60))))
                .restore_test(Some(Duration::from_secs(7 * 24 * 60 * 60))),
        )
        .start()?;

    database.execute("INSERT INTO channel VALUES (hex(randomblob(16)), 1)", [])?;
    agent.changed(); // What must not be lost is backed up soon,
    if once {
        run(&agent, Task::Backup)?; // or at once.
        run(&agent, Task::RestoreTest)?;
    } else {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    agent.stop();
    Ok(())
}

fn run(agent: &Agent, task: Task) -> Outcome<()> {
    // What the agent is at by itself is not begun a second time: that would be a conflict.
    let begun = agent.begin(task).or_else(|_| {
        let active = agent.status().active;
        active.into_iter().find(|one| one.task == task).map_or_else(|| agent.begin(task), Ok)
    })?;
    let done = agent.wait(begun.id)?;
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
    Ok((vault, Actor { state_dir: dir.join("state"), name: "agent-sqlite".to_owned() }))
}
