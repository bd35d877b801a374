//! The searches. What each of them found goes to standard error, for `--no-capture`.

use std::io::Write as _;

use super::catalog::{self, Case, HOLDS, MISSED, SPARE, UNCLEAN};
use super::properties::{FORGOTTEN, PROMISED, VISIBLE};
use super::{RULES, Rule, Rules, Step, refute, search};

/// `HIGHWATER_MODEL=large` asks for the longer searches.
fn large() -> bool {
    match std::env::var("HIGHWATER_MODEL") {
        Err(_) => false,
        Ok(size) if size == "large" => true,
        Ok(other) => panic!("HIGHWATER_MODEL={other}: `large`, or nothing"),
    }
}

fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// No property is broken, and what must come about does.
fn holds(case: Case) {
    let setup = if large() { case.larger } else { case.setup };
    let found = search(setup, Rules::ALL);
    tell(&format!(
        "{}: {} states, {} different, depth {}",
        found.setup, found.states, found.states_unique, found.depth
    ));
    assert!(found.refuted.is_empty(), "{:#?}", found.refuted);
    for reached in case.reached {
        assert!(found.reached.contains(reached), "never: {reached}");
    }
}

/// Without the rule something falls where nothing does with it.
fn missed(rule: Rule) {
    let falls: Vec<_> = MISSED.iter().filter(|(missed, ..)| *missed == rule).collect();
    assert!(!falls.is_empty(), "{rule:?} is not in the catalog");
    for (_, setup, property) in falls {
        assert!(HOLDS.iter().any(|case| case.setup == *setup), "{} is not searched", setup.name);
        let found = refute(*setup, Rules::ALL.without(rule), property);
        let way = found.refuted.get(property).map_or(&[][..], Vec::as_slice);
        assert!(!way.is_empty(), "without {rule:?} all holds in {}", setup.name);
        tell(&format!("without {rule:?} ({}), {property}: {way:#?}", setup.name));
    }
}

/// All rules are obeyed, and nothing is promised.
fn promises_nothing(name: &str, property: &str) -> Vec<Step> {
    let limit = catalog::limits().into_iter().find(|fall| fall.setup.name == name).unwrap();
    assert_eq!(limit.property, property);
    let found = refute(limit.setup, limit.rules, limit.property);
    let way = found.refuted.get(limit.property).cloned().unwrap_or_default();
    assert!(!way.is_empty(), "all holds: {name}");
    tell(&format!("{name}: {way:#?}"));
    way
}

macro_rules! hold {
    ($($name:ident: $case:ident,)*) => {
        $(#[test]
        fn $name() {
            holds(catalog::$case);
        })*

        #[test]
        fn every_configuration_is_searched() {
            let cases = [$(catalog::$case.setup),*];
            assert!(HOLDS.iter().all(|case| cases.contains(&case.setup)));
        }
    };
}

hold! {
    a_backup_asleep_holds: BACKUP_ASLEEP,
    a_backup_awake_holds: BACKUP_AWAKE,
    two_backups_hold: TWO_BACKUPS,
    a_late_manifest_holds: LATE_MANIFEST,
    two_prunes_hold: TWO_PRUNES,
    what_is_brought_back_holds: BROUGHT_BACK,
    what_is_brought_back_beside_two_prunes_holds: BROUGHT_BACK_BESIDE_TWO,
    a_restore_holds: RESTORES,
    a_rewriting_holds: REWRITING,
    a_rewriting_of_what_is_forgotten_holds: REWRITING_FORGOTTEN,
    a_rewriting_asleep_holds: REWRITING_ASLEEP,
    a_restore_of_what_is_rewritten_holds: REWRITING_RESTORED,
    leftovers_hold: LEFTOVERS,
    leftovers_that_were_built_on_hold: LEFTOVERS_BUILT_ON,
    an_import_beside_two_prunes_holds: IMPORT_BESIDE_TWO,
    two_imports_hold: TWO_IMPORTS,
    an_import_beside_a_backup_holds: IMPORT_AND_BACKUP,
    leftovers_of_an_import_hold: IMPORT_LEFTOVERS,
}

macro_rules! miss {
    ($($name:ident: $rule:ident,)*) => {
        $(#[test]
        fn $name() {
            missed(Rule::$rule);
        })*

        #[test]
        fn every_rule_is_missed_or_spare() {
            let missed = [$(Rule::$rule),*];
            let spare = |rule: &Rule| SPARE.iter().any(|(spare, _)| spare == rule);
            assert!(RULES.iter().all(|rule| missed.contains(rule) != spare(rule)));
        }
    };
}

miss! {
    an_intent_after_the_look_falls: IntentBeforeLook,
    building_on_what_is_claimed_falls: ClaimedIsNotBuiltOn,
    a_backup_without_a_time_falls: BackupHasItsTime,
    no_second_look_at_the_intent_falls: IntentAfterCommit,
    no_second_look_at_the_parent_falls: ParentAfterCommit,
    no_look_for_claims_falls: ClaimsAfterCommit,
    no_look_for_packs_falls: PacksAfterCommit,
    packs_looked_for_before_claims_fall: TrashBeforePacks,
    packs_deleted_after_a_try_fall: TriedDeletesNothing,
    an_old_manifest_that_is_taken_back_falls: TakenBackYoung,
    a_claim_after_the_look_falls: ClaimBeforeLook,
    trash_that_was_read_before_the_claim_falls: TrashUnderTheClaim,
    manifests_before_intents_fall: IntentsBeforeManifests,
    dead_intents_that_stay_fall: DeadIntentsGoFirst,
    a_parent_that_no_intent_keeps_falls: IntentsKeepTheParent,
    more_than_was_claimed_falls: NoMoreThanClaimed,
    packs_before_manifests_fall: ManifestsBeforePacks,
    trash_before_what_it_hides_falls: TrashLast,
    a_prune_without_a_time_falls: PruneHasItsTime,
    a_claim_that_others_remove_falls: ClaimsOfOthersStay,
    a_done_claim_that_others_remove_falls: DoneClaimsStay,
    what_is_unreferenced_and_does_not_wait_falls: UnreferencedWaits,
    what_is_replaced_by_half_falls: ReplacedByWhole,
    what_is_replaced_and_does_not_wait_falls: ReplacedWaits,
    a_prune_that_does_not_give_way_falls: PruneGivesWay,
    no_grace_period_falls: GracePeriod,
    an_undo_that_looks_for_no_claim_falls: UndoLooksForClaims,
    an_undo_that_looks_for_no_manifest_falls: UndoLooksForTheManifest,
    a_collector_that_buries_last_falls: CollectorBuriesFirst,
    a_collector_that_does_not_claim_falls: CollectorClaims,
    a_collector_that_looks_once_falls: CollectorLooksAgain,
    a_collector_that_spares_nobody_falls: CollectorSparesOthers,
    a_collector_without_its_claim_falls: CollectorClaimMustStand,
    an_import_that_names_no_packs_falls: ImportNamesPacks,
    an_import_that_does_not_give_way_falls: ImportGivesWay,
    an_import_that_deletes_packs_falls: ImportLeavesItsPacks,
}

#[test]
fn others_make_up_for_a_spare_rule() {
    for (rule, setup) in SPARE {
        let found = search(setup, Rules::ALL.without(rule));
        assert!(found.refuted.is_empty(), "without {rule:?}: {:#?}", found.refuted);
    }
}

#[test]
fn a_prune_that_leaves_dead_intents_does_not_clean_up() {
    let (rule, setup, property) = UNCLEAN;
    let found = refute(setup, Rules::ALL.without(rule), property);
    assert!(found.refuted.contains_key(property));
}

#[test]
fn nothing_is_promised_where_a_deletion_comes_days_after_its_look() {
    let way = promises_nothing("a deletion that comes late", PROMISED);
    assert!(way.contains(&Step::Day));
}

#[test]
fn a_backup_that_sleeps_while_it_commits_is_seen_until_it_wakes() {
    promises_nothing("a backup that sleeps while it commits", VISIBLE);
}

#[test]
fn a_rewriting_that_sleeps_while_it_commits_is_seen_until_it_wakes() {
    promises_nothing("a rewriting that sleeps while it commits", VISIBLE);
}

#[test]
fn a_rewriting_that_sleeps_while_it_commits_brings_back_what_was_forgotten() {
    promises_nothing("a rewriting that brings back", FORGOTTEN);
}

#[test]
fn the_late_manifest_of_a_killed_rewriting_brings_back_what_was_forgotten() {
    promises_nothing("a rewriting that is killed", FORGOTTEN);
}

#[test]
fn one_configuration_gives_one_search() {
    let [one, other] = [(); 2].map(|()| search(catalog::BACKUP_ASLEEP.setup, Rules::ALL));
    assert_eq!((one.states, one.states_unique), (other.states, other.states_unique));
}
