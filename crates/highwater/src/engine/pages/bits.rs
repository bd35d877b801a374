//! One bit for each page.

use crate::engine::pages::{PageFault, Result};

const WORD_BITS: u64 = 64;

/// A set of page numbers.
pub(crate) struct Bits {
    words: Vec<u64>,
    len: u64,
    count: u64,
}

impl Bits {
    /// An empty set of numbers below `len`.
    pub(crate) fn new(len: u64) -> Result<Bits> {
        let large = || PageFault::Io(std::io::ErrorKind::OutOfMemory.into());
        let size = usize::try_from(len.div_ceil(WORD_BITS)).map_err(|_| large())?;
        let mut words = Vec::new();
        words.try_reserve_exact(size).map_err(|_| large())?;
        words.resize(size, 0);
        Ok(Bits { words, len, count: 0 })
    }

    fn place(&self, number: u64) -> Option<(usize, u64)> {
        let bit = 1_u64.checked_shl((number % WORD_BITS) as u32)?;
        let word = usize::try_from(number / WORD_BITS).ok()?;
        (number < self.len).then_some((word, bit))
    }

    /// Whether `number` is in the set.
    pub(crate) fn contains(&self, number: u64) -> bool {
        let Some((word, bit)) = self.place(number) else { return false };
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds `number`; false where it was in the set, or can't be.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let Some((word, bit)) = self.place(number) else { return false };
        let Some(word) = self.words.get_mut(word) else { return false };
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.count = self.count.saturating_add(1);
        true
    }

    /// How many numbers are in the set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The first number that is in neither set.
    pub(crate) fn first_in_neither(&self, other: &Bits) -> Option<u64> {
        let pairs = self.words.iter().zip(&other.words);
        let (index, word) =
            pairs.map(|(one, two)| !(one | two)).enumerate().find(|(_, word)| *word != 0)?;
        let base = u64::try_from(index).ok()?.checked_mul(WORD_BITS)?;
        let number = base.checked_add(u64::from(word.trailing_zeros()))?;
        (number < self.len).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_added_once_and_below_the_length() {
        let mut bits = Bits::new(70).unwrap();
        assert!(bits.insert(0) && bits.insert(69) && !bits.insert(69) && !bits.insert(70));
        assert!(bits.contains(69) && !bits.contains(68) && !bits.contains(u64::MAX));
        assert_eq!(bits.count(), 2);
    }

    #[test]
    fn the_first_number_in_neither_set_is_found() {
        let (mut one, mut two) = (Bits::new(66).unwrap(), Bits::new(66).unwrap());
        (0..66)
            .for_each(|number| assert!([&mut one, &mut two][number as usize % 2].insert(number)));
        assert_eq!(one.first_in_neither(&two), None);
        let mut three = Bits::new(66).unwrap();
        (0..65).for_each(|number| assert!(three.insert(number)));
        assert_eq!(three.first_in_neither(&Bits::new(66).unwrap()), Some(65));
    }
}
