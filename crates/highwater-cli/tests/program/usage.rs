//! Wrong calls, help, completions, manual pages.

use crate::world::World;

#[test]
fn a_wrong_call_exits_with_2_and_says_so_in_a_document() {
    let world = World::new();
    let wrong: &[&[&str]] = &[
        &["frobnicate"],
        &["backup"],
        &["backup", "node", "--frobnicate"],
        &["backup", "node", "--limit-rate", "much"],
        &["backup", "node", "--effort", "much"],
        &["backup", "node", "--mark", "height=high"],
        &["backup", "node", "--node", ".hidden"],
        &["backup", "node", "--key-file", "a", "--passphrase-file", "b"],
        &["restore", "latest"],
        &["restore", "latest", "node", "--before", "yesterday"],
        &["restore", "latest", "node", "--require", "perfect"],
        &["restore", "latest", "node", "--owner", "root"],
        &["restore", "latest", "node", "--original-gone", ""],
        &["check", "--scratch", "dir"],
        &["key", "add"],
        &["owner", "release", "--node", "n"],
        &["owner", "take-over", "--node", "n", "--reason", ""],
        &["status", "--max-age", "long"],
        &["guard"],
        &["guard", "list"],
        &["guard", "release", "node", "channel"],
        &["guard", "release", "node", "--reason", "r"],
        &["guard", "release", "node", "--all", "--reason", ""],
        &["guard", "release", "node", "channel", "--all", "--reason", "r"],
        &["guard", "wait", "node", "--timeout", "long"],
        &["run", "node"],
        &["run", "node", "command"],
        &["freeze"],
        &[],
    ];
    for arguments in wrong {
        let plain = world.run(arguments).code(2);
        assert_eq!(plain.stdout, "", "{arguments:?}");
        assert!(!plain.stderr.is_empty(), "{arguments:?}");
        let arguments = [*arguments, &["--json"]].concat();
        let answered = world.run(&arguments).code(2);
        assert_eq!(answered.stderr, "", "{arguments:?}");
        answered.error("input");
    }
}

#[test]
fn help_and_version_are_answers() {
    let world = World::new();
    let help = world.run(&["--help"]).code(0);
    assert!(help.stdout.contains("restore") && !help.stdout.contains("demo-writer"));
    assert!(world.run(&["backup", "--help"]).code(0).stdout.contains("--limit-rate"));
    let version = world.run(&["--version"]).code(0).stdout;
    assert_eq!(version, format!("highwater {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_the_commands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]).code(0).stdout;
        assert!(
            ["snapshots", "rollback", "guard", "release"].iter().all(|word| script.contains(word)),
            "{shell}"
        );
    }
    assert!(world.run(&["completions", "bash", "--json"]).code(0).json()["script"].is_string());
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let world = World::new();
    let document = world.run(&["man", "pages", "--json"]).code(0).json();
    let pages = document["pages"].as_array().expect("pages").len();
    assert_eq!(std::fs::read_dir(world.path("pages")).expect("pages").count(), pages);
    for page in
        ["highwater.1", "highwater-guard-release.1", "highwater-run.1", "highwater-key-add.1"]
    {
        let text = std::fs::read_to_string(world.path("pages").join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(!world.path("pages/highwater-demo-writer.1").exists());
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let world = World::new();
    let mut command = world.command(&["completions", "zsh"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command.stdout(writer).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

/// Runs the program on a terminal, as `script` makes one, and returns what is seen there.
fn seen_on_a_terminal(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let wanted = world.command(arguments);
    let words = std::iter::once(wanted.get_program()).chain(wanted.get_args());
    let words: Vec<_> =
        words.map(|word| format!("'{}'", word.to_str().expect("plain words"))).collect();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).env("TERM", "xterm-256color");
    // What colour asks besides TERM, from whoever runs the tests: a build server sets CI.
    for asked in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        script.env_remove(asked);
    }
    script.current_dir(wanted.get_current_dir().unwrap_or(world.path("").as_path()));
    script.envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.envs(variables.iter().copied());
    let output = script.stdin(std::process::Stdio::null()).output().expect("`script` starts");
    String::from_utf8(output.stdout).expect("what is shown is text")
}

#[test]
fn what_is_bad_is_coloured_on_a_terminal_that_may_have_it() {
    let world = World::new();
    let wrong = ["status", "--max-age", "long"];
    let seen = seen_on_a_terminal(&world, &wrong, &[]);
    assert!(seen.contains("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m "), "{seen:?}");
    assert!(seen.contains("hint:\u{1b}[0m "), "{seen:?}");
    for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let seen = seen_on_a_terminal(&world, &wrong, &[plain]);
        assert!(seen.contains("error: ") && !seen.contains('\u{1b}'), "{plain:?}: {seen:?}");
    }
    let piped = world.run(&wrong);
    assert!(
        piped.stderr.contains("error: ") && !piped.stderr.contains('\u{1b}'),
        "{}",
        piped.stderr
    );
}
