//! What the answers of a server mean, and those that never came.

use highwater::{Error, Remedy, Result};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use vss_api::types::{ErrorCode, ErrorResponse};
use vss_prost::Message;

use super::Line;
use super::auth::VssAuth;

/// Servers that are newer say which protocol they speak.
const VERSION_HEADER: &str = "vss-protocol-version";
const VERSION: &str = "0";

/// How many characters of a server's own words are repeated.
const WORDS_MAX: usize = 200;

/// An answer of the protocol that says what has become of a request.
pub(super) enum Answer<M> {
    /// It was done.
    Message(M),
    /// A version was another one.
    Conflict,
    /// There is no such key.
    Missing,
}

impl Line {
    /// What an answer says. A status alone says little: whatever stands between here and the server has
    /// statuses too, and a page that is not found must not pass for a key that is missing.
    ///
    /// # Errors
    /// Denied where the server does not know who asks; input where it refuses for good, or speaks another
    /// protocol; unavailable where this is not an answer of the protocol, or the server has failed.
    pub(super) fn read<M: Message + Default>(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer<M>> {
        if headers.get(VERSION_HEADER).is_some_and(|version| version != VERSION) {
            return Err(Error::input("the server speaks another protocol than version 0 of VSS")
                .with_entry(&self.url)
                .with_remedy("look for a newer version of highwater"));
        }
        if status == StatusCode::OK {
            return M::decode(body.as_slice())
                .map(Answer::Message)
                .map_err(|error| self.no_answer().with_source(error));
        }
        let response = ErrorResponse::decode(body.as_slice()).ok();
        let said = response.as_ref().map(ErrorResponse::error_code);
        match (status, said) {
            (StatusCode::CONFLICT, Some(ErrorCode::ConflictException)) => Ok(Answer::Conflict),
            (StatusCode::NOT_FOUND, Some(ErrorCode::NoSuchKeyException)) => Ok(Answer::Missing),
            // These mean the same from whatever stands before the server.
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Err(self.denied()),
            (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE, _) => {
                let why = response.map_or_else(String::new, |response| words(&response.message));
                Err(Error::input(format!(
                    "the server refuses the request ({}){why}",
                    status.as_u16()
                ))
                .with_entry(&self.url)
                .with_remedy(
                    "look at the store's id and its policy, and at how much the server takes",
                ))
            }
            (_, Some(ErrorCode::InternalServerException)) => {
                Err(Error::unavailable("the server has failed")
                    .with_entry(&self.url)
                    .with_remedy("its operator can see why; it is tried again"))
            }
            _ => Err(self.no_answer_of(status)),
        }
    }

    fn denied(&self) -> Error {
        Error::denied("the server does not know who asks").with_entry(&self.url).with_remedy(
            match self.signer.auth() {
                VssAuth::None => "it takes signatures or tokens: give one",
                VssAuth::Bearer(_) => "is the token one of this server's, and of this time?",
                VssAuth::Signature(_) => {
                    "does it take signatures? Is the clock right? They are good for a day"
                }
            },
        )
    }

    fn no_answer_of(&self, status: StatusCode) -> Error {
        Error::unavailable(format!(
            "what answered is no VSS server, or one that can't answer now ({})",
            status.as_u16()
        ))
        .with_entry(&self.url)
        .with_remedy("look at the URL (it ends in /vss), and at the server")
    }

    /// An answer that is good and says nothing that was asked.
    pub(super) fn no_answer(&self) -> Error {
        Error::unavailable("what answered is no VSS server")
            .with_entry(&self.url)
            .with_remedy("look at the URL (it ends in /vss), and at the server")
    }

    /// A request without an answer, or with half of one. The client's own words are not repeated: they
    /// hold what it was asked to send.
    pub(super) fn broken(&self, error: reqwest::Error) -> Error {
        let told = if error.is_timeout() && !error.is_connect() {
            Error::unavailable(format!(
                "the server did not answer within {} seconds",
                self.timeout.as_secs_f64()
            ))
            .with_remedy(
                "look at the server and at the network; a slow line needs a longer time-out",
            )
        } else if error.is_connect() {
            let why = reason(&error).unwrap_or_else(|| "no connection in time".to_owned());
            Error::unavailable(format!("the server can't be reached: {why}"))
                .with_remedy("look at the server and its URL")
                .with_remedy(Remedy::Certificates)
        } else {
            let why = reason(&error).unwrap_or_else(|| "it ended".to_owned());
            Error::unavailable(format!("the connection to the server broke off: {why}"))
                .with_remedy("look at the server and at the network; it is tried again")
        };
        told.with_entry(&self.url).with_source(error.without_url())
    }
}

/// What lies underneath, in its own words.
fn reason(error: &reqwest::Error) -> Option<String> {
    let mut cause = std::error::Error::source(error);
    let mut found = None;
    while let Some(current) = cause {
        if current.is::<std::io::Error>() || current.is::<rustls::Error>() {
            found = Some(current.to_string());
        }
        cause = current.source();
    }
    found
}

/// What a server says, as the end of a message.
fn words(message: &str) -> String {
    let words: String = message.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    if words.is_empty() { words } else { format!(": {words}") }
}
