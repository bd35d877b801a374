//! The error of every operation: a kind that says what the operator must do, a message, the ways out, and
//! the entry (file, object, part) that it is about.
//!
//! One type instead of an enum for each operation: a caller decides by [`Kind`], which is closed and
//! small, and the place that finds the fault knows the best hint.

mod remedy;

use std::fmt;
use std::sync::Arc;

pub use remedy::Remedy;

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
#[derive(Clone, Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    message: String,
    remedies: Vec<Remedy>,
    entry: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The way out where this process may open no more files.
pub(crate) const OPEN_FILES: &str =
    "raise the limit of open files (ulimit -n, LimitNOFILE= of a unit)";

impl Error {
    /// An error of `kind` with a message in plain words, without a final full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                remedies: Vec::new(),
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
                error.with_remedy("free some space and try again; nothing was lost")
            }
            _ if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                error.with_remedy(OPEN_FILES)
            }
            _ => error,
        };
        error.with_source(source)
    }

    /// With a way out, behind those that it has.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Remedy>) -> Error {
        self.inner.remedies.push(remedy.into());
        self
    }

    /// With these ways out behind those that it has, the one that is most often right first.
    #[must_use]
    pub fn with_remedies(mut self, remedies: impl IntoIterator<Item = Remedy>) -> Error {
        self.inner.remedies.extend(remedies);
        self
    }

    /// With these ways out instead of those that it has.
    #[must_use]
    pub fn instead(mut self, remedies: impl IntoIterator<Item = Remedy>) -> Error {
        self.inner.remedies = remedies.into_iter().collect();
        self
    }

    /// With the name of the file, object or part that it is about.
    #[must_use]
    pub fn with_entry(mut self, entry: impl Into<String>) -> Error {
        self.inner.entry = Some(entry.into());
        self
    }

    /// With the error underneath.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.inner.source = Some(Arc::from(source.into()));
        self
    }

    /// The same error of another kind: what the operator must do about it here.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Error {
        self.inner.kind = kind;
        self
    }

    /// The same error, told as part of something larger: its message becomes what `message` makes of it.
    #[must_use]
    pub fn told_as(mut self, message: impl FnOnce(&str) -> String) -> Error {
        self.inner.message = message(&self.summary());
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

    /// The ways out, the one that is most often right first.
    pub fn remedies(&self) -> &[Remedy] {
        &self.inner.remedies
    }

    /// The ways out as one text that names what of this library does them; `None` where there are none.
    pub fn hint(&self) -> Option<String> {
        self.hint_with(&|remedy| remedy.function().map(str::to_owned))
    }

    /// The ways out as one text, each with the handle that a user of the caller has for it: a flag, a
    /// command, a call.
    pub fn hint_with(&self, handle: &dyn Fn(&Remedy) -> Option<String>) -> Option<String> {
        remedy::joined(&self.inner.remedies, handle)
    }

    /// The file, object or part that the error is about, where it is about one.
    pub fn entry(&self) -> Option<&str> {
        self.inner.entry.as_deref()
    }

    /// The message with its entry, without the ways out.
    pub fn summary(&self) -> String {
        let message = &self.inner.message;
        match &self.inner.entry {
            Some(entry) if !message.contains(entry.as_str()) => format!("{entry}: {message}"),
            _ => message.clone(),
        }
    }
}

/// All of it in one line: the entry, the message, and the ways out in parentheses.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Equal are errors that say the same, whatever is underneath.
impl PartialEq for Error {
    fn eq(&self, other: &Error) -> bool {
        let (one, other) = (&self.inner, &other.inner);
        (one.kind, &one.message, &one.entry, &one.remedies)
            == (other.kind, &other.message, &other.entry, &other.remedies)
    }
}

impl Eq for Error {}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
