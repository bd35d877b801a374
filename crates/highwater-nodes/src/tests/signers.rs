//! Signers in directories of their own form: marks, and what their release asks for.

use highwater::guard::{Basis, Which};
use highwater::restore::{self, RestoreOptions};
use highwater::vault::{CreateOptions, Selector};

use super::*;

/// A public key, and a signing root.
pub(crate) const KEY: &str = "b845089a1457f811bfc000588fbb4e713669be8ce060ea6be3c6ece09afc3794106c91ca73acda5e\
                              5457122d58723bed";
const ROOT: &str = "4ff6f743a43f3b4f95350831aeaf0a122a1a392922c45d804280284a69eb850b";
/// The tables of Lighthouse, as its program of today makes them.
pub(crate) const LIGHTHOUSE: &str = "CREATE TABLE validators (id INTEGER PRIMARY KEY, public_key BLOB NOT NULL UNIQUE, \
     enabled BOOL NOT NULL DEFAULT TRUE); \
     CREATE TABLE signed_blocks (validator_id INTEGER NOT NULL, slot INTEGER NOT NULL, \
     signing_root BLOB NOT NULL, FOREIGN KEY (validator_id) REFERENCES validators (id), \
     UNIQUE (validator_id, slot)); \
     CREATE TABLE signed_attestations (validator_id INTEGER, source_epoch INTEGER NOT NULL, \
     target_epoch INTEGER NOT NULL, signing_root BLOB NOT NULL, \
     FOREIGN KEY (validator_id) REFERENCES validators (id), UNIQUE (validator_id, target_epoch));";

/// A signer in its own form.
pub(super) fn make(kind: &str, dir: &Path) {
    match kind {
        "lighthouse" => {
            let database = database(dir, "validators/slashing_protection.sqlite", LIGHTHOUSE);
            let rows = format!(
                "INSERT INTO validators (id, public_key) VALUES (1, '0x{KEY}'); \
                 INSERT INTO signed_blocks VALUES (1, 320, x'{ROOT}'), (1, 352, x'{ROOT}'); \
                 INSERT INTO signed_attestations VALUES (1, 9, 10, x'{ROOT}'), (1, 10, 11, x'{ROOT}');"
            );
            database.execute_batch(&rows).unwrap();
        }
        "prysm" => all(dir, &["validator.db", "direct/accounts/all-accounts.keystore.json"]),
        "tmkms" => {
            all(dir, &["tmkms.toml", "secrets/kms-identity.key"]);
            let state = r#"{"height":"77","round":"1","step":2,"block_id":null}"#;
            write(dir, "state/hub-1-consensus.json", state);
        }
        kind => panic!("{kind} has no directory here"),
    }
}

/// Lighthouse holds its database exclusively, so that nobody reads it live; what a frozen one leaves beside it is a
/// journal that is over.
#[test]
fn marks_of_a_frozen_lighthouse_are_those_of_its_main_file() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("node");
    node("lighthouse", &dir);
    let script = "import sqlite3,sys\ndb=sqlite3.connect(sys.argv[1],isolation_level=None)\n\
                  db.execute('PRAGMA locking_mode=EXCLUSIVE')\n\
                  db.execute('INSERT INTO signed_blocks VALUES (1, 390, zeroblob(32))')\n\
                  print('ready',flush=True)\nsys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(dir.join("validators/slashing_protection.sqlite"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let journal = dir.join("validators/slashing_protection.sqlite-journal");
    assert!(fs::metadata(journal).unwrap().len() > 0, "nothing is left beside it");
    let location = scratch.path().join("vault").display().to_string().parse().unwrap();
    let secret = Secret::create_key_file(&scratch.path().join("key")).unwrap();
    Vault::create_with(&location, &secret, &CreateOptions::default(), &Env::system()).unwrap();
    let mut options = BackupOptions::default();
    options.capture.freeze = Some(Freeze::of(child.id()));
    let frozen = back_up_with(scratch.path(), options);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(frozen.marks[&format!("channel.{KEY}.slot")].value, 390, "{:?}", told(&frozen));
}

/// A restored copy of a node of this kind.
fn restored(kind: &str, scratch: &Path, copy: &str) -> std::path::PathBuf {
    node(kind, &scratch.join("node"));
    let report = back_up(scratch, false);
    let location = scratch.join("vault").display().to_string().parse().unwrap();
    let secret = Secret::from_key_file(&scratch.join("key")).unwrap();
    let vault = Vault::open_with(&location, &secret, &Env::system()).unwrap();
    let mut options = RestoreOptions::default();
    options.selector = Selector { snapshot: report.snapshot.to_string(), ..Selector::default() };
    let target = scratch.join(copy);
    let plan = restore::plan(&vault, &target, &options).unwrap();
    restore::run(&vault, &plan, &options, &Control::new(Env::system())).unwrap();
    target
}

fn raise(dir: &Path, numbers: &[(&str, u64)]) -> Result<floor::Prepared> {
    let stated = floor::Stated {
        numbers: numbers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        basis: Basis::Latest,
    };
    let release = floor::Release {
        which: &Which::All,
        stated: &stated,
        reason: "a test",
        by: "me",
        original_gone: None,
        in_place: &|| Ok(true),
    };
    floor::raise(dir, &release, &Control::new(Env::system()))
}

#[test]
fn no_agent_lets_a_signer_go() {
    let scratch = tempfile::tempdir().unwrap();
    let copy = restored("cometbft", scratch.path(), "copy");
    for channel in [None, Some("files")] {
        let error = Known.refuse_release(&copy, channel).unwrap_err();
        assert_eq!(error.kind(), Kind::Quarantined, "{error}");
    }
    // What is none of its parts lets nothing go.
    Known.refuse_release(&copy, Some("other")).unwrap();
    raise(&copy, &[("height", 2_000_000)]).unwrap();
    Known.refuse_release(&copy, None).unwrap_err();
    let control = Control::new(Env::system());
    highwater::guard::release(&copy, &Which::All, "why", "me", &control).unwrap();
    Known.refuse_release(&copy, None).unwrap();
    assert_eq!(raise(&copy, &[("height", 2_000_000)]).unwrap().floors.len(), 1);
    let other = tempfile::tempdir().unwrap();
    Known.refuse_release(&restored("lnd", other.path(), "copy"), None).unwrap();
}

#[test]
fn each_chain_of_a_tmkms_gets_a_floor_of_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let state = r#"{"height":"5","round":"0","step":1,"block_id":null}"#;
    write(&scratch.path().join("node"), "state/other-2-consensus.json", state);
    let copy = restored("tmkms", scratch.path(), "copy");
    let error = raise(&copy, &[("height", 100)]).unwrap_err();
    assert!(error.message().contains("several"), "{error}");
    let (one, other) = ("state/hub-1-consensus.json", "state/other-2-consensus.json");
    let names = [one, other].map(|file| format!("{file}/height"));
    let error = raise(&copy, &[(&names[0], 100)]).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Quarantined, Some(other)));
    let error = raise(&copy, &[(&names[0], 75), (&names[1], 9)]).unwrap_err();
    assert!(error.message().contains("77 was reached"), "{error}");
    let floors = raise(&copy, &[(&names[0], 100), (&names[1], 9)]).unwrap().floors;
    let found: Vec<(String, u64)> =
        floors.iter().map(|floor| (floor.file.to_string(), floor.to["height"])).collect();
    assert_eq!(found, [(one.to_owned(), 101), (other.to_owned(), 10)]);
}

#[test]
fn what_can_t_be_raised_says_what_to_do_before_a_start() {
    let scratch = tempfile::tempdir().unwrap();
    let copy = restored("prysm", scratch.path(), "copy");
    let prepared = raise(&copy, &[]).unwrap();
    let [warning] = &prepared.warnings[..] else { panic!("{prepared:?}") };
    assert!(warning.contains("interchange") && warning.contains("prysm"), "{warning}");
    assert!(!prepared.covers && prepared.floors.is_empty());
    assert_eq!(raise(&copy, &[("slot", 5), ("epoch", 1)]).unwrap_err().kind(), Kind::Input);
}

#[test]
fn a_database_that_was_captured_in_the_middle_of_a_write_gets_no_floor() {
    let scratch = tempfile::tempdir().unwrap();
    let copy = restored("lighthouse", scratch.path(), "copy");
    let journal = copy.join("validators/slashing_protection.sqlite-journal");
    let floor = [("slot", 400), ("epoch", 12)];
    fs::write(&journal, [0xd9, 0xd5, 5]).unwrap();
    assert_eq!(raise(&copy, &floor).unwrap_err().kind(), Kind::Conflict);
    fs::write(&journal, [0; 600]).unwrap();
    let prepared = raise(&copy, &floor).unwrap();
    assert_eq!((prepared.floors[0].to["slot"], prepared.covers), (400, true));
}
