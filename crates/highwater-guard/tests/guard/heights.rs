//! One counter: never at or below the mark, whatever is restored and whoever has forgotten.

use core::cell::RefCell;

use highwater_guard::{
    Basis, HeightEvidence, HeightGuard, HeightRefusal, HeightVerdict, HeightWitness, Reason,
};
use proptest::prelude::*;

fn witness(height: u64) -> HeightWitness {
    HeightWitness { height, continuous: true, owned: true }
}

fn restored(mark: u64, evidence: HeightEvidence) -> HeightGuard {
    HeightGuard::restored(mark, &evidence)
}

fn waits(guard: &HeightGuard, reason: Reason) {
    assert_eq!(guard.verdict(), HeightVerdict::Wait(reason));
}

fn clear(guard: &HeightGuard) -> bool {
    matches!(guard.verdict(), HeightVerdict::Clear(_))
}

/// Signs, and says whether it did.
fn sign(guard: &mut HeightGuard, height: u64) -> bool {
    guard.sign(height, |_| Ok::<(), ()>(()), |signed| assert_eq!(signed, height)).is_ok()
}

#[test]
fn nothing_is_signed_at_or_below_the_mark() {
    let mut guard = HeightGuard::new(41);
    let at_or_below = Err(HeightRefusal::AtOrBelow { mark: 41 });
    for height in [0, 40, 41] {
        let signed = guard.sign(height, |_| -> Result<(), ()> { panic!("persisted") }, |_| ());
        assert_eq!(signed, at_or_below);
    }
    assert!(sign(&mut guard, 42));
    assert!(!sign(&mut guard, 42), "signed twice");
    assert!(sign(&mut guard, 50), "heights may be left out");
    assert!(!sign(&mut guard, 49), "one that was left out is not signed later");
    assert_eq!(guard.mark(), 50);
    assert!(sign(&mut guard, u64::MAX));
    assert!(!sign(&mut guard, u64::MAX));
}

#[test]
fn the_mark_is_durable_before_the_signature_exists() {
    let order = RefCell::new(Vec::new());
    let mut guard = HeightGuard::new(7);
    let persist = |height| {
        order.borrow_mut().push(("persist", height));
        Ok::<(), ()>(())
    };
    guard.sign(8, persist, |height| order.borrow_mut().push(("sign", height))).unwrap();
    assert_eq!(*order.borrow(), [("persist", 8), ("sign", 8)]);
}

#[test]
fn where_the_mark_is_not_durable_nothing_is_signed_and_the_height_stays_free() {
    let mut guard = HeightGuard::new(7);
    let refused = guard.sign(8, |_| Err("disk full"), |_| -> () { panic!("signed") });
    assert_eq!(refused, Err(HeightRefusal::NotPersisted("disk full")));
    assert_eq!(guard.mark(), 7);
    assert!(sign(&mut guard, 8));
}

#[test]
fn a_restored_signer_waits_without_a_witness() {
    waits(&restored(41, HeightEvidence::default()), Reason::NothingHeard);
    let told = HeightEvidence { backup: Some(50), witness: None, seen: Some(60) };
    let mut guard = restored(41, told);
    waits(&guard, Reason::NothingHeard);
    assert_eq!(guard.mark(), 60, "what others have seen raises the mark, and clears nothing");
    let refused = guard.sign(100, |_| -> Result<(), ()> { panic!("persisted") }, |_| ());
    assert_eq!(refused, Err(HeightRefusal::Quarantined(Reason::NothingHeard)));
}

#[test]
fn a_witness_clears_at_its_own_height() {
    let mut guard =
        restored(41, HeightEvidence { witness: Some(witness(50)), ..Default::default() });
    assert_eq!(guard.verdict(), HeightVerdict::Clear(Basis::Witness));
    assert_eq!(guard.mark(), 50);
    assert!(!sign(&mut guard, 50));
    assert!(sign(&mut guard, 51));
}

#[test]
fn a_witness_behind_anybody_has_forgotten() {
    let behind = |mark, backup, seen| {
        restored(mark, HeightEvidence { backup, witness: Some(witness(50)), seen })
    };
    assert!(clear(&behind(50, Some(50), Some(50))));
    for guard in [behind(51, None, None), behind(0, Some(51), None), behind(0, None, Some(51))] {
        waits(&guard, Reason::WitnessForgot);
        assert_eq!(guard.mark(), 51);
    }
}

#[test]
fn a_witness_that_is_not_ours_or_was_off_does_not_clear() {
    for (continuous, owned) in [(false, true), (true, false), (false, false)] {
        let weak = HeightWitness { height: 50, continuous, owned };
        let guard = restored(41, HeightEvidence { witness: Some(weak), ..Default::default() });
        waits(&guard, Reason::WitnessNeeded);
        assert_eq!(guard.mark(), 50);
    }
}

#[test]
fn a_release_is_recorded_first_and_never_lowers_the_mark() {
    let mut guard = restored(41, HeightEvidence::default());
    assert_eq!(guard.release(60, |_| Err("disk full")), Err("disk full"));
    waits(&guard, Reason::NothingHeard);
    assert_eq!(guard.mark(), 41);
    let mut recorded = None;
    guard
        .release(20, |mark| {
            recorded = Some(mark);
            Ok::<(), ()>(())
        })
        .unwrap();
    assert_eq!(recorded, Some(41));
    assert!(!sign(&mut guard, 41));
    assert!(sign(&mut guard, 42));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is tried, in whatever order, with failures and restores in between: no height is ever
    /// signed twice, nor one below another, as long as the witness keeps what it was told.
    #[test]
    fn no_height_is_signed_twice_through_crashes_and_restores(
        steps in prop::collection::vec((0_u8..4, 0_u64..12), 1..40),
    ) {
        let mut signed: Vec<u64> = Vec::new();
        let (mut remote, mut local) = (0, 0);
        let mut backup = 0;
        let mut guard = HeightGuard::new(0);
        for (step, height) in steps {
            match step {
                // Signs: witness first, then locally.
                0 => drop(guard.sign(height, |mark| {
                    (remote, local) = (mark, mark);
                    Ok::<(), ()>(())
                }, |height| signed.push(height))),
                // Crashes between the witness and the disk.
                1 => {
                    let crashed = guard.sign(height, |mark| {
                        remote = mark;
                        Err(())
                    }, |_| panic!("signed"));
                    prop_assert!(crashed.is_err());
                    let evidence =
                        HeightEvidence { witness: Some(witness(remote)), ..Default::default() };
                    guard = HeightGuard::restored(local, &evidence);
                }
                2 => backup = local,
                _ => {
                    local = backup;
                    let evidence = HeightEvidence {
                        backup: Some(backup),
                        witness: Some(witness(remote)),
                        seen: signed.last().copied(),
                    };
                    guard = HeightGuard::restored(local, &evidence);
                }
            }
            prop_assert!(clear(&guard), "the witness forgot nothing");
        }
        prop_assert!(signed.is_sorted_by(|a, b| a < b), "{signed:?}");
    }
}
