//! A part of many entries: they are in lists, and a snapshot stores anew only the lists in which something changed.

use std::io::Cursor;

use highwater::Kind;
use highwater::archive::{self, Export, ExportOptions, Input};

use super::prune::{age, keep_last, prune_now, rewrite_of};
use super::*;

const FILES: u64 = 5000;

/// A node of many small files, and what its first backup has stored beside their content.
fn many() -> (Bench, BackupReport) {
    let bench = Bench::new();
    for file in 0..FILES {
        bench.write(&format!("dir-{}/file-{file}", file % 7), noise(file, 20));
    }
    let report = bench.backup();
    (bench, report)
}

fn manifest(bench: &Bench, snapshot: SnapshotId) -> highwater::vault::Manifest {
    let selector = Selector { snapshot: snapshot.to_string(), ..Selector::default() };
    bench.vault.resolve(&selector).unwrap().manifest
}

fn lists(bench: &Bench, snapshot: SnapshotId) -> std::collections::BTreeSet<String> {
    let manifest = manifest(bench, snapshot);
    assert_eq!(manifest.version, 2);
    let part = manifest.parts.iter().find(|part| part.name == "files").unwrap();
    assert!(part.entries.is_sorted_by(|a, b| a.path < b.path));
    part.lists.iter().map(|list| list.content.clone()).collect()
}

#[test]
fn a_snapshot_stores_the_lists_that_changed() {
    let (bench, first) = many();
    let before = lists(&bench, first.snapshot);
    assert!(before.len() >= 4, "{}", before.len());

    let same = bench.backup();
    assert_eq!(lists(&bench, same.snapshot), before);
    assert_eq!(bench.packs_stored(&same), 0);
    bench.write("dir-3/file-10", b"another");
    bench.write("dir-3/file-new", b"new");
    fs::remove_file(bench.node().join("dir-6/file-13")).unwrap();
    let third = bench.backup();
    let now = lists(&bench, third.snapshot);
    let fresh = now.difference(&lists(&bench, same.snapshot)).count();
    assert!((1..=3).contains(&fresh), "{fresh} of {} lists", now.len());
    bench.assert_restores(third.snapshot, &tree(&bench.node()));
    bench.assert_sound();
}

#[test]
fn lists_move_with_what_they_name() {
    let (bench, _) = many();
    for change in 0..3_u64 {
        for file in (change..FILES).step_by(40) {
            bench.write(&format!("dir-{}/file-{file}", file % 7), noise(file + change + 1, 3000));
        }
        bench.backup();
    }
    let newest = bench.backup();
    keep_last(&bench, 1);
    age(&bench, 49);
    let rewritten = rewrite_of(bench.vault.location(), &bench.actor("warden"), &control()).unwrap();
    assert_eq!(rewritten.rewritten.manifests, 1, "{rewritten:?}");
    assert_eq!(manifest(&bench, newest.snapshot).generation, 1);
    age(&bench, 49);
    prune_now(&bench, std::time::Duration::from_secs(48 * 3600)).unwrap();
    lists(&bench, newest.snapshot);
    bench.assert_restores(newest.snapshot, &tree(&bench.node()));
    bench.assert_sound();
    bench.write("dir-0/more", b"more");
    let next = bench.backup();
    assert!(
        bench.packs_stored(&next) < 200_000,
        "lists of the rewriting are named again: {next:?}"
    );
}

#[test]
fn an_archive_brings_its_lists() {
    let (bench, first) = many();
    bench.write("dir-1/file-1", b"changed");
    let second = bench.backup();
    let export = |snapshot: SnapshotId, since: Option<SnapshotId>| {
        let select = |snapshot: SnapshotId| Selector {
            snapshot: snapshot.to_string(),
            ..Selector::default()
        };
        let options = ExportOptions::default().selector(select(snapshot)).since(since.map(select));
        let mut bytes = Vec::new();
        Export::new(&bench.vault, &options).unwrap().write(&mut bytes, &control()).unwrap();
        bytes
    };
    let archives = [export(first.snapshot, None), export(second.snapshot, Some(first.snapshot))];
    let location = Location::Local(bench.dir.path().join("other"));
    let input = |bytes: &Vec<u8>| Input {
        name: "archive".to_owned(),
        read: Box::new(Cursor::new(bytes.clone())),
    };
    let inputs = archives.iter().map(input).collect();
    archive::import(&location, &key(1), inputs, &bench.actor("other"), &control()).unwrap();
    let other = Vault::open_with(&location, &key(1), &env()).unwrap();
    let target = bench.dir.path().join("elsewhere");
    restore_to(&other, second.snapshot, &target, false, None).unwrap();
    assert_same(&tree(&target), &tree(&bench.node()));
}

#[test]
fn a_damaged_list_is_named_with_its_pack() {
    let (bench, first) = many();
    let manifest = manifest(&bench, first.snapshot);
    let list = manifest.parts.iter().flat_map(|part| &part.lists).next().unwrap();
    let pack = manifest.packs[list.pack as usize].id.to_string();
    let path = bench.objects("packs").into_iter().find(|path| path.ends_with(&pack)).unwrap();
    let sound = fs::read(&path).unwrap();
    for at in [60, sound.len() / 2, sound.len() - 100] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let vault = Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap();
        let infos = vault.snapshots(None).unwrap();
        let found: Vec<_> = infos.iter().map(|info| info.manifest.bytes_total()).collect();
        assert_eq!(found, [manifest.bytes_total()], "what lies in lists is not needed for a list");
        let error = vault
            .resolve(&Selector { snapshot: "latest".to_owned(), ..Selector::default() })
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.entry().unwrap().contains(&pack), "byte {at}: {error:?}");
        let report = highwater::vault::check(&vault, &Default::default(), &control()).unwrap();
        let fault = report.errors.iter().find(|fault| fault.entry.contains(&pack)).unwrap();
        assert_eq!(fault.snapshots, [first.snapshot], "{fault:?}");
    }
}

#[test]
fn where_lists_are_lost_everything_is_stored_anew() {
    let (bench, first) = many();
    let manifest = manifest(&bench, first.snapshot);
    let list = manifest.parts.iter().flat_map(|part| &part.lists).next().unwrap();
    let pack = manifest.packs[list.pack as usize].id.to_string();
    let path = bench.objects("packs").into_iter().find(|path| path.ends_with(&pack)).unwrap();
    fs::remove_file(path).unwrap();
    let vault = Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap();
    let (options, node) = (BackupOptions::default(), bench.node());
    let report = backup::run(&vault, &node, &bench.actor("alice"), &options, &control()).unwrap();
    assert!(
        report.warnings.iter().any(|it| it.contains("everything was stored anew")),
        "{report:?}"
    );
    assert_eq!((report.parent, report.bytes_read), (None, report.bytes_total));
    bench.assert_restores(report.snapshot, &tree(&node));
}
