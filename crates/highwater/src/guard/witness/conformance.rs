//! What every place of a witness promises, as a suite: [`run`] panics on a broken promise.

use super::WitnessStore;

/// Runs the suite on a place that holds nothing yet. `again` opens the same place once more.
pub fn run(again: &dyn Fn() -> Box<dyn WitnessStore>) {
    let (one, other) = (again(), again());
    let stands = |number: u64, document: &[u8]| {
        for store in [&one, &other] {
            let newest = store.newest().expect("it can be read");
            assert_eq!(newest, Some((number, document.to_vec())));
        }
    };
    let put = |store: &dyn WitnessStore, number: u64, document: &[u8]| {
        store.put_new(number, document).expect("it can be written")
    };

    assert_eq!(one.newest().expect("it can be read"), None, "nothing yet");
    assert!(put(&*one, 1, b"{\"version\":1}"));
    stands(1, b"{\"version\":1}");

    // Of two that have read the same newest record, one wins.
    assert!(put(&*other, 2, b"{\"of\":\"other\"}"));
    assert!(!put(&*one, 2, b"{\"of\":\"one\"}"));
    stands(2, b"{\"of\":\"other\"}");
    assert!(!put(&*one, 1, b"{\"of\":\"one\"}"));
    stands(2, b"{\"of\":\"other\"}");

    // Who sleeps for long wakes up to a number that is free, and does not get it.
    for number in 3..=100 {
        assert!(put(&*other, number, format!("{{\"number\":{number}}}").as_bytes()));
        for asleep in [1, 2, number / 2, number - 1, number] {
            assert!(!put(&*one, asleep, b"{\"of\":\"one\"}"), "{asleep} at {number}");
        }
        stands(number, format!("{{\"number\":{number}}}").as_bytes());
    }
    assert!(put(&*one, 101, b"{}"), "nothing of what was refused stands in the way");
    stands(101, b"{}");
}
