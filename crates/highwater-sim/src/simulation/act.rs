//! What can happen at a step.

use std::collections::BTreeMap;

use highwater::guard::{Cause, GuardKind, Latch, PutFault, Released, channel_marks};
use highwater::ids::{NodeName, Time};

use super::gate::GateCut;
use super::world::{At, Copy, Crash, Image, Outcome, Paying, Story, World, load, numbers};
use crate::ids::{Both, ChannelId, Sats};
use crate::ledger::{Spend, View};
use crate::node::{Answer, ChannelState, Command, Input};
use crate::store::Cut;

/// How many images of one party are kept.
const IMAGES_MAX: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Act {
    Deliver,
    Connect,
    Disconnect,
    Pay,
    Look,
    Block,
    Open,
    Close,
    ForceClose,
    Crash,
    Start,
    Backup,
    Restore,
    Rollback,
    CopyBack,
    Clone,
    EndClone,
    Reach,
    Fault,
    Arrive,
}

/// How often each happens, in parts of their sum.
const ACTS: &[(Act, usize)] = &[
    (Act::Deliver, 400),
    (Act::Connect, 60),
    (Act::Disconnect, 8),
    (Act::Pay, 60),
    (Act::Look, 12),
    (Act::Block, 4),
    (Act::Open, 2),
    (Act::Close, 1),
    (Act::ForceClose, 1),
    (Act::Crash, 8),
    (Act::Start, 60),
    (Act::Backup, 12),
    (Act::Restore, 5),
    (Act::Rollback, 2),
    (Act::CopyBack, 2),
    (Act::Clone, 3),
    (Act::EndClone, 3),
    (Act::Reach, 3),
    (Act::Fault, 5),
    (Act::Arrive, 3),
];

impl World {
    /// The nodes run, are connected, and each pair has channels.
    pub(super) fn begin(&mut self) -> Outcome {
        for party in 0..self.parties.len() {
            self.start((party, 0), None)?;
        }
        for b in 1..self.parties.len() {
            for a in 0..b {
                self.connect((a, 0), (b, 0))?;
                for _ in 0..1 + self.rng.below(2) {
                    self.open((a, 0), (b, 0))?;
                }
            }
        }
        self.settle()?;
        self.calm = false;
        Ok(())
    }

    /// Something happens.
    pub(super) fn act(&mut self) -> Outcome {
        self.trace.borrow_mut().step();
        let weight = |(act, weight): &(Act, usize)| match act {
            Act::Close | Act::ForceClose => self.plan.endings,
            _ => *weight,
        };
        let sum: usize = ACTS.iter().map(weight).sum();
        let mut at = self.rng.clone().below(sum);
        let act = ACTS.iter().find(|act| match at.checked_sub(weight(act)) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        let act = act.expect("the number is below the sum").0;
        self.rng.below(sum);
        match act {
            Act::Deliver => self.act_deliver(),
            Act::Connect => self.act_connect(),
            Act::Disconnect => self.act_disconnect(),
            Act::Pay => self.act_pay(),
            Act::Look => self.act_look(),
            Act::Block => self.block(),
            Act::Open => self.act_open(),
            Act::Close => self.act_end(|channel| Command::Close { channel }),
            Act::ForceClose => self.act_end(|channel| Command::ForceClose { channel }),
            Act::Crash => self.act_crash(),
            Act::Start => self.act_start(),
            Act::Backup => self.act_backup(),
            Act::Restore => self.act_restore(),
            Act::Rollback => self.act_rollback(),
            Act::CopyBack => self.act_copy_back(),
            Act::Clone => self.act_clone(),
            Act::EndClone => self.act_end_clone(),
            Act::Reach => self.act_reach(),
            Act::Fault => self.act_fault(),
            Act::Arrive => self.act_arrive(),
        }
    }

    fn crash(&mut self) -> Option<Crash> {
        if self.calm || !self.rng.chance(1, self.plan.crashes) {
            return None;
        }
        let leaving = Crash::Leaving(self.rng.below(3));
        self.rng.pick(&[
            Crash::Commit(Cut::BeforeSync),
            Crash::Commit(Cut::AfterSync),
            Crash::Gate(GateCut::BeforeRaise),
            Crash::Gate(GateCut::AfterRaise),
            Crash::Gate(GateCut::AfterUnmark),
            leaving,
        ])
    }

    fn act_deliver(&mut self) -> Outcome {
        let mut waiting = Vec::new();
        for (pair, session) in &self.sessions {
            let full = |from: &usize| !session.in_flight[*from].is_empty();
            waiting.extend([0, 1].into_iter().filter(full).map(|from| (*pair, from)));
        }
        let Some((pair, from)) = self.rng.pick(&waiting) else { return Ok(()) };
        let crash = self.crash();
        self.deliver(pair, from, crash).map(drop)
    }

    fn act_connect(&mut self) -> Outcome {
        let running = self.running();
        let (Some(a), Some(b)) = (self.rng.pick(&running), self.rng.pick(&running)) else {
            return Ok(());
        };
        let pair = (a.0.min(b.0), a.0.max(b.0));
        // A second session takes the first one's place, now and then.
        if a.0 == b.0 || (self.sessions.contains_key(&pair) && !self.rng.chance(1, 20)) {
            return Ok(());
        }
        self.connect(a, b)
    }

    fn act_disconnect(&mut self) -> Outcome {
        let pairs: Vec<_> = self.sessions.keys().copied().collect();
        let Some(pair) = self.rng.pick(&pairs) else { return Ok(()) };
        let notice = [self.rng.chance(3, 4), self.rng.chance(3, 4)];
        self.disconnect(pair, notice)
    }

    fn act_pay(&mut self) -> Outcome {
        let ids: Vec<ChannelId> = self.channels.keys().cloned().collect();
        let Some(id) = self.rng.pick(&ids) else { return Ok(()) };
        let amount = Sats(1 + self.rng.below(20_000) as u64);
        let from = self.rng.below(2);
        let ends = self.channels[&id].ends;
        let (Some(payer), Some(payee)) = (self.some(ends[from]), self.some(ends[1 - from])) else {
            return Ok(());
        };
        self.pay(payer, payee, id, amount)
    }

    /// The payee makes an invoice, and the payer pays it.
    pub(super) fn pay(&mut self, payer: At, payee: At, id: ChannelId, amount: Sats) -> Outcome {
        // A payee that went back in time gives out old invoices again.
        let hash = loop {
            match self.command(payee, Command::Invoice)? {
                Some(Answer::Invoice(hash)) if self.payments.contains_key(&hash) => {}
                Some(Answer::Invoice(hash)) => break hash,
                _ => return Ok(()),
            }
        };
        let crash = self.crash();
        let paying = Paying { channel: id.clone(), payer: payer.0, amount };
        self.payments.insert(hash, paying);
        self.input(payer, Input::Command(Command::Pay { channel: id, amount, hash }), crash)?;
        Ok(())
    }

    /// A running copy of a party.
    fn some(&mut self, party: usize) -> Option<At> {
        let mut running = self.running();
        running.retain(|at| at.0 == party);
        self.rng.pick(&running)
    }

    fn act_look(&mut self) -> Outcome {
        let running = self.running();
        let Some(at) = self.rng.pick(&running) else { return Ok(()) };
        self.look(at)
    }

    /// A copy looks at the ledger.
    pub(super) fn look(&mut self, at: At) -> Outcome {
        let Some(driver) = &self.copy(at).driver else { return Ok(()) };
        for id in driver.node().watched() {
            let view = self.ledger.view(&id);
            let crash = self.crash();
            self.input(at, Input::Ledger(id, view), crash)?;
        }
        Ok(())
    }

    /// A block, unless somebody could not answer a commitment in time that is about to be paid:
    /// deadlines are no matter of the guard.
    pub(super) fn block(&mut self) -> Outcome {
        let ids: Vec<ChannelId> = self.channels.keys().cloned().collect();
        for id in ids {
            let view = self.ledger.view(&id);
            let delayed = matches!(view.spend, Some(Spend::Commit(_))) && view.confirmed;
            if !delayed || view.paid.is_some() {
                continue;
            }
            for party in self.channels[&id].ends {
                let Some(at) = self.some(party) else { return Ok(()) };
                for _ in 0..2 {
                    let view = self.ledger.view(&id);
                    self.input(at, Input::Ledger(id.clone(), view), None)?;
                }
                if !self.runs(at) {
                    return Ok(());
                }
            }
        }
        self.note(format_args!("a block"));
        self.ledger.advance(1);
        Ok(())
    }

    fn act_open(&mut self) -> Outcome {
        let pairs: Vec<_> = self.sessions.iter().map(|(pair, it)| (*pair, it.copies)).collect();
        let Some(((a, b), copies)) = self.rng.pick(&pairs) else { return Ok(()) };
        let (a, b) = ((a, copies[0]), (b, copies[1]));
        if self.channels.len() >= 8 {
            return Ok(());
        }
        if self.rng.chance(1, 2) { self.open(a, b) } else { self.open(b, a) }
    }

    fn open(&mut self, opener: At, acceptor: At) -> Outcome {
        let balance = Both {
            opener: Sats(20_000 + self.rng.below(80_000) as u64),
            acceptor: Sats(20_000 + self.rng.below(80_000) as u64),
        };
        let peer = self.parties[acceptor.0].id;
        if let Some(Answer::Channel(id)) = self.command(opener, Command::Open { peer, balance })? {
            let story = Story { ends: [opener.0, acceptor.0], balance, ending: false };
            // Under `peer` a node that forgot an opening uses its keys again, and so its name.
            if self.ledger.view(&id) == View::default() {
                self.channels.insert(id, story);
            } else {
                self.channels.entry(id).or_insert(story);
            }
        }
        Ok(())
    }

    fn act_end(&mut self, how: impl Fn(ChannelId) -> Command) -> Outcome {
        let ids: Vec<ChannelId> = self.channels.keys().cloned().collect();
        let Some(id) = self.rng.pick(&ids) else { return Ok(()) };
        let end = self.rng.below(2);
        let Some(at) = self.some(self.channels[&id].ends[end]) else { return Ok(()) };
        let live = self.copy(at).driver.as_ref().is_some_and(|d| d.node().live(&id).is_some());
        if !live {
            return Ok(());
        }
        self.channels.get_mut(&id).expect("it was picked").ending = true;
        let crash = self.crash();
        self.input(at, Input::Command(how(id)), crash)?;
        Ok(())
    }

    fn act_crash(&mut self) -> Outcome {
        let running = self.running();
        if let Some(at) = self.rng.pick(&running) {
            self.tally.crashed += 1;
            self.stop(at);
        }
        Ok(())
    }

    fn act_start(&mut self) -> Outcome {
        let mut down = self.all();
        down.retain(|at| !self.runs(*at));
        let Some(at) = self.rng.pick(&down) else { return Ok(()) };
        let cut = match self.rng.chance(1, 10) {
            true => self.rng.pick(&[Cut::BeforeSync, Cut::AfterSync]),
            false => None,
        };
        self.start(at, cut)?;
        if cut.is_some() {
            self.stop(at);
        }
        Ok(())
    }

    fn act_backup(&mut self) -> Outcome {
        let copies = self.all();
        let Some(at) = self.rng.pick(&copies) else { return Ok(()) };
        let image = self.copy(at).image();
        let marks = self.rng.chance(1, 2).then(|| numbers(&load(&image.disk)));
        self.note(format_args!("a backup of {at:?}, with marks: {}", marks.is_some()));
        let party = &mut self.parties[at.0];
        for (id, ours) in marks.into_iter().flatten() {
            let mark = party.marks.entry(id).or_default();
            mark.signed = mark.signed.max(ours.signed);
            mark.revoked = mark.revoked.max(ours.revoked);
            mark.received = mark.received.max(ours.received);
            mark.closing |= ours.closing;
        }
        if party.images.len() == IMAGES_MAX {
            party.images.remove(1);
        }
        party.images.push(image);
        Ok(())
    }

    /// Whether a party may go back in time: with a witness always. By their peers' word only while
    /// these remember its channels: they lack none, and none of theirs is in quarantine.
    fn may_go_back(&self, party: usize) -> bool {
        let others = || self.all().into_iter().filter(|at| at.0 != party);
        let held = |at: At| {
            let mut channels = self.stored(at).channels.into_iter();
            channels.any(|stored| stored.stale.is_some() && !stored.closed)
        };
        let lacking = |at: At| {
            let stored = self.stored(at);
            let has = |id| stored.channels.iter().any(|stored| stored.channel.id() == id);
            let its = self.channels.iter().filter(|(_, story)| story.ends.contains(&at.0));
            its.map(|(id, _)| id).any(|id| self.ledger.view(id).funded && !has(id))
        };
        self.witnessed() || !others().any(|at| held(at) || lacking(at))
    }

    /// A party of which one copy can be replaced.
    fn one_to_go_back(&mut self) -> Option<usize> {
        let parties: Vec<usize> =
            (0..self.parties.len()).filter(|party| self.may_go_back(*party)).collect();
        self.rng.pick(&parties)
    }

    /// A restore by Highwater: all that could be punished is marked, and backups' marks are told.
    fn act_restore(&mut self) -> Outcome {
        let Some(party) = self.one_to_go_back() else { return Ok(()) };
        let count = self.parties[party].images.len();
        let newest = self.rng.chance(1, 2);
        let which = if newest { count - 1 } else { self.rng.below(count) };
        let image = self.parties[party].images[which].image();
        self.note(format_args!("party {party} is restored from image {which} of {count}"));
        self.replace(party, image, Cause::Restore);
        Ok(())
    }

    /// The last restore is undone: its disk is as old by now.
    fn act_rollback(&mut self) -> Outcome {
        let Some(party) = self.one_to_go_back() else { return Ok(()) };
        let Some(image) = self.parties[party].kept.take() else { return Ok(()) };
        self.note(format_args!("party {party} is rolled back"));
        self.replace(party, image, Cause::Rollback);
        self.parties[party].rolled_back = true;
        Ok(())
    }

    /// Puts a disk in the place of another one as Highwater does: marked, with a latch beside it.
    fn replace(&mut self, party: usize, image: Image, cause: Cause) {
        self.tally.restored += 1;
        self.stop((party, 0));
        image.disk.mark_stale();
        let real = self.real(party);
        let its = &mut self.parties[party];
        its.went_back = true;
        let marks = its.marks.iter().flat_map(|(id, ours)| channel_marks(id.as_str(), ours));
        let latch = latch(its.name.clone(), cause, marks.collect());
        let mut copy = Copy::on(Image { disk: image.disk, latch: Some(latch) }, real);
        copy.marks = its.marks.clone();
        its.kept = Some(std::mem::replace(&mut its.copies[0], copy).image());
    }

    /// Somebody puts an old disk in the place of the newer one: nothing is marked.
    fn act_copy_back(&mut self) -> Outcome {
        if !self.witnessed() {
            return Ok(());
        }
        let party = self.rng.below(self.parties.len());
        let Some(image) = self.rng.pick(&self.parties[party].images) else { return Ok(()) };
        let real = self.real(party);
        self.note(format_args!("an old disk is put in the place of that of party {party}"));
        self.tally.restored += 1;
        self.parties[party].went_back = true;
        self.stop((party, 0));
        self.parties[party].copies[0] = Copy::on(image.image(), real);
        Ok(())
    }

    /// A second copy of a node, which may run beside the first.
    fn act_clone(&mut self) -> Outcome {
        let party = self.rng.below(self.parties.len());
        if !self.witnessed() || self.parties[party].copies.len() > 1 {
            return Ok(());
        }
        let real = self.real(party);
        let now = self.parties[party].copies[0].image();
        let old = self.rng.pick(&self.parties[party].images).expect("the first one stays");
        let image = if self.rng.chance(1, 2) { now } else { old.image() };
        self.note(format_args!("party {party} is cloned"));
        self.tally.cloned += 1;
        self.parties[party].went_back = true;
        self.parties[party].copies.push(Copy::on(image, real));
        Ok(())
    }

    fn act_end_clone(&mut self) -> Outcome {
        let party = self.rng.below(self.parties.len());
        if self.parties[party].copies.len() > 1 {
            self.drop_copy(party, 1);
        }
        Ok(())
    }

    /// One of two copies is thrown away; the other one is the node from now on.
    pub(super) fn drop_copy(&mut self, party: usize, which: usize) {
        self.stop((party, 0));
        self.stop((party, 1));
        self.note(format_args!("copy {which} of party {party} is thrown away"));
        self.parties[party].copies.remove(which);
    }

    fn act_reach(&mut self) -> Outcome {
        let number = self.rng.below(self.parties.len());
        let reachable = self.rng.chance(4, 5);
        self.reach(number, reachable);
        Ok(())
    }

    pub(super) fn reach(&mut self, party: usize, reachable: bool) {
        self.note(format_args!("the witness of party {party} can be reached: {reachable}"));
        let party = &mut self.parties[party];
        party.reachable = reachable;
        party.witness.cut_off(!reachable);
    }

    fn act_fault(&mut self) -> Outcome {
        let party = self.rng.below(self.parties.len());
        let faults = [PutFault::Lost, PutFault::Unacknowledged, PutFault::Delayed];
        let Some(fault) = self.rng.pick(&faults) else { return Ok(()) };
        let times = if self.rng.chance(1, 4) { 4 } else { 1 };
        self.note(format_args!("the witness of party {party}: {times} puts {fault:?}"));
        self.parties[party].witness.fail(std::iter::repeat_n(fault, times));
        Ok(())
    }

    fn act_arrive(&mut self) -> Outcome {
        let party = self.rng.below(self.parties.len());
        self.note(format_args!("what was delayed arrives at the witness of party {party}"));
        self.parties[party].witness.deliver();
        Ok(())
    }

    /// How a channel stands with a copy.
    pub(super) fn state(&self, at: At, id: &ChannelId) -> Option<ChannelState> {
        let listed = self.copy(at).driver.as_ref()?.node().list();
        listed.into_iter().find(|listed| listed.id == *id).map(|listed| listed.state)
    }
}

/// What Highwater leaves in a directory that it has put in another one's place.
fn latch(node: NodeName, cause: Cause, marks: BTreeMap<String, u64>) -> Latch {
    let (reason, by, time) = ("it burnt".to_owned(), "the simulation".to_owned(), Time::default());
    Latch {
        version: 1,
        kind: GuardKind::Channels,
        node,
        uid: None,
        cause,
        restore: None,
        snapshot: None,
        time,
        reasons: Vec::new(),
        marks,
        channels: BTreeMap::new(),
        listed: false,
        old: None,
        withheld: Vec::new(),
        release: None,
        original_gone: Some(Released { reason, by, time }),
        floors: Vec::new(),
    }
}
