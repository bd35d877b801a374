//! The gate of a simulated node: the library's witness and verdicts on a disk in memory. It can be
//! broken in the ways that a guard must not be, so that the simulation shows that it would notice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use highwater::env::Env;
use highwater::guard::{Arrival, Guard, MemoryWitness, Move, Witness};
use highwater::ids::NodeName;
use highwater::{Control, Error, Result};
use highwater_guard::{Basis, Opened, Ours, Policy, Quarantined, Release, Report, Verdict};

use crate::channel::Channel;
use crate::gate::{Admitted, Gate, Loaded, Unmark};
use crate::ids::ChannelId;
use crate::node::Moves;

/// How a gate is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Break {
    /// It does not look at marks.
    ForgetsMarks,
    /// The witness hears of a move after its messages have left.
    RaisesLate,
    /// The epoch of the witness's entries is not looked at.
    IgnoresEpochs,
    /// The peer's numbers may differ from ours by one, in either direction.
    WithinOne,
    /// Everything goes on, and no witness hears of it.
    FreeForAll,
}

/// Where a gate stops, as if the power went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GateCut {
    /// Durable in the store, not in the witness.
    BeforeRaise,
    /// In the witness, nothing has left.
    AfterRaise,
    /// A mark is gone, and the channel is not out yet.
    AfterUnmark,
}

/// What a gate is made of.
pub(super) struct Parts {
    pub(super) policy: Policy,
    pub(super) broken: Option<Break>,
    /// The highest marks that backups have recorded, where the disk was restored from one.
    pub(super) backups: BTreeMap<ChannelId, Ours>,
    /// Where the library's guard keeps its latch, if it is that one.
    pub(super) dir: Option<PathBuf>,
}

pub(super) struct SimGate {
    parts: Parts,
    witness: Option<Witness>,
    /// The library's own gate on a directory, which then has the witness.
    guard: Option<Guard>,
    epoch: u64,
    cut: Option<GateCut>,
    late: Moves,
}

/// The counter of channel keys, as the witness names it.
const KEYS: &str = "channel_keys";

impl SimGate {
    /// Takes the witness over, where the policy asks for one.
    pub(super) fn open(
        parts: Parts,
        witness: &MemoryWitness,
        node: &NodeName,
        env: &Env,
    ) -> Result<SimGate> {
        let asked = parts.policy == Policy::Witness && parts.broken != Some(Break::FreeForAll);
        let witness = match asked {
            false => None,
            true => {
                let store = Arc::new(witness.clone());
                Some(Witness::take_over(store, node.clone(), "simulation".into(), env)?)
            }
        };
        let epoch = witness.as_ref().map_or(0, Witness::epoch);
        let (cut, late) = (None, Moves::default());
        let (guard, witness) = match &parts.dir {
            Some(dir) => {
                let control = Control::new(env.clone());
                (Some(Guard::open(dir, node.clone(), parts.policy, witness, &control)?), None)
            }
            None => (None, witness),
        };
        Ok(SimGate { parts, witness, guard, epoch, cut, late })
    }

    /// Lets the next raise stop there.
    pub(super) fn cut(&mut self, cut: GateCut) {
        self.cut = Some(cut);
    }

    fn is(&self, broken: Break) -> bool {
        self.parts.broken == Some(broken)
    }

    fn hold(&self, id: &str, channel: Channel, loaded: Option<crate::store::Stale>) -> Held {
        let mut its = self.witness.as_ref().and_then(|witness| witness.of(id));
        if let Some(its) = its.as_mut().filter(|_| self.is(Break::IgnoresEpochs)) {
            its.epoch = 0;
        }
        let backup = self.parts.backups.get(channel.id()).copied();
        let mut held = Quarantined::new(channel, self.parts.policy, backup, its);
        if let Some(verdict) = loaded.and_then(|stale| stale.verdict) {
            held.recall(verdict);
        }
        held
    }

    fn raise(&self, moves: &Moves) -> Result<()> {
        let channels = moves.channels.iter();
        let channels: Vec<Move> =
            channels.map(|(id, ours)| Move { channel: id.to_string(), ours: *ours }).collect();
        let counters = moves.key_used.map(|used| (KEYS.to_owned(), used));
        match &self.witness {
            Some(witness) => witness.raise(&channels, counters.as_slice()).map(drop),
            None => Ok(()),
        }
    }

    /// Whether a broken gate lets this channel out.
    fn lets_out(&self, held: &Held) -> bool {
        let ours = held.ours();
        let near = |Report { revocations_held, signatures_taken }: Report| {
            revocations_held.abs_diff(ours.revoked) <= 1
                && signatures_taken.abs_diff(ours.signed.unwrap_or(0)) <= 1
        };
        match self.parts.broken {
            Some(Break::FreeForAll) => true,
            Some(Break::WithinOne) => held.evidence().report.is_some_and(near),
            _ => false,
        }
    }
}

fn power(goes: bool) -> Result<()> {
    if goes { Err(gone()) } else { Ok(()) }
}

fn gone() -> Error {
    Error::unavailable("the power went")
}

type Held = Quarantined<Channel>;

impl Gate for SimGate {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn admit(
        &mut self,
        channels: Vec<Loaded>,
        unmark: &mut dyn FnMut(&ChannelId) -> Result<()>,
    ) -> Result<Admitted> {
        if let Some(guard) = &mut self.guard {
            return Gate::admit(guard, channels, unmark);
        }
        let mut admitted = Admitted::default();
        let ids = channels.iter().map(|(arrival, _)| arrival.id.as_str());
        if let Some(witness) = &self.witness {
            let lacking = witness.lacking(ids).into_iter().map(|id| id.parse());
            admitted.lacking = lacking.collect::<Result<_>>()?;
        }
        let blind = self.is(Break::FreeForAll) || self.is(Break::ForgetsMarks);
        for (Arrival { id, channel, .. }, stale) in channels {
            if self.witness.is_none() && (stale.is_none() || blind) {
                admitted.free.push(channel);
                continue;
            }
            let held = self.hold(&id, channel, stale);
            let id = id.parse()?;
            match self.settle(&id, held, &mut || unmark(&id))? {
                Opened::Clear(channel, _) => admitted.free.push(channel),
                Opened::Held(held) => admitted.held.push((id, held)),
                Opened::Closed(_) => return Err(Error::bug("closed before the ledger was asked")),
            }
        }
        Ok(admitted)
    }

    fn settle(
        &mut self,
        id: &ChannelId,
        held: Held,
        unmark: Unmark<'_>,
    ) -> Result<Opened<Channel>> {
        let cut = self.cut == Some(GateCut::AfterUnmark);
        let mut unmark = || unmark().and_then(|()| power(cut));
        if let Some(guard) = &mut self.guard {
            return Gate::settle(guard, id, held, &mut unmark);
        }
        match held.verdict() {
            Verdict::Clear(_) | Verdict::Closed => unmark()?,
            _ if self.lets_out(&held) => {
                let reason = Release::new("it is broken", "the gate").expect("there is a reason");
                let out = held.release(&reason, |_| unmark());
                return out.map(|c| Opened::Clear(c, Basis::Peer)).map_err(|(_, error)| error);
            }
            _ => {}
        }
        Ok(held.open())
    }

    fn release(
        &mut self,
        id: &ChannelId,
        held: Held,
        release: &Release,
        unmark: Unmark<'_>,
    ) -> Result<Channel, Box<(Held, Error)>> {
        if let Some(guard) = &mut self.guard {
            return Gate::release(guard, id, held, release, unmark);
        }
        let ours = held.ours();
        held.release(release, |_| {
            unmark()?;
            self.witness.as_ref().map_or(Ok(()), |witness| witness.accept(id.as_str(), &ours))
        })
        .map_err(Box::new)
    }

    fn released(&self, id: &ChannelId) -> Result<Option<Release>> {
        self.guard.as_ref().map_or(Ok(None), |guard| Gate::released(guard, id))
    }

    fn leave(&mut self, moves: &Moves) -> Result<()> {
        let cut = self.cut.take();
        if cut == Some(GateCut::BeforeRaise) {
            return Err(gone());
        }
        let cut = cut.filter(|cut| *cut == GateCut::AfterRaise);
        if self.is(Break::RaisesLate) {
            let late = std::mem::replace(&mut self.late, moves.clone());
            self.raise(&late)?;
        } else if let Some(guard) = &mut self.guard {
            Gate::leave(guard, moves)?;
        } else {
            self.raise(moves)?;
        }
        power(cut.is_some())
    }

    fn confirm(&mut self) -> Result<()> {
        match (&mut self.guard, &self.witness) {
            (Some(guard), _) => Gate::confirm(guard),
            (None, Some(witness)) => witness.confirm(),
            (None, None) => Ok(()),
        }
    }

    fn retire(&mut self, id: &ChannelId) -> Result<()> {
        match (&mut self.guard, &self.witness) {
            (Some(guard), _) => Gate::retire(guard, id),
            (None, Some(witness)) => witness.retire(id.as_str()),
            (None, None) => Ok(()),
        }
    }

    fn next_key(&self, ours: u64) -> u64 {
        if let Some(guard) = &self.guard {
            return Gate::next_key(guard, ours);
        }
        let used = self.witness.as_ref().and_then(|witness| witness.counter(KEYS));
        used.map_or(ours, |used| ours.max(used + 1))
    }
}
