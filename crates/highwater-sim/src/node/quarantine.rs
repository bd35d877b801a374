//! Channels that may be stale: they listen, and a verdict lets them out.

use highwater::{Error, Result};
use highwater_guard::{FundingSpent, Quarantined, Report, Verdict};

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
        step.judge.push(id.clone());
        self.put_held(id, held);
    }

    /// Takes a channel out of the node while its gate decides; what comes back is put back.
    pub fn take_held(&mut self, id: &ChannelId) -> Result<Quarantined<Channel>> {
        match self.channels.remove(id) {
            Some(Slot::Quarantined(held)) => return Ok(*held),
            Some(other) => self.channels.insert(id.clone(), other),
            None => return Err(Error::not_found("no such channel").with_entry(id.as_str())),
        };
        Err(Error::conflict("the channel is not in quarantine").with_entry(id.as_str()))
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
    match verdict {
        Verdict::Blocked(reason) | Verdict::Wait(reason) => highwater::guard::words(reason),
        Verdict::Closed | Verdict::Clear(_) => "decided",
    }
}
