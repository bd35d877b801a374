//! A local directory as what is behind a store: driven by the thread that calls.

use std::ops::Range;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path as Name;
use tokio::task::JoinHandle;

use super::{LocalStore, Upload};
use crate::direct::AlignedBuffer;
use crate::error::Result;
use crate::vault::medium::{Medium, Way};
use crate::vault::runtime::Runtime;

pub(in crate::vault) struct LocalMedium {
    store: Arc<LocalStore>,
    objects: Arc<dyn ObjectStore>,
}

impl LocalMedium {
    pub(in crate::vault) fn new(store: LocalStore) -> LocalMedium {
        let store = Arc::new(store);
        let objects: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
        LocalMedium { store, objects }
    }
}

impl Medium for LocalMedium {
    fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    fn collect_temporary(&self) -> Result<()> {
        self.store.collect_leftovers()
    }

    fn read(
        &self,
        name: &Name,
        range: Range<u64>,
        buffer: &mut AlignedBuffer,
    ) -> Option<object_store::Result<()>> {
        Some(self.store.read(name, range, buffer))
    }

    fn begin<'a>(&'a self, _: &'a Runtime, name: &str) -> Result<Box<dyn Way + 'a>> {
        let upload =
            self.store.begin(&Name::from(name)).map_err(|error| self.error(name, error))?;
        Ok(Box::new(IntoDirectory { medium: self, name: name.to_owned(), upload }))
    }
}

/// Into a directory, by the call that hands the bytes over. Dropped, its file is removed.
struct IntoDirectory<'a> {
    medium: &'a LocalMedium,
    name: String,
    upload: Upload,
}

impl Way for IntoDirectory<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.upload.append(bytes).map_err(|error| self.medium.error(&self.name, error))
    }

    fn finish(mut self: Box<Self>) -> Result<Option<JoinHandle<Result<()>>>> {
        let ended = self.upload.end();
        ended.map(|_| None).map_err(|error| self.medium.error(&self.name, error))
    }

    fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
