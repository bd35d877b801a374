//! What the ledger shows of a channel, and what the node submits on it. What the ledger lacks is
//! submitted again: a crash before a submission loses nothing.

use highwater_guard::FundingSpent;

use super::{Effect, Node, Slot, Step};
use crate::channel::Channel;
use crate::driver::chain_decided;
use crate::ids::{ChannelId, Side};
use crate::ledger::{Spend, Transaction, View};
use crate::store::Record;
use crate::wire::Body;

impl Node {
    pub(super) fn look(&mut self, id: &ChannelId, view: &View, step: &mut Step) {
        let spent = match (&view.spend, view.confirmed) {
            (None, _) => None,
            (Some(_), false) => Some(FundingSpent::Unconfirmed),
            (Some(_), true) => Some(FundingSpent::Confirmed),
        };
        match (self.channels.get(id), spent) {
            (Some(Slot::Live(channel)), Some(FundingSpent::Confirmed)) => {
                let channel = (**channel).clone();
                step.records.push(Record::Closed(id.clone()));
                step.closed.push(id.clone());
                self.put_closed(chain_decided(channel));
            }
            (Some(Slot::Live(channel)), _) => {
                let channel = (**channel).clone();
                self.look_live(channel, view, step);
            }
            (Some(Slot::Quarantined(held)), Some(spent))
                if held.evidence().chain != Some(spent) =>
            {
                self.see(id.clone(), spent, step);
            }
            _ => {}
        }
        if self.looked.insert(id.clone())
            && matches!(self.channels.get(id), Some(Slot::Quarantined(_)))
        {
            self.hear(id, step);
        }
        if view.paid.is_some() {
            self.paid.insert(id.clone());
        }
        let claims = match self.channels.get(id) {
            Some(Slot::Closed(closed)) => closed.claims(),
            Some(Slot::Quarantined(held)) => held.claims(),
            _ => return,
        };
        step.effects.extend(claims.answer(view).into_iter().map(Effect::Submit));
    }

    fn look_live(&mut self, mut channel: Channel, view: &View, step: &mut Step) {
        if let Some(spend) = &view.spend {
            // Not confirmed yet, it can be confirmed at any moment: what it takes to the ledger must
            // not be revoked now. It may be ours, of a time that we have forgotten.
            if matches!(spend, Spend::Commit(_)) && !channel.is_published() {
                channel.stop("its output is being spent by a commitment");
                self.advance(channel, step);
            }
            return;
        }
        let (id, peer) = (channel.id().clone(), *channel.peer());
        let funding = channel.funding();
        let opener = *funding.parties.at(Side::Opener) == self.peer_id();
        if *view == View::default() && opener {
            step.effects.push(Effect::Submit(Transaction::Fund(funding.clone())));
        }
        if channel.is_published() {
            let keys = self.keys.channel(channel.index());
            step.confirm = true;
            step.effects.push(Effect::Submit(Transaction::Commit(channel.publish(&keys))));
            return;
        }
        if let Some(signed) = channel.closed_by_both(&self.keys.channel(channel.index())) {
            step.effects.push(Effect::Submit(Transaction::Close(signed)));
        }
        if view.funded && channel.see_funded() {
            let talk = self.sessions.get(&peer).and_then(|session| session.talks.get(&id));
            if talk.is_some_and(|talk| talk.resumed) {
                step.send(peer, &id, Body::Ready);
            }
            self.advance(channel, step);
        }
    }
}
