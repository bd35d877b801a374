//! LDK on a replicated store: payments over a server that fails, is late and loses answers, a machine that
//! is lost in between, and the same channels on another one.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

#[allow(dead_code, reason = "what is known of nodes is tested on the same ones")]
mod node;
mod server;
mod traits;
mod wire;

use std::sync::Arc;

use highwater_replica::local::{LocalStore, MemoryStore};
use highwater_replica::remote::RemoteFault;
use highwater_replica::{
    Permissions, Remote, ReplicaKeys, ReplicatedStore, ahead_of_manager,
    ldk::{Persistence, classes},
};

use lightning::ln::msgs::BaseMessageHandler as _;
use lightning::util::persist::MigratableKVStore;

use node::{Node, Plain, Store, connect};
use server::{Recorder, State};
use wire::deliver;

/// A generator of numbers; good enough to choose by.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn keys() -> ReplicaKeys {
    ReplicaKeys::from_entropy(&[7; 32], "node").unwrap()
}

/// A store of its own, and what it has sent.
fn store() -> (Arc<Recorder>, Box<ReplicatedStore>) {
    let remote = Arc::<Recorder>::default();
    let local = Arc::<MemoryStore>::default();
    let Store::Replicated(store, _) =
        open(local, Arc::clone(&remote) as _, Persistence::Asynchronous)
    else {
        unreachable!()
    };
    (remote, Box::new(Arc::into_inner(store).unwrap()))
}

/// All names in a store, by the trait that this version has for it.
fn all_keys(store: &ReplicatedStore) -> lightning::io::Result<Vec<(String, String, String)>> {
    MigratableKVStore::list_all_keys(store)
}

fn open(local: Arc<dyn LocalStore>, remote: Arc<dyn Remote>, how: Persistence) -> Store {
    let permissions = Permissions {
        allow_empty: true,
        take_over: Some("the machine is lost".to_owned()),
        ..Permissions::default()
    };
    let (store, _) = ReplicatedStore::builder(local, remote, keys())
        .classes(classes(how))
        .permissions(permissions)
        .open()
        .unwrap();
    Store::Replicated(Arc::new(store), how)
}

/// What a machine that lost everything has, of what a server holds.
fn hydrated(state: &State, how: Persistence) -> (Arc<Recorder>, Store) {
    let remote = Arc::new(Recorder::new(state.clone()));
    (Arc::clone(&remote), open(Arc::<MemoryStore>::default(), remote, how))
}

/// Alice, whose store is replicated, and Bob, who loses nothing.
struct World {
    alice: Node,
    bob: Node,
    remote: Arc<Recorder>,
    how: Persistence,
    dice: Dice,
    payments: u32,
}

impl World {
    fn new(seed: u64, how: Persistence, channels: u32) -> World {
        let remote = Arc::<Recorder>::default();
        let store = open(Arc::<MemoryStore>::default(), Arc::clone(&remote) as _, how);
        let alice = Node::new(1, store);
        let bob = Node::new(2, Store::Plain(Arc::<Plain>::default()));
        connect(&alice, &bob);
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut world = World { alice, bob, remote, how, dice, payments: 0 };
        for number in 0..channels {
            world.alice.open(&world.bob, number);
            world.settle();
        }
        assert_eq!(world.alice.manager.list_usable_channels().len(), channels as usize);
        world
    }

    /// Some of the server's next answers go wrong.
    fn weather(&mut self) {
        let faults: Vec<_> = (0..self.dice.roll(3))
            .map(|_| match self.dice.roll(6) {
                0 => Some(RemoteFault::Request),
                1 => Some(RemoteFault::Answer),
                2 => Some(RemoteFault::Late(self.dice.roll(4) as u32)),
                _ => None,
            })
            .collect();
        self.remote.server.fail(faults);
    }

    /// One of the things that may happen next.
    fn step(&mut self) {
        match self.dice.roll(7) {
            0 => drop(deliver(&self.alice, &self.bob)),
            1 => drop(deliver(&self.bob, &self.alice)),
            2 => self.alice.events(),
            3 => self.bob.events(),
            4 => self.bob.persist(),
            5 => self.alice.persist(),
            _ => {
                // LDK's background processor writes the manager before anything can come to rest.
                self.alice.persist();
                let _ = self.alice.tasks.finish();
            }
        }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let mut any = deliver(&self.alice, &self.bob) | deliver(&self.bob, &self.alice);
            self.alice.events();
            self.bob.events();
            self.alice.persist();
            self.bob.persist();
            any |= self.alice.tasks.finish();
            quiet = if any { 0 } else { quiet + 1 };
        }
    }

    /// Starts some payments, in either direction.
    fn pay(&mut self, count: u64) {
        for _ in 0..count {
            let msat = 20_000 + self.dice.roll(50_000_000);
            let channel = self.dice.roll(8) as usize;
            self.payments += 1;
            let mut id = [0; 32];
            id[..4].copy_from_slice(&self.payments.to_le_bytes());
            let paid = match self.dice.roll(2) {
                0 => self.alice.pay(&self.bob, msat, channel, id),
                _ => self.bob.pay(&self.alice, msat, channel, id),
            };
            self.payments -= u32::from(!paid);
        }
    }

    /// Alice's machine is lost at once, and another one takes what the server has.
    fn lose_the_machine(&mut self) {
        let state = self.remote.server.values();
        self.bob.manager.peer_disconnected(self.alice.id());
        self.alice.tasks.clear();
        let (remote, store) = hydrated(&state, self.how);
        self.remote = remote;
        self.alice = Node::load(1, store).unwrap();
        self.alice.events();
        assert_eq!(self.alice.closed, Vec::<String>::new());
        connect(&self.alice, &self.bob);
    }

    /// Nothing is under way, nothing was closed, and both say the same of every channel.
    fn check(&self) {
        assert_eq!(self.alice.closed, Vec::<String>::new());
        assert_eq!(self.bob.closed, Vec::<String>::new());
        let channels = |node: &Node| {
            let mut channels = node.manager.list_usable_channels();
            channels.sort_by_key(|channel| channel.channel_id);
            channels
        };
        let (ours, theirs) = (channels(&self.alice), channels(&self.bob));
        assert_eq!(ours.len(), theirs.len());
        for (our, their) in ours.iter().zip(&theirs) {
            assert_eq!(our.channel_id, their.channel_id);
            assert_eq!(our.outbound_capacity_msat, their.inbound_capacity_msat);
            assert_eq!(our.inbound_capacity_msat, their.outbound_capacity_msat);
            assert!(our.pending_outbound_htlcs.is_empty() && our.pending_inbound_htlcs.is_empty());
        }
    }
}

#[test]
fn a_node_whose_machine_is_lost_goes_on_and_no_channel_closes() {
    let mut payments = 0;
    for seed in 1..=4 {
        let mut world = World::new(seed, Persistence::Asynchronous, 3);
        for _ in 0..12 {
            for _ in 0..4 {
                world.weather();
                world.pay(12);
                (0..world.dice.roll(40)).for_each(|_| world.step());
            }
            world.lose_the_machine();
            world.settle();
            world.check();
        }
        payments += world.payments;
    }
    assert!(payments > 1500, "{payments} payments are too few");
}

#[test]
fn at_every_put_the_manager_is_that_of_its_monitors() {
    let mut world = World::new(9, Persistence::Asynchronous, 2);
    for _ in 0..6 {
        world.pay(8);
        world.weather();
        (0..30).for_each(|_| world.step());
        world.settle();
    }
    let states = world.remote.states();
    assert!(states.len() > 50, "{} puts are too few", states.len());
    let mut loaded = 0;
    for state in &states {
        let (_, store) = hydrated(state, Persistence::Asynchronous);
        let Store::Replicated(rows, _) = &store else { unreachable!() };
        let manager = rows.read(b"//manager").unwrap();
        if manager.is_none() {
            assert_eq!(rows.scan(b"monitors/", None, 1).unwrap(), []);
            continue;
        }
        let mut node = Node::load(1, store).unwrap();
        node.events();
        assert_eq!(node.closed, Vec::<String>::new());
        loaded += 1;
    }
    assert!(loaded > 50, "{loaded} states are too few");
}

#[test]
fn with_synchronous_persistence_each_channel_that_loading_closes_is_named_before() {
    let mut world = World::new(11, Persistence::Synchronous, 3);
    for _ in 0..6 {
        world.pay(6);
        world.weather();
        (0..40).for_each(|_| world.step());
        world.settle();
    }
    let (mut closed, mut clear) = (0, 0);
    for state in &world.remote.states() {
        let local = Arc::<MemoryStore>::default();
        let remote = Arc::new(Recorder::new(state.clone()));
        let store =
            open(Arc::clone(&local) as _, Arc::clone(&remote) as _, Persistence::Synchronous);
        let named = ahead_of_manager(&*local, &*remote, &keys()).unwrap();
        let Store::Replicated(rows, _) = &store else { unreachable!() };
        if rows.read(b"//manager").unwrap().is_none() {
            continue;
        }
        // Never the other way round: LDK would not load it at all.
        let mut node = Node::load(1, store).unwrap();
        node.events();
        for name in &node.closed_names {
            assert!(named.contains(name), "{name} is closed, {named:?} were named");
        }
        closed += node.closed.len();
        clear += usize::from(named.is_empty());
    }
    assert!(closed > 10, "{closed} channels closed are too few");
    assert!(clear > 10, "{clear} states without a name are too few");
}

#[test]
fn without_the_manager_beside_it_an_update_closes_its_channel() {
    // What the test above would see where updates were sent as they come: it can fail.
    let world = World::new(9, Persistence::Asynchronous, 1);
    assert!(world.alice.pay(&world.bob, 1_000_000, 0, [1; 32]));
    let Store::Replicated(store, _) = &world.alice.store else { unreachable!() };
    // Nobody writes the manager: the update is sent alone once it has waited for long enough.
    world.alice.tasks.finish();
    let waits = store.status().unwrap().pending_writes;
    assert_eq!(waits, 0);
    let state = world.remote.server.values();
    let (_, store) = hydrated(&state, Persistence::Asynchronous);
    let mut node = Node::load(1, store).unwrap();
    node.events();
    assert_eq!(node.closed.len(), 1, "{:?}", node.closed);
}

#[test]
fn a_node_that_restarts_with_its_disk_goes_on() {
    let how = Persistence::Asynchronous;
    let (local, remote) = (Arc::<MemoryStore>::default(), Arc::<Recorder>::default());
    let alice = Node::new(1, open(Arc::clone(&local) as _, Arc::clone(&remote) as _, how));
    let bob = Node::new(2, Store::Plain(Arc::<Plain>::default()));
    connect(&alice, &bob);
    let mut world = World { alice, bob, remote, how, dice: Dice(5), payments: 0 };
    world.alice.open(&world.bob, 1);
    world.settle();
    for _ in 0..10 {
        world.pay(5);
        (0..world.dice.roll(30)).for_each(|_| world.step());
        world.bob.manager.peer_disconnected(world.alice.id());
        // The process ends with what it has begun.
        world.alice.tasks.clear();
        let Store::Replicated(store, _) = &world.alice.store else { unreachable!() };
        store.stop().unwrap();
        let store = open(Arc::clone(&local) as _, Arc::clone(&world.remote) as _, how);
        world.alice = Node::load(1, store).unwrap();
        world.alice.events();
        connect(&world.alice, &world.bob);
        world.settle();
        world.check();
    }
}
