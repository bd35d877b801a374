//! Sizes, ages and times, as people read them.

use highwater::ids::Time;

/// Bytes in binary units: `312 B`, `4.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// A length of time in one unit or two: `45 s`, `3 h 12 min`, `2 d 4 h`.
pub(super) fn lengths(seconds: u64) -> Vec<(u64, &'static str)> {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => vec![(seconds, "s")],
        60..3600 => vec![(minutes, "min")],
        3600..86_400 => vec![(hours, "h"), (minutes % 60, "min")],
        _ => vec![(days, "d"), (hours % 24, "h")],
    }
}

/// The same as text.
pub(super) fn age(seconds: u64) -> String {
    let parts = lengths(seconds).into_iter().map(|(number, unit)| format!("{number} {unit}"));
    parts.collect::<Vec<_>>().join(" ")
}

/// How long something took: `340 ms`, `2.1 s`, `3 min`, `1 h 4 min`.
pub(super) fn duration(from: Time, to: Time) -> String {
    let millis =
        u64::try_from(to.as_nanos().saturating_sub(from.as_nanos())).unwrap_or(0) / 1_000_000;
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => age(millis / 1000),
    }
}

/// `1 file`, `3 files`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A moment, for people and for programs, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// `2026-11-21T08:30:00Z`, for `<time datetime>`.
    pub(super) iso: String,
    /// `2026-11-21 08:30:00`.
    pub(super) text: String,
    /// How far it is from now: `3 h 12 min ago`, `in 45 s`, `now`.
    pub(super) distance: String,
}

impl Moment {
    pub(super) fn new(time: Time, now: Time) -> Moment {
        const SECOND: i64 = 1_000_000_000;
        let nanos = time.as_nanos();
        let iso = Time::from_nanos(nanos - nanos.rem_euclid(SECOND)).to_string();
        let text = iso.replace('T', " ").replace('Z', "");
        let distance = match (now.seconds_since(time), time.seconds_since(now)) {
            (0, 0) => "now".to_owned(),
            (past @ 1.., _) => format!("{} ago", age(past)),
            (_, ahead) => format!("in {}", age(ahead)),
        };
        Moment { iso, text, distance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_the_program_prints() {
        let texts = [0, 1023, 1024, 5 << 20, u64::MAX].map(bytes);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "16.0 EiB"]);
    }

    #[test]
    fn ages_have_two_units_at_most() {
        assert_eq!(age(59), "59 s");
        assert_eq!(age(3 * 3600 + 12 * 60), "3 h 12 min");
        assert_eq!(age(3600 * 26 + 60), "1 d 2 h");
    }

    #[test]
    fn what_took_a_moment_took_milliseconds() {
        let took =
            |millis: i64| duration(Time::from_nanos(0), Time::from_nanos(millis * 1_000_000));
        assert_eq!([took(340), took(2150), took(-1)], ["340 ms", "2.1 s", "0 ms"]);
        assert_eq!(took(64 * 60_000), "1 h 4 min");
    }

    #[test]
    fn a_moment_is_in_utc_and_cut_to_the_second() {
        let time = |seconds: i64| Time::from_nanos(seconds * 1_000_000_000 + 5);
        let moment = Moment::new(time(60), time(3600));
        assert_eq!(moment.iso, "1970-01-01T00:01:00Z");
        assert_eq!(moment.text, "1970-01-01 00:01:00");
        assert_eq!(moment.distance, "59 min ago");
        assert_eq!(Moment::new(time(90), time(60)).distance, "in 30 s");
        assert_eq!(Moment::new(time(60), time(60)).distance, "now");
    }
}
