//! The client crate's own vectors, BIP 32's, and a seed derived by another program.

use super::*;

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

fn of_names(key: [u8; 32]) -> LdkNodeKeys {
    LdkNodeKeys::from_keys(&[0; 32], &key).unwrap()
}

fn secret_of(words: &str, passphrase: &str) -> String {
    let seed = bip39::Mnemonic::parse_normalized(words).unwrap().to_seed(passphrase);
    let master = hmac_sha512(b"Bitcoin seed", &[&seed]);
    hex::encode(*child(&master, STORE_CHILD | HARDENED).unwrap())
}

#[test]
fn hidden_names_are_those_of_the_client_crate() {
    let keys = of_names([42; 32]);
    let hidden =
        "cMoet5WTvl0nYds+VW7JPCtXUq24DtMG2dR9apAi/T5jy8eNIEyDrUAJBS4geeUuX+XGXPqlizIByOip2g";
    assert_eq!(keys.hide("a_semi_secret_key"), hidden);
    assert_eq!(keys.reveal(hidden).as_deref(), Some("a_semi_secret_key"));
    let hidden = "nxrixRQPGawY+a9JFLThii0RgeADtEdSjh2YDgpZhBKOuw6GKr5UAIIwsQCathJlZsmuSku+RGB1/JuxFUMQGoAwa+M8tg";
    let older = of_names([0xab; 32]);
    assert_eq!(older.reveal(hidden).as_deref(), Some("my_storage_key_v031_compat"));
    assert_eq!(keys.reveal(hidden), None);
    for length in 0..hidden.len() {
        assert_eq!(older.reveal(&hidden[..length]), None);
    }
    for name in ["", "#", "monitors#", "ü"] {
        assert_eq!(keys.reveal(&keys.hide(name)).as_deref(), Some(name));
    }
}

#[test]
fn a_value_of_the_client_crate_opens_with_what_it_is_bound_to() {
    let key: [u8; 32] = std::array::from_fn(|at| at as u8);
    let keys = LdkNodeKeys::from_keys(&key, &[0; 32]).unwrap();
    let sealed = hex::decode(concat!(
        "0a1d3219e9fb45d742f56c401b7413e7ae07fd81e143",
        "3af2863ce88f01f86c12320a1043686143686132",
        "30506f6c7931333035120c0000000000010203040506071a1087163502",
        "261e30ec7cf14b7970a24116"
    ))
    .unwrap();
    assert_eq!(keys.open(&sealed, b"").as_deref(), Some(b"backward_compat_test_data".as_slice()));
    assert_eq!(keys.open(&sealed, b"x"), None);
    assert_eq!(of_names([0; 32]).open(&sealed, b""), None);
    for at in 0..sealed.len() {
        assert_eq!(keys.open(&sealed[..at], b""), None, "cut at {at}");
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        assert_eq!(keys.open(&flipped, b""), None, "byte {at}");
    }
}

#[test]
fn a_hardened_child_is_that_of_bip_32() {
    // Its first test vector: m/0'.
    let seed = hex::decode("000102030405060708090a0b0c0d0e0f").unwrap();
    let master = hmac_sha512(b"Bitcoin seed", &[&seed]);
    assert_eq!(
        hex::encode(*child(&master, HARDENED).unwrap()),
        "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"
    );
}

#[test]
fn words_and_passphrase_give_the_secret_of_the_store() {
    assert_eq!(
        secret_of(WORDS, ""),
        "fb054b9836d0a8f90e609bcc8410ec43eb461a0411ee6928c70290888f4fa578"
    );
    assert_eq!(
        secret_of(WORDS, "TREZOR"),
        "f38954ea7e4e277283d35ab3bb43a75e03e8b64a605327f124a9e915150735ed"
    );
    let seed = bip39::Mnemonic::parse_normalized(WORDS).unwrap().to_seed("");
    let (one, two) = (LdkNodeKeys::from_mnemonic(WORDS, ""), LdkNodeKeys::from_seed(&seed));
    assert_eq!(one.unwrap().hide("x"), two.unwrap().hide("x"));
    let wrong = LdkNodeKeys::from_mnemonic("abandon abandon", "").unwrap_err();
    assert_eq!(wrong.kind(), highwater::Kind::Input);
}
