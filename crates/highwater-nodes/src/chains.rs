//! Nodes of chains, of which an old copy harms nobody: what they fetch again, or build from what they have,
//! can be left out.

use highwater::ids::RelPath;

use crate::profile::{Files, Profile};

/// One of them.
pub(crate) struct Chain {
    name: &'static str,
    /// What lies in its directory, each of these.
    marks: &'static [&'static str],
    must: &'static [&'static [&'static str]],
    lean: &'static [&'static str],
}

/// Bitcoin Core. Wallets are what must be there, where it has any; `blocks` and the rest are fetched again.
pub(crate) const BITCOIND: Chain = Chain {
    name: "bitcoind",
    marks: &["blocks", "chainstate"],
    must: &[],
    lean: &["blocks", "chainstate", "indexes"],
};

/// A CKB node.
pub(crate) const CKB: Chain =
    Chain { name: "ckb", marks: &["ckb.toml", "data/db"], must: &[], lean: &["data/db"] };

/// reth.
pub(crate) const RETH: Chain = Chain {
    name: "reth",
    marks: &["db", "static_files", "discovery-secret"],
    must: &[],
    lean: &["db", "static_files"],
};

/// Go Ethereum.
pub(crate) const GETH: Chain = Chain {
    name: "geth",
    marks: &["geth/chaindata", "geth/nodekey"],
    must: &[],
    lean: &["geth/chaindata"],
};

/// electrs, an index of Bitcoin's chain.
pub(crate) const ELECTRS: Chain =
    Chain { name: "electrs", marks: &["electrs.toml", "db"], must: &[], lean: &["db"] };

impl Profile for Chain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        let Some((first, others)) = self.marks.split_first() else { return Vec::new() };
        let whole = |at: &RelPath| others.iter().all(|name| files.has(at, name));
        files.with(first).into_iter().filter(whole).collect()
    }

    fn danger(&self) -> Option<&'static str> {
        None
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        self.must
    }

    fn lean(&self) -> &'static [&'static str] {
        self.lean
    }
}
