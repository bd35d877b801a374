//! The end of a run: everything works again, and what lost nothing must go on.

use highwater::guard::WitnessStore as _;
use highwater_guard::{Channel as _, Ours};

use super::world::{At, Outcome, World, rank};
use super::{Breach, Kind};
use crate::ids::{Both, ChannelId, PaymentHash, Sats, Side};
use crate::ledger::DELAY_BLOCKS;
use crate::node::{ChannelState, Command};
use crate::store::PaymentState;

/// More messages than this are said for ever.
const MESSAGES_MAX: usize = 10_000;

fn stuck<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Breach { kind: Kind::Stuck, what: what.into() })
}

impl World {
    /// Delivers, looks and adds blocks until nothing new can come of it.
    pub(super) fn settle(&mut self) -> Outcome {
        for _ in 0..4 {
            self.pump()?;
            for at in self.running() {
                self.look(at)?;
            }
            self.pump()?;
            self.block()?;
        }
        for at in self.running() {
            self.look(at)?;
        }
        self.pump()
    }

    /// Delivers all that is in flight.
    pub(super) fn pump(&mut self) -> Outcome {
        for _ in 0..MESSAGES_MAX {
            let mut waiting = Vec::new();
            for (pair, session) in &self.sessions {
                let full = |from: &usize| !session.in_flight[*from].is_empty();
                waiting.extend([0, 1].into_iter().filter(full).map(|from| (*pair, from)));
            }
            let Some((pair, from)) = self.rng.pick(&waiting) else { return Ok(()) };
            self.deliver(pair, from, None)?;
        }
        stuck("the nodes never fall silent")
    }

    /// Everything works again; then every channel must be open and agree, or come to its end.
    pub(super) fn heal(&mut self) -> Outcome {
        self.trace.borrow_mut().step();
        self.note(format_args!("everything heals"));
        self.calm = true;
        for party in 0..self.parties.len() {
            self.heal_party(party)?;
        }
        let ids: Vec<ChannelId> = self.channels.keys().cloned().collect();
        let whole: Vec<[bool; 2]> = ids.iter().map(|id| self.whole_ends(id)).collect();
        for party in 0..self.parties.len() {
            self.start((party, 0), None)?;
            if !self.runs((party, 0)) {
                return stuck(format!("party {party} can't start"));
            }
        }
        for b in 1..self.parties.len() {
            for a in 0..b {
                self.connect((a, 0), (b, 0))?;
            }
        }
        self.settle()?;
        for (id, whole) in ids.iter().zip(&whole) {
            self.heal_channel(id, *whole)?;
        }
        for _ in 0..=DELAY_BLOCKS / 4 {
            self.settle()?;
        }
        for (id, whole) in ids.iter().zip(&whole) {
            self.judge_channel(id, *whole)?;
        }
        Ok(())
    }

    fn heal_party(&mut self, party: usize) -> Outcome {
        if self.rng.chance(1, 2) {
            self.parties[party].witness.deliver();
        }
        self.reach(party, true);
        if self.witnessed() && self.honest(party) {
            // Whatever was still to go wrong goes wrong here, with a record that is too old.
            while self.parties[party].witness.put_new(0, b"").is_err() {}
        }
        if self.parties[party].copies.len() > 1 {
            let which = self.rng.below(2);
            self.drop_copy(party, which);
        }
        self.stop((party, 0));
        Ok(())
    }

    fn ends(&self, id: &ChannelId) -> [At; 2] {
        self.channels[id].ends.map(|party| (party, 0))
    }

    fn whole_ends(&self, id: &ChannelId) -> [bool; 2] {
        self.ends(id).map(|at| self.is_whole(at, id))
    }

    /// Whether a node has lost nothing of a channel, and nobody remembers more.
    fn is_whole(&self, at: At, id: &ChannelId) -> bool {
        let stored = self.stored(at);
        let Some(stored) = stored.channels.iter().find(|stored| stored.channel.id() == id) else {
            return false;
        };
        let ours = stored.channel.ours();
        let mut channel = stored.channel.clone();
        channel.stamp(0);
        let latest = self.watch.latest.get(&(at.0, id.clone()));
        let ahead = |signed: u64, revoked: u64, received: u64, closing: bool| {
            signed > ours.signed.unwrap_or(0)
                || revoked > ours.revoked
                || received > ours.received
                || (closing && !ours.closing)
        };
        let witness = self.entry(at.0, id).is_some_and(|its| {
            ahead(its.signed, its.revoked, its.received, its.closing) || its.epoch > ours.epoch
        });
        let backup = self.copy(at).marks.get(id).is_some_and(|mark| {
            let Ours { signed, revoked, received, closing, .. } = *mark;
            ahead(signed.unwrap_or(0), revoked, received, closing)
        });
        // Under `peer` nothing tells a disk from before a restore from what the restored one did under
        // the same numbers: the peer finds out, and both stop.
        let told_apart = self.witnessed() || !self.parties[at.0].rolled_back;
        self.honest(at.0) && latest == Some(&channel) && !witness && !backup && told_apart
    }

    /// Pays where the channel is open; else somebody who may closes it.
    fn heal_channel(&mut self, id: &ChannelId, whole: [bool; 2]) -> Outcome {
        let view = self.ledger.view(id);
        if !view.funded || view.spend.is_some() {
            return Ok(());
        }
        let [a, b] = self.ends(id);
        let states = [a, b].map(|at| self.state(at, id));
        self.note(format_args!("{id}: {states:?}, whole: {whole:?}"));
        if states == [Some(ChannelState::Open); 2] {
            self.pay(a, b, id.clone(), Sats(1))?;
            self.pay(b, a, id.clone(), Sats(1))?;
            return self.pump();
        }
        let live = [a, b]
            .map(|at| self.copy(at).driver.as_ref().is_some_and(|it| it.node().live(id).is_some()));
        let all_whole = whole == [true; 2];
        if all_whole && (!self.channels[id].ending || live != [true; 2]) {
            return stuck(format!("{id} lost nothing, and is {states:?}"));
        }
        for (side, at) in [a, b].into_iter().enumerate() {
            let honest = self.honest(a.0) && self.honest(b.0);
            if honest && self.witnessed() && whole[side] && !live[side] {
                return stuck(format!("{id} lost nothing at {at:?}, and is {:?}", states[side]));
            }
        }
        let closers: Vec<At> = [(a, live[0]), (b, live[1])]
            .into_iter()
            .filter(|(at, live)| *live && self.honest(at.0))
            .map(|(at, _)| at)
            .collect();
        if let Some(at) = self.rng.pick(&closers) {
            self.command(at, Command::ForceClose { channel: id.clone() })?;
        }
        Ok(())
    }

    /// Whether a channel has come to a good end, or goes on well.
    fn judge_channel(&mut self, id: &ChannelId, whole: [bool; 2]) -> Outcome {
        let view = self.ledger.view(id);
        if !view.funded {
            return Ok(());
        }
        let [a, b] = self.ends(id);
        let states = [a, b].map(|at| self.state(at, id));
        let total = self.channels[id].balance.opener + self.channels[id].balance.acceptor;
        if let Some(paid) = view.paid {
            self.tally.closed += 1;
            if paid.opener + paid.acceptor != total {
                return Err(Breach { kind: Kind::Money, what: format!("{id} paid {paid:?}") });
            }
            self.fair(id, a, paid.opener, whole[0])?;
            return self.fair(id, b, paid.acceptor, whole[1]);
        }
        if view.spend.is_some() {
            return stuck(format!("{id} is spent, and was never paid"));
        }
        if states == [Some(ChannelState::Open); 2] {
            self.tally.open += 1;
            return self.agree(id, a, b);
        }
        // Nobody is left who remembers it, and may close it: an operator has to decide.
        let mute = |state: &Option<ChannelState>, at: At| {
            !self.honest(at.0)
                || matches!(
                    state,
                    None | Some(
                        ChannelState::Offered | ChannelState::Blocked | ChannelState::Waiting
                    )
                )
        };
        if mute(&states[0], a) && mute(&states[1], b) {
            return Ok(());
        }
        stuck(format!("{id} neither goes on nor ends: {states:?}"))
    }

    /// An open channel: both agree, and what is known as paid was received.
    fn agree(&mut self, id: &ChannelId, a: At, b: At) -> Outcome {
        if !self.honest(a.0) || !self.honest(b.0) {
            return Ok(());
        }
        let node = |at: At| self.copy(at).driver.as_ref().expect("it runs").node();
        let [ours, theirs] = [a, b].map(|at| node(at).live(id).expect("it is open"));
        let story = &self.channels[id];
        let (mut paid, mut received, mut spent) = (0, Both::default(), Both::default());
        for (hash, paying) in self.payments.iter().filter(|(_, paying)| paying.channel == *id) {
            let payer = if paying.payer == a.0 { Side::Opener } else { Side::Acceptor };
            let at = if payer == Side::Opener { a } else { b };
            match node(at).payment(hash).map(|payment| payment.state) {
                Some(PaymentState::Paid(_)) => {
                    paid += 1;
                    *spent.at_mut(payer) += paying.amount;
                    *received.at_mut(payer.other()) += paying.amount;
                }
                Some(PaymentState::Failed) | None => {}
                Some(PaymentState::Pending) => {
                    return stuck(format!("a payment in {id} never ends: {hash}"));
                }
            }
        }
        if !ours.is_settled() || !theirs.is_settled() {
            return stuck(format!("{id} never settles"));
        }
        let expected = |side| {
            let had = *story.balance.at(side) + *received.at(side);
            had.checked_sub(*spent.at(side)).unwrap_or_default()
        };
        let balances = (expected(Side::Opener), expected(Side::Acceptor));
        if ours.balances() != balances || theirs.balances() != (balances.1, balances.0) {
            let what = format!(
                "{id}: {:?} and {:?}, where it should be {balances:?}",
                ours.balances(),
                theirs.balances()
            );
            return Err(Breach { kind: Kind::Money, what });
        }
        self.tally.paid += paid;
        Ok(())
    }

    /// A closed channel has paid a party what it had, but for payments under way.
    fn fair(&self, id: &ChannelId, at: At, paid: Sats, whole: bool) -> Outcome {
        let ends = self.channels[id].ends;
        let peer = ends[usize::from(ends[0] == at.0)];
        if !self.honest(at.0) || (!self.honest(peer) && self.parties[at.0].went_back) {
            return Ok(());
        }
        let Some(latest) = self.watch.latest.get(&(at.0, id.clone())) else { return Ok(()) };
        let pending =
            |hash: &PaymentHash| latest.balance().pending.iter().any(|it| it.hash == *hash);
        let mut floor = latest.balances().0;
        for (hash, paying) in self.payments.iter().filter(|(_, paying)| paying.channel == *id) {
            let payer = self.copy((paying.payer, 0)).driver.as_ref();
            let state = payer.and_then(|it| it.node().payment(hash)).map(|payment| payment.state);
            let ended = matches!(state, Some(PaymentState::Paid(_) | PaymentState::Failed));
            if paying.payer == at.0 && !ended && !pending(hash) {
                floor = floor.checked_sub(paying.amount).unwrap_or_default();
            }
            let proven = matches!(state, Some(PaymentState::Paid(_)));
            if paying.payer != at.0 && proven && whole && pending(hash) {
                floor += paying.amount;
            }
        }
        if paid < floor {
            let rank = rank(&latest.ours());
            let what = format!("{id} paid {paid:?} to {at:?}, which had {floor:?} at {rank}");
            return Err(Breach { kind: Kind::Money, what });
        }
        Ok(())
    }
}
