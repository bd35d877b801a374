//! Channels that may be stale: they listen, and a verdict lets them out.

use std::convert::Infallible;

use highwater::{Error, Result};
use highwater_guard::{
    ClosedChannel, FundingSpent, Opened, Policy, Quarantined, Reason, Release, Report, Verdict,
};

use super::{Node, Settled, Slot, Step};
use crate::channel::Channel;
use crate::ids::ChannelId;
use crate::store::{Record, Stale};
use crate::wire::Reestablish;

impl Node {
    /// The peer has said where it stands, in a session of this start.
    pub(super) fn hear(&mut self, id: ChannelId, reestablish: Reestablish, step: &mut Step) {
        let Some(mut held) = self.take_held(&id) else { return };
        held.hear(Report::from(reestablish));
        self.decide(id, held, step);
    }

    /// The funding output was spent.
    pub(super) fn see(&mut self, id: ChannelId, spent: FundingSpent, step: &mut Step) {
        let Some(mut held) = self.take_held(&id) else { return };
        held.see(spent);
        self.decide(id, held, step);
    }

    /// Lets a channel out where its verdict says so, and records the verdict either way. The mark goes
    /// in the transaction that records it.
    pub(super) fn decide(&mut self, id: ChannelId, held: Quarantined<Channel>, step: &mut Step) {
        let (ours, evidence, verdict) = (held.ours(), *held.evidence(), held.verdict());
        step.settled.push(Settled { channel: id.clone(), ours, evidence, verdict, release: None });
        match held.open() {
            Opened::Clear(channel, _) => self.let_out(channel, step),
            Opened::Closed(closed) => {
                step.records.push(Record::Closed(id.clone()));
                self.channels.insert(id, Slot::Closed(Box::new(closed)));
            }
            Opened::Held(held) => {
                let stale = Stale { evidence: Some(evidence), verdict: Some(verdict) };
                step.records.push(Record::Stale(id.clone(), Some(stale)));
                self.channels.insert(id, Slot::Quarantined(Box::new(held)));
            }
        }
    }

    /// Lets a channel out by an operator's decision.
    pub(super) fn release(
        &mut self,
        id: &ChannelId,
        release: Release,
        step: &mut Step,
    ) -> Result<()> {
        if !matches!(self.channels.get(id), Some(Slot::Quarantined(_))) {
            self.live_mut(id)?;
            return Err(Error::conflict("the channel is not in quarantine").entry(id.as_str()));
        }
        let held = self.take_held(id).expect("it is in quarantine");
        let (ours, evidence, verdict) = (held.ours(), *held.evidence(), held.verdict());
        // The step's transaction, which comes before all that leaves, makes it durable.
        let Ok(channel) = held.release(&release, |_| Ok::<(), Infallible>(()));
        let release = Some(release);
        step.settled.push(Settled { channel: id.clone(), ours, evidence, verdict, release });
        self.let_out(channel, step);
        Ok(())
    }

    /// From here on it is live: it speaks, and a word of the peer that was remembered is answered.
    fn let_out(&mut self, mut channel: Channel, step: &mut Step) {
        let id = channel.id().clone();
        // What this start raises in the witness it must have moved itself.
        channel.stamp(self.epoch);
        step.records.push(Record::Channel(Box::new(channel.clone())));
        step.records.push(Record::Stale(id.clone(), None));
        self.channels.insert(id.clone(), Slot::Live(Box::new(channel)));
        self.introduce(&id, step);
    }

    /// A channel of which the chain has decided.
    pub(super) fn close(&mut self, channel: Channel) {
        let id = channel.id().clone();
        let closed = chain_decided(channel, self.policy);
        self.channels.insert(id, Slot::Closed(Box::new(closed)));
    }

    fn take_held(&mut self, id: &ChannelId) -> Option<Quarantined<Channel>> {
        match self.channels.remove(id) {
            Some(Slot::Quarantined(held)) => Some(*held),
            Some(other) => {
                self.channels.insert(id.clone(), other);
                None
            }
            None => None,
        }
    }
}

fn chain_decided(channel: Channel, policy: Policy) -> ClosedChannel<Channel> {
    let mut held = Quarantined::new(channel, policy, None, None);
    held.see(FundingSpent::Confirmed);
    match held.open() {
        Opened::Closed(closed) => closed,
        Opened::Clear(..) | Opened::Held(_) => unreachable!("a confirmed spend decides"),
    }
}

/// A verdict in plain words.
pub(super) fn words(verdict: Verdict) -> &'static str {
    let (Verdict::Blocked(reason) | Verdict::Wait(reason)) = verdict else { return "decided" };
    match reason {
        Reason::RevocationLost => "the peer has a revocation that this node does not remember",
        Reason::SignatureLost => "the peer has a signature that this node does not remember",
        Reason::WitnessAhead => "the witness remembers more than this node",
        Reason::MovedElsewhere => "another copy of this node has moved it since",
        Reason::BackupAhead => "a backup remembers more than this node",
        Reason::ChannelLacking => "the witness knows a channel that this node lacks",
        Reason::NumbersImpossible => "its numbers can't be",
        Reason::PeerForgot => "the peer remembers less than it has told before",
        Reason::WitnessForgot => "the witness remembers less than it must",
        Reason::WitnessNeeded => "only a witness could clear it",
        Reason::SignaturesUnknown => "the node can't tell how much it has signed",
        Reason::NothingHeard => "nothing was heard yet",
    }
}
