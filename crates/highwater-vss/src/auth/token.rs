//! JSON Web Tokens (RFC 7519) that are signed with RS256 (RFC 7518, 3.3): one algorithm, and the few
//! claims that say whose a request is and until when.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use highwater::{Error, Result};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::super::limits::NAME_MAX;

/// A token is valid for this long before its beginning and after its end, because clocks differ.
const LEEWAY_SECONDS: f64 = 60.0;
/// Bits of a modulus.
const BITS: RangeInclusive<usize> = 2048..=8192;

/// The DER of the object identifier of an RSA key, 1.2.840.113549.1.1.1, and its empty parameters.
const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const SEQUENCE: u8 = 0x30;

/// The key that tokens are verified with.
pub(super) struct Key(UnparsedPublicKey<Vec<u8>>);

/// What says how a token is signed; what else is in it is nobody's business.
#[derive(Deserialize)]
struct Header {
    alg: String,
    /// What whoever reads the token must understand, or refuse it.
    crit: Option<IgnoredAny>,
}

/// What a token says. Times are seconds since 1970, perhaps broken ones.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    aud: Option<IgnoredAny>,
}

impl Key {
    /// An RSA public key as PEM, in either of the two forms that there are.
    ///
    /// # Errors
    /// Input where that is none, or one of fewer than 2,048 bits.
    pub(super) fn from_pem(pem: &str) -> Result<Key> {
        let refused = |what: &str| {
            Error::input(what)
                .with_remedy("it must be an RSA public key as PEM, of 2,048 bits or more")
        };
        let key = rsa_of(pem).ok_or_else(|| refused("the file holds no RSA public key"))?;
        let bits = modulus_bits(&key).ok_or_else(|| refused("the file holds no RSA public key"))?;
        if bits < *BITS.start() {
            return Err(refused("the RSA key has fewer than 2,048 bits"));
        }
        if bits > *BITS.end() {
            return Err(refused("the RSA key has more than 8,192 bits"));
        }
        Ok(Key(UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)))
    }

    /// The user of a token, at `now` in seconds since 1970; else why it is refused.
    pub(super) fn user(&self, token: &str, now: u64) -> Result<String, &'static str> {
        let malformed = "it is not header, claims and signature";
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
        let (header, claims, signature) = (bytes(header)?, bytes(claims)?, bytes(signature)?);
        let header: Header = parse(&header, malformed)?;
        if header.alg != "RS256" {
            return Err("it is not signed with RS256");
        }
        if header.crit.is_some() {
            return Err("it demands what is not known here");
        }
        let verified = self.0.verify(signed.as_bytes(), &signature);
        verified.map_err(|_| "its signature is not that of the key")?;
        who(&claims, now)
    }
}

/// Whose a token with these claims is at `now`.
pub(crate) fn who(claims: &[u8], now: u64) -> Result<String, &'static str> {
    let claims: Claims = parse(claims, "it has no `sub` and `exp`, or one that is malformed")?;
    let now = now as f64;
    if claims.exp < now - LEEWAY_SECONDS {
        return Err("it has ended");
    }
    if claims.nbf.is_some_and(|begin| begin > now + LEEWAY_SECONDS) {
        return Err("it has not begun");
    }
    // A token that was made for an audience was not made for this one.
    if claims.aud.is_some() {
        return Err("it was made for somebody else");
    }
    if claims.sub.chars().count() > NAME_MAX || claims.sub.contains('\0') {
        return Err("its `sub` is not a user");
    }
    Ok(claims.sub)
}

fn parse<T: DeserializeOwned>(json: &[u8], wrong: &'static str) -> Result<T, &'static str> {
    serde_json::from_slice(json).map_err(|_| wrong)
}

/// The `RSAPublicKey` (RFC 8017, A.1.1) in a file: by itself, or in a `SubjectPublicKeyInfo`.
fn rsa_of(pem: &str) -> Option<Vec<u8>> {
    if let Some(key) = section(pem, "RSA PUBLIC KEY") {
        return Some(key);
    }
    let info = section(pem, "PUBLIC KEY")?;
    let mut inside = whole(&info, SEQUENCE)?;
    let algorithm = element(&mut inside, SEQUENCE)?;
    let (unused, key) = whole(inside, BIT_STRING)?.split_first()?;
    (algorithm == RSA && *unused == 0).then(|| key.to_vec())
}

fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut inside = whole(key, SEQUENCE)?;
    let modulus = element(&mut inside, INTEGER)?;
    whole(inside, INTEGER)?;
    let modulus = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
    Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize)
}

/// The bytes of the section of a PEM file (RFC 7468) that has this label.
fn section(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (text, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(text.split_ascii_whitespace().collect::<String>()).ok()
}

/// The content of an element of DER that is all there is.
fn whole(mut bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let content = element(&mut bytes, tag)?;
    bytes.is_empty().then_some(content)
}

/// The content of the next element of DER, of less than 64 KiB; moves on behind it.
fn element<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (length, rest) = match **bytes {
        [found, length @ 0..=0x7f, ref rest @ ..] if found == tag => (usize::from(length), rest),
        [found, 0x81, length, ref rest @ ..] if found == tag => (usize::from(length), rest),
        [found, 0x82, high, low, ref rest @ ..] if found == tag => {
            (usize::from(u16::from_be_bytes([high, low])), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(content)
}
