//! What opens a vault.

use highwater::Kind;

use super::*;

#[test]
fn slots_come_and_go_but_the_last_one_stays() {
    let bench = Bench::new();
    bench.write("a", b"1");
    let snapshot = bench.backup().snapshot;
    let added = bench.vault.add_slot(&key(2), "second").unwrap();
    let again = Vault::open_with(bench.vault.location(), &key(2), &env()).unwrap();
    assert_eq!(
        again
            .resolve(&Selector { snapshot: snapshot.to_string(), ..Selector::default() })
            .unwrap()
            .manifest
            .snapshot,
        snapshot
    );

    let first = again.slots().unwrap().into_iter().find(|slot| slot.label == "first").unwrap();
    again.remove_slot(&first.slot.to_string()).unwrap();
    assert_eq!(kind(Vault::open_with(bench.vault.location(), &key(1), &env())), Kind::Denied);
    assert_eq!(kind(again.remove_slot(&added.slot.to_string()[..6])), Kind::Conflict);
    assert_eq!(kind(again.remove_slot("no such slot")), Kind::NotFound);
    assert!(Vault::open_with(bench.vault.location(), &key(2), &env()).is_ok());
}

#[test]
fn the_recovery_words_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Local(dir.path().join("vault"));
    let created =
        Vault::create_with(&location, &key(1), &CreateOptions::default().recovery(true), &env())
            .unwrap();
    let words = created.recovery_words.unwrap();
    assert_eq!(words.split(' ').count(), 24);
    // As somebody types them from paper.
    let typed = words.to_uppercase().replace(' ', "\n  ");
    let opened =
        Vault::open_with(&location, &Secret::from_mnemonic(&typed).unwrap(), &env()).unwrap();
    assert_eq!(opened.id(), created.vault.id());
    assert_eq!(opened.slots().unwrap().len(), 2);
    assert_eq!(kind(Vault::open_with(&location, &key(9), &env())), Kind::Denied);
}
