//! Checks of a share of the vault: in the end everything was read, and no damage stays unseen.

use highwater::Kind;
use highwater::vault::{CheckOptions, CheckReport, check};

use super::*;

fn share(bench: &Bench, text: &str) -> CheckReport {
    let options = CheckOptions::default()
        .read_data(true)
        .subset(Some(text.parse().unwrap()))
        .actor(Some(bench.actor("alice")));
    check(&bench.vault, &options, &control()).unwrap()
}

/// A vault of a good dozen packs.
fn scene() -> Bench {
    let bench = Bench::new();
    for fill in 0..14 {
        bench.write("plain", noise(fill, 20_000 + 3_000 * fill as usize));
        bench.backup();
    }
    bench
}

#[test]
fn twenty_checks_of_a_twentieth_read_all_and_find_the_damage() {
    let bench = scene();
    let packs = bench.objects("packs");
    let damaged = &packs[9];
    let sound = fs::read(damaged).unwrap();
    let mut bytes = sound.clone();
    bytes[100] ^= 1;
    fs::write(damaged, &bytes).unwrap();
    let mut found = 0;
    let mut read = 0;
    for run in 0..20 {
        let report = share(&bench, "5%");
        found += u32::from(!report.ok);
        let coverage = report.coverage.unwrap();
        assert_eq!(coverage.packs, packs.len() as u64);
        assert!(coverage.bytes_read >= read && report.bytes < coverage.bytes / 2, "run {run}");
        assert_eq!(report.snapshots, 14, "manifests are always checked whole");
        // Once it was found it is looked at each time.
        assert!(found == 0 || !report.ok, "run {run}");
        read = coverage.bytes_read;
    }
    assert!(found > 0);
    let coverage = share(&bench, "5%").coverage.unwrap();
    assert_eq!(coverage.packs_read, packs.len() as u64 - 1, "the bad one does not count as read");
    fs::write(damaged, sound).unwrap();
    let vault = Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap();
    let options = CheckOptions::default().read_data(true).actor(Some(bench.actor("alice")));
    let whole = check(&vault, &options, &control()).unwrap();
    let coverage = whole.coverage.unwrap();
    assert!(whole.ok && coverage.bytes_read == coverage.bytes && coverage.since.is_some());
}

#[test]
fn a_missing_pack_is_found_whatever_share_is_read() {
    let bench = scene();
    fs::remove_file(&bench.objects("packs")[3]).unwrap();
    let report = share(&bench, "0.1%");
    assert!(!report.ok && report.errors[0].problem.contains("missing"), "{:?}", report.errors);
}

#[test]
fn a_damaged_memory_is_a_warning_and_is_begun_anew() {
    let bench = scene();
    assert!(share(&bench, "50%").warnings.is_empty());
    let memory = bench.dir.path().join("state-alice/checked").join(bench.vault.id().to_string());
    fs::write(&memory, "nonsense").unwrap();
    let report = share(&bench, "5%");
    assert!(report.ok && report.warnings.len() == 1, "{:?}", report.warnings);
    assert!(share(&bench, "5%").warnings.is_empty());
}

#[test]
fn a_share_of_nothing_read_is_a_wrong_call() {
    let bench = Bench::new();
    let options = CheckOptions::default()
        .subset(Some("5%".parse().unwrap()))
        .actor(Some(bench.actor("alice")));
    assert_eq!(kind(check(&bench.vault, &options, &control())), Kind::Input);
}
