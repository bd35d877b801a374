//! The verdicts through the public API: the table against an oracle of its own, every row and each
//! of its boundaries, what quarantine keeps in, heights, and JSON as strangers read it.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod exhaustive;
mod heights;
mod json;
mod monotone;
mod program;
mod quarantine;
mod rows;

use highwater_guard::{Evidence, Ours, Policy, Report, Verdict, Witness, judge};

/// `S`, `R` and `L`, nothing closing, no witness ever.
fn ours(signed: u64, revoked: u64, received: u64) -> Ours {
    Ours { signed: Some(signed), revoked, received, closing: false, epoch: 0 }
}

/// A witness that is to be trusted.
fn witness(signed: u64, revoked: u64, received: u64) -> Witness {
    Witness { signed, revoked, received, closing: false, continuous: true, owned: true, epoch: 0 }
}

fn report(revocations_held: u64, signatures_taken: u64) -> Report {
    Report { revocations_held, signatures_taken }
}

/// The verdict by the peer's word.
fn by_peer(ours: Ours, report: Report) -> Verdict {
    judge(&ours, &Evidence { report: Some(report), policy: Policy::Peer, ..Evidence::default() })
}

/// The verdict by the witness's word.
fn by_witness(ours: Ours, witness: Witness) -> Verdict {
    judge(&ours, &Evidence { witness: Some(witness), ..Evidence::default() })
}
