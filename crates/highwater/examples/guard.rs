//! A guarded node comes back from a backup, and does not run before its operator lets it: `cargo run --example
//! guard`. All of it happens in a temporary directory.
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use highwater::guard::{self, GuardKind, Which};
use highwater::{Actor, Backup, Control, Kind, Restore, Secret, Vault};
use rusqlite::Connection;

type Outcome<T> = Result<T, Box<dyn Error>>;

const OPERATOR: &str = "operator@node-1";

fn main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let node = dir.path().join("node");
    let location = dir.path().join("vault").display().to_string().parse()?;
    let secret = Secret::create_key_file(&dir.path().join("vault.key"))?;
    let vault = Vault::create(&location, &secret)?;
    let control = vault.control();

    fs::create_dir(&node)?;
    println!("the node has made {} payments", start(&node, &control)?);

    // Its peers punish an old state, so no copy of its databases may be opened unasked.
    let backup = Backup::of(&node).with(|options| options.guard = Some(GuardKind::Databases));
    backup.run(&vault, &Actor::new(dir.path().join("state"), OPERATOR))?;
    // What happens from here on, the snapshot does not know.
    println!("the node has made {} payments", start(&node, &control)?);

    fs::remove_dir_all(&node)?;
    let report = Restore::latest("node".parse()?).to(&node).run(&vault)?;
    println!("restored, held back: {}", report.quarantined);

    match start(&node, &control) {
        Err(refused) => println!("the node does not start: {refused}"),
        Ok(_) => return Err("the node runs on a state that may be old".into()),
    }
    for held in guard::list(&node)? {
        println!("held back: {}: {}", held.id, held.reason);
    }

    // The operator has found out that nothing is lost by it, and says why: this is recorded.
    let why = "all channels were closed by their peers";
    guard::release(&node, &Which::All, why, OPERATOR, &control)?;
    println!("released; the node has made {} payments", start(&node, &control)?);
    Ok(())
}

/// A start of the node: it asks whether it may, before it opens anything, then makes a payment.
fn start(node: &Path, control: &Control) -> Outcome<i64> {
    let asked = guard::wait_to_start(node, Some(Duration::ZERO), control);
    asked.map_err(|error| match error.kind() {
        Kind::Quarantined => format!("{error}; {}", error.hint().unwrap_or_default()),
        _ => error.to_string(),
    })?;
    let database = Connection::open(node.join("payments.sqlite"))?;
    let rows = "CREATE TABLE IF NOT EXISTS payment (n INTEGER); INSERT INTO payment VALUES (1)";
    database.execute_batch(rows)?;
    Ok(database.query_row("SELECT count(*) FROM payment", [], |row| row.get(0))?)
}
