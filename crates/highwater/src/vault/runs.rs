//! The map from a file's units to places in packs: runs, compact, so that an increment of a large
//! database writes little beside what changed.

use crate::error::{Error, Result};

/// Bytes of content under one leaf of a map.
pub(crate) const LEAF_BYTES: u64 = 1 << 30;

/// Neighbouring units of a file that are neighbours in a pack, or all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) count: u32,
    /// `None`: zero bytes, stored nowhere.
    pub(crate) at: Option<UnitPlace>,
}

/// A unit in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitPlace {
    /// The pack, by its place in the leaf's list.
    pub(crate) pack: u32,
    /// The unit, counted through the pack.
    pub(crate) unit: u32,
}

/// Adds a unit to the end of a list of runs.
pub(crate) fn push(runs: &mut Vec<Run>, at: Option<UnitPlace>) {
    if let Some(last) = runs.last_mut() {
        let next = match (last.at, at) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                a.pack == b.pack && a.unit.checked_add(last.count) == Some(b.unit)
            }
            _ => false,
        };
        if next && last.count < u32::MAX {
            last.count += 1;
            return;
        }
    }
    runs.push(Run { count: 1, at });
}

/// Runs as bytes: for each a varint of its count, a varint of pack + 1 (0: zero bytes), and for a
/// stored one the zigzag varint of its unit less the unit after the last run of the same list.
pub(crate) fn encode(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(runs.len() * 4);
    let mut expected = 0;
    for run in runs {
        put_varint(&mut bytes, u64::from(run.count));
        let Some(at) = run.at else {
            put_varint(&mut bytes, 0);
            continue;
        };
        put_varint(&mut bytes, u64::from(at.pack) + 1);
        let delta = i64::from(at.unit) - expected;
        put_varint(&mut bytes, ((delta << 1) ^ (delta >> 63)) as u64);
        expected = i64::from(at.unit) + i64::from(run.count);
    }
    bytes
}

/// The runs that [`encode`] made; they cover exactly `units` units and name packs below `packs`.
pub(crate) fn decode(mut bytes: &[u8], units: u64, packs: usize) -> Result<Vec<Run>> {
    let wrong = || Error::corrupt("the map of a file is damaged");
    let mut runs = Vec::new();
    let mut covered = 0_u64;
    let mut expected = 0_i64;
    while !bytes.is_empty() {
        let count =
            u32::try_from(take_varint(&mut bytes).ok_or_else(wrong)?).map_err(|_| wrong())?;
        let pack = take_varint(&mut bytes).ok_or_else(wrong)?;
        covered += u64::from(count);
        if count == 0 || covered > units || pack > packs as u64 {
            return Err(wrong());
        }
        if pack == 0 {
            runs.push(Run { count, at: None });
            continue;
        }
        let zigzag = take_varint(&mut bytes).ok_or_else(wrong)?;
        let delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let unit = expected.checked_add(delta).ok_or_else(wrong)?;
        let unit = u32::try_from(unit).map_err(|_| wrong())?;
        expected = i64::from(unit) + i64::from(count);
        runs.push(Run { count, at: Some(UnitPlace { pack: (pack - 1) as u32, unit }) });
    }
    if covered != units {
        return Err(wrong());
    }
    Ok(runs)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_come_back_as_they_were(
            units in proptest::collection::vec(
                proptest::option::of((0_u32..5, 0_u32..50)), 0..300)
        ) {
            let mut runs = Vec::new();
            for unit in &units {
                push(&mut runs, unit.map(|(pack, unit)| UnitPlace { pack, unit }));
            }
            let bytes = encode(&runs);
            prop_assert_eq!(decode(&bytes, units.len() as u64, 5).unwrap(), runs);
        }

        #[test]
        fn damaged_runs_are_an_error_or_other_runs_but_no_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64), units in 0_u64..100
        ) {
            if let Ok(runs) = decode(&bytes, units, 3) {
                prop_assert_eq!(runs.iter().map(|run| u64::from(run.count)).sum::<u64>(), units);
            }
        }
    }

    #[test]
    fn a_whole_gibibyte_in_order_takes_a_few_bytes() {
        let runs = [Run { count: 262_144, at: Some(UnitPlace { pack: 0, unit: 0 }) }];
        assert_eq!(encode(&runs).len(), 5);
    }

    /// The example of `docs/vault-format.md`.
    #[test]
    fn the_documented_example_is_what_is_written() {
        let at = |pack, unit| Some(UnitPlace { pack, unit });
        let runs = [
            Run { count: 4, at: at(0, 0) },
            Run { count: 2, at: None },
            Run { count: 3, at: at(1, 7) },
            Run { count: 1, at: at(0, 4) },
        ];
        let bytes = encode(&runs);
        assert_eq!(bytes, [4, 1, 0, 2, 0, 3, 2, 6, 1, 1, 11]);
        let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD_NO_PAD, &bytes);
        assert_eq!(text, "BAEAAgADAgYBAQs");
        assert_eq!(decode(&bytes, 10, 2).unwrap(), runs);
        assert!(decode(&bytes, 10, 1).is_err(), "a pack that is not listed");
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], 10, 2).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn the_largest_places_go_there_and_back() {
        let far =
            Run { count: u32::MAX, at: Some(UnitPlace { pack: u32::MAX - 1, unit: u32::MAX }) };
        let near = Run { count: 1, at: Some(UnitPlace { pack: 0, unit: 0 }) };
        let units = u64::from(u32::MAX) + 1;
        let bytes = encode(&[far, near]);
        assert_eq!(decode(&bytes, units, u32::MAX as usize).unwrap(), [far, near]);
    }

    #[test]
    fn runs_that_cover_too_little_or_too_much_are_refused() {
        let bytes = encode(&[Run { count: 3, at: None }]);
        assert!(decode(&bytes, 2, 0).is_err());
        assert!(decode(&bytes, 4, 0).is_err());
        assert!(decode(&bytes, 3, 0).is_ok());
    }
}
