//! A node: all its channels, its sessions with peers, and what an input makes of them. It does no
//! input or output: [`Node::handle`] gives a [`Step`], and nothing of a step may leave before its
//! records are stored and its moves are raised. See [`crate::driver`].

mod commands;
mod ledger;
mod live;
mod opening;
mod quarantine;
mod session;

use std::collections::{BTreeMap, BTreeSet};

use highwater::{Error, Result};
use highwater_guard::{ClosedChannel, Ours, Quarantined, Verdict};
use serde::Serialize;

pub use commands::{Answer, Command};
pub use quarantine::words;

use crate::channel::{Channel, Offer};
use crate::ids::{ChannelId, PaymentHash, PeerId, Preimage, Sats};
use crate::keys::NodeKeys;
use crate::ledger::{Transaction, View};
use crate::store::{Counters, Payment, Record, Stored};
use crate::wire::{Body, Message};

use session::Session;

/// A node.
pub struct Node {
    keys: NodeKeys,
    /// The epoch under which channels move.
    epoch: u64,
    channels: BTreeMap<ChannelId, Slot>,
    peers: BTreeMap<ChannelId, PeerId>,
    sessions: BTreeMap<PeerId, Session>,
    invoices: BTreeMap<PaymentHash, Preimage>,
    payments: BTreeMap<PaymentHash, Payment>,
    counters: Counters,
    /// Channels that somebody remembers and we don't.
    lacking: BTreeSet<ChannelId>,
    /// No key of a lacking channel can be used again.
    keys_jumped: bool,
    /// Channels that the ledger was asked about since this start.
    looked: BTreeSet<ChannelId>,
    /// Channels of which the ledger has nothing more to tell.
    paid: BTreeSet<ChannelId>,
}

/// A channel as the node holds it. Only a live one can be made to speak.
enum Slot {
    Offered(Offer),
    Live(Box<Channel>),
    Quarantined(Box<Quarantined<Channel>>),
    Closed(Box<ClosedChannel<Channel>>),
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A session with a peer has begun; the peer has proven who it is.
    Connected(PeerId),
    /// It has ended.
    Disconnected(PeerId),
    /// A peer has spoken.
    Message(PeerId, Message),
    /// What the ledger shows of a channel.
    Ledger(ChannelId, View),
    /// An operator's command.
    Command(Command),
}

/// What an input leads to, in the order in which it must happen.
#[derive(Debug, Default)]
pub struct Step {
    /// First, in one durable transaction.
    pub records: Vec<Record>,
    /// Then the gate is asked about quarantined channels of which something new is known.
    pub judge: Vec<ChannelId>,
    /// Then the witness is raised.
    pub moves: Moves,
    /// Something leaves that moves nothing and commits us: whether we still own the witness is asked.
    pub confirm: bool,
    /// Then it forgets channels whose close is confirmed.
    pub closed: Vec<ChannelId>,
    /// Then this leaves.
    pub effects: Vec<Effect>,
    /// The answer to a command.
    pub answer: Option<Answer>,
}

/// What the witness must know before anything leaves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moves {
    /// The numbers of channels that move, or speak.
    pub channels: BTreeMap<ChannelId, Ours>,
    /// The index of channel keys that is used first, where one is.
    pub key_used: Option<u64>,
}

/// What leaves.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// A message to a peer.
    Send(PeerId, Message),
    /// A transaction to the ledger. It may be refused: what spends an output may come too late.
    Submit(Transaction),
}

/// A channel, for lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Listed {
    /// The channel.
    pub id: ChannelId,
    /// The other party.
    pub peer: PeerId,
    /// How it stands.
    pub state: ChannelState,
    /// Why, where there is more to say.
    pub reason: Option<String>,
    /// What we remember.
    pub ours: Option<Ours>,
    /// What we have in it, where we can tell.
    pub balance: Option<Sats>,
    /// Nothing is under way in it.
    pub settled: bool,
}

/// How a channel stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// Offered, nothing signed.
    Offered,
    /// Signed; its funding waits for the ledger, or for the peer to see it.
    Funding,
    /// It pays.
    Open,
    /// Somebody closes it.
    Closing,
    /// It has stopped.
    Stopped,
    /// In quarantine, not decided.
    Waiting,
    /// In quarantine, condemned.
    Blocked,
    /// The chain has decided.
    Closed,
}

impl Node {
    /// A node that knows of no channel yet, under the epoch of this start.
    pub fn new(keys: NodeKeys, epoch: u64) -> Node {
        Node {
            keys,
            epoch,
            channels: BTreeMap::new(),
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            invoices: BTreeMap::new(),
            payments: BTreeMap::new(),
            counters: Counters::default(),
            lacking: BTreeSet::new(),
            keys_jumped: true,
            looked: BTreeSet::new(),
            paid: BTreeSet::new(),
        }
    }

    /// What is stored besides channels.
    pub fn recall(&mut self, stored: Stored) {
        for offer in stored.offers {
            self.know(&offer.id, offer.peer);
            self.channels.insert(offer.id.clone(), Slot::Offered(offer));
        }
        self.invoices.extend(stored.invoices.into_iter().map(|i| (i.hash(), i)));
        self.payments.extend(stored.payments.into_iter().map(|p| (p.hash, p)));
        self.counters = stored.counters;
    }

    /// Who a channel is with.
    pub fn know(&mut self, id: &ChannelId, peer: PeerId) {
        self.peers.insert(id.clone(), peer);
    }

    /// A channel that is free at the start.
    pub fn put_live(&mut self, mut channel: Channel) {
        // What this start raises in the witness it must have moved itself.
        channel.stamp(self.epoch);
        self.channels.insert(channel.id().clone(), Slot::Live(Box::new(channel)));
    }

    /// A channel that is held.
    pub fn put_held(&mut self, id: ChannelId, held: Quarantined<Channel>) {
        self.channels.insert(id, Slot::Quarantined(Box::new(held)));
    }

    /// A channel of which the chain has decided.
    pub fn put_closed(&mut self, closed: ClosedChannel<Channel>) {
        let id = closed.claims().channel().clone();
        self.channels.insert(id, Slot::Closed(Box::new(closed)));
    }

    /// Channels that somebody remembers and the store does not; their keys were jumped over.
    pub fn lack(&mut self, lacking: Vec<ChannelId>) {
        self.lacking.extend(lacking);
    }

    /// Turns one input into a step. An error refuses a command; the node is as before.
    pub fn handle(&mut self, input: Input) -> Result<Step> {
        let mut step = Step::default();
        match input {
            Input::Connected(peer) => self.connected(peer, &mut step),
            Input::Disconnected(peer) => {
                self.sessions.remove(&peer);
            }
            Input::Message(peer, message) => self.message(peer, message, &mut step),
            Input::Ledger(id, view) => self.look(&id, &view, &mut step),
            Input::Command(command) => self.command(command, &mut step)?,
        }
        Ok(step)
    }

    /// The node's name among its peers.
    pub fn peer_id(&self) -> PeerId {
        self.keys.peer_id()
    }

    /// Ends all sessions: what did not leave is sent again in the next ones.
    pub fn end_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Channels that the ledger is to be asked about.
    pub fn watched(&self) -> Vec<ChannelId> {
        let offered = |slot: &Slot| matches!(slot, Slot::Offered(_));
        let open =
            self.channels.iter().filter(|(id, slot)| !offered(slot) && !self.paid.contains(*id));
        open.map(|(id, _)| id.clone()).collect()
    }

    /// All channels.
    pub fn list(&self) -> Vec<Listed> {
        self.channels.iter().map(|(id, slot)| slot.listed(id.clone(), self.peers[id])).collect()
    }

    /// Channels that somebody remembers and we don't: nothing is opened until an operator has looked.
    pub fn lacking(&self) -> impl Iterator<Item = &ChannelId> {
        self.lacking.iter()
    }

    /// A payment of ours.
    pub fn payment(&self, hash: &PaymentHash) -> Option<&Payment> {
        self.payments.get(hash)
    }

    /// A live channel, to look at.
    pub fn live(&self, id: &ChannelId) -> Option<&Channel> {
        match self.channels.get(id)? {
            Slot::Live(channel) => Some(channel),
            _ => None,
        }
    }

    /// A channel that may be commanded.
    fn live_mut(&mut self, id: &ChannelId) -> Result<&mut Channel> {
        let error = match self.channels.get_mut(id) {
            Some(Slot::Live(channel)) => return Ok(channel),
            Some(Slot::Quarantined(held)) => Error::new(
                highwater::Kind::Quarantined,
                format!("the channel is in quarantine: {}", words(held.verdict())),
            )
            .with_remedy("wait for its peer or a witness, or release it with a reason"),
            Some(Slot::Closed(_)) => Error::conflict("the channel is closed"),
            Some(Slot::Offered(_)) => Error::conflict("the peer has not accepted the channel yet"),
            None => Error::not_found("no such channel"),
        };
        Err(error.with_entry(id.as_str()))
    }
}

impl Effect {
    /// Whether it tells the peer, or commits us to, anything: only then the witness must know first.
    /// To punish and to claim waits for nobody.
    pub fn tells(&self) -> bool {
        !matches!(self, Effect::Submit(Transaction::Punish { .. } | Transaction::Claim { .. }))
    }
}

impl Step {
    /// A live channel as it is now: stored, and raised before anything leaves.
    fn keep(&mut self, channel: &Channel) {
        self.records.push(Record::Channel(Box::new(channel.clone())));
        self.speak_for(channel);
    }

    /// Something is said about a channel: what it tells must be in the witness first.
    fn speak_for(&mut self, channel: &Channel) {
        let ours = highwater_guard::Channel::ours(channel);
        self.moves.channels.insert(channel.id().clone(), ours);
    }

    fn send(&mut self, peer: PeerId, channel: &ChannelId, body: Body) {
        self.effects.push(Effect::Send(peer, Message { channel: channel.clone(), body }));
    }
}

impl Moves {
    /// Adds what moves later.
    pub fn extend(&mut self, later: Moves) {
        self.channels.extend(later.channels);
        self.key_used = later.key_used.or(self.key_used);
    }

    /// Nothing moves.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.key_used.is_none()
    }
}

impl Slot {
    fn listed(&self, id: ChannelId, peer: PeerId) -> Listed {
        let (state, reason, ours, balance, settled) = match self {
            Slot::Offered(_) => (ChannelState::Offered, None, None, None, true),
            Slot::Live(channel) => {
                let state = match channel {
                    _ if channel.stopped().is_some() => ChannelState::Stopped,
                    _ if channel.is_closing() || channel.is_shutting_down() => {
                        ChannelState::Closing
                    }
                    _ if channel.is_open() => ChannelState::Open,
                    _ => ChannelState::Funding,
                };
                let ours = highwater_guard::Channel::ours(&**channel);
                let reason = channel.stopped().map(str::to_owned);
                (state, reason, Some(ours), Some(channel.balances().0), channel.is_settled())
            }
            Slot::Quarantined(held) => {
                let blocked = matches!(held.verdict(), Verdict::Blocked(_));
                let state = if blocked { ChannelState::Blocked } else { ChannelState::Waiting };
                let reason = Some(words(held.verdict()).to_owned());
                (state, reason, Some(held.ours()), None, false)
            }
            Slot::Closed(_) => (ChannelState::Closed, None, None, None, true),
        };
        Listed { id, peer, state, reason, ours, balance, settled }
    }
}
