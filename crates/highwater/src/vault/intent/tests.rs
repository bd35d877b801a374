//! What a backup and a collector do beside others that are in the middle of their work: rules that the model of
//! prune in `highwater-sim` has shown to be needed.

use std::fs;

use super::*;
use crate::backup::{self, BackupOptions, BackupReport};
use crate::control::Control;
use crate::env::Env;
use crate::vault::{Actor, CreateOptions, Location, Secret};

struct Bench {
    dir: tempfile::TempDir,
    vault: Vault,
    control: Control,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::system();
        let location = Location::Local(dir.path().join("vault"));
        let secret = Secret::Key(zeroize::Zeroizing::new([3; 32]));
        let vault =
            Vault::create_with(&location, &secret, &CreateOptions::default(), &env).unwrap().vault;
        fs::create_dir(dir.path().join("node")).unwrap();
        fs::write(dir.path().join("node/file"), [7; 10_000]).unwrap();
        Bench { dir, vault, control: Control::new(env) }
    }

    fn actor(&self) -> Actor {
        Actor { state_dir: self.dir.path().join("state"), name: "alice".to_owned() }
    }

    fn backup(&self) -> BackupReport {
        let node = self.dir.path().join("node");
        let options = BackupOptions::default();
        backup::run(&self.vault, &node, &self.actor(), &options, &self.control).unwrap()
    }

    fn manifest(&self, snapshot: SnapshotId) -> Manifest {
        let names = self.vault.snapshot_names(None).unwrap();
        let name = names.iter().find(|name| name.snapshot == snapshot).unwrap();
        self.vault.manifest(name).unwrap()
    }
}

/// The manifest arrived after the prune had listed manifests: it is visible and whole, for a moment.
#[test]
fn nothing_is_built_on_packs_that_a_claim_names() {
    let bench = Bench::new();
    let first = bench.backup();
    let packs: Vec<PackId> =
        bench.manifest(first.snapshot).packs.iter().map(|pack| pack.id).collect();
    let claim = TrashDoc::new(&bench.vault, Purpose::Delete, "warden", Vec::new(), packs.clone());
    bench.vault.put_trash(&claim.unwrap()).unwrap();
    let second = bench.backup();
    assert_eq!(second.parent, None, "{second:?}");
    assert!(second.warnings.iter().any(|warning| warning.contains("a prune deletes packs")));
    let named = bench.manifest(second.snapshot).packs;
    assert!(named.iter().all(|pack| !packs.contains(&pack.id)));
}

/// The leftovers of a backup that was taken for killed: it has committed, another one was built on it, and it was
/// forgotten and deleted.
#[test]
fn leftovers_that_another_snapshot_names_are_not_collected() {
    let bench = Bench::new();
    let (first, second) = (bench.backup(), bench.backup());
    assert_eq!(second.parent, Some(first.snapshot));
    let old = bench.manifest(first.snapshot);
    bench.vault.take_back(&old).unwrap();
    let writer = bench.actor().writer(bench.vault.env()).unwrap();
    let now = bench.vault.env().now();
    let killed = Intent::of_backup(first.snapshot, old.node.clone(), old.uid, None, writer, now);
    bench.vault.put_intent(&killed).unwrap();
    assert_eq!(bench.vault.collect_leftovers(&old.node, writer).unwrap(), 1);
    let kept = bench.manifest(second.snapshot);
    assert_eq!(bench.vault.missing_pack(&kept).unwrap(), None);
}
