//! What the two processes say to each other: an order or an answer as JSON behind its length, content
//! as it is.

use std::io::{Read, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::{Barrier, Cell, Depth, Finished, Identity, ReplicaPoint, Units};
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::RelPath;

/// Before a document.
const DOCUMENT: u8 = b'J';
/// Before content.
const CONTENT: u8 = b'D';
/// Before the length of a hole.
const HOLE: u8 = b'H';
/// The longest document or piece.
const BYTES_MAX: usize = 16 << 20;

/// The first thing that is said.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Whose rights are taken on; none: those that there are, without any capability.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) job: Job,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Reads databases, each as one image.
    Capture { parts: Vec<Part>, block_max: Option<Duration> },
    /// Checks a restored one.
    Check { root: RelPath, depth: Depth },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) root: RelPath,
}

/// What is asked for once all databases are read from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Stream { part: usize },
    Query { part: usize, sql: String },
    Finish { part: usize },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Begun {
        barrier: Barrier,
        images: Vec<Image>,
    },
    /// All content of an entry, or all rows, have been sent.
    End,
    /// Some of the rows that a query has found.
    Rows(Vec<Vec<Value>>),
    Finished(Finished),
    Checked {
        warnings: Vec<String>,
        unchecked: Vec<String>,
    },
    Failed(Failure),
}

/// A [`Cell`]; bytes as base64.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Bytes(String),
}

impl Value {
    pub(super) fn of(cell: &Cell) -> Value {
        match cell {
            Cell::Null => Value::Null,
            Cell::Integer(number) => Value::Integer(*number),
            Cell::Bytes(bytes) => Value::Bytes(BASE64.encode(bytes)),
        }
    }

    pub(super) fn cell(self) -> Result<Cell> {
        Ok(match self {
            Value::Null => Cell::Null,
            Value::Integer(number) => Cell::Integer(number),
            Value::Bytes(bytes) => Cell::Bytes(BASE64.decode(bytes).map_err(|_| nonsense())?),
        })
    }
}

/// What is known of one database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) engine_version: Option<String>,
    pub(super) holds_up: bool,
    pub(super) replica: Option<ReplicaPoint>,
    pub(super) size: u64,
    pub(super) units: Units,
    pub(super) identity: Option<Identity>,
}

/// An error, as far as it can be told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: String,
    message: String,
    remedies: Vec<Remedy>,
    entry: Option<String>,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Failure {
        Failure {
            kind: error.kind().name().to_owned(),
            message: error.message().to_owned(),
            remedies: error.remedies().to_vec(),
            entry: error.entry().map(str::to_owned),
        }
    }

    pub(super) fn error(self) -> Error {
        let kind = Kind::named(&self.kind).unwrap_or(Kind::Bug);
        let error = Error::new(kind, self.message).with_remedies(self.remedies);
        match self.entry {
            Some(entry) => error.with_entry(entry),
            None => error,
        }
    }
}

/// What arrives.
pub(super) enum Message<T> {
    Document(T),
    /// So many bytes were put into the buffer.
    Content(usize),
    Hole(u64),
}

pub(super) fn send<T: Serialize>(to: &mut impl Write, document: &T) -> Result<()> {
    let bytes = serde_json::to_vec(document)
        .map_err(|error| Error::bug("a message can't be written as JSON").with_source(error))?;
    send_piece(to, DOCUMENT, &bytes)
}

pub(super) fn send_content(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    bytes.chunks(BYTES_MAX).try_for_each(|bytes| send_piece(to, CONTENT, bytes))
}

pub(super) fn send_hole(to: &mut impl Write, length: u64) -> Result<()> {
    send_piece(to, HOLE, &length.to_be_bytes())
}

fn send_piece(to: &mut impl Write, tag: u8, bytes: &[u8]) -> Result<()> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [tag, length[0], length[1], length[2], length[3]];
    to.write_all(&head).and_then(|()| to.write_all(bytes)).map_err(gone)
}

/// Takes the next message; content comes into `buffer`.
pub(super) fn receive<T: DeserializeOwned>(
    from: &mut impl Read,
    buffer: &mut Vec<u8>,
) -> Result<Message<T>> {
    let mut head = [0; 5];
    from.read_exact(&mut head).map_err(gone)?;
    let [tag, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if length > BYTES_MAX {
        return Err(nonsense());
    }
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    from.read_exact(&mut buffer[..length]).map_err(gone)?;
    let bytes = &buffer[..length];
    match tag {
        CONTENT => Ok(Message::Content(length)),
        HOLE => bytes.try_into().map(u64::from_be_bytes).map(Message::Hole).map_err(|_| nonsense()),
        DOCUMENT => serde_json::from_slice(bytes).map(Message::Document).map_err(|_| nonsense()),
        _ => Err(nonsense()),
    }
}

/// The other process says what nobody asked it for: it is no longer itself.
pub(super) fn nonsense() -> Error {
    Error::corrupt("the process that reads the node's database speaks out of turn")
        .with_remedy("the database may have been made to hurt whoever reads it")
}

fn gone(error: std::io::Error) -> Error {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let what = match error.kind() {
        TimedOut | WouldBlock => "the process that reads the node's database has stopped answering",
        _ => "the process that reads the node's database has ended",
    };
    Error::unavailable(what)
        .with_remedy("try again; its user may have stopped or killed it")
        .with_source(error)
}
