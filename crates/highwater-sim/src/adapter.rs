//! What Highwater needs of a node to mark its database: which channels there are, and the mark.

use std::path::Path;

use highwater::Result;
use highwater::guard::{Adapter, ChannelRecord, GuardedStore, Phase};
use highwater_guard::{Channel as _, Ours};

use crate::store::{SqliteStore, Store as _};

/// Opens the channel database of a node directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeAdapter;

impl Adapter for NodeAdapter {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        Ok(Box::new(SqliteStore::open(dir, false)?))
    }
}

impl GuardedStore for SqliteStore {
    fn channels(&mut self) -> Result<Vec<ChannelRecord>> {
        let stored = self.load()?;
        // Nothing is signed yet for an offer. A channel is signed for before it is funded, and may be
        // funded at any moment since.
        let offers = stored.offers.into_iter().map(|offer| ChannelRecord {
            id: offer.id.into(),
            phase: Phase::Funding,
            ours: Ours { signed: Some(0), ..Ours::default() },
        });
        let channels = stored.channels.into_iter().map(|stored| ChannelRecord {
            id: stored.channel.id().to_string(),
            phase: if stored.closed { Phase::Closed } else { Phase::Open },
            ours: stored.channel.ours(),
        });
        Ok(offers.chain(channels).collect())
    }

    fn mark_stale(&mut self, id: &str) -> Result<()> {
        self.mark(id)
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        let marked = self.load()?.channels.into_iter().filter(|stored| stored.stale.is_some());
        Ok(marked.map(|stored| stored.channel.id().to_string()).collect())
    }
}
