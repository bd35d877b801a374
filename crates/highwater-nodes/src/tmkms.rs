//! tmkms, which signs for CometBFT nodes elsewhere: `tmkms.toml`, and for each chain a file in which it keeps
//! what it signed last (`src/chain/state.rs` of tmkms).

use std::os::unix::ffi::OsStrExt as _;

use highwater::Result;
use highwater::ids::{RelPath, encode};
use highwater::vault::channel_mark;

use crate::cometbft;
use crate::floor::{self, Signer};
use crate::profile::{Content, Files, Marks, Profile};

const CONFIG: &str = "tmkms.toml";
/// Where its own `init` puts the states of chains.
const STATES: &str = "state";
/// How they are called where its configuration does not say.
const UNNAMED: &[u8] = b"_priv_validator_state.json";

pub(crate) struct Tmkms;

/// Whether a file right in the directory, or in that of the states, is the state of a chain.
fn is_state(at: &RelPath, path: &RelPath) -> bool {
    let name = path.name().as_bytes();
    let parent = path.parent();
    (parent.as_ref() == Some(&at.join(STATES.as_ref())) && name.ends_with(b".json"))
        || (parent.as_ref() == Some(at) && name.ends_with(UNNAMED))
}

/// The states of all its chains.
pub(crate) fn states(at: &RelPath, files: &Files<'_>) -> Vec<RelPath> {
    let beside = files.inside(at, STATES).chain(files.right_in(at));
    beside.filter(|path| is_state(at, path)).cloned().collect()
}

/// The mark of the height in a state.
pub(crate) fn mark(state: &RelPath) -> String {
    let name = state.name().as_bytes();
    let stem = name.strip_suffix(UNNAMED).or(name.strip_suffix(b".json")).unwrap_or(name);
    channel_mark(&encode(stem), cometbft::MARK)
}

impl Profile for Tmkms {
    fn name(&self) -> &'static str {
        "tmkms"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with(CONFIG).into_iter().filter(|at| !states(at, files).is_empty()).collect()
    }

    fn danger(&self) -> Option<&'static str> {
        cometbft::CometBft.danger()
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[]
    }

    fn way_out(&self) -> Option<&'static str> {
        Some(cometbft::WAY_OUT)
    }

    fn signer(&self) -> Option<&dyn Signer> {
        Some(&floor::TMKMS)
    }

    fn entry_points(&self) -> &'static [&'static str] {
        &[CONFIG]
    }

    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        let at = content.at();
        for path in content.all().into_iter().filter(|path| is_state(at, path)) {
            let height = cometbft::height(&content.head(&path, u64::MAX)?, &path.to_string())?;
            marks.insert(mark(&path), height);
        }
        Ok(())
    }
}
