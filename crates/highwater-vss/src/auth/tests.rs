use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use highwater::env::Clock;
use highwater::ids::Time;
use http::HeaderValue;
use k256::ecdsa::SigningKey;
use k256::ecdsa::signature::hazmat::PrehashSigner as _;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::*;
use crate::limits::NAME_MAX;

/// A clock that stands.
struct At(u64);

impl Clock for At {
    fn now(&self) -> Time {
        Time::from_nanos(i64::try_from(self.0).unwrap() * 1_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn pause(&self, _: Duration) {}
}

const NOW: u64 = 1_800_000_000;

fn headers(value: &str) -> HeaderMap {
    [(AUTHORIZATION, HeaderValue::from_str(value).unwrap())].into_iter().collect()
}

fn user(auth: &Auth, value: &str, now: u64) -> Result<String, VssError> {
    auth.user(&headers(value), &Env::system().with_clock(At(now)))
}

fn signed(key: &SigningKey, time: &str) -> String {
    let point = key.verifying_key().to_sec1_point(true);
    let hash = Sha256::new().chain_update(SIGNED).chain_update(point).chain_update(time).finalize();
    let signature: Signature = key.sign_prehash(&hash).unwrap();
    format!("{}{}{time}", hex::encode(point), hex::encode(signature.to_bytes()))
}

#[test]
fn a_signature_is_good_for_a_day_either_way() {
    let auth = Auth::signature();
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    let header = signed(&key, &NOW.to_string());
    let who = user(&auth, &header, NOW).unwrap();
    assert_eq!(who, header[..KEY_DIGITS]);
    for (now, good) in [
        (NOW + SIGNATURE_SECONDS, true),
        (NOW - SIGNATURE_SECONDS, true),
        (NOW + SIGNATURE_SECONDS + 1, false),
        (NOW - SIGNATURE_SECONDS - 1, false),
    ] {
        assert_eq!(user(&auth, &header, now).is_ok(), good, "{now}");
    }
    let other = SigningKey::from_slice(&[8; 32]).unwrap();
    assert_ne!(user(&auth, &signed(&other, &NOW.to_string()), NOW).unwrap(), who);
}

#[test]
fn what_is_no_signature_is_refused() {
    let auth = Auth::signature();
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    let other = SigningKey::from_slice(&[8; 32]).unwrap();
    let time = NOW.to_string();
    let good = signed(&key, &time);
    let stolen = format!("{}{}", &signed(&other, &time)[..KEY_DIGITS], &good[KEY_DIGITS..]);
    let later = format!("{}{}", &good[..KEY_DIGITS + SIGNATURE_DIGITS], NOW + 1);
    let mut flipped = good.clone().into_bytes();
    flipped[KEY_DIGITS + 5] ^= 1;
    let flipped = String::from_utf8(flipped).unwrap();
    for wrong in [
        "",
        "Bearer x",
        &good[..KEY_DIGITS + SIGNATURE_DIGITS],
        &good[..KEY_DIGITS + 3],
        &format!("{good}x"),
        &format!("{good}{good}"),
        &good.replace(&time, "-1"),
        &good.replace(&time, "99999999999999999999999"),
        &"0".repeat(KEY_DIGITS + SIGNATURE_DIGITS + 10),
        &"g".repeat(KEY_DIGITS + SIGNATURE_DIGITS + 10),
        &stolen,
        &later,
        &flipped,
    ] {
        assert!(matches!(user(&auth, wrong, NOW), Err(VssError::AuthError(_))), "{wrong}");
    }
    let missing = auth.user(&HeaderMap::new(), &Env::system());
    assert!(matches!(missing, Err(VssError::AuthError(_))));
    assert!(user(&auth, &good, NOW).is_ok());
}

/// Made by `openssl`: a private key and its public one, of so many bits.
fn rsa(bits: u32) -> (String, String) {
    let openssl = |words: &[&str], input: &str| {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut child = Command::new("openssl")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let private = openssl(&["genrsa", "-traditional", &bits.to_string()], "");
    let public = openssl(&["rsa", "-pubout"], &private);
    (private, public)
}

/// A token with a header and claims, signed with the private key that `openssl` made.
fn token(private: &str, header: &Value, claims: &Value) -> String {
    let der: String = private.lines().filter(|line| !line.starts_with('-')).collect();
    let key = RsaKeyPair::from_der(&STANDARD.decode(der).unwrap()).unwrap();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    let random = SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
    format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_token_names_its_user_until_it_ends() {
    let (private, public) = rsa(2048);
    let (foreign, _) = rsa(2048);
    let auth = Auth::jwt(&public).unwrap();
    let now = NOW;
    let rs256 = json!({"alg": "RS256", "typ": "JWT", "kid": "1"});
    let made = |claims: Value| token(&private, &rs256, &claims);
    let good = made(json!({"sub": "alice", "exp": now + 600}));
    for right in [
        good.clone(),
        made(json!({"sub": "alice", "exp": now - 30})),
        made(json!({"sub": "alice", "exp": now + 600, "nbf": now + 30, "iss": "them"})),
        made(json!({"sub": "alice", "exp": now as f64 + 0.5, "aud": null})),
    ] {
        assert_eq!(user(&auth, &right, now).unwrap(), "alice", "{right}");
    }
    assert!(user(&auth, &good, now + 660).is_ok() && user(&auth, &good, now + 661).is_err());
    let long = "x".repeat(NAME_MAX + 1);
    let claims = json!({"sub": "alice", "exp": now + 600});
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other = made(json!({"sub": "bob", "exp": now + 600}));
    let stolen = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    for wrong in [
        made(json!({"sub": "alice", "exp": now - 120})),
        made(json!({"sub": "alice"})),
        made(json!({"exp": now + 600})),
        made(json!({"sub": "alice", "exp": "tomorrow"})),
        made(json!({"sub": "alice", "exp": now + 600, "aud": "them"})),
        made(json!({"sub": "alice", "exp": now + 600, "aud": 5})),
        made(json!({"sub": "alice", "exp": now + 600, "nbf": now + 300})),
        made(json!({"sub": "alice", "exp": now + 600, "nbf": "tomorrow"})),
        made(json!({"sub": long, "exp": now + 600})),
        made(json!({"sub": "a\0", "exp": now + 600})),
        token(&private, &json!({"alg": "RS384"}), &claims),
        token(&private, &json!({"alg": "none"}), &claims),
        token(&private, &json!({"typ": "JWT"}), &claims),
        token(&private, &json!({"alg": "RS256", "crit": ["b64"], "b64": false}), &claims),
        token(&foreign, &rs256, &claims),
        good.replace("Bearer ", ""),
        format!("{head}."),
        format!("{good}="),
        format!("{good}.{signature}"),
        stolen,
        "Bearer ".to_owned(),
        "Bearer a.b.c".to_owned(),
    ] {
        assert!(matches!(user(&auth, &wrong, now), Err(VssError::AuthError(_))), "{wrong}");
    }
}

#[test]
fn a_key_that_can_t_be_trusted_is_refused() {
    let (private, public) = rsa(1024);
    for (pem, words) in [
        (public.as_str(), "fewer than 2,048 bits"),
        (private.as_str(), "no RSA public key"),
        ("", "no RSA public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no RSA public key"),
    ] {
        let error = Auth::jwt(pem).err().expect(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    let (_, public) = rsa(2048);
    assert!(Auth::jwt(&public).is_ok());
    let body: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    // Behind 24 bytes that say that it is one, the key stands by itself.
    assert!(Auth::jwt(&pem("RSA PUBLIC KEY", &der[24..])).is_ok());
    assert!(Auth::jwt(&pem("PUBLIC KEY", &der)).is_ok());
    for place in 0..24 {
        let mut other = der.clone();
        other[place] ^= 1;
        assert!(Auth::jwt(&pem("PUBLIC KEY", &other)).is_err(), "byte {place}");
        assert!(Auth::jwt(&pem("PUBLIC KEY", &der[..der.len() - 1 - place])).is_err());
    }
}
