//! Transactions that no put takes: whole on the server or not at all, wherever their owner ends.

use super::*;
use crate::book::Book;
use crate::owner::Start;
use crate::sender::{Limits, Sender, Step};

/// A start of that disk, whose puts take little.
fn start(disk: &Arc<MemoryStore>, remote: &Arc<MemoryRemote>) -> (Sender, Started) {
    let permissions = Permissions {
        allow_empty: true,
        take_over: Some("the machine is lost".to_owned()),
        ..Permissions::default()
    };
    let start = Start {
        book: Book::of(Arc::clone(disk) as _),
        remote: Arc::clone(remote) as _,
        keys: Arc::new(keys()),
        env: Env::system(),
        owner: "alice",
        permissions: &permissions,
        is_replicated: &|_| true,
    };
    let (mut sender, started) = start.run().unwrap();
    sender.limits = Limits { items: 9, bytes: 300 };
    (sender, started)
}

/// A transaction over some keys, in the queue: each key gets the text, every fourth is deleted, and one is
/// written twice.
fn transaction(disk: &MemoryStore, sender: &Sender, text: &str) {
    use crate::book::{Queued, Way, seq_op};
    let mut seq = sender.book.last_seq().unwrap();
    let mut ops = Vec::new();
    let keys: Vec<u8> = (0..20).chain([3]).collect();
    for (place, key) in keys.iter().enumerate() {
        seq += 1;
        let value = (key % 4 != 2).then(|| format!("{text} {place}").into_bytes());
        let (at, way, more) =
            (highwater::ids::Time::default(), Way::LocalFirst, place + 1 < keys.len());
        let queued = Queued { seq, way, at, key: vec![*key], value: value.clone(), more };
        ops.push(queued.op());
        ops.push(Op { space: Space::Data, key: vec![*key], value });
    }
    ops.push(seq_op(seq));
    disk.write(&ops).unwrap();
}

fn run(sender: &mut Sender) -> u32 {
    let mut puts = 0;
    loop {
        match sender.step().unwrap() {
            Step::Idle => return puts,
            _ => puts += 1,
        }
    }
}

/// Values that the server has beside heads and root.
fn names(remote: &MemoryRemote) -> usize {
    let values = remote.values();
    values.keys().filter(|name| !name.starts_with("head.") && *name != "root").count()
}

#[test]
fn a_transaction_that_no_put_takes_is_whole_wherever_its_owner_ends() {
    let mut last = 0;
    for steps in 0.. {
        let (disk, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
        let (mut sender, _) = start(&disk, &remote);
        transaction(&disk, &sender, "first");
        run(&mut sender);
        let before = data(&disk);
        transaction(&disk, &sender, "second");
        let after = data(&disk);
        assert_ne!(before, after);
        let ended = (0..steps).any(|_| matches!(sender.step().unwrap(), Step::Idle));
        drop(sender);

        // Another machine has one or the other, and nothing lies about.
        let copy = Arc::<MemoryRemote>::default();
        copy.set_values(remote.values());
        let other = Arc::<MemoryStore>::default();
        let (sender, started) = start(&other, &copy);
        assert!(matches!(started, Started::Hydrated { .. }));
        let found = data(&other);
        assert!(found == before || found == after, "after {steps} puts");
        assert_eq!(names(&copy), found.len(), "after {steps} puts");
        assert!(sender.held.head.parts.is_none());

        // The same machine goes on, whatever it had begun.
        let (mut sender, _) = start(&disk, &remote);
        run(&mut sender);
        assert_eq!(data(&disk), after);
        let third = Arc::<MemoryStore>::default();
        start(&third, &remote);
        assert_eq!(data(&third), after, "after {steps} puts");
        if ended {
            last = steps;
            break;
        }
    }
    assert!(last > 6, "{last} puts are no transaction in parts");
}

#[test]
fn answers_that_are_lost_on_the_way_of_parts_change_nothing() {
    for fault in [RemoteFault::Request, RemoteFault::Answer, RemoteFault::Late(2)] {
        for place in 0..40 {
            let (disk, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
            let (mut sender, _) = start(&disk, &remote);
            remote.fail((0..place).map(|_| None).chain([Some(fault)]));
            transaction(&disk, &sender, "first");
            run(&mut sender);
            transaction(&disk, &sender, "second");
            run(&mut sender);
            remote.set_calm();
            let other = Arc::<MemoryStore>::default();
            start(&other, &remote);
            assert_eq!(data(&other), data(&disk), "{fault:?} at {place}");
        }
    }
}

#[test]
fn a_part_that_the_server_lost_or_changed_is_found_out() {
    for tamper in [true, false] {
        let (disk, remote) = (Arc::<MemoryStore>::default(), Arc::<MemoryRemote>::default());
        let (mut sender, _) = start(&disk, &remote);
        transaction(&disk, &sender, "first");
        while !sender.held.head.parts.is_some_and(|parts| parts.valid) {
            sender.step().unwrap();
        }
        let mut values = remote.values();
        let name = values.keys().find(|name| name.starts_with("p.")).unwrap().clone();
        match tamper {
            true => values.get_mut(&name).unwrap().1[20] ^= 1,
            false => drop(values.remove(&name)),
        }
        remote.set_values(values);
        assert_eq!(kind(sender.step()), Kind::Corrupt);
    }
}

#[test]
fn a_large_transaction_of_a_node_arrives() {
    let (local, remote, store) = fresh();
    let writes = (0..3000u32)
        .map(|n| Write { key: n.to_be_bytes().to_vec(), value: Some(vec![n as u8; 8000]) });
    store.commit(writes.collect()).unwrap();
    store.flush(LONG).unwrap();
    store.stop().unwrap();
    assert_eq!(hydrated(&remote).unwrap(), data(&local));
    let (_, _, store) = fresh();
    let many = vec![Write { key: vec![1], value: None }; 100_001];
    assert_eq!(kind(store.commit(many)), Kind::Input);
}
