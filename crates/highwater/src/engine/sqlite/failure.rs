//! What SQLite's errors mean for the operator.

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::error::{Error, Kind, OPEN_FILES};

/// Why a read transaction could not begin.
#[derive(Debug)]
pub(super) enum Failure {
    /// Somebody holds a lock that keeps readers out; it may pass.
    Busy(rusqlite::Error),
    /// A journal waits to be rolled back, and its writer seems to be gone.
    HotJournal(rusqlite::Error),
    /// Anything else; trying again does not help.
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        let Some(cause) = error.sqlite_error() else { return Failure::Other(error) };
        match (cause.code, cause.extended_code) {
            (_, ffi::SQLITE_READONLY_ROLLBACK) => Failure::HotJournal(error),
            (
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
                _,
            ) => Failure::Busy(error),
            _ => Failure::Other(error),
        }
    }
}

impl Failure {
    /// As the error of a capture.
    pub(super) fn into_error(self, entry: String) -> Error {
        match self {
            Failure::Busy(cause) => {
                Error::conflict(format!("{entry} is kept locked by its node: {cause}"))
                    .with_remedy(
                        "stop the node, or let it open the database with \
                         `PRAGMA locking_mode = NORMAL`",
                    )
                    .with_entry(entry)
                    .with_source(cause)
            }
            Failure::HotJournal(cause) => Error::conflict(format!(
                "{entry} has a hot journal: its writer died in the middle of a transaction, and \
                 only the node may roll that back"
            ))
            .with_remedy(
                "start the node once and stop it, so that SQLite recovers; then back up again",
            )
            .with_entry(entry)
            .with_source(cause),
            Failure::Other(cause) => failed("read", &entry, cause),
        }
    }
}

/// SQLite says that it can't open a file, and not why.
fn no_descriptor_is_left() -> bool {
    // The lowest number that is free, and no lower than the first.
    let tried = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 0);
    tried.is_err_and(|errno| errno == rustix::io::Errno::MFILE)
}

/// The error of doing `what` with the database `entry`.
pub(super) fn failed(what: &str, entry: &str, cause: rusqlite::Error) -> Error {
    let code = cause.sqlite_error_code();
    if code == Some(ErrorCode::CannotOpen) && no_descriptor_is_left() {
        let problem = format!("can't {what} {entry}: this process may open no more files");
        return Error::unavailable(problem)
            .with_entry(entry)
            .with_remedy(OPEN_FILES)
            .with_source(cause);
    }
    let kind = match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Conflict,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Corrupt,
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::AuthorizationForStatementDenied,
        ) => Kind::Denied,
        _ => Kind::Unavailable,
    };
    let error = Error::new(kind, format!("can't {what} {entry}: {cause}")).with_entry(entry);
    let error = match kind {
        Kind::Denied => error.with_remedy(
            "run as the node's user, with the directory writable: to read a database in WAL mode, \
             SQLite must find or make the `-shm` beside it",
        ),
        Kind::Corrupt => error.with_remedy(
            "SQLite itself can't read this database: look at it with `PRAGMA integrity_check`",
        ),
        _ => error,
    };
    error.with_source(cause)
}
