//! The vault of format version 1 that is kept for ever; `vault-fixture` of `highwater-bench` made it.

use super::*;

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            drop(fs::copy(entry.path(), to))
        }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The key of the fixture.
pub(super) fn secret() -> Secret {
    // Git keeps no mode 0600, which a key file has to have.
    let digits = fs::read_to_string(fixtures().join("vault-1.key")).unwrap();
    let mut key = zeroize::Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits.trim_end(), &mut *key).unwrap();
    Secret::Key(key)
}

/// Opens the vault in `dir` with the key of the fixture.
pub(super) fn unlock(dir: &Path) -> Result<Vault> {
    Vault::open_with(&Location::Local(dir.to_path_buf()), &secret(), &env())
}

/// A copy of it, so that no test changes what has to stay as it is.
pub(super) fn open() -> (tempfile::TempDir, Vault) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    copy(&fixtures().join("vault-1"), &dir.path().join("vault"));
    let vault = unlock(&dir.path().join("vault")).unwrap();
    (dir, vault)
}

/// Each path of a restored snapshot, what it is, and the hash of its content.
fn hashes(root: &Path) -> Vec<(String, char, String)> {
    let line = |(path, (kind, content)): (Vec<u8>, (char, Vec<u8>))| {
        let hash = blake3::hash(&content).to_hex()[..16].to_owned();
        (highwater::ids::encode(&path), kind, hash)
    };
    tree(root).into_iter().map(line).collect()
}

/// The first sixteen digits of BLAKE3 of no bytes.
const NOTHING: &str = "af1349b9f5f9a1a6";

const FIRST: &[(&str, char, &str)] = &[
    ("keys", 'd', NOTHING),
    ("keys/empty", 'd', NOTHING),
    ("keys/seed", 'f', "311dcf2975a8172e"),
    ("link", 'l', "60e78e1f8542a571"),
    ("name-%FF-%25", 'f', "28039afc7e57b762"),
    ("node.sqlite", 'f', "b3e529cc58e8b169"),
    ("noise", 'f', "b6410e28c859388c"),
    ("pages.db", 'f', "38053ce0370ffd6d"),
    ("sparse", 'f', "4b1b34af7168714e"),
    ("zero", 'f', NOTHING),
];

const SECOND: &[(&str, char, &str)] = &[
    ("keys", 'd', NOTHING),
    ("keys/empty", 'd', NOTHING),
    ("keys/seed", 'f', "311dcf2975a8172e"),
    ("name-%FF-%25", 'f', "28039afc7e57b762"),
    ("node.sqlite", 'f', "2f6be8f6ab579ba9"),
    ("noise", 'f', "b6410e28c859388c"),
    ("pages.db", 'f', "bd0223b977e6a90b"),
    ("renamed", 'f', "4b1b34af7168714e"),
    ("zero", 'f', "28c2e4781b9d6983"),
];

#[test]
fn it_lists_and_checks() {
    let (_dir, vault) = open();
    let snapshots = vault.snapshots(None).unwrap();
    let [first, second] = &*snapshots else { panic!("{} snapshots", snapshots.len()) };
    assert_eq!(first.manifest.node.as_str(), "node");
    assert_eq!((first.manifest.seq.0, second.manifest.seq.0), (1, 2));
    assert_eq!(second.manifest.parent, Some(first.manifest.snapshot));
    assert_eq!(second.manifest.tags["fixture"], "second");
    assert_eq!(second.manifest.marks["height"].value, 2);
    assert!(second.manifest.bytes_stored < first.manifest.bytes_stored);
    let options = highwater::vault::CheckOptions::default().read_data(true);
    let report = highwater::vault::check(&vault, &options, &control()).unwrap();
    assert!(report.ok, "{:?}", report.errors);
    assert_eq!(report.snapshots, 2);
}

#[test]
fn both_snapshots_restore_to_what_was_captured() {
    let (dir, vault) = open();
    let us = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let snapshots = vault.snapshots(None).unwrap();
    for (info, (expected, rows)) in snapshots.iter().zip([(FIRST, 20), (SECOND, 21)]) {
        let target = dir.path().join(format!("restored-{}", info.manifest.seq.0));
        restore_to(&vault, info.manifest.snapshot, &target, false, Some(us)).unwrap();
        let found = hashes(&target);
        let found: Vec<_> =
            found.iter().map(|(path, kind, hash)| (path.as_str(), *kind, hash.as_str())).collect();
        assert_eq!(found, expected);
        let sql = rusqlite::Connection::open(target.join("node.sqlite")).unwrap();
        let count: u32 = sql.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap();
        assert_eq!(count, rows);
    }
}

#[test]
fn the_vault_goes_on() {
    let (dir, vault) = open();
    let us = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let newest = vault.snapshots(None).unwrap().pop().unwrap().manifest;
    let node = dir.path().join("node");
    restore_to(&vault, newest.snapshot, &node, false, Some(us)).unwrap();
    let actor = Actor { state_dir: dir.path().join("state"), name: "test".to_owned() };
    vault.take_over(&newest.node, &actor, "a test").unwrap();
    fs::write(node.join("more"), b"more").unwrap();
    let report = backup::run(&vault, &node, &actor, &BackupOptions::default(), &control()).unwrap();
    assert_eq!((report.seq.0, report.parent), (3, Some(newest.snapshot)));
    assert!(report.bytes_stored < 4000, "units of the old vault are found: {report:?}");
}
