//! Directories in the form of each node: recognised, and their marks read from a snapshot of them.

pub(crate) mod signers;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use highwater::backup::{self, BackupOptions, BackupReport};
use highwater::engine::freeze::Freeze;
use highwater::engine::{self, DiscoverOptions};
use highwater::guard::GuardKind;
use highwater::vault::{Actor, CreateOptions, Secret, Vault};
use highwater::{Control, Env};
use rusqlite::Connection;

use super::*;
use signers::KEY;

const CHANNEL: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff_0";

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn database(dir: &Path, name: &str, sql: &str) -> Connection {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let database = Connection::open(path).unwrap();
    database.execute_batch(sql).unwrap();
    database
}

/// A monitor as LDK writes it, as far as it is read here.
fn monitor(number: u64, with_prefix: bool) -> Vec<u8> {
    let prefix: &[u8] = if with_prefix { &[0xFF, 0xFF] } else { &[] };
    [prefix, &[1, 1], &number.to_be_bytes(), &[7; 4000]].concat()
}

fn all(dir: &Path, names: &[&str]) {
    names.iter().for_each(|name| write(dir, name, ""));
}

/// A directory of each kind, in its own form: `commands/…` is where somebody else's files lie.
fn node(kind: &str, dir: &Path) {
    match kind {
        "core-lightning" => {
            write(dir, "bitcoin/hsm_secret", [1; 32]);
            // `wallet/db.c`: `intval` beside `name`; one transaction that writes raises the version.
            database(
                dir,
                "bitcoin/lightningd.sqlite3",
                "CREATE TABLE vars (name VARCHAR(32), val VARCHAR(255), intval INTEGER, blobval BLOB, \
                 PRIMARY KEY (name)); INSERT INTO vars (name, intval) VALUES ('data_version', 41); \
                 CREATE TABLE channels (id BIGSERIAL, peer_id BIGINT, short_channel_id TEXT, state INTEGER, \
                 next_index_local BIGINT, next_index_remote BIGINT, full_channel_id BLOB DEFAULT NULL, \
                 PRIMARY KEY (id)); INSERT INTO channels (id, next_index_local, next_index_remote, \
                 full_channel_id) VALUES (1, 7, 8, x'ABCD'), (2, 1, 1, NULL); \
                 UPDATE vars SET intval = intval + 1 WHERE name = 'data_version';",
            );
        }
        "cometbft" => {
            write(dir, "config/priv_validator_key.json", "{}");
            let state = r#"{"height": "1234567", "round": 0, "step": 3, "signature": "c2ln"}"#;
            write(dir, "data/priv_validator_state.json", state);
        }
        "eclair" => {
            drop(database(dir, "mainnet/eclair.sqlite", "CREATE TABLE local_channels (a);"))
        }
        "ev-node" => {
            all(dir, &["config/signer.json"]);
            let database = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/badger/fixtures/both");
            fs::create_dir_all(dir.join("data/evm-single")).unwrap();
            for file in fs::read_dir(database).unwrap().map(|file| file.unwrap()) {
                if file.file_name() != "EXPECTED" {
                    let to = dir.join("data/evm-single").join(file.file_name());
                    fs::copy(file.path(), to).unwrap();
                }
            }
        }
        "fiber" => fiber::tests::write_node(dir),
        "ldk-node" => {
            let database = database(
                dir,
                "ldk_node_data.sqlite",
                "CREATE TABLE ldk_node_data (primary_namespace TEXT NOT NULL, secondary_namespace TEXT \
                 DEFAULT '' NOT NULL, key TEXT NOT NULL CHECK (key <> ''), value BLOB, PRIMARY KEY \
                 (primary_namespace, secondary_namespace, key));",
            );
            let insert = "INSERT INTO ldk_node_data VALUES (?1, ?2, ?3, ?4)";
            database.execute(insert, ("monitors", "", CHANNEL, monitor(6, true))).unwrap();
            database.execute(insert, ("monitor_updates", CHANNEL, "9", vec![0_u8; 9])).unwrap();
        }
        "ldk-filesystem" => {
            write(dir, ".ldk/manager", "manager");
            write(dir, &format!(".ldk/monitors/{CHANNEL}"), monitor(5, false));
            write(dir, &format!(".ldk/monitor_updates/{CHANNEL}/8"), "update");
        }
        "lnd" => write(dir, "data/graph/mainnet/channel.db", LND),
        "rgb-lightning-node" => {
            write(dir, "mnemonic", "words");
            write(dir, ".ldk/manager", "manager");
            write(dir, &format!(".ldk/monitors/{CHANNEL}"), monitor(4, true));
            let sql = "CREATE TABLE backup_info (idx INTEGER PRIMARY KEY, last_backup_timestamp TEXT NOT NULL, \
                       last_operation_timestamp TEXT NOT NULL); \
                       INSERT INTO backup_info VALUES (1, '0', '1790000000');";
            drop(database(dir, "1a2b3c4d/rgb_lib_db", sql));
        }
        "lighthouse" | "prysm" | "tmkms" => signers::make(kind, dir),
        kind => chain(kind, dir),
    }
}

/// A node of a chain.
fn chain(kind: &str, dir: &Path) {
    match kind {
        "bitcoind" => all(dir, &["blocks/blk00000.dat", "chainstate/CURRENT", "wallets/a"]),
        "ckb" => all(dir, &["ckb.toml", "data/db/notes"]),
        "reth" => all(dir, &["db/mdbx.lck", "static_files/headers", "discovery-secret"]),
        "electrs" => all(dir, &["electrs.toml", "db/notes"]),
        "geth" => all(dir, &["geth/chaindata/notes", "geth/nodekey"]),
        kind => panic!("{kind} has no directory here"),
    }
}

/// An lnd's channels, by the engine that it uses.
const LND: &[u8] = include_bytes!("../tests/fixtures/lnd-channel.db");

/// The marks of [`LND`], as `make-lnd.go` writes them.
fn marks_of_lnd() -> Marks {
    let mut marks = Marks::new();
    for number in (0..40_u64).filter(|number| number % 10 != 9) {
        let output = format!("{}:{}", format!("{number:02x}").repeat(32), number % 3);
        marks.insert(format!("channel.{output}.local"), 2 * number);
        let signed = u64::from(number % 3 == 0);
        marks.insert(format!("channel.{output}.remote"), 2 * number + 1 + signed);
    }
    marks
}

/// The marks of channels of each state, without the one for which nothing is signed yet: the one that negotiates
/// waits for funds from outside.
fn marks_of_fiber() -> Marks {
    let channels = fiber::tests::of_each_state().into_iter();
    let signed = channels.filter(|channel| channel.state != 1);
    let both = |channel: fiber::tests::Fixture| {
        let name = |what| format!("channel.{}.{what}", channel.id);
        [(name("local"), channel.local), (name("remote"), channel.remote)]
    };
    signed.flat_map(both).collect()
}

/// The marks that each directory above has.
fn marks(kind: &str) -> Marks {
    let update = format!("channel.{CHANNEL}.update");
    let of_key = ["slot", "source", "target"].map(|what| format!("channel.{KEY}.{what}"));
    let marks: &[(&str, u64)] = match kind {
        "lighthouse" => &[(&of_key[0], 352), (&of_key[1], 10), (&of_key[2], 11)],
        "tmkms" => &[("channel.hub-1-consensus.height", 77)],
        "core-lightning" => &[
            ("data_version", 42),
            ("channel.abcd.local", 7),
            ("channel.abcd.remote", 8),
            ("channel.number-2.local", 1),
            ("channel.number-2.remote", 1),
        ],
        "cometbft" => &[("height", 1_234_567)],
        "ev-node" => &[("height", 11)],
        "ldk-node" => &[(&update, 9)],
        "ldk-filesystem" => &[(&update, 8)],
        "rgb-lightning-node" => &[(&update, 4), ("rgb_operation", 1_790_000_000)],
        "lnd" => return marks_of_lnd(),
        "fiber" => return marks_of_fiber(),
        _ => &[],
    };
    marks.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn back_up(scratch: &Path, unguarded: bool) -> BackupReport {
    let location = scratch.join("vault").display().to_string().parse().unwrap();
    let secret = Secret::create_key_file(&scratch.join("key")).unwrap();
    Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system()).unwrap();
    back_up_again(scratch, unguarded)
}

fn back_up_again(scratch: &Path, unguarded: bool) -> BackupReport {
    let mut options = BackupOptions::default();
    options.unguarded = unguarded;
    back_up_with(scratch, options)
}

fn back_up_with(scratch: &Path, mut options: BackupOptions) -> BackupReport {
    let env = Env::system();
    let location = scratch.join("vault").display().to_string().parse().unwrap();
    let secret = Secret::from_key_file(&scratch.join("key")).unwrap();
    let vault = Vault::open_with(&location, &secret, &env).unwrap();
    let actor = Actor { state_dir: scratch.join("state"), name: "node@host".into() };
    options.recogniser = Some(Arc::new(Known));
    backup::run(&vault, &scratch.join("node"), &actor, &options, &Control::new(env)).unwrap()
}

/// What is told besides the time that writers of a rollback journal may have waited.
fn told(report: &BackupReport) -> Vec<&str> {
    let warnings = report.warnings.iter().map(String::as_str);
    warnings.filter(|warning| !warning.contains("rollback-journal mode")).collect()
}

fn kinds(dir: &Path) -> Vec<&'static str> {
    let layout = engine::discover(dir, &DiscoverOptions::default()).unwrap();
    let mut kinds: Vec<&str> = recognise(&layout).iter().map(|node| node.profile.name()).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn each_kind_is_recognised_held_back_and_its_marks_are_those_of_the_snapshot() {
    for profile in profiles() {
        let kind = profile.name();
        let scratch = tempfile::tempdir().unwrap();
        node(kind, &scratch.path().join("node"));
        assert_eq!(kinds(&scratch.path().join("node")), [kind]);
        let report = back_up(scratch.path(), false);
        let guard = profile.danger().map(|_| GuardKind::Databases);
        assert_eq!((report.kinds, report.guard), (vec![kind.to_owned()], guard));
        let found: Marks =
            report.marks.iter().map(|(name, mark)| (name.clone(), mark.value)).collect();
        assert_eq!(found, marks(kind), "{kind}");
        assert!(report.marks.values().all(|mark| !mark.claimed), "{kind}");
    }
}

#[test]
fn who_says_why_not_gets_a_snapshot_that_is_not_held_back() {
    let scratch = tempfile::tempdir().unwrap();
    node("lnd", &scratch.path().join("node"));
    let guarded = back_up(scratch.path(), false);
    assert_eq!(guarded.guard, Some(GuardKind::Databases));
    let report = back_up_again(scratch.path(), true);
    assert_eq!((report.kinds, report.guard), (vec!["lnd".to_owned()], None));
}

#[test]
fn what_must_be_there_and_is_not_is_a_warning() {
    let scratch = tempfile::tempdir().unwrap();
    node("core-lightning", &scratch.path().join("node"));
    fs::remove_file(scratch.path().join("node/bitcoin/hsm_secret")).unwrap();
    let report = back_up(scratch.path(), false);
    let [warning] = told(&report)[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("core-lightning") && warning.contains("hsm_secret"), "{warning}");
}

#[test]
fn marks_that_cant_be_read_are_told_and_the_backup_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("node");
    node("cometbft", &dir);
    write(&dir, "data/priv_validator_state.json", "{\"height\": \"many\"}");
    let report = back_up(scratch.path(), false);
    assert!(report.marks.is_empty());
    let [warning] = told(&report)[..] else { panic!("{:?}", report.warnings) };
    assert!(warning.contains("could not be read"), "{warning}");
    assert_eq!(report.guard, Some(GuardKind::Databases));
}

#[test]
fn what_the_operator_says_goes_before_what_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    node("cometbft", &scratch.path().join("node"));
    back_up(scratch.path(), true);
    let mut options = BackupOptions::default();
    options.marks = BTreeMap::from([("height".to_owned(), 5)]);
    options.guard = Some(GuardKind::Channels);
    let report = back_up_with(scratch.path(), options);
    assert_eq!((report.marks["height"].value, report.marks["height"].claimed), (5, true));
    // What was asked for once stays, although the kind asks for something else.
    assert_eq!(back_up_again(scratch.path(), false).guard, Some(GuardKind::Channels));
}

#[test]
fn a_node_whose_marks_cant_be_read_leaves_those_of_another_one() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("node");
    node("core-lightning", &dir);
    node("cometbft", &dir.join("chain"));
    write(&dir, "chain/data/priv_validator_state.json", "{}");
    let report = back_up(scratch.path(), false);
    let names: Vec<&str> = report.marks.keys().map(String::as_str).collect();
    assert_eq!(names.first(), Some(&"bitcoin/data_version"));
    assert!(names.iter().all(|name| name.contains("bitcoin/")), "{names:?}");
    assert_eq!(told(&report).len(), 1, "{:?}", report.warnings);
}

/// A frozen database has its last transactions in a log beside it, so that its main file tells less than is
/// captured: that would look as if it had gone back.
#[test]
fn marks_are_not_read_from_a_main_file_whose_log_has_more() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("node");
    node("core-lightning", &dir);
    let script = "import sqlite3,sys\ndb=sqlite3.connect(sys.argv[1],isolation_level=None)\n\
                  db.execute('PRAGMA journal_mode=WAL')\n\
                  db.execute(\"UPDATE vars SET intval=intval+1 WHERE name='data_version'\")\n\
                  print('ready',flush=True)\nsys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(dir.join("bitcoin/lightningd.sqlite3"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let location = scratch.path().join("vault").display().to_string().parse().unwrap();
    let secret = Secret::create_key_file(&scratch.path().join("key")).unwrap();
    Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system()).unwrap();
    let mut options = BackupOptions::default();
    options.capture.freeze = Some(Freeze::of(child.id()));
    let frozen = back_up_with(scratch.path(), options);
    // Read by its own transaction it is whole.
    let live = back_up_again(scratch.path(), false);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(frozen.marks.is_empty(), "{:?}", frozen.marks);
    assert!(told(&frozen).iter().any(|warning| warning.contains("a log beside it")));
    assert_eq!(live.marks["data_version"].value, 43);
}

#[test]
fn two_networks_in_one_directory_are_two_nodes() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("node");
    node("core-lightning", &dir);
    node("core-lightning", &dir.join("more"));
    let report = back_up(scratch.path(), false);
    let names: Vec<&str> = report.marks.keys().map(String::as_str).collect();
    for name in
        ["bitcoin/data_version", "channel.more/bitcoin/abcd.local", "more/bitcoin/data_version"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(report.kinds, ["core-lightning"]);
}

#[test]
fn nothing_is_recognised_in_directories_of_others() {
    let scratch = tempfile::tempdir().unwrap();
    let others: [&[&str]; 39] = [
        &[],
        &["config.toml", "data/blocks/blk00000.dat", "wallet.dat"],
        &["manager", "notes/monitors"],
        &["monitors/readme", "manager"],
        &["monitors/00112233_0", "manager"],
        &["monitors/manager"],
        &["data/priv_validator_state.json.bak"],
        // The signer of another process: its state here is of nobody.
        &["data/priv_validator_state.json", "config/config.toml"],
        &["config/priv_validator_key.json"],
        &["priv_validator_state.json", "priv_validator_key.json"],
        &["hsm_secret"],
        &["lightningd.sqlite", "bitcoin/gossip_store"],
        &["backup/lightningd.sqlite3.old"],
        &["channel.db"],
        &["graph/channel.sql"],
        &["graph.d/mainnet/channel.db"],
        &["wallet.db", "macaroons.db", "tls.cert"],
        &["fiber/config.yml"],
        &["fiber/store.tar", "ckb/key"],
        &["store/CURRENT", "sk"],
        &["config/signer.yaml"],
        &["signer.json", "data/MANIFEST"],
        &["eclair.sqlite.old"],
        &["eclair.conf", "mainnet/network.sqlite"],
        &["validators/slashing_protection.json"],
        &["slashing_protection.sqlite"],
        &["validators/validator_definitions.yml", "beacon/chain_db/CURRENT"],
        &["ldk_node_data.db"],
        &["ldk_node_data.sqlite3", "keys_seed"],
        &[".ldk/logs/logs.txt", "mnemonic"],
        &["1a2b3c4d/rgb_lib_db", "mnemonic"],
        &["db/CURRENT", "db/MANIFEST-000001", "db/000003.log"],
        &["blocks/blk00000.dat"],
        &["static_files/headers", "db/mdbx.dat"],
        &["chaindata/CURRENT", "nodekey"],
        // A web shop, with a database, a cache and a queue.
        &[
            "shop.sqlite",
            "cache/data",
            "queue/manager.lock",
            "config/config.toml",
            "graph/index.html",
        ],
        &["tmkms.toml", "state/notes.txt"],
        &["state/hub-1-consensus.json"],
        &["validator.db"],
    ];
    for (number, names) in others.iter().enumerate() {
        let dir = scratch.path().join(number.to_string());
        fs::create_dir(&dir).unwrap();
        names.iter().for_each(|name| write(&dir, name, "somebody else's"));
        assert_eq!(kinds(&dir), [""; 0], "{names:?}");
    }
}
