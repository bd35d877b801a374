//! The searches. What each of them found goes to standard error, for `--no-capture`.

use std::io::Write as _;

use super::catalog::{self, Case, Fall};
use super::properties::{CLEARED, LITERAL, NOT_PUNISHED, SIGNED_ONCE};
use super::{Rules, Step, refute, search};

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

/// The real rules break no property, and what must come about does.
fn holds(case: Case) {
    let setup = if large() { case.larger } else { case.setup };
    let found = search(setup, Rules::REAL);
    tell(&format!(
        "{}: {} states, {} different, depth {}",
        found.setup, found.states, found.states_unique, found.depth
    ));
    assert!(found.refuted.is_empty(), "{:#?}", found.refuted);
    for reached in case.reached {
        assert!(found.reached.contains(reached), "never: {reached}");
    }
}

fn way(fall: Fall) -> Vec<Step> {
    let found = refute(fall.setup, fall.rules, fall.property);
    let way = found.refuted.get(fall.property).cloned().unwrap_or_default();
    assert!(!way.is_empty(), "{} hold in {}: {}", found.rules, found.setup, fall.property);
    tell(&format!("{} ({}): {} steps", found.rules, found.setup, way.len()));
    way
}

/// Broken rules fall wherever they are tried, where the real ones don't.
fn falls(broken: Rules) {
    let falls: Vec<Fall> =
        catalog::broken().into_iter().filter(|fall| fall.rules.name == broken.name).collect();
    assert!(!falls.is_empty(), "{} are not in the catalog", broken.name);
    for fall in falls {
        way(fall);
        if catalog::HOLDS.iter().all(|case| case.setup != fall.setup) {
            let real = search(fall.setup, Rules::REAL);
            assert!(real.refuted.is_empty(), "{:#?}", real.refuted);
        }
    }
}

/// The real rules fall here.
fn promises_nothing(name: &str, property: &str) -> Vec<Step> {
    let limit = catalog::limits().into_iter().find(|fall| fall.setup.name == name).unwrap();
    assert_eq!(limit.property, property);
    way(limit)
}

#[test]
fn peer_revocations_publishing_and_closing_hold() {
    holds(catalog::PEER_REVOCATIONS);
}

#[test]
fn peer_signatures_hold() {
    holds(catalog::PEER_SIGNATURES);
}

#[test]
fn peer_both_sides_hold() {
    holds(catalog::PEER_BOTH_SIDES);
}

#[test]
fn peer_with_a_witness_holds() {
    holds(catalog::PEER_WITH_WITNESS);
}

#[test]
fn witness_revocations_hold() {
    holds(catalog::WITNESS_REVOCATIONS);
}

#[test]
fn witness_closing_holds() {
    holds(catalog::WITNESS_CLOSING);
}

#[test]
fn witness_publishing_holds() {
    holds(catalog::WITNESS_PUBLISHING);
}

#[test]
fn witness_signatures_hold() {
    holds(catalog::WITNESS_SIGNATURES);
}

#[test]
fn witness_two_signatures_hold() {
    holds(catalog::WITNESS_TWO_SIGNATURES);
}

#[test]
fn witness_with_a_peer_that_forgets_holds() {
    holds(catalog::WITNESS_FORGETFUL);
}

#[test]
fn a_missing_witness_is_waited_for_whatever_the_peer_forgets() {
    holds(catalog::WAITING);
}

#[test]
fn a_missing_witness_is_waited_for_whatever_the_peer_says() {
    holds(catalog::WAITING_LIED_TO);
}

#[test]
fn near_enough_numbers_fall() {
    falls(Rules::near_enough());
}

#[test]
fn guessed_signatures_fall() {
    falls(Rules::signatures_guessed());
}

#[test]
fn a_node_that_cannot_tell_its_signatures_is_safe_and_waits() {
    let found = search(catalog::PEER_SIGNATURES.setup, Rules::signatures_unknown());
    let refuted: Vec<&str> = found.refuted.into_keys().collect();
    assert_eq!(refuted, [CLEARED], "it is never cleared, and signs nothing twice");
}

#[test]
fn a_forgotten_latch_falls() {
    falls(Rules::latch_forgotten());
}

#[test]
fn a_backup_taken_for_a_witness_falls() {
    falls(Rules::backup_clears());
}

#[test]
fn a_report_of_an_older_session_falls() {
    falls(Rules::old_reports());
}

#[test]
fn a_witness_written_after_sending_falls() {
    falls(Rules::witness_last());
}

#[test]
fn closing_on_a_peer_that_has_forgotten_falls() {
    falls(Rules::forgotten_is_closed_on());
}

#[test]
fn a_clone_without_fencing_falls() {
    falls(Rules::unfenced());
}

#[test]
fn ignored_epochs_fall() {
    falls(Rules::epochs_ignored());
}

#[test]
fn a_clear_that_does_not_store_its_epoch_falls() {
    falls(Rules::epoch_not_stored());
}

#[test]
fn entries_under_the_epoch_of_the_move_fall() {
    falls(Rules::epoch_of_the_move());
}

#[test]
fn publishing_without_the_witness_falls() {
    falls(Rules::silent_publication());
}

#[test]
fn an_unconfirmed_spend_that_is_ignored_falls() {
    falls(Rules::unconfirmed_ignored());
}

#[test]
fn a_lying_peer_that_is_trusted_falls() {
    falls(Rules::peer_trusted());
}

#[test]
fn the_literal_reading_falls_by_a_revocation_that_never_left() {
    for name in ["the literal reading, peer", "the literal reading, witness"] {
        let way = promises_nothing(name, LITERAL);
        let left = |step: &&Step| matches!(step, Step::Send(..));
        assert_eq!(way.iter().find(left), None, "nothing has left");
    }
}

#[test]
fn nothing_fences_a_clone_under_peer() {
    promises_nothing("a clone beside the original, peer", NOT_PUNISHED);
}

#[test]
fn a_peer_that_counts_what_it_answered_lets_a_number_be_signed_again() {
    promises_nothing("answered signatures, peer", SIGNED_ONCE);
}

#[test]
fn a_message_of_an_older_session_outdates_the_peers_word() {
    promises_nothing("messages of an older session, peer", NOT_PUNISHED);
}

#[test]
fn a_peer_that_forgets_what_we_forgot_clears_us() {
    promises_nothing("a peer that forgets", NOT_PUNISHED);
}

#[test]
fn a_backup_that_lacks_an_epoch_alone_is_blocked_needlessly() {
    promises_nothing("a backup that lacks an epoch alone", CLEARED);
}

#[test]
fn a_memory_that_is_resumed_is_not_fenced() {
    promises_nothing("a memory that is resumed", SIGNED_ONCE);
}

#[test]
fn one_configuration_gives_one_search() {
    let [one, other] = [(); 2].map(|()| search(catalog::PEER_SIGNATURES.setup, Rules::REAL));
    assert_eq!((one.states, one.states_unique), (other.states, other.states_unique));
}
