//! Temporary.
use highwater::{Error, Kind};
use tonic::{Code, Status};
use tonic::metadata::MetadataValue;
pub(crate) const KIND: &str = "highwater-kind";
pub(crate) const HINT: &str = "highwater-hint";
pub(crate) const ENTRY: &str = "highwater-entry";
#[derive(Debug)]
pub(crate) enum Fault { Limit(&'static str), Error(Error) }
impl From<Error> for Fault { fn from(error: Error) -> Fault { Fault::Error(error) } }
impl Fault {
    pub(crate) fn panicked(error: tokio::task::JoinError) -> Fault { Fault::Error(Error::bug("a call has panicked").source(error)) }
}
impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        let error = match fault { Fault::Limit(what) => { let mut s = Status::resource_exhausted(format!("too many {what} at once")); s.metadata_mut().insert(KIND, MetadataValue::from_static("unavailable")); return s }, Fault::Error(e) => e };
        let code = match error.kind() {
                Kind::Bug => Code::Internal,
                Kind::Input => Code::InvalidArgument,
                Kind::NotFound => Code::NotFound,
                Kind::Conflict => Code::Aborted,
                Kind::Corrupt => Code::DataLoss,
                Kind::Fenced | Kind::Stale | Kind::Quarantined => Code::FailedPrecondition,
                Kind::Denied => Code::PermissionDenied,
                Kind::Unavailable => Code::Unavailable,
                Kind::Interrupted => Code::Cancelled,
        };
        let mut status = Status::new(code, error.to_string());
        status.metadata_mut().insert(KIND, MetadataValue::from_static(error.kind().name()));
        if let Some(Ok(v)) = error.hint_text().map(MetadataValue::try_from) { status.metadata_mut().insert(HINT, v); }
        if let Some(Ok(v)) = error.entry_name().map(MetadataValue::try_from) { status.metadata_mut().insert(ENTRY, v); }
        status
    }
}
