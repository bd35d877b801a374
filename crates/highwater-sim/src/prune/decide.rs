//! What of a vault goes, and what stays: pure, from what was listed.

use super::rules::{Rule, Rules};
use super::state::{
    CLAIMANTS, Claim, Intent, MANIFESTS, NEW_PACK, REWRITING, Set, WRITERS, bit, each, has,
    snapshots_of,
};

/// What a prune takes to be old, as it was when its claim was put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Judged {
    /// Intents that are a day old.
    pub dead: Set,
    /// Packs that are two days old.
    pub old_packs: Set,
    /// Snapshots whose tombstones have the age of the grace period.
    pub ripe_tombstones: Set,
    /// Manifests that have that age.
    pub ripe_manifests: Set,
    /// Claims that are a day old.
    pub stale: Set,
}

/// What a prune has listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// Snapshots that a tombstone names.
    pub tombstones: Set,
    /// Claims.
    pub claims: [Option<Claim>; CLAIMANTS],
    /// Intents that live.
    pub intents: [Option<Intent>; WRITERS],
    /// Manifests.
    pub manifests: Set,
    /// Packs.
    pub packs: Set,
}

/// What goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Manifests.
    pub manifests: Set,
    /// Forgotten snapshots, of which they are.
    pub forgotten: Set,
    /// Packs.
    pub packs: Set,
    /// Snapshots whose tombstones go.
    pub tombstones: Set,
    /// Claims of others.
    pub claims: Set,
}

impl Decision {
    /// Whether nothing goes.
    pub(super) fn is_empty(&self) -> bool {
        *self == Decision::default()
    }
}

/// Whose decision it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// The rules.
    pub(super) rules: Rules,
    /// What each manifest names.
    pub(super) content: &'a [Set; MANIFESTS],
    /// What is old.
    pub(super) judged: Judged,
    /// Where the claim stands: the prune, and the manifests that were to go before.
    pub(super) claimed: Option<(usize, Set)>,
}

/// Why a manifest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Forgotten,
    Replaced,
}

/// Decides what goes.
pub(super) fn decide(view: &View, question: Question<'_>) -> Decision {
    let Question { rules, content, .. } = question;
    let mut decision = Decision::default();
    let (held, mut needed) = kept(view, rules);
    let mut given_up = 0;
    for place in each(view.manifests) {
        let snapshot = place / 2;
        match why(view, question, place).filter(|_| !has(held, snapshot)) {
            Some(why) => {
                given_up |= content[place];
                decision.manifests |= bit(place);
                if why == Why::Forgotten {
                    decision.forgotten |= bit(snapshot);
                }
            }
            None => needed |= content[place],
        }
    }
    let claims = || view.claims.iter().flatten();
    given_up |= claims().fold(0, |set, claim| set | claim.packs);
    let waits = rules.has(Rule::UnreferencedWaits);
    let old = if waits { question.judged.old_packs } else { Set::MAX };
    decision.packs = view.packs & !needed & (given_up | old);
    if let Some((own, planned)) = question.claimed {
        if rules.has(Rule::NoMoreThanClaimed) {
            decision.packs &= view.claims[own].map_or(0, |claim| claim.packs);
        }
        if rules.has(Rule::ReplacedAsPlanned) {
            for place in each(decision.manifests & !planned) {
                if !has(decision.forgotten, place / 2) {
                    decision.manifests &= !bit(place);
                    decision.packs &= !content[place];
                    needed |= content[place];
                }
            }
        }
    }
    emptied(view, question, needed, &mut decision);
    decision
}

/// The snapshots and the packs that living intents keep.
fn kept(view: &View, rules: Rules) -> (Set, Set) {
    let (mut held, mut needed) = (0, 0);
    for (slot, intent) in view.intents.iter().enumerate() {
        let Some(intent) = intent else { continue };
        if rules.has(Rule::IntentsKeepPacks) {
            needed |= if slot == REWRITING { bit(NEW_PACK) } else { bit(slot + 1) };
        }
        needed |= intent.names;
        if slot != REWRITING {
            held |= bit(slot + 1);
        }
        if rules.has(Rule::IntentsKeepTheParent) {
            held |= intent.parent.map_or(0, bit);
        }
    }
    (held, needed)
}

/// Why a manifest goes, if it does.
fn why(view: &View, question: Question<'_>, place: usize) -> Option<Why> {
    let Question { rules, content, judged, claimed } = question;
    let snapshot = place / 2;
    if has(view.tombstones, snapshot) {
        let begun = view.claims.iter().flatten().any(|claim| has(claim.snapshots, snapshot));
        let named = claimed.is_none_or(|(own, _)| {
            !rules.has(Rule::NoMoreThanClaimed)
                || view.claims[own].is_some_and(|claim| has(claim.snapshots, snapshot))
        });
        let goes = (has(judged.ripe_tombstones, snapshot) || begun) && named;
        return goes.then_some(Why::Forgotten);
    }
    let next = place + 1;
    let replaced = place.is_multiple_of(2)
        && has(view.manifests, next)
        && has(judged.ripe_manifests, next)
        && (content[next] & !view.packs == 0 || !rules.has(Rule::ReplacedByWhole));
    replaced.then_some(Why::Replaced)
}

/// What of the trash hides nothing any more, once all else is gone.
fn emptied(view: &View, question: Question<'_>, needed: Set, decision: &mut Decision) {
    let Question { rules, judged, claimed, .. } = question;
    let left = snapshots_of(view.manifests & !decision.manifests);
    decision.tombstones = view.tombstones & !left;
    let packs_left = view.packs & !decision.packs & !needed;
    for (slot, claim) in view.claims.iter().enumerate() {
        let Some(claim) = claim else { continue };
        let done = !rules.has(Rule::DoneClaimsStay)
            && claim.snapshots & left == 0
            && claim.packs & packs_left == 0;
        let own = claimed.is_some_and(|(own, _)| own == slot);
        let goes = done || has(judged.stale, slot) || !rules.has(Rule::ClaimsOfOthersStay);
        if goes && !own {
            decision.claims |= bit(slot);
        }
    }
}
