//! Messages about a live channel, and what it does next by itself.

use highwater_guard::{Policy, Quarantined, Report};

use super::{Node, Slot, Step};
use crate::channel::{CHANGES_MAX, Channel, Mismatch, Violation};
use crate::commitment::Change;
use crate::ids::{ChannelId, PaymentHash, Preimage};
use crate::store::{PaymentState, Record};
use crate::wire::Body;

impl Node {
    /// Takes a message about a live channel. What the peer must not say stops the channel.
    pub(super) fn live_message(&mut self, id: &ChannelId, body: Body, step: &mut Step) {
        let Some(Slot::Live(channel)) = self.channels.get(id) else { return };
        if body == Body::Lost {
            // Ours is the newest commitment that anybody remembers, and it is not revoked.
            return self.publish(id, step);
        }
        let mut next = channel.clone();
        if next.stopped().is_some() || next.is_published() {
            return;
        }
        match self.live_step(&mut next, body, step) {
            Ok(true) => self.advance(*next, step),
            Ok(false) => {}
            Err(Violation(why)) => {
                if let Some(Slot::Live(channel)) = self.channels.get_mut(id) {
                    channel.stop(why);
                    step.keep(channel);
                }
            }
        }
    }

    /// Applies a message to a copy of the channel; whether the copy is what is now.
    fn live_step(
        &mut self,
        next: &mut Channel,
        body: Body,
        step: &mut Step,
    ) -> Result<bool, Violation> {
        let (id, peer) = (next.id().clone(), *next.peer());
        let Some(session) = self.sessions.get_mut(&peer) else { return Ok(false) };
        let talk = session.talks.entry(id.clone()).or_default();
        if !talk.resumed && !matches!(body, Body::Reestablish(_)) {
            return Err(Violation("it spoke before it said where it stands".into()));
        }
        let keys = self.keys.channel(next.index());
        match body {
            Body::Reestablish(reestablish) => {
                if talk.resumed {
                    return Err(Violation("it said twice where it stands".into()));
                }
                talk.heard = Some(reestablish);
                self.resume(&id, step);
                return Ok(false);
            }
            Body::Ready => next.take_ready(),
            Body::UpdateAdd { .. } | Body::UpdateFulfill { .. } | Body::UpdateFail { .. } => {
                talk.incoming.extend(change(body));
                if talk.incoming.len() > CHANGES_MAX {
                    return Err(Violation("it sent too many changes at once".into()));
                }
                return Ok(false);
            }
            Body::CommitmentSigned { number, signature } => {
                let changes = std::mem::take(&mut talk.incoming);
                let taken = next.take_signature(&keys, changes, number, signature)?;
                step.send(peer, &id, taken.revocation);
                self.note_outcomes(taken.outcomes, step);
            }
            Body::RevokeAndAck { number, secret, next: hash } => {
                next.take_revocation(number, secret, hash)?;
            }
            Body::Shutdown => {
                next.take_shutdown();
                if !next.is_shutting_down() {
                    let dropped = next.shut_down();
                    step.send(peer, &id, Body::Shutdown);
                    self.note_outcomes(dropped.into_iter().map(|hash| (hash, None)), step);
                }
            }
            Body::ClosingSigned { signature } => next.take_close(signature)?,
            Body::Open { .. }
            | Body::Accept { .. }
            | Body::FundingCreated { .. }
            | Body::FundingSigned { .. }
            | Body::Lost => return Ok(false),
        }
        Ok(true)
    }

    /// Lets a channel do what it can do next, and keeps it: answers payments, signs, closes.
    pub(super) fn advance(&mut self, mut next: Channel, step: &mut Step) {
        let (id, peer) = (next.id().clone(), *next.peer());
        let keys = self.keys.channel(next.index());
        let talks = self.sessions.get(&peer).and_then(|session| session.talks.get(&id));
        if talks.is_some_and(|talk| talk.resumed) && next.stopped().is_none() {
            for (payment, hash) in next.unanswered() {
                next.answer(match self.invoices.get(&hash) {
                    Some(preimage) => Change::Fulfill { id: payment, preimage: *preimage },
                    None => Change::Fail { id: payment },
                });
            }
            for body in next.sign(&keys).into_iter().chain(next.sign_close(&keys)) {
                step.send(peer, &id, body);
            }
        }
        if let Some(signed) = next.closed_by_both(&keys) {
            step.effects.push(super::Effect::Submit(crate::ledger::Transaction::Close(signed)));
        }
        next.stamp(self.epoch);
        step.keep(&next);
        self.channels.insert(id, Slot::Live(Box::new(next)));
    }

    /// Once both sides have said where they stand: sends again what was lost, and goes on.
    pub(super) fn resume(&mut self, id: &ChannelId, step: &mut Step) {
        let Some(Slot::Live(channel)) = self.channels.get(id) else { return };
        let peer = *channel.peer();
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let talk = session.talks.entry(id.clone()).or_default();
        let (Some(heard), true, false) = (talk.heard, talk.spoken, talk.resumed) else { return };
        let keys = self.keys.channel(channel.index());
        let report = Report::from(heard);
        let mut next = channel.clone();
        match next.resume(&keys, report) {
            Ok(messages) => {
                talk.resumed = true;
                for body in messages {
                    step.send(peer, id, body);
                }
                self.advance(*next, step);
            }
            Err(Mismatch::PeerForgot) => {
                next.stop("the peer remembers less than it has told us before");
                step.keep(&next);
                self.channels.insert(id.clone(), Slot::Live(next));
            }
            Err(Mismatch::WeForgot) => {
                // Whoever's word clears: this one condemns.
                let mut held = Quarantined::new(*next, Policy::default(), None, None);
                held.hear(report);
                self.judge(id.clone(), held, step);
            }
        }
    }

    pub(super) fn note_outcomes(
        &mut self,
        outcomes: impl IntoIterator<Item = (PaymentHash, Option<Preimage>)>,
        step: &mut Step,
    ) {
        for (hash, proof) in outcomes {
            let Some(payment) = self.payments.get_mut(&hash) else { continue };
            payment.state = proof.map_or(PaymentState::Failed, PaymentState::Paid);
            step.records.push(Record::Payment(payment.clone()));
        }
    }
}

fn change(body: Body) -> Option<Change> {
    match body {
        Body::UpdateAdd { id, amount, hash } => Some(Change::Add { id, amount, hash }),
        Body::UpdateFulfill { id, preimage } => Some(Change::Fulfill { id, preimage }),
        Body::UpdateFail { id } => Some(Change::Fail { id }),
        _ => None,
    }
}
