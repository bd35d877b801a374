//! What PostgreSQL says, with a kind. Its own words are passed on only where they can't quote a key or a
//! value.

use highwater::Error;
use tokio_postgres::error::SqlState;

use super::super::backend::Refusal;

/// Whether the transaction has left nothing and may land when it is tried again.
pub(super) fn passes(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
    })
}

/// Whether the request is larger than the server takes.
pub(super) fn too_large(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| *code == SqlState::PROGRAM_LIMIT_EXCEEDED)
}

/// Whether the connection is of no more use, so that nobody knows how its last statement ended.
pub(super) fn lost(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || error.code().is_none_or(|code| class(code) == "57" && code.code() != "57014")
}

fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}

/// What PostgreSQL says, with a kind.
pub(super) fn failure(error: &tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        return unsaid(error);
    };
    let (code, message) = (said.code(), said.message());
    let text = || format!("PostgreSQL: {message}");
    match (class(code), code.code()) {
        (_, "57014") => Error::unavailable("PostgreSQL has taken too long")
            .with_remedy("is it overloaded, or does somebody hold a lock?"),
        (_, "53100") => {
            Error::unavailable(text()).with_remedy("free some space there; nothing was written")
        }
        (_, "25006") => {
            Error::unavailable("PostgreSQL takes no writes: it is a standby, or read-only")
                .with_remedy("name the primary in the URL")
        }
        (_, "42501") => Error::denied(text())
            .with_remedy("the user must own the database, or be granted CREATE on it"),
        (_, "3D000") => Error::not_found(text()).with_remedy("make the database first"),
        (_, "42P01" | "42883" | "3F000") => {
            Error::conflict("the tables of the service are not there, or are not as it made them")
        }
        (_, "42P07") => Error::conflict("the schema `vss` of this database holds other tables")
            .with_remedy("give the service a database of its own"),
        ("28", _) => Error::denied(text()),
        ("08" | "53" | "57" | "58", _) => Error::unavailable(text()),
        (_, "XX001" | "XX002") => {
            Error::corrupt(text()).with_remedy("restore the database from a backup")
        }
        _ => Error::bug(format!("PostgreSQL refuses a statement, with code {}", code.code())),
    }
}

/// An error that the server has not sent: of the connection, or of TLS.
fn unsaid(error: &tokio_postgres::Error) -> Error {
    let mut text = format!("PostgreSQL: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    Error::unavailable(text).with_remedy("does it run, and is it reached under that address?")
}

pub(super) fn failed(error: tokio_postgres::Error) -> Refusal {
    Refusal::Failed(failure(&error))
}

pub(super) fn no_connection(error: deadpool_postgres::PoolError) -> Refusal {
    use deadpool_postgres::PoolError;
    Refusal::Failed(match error {
        PoolError::Backend(error) => failure(&error),
        PoolError::Timeout(_) => {
            Error::unavailable("no connection to PostgreSQL has become free in time")
                .with_remedy("is it overloaded?")
        }
        PoolError::Closed => Error::unavailable("the database is closed"),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            Error::bug("the pool of connections")
        }
    })
}
