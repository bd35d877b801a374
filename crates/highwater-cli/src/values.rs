//! Values on the command line: pairs, sizes, durations, owners, levels.

use std::str::FromStr;
use std::time::Duration;

use highwater::vault::Level;

/// `NAME=VALUE`; the name is not empty, the value may hold further `=`.
pub(crate) fn pair<V: FromStr>(text: &str) -> Result<(String, V), String>
where
    V::Err: std::fmt::Display,
{
    let (name, value) = text.split_once('=').ok_or("there is no `=` in it")?;
    if name.is_empty() {
        return Err("there is no name before the `=`".to_owned());
    }
    let value = value.parse().map_err(|error| format!("`{value}`: {error}"))?;
    Ok((name.to_owned(), value))
}

/// A number of bytes, 1 at least: `4096`, `10M` or `10MiB` (10 × 1024²), `10MB` (10 × 1000²).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().map_err(|_| "write it as 4096, 10M or 1GiB".to_owned())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (base, power) = match unit.as_str() {
        "" | "b" => (1, 0),
        "k" | "kib" => (1024, 1),
        "m" | "mib" => (1024, 2),
        "g" | "gib" => (1024, 3),
        "t" | "tib" => (1024, 4),
        "kb" => (1000, 1),
        "mb" => (1000, 2),
        "gb" => (1000, 3),
        "tb" => (1000, 4),
        _ => return Err(format!("`{unit}` is not a unit of bytes: write it as 4096, 10M or 1GiB")),
    };
    let bytes = number.checked_mul(u64::pow(base, power)).ok_or("that is too large")?;
    if bytes == 0 { Err("it must be at least 1".to_owned()) } else { Ok(bytes) }
}

/// A duration: `30` (seconds), `500ms`, `26h`, `1day 2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| format!("write it as {DURATION_FORM}"))
}

/// How durations are written.
const DURATION_FORM: &str = "30 (seconds), 500ms, 26h or 1day 2h";

/// A tag with its value, or by its name alone: `K=V` or `K`.
pub(crate) fn tag(text: &str) -> Result<(String, Option<String>), String> {
    if text.is_empty() {
        return Err("the name of the tag is empty".to_owned());
    }
    match text.contains('=') {
        true => pair(text).map(|(name, value)| (name, Some(value))),
        false => Ok((text.to_owned(), None)),
    }
}

/// A duration of milliseconds, 1 at least: `500`, or with a unit: `500ms`, `2s`.
pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    let duration = match text.parse() {
        Ok(millis) => Duration::from_millis(millis),
        Err(_) => humantime::parse_duration(text)
            .map_err(|_| "write it as 500 (milliseconds), 500ms or 2s".to_owned())?,
    };
    if duration.is_zero() { Err("it must be at least 1".to_owned()) } else { Ok(duration) }
}

/// Owner and group as numbers: `1000:1000`.
pub(crate) fn owner(text: &str) -> Result<(u32, u32), String> {
    let wrong = || "write it as two numbers, UID:GID".to_owned();
    let (user, group) = text.split_once(':').ok_or_else(wrong)?;
    Ok((user.parse().map_err(|_| wrong())?, group.parse().map_err(|_| wrong())?))
}

/// A level of a snapshot.
pub(crate) fn level(text: &str) -> Result<Level, String> {
    match text {
        "sealed" => Ok(Level::Sealed),
        "restored" => Ok(Level::Restored),
        _ => Err("it is `sealed` or `restored`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_binary_and_decimal_units() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("10M"), Ok(10 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("3kb"), Ok(3000));
        for wrong in ["", "M", "-1", "1.5M", "10X", "0", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_of_plain_seconds_and_with_units() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("26h"), Ok(Duration::from_secs(26 * 3600)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("soon").is_err());
    }

    #[test]
    fn milliseconds_where_no_unit_is_given() {
        assert_eq!(millis("500"), Ok(Duration::from_millis(500)));
        assert_eq!(millis("2s"), Ok(Duration::from_secs(2)));
        for wrong in ["", "0", "-1", "soon"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pair_keeps_further_signs_in_its_value() {
        assert_eq!(pair::<String>("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair::<u64>("height=7"), Ok(("height".to_owned(), 7)));
        assert!(pair::<u64>("height=-7").is_err());
        assert!(pair::<String>("=b").is_err());
        assert!(pair::<String>("b").is_err());
    }

    #[test]
    fn owners_are_two_numbers() {
        assert_eq!(owner("1000:100"), Ok((1000, 100)));
        assert!(owner("1000").is_err());
        assert!(owner("root:root").is_err());
    }
}
