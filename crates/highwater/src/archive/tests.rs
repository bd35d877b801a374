//! What only the inside can show: forged hashes, a base that was rewritten, packs that belong to nobody.

use std::io::Cursor;
use std::path::Path;

use super::*;
use crate::backup::{self, BackupOptions};
use crate::direct::AlignedBuffer;
use crate::env::Env;
use crate::error::Kind;
use crate::vault::pack::pack_name;
use crate::vault::{Actor, CheckOptions, CreateOptions, Intent, Location, Secret, SnapshotName};

struct Bench {
    dir: tempfile::TempDir,
    vault: Vault,
    control: Control,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let location = Location::Local(dir.path().join("vault"));
        let env = Env::system();
        let vault = Vault::create_with(&location, &secret(), &CreateOptions::default(), &env)
            .unwrap()
            .vault;
        std::fs::create_dir(dir.path().join("node")).unwrap();
        Bench { dir, vault, control: Control::new(env) }
    }

    fn actor(&self, name: &str) -> Actor {
        Actor { state_dir: self.dir.path().join(name), name: name.to_owned() }
    }

    fn backup(&self, content: &str) -> SnapshotId {
        let node = self.dir.path().join("node");
        std::fs::write(node.join("file"), content).unwrap();
        let options = BackupOptions::default();
        let actor = self.actor("alice");
        backup::run(&self.vault, &node, &actor, &options, &self.control).unwrap().snapshot
    }

    fn export(&self, snapshot: SnapshotId, since: Option<SnapshotId>) -> Vec<u8> {
        let select = |id: SnapshotId| Selector { snapshot: id.to_string(), ..Selector::default() };
        let options = ExportOptions { selector: select(snapshot), since: since.map(select) };
        let mut bytes = Vec::new();
        let export = Export::new(&self.vault, &options).unwrap();
        export.write(&mut bytes, &self.control).unwrap();
        bytes
    }

    fn place(&self) -> Location {
        Location::Local(self.dir.path().join("copy"))
    }

    fn import(&self, archives: &[&[u8]]) -> Result<ImportReport> {
        self.import_as("bob", archives)
    }

    fn import_as(&self, who: &str, archives: &[&[u8]]) -> Result<ImportReport> {
        let input = |bytes: &&[u8]| Input {
            name: "an archive".to_owned(),
            read: Box::new(Cursor::new(bytes.to_vec())),
        };
        let inputs = archives.iter().map(input).collect();
        import(&self.place(), &secret(), inputs, &self.actor(who), &self.control)
    }

    fn copy(&self) -> Vault {
        Vault::open_with(&self.place(), &secret(), &self.control.env).unwrap()
    }

    fn refused(&self, archives: &[&[u8]], kind: Kind, words: &str) {
        let error = self.import(archives).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}

fn secret() -> Secret {
    Secret::Key(zeroize::Zeroizing::new([9; 32]))
}

/// Makes every hash of an archive fit again, as somebody without a key can.
fn rehash(archive: &mut [u8]) {
    let hash = blake3::hash(&archive[..176]);
    archive[176..208].copy_from_slice(hash.as_bytes());
    let mut at = format::HEADER_BYTES;
    loop {
        let head: [u8; 16] = archive[at..at + 16].try_into().unwrap();
        match format::parse_head(&head).unwrap() {
            format::Head::Object { name, size } => {
                at += 16 + name + size as usize;
                let hash = blake3::hash(&archive[..at]);
                archive[at..at + 32].copy_from_slice(hash.as_bytes());
                at += 32;
            }
            format::Head::End => {
                let hash = blake3::hash(&archive[..at]);
                archive[at + 24..at + 56].copy_from_slice(hash.as_bytes());
                return;
            }
        }
    }
}

type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn who_has_no_key_can_not_forge_an_archive() {
    let bench = Bench::new();
    let first = bench.backup("one");
    let sound = bench.export(first, None);
    let mut same = sound.clone();
    rehash(&mut same);
    assert_eq!(same, sound);
    let forged = |change: Change<'_>| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        rehash(&mut bytes);
        bytes
    };
    let end = sound.len() - format::MARKER_BYTES;
    let changes: [Change<'_>; 5] = [
        &|bytes| bytes[32] ^= 1,
        &|bytes| bytes[64] ^= 1,
        &|bytes| bytes[130] ^= 1,
        &|bytes| bytes[end - 40] ^= 1,
        &|bytes| bytes[end + 8] ^= 1,
    ];
    for (number, change) in changes.iter().enumerate() {
        let error = bench.import(&[&forged(change)]).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{number}: {error}");
        assert!(!bench.dir.path().join("copy").exists(), "{number}");
    }
    let newer = forged(&|bytes| bytes[8] = 2);
    bench.refused(&[&newer], Kind::Input, "format 2");
    bench.import(&[&sound]).unwrap();
}

#[test]
fn an_increment_does_not_fit_on_a_base_that_was_rewritten() {
    let bench = Bench::new();
    let first = bench.backup("one");
    let whole = bench.export(first, None);
    bench.import(&[&whole]).unwrap();
    let second = bench.backup("two");
    let increment = bench.export(second, Some(first));
    let copy = bench.copy();
    let mut manifest = copy.snapshots(None).unwrap().remove(0).manifest;
    manifest.generation = 1;
    copy.put_manifest(&mut manifest).unwrap();
    bench.refused(&[&increment], Kind::Conflict, "with other content");
    bench.refused(&[&whole], Kind::Conflict, "there already, in other packs");
    bench.import(&[&bench.export(second, None)]).unwrap();
}

fn intent_of(bench: &Bench, vault: &Vault, who: &str, snapshot: SnapshotId) -> Intent {
    let manifest = bench
        .vault
        .snapshots(None)
        .unwrap()
        .into_iter()
        .map(|info| info.manifest)
        .find(|manifest| manifest.snapshot == snapshot)
        .unwrap();
    Intent {
        version: 1,
        snapshot,
        node: manifest.node,
        uid: manifest.uid,
        parent: None,
        writer: bench.actor(who).writer(&bench.control.env).unwrap(),
        start: vault.env().now(),
        boot: crate::vault::boot(),
        rewrite: false,
        import: Some(manifest.packs.iter().map(|pack| pack.id).collect()),
    }
}

/// Puts the packs of a snapshot, as an import does that is killed before its manifest.
fn put_packs(bench: &Bench, vault: &Vault, intent: &Intent) {
    vault.put_import_intent(intent).unwrap();
    for pack in intent.import.iter().flatten() {
        let name = pack_name(*pack);
        vault.store().put_new(&name, bench.vault.store().get(&name).unwrap()).unwrap();
    }
}

#[test]
fn what_an_opened_archive_holds_is_read_as_it_was_in_its_vault_and_never_written() {
    let bench = Bench::new();
    let snapshot = bench.backup(&"one".repeat(5000));
    let path = bench.dir.path().join("one.hwa");
    std::fs::write(&path, bench.export(snapshot, None)).unwrap();
    let opened = open(&[path], &secret(), &bench.control).unwrap().vault;
    let (there, here) = (opened.store(), bench.vault.store());
    let mut buffer = AlignedBuffer::default();
    for folder in ["keys", "snapshots", "packs"] {
        let listed = there.list(Some(folder)).unwrap();
        let known = here.list(Some(folder)).unwrap();
        assert_eq!(listed.len(), known.len(), "{folder}");
        for (listed, known) in listed.iter().zip(&known) {
            assert_eq!((&listed.name, listed.size), (&known.name, known.size));
            let (name, whole) = (&listed.name, here.get(&listed.name).unwrap());
            assert_eq!(there.get(name).unwrap(), whole);
            assert_eq!(there.size(name).unwrap(), Some(listed.size));
            assert_eq!(there.get_range(name, 3..9).unwrap(), whole[3..9]);
            assert_eq!(there.get_range(name, 3..u64::MAX).unwrap(), whole[3..]);
            there.read(name, 1..listed.size, &mut buffer).unwrap();
            assert_eq!(buffer.bytes(), &whole[1..]);
            let error = there.get_range(name, listed.size..listed.size + 1).unwrap_err();
            assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some(name.as_str())));
            assert_eq!(there.delete(name).unwrap_err().kind(), Kind::Denied);
        }
    }
    assert_eq!(there.list(Some("pack")).unwrap(), [], "a prefix is a folder");
    assert_eq!(there.get("packs/none").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(there.size("packs/none").unwrap(), None);
    assert_eq!(there.put_new("packs/none", &b"x"[..]).unwrap_err().kind(), Kind::Denied);
    assert_eq!(there.upload("packs/none").map(drop).unwrap_err().kind(), Kind::Denied);
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = crate::vault::check(&opened, &options, &bench.control).unwrap();
    assert!(report.ok && report.snapshots == 1 && report.chunks > 0, "{report:?}");
}

fn packs(vault: &Vault) -> usize {
    vault.packs_present().unwrap().len()
}

#[test]
fn nothing_is_built_on_what_a_killed_import_left() {
    let bench = Bench::new();
    let first = bench.backup("one");
    bench.import(&[&bench.export(first, None)]).unwrap();
    let second = bench.backup("two");
    let increment = bench.export(second, Some(first));
    let copy = bench.copy();
    let killed = intent_of(&bench, &copy, "carol", second);
    put_packs(&bench, &copy, &killed);
    assert_eq!(packs(&copy), 2);
    // Another writer's: neither its intent nor its packs are ours.
    bench.refused(&[&increment], Kind::Conflict, "is being written");
    copy.delete_intent(second).unwrap();
    bench.refused(&[&increment], Kind::Conflict, "belongs to no snapshot");
    assert_eq!(packs(&copy), 2, "what was there stays");
    copy.put_import_intent(&killed).unwrap();
    // The same writer's next import collects them, and goes on.
    bench.import_as("carol", &[&increment]).unwrap();
    assert_eq!((packs(&copy), copy.snapshots(None).unwrap().len()), (2, 2));
}

#[test]
fn a_killed_import_takes_nothing_with_it_that_others_need() {
    let bench = Bench::new();
    let first = bench.backup("one");
    let second = bench.backup("two");
    bench.import(&[&bench.export(first, None)]).unwrap();
    let copy = bench.copy();
    let killed = intent_of(&bench, &copy, "bob", second);
    put_packs(&bench, &copy, &killed);
    // The first snapshot's pack is needed by a manifest, the second one's by an intent.
    let other = Intent { snapshot: SnapshotId::from_bytes([7; 16]), ..killed.clone() };
    copy.put_import_intent(&other).unwrap();
    copy.discard_import(&killed).unwrap();
    assert_eq!(packs(&copy), 2);
    assert!(!copy.intent_stands(second).unwrap());
    copy.discard_import(&other).unwrap();
    assert_eq!(packs(&copy), 1);
    let name = SnapshotName::of(&copy.snapshots(None).unwrap()[0].manifest);
    assert_eq!(copy.missing_pack(&copy.manifest(&name).unwrap()).unwrap(), None);
    // A manifest that can't be read may need any pack: then nothing goes.
    put_packs(&bench, &copy, &killed);
    let path = bench.dir.path().join("copy").join(name.object());
    flip_last(&path);
    bench.copy().discard_import(&killed).unwrap();
    assert_eq!(packs(&copy), 2);
    assert!(!copy.intent_stands(second).unwrap(), "the rest is for a prune");
}

fn flip_last(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
