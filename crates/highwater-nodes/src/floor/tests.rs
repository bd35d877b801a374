//! Signers by the rules of their programs, rolled back at every step, and let go above a floor: what the
//! original has signed none of them signs again.

mod heights;
mod slots;

use super::*;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

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
