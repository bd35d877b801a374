//! The guard of one counter: a sequencer's or validator's height, or any number under which a signer
//! signs once.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::judge::{Basis, Reason};

/// What a witness remembers of a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeightWitness {
    /// The highest height that may have been signed.
    pub height: u64,
    /// It was never switched off.
    pub continuous: bool,
    /// This start has taken it over.
    pub owned: bool,
}

/// All that is known about a height besides our own memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeightEvidence {
    /// The highest one that any backup recorded.
    #[serde(default)]
    pub backup: Option<u64>,
    /// What the witness says.
    #[serde(default)]
    pub witness: Option<HeightWitness>,
    /// The highest one of ours that others have seen (the network, the settlement layer). It raises
    /// the mark, and clears nothing: they may not have seen all.
    #[serde(default)]
    pub seen: Option<u64>,
}

/// Whether a signer may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeightVerdict {
    /// Above the mark it may.
    Clear(Basis),
    /// Not yet: nobody knows what was signed last.
    Wait(Reason),
}

/// Never signs at or below the mark, and raises it durably before each signature.
///
/// ```
/// # use core::convert::Infallible;
/// # use highwater_guard::HeightGuard;
/// let mut guard = HeightGuard::new(41);
/// let persist = |_height: u64| -> Result<(), Infallible> { Ok(()) };
/// assert_eq!(guard.sign(42, persist, |height| height * 2), Ok(84));
/// assert!(guard.sign(42, persist, |height| height * 2).is_err());
/// ```
#[derive(Debug)]
pub struct HeightGuard {
    mark: u64,
    verdict: HeightVerdict,
}

/// Why a height was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeightRefusal<E> {
    /// It is at or below the mark.
    AtOrBelow {
        /// The mark.
        mark: u64,
    },
    /// The guard waits.
    Quarantined(Reason),
    /// The mark could not be made durable; nothing was signed.
    NotPersisted(E),
}

impl HeightGuard {
    /// The guard of a signer that was neither restored nor copied since it wrote `mark`.
    pub fn new(mark: u64) -> HeightGuard {
        HeightGuard { mark, verdict: HeightVerdict::Clear(Basis::Witness) }
    }

    /// The guard of a signer that remembers `mark` and may be stale. The mark becomes the highest
    /// one that anybody remembers; only a witness that is ours and was never switched off clears.
    pub fn restored(mark: u64, evidence: &HeightEvidence) -> HeightGuard {
        let witness = evidence.witness;
        let heights = [evidence.backup, witness.map(|witness| witness.height), evidence.seen];
        let highest = heights.into_iter().flatten().fold(mark, u64::max);
        let verdict = match witness {
            None => HeightVerdict::Wait(Reason::NothingHeard),
            Some(witness) if !(witness.owned && witness.continuous) => {
                HeightVerdict::Wait(Reason::WitnessNeeded)
            }
            Some(witness) if witness.height < highest => HeightVerdict::Wait(Reason::WitnessForgot),
            Some(_) => HeightVerdict::Clear(Basis::Witness),
        };
        HeightGuard { mark: highest, verdict }
    }

    /// The highest height that may have been signed.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Whether the signer may go on.
    pub fn verdict(&self) -> HeightVerdict {
        self.verdict
    }

    /// Signs `height`: `persist` makes the new mark durable, in the witness first and then locally,
    /// before `sign` is called; so a witness below our mark has forgotten. Where it fails nothing was
    /// signed, and the same height may be tried again.
    pub fn sign<T, E>(
        &mut self,
        height: u64,
        persist: impl FnOnce(u64) -> Result<(), E>,
        sign: impl FnOnce(u64) -> T,
    ) -> Result<T, HeightRefusal<E>> {
        if let HeightVerdict::Wait(reason) = self.verdict {
            return Err(HeightRefusal::Quarantined(reason));
        }
        if height <= self.mark {
            return Err(HeightRefusal::AtOrBelow { mark: self.mark });
        }
        persist(height).map_err(HeightRefusal::NotPersisted)?;
        self.mark = height;
        Ok(sign(height))
    }

    /// Lets a signer go on above `mark` by an operator's decision, once `record` has made it durable.
    pub fn release<E>(
        &mut self,
        above: u64,
        record: impl FnOnce(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mark = self.mark.max(above);
        record(mark)?;
        self.mark = mark;
        self.verdict = HeightVerdict::Clear(Basis::Witness);
        Ok(())
    }
}

impl<E: fmt::Display> fmt::Display for HeightRefusal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeightRefusal::AtOrBelow { mark } => write!(f, "at or below the mark {mark}"),
            HeightRefusal::Quarantined(_) => {
                f.write_str("quarantined: nobody knows what was signed last")
            }
            HeightRefusal::NotPersisted(error) => {
                write!(f, "the mark was not made durable: {error}")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for HeightRefusal<E> {}
