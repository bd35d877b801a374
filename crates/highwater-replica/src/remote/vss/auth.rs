//! Who asks: nobody, whoever has a token, or whoever can sign the time with a key.

use std::fmt;

use highwater::env::Env;
use highwater::{Error, Result};
use k256::ecdsa::signature::hazmat::PrehashSigner as _;
use k256::ecdsa::{Signature, SigningKey};
use parking_lot::Mutex;
use reqwest::header::HeaderValue;
use ring::digest;
use zeroize::Zeroizing;

/// What is signed begins with this: 64 bytes.
const SIGNED: &[u8; 64] = b"VSS Signature Authorizer Signing Salt Constant..................";

/// How a server is shown who asks.
#[derive(Clone)]
pub enum VssAuth {
    /// Not at all: a server on this machine, for development.
    None,
    /// By a JSON Web Token.
    Bearer(String),
    /// By signatures with this key of secp256k1; the key is the user.
    Signature(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for VssAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VssAuth::None => "None",
            VssAuth::Bearer(_) => "Bearer(…)",
            VssAuth::Signature(_) => "Signature(…)",
        })
    }
}

/// Makes the headers.
pub(super) struct Signer {
    auth: VssAuth,
    env: Env,
    way: Way,
}

enum Way {
    Nobody,
    Always(HeaderValue),
    /// The last signature, and its second: a server looks at each new one, and knows this one again.
    Signed(Box<SigningKey>, Mutex<Option<(i64, HeaderValue)>>),
}

impl Signer {
    /// # Errors
    /// Input where the token can't stand in a header, or the key is not on the curve.
    pub(super) fn new(auth: VssAuth, env: Env) -> Result<Signer> {
        let way = match &auth {
            VssAuth::None => Way::Nobody,
            VssAuth::Bearer(token) => Way::Always(secret(&format!("Bearer {}", token.trim()))?),
            VssAuth::Signature(key) => {
                let key = SigningKey::from_slice(&**key).map_err(|_| {
                    Error::input("the key that signs is none of secp256k1")
                        .with_remedy("take the one of the replica's keys")
                })?;
                Way::Signed(Box::new(key), Mutex::default())
            }
        };
        Ok(Signer { auth, env, way })
    }

    pub(super) fn auth(&self) -> &VssAuth {
        &self.auth
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>> {
        let (key, last) = match &self.way {
            Way::Nobody => return Ok(None),
            Way::Always(header) => return Ok(Some(header.clone())),
            Way::Signed(key, last) => (key, last),
        };
        let now = self.env.now().as_nanos() / 1_000_000_000;
        let mut last = last.lock();
        if let Some((second, header)) = &*last
            && *second == now
        {
            return Ok(Some(header.clone()));
        }
        let header = secret(&sign(key, &now.to_string())?)?;
        *last = Some((now, header.clone()));
        Ok(Some(header))
    }
}

/// Key, signature and time, one after the other; what is signed is the SHA-256 of [`SIGNED`], the key's
/// bytes and the time as it is written.
fn sign(key: &SigningKey, time: &str) -> Result<String> {
    let point = key.verifying_key().to_sec1_point(true);
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [SIGNED.as_slice(), point.as_bytes(), time.as_bytes()] {
        hash.update(part);
    }
    let signature: Signature = key
        .sign_prehash(hash.finish().as_ref())
        .map_err(|_| Error::bug("a hash of 32 bytes can't be signed"))?;
    Ok(format!("{}{}{time}", hex::encode(point.as_bytes()), hex::encode(signature.to_bytes())))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::input("the token can't be sent as it is").with_remedy("is it one line?")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
