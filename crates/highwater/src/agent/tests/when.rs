//! When an agent acts by itself, without an agent.

use std::time::Duration;

use proptest::prelude::*;

use crate::agent::operation::{OperationState, Task, Trigger};
use crate::agent::when::{
    Cadence, Chore, LOOK_EVERY, Now, PERIOD_MIN, RETRY_MAX, RETRY_MIN, Rules, When,
};
use crate::ids::Time;

const DAY: u64 = 24 * 60 * 60;
const BEGIN: u64 = 1_800_000_000;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Both clocks, so many seconds after the start of an agent.
fn at(second: u64) -> Now {
    skewed(second, 0)
}

fn skewed(second: u64, wall: i64) -> Now {
    let nanos = (i64::try_from(BEGIN + second).unwrap() + wall) * 1_000_000_000;
    Now { monotonic: seconds(1_000_000 + second), wall: Time::from_nanos(nanos) }
}

/// So many seconds before the start of an agent.
fn before(second: u64) -> Option<Time> {
    Some(Time::from_nanos(i64::try_from(BEGIN - second).unwrap() * 1_000_000_000))
}

fn every(period: u64) -> Rules {
    let backup = Some(Cadence::Every(seconds(period)));
    Rules { backup, first_after: None, ..Rules::default() }
}

fn run(when: &mut When, task: Task, trigger: Trigger, state: OperationState, now: Now) {
    when.began(task, now);
    when.ended(task, trigger, state, now);
}

#[test]
fn the_first_backup_comes_soon_after_a_start_however_young_the_last_one_is() {
    let rules = Rules { backup: Some(Cadence::Every(seconds(DAY))), ..Rules::default() };
    let mut when = When::new(rules, before(60), None, at(0));
    assert_eq!(when.due(at(9)), []);
    assert_eq!(when.due(at(10)), [(Task::Backup, Trigger::Start)]);
    run(&mut when, Task::Backup, Trigger::Start, OperationState::Completed, at(10));
    assert_eq!(when.due(at(DAY + 9)), []);
    assert_eq!(when.due(at(DAY + 10)), [(Task::Backup, Trigger::Schedule)]);
    let rules = Rules { first_after: Some(seconds(10)), ..every(DAY) };
    let mut overdue = When::new(rules, None, None, at(0));
    assert_eq!(overdue.due(at(9)), []);
    assert_eq!(overdue.due(at(10)), [(Task::Backup, Trigger::Start)]);
}

#[test]
fn an_interval_counts_from_the_last_backup_of_an_earlier_process() {
    let mut when = When::new(every(3600), before(3000), None, at(0));
    assert_eq!(when.due(at(599)), []);
    assert_eq!(when.due(at(600)), [(Task::Backup, Trigger::Schedule)]);
    // A clock that was wrong then, or is now, tells nothing.
    let future = Some(skewed(0, 5000).wall);
    assert_eq!(When::new(every(3600), future, None, at(0)).due(at(0)).len(), 1);
}

#[test]
fn a_wall_clock_that_is_set_disturbs_no_interval() {
    let mut when = When::new(every(3600), before(0), None, at(0));
    for wall in [-1_000_000_000, 1_000_000_000] {
        assert_eq!(when.due(skewed(3599, wall)), []);
        assert_eq!(when.due(skewed(3600, wall)), [(Task::Backup, Trigger::Schedule)]);
    }
}

#[test]
fn a_schedule_by_the_clock_follows_a_clock_that_is_set_back() {
    let backup = Some(Cadence::cron("*/10 * * * *").unwrap());
    let rules = Rules { backup, first_after: None, ..Rules::default() };
    let mut when = When::new(rules, before(0), None, at(0));
    // The beginning is at 8:00:00.
    assert_eq!(when.due(at(599)), []);
    assert_eq!(when.due(at(600)), [(Task::Backup, Trigger::Schedule)]);
    run(&mut when, Task::Backup, Trigger::Schedule, OperationState::Completed, at(600));
    // An hour back: the next one is at 7:20, not at 8:20.
    assert_eq!(when.due(skewed(700, -3600)), []);
    assert_eq!(when.due(skewed(1200, -3600)), [(Task::Backup, Trigger::Schedule)]);
    run(&mut when, Task::Backup, Trigger::Schedule, OperationState::Completed, skewed(1200, -3600));
    // Far ahead: one backup for all that were missed.
    assert_eq!(when.due(skewed(1300, 100_000)).len(), 1);
    run(
        &mut when,
        Task::Backup,
        Trigger::Schedule,
        OperationState::Completed,
        skewed(1300, 100_000),
    );
    assert_eq!(when.due(skewed(1301, 100_000)), []);
}

#[test]
fn after_a_suspension_what_was_missed_comes_once() {
    let mut when = When::new(every(600), before(0), None, at(0));
    // No wait is longer than a look at the clocks, since a suspended machine does not count it.
    assert!(when.wait(at(1)) <= LOOK_EVERY);
    assert_eq!(when.due(at(DAY)), [(Task::Backup, Trigger::Schedule)]);
    run(&mut when, Task::Backup, Trigger::Schedule, OperationState::Completed, at(DAY));
    assert_eq!(when.due(at(DAY + 599)), []);
}

#[test]
fn other_rules_lose_no_time() {
    let mut when = When::new(every(3600), before(0), before(100), at(0));
    let rules = |period, test| Rules { restore_test: Some(seconds(test)), ..every(period) };
    when.set_rules(rules(1000, 2000), at(500));
    assert_eq!(when.due(at(999)), []);
    assert_eq!(when.due(at(1000)), [(Task::Backup, Trigger::Schedule)]);
    run(&mut when, Task::Backup, Trigger::Schedule, OperationState::Completed, at(1000));
    // A wall clock that is set and other rules at once: the test counts from where it did.
    when.set_rules(rules(10_000, 2500), skewed(1500, 90_000));
    assert_eq!(when.due(skewed(2399, 90_000)), []);
    assert_eq!(when.due(skewed(2400, 90_000)), [(Task::RestoreTest, Trigger::Schedule)]);
    when.began(Task::RestoreTest, at(2400));
    when.ended(Task::RestoreTest, Trigger::Schedule, OperationState::Completed, at(2400));
    when.set_rules(rules(10_000, 50), at(2401));
    assert_eq!(when.due(at(2449)), []);
    assert_eq!(when.due(at(2450)), [(Task::RestoreTest, Trigger::Schedule)]);
    // From an interval to the clock and back.
    let cron = Some(Cadence::cron("0 * * * *").unwrap());
    when.set_rules(Rules { backup: cron, ..every(1) }, at(2500));
    assert_eq!(when.due(at(3599)), []);
    assert_eq!(when.due(at(3600)), [(Task::Backup, Trigger::Schedule)]);
    when.set_rules(every(2500), at(3400));
    assert_eq!(when.due(at(3499)), []);
    assert_eq!(when.due(at(3500)), [(Task::Backup, Trigger::Schedule)]);
}

#[test]
fn changes_wait_for_quiet_but_not_for_ever() {
    let rules = Rules { first_after: None, ..Rules::default() };
    let mut when = When::new(rules, before(0), None, at(0));
    when.changed(at(100));
    assert_eq!(when.due(at(104)), []);
    assert_eq!(when.due(at(105)), [(Task::Backup, Trigger::Event)]);
    (101..160).for_each(|second| when.changed(at(second)));
    assert_eq!(when.due(at(159)), []);
    assert_eq!(when.due(at(160)), [(Task::Backup, Trigger::Event)]);
    run(&mut when, Task::Backup, Trigger::Event, OperationState::Completed, at(160));
    assert_eq!((when.due(at(9999)), when.next_backup(at(9999))), (vec![], None));
}

#[test]
fn a_backup_that_is_cancelled_takes_no_change_with_it() {
    let rules = Rules { first_after: None, ..Rules::default() };
    let mut when = When::new(rules, before(0), None, at(0));
    when.changed(at(0));
    run(&mut when, Task::Backup, Trigger::Manual, OperationState::Cancelled, at(1));
    assert_eq!(when.due(at(30)), []);
    assert_eq!(when.due(at(31)), [(Task::Backup, Trigger::Retry)]);
    run(&mut when, Task::Backup, Trigger::Retry, OperationState::Completed, at(31));
    run(&mut when, Task::Backup, Trigger::Manual, OperationState::Cancelled, at(40));
    assert_eq!(when.due(at(9999)), []);
}

#[test]
fn only_what_an_agent_owes_is_tried_again() {
    let rules = Rules { first_after: None, ..Rules::default() };
    let mut when = When::new(rules, before(0), None, at(0));
    // Nobody but the caller wanted it.
    run(&mut when, Task::Backup, Trigger::Manual, OperationState::Failed, at(0));
    assert_eq!((when.failures(), when.next_backup(at(0))), (1, None));
    when.changed(at(10));
    run(&mut when, Task::Backup, Trigger::Manual, OperationState::Failed, at(11));
    assert_eq!(when.due(at(70)), []);
    assert_eq!(when.due(at(71)), [(Task::Backup, Trigger::Retry)]);
    let mut scheduled = When::new(every(DAY), before(0), None, at(0));
    run(&mut scheduled, Task::Backup, Trigger::Manual, OperationState::Failed, at(0));
    assert_eq!(scheduled.due(at(30)), [(Task::Backup, Trigger::Retry)]);
}

#[test]
fn a_node_without_a_snapshot_is_not_tested_and_a_test_that_failed_is_made_again() {
    let rules = Rules { restore_test: Some(seconds(DAY)), first_after: None, ..Rules::default() };
    let mut when = When::new(rules, None, None, at(0));
    assert_eq!(when.due(at(2 * DAY)), []);
    run(&mut when, Task::Backup, Trigger::Manual, OperationState::Completed, at(0));
    assert_eq!(when.due(at(1)), [(Task::RestoreTest, Trigger::Schedule)]);
    run(&mut when, Task::RestoreTest, Trigger::Schedule, OperationState::Failed, at(1));
    assert_eq!(when.due(at(30)), []);
    assert_eq!(when.due(at(31)), [(Task::RestoreTest, Trigger::Retry)]);
}

#[test]
fn a_chore_that_fails_comes_again_later_and_later() {
    let mut when = When::new(every(DAY), before(0), None, at(0));
    assert_eq!(when.chore_due(at(0)), None);
    when.chore_ended(Chore::Retention, true, seconds(3), at(0));
    assert_eq!(when.chore_due(at(32)), None);
    assert_eq!(when.chore_due(at(33)), Some(Chore::Retention));
    assert!(when.wait(at(3)) <= seconds(30));
    assert_eq!(when.chore_ended(Chore::Retention, true, seconds(0), at(33)), 2);
    assert_eq!(when.chore_due(at(92)), None);
    when.chore_ended(Chore::Retention, false, seconds(0), at(93));
    assert_eq!(when.chore_due(at(DAY)), None);
}

#[test]
fn the_longest_times_do_no_harm() {
    let rules = Rules {
        backup: Some(Cadence::Every(Duration::MAX)),
        first_after: Some(Duration::MAX),
        restore_test: Some(Duration::MAX),
        debounce: Duration::MAX,
        delay_max: Duration::MAX,
        age_max: Duration::MAX,
    };
    let now = Now { monotonic: Duration::MAX, wall: Time::from_nanos(i64::MAX) };
    for now in [now, at(0)] {
        let mut when = When::new(rules.clone(), before(0), before(0), now);
        when.changed(now);
        run(&mut when, Task::Backup, Trigger::Start, OperationState::Failed, now);
        run(&mut when, Task::RestoreTest, Trigger::Start, OperationState::Failed, now);
        let _ = (when.due(now), when.next_backup(now), when.wait(now));
    }
}

#[test]
fn a_period_that_would_be_a_loop_is_refused() {
    let short = PERIOD_MIN - Duration::from_nanos(1);
    let loops = [
        Rules { backup: Some(Cadence::Every(short)), ..Rules::default() },
        Rules { restore_test: Some(Duration::ZERO), ..Rules::default() },
    ];
    for rules in loops {
        assert_eq!(rules.refuse_loops().unwrap_err().kind(), crate::Kind::Input);
    }
    every(1).refuse_loops().unwrap();
}

#[test]
fn a_cron_expression_has_five_fields_or_six_and_a_time_that_comes() {
    for good in ["0 */6 * * *", "30 0 */6 * * *", "0 3 * * SUN", "0 0 L * *", "0 0 29 2 *"] {
        Cadence::cron(good).unwrap();
    }
    let long = "1,".repeat(200) + " * * * *";
    for bad in ["", "* * *", "0 0 30 2 *", "61 * * * *", "0 0 1 1 * * 1999", "ä * * * *", &long] {
        let error = Cadence::cron(bad).map(|_| bad.to_owned()).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Input, "{bad}");
        assert!(error.hint().is_some());
    }
}

/// What happens to an agent, one after the other.
#[derive(Clone, Debug)]
enum Happening {
    /// So many seconds pass, and the wall clock is set by so many more.
    Pass(u64, i64),
    Change,
    /// Somebody asks for a backup.
    Ask,
    Rules(Option<u64>),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (0..200u64).prop_map(|time| Happening::Pass(time, 0)),
        1 => (0..5000u64, -100_000..100_000i64).prop_map(|(time, set)| Happening::Pass(time, set)),
        3 => Just(Happening::Change),
        1 => Just(Happening::Ask),
        1 => proptest::option::of(1..5000u64).prop_map(Happening::Rules),
    ];
    prop::collection::vec(one, 1..60)
}

/// What an agent does, as its thread does it: waits no longer than it is told, takes what is due.
struct Play {
    when: When,
    second: u64,
    wall: i64,
    /// How the backups end, in turn; each takes so many seconds.
    ends: Vec<(OperationState, u64)>,
    /// Backups that began, by what, and how many had failed in a row.
    begun: Vec<(u64, Trigger, u32)>,
    /// Whether a change waits for a backup since some second, and when the last backup began that
    /// succeeded.
    waiting: Option<u64>,
}

impl Play {
    fn new(rules: Rules, ends: Vec<(OperationState, u64)>) -> Play {
        let when = When::new(rules, before(0), None, at(0));
        Play { when, second: 0, wall: 0, ends, begun: Vec::new(), waiting: None }
    }

    fn now(&self) -> Now {
        skewed(self.second, self.wall)
    }

    fn back_up(&mut self, trigger: Trigger) {
        self.begun.push((self.second, trigger, self.when.failures()));
        let now = self.now();
        self.when.began(Task::Backup, now);
        let waited = self.waiting.take();
        let (state, takes) = self.ends[self.begun.len() % self.ends.len()];
        self.second += takes;
        self.when.ended(Task::Backup, trigger, state, self.now());
        if state != OperationState::Completed {
            self.waiting = waited;
        }
    }

    /// Lets time pass as the agent's thread does.
    fn pass(&mut self, time: u64) {
        let end = self.second + time;
        while self.second <= end {
            let now = self.now();
            let told = self.when.next_backup(now);
            match self.when.due(now).first() {
                Some(&(Task::Backup, trigger)) => {
                    // What was told of the next backup is this one, unless the clock was set.
                    assert!(told.is_some_and(|told| told <= self.now().wall) || self.wall != 0);
                    self.back_up(trigger);
                }
                Some(other) => unreachable!("{other:?}"),
                None => {
                    let wait = self.when.wait(now);
                    assert!(wait > Duration::ZERO, "nothing is due, and nothing is waited for");
                    let told = self.when.next_backup(self.now());
                    let told = told.map(|told| told.as_nanos() - self.now().wall.as_nanos());
                    let told = told.map(|nanos| Duration::from_nanos(nanos.try_into().unwrap()));
                    assert_eq!(wait, told.unwrap_or(LOOK_EVERY).min(LOOK_EVERY));
                    let wait = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                    if self.second + wait > end {
                        break;
                    }
                    self.second += wait;
                }
            }
        }
        self.second = self.second.max(end);
    }

    fn happens(&mut self, happening: &Happening) {
        match *happening {
            Happening::Pass(time, set) => {
                self.pass(time);
                self.wall += set;
            }
            Happening::Change => {
                self.when.changed(self.now());
                self.waiting = self.waiting.or(Some(self.second));
            }
            Happening::Ask => self.back_up(Trigger::Manual),
            Happening::Rules(None) => {
                let rules = Rules { first_after: None, ..Rules::default() };
                self.when.set_rules(rules, self.now());
            }
            Happening::Rules(Some(period)) => self.when.set_rules(every(period), self.now()),
        }
    }
}

fn ends(failing: bool) -> impl Strategy<Value = Vec<(OperationState, u64)>> {
    let states = if failing {
        vec![
            OperationState::Completed,
            OperationState::Failed,
            OperationState::Failed,
            OperationState::Cancelled,
        ]
    } else {
        vec![OperationState::Completed]
    };
    prop::collection::vec((prop::sample::select(states), 0..300u64), 1..6)
}

proptest! {
    #[test]
    fn no_backup_begins_by_itself_sooner_after_a_failure_than_the_backoff_allows(
        happenings in happenings(), ends in ends(true),
    ) {
        let mut play = Play::new(every(1), ends);
        happenings.iter().for_each(|happening| play.happens(happening));
        for pair in play.begun.windows(2) {
            let [(before, ..), (begun, trigger, failures)] = pair else { unreachable!() };
            if *failures > 0 && *trigger != Trigger::Manual {
                let doubled = RETRY_MIN.saturating_mul(1 << (failures - 1).min(16));
                prop_assert!(seconds(begun - before) >= doubled.min(RETRY_MAX), "{pair:?}");
            }
        }
    }

    #[test]
    fn a_change_is_always_followed_by_a_backup_in_time(
        happenings in happenings(), ends in ends(false),
    ) {
        let rules = Rules { first_after: None, ..Rules::default() };
        let (delay, takes) = (rules.delay_max.as_secs(), 300);
        let mut play = Play::new(rules, ends);
        for happening in &happenings {
            play.happens(happening);
            let late = play.waiting.map_or(0, |since| play.second.saturating_sub(since));
            prop_assert!(late <= delay + takes, "{happening:?}: {late} seconds");
        }
        play.pass(delay + takes);
        prop_assert_eq!(play.waiting, None);
    }

    #[test]
    fn a_change_survives_every_failure_and_every_cancellation(
        happenings in happenings(), mut ends in ends(true),
    ) {
        ends.push((OperationState::Completed, 1));
        let mut play = Play::new(Rules { first_after: None, ..Rules::default() }, ends);
        play.happens(&Happening::Change);
        happenings.iter().for_each(|happening| play.happens(happening));
        play.pass(8 * RETRY_MAX.as_secs());
        prop_assert_eq!(play.waiting, None);
    }

    #[test]
    fn no_text_makes_a_cron_expression_panic(
        text in "[-0-9*/,LW#?@A-Za-z ]{0,30}",
        fields in prop::collection::vec("[-0-9*/,LW#?]{1,6}|[A-Z]{3}|\\*/[0-9]{1,5}", 5..7),
        nanos: i64,
    ) {
        for text in [text, fields.join(" ")] {
            if let Ok(backup) = Cadence::cron(&text) {
                let rules = Rules { backup: Some(backup), ..Rules::default() };
                let now = Now { monotonic: Duration::ZERO, wall: Time::from_nanos(nanos) };
                When::new(rules, None, None, now).next_backup(now);
            }
        }
    }
}
