//! The audit file: who has asked for what that changes something, and who was refused.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use highwater::ids::Time;
use highwater::{Error, Kind, Result};
use serde::Serialize;

/// One line of the file, as JSON.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    pub(crate) time: Time,
    /// The label of the token; `null` where there was none that is known.
    pub(crate) caller: Option<&'a str>,
    pub(crate) address: IpAddr,
    pub(crate) method: &'a str,
    /// What the call was about: a node, a handle, a channel.
    pub(crate) about: &'a str,
    /// `allowed`, before it is done; `denied`; `unauthenticated`; the kind of the error where an allowed
    /// call has failed.
    pub(crate) outcome: &'a str,
}

/// A file that only grows, mode 0600. It is opened for each line, so that it can be rotated by renaming.
pub(crate) struct Audit {
    path: PathBuf,
    writing: Mutex<()>,
}

impl Audit {
    pub(crate) fn new(path: PathBuf) -> Audit {
        Audit { path, writing: Mutex::default() }
    }

    /// Fails where no line can be written.
    pub(crate) fn try_open(&self) -> Result<()> {
        self.open().map(drop)
    }

    /// Writes a line, durably. A call that can't be recorded must not be served.
    ///
    /// # Errors
    /// Unavailable where it can't be written.
    pub(crate) fn write(&self, line: &Line<'_>) -> Result<()> {
        let mut text = serde_json::to_string(line)
            .map_err(|error| Error::bug("an audit line can't be written").source(error))?;
        text.push('\n');
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.open()?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|error| self.failed(error))
    }

    fn open(&self) -> Result<std::fs::File> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        opened.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::new(Kind::Unavailable, format!("the audit file can't be written: {error}"))
            .entry(self.path.display().to_string())
            .hint("mend it: what can't be recorded is not done")
            .source(error)
    }
}
