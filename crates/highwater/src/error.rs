//! The error of every operation: a kind that says what the operator must do, a message, a hint, and
//! the entry (file, object, part) that it is about.
//!
//! One type instead of an enum for each operation: a caller decides by [`Kind`], which is closed and
//! small, and the place that finds the fault knows the best hint.

use std::fmt;

/// The result of a library call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the operator must do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A broken promise of Highwater's own: to be reported.
    Bug,
    /// The call is wrong: to be mended.
    Input,
    /// No such vault, snapshot, node, slot or file.
    NotFound,
    /// The target exists, or something is busy, locked or already running.
    Conflict,
    /// Stored or captured bytes are not what they were.
    Corrupt,
    /// Another owner writes.
    Fenced,
    /// Key, token or permission.
    Denied,
    /// Network, server or disk: to be tried again.
    Unavailable,
    /// Backups have stopped.
    Stale,
    /// A channel or database is in quarantine.
    Quarantined,
    /// The caller cancelled.
    Interrupted,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 11] = [
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

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind's name in JSON documents.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bug => "bug",
            Kind::Input => "input",
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Corrupt => "corrupt",
            Kind::Fenced => "fenced",
            Kind::Denied => "denied",
            Kind::Unavailable => "unavailable",
            Kind::Stale => "stale",
            Kind::Quarantined => "quarantined",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// An error with all that an operator needs to act on it.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    entry: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message in plain words, without a final full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                hint: None,
                entry: None,
                source: None,
            }),
        }
    }

    /// [`Kind::Bug`].
    pub fn bug(message: impl Into<String>) -> Error {
        Error::new(Kind::Bug, message)
    }

    /// [`Kind::Input`].
    pub fn input(message: impl Into<String>) -> Error {
        Error::new(Kind::Input, message)
    }

    /// [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Kind::NotFound, message)
    }

    /// [`Kind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(Kind::Conflict, message)
    }

    /// [`Kind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, message)
    }

    /// [`Kind::Fenced`].
    pub fn fenced(message: impl Into<String>) -> Error {
        Error::new(Kind::Fenced, message)
    }

    /// [`Kind::Denied`].
    pub fn denied(message: impl Into<String>) -> Error {
        Error::new(Kind::Denied, message)
    }

    /// [`Kind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::new(Kind::Unavailable, message)
    }

    /// [`Kind::Interrupted`], as every operation reports a cancellation.
    pub fn interrupted() -> Error {
        Error::new(Kind::Interrupted, "interrupted")
    }

    /// An input or output error of the operating system while doing `what`; the kind follows from
    /// the cause (permission: denied; missing: not found; anything else: unavailable).
    pub fn io(what: impl fmt::Display, source: impl Into<std::io::Error>) -> Error {
        let source = source.into();
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Kind::Denied
            }
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::ResourceBusy => Kind::Conflict,
            _ => Kind::Unavailable,
        };
        let error = Error::new(kind, format!("{what}: {source}"));
        let error = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                error.hint("free some space and try again; nothing was lost")
            }
            _ => error,
        };
        error.source(source)
    }

    /// With a hint: what the operator can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.inner.hint = Some(hint.into());
        self
    }

    /// With the name of the file, object or part that it is about.
    pub fn entry(mut self, entry: impl Into<String>) -> Error {
        self.inner.entry = Some(entry.into());
        self
    }

    /// With the error underneath.
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.inner.source = Some(source.into());
        self
    }

    /// What the operator must do.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The message, without hint and entry.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The hint, where there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The file, object or part that the error is about, where it is about one.
    pub fn entry_name(&self) -> Option<&str> {
        self.inner.entry.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(entry) = &self.inner.entry
            && !self.inner.message.contains(entry.as_str())
        {
            write!(f, "{entry}: ")?;
        }
        f.write_str(&self.inner.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
