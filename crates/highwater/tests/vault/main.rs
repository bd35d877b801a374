//! Vaults through the public API, with real files and databases: increments, sequences of edits,
//! owners, key slots, damage, and the vault that is kept for ever.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod archives;
mod damage;
#[cfg(feature = "agent")]
mod examples;
mod fixture;
mod increments;
mod lists;
mod marks;
mod own_engine;
mod owners;
mod prune;
mod quarantine;
mod sequences;
mod slots;
mod subset;
mod tables;
mod walk;
mod witness;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::Control;
use highwater::backup::{self, BackupOptions, BackupReport};
use highwater::env::{Clock, Env};
use highwater::ids::{NodeName, SnapshotId, Time};
use highwater::restore::{self, RestoreOptions, RestoreReport};
use highwater::vault::{Actor, CreateOptions, Location, Secret, Selector, Vault};
use highwater::{Error, Result};

/// An hour ahead of the system, so that no file's times are too young to be trusted.
struct Later;

impl Clock for Later {
    fn now(&self) -> Time {
        Time::from_nanos(Env::system().now().as_nanos() + 3_600_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Env::system().monotonic()
    }

    fn pause(&self, duration: Duration) {
        Env::system().pause(duration);
    }
}

fn env() -> Env {
    Env::system().with_clock(Later)
}

fn control() -> Control {
    Control::new(env())
}

fn key(byte: u8) -> Secret {
    Secret::Key(zeroize::Zeroizing::new([byte; 32]))
}

/// In memory where that is possible: durability is not what these tests are about.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A node, a vault, and who backs one up to the other.
struct Bench {
    dir: tempfile::TempDir,
    vault: Vault,
    restores: std::cell::Cell<u32>,
}

impl Bench {
    fn new() -> Bench {
        let dir = scratch();
        let location = Location::Local(dir.path().join("vault"));
        let vault = Vault::create_with(&location, &key(1), &CreateOptions::default(), &env())
            .unwrap()
            .vault;
        fs::create_dir(dir.path().join("node")).unwrap();
        Bench { dir, vault, restores: std::cell::Cell::new(0) }
    }

    fn node(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    fn name(&self) -> NodeName {
        "node".parse().unwrap()
    }

    fn actor(&self, name: &str) -> Actor {
        Actor { state_dir: self.dir.path().join(format!("state-{name}")), name: name.to_owned() }
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.node().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn backup(&self) -> BackupReport {
        self.backup_with(&BackupOptions::default())
    }

    fn backup_with(&self, options: &BackupOptions) -> BackupReport {
        self.backup_as("alice", options, &control()).unwrap()
    }

    fn backup_as(
        &self,
        actor: &str,
        options: &BackupOptions,
        control: &Control,
    ) -> Result<BackupReport> {
        backup::run(&self.vault, &self.node(), &self.actor(actor), options, control)
    }

    /// What a backup has stored beside its manifest.
    fn packs_stored(&self, report: &BackupReport) -> u64 {
        let snapshot = report.snapshot.to_string();
        let info = self.vault.resolve(&Selector { snapshot, ..Selector::default() }).unwrap();
        assert_eq!(report.bytes_stored, info.bytes_stored());
        assert!(info.manifest_bytes > 0);
        report.bytes_stored - info.manifest_bytes
    }

    /// Restores a snapshot to a directory of its own.
    fn restore(&self, snapshot: SnapshotId) -> PathBuf {
        self.restores.set(self.restores.get() + 1);
        let target = self.dir.path().join(format!("restored-{}", self.restores.get()));
        restore_to(&self.vault, snapshot, &target, false, None).unwrap();
        target
    }

    fn assert_restores(&self, snapshot: SnapshotId, expected: &Tree) {
        let target = self.restore(snapshot);
        assert_same(&tree(&target), expected);
        fs::remove_dir_all(target).unwrap();
    }

    fn assert_sound(&self) {
        let options = highwater::vault::CheckOptions::default().read_data(true);
        let report = highwater::vault::check(&self.vault, &options, &control()).unwrap();
        assert!(report.ok, "{:?}", report.errors);
    }

    /// Names of the vault's objects below a folder.
    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        fn add(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { add(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        add(&self.dir.path().join("vault").join(folder), &mut found);
        found.sort();
        found
    }
}

/// A restore of this snapshot.
fn by_id(snapshot: SnapshotId) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.selector.snapshot = snapshot.to_string();
    options
}

fn restore_to(
    vault: &Vault,
    snapshot: SnapshotId,
    target: &Path,
    force: bool,
    owner: Option<(u32, u32)>,
) -> Result<RestoreReport> {
    let mut options = by_id(snapshot);
    options.force = force;
    options.owner = owner;
    let plan = restore::plan(vault, target, &options)?;
    let report = restore::run(vault, &plan, &options, &control())?;
    if report.quarantined > 0 {
        // An older snapshot is held back; the tests look at what it holds.
        let all = highwater::guard::Which::All;
        highwater::guard::release_although_old(
            target,
            &all,
            "to look at it",
            "a test",
            &control(),
        )?;
    }
    Ok(report)
}

/// What stands at each path: the bytes of a file, the target of a link, nothing for a directory.
type Tree = BTreeMap<Vec<u8>, (char, Vec<u8>)>;

fn tree(root: &Path) -> Tree {
    fn add(root: &Path, dir: &Path, found: &mut Tree) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let kind = path.symlink_metadata().unwrap().file_type();
            if name == b".highwater" {
                continue;
            }
            if kind.is_symlink() {
                let to = fs::read_link(&path).unwrap();
                found.insert(name, ('l', to.as_os_str().as_bytes().to_vec()));
            } else if kind.is_dir() {
                found.insert(name, ('d', Vec::new()));
                add(root, &path, found);
            } else {
                found.insert(name, ('f', fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Tree::new();
    add(root, root, &mut found);
    found
}

/// Compares without printing megabytes.
fn assert_same(found: &Tree, expected: &Tree) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, expected) in expected {
        let name_text = String::from_utf8_lossy(name);
        assert!(found[name] == *expected, "{name_text} is not what it was");
    }
}

/// Bytes that don't compress, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A file that is taken for a bbolt database, and so is cut into pages.
fn page_file(seed: u64, pages: usize) -> Vec<u8> {
    let mut bytes = noise(seed, pages * 4096);
    bytes[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    bytes[20..24].copy_from_slice(&2_u32.to_le_bytes());
    bytes
}

fn kind<T>(result: Result<T>) -> highwater::Kind {
    result.map(drop).map_err(|error: Error| error.kind()).unwrap_err()
}
