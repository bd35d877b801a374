//! What is read of a channel, and what is written to it, against the crates that the node is made of.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeMap;

use fiber_node::sample::{self, Sample, VERSION_09, VERSION_10};
use fiber_node::store::{channel_rows, other_rows};
use highwater::{Kind, guard::Phase};
use highwater_nodes::fiber::{self, ChannelState};

/// Channels of each state of each generation.
const EACH: u64 = 40;

/// Samples by the version of their store.
fn by_version(each: u64) -> BTreeMap<&'static str, Vec<Sample>> {
    let mut samples: BTreeMap<_, Vec<Sample>> = BTreeMap::new();
    for sample in sample::all(42, each) {
        samples.entry(sample.version).or_default().push(sample);
    }
    samples
}

#[test]
fn every_sample_is_read_as_its_own_crate_has_it() {
    let mut count = 0;
    for (version, samples) in by_version(EACH) {
        let read = fiber::channels(&channel_rows(version, &samples)).unwrap();
        let read: BTreeMap<_, _> =
            read.into_iter().map(|channel| (channel.id.0, channel)).collect();
        assert_eq!(read.len(), samples.len(), "{version}");
        for sample in samples {
            let channel = read[&sample.id];
            assert_eq!(
                (channel.state as u32, channel.flags, channel.local, channel.remote),
                (sample.state, sample.flags, sample.local, sample.remote),
                "{sample:?}"
            );
            assert_eq!(channel.waiting_ack, sample.waiting_ack, "{sample:?}");
            count += 1;
        }
    }
    println!("{count} channels are read as their own crates have them");
}

#[test]
fn marks_are_the_numbers_of_every_channel_that_is_signed_for() {
    for (version, samples) in by_version(20) {
        let rows = channel_rows(version, &samples);
        let marks = fiber::marks(&rows).unwrap();
        let channels = fiber::channels(&rows).unwrap();
        let signed = channels.iter().filter(|channel| channel.phase() != Phase::Funding);
        assert_eq!(marks.len(), 2 * signed.clone().count());
        for channel in signed {
            assert_eq!(marks[&format!("channel/{}/local", channel.id)], channel.local);
            assert_eq!(marks[&format!("channel/{}/remote", channel.id)], channel.remote);
        }
    }
}

/// The value as its own crate reads it, with another state.
macro_rules! with_state {
    ($types:ident, $value:expr, $state:ident) => {{
        let mut data: $types::ChannelActorData = $types::deserialize($value).unwrap();
        assert_eq!(data.state, $types::ChannelState::Stale);
        data.state = $types::ChannelState::$state;
        $types::serialize(&data).unwrap()
    }};
}

#[test]
fn what_is_marked_is_the_same_channel_in_the_state_stale() {
    let mut count = 0;
    for (version, samples) in by_version(EACH) {
        let mut rows = channel_rows(version, &samples);
        rows.extend(other_rows(1));
        let puts = match fiber::stale(&rows) {
            Ok(puts) => puts,
            Err(error) => {
                assert!(version < VERSION_09, "{error}");
                assert_eq!((error.kind(), error.entry()), (Kind::Input, Some("db-version")));
                continue;
            }
        };
        let mut puts: BTreeMap<Vec<u8>, Vec<u8>> = puts.into_iter().collect();
        for sample in samples.iter().filter(|sample| sample.state == ChannelState::ChannelReady as u32) {
            let value = puts.remove(&sample.key()).unwrap();
            // Of a store of this version the values of two generations look alike but for their ends.
            let nine = version == VERSION_09
                && fiber_types::deserialize::<fiber_types::ChannelActorData>(&value).is_err();
            let before = match nine {
                true => with_state!(fiber_types_09, &value, ChannelReady),
                false => with_state!(fiber_types, &value, ChannelReady),
            };
            assert_eq!(before, sample.value);
            let index = puts.remove(&sample.index_key()).unwrap();
            let index: fiber_types::ChannelState = fiber_types::deserialize(&index).unwrap();
            assert_eq!(index, fiber_types::ChannelState::Stale);
            count += 1;
        }
        assert!(puts.is_empty(), "{puts:?}");
    }
    println!("{count} channels are marked");
    assert!(count > 0);
}

#[test]
fn what_is_marked_once_is_not_written_again() {
    let samples = sample::v10::channels(VERSION_10, 7, 3);
    let mut rows = channel_rows(VERSION_10, &samples);
    let puts = fiber::stale(&rows).unwrap();
    assert_eq!(puts.len(), 6);
    rows.extend(puts);
    assert_eq!(fiber::stale(&rows).unwrap(), []);
}

#[test]
fn no_value_is_read_as_that_of_another_version() {
    for sample in sample::all(5, 20) {
        for version in [sample::VERSION_07, sample::VERSION_08, VERSION_09, VERSION_10] {
            let fits = version == sample.version
                // 0.10.0-rc1 in a store of its own version, and in one of what comes after it.
                || (version >= VERSION_09
                    && sample.version >= VERSION_09
                    && fiber_types::deserialize::<fiber_types::ChannelActorData>(&sample.value).is_ok());
            let read = fiber::channels(&channel_rows(version, std::slice::from_ref(&sample)));
            assert_eq!(read.is_ok(), fits, "{version} {sample:?} {read:?}");
        }
    }
}
