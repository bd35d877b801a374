use super::*;

fn keys() -> ReplicaKeys {
    ReplicaKeys::from_entropy(&[7; 32], "store").unwrap()
}

#[test]
fn they_are_wiped() {
    fn wiped(_: &impl zeroize::ZeroizeOnDrop) {}
    let ReplicaKeys { root, store: _, name, tag } = keys();
    wiped(&root);
    wiped(&name);
    wiped(&tag);
}

#[test]
fn a_value_opens_under_its_name_alone() {
    let keys = keys();
    let epoch = keys.epoch([3; 16]).unwrap();
    let name = keys.name_of(b"monitors/1");
    let (sealed, tag) = keys.seal(&epoch, &name, b"monitors/1", 9, b"state").unwrap();
    let opened = keys.open(&name, &sealed).unwrap();
    assert_eq!(
        opened,
        Opened { key: b"monitors/1".to_vec(), value: b"state".to_vec(), seq: 9, tag }
    );
    assert!(keys.open(&keys.name_of(b"monitors/2"), &sealed).is_err());
    let other = ReplicaKeys::from_entropy(&[8; 32], "store").unwrap();
    assert!(other.open(&name, &sealed).is_err());
    let elsewhere = ReplicaKeys::from_entropy(&[7; 32], "other").unwrap();
    assert!(elsewhere.open(&name, &sealed).is_err());
}

#[test]
fn a_flipped_bit_or_a_cut_is_found() {
    let keys = keys();
    let epoch = keys.epoch([3; 16]).unwrap();
    let name = keys.name_of(b"k");
    let (sealed, _) = keys.seal(&epoch, &name, b"k", 9, b"state").unwrap();
    for place in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[place] ^= 1;
        assert!(keys.open(&name, &flipped).is_err(), "byte {place}");
        assert!(keys.open(&name, &sealed[..place]).is_err(), "cut at {place}");
    }
    let document = keys.seal_document("head.x", b"{}").unwrap();
    for place in 0..document.len() {
        let mut flipped = document.clone();
        flipped[place] ^= 1;
        assert!(keys.open_document("head.x", &flipped).is_err(), "byte {place}");
    }
    assert!(keys.open_document("head.y", &document).is_err());
    assert_eq!(keys.open_document("head.x", &document).unwrap(), b"{}");
}

#[test]
fn one_mnemonic_gives_one_set_of_keys() {
    let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    let one = ReplicaKeys::from_mnemonic(words, "store").unwrap();
    let two = ReplicaKeys::from_mnemonic(&format!(" {words}\n"), "store").unwrap();
    assert_eq!(one.check(), two.check());
    assert_eq!(one.name_of(b"k"), two.name_of(b"k"));
    assert_ne!(one.check(), ReplicaKeys::from_mnemonic(words, "other").unwrap().check());
    assert_eq!(
        ReplicaKeys::from_mnemonic("abandon abandon", "s").unwrap_err().kind().name(),
        "input"
    );
}
