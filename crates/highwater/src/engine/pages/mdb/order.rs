//! The order of the keys of a tree.
//!
//! A program may compare keys in a way of its own (`mdb_set_compare`, `mdb_set_dupsort`), which leaves no
//! trace in the file. So keys that are not in the order of the flags are damage only where no program
//! can have a way of its own; elsewhere it is reported that their order was not checked.

use std::cmp::Ordering;

/// How keys are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Byte by byte, the shorter first.
    Lexical,
    /// The same from the last byte on.
    Reverse,
    /// As little-endian numbers of four or eight bytes.
    Integer,
}

/// Keys of a tree as they pass.
#[derive(Debug)]
pub(crate) struct Order {
    rule: Rule,
    /// No program compares in another way.
    certain: bool,
    last: Option<Vec<u8>>,
    /// The last one divides two pages: the key that follows may be equal to it.
    divides: bool,
    /// The first page whose keys were not in this order.
    broken: Option<u64>,
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is there twice.
    Twice,
    /// It is not in order.
    Order,
}

impl Order {
    /// For a tree whose flags name `rule`.
    pub(crate) fn new(rule: Rule, certain: bool) -> Order {
        Order { rule, certain, last: None, divides: false, broken: None }
    }

    /// The first page whose keys are not in the order of the flags, where that may be meant.
    pub(crate) fn broken(&self) -> Option<u64> {
        self.broken
    }

    /// Keys may be compared in another way from here on.
    fn uncertain(&mut self, page: u64) {
        self.certain = false;
        self.broken.get_or_insert(page);
    }

    /// A key on a leaf.
    pub(crate) fn key(&mut self, page: u64, key: &[u8]) -> Result<(), Wrong> {
        let wrong = self.check(page, key, self.divides);
        self.keep(key, false);
        wrong
    }

    /// A key on a branch, between two of its children.
    pub(crate) fn divider(&mut self, page: u64, key: &[u8]) -> Result<(), Wrong> {
        let wrong = self.check(page, key, false);
        self.keep(key, true);
        wrong
    }

    fn keep(&mut self, key: &[u8], divides: bool) {
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.divides = divides;
    }

    fn check(&mut self, page: u64, key: &[u8], may_equal: bool) -> Result<(), Wrong> {
        let Some(last) = &self.last else { return Ok(()) };
        if last == key {
            return if may_equal { Ok(()) } else { Err(Wrong::Twice) };
        }
        let Some(ordering) = compare(self.rule, last, key) else {
            self.uncertain(page);
            return Ok(());
        };
        if ordering == Ordering::Less {
            return Ok(());
        }
        if self.certain {
            return Err(Wrong::Order);
        }
        self.uncertain(page);
        Ok(())
    }
}

/// `None` where the rule does not tell.
fn compare(rule: Rule, one: &[u8], two: &[u8]) -> Option<Ordering> {
    match rule {
        Rule::Lexical => Some(one.cmp(two)),
        Rule::Reverse => Some(one.iter().rev().cmp(two.iter().rev())),
        Rule::Integer if one.len() == two.len() && matches!(one.len(), 4 | 8) => {
            Some(one.iter().rev().cmp(two.iter().rev()))
        }
        Rule::Integer => None,
    }
}
