//! A restore as most callers ask for it.

use std::path::PathBuf;

use crate::control::Control;
use crate::error::Result;
use crate::ids::NodeName;
use crate::vault::{Selector, Vault};

use super::{RestoreOptions, RestorePlan, RestoreReport};

/// A restore of a snapshot, in the making.
///
/// ```
/// use highwater::{Actor, Backup, Restore, Secret, Vault};
///
/// # let scratch = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(scratch.path()).unwrap();
/// # std::fs::create_dir("node").unwrap();
/// # std::fs::write("node/state", "seven channels").unwrap();
/// # let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
/// # let vault = Vault::create(&"vault".parse()?, &secret)?;
/// # Backup::of("node").run(&vault, &Actor::new("state", "operator@node-1"))?;
/// let restore = Restore::latest("node".parse()?).to("copy");
/// let plan = restore.plan(&vault)?;
/// assert_eq!(plan.parts[0].files, 1);
/// let report = restore.run(&vault)?;
/// assert_eq!(std::fs::read(report.target.join("state")).unwrap(), b"seven channels");
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is restored until it is run"]
pub struct Restore {
    target: PathBuf,
    options: RestoreOptions,
    control: Option<Control>,
}

impl Restore {
    /// Of the newest snapshot of a node that passed its tests, into the directory of that name.
    pub fn latest(node: NodeName) -> Restore {
        let target = PathBuf::from(node.to_string());
        let selector =
            Selector { snapshot: "latest".to_owned(), node: Some(node), ..Selector::default() };
        Restore::by(selector, target)
    }

    /// Of the snapshot with this id, or with a unique prefix of it, into the directory `target`.
    pub fn snapshot(id: impl Into<String>, target: impl Into<PathBuf>) -> Restore {
        Restore::by(Selector { snapshot: id.into(), ..Selector::default() }, target)
    }

    /// Of the snapshot that a selector chooses, into the directory `target`.
    pub fn by(selector: Selector, target: impl Into<PathBuf>) -> Restore {
        let options = RestoreOptions { selector, ..RestoreOptions::default() };
        Restore { target: target.into(), options, control: None }
    }

    /// Into this node directory.
    pub fn to(mut self, target: impl Into<PathBuf>) -> Restore {
        self.target = target.into();
        self
    }

    /// In place of what the target holds, which is kept beside it for [`rollback`](super::rollback).
    pub fn over_existing(mut self) -> Restore {
        self.options.force = true;
        self
    }

    /// One part alone; the others stay as they are.
    pub fn part(mut self, name: impl Into<String>) -> Restore {
        self.options.part = Some(name.into());
        self
    }

    /// Changes what has no method here.
    pub fn with(mut self, change: impl FnOnce(&mut RestoreOptions)) -> Restore {
        change(&mut self.options);
        self
    }

    /// Reports its progress through this control, and can be cancelled by it. Without one, nobody is told, and the
    /// environment is the vault's.
    pub fn control(mut self, control: Control) -> Restore {
        self.control = Some(control);
        self
    }

    /// What it would do as things stand; changes nothing.
    ///
    /// # Errors
    /// Those of [`plan`](super::plan()).
    pub fn plan(&self, vault: &Vault) -> Result<RestorePlan> {
        super::plan(vault, &self.target, &self.options)
    }

    /// Restores: plans it and carries the plan out.
    ///
    /// # Errors
    /// Those of [`plan`](super::plan()) and [`run`](super::run).
    pub fn run(&self, vault: &Vault) -> Result<RestoreReport> {
        let control = self.control.clone().unwrap_or_else(|| vault.control());
        super::run(vault, &self.plan(vault)?, &self.options, &control)
    }
}
