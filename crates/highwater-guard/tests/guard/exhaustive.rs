//! The table as data, row by row and with arithmetic of its own, against [`judge`] for every
//! combination of small numbers.

use highwater_guard::{
    Basis, Evidence, FundingSpent, Ours, Policy, Reason, Report, Verdict, Witness, judge,
};

/// A case, and what of it the rows ask for.
struct Case {
    ours: Ours,
    evidence: Evidence,
}

/// What is found, and the verdict.
type Row = (&'static str, fn(&Case) -> bool, Verdict);

/// The first row that matches decides.
const TABLE: [Row; 16] = [
    ("the funding output is spent, confirmed", Case::confirmed, Verdict::Closed),
    ("l > R", Case::revocation_lost, Verdict::Blocked(Reason::RevocationLost)),
    ("r > S", Case::signature_lost, Verdict::Blocked(Reason::SignatureLost)),
    (
        "a number of the witness above ours",
        Case::witness_above,
        Verdict::Blocked(Reason::WitnessAhead),
    ),
    ("another copy has moved the channel", Case::moved, Verdict::Blocked(Reason::MovedElsewhere)),
    ("a backup's mark above ours", Case::backup_above, Verdict::Blocked(Reason::BackupAhead)),
    (
        "a trusted witness, near, on numbers that can't be",
        |case| case.trusted_near() && !case.possible(),
        Verdict::Blocked(Reason::NumbersImpossible),
    ),
    (
        "a trusted witness, each ours or ours − 1",
        Case::trusted_near,
        Verdict::Clear(Basis::Witness),
    ),
    (
        "nothing heard, and the witness has forgotten",
        |case| case.evidence.report.is_none() && case.trusted_far(),
        Verdict::Wait(Reason::WitnessForgot),
    ),
    ("nothing heard", |case| case.evidence.report.is_none(), Verdict::Wait(Reason::NothingHeard)),
    ("l < R − 1 or r < L", Case::peer_forgot, Verdict::Wait(Reason::PeerForgot)),
    (
        "the peer's word, under `witness`, and the witness has forgotten",
        |case| case.evidence.policy == Policy::Witness && case.trusted_far(),
        Verdict::Wait(Reason::WitnessForgot),
    ),
    (
        "the peer's word, under `witness`",
        |case| case.evidence.policy == Policy::Witness,
        Verdict::Wait(Reason::WitnessNeeded),
    ),
    (
        "the peer's word, and the node can't tell S",
        |case| case.ours.signed.is_none(),
        Verdict::Wait(Reason::SignaturesUnknown),
    ),
    (
        "the peer's word, and a spend that we may have forgotten",
        |case| !case.ours.closing && case.evidence.chain == Some(FundingSpent::Unconfirmed),
        Verdict::Wait(Reason::SpendUnconfirmed),
    ),
    (
        "the peer's word, on numbers that can't be",
        |case| !case.possible(),
        Verdict::Blocked(Reason::NumbersImpossible),
    ),
];

/// `R − 1 ≤ l ≤ R` and `L ≤ r ≤ S`, under `peer`: what is left.
const LAST: Verdict = Verdict::Clear(Basis::Peer);

impl Case {
    fn confirmed(&self) -> bool {
        matches!(self.evidence.chain, Some(FundingSpent::Confirmed))
    }

    /// The least and the highest `S` that the node may have had.
    fn signed(&self) -> [i64; 2] {
        let received = self.ours.received as i64;
        self.ours.signed.map_or([received, received + 1], |signed| [signed as i64; 2])
    }

    fn highest_signed(&self) -> i64 {
        self.signed()[1]
    }

    /// How far a number lies above ours: `S`, `R`, `L`, and `closing` counted as 0 or 1.
    fn above(&self, signed: u64, revoked: u64, received: u64, closing: bool) -> [i64; 4] {
        [
            signed as i64 - self.highest_signed(),
            revoked as i64 - self.ours.revoked as i64,
            received as i64 - self.ours.received as i64,
            i64::from(closing) - i64::from(self.ours.closing),
        ]
    }

    fn witness_above(&self) -> bool {
        self.evidence.witness.is_some_and(|w| {
            self.above(w.signed, w.revoked, w.received, w.closing).iter().any(|&d| d > 0)
        })
    }

    fn moved(&self) -> bool {
        self.evidence.witness.is_some_and(|w| w.epoch as i64 - self.ours.epoch as i64 > 0)
    }

    fn backup_above(&self) -> bool {
        self.evidence.backup.is_some_and(|b| {
            let signed = b.signed.unwrap_or_default();
            self.above(signed, b.revoked, b.received, b.closing).iter().any(|&d| d > 0)
        })
    }

    fn trusted(&self) -> Option<Witness> {
        self.evidence.witness.filter(|w| w.owned && w.continuous)
    }

    /// How far the trusted witness lies behind ours: for the least and the highest `S`, in `R` and `L`.
    fn behind(&self) -> Option<[i64; 4]> {
        let w = self.trusted()?;
        let [least, highest] = self.signed();
        Some([
            least - w.signed as i64,
            highest - w.signed as i64,
            self.ours.revoked as i64 - w.revoked as i64,
            self.ours.received as i64 - w.received as i64,
        ])
    }

    fn trusted_near(&self) -> bool {
        self.behind().is_some_and(|behind| behind.iter().all(|d| (0..=1).contains(d)))
    }

    /// Further behind than by one, also if `S` was the least that it may have been.
    fn trusted_far(&self) -> bool {
        self.behind().is_some_and(|[least, _, rest @ ..]| least > 1 || rest.iter().any(|&d| d > 1))
    }

    fn revocation_lost(&self) -> bool {
        self.evidence
            .report
            .is_some_and(|r| r.revocations_held as i64 - self.ours.revoked as i64 >= 1)
    }

    fn signature_lost(&self) -> bool {
        self.evidence.report.is_some_and(|r| r.signatures_taken as i64 - self.highest_signed() >= 1)
    }

    fn peer_forgot(&self) -> bool {
        self.evidence.report.is_some_and(|r| {
            (r.revocations_held as i64) < self.ours.revoked as i64 - 1
                || (r.signatures_taken as i64) < self.ours.received as i64
        })
    }

    fn possible(&self) -> bool {
        let received = self.ours.received as i64;
        self.signed().iter().all(|signed| [received, received + 1].contains(signed))
    }

    fn verdict(&self) -> (&'static str, Verdict) {
        TABLE
            .iter()
            .find(|(_, found, _)| found(self))
            .map_or(("the peer's word", LAST), |(name, _, verdict)| (name, *verdict))
    }
}

/// What was compared: how often each row decided.
#[derive(Default)]
struct Compared {
    rows: std::collections::BTreeMap<&'static str, u64>,
}

impl Compared {
    fn compare(&mut self, ours: &Ours, evidence: &Evidence) {
        let (row, verdict) = Case { ours: *ours, evidence: *evidence }.verdict();
        assert_eq!(judge(ours, evidence), verdict, "{row}: {ours:?} {evidence:?}");
        *self.rows.entry(row).or_default() += 1;
    }

    /// Every one of these rows decided somewhere, and nothing else did.
    fn covers(&self, expected: usize) {
        assert_eq!(self.rows.len(), expected, "{:?}", self.rows);
    }
}

const BOTH: [bool; 2] = [false, true];
const POLICIES: [Policy; 2] = [Policy::Peer, Policy::Witness];
const CHAIN: [Option<FundingSpent>; 3] =
    [None, Some(FundingSpent::Unconfirmed), Some(FundingSpent::Confirmed)];

fn unknown_or(highest: u64) -> impl Iterator<Item = Option<u64>> {
    core::iter::once(None).chain((0..=highest).map(Some))
}

fn all_ours() -> Vec<Ours> {
    let mut all = Vec::new();
    for signed in unknown_or(3) {
        for revoked in 0..=3 {
            for received in 0..=3 {
                for closing in BOTH {
                    for epoch in 0..=1 {
                        all.push(Ours { signed, revoked, received, closing, epoch });
                    }
                }
            }
        }
    }
    all
}

fn all_reports(highest: u64) -> Vec<Option<Report>> {
    let mut all = vec![None];
    for revocations_held in 0..=highest {
        for signatures_taken in 0..=highest {
            all.push(Some(Report { revocations_held, signatures_taken }));
        }
    }
    all
}

fn all_witnesses(highest: u64) -> Vec<Option<Witness>> {
    let mut all = vec![None];
    for signed in 0..=highest {
        for revoked in 0..=highest {
            for received in 0..=highest {
                for bits in 0..16 {
                    let bit = |n: u32| bits & (1 << n) != 0;
                    all.push(Some(Witness {
                        signed,
                        revoked,
                        received,
                        closing: bit(0),
                        continuous: bit(1),
                        owned: bit(2),
                        epoch: u64::from(bit(3)),
                    }));
                }
            }
        }
    }
    all
}

#[test]
fn every_witness_and_report_gets_the_verdict_of_the_table() {
    let (reports, witnesses) = (all_reports(4), all_witnesses(3));
    let mut compared = Compared::default();
    for ours in all_ours() {
        for &witness in &witnesses {
            for &report in &reports {
                for policy in POLICIES {
                    let evidence = Evidence { chain: None, backup: None, witness, report, policy };
                    compared.compare(&ours, &evidence);
                }
            }
        }
    }
    // All but the two of the chain and the backup's.
    compared.covers(TABLE.len() + 1 - 3);
}

#[test]
fn every_backup_and_report_gets_the_verdict_of_the_table() {
    let (backups, reports) = (all_ours(), all_reports(4));
    let witnesses = [None, Some(super::witness(2, 2, 2)), Some(super::witness(3, 1, 2))];
    let mut compared = Compared::default();
    for ours in all_ours() {
        for &backup in &backups {
            for &report in &reports {
                for witness in witnesses {
                    let policy = Policy::Peer;
                    let backup = Some(backup);
                    let evidence = Evidence { chain: None, backup, witness, report, policy };
                    compared.compare(&ours, &evidence);
                }
            }
        }
    }
    assert!(compared.rows.contains_key("a backup's mark above ours"));
}

#[test]
fn every_state_of_the_chain_gets_the_verdict_of_the_table() {
    let (reports, witnesses) = (all_reports(2), all_witnesses(1));
    let mut compared = Compared::default();
    for ours in all_ours() {
        for chain in CHAIN {
            for &witness in &witnesses {
                for &report in &reports {
                    for policy in POLICIES {
                        for backup in [None, Some(super::ours(2, 1, 1))] {
                            let evidence = Evidence { chain, backup, witness, report, policy };
                            compared.compare(&ours, &evidence);
                        }
                    }
                }
            }
        }
    }
    compared.covers(TABLE.len() + 1);
}
