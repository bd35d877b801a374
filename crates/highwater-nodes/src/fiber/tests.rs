//! Channels that the node's own crate has written; `examples/fiber-node` makes them, and compares far more.

use std::fs;
use std::path::Path;

use highwater::Kind;
use highwater::guard::{Adapter as _, GuardedStore};
use rusqlite::Connection;

use super::*;

/// A line of `fixtures.txt`: a channel as its own crate reads it.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    version: &'static str,
    pub(crate) id: String,
    pub(crate) state: u32,
    flags: u32,
    pub(crate) local: u64,
    pub(crate) remote: u64,
    waiting_ack: bool,
    key: Vec<u8>,
    index_key: Vec<u8>,
    value: Vec<u8>,
    index: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    let lines = include_str!("fixtures.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(fixture).collect()
}

fn fixture(line: &'static str) -> Fixture {
    let words: Vec<&str> = line.split(' ').collect();
    let [version, id, peer, state, flags, local, remote, waiting_ack, value, index] = words[..]
    else {
        panic!("{line}");
    };
    let bytes = |text| hex::decode(text).unwrap();
    Fixture {
        version,
        id: id.to_owned(),
        state: state.parse().unwrap(),
        flags: flags.parse().unwrap(),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        waiting_ack: waiting_ack.parse().unwrap(),
        key: [&[0], &bytes(id)[..]].concat(),
        index_key: [&[64], &bytes(peer)[..], &bytes(id)[..]].concat(),
        value: bytes(value),
        index: bytes(index),
    }
}

/// Every state once, in a store of one version.
pub(crate) fn of_each_state() -> Vec<Fixture> {
    fixtures().into_iter().take(ChannelState::ALL.len()).collect()
}

fn rows_of(fixtures: &[Fixture]) -> Rows {
    let mut rows = Rows::new();
    for fixture in fixtures {
        rows.insert(VERSION.to_vec(), fixture.version.into());
        rows.insert(fixture.key.clone(), fixture.value.clone());
        rows.insert(fixture.index_key.clone(), fixture.index.clone());
    }
    rows
}

/// Rows that are none of a channel.
fn others() -> Rows {
    [1, 16, 32, 63, 65, 96, 192, 234]
        .into_iter()
        .map(|kind| ([&[kind][..], &[7; 32]].concat(), vec![kind; 5000]))
        .collect()
}

/// A node that has a channel of each state.
pub(crate) fn write_node(dir: &Path) {
    for name in ["fiber/sk", "ckb/key"] {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), "a key").unwrap();
    }
    drop(write_store(&dir.join("fiber/store"), &of_each_state()));
}

/// A store in SQLite, as the node makes it.
fn write_store(dir: &Path, fixtures: &[Fixture]) -> Connection {
    write_rows(dir, &[rows_of(fixtures), others()].map(Vec::from_iter).concat())
}

fn write_rows(dir: &Path, rows: &[(Vec<u8>, Vec<u8>)]) -> Connection {
    fs::create_dir_all(dir).unwrap();
    let database = Connection::open(dir.join(SQLITE)).unwrap();
    let make = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                CREATE TABLE IF NOT EXISTS kv_store (key BLOB PRIMARY KEY NOT NULL, \
                value BLOB NOT NULL) WITHOUT ROWID;";
    database.execute_batch(make).unwrap();
    for row in rows {
        database.execute("INSERT INTO kv_store VALUES (?1, ?2)", (&row.0, &row.1)).unwrap();
    }
    database
}

fn read_rows(dir: &Path) -> Rows {
    let database = Connection::open(dir.join(SQLITE)).unwrap();
    let mut select = database.prepare("SELECT key, value FROM kv_store").unwrap();
    let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn channels_of_every_version_and_state_are_read_as_their_own_crate_has_them() {
    let fixtures = fixtures();
    for fixture in &fixtures {
        let [channel] = channels(&rows_of(std::slice::from_ref(fixture))).unwrap()[..] else {
            panic!("{fixture:?}");
        };
        let state = ChannelState::ALL[fixture.state as usize];
        assert_eq!(channel.id.to_string(), fixture.id);
        assert_eq!((channel.state, channel.flags), (state, fixture.flags));
        assert_eq!((channel.local, channel.remote), (fixture.local, fixture.remote));
        assert_eq!(channel.waiting_ack, fixture.waiting_ack);
    }
    let versions: std::collections::BTreeSet<_> =
        fixtures.iter().map(|fixture| fixture.version.as_bytes()).collect();
    assert!(VERSIONS.iter().all(|(version, _)| versions.contains(version)));
    let states: Vec<u32> = of_each_state().iter().map(|fixture| fixture.state).collect();
    assert_eq!(states, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn only_channels_in_use_are_marked_and_only_their_state_changes() {
    let rows = rows_of(&of_each_state());
    let puts: Rows = stale(&rows).unwrap().into_iter().collect();
    let in_use = &of_each_state()[ChannelState::ChannelReady as usize];
    assert_eq!(puts.keys().collect::<Vec<_>>(), [&in_use.key, &in_use.index_key]);
    assert_eq!(puts[&in_use.key][..4], [8, 0, 0, 0]);
    assert_eq!(puts[&in_use.key][4..], in_use.value[4..]);
    assert_eq!(puts[&in_use.index_key], [8, 0, 0, 0]);
    let marked: Rows = rows.into_iter().chain(puts).collect();
    assert_eq!(stale(&marked).unwrap(), []);
    let before = channels(&rows_of(&of_each_state())).unwrap();
    for (before, after) in before.into_iter().zip(channels(&marked).unwrap()) {
        let state = match before.state {
            ChannelState::ChannelReady => ChannelState::Stale,
            state => state,
        };
        assert_eq!(Channel { state, ..before }, after);
    }
}

#[test]
fn what_could_be_punished_is_open_and_has_marks() {
    let channel = |state, flags, waiting_ack| {
        let id = ChannelId([0; 32]);
        Channel { id, peer: [2; KEY_BYTES], state, flags, local: 5, remote: 4, waiting_ack }.phase()
    };
    for state in ChannelState::ALL {
        let phase = match state {
            ChannelState::NegotiatingFunding | ChannelState::CollaboratingFundingTx => {
                Phase::Funding
            }
            ChannelState::Closed => Phase::Closed,
            _ => Phase::Open,
        };
        assert_eq!(channel(state, 0, false), phase, "{state:?}");
    }
    assert_eq!(channel(ChannelState::NegotiatingFunding, 4, false), Phase::Open);
    assert_eq!(channel(ChannelState::CollaboratingFundingTx, 4, false), Phase::Funding);
    assert_eq!(channel(ChannelState::CollaboratingFundingTx, 12, false), Phase::Open);
    assert_eq!(channel(ChannelState::CollaboratingFundingTx, 0, true), Phase::Open);

    let rows = rows_of(&of_each_state());
    let found = marks(&rows).unwrap();
    for channel in channels(&rows).unwrap() {
        let name = |what| channel_mark(&channel.id.to_string(), what);
        let there = channel.phase() != Phase::Funding;
        let local = found.get(&name("local")).copied();
        let remote = found.get(&name("remote")).copied();
        assert_eq!(local, there.then_some(channel.local));
        assert_eq!(remote, there.then_some(channel.remote));
    }
}

#[test]
fn a_signature_that_was_not_answered_counts_as_given() {
    let id = ChannelId([0; 32]);
    let state = ChannelState::ChannelReady;
    let peer = [2; KEY_BYTES];
    let channel = Channel { id, peer, state, flags: 0, local: 5, remote: 4, waiting_ack: true };
    let ours = Ours { signed: Some(6), revoked: 4, received: 5, closing: false, epoch: 0 };
    assert_eq!(channel.ours(), ours);
    assert_eq!(Channel { waiting_ack: false, ..channel }.ours().signed, Some(5));
    assert!(Channel { state: ChannelState::ShuttingDown, ..channel }.ours().closing);
}

fn refused(rows: &Rows, kind: Kind, entry: &str) {
    let error = stale(rows).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (kind, Some(entry)), "{error}");
}

#[test]
fn a_version_that_is_not_known_or_knows_no_stale_is_not_touched() {
    let mut rows = rows_of(&of_each_state());
    rows.insert(VERSION.to_vec(), b"20300101000000".to_vec());
    refused(&rows, Kind::Input, "db-version");
    assert_eq!(channels(&rows).unwrap_err().kind(), Kind::Input);
    assert_eq!(marks(&rows).unwrap_err().kind(), Kind::Input);
    rows.insert(VERSION.to_vec(), vec![0xFF; 1 << 20]);
    assert!(stale(&rows).unwrap_err().to_string().len() < 1000);
    rows.remove(VERSION);
    refused(&rows, Kind::Corrupt, "db-version");
    // A store that was just made.
    assert_eq!(stale(&Rows::new()).unwrap(), []);

    for fixture in fixtures().iter().filter(|fixture| fixture.version < "20260618120000") {
        let rows = rows_of(std::slice::from_ref(fixture));
        assert_eq!(marks(&rows).unwrap().len(), 2);
        refused(&rows, Kind::Input, "db-version");
    }

    let mut hosted = rows_of(&of_each_state());
    hosted.insert(b"\xfffnn/node-namespace/v1/\0".to_vec(), vec![1]);
    assert_eq!(stale(&hosted).unwrap_err().kind(), Kind::Input);
}

#[test]
fn rows_that_contradict_each_other_are_an_error() {
    let in_use = of_each_state().remove(ChannelState::ChannelReady as usize);
    let rows = rows_of(std::slice::from_ref(&in_use));
    let index = row(&in_use.index_key);

    let mut lacking = rows.clone();
    lacking.remove(&in_use.index_key);
    refused(&lacking, Kind::Corrupt, &index);
    let mut closing = rows.clone();
    closing.insert(in_use.index_key.clone(), vec![6, 0, 0, 0, 1, 0, 0, 0]);
    refused(&closing, Kind::Corrupt, &index);
    let mut long = rows.clone();
    long.insert(in_use.index_key.clone(), vec![5, 0, 0, 0, 0]);
    refused(&long, Kind::Corrupt, &index);

    // The row of another channel, and one without an id.
    for key in [[&[0][..], &[3; 32]].concat(), vec![0]] {
        let mut another = rows.clone();
        another.insert(key.clone(), in_use.value.clone());
        refused(&another, Kind::Corrupt, &row(&key));
    }
    // Half of a mark is completed.
    let mut half = rows;
    half.insert(in_use.index_key.clone(), vec![8, 0, 0, 0]);
    let [(key, _)] = &stale(&half).unwrap()[..] else { panic!("{half:?}") };
    assert_eq!(key, &in_use.key);
}

#[test]
fn a_value_that_is_cut_or_longer_is_no_value() {
    for fixture in fixtures() {
        for length in 0..fixture.value.len() {
            let mut rows = rows_of(std::slice::from_ref(&fixture));
            rows.insert(fixture.key.clone(), fixture.value[..length].to_vec());
            // 0.9 and 0.10.0-rc1 share a version, and differ in the last byte.
            let nine = fixture.version == "20260618120000" && length + 1 == fixture.value.len();
            match channels(&rows) {
                Ok(read) => {
                    assert!(nine, "{length} of {}", fixture.value.len());
                    assert_eq!(read, channels(&rows_of(std::slice::from_ref(&fixture))).unwrap());
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt);
                    assert_eq!(error.entry(), Some(row(&fixture.key).as_str()));
                }
            }
        }
        for more in [[0].as_slice(), &[1], &[0; 8], &[2; 4000]] {
            let mut rows = rows_of(std::slice::from_ref(&fixture));
            rows.insert(fixture.key.clone(), [&fixture.value, more].concat());
            let read = channels(&rows);
            // The last byte of the later generation.
            if read.is_ok() {
                assert_eq!((fixture.version, more.len()), ("20260618120000", 1));
            }
        }
    }
}

/// Every bit of some values is turned: no panic, and either an error, or a channel of the same name; what is
/// marked of it differs from what was read in its state alone.
#[test]
fn no_bit_that_is_turned_makes_a_guess() {
    let (mut refused, mut read) = (0, 0);
    for fixture in
        fixtures().iter().filter(|fixture| fixture.state == ChannelState::ChannelReady as u32)
    {
        let name = channels(&rows_of(std::slice::from_ref(fixture))).unwrap()[0].id;
        for bit in 0..fixture.value.len() * 8 {
            let mut rows = rows_of(std::slice::from_ref(fixture));
            let mut value = fixture.value.clone();
            value[bit / 8] ^= 1 << (bit % 8);
            rows.insert(fixture.key.clone(), value.clone());
            match channels(&rows) {
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
                    refused += 1;
                }
                Ok(found) => {
                    assert_eq!((found.len(), found[0].id), (1, name), "bit {bit}");
                    read += 1;
                    // The peer's key may be another one now: then the index lacks it.
                    for (key, put) in stale(&rows).unwrap_or_default() {
                        let before = &rows[&key];
                        assert_eq!((&put[..4], &put[4..]), (&[8, 0, 0, 0][..], &before[4..]));
                    }
                }
            }
        }
    }
    assert!(refused > 10_000 && read > 10_000, "{refused} are refused, {read} are read");
}

/// Lengths and counts of which nothing is there take neither memory nor time.
#[test]
fn counts_that_are_only_claimed_end_with_the_bytes() {
    for fixture in fixtures().iter().take(9) {
        for at in 0..fixture.value.len() - 8 {
            let mut value = fixture.value.clone();
            value[at..at + 8].fill(0xFF);
            let mut rows = rows_of(std::slice::from_ref(fixture));
            rows.insert(fixture.key.clone(), value);
            let _ = channels(&rows);
        }
    }
}

fn open(dir: &Path) -> Box<dyn GuardedStore> {
    FiberAdapter.open(dir).unwrap()
}

#[test]
fn a_store_in_sqlite_is_marked_and_nothing_else_in_it_changes() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("fiber/store");
    // The log has all of it.
    let writer = write_store(&store, &of_each_state());
    let log = fs::read(store.join("data.sqlite-wal")).unwrap();
    let main = fs::read(store.join(SQLITE)).unwrap();
    drop(writer);
    fs::write(store.join(SQLITE), main).unwrap();
    fs::write(store.join("data.sqlite-wal"), log).unwrap();

    let mut opened = open(scratch.path());
    let records = opened.channels().unwrap();
    assert_eq!(records.len(), ChannelState::ALL.len());
    let of_state = |state: ChannelState| of_each_state().remove(state as usize);
    let (in_use, old) = (of_state(ChannelState::ChannelReady), of_state(ChannelState::Stale));
    assert_eq!(opened.stale().unwrap(), [old.id.as_str()]);
    for ChannelRecord { id, .. } in &records {
        let marks = *id == in_use.id || *id == old.id;
        assert_eq!(opened.has_mark(id).unwrap(), marks, "{id}");
    }
    for id in [&in_use.id, &old.id] {
        opened.mark_stale(id).unwrap();
    }
    for id in [&of_state(ChannelState::ShuttingDown).id, "another"] {
        assert_eq!(opened.mark_stale(id).unwrap_err().kind(), Kind::NotFound);
    }
    let log = fs::metadata(store.join("data.sqlite-wal")).map(|found| found.len());
    assert!(log.is_err(), "{log:?}");
    let mut marked = [in_use.id.as_str(), &old.id];
    marked.sort_unstable();
    assert_eq!(open(scratch.path()).stale().unwrap(), marked);

    let before = [rows_of(&of_each_state()), self::others()];
    for (key, value) in read_rows(&store) {
        let before = before.iter().find_map(|rows| rows.get(&key)).unwrap();
        let marked = key == in_use.key || key == in_use.index_key;
        assert_eq!(value[..4] != before[..4], marked);
        assert_eq!(value[4..], before[4..]);
    }
    assert_eq!(read_rows(&store).len(), before.iter().map(Rows::len).sum::<usize>());
}

#[test]
fn nothing_is_written_where_a_store_of_the_node_is_not_known() {
    let scratch = tempfile::tempdir().unwrap();
    let own = scratch.path().join("fiber/store");
    drop(write_store(&own, &of_each_state()));
    let hosted = scratch.path().join("lsp/tenants/u1");
    drop(write_store(&hosted, &of_each_state()));
    let known = open(scratch.path()).channels().unwrap();
    assert_eq!(known.len(), 2 * ChannelState::ALL.len());
    let in_use = of_each_state().remove(ChannelState::ChannelReady as usize).id;
    assert!(known.iter().any(|record| record.id == in_use));
    assert!(known.iter().any(|record| record.id == format!("lsp/tenants/u1/{in_use}")));

    let version = "UPDATE kv_store SET value = ?1 WHERE key = ?2";
    let database = Connection::open(hosted.join(SQLITE)).unwrap();
    database.execute(version, (b"20260812120000", VERSION)).unwrap();
    drop(database);
    let before = read_rows(&own);
    let error = open(scratch.path()).mark_stale(&in_use).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Input, Some("lsp/tenants/u1: db-version")));
    assert_eq!(read_rows(&own), before);
}

#[test]
fn channels_of_a_node_without_such_a_state_are_listed_and_have_no_mark() {
    for fixture in fixtures().iter().filter(|fixture| fixture.version < "20260618120000") {
        let scratch = tempfile::tempdir().unwrap();
        let store = scratch.path().join("fiber/store");
        drop(write_store(&store, std::slice::from_ref(fixture)));
        let before = read_rows(&store);
        let mut opened = open(scratch.path());
        let [record] = &opened.channels().unwrap()[..] else { panic!("{fixture:?}") };
        assert_eq!((&record.id, record.phase), (&fixture.id, Phase::Open));
        assert!(!opened.has_mark(&fixture.id).unwrap());
        assert_eq!(opened.mark_stale(&fixture.id).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(opened.stale().unwrap(), [""; 0]);
        assert_eq!(read_rows(&store), before);
    }
}

#[test]
fn half_of_a_mark_is_none() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("fiber/store");
    let mut half = of_each_state().remove(ChannelState::Stale as usize);
    half.index = vec![5, 0, 0, 0];
    drop(write_store(&store, std::slice::from_ref(&half)));
    assert_eq!(open(scratch.path()).stale().unwrap(), [""; 0]);
    open(scratch.path()).mark_stale(&half.id).unwrap();
    assert_eq!(open(scratch.path()).stale().unwrap(), [half.id]);
}

#[test]
fn a_database_that_does_more_than_keep_rows_is_refused() {
    for sql in [
        "CREATE TRIGGER t AFTER UPDATE ON kv_store BEGIN DELETE FROM kv_store; END;",
        "ALTER TABLE kv_store RENAME TO kv; CREATE VIEW kv_store AS SELECT * FROM kv;",
        "DROP TABLE kv_store; CREATE VIRTUAL TABLE kv_store USING dbstat;",
        "DROP TABLE kv_store;",
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let database = write_store(&scratch.path().join("fiber/store"), &of_each_state());
        let made = database.execute_batch(sql);
        assert!(made.is_ok() || sql.contains("VIRTUAL"), "{made:?}");
        drop(database);
        if made.is_ok() {
            let error = open(scratch.path()).channels().unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{sql}: {error}");
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("fiber/store");
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join(SQLITE), [7; 5000]).unwrap();
    assert_eq!(open(scratch.path()).channels().unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn no_store_is_reached_by_a_link() {
    let scratch = tempfile::tempdir().unwrap();
    let elsewhere = scratch.path().join("elsewhere");
    drop(write_store(&elsewhere, &of_each_state()));
    let node = scratch.path().join("node");
    fs::create_dir_all(node.join("fiber")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, node.join("fiber/store")).unwrap();
    fs::create_dir_all(node.join("lsp/store")).unwrap();
    let main = elsewhere.join(SQLITE);
    std::os::unix::fs::symlink(main, node.join("lsp/store").join(SQLITE)).unwrap();
    assert_eq!(open(&node).channels().unwrap(), []);
}
