//! A browser's way in: a token is given once, and a session stands for it until the browser ends, the
//! time is over, or the token is revoked. Sessions live in memory; a new start of the server ends them.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::{Error, Result};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

/// A session lasts no longer.
const SESSION_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// How many sessions exist at once; a new one ends the oldest.
const SESSIONS_MAX: usize = 256;

/// What a session stands for.
#[derive(Clone)]
struct Session {
    /// The hash of the token: whether it still counts is asked at each request.
    token: blake3::Hash,
    ends: Duration,
}

/// The sessions of a server, by the hashes of their ids: a dump of the memory opens none.
pub(super) struct Sessions {
    open: Mutex<BTreeMap<[u8; 32], Session>>,
    /// Over TLS the cookie is bound to it, and to this host.
    secure: bool,
}

impl Sessions {
    pub(super) fn new(secure: bool) -> Sessions {
        Sessions { open: Mutex::default(), secure }
    }

    /// Begins a session for the token of this hash; the cookie that stands for it.
    pub(super) fn begin(&self, token: blake3::Hash, now: Duration) -> Result<HeaderValue> {
        let mut id = [0; 32];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut id)
            .map_err(|_| Error::unavailable("the operating system gives no random bytes"))?;
        let id = hex::encode(id);
        let mut open = self.open.lock();
        open.retain(|_, session| session.ends > now);
        if open.len() >= SESSIONS_MAX {
            let oldest = open.iter().min_by_key(|(_, session)| session.ends);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                open.remove(&oldest);
            }
        }
        open.insert(key(&id), Session { token, ends: now + SESSION_MAX });
        drop(open);
        self.cookie(&id, "")
    }

    /// The token of the session that a request belongs to.
    pub(super) fn token(&self, headers: &HeaderMap, now: Duration) -> Option<blake3::Hash> {
        let key = key(self.id(headers)?);
        let mut open = self.open.lock();
        match open.get(&key) {
            Some(session) if session.ends > now => Some(session.token),
            _ => {
                open.remove(&key);
                None
            }
        }
    }

    /// Ends the session that a request belongs to; the cookie that the browser forgets it by.
    pub(super) fn end(&self, headers: &HeaderMap) -> Result<HeaderValue> {
        if let Some(id) = self.id(headers) {
            self.open.lock().remove(&key(id));
        }
        self.cookie("", "; Max-Age=0")
    }

    fn cookie(&self, id: &str, more: &str) -> Result<HeaderValue> {
        let (name, secure) = (self.name(), if self.secure { "; Secure" } else { "" });
        let text = format!("{name}={id}; Path=/; HttpOnly; SameSite=Strict{secure}{more}");
        HeaderValue::from_str(&text).map_err(|error| Error::bug("no cookie").with_source(error))
    }

    /// `__Host-` makes the browser insist on TLS and on this host.
    fn name(&self) -> &'static str {
        if self.secure { "__Host-highwater" } else { "highwater" }
    }

    fn id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find_map(|(name, value)| (name == self.name()).then_some(value))
    }
}

/// Looked up by its hash, so that the time of a look tells nothing of other ids.
fn key(id: &str) -> [u8; 32] {
    *blake3::hash(id.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_back(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&pair).unwrap())])
    }

    #[test]
    fn a_session_ends_by_itself_by_request_and_for_newer_ones() {
        let sessions = Sessions::new(false);
        let token = blake3::hash(b"token");
        let start = Duration::from_secs(5);
        let cookie = sent_back(&sessions.begin(token, start).unwrap());
        assert_eq!(sessions.token(&cookie, start), Some(token));
        assert_eq!(sessions.token(&cookie, start + SESSION_MAX), None);
        assert_eq!(sessions.token(&cookie, start), None, "it came back");

        let cookie = sent_back(&sessions.begin(token, start).unwrap());
        let other = sent_back(&sessions.begin(token, start).unwrap());
        assert!(sessions.end(&cookie).unwrap().to_str().unwrap().contains("Max-Age=0"));
        assert_eq!(sessions.token(&cookie, start), None);
        assert_eq!(sessions.token(&other, start), Some(token));

        for _ in 0..SESSIONS_MAX {
            sessions.begin(token, start + Duration::from_secs(1)).unwrap();
        }
        assert_eq!(sessions.token(&other, start), None);
        assert_eq!(sessions.open.lock().len(), SESSIONS_MAX);
    }

    #[test]
    fn a_cookie_is_out_of_reach_of_scripts_and_of_other_sites() {
        let open = Sessions::new(true);
        let cookie = open.begin(blake3::hash(b"token"), Duration::ZERO).unwrap();
        let cookie = cookie.to_str().unwrap();
        for attribute in ["__Host-highwater=", "HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.contains("Max-Age") && !cookie.contains("Expires"), "{cookie}");
    }
}
