//! How good a node stands, and what an operator should know: pure, from its status to sentences.

use highwater::agent::{Operation, OperationState, Status, Task};
use highwater::vault::Level;

use super::commands::{self, Server};
use super::{format, replica};

/// From this many failures in a row on, they are not taken for accidents.
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
    pub(super) command: Option<Act>,
}

/// What an operator can do, in a few words, and the command for it.
pub(super) type Act = (&'static str, String);

/// What is to be known of a node, the worst first; nothing where all is well.
pub(super) fn findings(status: &Status, server: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |tone, word, text: String, command: Option<Act>| {
        found.push(Finding { tone, word, text, command });
    };
    let backs_up = status.active.iter().any(|operation| operation.task == Task::Backup);
    let back_up = || {
        let command = || ("Back up now:", server.back_up(status.node.as_str()));
        (!backs_up).then(command)
    };
    freshness(status, backs_up, &back_up, &mut add);
    let told = newest(status, &mut add);
    failures(status, &back_up, &mut add);
    if status.maintenance {
        let text =
            "A restore of the directory is running, or was interrupted: nothing is backed up";
        add(
            Tone::Bad,
            "Restore unfinished",
            text.to_owned(),
            Some(("Finish it:", commands::recover(status))),
        );
    }
    match status.quarantined {
        Some(0) => {}
        Some(number) => {
            let what = format::count(number, "channel or database is", "channels or databases are");
            add(Tone::Warn, "In quarantine", format!("{what} in quarantine: see below"), None);
        }
        None => {
            let text = "It is unknown whether anything is in quarantine: do not start the node";
            add(Tone::Bad, "Quarantine unknown", text.to_owned(), None);
        }
    }
    restore_tests(status, &mut add);
    replica::findings(status, &mut add);
    for warning in status.warnings.iter().filter(|text| !told.contains(text)) {
        add(Tone::Warn, "Trouble", warning.clone(), None);
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.tone));
    // One command for one thing, where it is read first.
    let mut told = Vec::new();
    for finding in &mut found {
        if let Some(command) = &finding.command {
            match told.contains(command) {
                true => finding.command = None,
                false => told.push(command.clone()),
            }
        }
    }
    found
}

pub(super) type Add<'a> = &'a mut dyn FnMut(Tone, &'static str, String, Option<Act>);
type BackUp<'a> = &'a dyn Fn() -> Option<Act>;

fn freshness(status: &Status, backs_up: bool, back_up: BackUp<'_>, add: Add<'_>) {
    let Some(snapshots) = &status.snapshots else {
        let text = "The vault has not been seen yet, so nothing is known of its snapshots";
        return add(Tone::Warn, "Not known yet", text.to_owned(), None);
    };
    match status.newest(Level::Sealed) {
        // One that failed before stays what it was while it is tried again.
        None if backs_up && snapshots.is_empty() && status.failures == 0 => {
            let text = "There is no verified backup of this node yet; the first one is being made";
            add(Tone::Warn, "First backup", text.to_owned(), None);
        }
        None => {
            let text = "There is no verified backup of this node";
            add(Tone::Bad, "No backup", text.to_owned(), back_up());
        }
        // Of the future, how old it is can't be told.
        Some(_) if status.future().is_some() => {}
        Some(_) if status.is_stale() == Some(true) => {
            let text = format!(
                "The last verified backup is older than {}",
                format::age(status.age_max.as_secs())
            );
            add(Tone::Bad, "Backup too old", text, back_up());
        }
        Some(_) => {}
    }
    if let Some(newest) = snapshots.last().filter(|newest| newest.level == Level::Failed) {
        let text = format!("The newest snapshot, {}, failed its restore test", newest.snapshot);
        add(Tone::Bad, "Snapshot damaged", text, back_up());
    }
}

/// What the newest snapshot itself tells: sentences that stand among the warnings, too.
fn newest(status: &Status, add: Add<'_>) -> Vec<String> {
    let (future, shrunk) = (status.future(), status.shrunk());
    if let Some(text) = &future {
        add(Tone::Bad, "Clock wrong", text.clone(), None);
    }
    if let (Some(text), Some(newest)) = (&shrunk, status.newest(Level::Sealed)) {
        let command = commands::acknowledge(status, newest.snapshot);
        add(Tone::Bad, "Snapshot shrank", text.clone(), Some(("If that is right:", command)));
    }
    future.into_iter().chain(shrunk).collect()
}

fn failures(status: &Status, back_up: BackUp<'_>, add: Add<'_>) {
    if status.failures == 0 {
        return;
    }
    let tone = if status.failures >= FAILURES_BAD { Tone::Bad } else { Tone::Warn };
    let text = match status.failures {
        1 => "The last backup has failed".to_owned(),
        number => format!("The last {number} backups have failed"),
    };
    add(tone, "Backups fail", text, back_up());
}

/// The kind of an error in words: `not found`.
pub(super) fn kind(operation: &Operation) -> String {
    operation.kind.as_deref().unwrap_or("unknown").replace('_', " ")
}

fn restore_tests(status: &Status, add: Add<'_>) {
    let Some(last) = &status.last_restore_test else { return };
    if last.state == OperationState::Failed {
        let reason = last.reason.clone().unwrap_or_default();
        let text = format!("The last restore test has failed ({}): {reason}", kind(last));
        add(
            Tone::Bad,
            "Restore test failed",
            text,
            Some(("Test again:", commands::test_restore(status))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater::agent::{ReplicaStanding, Snapshot};
    use highwater::ids::{Seq, Time};

    fn time(hours: i64) -> Time {
        Time::from_nanos(hours * 3600 * 1_000_000_000)
    }

    fn snapshot(hours: i64, level: Level) -> Snapshot {
        Snapshot {
            snapshot: "00112233445566778899aabbccddeeff".parse().unwrap(),
            node: "alice".parse().unwrap(),
            time: time(hours),
            seq: Seq(1),
            parent: None,
            level,
            bytes_total: 1,
            bytes_read: 1,
            bytes_stored: 1,
            marks: Default::default(),
            channels: 0,
            tags: Default::default(),
            shrunk: Vec::new(),
        }
    }

    /// A node that stands well at hour 100.
    fn well() -> Status {
        Status {
            node: "alice".parse().unwrap(),
            dir: "/node".into(),
            location: "/vault".to_owned(),
            now: time(100),
            maintenance: false,
            snapshots: Some(vec![snapshot(80, Level::Sealed)]),
            seen: Some(time(100)),
            quarantined: Some(0),
            active: Vec::new(),
            last_backup: None,
            last_restore_test: None,
            restore_tested: None,
            failures: 0,
            age_max: std::time::Duration::from_secs(26 * 3600),
            next_backup: None,
            replica: None,
            warnings: Vec::new(),
        }
    }

    fn words(status: &Status) -> Vec<(Tone, &'static str)> {
        let server = Server { scheme: "http", host: "localhost:1".to_owned(), token: false };
        let found = findings(status, &server);
        found.iter().map(|finding| (finding.tone, finding.word)).collect()
    }

    #[test]
    fn a_node_that_stands_well_has_no_findings() {
        assert_eq!(words(&well()), []);
    }

    #[test]
    fn absence_is_never_taken_for_health() {
        let unseen = Status { snapshots: None, ..well() };
        assert_eq!(words(&unseen), [(Tone::Warn, "Not known yet")]);
        let none = Status { snapshots: Some(Vec::new()), ..well() };
        assert_eq!(words(&none), [(Tone::Bad, "No backup")]);
        let unknown = Status { quarantined: None, ..well() };
        assert_eq!(words(&unknown), [(Tone::Bad, "Quarantine unknown")]);
    }

    #[test]
    fn a_snapshot_that_shrank_and_one_of_the_future_are_bad_and_told_once() {
        let loss = |status: &Status| {
            let mut newest = snapshot(90, Level::Sealed);
            newest.shrunk = vec![highwater::vault::shrink::Loss {
                part: Some("store".to_owned()),
                how: highwater::vault::shrink::Shrunk::Missing,
                bytes_before: 5,
                bytes: 0,
                before: newest.snapshot,
                excluded: false,
            }];
            Status { snapshots: Some(vec![newest]), ..status.clone() }
        };
        let shrank = loss(&well());
        let warnings = vec![shrank.shrunk().unwrap()];
        let shrank = Status { warnings, ..shrank };
        assert_eq!(words(&shrank), [(Tone::Bad, "Snapshot shrank")]);
        let server = Server { scheme: "http", host: "localhost:1".to_owned(), token: false };
        let (_, command) = findings(&shrank, &server)[0].command.clone().unwrap();
        assert!(command.starts_with("highwater snapshots acknowledge 0011"), "{command}");
        let future = Status { snapshots: Some(vec![snapshot(101, Level::Sealed)]), ..well() };
        assert_eq!(words(&future), [(Tone::Bad, "Clock wrong")]);
        assert_eq!((future.age_seconds(Level::Sealed), future.is_stale()), (None, Some(true)));
    }

    #[test]
    fn an_old_backup_and_one_that_failed_its_test_are_bad() {
        let old = Status { now: time(107), ..well() };
        assert_eq!(words(&old), [(Tone::Bad, "Backup too old")]);
        let damaged = vec![snapshot(80, Level::Sealed), snapshot(90, Level::Failed)];
        let damaged = Status { snapshots: Some(damaged), ..well() };
        assert_eq!(words(&damaged), [(Tone::Bad, "Snapshot damaged")]);
    }

    #[test]
    fn a_store_that_somebody_else_has_taken_is_bad_and_one_that_is_behind_warns() {
        let fenced = ReplicaStanding { fenced: Some(true), ..ReplicaStanding::default() };
        let fenced = Status { replica: Some(fenced), ..well() };
        assert_eq!(words(&fenced), [(Tone::Bad, "Fenced")]);
        let behind = |seconds| {
            let lag = Some(std::time::Duration::from_secs(seconds));
            let state = Some(highwater::agent::ReplicaState::Open);
            let replica = ReplicaStanding { lag, state, ..ReplicaStanding::default() };
            Status { replica: Some(replica), ..well() }
        };
        assert_eq!(words(&behind(59)), []);
        assert_eq!(words(&behind(60)), [(Tone::Warn, "Replica behind")]);
    }

    #[test]
    fn a_first_failure_warns_and_many_are_bad_and_the_worst_comes_first() {
        let one = Status { failures: 1, ..well() };
        assert_eq!(words(&one), [(Tone::Warn, "Backups fail")]);
        let warnings = vec!["the disk is slow".to_owned()];
        let many = Status { failures: 3, quarantined: Some(1), warnings, ..well() };
        let expected =
            [(Tone::Bad, "Backups fail"), (Tone::Warn, "In quarantine"), (Tone::Warn, "Trouble")];
        assert_eq!(words(&many), expected);
        let interrupted = Status { maintenance: true, ..well() };
        assert_eq!(words(&interrupted), [(Tone::Bad, "Restore unfinished")]);
    }
}
