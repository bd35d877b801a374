//! A large object on its way into a store. It is visible under its name, whole, once it is finished,
//! or never.

use tokio::task::JoinHandle;

use crate::error::{Error, Result};

use super::medium::{Medium, Way};
use super::runtime::Runtime;

/// A large object on its way.
pub(crate) struct Upload<'a> {
    runtime: &'a Runtime,
    name: String,
    way: Box<dyn Way + 'a>,
    bytes: u64,
}

impl<'a> Upload<'a> {
    pub(super) fn begin(
        medium: &'a dyn Medium,
        runtime: &'a Runtime,
        name: &str,
    ) -> Result<Upload<'a>> {
        let way = medium.begin(runtime, name)?;
        Ok(Upload { runtime, name: name.to_owned(), way, bytes: 0 })
    }

    /// Adds bytes at the end.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.way.write(bytes)
    }

    /// Ends the object. It is visible and durable under its name once [`Ending::wait`] returns;
    /// until then its last parts may be on their way.
    pub(crate) fn finish(self) -> Result<Ending<'a>> {
        let Upload { runtime, name, way, bytes } = self;
        Ok(Ending { runtime, name, bytes, task: way.finish()? })
    }

    /// Gives the object up; nothing of it stays.
    pub(crate) fn abort(self) -> Result<()> {
        self.way.abort()
    }
}

/// A large object that was ended, and may not have arrived.
pub(crate) struct Ending<'a> {
    runtime: &'a Runtime,
    name: String,
    bytes: u64,
    task: Option<JoinHandle<Result<()>>>,
}

impl Ending<'_> {
    /// Waits until the object is visible and durable; its size.
    pub(crate) fn wait(self) -> Result<u64> {
        let Some(task) = self.task else { return Ok(self.bytes) };
        match self.runtime.block_on(task) {
            Ok(sent) => sent.map(|()| self.bytes),
            Err(_) => Err(Error::bug("an upload panicked").with_entry(self.name)),
        }
    }
}
