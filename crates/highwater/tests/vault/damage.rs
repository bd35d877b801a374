//! Damage and forgery: no byte of a vault can change, and no object can move, without being found.

use highwater::Kind;
use highwater::vault::{CheckOptions, check};

use super::fixture::unlock;
use super::*;

fn objects(vault: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut dirs = vec![vault.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// What is found in a vault, opened anew: nothing is remembered from before the damage.
fn faults(dir: &Path) -> Vec<String> {
    let vault = match unlock(dir) {
        Ok(vault) => vault,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
            return vec![error.entry().unwrap().to_owned()];
        }
    };
    let options = CheckOptions::default().read_data(true);
    match check(&vault, &options, &control()) {
        Ok(report) => report.errors.into_iter().map(|fault| fault.entry).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_byte_of_a_vault_counts() {
    let (dir, _) = fixture::open();
    let dir = dir.path().join("vault");
    assert_eq!(faults(&dir), [""; 0]);
    let names: Vec<PathBuf> =
        objects(&dir).iter().map(|path| path.strip_prefix(&dir).unwrap().to_path_buf()).collect();
    assert_eq!(names.len(), 10);
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| every_byte_counts(name));
        }
    });
}

fn every_byte_counts(name: &Path) {
    let (dir, _) = fixture::open();
    let dir = dir.path().join("vault");
    let path = dir.join(name);
    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        let found = faults(&dir);
        assert!(
            found.iter().any(|entry| name == Path::new(entry)),
            "byte {at} of {name:?}: {found:?}"
        );
    }
    for length in [0, 1, 47, 48, sound.len() - 1, sound.len() + 1] {
        let mut bytes = sound.clone();
        bytes.resize(length, 0);
        fs::write(&path, bytes).unwrap();
        assert!(!faults(&dir).is_empty(), "{name:?} cut to {length}");
    }
}

#[test]
fn a_lost_pack_is_named_and_not_restored_around() {
    let bench = Bench::new();
    bench.write("a", noise(1, 100_000));
    let snapshot = bench.backup().snapshot;
    let pack = bench.objects("packs").remove(0);
    fs::remove_file(&pack).unwrap();
    for read_data in [false, true] {
        let options = CheckOptions::default().read_data(read_data);
        let report = check(&bench.vault, &options, &control()).unwrap();
        assert!(!report.ok);
        assert!(pack.ends_with(&report.errors[0].entry), "{:?}", report.errors);
    }
    let target = bench.dir.path().join("target");
    let again = Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap();
    let restored = restore_to(&again, snapshot, &target, false, None);
    assert_eq!(kind(restored), Kind::Corrupt);
    assert!(!target.exists());
}

#[test]
fn a_target_stays_as_it_is_where_the_vault_is_damaged() {
    let bench = Bench::new();
    bench.write("a", noise(1, 100_000));
    let snapshot = bench.backup().snapshot;
    let pack = bench.objects("packs").remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[5000] ^= 1;
    fs::write(&pack, bytes).unwrap();
    bench.write("a", b"live");
    let live = tree(&bench.node());
    let restored = restore_to(&bench.vault, snapshot, &bench.node(), true, None);
    assert_eq!(kind(restored), Kind::Corrupt);
    assert_same(&tree(&bench.node()), &live);
}

#[test]
fn an_old_manifest_under_a_newer_name_is_refused() {
    let bench = Bench::new();
    bench.write("a", b"1");
    bench.backup();
    let manifest = bench.objects("snapshots").remove(0);
    let name = manifest.file_name().unwrap().to_str().unwrap();
    let newer = manifest.with_file_name(name.replace("-0000000001-", "-0000000009-"));
    fs::copy(&manifest, newer).unwrap();
    let latest = Selector { snapshot: "latest".to_owned(), ..Selector::default() };
    assert_eq!(kind(bench.vault.resolve(&latest)), Kind::Corrupt);
}

#[test]
fn another_vaults_objects_are_refused() {
    let (bench, other) = (Bench::new(), Bench::new());
    for bench in [&bench, &other] {
        bench.write("a", b"1");
        bench.backup();
    }
    let theirs = other.objects("snapshots").remove(0);
    let ours = bench.objects("snapshots").remove(0);
    fs::copy(&theirs, ours.with_file_name(theirs.file_name().unwrap())).unwrap();
    assert_eq!(kind(bench.vault.snapshots(None)), Kind::Corrupt);
}

#[test]
fn check_names_what_no_highwater_puts_there() {
    let bench = Bench::new();
    bench.write("a", b"1");
    bench.backup();
    let vault = bench.dir.path().join("vault");
    fs::create_dir(vault.join("trash")).unwrap();
    fs::write(vault.join("trash/note"), b"").unwrap();
    fs::write(vault.join("snapshots/node/readme.txt"), b"").unwrap();
    fs::write(vault.join("notes"), b"").unwrap();
    let report = check(&bench.vault, &CheckOptions::default(), &control()).unwrap();
    let entries: Vec<_> = report.errors.iter().map(|fault| fault.entry.as_str()).collect();
    assert!(entries.contains(&"notes") && entries.contains(&"trash/note"), "{entries:?}");
    assert!(entries.contains(&"snapshots/node/readme.txt"), "{entries:?}");
}
