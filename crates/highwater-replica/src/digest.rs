//! The whole of a replica in one number: the sum of all values' tags modulo 2^256.

use serde::{Deserialize, Serialize};

/// What one value adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tag(pub(super) [u8; 32]);

/// Values, and the sum of their tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sum {
    pub(super) count: u64,
    #[serde(with = "hex::serde")]
    digest: [u8; 32],
}

impl Sum {
    pub(super) fn add(&mut self, tag: Tag) {
        self.count += 1;
        self.digest = plus(self.digest, tag.0, false);
    }

    pub(super) fn subtract(&mut self, tag: Tag) {
        self.count = self.count.saturating_sub(1);
        // The two's complement: all bits turned, and one.
        self.digest = plus(self.digest, tag.0.map(|byte| !byte), true);
    }
}

/// The sum of two little-endian numbers, and 1 where `carry` says so.
fn plus(mut a: [u8; 32], b: [u8; 32], carry: bool) -> [u8; 32] {
    let mut carry = u16::from(carry);
    for (a, b) in a.iter_mut().zip(b) {
        let sum = u16::from(*a) + u16::from(b) + carry;
        *a = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_taken_away_in_any_order() {
        let tags: Vec<Tag> = (0u8..50).map(|n| Tag([n.wrapping_mul(97); 32])).collect();
        let mut sum = Sum::default();
        tags.iter().for_each(|tag| sum.add(*tag));
        tags.iter().rev().for_each(|tag| sum.subtract(*tag));
        assert_eq!(sum, Sum::default());
        sum.subtract(Tag([1; 32]));
        sum.add(Tag([1; 32]));
        assert_eq!(sum.digest, [0; 32]);
    }
}
