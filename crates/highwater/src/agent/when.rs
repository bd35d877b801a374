//! When an agent acts by itself: pure, from the time and what has happened to what is due.

use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::error::{Error, Result};
use crate::ids::Time;

use super::operation::{OperationState, Task, Trigger};

/// How long an agent waits before it looks at the clocks again: a wall clock may be set, and the
/// machine may have been suspended.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long after a first failure it is tried again; each further failure doubles the time.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(30);
/// The longest time after which it is tried again.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// No period is shorter: it would be a loop.
pub(super) const PERIOD_MIN: Duration = Duration::from_secs(1);
/// No expression is longer.
const CRON_CHARS_MAX: usize = 200;

/// How often a node is backed up.
#[derive(Clone, Debug)]
pub enum Cadence {
    /// So long after the last one began; a second at least. Those of an earlier process count where
    /// they succeeded.
    Every(Duration),
    /// By the clock; made by [`Cadence::cron`].
    Cron(Clockwork),
}

/// A cron expression whose time comes.
#[derive(Clone, Debug)]
pub struct Clockwork(Box<Cron>);

impl Cadence {
    /// By a cron expression of five fields (minute, hour, day of the month, month, day of the week) or
    /// six (seconds before them), in UTC.
    ///
    /// # Errors
    /// Input where it is none, or where its time never comes.
    pub fn cron(text: &str) -> Result<Cadence> {
        let wrong = |why: String| {
            Error::input(format!("`{}` is not a cron expression: {why}", text.escape_debug()))
                .with_remedy("write minute, hour, day of month, month, day of week: `0 */6 * * *`")
        };
        if !text.is_ascii() || text.len() > CRON_CHARS_MAX {
            return Err(wrong(format!(
                "it is not ASCII, or has more than {CRON_CHARS_MAX} characters"
            )));
        }
        let parser =
            CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        // A parser of others: what it panics at is wrong as well.
        let parsed = std::panic::catch_unwind(|| parser.parse(text));
        let cron = match parsed {
            Ok(Ok(cron)) => Clockwork(Box::new(cron)),
            Ok(Err(error)) => return Err(wrong(error.to_string())),
            Err(_) => return Err(wrong("it can't be read".to_owned())),
        };
        match cron.next_after(Time::from_nanos(0)) {
            Some(_) => Ok(Cadence::Cron(cron)),
            None => Err(wrong("its time never comes".to_owned())),
        }
    }
}

impl Clockwork {
    fn next_after(&self, time: Time) -> Option<Time> {
        let from: DateTime<Utc> = DateTime::from_timestamp_nanos(time.as_nanos());
        let search = || self.0.find_next_occurrence(&from, false).ok();
        let next = std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)).ok()??;
        next.timestamp_nanos_opt().map(Time::from_nanos)
    }
}

/// What an agent does by itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// How often it backs up; `None`: only when asked, or by events.
    pub backup: Option<Cadence>,
    /// How long after its start it makes the first backup; `None`: it waits for the schedule.
    pub first_after: Option<Duration>,
    /// How long after a restore test began the next one comes; a second at least. A node without a
    /// snapshot is not tested.
    pub restore_test: Option<Duration>,
    /// A backup follows a change once the node has reported no further change for this long.
    pub debounce: Duration,
    /// It does not wait longer than this after the first change.
    pub delay_max: Duration,
    /// A newest snapshot that is older than this is stale: somebody must look why.
    pub age_max: Duration,
}

setters! {
    Rules {
        backup: Option<Cadence>,
        first_after: Option<Duration>,
        restore_test: Option<Duration>,
        debounce: Duration,
        delay_max: Duration,
        age_max: Duration,
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            backup: None,
            first_after: Some(Duration::from_secs(10)),
            restore_test: None,
            debounce: Duration::from_secs(5),
            delay_max: Duration::from_secs(60),
            age_max: Duration::from_secs(26 * 60 * 60),
        }
    }
}

impl Rules {
    /// Refuses periods that would be a loop.
    pub(super) fn refuse_loops(&self) -> Result<()> {
        let every = match &self.backup {
            Some(Cadence::Every(period)) => Some(*period),
            _ => None,
        };
        let periods = [("backups", every), ("restore tests", self.restore_test)];
        for (what, period) in periods {
            if period.is_some_and(|period| period < PERIOD_MIN) {
                return Err(Error::input(format!("the period of {what} is below a second")));
            }
        }
        Ok(())
    }
}

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: Duration,
    pub(super) wall: Time,
}

/// Failures in a row, until when nothing begins by itself after them, and whether it is tried again then.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    held_until: Option<Duration>,
    retry: bool,
}

impl Failures {
    fn failed(&mut self, retry: bool, now: Now) {
        self.count = self.count.saturating_add(1);
        self.hold(retry, now);
    }

    /// Delays it for as long as this many failures require; after none as after one.
    fn hold(&mut self, retry: bool, now: Now) {
        let doubled = 1 << self.count.saturating_sub(1).min(16);
        let wait = RETRY_MIN.saturating_mul(doubled).min(RETRY_MAX);
        self.held_until = Some(now.monotonic.saturating_add(wait));
        self.retry = retry;
    }

    /// Begins: nothing is held any more. Whether it was to be tried again.
    fn begin(&mut self) -> bool {
        self.held_until = None;
        std::mem::take(&mut self.retry)
    }

    fn retry_at(self) -> Option<Duration> {
        self.held_until.filter(|_| self.retry)
    }
}

/// When something was last done: how old that was at a moment of the clock that never goes back, so
/// that a wall clock which is set later changes nothing.
#[derive(Clone, Copy, Debug)]
struct Last {
    age: Duration,
    noted: Duration,
}

impl Last {
    fn at(now: Now) -> Last {
        Last { age: Duration::ZERO, noted: now.monotonic }
    }

    /// From a record of the wall clock. One of the future tells nothing, since that clock was wrong
    /// then or is now: what it is about is due.
    fn recorded(last: Option<Time>, now: Now) -> Last {
        let age = last.and_then(|last| now.wall.as_nanos().checked_sub(last.as_nanos()));
        let age = age.and_then(|nanos| u64::try_from(nanos).ok());
        Last { age: age.map_or(Duration::MAX, Duration::from_nanos), noted: now.monotonic }
    }

    fn due(self, period: Duration) -> Duration {
        self.noted.saturating_add(period.saturating_sub(self.age))
    }
}

/// Small work, not an operation, that is repeated until it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chore {
    /// Sees which snapshots there are.
    Look,
    /// Applies the retention policy.
    Retention,
}

/// What is due, and when the next thing will be.
pub(super) struct When {
    rules: Rules,
    /// The first backup.
    first_at: Option<Duration>,
    /// The backup that an interval counts from, and the restore test.
    backup_from: Last,
    test_from: Last,
    /// The next backup by the clock, and when that was reckoned.
    cron_at: Option<(Time, Time)>,
    /// The first and the last change that the node has told of since the last backup began.
    changes: Option<(Duration, Duration)>,
    /// The backup that runs, or those that have failed, are to hold changes that no backup has.
    unsaved: bool,
    /// The backup that runs, or those that have failed, were not only requested by a caller, who
    /// would ask again.
    owed: bool,
    /// There is something to test.
    testable: bool,
    backup: Failures,
    test: Failures,
    look: Failures,
    retention: Failures,
}

impl When {
    /// From the times at which the last backup and the last restore test began that succeeded.
    pub(super) fn new(rules: Rules, backup: Option<Time>, test: Option<Time>, now: Now) -> When {
        let mut when = When {
            first_at: rules.first_after.map(|after| now.monotonic.saturating_add(after)),
            backup_from: Last::recorded(backup, now),
            test_from: Last::recorded(test, now),
            cron_at: None,
            changes: None,
            unsaved: false,
            owed: false,
            testable: backup.is_some(),
            backup: Failures::default(),
            test: Failures::default(),
            look: Failures::default(),
            retention: Failures::default(),
            rules,
        };
        when.reckon_cron(now);
        when
    }

    /// Goes on under other rules; what has happened still counts.
    pub(super) fn set_rules(&mut self, rules: Rules, now: Now) {
        self.rules = rules;
        if self.rules.first_after.is_none() {
            self.first_at = None;
        }
        self.reckon_cron(now);
    }

    fn reckon_cron(&mut self, now: Now) {
        self.cron_at = match &self.rules.backup {
            Some(Cadence::Cron(cron)) => cron.next_after(now.wall).map(|at| (at, now.wall)),
            _ => None,
        };
    }

    /// The node tells of a change that must not be lost.
    pub(super) fn changed(&mut self, now: Now) {
        let first = self.changes.map_or(now.monotonic, |(first, _)| first);
        self.changes = Some((first, now.monotonic));
    }

    /// What is to be started now.
    pub(super) fn due(&mut self, now: Now) -> Vec<(Task, Trigger)> {
        self.follow_clock(now);
        let backup = self.backup_in(now).filter(|(wait, _)| wait.is_zero());
        let test = self.test_in(now).filter(|(wait, _)| wait.is_zero());
        let backup = backup.map(|(_, trigger)| (Task::Backup, trigger));
        let test = test.map(|(_, trigger)| (Task::RestoreTest, trigger));
        backup.into_iter().chain(test).collect()
    }

    /// Where the wall clock was set back, the next time by the clock is another.
    fn follow_clock(&mut self, now: Now) {
        if self.cron_at.is_some_and(|(_, reckoned)| now.wall < reckoned) {
            self.reckon_cron(now);
        }
    }

    /// The chore that is to be done now.
    pub(super) fn chore_due(&self, now: Now) -> Option<Chore> {
        let reached =
            |failures: Failures| failures.retry_at().is_some_and(|at| at <= now.monotonic);
        if reached(self.look) {
            Some(Chore::Look)
        } else {
            reached(self.retention).then_some(Chore::Retention)
        }
    }

    /// How long until the next backup starts by itself, and what it is for. While it is held after a
    /// failure, nothing else starts one.
    fn backup_in(&self, now: Now) -> Option<(Duration, Trigger)> {
        let until = |at: Duration| at.saturating_sub(now.monotonic);
        let held = self.backup.held_until.map_or(Duration::ZERO, until);
        let schedule = match &self.rules.backup {
            // What is overdue at the start comes as the first one: the node is left its time to start.
            Some(Cadence::Every(period)) => {
                let first = self.first_at.unwrap_or_default();
                Some(until(self.backup_from.due(*period).max(first)))
            }
            Some(Cadence::Cron(_)) => self.cron_at.map(|(at, _)| until_wall(at, now)),
            None => None,
        };
        // Of several that come at once the first is told.
        let reasons = [
            (self.backup.retry_at().map(until), Trigger::Retry),
            (self.first_at.map(until), Trigger::Start),
            (self.event_at().map(until), Trigger::Event),
            (schedule, Trigger::Schedule),
        ];
        let waits = reasons.into_iter().filter_map(|(wait, why)| Some((wait?.max(held), why)));
        waits.min_by_key(|(wait, _)| *wait)
    }

    fn event_at(&self) -> Option<Duration> {
        let (first, last) = self.changes?;
        let quiet = last.saturating_add(self.rules.debounce);
        Some(quiet.min(first.saturating_add(self.rules.delay_max)))
    }

    fn test_in(&self, now: Now) -> Option<(Duration, Trigger)> {
        let period = self.rules.restore_test.filter(|_| self.testable)?;
        let (at, trigger) = match self.test.retry_at() {
            Some(at) => (at, Trigger::Retry),
            None => (self.test_from.due(period), Trigger::Schedule),
        };
        Some((at.saturating_sub(now.monotonic), trigger))
    }

    /// A task begins; what happens from here on is for the next one.
    pub(super) fn began(&mut self, task: Task, now: Now) {
        match task {
            Task::Backup => {
                self.unsaved |= self.changes.take().is_some();
                let first = self.first_at.take().is_some();
                let again = self.backup.begin();
                self.owed |= self.unsaved || first || again || self.rules.backup.is_some();
                self.backup_from = Last::at(now);
                self.reckon_cron(now);
            }
            Task::RestoreTest => {
                self.test.begin();
                self.test_from = Last::at(now);
            }
            Task::Check | Task::CheckData => {}
        }
    }

    /// A task has ended. One that was cancelled is neither a failure nor a success: it is not tried
    /// again, unless what the node has told of would be lost.
    pub(super) fn ended(&mut self, task: Task, trigger: Trigger, state: OperationState, now: Now) {
        match (task, state) {
            (Task::Backup, OperationState::Completed) => {
                self.backup = Failures::default();
                (self.unsaved, self.owed) = (false, false);
                self.testable = true;
            }
            (Task::Backup, OperationState::Failed) => {
                self.owed |= trigger != Trigger::Manual;
                self.backup.failed(self.owed, now);
            }
            (Task::Backup, _) => {
                if self.unsaved || self.backup.count > 0 {
                    let retry = self.unsaved || self.owed;
                    self.backup.hold(retry, now);
                }
            }
            (Task::RestoreTest, OperationState::Completed) => self.test = Failures::default(),
            (Task::RestoreTest, OperationState::Failed) => self.test.failed(true, now),
            (Task::RestoreTest | Task::Check | Task::CheckData, _) => {}
        }
    }

    /// A chore is done, or is to be done again, `jitter` later than otherwise: agents that get into
    /// each other's way once must not do so again.
    /// Tells how often in a row it has failed.
    pub(super) fn chore_ended(
        &mut self,
        chore: Chore,
        failed: bool,
        jitter: Duration,
        now: Now,
    ) -> u32 {
        let failures = match chore {
            Chore::Look => &mut self.look,
            Chore::Retention => &mut self.retention,
        };
        if failed {
            failures.failed(true, now);
            failures.held_until = failures.held_until.map(|at| at.saturating_add(jitter));
        } else {
            *failures = Failures::default();
        }
        failures.count
    }

    /// How old the newest snapshot may become.
    pub(super) fn age_max(&self) -> Duration {
        self.rules.age_max
    }

    /// Backups that have failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.backup.count
    }

    /// When the next backup will start by itself, by the wall clock of this moment.
    pub(super) fn next_backup(&self, now: Now) -> Option<Time> {
        let (wait, _) = self.backup_in(now)?;
        let nanos = i64::try_from(wait.as_nanos()).ok()?;
        now.wall.as_nanos().checked_add(nanos).map(Time::from_nanos)
    }

    /// How long nothing can become due, as far as the clocks can be trusted.
    pub(super) fn wait(&self, now: Now) -> Duration {
        let chores = [self.look.retry_at(), self.retention.retry_at()].into_iter().flatten();
        let tasks = [self.backup_in(now), self.test_in(now)].into_iter().flatten();
        tasks
            .map(|(wait, _)| wait)
            .chain(chores.map(|at| at.saturating_sub(now.monotonic)))
            .fold(LOOK_EVERY, Duration::min)
    }
}

fn until_wall(at: Time, now: Now) -> Duration {
    let nanos = at.as_nanos().saturating_sub(now.wall.as_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
