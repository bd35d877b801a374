//! Two nodes on simulated disks, a wire that can be cut after every message, and a ledger.

mod cuts;
mod guard;
mod ledger;
mod random;
#[cfg(feature = "unguarded")]
mod unguarded;
mod witness;

use std::collections::VecDeque;
use std::sync::Arc;

use highwater::env::Env;
use highwater::guard::{Guard, MemoryWitness, Witness};
use highwater::{Control, Error};
use highwater_guard::Policy;

use crate::channel::Channel;
use crate::driver::{Driver, Failure, Outcome};
use crate::gate::{Gate, PeerGate};
use crate::ids::{Both, ChannelId, PaymentHash, PeerId, Sats};
use crate::keys::NodeKeys;
use crate::ledger::Ledger;
use crate::node::{Answer, ChannelState, Command, Effect, Input, Listed};
use crate::store::{Cut, Disk, MemoryStore, PaymentState};
use crate::wire::Message;

/// One of the two nodes.
type Who = usize;
const ALICE: Who = 0;
const BOB: Who = 1;

/// A node: what it is made of survives a crash, but for the driver.
struct Party<G> {
    keys: NodeKeys,
    disk: Disk,
    driver: Option<Driver<MemoryStore, G>>,
    /// What the next driver's gate is.
    gate: Box<dyn Fn() -> G>,
    inbox: VecDeque<Message>,
}

struct World<G> {
    parties: [Party<G>; 2],
    ledger: Ledger,
    connected: bool,
    /// All that was ever sent, by whom.
    said: Vec<(Who, Message)>,
}

impl World<PeerGate> {
    /// Two nodes that run and are connected; nobody guards more than marks.
    fn plain() -> World<PeerGate> {
        World::new([Box::new(PeerGate::default), Box::new(PeerGate::default)])
    }
}

impl<G: Gate> World<G> {
    fn new(gates: [Box<dyn Fn() -> G>; 2]) -> World<G> {
        let mut seed = 0;
        let parties = gates.map(|gate| {
            seed += 1;
            let keys = NodeKeys::new([seed; 32]);
            Party { keys, disk: Disk::default(), driver: None, gate, inbox: VecDeque::new() }
        });
        let mut world =
            World { parties, ledger: Ledger::default(), connected: false, said: Vec::new() };
        world.start(ALICE);
        world.start(BOB);
        world.connect();
        world
    }

    fn start(&mut self, who: Who) {
        self.start_unseeing(who);
        self.look_alone(who);
    }

    /// Starts a node that has not asked the ledger yet.
    fn start_unseeing(&mut self, who: Who) {
        let party = &mut self.parties[who];
        let store = MemoryStore::new(party.disk.clone());
        let driver = Driver::start(party.keys.clone(), store, (party.gate)()).unwrap();
        party.driver = Some(driver);
    }

    fn crash(&mut self, who: Who) {
        self.disconnect();
        self.parties[who].driver = None;
    }

    fn restart(&mut self, who: Who) {
        self.crash(who);
        self.start(who);
        self.connect();
    }

    fn runs(&self, who: Who) -> bool {
        self.parties[who].driver.is_some()
    }

    fn id(&self, who: Who) -> PeerId {
        self.parties[who].keys.peer_id()
    }

    fn driver(&mut self, who: Who) -> &mut Driver<MemoryStore, G> {
        self.parties[who].driver.as_mut().expect("it runs")
    }

    fn connect(&mut self) {
        assert!(self.runs(ALICE) && self.runs(BOB));
        self.connected = true;
        for who in [ALICE, BOB] {
            let peer = self.id(1 - who);
            self.input(who, Input::Connected(peer));
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        for who in [ALICE, BOB] {
            self.parties[who].inbox.clear();
            let peer = self.id(1 - who);
            if self.runs(who) {
                self.input(who, Input::Disconnected(peer));
            }
        }
    }

    /// Hands an input to a node and carries its effects out. A node that stops is gone.
    fn input(&mut self, who: Who, input: Input) -> Option<Answer> {
        let outcome = self.driver(who).handle(input);
        match outcome {
            Ok(outcome) => self.effects(who, outcome),
            Err(Failure::Refused(error)) => panic!("refused: {error}"),
            Err(Failure::Silent(_)) => {
                self.disconnect();
                None
            }
            Err(Failure::Stopped(_)) => {
                self.crash(who);
                None
            }
        }
    }

    fn effects(&mut self, who: Who, outcome: Outcome) -> Option<Answer> {
        for effect in outcome.effects {
            match effect {
                Effect::Send(peer, message) => {
                    assert_eq!(peer, self.id(1 - who));
                    self.said.push((who, message.clone()));
                    if self.connected {
                        self.parties[1 - who].inbox.push_back(message);
                    }
                }
                Effect::Submit(transaction) => drop(self.ledger.submit(transaction)),
            }
        }
        outcome.answer
    }

    fn command(&mut self, who: Who, command: Command) -> Result<Answer, Error> {
        match self.driver(who).handle(Input::Command(command)) {
            Ok(outcome) => Ok(self.effects(who, outcome).expect("a command has an answer")),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Delivers one message to a node; `false` where there is none.
    fn deliver(&mut self, to: Who) -> bool {
        let Some(message) = self.parties[to].inbox.pop_front() else { return false };
        let from = self.id(1 - to);
        self.input(to, Input::Message(from, message));
        true
    }

    /// Delivers everything; how many messages that took.
    fn run(&mut self) -> usize {
        let mut count = 0;
        while self.deliver(ALICE) || self.deliver(BOB) {
            count += 1;
            assert!(count < 10_000, "they never come to an end");
        }
        count
    }

    /// Both look at the ledger, and talk about it.
    fn look(&mut self) {
        for who in [ALICE, BOB] {
            if self.runs(who) {
                self.look_alone(who);
            }
        }
        self.run();
    }

    fn look_alone(&mut self, who: Who) {
        for id in self.driver(who).node().watched() {
            let view = self.ledger.view(&id);
            self.input(who, Input::Ledger(id, view));
        }
    }

    fn blocks(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.ledger.advance(1);
            self.look();
        }
    }

    /// A channel that Alice opens, with as much on both sides, and that is ready.
    fn open(&mut self) -> ChannelId {
        let balance = Both { opener: Sats(50_000), acceptor: Sats(50_000) };
        let peer = self.id(BOB);
        let answer = self.command(ALICE, Command::Open { peer, balance }).unwrap();
        let Answer::Channel(id) = answer else { panic!("not a channel") };
        self.run();
        self.blocks(2);
        assert!(self.live(ALICE, &id).is_open() && self.live(BOB, &id).is_open());
        id
    }

    fn invoice(&mut self, of: Who) -> PaymentHash {
        match self.command(of, Command::Invoice).unwrap() {
            Answer::Invoice(hash) => hash,
            other => panic!("not an invoice: {other:?}"),
        }
    }

    /// Queues a payment; the messages are not delivered.
    fn offer(&mut self, from: Who, id: &ChannelId, amount: u64) -> Result<PaymentHash, Error> {
        let hash = self.invoice(1 - from);
        let amount = Sats(amount);
        self.command(from, Command::Pay { channel: id.clone(), amount, hash })?;
        Ok(hash)
    }

    /// Pays, and sees it arrive.
    fn pay(&mut self, from: Who, id: &ChannelId, amount: u64) {
        let hash = self.offer(from, id, amount).unwrap();
        self.run();
        assert!(matches!(self.payment(from, &hash), PaymentState::Paid(_)));
    }

    fn payment(&mut self, of: Who, hash: &PaymentHash) -> PaymentState {
        self.driver(of).node().payment(hash).expect("it was made").state
    }

    fn live(&mut self, who: Who, id: &ChannelId) -> &Channel {
        self.driver(who).node().live(id).expect("it is live")
    }

    fn state(&mut self, who: Who, id: &ChannelId) -> ChannelState {
        self.listed(who, id).state
    }

    fn listed(&mut self, who: Who, id: &ChannelId) -> Listed {
        let list = self.driver(who).node().list();
        list.into_iter().find(|listed| listed.id == *id).expect("it is listed")
    }

    /// What one of them has said about a channel since a point in [`World::said`].
    fn said_since(&self, who: Who, since: usize) -> Vec<&Message> {
        self.said[since..].iter().filter(|(by, _)| *by == who).map(|(_, said)| said).collect()
    }

    /// Both agree on a channel in which nothing is under way, and no money has come or gone.
    fn agreed(&mut self, id: &ChannelId) {
        let numbers = |channel: &Channel| highwater_guard::Channel::ours(channel);
        let (alice, bob) = (self.live(ALICE, id).clone(), self.live(BOB, id).clone());
        assert!(alice.is_open() && bob.is_open(), "{:?} {:?}", alice.stopped(), bob.stopped());
        assert!(alice.is_settled() && bob.is_settled(), "something hangs: {alice:#?} {bob:#?}");
        assert_eq!(alice.balance(), bob.balance());
        assert_eq!(alice.balance().total(), alice.funding().capacity);
        let (alice, bob) = (numbers(&alice), numbers(&bob));
        assert_eq!((alice.signed, alice.received), (Some(bob.revoked), bob.revoked));
        assert_eq!((bob.signed, bob.received), (Some(alice.revoked), alice.revoked));
    }

    /// Puts an older disk back, as a restore does: with the mark on every channel.
    fn restore(&mut self, who: Who, image: &Disk) {
        self.crash(who);
        let disk = image.image();
        disk.mark_stale();
        self.parties[who].disk = disk;
    }
}

/// The guard of a node with a directory, and with a witness where the policy asks for one.
struct Guarded {
    dir: tempfile::TempDir,
    witness: MemoryWitness,
}

impl Guarded {
    fn new() -> Guarded {
        Guarded { dir: tempfile::tempdir().unwrap(), witness: MemoryWitness::new() }
    }

    fn open(&self, policy: Policy) -> Guard {
        let control = Control::new(Env::system());
        let node: highwater::ids::NodeName = "node".parse().unwrap();
        let witness = (policy == Policy::Witness).then(|| {
            let store = Arc::new(self.witness.clone());
            Witness::take_over(store, node.clone(), "test".into(), &control.env).unwrap()
        });
        Guard::open(self.dir.path(), node, policy, witness, &control).unwrap()
    }
}

/// Both nodes under the library's guard.
fn guarded(policy: Policy) -> (World<Guard>, [Arc<Guarded>; 2]) {
    let places = [Arc::new(Guarded::new()), Arc::new(Guarded::new())];
    let gates =
        places.clone().map(|place| Box::new(move || place.open(policy)) as Box<dyn Fn() -> Guard>);
    (World::new(gates), places)
}
