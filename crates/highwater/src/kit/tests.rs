use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::Env;
use crate::error::Kind;
use crate::vault::document::tests::{every_damage_is_found, forged};
use crate::vault::{CreateOptions, Location, Secret, Vault};

const FIXTURE: &[u8] = include_bytes!("../../tests/fixtures/kit-1.hwk");
const FIXTURE_CONTENT: &str = include_str!("../../tests/fixtures/kit-1.json");
const FIXTURE_KEY: &str = include_str!("../../tests/fixtures/vault-1.key");

/// What B21 promises for a hundred channels.
const KIT_BYTES_MAX: usize = 64 << 10;

struct Bench {
    dir: tempfile::TempDir,
    vault: Vault,
    words: Zeroizing<String>,
}

fn key(byte: u8) -> Secret {
    Secret::Key(Zeroizing::new([byte; 32]))
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Local(dir.path().join("vault"));
    let created = Vault::create_with(
        &location,
        &key(1),
        &CreateOptions { recovery: true, ..CreateOptions::default() },
        &Env::system(),
    )
    .unwrap();
    fs::create_dir(dir.path().join("node")).unwrap();
    Bench { dir, vault: created.vault, words: created.recovery_words.unwrap() }
}

impl Bench {
    fn node(&self) -> std::path::PathBuf {
        self.dir.path().join("node")
    }

    fn kit(&self, channels: usize) -> Kit {
        let time = Time::from_nanos(1_790_000_000_000_000_000);
        Kit::of_dir(&self.node(), None, content(channels), time).unwrap()
    }
}

/// As long as a channel of a node on Bitcoin gets: a peer with two addresses, one of them of Tor, and
/// an id of its own for the channel's keys.
fn channel(number: usize) -> KitChannel {
    let digits = |purpose: &str, length: usize| {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{purpose} {number}").as_bytes()).finalize_xof().fill(&mut bytes);
        hex::encode(bytes)
    };
    KitChannel {
        id: digits("id", 32),
        peer: digits("peer", 33),
        addresses: vec![
            format!("{}.onion:9735", &digits("onion", 28)),
            format!("[2001:db8:1234:5678:9abc:def0:1234:{number:04x}]:9735"),
        ],
        funding: format!("{}:{number}", digits("funding", 32)),
        capacity: 16_777_215_000 + number as u64,
        keys: [
            ("channel_keys_id".to_owned(), digits("keys", 32)),
            ("derivation_index".to_owned(), number.to_string()),
        ]
        .into(),
    }
}

fn content(channels: usize) -> KitContent {
    let key = |name: &str, byte| IdentityKey {
        name: name.to_owned(),
        secret: Zeroizing::new(vec![byte; 32]),
    };
    let identity = vec![key("node", 0xA5), key("seed", 0x5A)];
    KitContent::new(identity, (0..channels).map(channel).collect())
}

fn wrong<T>(result: Result<T>) -> Error {
    result.map(drop).unwrap_err()
}

/// The same bytes with a checksum that fits.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    let checksum = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(checksum.as_bytes());
    bytes
}

#[test]
fn every_secret_of_the_vault_opens_the_kit_when_the_vault_is_gone() {
    let bench = bench();
    let passphrase = Secret::Passphrase(Zeroizing::new("correct horse battery".to_owned()));
    bench.vault.add_slot(&passphrase, "paper").unwrap();
    let kit = bench.kit(3);
    let bytes = seal(&bench.vault, &kit).unwrap();
    fs::remove_dir_all(bench.dir.path().join("vault")).unwrap();

    for secret in [key(1), Secret::from_mnemonic(&bench.words).unwrap(), passphrase] {
        assert_eq!(open(&bytes, &secret).unwrap(), kit, "{secret:?}");
    }
    let other = Secret::Passphrase(Zeroizing::new("incorrect horse battery".to_owned()));
    for secret in [key(2), other] {
        assert_eq!(wrong(open(&bytes, &secret)).kind(), Kind::Denied, "{secret:?}");
    }
}

#[test]
fn without_a_key_a_kit_tells_slots_and_time_and_nothing_of_the_node() {
    let bench = bench();
    let bytes = seal(&bench.vault, &bench.kit(3)).unwrap();
    let header = describe(&bytes).unwrap();
    assert_eq!((header.version, header.vault), (1, bench.vault.id()));
    assert_eq!(header.time, bench.kit(0).time);
    assert_eq!(header.bytes, bytes.len() as u64);
    let labels: BTreeSet<String> = header.slots.into_iter().map(|slot| slot.label).collect();
    assert_eq!(labels, ["first".to_owned(), "recovery".to_owned()].into());
    let kit = bench.kit(3);
    let secrets = kit.identity.iter().map(|key| key.secret.to_vec());
    let channel = &kit.channels[0];
    let texts = [&channel.id, &channel.peer, &channel.addresses[0], &channel.funding];
    for hidden in texts.into_iter().map(|text| text.as_bytes().to_vec()).chain(secrets) {
        assert!(!bytes.windows(hidden.len()).any(|window| window == hidden));
    }
    // The same kit sealed again shares nothing with it: neither key nor nonce come twice.
    let again = seal(&bench.vault, &kit).unwrap();
    let body = bytes.len() - (8192 + 16 + 32)..bytes.len() - 32;
    assert!(bytes[body.clone()].chunks(16).all(|chunk| {
        chunk.len() < 16 || !again[body.clone()].windows(16).any(|window| window == chunk)
    }));
}

#[test]
fn a_hundred_channels_fit_into_64_kib() {
    let bench = bench();
    let bytes = seal(&bench.vault, &bench.kit(100)).unwrap();
    assert!(bytes.len() < KIT_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(open(&bytes, &key(1)).unwrap().channels.len(), 100);
}

#[test]
fn the_size_does_not_tell_how_many_channels_there_are() {
    let bench = bench();
    let size = |channels| seal(&bench.vault, &bench.kit(channels)).unwrap().len();
    assert_eq!(size(0), size(10));
    assert_eq!(size(90), size(94));
    assert_eq!(size(100) % 8192, size(0) % 8192);
}

#[test]
fn the_fixture_opens_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, FIXTURE_KEY).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let kit = open(FIXTURE, &Secret::from_key_file(&path).unwrap()).unwrap();
    let content: KitContent = parse(FIXTURE_CONTENT.as_bytes(), Error::corrupt).unwrap();
    assert_eq!((kit.version, kit.node.as_str()), (1, "node"));
    assert_eq!(kit.uid, Some("70e3a1f0c1c24b6f8f6f7ad3c0ffee01".parse().unwrap()));
    assert_eq!(kit.time.to_string(), "2026-11-21T05:00:00Z");
    assert_eq!((&kit.identity, &kit.channels), (&content.identity, &content.channels));
    assert_eq!(describe(FIXTURE).unwrap().slots.len(), 2);
}

#[test]
fn every_flipped_bit_and_every_cut_of_the_fixture_is_found() {
    every_damage_is_found(FIXTURE, |bytes| {
        let error = describe(bytes).err();
        let opened = open(bytes, &key(1)).unwrap_err();
        let damaged = opened.kind() == Kind::Corrupt;
        assert_eq!(damaged, error.is_some(), "a wrong key and damage are told apart");
        error
    });
}

#[test]
fn the_key_finds_every_change_that_the_checksum_does_not() {
    let bench = bench();
    let bytes = seal(&bench.vault, &bench.kit(1)).unwrap();
    for at in 0..bytes.len() - 32 {
        let mut forgery = bytes.clone();
        forgery[at] ^= 1;
        let error = wrong(open(&with_checksum(forgery), &key(1)));
        // Where the number of a format is meant to rise, a newer program is to be sought.
        let newer = error.kind() == Kind::Input && error.message().contains("has format");
        assert!(newer || error.kind() == Kind::Corrupt, "byte {at}: {error}");
        assert!(error.entry().is_some(), "byte {at}");
    }
}

/// The kit with one text of its header replaced, and all checksums made to fit again.
fn with_header(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let header = forged(&bytes[16..16 + length], from, to);
    let mut new = bytes[..12].to_vec();
    new.extend_from_slice(&(header.len() as u32).to_le_bytes());
    new.extend_from_slice(&header);
    new.extend_from_slice(&bytes[16 + length..]);
    with_checksum(new)
}

#[test]
fn a_forged_header_passes_the_checksums_and_not_the_key() {
    let bench = bench();
    let bytes = seal(&bench.vault, &bench.kit(1)).unwrap();
    let time = bench.kit(0).time;
    let later = Time::from_nanos(time.as_nanos() + 1_000_000_000);
    let forgery = with_header(&bytes, &time.to_string(), &later.to_string());
    assert_eq!(describe(&forgery).unwrap().time, later);
    assert_eq!(wrong(open(&forgery, &key(1))).kind(), Kind::Corrupt);

    let header = std::str::from_utf8(&bytes[16..bytes.len() - 8192 - 96]).unwrap();
    let begin = header.find("    {\n").unwrap();
    let end = begin + header[begin..].find("\n    },\n").unwrap() + "\n    },\n".len();
    let fewer = with_header(&bytes, &header[begin..end], "");
    let [slot] = &*describe(&fewer).unwrap().slots else { panic!("one slot is left") };
    let secret = match slot.label.as_str() {
        "first" => key(1),
        _ => Secret::from_mnemonic(&bench.words).unwrap(),
    };
    assert_eq!(wrong(open(&fewer, &secret)).kind(), Kind::Corrupt);
}

#[test]
fn a_newer_kit_is_not_damage() {
    let bench = bench();
    let bytes = seal(&bench.vault, &bench.kit(1)).unwrap();
    let mut format = bytes.clone();
    format[8] = 2;
    let header = with_header(&bytes, "\"version\": 1,", "\"version\": 2,\n  \"more\": [],");
    for newer in [with_checksum(format), header] {
        assert_eq!(wrong(describe(&newer)).kind(), Kind::Input);
        assert_eq!(wrong(open(&newer, &key(1))).kind(), Kind::Input);
    }
    let newer = FIXTURE_CONTENT.replace("\"version\": 1", "\"version\": 2, \"more\": 1");
    assert_eq!(wrong(parse::<KitContent>(newer.as_bytes(), Error::corrupt)).kind(), Kind::Input);
}

#[test]
fn a_kit_has_no_place_for_what_changes() {
    let refused = |from: &str, to: &str| {
        let text = FIXTURE_CONTENT.replacen(from, to, 1);
        assert_ne!(text, FIXTURE_CONTENT);
        let error = wrong(parse::<KitContent>(text.as_bytes(), Error::corrupt));
        assert_eq!(error.kind(), Kind::Corrupt, "{to}");
        assert!(!error.to_string().contains("secret"), "no content is told: {error}");
    };
    for field in ["commitment_number", "revocation_secret", "signed", "state"] {
        refused("\"capacity\"", &format!("\"{field}\": 7, \"capacity\""));
        refused("\"identity\"", &format!("\"{field}\": 7, \"identity\""));
    }
    refused("\"secret\": \"", "\"secret\": \"the secret ");
}

#[test]
fn content_that_makes_no_sense_is_refused() {
    let bench = bench();
    let refused = |change: &dyn Fn(&mut KitContent)| {
        let mut content = content(2);
        change(&mut content);
        let of_dir = Kit::of_dir(&bench.node(), None, content.clone(), Time::default());
        assert_eq!(wrong(of_dir).kind(), Kind::Input);
        let beside = write_beside(&bench.node(), &content, &Env::system());
        assert_eq!(wrong(beside).kind(), Kind::Input);
        assert!(!bench.node().join(BESIDE).exists());
    };
    refused(&|content| content.identity.clear());
    refused(&|content| content.identity[1].name = "node".to_owned());
    refused(&|content| content.identity[0].secret.clear());
    refused(&|content| content.identity[0].secret.resize(4097, 0));
    refused(&|content| content.channels[1].id = content.channels[0].id.clone());
    refused(&|content| content.channels[1].id.clear());
    refused(&|content| content.channels[1].peer = "a\nb".to_owned());
    refused(&|content| content.channels[1].funding = "ab".repeat(129));
    refused(&|content| content.channels[1].addresses = vec!["a".to_owned(); 17]);
    refused(&|content| {
        let keys = &mut content.channels[1].keys;
        drop(keys.insert("transaction".to_owned(), "02".repeat(200)));
    });
}

#[test]
fn a_node_writes_its_content_beside_its_state() {
    let (bench, env) = (bench(), Env::system());
    assert_eq!(wrong(read_beside(&bench.node())).kind(), Kind::NotFound);
    write_beside(&bench.node(), &content(1), &env).unwrap();
    let mode = fs::metadata(bench.node().join(BESIDE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(read_beside(&bench.node()).unwrap(), content(1));

    let mut next = content(2);
    next.channels[0].addresses = vec!["192.0.2.1:9735".to_owned()];
    next.channels[0].keys.insert("more".to_owned(), "1".to_owned());
    write_beside(&bench.node(), &next, &env).unwrap();
    assert_eq!(read_beside(&bench.node()).unwrap(), next);
    let names: Vec<_> = fs::read_dir(bench.node().join(".highwater"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["kit.json"]);
}

#[test]
fn a_field_that_changes_is_no_field_of_a_kit() {
    let (bench, env) = (bench(), Env::system());
    let mut content = content(1);
    content.channels[0].keys.insert("commitment".to_owned(), "41".to_owned());
    write_beside(&bench.node(), &content, &env).unwrap();
    content.channels[0].keys.insert("commitment".to_owned(), "42".to_owned());
    let error = wrong(write_beside(&bench.node(), &content, &env));
    assert_eq!((error.kind(), error.entry()), (Kind::Input, Some(BESIDE)));
    assert!(error.to_string().contains("`commitment`"), "{error}");
    assert_eq!(read_beside(&bench.node()).unwrap().channels[0].keys["commitment"], "41");
}

#[test]
fn secrets_are_read_from_private_files_only() {
    let (bench, env) = (bench(), Env::system());
    write_beside(&bench.node(), &content(1), &env).unwrap();
    let path = bench.node().join(BESIDE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(wrong(read_beside(&bench.node())).kind(), Kind::Denied);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "{\"version\": 1").unwrap();
    let error = wrong(read_beside(&bench.node()));
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.entry(), path.to_str());
    write_beside(&bench.node(), &content(1), &env).unwrap();
    assert_eq!(read_beside(&bench.node()).unwrap(), content(1), "the node knows it anew");
}

#[test]
fn a_file_is_made_once_or_replaced_whole() {
    let (bench, env) = (bench(), Env::system());
    let path = bench.dir.path().join("kit.hwk");
    write_file(&path, b"one", false, &env).unwrap();
    assert_eq!(wrong(write_file(&path, b"two", false, &env)).kind(), Kind::Conflict);
    assert_eq!(read_file(&path).unwrap(), b"one");
    write_file(&path, b"two", true, &env).unwrap();
    assert_eq!(read_file(&path).unwrap(), b"two");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 3, "nothing is left behind");
    let long = vec![0; (16 << 20) + 1];
    assert_eq!(wrong(write_file(&path, &long, true, &env)).kind(), Kind::Input);
    assert_eq!(read_file(&path).unwrap(), b"two", "what is there stays");
    assert_eq!(wrong(read_file(&bench.node())).kind(), Kind::Input);
    assert_eq!(wrong(read_file(&bench.node().join("none"))).kind(), Kind::NotFound);
}

#[test]
fn a_kit_as_json_is_read_again_and_debug_tells_no_secret() {
    let bench = bench();
    let kit = bench.kit(2);
    let text = kit.to_json().unwrap();
    assert_eq!(parse::<Kit>(&text, Error::corrupt).unwrap(), kit);
    assert!(text.capacity() == text.len(), "the buffer never grew");
    let digits = hex::encode(&*kit.identity[0].secret);
    assert!(std::str::from_utf8(&text).unwrap().contains(&digits));
    let debug = format!("{kit:?}");
    assert!(!debug.contains(&digits) && !debug.contains("165, 165"), "{debug}");
}
