use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::error::Kind;
use crate::vault::document::tests::{every_damage_is_found, forged};

const FIXTURES: [&[u8]; 3] = [
    include_bytes!("../../../tests/fixtures/slot-key.json"),
    include_bytes!("../../../tests/fixtures/slot-passphrase.json"),
    include_bytes!("../../../tests/fixtures/slot-mnemonic.json"),
];
const WORDS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

fn secrets() -> [Secret; 3] {
    [
        Secret::Key(Zeroizing::new([5; 32])),
        Secret::Passphrase(Zeroizing::new("correct horse".to_owned())),
        Secret::from_mnemonic(WORDS).unwrap(),
    ]
}

fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn terms(kind: SlotKind) -> Terms {
    Terms {
        slot: SlotId::from_bytes([2; 16]),
        vault: VaultId::from_bytes([1; 16]),
        kind,
        label: "first".to_owned(),
        created: Time::from_nanos(1_790_000_000_123_456_789),
        kdf: match Kdf::default_of(kind) {
            Kdf::Argon2id { .. } => Kdf::Argon2id { m_kib: 64, t: 2, p: 1 },
            kdf => kdf,
        },
        salt: [3; SALT_LEN],
    }
}

fn slot(secret: &Secret) -> SlotDoc {
    SlotDoc::seal(terms(secret.kind()), secret, &master()).unwrap()
}

fn name() -> String {
    format!("keys/{}", SlotId::from_bytes([2; 16]))
}

fn parsed(bytes: &[u8]) -> Result<SlotDoc> {
    SlotDoc::parse(&name(), bytes)
}

fn opens(doc: &SlotDoc, secret: &Secret) -> bool {
    let key = doc.unwrap(secret).unwrap();
    key.is_some_and(|key| *key.0 == *master().0)
}

#[test]
fn the_fixtures_open_for_ever() {
    for (fixture, secret) in FIXTURES.iter().zip(&secrets()) {
        assert_eq!(slot(secret).to_bytes().unwrap(), *fixture, "{secret:?}");
        let doc = parsed(fixture).unwrap();
        assert!(opens(&doc, secret), "{secret:?}");
        doc.verify(&master()).unwrap();
    }
}

#[test]
fn a_new_slot_opens_for_its_secret_alone() {
    let vault = VaultId::from_bytes([1; 16]);
    let (env, master) = (Env::system(), MasterKey::generate().unwrap());
    for secret in &secrets() {
        let doc = SlotDoc::wrap(secret, "recovery", vault, &master, &env).unwrap();
        let doc = SlotDoc::parse(&doc.object_name(), &doc.to_bytes().unwrap()).unwrap();
        assert_eq!((doc.vault(), doc.info().label.as_str()), (vault, "recovery"));
        for other in &secrets() {
            let opened = doc.unwrap(other).unwrap();
            assert_eq!(opened.is_some(), other.kind() == secret.kind());
            assert!(opened.is_none_or(|key| *key.0 == *master.0));
        }
        let again = SlotDoc::wrap(secret, "recovery", vault, &master, &env).unwrap();
        assert_ne!((again.wrapped, again.object_name()), (doc.wrapped, doc.object_name()));
    }
}

#[test]
fn a_wrong_secret_of_the_same_kind_opens_nothing() {
    let wrong = [
        Secret::Key(Zeroizing::new([6; 32])),
        Secret::Passphrase(Zeroizing::new("correct horse ".to_owned())),
        Secret::Mnemonic(recovery_words().unwrap()),
    ];
    for (wrong, secret) in wrong.iter().zip(&secrets()) {
        assert!(slot(secret).unwrap(wrong).unwrap().is_none(), "{wrong:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_slot_is_found() {
    for fixture in FIXTURES {
        every_damage_is_found(fixture, |bytes| parsed(bytes).err());
    }
}

#[test]
fn a_forged_slot_passes_the_checksum_but_not_the_key() {
    let [secret, ..] = &secrets();
    let sound = slot(secret);
    for (from, to) in [("\"first\"", "\"worst\""), ("\"2026-", "\"2025-")] {
        let doc = parsed(&forged(FIXTURES[0], from, to)).unwrap();
        assert_eq!(doc.unwrap(secret).unwrap_err().kind(), Kind::Corrupt, "{to}");
        assert_eq!(doc.verify(&master()).unwrap_err().kind(), Kind::Corrupt, "{to}");
    }
    let (mac, wrapped) = (hex::encode(sound.mac), hex::encode(sound.wrapped));
    for field in [mac, wrapped] {
        let other = field.replace('0', "1");
        let doc = parsed(&forged(FIXTURES[0], &field, &other)).unwrap();
        assert_eq!(doc.unwrap(secret).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(doc.verify(&master()).unwrap_err().kind(), Kind::Corrupt);
    }
    let error = sound.verify(&MasterKey::from_bytes([8; 32])).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some(name().as_str())));
}

#[test]
fn unbounded_or_unfitting_derivations_are_refused() {
    for (from, to) in [
        ("\"m_kib\": 64", "\"m_kib\": 1048577"),
        ("\"m_kib\": 64", "\"m_kib\": 7"),
        ("\"t\": 2", "\"t\": 17"),
        ("\"t\": 2", "\"t\": 0"),
        ("\"p\": 1", "\"p\": 17"),
        ("\"p\": 1", "\"p\": 0"),
        ("\"kind\": \"passphrase\"", "\"kind\": \"key\""),
    ] {
        let error = parsed(&forged(FIXTURES[1], from, to)).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{to}");
    }
    let largest = forged(FIXTURES[1], "\"m_kib\": 64", "\"m_kib\": 1048576");
    parsed(&largest).unwrap();
}

#[test]
fn a_newer_or_displaced_slot_is_told() {
    let newer = forged(FIXTURES[0], "\"version\": 1", "\"version\": 2");
    assert_eq!(parsed(&newer).unwrap_err().kind(), Kind::Input);
    let elsewhere = format!("keys/{}", SlotId::from_bytes([4; 16]));
    let error = SlotDoc::parse(&elsewhere, FIXTURES[0]).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some(elsewhere.as_str())));
}

#[test]
fn weak_passphrases_and_odd_labels_are_refused() {
    let (env, vault) = (Env::system(), VaultId::from_bytes([1; 16]));
    let short = Secret::Passphrase(Zeroizing::new("1234567".to_owned()));
    let error = SlotDoc::wrap(&short, "x", vault, &master(), &env).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    for label in ["", "a\nb", &"x".repeat(65)] {
        let error = SlotDoc::wrap(&secrets()[0], label, vault, &master(), &env).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{label:?}");
    }
}

#[test]
fn derived_keys_differ_wherever_any_input_does() {
    let derived = |salt: &[u8], info: &[&[u8]]| *master().derive(salt, info);
    let keys = [
        derived(b"", &[b"hw1 a"]),
        derived(b"s", &[b"hw1 a"]),
        derived(b"", &[b"hw1 ", b"a"]),
        derived(b"", &[b"hw1 a", b""]),
        *MasterKey::from_bytes([8; 32]).derive(b"", &[b"hw1 a"]),
    ];
    let unique: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(unique.len(), keys.len());
    assert_eq!(derived(b"", &[b"hw1 a"]), keys[0]);
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?} {:?}", master(), secrets());
    assert!(shown.contains("MasterKey(..)") && !shown.contains("horse"), "{shown}");
    assert!(!shown.contains("legal") && !shown.contains('5'), "{shown}");
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn with(&self, content: &[u8], mode: u32) -> PathBuf {
        let path = self.0.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

#[test]
fn a_key_file_is_made_once_and_read_back() {
    let files = Files::new();
    let path = files.0.path().join("key");
    let Secret::Key(made) = Secret::create_key_file(&path).unwrap() else { panic!("a key") };
    let content = fs::read(&path).unwrap();
    assert_eq!(content, format!("{}\n", hex::encode(*made)).into_bytes());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let Secret::Key(read) = Secret::from_key_file(&path).unwrap() else { panic!("a key") };
    assert_eq!(made, read);

    assert_eq!(Secret::create_key_file(&path).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!(fs::read_dir(files.0.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn key_files_are_read_strictly() {
    let files = Files::new();
    let good = [b'a'; 64];
    Secret::from_key_file(&files.with(&good, 0o400)).unwrap();
    Secret::from_key_file(&files.with(&[&good[..], b"\n"].concat(), 0o600)).unwrap();
    for bad in [
        &b""[..],
        b"\n",
        &good[..63],
        &[&good[..], b"a"].concat(),
        &[&good[..], b"\n\n"].concat(),
        &[&good[..], b"\r\n"].concat(),
        &[&good[..63], b"g"].concat(),
        &[b'a'; 100_000],
    ] {
        let error = Secret::from_key_file(&files.with(bad, 0o600)).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.entry().is_some());
    }
}

#[test]
fn loose_modes_and_missing_files_are_told_apart() {
    let files = Files::new();
    let readers = [Secret::from_key_file, Secret::from_passphrase_file, Secret::from_mnemonic_file];
    for read in readers {
        for mode in [0o640, 0o604, 0o620, 0o644] {
            let error = read(&files.with(b"x", mode)).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied);
            assert!(error.hint().unwrap().starts_with("chmod 600 "));
        }
        let error = read(&files.0.path().join("missing")).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(read(files.0.path()).unwrap_err().kind(), Kind::Input);
    }
}

#[test]
fn a_passphrase_loses_one_newline_and_nothing_else() {
    let files = Files::new();
    for (content, passphrase) in
        [("a b c d e", "a b c d e"), (" x \n", " x "), ("x\n\n", "x\n"), ("x\r\n", "x\r")]
    {
        let read = Secret::from_passphrase_file(&files.with(content.as_bytes(), 0o600)).unwrap();
        let Secret::Passphrase(text) = read else { panic!("a passphrase") };
        assert_eq!(text.as_str(), passphrase);
    }
    for bad in [&b""[..], b"\n", b"\xff\xfe12345678"] {
        let error = Secret::from_passphrase_file(&files.with(bad, 0o600)).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
    }
}

#[test]
fn a_mnemonic_is_read_in_any_layout_and_a_wrong_word_is_told_by_its_place() {
    let files = Files::new();
    let text = WORDS.to_uppercase().replace(' ', " \n ");
    let read = Secret::from_mnemonic_file(&files.with(text.as_bytes(), 0o600)).unwrap();
    let Secret::Mnemonic(words) = read else { panic!("a mnemonic") };
    assert_eq!(words.as_str(), WORDS);

    let wrong = |text: &str| {
        let error = Secret::from_mnemonic_file(&files.with(text.as_bytes(), 0o600)).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        error.message().to_owned()
    };
    let message = wrong(&WORDS.replace("year", "yeer"));
    assert!(message.contains("word 4 ") && !message.contains("yeer"), "{message}");
    assert!(wrong("legal winner").contains("not 2"));
    assert!(wrong("").contains("not 0"));
    assert!(wrong(&WORDS.replace("yellow", "winner")).contains("checksum"));
}

#[test]
fn recovery_words_open_a_slot() {
    let words = recovery_words().unwrap();
    assert_eq!(words.split(' ').count(), 24);
    assert_ne!(words, recovery_words().unwrap());
    let secret = Secret::from_mnemonic(&words).unwrap();
    assert!(opens(&slot(&secret), &secret));
}

/// The test vector of BIP-39 for these words, without a passphrase.
#[test]
fn the_mnemonic_seed_is_that_of_the_standard() {
    let seed = secret::mnemonic_seed(WORDS).unwrap();
    assert_eq!(hex::encode(&seed[..8]), "878386efb78845b3");
}
