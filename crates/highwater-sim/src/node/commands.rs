//! What an operator can tell a node to do.

use highwater::{Error, Kind, Result};
use serde::Serialize;

use super::{Effect, Node, Slot, Step};
use crate::channel::Offer;
use crate::ids::{Both, ChannelId, PaymentHash, PeerId, Sats};
use crate::ledger::Transaction;
use crate::store::{Payment, PaymentState, Record};
use crate::wire::Body;

/// An operator's command.
#[derive(Clone, Debug)]
pub enum Command {
    /// Opens a channel with a connected peer.
    Open {
        /// The peer.
        peer: PeerId,
        /// What is ours in it, and what the peer's.
        balance: Both<Sats>,
    },
    /// Makes an invoice, for a peer to pay.
    Invoice,
    /// Pays an invoice of the channel's peer.
    Pay {
        /// The channel.
        channel: ChannelId,
        /// How much.
        amount: Sats,
        /// The invoice.
        hash: PaymentHash,
    },
    /// Closes a channel together with its peer.
    Close {
        /// The channel.
        channel: ChannelId,
    },
    /// Publishes our own commitment. Never in quarantine: it might be one that we have revoked.
    ForceClose {
        /// The channel.
        channel: ChannelId,
    },
    /// Goes on although channels are lacking: the key counters jump by so much, so that no key of a
    /// lacking channel is used again.
    JumpCounters {
        /// By how much.
        by: u64,
    },
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The channel that opens.
    Channel(ChannelId),
    /// The invoice's hash.
    Invoice(PaymentHash),
    /// It is on its way.
    Done,
}

impl Node {
    pub(super) fn command(&mut self, command: Command, step: &mut Step) -> Result<()> {
        let answer = match command {
            Command::Open { peer, balance } => self.open(peer, balance, step)?,
            Command::Invoice => {
                let preimage = self.keys.preimage(self.counters.invoice);
                self.counters.invoice += 1;
                self.invoices.insert(preimage.hash(), preimage);
                step.records.push(Record::Counters(self.counters));
                step.records.push(Record::Invoice(preimage));
                Answer::Invoice(preimage.hash())
            }
            Command::Pay { channel, amount, hash } => self.pay(channel, amount, hash, step)?,
            Command::Close { channel } => self.shut_down(&channel, step)?,
            Command::ForceClose { channel } => self.force_close(&channel, step)?,
            Command::JumpCounters { by } => {
                self.counters.channel += by;
                self.counters.invoice += by;
                self.keys_jumped = true;
                step.records.push(Record::Counters(self.counters));
                Answer::Done
            }
        };
        step.answer = Some(answer);
        Ok(())
    }

    fn open(&mut self, peer: PeerId, balance: Both<Sats>, step: &mut Step) -> Result<Answer> {
        if !self.keys_jumped {
            return Err(Error::new(
                Kind::Quarantined,
                "somebody remembers channels that this node lacks",
            )
            .with_remedy("their keys must not be used again: jump the key counters first"));
        }
        if !self.sessions.contains_key(&peer) {
            return Err(Error::unavailable("the peer is not connected"));
        }
        if balance.opener == Sats(0) && balance.acceptor == Sats(0) {
            return Err(Error::input("a channel needs some money"));
        }
        let index = self.next_index(step);
        let offer = Offer::new(&self.keys, peer, index, balance);
        let keys = self.keys.channel(index);
        let open = Body::Open {
            key: keys.signing.public(),
            balance,
            revocations: [keys.revocation_hash(0), keys.revocation_hash(1)],
        };
        step.records.push(Record::Offer(offer.clone()));
        step.send(peer, &offer.id, open);
        self.peers.insert(offer.id.clone(), peer);
        self.channels.insert(offer.id.clone(), Slot::Offered(offer.clone()));
        Ok(Answer::Channel(offer.id))
    }

    fn pay(
        &mut self,
        id: ChannelId,
        amount: Sats,
        hash: PaymentHash,
        step: &mut Step,
    ) -> Result<Answer> {
        let tried = self.payments.get(&hash).map(|payment| payment.state);
        if tried.is_some_and(|state| state != PaymentState::Failed) {
            return Err(Error::conflict("the invoice is paid, or being paid"));
        }
        let channel = self.live_mut(&id)?;
        let mut next = channel.clone();
        next.offer(amount, hash).map_err(|why| Error::conflict(why).with_entry(id.as_str()))?;
        let payment = Payment { hash, channel: id, amount, state: PaymentState::Pending };
        step.records.push(Record::Payment(payment.clone()));
        self.payments.insert(hash, payment);
        self.advance(next, step);
        Ok(Answer::Done)
    }

    fn shut_down(&mut self, id: &ChannelId, step: &mut Step) -> Result<Answer> {
        let mut next = self.live_mut(id)?.clone();
        if next.is_closing() {
            return Err(Error::conflict("the channel is closing already").with_entry(id.as_str()));
        }
        let peer = *next.peer();
        let dropped = next.shut_down();
        self.note_outcomes(dropped.into_iter().map(|hash| (hash, None)), step);
        let talk = self.sessions.get(&peer).and_then(|session| session.talks.get(id));
        if talk.is_some_and(|talk| talk.resumed) {
            step.send(peer, id, Body::Shutdown);
        }
        self.advance(next, step);
        Ok(Answer::Done)
    }

    fn force_close(&mut self, id: &ChannelId, step: &mut Step) -> Result<Answer> {
        self.live_mut(id)?;
        self.publish(id, step);
        Ok(Answer::Done)
    }

    /// Publishes the commitment of a live channel.
    pub(super) fn publish(&mut self, id: &ChannelId, step: &mut Step) {
        let Some(Slot::Live(channel)) = self.channels.get(id) else { return };
        let mut next = channel.clone();
        let keys = self.keys.channel(next.index());
        let signed = next.publish(&keys);
        next.stamp(self.epoch);
        step.keep(&next);
        step.confirm = true;
        step.effects.push(Effect::Submit(Transaction::Commit(signed)));
        self.channels.insert(id.clone(), Slot::Live(next));
    }
}
