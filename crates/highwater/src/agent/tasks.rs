//! What the operations of an agent do.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

use crate::backup;
use crate::control::{Control, Event};
use crate::error::{Error, Kind, Result};
use crate::vault::forget::{self, ForgetOptions};
use crate::vault::prune::{self, PruneOptions};
use crate::vault::{self, CheckOptions, Level, Selector, Vault};
use crate::{durable, restore};

use super::operation::{Done, Task};
use super::panic::panicked;
use super::when::Chore;
use super::worker::Worker;

impl Worker {
    /// Carries a task out. A panic is an error like any other.
    pub(super) fn carry_out(&self, task: Task, control: &Control) -> Result<Done> {
        let work = std::panic::AssertUnwindSafe(|| match task {
            Task::Backup => self.back_up(control),
            Task::Check => control.work(|| self.check(false, control)),
            Task::CheckData => control.work(|| self.check(true, control)),
            Task::RestoreTest => control.work(|| self.restore_test(control)),
        });
        std::panic::catch_unwind(work).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
    }

    fn back_up(&self, control: &Control) -> Result<Done> {
        restore::refuse_interrupted(&self.dir)?;
        let mut options = (self.options)()?;
        if let Some(engines) = &self.engines {
            options.discover.engines = engines.clone();
        }
        options.node = Some(self.node.clone());
        let mut warnings = Vec::new();
        if self.newest_failed() {
            options.full = true;
            warnings.push(
                "the previous snapshot failed its restore test, so everything was stored anew"
                    .to_owned(),
            );
        }
        let vault = self.vault.get()?;
        let report = backup::run(&vault, &self.dir, &self.actor, &options, control)?;
        warnings.extend(report.warnings);
        control.report(Event::Stage { name: "retention", bytes_total: 0 });
        // What older snapshots weigh is not this one's progress.
        let mut silent = Control::new(control.env.clone());
        silent.cancel = control.cancel.clone();
        silent.priority = control.priority;
        // The backup stands, whatever becomes of older ones.
        match self.retain(&silent) {
            Err(error) if error.kind() != Kind::Conflict => {
                warnings
                    .push(format!("the retention policy was not applied yet: {}", error.summary()));
            }
            _ => {}
        }
        count_backup(report.bytes_read, report.bytes_stored, report.duration);
        Ok(Done { snapshot: Some(report.snapshot), warnings })
    }

    /// Applies the retention policy; where it can't be, it is tried again later. Another agent may be
    /// at it in the same vault: a conflict that is not a failure.
    pub(super) fn retain(&self, control: &Control) -> Result<()> {
        let apply = || self.vault.get().and_then(|vault| self.forget_and_prune(&vault, control));
        let work = || control.work(apply);
        let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        self.note_chore(Chore::Retention, applied.as_ref().err());
        applied
    }

    /// Forgets what the policy does not keep; deletes what was forgotten long enough ago.
    fn forget_and_prune(&self, vault: &Vault, control: &Control) -> Result<()> {
        let retention = self.shared().retention.clone();
        if retention.is_empty() {
            return Ok(());
        }
        let node = Some(self.node.clone());
        let options = ForgetOptions { node, retention, ..ForgetOptions::default() };
        let plan = forget::plan(vault, &options)?;
        if plan.nodes.iter().any(|node| !node.forget.is_empty()) {
            forget::run(vault, &self.actor, &plan, control)?;
        }
        if !self.vault.prune_is_due(self.env.monotonic()) {
            return Ok(());
        }
        let plan = prune::plan(vault, &self.actor, &PruneOptions::default(), control)?;
        prune::run(vault, &self.actor, &plan, control)?;
        self.vault.pruned(self.env.monotonic());
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
                    .with_entry(&fault.entry))
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
        let engines = self.engines.clone().unwrap_or_default();
        durable::remove_tree(&self.scratch)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.scratch);
        made.map_err(|error| {
            Error::io("making room for the test", error)
                .with_entry(self.scratch.display().to_string())
        })?;
        let tested = restore::test(&vault, &selector, &self.scratch, &engines, control);
        let removed = durable::remove_tree(&self.scratch);
        let warnings = tested?.warnings;
        removed?;
        Ok(Done { snapshot: Some(snapshot), warnings })
    }

    /// Removes what a restore test of a process that was killed has left.
    pub(super) fn collect_scratch(&self) {
        if let Err(error) = durable::remove_tree(&self.scratch) {
            self.shared().trouble.scratch = Some(error.summary());
        }
    }
}

fn count_backup(read: u64, stored: u64, duration: std::time::Duration) {
    metrics::counter!("highwater_backup_bytes_total", "kind" => "read").increment(read);
    metrics::counter!("highwater_backup_bytes_total", "kind" => "stored").increment(stored);
    metrics::histogram!("highwater_backup_duration_seconds").record(duration);
}
