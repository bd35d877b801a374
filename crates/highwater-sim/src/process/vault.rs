//! What a node does with a vault: back up while it runs, keep its witness there, be restored with its
//! channels marked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, channel};

use highwater::backup::{self, BackupOptions};
use highwater::engine::HoldHook;
use highwater::guard::{Adapter, Released, VaultWitness, Witness};
use highwater::ids::{GuardKind, NodeName};
use highwater::restore::{self, Outcome, RestoreOptions, RollbackOptions};
use highwater::vault::{Actor, Location, Secret, Selector, Vault};
use highwater::{Control, Env, Error, Result};
use serde_json::{Value, json};

use super::run::Event;
use super::{RestoreArgs, VaultArgs};
use crate::adapter::NodeAdapter;

/// Where a running node is backed up to.
pub(super) struct Backups {
    pub(super) vault: Arc<Vault>,
    pub(super) node: NodeName,
    pub(super) dir: PathBuf,
}

impl Backups {
    /// Backs the node up while it runs. `events` leads to who owns its database, which holds still
    /// between the marks that it tells and the end of the capture.
    pub(super) fn run(&self, events: &SyncSender<Event>, control: &Control) -> Result<Value> {
        let events = events.clone();
        let hold: HoldHook = Arc::new(move |capture| {
            let (marks, told) = channel();
            let (finished, end) = channel::<()>();
            events.send(Event::Hold { marks, end }).map_err(|_| "the node stops")?;
            capture(told.recv()?);
            // Dropped, it lets the node go on.
            drop(finished);
            Ok(())
        });
        let mut options = BackupOptions::default();
        options.node = Some(self.node.clone());
        options.guard = Some(GuardKind::Channels);
        options.capture.hold = Some(hold);
        let actor = Actor { state_dir: beside(&self.dir)?, name: "channel-node".into() };
        let report = backup::run(&self.vault, &self.dir, &actor, &options, control)?;
        let marks: BTreeMap<&String, u64> =
            report.marks.iter().map(|(name, mark)| (name, mark.value)).collect();
        Ok(json!({ "snapshot": report.snapshot, "seq": report.seq, "marks": marks }))
    }
}

/// The state of who writes to the vault: beside the node directory, so that no backup holds it.
fn beside(dir: &Path) -> Result<PathBuf> {
    let mut name = dir
        .file_name()
        .ok_or_else(|| Error::input("the node directory has no name"))?
        .to_os_string();
    name.push(".state");
    Ok(dir.with_file_name(name))
}

/// Opens a vault.
pub(super) fn open(args: &VaultArgs, env: &Env) -> Result<Vault> {
    let location = Location::Local(
        std::path::absolute(&args.vault).map_err(|error| Error::io("the vault", error))?,
    );
    Vault::open_with(&location, &Secret::from_key_file(&args.key_file)?, env)
}

/// Takes the witness of a node over.
pub(super) fn witness(vault: &Arc<Vault>, node: &NodeName, env: &Env) -> Result<Witness> {
    let store = VaultWitness::new(Arc::clone(vault), node.clone())?;
    let holder = format!("channel-node, process {}", std::process::id());
    Witness::take_over(Arc::new(store), node.clone(), holder, env)
}

/// Restores a node directory.
pub(super) fn restore(args: RestoreArgs, control: &Control) -> Result<Value> {
    let vault = open(&args.vault, &control.env)?;
    let adapter: Arc<dyn Adapter> = Arc::new(NodeAdapter);
    let original_gone = args.original_gone.map(|reason| Released {
        reason,
        by: "channel-node restore".into(),
        time: control.env.now(),
    });
    let mut options = RestoreOptions::default();
    options.selector = Selector { snapshot: args.snapshot, node: args.name, ..Selector::default() };
    options.force = args.force;
    options.adapter = Some(adapter);
    options.original_gone = original_gone;
    let plan = restore::plan(&vault, &args.dir, &options)?;
    let report = restore::run(&vault, &plan, &options, control)?;
    Ok(json!({
        "snapshot": report.snapshot,
        "quarantined": report.quarantined,
        "warnings": report.warnings,
    }))
}

/// Undoes the last restore.
pub(super) fn rollback(dir: &Path, control: &Control) -> Result<Value> {
    let options = RollbackOptions::default().adapter(Some(Arc::new(NodeAdapter)));
    let node = match restore::rollback_by(dir, &options, control)? {
        Outcome::Nothing => "nothing",
        Outcome::Old => "old",
        Outcome::New => "new",
    };
    Ok(json!({ "node": node }))
}
