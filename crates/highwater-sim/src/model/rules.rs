//! What a node obeys: the real rules, and broken ones that the model must refute.

use highwater_guard::{Basis, Evidence, Ours, Policy, Reason, Verdict, Witness, judge};

/// The rules of a node. Each field besides the table is one habit of the library's; a broken node
/// lacks one of them.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What they are called.
    pub name: &'static str,
    /// The table.
    pub judge: fn(&Ours, &Evidence) -> Verdict,
    /// The latch lasts until the channel is clear.
    pub latch_lasts: bool,
    /// The witness is written before anything leaves.
    pub witness_first: bool,
    /// The witness takes what its owner says, and nobody else.
    pub fenced: bool,
    /// Before our own commitment is published, `closing` is raised like any other number; else it is
    /// only durable.
    pub publication_is_a_move: bool,
    /// A channel that was cleared stores the epoch of its start before anything is raised.
    pub clear_takes_the_epoch: bool,
    /// What is raised is entered under the epoch of the owner, not under that of the move.
    pub entry_has_the_owners_epoch: bool,
    /// A report counts still at a later start.
    pub reports_outlive_the_start: bool,
    /// A peer that has forgotten is waited for, not closed on.
    pub forgotten_is_waited_for: bool,
}

impl Rules {
    /// The library's.
    pub const REAL: Rules = Rules {
        name: "the real rules",
        judge,
        latch_lasts: true,
        witness_first: true,
        fenced: true,
        publication_is_a_move: true,
        clear_takes_the_epoch: true,
        entry_has_the_owners_epoch: true,
        reports_outlive_the_start: false,
        forgotten_is_waited_for: true,
    };

    /// The real ones with another table.
    fn table(name: &'static str, judge: fn(&Ours, &Evidence) -> Verdict) -> Rules {
        Rules { name, judge, ..Rules::REAL }
    }

    /// Fiber's first rule: numbers that differ by one are near enough, in either direction.
    pub fn near_enough() -> Rules {
        Rules::table("|ours − theirs| ≤ 1", |ours, evidence| {
            let near = |ours: u64, theirs: u64| ours.abs_diff(theirs) <= 1;
            let near = evidence.report.is_some_and(|report| {
                near(ours.revoked, report.revocations_held)
                    && ours.signed.is_some_and(|signed| near(signed, report.signatures_taken))
            });
            match judge(ours, evidence) {
                Verdict::Closed => Verdict::Closed,
                _ if near && evidence.chain.is_none() => Verdict::Clear(Basis::Peer),
                verdict => verdict,
            }
        })
    }

    /// A node that can't tell `S` is cleared up to `L + 1`.
    pub fn signatures_guessed() -> Rules {
        Rules::table("r ≤ L + 1, S unknown", |ours, evidence| {
            let unknown = Ours { signed: None, ..*ours };
            match judge(&unknown, evidence) {
                Verdict::Wait(Reason::SignaturesUnknown) => Verdict::Clear(Basis::Peer),
                verdict => verdict,
            }
        })
    }

    /// A node that can't tell `S`, under the real table.
    pub fn signatures_unknown() -> Rules {
        Rules::table("S unknown", |ours, evidence| judge(&Ours { signed: None, ..*ours }, evidence))
    }

    /// The quarantine is forgotten at a restart.
    pub fn latch_forgotten() -> Rules {
        Rules { name: "the latch forgotten at a restart", latch_lasts: false, ..Rules::REAL }
    }

    /// A backup's marks are taken for a witness's.
    pub fn backup_clears() -> Rules {
        Rules::table("a backup's marks taken for a witness", |ours, evidence| {
            let taken = evidence.backup.map(|backup| Witness {
                signed: backup.signed.unwrap_or_default(),
                revoked: backup.revoked,
                received: backup.received,
                closing: backup.closing,
                continuous: true,
                owned: true,
                epoch: 0,
            });
            judge(ours, &Evidence { witness: evidence.witness.or(taken), ..*evidence })
        })
    }

    /// The witness is written after sending.
    pub fn witness_last() -> Rules {
        Rules { name: "the witness written after sending", witness_first: false, ..Rules::REAL }
    }

    /// A peer that has forgotten is force-closed on.
    pub fn forgotten_is_closed_on() -> Rules {
        let name = "a lagging peer force-closed on";
        Rules { name, forgotten_is_waited_for: false, ..Rules::REAL }
    }

    /// What the peer said before the last start counts still.
    pub fn old_reports() -> Rules {
        let name = "a report of an older session";
        Rules { name, reports_outlive_the_start: true, ..Rules::REAL }
    }

    /// The witness takes what anybody says.
    pub fn unfenced() -> Rules {
        Rules { name: "no fencing", fenced: false, ..Rules::REAL }
    }

    /// Equal numbers are taken for the same history.
    pub fn epochs_ignored() -> Rules {
        Rules::table("epochs ignored", |ours, evidence| {
            judge(&Ours { epoch: u64::MAX, ..*ours }, evidence)
        })
    }

    /// What was durable before a start is raised under the epoch of that start, and the disk keeps
    /// the older one.
    pub fn epoch_not_stored() -> Rules {
        let name = "a clear that doesn't store its epoch";
        Rules { name, clear_takes_the_epoch: false, ..Rules::REAL }
    }

    /// The same, and the entry is made under the older one too.
    pub fn epoch_of_the_move() -> Rules {
        let name = "entries under the epoch of the move";
        Rules { name, entry_has_the_owners_epoch: false, ..Rules::epoch_not_stored() }
    }

    /// Our own commitment is published without a word to the witness.
    pub fn silent_publication() -> Rules {
        let name = "publishing without the witness";
        Rules { name, publication_is_a_move: false, ..Rules::REAL }
    }

    /// A spend that is not confirmed is looked away from.
    pub fn unconfirmed_ignored() -> Rules {
        Rules::table("an unconfirmed spend ignored", |ours, evidence| {
            let chain =
                evidence.chain.filter(|&spent| spent == highwater_guard::FundingSpent::Confirmed);
            judge(ours, &Evidence { chain, ..*evidence })
        })
    }

    /// Everybody's word clears, as it does under `peer`.
    pub fn peer_trusted() -> Rules {
        Rules::table("the peer trusted under `witness`", |ours, evidence| {
            judge(ours, &Evidence { policy: Policy::Peer, ..*evidence })
        })
    }
}
