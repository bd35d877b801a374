//! The rule is that of tmkms itself: it loads the file that a release has written, and is asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cometbft::{block, consensus};
use highwater::guard::Basis;
use highwater_nodes::floor::Stated;
use tmkms::chain::State;
use tmkms::chain::state::hook::Output;

const ROUND_LAST: u32 = 2_147_483_647;
/// Its steps: a proposal, a prevote, a precommit.
const STEPS: [i8; 3] = [0, 1, 2];

/// What it is asked to sign for; a vote for nothing where there is no block.
fn message(height: u64, round: u32, step: i8, block: Option<u8>) -> consensus::State {
    consensus::State {
        height: block::Height::try_from(height).unwrap(),
        round: block::Round::try_from(round).unwrap(),
        step,
        block_id: block.map(|byte| format!("{byte:02X}").repeat(32).parse().unwrap()),
    }
}

/// Whether tmkms signs this with the state in this file, which it then writes.
fn signs(file: &Path, message: consensus::State) -> bool {
    State::load_state(file).unwrap().update_consensus_state(message).is_ok()
}

fn raised(content: &[u8], latest: u64) -> Vec<u8> {
    let profile = highwater_nodes::profile("tmkms").unwrap();
    let numbers = BTreeMap::from([("height".to_owned(), latest)]);
    let stated = Stated { numbers, basis: Basis::Latest };
    let raised = profile.signer().unwrap().raise(content, &stated, &BTreeMap::new()).unwrap();
    raised.content.unwrap()
}

/// Every file that tmkms has written on its way, and all that it signed.
fn life(file: &Path) -> (Vec<Vec<u8>>, Vec<(u64, u32, i8)>) {
    let (mut files, mut signed) = (Vec::new(), Vec::new());
    for height in 100..112 {
        // The last height is not committed, and in its fourth round.
        for round in 0..=u32::from(height == 111) * 3 {
            for step in STEPS {
                if signs(file, message(height, round, step, Some(1))) {
                    files.push(fs::read(file).unwrap());
                    signed.push((height, round, step));
                }
            }
        }
    }
    (files, signed)
}

#[test]
fn tmkms_refuses_above_a_floor_all_that_it_signed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub-1-consensus.json");
    let (files, signed) = life(&file);
    assert!(signed.len() > 40, "{}", signed.len());
    let mut asked = 0;
    for old in &files {
        let floor = raised(old, 110);
        for &(height, round, step) in &signed {
            for block in [None, Some(1), Some(2)] {
                fs::write(&file, &floor).unwrap();
                assert!(!signs(&file, message(height, round, step, block)), "{height} {round}");
                asked += 1;
            }
        }
        for step in STEPS {
            fs::write(&file, &floor).unwrap();
            assert!(!signs(&file, message(111, ROUND_LAST, step, None)), "the last round");
        }
        fs::write(&file, &floor).unwrap();
        assert!(signs(&file, message(112, 0, 0, Some(2))), "it goes on above");
    }
    println!("{} states rolled back, {asked} times asked, nothing signed twice", files.len());
}

#[test]
fn tmkms_signs_twice_above_a_height_and_a_step_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub-1-consensus.json");
    let (_, signed) = life(&file);
    fs::write(&file, r#"{"height":"111","round":"0","step":3,"block_id":null}"#).unwrap();
    assert!(signed.contains(&(111, 1, 0)));
    assert!(signs(&file, message(111, 1, 0, Some(2))));
}

/// A height from its own hook it takes only where that is near; what its file says it takes as it is.
#[test]
fn a_floor_may_be_as_far_away_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub-1-consensus.json");
    let (files, _) = life(&file);
    let mut state = State::load_state(&file).unwrap();
    let output =
        |height: u64| Output { latest_block_height: block::Height::try_from(height).unwrap() };
    state.update_from_hook_output(output(111 + 9000)).unwrap();
    assert_eq!(state.consensus_state().height.value(), 111, "the hook's height is too far away");
    fs::write(&file, raised(&files[0], 1_000_000)).unwrap();
    assert!(!signs(&file, message(1_000_001, 5, 2, None)));
    assert!(signs(&file, message(1_000_002, 0, 0, None)));
}
