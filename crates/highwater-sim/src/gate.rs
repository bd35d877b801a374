//! What stands between a node and the outside: it says which channels may go on, and remembers
//! outside the node's disk what has left. [`highwater::guard::Guard`] is the one of a real node.

use highwater::Result;
use highwater::guard::{Arrival, Guard, Move};
use highwater_guard::{Opened, Policy, Quarantined, Release};

use crate::channel::Channel;
use crate::ids::ChannelId;
use crate::node::Moves;
use crate::store::Stale;

/// Removes the stale mark of a channel, and stores the epoch of this start with it, in one
/// transaction.
pub type Unmark<'a> = &'a mut dyn FnMut() -> Result<()>;

/// A channel as loaded, and what stands in its mark.
pub type Loaded = (Arrival<Channel>, Option<Stale>);

/// A gate.
pub trait Gate {
    /// The epoch under which this start moves channels; 0 where there is no witness.
    fn epoch(&self) -> u64;

    /// Sorts the channels, once, at the start.
    fn admit(
        &mut self,
        channels: Vec<Loaded>,
        unmark: &mut dyn FnMut(&ChannelId) -> Result<()>,
    ) -> Result<Admitted>;

    /// Lets a channel out where its verdict says so, and takes note of the verdict.
    fn settle(
        &mut self,
        id: &ChannelId,
        held: Quarantined<Channel>,
        unmark: Unmark<'_>,
    ) -> Result<Opened<Channel>>;

    /// Lets a channel out by an operator's decision, which is recorded first.
    fn release(
        &mut self,
        id: &ChannelId,
        held: Quarantined<Channel>,
        release: &Release,
        unmark: Unmark<'_>,
    ) -> Result<Channel, Box<(Quarantined<Channel>, highwater::Error)>>;

    /// The release that an operator has recorded elsewhere while the node runs.
    fn released(&self, id: &ChannelId) -> Result<Option<Release>>;

    /// Raises all that moves at one moment; it is durable in the store, and nothing has left yet.
    /// Fenced: another copy of this node has taken over.
    fn leave(&mut self, moves: &Moves) -> Result<()>;

    /// Finds out whether another copy of this node has taken over, before a message leaves that moves
    /// nothing.
    fn confirm(&mut self) -> Result<()>;

    /// The close of a channel is confirmed.
    fn retire(&mut self, id: &ChannelId) -> Result<()>;

    /// The next index of keys that nobody has used, at least `ours`.
    fn next_key(&self, ours: u64) -> u64;
}

/// The channels at the start, as a gate sorts them.
#[derive(Default)]
pub struct Admitted {
    /// Channels that are not in question.
    pub free: Vec<Channel>,
    /// Channels that are, with what is known of them.
    pub held: Vec<(ChannelId, Quarantined<Channel>)>,
    /// Channels that somebody remembers and the store does not.
    pub lacking: Vec<ChannelId>,
}

/// The counter of channel keys, as the witness names it.
const KEYS: &str = "channel_keys";

impl Gate for Guard {
    fn epoch(&self) -> u64 {
        Guard::epoch(self)
    }

    fn admit(
        &mut self,
        channels: Vec<Loaded>,
        unmark: &mut dyn FnMut(&ChannelId) -> Result<()>,
    ) -> Result<Admitted> {
        let arrivals = channels.into_iter().map(|(arrival, _)| arrival).collect();
        let admitted = Guard::admit(self, arrivals, |id| unmark(&id.parse()?))?;
        let held = admitted.held.into_iter().map(|(id, held)| Ok((id.parse()?, held)));
        Ok(Admitted {
            free: admitted.free.into_iter().map(|(_, channel)| channel).collect(),
            held: held.collect::<Result<_>>()?,
            lacking: admitted.lacking.iter().map(|id| id.parse()).collect::<Result<_>>()?,
        })
    }

    fn settle(
        &mut self,
        id: &ChannelId,
        held: Quarantined<Channel>,
        unmark: Unmark<'_>,
    ) -> Result<Opened<Channel>> {
        Guard::settle(self, id.as_str(), held, unmark)
    }

    fn release(
        &mut self,
        id: &ChannelId,
        held: Quarantined<Channel>,
        release: &Release,
        unmark: Unmark<'_>,
    ) -> Result<Channel, Box<(Quarantined<Channel>, highwater::Error)>> {
        Guard::release(self, id.as_str(), held, release, unmark)
    }

    fn released(&self, id: &ChannelId) -> Result<Option<Release>> {
        Guard::released(self, id.as_str())
    }

    fn leave(&mut self, moves: &Moves) -> Result<()> {
        let channels = moves.channels.iter();
        let channels: Vec<Move> =
            channels.map(|(id, ours)| Move { channel: id.to_string(), ours: *ours }).collect();
        let counters = moves.key_used.map(|used| (KEYS.to_owned(), used));
        Guard::leave(self, &channels, counters.as_slice())
    }

    fn confirm(&mut self) -> Result<()> {
        Guard::confirm(self)
    }

    fn retire(&mut self, id: &ChannelId) -> Result<()> {
        Guard::retire(self, id.as_str())
    }

    fn next_key(&self, ours: u64) -> u64 {
        // What the guard is told is the last index used; `ours` is the next one. A node that remembers
        // none may have forgotten all: it begins behind what the witness has seen, index 0 at least.
        Guard::next_key(self, KEYS, ours.saturating_sub(1))
    }
}

/// The gate of a node without a directory and a witness, for simulations: only what is marked is held,
/// and the peers' word clears it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerGate {
    blind: bool,
}

#[cfg(feature = "unguarded")]
impl PeerGate {
    /// DANGER: no guard at all, every channel goes on whatever its mark says. It is there so that a test
    /// can show what is lost then; a build for real money never has it.
    pub fn unguarded() -> PeerGate {
        PeerGate { blind: true }
    }
}

impl Gate for PeerGate {
    fn epoch(&self) -> u64 {
        0
    }

    fn admit(
        &mut self,
        channels: Vec<Loaded>,
        _: &mut dyn FnMut(&ChannelId) -> Result<()>,
    ) -> Result<Admitted> {
        let mut admitted = Admitted::default();
        for (Arrival { channel, .. }, stale) in channels {
            let Some(stale) = stale.filter(|_| !self.blind) else {
                admitted.free.push(channel);
                continue;
            };
            let id = channel.id().clone();
            let mut held = Quarantined::new(channel, Policy::Peer, None, None);
            if let Some(verdict) = stale.verdict {
                held.recall(verdict);
            }
            admitted.held.push((id, held));
        }
        Ok(admitted)
    }

    fn settle(
        &mut self,
        _: &ChannelId,
        held: Quarantined<Channel>,
        unmark: Unmark<'_>,
    ) -> Result<Opened<Channel>> {
        if matches!(held.verdict(), highwater_guard::Verdict::Clear(_)) {
            unmark()?;
        }
        Ok(held.open())
    }

    fn release(
        &mut self,
        _: &ChannelId,
        held: Quarantined<Channel>,
        release: &Release,
        unmark: Unmark<'_>,
    ) -> Result<Channel, Box<(Quarantined<Channel>, highwater::Error)>> {
        held.release(release, |_| unmark()).map_err(Box::new)
    }

    fn released(&self, _: &ChannelId) -> Result<Option<Release>> {
        Ok(None)
    }

    fn leave(&mut self, _: &Moves) -> Result<()> {
        Ok(())
    }

    fn confirm(&mut self) -> Result<()> {
        Ok(())
    }

    fn retire(&mut self, _: &ChannelId) -> Result<()> {
        Ok(())
    }

    fn next_key(&self, ours: u64) -> u64 {
        ours
    }
}
