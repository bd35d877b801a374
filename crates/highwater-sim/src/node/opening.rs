//! How channels are opened. Until both sides have signed, an opening lives in its session alone.

use super::{Effect, Node, Slot, Step};
use crate::channel::{Channel, Terms};
use crate::ids::{Both, ChannelId, PeerId, PublicKey, RevocationHash, Sats, Side, Signature};
use crate::ledger::Transaction;
use crate::store::Record;
use crate::wire::Body;

/// How many channels a peer may open at a time.
const OPENINGS_MAX: usize = 16;

impl Node {
    /// A message of an opening; what does not fit is ignored, and the opening ends with its session.
    pub(super) fn open_message(
        &mut self,
        peer: PeerId,
        id: ChannelId,
        body: Body,
        step: &mut Step,
    ) {
        match body {
            Body::Open { key, balance, revocations } => {
                self.accept(peer, id, key, balance, revocations, step);
            }
            Body::Accept { key, revocations } => self.accepted(peer, id, key, revocations, step),
            Body::FundingCreated { signature } => self.created(peer, &id, signature, step),
            Body::FundingSigned { signature } => self.signed(peer, &id, signature, step),
            _ => {}
        }
    }

    /// The peer offers a channel: we take part with the next index of our keys.
    fn accept(
        &mut self,
        peer: PeerId,
        id: ChannelId,
        key: PublicKey,
        balance: Both<Sats>,
        revocations: [RevocationHash; 2],
        step: &mut Step,
    ) {
        let openings = self.sessions.get(&peer).map_or(0, |session| session.openings.len());
        if self.channels.contains_key(&id) || !self.keys_jumped || openings >= OPENINGS_MAX {
            return;
        }
        let index = self.next_index(step);
        let side = Side::Acceptor;
        let terms =
            Terms { id: id.clone(), peer, side, index, balance, their_key: key, revocations };
        let keys = self.keys.channel(index);
        let accept = Body::Accept {
            key: keys.signing.public(),
            revocations: [keys.revocation_hash(0), keys.revocation_hash(1)],
        };
        step.send(peer, &id, accept);
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.openings.insert(id, terms);
        }
    }

    /// The peer takes part: we sign its first commitment.
    fn accepted(
        &mut self,
        peer: PeerId,
        id: ChannelId,
        their_key: PublicKey,
        revocations: [RevocationHash; 2],
        step: &mut Step,
    ) {
        let Some(Slot::Offered(offer)) = self.channels.get(&id) else { return };
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if offer.peer != peer || session.openings.contains_key(&id) {
            return;
        }
        let (index, balance) = (offer.index, offer.balance);
        let side = Side::Opener;
        let terms = Terms { id: id.clone(), peer, side, index, balance, their_key, revocations };
        let signature = terms.sign(&self.keys.channel(index));
        step.send(peer, &id, Body::FundingCreated { signature });
        session.openings.insert(id, terms);
    }

    /// The opener has signed: the channel is there, since it may be funded once we have.
    fn created(&mut self, peer: PeerId, id: &ChannelId, signature: Signature, step: &mut Step) {
        let Some(terms) = self.opening(peer, id, Side::Acceptor) else { return };
        let answer = terms.sign(&self.keys.channel(terms.index));
        if let Some(channel) = self.begin(terms, signature, step) {
            step.send(peer, id, Body::FundingSigned { signature: answer });
            self.channels.insert(id.clone(), Slot::Live(Box::new(channel)));
        }
    }

    /// Both have signed: the channel is there, and is funded.
    fn signed(&mut self, peer: PeerId, id: &ChannelId, signature: Signature, step: &mut Step) {
        let Some(terms) = self.opening(peer, id, Side::Opener) else { return };
        if let Some(channel) = self.begin(terms, signature, step) {
            step.effects.push(Effect::Submit(Transaction::Fund(channel.funding().clone())));
            self.channels.insert(id.clone(), Slot::Live(Box::new(channel)));
        }
    }

    fn opening(&mut self, peer: PeerId, id: &ChannelId, side: Side) -> Option<Terms> {
        let openings = &mut self.sessions.get_mut(&peer)?.openings;
        if openings.get(id)?.side != side {
            return None;
        }
        openings.remove(id)
    }

    fn begin(&mut self, terms: Terms, signature: Signature, step: &mut Step) -> Option<Channel> {
        let (id, peer) = (terms.id.clone(), terms.peer);
        let channel = terms.channel(&self.keys, signature, self.epoch).ok()?;
        self.peers.insert(id.clone(), peer);
        // In the session that opens it both know where they stand.
        let session = self.sessions.get_mut(&peer)?;
        let talk = session.talks.entry(id).or_default();
        (talk.spoken, talk.resumed) = (true, true);
        step.keep(&channel);
        Some(channel)
    }

    /// An index that is used once: durable, and in the witness, before anything under it leaves.
    pub(super) fn next_index(&mut self, step: &mut Step) -> u64 {
        let index = self.counters.channel;
        self.counters.channel += 1;
        step.records.push(Record::Counters(self.counters));
        step.moves.key_used = Some(index);
        index
    }
}
