//! How good a node stands, and what an operator should know: pure, from its status to sentences.

use std::time::Duration;

use highwater::agent::{Operation, State, Status};
use highwater::vault::Level;

use super::commands::{self, Server};
use super::format;

/// So many failures in a row are no accident any more.
const FAILURES_BAD: u32 = 3;

/// How much something matters; the worst one of a node is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    Good,
    Warn,
    Bad,
}

impl Tone {
    /// The name of its class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }
}

/// Something that an operator should know.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) tone: Tone,
    /// Two or three words, for the badge of the node.
    pub(super) word: &'static str,
    pub(super) text: String,
    /// What to do about it: a command to copy.
    pub(super) command: Option<String>,
}

/// What is to be known of a node, the worst first; nothing where all is well.
pub(super) fn findings(status: &Status, age_max: Duration, server: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |tone, word, text: String, command: Option<String>| {
        found.push(Finding { tone, word, text, command });
    };
    freshness(status, age_max, server, &mut add);
    failures(status, server, &mut add);
    if status.maintenance {
        let text = "A restore of the directory goes on, or was interrupted: nothing is backed up";
        add(Tone::Bad, "Restore unfinished", text.to_owned(), Some(commands::recover(status)));
    }
    match status.quarantined {
        Some(0) => {}
        Some(number) => {
            let what = format::count(number, "channel or database is", "channels or databases are");
            add(Tone::Warn, "In quarantine", format!("{what} in quarantine: see below"), None);
        }
        None => {
            let text = "Whether anything is in quarantine can't be told: do not start the node";
            add(Tone::Bad, "Quarantine unknown", text.to_owned(), None);
        }
    }
    restore_tests(status, &mut add);
    for warning in &status.warnings {
        add(Tone::Warn, "Trouble", warning.clone(), None);
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.tone));
    found
}

type Add<'a> = &'a mut dyn FnMut(Tone, &'static str, String, Option<String>);

fn freshness(status: &Status, age_max: Duration, server: &Server, add: Add<'_>) {
    let back_up = || Some(server.back_up(status.node.as_str()));
    let Some(snapshots) = &status.snapshots else {
        let text = "The vault has not been seen yet, so nothing is known of its snapshots";
        return add(Tone::Warn, "Not known yet", text.to_owned(), None);
    };
    match status.age_seconds(Level::Sealed) {
        None => {
            let text = "There is no verified backup of this node";
            add(Tone::Bad, "No backup", text.to_owned(), back_up());
        }
        Some(age) if age > age_max.as_secs() => {
            let text = format!(
                "The last verified backup is older than {}",
                format::age(age_max.as_secs())
            );
            add(Tone::Bad, "Backup too old", text, back_up());
        }
        Some(_) => {}
    }
    if let Some(newest) = snapshots.last().filter(|newest| newest.level == Level::Failed) {
        let text = format!(
            "The newest snapshot, {}, can't be restored: it has failed its test",
            newest.snapshot
        );
        add(Tone::Bad, "Snapshot damaged", text, back_up());
    }
}

fn failures(status: &Status, server: &Server, add: Add<'_>) {
    if status.failures == 0 {
        return;
    }
    let tone = if status.failures >= FAILURES_BAD { Tone::Bad } else { Tone::Warn };
    let text = match status.failures {
        1 => "The last backup has failed".to_owned(),
        number => format!("The last {number} backups have failed"),
    };
    let text = match last_error(status) {
        Some((kind, reason)) => format!("{text} ({kind}): {reason}"),
        None => text,
    };
    add(tone, "Backups fail", text, Some(server.back_up(status.node.as_str())));
}

/// Kind and reason of the last backup that has failed.
pub(super) fn last_error(status: &Status) -> Option<(String, String)> {
    let failed = status.last_backup.as_ref().filter(|last| last.state == State::Failed)?;
    Some((kind(failed), failed.reason.clone().unwrap_or_default()))
}

/// The kind of an error in words: `not found`.
pub(super) fn kind(operation: &Operation) -> String {
    operation.kind.as_deref().unwrap_or("unknown").replace('_', " ")
}

fn restore_tests(status: &Status, add: Add<'_>) {
    let Some(last) = &status.last_restore_test else { return };
    if last.state == State::Failed {
        let reason = last.reason.clone().unwrap_or_default();
        let text = format!("The last restore test has failed ({}): {reason}", kind(last));
        add(Tone::Bad, "Restore test failed", text, Some(commands::test_restore(status)));
    }
}
