//! The type that keeps a channel silent: what can speak, sign or close does not come out of it but
//! through a verdict or an operator's recorded release.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::judge::{Basis, Verdict, judge};
use crate::numbers::{Evidence, FundingSpent, Ours, Policy, Report, Witness};

/// A channel that a node can quarantine.
pub trait Channel {
    /// What stays allowed in quarantine: spending the outputs of a *confirmed* commitment, also of one
    /// that the peer has revoked. It must have no way to speak, to sign for the peer, or to
    /// publish our own commitment.
    type Claims: ?Sized;

    /// What the node remembers of it.
    fn ours(&self) -> Ours;

    /// What stays allowed.
    fn claims(&self) -> &Self::Claims;
}

/// A channel that may be stale.
///
/// What it tells is the verdict, what the node remembers, and what may be claimed:
///
/// ```
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// held.claims();
/// assert_eq!(held.ours(), Ours::default());
/// ```
///
/// It gives no access to the channel itself. It does not have the channel's methods:
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// held.sign();
/// ```
///
/// There is no reference to it, and no way to take it apart or to take it out as a whole:
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// let channel: &Mine = &*held;
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// let channel: &Mine = held.as_ref();
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// use std::borrow::Borrow;
/// let channel: &Mine = held.borrow();
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// let channel: &Mine = &held.channel;
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// let channel: Mine = held.into_inner();
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// let channel: Mine = held.into();
/// ```
///
/// What the network has decided stays as silent:
///
/// ```
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// fn punish(closed: ClosedChannel<Mine>) { closed.claims(); }
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// fn speak(closed: ClosedChannel<Mine>) { closed.sign() }
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// fn speak(closed: ClosedChannel<Mine>) { (*closed).sign() }
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// fn speak(closed: ClosedChannel<Mine>) { closed.channel.sign() }
/// ```
///
/// ```compile_fail
/// # use highwater_guard::{Channel, ClosedChannel, Ours, Policy, Quarantined};
/// # struct Mine;
/// # impl Mine { fn sign(&self) {} }
/// # impl Channel for Mine {
/// #     type Claims = ();
/// #     fn ours(&self) -> Ours { Ours::default() }
/// #     fn claims(&self) -> &() { &() }
/// # }
/// # let held = Quarantined::new(Mine, Policy::Peer, None, None);
/// fn speak(closed: ClosedChannel<Mine>) { closed.into_inner().sign() }
/// ```
pub struct Quarantined<C> {
    channel: C,
    evidence: Evidence,
    verdict: Verdict,
}

/// What comes out of quarantine, or stays in it.
#[derive(Debug)]
pub enum Opened<C> {
    /// The channel may go on.
    Clear(C, Basis),
    /// The chain has decided; what is left is to claim.
    Closed(ClosedChannel<C>),
    /// Not yet, or never.
    Held(Quarantined<C>),
}

/// A channel whose funding output is spent, confirmed.
pub struct ClosedChannel<C> {
    channel: C,
}

/// An operator's decision to let a channel go on without a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    reason: String,
    by: String,
}

/// A release without a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptyReason;

impl<C: Channel> Quarantined<C> {
    /// Puts a channel into quarantine, with what is known at the start.
    pub fn new(
        channel: C,
        policy: Policy,
        backup: Option<Ours>,
        witness: Option<Witness>,
    ) -> Quarantined<C> {
        let evidence = Evidence { chain: None, backup, witness, report: None, policy };
        let verdict = judge(&channel.ours(), &evidence);
        Quarantined { channel, evidence, verdict }
    }

    /// What an earlier start recorded: a condemnation outlives the process that heard it.
    pub fn recall(&mut self, recorded: Verdict) -> Verdict {
        if matches!(recorded, Verdict::Blocked(_)) && self.verdict != Verdict::Closed {
            self.verdict = recorded;
        }
        self.verdict
    }

    /// The verdict on what is known so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What is known so far.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What the node remembers, for an operator to look at: nothing of it may be told to the peer.
    pub fn ours(&self) -> Ours {
        self.channel.ours()
    }

    /// What stays allowed.
    pub fn claims(&self) -> &C::Claims {
        self.channel.claims()
    }

    /// The peer has spoken, in a session that was opened after this start.
    pub fn hear(&mut self, report: Report) -> Verdict {
        self.evidence.report = Some(report);
        self.weigh()
    }

    /// The funding output was spent.
    pub fn see(&mut self, spent: FundingSpent) -> Verdict {
        self.evidence.chain = self.evidence.chain.max_by_finality(spent);
        self.weigh()
    }

    /// The witness has answered.
    pub fn ask(&mut self, witness: Witness) -> Verdict {
        self.evidence.witness = Some(witness);
        self.weigh()
    }

    /// Lets the channel out where the verdict says so.
    pub fn open(self) -> Opened<C> {
        match self.verdict {
            Verdict::Clear(basis) => Opened::Clear(self.channel, basis),
            Verdict::Closed => Opened::Closed(ClosedChannel { channel: self.channel }),
            Verdict::Blocked(_) | Verdict::Wait(_) => Opened::Held(self),
        }
    }

    /// Lets the channel out by an operator's decision, once `record` has made it durable. Where that
    /// fails the channel stays in quarantine.
    pub fn release<E>(
        self,
        release: &Release,
        record: impl FnOnce(&Release) -> Result<(), E>,
    ) -> Result<C, (Quarantined<C>, E)> {
        match record(release) {
            Ok(()) => Ok(self.channel),
            Err(error) => Err((self, error)),
        }
    }

    /// What was condemned once stays so: only the chain has a later word, or an operator.
    fn weigh(&mut self) -> Verdict {
        let verdict = judge(&self.channel.ours(), &self.evidence);
        if !matches!(self.verdict, Verdict::Blocked(_)) || verdict == Verdict::Closed {
            self.verdict = verdict;
        }
        self.verdict
    }
}

impl<C: Channel> ClosedChannel<C> {
    /// What is left to do.
    pub fn claims(&self) -> &C::Claims {
        self.channel.claims()
    }
}

impl Release {
    /// A release by somebody for a reason.
    pub fn new(reason: impl Into<String>, by: impl Into<String>) -> Result<Release, EmptyReason> {
        let reason = reason.into();
        if reason.trim().is_empty() {
            return Err(EmptyReason);
        }
        Ok(Release { reason, by: by.into() })
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Who did it.
    pub fn by(&self) -> &str {
        &self.by
    }
}

trait Finality {
    fn max_by_finality(self, other: FundingSpent) -> Self;
}

impl Finality for Option<FundingSpent> {
    fn max_by_finality(self, other: FundingSpent) -> Self {
        match self {
            Some(FundingSpent::Confirmed) => self,
            _ => Some(other),
        }
    }
}

impl<C> fmt::Debug for Quarantined<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantined").field("verdict", &self.verdict).finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for ClosedChannel<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClosedChannel")
    }
}

impl fmt::Display for EmptyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a release needs a reason")
    }
}

impl core::error::Error for EmptyReason {}
