//! Channels that may be stale: they listen, and a verdict lets them out.

use highwater::{Error, Result};
use highwater_guard::{FundingSpent, Quarantined, Reason, Report, Verdict};

use super::{Node, Slot, Step};
use crate::channel::Channel;
use crate::ids::ChannelId;
use crate::store::{Record, Stale};

impl Node {
    /// The peer has said where it stands, in a session of this start. Its word counts once the ledger
    /// was asked: a commitment of ours that waits there to be confirmed, and that we have forgotten,
    /// is nothing that the peer knows of.
    pub(super) fn hear(&mut self, id: &ChannelId, step: &mut Step) {
        let session = self.peers.get(id).and_then(|peer| self.sessions.get(peer));
        let heard = session.and_then(|session| session.talks.get(id)?.heard);
        let (Some(heard), true) = (heard, self.looked.contains(id)) else { return };
        let Ok(mut held) = self.take_held(id) else { return };
        held.hear(Report::from(heard));
        self.judge(id.clone(), held, step);
    }

    /// The funding output was spent.
    pub(super) fn see(&mut self, id: ChannelId, spent: FundingSpent, step: &mut Step) {
        let Ok(mut held) = self.take_held(&id) else { return };
        held.see(spent);
        self.judge(id, held, step);
    }

    /// Stores the verdict with the mark, and has the gate decide.
    pub(super) fn judge(&mut self, id: ChannelId, held: Quarantined<Channel>, step: &mut Step) {
        let verdict = held.verdict();
        match verdict {
            Verdict::Closed => {
                step.records.push(Record::Closed(id.clone()));
                step.closed.push(id.clone());
            }
            // The mark goes once the gate has let the channel out.
            Verdict::Clear(_) => {}
            Verdict::Blocked(_) | Verdict::Wait(_) => {
                step.records.push(Record::Stale(id.clone(), Stale { verdict: Some(verdict) }));
            }
        }
        // A spend that is not confirmed may be our own commitment, of a time that we have forgotten:
        // the peer's word is no word on it, and what goes on would revoke it.
        if held.evidence().chain != Some(FundingSpent::Unconfirmed) {
            step.judge.push(id.clone());
        }
        self.put_held(id, held);
    }

    /// Takes a channel out of the node while its gate decides; what comes back is put back.
    pub fn take_held(&mut self, id: &ChannelId) -> Result<Quarantined<Channel>> {
        match self.channels.remove(id) {
            Some(Slot::Quarantined(held)) => return Ok(*held),
            Some(other) => self.channels.insert(id.clone(), other),
            None => return Err(Error::not_found("no such channel").entry(id.as_str())),
        };
        Err(Error::conflict("the channel is not in quarantine").entry(id.as_str()))
    }

    /// A channel that the gate let out: from here on it speaks, and a word of the peer that was
    /// remembered is answered. Its mark is gone.
    pub fn let_out(&mut self, channel: Channel) -> Step {
        let mut step = Step::default();
        let id = channel.id().clone();
        self.put_live(channel);
        self.introduce(&id, &mut step);
        step
    }
}

/// A verdict in plain words.
pub fn words(verdict: Verdict) -> &'static str {
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
        Reason::SpendUnconfirmed => "its funding output is being spent, perhaps by this node",
        Reason::NothingHeard => "nothing was heard yet",
    }
}
