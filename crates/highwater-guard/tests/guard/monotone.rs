//! What more evidence can do to a verdict, and what it can't.

use highwater_guard::{
    Evidence, FundingSpent, Ours, Policy, Reason, Report, Verdict, Witness, judge,
};
use proptest::prelude::*;

/// How far a number that somebody tells lies from ours: mostly it is ours, or the one before.
fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![12 => Just(0_i64), 8 => Just(-1_i64), 1 => Just(-2_i64), 1 => Just(1_i64)]
}

fn at(number: u64, offset: i64) -> u64 {
    number.saturating_add_signed(offset)
}

fn any_ours() -> impl Strategy<Value = Ours> {
    // Small numbers, and the largest ones: they find what overflows.
    let number = || prop_oneof![6 => 0_u64..5, 1 => (u64::MAX - 2)..=u64::MAX];
    let sent =
        prop_oneof![1 => Just(None), 4 => (0_i64..2).prop_map(Some), 1 => offset().prop_map(Some)];
    (sent, number(), number(), any::<bool>(), 0_u64..3).prop_map(
        |(sent, revoked, received, closing, epoch)| {
            let signed = sent.map(|sent| at(received, sent));
            Ours { signed, revoked, received, closing, epoch }
        },
    )
}

fn report_near(ours: Ours) -> impl Strategy<Value = Report> {
    (offset(), offset()).prop_map(move |(held, taken)| Report {
        revocations_held: at(ours.revoked, held),
        signatures_taken: at(ours.signed.unwrap_or(ours.received), taken),
    })
}

fn witness_near(ours: Ours) -> impl Strategy<Value = Witness> {
    let often = || prop::bool::weighted(0.9);
    (prop::array::uniform4(offset()), often(), often(), prop::bool::weighted(0.2)).prop_map(
        move |([signed, revoked, received, epoch], continuous, owned, closing)| Witness {
            signed: at(ours.signed.unwrap_or(ours.received), signed),
            revoked: at(ours.revoked, revoked),
            received: at(ours.received, received),
            closing,
            continuous,
            owned,
            epoch: at(ours.epoch, epoch),
        },
    )
}

fn backup_near(ours: Ours) -> impl Strategy<Value = Ours> {
    (prop::array::uniform3(offset()), prop::bool::weighted(0.2)).prop_map(
        move |([signed, revoked, received], closing)| Ours {
            signed: ours.signed.map(|number| at(number, signed)),
            revoked: at(ours.revoked, revoked),
            received: at(ours.received, received),
            closing,
            epoch: 0,
        },
    )
}

fn evidence_near(ours: Ours) -> impl Strategy<Value = Evidence> {
    let chain = prop_oneof![
        12 => Just(None),
        3 => Just(Some(FundingSpent::Unconfirmed)),
        1 => Just(Some(FundingSpent::Confirmed)),
    ];
    let told = (
        prop::option::of(backup_near(ours)),
        prop::option::of(witness_near(ours)),
        prop::option::of(report_near(ours)),
    );
    let policy = prop_oneof![Just(Policy::Peer), Just(Policy::Witness)];
    (chain, told, policy).prop_map(|(chain, (backup, witness, report), policy)| Evidence {
        chain,
        backup,
        witness,
        report,
        policy,
    })
}

fn any_case() -> impl Strategy<Value = (Ours, Evidence)> {
    any_ours().prop_flat_map(|ours| (Just(ours), evidence_near(ours)))
}

fn clear(ours: &Ours, evidence: &Evidence) -> bool {
    matches!(judge(ours, evidence), Verdict::Clear(_))
}

/// Evidence that says at least as much as `evidence`, in every number that can condemn.
fn raised(evidence: Evidence, by: [u64; 8]) -> Evidence {
    let [l, r, s, v, n, e, bs, bv] = by;
    Evidence {
        report: evidence.report.map(|report| Report {
            revocations_held: report.revocations_held.saturating_add(l),
            signatures_taken: report.signatures_taken.saturating_add(r),
        }),
        witness: evidence.witness.map(|witness| Witness {
            signed: witness.signed.saturating_add(s),
            revoked: witness.revoked.saturating_add(v),
            received: witness.received.saturating_add(n),
            epoch: witness.epoch.saturating_add(e),
            ..witness
        }),
        backup: evidence.backup.map(|backup| Ours {
            signed: backup.signed.map(|signed| signed.saturating_add(bs)),
            revoked: backup.revoked.saturating_add(bv),
            ..backup
        }),
        ..evidence
    }
}

/// Condemned by what somebody has shown, other than by our own numbers.
fn condemned(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Blocked(reason) if reason != Reason::NumbersImpossible)
}

/// Most cases are thrown away: what a property is about has to come about first.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    let max_global_rejects = config.cases.saturating_mul(64);
    ProptestConfig { failure_persistence: None, max_global_rejects, ..config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_condemned_stays_so_whatever_else_is_told(
        ((ours, evidence), more) in any_case()
            .prop_flat_map(|(ours, evidence)| (Just((ours, evidence)), evidence_near(ours))),
        by in prop::array::uniform8(0_u64..3),
    ) {
        prop_assume!(condemned(judge(&ours, &evidence)));
        let more = raised(
            Evidence {
                chain: evidence.chain,
                backup: evidence.backup.or(more.backup),
                witness: evidence.witness.or(more.witness),
                report: evidence.report.or(more.report),
                policy: more.policy,
            },
            by,
        );
        prop_assert!(condemned(judge(&ours, &more)), "{more:?}");
    }

    #[test]
    fn a_backup_never_clears((ours, evidence) in any_case()) {
        prop_assume!(clear(&ours, &evidence));
        let cleared = clear(&ours, &Evidence { backup: None, ..evidence });
        prop_assert!(cleared);
    }

    #[test]
    fn under_policy_witness_no_report_clears((ours, evidence) in any_case()) {
        let evidence = Evidence { policy: Policy::Witness, ..evidence };
        prop_assume!(clear(&ours, &evidence));
        let cleared = clear(&ours, &Evidence { report: None, ..evidence });
        prop_assert!(cleared);
    }

    #[test]
    fn under_policy_witness_a_report_taken_away_clears_only_what_it_alone_condemned(
        (ours, evidence) in any_case(),
    ) {
        let evidence = Evidence { policy: Policy::Witness, ..evidence };
        let lost = [Reason::RevocationLost, Reason::SignatureLost].map(Verdict::Blocked);
        let before = judge(&ours, &evidence);
        prop_assume!(!clear(&ours, &evidence) && !lost.contains(&before));
        let cleared = !clear(&ours, &Evidence { report: None, ..evidence });
        prop_assert!(cleared);
    }

    #[test]
    fn a_witness_that_is_not_to_be_trusted_never_clears(
        (ours, evidence) in any_case(),
        owned in any::<bool>(),
    ) {
        let weak = |witness| Witness { owned, continuous: false, ..witness };
        let evidence = Evidence { witness: evidence.witness.map(weak), ..evidence };
        prop_assume!(clear(&ours, &evidence));
        let cleared = clear(&ours, &Evidence { witness: None, ..evidence });
        prop_assert!(cleared);
    }

    #[test]
    fn policy_witness_is_the_stricter_one((ours, evidence) in any_case()) {
        prop_assume!(clear(&ours, &Evidence { policy: Policy::Witness, ..evidence }));
        let cleared = clear(&ours, &Evidence { policy: Policy::Peer, ..evidence });
        prop_assert!(cleared);
    }

    #[test]
    fn a_spend_clears_nothing((ours, evidence) in any_case()) {
        prop_assume!(clear(&ours, &evidence));
        let cleared = clear(&ours, &Evidence { chain: None, ..evidence });
        prop_assert!(cleared);
    }

    #[test]
    fn what_is_clear_is_remembered_by_whom_clears_it((ours, evidence) in any_case()) {
        prop_assume!(clear(&ours, &evidence));
        let most = ours.signed.unwrap_or(ours.received.saturating_add(1));
        if let Some(report) = evidence.report {
            prop_assert!(report.revocations_held <= ours.revoked);
            prop_assert!(report.signatures_taken <= most);
        }
        if let Some(witness) = evidence.witness {
            prop_assert!(witness.signed <= most && witness.revoked <= ours.revoked);
            prop_assert!(witness.received <= ours.received && witness.epoch <= ours.epoch);
            prop_assert!(ours.closing || !witness.closing);
        }
        prop_assert!(evidence.witness.is_some() || evidence.report.is_some());
    }
}
