//! The node's side of the guard: which channels are free at a start, what lets the others out, and
//! what must be durable before anything leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_guard::{Channel, Opened, Ours, Policy, Quarantined, Reason, Release, Verdict};

use super::latch::{Cause, Latch, Recorded, Released};
use super::witness::{Move, Raised, Witness};
use crate::control::Control;
use crate::env::Env;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{GuardKind, NodeName};
use crate::node::NodeFile;
use crate::vault::channel_mark;

/// Decides for a node, from its start on, which channels may speak.
///
/// A node opens it before it reads a channel, hands over all its channels ([`Guard::admit`]), lets
/// those out that are settled later ([`Guard::settle`]), and asks it before anything leaves
/// ([`Guard::leave`]).
pub struct Guard {
    dir: PathBuf,
    node: NodeName,
    policy: Policy,
    witness: Option<Witness>,
    env: Env,
}

/// A channel, as the node has loaded it.
pub struct Arrival<C> {
    /// The node's own name of it.
    pub id: String,
    /// The channel.
    pub channel: C,
    /// It carries a stale mark in the node's database.
    pub stale: bool,
}

/// The channels of a node at its start, sorted.
pub struct Sorted<C> {
    /// Not in question.
    pub free: Vec<(String, C)>,
    /// Channels in question, with what is known of them; some are decided already.
    pub held: Vec<(String, Quarantined<C>)>,
    /// An operator has released these since.
    pub released: Vec<(String, Quarantined<C>, Release)>,
    /// The witness knows these, and the node lacks them.
    pub lacking: Vec<String>,
}

/// The channels of a node at its start, after what was decided already was let out.
pub struct Admitted<C> {
    /// Channels that may go on.
    pub free: Vec<(String, C)>,
    /// These are silent until [`Guard::settle`] lets them out.
    pub held: Vec<(String, Quarantined<C>)>,
    /// The witness knows these, and the node lacks them.
    pub lacking: Vec<String>,
}

impl Guard {
    /// The guard of the node directory `dir`.
    ///
    /// The witness has been taken over by this start; under [`Policy::Witness`] there must be one.
    /// Quarantined where the directory's databases are withheld: the node must not start at all.
    pub fn open(
        dir: &Path,
        node: NodeName,
        policy: Policy,
        witness: Option<Witness>,
        control: &Control,
    ) -> Result<Guard> {
        if policy == Policy::Witness && witness.is_none() {
            return Err(Error::input("the policy asks for a witness, and there is none")
                .with_remedy(
                    "give the node a witness, or let the word of its peers do (policy `peer`)",
                ));
        }
        if Latch::read(dir)?.is_some_and(|latch| !latch.withheld.is_empty()) {
            return Err(Error::new(
                Kind::Quarantined,
                "the databases of this node directory are withheld",
            )
            .with_remedy(Remedy::GuardList)
            .with_remedy(Remedy::GuardRelease));
        }
        Ok(Guard { dir: dir.to_owned(), node, policy, witness, env: control.env.clone() })
    }

    /// The epoch under which this start moves channels; 0 without a witness. The node stores it with
    /// each move.
    pub fn epoch(&self) -> u64 {
        self.witness.as_ref().map_or(0, Witness::epoch)
    }

    /// Tells the free channels of a start from those that must be silent, and lists these in the
    /// latch.
    ///
    /// Held is what carries a stale mark, what the latch holds, and, where there is a witness,
    /// every channel: it is asked at every start, since a copied disk carries no mark. A channel that
    /// was moved under a witness is held also where none is asked any more. Call it with
    /// all channels but those for which nothing is signed yet and those whose close is confirmed. The
    /// node lets them out itself, and tells the guard by [`Guard::note`]; or it calls
    /// [`Guard::admit`].
    ///
    /// # Errors
    /// Corrupt where the epoch of this start is not above all that the node has stored: the witness
    /// was lost, or went back, and numbers of two histories would be told apart by nothing.
    pub fn sort<C: Channel>(&self, arrivals: Vec<Arrival<C>>) -> Result<Sorted<C>> {
        self.refuse_epochs_again(&arrivals)?;
        let latch = Latch::read(&self.dir)?;
        let ids = arrivals.iter().map(|arrival| arrival.id.as_str());
        let lacking = self.witness.as_ref().map_or_else(Vec::new, |witness| witness.lacking(ids));
        let (free, held, released) = (Vec::new(), Vec::new(), Vec::new());
        let mut sorted = Sorted { free, held, released, lacking };
        for Arrival { id, channel, stale } in arrivals {
            let settled = latch.as_ref().is_none_or(|latch| latch.lets_go(&id));
            if let Some(release) = self.to_release(&id, latch.as_ref())? {
                let held = self.hold(&id, channel, latch.as_ref());
                sorted.released.push((id, held, release));
            } else if settled && !stale && self.witness.is_none() && channel.ours().epoch == 0 {
                sorted.free.push((id, channel));
            } else {
                let held = self.hold(&id, channel, latch.as_ref());
                sorted.held.push((id, held));
            }
        }
        self.forget_released(&mut sorted.lacking, latch.as_ref())?;
        self.list(&sorted, latch.as_ref())?;
        Ok(sorted)
    }

    /// [`Guard::sort`], and lets out at once what the witness clears and what an operator has
    /// released. `unmark` removes a stale mark from the node's database and stores the epoch of
    /// this start with the channel, durable when it returns: numbers that the witness lacks still
    /// are raised under it.
    pub fn admit<C: Channel>(
        &self,
        arrivals: Vec<Arrival<C>>,
        mut unmark: impl FnMut(&str) -> Result<()>,
    ) -> Result<Admitted<C>> {
        let Sorted { mut free, held, released, lacking } = self.sort(arrivals)?;
        for (id, held, release) in released {
            let out = self.release(&id, held, &release, || unmark(&id));
            free.push((id, out.map_err(|failed| failed.1)?));
        }
        let mut still = Vec::new();
        for (id, held) in held {
            match self.settle(&id, held, || unmark(&id))? {
                Opened::Clear(channel, _) => free.push((id, channel)),
                Opened::Held(held) => still.push((id, held)),
                Opened::Closed(_) => {
                    return Err(Error::bug("a channel was closed before the chain was asked"));
                }
            }
        }
        Ok(Admitted { free, held: still, lacking })
    }

    /// Lets a channel out where its verdict says so.
    ///
    /// `unmark` is that of [`Guard::admit`]; the latch
    /// is told next, and the channel comes out last, so that a crash in between holds it again. The
    /// latch goes once nothing is held any more.
    ///
    /// # Errors
    /// The store's, the latch's, or the witness's, which is told first what the channel stands at.
    /// The channel is gone with the error: the node stops, and begins again from its store.
    pub fn settle<C: Channel>(
        &self,
        id: &str,
        held: Quarantined<C>,
        unmark: impl FnOnce() -> Result<()>,
    ) -> Result<Opened<C>> {
        let out = matches!(held.verdict(), Verdict::Closed | Verdict::Clear(_));
        if out {
            unmark()?;
        }
        if let (Verdict::Clear(_), Some(witness)) = (held.verdict(), &self.witness) {
            // A move may be stored that never reached the witness, a publication say: nothing of it
            // may leave before it has.
            let ours = Ours { epoch: self.epoch(), ..held.ours() };
            let moved = Move { channel: id.to_owned(), ours };
            let _: Raised = witness.raise(&[moved], &[])?;
        }
        self.note(id, &recorded(&held))?;
        Ok(held.open())
    }

    /// Takes note of a verdict or a release which the node's own database has already, and which
    /// has not been acted on yet. The latch goes once nothing is held any more.
    pub fn note(&self, id: &str, found: &Recorded) -> Result<()> {
        let out = found.release.is_some();
        if let (true, Some(ours), Some(witness)) = (out, &found.ours, &self.witness) {
            witness.accept(id, ours)?;
        }
        let blocked = matches!(found.verdict, Some(Verdict::Blocked(_)));
        if !blocked && Latch::read(&self.dir)?.is_none() {
            return Ok(());
        }
        self.change(|latch| {
            let known = latch.channels.remove(id).unwrap_or_default();
            let (release, past) = (found.release.clone().or(known.release), known.past);
            let entry = Recorded { release, out: out || known.out, past, ..found.clone() };
            latch.channels.insert(id.to_owned(), entry);
        })
    }

    /// Lets a channel out by an operator's decision, which is recorded first.
    pub fn release<C: Channel>(
        &self,
        id: &str,
        held: Quarantined<C>,
        release: &Release,
        unmark: impl FnOnce() -> Result<()>,
    ) -> Result<C, Box<(Quarantined<C>, Error)>> {
        let found = recorded(&held);
        held.release(release, |release| {
            let release = Some(Released::by(release, self.env.now()));
            self.change(|latch| {
                let past = latch.channels.remove(id).unwrap_or_default().past;
                let entry = Recorded { release: release.clone(), past, ..found.clone() };
                latch.channels.insert(id.to_owned(), entry);
            })?;
            unmark()?;
            self.note(id, &Recorded { release, ..found })
        })
        .map_err(Box::new)
    }

    /// The release that an operator recorded with the program while the node runs.
    pub fn released(&self, id: &str) -> Result<Option<Release>> {
        let Some(latch) = Latch::read(&self.dir)? else { return Ok(None) };
        self.to_release(id, Some(&latch))
    }

    /// To be called after the moves are durable in the node's database, and before anything of them
    /// leaves (`S`, `R`, `closing`, key counters) or is acted on (`L`). Moves of one moment share
    /// one round trip.
    ///
    /// Fenced: another copy of the node has taken over; this one must stop. Unavailable: nothing
    /// may leave now.
    pub fn leave(&self, moves: &[Move], counters: &[(String, u64)]) -> Result<()> {
        match &self.witness {
            Some(witness) => witness.raise(moves, counters).map(drop),
            None => Ok(()),
        }
    }

    /// To be called before a message that moves no number leaves: the first word of a session, our own
    /// commitment. [`Guard::leave`] costs nothing where all numbers stand, and so would not find that
    /// another copy of the node has taken over since.
    pub fn confirm(&self) -> Result<()> {
        match &self.witness {
            Some(witness) => witness.confirm(),
            None => Ok(()),
        }
    }

    /// The close of a channel is confirmed: the witness forgets it, and the latch holds it no longer.
    /// To be called for each such channel at every start, too: it may have been confirmed meanwhile.
    pub fn retire(&self, id: &str) -> Result<()> {
        if let Some(witness) = &self.witness {
            witness.retire(id)?;
        }
        let held = |latch: Latch| latch.channels.contains_key(id) && !latch.lets_go(id);
        if !Latch::read(&self.dir)?.is_some_and(held) {
            return Ok(());
        }
        self.change(|latch| {
            latch.channels.entry(id.to_owned()).or_default().verdict = Some(Verdict::Closed);
        })
    }

    /// The next value of a key counter that nobody has used: above the node's own, and above what the
    /// witness remembers.
    pub fn next_key(&self, counter: &str, ours: u64) -> u64 {
        let remembered = self.witness.as_ref().and_then(|witness| witness.counter(counter));
        ours.max(remembered.unwrap_or(0)).saturating_add(1)
    }

    /// Whether a channel may be opened. If the node lacks channels that the witness knows, it may have used
    /// keys and forgotten them: each counter must have a value that nobody has used.
    pub fn may_open(&self, lacking: &[String], counters: &[(&str, u64)]) -> Result<()> {
        let remembered = |name: &str| self.witness.as_ref().and_then(|it| it.counter(name));
        let behind =
            |&&(name, ours): &&(&str, u64)| remembered(name).is_some_and(|its| its >= ours);
        match counters.iter().find(behind) {
            Some((name, ours)) if !lacking.is_empty() => Err(Error::new(
                Kind::Quarantined,
                format!(
                    "the counter `{name}` stands at {ours}, where the witness has seen it before"
                ),
            )
            .with_entry(*name)
            .with_remedy("let the counter jump to `next_key` first")),
            _ => Ok(()),
        }
    }

    fn refuse_epochs_again<C: Channel>(&self, arrivals: &[Arrival<C>]) -> Result<()> {
        let known = arrivals.iter().map(|arrival| arrival.channel.ours().epoch).max().unwrap_or(0);
        let Some(witness) = self.witness.as_ref().filter(|witness| witness.epoch() <= known) else {
            return Ok(());
        };
        Err(Error::corrupt(format!(
            "the witness was lost, or went back: this start has epoch {}, and the node has stored a \
             move under epoch {known}",
            witness.epoch()
        ))
        .with_entry(self.node.to_string())
        .with_remedy(
            "put back what its store has lost; without it the node takes over above all epochs that \
             it has stored (`Witness::take_over_above`), and its channels wait",
        ))
    }

    fn hold<C: Channel>(&self, id: &str, channel: C, latch: Option<&Latch>) -> Quarantined<C> {
        let backup = latch.and_then(|latch| backup_marks(&latch.marks, id));
        let witness = self.witness.as_ref().and_then(|witness| witness.of(id));
        // Without a witness nothing keeps two copies apart: nobody's word clears one of them.
        let alone = latch.is_none_or(|latch| !latch.needs_statement());
        let policy = if alone { self.policy } else { Policy::Witness };
        let mut held = Quarantined::new(channel, policy, backup, witness);
        let recorded = latch.and_then(|latch| latch.channels.get(id));
        let recorded = recorded.filter(|recorded| !recorded.out);
        if let Some(verdict) = recorded.and_then(|recorded| recorded.verdict) {
            held.recall(verdict);
        }
        held
    }

    /// The release of a channel that is to be carried out now. A release answers for what was found
    /// when it was given: where the witness has been raised since, by another copy of the node, it
    /// counts for nothing.
    fn to_release(&self, id: &str, latch: Option<&Latch>) -> Result<Option<Release>> {
        let Some(latch) = latch else { return Ok(None) };
        let Some(release) = latch.to_release(id) else { return Ok(None) };
        let recorded = latch.channels.get(id).and_then(|recorded| recorded.evidence);
        let then = recorded.map(|evidence| evidence.witness.map(unowned));
        let now = self.witness.as_ref().and_then(|witness| witness.of(id)).map(unowned);
        if self.witness.is_some() && then.is_some_and(|then| then != now) {
            return Ok(None);
        }
        release.as_release(id).map(Some)
    }

    /// Lists the channels in the latch. Where there is none, and the witness has condemned one, or
    /// knows one that the node lacks, the directory was taken back by another hand: it gets one.
    fn list<C: Channel>(&self, sorted: &Sorted<C>, known: Option<&Latch>) -> Result<()> {
        let blocked = |held: &Quarantined<C>| matches!(held.verdict(), Verdict::Blocked(_));
        let condemned = sorted.held.iter().any(|(_, held)| blocked(held));
        if known.is_none() && !condemned && sorted.lacking.is_empty() {
            return Ok(());
        }
        self.change(|latch| {
            for (id, held) in &sorted.held {
                if known.is_some() || blocked(held) {
                    let before = latch.channels.remove(id).unwrap_or_default();
                    // One that was given while this start looked counts: nobody has heard it yet.
                    let heard = known.is_none_or(|known| known.released(id).is_some());
                    let (past, release) =
                        if heard { (before.release, None) } else { (None, before.release) };
                    let past = before.past.into_iter().chain(past).collect();
                    let entry = Recorded { past, release, ..recorded(held) };
                    latch.channels.insert(id.clone(), entry);
                }
            }
            // From here on a release of the whole node is one of each channel that it was about.
            for (id, held, _) in &sorted.released {
                let release = latch.released(id).cloned();
                let past = latch.channels.remove(id).unwrap_or_default().past;
                let entry = Recorded { release, past, ..recorded(held) };
                latch.channels.insert(id.clone(), entry);
            }
            for id in &sorted.lacking {
                let verdict = Some(Verdict::Blocked(Reason::ChannelLacking));
                let lacking = Recorded { verdict, ..Recorded::default() };
                latch.channels.entry(id.clone()).or_insert(lacking);
            }
            latch.release = None;
            latch.listed = true;
        })
    }

    /// What an operator has released of the channels that the node lacks is no longer expected.
    fn forget_released(&self, lacking: &mut Vec<String>, latch: Option<&Latch>) -> Result<()> {
        // A release of the whole node is about the channels that it has.
        let own = |latch: &Latch, id: &String| {
            latch.channels.get(id).is_some_and(|found| found.release.is_some() && !found.out)
        };
        let released = |id: &String| latch.is_some_and(|latch| own(latch, id));
        let (gone, still): (Vec<_>, Vec<_>) =
            std::mem::take(lacking).into_iter().partition(released);
        *lacking = still;
        gone.iter().try_for_each(|id| self.retire(id))?;
        if gone.is_empty() {
            return Ok(());
        }
        self.change(|latch| {
            for id in gone {
                latch.channels.entry(id).or_default().out = true;
            }
        })
    }

    /// Changes the latch, making it where there is none; it goes where nothing is held any more.
    fn change(&self, change: impl FnOnce(&mut Latch)) -> Result<()> {
        let uid = NodeFile::read(&self.dir)?.map(|file| file.uid);
        Latch::update(&self.dir, &self.env, |latch| {
            let mut latch = latch.unwrap_or_else(|| {
                let (node, now) = (self.node.clone(), self.env.now());
                Latch { uid, ..Latch::new(GuardKind::Channels, node, Cause::Witness, now) }
            });
            change(&mut latch);
            Ok(latch.holds().then_some(latch))
        })
        .map(drop)
    }
}

/// The numbers of a witness, whoever owns it.
fn unowned(witness: highwater_guard::Witness) -> highwater_guard::Witness {
    highwater_guard::Witness { owned: false, ..witness }
}

/// What is to be recorded of a channel in quarantine.
fn recorded<C: Channel>(held: &Quarantined<C>) -> Recorded {
    Recorded {
        ours: Some(held.ours()),
        evidence: Some(*held.evidence()),
        verdict: Some(held.verdict()),
        release: None,
        out: false,
        unmarked: false,
        past: Vec::new(),
    }
}

/// The highest marks that the vault has seen of a channel.
fn backup_marks(marks: &BTreeMap<String, u64>, id: &str) -> Option<Ours> {
    let mark = |name: &str| marks.get(&format!("channel.{id}.{name}")).copied();
    let signed = mark("signed");
    let (revoked, received, closing) = (mark("revoked"), mark("received"), mark("closing"));
    let known = [signed, revoked, received, closing];
    known.iter().any(Option::is_some).then(|| Ours {
        signed,
        revoked: revoked.unwrap_or(0),
        received: received.unwrap_or(0),
        closing: closing.unwrap_or(0) > 0,
        epoch: 0,
    })
}

/// The marks of a channel, as a node tells them at the barrier.
pub fn channel_marks(id: &str, ours: &Ours) -> BTreeMap<String, u64> {
    let name = |what: &str| channel_mark(id, what);
    let mut marks = BTreeMap::from([
        (name("revoked"), ours.revoked),
        (name("received"), ours.received),
        (name("closing"), u64::from(ours.closing)),
    ]);
    marks.extend(ours.signed.map(|signed| (name("signed"), signed)));
    marks
}

#[cfg(test)]
mod tests;
