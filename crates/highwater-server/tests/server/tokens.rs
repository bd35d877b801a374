//! The file of tokens.

use std::os::unix::fs::PermissionsExt as _;

use highwater::{Env, Kind};
use highwater_server::{Scope, Tokens, v1};
use tonic::Code;

use crate::world::{Serving, World, bearing};

#[test]
fn a_token_is_shown_once_and_never_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    let tokens = Tokens::at(&path);
    assert_eq!(tokens.list().unwrap_err().kind(), Kind::NotFound);
    let first = tokens.create("grafana", Scope::Read, &Env::system()).unwrap();
    let second = tokens.create("ops@host", Scope::Admin, &Env::system()).unwrap();
    assert!(first.text.starts_with("hw_") && first.text.len() == 67, "{}", first.text);
    assert_ne!(first.text, second.text);
    let stored = std::fs::read_to_string(&path).unwrap();
    for text in [&first.text, &second.text] {
        assert!(!stored.contains(text.trim_start_matches("hw_")), "{stored}");
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(tokens.list().unwrap(), [first.info, second.info]);
    let again = tokens.create("grafana", Scope::Read, &Env::system()).err().unwrap();
    assert_eq!(again.kind(), Kind::Conflict);
    for label in ["", "two words", "../x", "a\nb", &"a".repeat(65)] {
        let error = tokens.create(label, Scope::Read, &Env::system()).err().unwrap();
        assert_eq!(error.kind(), Kind::Input, "{label}");
    }
    tokens.revoke("grafana").unwrap();
    assert_eq!(tokens.revoke("grafana").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(tokens.list().unwrap().len(), 1);
    assert!("write".parse::<Scope>().is_err() && "admin".parse::<Scope>().unwrap() > Scope::Backup);
}

#[test]
fn a_file_of_tokens_is_read_strictly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.toml");
    let write = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Tokens::at(&path).list().map(|tokens| tokens.len())
    };
    let hash = "0".repeat(64);
    let token = |scope: &str, hash: &str, more: &str| {
        format!(
            "[[token]]\nlabel = \"a\"\nscope = \"{scope}\"\ncreated = \"2026-11-21T08:30:00Z\"\n\
             blake3 = \"{hash}\"\n{more}"
        )
    };
    assert_eq!(write(&token("read", &hash, ""), 0o600).unwrap(), 1);
    assert_eq!(write("", 0o400).unwrap(), 0);
    for mode in [0o640, 0o604, 0o660, 0o644] {
        let error = write(&token("read", &hash, ""), mode).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{mode:o}");
        assert!(error.hint().unwrap().starts_with("chmod 600"));
    }
    let malformed = [
        token("write", &hash, ""),
        token("read", &hash, "expires = \"never\"\n"),
        token("read", "00", ""),
        format!("tokens = []\n{}", token("read", &hash, "")),
        "[[token]]\nlabel = \"a\"\n".to_owned(),
        "{".to_owned(),
        "#".repeat(2 << 20),
    ];
    for text in malformed {
        let error = write(&text, 0o600).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{}", &text[..text.len().min(200)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_sees_a_change_of_its_tokens_at_once() {
    let world = World::new();
    let (tokens, [read, ..]) = world.tokens();
    let serving = Serving::of(world.server().tokens(tokens)).await;
    let mut backups = serving.backups().await;
    let mut ask = async |token: &str| {
        let asked = bearing(token, v1::GetStatusRequest::default());
        backups.get_status(asked).await.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    assert_eq!(ask(&read).await, Code::Ok);
    let program = Tokens::at(world.path("tokens.toml"));
    let late = program.create("late", Scope::Read, &Env::system()).unwrap();
    assert_eq!(ask(&late.text).await, Code::Ok);
    program.revoke("read-caller").unwrap();
    assert_eq!(ask(&read).await, Code::Unauthenticated);
    assert_eq!(ask(&late.text).await, Code::Ok);
    // A file that others can read lets nobody in, and neither does one that is gone.
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(world.path("tokens.toml"), mode(0o644)).unwrap();
    assert_eq!(ask(&late.text).await, Code::PermissionDenied);
    std::fs::set_permissions(world.path("tokens.toml"), mode(0o600)).unwrap();
    assert_eq!(ask(&late.text).await, Code::Ok);
    std::fs::remove_file(world.path("tokens.toml")).unwrap();
    assert_ne!(ask(&late.text).await, Code::Ok);
    // Nor does a server begin with one of those.
    let error = world.server().tokens(program).start().await.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
}
