//! The checks that compare documents, and the comments that become documents, with the code.

use super::super::*;

const NONE: [&str; 0] = [];

fn told(problems: Vec<Problem>) -> Vec<String> {
    problems.into_iter().map(|problem| problem.to_string()).collect()
}

#[test]
fn the_table_of_features_has_those_of_the_manifests() {
    const GUIDE: &str = "docs/guide.md";
    const FEATURES: &str =
        "[features]\ndefault = [\"x\"]\n## X.\nx = [\"dep:x\"]\ny = []\n\n[lints]\nz = 1\n";
    let check = |rows: &str| {
        let guide = format!("| crate | feature | default | what |\n|---|---|---|---|\n{rows}\n");
        told(features::check(&Tree::of(&[(GUIDE, &guide), ("crates/a/Cargo.toml", FEATURES)])))
    };
    assert_eq!(check("| `a` | `x` | yes | one |\n| | `y` | no | two |"), NONE);
    assert_eq!(
        check("| `a` | `x` | yes | one |"),
        ["crates/a/Cargo.toml:5: docs/guide.md has no row for the feature `y` of `a`"]
    );
    assert_eq!(
        check("| `a` | `x` | no | one |\n| | `y` | no | two |"),
        ["crates/a/Cargo.toml:4: docs/guide.md:3 is wrong about the default of `x`"]
    );
    assert_eq!(
        check("| `a` | `x` | yes | one |\n| | `y` | no | two |\n| | `z` | no | three |"),
        ["docs/guide.md:5: `a` has no feature `z`"]
    );
    assert_eq!(features::check(&Tree::of(&[(GUIDE, "")])), []);
    assert_eq!(features::check(&Tree::of(&[])).len(), 1);
}

/// What is wrong with a code map of these parts, over a library with the modules `ids` and `vault`.
fn code_map(levels: &str, rows: &str, headings: &str) -> Vec<String> {
    let text = format!(
        "# A\n\n## Code map\n\n```text\n{levels}\n```\n\n### `crates/highwater`: the library\n\n\
         | module | what |\n|---|---|\n{rows}\n\n{headings}\n\n## Glossary\n\n| `gone` | no part of it |\n"
    );
    let tree = Tree::of(&[
        ("ARCHITECTURE.md", &text),
        ("crates/highwater/Cargo.toml", ""),
        ("crates/highwater-x/Cargo.toml", ""),
        ("crates/highwater/src/lib.rs", ""),
        ("crates/highwater/src/fuzzing.rs", ""),
        ("crates/highwater/src/ids.rs", ""),
        ("crates/highwater/src/vault/mod.rs", ""),
        ("crates/highwater/src/vault/pack.rs", ""),
        ("crates/highwater/src/vault/pack/index.rs", ""),
    ]);
    told(map::check(&tree))
}

const LEVELS: &str = "vault  a place for snapshots\nids";
const ROWS: &str =
    "| `vault`, `ids` | `what` is kept |\n| `vault/pack`, `…/pack`, `…/index` | `packs` |";
const HEADINGS: &str = "### `crates/highwater-x`: more";

#[test]
fn the_code_map_has_every_module_and_nothing_else() {
    assert_eq!(code_map(LEVELS, ROWS, HEADINGS), NONE);
    assert_eq!(
        code_map("vault  a place", ROWS, HEADINGS),
        ["ARCHITECTURE.md:3: the list of levels of the code map lacks `ids`"]
    );
    assert_eq!(
        code_map("vault  gone  a place\nids", ROWS, HEADINGS),
        ["ARCHITECTURE.md:6: the library has no module `gone`"]
    );
    assert_eq!(
        code_map(LEVELS, "| `vault` | what is kept |", HEADINGS),
        ["ARCHITECTURE.md:3: the table of the code map lacks `ids`"]
    );
    assert_eq!(
        code_map(LEVELS, "| `vault`, `…/gone`, `ids` | what is kept |", HEADINGS),
        ["ARCHITECTURE.md:14: the library has no module `…/gone`"]
    );
    let replica = |rows: &str| {
        let heading = "## Code map\n\n### `crates/highwater-replica`: a store\n\n";
        let text = format!("{heading}| module | what |\n|---|---|\n{rows}\n");
        told(map::check(&Tree::of(&[
            ("ARCHITECTURE.md", &text),
            ("crates/highwater-replica/Cargo.toml", ""),
            ("crates/highwater-replica/src/store.rs", ""),
            ("crates/highwater-replica/src/tests.rs", ""),
        ])))
    };
    assert_eq!(replica("| `store` | what a node uses |"), NONE);
    assert_eq!(
        replica("| `gone` | what a node uses |"),
        [
            "ARCHITECTURE.md:1: the table of the code map lacks `store`",
            "ARCHITECTURE.md:7: the library has no module `gone`"
        ]
    );
    assert_eq!(map::check(&Tree::of(&[])).len(), 1);
}

#[test]
fn the_code_map_has_every_crate_and_nothing_else() {
    assert_eq!(
        code_map(LEVELS, ROWS, "### More"),
        ["ARCHITECTURE.md:1: no heading of the code map names the crate `crates/highwater-x`"]
    );
    assert_eq!(
        code_map(LEVELS, ROWS, "### `crates/highwater-x`, `crates/highwater-y`"),
        ["ARCHITECTURE.md:17: `crates/highwater-y` is not there"]
    );
}

#[test]
fn a_word_of_the_glossary_that_no_code_uses_is_found() {
    let check = |words: &str, code: &str| {
        let text =
            format!("## Glossary\n\n| word | meaning |\n|---|---|\n| {words} | so |\n\n## On\n");
        let tree = Tree::of(&[("ARCHITECTURE.md", &text), ("crates/a/src/b.rs", code)]);
        let problems = told(glossary::check(&tree)).into_iter();
        problems.filter(|problem| problem.contains("no code")).collect::<Vec<_>>()
    };
    let none: Vec<String> = Vec::new();
    let unused =
        |word: &str| vec![format!("ARCHITECTURE.md:5: no code uses the glossary's `{word}`")];
    let code = "struct LastHead; fn entry_points() {} mod vss;";
    assert_eq!(check("head, entry point, VSS", code), none);
    assert_eq!(check("head", "fn ahead() {} // head\n"), unused("head"));
    assert_eq!(check("head", "fn header() {}"), unused("head"));
    assert_eq!(check("head", "const A: &str = \"head\";"), unused("head"));
    assert_eq!(check("entry point", "// An entry point.\n"), none);
    assert_eq!(check("entry point", "fn entry() {}"), unused("entry point"));
}

#[test]
fn a_central_word_that_the_glossary_lacks_is_found() {
    let check = |words: &str| {
        let text = format!("## Glossary\n\n| word | meaning |\n|---|---|\n| {words} | so |\n");
        let problems = told(glossary::check(&Tree::of(&[("ARCHITECTURE.md", &text)])));
        problems.into_iter().filter(|problem| problem.contains("lacks `hydrate`")).count()
    };
    assert_eq!(check("filling, hydrate"), 0);
    assert_eq!(check("filling"), 1);
    assert_eq!(glossary::check(&Tree::of(&[])).len(), 1);
}

/// The lines in which a file's doc comments are no sentences.
fn broken(text: &str) -> Vec<usize> {
    sentences::check(&Tree::of(&[("a.rs", text)])).iter().map(|problem| problem.line).collect()
}

#[test]
fn a_doc_comment_that_breaks_off_is_found() {
    assert_eq!(broken("/// One thing,\nfn f() {}\n"), [1]);
    assert_eq!(broken("//! All of it,\n//! and more\n\n/// Fine.\nfn f() {}\n"), [2]);
    assert_eq!(broken("/// First.\n///\n/// The second\n///\n/// Third.\nfn f() {}\n"), [3]);
    assert_eq!(
        broken("struct A {\n    /// Size\n    a: u64,\n    /// Its name.\n    b: u8,\n}\n"),
        [2]
    );
    assert_eq!(broken("/// See (the format,\n/// 1.3.3); else `not`\nfn f() {}\n"), [2]);
    assert_eq!(broken("/// and so on.\nfn f() {}\n"), [1]);
    assert_eq!(broken("/// ```\n/// x();\n/// ```\n///\n/// Then this\nfn f() {}\n"), [5]);
}

#[test]
fn a_doc_comment_of_whole_sentences_passes() {
    assert_eq!(broken("/// One,\n/// two. (And three.)\nfn f() {}\n"), [0; 0]);
    assert_eq!(broken("/// Which?\n///\n/// That one: **this.**\nfn f() {}\n"), [0; 0]);
    assert_eq!(
        broken("/// A **backup**\n/// 1. begins,\n///    ends\n/// 2. or not\nfn f() {}\n"),
        [0; 0]
    );
    assert_eq!(broken("/// # Errors\n///\n/// | a |\n/// | b |\nfn f() {}\n"), [0; 0]);
    assert_eq!(broken("/// ```text\n/// a,\n///\n/// b,\n/// ```\nfn f() {}\n"), [0; 0]);
    assert_eq!(broken("/// `cargo run\n/// more`\nfn f() {}\n"), [0; 0]);
    assert_eq!(broken("// One,\nconst A: &str = \"\n/// two,\n\";\n//// three,\n"), [0; 0]);
    assert_eq!(broken("use clap::Args;\n/// Print one document\nstruct A;\n"), [0; 0]);
    assert_eq!(broken("use clap::Args;\n/// Print one,\nstruct A;\n"), [2]);
}

#[test]
fn a_command_that_the_program_lacks_is_found() {
    const PROGRAM: &str = "#[derive(Subcommand, Debug)]\npub(crate) enum Command {\n    \
        /// Take { it }, over\n    TakeOver(Args),\n    #[command(subcommand)]\n    Key(KeyCommand),\n    Demo,\n}\n\
        #[derive(Debug)]\nenum Other {\n    Gone,\n}\n#[derive(Subcommand)]\nenum KeyCommand {\n    Add,\n}\n";
    let check = |text: &str| {
        let program = ("crates/highwater-cli/src/cli.rs", PROGRAM);
        told(commands::check(&Tree::of(&[program, ("docs/a.md", text)])))
    };
    let fine = "```sh\nhighwater demo   # and more\nssh x highwater take-over DIR | sort\n\
        highwater key add | list\nhighwater --json gone\nuse highwater::gone;\nnot-highwater gone\n```\n\
        What highwater gone is, `highwater demo`, `highwater key v1`.\n";
    assert_eq!(check(fine), NONE);
    let lacks = |word: &str| [format!("docs/a.md:2: the program has no command `{word}`")];
    assert_eq!(check("```\nhighwater gone\n```\n"), lacks("gone"));
    assert_eq!(check("```\nx=$(highwater other)\n```\n"), lacks("other"));
    assert_eq!(check("```\nhighwater key gone 1\n```\n"), lacks("key gone"));
    assert_eq!(check("\n`highwater gone`\n"), lacks("gone"));
    assert_eq!(commands::check(&Tree::of(&[])).len(), 1);
}
