//! Each row of the table by name, and both sides of each boundary.

use highwater_guard::{
    Basis, Evidence, FundingSpent, Ours, Policy, Reason, Verdict, judge, witness_forgot,
};

use super::{by_peer, by_witness, ours, report, witness};

const PEER: Verdict = Verdict::Clear(Basis::Peer);
const WITNESS: Verdict = Verdict::Clear(Basis::Witness);

fn blocked(reason: Reason) -> Verdict {
    Verdict::Blocked(reason)
}

fn wait(reason: Reason) -> Verdict {
    Verdict::Wait(reason)
}

#[test]
fn a_confirmed_spend_decides_before_all_else() {
    let evidence = Evidence {
        chain: Some(FundingSpent::Confirmed),
        backup: Some(ours(9, 9, 9)),
        witness: Some(witness(9, 9, 9)),
        report: Some(report(9, 9)),
        policy: Policy::Peer,
    };
    assert_eq!(judge(&ours(5, 5, 5), &evidence), Verdict::Closed);
    let unconfirmed = Evidence { chain: Some(FundingSpent::Unconfirmed), ..evidence };
    assert_eq!(judge(&ours(5, 5, 5), &unconfirmed), blocked(Reason::RevocationLost));
}

#[test]
fn a_revocation_that_was_sent_and_lost_blocks_at_a_distance_of_one() {
    let mine = ours(5, 5, 5);
    assert_eq!(by_peer(mine, report(6, 5)), blocked(Reason::RevocationLost));
    assert_eq!(by_peer(mine, report(5, 5)), PEER);
    assert_eq!(by_peer(mine, report(4, 5)), PEER, "our last revocation was lost on the way");
    assert_eq!(by_peer(mine, report(3, 5)), wait(Reason::PeerForgot));
}

#[test]
fn a_signature_that_was_sent_and_lost_blocks_at_a_distance_of_one() {
    let mine = ours(6, 5, 5);
    assert_eq!(by_peer(mine, report(5, 7)), blocked(Reason::SignatureLost));
    assert_eq!(by_peer(mine, report(5, 6)), PEER);
    assert_eq!(by_peer(mine, report(5, 5)), PEER, "our last signature was lost on the way");
    assert_eq!(by_peer(mine, report(5, 4)), wait(Reason::PeerForgot));
    let mine = ours(5, 5, 5);
    assert_eq!(by_peer(mine, report(5, 6)), blocked(Reason::SignatureLost));
    assert_eq!(by_peer(mine, report(5, 5)), PEER);
    assert_eq!(by_peer(mine, report(5, 4)), wait(Reason::PeerForgot));
}

#[test]
fn no_number_is_judged_below_zero() {
    assert_eq!(by_peer(ours(0, 0, 0), report(0, 0)), PEER);
    assert_eq!(by_peer(ours(0, 0, 0), report(1, 0)), blocked(Reason::RevocationLost));
    assert_eq!(by_peer(ours(0, 0, 0), report(0, 1)), blocked(Reason::SignatureLost));
    assert_eq!(by_peer(ours(0, 1, 0), report(0, 0)), PEER);
    assert_eq!(by_witness(ours(0, 0, 0), witness(0, 0, 0)), WITNESS);
}

#[test]
fn a_peer_that_has_forgotten_clears_nobody_and_closes_nothing() {
    for report in [report(3, 5), report(5, 4), report(0, 0)] {
        assert_eq!(by_peer(ours(5, 5, 5), report), wait(Reason::PeerForgot));
    }
}

#[test]
fn a_witness_ahead_by_one_in_any_number_blocks() {
    let mine = ours(5, 5, 5);
    assert_eq!(by_witness(mine, witness(5, 5, 5)), WITNESS);
    for above in [witness(6, 5, 5), witness(5, 6, 5), witness(5, 5, 6)] {
        assert_eq!(by_witness(mine, above), blocked(Reason::WitnessAhead));
    }
    let closing = highwater_guard::Witness { closing: true, ..witness(5, 5, 5) };
    assert_eq!(by_witness(mine, closing), blocked(Reason::WitnessAhead));
    assert_eq!(by_witness(Ours { closing: true, ..mine }, closing), WITNESS);
    assert_eq!(by_witness(Ours { closing: true, ..mine }, witness(5, 5, 5)), WITNESS);
}

#[test]
fn a_witness_behind_by_one_clears_and_further_behind_has_forgotten() {
    let mine = ours(6, 5, 5);
    for near in [witness(5, 5, 5), witness(6, 4, 5), witness(6, 5, 4), witness(5, 4, 4)] {
        assert_eq!(by_witness(mine, near), WITNESS);
        assert!(!witness_forgot(&mine, &near));
    }
    for far in [witness(4, 5, 5), witness(6, 3, 5), witness(6, 5, 3)] {
        assert_eq!(by_witness(mine, far), wait(Reason::WitnessForgot));
        assert!(witness_forgot(&mine, &far));
    }
}

#[test]
fn a_witness_that_has_forgotten_counts_as_none() {
    let evidence = Evidence {
        witness: Some(witness(3, 3, 3)),
        report: Some(report(5, 5)),
        policy: Policy::Peer,
        ..Evidence::default()
    };
    assert_eq!(judge(&ours(5, 5, 5), &evidence), PEER);
    let strict = Evidence { policy: Policy::Witness, ..evidence };
    assert_eq!(judge(&ours(5, 5, 5), &strict), wait(Reason::WitnessForgot));
    let forgotten_by_both = Evidence { report: Some(report(3, 5)), ..evidence };
    assert_eq!(judge(&ours(5, 5, 5), &forgotten_by_both), wait(Reason::PeerForgot));
}

#[test]
fn a_witness_needs_no_peer() {
    assert_eq!(by_witness(ours(5, 5, 5), witness(5, 5, 5)), WITNESS);
    for policy in [Policy::Peer, Policy::Witness] {
        let evidence = Evidence {
            witness: Some(witness(5, 5, 5)),
            report: Some(report(0, 0)),
            policy,
            ..Evidence::default()
        };
        assert_eq!(judge(&ours(5, 5, 5), &evidence), WITNESS, "the peer has forgotten");
    }
}

#[test]
fn a_witness_that_is_not_ours_or_was_off_condemns_and_never_clears() {
    let mine = ours(5, 5, 5);
    let foreign = highwater_guard::Witness { owned: false, ..witness(5, 5, 5) };
    let broken = highwater_guard::Witness { continuous: false, ..witness(5, 5, 5) };
    for weak in [foreign, broken] {
        assert_eq!(by_witness(mine, weak), wait(Reason::NothingHeard));
        let ahead = highwater_guard::Witness { revoked: 6, ..weak };
        assert_eq!(by_witness(mine, ahead), blocked(Reason::WitnessAhead));
        let evidence = Evidence {
            witness: Some(weak),
            report: Some(report(5, 5)),
            policy: Policy::Witness,
            ..Evidence::default()
        };
        assert_eq!(judge(&mine, &evidence), wait(Reason::WitnessNeeded));
        let trusting = Evidence { policy: Policy::Peer, ..evidence };
        assert_eq!(judge(&mine, &trusting), PEER);
    }
}

#[test]
fn a_channel_that_another_copy_has_moved_is_blocked_at_equal_numbers() {
    let mine = Ours { epoch: 2, ..ours(6, 5, 5) };
    let entry = |epoch| highwater_guard::Witness { epoch, ..witness(6, 5, 5) };
    assert_eq!(by_witness(mine, entry(3)), blocked(Reason::MovedElsewhere));
    assert_eq!(by_witness(mine, entry(2)), WITNESS);
    assert_eq!(by_witness(mine, entry(1)), WITNESS);
    let weak = highwater_guard::Witness { owned: false, continuous: false, ..entry(3) };
    assert_eq!(by_witness(mine, weak), blocked(Reason::MovedElsewhere));
}

#[test]
fn a_backup_condemns_at_a_distance_of_one_and_never_clears() {
    let with = |backup: Ours, policy| {
        judge(&ours(5, 5, 5), &Evidence { backup: Some(backup), policy, ..Evidence::default() })
    };
    for policy in [Policy::Peer, Policy::Witness] {
        for above in [ours(6, 5, 5), ours(5, 6, 5), ours(5, 5, 6)] {
            assert_eq!(with(above, policy), blocked(Reason::BackupAhead));
        }
        let closing = Ours { closing: true, ..ours(5, 5, 5) };
        assert_eq!(with(closing, policy), blocked(Reason::BackupAhead));
        assert_eq!(with(ours(5, 5, 5), policy), wait(Reason::NothingHeard));
        assert_eq!(with(ours(4, 4, 4), policy), wait(Reason::NothingHeard));
        let unknown = Ours { signed: None, ..ours(0, 5, 5) };
        assert_eq!(with(unknown, policy), wait(Reason::NothingHeard));
    }
}

#[test]
fn a_backup_condemns_what_a_witness_and_a_peer_would_clear() {
    let evidence = Evidence {
        backup: Some(ours(6, 5, 5)),
        witness: Some(witness(5, 5, 5)),
        report: Some(report(5, 5)),
        policy: Policy::Peer,
        ..Evidence::default()
    };
    assert_eq!(judge(&ours(5, 5, 5), &evidence), blocked(Reason::BackupAhead));
}

#[test]
fn what_condemns_is_believed_from_a_peer_that_is_not_trusted_too() {
    let evidence = Evidence {
        witness: Some(witness(5, 5, 5)),
        report: Some(report(6, 5)),
        policy: Policy::Witness,
        ..Evidence::default()
    };
    assert_eq!(judge(&ours(5, 5, 5), &evidence), blocked(Reason::RevocationLost));
}

#[test]
fn nothing_heard_waits() {
    for policy in [Policy::Peer, Policy::Witness] {
        let evidence = Evidence { policy, ..Evidence::default() };
        assert_eq!(judge(&ours(5, 5, 5), &evidence), wait(Reason::NothingHeard));
    }
}

#[test]
fn a_node_that_cannot_tell_its_signatures_is_not_cleared_by_a_peer() {
    let mine = Ours { signed: None, ..ours(0, 5, 5) };
    assert_eq!(by_peer(mine, report(5, 5)), wait(Reason::SignaturesUnknown));
    assert_eq!(by_peer(mine, report(5, 6)), wait(Reason::SignaturesUnknown));
    assert_eq!(by_peer(mine, report(5, 7)), blocked(Reason::SignatureLost));
    assert_eq!(by_peer(mine, report(5, 4)), wait(Reason::PeerForgot));
}

#[test]
fn a_witness_clears_unknown_signatures_only_where_any_of_them_would_be_cleared() {
    let mine = Ours { signed: None, ..ours(0, 5, 5) };
    assert_eq!(by_witness(mine, witness(4, 5, 5)), wait(Reason::NothingHeard));
    assert_eq!(by_witness(mine, witness(5, 5, 5)), WITNESS);
    assert_eq!(by_witness(mine, witness(6, 5, 5)), wait(Reason::NothingHeard));
    assert_eq!(by_witness(mine, witness(7, 5, 5)), blocked(Reason::WitnessAhead));
    assert_eq!(by_witness(mine, witness(3, 5, 5)), wait(Reason::WitnessForgot));
}

#[test]
fn a_spend_that_we_may_have_forgotten_is_cleared_by_no_peer() {
    let seen = |ours: Ours, told: Evidence| {
        judge(&ours, &Evidence { chain: Some(FundingSpent::Unconfirmed), ..told })
    };
    let mine = ours(5, 5, 5);
    let peer = Evidence { report: Some(report(5, 5)), policy: Policy::Peer, ..Evidence::default() };
    assert_eq!(judge(&mine, &peer), PEER);
    assert_eq!(seen(mine, peer), wait(Reason::SpendUnconfirmed));
    assert_eq!(seen(Ours { closing: true, ..mine }, peer), PEER, "it is known, and goes on");
    let lost = Evidence { report: Some(report(6, 5)), ..peer };
    assert_eq!(seen(mine, lost), blocked(Reason::RevocationLost));
    let witnessed = Evidence { witness: Some(witness(5, 5, 5)), ..peer };
    assert_eq!(seen(mine, witnessed), WITNESS, "it would know that we were closing");
}

#[test]
fn numbers_that_cannot_be_are_never_cleared() {
    for (signed, received) in [(7, 5), (4, 5)] {
        let mine = ours(signed, 5, received);
        let cleared = by_witness(mine, witness(signed, 5, received));
        assert_eq!(cleared, blocked(Reason::NumbersImpossible));
        let taken = signed.max(received).min(signed);
        if taken >= received {
            assert_eq!(by_peer(mine, report(5, taken)), blocked(Reason::NumbersImpossible));
        }
    }
}

#[test]
fn the_highest_numbers_do_not_overflow() {
    let mine = Ours { signed: None, ..ours(0, u64::MAX, u64::MAX) };
    let most = report(u64::MAX, u64::MAX);
    assert_eq!(by_peer(mine, most), wait(Reason::SignaturesUnknown));
    assert_eq!(by_peer(ours(u64::MAX, u64::MAX, u64::MAX), most), PEER);
    let w = witness(u64::MAX, u64::MAX, u64::MAX);
    assert_eq!(by_witness(ours(u64::MAX, u64::MAX, u64::MAX), w), WITNESS);
    assert_eq!(by_witness(ours(0, 0, 0), w), blocked(Reason::WitnessAhead));
    assert_eq!(
        by_witness(ours(u64::MAX, u64::MAX, u64::MAX), witness(0, 0, 0)),
        wait(Reason::WitnessForgot)
    );
}
