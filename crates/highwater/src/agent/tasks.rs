//! What the operations of an agent do.

use crate::backup;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::restore;
use crate::vault::forget::{self, ForgetOptions};
use crate::vault::prune::{self, PruneOptions};
use crate::vault::{self, CheckOptions, Level, Selector, Vault};

use super::operation::{Done, Task};
use super::worker::Worker;

impl Worker {
    /// Carries a task out. A panic is an error like any other.
    pub(super) fn carry_out(&self, task: Task, control: &Control) -> Result<Done> {
        let work = std::panic::AssertUnwindSafe(|| match task {
            Task::Backup => self.back_up(control),
            Task::Check => self.check(false, control),
            Task::CheckData => self.check(true, control),
            Task::RestoreTest => self.restore_test(control),
        });
        std::panic::catch_unwind(work).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Error::bug(format!("a panic: {}", text.unwrap_or_default())))
        })
    }

    fn back_up(&self, control: &Control) -> Result<Done> {
        restore::refuse_interrupted(&self.dir)?;
        let mut options = (self.options)()?;
        options.node.get_or_insert_with(|| self.node.clone());
        let vault = self.vault.get()?;
        let report = backup::run(&vault, &self.dir, &self.actor, &options, control)?;
        let mut warnings = report.warnings;
        // The backup stands, whatever becomes of older ones.
        if let Err(error) = self.retain(&vault, control) {
            warnings.push(format!("the retention policy was not applied: {error}"));
        }
        count_backup(&report.bytes_read, &report.bytes_stored, report.duration);
        Ok(Done { snapshot: Some(report.snapshot), warnings })
    }

    /// Forgets what the policy does not keep; deletes what was forgotten long enough ago.
    fn retain(&self, vault: &Vault, control: &Control) -> Result<()> {
        let retention = self.retention();
        if retention.is_empty() {
            return Ok(());
        }
        let node = Some(self.node.clone());
        let options = ForgetOptions { node, retention, ..ForgetOptions::default() };
        let plan = forget::plan(vault, &options)?;
        if plan.nodes.iter().any(|node| !node.forget.is_empty()) {
            forget::run(vault, &self.actor, &plan, control)?;
        }
        if !self.prune_is_due() {
            return Ok(());
        }
        let plan = prune::plan(vault, &self.actor, &PruneOptions::default(), control)?;
        prune::run(vault, &self.actor, &plan, control)?;
        self.pruned();
        Ok(())
    }

    fn check(&self, read_data: bool, control: &Control) -> Result<Done> {
        let vault = self.vault.get()?;
        let options = CheckOptions {
            node: Some(self.node.clone()),
            read_data,
            actor: Some(self.actor.clone()),
            ..CheckOptions::default()
        };
        let report = vault::check(&vault, &options, control)?;
        match report.errors.first() {
            None => Ok(Done { snapshot: None, warnings: report.warnings }),
            Some(fault) => {
                let count = report.errors.len();
                Err(Error::corrupt(format!("{} ({count} faults in all)", fault.problem))
                    .entry(&fault.entry))
            }
        }
    }

    fn restore_test(&self, control: &Control) -> Result<Done> {
        let vault = self.vault.get()?;
        let latest = Selector {
            snapshot: "latest".to_owned(),
            node: Some(self.node.clone()),
            require: Some(Level::Sealed),
            ..Selector::default()
        };
        let snapshot = vault.resolve(&latest)?.manifest.snapshot;
        let selector = Selector { snapshot: snapshot.to_string(), ..Selector::default() };
        let warnings = restore::test(&vault, &selector, &self.scratch, control)?;
        Ok(Done { snapshot: Some(snapshot), warnings })
    }
}

fn count_backup(read: &u64, stored: &u64, duration: std::time::Duration) {
    metrics::counter!("highwater_backup_bytes_total", "kind" => "read").increment(*read);
    metrics::counter!("highwater_backup_bytes_total", "kind" => "stored").increment(*stored);
    metrics::histogram!("highwater_backup_duration_seconds").record(duration);
}
