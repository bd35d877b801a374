//! The simulated world: parties with their disks, copies of their nodes, sessions and the ledger.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use highwater::Kind as ErrorKind;
use highwater::env::Env;
use highwater::guard::{Latch, MemoryWitness};
use highwater::ids::NodeName;
use highwater_guard::{Channel as _, Ours, Policy};

use tempfile::TempDir;

use super::gate::{Break, GateCut, Parts, SimGate};
use super::random::{Rng, env};
use super::trace::Trace;
use super::watch::WorldWatch;
use super::{Breach, Kind, Plan, Tally};
use crate::driver::{Driver, Failure};
use crate::ids::{Both, ChannelId, PaymentHash, PeerId, Sats};
use crate::keys::NodeKeys;
use crate::ledger::{Ledger, Transaction};
use crate::node::{Answer, Command, Effect, Input};
use crate::store::{Cut, Disk, MemoryStore, Store as _, Stored};
use crate::wire::Message;

pub(super) type Outcome<T = ()> = Result<T, Breach>;

/// A copy of a party's node: the original is number 0.
pub(super) type At = (usize, usize);

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) env: Env,
    pub(super) ledger: Ledger,
    pub(super) parties: Vec<Party>,
    /// By the two parties, the lower first.
    pub(super) sessions: BTreeMap<(usize, usize), Session>,
    pub(super) channels: BTreeMap<ChannelId, Story>,
    pub(super) payments: BTreeMap<PaymentHash, Paying>,
    pub(super) watch: WorldWatch,
    pub(super) trace: Rc<RefCell<Trace>>,
    pub(super) tally: Tally,
    /// Nobody crashes.
    pub(super) calm: bool,
}

pub(super) struct Party {
    pub(super) keys: NodeKeys,
    pub(super) id: PeerId,
    pub(super) name: NodeName,
    pub(super) witness: MemoryWitness,
    pub(super) reachable: bool,
    pub(super) images: Vec<Image>,
    /// What a restore has put aside.
    pub(super) kept: Option<Image>,
    pub(super) copies: Vec<Copy>,
    /// It was restored, rolled back or copied.
    pub(super) went_back: bool,
    /// A disk from before a restore came back.
    pub(super) rolled_back: bool,
    /// The highest marks that backups have recorded.
    pub(super) marks: BTreeMap<ChannelId, Ours>,
}

/// What a copy of a node directory holds.
#[derive(Clone, Default)]
pub(super) struct Image {
    pub(super) disk: Disk,
    pub(super) latch: Option<Latch>,
}

pub(super) struct Copy {
    pub(super) disk: Disk,
    /// Beside it, where the library's guard has its latch.
    dir: Option<TempDir>,
    pub(super) driver: Option<Driver<MemoryStore, SimGate>>,
    pub(super) epoch: u64,
    /// A restore has left the marks of backups beside its disk.
    pub(super) marks: BTreeMap<ChannelId, Ours>,
}

/// A session: in each direction messages arrive in order, and those in flight are lost with it.
pub(super) struct Session {
    pub(super) copies: [usize; 2],
    pub(super) in_flight: [VecDeque<Message>; 2],
}

/// What the world knows of a channel.
pub(super) struct Story {
    /// The opener and the acceptor.
    pub(super) ends: [usize; 2],
    pub(super) balance: Both<Sats>,
    /// Somebody has asked for its end.
    pub(super) ending: bool,
}

pub(super) struct Paying {
    pub(super) channel: ChannelId,
    pub(super) payer: usize,
    pub(super) amount: Sats,
}

/// Where a copy loses its power while it deals with an input.
#[derive(Clone, std::marker::Copy, Debug)]
pub(super) enum Crash {
    Commit(Cut),
    Gate(GateCut),
    /// After this many messages and submissions.
    Leaving(usize),
}

impl World {
    pub(super) fn new(plan: Plan, trace: Rc<RefCell<Trace>>) -> World {
        let party = |number: usize| {
            let keys = NodeKeys::new([number as u8 + 1; 32]);
            let real = plan.real && plan.rogue != Some(number);
            Party {
                id: keys.peer_id(),
                keys,
                name: format!("node-{number}").parse().expect("it is a name"),
                witness: MemoryWitness::new(),
                reachable: true,
                images: vec![Image::default()],
                kept: None,
                copies: vec![Copy::on(Image::default(), real)],
                went_back: false,
                rolled_back: false,
                marks: BTreeMap::new(),
            }
        };
        World {
            rng: Rng::new(!plan.seed),
            env: env(plan.seed),
            ledger: Ledger::default(),
            parties: (0..plan.parties).map(party).collect(),
            sessions: BTreeMap::new(),
            channels: BTreeMap::new(),
            payments: BTreeMap::new(),
            watch: WorldWatch::default(),
            trace,
            tally: Tally::default(),
            calm: true,
            plan,
        }
    }

    pub(super) fn note(&self, event: std::fmt::Arguments<'_>) {
        self.trace.borrow_mut().event(event);
    }

    /// Whether a party has the library's guard, on a directory.
    pub(super) fn real(&self, party: usize) -> bool {
        self.plan.real && self.honest(party)
    }

    pub(super) fn honest(&self, party: usize) -> bool {
        self.plan.rogue != Some(party)
    }

    pub(super) fn party_of(&self, peer: &PeerId) -> usize {
        self.parties.iter().position(|party| party.id == *peer).expect("all peers are parties")
    }

    pub(super) fn runs(&self, (party, copy): At) -> bool {
        self.parties[party].copies[copy].driver.is_some()
    }

    /// All copies of nodes that run.
    pub(super) fn running(&self) -> Vec<At> {
        self.all().into_iter().filter(|at| self.runs(*at)).collect()
    }

    pub(super) fn all(&self) -> Vec<At> {
        let copies = |(party, it): (usize, &Party)| (0..it.copies.len()).map(move |c| (party, c));
        self.parties.iter().enumerate().flat_map(copies).collect()
    }

    pub(super) fn copy(&self, (party, copy): At) -> &Copy {
        &self.parties[party].copies[copy]
    }

    pub(super) fn copy_mut(&mut self, (party, copy): At) -> &mut Copy {
        &mut self.parties[party].copies[copy]
    }

    /// Starts a copy: it takes the witness over, and its gate sorts the channels.
    pub(super) fn start(&mut self, at: At, cut: Option<Cut>) -> Outcome {
        self.stop(at);
        let rogue = !self.honest(at.0);
        let broken = if rogue { Some(Break::FreeForAll) } else { self.plan.broken };
        let backups = self.copy(at).marks.clone();
        let dir = self.copy(at).dir.as_ref().map(|dir| dir.path().to_owned());
        let parts = Parts { policy: self.plan.policy, broken, backups, dir };
        let party = &self.parties[at.0];
        let started =
            SimGate::open(parts, &party.witness, &party.name, &self.env).and_then(|gate| {
                let epoch = crate::gate::Gate::epoch(&gate);
                let mut store = MemoryStore::new(self.copy(at).disk.clone());
                cut.into_iter().for_each(|cut| store.cut(cut));
                Ok((epoch, Driver::start(party.keys.clone(), store, gate)?))
            });
        match started {
            Ok((epoch, driver)) => {
                self.note(format_args!("{at:?} starts under epoch {epoch}"));
                let copy = self.copy_mut(at);
                (copy.epoch, copy.driver) = (epoch, Some(driver));
                self.observe(at);
                // Before it speaks to anybody it looks at the ledger.
                self.look(at)?;
            }
            Err(error) => {
                self.note(format_args!("{at:?} can't start: {error}"));
                if matches!(error.kind(), ErrorKind::Bug | ErrorKind::Corrupt) {
                    return Err(Breach { kind: Kind::Stuck, what: format!("{at:?}: {error}") });
                }
            }
        }
        Ok(())
    }

    /// The copy is gone, at once; its peers notice, or find out later.
    pub(super) fn stop(&mut self, at: At) {
        if self.copy_mut(at).driver.take().is_some() {
            self.note(format_args!("{at:?} is gone"));
        }
        let pairs = self.pairs_of(at);
        self.sessions.retain(|pair, _| !pairs.contains(pair));
    }

    /// The sessions of a copy.
    pub(super) fn pairs_of(&self, (party, copy): At) -> Vec<(usize, usize)> {
        let its = |((a, b), session): (&(usize, usize), &Session)| {
            (*a == party && session.copies[0] == copy) || (*b == party && session.copies[1] == copy)
        };
        self.sessions.iter().filter(|entry| its(*entry)).map(|(pair, _)| *pair).collect()
    }

    /// A session begins; one that there was is lost.
    pub(super) fn connect(&mut self, a: At, b: At) -> Outcome {
        let (a, b) = if a.0 < b.0 { (a, b) } else { (b, a) };
        self.note(format_args!("{a:?} and {b:?} connect"));
        let session = Session { copies: [a.1, b.1], in_flight: Default::default() };
        self.sessions.insert((a.0, b.0), session);
        for (at, peer) in [(a, b), (b, a)] {
            let peer = self.parties[peer.0].id;
            self.input(at, Input::Connected(peer), None)?;
        }
        Ok(())
    }

    /// A session is cut. Each side notices, or does not.
    pub(super) fn disconnect(&mut self, pair: (usize, usize), notice: [bool; 2]) -> Outcome {
        let Some(session) = self.sessions.remove(&pair) else { return Ok(()) };
        self.note(format_args!("the session {pair:?} is cut, noticed: {notice:?}"));
        let ends = [(pair.0, session.copies[0]), (pair.1, session.copies[1])];
        for (side, at) in ends.into_iter().enumerate() {
            let peer = self.parties[ends[1 - side].0].id;
            if notice[side] && self.runs(at) {
                self.input(at, Input::Disconnected(peer), None)?;
            }
        }
        Ok(())
    }

    /// The next message of a session in one direction; `false` where there is none.
    pub(super) fn deliver(
        &mut self,
        pair: (usize, usize),
        from: usize,
        crash: Option<Crash>,
    ) -> Outcome<bool> {
        let Some(session) = self.sessions.get_mut(&pair) else { return Ok(false) };
        let Some(mut message) = session.in_flight[from].pop_front() else { return Ok(false) };
        let ends = [(pair.0, session.copies[0]), (pair.1, session.copies[1])];
        let (sender, at) = (ends[from], ends[1 - from]);
        if !self.honest(sender.0) {
            self.lie(&mut message);
        }
        let peer = self.parties[sender.0].id;
        self.input(at, Input::Message(peer, message), crash)?;
        Ok(true)
    }

    pub(super) fn command(&mut self, at: At, command: Command) -> Outcome<Option<Answer>> {
        self.input(at, Input::Command(command), None)
    }

    /// Hands an input to a copy, and carries out what leaves it.
    pub(super) fn input(
        &mut self,
        at: At,
        input: Input,
        crash: Option<Crash>,
    ) -> Outcome<Option<Answer>> {
        let Some(driver) = self.parties[at.0].copies[at.1].driver.as_mut() else { return Ok(None) };
        match crash {
            Some(Crash::Commit(cut)) => driver.store_mut().cut(cut),
            Some(Crash::Gate(cut)) => driver.gate_mut().cut(cut),
            Some(Crash::Leaving(_)) | None => {}
        }
        let event =
            format!("{at:?} <- {input:?}{}", crash.map_or(String::new(), |c| format!(" {c:?}")));
        let result = driver.handle(input);
        self.note(format_args!("{event}"));
        self.observe(at);
        let mut answer = None;
        match result {
            Ok(outcome) => {
                let leaves = match crash {
                    Some(Crash::Leaving(count)) => count,
                    _ => usize::MAX,
                };
                for effect in outcome.effects.into_iter().take(leaves) {
                    self.effect(at, effect)?;
                }
                answer = outcome.answer;
            }
            Err(Failure::Refused(error)) => {
                self.note(format_args!("{at:?} refuses: {error}"));
                self.no_bug(at, &error)?;
            }
            Err(Failure::Silent(error)) => {
                self.note(format_args!("{at:?} is silent: {error}"));
                self.no_bug(at, &error)?;
                for pair in self.pairs_of(at) {
                    self.disconnect(pair, [true, true])?;
                }
            }
            Err(Failure::Stopped(error)) => {
                self.note(format_args!("{at:?} stops: {error}"));
                self.no_bug(at, &error)?;
                self.tally.fenced += u64::from(error.kind() == ErrorKind::Fenced);
                self.stop(at);
            }
        }
        if crash.is_some() {
            self.tally.crashed += 1;
            self.stop(at);
        }
        Ok(answer)
    }

    fn no_bug(&self, at: At, error: &highwater::Error) -> Outcome {
        if self.honest(at.0) && matches!(error.kind(), ErrorKind::Bug | ErrorKind::Corrupt) {
            return Err(Breach { kind: Kind::Stuck, what: format!("{at:?}: {error}") });
        }
        Ok(())
    }

    fn effect(&mut self, at: At, effect: Effect) -> Outcome {
        self.note(format_args!("{at:?} -> {effect:?}"));
        self.watch_effect(at, &effect)?;
        match effect {
            Effect::Send(peer, message) => {
                let peer = self.party_of(&peer);
                let pair = (at.0.min(peer), at.0.max(peer));
                let side = usize::from(at.0 > peer);
                if let Some(session) = self.sessions.get_mut(&pair)
                    && session.copies[side] == at.1
                {
                    session.in_flight[side].push_back(message);
                }
            }
            Effect::Submit(transaction) => {
                let punished = match &transaction {
                    Transaction::Punish { channel, .. } => Some(channel.clone()),
                    _ => None,
                };
                if self.ledger.submit(transaction).is_ok()
                    && let Some(channel) = punished
                {
                    self.watch_punished(&channel)?;
                }
            }
        }
        Ok(())
    }

    /// What is on a copy's disk.
    pub(super) fn stored(&self, at: At) -> Stored {
        load(&self.copy(at).disk)
    }

    /// Somebody who lies about where it stands.
    fn lie(&mut self, message: &mut Message) {
        if let crate::wire::Body::Reestablish(says) = &mut message.body
            && self.rng.chance(1, 2)
        {
            let number = match self.rng.chance(1, 2) {
                true => &mut says.next_commitment,
                false => &mut says.next_revocation,
            };
            let by = 1 + self.rng.below(3) as u64;
            *number = if self.rng.chance(1, 2) { *number + by } else { number.saturating_sub(by) };
        }
    }

    /// Whose word clears.
    pub(super) fn witnessed(&self) -> bool {
        self.plan.policy == Policy::Witness
    }
}

impl Copy {
    /// A copy on the disk of an image, which is its own from now on.
    pub(super) fn on(image: Image, real: bool) -> Copy {
        let dir = real.then(|| tempfile::tempdir().expect("there is a temporary directory"));
        if let (Some(dir), Some(latch)) = (&dir, image.latch) {
            latch.write(dir.path(), &Env::system()).expect("a latch can be written");
        }
        Copy { disk: image.disk, dir, driver: None, epoch: 0, marks: BTreeMap::new() }
    }

    pub(super) fn image(&self) -> Image {
        let latch = self.dir.as_ref().map(|dir| Latch::read(dir.path()));
        let latch = latch.and_then(|latch| latch.expect("a latch can be read"));
        Image { disk: self.disk.image(), latch }
    }
}

impl Image {
    pub(super) fn image(&self) -> Image {
        Image { disk: self.disk.image(), latch: self.latch.clone() }
    }
}

pub(super) fn load(disk: &Disk) -> Stored {
    MemoryStore::new(disk.clone()).load().expect("a disk in memory can be read")
}

/// How far a channel has come: each move adds to it.
pub(super) fn rank(ours: &Ours) -> u64 {
    ours.signed.unwrap_or(0) + ours.revoked + ours.received + u64::from(ours.closing)
}

/// The numbers of the channels on a disk.
pub(super) fn numbers(stored: &Stored) -> BTreeMap<ChannelId, Ours> {
    let open = stored.channels.iter().filter(|channel| !channel.closed);
    open.map(|stored| (stored.channel.id().clone(), stored.channel.ours())).collect()
}
