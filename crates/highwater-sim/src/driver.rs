//! Carries the steps of a node out in the one safe order: durable in the store, then in the witness,
//! then it leaves.
//!
//! A crash between any two of these loses nothing that matters: what is durable and did not leave is
//! sent again, and what has left is in the witness and in the store.

use highwater::guard::Arrival;
use highwater::{Error, Kind, Result};
use highwater_guard::{ClosedChannel, FundingSpent, Opened, Quarantined, Release};

use crate::channel::Channel;
use crate::gate::Gate;
use crate::ids::ChannelId;
use crate::keys::NodeKeys;
use crate::node::{Answer, Effect, Input, Moves, Node, Step};
use crate::store::{Record, Store, Stored, StoredChannel};

/// Where a store may be old, so many invoices may have been made that it does not remember: their
/// preimages may be known to who paid them, and none is used again.
const INVOICES_FORGOTTEN_MAX: u64 = 1 << 32;

/// A node with its store and its gate.
pub struct Driver<S, G> {
    node: Node,
    store: S,
    gate: G,
    /// Moves that are durable and not raised yet.
    unraised: Moves,
    /// Closed channels that the witness could not be told of yet.
    unretired: Vec<ChannelId>,
}

/// What is to be done now that a step is durable and raised.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What leaves, in this order.
    pub effects: Vec<Effect>,
    /// The answer to a command.
    pub answer: Option<Answer>,
}

/// Why nothing of a step has left.
#[derive(Debug)]
pub enum Failure {
    /// The call was refused; the node is as before.
    Refused(Error),
    /// The witness is out of reach. The step is durable, its messages are gone, and every session has
    /// ended: with the next one all is sent again.
    Silent(Error),
    /// The store has failed, or another copy has taken over: this process must end.
    Stopped(Error),
}

impl<S: Store, G: Gate> Driver<S, G> {
    /// Starts a node on its store: nothing is said before the gate has sorted the channels.
    pub fn start(keys: NodeKeys, mut store: S, mut gate: G) -> Result<Driver<S, G>> {
        let Stored { channels, mut counters, offers, invoices, payments } = store.load()?;
        let mut node = Node::new(keys, gate.epoch());
        let mut arrivals = Vec::new();
        for StoredChannel { channel, stale, closed } in channels {
            node.know(channel.id(), *channel.peer());
            if closed {
                gate.retire(channel.id())?;
                node.put_closed(chain_decided(channel));
            } else {
                let id = channel.id().to_string();
                arrivals.push((Arrival { id, channel, stale: stale.is_some() }, stale));
            }
        }
        let marked = arrivals.iter().any(|(arrival, _)| arrival.stale);
        let epoch = gate.epoch();
        let admitted =
            gate.admit(arrivals, &mut |id| store.commit(&[Record::Unmark(id.clone(), epoch)]))?;
        let in_question = marked || !admitted.held.is_empty();
        admitted.free.into_iter().for_each(|channel| node.put_live(channel));
        admitted.held.into_iter().for_each(|(id, held)| node.put_held(id, held));
        let fresh = gate.next_key(counters.channel);
        if fresh != counters.channel || in_question {
            counters.channel = fresh;
            counters.invoice += if in_question { INVOICES_FORGOTTEN_MAX } else { 0 };
            store.commit(&[Record::Counters(counters)])?;
        }
        node.recall(Stored { channels: Vec::new(), counters, offers, invoices, payments });
        node.lack(admitted.lacking);
        Ok(Driver { node, store, gate, unraised: Moves::default(), unretired: Vec::new() })
    }

    /// Turns one input into what leaves.
    pub fn handle(&mut self, input: Input) -> Result<Outcome, Failure> {
        let step = self.node.handle(input).map_err(Failure::Refused)?;
        self.carry(step)
    }

    /// Lets a channel out of quarantine by an operator's decision, which is recorded first.
    pub fn release(&mut self, id: &ChannelId, release: &Release) -> Result<Outcome, Failure> {
        let held = self.node.take_held(id).map_err(Failure::Refused)?;
        let (store, epoch) = (&mut self.store, self.gate.epoch());
        let mut unmark = || store.commit(&[Record::Unmark(id.clone(), epoch)]);
        match self.gate.release(id, held, release, &mut unmark) {
            Ok(channel) => {
                let step = self.node.let_out(channel);
                self.carry(step)
            }
            Err(refused) => {
                let (held, error) = *refused;
                self.node.put_held(id.clone(), held);
                Err(Failure::Refused(error))
            }
        }
    }

    /// The node, to look at.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The store, for a simulation that cuts it.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The gate.
    pub fn gate_mut(&mut self) -> &mut G {
        &mut self.gate
    }

    fn carry(&mut self, step: Step) -> Result<Outcome, Failure> {
        let Step { records, judge, moves, mut confirm, closed, mut effects, answer } = step;
        if !records.is_empty() {
            self.store.commit(&records).map_err(Failure::Stopped)?;
        }
        self.unretired.extend(closed);
        let mut moving = !moves.is_empty();
        self.unraised.extend(moves);
        for id in judge {
            let next = self.settle(&id).map_err(Failure::Stopped)?;
            moving |= !next.moves.is_empty();
            confirm |= next.confirm;
            self.unraised.extend(next.moves);
            effects.extend(next.effects);
            if !next.records.is_empty() {
                self.store.commit(&next.records).map_err(Failure::Stopped)?;
            }
        }
        if moving || effects.iter().any(Effect::tells) {
            if let Err(error) = self.gate.leave(&self.unraised) {
                return Err(self.silence(error));
            }
            self.unraised = Moves::default();
        }
        if confirm && let Err(error) = self.gate.confirm() {
            return Err(self.silence(error));
        }
        self.retire().map_err(Failure::Stopped)?;
        Ok(Outcome { effects, answer })
    }

    /// Asks the gate whether a channel comes out of quarantine, and lets it go on where it does.
    fn settle(&mut self, id: &ChannelId) -> Result<Step> {
        let held = self.node.take_held(id)?;
        let (store, epoch) = (&mut self.store, self.gate.epoch());
        let mut unmark = || store.commit(&[Record::Unmark(id.clone(), epoch)]);
        Ok(match self.gate.settle(id, held, &mut unmark)? {
            Opened::Clear(channel, _) => self.node.let_out(channel),
            Opened::Closed(closed) => {
                self.node.put_closed(closed);
                Step::default()
            }
            Opened::Held(held) => {
                self.node.put_held(id.clone(), held);
                Step::default()
            }
        })
    }

    /// Lets the witness forget closed channels. It may be told later as well: at the latest at the next
    /// start.
    fn retire(&mut self) -> Result<()> {
        while let Some(id) = self.unretired.last() {
            match self.gate.retire(id) {
                Ok(()) => drop(self.unretired.pop()),
                Err(error) if error.kind() == Kind::Fenced => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn silence(&mut self, error: Error) -> Failure {
        if error.kind() == Kind::Fenced {
            return Failure::Stopped(error);
        }
        self.node.end_sessions();
        Failure::Silent(error)
    }
}

impl Failure {
    /// The error underneath.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Refused(error) | Failure::Silent(error) | Failure::Stopped(error) => error,
        }
    }
}

/// A channel whose confirmed close is stored.
pub(crate) fn chain_decided(channel: Channel) -> ClosedChannel<Channel> {
    let mut held = Quarantined::new(channel, highwater_guard::Policy::default(), None, None);
    held.see(FundingSpent::Confirmed);
    match held.open() {
        Opened::Closed(closed) => closed,
        Opened::Clear(..) | Opened::Held(_) => unreachable!("a confirmed spend decides"),
    }
}
