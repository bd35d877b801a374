//! Places of keys, over starts that keep them and starts that do not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::local::MemoryStore;

/// The rows are those of the keys that are there, each with a number of its own, and no others.
pub(crate) fn assert_whole(store: &MemoryStore) {
    let store = store.copy();
    let rows = |space, prefix: &[u8]| store.scan(space, prefix, None, usize::MAX).unwrap();
    let numbers: BTreeMap<Vec<u8>, Vec<u8>> = rows(Space::Book, NUMBERS)
        .into_iter()
        .map(|(row, number)| (row[NUMBERS.len()..].to_vec(), number))
        .collect();
    let keys: Vec<Vec<u8>> = rows(Space::Data, b"").into_iter().map(|(key, _)| key).collect();
    assert!(numbers.keys().eq(&keys), "{:?} have numbers, there are {keys:?}", numbers.keys());
    let number = |bytes: &[u8]| read_number(b"", bytes).unwrap();
    let places: BTreeSet<Vec<u8>> =
        numbers.iter().map(|(key, bytes)| rows_of(key, number(bytes)).1).collect();
    let found: BTreeSet<Vec<u8>> =
        rows(Space::Book, GROUPS).into_iter().map(|(place, _)| place).collect();
    assert_eq!(found, places, "places are not those of the numbers");
    let distinct: BTreeSet<u64> = numbers.values().map(|bytes| number(bytes)).collect();
    assert_eq!(distinct.len(), keys.len(), "a number is given twice");
}

#[derive(Clone, Debug)]
enum Step {
    /// One transaction: keys, and whether each gets a value.
    Write(Vec<(usize, bool)>),
    /// A start, which may keep the order.
    Start(bool),
    /// From a server.
    Hydrate,
    Page,
}

const KEYS: [&str; 9] = ["g/0", "g/1", "g/2", "g/3", "g/4", "g/5", "g/h/0", "g", ""];
const GROUP: &[u8] = b"g/";

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.7)), 1..4)
            .prop_map(Step::Write),
        1 => any::<bool>().prop_map(Step::Start),
        1 => Just(Step::Start(true)),
        1 => Just(Step::Hydrate),
        6 => Just(Step::Page),
    ]
}

/// A store, and what is expected of it.
struct World {
    store: MemoryStore,
    order: Option<Order>,
    /// The head's.
    put: PutId,
    /// Keys in their order.
    keys: Vec<String>,
    /// The last key that was given, and all of this walk.
    after: Option<(u64, Vec<u8>)>,
    given: Vec<String>,
    /// Keys that have been there all the while.
    stays: BTreeSet<String>,
}

impl World {
    fn new() -> World {
        let (order, after, stays) = (None, None, BTreeSet::new());
        let (store, keys, given) = (MemoryStore::default(), Vec::new(), Vec::new());
        let mut world = World { store, order, put: [0; 16], keys, after, given, stays };
        world.start(true);
        world
    }

    fn there(&self) -> BTreeSet<String> {
        let rows = self.store.scan(Space::Data, b"", None, usize::MAX).unwrap();
        rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    }

    fn write(&mut self, writes: &[(usize, bool)]) {
        let ops = writes.iter().map(|(key, filled)| match filled {
            true => Op::put(Space::Data, KEYS[*key], *b"v"),
            false => Op::delete(Space::Data, KEYS[*key]),
        });
        let mut ops: Vec<Op> = ops.collect();
        if let Some(order) = &self.order {
            order.follow(&self.store, &mut ops).unwrap();
        }
        self.store.write(&ops).unwrap();
        for (key, filled) in writes.iter().map(|(key, filled)| (KEYS[*key], *filled)) {
            if !filled {
                self.stays.remove(key);
            }
            if self.order.is_some() && (!filled || !self.keys.iter().any(|known| known == key)) {
                self.keys.retain(|known| known != key);
                self.keys.extend(filled.then(|| key.to_owned()));
            }
        }
    }

    /// The head is put again, as each start does.
    fn start(&mut self, in_order: bool) {
        let before = self.put;
        self.put[0] = self.put[0].wrapping_add(1);
        self.order = None;
        if !in_order {
            return;
        }
        let order = Order::find(&self.store, Some(before)).unwrap();
        self.store.write(order.at(self.put).as_slice()).unwrap();
        order.complete(&self.store, self.put).unwrap();
        self.order = Some(order);
        let there = self.there();
        self.keys.retain(|key| there.contains(key));
        let known: BTreeSet<String> = self.keys.iter().cloned().collect();
        self.keys.extend(there.difference(&known).cloned());
    }

    /// All values come from a server, last written in the reverse order of their names.
    fn hydrate(&mut self) {
        self.store.write(&forgotten()).unwrap();
        for rows in all() {
            let rows = self.store.scan(Space::Book, rows, None, usize::MAX).unwrap();
            let deletes = rows.into_iter().map(|(row, _)| Op::delete(Space::Book, row));
            self.store.write(&deletes.collect::<Vec<_>>()).unwrap();
        }
        self.keys = self.there().into_iter().rev().collect();
        self.put[0] = self.put[0].wrapping_add(1);
        let rows = self.keys.iter().zip(7..).flat_map(|(key, seq)| hydrated(key.as_bytes(), seq));
        self.store.write(&rows.collect::<Vec<_>>()).unwrap();
        self.store.write(&all_hydrated(self.put, 100)).unwrap();
        let order = Order::find(&self.store, None).unwrap();
        order.is_hydrated(100);
        self.order = Some(order);
        // No token is good any more.
        self.after = None;
    }

    fn page(&mut self) {
        if self.order.is_none() {
            return;
        }
        if self.after.is_none() {
            self.stays = self.there().into_iter().filter(|key| group_of(key) == GROUP).collect();
            self.given.clear();
        }
        let after = self.after.as_ref().map(|(number, key)| (*number, key.as_slice()));
        let page = newest(&self.store, GROUP, after, 2).unwrap();
        self.after = page.last().cloned();
        self.given.extend(page.into_iter().map(|(_, key)| String::from_utf8(key).unwrap()));
        let distinct: BTreeSet<&String> = self.given.iter().collect();
        assert_eq!(distinct.len(), self.given.len(), "given twice: {:?}", self.given);
        if self.after.is_none() {
            let missing: Vec<_> =
                self.stays.iter().filter(|key| !self.given.contains(key)).collect();
            assert!(missing.is_empty(), "{missing:?} are not given");
        }
    }

    fn check(&self) {
        if self.order.is_none() {
            return;
        }
        assert_whole(&self.store);
        let found = newest(&self.store, GROUP, None, usize::MAX).unwrap();
        let found: Vec<String> =
            found.into_iter().map(|(_, key)| String::from_utf8(key).unwrap()).collect();
        let expected = self.keys.iter().rev().filter(|key| group_of(key) == GROUP);
        assert!(found.iter().eq(expected), "{found:?} of {:?}", self.keys);
    }
}

fn group_of(key: &str) -> &[u8] {
    &key.as_bytes()[..key.rfind('/').map_or(0, |slash| slash + 1)]
}

proptest! {
    #[test]
    fn keys_are_in_the_order_in_which_they_came_and_pages_give_each_one_once(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Write(writes) => world.write(&writes),
                Step::Start(in_order) => world.start(in_order),
                Step::Hydrate => world.hydrate(),
                Step::Page => world.page(),
            }
            world.check();
        }
    }
}

#[test]
fn a_start_goes_through_more_keys_than_one_look_has() {
    let store = MemoryStore::default();
    let keys = |from: u32, to: u32| (from..to).map(|number| format!("g/{number:06}"));
    let put = |keys: &mut dyn Iterator<Item = String>| {
        store.write(&keys.map(|key| Op::put(Space::Data, key, *b"v")).collect::<Vec<_>>()).unwrap();
    };
    put(&mut keys(1000, 3000));
    Order::find(&store, None).unwrap().complete(&store, [1; 16]).unwrap();
    assert_whole(&store);
    // Before, between and behind those that have one; and many are gone.
    put(&mut keys(0, 1000));
    put(&mut keys(3000, 4000));
    put(&mut keys(1000, 3000).map(|key| key + "b"));
    store
        .write(&keys(1500, 2900).map(|key| Op::delete(Space::Data, key)).collect::<Vec<_>>())
        .unwrap();
    let order = Order::find(&store, Some([2; 16])).unwrap();
    order.complete(&store, [3; 16]).unwrap();
    assert_whole(&store);
    let all = newest(&store, b"g/", None, usize::MAX).unwrap();
    assert_eq!(all.len(), 600 + 2000 + 2000);
    assert_eq!(all[0].1, b"g/003999");
    assert_eq!(all[all.len() - 1].1, b"g/001000");
    // The next start has nothing to do.
    assert!(Order::find(&store, Some([3; 16])).unwrap().is_complete());
}

#[test]
fn what_is_damaged_is_told_and_another_group_s_place_refused() {
    let store = MemoryStore::default();
    let refused = newest(&store, b"g/", Some((7, b"h/1")), 1).unwrap_err();
    assert_eq!(refused.kind(), highwater::Kind::Input);
    let order = Order::find(&store, None).unwrap();
    order.complete(&store, [1; 16]).unwrap();
    store.write(&[Op::put(Space::Book, [NUMBERS, b"g/1"].concat(), *b"short")]).unwrap();
    let mut ops = vec![Op::put(Space::Data, *b"g/1", *b"v")];
    let error = order.follow(&store, &mut ops).unwrap_err();
    assert_eq!(error.kind(), highwater::Kind::Corrupt);
    store
        .write(&[Op::put(Space::Book, [group_rows(b"g/"), b"short".to_vec()].concat(), Vec::new())])
        .unwrap();
    assert!(newest(&store, b"g/", None, 1).is_err());
}
