//! What the protocol relies on: each rule can be switched off, and the model must refute what is left.

/// One rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rule {
    /// A backup puts its intent, and then looks at its parent.
    IntentBeforeLook,
    /// A backup builds only on a parent that it sees visible once its intent stands.
    ParentMustBeVisible,
    /// A backup builds only on a manifest of which no claim names a pack, once it has found that.
    ClaimedIsNotBuiltOn,
    /// A backup commits only while its intent stands.
    IntentBeforeCommit,
    /// A backup sees that all packs are there, before it commits.
    PacksBeforeCommit,
    /// A backup commits within its time, or not at all.
    BackupHasItsTime,
    /// A backup sees that its intent stands, after it has committed.
    IntentAfterCommit,
    /// A backup sees that the manifest that it builds on stands, after it has committed.
    ParentAfterCommit,
    /// Who finds its intent gone takes its manifest back where a claim names a pack of it.
    ClaimsAfterCommit,
    /// Who finds its intent gone takes its manifest back where a pack is missing.
    PacksAfterCommit,
    /// Who finds its intent gone reads the trash, and then lists packs.
    TrashBeforePacks,
    /// Who has tried to put a manifest deletes no pack, whatever it was answered.
    TriedDeletesNothing,
    /// A manifest is taken back only while it is young.
    TakenBackYoung,
    /// A later generation is taken back only above an earlier one.
    TakenBackAboveAnother,
    /// A prune claims, and then looks at everything again and decides again.
    ClaimBeforeLook,
    /// A prune looks at the trash again, once its claim stands.
    TrashUnderTheClaim,
    /// A prune lists intents, and then manifests.
    IntentsBeforeManifests,
    /// A prune deletes dead intents, and then lists manifests.
    DeadIntentsGoFirst,
    /// A living intent keeps the parent that it names.
    IntentsKeepTheParent,
    /// A living intent keeps its own packs.
    IntentsKeepPacks,
    /// A prune deletes no forgotten snapshot and no pack that its claim does not name.
    NoMoreThanClaimed,
    /// A prune deletes manifests, and then packs.
    ManifestsBeforePacks,
    /// A prune deletes what hides a snapshot once all else is gone.
    TrashLast,
    /// A prune sees that its claim stands, before each deletion.
    ClaimMustStand,
    /// A prune deletes within its time, or not at all.
    PruneHasItsTime,
    /// A prune leaves a claim of another one alone while that may be at it.
    ClaimsOfOthersStay,
    /// A claim of another prune stays for a day, also where nothing that it names is left to be deleted.
    DoneClaimsStay,
    /// What no manifest names stays for two days.
    UnreferencedWaits,
    /// A generation goes only if all packs of the next one are there.
    ReplacedByWhole,
    /// A generation goes only if it was to go before the claim was put.
    ReplacedAsPlanned,
    /// A generation that was replaced stays for a day at least, however short the grace period.
    ReplacedWaits,
    /// A prune gives way to the intent of a rewriting.
    PruneGivesWay,
    /// A rewriting gives way to a claim.
    RewritingGivesWay,
    /// A forgotten snapshot, and a generation that was replaced, stay for the grace period.
    GracePeriod,
    /// What a claim names is hidden.
    ClaimsHide,
    /// Who brings a snapshot back looks for claims after the tombstone is gone.
    UndoLooksForClaims,
    /// Who brings a snapshot back sees at last that it stands.
    UndoLooksForTheManifest,
    /// A collector deletes the intent, and then looks for the manifest.
    CollectorBuriesFirst,
    /// A collector claims the packs that it deletes.
    CollectorClaims,
    /// A collector looks for the manifest again, once its claim stands.
    CollectorLooksAgain,
    /// A collector deletes no pack that the manifest of any other snapshot names.
    CollectorSparesOthers,
    /// A collector sees that its claim stands, before each deletion.
    CollectorClaimMustStand,
    /// The intent of an import names every pack that it needs.
    ImportNamesPacks,
    /// An import gives way to a claim of a pack that it needs.
    ImportGivesWay,
    /// An import builds on no pack that belongs to no visible snapshot.
    ImportBuildsOnVisible,
    /// An import that gives up deletes no pack by itself: others may have found it there.
    ImportLeavesItsPacks,
}

/// The rules that are obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules(u64);

impl Rules {
    /// All of them.
    pub const ALL: Rules = Rules(u64::MAX);

    /// The same but for one.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Rules {
        Rules(self.0 & !(1 << rule as u8))
    }

    /// Whether a rule is obeyed.
    pub const fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u8) != 0
    }
}

/// Every rule.
pub const RULES: [Rule; 46] = [
    Rule::IntentBeforeLook,
    Rule::ParentMustBeVisible,
    Rule::ClaimedIsNotBuiltOn,
    Rule::IntentBeforeCommit,
    Rule::PacksBeforeCommit,
    Rule::BackupHasItsTime,
    Rule::IntentAfterCommit,
    Rule::ParentAfterCommit,
    Rule::ClaimsAfterCommit,
    Rule::PacksAfterCommit,
    Rule::TrashBeforePacks,
    Rule::TriedDeletesNothing,
    Rule::TakenBackYoung,
    Rule::TakenBackAboveAnother,
    Rule::ClaimBeforeLook,
    Rule::TrashUnderTheClaim,
    Rule::IntentsBeforeManifests,
    Rule::DeadIntentsGoFirst,
    Rule::IntentsKeepTheParent,
    Rule::IntentsKeepPacks,
    Rule::NoMoreThanClaimed,
    Rule::ManifestsBeforePacks,
    Rule::TrashLast,
    Rule::ClaimMustStand,
    Rule::PruneHasItsTime,
    Rule::ClaimsOfOthersStay,
    Rule::DoneClaimsStay,
    Rule::UnreferencedWaits,
    Rule::ReplacedByWhole,
    Rule::ReplacedAsPlanned,
    Rule::ReplacedWaits,
    Rule::PruneGivesWay,
    Rule::RewritingGivesWay,
    Rule::GracePeriod,
    Rule::ClaimsHide,
    Rule::UndoLooksForClaims,
    Rule::UndoLooksForTheManifest,
    Rule::CollectorBuriesFirst,
    Rule::CollectorClaims,
    Rule::CollectorLooksAgain,
    Rule::CollectorSparesOthers,
    Rule::CollectorClaimMustStand,
    Rule::ImportNamesPacks,
    Rule::ImportGivesWay,
    Rule::ImportBuildsOnVisible,
    Rule::ImportLeavesItsPacks,
];
