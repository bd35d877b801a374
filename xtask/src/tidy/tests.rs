//! Each check passes over a good tree and fails in a bad one.

use super::*;

mod documents;

const VAULT: &str = "crates/highwater/src/vault/local.rs";

fn found(problems: &[Problem]) -> Vec<(usize, &str)> {
    problems.iter().map(|problem| (problem.line, problem.message.as_str())).collect()
}

fn arrows(path: &str, text: &str) -> Vec<usize> {
    arrows::check(&Tree::of(&[(path, text)])).iter().map(|problem| problem.line).collect()
}

#[test]
fn arrows_that_point_down_pass() {
    let text = "use crate::error::{Error, Result};\nuse crate::{Env, vault::Level};\n\
                use crate::records::{Barrier, Units};\nuse super::Vault;\n";
    assert_eq!(arrows(VAULT, text), [0; 0]);
    assert_eq!(
        arrows("crates/highwater/src/backup/mod.rs", "use crate::engine::capture;\n"),
        [0; 0]
    );
}

#[test]
fn arrows_that_point_up_or_aside_are_found() {
    assert_eq!(arrows("crates/highwater/src/engine/mod.rs", "\nuse crate::vault::Vault;\n"), [2]);
    assert_eq!(arrows("crates/highwater/src/restore/plan.rs", "use crate::backup;\n"), [1]);
    assert_eq!(arrows("crates/highwater/src/error.rs", "fn f() { crate::ids::encode(b) }\n"), [1]);
    assert_eq!(arrows("crates/highwater/src/error.rs", "use crate::Env;\n"), [1]);
    assert_eq!(arrows("crates/highwater/src/fresh.rs", "//! New.\n"), [1]);
}

#[test]
fn an_arrow_is_found_however_it_is_spelled() {
    assert_eq!(arrows(VAULT, "use crate::engine::{Barrier, discover};\n"), [1, 1]);
    assert_eq!(arrows(VAULT, "use crate::engine::*;\n"), [1]);
    assert_eq!(arrows(VAULT, "use crate::engine;\n"), [1]);
    assert_eq!(arrows(VAULT, "use crate::engine::{self, Units};\n"), [1, 1]);
    assert_eq!(arrows(VAULT, "use crate::{engine::sqlite::open};\n"), [1]);
}

#[test]
fn files_that_use_one_another_in_a_circle_are_found() {
    let src = |name: &str| format!("crates/highwater/src/vault/{name}.rs");
    let (mod_rs, a, b, c, inner) = (src("mod"), src("a"), src("b"), src("c"), src("a/inner"));
    let tree = |to_b: &str, to_c: &str, to_a: &str| {
        Tree::of(&[
            (&mod_rs, "use a::A;\nuse super::vault::b::B;\n"),
            (&a, to_b),
            (&b, to_c),
            (&c, to_a),
            (&inner, "use super::X;\nuse crate::vault::Y;\n"),
        ])
    };
    let found = |tree: &Tree| circles::check(tree).len();
    let (to_b, to_c) = ("use super::b::B;\nuse inner::I;\n", "use crate::vault::{c::C, D};\n");
    assert_eq!(found(&tree(to_b, to_c, "fn f() {}\n")), 0);
    assert_eq!(found(&tree(to_b, to_c, "fn f() { super::a::g() }\n")), 1);
    let in_test = "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n";
    assert_eq!(found(&tree(to_b, to_c, in_test)), 0);
    let replica = |to_owner: &str| {
        Tree::of(&[
            ("crates/highwater-replica/src/owner.rs", "use super::sender::Sender;\n"),
            ("crates/highwater-replica/src/sender.rs", to_owner),
        ])
    };
    assert_eq!(found(&replica("use super::book::Book;\n")), 0);
    assert_eq!(found(&replica("use crate::owner::Start;\n")), 1);
}

#[test]
fn super_is_followed_to_where_it_leads() {
    assert_eq!(arrows(VAULT, "use super::super::engine::discover;\n"), [1]);
    assert_eq!(arrows(VAULT, "mod inner {\n    use super::super::Vault;\n}\n"), [0; 0]);
    assert_eq!(arrows(VAULT, "mod inner {\n    use super::super::super::backup;\n}\n"), [2]);
}

#[test]
fn a_node_directory_is_not_reached_by_paths() {
    let lines = |path: &str, text: &str| -> Vec<usize> {
        reach::check(&Tree::of(&[(path, text)])).iter().map(|problem| problem.line).collect()
    };
    let text = "//! Reads.\n\nfn f(p: &Path) {\n    std::fs::read(p);\n    File::open(p);\n}\n";
    assert_eq!(lines("crates/highwater/src/restore/stage.rs", text), [4, 5]);
    assert_eq!(lines("crates/highwater/src/node.rs", text), [4, 5]);
    assert_eq!(lines("crates/highwater/src/vault/local.rs", text), [0; 0]);
    assert_eq!(lines("crates/highwater/src/engine/process.rs", text), [0; 0]);
    assert_eq!(lines("crates/highwater/src/guard/latch/tests.rs", text), [0; 0]);
}

#[test]
fn test_code_may_look_up() {
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::backup;\n}\n";
    assert_eq!(arrows(VAULT, tests), [0; 0]);
    assert_eq!(arrows("crates/highwater/src/vault/tests.rs", "use crate::backup;\n"), [0; 0]);
    let tree = Tree::of(&[
        ("crates/highwater/src/vault/mod.rs", "#[cfg(test)]\nmod scenes;\n"),
        ("crates/highwater/src/vault/scenes.rs", "use crate::backup;\n"),
        ("crates/highwater/src/vault/scenes_too.rs", "use crate::backup;\n"),
    ]);
    let problems = arrows::check(&tree);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].path, "crates/highwater/src/vault/scenes_too.rs");
}

fn function(name: &str, lines: usize) -> String {
    format!("fn {name}() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
}

#[test]
fn long_files_and_functions_are_found() {
    let check = |text: &str| sizes::check(&Tree::of(&[("a.rs", text)]), &[]).len();
    assert_eq!(check(&function("f", 70)), 0);
    assert_eq!(check(&function("f", 71)), 1);
    assert_eq!(check(&"\n".repeat(1000)), 0);
    assert_eq!(check(&"\n".repeat(1001)), 1);
    let architecture = "\n".repeat(301);
    assert_eq!(sizes::check(&Tree::of(&[("ARCHITECTURE.md", &architecture)]), &[]).len(), 1);
}

#[test]
fn the_list_of_long_functions_only_shrinks() {
    let allowed = |lines, reason| [sizes::Allowed { path: "a.rs", function: "f", lines, reason }];
    let check = |text: &str, allowed: &[sizes::Allowed]| {
        sizes::check(&Tree::of(&[("a.rs", text)]), allowed).len()
    };
    assert_eq!(check(&function("f", 90), &allowed(90, "one table")), 0);
    assert_eq!(check(&function("f", 91), &allowed(90, "one table")), 1);
    assert_eq!(check(&function("f", 60), &allowed(90, "one table")), 1);
    assert_eq!(check(&function("g", 60), &allowed(90, "one table")), 1);
    assert_eq!(check(&function("f", 90), &allowed(90, "")), 1);
}

#[test]
fn names_that_say_nothing_and_silent_modules_are_found() {
    let check = |path: &str, text: &str| names::check(&Tree::of(&[(path, text)])).len();
    assert_eq!(check("src/pack.rs", "//! Packs.\n"), 0);
    assert_eq!(check("src/utils.rs", "//! Things.\n"), 1);
    assert_eq!(check("src/common/mod.rs", "//! Things.\n"), 1);
    assert_eq!(check("src/pack.rs", "use a;\n//! Late.\n"), 1);
    assert_eq!(check("src/pack/tests.rs", "use super::*;\n"), 0);
    assert_eq!(check("src/tests/scene.rs", "use super::*;\n"), 1);
}

/// A complete table in which the row of `B1` ends in `cell`.
fn table(cell: &str) -> String {
    let mut text = String::from("| id | promise | tests |\n|---|---|---|\n");
    for (family, count) in [
        ('B', 21),
        ('S', 6),
        ('R', 10),
        ('G', 12),
        ('V', 14),
        ('O', 4),
        ('X', 9),
        ('N', 7),
        ('T', 8),
        ('P', 4),
        ('I', 59),
    ] {
        for number in 1..=count {
            let cell = if (family, number) == ('B', 1) { cell } else { "not yet" };
            text.push_str(&format!("| {family}{number} | so and so | {cell} |\n"));
        }
    }
    text
}

fn claims(table: &str, code: &str) -> Vec<String> {
    let tree = Tree::of(&[("docs/requirements.md", table), ("crates/a/src/b/c.rs", code)]);
    claims::check(&tree).into_iter().map(|problem| problem.message).collect()
}

#[test]
fn a_claim_needs_a_test_that_exists() {
    let code = "#[test]\nfn works() {\n}\nfn plain() {\n}\n";
    let none: [&str; 0] = [];
    assert_eq!(claims(&table("`works`"), code), none);
    assert_eq!(claims(&table("`b::c::works`, `crates/a/src/b/c.rs::works`"), code), none);
    assert_eq!(claims(&table("`plain`"), code), ["B1: there is no test `plain`"]);
    assert_eq!(claims(&table("`works`, `gone`"), code), ["B1: there is no test `gone`"]);
    assert_eq!(claims(&table("`d::works`"), code), ["B1: there is no test `d::works`"]);
    assert_eq!(claims(&table("`crates/a/src/d.rs::works`"), code).len(), 1);
    assert_eq!(claims(&table("`works`"), "// #[test] fn works() {}\n").len(), 1);
}

#[test]
fn a_test_of_python_is_one() {
    let table = table("`test_works`");
    let claims = |path: &str, code: &str| {
        let tree = Tree::of(&[("docs/requirements.md", &table), (path, code)]);
        claims::check(&tree).len()
    };
    assert_eq!(claims("a/tests/test_a.py", "def test_works(node):\n    pass\n"), 0);
    assert_eq!(claims("a/tests/test_a.py", "def test_works_not():\n    pass\n"), 1);
    assert_eq!(claims("a/tests/test_a.py", "# def test_works():\n"), 1);
    assert_eq!(claims("a/tests/conftest.py", "def test_works():\n    pass\n"), 1);
}

#[test]
fn every_id_has_one_row_that_claims_or_says_not_yet() {
    assert_eq!(claims(&table(""), ""), ["B1: name its tests, or say `not yet`"]);
    assert_eq!(claims(&table("not yet `b`"), "#[test]\nfn b() {}\n").len(), 1);
    let without = table("not yet").replace("| I59 | so and so | not yet |\n", "");
    assert_eq!(claims(&without, ""), ["I59 has no row"]);
    let twice = format!("{}| B1 | again | not yet |\n", table("not yet"));
    assert_eq!(claims(&twice, ""), ["B1 has a row already, in line 3"]);
    let unknown = format!("{}| B22 | more | not yet |\n", table("not yet"));
    assert_eq!(claims(&unknown, ""), ["B22 is no id that is known"]);
    assert_eq!(claims::check(&Tree::of(&[])).len(), 1);
}

#[test]
fn what_is_not_yet_there_names_no_test() {
    let code = "#[test]\nfn works() {}\n";
    assert_eq!(claims(&table("`works`; not yet: beyond a machine"), code), [""; 0]);
    let message = "B1: `works` stands behind `not yet`: is it there or not?";
    assert_eq!(claims(&table("`works`; not yet: `works`"), code), [message]);
    assert_eq!(claims(&table("not yet: `works`"), code), [message]);
}

#[test]
fn words_without_a_place_are_found() {
    let check = |path: &str, text: &str| {
        words::check(&Tree::of(&[(path, text)])).iter().map(|p| p.line).collect::<Vec<_>>()
    };
    assert_eq!(check("a.rs", "#[test]\n#[ignore]\nfn f() {}\n"), [2]);
    assert_eq!(check("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n"), [2]);
    assert_eq!(check("a.rs", "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }\n"), [1, 2]);
    assert_eq!(check("a.rs", "// todo!()\nconst A: &str = \"#[ignore]\";\n"), [0; 0]);
    assert_eq!(check("a/tests.rs", "\nfn f() { std::thread::sleep(d) }\n"), [2]);
    assert_eq!(check("a.rs", "fn f() { std::thread::sleep(d) }\n"), [0; 0]);
    let machine = concat!("see `/ro", "ot/x`\nand a/wo", "rk/x\n");
    assert_eq!(check("a.md", machine), [1]);
    assert_eq!(check("a.md", &format!("a{}\nb{}\n", ' ', '\t')), [1, 2]);
    assert_eq!(check("a.md", "a\nb"), [2]);
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let check = |text: &str| {
        let tree = Tree::of(&[
            ("docs/a.md", text),
            ("docs/b.md", "# The `first` one\n"),
            ("README.md", ""),
            ("crates/x/src/lib.rs", ""),
        ]);
        links::check(&tree).iter().map(|problem| problem.line).collect::<Vec<_>>()
    };
    assert_eq!(check("[b](b.md) [r](../README.md) [c](../crates/x) [w](https://x.org)\n"), [0; 0]);
    assert_eq!(check("# Top\n[b](b.md#the-first-one) [t](#top)\n"), [0; 0]);
    assert_eq!(check("\n[c](c.md)\n"), [2]);
    assert_eq!(check("[b](b.md#second) [t](#none)\n"), [1, 1]);
    assert_eq!(check("[out](../../b.md)\n"), [1]);
    assert_eq!(check("```\n[c](c.md)\n```\n"), [0; 0]);
}

#[test]
fn a_document_that_the_summary_lacks_is_found() {
    let check = |summary: &str, readme: &str| -> Vec<(String, usize)> {
        let tree = Tree::of(&[
            (summary::PATH, summary),
            ("README.md", readme),
            ("NEWS.md", ""),
            ("docs/a.md", "[b](b.md) [s](#top) [w](https://x.org/y.md) [c](../x.rs)\n"),
            ("docs/b.md", ""),
            ("crates/x/README.md", "[n](../../NEWS.md)\n"),
        ]);
        summary::check(&tree).into_iter().map(|problem| (problem.path, problem.line)).collect()
    };
    let all = "# Summary\n\n[First](../README.md)\n- [A](a.md)\n- [B](b.md)\n";
    assert_eq!(check(all, "[a](docs/a.md)\n"), []);
    let missing = all.replace("- [B](b.md)\n", "");
    assert_eq!(check(&missing, ""), [("docs/b.md".into(), 1)]);
    assert_eq!(check(all, "\n[n](NEWS.md)\n"), [("README.md".into(), 2)]);
    assert_eq!(check(&format!("{all}- [N](../NEWS.md)\n"), "[n](NEWS.md)\n"), []);
    assert_eq!(check(&format!("{all}- [Again](b.md)\n"), ""), [(summary::PATH.into(), 6)]);
    assert_eq!(summary::check(&Tree::of(&[])).len(), 1);
}

const MANIFEST: &str = "[workspace]\nresolver = \"3\"\nmembers = [\"crates/highwater\", \
    \"crates/highwater-bench\", \"crates/highwater-cli\", \"crates/highwater-gate\", \"crates/highwater-guard\", \"crates/highwater-nodes\", \
    \"crates/highwater-replica\", \"crates/highwater-server\", \"crates/highwater-sim\", \"crates/highwater-vss\", \"xtask\"]\n\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
const MEMBER: &str = "[package]\nname = \"x\"\npublish = false\n\n[lints]\nworkspace = true\n";

#[test]
fn the_workspace_is_as_known() {
    let check = |root: &str, path: &str, member: &str| {
        workspace::check(&Tree::of(&[("Cargo.toml", root), (path, member)])).len()
    };
    assert_eq!(check(MANIFEST, "xtask/Cargo.toml", MEMBER), 0);
    assert_eq!(check(&MANIFEST.replace("forbid", "deny"), "xtask/Cargo.toml", MEMBER), 1);
    assert_eq!(check(&MANIFEST.replace(", \"xtask\"", ""), "xtask/Cargo.toml", MEMBER), 1);
    assert_eq!(check(MANIFEST, "crates/highwater-common/Cargo.toml", MEMBER), 1);
    let lax = MEMBER.replace("true", "false");
    assert_eq!(check(MANIFEST, "xtask/Cargo.toml", &lax), 1);
    assert_eq!(check(MANIFEST, "xtask/Cargo.toml", "[package]\npublish = false\n"), 1);
    assert_eq!(workspace::check(&Tree::of(&[])).len(), 1);
}

#[test]
fn a_crate_is_ready_to_be_published_or_says_that_it_is_not() {
    let check = |dependencies: &str, member: &str| -> Vec<String> {
        let package = "\n[workspace.package]\nversion = \"0.2.0\"\n\n[workspace.dependencies]\n";
        let root = format!("{MANIFEST}{package}{dependencies}");
        let tree =
            Tree::of(&[("Cargo.toml", &root), ("crates/highwater-nodes/Cargo.toml", member)]);
        workspace::check(&tree).into_iter().map(|problem| problem.message).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(check("", MEMBER), none);
    let said =
        "description = \"d\"\nreadme = \"r\"\nkeywords = []\ncategories = []\ninclude = []\n";
    let ready = MEMBER.replace("publish = false\n", said);
    assert_eq!(check("", &ready), none);
    let bare = check("", &ready.replace("include = []\n", ""));
    assert_eq!(bare, ["`include` is missing; or say `publish = false`"]);
    let path = format!("{ready}\n[dependencies]\nhighwater = {{ path = \"../highwater\" }}\n");
    assert_eq!(check("", &path).len(), 1);

    let dependency = "highwater = { version = \"0.2.0\", path = \"crates/highwater\" }\n";
    assert_eq!(check(dependency, MEMBER), none);
    let stale = check(&dependency.replace("0.2.0", "0.1.9"), MEMBER);
    assert_eq!(stale, ["`highwater` must have the version \"0.2.0\", that of the workspace"]);
    let without = check(&dependency.replace("version = \"0.2.0\", ", ""), MEMBER);
    assert_eq!(without.len(), 1);
}

#[test]
fn a_problem_names_its_place() {
    let problem = Problem::new("a/b.rs", 7, "too long");
    assert_eq!(problem.to_string(), "a/b.rs:7: too long");
}

#[test]
fn a_run_gathers_every_check() {
    let (problems, counts) = run(&Tree::of(&[("src/utils.rs", "fn f() {}")]));
    let messages = found(&problems);
    assert!(messages.iter().any(|(_, message)| message.contains("names nothing")));
    assert!(messages.iter().any(|(_, message)| message.contains("no line end")));
    assert!(counts.contains("1 functions"), "{counts}");
}

#[test]
fn a_text_of_the_library_that_names_the_program_is_found() {
    let path = "crates/highwater/src/vault/local.rs";
    let lines = |path: &str, text: &str| -> Vec<usize> {
        texts::check(&Tree::of(&[(path, text)])).iter().map(|problem| problem.line).collect()
    };
    let named = [
        "let a = \"use --force\";",
        "let a = \"--force\";",
        "let a = \"run `highwater`\";",
        "let a = \"run highwater restore first\";",
        "let a = \"first\nthen (--node NAME)\";",
    ];
    for text in named {
        assert_eq!(lines(path, text), [1], "{text}");
        assert_eq!(lines("crates/highwater-cli/src/exit.rs", text), [0; 0], "{text}");
    }
    let fine = "// use --force\nlet a = \"made by a newer highwater\";\nlet b = \"a -- b\";\n\
                #[cfg(test)]\nmod tests {\n    const A: &str = \"--force\";\n}\n";
    assert_eq!(lines(path, fine), [0; 0]);

    let remedies = "crates/highwater/src/error/remedy.rs";
    assert_eq!(lines(remedies, "pub fn there() {}\nlet a = \"x::there, x::gone\";"), [2]);
}
