//! Nodes that are captured while they write: the marks are those of one instant, and those of what is restored.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]
#![allow(clippy::print_stdout, reason = "how much was found is for who reads the test's output")]

mod bbolt;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use highwater::backup::{self, BackupOptions, BackupReport};
use highwater::engine::freeze::Freeze;
use highwater::guard::{self, GuardKind, Which};
use highwater::restore::{self, RestoreOptions};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Selector, Vault};
use highwater::{Control, Env, Result};
use highwater_nodes::Known;
use rusqlite::Connection;

use bbolt::{Channel, CommittedState, Lnd, Program};

const BACKUPS: usize = 6;
/// So many at most, where some come before it has written, or after.
const BACKUPS_MAX: usize = 60;

/// Writes until its input ends. Each step of it raises one counter of a channel, and in the same instant what all of
/// them come to.
const WRITER: &str = r#"
import os, random, select, sqlite3, sys
kind, place, gap = sys.argv[1], sys.argv[2], float(sys.argv[3])
dice = random.Random(7)
ids = ['%064x' % (number + 1) for number in range(9)]

def begin():
    if kind == 'ldk-filesystem':
        for folder in ('monitors', 'monitor_updates'):
            os.makedirs(os.path.join(place, folder))
        for channel in ids:
            put('monitors/%s_0' % channel, b'\x01\x01' + bytes(8) + bytes(90))
            os.makedirs(os.path.join(place, 'monitor_updates', channel + '_0'))
        put('manager', b'0')
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    db.execute('PRAGMA journal_mode = %s' % ('WAL' if kind == 'lnd' else 'DELETE'))
    db.execute('BEGIN')
    if kind == 'core-lightning':
        db.execute('CREATE TABLE vars (name TEXT PRIMARY KEY, intval INTEGER)')
        db.execute('CREATE TABLE channels (id INTEGER PRIMARY KEY, next_index_local INTEGER, '
                   'next_index_remote INTEGER, full_channel_id BLOB)')
        db.execute("INSERT INTO vars VALUES ('data_version', 0)")
        db.executemany('INSERT INTO channels VALUES (?, 0, 0, ?)',
                       [(number, bytes.fromhex(channel)) for number, channel in enumerate(ids)])
    if kind == 'ldk-node':
        db.execute('CREATE TABLE ldk_node_data (primary_namespace TEXT, secondary_namespace TEXT, key TEXT, '
                   'value BLOB, PRIMARY KEY (primary_namespace, secondary_namespace, key))')
        db.execute("INSERT INTO ldk_node_data VALUES ('', '', 'manager', '0')")
        db.executemany("INSERT INTO ldk_node_data VALUES ('monitors', '', ?, ?)",
                       [(channel, b'\x01\x01' + bytes(8) + bytes(900)) for channel in ids])
    if kind == 'lnd':
        db.execute('CREATE TABLE channeldb_kv (key BLOB, value BLOB, parent_id INTEGER, id INTEGER PRIMARY KEY, '
                   'sequence INTEGER)')
        db.execute('CREATE INDEX p ON channeldb_kv (parent_id)')
        open_ = bucket(b'open-chan-bucket', None)
        chain = bucket(b'\x06' * 32, bucket(b'\x02' * 33, open_))
        for channel in ids:
            it = bucket(bytes.fromhex(channel) + bytes(4), chain)
            row(b'chan-commitment-key\x00', it)
            row(b'chan-commitment-key\x01', it)
        row(b'sum', None)
    db.execute('COMMIT')

def bucket(key, parent):
    return db.execute('INSERT INTO channeldb_kv (key, parent_id) VALUES (?, ?)', (key, parent)).lastrowid

def row(key, parent):
    db.execute('INSERT INTO channeldb_kv (key, value, parent_id) VALUES (?, ?, ?)', (key, bytes(60), parent))

def put(name, content):
    path = os.path.join(place, name)
    with open(path + '.tmp', 'wb') as file:
        file.write(content)
    os.rename(path + '.tmp', path)

count = 0
def step():
    global count
    count += 1
    number = dice.randrange(len(ids))
    if kind == 'ldk-filesystem':
        updates = 'monitor_updates/%s_0' % ids[number]
        held = os.listdir(os.path.join(place, updates))
        put('%s/%d' % (updates, len(held) + 1), b'update')
        put('manager', b'%d' % count)
        return
    db.execute('BEGIN IMMEDIATE')
    if kind == 'core-lightning':
        which = dice.choice(['next_index_local', 'next_index_remote'])
        db.execute('UPDATE channels SET %s = %s + 1 WHERE id = ?' % (which, which), (number,))
        db.execute("UPDATE vars SET intval = intval + 1 WHERE name = 'data_version'")
    if kind == 'ldk-node':
        (held,) = db.execute("SELECT count(*) FROM ldk_node_data WHERE primary_namespace = 'monitor_updates' AND "
                             'secondary_namespace = ?', (ids[number],)).fetchone()
        db.execute("INSERT INTO ldk_node_data VALUES ('monitor_updates', ?, ?, 'update')", (ids[number], str(held + 1)))
        db.execute("UPDATE ldk_node_data SET value = ? WHERE key = 'manager'", (str(count),))
    if kind == 'lnd':
        key = dice.choice([b'chan-commitment-key\x00', b'chan-commitment-key\x01'])
        channel = bytes.fromhex(ids[number]) + bytes(4)
        (id_, value) = db.execute('SELECT it.id, it.value FROM channeldb_kv AS it JOIN channeldb_kv AS up ON '
                                  'it.parent_id = up.id WHERE it.key = ? AND up.key = ?', (key, channel)).fetchone()
        height = int.from_bytes(value[:8], 'big') + 1
        db.execute('UPDATE channeldb_kv SET value = ? WHERE id = ?', (height.to_bytes(8, 'big') + value[8:], id_))
        db.execute("UPDATE channeldb_kv SET value = ? WHERE key = CAST('sum' AS BLOB)", (count.to_bytes(8, 'big'),))
    db.execute('COMMIT')

if kind != 'ldk-filesystem':
    os.makedirs(os.path.dirname(place), exist_ok=True)
    db = sqlite3.connect(place, isolation_level=None, timeout=60)
    db.execute('PRAGMA synchronous = OFF')
begin()
while count < 50:
    step()
print('ready', flush=True)
while not select.select([sys.stdin], [], [], gap)[0]:
    step()
print(count, flush=True)
"#;

/// How a node writes, and how it is captured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Without a pause.
    Steady,
    /// The same, and it is stopped for the capture.
    Frozen,
    /// With gaps, as where each step waits for a disk and a peer.
    Gaps,
}

/// A vault, and a node of which one file or directory is of interest.
struct Ground {
    scratch: tempfile::TempDir,
    place: PathBuf,
}

impl Ground {
    fn new(place: &str) -> Ground {
        let scratch = tempfile::tempdir().unwrap();
        let secret = Secret::create_key_file(&scratch.path().join("key")).unwrap();
        Vault::create_with(
            &location(scratch.path()),
            &secret,
            &CreateOptions::default(),
            &Env::system(),
        )
        .unwrap();
        let ground = Ground { scratch, place: place.into() };
        fs::create_dir(ground.dir()).unwrap();
        ground
    }

    fn dir(&self) -> PathBuf {
        self.scratch.path().join("node")
    }

    fn vault(&self) -> Vault {
        let secret = Secret::from_key_file(&self.scratch.path().join("key")).unwrap();
        Vault::open_with(&location(self.scratch.path()), &secret, &Env::system()).unwrap()
    }

    /// Backs the node up, and stops the process of this number for it.
    fn back_up(&self, frozen: Option<u32>) -> Result<BackupReport> {
        let actor =
            Actor { state_dir: self.scratch.path().join("state"), name: "node@host".into() };
        let mut options = BackupOptions::default();
        options.recogniser = Some(Arc::new(Known));
        options.capture.freeze = frozen.map(Freeze::of);
        let control = Control::new(Env::system());
        backup::run(&self.vault(), &self.dir(), &actor, &options, &control)
    }

    /// Restores what is of interest, sees it held back, and lets it go; tells where it is.
    fn restored(&self, report: &BackupReport) -> PathBuf {
        let target = self.scratch.path().join(report.snapshot.to_string());
        let control = Control::new(Env::system());
        let selector = Selector { snapshot: report.snapshot.to_string(), ..Selector::default() };
        let mut options = RestoreOptions::default();
        options.selector = selector;
        let plan = restore::plan(&self.vault(), &target, &options).unwrap();
        assert_eq!(plan.hold, Some(GuardKind::Databases));
        restore::run(&self.vault(), &plan, &options, &control).unwrap();
        let state = target.join(&self.place);
        let point =
            if state.join("manager").exists() { state.join("manager") } else { state.clone() };
        assert!(point.is_dir(), "{} can be opened", point.display());
        guard::release_although_old(&target, &Which::All, "a test", "me", &control).unwrap();
        state
    }
}

/// A node that Python writes.
struct Node {
    ground: Ground,
    kind: &'static str,
    pace: Pace,
    writer: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Node {
    fn start(kind: &'static str, place: &str, pace: Pace) -> Node {
        let ground = Ground::new(place);
        let mut writer = Command::new("python3")
            .args(["-c", WRITER, kind])
            .arg(ground.dir().join(place))
            .arg(if pace == Pace::Gaps { "0.02" } else { "0" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(writer.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        if kind == "core-lightning" {
            fs::write(ground.dir().join("bitcoin/hsm_secret"), [1; 32]).unwrap();
        }
        Node { ground, kind, pace, writer, said }
    }

    fn back_up(&self) -> BackupReport {
        let frozen = (self.pace == Pace::Frozen).then(|| self.writer.id());
        self.ground.back_up(frozen).unwrap()
    }

    /// What the node has written of all its channels, by itself: restored, held back, and let go.
    fn restored(&self, report: &BackupReport) -> u64 {
        sum_in(self.kind, &self.ground.restored(report))
    }

    /// Ends it; tells how often it has written.
    fn stop(mut self) -> u64 {
        drop(self.writer.stdin.take());
        let mut line = String::new();
        self.said.read_to_string(&mut line).unwrap();
        assert!(self.writer.wait().unwrap().success());
        line.trim().parse().unwrap()
    }
}

fn location(scratch: &Path) -> Location {
    scratch.join("vault").display().to_string().parse().unwrap()
}

/// How many steps the node itself counts.
fn sum_in(kind: &str, state: &Path) -> u64 {
    if kind == "ldk-filesystem" {
        return fs::read_to_string(state.join("manager")).unwrap().parse().unwrap();
    }
    let database = Connection::open(state).unwrap();
    let ask = |sql: &str| database.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().parse().unwrap();
    match kind {
        "core-lightning" => text(ask("SELECT CAST(CAST(intval AS TEXT) AS BLOB) FROM vars")),
        "ldk-node" => {
            text(ask("SELECT CAST(value AS BLOB) FROM ldk_node_data WHERE key = 'manager'"))
        }
        _ => {
            let sum = ask("SELECT value FROM channeldb_kv WHERE key = CAST('sum' AS BLOB)");
            u64::from_be_bytes(sum.try_into().unwrap())
        }
    }
}

/// Backs a node up again and again while it writes.
fn captured_while_it_writes(kind: &'static str, place: &str, pace: Pace) {
    let node = Node::start(kind, place, pace);
    let mut before = 0;
    for _ in 0..BACKUPS {
        let report = node.back_up();
        assert_eq!(report.kinds, [kind]);
        let channels: BTreeMap<&String, u64> = report
            .marks
            .iter()
            .filter(|(name, _)| name.starts_with("channel."))
            .map(|(name, mark)| (name, mark.value))
            .collect();
        assert!(channels.len() >= 9, "{:?}", report.warnings);
        let sum: u64 = channels.values().sum();
        let counted = node.restored(&report);
        match kind {
            // That instant lies between a channel's file and the manager's, if not between two steps.
            "ldk-filesystem" => assert!(sum == counted || sum == counted + 1, "{sum} {counted}"),
            _ => assert_eq!(sum, counted),
        }
        if let Some(version) = report.marks.get("data_version") {
            assert_eq!(version.value, sum);
        }
        assert!(sum >= before, "it went back");
        before = sum;
    }
    let written = node.stop();
    assert!(written > 50 && written >= before, "nothing was written meanwhile");
}

#[test]
fn the_marks_of_a_core_lightning_that_writes_are_of_one_instant() {
    captured_while_it_writes("core-lightning", "bitcoin/lightningd.sqlite3", Pace::Steady);
}

#[test]
fn the_marks_of_an_ldk_node_that_writes_are_of_one_instant() {
    captured_while_it_writes("ldk-node", "ldk_node_data.sqlite", Pace::Steady);
}

#[test]
fn the_marks_of_an_ldk_store_of_files_that_is_frozen_are_of_one_instant() {
    captured_while_it_writes("ldk-filesystem", "store", Pace::Frozen);
}

#[test]
fn the_marks_of_an_ldk_store_of_files_that_writes_are_of_one_instant() {
    captured_while_it_writes("ldk-filesystem", "store", Pace::Gaps);
}

#[test]
fn the_marks_of_an_lnd_that_writes_are_of_one_instant() {
    captured_while_it_writes("lnd", "data/graph/mainnet/channel.sqlite", Pace::Steady);
}

/// The channels as they are after each transaction from one answer to the next, by its number.
fn states(
    before: &CommittedState,
    after: &CommittedState,
) -> BTreeMap<u64, BTreeMap<String, Channel>> {
    let mut channels = before.channels.clone();
    let mut states = BTreeMap::from([(before.steps, channels.clone())]);
    for (step, (id, channel)) in (before.steps + 1..).zip(&after.wrote) {
        match channel {
            Some(channel) => channels.insert(id.clone(), channel.clone()),
            None => channels.remove(id),
        };
        states.insert(step, channels.clone());
    }
    assert_eq!(states.last_key_value(), Some((&after.steps, &after.channels)));
    states
}

/// bbolt's writer keeps everybody out, so it is captured where it is stopped, and only there. Each time that is one of
/// the states that the writer has announced: not older than its last answer before, not newer than the first one after.
#[test]
fn the_marks_of_an_lnd_on_bbolt_that_is_frozen_are_of_one_instant() {
    let program = Program::build(true);
    let ground = Ground::new("data/graph/mainnet/channel.db");
    let file = ground.dir().join(&ground.place);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let (mut lnd, _) = program.open(&file);
    // One is closed whose bucket stays, and one whose bucket goes.
    for command in ["open 0", "open 1", "open 2", "sign 0", "close 1", "close 2"] {
        lnd.ask(command);
    }
    let refused = ground.back_up(None).unwrap_err();
    let in_use = "data/graph/mainnet/channel.db is in use by write-lnd";
    assert!(refused.message().starts_with(in_use), "{refused}");
    let (mut backups, mut amid) = (0, 0);
    while amid < BACKUPS {
        assert!(backups < BACKUPS_MAX, "{amid} of {backups} were captured amid its writing");
        backups += 1;
        amid += usize::from(captured_amid(&ground, &mut lnd, &program));
    }
    let last = lnd.quit();
    println!("{amid} of {backups} captured amid {} transactions", last.steps);
}

/// Captures it while it writes; whether it had written since it began, and went on.
fn captured_amid(ground: &Ground, lnd: &mut Lnd, program: &Program) -> bool {
    let before = lnd.ask("run");
    let report = ground.back_up(Some(lnd.process.id())).unwrap();
    let after = lnd.ask("state");
    assert_eq!(report.kinds, ["lnd"]);
    let (restored, found) = program.open(&ground.restored(&report));
    restored.quit();
    assert!((before.steps..=after.steps).contains(&found.steps), "{}", found.steps);
    assert!(found.closed.is_superset(&before.closed) && found.closed.is_subset(&after.closed));
    assert_eq!(found.channels, states(&before, &after)[&found.steps]);
    let marks: BTreeMap<String, u64> =
        report.marks.iter().map(|(name, mark)| (name.clone(), mark.value)).collect();
    assert_eq!(marks, bbolt::marks(&found.channels), "{:?}", report.warnings);
    (before.steps + 1..after.steps).contains(&found.steps)
}
