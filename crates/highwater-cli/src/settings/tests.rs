//! Precedence, and that nothing unknown passes.

use highwater::Kind;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment(pairs.iter().map(|(name, value)| (name.into(), value.into())).collect())
}

fn load(file: &str, pairs: &[(&str, &str)]) -> Result<Settings> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("highwater.toml");
    std::fs::write(&path, file).expect("a settings file");
    Settings::load(Some(&path), &environment(pairs))
}

fn key_flag(path: &str) -> KeyArgs {
    KeyArgs { key_file: Some(path.into()), ..KeyArgs::default() }
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let file = "[vault]\nurl = \"/file\"\nkey_file = \"/file.key\"\n";
    let pairs = [("HIGHWATER_VAULT", "/env"), ("HIGHWATER_MNEMONIC_FILE", "/env.words")];

    let both = load(file, &pairs).expect("settings");
    assert_eq!(both.location(Some("/flag")).expect("one"), Location::Local("/flag".into()));
    assert_eq!(both.location(None).expect("one"), Location::Local("/env".into()));
    assert_eq!(
        both.key(&KeyArgs::default()).expect("one"),
        KeySource::Mnemonic("/env.words".into())
    );
    assert_eq!(both.key(&key_flag("/flag.key")).expect("one"), KeySource::Key("/flag.key".into()));

    let file_alone = load(file, &[]).expect("settings");
    assert_eq!(file_alone.location(None).expect("one"), Location::Local("/file".into()));
    let key = file_alone.key(&KeyArgs::default()).expect("one");
    assert_eq!(key, KeySource::Key("/file.key".into()));
}

#[test]
fn an_unknown_setting_is_a_wrong_call() {
    let unknown = [
        load("", &[("HIGHWATER_VALUT", "/v")]),
        load("[vault]\nurll = \"/v\"\n", &[]),
        load("lisen = \"127.0.0.1:1\"\n", &[]),
        load("", &[("HIGHWATER_VAULT", "")]),
        load("", &[("HIGHWATER_NODE", ".hidden")]),
    ];
    for settings in unknown {
        assert_eq!(settings.expect_err("a refusal").kind(), Kind::Input);
    }
}

#[test]
fn two_keys_on_one_level_are_a_wrong_call() {
    let two = [("HIGHWATER_KEY_FILE", "/a"), ("HIGHWATER_PASSPHRASE_FILE", "/b")];
    assert_eq!(load("", &two).expect_err("a refusal").kind(), Kind::Input);
    let file = "[vault]\nkey_file = \"/a\"\nmnemonic_file = \"/b\"\n";
    assert_eq!(load(file, &[]).expect_err("a refusal").kind(), Kind::Input);
}

#[test]
fn a_path_in_the_file_is_meant_from_where_the_file_lies() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("highwater.toml");
    std::fs::write(&path, "[vault]\nurl = \"vault\"\nkey_file = \"keys/a\"\n").expect("a file");
    let settings = Settings::load(Some(&path), &environment(&[])).expect("settings");
    assert_eq!(settings.location(None).expect("one"), Location::Local(dir.path().join("vault")));
    let key = settings.key(&KeyArgs::default()).expect("one");
    assert_eq!(key, KeySource::Key(dir.path().join("keys/a")));
}

#[test]
fn a_named_settings_file_must_exist_and_the_usual_one_need_not() {
    let missing = Settings::load(Some(Path::new("/nowhere/h.toml")), &environment(&[]));
    assert_eq!(missing.expect_err("a refusal").kind(), Kind::NotFound);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let home = dir.path().to_str().expect("UTF-8");
    let settings = Settings::load(None, &environment(&[("HOME", home)])).expect("settings");
    let state_dir = settings.state_dir().expect("one");
    assert_eq!(state_dir, dir.path().join(".local/state/highwater"));
    let none = Settings::load(None, &environment(&[])).expect("settings");
    assert_eq!(none.state_dir().expect_err("no home").kind(), Kind::Input);
}
