//! Wall-clock time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How much the clocks of two machines may differ.
const CLOCK_DIFFERENCE_NANOS_MAX: i64 = 5 * 60 * 1_000_000_000;

/// A wall-clock time, in nanoseconds since the Unix epoch. In JSON an RFC 3339 text in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

impl Time {
    /// From nanoseconds since the Unix epoch.
    pub fn from_nanos(nanos: i64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds from `earlier` to this; 0 where that is later.
    pub fn seconds_since(self, earlier: Time) -> u64 {
        u64::try_from((self.0.saturating_sub(earlier.0)) / 1_000_000_000).unwrap_or(0)
    }

    /// Whether this lies in the future: further ahead than the clocks of two machines may differ. Then
    /// one of the clocks is wrong, and how old it is can't be told.
    pub fn is_ahead_of(self, now: Time) -> bool {
        self.0.saturating_sub(now.0) > CLOCK_DIFFERENCE_NANOS_MAX
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Time> {
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| {
            Error::input(format!("`{text}` is not a time"))
                .with_remedy("write it as 2026-11-21T08:30:00Z, or with an offset")
        })?;
        i64::try_from(timestamp.as_nanosecond())
            .map(Time)
            .map_err(|_| Error::input(format!("`{text}` is out of range")))
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
