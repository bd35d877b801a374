//! Core Lightning: `lightningd.sqlite3` and `hsm_secret` in the directory of a network
//! (`wallet/db.c`, `wallet/wallet.c` of Core Lightning).

use std::collections::BTreeMap;

use highwater::backup::Wanted;
use highwater::ids::RelPath;
use highwater::{Error, Result};

use crate::profile::{Content, Files, Profile, below};
use crate::sqlite::{damaged, open};

const DATABASE: &str = "lightningd.sqlite3";

pub(crate) struct CoreLightning;

impl Profile for CoreLightning {
    fn name(&self) -> &'static str {
        "core-lightning"
    }

    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath> {
        files.with(DATABASE)
    }

    fn danger(&self) -> Option<&'static str> {
        Some(
            "a node that runs on an old database publishes commitments that it has revoked, and its peers take \
         all that is in those channels",
        )
    }

    fn must(&self) -> &'static [&'static [&'static str]] {
        &[&["hsm_secret"]]
    }

    fn lean(&self) -> &'static [&'static str] {
        &["gossip_store"]
    }

    fn wants(&self, at: &RelPath, path: &RelPath) -> Option<Wanted> {
        (*path == below(at, DATABASE)).then_some(Wanted::Whole)
    }

    /// `data_version` rises with every transaction that writes.
    fn marks(&self, content: &Content<'_>) -> Result<BTreeMap<String, u64>> {
        let database = open(content.file(DATABASE)?)?;
        let version = "SELECT intval FROM vars WHERE name = 'data_version'";
        let version: i64 = database.query_row(version, [], |row| row.get(0)).map_err(damaged)?;
        let version =
            u64::try_from(version).map_err(|_| Error::corrupt("data_version is negative"))?;
        Ok(BTreeMap::from([("data_version".to_owned(), version)]))
    }
}
