use proptest::prelude::*;

use super::*;
use crate::error::Kind;

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

const NOW: i64 = i64::MAX;

fn apply(policy: &Retention, candidates: &[Candidate]) -> Result<Kept> {
    policy.apply(candidates, Time::from_nanos(NOW))
}

fn candidate(seq: u64, time: Time) -> Candidate {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seq.to_be_bytes());
    Candidate {
        snapshot: SnapshotId::from_bytes(id),
        epoch: Epoch(1),
        seq: Seq(seq),
        time,
        tags: BTreeMap::new(),
        before_loss: false,
        level: Level::Sealed,
    }
}

/// The sequence numbers that stay.
fn kept(policy: &Retention, candidates: &[Candidate]) -> Vec<u64> {
    let kept = apply(policy, candidates).unwrap();
    let seq = |id: &SnapshotId| candidates.iter().find(|one| one.snapshot == *id).unwrap().seq.0;
    kept.keep.iter().map(|(id, _)| seq(id)).collect()
}

#[test]
fn a_policy_without_a_rule_is_refused() {
    let error = apply(&Retention::default(), &[]).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
}

#[test]
fn the_last_one_before_a_loss_stays_under_every_policy() {
    let mut all: Vec<Candidate> =
        (1..=4).map(|seq| candidate(seq, at("2020-01-01T00:00:00Z"))).collect();
    all[1].before_loss = true;
    let one = Retention { last: 1, ..Retention::default() };
    assert_eq!(kept(&one, &all), [4, 2]);
    let within = Retention { within: Some(Duration::ZERO), ..Retention::default() };
    assert!(kept(&within, &all).contains(&2));
    let tagged = Retention { tags: vec![("x".to_owned(), None)], ..Retention::default() };
    assert_eq!(kept(&tagged, &all), [4, 2]);
    let reasons = apply(&one, &all).unwrap().keep.pop().unwrap().1;
    assert_eq!(reasons, [Reason::Unacknowledged]);
}

#[test]
fn hours_days_weeks_and_months_are_those_of_utc() {
    let times = [
        "2026-01-31T23:59:59Z",
        "2026-02-01T00:00:00Z",
        "2026-02-01T00:59:59Z",
        "2026-02-01T01:00:00Z",
        // A Sunday and the Monday after it.
        "2026-02-08T12:00:00Z",
        "2026-02-09T12:00:00Z",
    ];
    let all: Vec<Candidate> =
        times.iter().zip(1..).map(|(time, seq)| candidate(seq, at(time))).collect();
    let policy = |hourly, daily, weekly, monthly| Retention {
        hourly,
        daily,
        weekly,
        monthly,
        ..Retention::default()
    };
    assert_eq!(kept(&policy(9, 0, 0, 0), &all), [6, 5, 4, 3, 1]);
    assert_eq!(kept(&policy(0, 9, 0, 0), &all), [6, 5, 4, 1]);
    assert_eq!(kept(&policy(0, 0, 9, 0), &all), [6, 5, 4], "1 February 2026 is a Sunday");
    assert_eq!(kept(&policy(0, 0, 0, 9), &all), [6, 1]);
    assert_eq!(kept(&policy(0, 2, 0, 0), &all), [6, 5]);
}

#[test]
fn the_year_of_a_week_is_that_of_its_thursday() {
    let all = [
        candidate(1, at("2024-12-30T00:00:00Z")),
        candidate(2, at("2025-01-05T00:00:00Z")),
        candidate(3, at("2025-01-06T00:00:00Z")),
    ];
    let policy = Retention { weekly: 9, ..Retention::default() };
    assert_eq!(kept(&policy, &all), [3, 2]);
}

#[test]
fn within_looks_back_from_the_newest() {
    let all = [
        candidate(1, at("2020-01-01T00:00:00Z")),
        candidate(2, at("2020-01-31T00:00:00Z")),
        candidate(3, at("2020-03-01T00:00:00Z")),
    ];
    let days = |days: u64| Retention {
        within: Some(Duration::from_secs(days * 86_400)),
        ..Retention::default()
    };
    assert_eq!(kept(&days(30), &all), [3, 2]);
    assert_eq!(kept(&days(29), &all), [3]);
    // The newest says that it is of the year 2099; nobody else does.
    let ahead: Vec<Candidate> =
        all.iter().cloned().chain([candidate(4, at("2099-01-01T00:00:00Z"))]).collect();
    let found = days(30).apply(&ahead, at("2020-03-01T01:00:00Z")).unwrap();
    assert_eq!(found.forget, [ahead[1].snapshot, ahead[0].snapshot]);
}

#[test]
fn tags_keep_with_their_value_or_with_any() {
    let mut all: Vec<Candidate> = (1..5).map(|seq| candidate(seq, Time::default())).collect();
    all[0].tags.insert("keep".to_owned(), "yes".to_owned());
    all[1].tags.insert("keep".to_owned(), "no".to_owned());
    let policy = |value: Option<&str>| Retention {
        tags: vec![("keep".to_owned(), value.map(str::to_owned))],
        ..Retention::default()
    };
    assert_eq!(kept(&policy(None), &all), [4, 2, 1]);
    assert_eq!(kept(&policy(Some("yes")), &all), [4, 1]);
}

/// The newest may be a bad one: then the one that `latest` means stays as well, and a bad one never
/// takes the place of a good one.
#[test]
fn a_snapshot_that_failed_its_test_takes_no_place() {
    let mut all: Vec<Candidate> = (1..6).map(|seq| candidate(seq, Time::default())).collect();
    all[4].level = Level::Failed;
    all[3].level = Level::Failed;
    all[0].level = Level::Restored;
    let one = Retention { last: 1, ..Retention::default() };
    assert_eq!(kept(&one, &all), [5, 3, 1]);
    let reasons = apply(&one, &all).unwrap().keep;
    assert_eq!(reasons[0].1, [Reason::Newest]);
    assert_eq!(reasons[1].1, [Reason::Latest, Reason::Last]);
    assert_eq!(reasons[2].1, [Reason::Restored]);
}

/// A clock that was years ahead for one backup.
#[test]
fn a_jump_of_the_clock_takes_one_place_and_no_more() {
    let mut all: Vec<Candidate> =
        (1..=10).map(|day| candidate(day, at(&format!("2026-03-{day:02}T00:00:00Z")))).collect();
    all[4].time = at("2099-01-01T00:00:00Z");
    let policy = Retention { daily: 4, ..Retention::default() };
    assert_eq!(kept(&policy, &all), [10, 9, 8, 7]);
    all[9].time = at("1970-01-01T00:00:00Z");
    assert_eq!(kept(&policy, &all), [10, 9, 8, 7]);
}

fn policies() -> impl Strategy<Value = Retention> {
    let counts = (0..4_u32, 0..4_u32, 0..4_u32, 0..4_u32, 0..4_u32);
    let within = prop::option::of((0..5_000_000_u64).prop_map(Duration::from_secs));
    (counts, within, prop::bool::ANY).prop_map(
        |((last, hourly, daily, weekly, monthly), within, tag)| Retention {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            within,
            tags: if tag { vec![("a".to_owned(), None)] } else { Vec::new() },
        },
    )
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    // Seconds within half a year, or anywhere at all: a clock that jumps.
    let seconds = prop_oneof![4 => 0..15_000_000_i64, 1 => -9_000_000_000..9_000_000_000_i64];
    let level = prop_oneof![Just(Level::Failed), Just(Level::Sealed), Just(Level::Restored)];
    prop::collection::vec((seconds, level, prop::bool::weighted(0.2), 0..3_u64), 0..60).prop_map(
        |made| {
            let mut epoch = 1;
            made.into_iter()
                .zip(1..)
                .map(|((seconds, level, tagged, takeover), seq)| {
                    epoch += takeover / 2;
                    let mut one = candidate(seq, Time::from_nanos(seconds * 1_000_000_000));
                    one.epoch = Epoch(epoch);
                    one.level = level;
                    if tagged {
                        one.tags.insert("a".to_owned(), "b".to_owned());
                    }
                    one
                })
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn every_snapshot_stays_or_goes_and_the_newest_ones_stay(
        policy in policies(), mut all in candidates()
    ) {
        prop_assume!(!policy.is_empty());
        let sorted = apply(&policy, &all).unwrap();
        let mut seen: Vec<SnapshotId> =
            sorted.keep.iter().map(|(id, _)| *id).chain(sorted.forget.iter().copied()).collect();
        seen.sort();
        let mut expected: Vec<SnapshotId> = all.iter().map(|one| one.snapshot).collect();
        expected.sort();
        prop_assert_eq!(seen, expected, "each one once");
        for level in [Level::Failed, Level::Sealed, Level::Restored] {
            let newest = all.iter().filter(|one| one.level >= level).max_by_key(|one| (one.epoch, one.seq));
            if let Some(newest) = newest {
                prop_assert!(!sorted.forget.contains(&newest.snapshot), "{level:?}");
            }
        }
        for one in all.iter().filter(|one| !one.tags.is_empty() && !policy.tags.is_empty()) {
            prop_assert!(!sorted.forget.contains(&one.snapshot), "it is tagged");
        }
        prop_assert!(sorted.keep.iter().all(|(_, reasons)| !reasons.is_empty()));
        // The order in which they are listed plays no part.
        all.reverse();
        prop_assert_eq!(apply(&policy, &all).unwrap(), sorted);
    }

    #[test]
    fn a_policy_keeps_no_more_than_its_rules_say(policy in policies(), all in candidates()) {
        prop_assume!(!policy.is_empty() && policy.within.is_none() && policy.tags.is_empty());
        let counts = [policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly];
        let most = counts.iter().sum::<u32>() as usize + 3;
        prop_assert!(apply(&policy, &all).unwrap().keep.len() <= most);
    }

    /// What was kept once and is looked at again with nothing new stays: a policy that runs every
    /// hour forgets no more than one that runs once.
    #[test]
    fn forgetting_twice_forgets_no_more(policy in policies(), all in candidates()) {
        prop_assume!(!policy.is_empty());
        let once = apply(&policy, &all).unwrap();
        let left: Vec<Candidate> =
            all.iter().filter(|one| !once.forget.contains(&one.snapshot)).cloned().collect();
        prop_assert_eq!(apply(&policy, &left).unwrap().forget, []);
    }
}
