//! What fuzzers call: the headers that tell where a request comes from, and whose it is.

use http::HeaderValue;

use super::{bearer, is_own, is_this_machine};

/// The bytes are values of `Authorization`, `Origin` and `Host`, one a line.
pub(crate) fn access(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut next = || HeaderValue::from_bytes(lines.next().unwrap_or_default()).ok();
    let (authorization, origin, host) = (next(), next(), next());
    if let Some(token) = authorization.as_ref().and_then(bearer) {
        assert_eq!(token, token.trim());
    }
    let host = host.as_ref().and_then(|host| host.to_str().ok());
    if let Some(origin) = &origin {
        assert!(!is_own(origin, None), "a request without a host has no origin of its own");
        let own = is_own(origin, host);
        assert!(!own || origin.to_str().is_ok_and(|origin| origin.starts_with("http")));
    }
    if host.is_some_and(is_this_machine) {
        let host = host.unwrap_or_default();
        let loopback = ["localhost", "127.", "::1", "0:0:", "0000:", "::"];
        let lower = host.to_ascii_lowercase();
        assert!(loopback.iter().any(|name| lower.contains(name)), "{host} is not this machine");
    }
}
