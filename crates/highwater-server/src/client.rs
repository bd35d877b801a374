//! The client's side of a stream: an archive from a server into a file, whole or not at all.
//!
//! A connection that breaks is taken up again where it broke, a bounded number of times. What was
//! received is compared with the trailer's count and hash, read again from disk up to the archive's
//! own end marker, and only then gets its name.

mod connect;
mod failure;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::archive::{self, Received};
use highwater::ids::{NodeName, SnapshotId, Time, encode};
use highwater::{Control, Error, Result};
use std::os::unix::ffi::OsStrExt as _;

use connect::Server;
use transfer::{Transfer, Transferred};

pub(crate) use failure::kind_of;

/// No token is longer.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What is pulled, from where, and to where.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// The server: `https://HOST:PORT`, or `http://` where it is on this machine.
    pub url: String,
    /// What the server knows the caller by.
    pub token: Option<Token>,
    /// PEM certificates that the server's has to be signed by, instead of those that the system trusts.
    pub ca: Option<Vec<u8>>,
    /// Send all, the token included, to another machine without encryption.
    pub allow_http: bool,
    /// The node, where the server has several.
    pub node: Option<NodeName>,
    /// An id, a unique prefix of one, or `latest`; `None`: the server makes a backup first.
    pub snapshot: Option<String>,
    /// The snapshot that the caller has already: what it holds is left out.
    pub since: Option<String>,
    /// The mark `height` inside the snapshot must have reached this; 0: whatever it is.
    pub target_height: u64,
    /// The file; `None`: `NODE-TIME.hwa` in the current directory.
    pub output: Option<PathBuf>,
    /// Replace the file where it exists.
    pub replace: bool,
    /// How long all of it may take.
    pub timeout: Option<Duration>,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The snapshot that it builds on.
    pub since: Option<SnapshotId>,
    /// The node's marks inside the snapshot.
    pub marks: BTreeMap<String, u64>,
    /// The file.
    pub output: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// How often a broken connection was taken up again.
    pub resumed: u32,
}

/// A secret that a server knows a caller by.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// From a file that only its owner can read: the token, and white space around it.
    ///
    /// # Errors
    /// Not found where there is none; denied where others may read it; input where it holds none.
    pub fn from_file(path: &Path) -> Result<Token> {
        let name = encode(path.as_os_str().as_bytes());
        let failed = |error| Error::io(format!("{name} can't be read"), error).with_entry(&name);
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if found.permissions().mode() & 0o077 != 0 {
            return Err(Error::denied(format!("{name} may be read by others than its owner"))
                .with_remedy(format!("chmod 600 {name}"))
                .with_entry(&name));
        }
        let mut text = String::new();
        let read = file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => no_token(&name),
            _ => failed(error),
        })?;
        let token = text.trim_ascii();
        let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.is_empty() || !plain || text.len() as u64 > TOKEN_BYTES_MAX {
            return Err(no_token(&name));
        }
        Ok(Token(token.to_owned()))
    }
}

fn no_token(name: &str) -> Error {
    Error::input("the file holds no token")
        .with_remedy("it is the one line that was shown once")
        .with_entry(name)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Pulls an archive into a file. Blocks its thread, which must not be one of an asynchronous runtime.
///
/// # Errors
/// Conflict where the file exists, found before anything is asked; input where the call is wrong;
/// denied, not found, stale, corrupt as the server says; corrupt too where what came is not what was
/// sent, or not what was asked for; unavailable where the server can't be reached (again), the time is
/// over or the disk is full; interrupted. Whatever fails, no file stays.
pub fn pull(options: &PullOptions, control: &Control) -> Result<PullReport> {
    let start = control.env.monotonic();
    if let Some(output) = &options.output {
        archive::refuse_existing(output, options.replace)?;
    }
    let server = Server::new(options, control, start)?;
    let hello = server.greet()?;
    let output = match &options.output {
        Some(output) => output.clone(),
        None => PathBuf::from(file_name(hello.node.as_str(), control.env.now())),
    };
    let write =
        |out: &mut dyn Write| Transfer::new(&server, options, control, hello.resumes).run(out);
    let (transferred, received) =
        archive::receive(&output, options.replace, control, write, accept)?;
    Ok(PullReport {
        snapshot: received.snapshot,
        since: received.since,
        marks: transferred.header.marks.clone().into_iter().collect(),
        output,
        bytes: received.bytes,
        duration: control.env.monotonic() - start,
        resumed: transferred.resumed,
    })
}

/// Refuses an archive that is not the one that the header has told of.
fn accept(transferred: &Transferred, received: &Received) -> Result<()> {
    let header = &transferred.header;
    let since = received.since.map(|since| since.to_string()).unwrap_or_default();
    if received.snapshot.to_string() == header.snapshot && since == header.since {
        return Ok(());
    }
    Err(failure::lie("the archive is not the one that its header tells of"))
}

/// Node, and time in UTC, as `node-20261121T083000Z.hwa`.
fn file_name(node: &str, time: Time) -> String {
    let time = time.to_string();
    let seconds = time.split(['.', 'Z']).next().unwrap_or_default();
    format!("{node}-{}Z.hwa", seconds.replace(['-', ':'], ""))
}
