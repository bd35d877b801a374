//! Errors: the kinds of the library as the variants of one enum.

use std::fmt;

use highwater::Remedy;

use crate::same::same;

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

same! {
    /// What has to be done about an error.
    pub enum Kind = highwater::Kind {
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
}

/// As it is called in Python. In Kotlin and Swift `Error` is somebody else's, and UniFFI renames a type there in some
/// places and not in others.
pub type Error = HighwaterError;

/// The variants of the error, its kinds, each with the same fields.
macro_rules! errors {
    ($($(#[doc = $doc:literal])* $kind:ident,)*) => {
        /// Why a call failed: one variant for each kind of error, which says what has to be done about it.
        #[derive(Clone, Debug, PartialEq, Eq, uniffi::Error)]
        pub enum HighwaterError {
            $(
                $(#[doc = $doc])*
                $kind {
                    /// What is wrong, in plain words, without the entry and the remedy.
                    message: String,
                    /// The file, object or part that it is about, where it is about one.
                    entry: Option<String>,
                    /// What can be done about it, where something is known.
                    remedy: Option<String>,
                },
            )*
        }

        impl HighwaterError {
            fn fields(&self) -> (Kind, &str, Option<&str>, Option<&str>) {
                match self {
                    $(Error::$kind { message, entry, remedy } => {
                        (Kind::$kind, message, entry.as_deref(), remedy.as_deref())
                    })*
                }
            }
        }

        impl From<highwater::Error> for Error {
            fn from(error: highwater::Error) -> Error {
                let message = with_reason(&error);
                let entry = error.entry().map(str::to_owned);
                let remedy = error.hint_with(&|remedy| handle(remedy).map(str::to_owned));
                match error.kind() {
                    $(highwater::Kind::$kind => Error::$kind { message, entry, remedy },)*
                }
            }
        }
    };
}

errors! {
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

/// An error that is told in a report, and ends no call.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Problem {
    /// What has to be done about it.
    pub kind: Kind,
    /// All of it in one line.
    pub text: String,
}

impl From<highwater::Error> for Problem {
    fn from(error: highwater::Error) -> Problem {
        let error = Error::from(error);
        Problem { kind: error.kind(), text: error.text() }
    }
}

#[uniffi::export]
impl HighwaterError {
    /// What has to be done about it.
    pub fn kind(&self) -> Kind {
        self.fields().0
    }

    /// All of it in one line: the entry, the message, and the remedy in parentheses.
    pub fn text(&self) -> String {
        let (_, message, entry, remedy) = self.fields();
        let summary = match entry {
            Some(entry) if !message.contains(entry) => format!("{entry}: {message}"),
            _ => message.to_owned(),
        };
        match remedy {
            Some(remedy) => format!("{summary} ({remedy})"),
            None => summary,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for Error {}

/// The message, with what a function of the caller's has said where that is underneath.
fn with_reason(error: &highwater::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(failed) = cause.downcast_ref::<CallbackError>() {
            return format!("{}: {failed}", error.message());
        }
        source = cause.source();
    }
    error.message().to_owned()
}

/// What of this library does a remedy. Where it has nothing that does, the words alone are told.
fn handle(remedy: &Remedy) -> Option<&'static str> {
    Some(match remedy {
        Remedy::CheckpointHook => "BackupOptions.checkpoints",
        Remedy::NoBarrier => "BackupOptions.allow_no_barrier",
        Remedy::Exclude => "BackupOptions.exclude",
        Remedy::HigherRate => "BackupOptions.rate_max",
        Remedy::NameNode(_) => "BackupOptions.node, RestoreOptions.node",
        Remedy::Adopt => "BackupOptions.adopt",
        Remedy::CreateVault => "Vault.create",
        Remedy::ListSnapshots => "Vault.snapshots",
        Remedy::CheckVault | Remedy::CheckData => "Vault.check",
        Remedy::RestoreTest => "run_restore_test",
        Remedy::ImportArchive => "Vault.import_archives",
        Remedy::ExportWhole | Remedy::ExportSince | Remedy::ReplaceFile => "Vault.export_archive",
        Remedy::Restore => "restore",
        Remedy::RestoreOver => "RestoreOptions.over_existing",
        Remedy::Recover(_) => "recover",
        Remedy::Rollback | Remedy::Redo => "rollback",
        Remedy::ListKept => "kept",
        Remedy::GuardList => "Guard.list",
        Remedy::GuardRelease | Remedy::GuardReleaseAll | Remedy::GuardReleaseOld => "Guard.release",
        Remedy::Retention => "Retention",
        Remedy::ShowKit => "show_kit",
        Remedy::KitContent => "export_kit with `content`",
        Remedy::ReplicaFlush => "ReplicatedStore.flush",
        Remedy::AcceptOlder => "ReplicaOptions.accept_older",
        Remedy::AllowEmpty => "ReplicaOptions.allow_empty",
        Remedy::AcceptInconsistent => "ReplicaOptions.accept_inconsistent",
        Remedy::Certificates => "VssServer with `ca_file`",
        Remedy::AllowHttp => "VssServer with `allow_http`",
        Remedy::Token => "VssServer with `token`",
        _ => return None,
    })
}

/// Why a function of the caller's, called back, has failed.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Error)]
pub enum CallbackError {
    /// It has failed; the call from which it was called fails as well.
    Failed {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for CallbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallbackError::Failed { reason } = self;
        f.write_str(reason)
    }
}

impl std::error::Error for CallbackError {}

impl From<uniffi::UnexpectedUniFFICallbackError> for CallbackError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> CallbackError {
        CallbackError::Failed { reason: error.reason }
    }
}
