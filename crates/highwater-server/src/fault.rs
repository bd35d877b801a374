//! Why a call fails, and what each face says then: the one place that turns kinds into the codes of
//! gRPC, HTTP and JSON-RPC.

use axum::response::{IntoResponse, Response};
use highwater::{Error, Kind, Remedy};
use http::StatusCode;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::types::error::{INTERNAL_ERROR_CODE, INVALID_PARAMS_CODE};
use serde_json::json;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use highwater_gate::Scope;

/// Metadata of gRPC: the kind of an error.
pub(crate) const KIND: &str = "highwater-kind";
/// Metadata of gRPC: what the operator can do. Percent-encoded where it is not plain ASCII.
pub(crate) const HINT: &str = "highwater-hint";
/// Metadata of gRPC: what the error is about. Encoded alike.
pub(crate) const ENTRY: &str = "highwater-entry";

/// A message, a hint or an entry is cut after this: encoded, they must fit into the head that a client
/// takes.
const TEXT_BYTES_MAX: usize = 500;

/// Why a call fails.
#[derive(Debug)]
pub(crate) enum CallFault {
    /// No token, or one that is not known.
    Unauthenticated,
    /// The token lacks this scope.
    Scope(Scope),
    /// The server asks for no tokens, and lets nobody do without one what takes this scope.
    Unasked(Scope),
    /// A limit of the server: what there was too much of.
    Limit(&'static str),
    /// What the library says.
    Error(Error),
}

impl From<Error> for CallFault {
    fn from(error: Error) -> CallFault {
        CallFault::Error(error)
    }
}

impl CallFault {
    /// Work on another thread has panicked.
    pub(crate) fn panicked(error: tokio::task::JoinError) -> CallFault {
        CallFault::Error(Error::bug("a call has panicked").with_source(error))
    }

    /// The name of its kind, for lines and metadata.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            CallFault::Unauthenticated | CallFault::Scope(_) | CallFault::Unasked(_) => {
                Kind::Denied.name()
            }
            CallFault::Limit(_) => Kind::Unavailable.name(),
            CallFault::Error(error) => error.kind().name(),
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            CallFault::Unauthenticated => {
                "this call needs a token that the server knows".to_owned()
            }
            CallFault::Scope(scope) => format!("the token lacks the scope `{}`", scope.name()),
            CallFault::Unasked(scope) => {
                format!("this call needs a token of the scope `{}`", scope.name())
            }
            CallFault::Limit(what) => format!("too many {what} at once"),
            CallFault::Error(error) => short(error.summary()),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let words = match self {
            CallFault::Unauthenticated => "send it as `Authorization: Bearer hw_…`",
            CallFault::Scope(_) => "ask the operator for a token of that scope",
            CallFault::Unasked(_) => "give the server a file of tokens, and send one of that scope",
            CallFault::Limit(_) => "try again in a moment",
            CallFault::Error(error) => return error.hint_with(&call),
        };
        Some(words.to_owned())
    }

    fn entry(&self) -> Option<&str> {
        match self {
            CallFault::Error(error) => error.entry(),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            CallFault::Unauthenticated => Code::Unauthenticated,
            CallFault::Scope(_) | CallFault::Unasked(_) => Code::PermissionDenied,
            CallFault::Limit(_) => Code::ResourceExhausted,
            CallFault::Error(error) => match error.kind() {
                Kind::Bug => Code::Internal,
                Kind::Input => Code::InvalidArgument,
                Kind::NotFound => Code::NotFound,
                Kind::Conflict => Code::Aborted,
                Kind::Corrupt => Code::DataLoss,
                Kind::Fenced | Kind::Stale | Kind::Quarantined => Code::FailedPrecondition,
                Kind::Denied => Code::PermissionDenied,
                Kind::Unavailable => Code::Unavailable,
                Kind::Interrupted => Code::Cancelled,
            },
        }
    }

    /// What HTTP says.
    pub(crate) fn http_code(&self) -> StatusCode {
        match self.code() {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Aborted | Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::Unavailable | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Codes of our own stand in the range that JSON-RPC leaves to servers.
    fn json_rpc_code(&self) -> i32 {
        match self.code() {
            Code::InvalidArgument => INVALID_PARAMS_CODE,
            Code::NotFound => -32001,
            Code::Aborted => -32002,
            Code::DataLoss => -32003,
            Code::FailedPrecondition => -32004,
            Code::Unauthenticated | Code::PermissionDenied => -32005,
            Code::Unavailable => -32006,
            Code::Cancelled => -32007,
            Code::ResourceExhausted => -32008,
            _ => INTERNAL_ERROR_CODE,
        }
    }

    /// The document that every error of the program is, too.
    pub(crate) fn document(&self) -> serde_json::Value {
        json!({
            "kind": self.kind(),
            "message": self.message(),
            "hint": self.hint(),
            "entry": self.entry(),
        })
    }
}

/// What of this server does it. All else is for who is at the machine: words are enough.
fn call(remedy: &Remedy) -> Option<String> {
    let call = match remedy {
        Remedy::ListSnapshots => "backup_list",
        Remedy::GuardList => "guard_list",
        Remedy::GuardRelease | Remedy::GuardReleaseAll => "guard_release",
        Remedy::ReplicaFlush => "replica_flush",
        Remedy::ShowOwner => "replica_info",
        _ => return None,
    };
    Some(call.to_owned())
}

impl From<CallFault> for Status {
    fn from(fault: CallFault) -> Status {
        let mut status = Status::new(fault.code(), fault.message());
        let texts = [(HINT, fault.hint()), (ENTRY, fault.entry().map(str::to_owned))];
        let metadata = status.metadata_mut();
        metadata.insert(KIND, MetadataValue::from_static(fault.kind()));
        for (key, text) in texts {
            if let Some(Ok(value)) = text.map(|text| MetadataValue::try_from(plain(&text))) {
                metadata.insert(key, value);
            }
        }
        status
    }
}

impl From<CallFault> for ErrorObjectOwned {
    fn from(fault: CallFault) -> ErrorObjectOwned {
        let data = json!({ "kind": fault.kind(), "hint": fault.hint(), "entry": fault.entry() });
        ErrorObjectOwned::owned(fault.json_rpc_code(), fault.message(), Some(data))
    }
}

impl IntoResponse for CallFault {
    fn into_response(self) -> Response {
        let mut response = document(self.http_code(), &json!({ "error": self.document() }));
        if matches!(self, CallFault::Unauthenticated) {
            let bearer = http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// A document as HTTP sends it.
pub(crate) fn document(code: StatusCode, document: &serde_json::Value) -> Response {
    let mut response = Response::new(axum::body::Body::from(document.to_string()));
    *response.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// What quotes a caller must not be longer than what a caller may read.
fn short(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

/// Headers hold plain ASCII: anything else, and `%`, is percent-encoded.
fn plain(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    let mut plain = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => plain.push(char::from(byte)),
            _ => plain.push_str(&format!("%{byte:02X}")),
        }
    }
    plain
}
