//! A backup as most callers ask for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::engine::CheckpointHook;
use crate::error::Result;
use crate::ids::NodeName;
use crate::vault::{Actor, Effort, Vault};

use super::{BackupOptions, BackupReport};

/// A backup of a node directory, in the making.
///
/// ```
/// use highwater::{Actor, Backup, Secret, Vault};
///
/// # let scratch = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(scratch.path()).unwrap();
/// std::fs::create_dir("node").unwrap();
/// std::fs::write("node/state", "seven channels").unwrap();
///
/// let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
/// let vault = Vault::create(&"vault".parse()?, &secret)?;
/// let actor = Actor::new("state", "operator@node-1");
/// let report = Backup::of("node").mark("height", 7).run(&vault, &actor)?;
/// assert_eq!(report.changes.new, 1);
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is backed up until it is run"]
pub struct Backup {
    dir: PathBuf,
    options: BackupOptions,
    control: Option<Control>,
}

impl Backup {
    /// Of the node directory `dir`, by the name of that directory.
    pub fn of(dir: impl Into<PathBuf>) -> Backup {
        Backup { dir: dir.into(), options: BackupOptions::default(), control: None }
    }

    /// Under this name in the vault.
    pub fn node(mut self, name: NodeName) -> Backup {
        self.options.node = Some(name);
        self
    }

    /// Records a mark that the caller claims: a counter of the node that only rises.
    pub fn mark(mut self, name: impl Into<String>, value: u64) -> Backup {
        self.options.marks.insert(name.into(), value);
        self
    }

    /// Records a tag.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Backup {
        self.options.tags.insert(name.into(), value.into());
        self
    }

    /// Compresses what is stored so hard.
    pub fn effort(mut self, effort: Effort) -> Backup {
        self.options.effort = effort;
        self
    }

    /// Captures the RocksDB of the part `name` by a checkpoint that the node makes of it, in the directory that
    /// `hook` is given: it does not exist yet, and is removed afterwards.
    pub fn checkpoint<F>(mut self, name: impl Into<String>, hook: F) -> Backup
    where
        F: Fn(&Path) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        let hook: CheckpointHook = Arc::new(hook);
        self.options.capture.hooks.push((name.into(), hook));
        self
    }

    /// Changes what has no method here.
    pub fn with(mut self, change: impl FnOnce(&mut BackupOptions)) -> Backup {
        change(&mut self.options);
        self
    }

    /// Reports its progress through this control, and can be cancelled by it. Without one, nobody is told, and the
    /// environment is the vault's.
    pub fn control(mut self, control: Control) -> Backup {
        self.control = Some(control);
        self
    }

    /// Captures the node, and commits a snapshot.
    ///
    /// # Errors
    /// Those of [`run`](super::run).
    pub fn run(&self, vault: &Vault, actor: &Actor) -> Result<BackupReport> {
        let control = self.control.clone().unwrap_or_else(|| vault.control());
        super::run(vault, &self.dir, actor, &self.options, &control)
    }
}
