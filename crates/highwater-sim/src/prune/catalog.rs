//! The configurations that are searched, the rules that must be missed, and where nothing is promised.

use super::properties::{
    BUILT, CLEANED, FORGOTTEN, LIFTED, PACK_GONE, PARENT_GONE, PROMISED, REPLACED, RESTORED,
    TAKEN_BACK, TAKEN_FOR_DEAD, VISIBLE,
};
use super::rules::{Rule, Rules};
use super::setup::{Kind, Setup};

/// A configuration in which all rules hold.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As it is searched with every change.
    pub setup: Setup,
    /// As it is searched at night.
    pub larger: Setup,
    /// What must come about somewhere.
    pub reached: &'static [&'static str],
}

/// Rules that fall, where, and by which property.
#[derive(Clone, Copy, Debug)]
pub struct Fall {
    /// Where.
    pub setup: Setup,
    /// The rules.
    pub rules: Rules,
    /// What they break.
    pub property: &'static str,
}

const NOBODY: Kind = Kind::Nobody;
const BACKUP: Kind = Kind::Backup;
const IMPORT: Kind = Kind::Import;

const ASLEEP: Setup = Setup { writers: [BACKUP, NOBODY], days: 3, ..Setup::new("a backup asleep") };
/// A backup that sleeps for days beside a prune.
pub const BACKUP_ASLEEP: Case = Case {
    setup: ASLEEP,
    larger: Setup { days: 5, kills: true, gives_up: true, loses_answers: true, ..ASLEEP },
    reached: &[BUILT, PARENT_GONE, PACK_GONE, TAKEN_FOR_DEAD, TAKEN_BACK],
};

const AWAKE: Setup = Setup {
    name: "a backup that does not sleep while it commits",
    days: 2,
    sleeps_at_commit: false,
    kills: true,
    gives_up: true,
    ..ASLEEP
};
/// Nobody ever sees what is not whole.
pub const BACKUP_AWAKE: Case = Case {
    setup: AWAKE,
    larger: Setup { days: 4, ..AWAKE },
    reached: &[BUILT, PARENT_GONE, PACK_GONE],
};

const TWO: Setup =
    Setup { writers: [BACKUP, BACKUP], days: 1, ..Setup::new("a backup builds on another one") };
/// A backup that sleeps, and one that builds on it.
pub const TWO_BACKUPS: Case = Case {
    setup: TWO,
    larger: Setup { days: 2, ..TWO },
    reached: &[BUILT, PARENT_GONE, PACK_GONE, TAKEN_FOR_DEAD, TAKEN_BACK],
};

const UNANSWERED: Setup =
    Setup { name: "a manifest that comes late", days: 0, loses_answers: true, ..TWO };
/// A manifest that comes once its backup has given up, and a backup that builds on it.
pub const LATE_MANIFEST: Case = Case {
    setup: UNANSWERED,
    larger: Setup { kills: true, ..UNANSWERED },
    reached: &[BUILT, PARENT_GONE, PACK_GONE],
};

const PRUNES: Setup =
    Setup { name: "two prunes and a backup asleep", prunes: 2, days: 1, ..ASLEEP };
/// Two prunes beside a backup.
pub const TWO_PRUNES: Case = Case {
    setup: PRUNES,
    larger: Setup { days: 2, ..PRUNES },
    reached: &[BUILT, PARENT_GONE, PACK_GONE, TAKEN_FOR_DEAD, TAKEN_BACK],
};

const BROUGHT: Setup = Setup {
    name: "brought back beside a backup",
    undoes: true,
    days: 0,
    sleeps_at_commit: false,
    ..ASLEEP
};
/// A snapshot is forgotten and brought back beside a backup and a prune.
pub const BROUGHT_BACK: Case = Case {
    setup: BROUGHT,
    larger: Setup { days: 2, kills: true, ..BROUGHT },
    reached: &[BUILT, PARENT_GONE, PACK_GONE, LIFTED],
};

const BROUGHT_TWICE: Setup = Setup {
    name: "brought back beside two prunes",
    undoes: true,
    prunes: 2,
    kills: true,
    sleeps_at_commit: false,
    ..Setup::new("")
};
/// A snapshot is forgotten and brought back beside two prunes, which may be killed.
pub const BROUGHT_BACK_BESIDE_TWO: Case =
    Case { setup: BROUGHT_TWICE, larger: Setup { days: 3, ..BROUGHT_TWICE }, reached: &[LIFTED] };

const READ: Setup = Setup {
    name: "a restore",
    restores: true,
    grace: 2,
    days: 3,
    sleeps_at_commit: false,
    ..ASLEEP
};
/// A restore beside a prune under the usual grace period.
pub const RESTORES: Case = Case {
    setup: READ,
    larger: Setup { days: 5, kills: true, ..READ },
    reached: &[BUILT, PARENT_GONE, PACK_GONE],
};

const REWRITTEN: Setup =
    Setup { name: "a rewriting and a backup", rewriting: true, days: 1, ..ASLEEP };
/// A rewriting beside a backup and a prune.
pub const REWRITING: Case = Case {
    setup: REWRITTEN,
    larger: Setup { days: 2, ..REWRITTEN },
    reached: &[BUILT, REPLACED, TAKEN_FOR_DEAD],
};

const REWRITTEN_GONE: Setup = Setup {
    name: "a rewriting of what is forgotten",
    forgets: 0b010,
    days: 0,
    sleeps_at_commit: false,
    ..REWRITTEN
};
/// A rewriting of a snapshot that is forgotten.
pub const REWRITING_FORGOTTEN: Case = Case {
    setup: REWRITTEN_GONE,
    larger: Setup { days: 2, forgets: 0b011, ..REWRITTEN_GONE },
    reached: &[BUILT],
};

const REPLACES: Setup = Setup {
    name: "a rewriting asleep and two prunes",
    rewriting: true,
    forgets: 0,
    prunes: 2,
    days: 3,
    ..Setup::new("")
};
/// A rewriting that sleeps, beside two prunes.
pub const REWRITING_ASLEEP: Case = Case {
    setup: REPLACES,
    larger: Setup { days: 4, ..REPLACES },
    reached: &[REPLACED, TAKEN_FOR_DEAD, TAKEN_BACK],
};

const REPLACES_READ: Setup = Setup {
    name: "a restore of what is rewritten",
    prunes: 1,
    restores: true,
    grace: 2,
    kills: true,
    sleeps_at_commit: false,
    ..REPLACES
};
/// A restore of what is rewritten meanwhile.
pub const REWRITING_RESTORED: Case = Case {
    setup: REPLACES_READ,
    larger: Setup { days: 5, prunes: 2, kills: false, ..REPLACES_READ },
    reached: &[REPLACED],
};

const LEFT: Setup = Setup {
    name: "leftovers of a backup asleep",
    collector: true,
    forgets: 0,
    kills: true,
    days: 2,
    ..ASLEEP
};
/// What is taken for a killed backup's is collected.
pub const LEFTOVERS: Case = Case {
    setup: LEFT,
    larger: Setup { forgets: 0b001, ..LEFT },
    reached: &[BUILT, TAKEN_FOR_DEAD, TAKEN_BACK],
};

const LEFT_TWO: Setup = Setup {
    name: "leftovers that another backup has built on",
    writers: [BACKUP, BACKUP],
    forgets: 0b010,
    days: 0,
    ..LEFT
};
/// What is collected was committed, built on, and forgotten.
pub const LEFTOVERS_BUILT_ON: Case =
    Case { setup: LEFT_TWO, larger: Setup { days: 1, ..LEFT_TWO }, reached: &[BUILT] };

const COMES: Setup = Setup {
    name: "an import and two prunes",
    writers: [NOBODY, IMPORT],
    prunes: 2,
    gives_up: true,
    days: 1,
    ..Setup::new("")
};
/// An import of packs that are being deleted.
pub const IMPORT_BESIDE_TWO: Case = Case {
    setup: COMES,
    larger: Setup { days: 2, ..COMES },
    reached: &[PARENT_GONE, TAKEN_FOR_DEAD, TAKEN_BACK],
};

const COME_TWO: Setup =
    Setup { name: "two imports", writers: [IMPORT, IMPORT], prunes: 1, ..COMES };
/// Two imports with a pack in common.
pub const TWO_IMPORTS: Case = Case {
    setup: COME_TWO,
    larger: Setup { kills: true, ..COME_TWO },
    reached: &[BUILT, PARENT_GONE],
};

const COMES_BESIDE: Setup =
    Setup { name: "an import and a backup", writers: [BACKUP, IMPORT], days: 0, ..COME_TWO };
/// An import beside a backup.
pub const IMPORT_AND_BACKUP: Case = Case {
    setup: COMES_BESIDE,
    larger: Setup { days: 1, ..COMES_BESIDE },
    reached: &[BUILT, PARENT_GONE, PACK_GONE],
};

const COMES_LEFT: Setup =
    Setup { name: "leftovers of an import", prunes: 1, collector: true, kills: true, ..COMES };
/// What is taken for a killed import's is collected.
pub const IMPORT_LEFTOVERS: Case = Case {
    setup: COMES_LEFT,
    larger: Setup { days: 2, ..COMES_LEFT },
    reached: &[PARENT_GONE, TAKEN_FOR_DEAD, TAKEN_BACK],
};

/// All of them.
pub const HOLDS: [Case; 18] = [
    BACKUP_ASLEEP,
    BACKUP_AWAKE,
    TWO_BACKUPS,
    LATE_MANIFEST,
    TWO_PRUNES,
    BROUGHT_BACK,
    BROUGHT_BACK_BESIDE_TWO,
    RESTORES,
    REWRITING,
    REWRITING_FORGOTTEN,
    REWRITING_ASLEEP,
    REWRITING_RESTORED,
    LEFTOVERS,
    LEFTOVERS_BUILT_ON,
    IMPORT_BESIDE_TWO,
    TWO_IMPORTS,
    IMPORT_AND_BACKUP,
    IMPORT_LEFTOVERS,
];

/// Each rule that is relied on, and a configuration in which the others do not hold without it.
pub const MISSED: [(Rule, Setup, &str); 37] = [
    (Rule::IntentBeforeLook, ASLEEP, PROMISED),
    (Rule::ClaimedIsNotBuiltOn, UNANSWERED, PROMISED),
    (Rule::BackupHasItsTime, AWAKE, VISIBLE),
    (Rule::IntentAfterCommit, ASLEEP, PROMISED),
    (Rule::ParentAfterCommit, TWO, PROMISED),
    (Rule::ClaimsAfterCommit, ASLEEP, PROMISED),
    (Rule::PacksAfterCommit, ASLEEP, PROMISED),
    (Rule::TrashBeforePacks, ASLEEP, PROMISED),
    (Rule::TriedDeletesNothing, UNANSWERED, PROMISED),
    (Rule::TakenBackYoung, REPLACES, PROMISED),
    (Rule::ClaimBeforeLook, ASLEEP, PROMISED),
    (Rule::TrashUnderTheClaim, BROUGHT, PROMISED),
    (Rule::IntentsBeforeManifests, ASLEEP, PROMISED),
    (Rule::DeadIntentsGoFirst, ASLEEP, PROMISED),
    (Rule::IntentsKeepTheParent, ASLEEP, PROMISED),
    (Rule::NoMoreThanClaimed, BROUGHT, PROMISED),
    (Rule::NoMoreThanClaimed, ASLEEP, PROMISED),
    (Rule::ManifestsBeforePacks, BROUGHT_TWICE, VISIBLE),
    (Rule::TrashLast, BROUGHT, PROMISED),
    (Rule::PruneHasItsTime, BROUGHT_TWICE, PROMISED),
    (Rule::ClaimsOfOthersStay, BROUGHT_TWICE, PROMISED),
    (Rule::DoneClaimsStay, PRUNES, PROMISED),
    (Rule::UnreferencedWaits, REPLACES_READ, VISIBLE),
    (Rule::ReplacedByWhole, REPLACES, PROMISED),
    (Rule::ReplacedWaits, REPLACES, PROMISED),
    (Rule::PruneGivesWay, REWRITTEN_GONE, FORGOTTEN),
    (Rule::GracePeriod, READ, RESTORED),
    (Rule::UndoLooksForClaims, BROUGHT, PROMISED),
    (Rule::UndoLooksForTheManifest, BROUGHT, PROMISED),
    (Rule::CollectorBuriesFirst, LEFT, PROMISED),
    (Rule::CollectorClaims, LEFT, PROMISED),
    (Rule::CollectorLooksAgain, LEFT, PROMISED),
    (Rule::CollectorSparesOthers, LEFT_TWO, PROMISED),
    (Rule::CollectorClaimMustStand, LEFT, PROMISED),
    (Rule::ImportNamesPacks, COMES_BESIDE, PROMISED),
    (Rule::ImportGivesWay, COMES, PROMISED),
    (Rule::ImportLeavesItsPacks, COME_TWO, PROMISED),
];

/// Rules that others make up for: each is missed only by who breaks another one as well, or by who damages
/// the vault. With each, a configuration in which the others hold without it.
pub const SPARE: [(Rule, Setup); 10] = [
    (Rule::ParentMustBeVisible, REWRITTEN),
    (Rule::IntentBeforeCommit, AWAKE),
    (Rule::PacksBeforeCommit, AWAKE),
    (Rule::TakenBackAboveAnother, REPLACES),
    (Rule::IntentsKeepPacks, AWAKE),
    (Rule::ClaimMustStand, PRUNES),
    (Rule::ReplacedAsPlanned, REPLACES),
    (Rule::RewritingGivesWay, REWRITTEN_GONE),
    (Rule::ClaimsHide, BROUGHT),
    (Rule::ImportBuildsOnVisible, COME_TWO),
];

/// Where all rules are obeyed, and nothing is promised.
pub fn limits() -> [Fall; 5] {
    let fall = |setup, property| Fall { setup, rules: Rules::ALL, property };
    [
        // A prune that is stopped for a day between its look at its claim and its deletion, and an import
        // that puts the same pack again.
        fall(Setup { name: "a deletion that comes late", deletes_late: true, ..COMES }, PROMISED),
        // A backup that sleeps while it commits, until it has taken its manifest back, or has died.
        fall(
            Setup { name: "a backup that sleeps while it commits", strict: true, ..ASLEEP },
            VISIBLE,
        ),
        // The same of a rewriting: what is seen lacks a pack, and the generation below is whole.
        fall(
            Setup { name: "a rewriting that sleeps while it commits", strict: true, ..REPLACES },
            VISIBLE,
        ),
        // The manifest of a rewriting that was killed comes while a prune by the same hands deletes what
        // was forgotten.
        fall(
            Setup { name: "a rewriting that is killed", kills: true, ..REWRITTEN_GONE },
            FORGOTTEN,
        ),
        // A rewriting that sleeps puts a generation of what was forgotten and deleted meanwhile.
        fall(Setup { name: "a rewriting that brings back", strict: true, ..REWRITTEN }, FORGOTTEN),
    ]
}

/// What a prune cleans up is asked of every configuration: without this it leaves dead intents.
pub const UNCLEAN: (Rule, Setup, &str) = (Rule::DeadIntentsGoFirst, AWAKE, CLEANED);
