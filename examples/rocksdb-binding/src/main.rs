//! A node whose RocksDB is opened by a binding that Highwater does not know, and Highwater's agent
//! inside it: `cargo run -- DIR [--once]`. DIR gets the node, a vault and its key. With `--once` the
//! node writes, is backed up, and the program ends; else it goes on until its standard input does.

use std::error::Error;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use highwater::Env;
use highwater::agent::{Agent, Cadence, OperationState, Rules, Task};
use highwater::backup::BackupOptions;
use highwater::engine::CheckpointHook;
use highwater::vault::{CreateOptions, Actor, Location, Secret, Vault};
use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    let once = std::env::args().any(|argument| argument == "--once");
    let node = dir.join("node");
    std::fs::create_dir_all(&node)?;
    let store = Arc::new(DB::open_default(node.join("store"))?);
    let (vault, actor) = vault(&dir)?;
    let agent = agent(&node, Arc::clone(&store), vault, actor)?;

    store.put("height", "7")?;
    agent.changed();
    if once {
        let done = agent.wait(agent.begin(Task::Backup)?.id)?;
        println!("backup {}: {} bytes", done.state.name(), done.bytes_done);
        if done.state != OperationState::Completed {
            return Err(done.reason.unwrap_or_default().into());
        }
    } else {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    agent.stop();
    Ok(())
}

/// All that the node does for its backups.
fn agent(node: &Path, store: Arc<DB>, vault: Vault, actor: Actor) -> Outcome<Agent> {
    let hook: CheckpointHook =
        Arc::new(move |target| Ok(Checkpoint::new(&store)?.create_checkpoint(target)?));
    let mut options = BackupOptions::default();
    options.capture.hooks.push(("store".to_owned(), hook));
    let every = Cadence::Every(Duration::from_secs(60 * 60));
    Ok(Agent::builder(node, vault, actor)
        .options(options)
        .rules(Rules::default().backup(Some(every)))
        .start()?)
}

/// The vault beside the node, made at the first start. A real one lies on another machine.
fn vault(dir: &Path) -> Outcome<(Vault, Actor)> {
    let (env, key, path) = (Env::system(), dir.join("vault.key"), dir.join("vault"));
    let location = Location::Local(std::path::absolute(&path)?);
    let vault = if path.exists() {
        Vault::open_with(&location, &Secret::from_key_file(&key)?, &env)?
    } else {
        Vault::create_with(&location, &Secret::create_key_file(&key)?, &CreateOptions::default(), &env)?.vault
    };
    Ok((vault, Actor { state_dir: dir.join("state"), name: "rocksdb-binding".to_owned() }))
}
