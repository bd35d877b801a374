//! A witness in a vault beside its snapshots.

use std::sync::Arc;

use highwater::guard::{Move, Raised, VaultWitness, Witness};
use highwater::vault::{CheckOptions, check};
use highwater_guard::Ours;

use super::*;

fn start(vault: &Arc<Vault>, node: NodeName) -> Witness {
    let store = Arc::new(VaultWitness::new(Arc::clone(vault), node.clone()).unwrap());
    Witness::take_over(store, node, "holder".to_owned(), &env()).unwrap()
}

#[test]
fn backups_and_their_collections_leave_the_witness_alone() {
    let bench = Bench::new();
    let vault = Arc::new(Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap());
    let witness = start(&vault, bench.name());
    for number in 1..=12 {
        let ours = Ours { signed: Some(number), epoch: witness.epoch(), ..Ours::default() };
        let step = Move { channel: "a".to_owned(), ours };
        assert_eq!(
            witness.raise(&[step], &[("keys".to_owned(), number)]).unwrap(),
            Raised::Durable
        );
        bench.write("a", number.to_string());
        bench.backup();
    }
    let stands = bench.objects("witness");
    assert_eq!(stands.len(), 8);
    bench.vault.take_over(&bench.name(), &bench.actor("bob"), "moved").unwrap();
    bench.backup_as("bob", &BackupOptions::default(), &control()).unwrap();
    assert_eq!(bench.objects("witness"), stands);
    bench.assert_sound();

    let next = start(&vault, bench.name());
    assert_eq!((next.of("a").unwrap().signed, next.counter("keys")), (12, Some(12)));
    assert_eq!(start(&vault, "another".parse().unwrap()).of("a"), None);
}

#[test]
fn a_vault_from_before_there_were_witnesses_takes_one() {
    let (_dir, vault) = fixture::open();
    let vault = Arc::new(vault);
    let name: NodeName = "node".parse().unwrap();
    assert_eq!(start(&vault, name.clone()).epoch(), 1);
    assert_eq!(start(&vault, name).epoch(), 2);
    let options = CheckOptions::default().read_data(true);
    let report = check(&vault, &options, &control()).unwrap();
    assert_eq!((report.ok, report.snapshots), (true, 2), "{:?}", report.errors);
}
