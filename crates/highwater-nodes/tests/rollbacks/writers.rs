//! Nodes that write their state in their own form, as far as it is read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rusqlite::{Connection, params};

pub(crate) type Marks = BTreeMap<String, u64>;

/// A node: what it has written, and its marks.
pub(crate) trait Writer {
    fn kind(&self) -> &'static str;
    /// The files without which it does nothing.
    fn entry_points(&self) -> &'static [&'static str];
    /// Makes an empty node.
    fn begin(&mut self, dir: &Path);
    /// Persists one step: a commitment, a channel opened or closed, a signature.
    fn step(&mut self, dir: &Path, dice: &mut Rng);
    fn marks(&self) -> Marks;
    /// What it knows by heart, to go back to.
    fn save(&self) -> Vec<u8>;
    fn load(&mut self, saved: &[u8]);
    /// What stands in the directory is what it knows.
    fn check(&self, dir: &Path);
    /// What is withheld in the directory carries the node's own marks, where it has such.
    fn check_marked(&self, dir: &Path, saved: &[u8]) {
        let _ = (dir, saved);
    }
}

/// A channel's numbers; those of one that is closed are not told any more by every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Channel {
    pub(crate) local: u64,
    pub(crate) remote: u64,
    /// The peer's next commitment is signed, and the one before not revoked.
    pub(crate) pending: bool,
    pub(crate) closed: bool,
}

pub(crate) type Channels = BTreeMap<String, Channel>;

/// What happens next: the channel that it happens to.
pub(crate) fn next(
    channels: &mut Channels,
    dice: &mut Rng,
    name: impl Fn(usize) -> String,
) -> String {
    let open: Vec<String> =
        channels.iter().filter(|(_, it)| !it.closed).map(|(id, _)| id.clone()).collect();
    if open.is_empty() || (channels.len() < 12 && dice.u64(..5) == 0) {
        let id = name(channels.len());
        channels.insert(id.clone(), Channel::default());
        return id;
    }
    let id = open[dice.usize(..open.len())].clone();
    let channel = channels.get_mut(&id).unwrap();
    match dice.u64(..12) {
        0 if open.len() > 1 => channel.closed = true,
        n if n % 2 == 0 => channel.local += 1,
        _ if channel.pending => {
            channel.pending = false;
            channel.remote += 1;
        }
        _ => channel.pending = true,
    }
    id
}

fn write(path: PathBuf, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // As such stores do: a new file in the place of the old one.
    let fresh = path.with_extension("tmp");
    fs::write(&fresh, content).unwrap();
    fs::rename(fresh, path).unwrap();
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct CoreLightning {
    version: u64,
    channels: Channels,
}

impl CoreLightning {
    fn database(dir: &Path) -> Connection {
        fs::create_dir_all(dir.join("bitcoin")).unwrap();
        Connection::open(dir.join("bitcoin/lightningd.sqlite3")).unwrap()
    }
}

impl Writer for CoreLightning {
    fn kind(&self) -> &'static str {
        "core-lightning"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["bitcoin/lightningd.sqlite3"]
    }

    fn begin(&mut self, dir: &Path) {
        // `wallet/migrations.c`; columns that nothing here reads are left out.
        let sql = "CREATE TABLE vars (name VARCHAR(32), val VARCHAR(255), intval INTEGER, blobval BLOB, \
                   PRIMARY KEY (name)); INSERT INTO vars (name, intval) VALUES ('data_version', 0); \
                   CREATE TABLE channels (id BIGSERIAL, state INTEGER, next_index_local BIGINT, \
                   next_index_remote BIGINT, full_channel_id BLOB DEFAULT NULL, PRIMARY KEY (id));";
        CoreLightning::database(dir).execute_batch(sql).unwrap();
        write(dir.join("bitcoin/hsm_secret"), &[1; 32]);
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        let id = next(&mut self.channels, dice, |number| format!("{number:064x}"));
        self.version += 1;
        let channel = self.channels[&id];
        let bytes: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
        let mut database = CoreLightning::database(dir);
        let step = database.transaction().unwrap();
        let row = "INSERT INTO channels VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE SET \
                   state = ?2, next_index_local = ?3, next_index_remote = ?4";
        let number = i64::from(bytes[31]);
        let remote = channel.remote + u64::from(channel.pending);
        let numbers = (channel.local as i64, remote as i64);
        step.execute(row, params![number, channel.closed, numbers.0, numbers.1, bytes]).unwrap();
        let raise = "UPDATE vars SET intval = intval + 1 WHERE name = 'data_version'";
        step.execute(raise, ()).unwrap();
        step.commit().unwrap();
    }

    fn marks(&self) -> Marks {
        let mut marks = Marks::from([("data_version".to_owned(), self.version)]);
        for (id, channel) in &self.channels {
            marks.insert(format!("channel.{id}.local"), channel.local);
            let remote = channel.remote + u64::from(channel.pending);
            marks.insert(format!("channel.{id}.remote"), remote);
        }
        marks
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        *self = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        let database = CoreLightning::database(dir);
        let version = "SELECT intval FROM vars WHERE name = 'data_version'";
        let version: i64 = database.query_row(version, [], |row| row.get(0)).unwrap();
        assert_eq!(version as u64, self.version);
    }
}

/// A node of LDK, in one of three forms.
pub(crate) struct Ldk {
    kind: &'static str,
    /// Where files are; `None`: in SQLite.
    store: Option<&'static str>,
    state: LdkState,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct LdkState {
    /// The number of each monitor's last update, and of the last one in the monitor itself.
    monitors: BTreeMap<String, (u64, u64)>,
    operation: u64,
}

impl Ldk {
    pub(crate) fn node() -> Ldk {
        Ldk { kind: "ldk-node", store: None, state: LdkState::default() }
    }

    pub(crate) fn files() -> Ldk {
        Ldk { kind: "ldk-filesystem", store: Some("store"), state: LdkState::default() }
    }

    pub(crate) fn rgb() -> Ldk {
        Ldk { kind: "rgb-lightning-node", store: Some(".ldk"), state: LdkState::default() }
    }

    fn put(&self, dir: &Path, first: &str, second: &str, key: &str, value: Option<&[u8]>) {
        if let Some(store) = self.store {
            let path = dir.join(store).join(first).join(second).join(key);
            match value {
                Some(value) => write(path, value),
                None => fs::remove_file(path).unwrap(),
            }
            return;
        }
        let database = Connection::open(dir.join("ldk_node_data.sqlite")).unwrap();
        let row = "INSERT OR REPLACE INTO ldk_node_data VALUES (?1, ?2, ?3, ?4)";
        let gone = "DELETE FROM ldk_node_data WHERE primary_namespace = ?1 AND secondary_namespace = ?2 AND \
                    key = ?3";
        match value {
            Some(value) => database.execute(row, params![first, second, key, value]).unwrap(),
            None => database.execute(gone, params![first, second, key]).unwrap(),
        };
    }

    fn monitor(&self, dir: &Path, id: &str, number: u64) {
        let value = [&[0xFF, 0xFF, 1, 1][..], &number.to_be_bytes(), &[7; 700]].concat();
        self.put(dir, "monitors", "", id, Some(&value));
    }
}

impl Writer for Ldk {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn entry_points(&self) -> &'static [&'static str] {
        match self.kind {
            "ldk-node" => &["ldk_node_data.sqlite"],
            "ldk-filesystem" => &["store/manager"],
            _ => &[".ldk/manager", "1a2b3c4d/rgb_lib_db"],
        }
    }

    fn begin(&mut self, dir: &Path) {
        if self.store.is_none() {
            let table = "CREATE TABLE ldk_node_data (primary_namespace TEXT NOT NULL, secondary_namespace TEXT \
                         DEFAULT '' NOT NULL, key TEXT NOT NULL CHECK (key <> ''), value BLOB, PRIMARY KEY \
                         (primary_namespace, secondary_namespace, key));";
            let database = Connection::open(dir.join("ldk_node_data.sqlite")).unwrap();
            database.execute_batch(table).unwrap();
        }
        if self.kind == "rgb-lightning-node" {
            fs::create_dir(dir.join("1a2b3c4d")).unwrap();
            let sql = "CREATE TABLE backup_info (idx INTEGER PRIMARY KEY, last_operation_timestamp TEXT); \
                       INSERT INTO backup_info VALUES (1, '0');";
            let database = Connection::open(dir.join("1a2b3c4d/rgb_lib_db")).unwrap();
            database.execute_batch(sql).unwrap();
            write(dir.join("mnemonic"), b"words");
        }
        self.put(dir, "", "", "manager", Some(b"manager"));
        self.monitor(dir, &format!("{:064x}_0", 0), 0);
        self.state.monitors.insert(format!("{:064x}_0", 0), (0, 0));
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        let ids: Vec<String> = self.state.monitors.keys().cloned().collect();
        let id = ids[dice.usize(..ids.len())].clone();
        let (last, stored) = self.state.monitors[&id];
        match dice.u64(..8) {
            0 if ids.len() < 10 => {
                // Never one that was there before.
                let fresh = format!("{:064x}_{}", dice.u64(..1 << 40), ids.len());
                self.monitor(dir, &fresh, 0);
                self.state.monitors.insert(fresh, (0, 0));
            }
            // The whole monitor, and its updates are gone.
            1 | 2 => {
                self.monitor(dir, &id, last + 1);
                for number in stored + 1..=last {
                    self.put(dir, "monitor_updates", &id, &number.to_string(), None);
                }
                self.state.monitors.insert(id, (last + 1, last + 1));
            }
            _ => {
                let number = (last + 1).to_string();
                self.put(dir, "monitor_updates", &id, &number, Some(b"update"));
                self.state.monitors.insert(id, (last + 1, stored));
            }
        }
        self.put(dir, "", "", "manager", Some(format!("manager {last}").as_bytes()));
        if self.kind == "rgb-lightning-node" {
            self.state.operation += 1 + dice.u64(..9);
            let database = Connection::open(dir.join("1a2b3c4d/rgb_lib_db")).unwrap();
            let raise = "UPDATE backup_info SET last_operation_timestamp = ?1";
            database.execute(raise, [self.state.operation.to_string()]).unwrap();
        }
    }

    fn marks(&self) -> Marks {
        let monitors = self.state.monitors.iter();
        let mut marks: Marks =
            monitors.map(|(id, (last, _))| (format!("channel.{id}.update"), *last)).collect();
        if self.kind == "rgb-lightning-node" {
            marks.insert("rgb_operation".to_owned(), self.state.operation);
        }
        marks
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(&self.state).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        self.state = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        match self.store {
            Some(store) => {
                let monitors = fs::read_dir(dir.join(store).join("monitors")).unwrap().count();
                assert_eq!(monitors, self.state.monitors.len());
                assert!(dir.join(store).join("manager").is_file());
            }
            None => {
                let database = Connection::open(dir.join("ldk_node_data.sqlite")).unwrap();
                let count =
                    "SELECT count(*) FROM ldk_node_data WHERE primary_namespace = 'monitors'";
                let monitors: i64 = database.query_row(count, [], |row| row.get(0)).unwrap();
                assert_eq!(monitors as usize, self.state.monitors.len());
            }
        }
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Lnd {
    channels: Channels,
}

impl Lnd {
    fn database(dir: &Path) -> Connection {
        Connection::open(dir.join("data/graph/mainnet/channel.sqlite")).unwrap()
    }

    /// The id of a bucket, or of a row with a value, in a bucket.
    fn put(database: &Connection, parent: Option<i64>, key: &[u8], value: Option<&[u8]>) -> i64 {
        let known = "SELECT id FROM channeldb_kv WHERE parent_id IS ?1 AND key = ?2";
        let id = database.query_row(known, params![parent, key], |row| row.get::<_, i64>(0));
        match id {
            Ok(id) => {
                let set = "UPDATE channeldb_kv SET value = ?2 WHERE id = ?1";
                database.execute(set, params![id, value]).unwrap();
                id
            }
            Err(_) => {
                let row = "INSERT INTO channeldb_kv (key, value, parent_id) VALUES (?1, ?2, ?3)";
                database.execute(row, params![key, value, parent]).unwrap();
                database.last_insert_rowid()
            }
        }
    }
}

impl Writer for Lnd {
    fn kind(&self) -> &'static str {
        "lnd"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["data/graph/mainnet/channel.sqlite"]
    }

    fn begin(&mut self, dir: &Path) {
        fs::create_dir_all(dir.join("data/graph/mainnet")).unwrap();
        // `kvdb/sqlbase/schema.go`.
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE channeldb_kv (key BLOB NOT NULL, value BLOB, parent_id \
                   BIGINT, id INTEGER PRIMARY KEY, sequence BIGINT, CONSTRAINT channeldb_kv_parent FOREIGN KEY \
                   (parent_id) REFERENCES channeldb_kv (id) ON UPDATE NO ACTION ON DELETE CASCADE); \
                   CREATE INDEX channeldb_kv_p ON channeldb_kv (parent_id); CREATE UNIQUE INDEX channeldb_kv_up \
                   ON channeldb_kv (parent_id, key) WHERE parent_id IS NOT NULL; CREATE UNIQUE INDEX \
                   channeldb_kv_unp ON channeldb_kv (key) WHERE parent_id IS NULL;";
        let database = Lnd::database(dir);
        database.execute_batch(sql).unwrap();
        Lnd::put(&database, None, b"open-chan-bucket", None);
        Lnd::put(&database, None, b"outpoint-bucket", None);
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        let id = next(&mut self.channels, dice, |number| format!("{number:02x}").repeat(32));
        let channel = self.channels[&id];
        let byte = u8::from_str_radix(&id[..2], 16).unwrap();
        let output = [&[byte; 32][..], &[0, 0, 0, 1]].concat();
        let mut database = Lnd::database(dir);
        let step = database.transaction().unwrap();
        let open = Lnd::put(&step, None, b"open-chan-bucket", None);
        let peer = Lnd::put(&step, Some(open), &[byte % 3; 33], None);
        let chain = Lnd::put(&step, Some(peer), &[0x6f; 32], None);
        let bucket = Lnd::put(&step, Some(chain), &output, None);
        let commitment = |height: u64| [&height.to_be_bytes()[..], &[9; 80]].concat();
        let (local, remote) = (commitment(channel.local), commitment(channel.remote));
        Lnd::put(&step, Some(bucket), b"chan-commitment-key\0", Some(&local));
        Lnd::put(&step, Some(bucket), b"chan-commitment-key\x01", Some(&remote));
        if channel.pending {
            let next = commitment(channel.remote + 1);
            Lnd::put(&step, Some(bucket), b"commit-diff-key", Some(&next));
        } else {
            let gone = "DELETE FROM channeldb_kv WHERE parent_id = ?1 AND key = ?2";
            step.execute(gone, params![bucket, b"commit-diff-key"]).unwrap();
        }
        let outputs = Lnd::put(&step, None, b"outpoint-bucket", None);
        Lnd::put(&step, Some(outputs), &output, Some(&[0, 1, u8::from(channel.closed)]));
        step.commit().unwrap();
    }

    fn marks(&self) -> Marks {
        let mut marks = Marks::new();
        for (id, channel) in self.channels.iter().filter(|(_, channel)| !channel.closed) {
            marks.insert(format!("channel.{id}:1.local"), channel.local);
            let remote = channel.remote + u64::from(channel.pending);
            marks.insert(format!("channel.{id}:1.remote"), remote);
        }
        marks
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        *self = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        let count = "SELECT count(*) FROM channeldb_kv AS top JOIN channeldb_kv AS it ON it.parent_id = top.id \
                     WHERE top.key = CAST('outpoint-bucket' AS BLOB)";
        let channels: i64 = Lnd::database(dir).query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(channels as usize, self.channels.len());
    }
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct CometBft {
    height: u64,
}

impl Writer for CometBft {
    fn kind(&self) -> &'static str {
        "cometbft"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["data/priv_validator_state.json"]
    }

    fn begin(&mut self, dir: &Path) {
        write(dir.join("config/priv_validator_key.json"), b"{}");
        self.height = 1;
        let state = br#"{"height": "1", "round": 0, "step": 1}"#;
        write(dir.join("data/priv_validator_state.json"), state);
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        self.height += 1 + dice.u64(..3);
        let state = format!(r#"{{"height": "{}", "round": 0, "step": 3}}"#, self.height);
        write(dir.join("data/priv_validator_state.json"), state.as_bytes());
    }

    fn marks(&self) -> Marks {
        Marks::from([("height".to_owned(), self.height)])
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        *self = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        let state = fs::read_to_string(dir.join("data/priv_validator_state.json")).unwrap();
        assert!(state.contains(&format!("\"{}\"", self.height)), "{state}");
    }
}

/// tmkms, which signs for two chains.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tmkms {
    heights: [u64; 2],
}

impl Tmkms {
    fn write(&self, dir: &Path, chain: usize) {
        let height = self.heights[chain];
        let state =
            format!(r#"{{"height": "{height}", "round": "0", "step": 2, "block_id": null}}"#);
        write(dir.join(format!("state/chain-{chain}.json")), state.as_bytes());
    }
}

impl Writer for Tmkms {
    fn kind(&self) -> &'static str {
        "tmkms"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["tmkms.toml"]
    }

    fn begin(&mut self, dir: &Path) {
        write(dir.join("tmkms.toml"), b"[[chain]]\n");
        write(dir.join("secrets/key"), b"secret");
        self.heights = [1, 1];
        (0..2).for_each(|chain| self.write(dir, chain));
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        let chain = dice.usize(..2);
        self.heights[chain] += 1 + dice.u64(..3);
        self.write(dir, chain);
    }

    fn marks(&self) -> Marks {
        let height =
            |(chain, height): (usize, &u64)| (format!("channel.chain-{chain}.height"), *height);
        self.heights.iter().enumerate().map(height).collect()
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        *self = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        for (chain, height) in self.heights.iter().enumerate() {
            let state = fs::read_to_string(dir.join(format!("state/chain-{chain}.json"))).unwrap();
            assert!(state.contains(&format!("\"{height}\"")), "{state}");
        }
    }
}

/// Two keys: slots and epochs that they have signed.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Lighthouse {
    slots: BTreeMap<u8, u64>,
    epochs: BTreeMap<u8, (u64, u64)>,
}

impl Lighthouse {
    fn key(id: u8) -> String {
        format!("{id:02x}").repeat(48)
    }

    fn database(dir: &Path) -> Connection {
        Connection::open(dir.join("validators/slashing_protection.sqlite")).unwrap()
    }
}

impl Writer for Lighthouse {
    fn kind(&self) -> &'static str {
        "lighthouse"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["validators/slashing_protection.sqlite"]
    }

    fn begin(&mut self, dir: &Path) {
        fs::create_dir_all(dir.join("validators")).unwrap();
        let tables = "CREATE TABLE validators (id INTEGER PRIMARY KEY, public_key BLOB NOT NULL UNIQUE, \
             enabled BOOL NOT NULL DEFAULT TRUE); \
             CREATE TABLE signed_blocks (validator_id INTEGER NOT NULL, slot INTEGER NOT NULL, \
             signing_root BLOB NOT NULL, FOREIGN KEY (validator_id) REFERENCES validators (id), \
             UNIQUE (validator_id, slot)); \
             CREATE TABLE signed_attestations (validator_id INTEGER, source_epoch INTEGER NOT NULL, \
             target_epoch INTEGER NOT NULL, signing_root BLOB NOT NULL, \
             FOREIGN KEY (validator_id) REFERENCES validators (id), UNIQUE (validator_id, target_epoch));";
        let database = Lighthouse::database(dir);
        database.execute_batch(tables).unwrap();
        for id in [1, 2] {
            let key = format!("0x{}", Lighthouse::key(id));
            let row = "INSERT INTO validators (id, public_key) VALUES (?1, ?2)";
            database.execute(row, params![id, key]).unwrap();
        }
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        let id = 1 + dice.u64(..2) as u8;
        let database = Lighthouse::database(dir);
        if dice.u64(..2) == 0 {
            let slot = self.slots.entry(id).or_insert(100);
            *slot += 1 + dice.u64(..40);
            let row = "INSERT INTO signed_blocks VALUES (?1, ?2, randomblob(32))";
            database.execute(row, params![id, *slot as i64]).unwrap();
        } else {
            let (source, target) = self.epochs.entry(id).or_insert((2, 3));
            *source += dice.u64(..2);
            *target = (*target).max(*source) + 1;
            let row = "INSERT INTO signed_attestations VALUES (?1, ?2, ?3, randomblob(32))";
            database.execute(row, params![id, *source as i64, *target as i64]).unwrap();
        }
    }

    fn marks(&self) -> Marks {
        let mut marks = Marks::new();
        let mut add = |id: u8, what: &str, value: u64| {
            marks.insert(format!("channel.{}.{what}", Lighthouse::key(id)), value);
        };
        self.slots.iter().for_each(|(id, slot)| add(*id, "slot", *slot));
        for (id, (source, target)) in &self.epochs {
            add(*id, "source", *source);
            add(*id, "target", *target);
        }
        marks
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        *self = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        let highest = "SELECT coalesce(max(slot), 0) FROM signed_blocks";
        let found: i64 =
            Lighthouse::database(dir).query_row(highest, [], |row| row.get(0)).unwrap();
        assert_eq!(found as u64, self.slots.values().max().copied().unwrap_or_default());
    }
}

/// A Fiber node: channels in use, and channels that are shutting down.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Fiber {
    channels: Channels,
}

/// A channel in use as Fiber's own crate has written it, of a node that knows the state `Stale`: its id, which
/// stands in the value as text, its peer, its two numbers, and the value.
struct Template {
    id: String,
    peer: Vec<u8>,
    numbers: [u64; 2],
    value: Vec<u8>,
}

const FIBER_VERSION: &str = "20260618120000";
/// `ChannelReady`, `ShuttingDown` with flags, `Stale`.
const READY: [u8; 4] = [5, 0, 0, 0];
const SHUTTING: [u8; 8] = [6, 0, 0, 0, 6, 0, 0, 0];
const STALE: [u8; 4] = [8, 0, 0, 0];

fn template() -> Template {
    let lines = include_str!("../../src/fiber/fixtures.txt").lines();
    let line = lines.filter(|line| line.starts_with(FIBER_VERSION));
    let words = line.map(|line| line.split(' ').collect::<Vec<_>>()).rfind(|words| words[3] == "5");
    let words = words.unwrap();
    let number = |at: usize| words[at].parse().unwrap();
    Template {
        id: words[1].to_owned(),
        peer: hex::decode(words[2]).unwrap(),
        numbers: [number(5), number(6)],
        value: hex::decode(words[8]).unwrap(),
    }
}

/// Replaces what stands in a value, wherever that is; once at least.
fn put_in(value: &mut [u8], old: &[u8], new: &[u8]) {
    let places: Vec<usize> =
        (0..=value.len() - old.len()).filter(|at| value[*at..*at + old.len()] == *old).collect();
    assert!(!places.is_empty());
    for at in places {
        value[at..at + old.len()].copy_from_slice(new);
    }
}

impl Fiber {
    fn database(dir: &Path) -> Connection {
        Connection::open(dir.join("fiber/store/data.sqlite")).unwrap()
    }

    /// The rows of a channel: itself, and in the index of states.
    fn rows(id: &str, channel: Channel) -> [(Vec<u8>, Vec<u8>); 2] {
        let Template { id: old, peer, numbers, mut value } = template();
        put_in(&mut value, old.as_bytes(), id.as_bytes());
        let id = hex::decode(id).unwrap();
        put_in(&mut value, &numbers[0].to_le_bytes(), &channel.local.to_le_bytes());
        put_in(&mut value, &numbers[1].to_le_bytes(), &channel.remote.to_le_bytes());
        assert_eq!(value[..4], READY);
        let state: &[u8] = if channel.closed { &SHUTTING } else { &READY };
        let value = [state, &value[4..]].concat();
        [([&[0], &id[..]].concat(), value), ([&[64], &peer[..], &id].concat(), state.to_vec())]
    }

    /// How the value of each channel begins.
    fn states(file: &Path) -> BTreeMap<String, Vec<u8>> {
        let uri = format!("file:{}?immutable=1", file.display());
        let flags =
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
        let database = Connection::open_with_flags(uri, flags).unwrap();
        let sql = "SELECT lower(hex(substr(key, 2))), substr(value, 1, 4) FROM kv_store \
                   WHERE substr(key, 1, 1) = x'00'";
        let mut select = database.prepare(sql).unwrap();
        let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

impl Writer for Fiber {
    fn kind(&self) -> &'static str {
        "fiber"
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &["fiber/store/data.sqlite"]
    }

    fn begin(&mut self, dir: &Path) {
        fs::create_dir_all(dir.join("fiber/store")).unwrap();
        write(dir.join("fiber/sk"), b"a key");
        write(dir.join("ckb/key"), b"a key");
        let sql = "PRAGMA journal_mode = WAL; CREATE TABLE kv_store (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT \
                   NULL) WITHOUT ROWID;";
        let database = Fiber::database(dir);
        database.execute_batch(sql).unwrap();
        let version = "INSERT INTO kv_store VALUES (CAST('db-version' AS BLOB), CAST(?1 AS BLOB))";
        database.execute(version, [FIBER_VERSION]).unwrap();
    }

    fn step(&mut self, dir: &Path, dice: &mut Rng) {
        let id = next(&mut self.channels, dice, |number| format!("{:064x}", number + 1));
        let mut database = Fiber::database(dir);
        let step = database.transaction().unwrap();
        for (key, value) in Fiber::rows(&id, self.channels[&id]) {
            step.execute("INSERT OR REPLACE INTO kv_store VALUES (?1, ?2)", (key, value)).unwrap();
        }
        step.commit().unwrap();
    }

    fn marks(&self) -> Marks {
        let mut marks = Marks::new();
        for (id, channel) in &self.channels {
            marks.insert(format!("channel.{id}.local"), channel.local);
            marks.insert(format!("channel.{id}.remote"), channel.remote);
        }
        marks
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    fn load(&mut self, saved: &[u8]) {
        *self = serde_json::from_slice(saved).unwrap();
    }

    fn check(&self, dir: &Path) {
        let count = "SELECT count(*) FROM kv_store";
        let rows: i64 = Fiber::database(dir).query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(rows as usize, 1 + 2 * self.channels.len());
    }

    fn check_marked(&self, dir: &Path, saved: &[u8]) {
        let latch = highwater::guard::Latch::read(dir).unwrap().unwrap();
        let main = "fiber/store/data.sqlite".parse().unwrap();
        let withheld = latch.withheld.iter().find(|withheld| withheld.path == main).unwrap();
        let states = Fiber::states(&dir.join(withheld.place.as_path()));
        let Fiber { channels } = serde_json::from_slice(saved).unwrap();
        assert_eq!(states.len(), channels.len());
        for (id, channel) in channels {
            let expected = if channel.closed { &SHUTTING[..4] } else { &STALE };
            assert_eq!(states[&id], expected, "{id}");
            assert!(latch.channels.contains_key(&id), "{id} holds nothing back");
        }
    }
}
