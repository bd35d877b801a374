//! The audit file: who has asked for what that changes something, and who was refused.
//!
//! What is allowed is on the disk before it is done. Refusals are a stranger's to make, as many as they
//! like: equal ones are counted, so that neither the file nor the disk is theirs to fill.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use highwater::ids::Time;
use highwater::{Env, Error, Kind, Result};
use parking_lot::Mutex;
use serde::Serialize;

use highwater_gate::network;

/// A field that a caller has a hand in is cut after this.
const TEXT_BYTES_MAX: usize = 200;
/// Equal refusals within this time are one line, which the next line of them tells the number of.
const WINDOW: Duration = Duration::from_secs(60);
/// How many kinds of refusals are counted separately; beyond them all others count as one.
const KINDS_MAX: usize = 100;
/// A file of this size is renamed, and a new one begun.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How many earlier files are kept, `.1` being the newest.
const FILES_KEPT: u32 = 4;

/// What is recorded of a call.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// The label of the token; none where there was none that is known.
    pub(crate) caller: Option<&'a str>,
    pub(crate) address: IpAddr,
    pub(crate) method: &'a str,
    /// What the call was about: a node, a handle, a channel.
    pub(crate) about: &'a str,
    /// `allowed`, before it is done; `denied`; `unauthenticated`; the kind of the error where an allowed
    /// call has failed.
    pub(crate) outcome: &'a str,
}

/// One line of the file, as JSON.
#[derive(Serialize)]
struct Written {
    time: Time,
    caller: Option<String>,
    address: IpAddr,
    method: String,
    about: String,
    outcome: String,
    /// How many like it came since its previous line.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeated: Option<u64>,
}

/// Which refusals are reported together: those of a token by their method, those of strangers by where they
/// come from, whatever they ask for; of too many kinds, none of that.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    Token(String, String),
    Stranger(IpAddr),
    Others,
}

/// Refusals of one kind.
struct Repeats {
    since: Duration,
    more: u64,
    last: Written,
}

/// A file that only grows until it is renamed, mode 0600. It is opened for each line, so that others can
/// rename it as well.
pub(crate) struct Audit {
    path: PathBuf,
    /// Held while a line is written.
    repeats: Mutex<BTreeMap<Refused, Repeats>>,
    file_bytes_max: u64,
}

impl Audit {
    pub(crate) fn new(path: PathBuf) -> Audit {
        Audit { path, repeats: Mutex::default(), file_bytes_max: FILE_BYTES_MAX }
    }

    /// Fails where no line can be written.
    pub(crate) fn try_open(&self) -> Result<()> {
        self.open().map(drop)
    }

    /// Writes a line, durably. A call that can't be recorded must not be served.
    ///
    /// # Errors
    /// Unavailable where it can't be written.
    pub(crate) fn write(&self, line: &Line<'_>, env: &Env) -> Result<()> {
        let mut repeats = self.repeats.lock();
        self.tell_due(&mut repeats, env)?;
        let file = self.append(&Written::of(line, env, None))?;
        file.sync_data().map_err(|error| self.failed(error))
    }

    /// Writes or counts a refusal.
    ///
    /// # Errors
    /// Unavailable where it can't be written.
    pub(crate) fn refuse(&self, line: &Line<'_>, env: &Env) -> Result<()> {
        let mut repeats = self.repeats.lock();
        self.tell_due(&mut repeats, env)?;
        let known = Refused::of(line);
        let kind = match repeats.contains_key(&known) || repeats.len() < KINDS_MAX {
            true => known,
            false => Refused::Others,
        };
        let written = Written::of(line, env, None);
        if let Some(found) = repeats.get_mut(&kind) {
            found.more += 1;
            found.last = written;
            return Ok(());
        }
        self.append(&written)?;
        repeats.insert(kind, Repeats { since: env.monotonic(), more: 0, last: written });
        Ok(())
    }

    /// Writes how many were counted, where their time is over.
    fn tell_due(&self, repeats: &mut BTreeMap<Refused, Repeats>, env: &Env) -> Result<()> {
        let now = env.monotonic();
        let due = |found: &Repeats| now.saturating_sub(found.since) >= WINDOW;
        let kinds: Vec<Refused> =
            repeats.iter().filter(|(_, found)| due(found)).map(|(kind, _)| kind.clone()).collect();
        for kind in kinds {
            if let Some(mut found) = repeats.remove(&kind)
                && found.more > 0
            {
                found.last.repeated = Some(found.more);
                self.append(&found.last)?;
            }
        }
        Ok(())
    }

    fn append(&self, line: &Written) -> Result<File> {
        let mut text = serde_json::to_string(line)
            .map_err(|error| Error::bug("an audit line can't be written").with_source(error))?;
        text.push('\n');
        let mut file = self.open()?;
        let length = file.metadata().map_err(|error| self.failed(error))?.len();
        if length >= self.file_bytes_max {
            self.rotate().map_err(|error| self.failed(error))?;
            file = self.open()?;
        }
        file.write_all(text.as_bytes()).map_err(|error| self.failed(error))?;
        Ok(file)
    }

    /// Renames the file to `.1`, that one to `.2` and so on; the oldest one goes.
    fn rotate(&self) -> std::io::Result<()> {
        let name = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            name
        };
        for number in (0..FILES_KEPT).rev() {
            match std::fs::rename(name(number), name(number + 1)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<File> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        opened.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::new(Kind::Unavailable, format!("the audit file can't be written: {error}"))
            .with_entry(self.path.display().to_string())
            .with_remedy("fix it: nothing is done that can't be recorded")
            .with_source(error)
    }
}

impl Drop for Audit {
    /// Tells what was only counted.
    fn drop(&mut self) {
        let repeats = std::mem::take(&mut *self.repeats.lock());
        for mut found in repeats.into_values().filter(|found| found.more > 0) {
            found.last.repeated = Some(found.more);
            // Nobody is left whom a failure could be told.
            let _ = self.append(&found.last);
        }
    }
}

impl Written {
    fn of(line: &Line<'_>, env: &Env, repeated: Option<u64>) -> Written {
        Written {
            time: env.now(),
            caller: line.caller.map(str::to_owned),
            address: line.address,
            method: cut(line.method).to_owned(),
            about: cut(line.about).to_owned(),
            outcome: line.outcome.to_owned(),
            repeated,
        }
    }
}

impl Refused {
    fn of(line: &Line<'_>) -> Refused {
        match (line.caller, line.address) {
            (Some(caller), _) => Refused::Token(caller.to_owned(), cut(line.method).to_owned()),
            (None, address) => Refused::Stranger(network(address)),
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests;
