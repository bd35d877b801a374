//! Retention: which snapshots of a node a policy keeps, and why. Pure: no vault, no clock.
//!
//! The order is that of epoch and sequence. Times only sort snapshots into hours, days, weeks and
//! months (UTC), so that a clock that jumps makes a snapshot fall into an odd hour at worst, and
//! never makes the newest one go.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Remedy, Result};
use crate::ids::{Epoch, Seq, SnapshotId, Time};

use super::{Level, Manifest, SnapshotInfo};

/// Which snapshots are kept; a snapshot that fits any of the rules stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest.
    pub last: u32,
    /// The newest of each hour, for so many hours that have one.
    pub hourly: u32,
    /// The newest of each day, for so many days that have one.
    pub daily: u32,
    /// The newest of each ISO week, for so many weeks that have one.
    pub weekly: u32,
    /// The newest of each month, for so many months that have one.
    pub monthly: u32,
    /// All that are younger than this, seen from the newest: a node that is idle loses nothing.
    pub within: Option<Duration>,
    /// All with one of these tags, of any value where none is given.
    pub tags: Vec<(String, Option<String>)>,
}

/// A snapshot, as far as a policy looks at it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which one.
    pub snapshot: SnapshotId,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// Its place among the snapshots of the node.
    pub seq: Seq,
    /// When the barrier was, by the node's clock.
    pub time: Time,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// How far it is known to be good.
    pub level: Level,
    /// It has something that the newest one lacks, which nobody has acknowledged.
    pub before_loss: bool,
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It is the newest by epoch and sequence, whatever a clock says.
    Newest,
    /// It is the newest that failed no restore test: what `latest` means.
    Latest,
    /// It is the newest that passed a restore test.
    Restored,
    /// It is one of the last so many.
    Last,
    /// It is the newest of its hour.
    Hourly,
    /// It is the newest of its day.
    Daily,
    /// It is the newest of its week.
    Weekly,
    /// It is the newest of its month.
    Monthly,
    /// It is young enough.
    Within,
    /// It has something that the newest one lacks, and nobody has acknowledged that loss.
    Unacknowledged,
    /// It has this tag.
    Tag(String),
}

/// What a policy says of the snapshots of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Those that stay, newest first, each with every reason.
    pub keep: Vec<(SnapshotId, Vec<Reason>)>,
    /// Those that go, newest first.
    pub forget: Vec<SnapshotId>,
}

impl Candidate {
    pub(crate) fn of(info: &SnapshotInfo) -> Candidate {
        let Manifest { snapshot, epoch, seq, time, tags, .. } = &info.manifest;
        Candidate {
            snapshot: *snapshot,
            epoch: *epoch,
            seq: *seq,
            time: *time,
            tags: tags.clone(),
            level: info.level,
            before_loss: false,
        }
    }
}

impl Retention {
    /// Whether it has no rule at all.
    pub fn is_empty(&self) -> bool {
        *self == Retention::default()
    }

    /// Sorts the snapshots of one node into those that stay and those that go. `now` bounds the time
    /// of the newest: one that was taken under a clock far ahead must not make the others look old.
    ///
    /// # Errors
    /// Input where the policy has no rule: all but the newest would go.
    pub fn apply(&self, candidates: &[Candidate], now: Time) -> Result<Kept> {
        if self.is_empty() {
            return Err(Error::input("the policy keeps nothing").with_remedy(Remedy::Retention));
        }
        let mut sorted: Vec<&Candidate> = candidates.iter().collect();
        sorted.sort_by_key(|one| std::cmp::Reverse((one.epoch, one.seq, one.snapshot)));
        let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); sorted.len()];
        self.always(&sorted, &mut reasons);
        self.by_count_and_time(&sorted, &mut reasons);
        self.by_age_and_tag(&sorted, now, &mut reasons);
        let mut kept = Kept::default();
        for (one, reasons) in sorted.iter().zip(reasons) {
            match reasons.is_empty() {
                true => kept.forget.push(one.snapshot),
                false => kept.keep.push((one.snapshot, reasons)),
            }
        }
        Ok(kept)
    }

    /// What no policy lets go.
    fn always(&self, sorted: &[&Candidate], reasons: &mut [Vec<Reason>]) {
        let first = |level: Level| sorted.iter().position(|one| one.level >= level);
        let always = [
            (first(Level::Failed), Reason::Newest),
            (first(Level::Sealed), Reason::Latest),
            (first(Level::Restored), Reason::Restored),
        ];
        for (at, reason) in always {
            if let Some(at) = at {
                reasons[at].push(reason);
            }
        }
        for (one, reasons) in sorted.iter().zip(reasons) {
            if one.before_loss {
                reasons.push(Reason::Unacknowledged);
            }
        }
    }

    /// A snapshot that failed a restore test takes no place that a good one could have.
    fn by_count_and_time(&self, sorted: &[&Candidate], reasons: &mut [Vec<Reason>]) {
        let mut periods = [
            (Reason::Hourly, self.hourly, HashSet::new()),
            (Reason::Daily, self.daily, HashSet::new()),
            (Reason::Weekly, self.weekly, HashSet::new()),
            (Reason::Monthly, self.monthly, HashSet::new()),
        ];
        let mut last = 0;
        for (one, reasons) in sorted.iter().zip(reasons) {
            if one.level == Level::Failed {
                continue;
            }
            if last < self.last {
                last += 1;
                reasons.push(Reason::Last);
            }
            for (reason, count, seen) in &mut periods {
                if seen.len() < *count as usize && seen.insert(period(reason, one.time)) {
                    reasons.push(reason.clone());
                }
            }
        }
    }

    fn by_age_and_tag(&self, sorted: &[&Candidate], now: Time, reasons: &mut [Vec<Reason>]) {
        let newest = sorted.first().map(|one| one.time.min(now).as_nanos());
        let limit = self.within.and_then(|within| {
            let within = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
            newest.map(|newest| newest.saturating_sub(within))
        });
        for (one, reasons) in sorted.iter().zip(reasons) {
            if limit.is_some_and(|limit| one.time.as_nanos() >= limit) {
                reasons.push(Reason::Within);
            }
            for (name, wanted) in &self.tags {
                let value = one.tags.get(name);
                if value.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value)) {
                    reasons.push(Reason::Tag(match wanted {
                        Some(wanted) => format!("{name}={wanted}"),
                        None => name.clone(),
                    }));
                }
            }
        }
    }
}

/// The hour, day, ISO week or month of a time, in UTC; two times share a number where they share
/// the period.
fn period(reason: &Reason, time: Time) -> i64 {
    const HOUR_NANOS: i64 = 3_600_000_000_000;
    let date = jiff::Timestamp::from_nanosecond(i128::from(time.as_nanos()))
        .map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date());
    match (reason, date) {
        (Reason::Weekly, Ok(date)) => {
            let week = date.iso_week_date();
            i64::from(week.year()) * 100 + i64::from(week.week())
        }
        (Reason::Monthly, Ok(date)) => i64::from(date.year()) * 100 + i64::from(date.month()),
        (Reason::Daily, _) => time.as_nanos().div_euclid(24 * HOUR_NANOS),
        _ => time.as_nanos().div_euclid(HOUR_NANOS),
    }
}

#[cfg(test)]
mod tests;
