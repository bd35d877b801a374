//! CometBFT and every Cosmos chain: the file in which a signer keeps what it signed last
//! (`privval/file.go` of CometBFT).

use highwater::ids::RelPath;
use highwater::{Error, Result};
use serde::Deserialize;

use crate::floor::{self, Signer};
use crate::profile::{Content, Files, Marks, Profile};

/// Where it keeps what it has signed last.
pub(crate) const STATE: &str = "data/priv_validator_state.json";
/// The mark of its height. Round and step fall with each height: no mark can be one of them.
pub(crate) const MARK: &str = "height";
/// How its copies go on, and what that costs.
pub(crate) const WAY_OUT: &str = "Its release asks for a floor, the chain's latest height, looked up once the original \
    has stopped for good. That costs the one or two heights that it then refuses to sign.";
const KEY: &str = "config/priv_validator_key.json";

pub(crate) struct CometBft;

/// What was signed last. The height is a text.
#[derive(Deserialize)]
struct LastSignState {
    height: String,
}

/// The height in a state file of this form.
pub(crate) fn height(content: &[u8], entry: &str) -> Result<u64> {
    let damaged = |why: String| {
        Error::corrupt(format!("the signer's state can't be read: {why}")).with_entry(entry)
    };
    let state: LastSignState =
        serde_json::from_slice(content).map_err(|error| damaged(error.to_string()))?;
    state.height.parse().map_err(|_| damaged(format!("height {}", state.height)))
}

impl Profile for CometBft {
    fn name(&self) -> &'static str {
        "cometbft"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        // Where another process signs, its key is not here, and the state is of nobody.
        files.with(STATE).into_iter().filter(|at| files.has(at, KEY)).collect()
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a validator that has forgotten what it signed signs the same height again, and is slashed for it",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &[STATE]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(WAY_OUT)
    }

    fn signer(&self) -> Option<&dyn Signer> {
        Some(&floor::COMETBFT)
    }

    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        marks.insert(MARK.to_owned(), height(&content.file(STATE)?, STATE)?);
        Ok(())
    }
}
