//! S3 and Azure keep what every store keeps; what a probe finds of stores that don't.

use super::*;
use crate::ids::{NodeName, SnapshotId};
use crate::vault::seal::ObjectKind;
use crate::vault::servers::{Product, Server};
use crate::vault::{Actor, CreateOptions, sealed};

fn remote(server: &Server, prefix: &str) -> Location {
    let location: Location = server.url(prefix).parse().unwrap();
    location.with_settings(server.settings()).unwrap()
}

#[test]
fn s3_keeps_its_promises() {
    let Some(server) = Server::start(Product::Moto) else { return };
    let location = remote(&server, "a/prefix");
    keeps_its_promises(&|| Store::open(&location, &Env::system()).unwrap());
}

#[test]
fn azure_keeps_its_promises() {
    let Some(server) = Server::start(Product::Azurite) else { return };
    let location = remote(&server, "a/prefix");
    keeps_its_promises(&|| Store::open(&location, &Env::system()).unwrap());
}

/// What of two vaults in one bucket the one sees of the other.
#[test]
fn a_prefix_hides_what_lies_beside_it() {
    let Some(server) = Server::start(Product::Moto) else { return };
    let open = |prefix| Store::open(&remote(&server, prefix), &Env::system()).unwrap();
    let (one, longer, whole) = (open("a"), open("ab"), open(""));
    assert!(one.put_new("x", &b"1"[..]).unwrap());
    assert!(longer.is_empty().unwrap());
    assert!(longer.put_new("x", &b"2"[..]).unwrap());
    assert_eq!(one.get("x").unwrap(), &b"1"[..]);
    assert_eq!(one.list(None).unwrap().len(), 1);
    let names: Vec<String> =
        whole.list(None).unwrap().into_iter().map(|listed| listed.name).collect();
    assert_eq!(names, ["a/x", "ab/x"]);
    let error = Store::create(&remote(&server, "a"), &Env::system()).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    let Some(server) = Server::start(Product::S3rver) else { return };
    let location = remote(&server, "vault");
    for _ in 0..3 {
        let store = Store::open(&location, &Env::system()).unwrap();
        let found = store.probe(&Env::system()).unwrap();
        assert!(!found.traits.create_only && !found.traits.compare_and_set, "{found:?}");
        assert!(found.unfit.is_empty(), "{found:?}");
        let error = found.judge("s3://b", false).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.remedies().contains(&crate::Remedy::Unfenced));
        assert!(store.is_empty().unwrap());
    }
}

#[test]
fn a_store_that_looks_first_and_writes_then_is_found_out() {
    let Some(server) = Server::start(Product::S3sFs) else { return };
    let location = remote(&server, "vault");
    let mut caught = 0;
    for _ in 0..20 {
        let store = Store::open(&location, &Env::system()).unwrap();
        let found = store.probe(&Env::system()).unwrap();
        caught += usize::from(!found.traits.create_only);
    }
    assert_eq!(caught, 20);
}

fn vault_in(server: &Server, unfenced: bool) -> Vault {
    let location = remote(server, "vault");
    let secret = Secret::Key(zeroize::Zeroizing::new([1; 32]));
    let options = CreateOptions { recovery: false, unfenced };
    Vault::create_with(&location, &secret, &options, &Env::system()).unwrap().vault
}

#[test]
fn a_witness_lives_in_s3() {
    let Some(server) = Server::start(Product::Moto) else { return };
    let vault = vault_in(&server, true);
    assert!(vault.is_fenced(), "a store that is fine is not made worse");
    let node: NodeName = "node".parse().unwrap();
    for number in 1..=10 {
        assert!(vault.put_witness(&node, number, b"{}").unwrap(), "{number}");
        assert!(!vault.put_witness(&node, number, b"{}").unwrap(), "{number} again");
    }
    assert_eq!(vault.newest_witness(&node).unwrap(), Some((10, b"{}".to_vec())));
    // Number 2 was pruned: its name is free, and whoever slept since then must not win it.
    assert!(!vault.put_witness(&node, 2, b"{}").unwrap());
    let won: usize = std::thread::scope(|scope| {
        let racers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| vault.put_witness(&node, 11, b"{}").unwrap())).collect();
        racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn without_a_fence_two_writers_that_meet_are_told() {
    let Some(server) = Server::start(Product::S3rver) else { return };
    let vault = vault_in(&server, true);
    assert!(!vault.is_fenced());
    assert!(vault.warnings()[0].contains("two writers"));
    let node: NodeName = "node".parse().unwrap();
    let snapshot = SnapshotId::from_bytes([7; 16]);
    for _ in 0..12 {
        vault.record_test(&node, snapshot, true).unwrap();
    }
    let names = || {
        let listed = vault.store().list(Some("nodes/node")).unwrap();
        listed.into_iter().map(|listed| listed.name).collect::<Vec<_>>()
    };
    assert_eq!(names().len(), 8);
    let record = vault.node_record(&node).unwrap().unwrap();
    assert_eq!(record.number, 12);

    let twin = format!("nodes/node/{:020}-0123456789abcdef", 12);
    let object = sealed::seal(&vault, ObjectKind::Node, &twin, &record).unwrap();
    assert!(vault.store().put_new(&twin, object).unwrap());
    let error = vault.record_test(&node, snapshot, true).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains(&twin), "{error}");
    // Who only reads goes on.
    assert!(vault.readable_record(&node).unwrap().is_some());
    vault.store().delete(&twin).unwrap();
    vault.record_test(&node, snapshot, true).unwrap();

    for refused in [
        vault.refuse_overwriting_store(),
        vault
            .take_over(&node, &Actor { state_dir: "/nowhere".into(), name: "a".into() }, "b")
            .map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.message().contains("does not keep two writers apart"), "{error}");
    }
    let plain = record_named(&vault, &node, 14);
    assert_eq!(vault.open_node_record(&plain).unwrap_err().kind(), Kind::Corrupt);
}

/// A record under the name that it would have in a vault with a fence.
fn record_named(vault: &Vault, node: &NodeName, number: u64) -> String {
    let name = format!("nodes/{node}/{number:020}");
    let record = vault.node_record(node).unwrap().unwrap();
    let record = crate::vault::NodeRecord { number, ..record };
    let object = sealed::seal(vault, ObjectKind::Node, &name, &record).unwrap();
    assert!(vault.store().put_new(&name, object).unwrap());
    name
}
