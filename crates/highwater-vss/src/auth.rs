//! Who asks: by a signature, by a JSON Web Token, or anybody on this machine.

use std::collections::HashMap;

use highwater::{Env, Result};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
use k256::ecdsa::{Signature, VerifyingKey};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use vss_api::error::VssError;

pub(crate) mod token;

/// What is signed begins with this: 64 bytes.
const SIGNED: &[u8; 64] = b"VSS Signature Authorizer Signing Salt Constant..................";
/// Hex digits of a compressed public key.
const KEY_DIGITS: usize = 66;
/// Hex digits of a signature.
const SIGNATURE_DIGITS: usize = 128;
/// A signature is valid for this long, before and after its time.
const SIGNATURE_SECONDS: u64 = 24 * 60 * 60;
/// Digits of a time: those of 2^64.
const TIME_DIGITS_MAX: usize = 20;
/// How many verified signatures are remembered: a client makes at most one a second.
const REMEMBERED: usize = 4096;
/// The one user where nobody is asked.
const ANYBODY: &str = "anybody";

/// How clients show who they are.
pub struct Auth(Way);

enum Way {
    Signature(Mutex<HashMap<String, Signed>>),
    Jwt(token::Key),
    Nobody,
}

/// A header that has been verified.
#[derive(Clone)]
struct Signed {
    user: String,
    seconds: u64,
}

impl Auth {
    /// By a signature over the time, with a key of the client's own: whoever has a key is a user, and the
    /// user is the key, in hex.
    pub fn signature() -> Auth {
        Auth(Way::Signature(Mutex::default()))
    }

    /// By JSON Web Tokens signed with RS256, whose `sub` is the user. `pem` is the public key that they
    /// are verified with.
    ///
    /// # Errors
    /// Input where that is not an RSA public key, or one of fewer than 2,048 bits.
    pub fn jwt(pem: &str) -> Result<Auth> {
        token::Key::from_pem(pem).map(|key| Auth(Way::Jwt(key)))
    }

    /// Nobody is asked, and all are one user. For a server that only this machine reaches.
    pub fn none() -> Auth {
        Auth(Way::Nobody)
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self.0, Way::Nobody)
    }

    /// The user of a request.
    ///
    /// # Errors
    /// Auth where it does not show one.
    pub(crate) fn user(&self, headers: &HeaderMap, env: &Env) -> Result<String, VssError> {
        let given = || {
            let value = headers
                .get(AUTHORIZATION)
                .ok_or_else(|| refuse("the request has no Authorization header"))?;
            value.to_str().map_err(|_| refuse("Authorization is not ASCII"))
        };
        match &self.0 {
            Way::Nobody => Ok(ANYBODY.to_owned()),
            Way::Signature(known) => by_signature(given()?, known, env),
            Way::Jwt(key) => by_token(given()?, key, env),
        }
    }
}

fn refuse(why: &str) -> VssError {
    VssError::AuthError(why.to_owned())
}

fn by_signature(
    given: &str,
    known: &Mutex<HashMap<String, Signed>>,
    env: &Env,
) -> Result<String, VssError> {
    let remembered = known.lock().get(given).cloned();
    let signed = match remembered {
        Some(signed) => signed,
        None => {
            let signed = verify(given)?;
            let mut known = known.lock();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(given.to_owned(), signed.clone());
            signed
        }
    };
    if seconds(env).abs_diff(signed.seconds) > SIGNATURE_SECONDS {
        return Err(refuse("the signature is too old, or of a time to come"));
    }
    Ok(signed.user)
}

/// A header is key, signature and time, one after the other; what is signed is the SHA-256 of [`SIGNED`],
/// the key's bytes and the time as it is written.
fn verify(given: &str) -> Result<Signed, VssError> {
    let malformed = || refuse("Authorization is not a key, a signature and a time");
    let head = given.get(..KEY_DIGITS + SIGNATURE_DIGITS).ok_or_else(malformed)?;
    let time = given.get(KEY_DIGITS + SIGNATURE_DIGITS..).unwrap_or_default();
    if time.is_empty()
        || time.len() > TIME_DIGITS_MAX
        || !time.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(malformed());
    }
    let seconds = time.parse().map_err(|_| malformed())?;
    let bytes = hex::decode(head).map_err(|_| malformed())?;
    let (key, signature) = bytes.split_at(KEY_DIGITS / 2);
    let wrong = |_| refuse("the signature is not that of the key");
    let verifying = VerifyingKey::from_sec1_bytes(key).map_err(wrong)?;
    let signature = Signature::from_slice(signature).map_err(wrong)?;
    let hash = Sha256::new().chain_update(SIGNED).chain_update(key).chain_update(time).finalize();
    verifying.verify_prehash(&hash, &signature).map_err(wrong)?;
    Ok(Signed { user: hex::encode(key), seconds })
}

fn by_token(given: &str, key: &token::Key, env: &Env) -> Result<String, VssError> {
    let token = given.strip_prefix("Bearer ").ok_or_else(|| refuse("there is no bearer token"))?;
    key.user(token, seconds(env)).map_err(|why| refuse(&format!("the token is refused: {why}")))
}

/// Seconds since 1970.
fn seconds(env: &Env) -> u64 {
    u64::try_from(env.now().as_nanos() / 1_000_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests;
