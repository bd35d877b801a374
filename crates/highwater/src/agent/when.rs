//! When an agent acts by itself: pure, from the time and what has happened to what is due.

use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;

use crate::error::{Error, Result};
use crate::ids::Time;

use super::operation::{Task, Trigger};

/// How long an agent waits before it looks at the clocks again: a wall clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a first failure it is tried again so much later, after each further one twice as much,
const RETRY_MIN: Duration = Duration::from_secs(30);
/// up to this.
const RETRY_MAX: Duration = Duration::from_secs(60 * 60);

/// How often a node is backed up.
#[derive(Clone, Debug)]
pub enum Cadence {
    /// So long after the last one that succeeded began.
    Every(Duration),
    /// By the clock; made by [`Cadence::cron`].
    Cron(Box<Cron>),
}

impl Cadence {
    /// By a cron expression of five fields (minute, hour, day of the month, month, day of the week) or
    /// six (seconds before them), in UTC.
    ///
    /// # Errors
    /// Input where it is none, or where its time never comes.
    pub fn cron(text: &str) -> Result<Cadence> {
        let wrong = |why: String| {
            Error::input(format!("`{}` is no cron expression: {why}", text.escape_debug()))
                .hint("write minute, hour, day of month, month, day of week: `0 */6 * * *`")
        };
        let cron: Cron =
            text.parse().map_err(|error: croner::errors::CronError| wrong(error.to_string()))?;
        match next_after(&cron, Time::from_nanos(0)) {
            Some(_) => Ok(Cadence::Cron(Box::new(cron))),
            None => Err(wrong("its time never comes".to_owned())),
        }
    }
}

fn next_after(cron: &Cron, time: Time) -> Option<Time> {
    let from: DateTime<Utc> = DateTime::from_timestamp_nanos(time.as_nanos());
    let next = cron.find_next_occurrence(&from, false).ok()?;
    next.timestamp_nanos_opt().map(Time::from_nanos)
}

/// What an agent does by itself.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How often it backs up; `None`: only when asked, or by events.
    pub backup: Option<Cadence>,
    /// How long after its start it makes the first backup; `None`: it waits for the schedule.
    pub first_after: Option<Duration>,
    /// How long after a restore test that succeeded the next one comes.
    pub restore_test: Option<Duration>,
    /// After the node has told of a change, so long nothing further must have happened,
    pub debounce: Duration,
    /// unless so much time has passed since the first one.
    pub delay_max: Duration,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            backup: None,
            first_after: Some(Duration::from_secs(10)),
            restore_test: None,
            debounce: Duration::from_secs(5),
            delay_max: Duration::from_secs(60),
        }
    }
}

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: Duration,
    pub(super) wall: Time,
}

/// Failures in a row, and when it is tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    retry_at: Option<Duration>,
}

impl Failures {
    fn note(&mut self, failed: bool, now: Now) {
        if !failed {
            *self = Failures::default();
            return;
        }
        let wait = RETRY_MIN.saturating_mul(1 << self.count.min(16)).min(RETRY_MAX);
        self.count += 1;
        self.retry_at = Some(now.monotonic + wait);
    }

    fn holds(self, now: Now) -> bool {
        self.retry_at.is_some_and(|at| now.monotonic < at)
    }
}

/// What is due, and when the next thing will be.
pub(super) struct When {
    rules: Rules,
    /// The first backup.
    first_at: Option<Duration>,
    /// The next backup of an interval.
    interval_at: Option<Duration>,
    /// The next backup by the clock, and when that was reckoned.
    cron_at: Option<(Time, Time)>,
    /// The first and the last change that the node has told of since the last backup began.
    changes: Option<(Duration, Duration)>,
    test_at: Option<Duration>,
    /// There is something to test.
    testable: bool,
    backup: Failures,
    test: Failures,
}

impl When {
    /// From the times of the last backup and the last restore test that succeeded.
    pub(super) fn new(rules: Rules, backup: Option<Time>, test: Option<Time>, now: Now) -> When {
        let due_after = |last: Option<Time>, period: Duration| {
            let age = last.map_or(period, |last| Duration::from_secs(now.wall.seconds_since(last)));
            now.monotonic + period.saturating_sub(age)
        };
        let interval_at = match &rules.backup {
            Some(Cadence::Every(period)) => Some(due_after(backup, *period)),
            _ => None,
        };
        let mut when = When {
            first_at: rules.first_after.map(|after| now.monotonic + after),
            interval_at,
            cron_at: None,
            changes: None,
            test_at: rules.restore_test.map(|period| due_after(test, period)),
            testable: backup.is_some(),
            backup: Failures::default(),
            test: Failures::default(),
            rules,
        };
        when.reckon_cron(now);
        when
    }

    /// Goes on under other rules; what has happened still counts.
    pub(super) fn set_rules(
        &mut self,
        rules: Rules,
        backup: Option<Time>,
        test: Option<Time>,
        now: Now,
    ) {
        let fresh = When::new(rules, backup, test, now);
        *self = When {
            first_at: self.first_at,
            changes: self.changes,
            testable: self.testable,
            backup: self.backup,
            test: self.test,
            ..fresh
        };
    }

    fn reckon_cron(&mut self, now: Now) {
        self.cron_at = match &self.rules.backup {
            Some(Cadence::Cron(cron)) => next_after(cron, now.wall).map(|at| (at, now.wall)),
            _ => None,
        };
    }

    /// The node tells of a change that must not be lost.
    pub(super) fn changed(&mut self, now: Now) {
        let first = self.changes.map_or(now.monotonic, |(first, _)| first);
        self.changes = Some((first, now.monotonic));
    }

    /// What is to be started now.
    pub(super) fn due(&mut self, now: Now) -> Option<(Task, Trigger)> {
        if self.cron_at.is_some_and(|(_, reckoned)| now.wall < reckoned) {
            // The wall clock was set back.
            self.reckon_cron(now);
        }
        let reached = |at: Option<Duration>| at.is_some_and(|at| at <= now.monotonic);
        if !self.backup.holds(now) {
            let trigger = if reached(self.backup.retry_at) {
                Some(Trigger::Retry)
            } else if reached(self.first_at) {
                Some(Trigger::Start)
            } else if reached(self.event_at()) {
                Some(Trigger::Event)
            } else if reached(self.interval_at)
                || self.cron_at.is_some_and(|(at, _)| at <= now.wall)
            {
                Some(Trigger::Schedule)
            } else {
                None
            };
            if let Some(trigger) = trigger {
                return Some((Task::Backup, trigger));
            }
        }
        let test = self.testable && !self.test.holds(now) && reached(self.test_at);
        test.then_some((Task::RestoreTest, Trigger::Schedule))
    }

    fn event_at(&self) -> Option<Duration> {
        let (first, last) = self.changes?;
        Some((last + self.rules.debounce).min(first + self.rules.delay_max))
    }

    /// A task begins; what happens from here on is for the next one.
    pub(super) fn began(&mut self, task: Task, now: Now) {
        match task {
            Task::Backup => {
                self.first_at = None;
                self.changes = None;
                self.backup.retry_at = None;
                if let Some(Cadence::Every(period)) = &self.rules.backup {
                    self.interval_at = Some(now.monotonic + *period);
                }
                self.reckon_cron(now);
            }
            Task::RestoreTest => self.test_at = self.rules.restore_test.map(|p| now.monotonic + p),
            Task::Check | Task::CheckData => {}
        }
    }

    /// A task has ended; one that was cancelled is neither a failure nor a success.
    pub(super) fn ended(&mut self, task: Task, failed: bool, now: Now) {
        match task {
            Task::Backup => {
                self.backup.note(failed, now);
                self.testable |= !failed;
            }
            Task::RestoreTest => {
                self.test.note(failed, now);
                if failed {
                    self.test_at = self.test.retry_at;
                }
            }
            Task::Check | Task::CheckData => {}
        }
    }

    /// Backups that have failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.backup.count
    }

    /// When the next backup will start by itself, by the wall clock of this moment.
    pub(super) fn next_backup(&self, now: Now) -> Option<Time> {
        let cron = self.cron_at.map(|(at, _)| until_wall(at, now));
        let next = [self.first_at, self.interval_at, self.event_at(), self.backup.retry_at]
            .into_iter()
            .flatten()
            .map(|at| at.saturating_sub(now.monotonic))
            .chain(cron)
            .min()?;
        let held =
            self.backup.retry_at.map_or(Duration::ZERO, |at| at.saturating_sub(now.monotonic));
        let nanos = i64::try_from(next.max(held).as_nanos()).ok()?;
        now.wall.as_nanos().checked_add(nanos).map(Time::from_nanos)
    }

    /// How long nothing can become due.
    pub(super) fn wait(&self, now: Now) -> Duration {
        let held = |failures: Failures, at: Option<Duration>| {
            at.map(|at| at.max(failures.retry_at.unwrap_or_default()))
        };
        let backups = [self.first_at, self.interval_at, self.event_at(), self.backup.retry_at]
            .map(|at| held(self.backup, at));
        let test = held(self.test, self.test_at.filter(|_| self.testable));
        let cron = self.cron_at.map(|(at, _)| {
            let held = self.backup.retry_at.unwrap_or_default().saturating_sub(now.monotonic);
            until_wall(at, now).max(held)
        });
        backups
            .into_iter()
            .chain([test])
            .flatten()
            .map(|at| at.saturating_sub(now.monotonic))
            .chain(cron)
            .fold(LOOK_EVERY, Duration::min)
    }
}

fn until_wall(at: Time, now: Now) -> Duration {
    let nanos = at.as_nanos().saturating_sub(now.wall.as_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
