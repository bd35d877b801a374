//! Signers by the rules of their programs, rolled back at every step, and let go above a floor: what the
//! original has signed none of them signs again.

mod heights;
mod slots;

use fastrand::Rng;

use super::*;

/// How a signer comes to an older state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rollback {
    /// The last write is lost: a power cut.
    OneStep,
    /// An old snapshot is restored.
    Many,
    /// A copy of what the original has this moment, which then goes on for a while.
    Clone,
    /// A copy of what was itself restored.
    Chain,
}

const ROLLBACKS: [Rollback; 4] =
    [Rollback::OneStep, Rollback::Many, Rollback::Clone, Rollback::Chain];

fn numbers(numbers: &[(&str, u64)]) -> BTreeMap<String, u64> {
    numbers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn stated(basis: Basis, given: &[(&str, u64)]) -> Stated {
    Stated { numbers: numbers(given), basis }
}
