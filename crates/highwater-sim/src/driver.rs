//! Carries the steps of a node out in the one safe order:
//! durable in the store, then in the witness, then it leaves.
//!
//! A crash between any two of these loses nothing that matters: what is durable and did not leave is
//! sent again, and what has left is in the witness and in the store.

use std::collections::BTreeMap;

use highwater::{Error, Kind, Result};
use highwater_guard::{Ours, Quarantined};

use crate::channel::Channel;
use crate::ids::ChannelId;
use crate::keys::NodeKeys;
use crate::node::{Answer, Effect, Input, Moves, Node, Settled, Start, Step};
use crate::store::{Store, StoredChannel};

/// What stands between a node and the outside: it says which channels may go on, and remembers
/// outside the node's disk what has left.
pub trait Gate {
    /// Called once, at the start: sorts the channels, and takes what may be written over.
    fn admit(&mut self, channels: Vec<StoredChannel>) -> Result<Admitted>;

    /// Takes note of verdicts and releases, which the store has already.
    fn settle(&mut self, settled: &[Settled]) -> Result<()>;

    /// Raises the numbers of all channels that move at one moment. Nothing of them has left yet.
    /// [`Kind::Fenced`]: another copy of this node has taken over.
    fn raise(&mut self, moves: &Moves) -> Result<()>;
}

/// The channels at the start, as a gate sorts them.
#[derive(Debug, Default)]
pub struct Admitted {
    /// The epoch under which this start may move channels; 0 where there is no witness.
    pub epoch: u64,
    /// Whose word clears.
    pub policy: highwater_guard::Policy,
    /// Channels that are not in question.
    pub free: Vec<Channel>,
    /// Channels that are, with what is known of them.
    pub held: BTreeMap<ChannelId, Quarantined<Channel>>,
    /// Channels that somebody remembers and the store does not.
    pub lacking: Vec<ChannelId>,
}

/// A node with its store and its gate.
pub struct Driver<S, G> {
    node: Node,
    store: S,
    gate: G,
    /// Moves that are durable and not raised yet.
    unraised: Moves,
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
    /// Starts a node on its store.
    pub fn start(
        keys: NodeKeys,
        mut store: S,
        mut gate: G,
    ) -> Result<(Driver<S, G>, Outcome), Failure> {
        let mut stored = store.load().map_err(Failure::Stopped)?;
        let channels = std::mem::take(&mut stored.channels);
        let peers = channels
            .iter()
            .map(|stored| (stored.channel.id().clone(), *stored.channel.peer()))
            .collect();
        let (closed, open) = channels.into_iter().partition::<Vec<_>, _>(|stored| stored.closed);
        let closed = closed.into_iter().map(|stored| stored.channel).collect();
        let admitted = gate.admit(open).map_err(Failure::Stopped)?;
        let (node, step) = Node::start(keys, Start { stored, peers, closed, admitted });
        let mut driver = Driver { node, store, gate, unraised: Moves::default() };
        let outcome = driver.carry(step)?;
        Ok((driver, outcome))
    }

    /// Turns one input into what leaves.
    pub fn handle(&mut self, input: Input) -> Result<Outcome, Failure> {
        let step = self.node.handle(input).map_err(Failure::Refused)?;
        self.carry(step)
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
        let Step { records, settled, moves, effects, answer } = step;
        if !records.is_empty() {
            self.store.commit(&records).map_err(Failure::Stopped)?;
        }
        if !settled.is_empty() {
            self.gate.settle(&settled).map_err(Failure::Stopped)?;
        }
        self.unraised.extend(moves);
        if !self.unraised.is_empty() {
            if let Err(error) = self.gate.raise(&self.unraised) {
                return Err(self.silence(error));
            }
            self.unraised = Moves::default();
        }
        Ok(Outcome { effects, answer })
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

/// The gate of a node without a witness: only what is marked is held, and the peers' word clears it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerGate;

impl Gate for PeerGate {
    fn admit(&mut self, channels: Vec<StoredChannel>) -> Result<Admitted> {
        let mut admitted =
            Admitted { policy: highwater_guard::Policy::Peer, ..Admitted::default() };
        for StoredChannel { channel, stale, .. } in channels {
            let Some(stale) = stale else {
                admitted.free.push(channel);
                continue;
            };
            let id = channel.id().clone();
            let held = stale.hold(channel, admitted.policy, None);
            admitted.held.insert(id, held);
        }
        Ok(admitted)
    }

    fn settle(&mut self, _: &[Settled]) -> Result<()> {
        Ok(())
    }

    fn raise(&mut self, _: &Moves) -> Result<()> {
        Ok(())
    }
}

/// No guard at all: every channel goes on, whatever its mark says. It is there so that a test can
/// show what is lost without one; a build for real money never has it.
#[cfg(feature = "unguarded")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Unguarded;

#[cfg(feature = "unguarded")]
impl Gate for Unguarded {
    fn admit(&mut self, channels: Vec<StoredChannel>) -> Result<Admitted> {
        let free = channels.into_iter().map(|stored| stored.channel).collect();
        Ok(Admitted { free, ..Admitted::default() })
    }

    fn settle(&mut self, _: &[Settled]) -> Result<()> {
        Ok(())
    }

    fn raise(&mut self, _: &Moves) -> Result<()> {
        Ok(())
    }
}

impl Moves {
    fn extend(&mut self, later: Moves) {
        self.channels.extend(later.channels);
        self.counters = later.counters.or(self.counters);
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.counters.is_none()
    }

    /// The numbers of one channel.
    pub fn of(&self, id: &ChannelId) -> Option<&Ours> {
        self.channels.get(id)
    }
}
