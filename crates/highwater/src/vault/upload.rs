//! A large object on its way into a store. It is visible under its name, whole, once it is finished,
//! or never.

use crate::error::Result;

use super::medium::{Arrival, Medium, Way};

/// A large object on its way.
pub(crate) struct Upload<'a> {
    way: Box<dyn Way<'a> + 'a>,
    bytes: u64,
}

impl<'a> Upload<'a> {
    pub(super) fn begin(medium: &'a dyn Medium, name: &str) -> Result<Upload<'a>> {
        Ok(Upload { way: medium.begin(name)?, bytes: 0 })
    }

    /// Adds bytes at the end.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.way.write(bytes)
    }

    /// Ends the object. It is visible and durable under its name once [`Ending::wait`] returns;
    /// until then its last parts may be on their way.
    pub(crate) fn finish(self) -> Result<Ending<'a>> {
        Ok(Ending { arrival: self.way.finish()?, bytes: self.bytes })
    }

    /// Gives the object up; nothing of it stays.
    pub(crate) fn abort(self) -> Result<()> {
        self.way.abort()
    }
}

/// A large object that was ended, and may not have arrived.
pub(crate) struct Ending<'a> {
    /// `None`: it has.
    arrival: Option<Arrival<'a>>,
    bytes: u64,
}

impl Ending<'_> {
    /// Waits until the object is visible and durable; its size.
    pub(crate) fn wait(self) -> Result<u64> {
        if let Some(wait) = self.arrival {
            wait()?;
        }
        Ok(self.bytes)
    }
}
