//! What fuzzers call: requests of the Versioned Storage Service, from bytes to what a backend is handed.

use std::sync::LazyLock;

use bytes::Bytes;
use highwater::Env;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use vss_api::types::{ListKeyVersionsRequest, PutObjectRequest};
use vss_prost::Message as _;

use crate::Auth;
use crate::auth::token::who;
use crate::http::{decode, decode_put};
use crate::limits::{ITEMS_MAX, KEY_MAX, NAME_MAX};
use crate::plan::{HEAD_PREFIX, Heads, Plan, Then, tag};
use crate::service::{place, store_name};
use crate::wire;

/// A public key whose private half nobody has.
const PEM: &str = include_str!("fuzzing/key.pem");

static SIGNATURE: LazyLock<Auth> = LazyLock::new(Auth::signature);
static JWT: LazyLock<Auth> = LazyLock::new(|| Auth::jwt(PEM).expect("it is an RSA public key"));

/// A put, from its bytes to its plan.
pub fn vss_put(bytes: &[u8]) {
    let Ok(request) = decode_put(Bytes::copy_from_slice(bytes)) else { return };
    let again = decode::<PutObjectRequest>(request.encode_to_vec().into());
    assert_eq!(again.ok().as_ref(), Some(&request));
    let _ = store_name("user".to_owned(), request.store_id.clone());
    let items = request.transaction_items.len() + request.delete_items.len();
    assert_eq!(wire::check(bytes), Ok(items), "items are counted as they are decoded");
    let given = request.global_version.is_some();
    let Ok(plan) = Plan::of(request.clone()) else { return };
    assert_eq!(Plan::of(request).ok().as_ref(), Some(&plan), "a plan follows from its put");
    assert!(items <= ITEMS_MAX && plan.effects.len() <= items + usize::from(given));
    assert!(plan.effects.is_sorted_by(|a, b| a.key < b.key), "each key once, in order");
    assert!(plan.largest() <= plan.bytes() && plan.bytes() <= bytes.len() + 64);
    for effect in &plan.effects {
        assert!(effect.key.chars().count() <= KEY_MAX && !effect.key.contains('\0'));
        if let Then::Put { version, value, tag: told } = &effect.then {
            assert!(*version > 0);
            assert_eq!(*told, tag(&effect.key, *version, value));
        }
    }
    if let Heads::Fenced { .. } = plan.heads {
        let heads = plan.effects.iter().filter(|effect| effect.key.starts_with(HEAD_PREFIX));
        let left = heads.filter(|effect| matches!(effect.then, Then::Put { .. })).count();
        assert_eq!(left, 1, "a fenced put leaves one head");
    }
}

/// A listing: the bytes of its request, and a page token.
pub fn vss_list(bytes: &[u8]) {
    if let Ok(token) = std::str::from_utf8(bytes) {
        page_token(token);
    }
    let Ok(request) = decode::<ListKeyVersionsRequest>(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    if let Some(token) = &request.page_token {
        page_token(token);
    }
    if let Ok(store) = store_name("user".to_owned(), request.store_id) {
        assert!(store.id.chars().count() <= NAME_MAX);
    }
}

/// A place is told by its digits, and by nothing else.
fn page_token(token: &str) {
    let Ok(found) = place(token) else { return };
    assert!(found > 0 && token.bytes().all(|byte| byte.is_ascii_digit()));
    assert_eq!(place(&found.to_string()).ok(), Some(found));
}

/// A value of `Authorization`, as a signature and as a token; and the claims of a token.
pub fn auth(bytes: &[u8]) {
    if let Ok(user) = who(bytes, 0) {
        assert!(!user.contains('\0') && user.chars().count() <= NAME_MAX);
        assert_eq!(who(bytes, 0).ok(), Some(user));
    }
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers: HeaderMap = [(AUTHORIZATION, value)].into_iter().collect();
    for way in [&*SIGNATURE, &*JWT] {
        if let Ok(user) = way.user(&headers, &Env::system()) {
            assert!(!user.contains('\0') && user.chars().count() <= NAME_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
