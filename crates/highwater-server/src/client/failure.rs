//! What a failed call means for the operator.

use highwater::{Error, Kind, Remedy};
use tonic::{Code, Status};

use crate::fault::{ENTRY, HINT, KIND};

/// Why a call did not end well.
pub(super) enum Failure {
    /// The connection, or the server, has gone: it may be there again.
    Cut(Error),
    /// Nothing that a second call would change.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::Cut(error) | Failure::Final(error) => error,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        // What the server has said has no source; what the connection has suffered has one.
        if std::error::Error::source(&status).is_some() {
            return Failure::Cut(
                Error::unavailable(format!("the connection was lost: {}", chain(&status)))
                    .with_remedy("pull again; nothing was kept"),
            );
        }
        let error = told(&status);
        match status.code() {
            // Its place is taken, maybe by the connection that has just broken.
            Code::Unavailable | Code::ResourceExhausted => Failure::Cut(error),
            _ => Failure::Final(error),
        }
    }
}

/// What the server says, in its own words.
fn told(status: &Status) -> Error {
    let text = |name| Some(unescape(status.metadata().get(name)?.to_str().ok()?));
    let message = match status.message() {
        "" => format!("the server says no more than {:?}", status.code()),
        message => message.to_owned(),
    };
    let kind = text(KIND).as_deref().and_then(kind_of);
    let mut error = Error::new(kind.unwrap_or_else(|| usual_kind(status.code())), message);
    if let Some(remedy) = text(HINT).map(Remedy::from).or_else(|| usual_remedy(status.code())) {
        error = error.with_remedy(remedy);
    }
    if let Some(entry) = text(ENTRY) {
        error = error.with_entry(entry);
    }
    error
}

/// The kind of a status that does not name one.
fn usual_kind(code: Code) -> Kind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Kind::Input,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists | Code::Aborted => Kind::Conflict,
        Code::DataLoss => Kind::Corrupt,
        Code::Unauthenticated | Code::PermissionDenied => Kind::Denied,
        Code::FailedPrecondition => Kind::Stale,
        _ => Kind::Unavailable,
    }
}

fn usual_remedy(code: Code) -> Option<Remedy> {
    Some(match code {
        Code::Unimplemented => {
            "check the server: it has an older version, or is not highwater".into()
        }
        Code::Unauthenticated => Remedy::Token,
        Code::PermissionDenied => "ask the server's operator for a token that may do this".into(),
        Code::ResourceExhausted => "try again in a moment".into(),
        Code::DataLoss => {
            "the server's vault is damaged: have it checked, and pull another snapshot".into()
        }
        Code::Unavailable => "try again, once the server and its vault can be reached".into(),
        Code::Cancelled => "pull again: the server has ended the call".into(),
        _ => return None,
    })
}

/// The kind of this name.
pub(crate) fn kind_of(name: &str) -> Option<Kind> {
    const KINDS: [Kind; 11] = [
        Kind::Bug,
        Kind::Input,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Corrupt,
        Kind::Fenced,
        Kind::Denied,
        Kind::Unavailable,
        Kind::Stale,
        Kind::Quarantined,
        Kind::Interrupted,
    ];
    KINDS.into_iter().find(|kind| kind.name() == name)
}

/// Headers hold plain ASCII: the rest is percent-encoded.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        match digits.and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error and what is underneath it, once each.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(found) = source {
        let more = found.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = found.source();
    }
    text
}

/// The server broke the rules of a stream: what came is worth nothing.
pub(super) fn lie(what: impl Into<String>) -> Error {
    Error::corrupt(what)
        .with_remedy("pull again, with the newest version on both sides; nothing was kept")
}
