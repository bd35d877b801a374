//! Stores that the node's own crates have written, marked in place, and opened by those crates again.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fiber_node::sample::{self, Sample, VERSION_08, VERSION_09, VERSION_10};
use fiber_node::store::{Backend, Rows, Store, channel_rows, copy, make_node, other_rows};
use fiber_types::{ChannelActorData, ChannelState};
use highwater::Kind;
use highwater::guard::{Adapter as _, Phase};
use highwater_nodes::fiber::FiberAdapter;

const BACKENDS: [Backend; 2] = [Backend::RocksDb, Backend::Sqlite];

/// Rows as the node would see them, who takes what a crash has left.
fn rows_of_copy(node: &Path, backend: Backend) -> Rows {
    let scratch = tempfile::tempdir().unwrap();
    copy(&node.join("fiber/store"), scratch.path()).unwrap();
    Store::open(scratch.path(), backend).unwrap().rows().unwrap()
}

/// Marks the store of a node, and compares it with what it was. Tells how many channels were marked.
fn mark(node: &Path, backend: Backend) -> usize {
    let before = rows_of_copy(node, backend);
    let mut opened = FiberAdapter.open(node).unwrap();
    let channels = opened.channels().unwrap();
    for channel in &channels {
        if channel.phase == Phase::Open && opened.has_mark(&channel.id).unwrap() {
            opened.mark_stale(&channel.id).unwrap();
        }
    }
    let marked: BTreeSet<String> =
        FiberAdapter.open(node).unwrap().stale().unwrap().into_iter().collect();
    // A second time there is nothing to do.
    let once = rows_of_copy(node, backend);
    let mut again = FiberAdapter.open(node).unwrap();
    marked.iter().for_each(|id| again.mark_stale(id).unwrap());
    assert_eq!(rows_of_copy(node, backend), once);

    let after = Store::open(&node.join("fiber/store"), backend).unwrap().rows().unwrap();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let mut changed = BTreeMap::<String, usize>::new();
    for (key, before) in before {
        let after = &after[&key];
        let id = hex::encode(&key[key.len().saturating_sub(32)..]);
        let of_channel = matches!(key[0], 0 | 64);
        if *after == before {
            // What was marked already stays so.
            assert!(!of_channel || !marked.contains(&id) || before[..4] == [8, 0, 0, 0]);
            continue;
        }
        assert!(of_channel && marked.contains(&id), "{key:?}");
        *changed.entry(id).or_default() += 1;
        if key[0] == 64 {
            let state = |bytes| fiber_types::deserialize::<ChannelState>(bytes).unwrap();
            assert_eq!(
                (state(&before), state(after)),
                (ChannelState::ChannelReady, ChannelState::Stale)
            );
            continue;
        }
        let mut data: ChannelActorData = fiber_types::deserialize(after).unwrap();
        assert_eq!(data.state, ChannelState::Stale);
        data.state = ChannelState::ChannelReady;
        assert_eq!(fiber_types::serialize(&data).unwrap(), before);
    }
    assert!(changed.values().all(|rows| *rows == 2), "{changed:?}");
    changed.len()
}

/// The same channels with other numbers, as they were before.
fn older(samples: &[Sample]) -> Rows {
    let mut rows = channel_rows(VERSION_09, samples);
    for sample in samples {
        let mut data: ChannelActorData = fiber_types::deserialize(&sample.value).unwrap();
        data.commitment_numbers.local /= 2;
        data.state =
            ChannelState::AwaitingChannelReady(fiber_types::AwaitingChannelReadyFlags::empty());
        rows.insert(sample.key(), fiber_types::serialize(&data).unwrap());
        rows.insert(sample.index_key(), fiber_types::serialize(&data.state).unwrap());
    }
    rows
}

/// A node whose store has rows in tables, others over them in the log, and others in the log alone.
fn make(node: &Path, backend: Backend) -> Store {
    let samples = sample::v10::channels(VERSION_09, 11, 3);
    let mut store = make_node(node, backend, &older(&samples[..20])).unwrap();
    store.put(&other_rows(1)).unwrap();
    store.flush().unwrap();
    store.put(&channel_rows(VERSION_09, &samples[..12])).unwrap();
    store.flush().unwrap();
    store.put(&other_rows(2)).unwrap();
    for sample in &samples[12..] {
        store.put(&channel_rows(VERSION_09, std::slice::from_ref(sample))).unwrap();
    }
    store
}

#[test]
fn a_store_that_was_closed_is_marked_and_opened_by_its_own_crates() {
    for backend in BACKENDS {
        let node = tempfile::tempdir().unwrap();
        drop(make(node.path(), backend));
        assert_eq!(mark(node.path(), backend), 3, "{backend:?}");
        assert_eq!(mark(node.path(), backend), 0, "{backend:?}");
    }
}

#[test]
fn what_a_crash_has_left_is_marked_and_opened_by_its_own_crates() {
    for backend in BACKENDS {
        let scratch = tempfile::tempdir().unwrap();
        let (node, image) = (scratch.path().join("node"), scratch.path().join("image"));
        let store = make(&node, backend);
        copy(&node, &image).unwrap();
        assert_eq!(mark(&image, backend), 3, "{backend:?}");
        drop(store);
    }
}

/// The newest log of a RocksDB, or that of a SQLite.
fn log(store: &Path) -> std::path::PathBuf {
    let names = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let logs = names
        .filter(|path| path.extension().is_some_and(|end| end == "log" || end == "sqlite-wal"));
    logs.max().unwrap()
}

#[test]
fn a_torn_log_is_marked_and_opened_by_its_own_crates() {
    let (mut count, mut refused) = (0, 0);
    for backend in BACKENDS {
        let scratch = tempfile::tempdir().unwrap();
        let node = scratch.path().join("node");
        let store = make(&node, backend);
        let image = scratch.path().join("image");
        copy(&node, &image).unwrap();
        drop(store);
        let whole = fs::read(log(&image.join("fiber/store"))).unwrap();
        let mut numbers = sample::Numbers(3);
        for round in 0..40 {
            let torn = scratch.path().join(format!("torn-{round}"));
            copy(&image, &torn).unwrap();
            let cut = match round {
                0..8 => whole.len() - 1 - round,
                _ => usize::try_from(numbers.draw()).unwrap() % whole.len(),
            };
            let mut bytes = whole[..cut].to_vec();
            if round % 3 == 1 {
                // Blocks that were allocated, and not written.
                bytes.resize(whole.len() + 5000, 0);
            }
            fs::write(log(&torn.join("fiber/store")), bytes).unwrap();
            match FiberAdapter.open(&torn).unwrap().channels() {
                Ok(_) => count += mark(&torn, backend),
                // Half of a record, and zeros behind it, may be damage as well: it is not guessed.
                Err(error) => {
                    assert_eq!((error.kind(), round % 3), (Kind::Corrupt, 1), "{error}");
                    refused += 1;
                }
            }
            fs::remove_dir_all(torn).unwrap();
        }
    }
    println!("{count} channels were marked behind torn logs; {refused} logs were refused");
    assert!(count > 100, "{count}");
}

#[test]
fn a_node_that_knows_no_mark_is_listed_and_not_touched() {
    for backend in BACKENDS {
        let node = tempfile::tempdir().unwrap();
        let samples = sample::v08::channels(VERSION_08, 3, 2);
        drop(make_node(node.path(), backend, &channel_rows(VERSION_08, &samples)).unwrap());
        let before = rows_of_copy(node.path(), backend);
        let mut opened = FiberAdapter.open(node.path()).unwrap();
        let channels = opened.channels().unwrap();
        assert_eq!(channels.len(), samples.len());
        assert!(channels.iter().all(|channel| !opened.has_mark(&channel.id).unwrap()));
        assert!(opened.mark_stale(&channels[0].id).is_err());
        assert_eq!(opened.stale().unwrap(), [""; 0]);
        assert_eq!(rows_of_copy(node.path(), backend), before);
    }
}

#[test]
fn a_thousand_channels_are_marked_in_one_step() {
    for backend in BACKENDS {
        let node = tempfile::tempdir().unwrap();
        let one = sample::v10::mixed(5, ChannelState::ChannelReady);
        let samples: Vec<Sample> = (0..1000)
            .map(|number| {
                let mut data = one.clone();
                data.id = sample::id(number);
                sample::v10::stored(VERSION_10, &data)
            })
            .collect();
        let rows = channel_rows(VERSION_10, &samples);
        drop(make_node(node.path(), backend, &rows).unwrap());
        let logs = || fs::read_dir(node.path().join("fiber/store")).unwrap().count();
        let before = logs();
        assert_eq!(mark(node.path(), backend), 1000);
        // One more log, of a RocksDB that was opened since, and no more than a handful of files.
        assert!(logs() <= before + 8, "{before} {}", logs());
    }
}
