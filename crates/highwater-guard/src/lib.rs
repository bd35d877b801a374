//! What a restored node may do: pure verdicts from evidence.
//!
//! A node that was restored, rolled back or cloned may remember less than has left it. Acting on
//! that memory loses money: it publishes a commitment that it has revoked, or signs twice under one
//! number. So every channel stays [`Quarantined`] until [`judge`] finds, from what the chain, a
//! witness and the peer say, that nothing was forgotten. [`HeightGuard`] is the same for one counter.
//!
//! No input or output, no clock, no allocation but for an operator's reason; `no_std`.

#![no_std]

extern crate alloc;

mod height;
mod judge;
mod numbers;
mod quarantine;

pub use height::{HeightEvidence, HeightGuard, HeightRefusal, HeightVerdict, HeightWitness};
pub use judge::{Basis, Reason, Verdict, judge, witness_forgot};
pub use numbers::{Evidence, FundingSpent, Ours, Policy, Report, Witness};
pub use quarantine::{Channel, ClosedChannel, EmptyReason, Opened, Quarantined, Release};
