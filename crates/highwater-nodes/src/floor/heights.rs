//! Heights, rounds and steps: the rule of CometBFT (`privval/file.go`, `CheckHRS`) and of tmkms
//! (`src/chain/state.rs`), whose state files differ in little.
//!
//! Both refuse a lower height, at the same height a lower round, and at the same round a lower step. A round
//! that is higher they sign, so a floor of a height and its last step alone allows a second signature in the
//! next round: the floor has the last round that there is. A chain whose latest committed height is N is at
//! work on N + 1, and the original may have signed that: the floor lies there.

use std::collections::BTreeMap;
use std::fmt;

use highwater::guard::Basis;
use highwater::ids::RelPath;
use highwater::{Error, Result};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use super::{Raised, Signer, Stated, needed, no_place, too_low};
use crate::profile::{Files, below};

/// The highest round: a signed number of 32 bits.
const ROUND_LAST: u64 = i32::MAX as u64;
/// The precommit of CometBFT; tmkms counts its steps from 0, and has none so high.
const STEP_LAST: u64 = 3;
/// Heights are signed numbers of 64 bits.
const HEIGHT_MAX: u64 = i64::MAX as u64;
/// Such a file has some hundred bytes.
const BYTES_MAX: u64 = 1 << 20;
/// What a signer repeats where it is asked for the same again: of another height it would be wrong.
const LAST_SIGNED: [&str; 2] = ["signature", "signbytes"];
/// What tmkms has signed for; it must be there.
const BLOCK: &str = "block_id";

/// A signer by this rule.
pub(crate) struct Heights {
    /// Which files are its state.
    files: fn(&RelPath, &Files<'_>) -> Vec<RelPath>,
    /// The mark of its height.
    mark: fn(&RelPath) -> String,
}

/// The signer inside a CometBFT node.
pub(crate) const COMETBFT: Heights = Heights {
    files: |at, _| vec![below(at, crate::cometbft::STATE)],
    mark: |_| crate::cometbft::MARK.to_owned(),
};

/// tmkms, which signs for several chains.
pub(crate) const TMKMS: Heights = Heights { files: crate::tmkms::states, mark: crate::tmkms::mark };

impl Signer for Heights {
    fn files(&self, at: &RelPath, files: &Files<'_>) -> Vec<RelPath> {
        (self.files)(at, files)
    }

    fn names(&self) -> &'static [&'static str] {
        &["height", "round"]
    }

    fn asks(&self) -> &'static [&'static str] {
        &["height"]
    }

    fn bytes_max(&self) -> u64 {
        BYTES_MAX
    }

    fn seen(&self, file: &RelPath, marks: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let height = marks.get(&(self.mark)(file));
        height.map(|height| ("height".to_owned(), *height)).into_iter().collect()
    }

    /// Of rounds nothing is recorded: all below the height is refused, and what was signed of it is for a release to
    /// state.
    fn raise_to_seen(&self, content: &[u8], seen: &BTreeMap<String, u64>) -> Result<Raised> {
        let mut file = SignerFile::read(content)?;
        let has = file.position()?;
        let height = seen.get("height").copied().unwrap_or_default();
        let floor = Position { height, round: 0, step: 0 };
        let (from, to) = (has.numbers(), floor.numbers());
        if height <= has.height || height > HEIGHT_MAX {
            return Ok(Raised { content: None, to: from.clone(), from });
        }
        file.set(floor);
        Ok(Raised { content: Some(file.write(content)?), from, to })
    }

    fn raise(
        &self,
        content: &[u8],
        stated: &Stated,
        seen: &BTreeMap<String, u64>,
    ) -> Result<Raised> {
        let mut file = SignerFile::read(content)?;
        let has = file.position()?;
        let seen = seen.get("height").copied().unwrap_or_default();
        let floor = floor(stated, has, seen)?;
        let (from, to) = (has.numbers(), floor.numbers());
        if floor == has {
            return Ok(Raised { content: None, from, to });
        }
        file.set(floor);
        let content = file.write(content)?;
        Ok(Raised { content: Some(content), from, to })
    }
}

/// How far a signer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    height: u64,
    round: u64,
    step: u64,
}

impl Position {
    fn numbers(self) -> BTreeMap<String, u64> {
        let Position { height, round, step } = self;
        let numbers = [("height", height), ("round", round), ("step", step)];
        numbers.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// The floor that follows from what is stated, where the file is at `has` and backups have seen the height
/// `seen`.
fn floor(stated: &Stated, has: Position, seen: u64) -> Result<Position> {
    let number = |name: &str| stated.numbers.get(name).copied();
    let (height, round) = (number("height"), number("round"));
    let above = |latest: u64| match latest.checked_add(1).filter(|height| *height <= HEIGHT_MAX) {
        Some(height) => Ok(Position { height, round: ROUND_LAST, step: STEP_LAST }),
        None => Err(Error::input(format!("`height` is at most {}", HEIGHT_MAX - 1))),
    };
    match (stated.basis, height, round) {
        (Basis::Latest | Basis::NewChain | Basis::Seen, _, Some(_)) => Err(no_place("round")),
        (Basis::Latest | Basis::Seen, None, None) => Err(needed(&["height"], None)),
        (Basis::Latest | Basis::Seen, Some(latest), None) => {
            let floor = above(latest)?;
            let known = seen.max(has.height);
            if floor.height < known {
                return Err(too_low("height", latest, known));
            }
            Ok(floor)
        }
        (Basis::NewChain, None, None) => Ok(Position { height: 0, round: 0, step: 0 }),
        (Basis::NewChain, Some(latest), None) => above(latest),
        (Basis::Accepted, Some(height), Some(round)) => {
            if height > HEIGHT_MAX || round > ROUND_LAST {
                return Err(Error::input(format!(
                    "`height` is at most {HEIGHT_MAX}, and `round` at most {ROUND_LAST}"
                )));
            }
            let floor = Position { height, round, step: STEP_LAST };
            if height < seen.max(has.height) {
                return Err(too_low("height", height, seen.max(has.height)));
            }
            if floor < has {
                return Err(too_low("round", round, has.round));
            }
            Ok(floor)
        }
        (Basis::Accepted, ..) => Err(needed(&["height", "round"], None)),
    }
}

/// A state file, its fields in their order.
struct SignerFile(Vec<(String, Value)>);

impl SignerFile {
    fn read(content: &[u8]) -> Result<SignerFile> {
        serde_json::from_slice(content).map_err(|error| damaged(&error.to_string()))
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// Some numbers are texts: CometBFT's heights, tmkms's rounds too.
    fn number(&self, name: &str) -> Result<Option<u64>> {
        let read = match self.field(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        read.map(Some).ok_or_else(|| damaged(&format!("its {name} is not a number")))
    }

    fn position(&self) -> Result<Position> {
        let height = self.number("height")?.ok_or_else(|| damaged("it has no height"))?;
        let round = self.number("round")?.unwrap_or_default();
        let step = self.number("step")?.unwrap_or_default();
        if height > HEIGHT_MAX || round > ROUND_LAST || step > i8::MAX as u64 {
            return Err(damaged("a number is higher than any that is signed"));
        }
        Ok(Position { height, round, step })
    }

    /// Sets the position, in the form in which each number is there, and forgets what was signed last.
    fn set(&mut self, position: Position) {
        let Position { height, round, step } = position;
        for (name, number) in [("height", height), ("round", round), ("step", step)] {
            match self.0.iter_mut().find(|(field, _)| field == name) {
                Some((_, Value::String(text))) => *text = number.to_string(),
                Some((_, value)) => *value = number.into(),
                None => self.0.push((name.to_owned(), number.into())),
            }
        }
        self.0.retain(|(field, _)| !LAST_SIGNED.contains(&field.as_str()));
        if let Some((_, block)) = self.0.iter_mut().find(|(field, _)| field == BLOCK) {
            *block = Value::Null;
        }
    }

    /// As JSON on as many lines as before.
    fn write(&self, before: &[u8]) -> Result<Vec<u8>> {
        let trimmed = before.trim_ascii_end();
        let written = match trimmed.contains(&b'\n') {
            true => serde_json::to_vec_pretty(self),
            false => serde_json::to_vec(self),
        };
        let mut written = written.map_err(|error| {
            Error::bug("a signer's state can't be written as JSON").with_source(error)
        })?;
        written.extend_from_slice(&before[trimmed.len()..]);
        Ok(written)
    }
}

fn damaged(why: &str) -> Error {
    Error::corrupt(format!("the signer's state can't be read: {why}"))
        .with_remedy("restore the node again, or another snapshot")
}

impl<'de> Deserialize<'de> for SignerFile {
    fn deserialize<D: Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<SignerFile, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

/// Reads fields in their order. Of two with one name readers take different ones: neither is taken.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = SignerFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<SignerFile, A::Error> {
        let (mut fields, mut names) = (Vec::new(), std::collections::BTreeSet::new());
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            // Go takes a name in any case for its field.
            if !names.insert(name.to_ascii_lowercase()) {
                return Err(serde::de::Error::custom(format_args!("it has two fields {name}")));
            }
            fields.push((name, value));
        }
        Ok(SignerFile(fields))
    }
}

impl Serialize for SignerFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
