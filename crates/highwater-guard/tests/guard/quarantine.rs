//! What a quarantined channel keeps in, and the only ways out of it.

use core::cell::Cell;

use highwater_guard::{
    Basis, Channel, FundingSpent, Opened, Ours, Policy, Quarantined, Reason, Release, Verdict,
};

use super::{ours, report, witness};

/// A channel that can speak, and counts what it claims.
struct Paying {
    ours: Ours,
    claims: Claims,
}

/// What stays allowed: it can count, and nothing else.
#[derive(Default)]
struct Claims {
    punished: Cell<u32>,
}

impl Paying {
    fn new(ours: Ours) -> Paying {
        Paying { ours, claims: Claims::default() }
    }

    fn pay(&self) -> u64 {
        self.ours.signed.unwrap() + 1
    }
}

impl Channel for Paying {
    type Claims = Claims;

    fn ours(&self) -> Ours {
        self.ours
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}

fn held(policy: Policy) -> Quarantined<Paying> {
    Quarantined::new(Paying::new(ours(6, 5, 5)), policy, None, None)
}

fn stays(held: Quarantined<Paying>) -> Quarantined<Paying> {
    match held.open() {
        Opened::Held(held) => held,
        opened => panic!("came out: {:?}", core::mem::discriminant(&opened)),
    }
}

fn release() -> Release {
    Release::new("the peer's operator confirms our numbers", "ops").unwrap()
}

#[test]
fn a_channel_is_held_until_somebody_is_heard() {
    for policy in [Policy::Peer, Policy::Witness] {
        let held = stays(held(policy));
        assert_eq!(held.verdict(), Verdict::Wait(Reason::NothingHeard));
        assert_eq!(held.ours(), ours(6, 5, 5));
    }
}

#[test]
fn a_cleared_channel_comes_out_and_pays_again() {
    let mut held = held(Policy::Peer);
    assert_eq!(held.hear(report(5, 6)), Verdict::Clear(Basis::Peer));
    let Opened::Clear(channel, Basis::Peer) = held.open() else { panic!("held") };
    assert_eq!(channel.pay(), 7);
}

#[test]
fn a_witness_clears_at_the_start_without_the_peer() {
    let paying = Paying::new(ours(6, 5, 5));
    let held = Quarantined::new(paying, Policy::Witness, None, Some(witness(6, 5, 5)));
    assert_eq!(held.verdict(), Verdict::Clear(Basis::Witness));
    assert!(matches!(held.open(), Opened::Clear(_, Basis::Witness)));
}

#[test]
fn what_a_backup_knows_holds_from_the_start() {
    let paying = Paying::new(ours(6, 5, 5));
    let held = Quarantined::new(paying, Policy::Peer, Some(ours(6, 6, 5)), None);
    assert_eq!(stays(held).verdict(), Verdict::Blocked(Reason::BackupAhead));
}

#[test]
fn what_is_blocked_stays_blocked_whatever_is_heard_later() {
    let mut held = held(Policy::Peer);
    assert_eq!(held.hear(report(6, 6)), Verdict::Blocked(Reason::RevocationLost));
    for later in [report(5, 6), report(0, 0), report(5, 5)] {
        assert_eq!(held.hear(later), Verdict::Blocked(Reason::RevocationLost));
    }
    assert_eq!(held.ask(witness(6, 5, 5)), Verdict::Blocked(Reason::RevocationLost));
    assert_eq!(held.see(FundingSpent::Unconfirmed), Verdict::Blocked(Reason::RevocationLost));
    stays(held);
}

#[test]
fn what_an_earlier_start_condemned_stays_blocked() {
    let lost = Verdict::Blocked(Reason::SignatureLost);
    let mut held = held(Policy::Peer);
    assert_eq!(held.recall(lost), lost);
    assert_eq!(held.hear(report(5, 6)), lost);
    let mut held = stays(held);
    assert_eq!(held.see(FundingSpent::Confirmed), Verdict::Closed);
    assert_eq!(held.recall(lost), Verdict::Closed);
}

#[test]
fn no_clear_is_recalled() {
    for recorded in
        [Verdict::Clear(Basis::Peer), Verdict::Closed, Verdict::Wait(Reason::PeerForgot)]
    {
        let mut held = held(Policy::Peer);
        assert_eq!(held.recall(recorded), Verdict::Wait(Reason::NothingHeard));
        stays(held);
    }
}

#[test]
fn what_waits_is_judged_again_by_each_word() {
    let mut held = held(Policy::Peer);
    assert_eq!(held.hear(report(3, 6)), Verdict::Wait(Reason::PeerForgot));
    assert_eq!(held.hear(report(4, 6)), Verdict::Clear(Basis::Peer));
    assert_eq!(held.ask(witness(6, 6, 5)), Verdict::Blocked(Reason::WitnessAhead));
    assert_eq!(held.ask(witness(6, 5, 5)), Verdict::Blocked(Reason::WitnessAhead));
    stays(held);
}

#[test]
fn the_chain_gets_a_blocked_channel_out_and_only_to_claim() {
    let mut held = held(Policy::Peer);
    held.hear(report(6, 6));
    assert_eq!(held.see(FundingSpent::Confirmed), Verdict::Closed);
    assert_eq!(held.hear(report(5, 6)), Verdict::Closed, "a later word changes nothing");
    let unconfirmed = held.see(FundingSpent::Unconfirmed);
    assert_eq!(unconfirmed, Verdict::Closed, "confirmed once");
    let Opened::Closed(closed) = held.open() else { panic!("not closed") };
    closed.claims().punished.set(1);
    assert_eq!(closed.claims().punished.get(), 1);
}

#[test]
fn claims_stay_allowed_in_quarantine() {
    let mut held = held(Policy::Witness);
    held.claims().punished.set(1);
    held.hear(report(6, 6));
    held.claims().punished.set(held.claims().punished.get() + 1);
    let held = stays(held);
    assert_eq!(held.claims().punished.get(), 2);
}

#[test]
fn a_release_lets_out_once_it_is_recorded() {
    let mut held = held(Policy::Witness);
    held.hear(report(6, 6));
    let mut recorded = None;
    let record = |release: &Release| {
        recorded = Some(release.clone());
        Ok::<(), ()>(())
    };
    let channel = held.release(&release(), record).map_err(|_| ()).unwrap();
    assert_eq!(channel.pay(), 7);
    assert_eq!(recorded, Some(release()));
}

#[test]
fn a_release_that_cannot_be_recorded_keeps_the_channel_in() {
    let mut held = held(Policy::Peer);
    held.hear(report(6, 6));
    let failed = held.release(&release(), |_| Err("disk full"));
    let Err((held, "disk full")) = failed else { panic!("released") };
    assert_eq!(held.verdict(), Verdict::Blocked(Reason::RevocationLost));
    stays(held);
}

#[test]
fn a_release_needs_a_reason() {
    for empty in ["", " ", "\t\n"] {
        assert!(Release::new(empty, "ops").is_err());
    }
    let release = release();
    assert_eq!(
        (release.reason(), release.by()),
        ("the peer's operator confirms our numbers", "ops")
    );
}

#[test]
fn what_is_printed_of_a_held_channel_is_its_verdict_alone() {
    let printed = format!("{:?}", held(Policy::Peer));
    assert_eq!(printed, "Quarantined { verdict: Wait(NothingHeard), .. }");
}

#[test]
fn channels_are_judged_each_by_its_own_evidence() {
    let mut one = held(Policy::Peer);
    let mut other = held(Policy::Peer);
    one.hear(report(6, 6));
    other.hear(report(5, 6));
    stays(one);
    assert!(matches!(other.open(), Opened::Clear(..)));
}
