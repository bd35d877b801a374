//! The dashboard in a real browser, before a server with real agents. Images of what was seen are kept
//! in `screenshots` under the target directory.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod webdriver;
mod world;

use std::time::Duration;

use highwater::agent::{OperationState, Task};
use highwater::guard::Recorded;
use webdriver::{Browser, ENTER, TAB};
use world::{World, fetch, open_store, run, token, wait_for};

const EVIL: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>";

/// A channel as the latch records it.
fn recorded(text: &str) -> Recorded {
    serde_json::from_str(text).unwrap()
}

fn blocked() -> Recorded {
    recorded(
        r#"{"ours": {"signed": 41, "revoked": 40, "received": 40, "closing": false},
            "evidence": {"report": {"revocations_held": 42, "signatures_taken": 41},
                         "policy": "witness"},
            "verdict": {"blocked": "revocation_lost"}}"#,
    )
}

fn waiting() -> Recorded {
    recorded(
        r#"{"ours": {"signed": 7, "revoked": 7, "received": 6, "closing": false},
            "evidence": null, "verdict": null}"#,
    )
}

/// Nodes in every state that the overview tells apart.
fn gallery() -> World {
    let world = World::new();
    let tags = [("release", "v2.1"), ("by", EVIL)];
    let alice = world.backed_up("alice", &tags, &[("height", 871_204), ("commitment", 41)]);
    assert_eq!(run(&alice, Task::RestoreTest), OperationState::Completed);
    let bob = world.failing("bob", "the key file is gone <b>bold</b>");
    for _ in 0..3 {
        assert_eq!(run(&bob, Task::Backup), OperationState::Failed);
    }
    let carol = world.backed_up("carol", &[], &[]);
    world.quarantine(&carol, &[("02ab…c1:0", blocked()), ("<i>03f7</i>:1", waiting())]);
    world.put_forward(Duration::from_secs(2 * 3600 + 14 * 60 + 5));
    assert_eq!(run(&alice, Task::Backup), OperationState::Completed);
    world.put_forward(Duration::from_secs(47 * 60));
    world
}

fn nothing_went_wrong(browser: &Browser, address: &str) {
    assert_eq!(browser.console(), [""; 0]);
    let requests = browser.requests();
    assert!(requests.iter().any(|url| url.ends_with("/assets/style.css")), "{requests:?}");
    let outside: Vec<&String> = requests.iter().filter(|url| !url.starts_with(address)).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn the_overview_shows_the_age_of_the_last_verified_backup_of_each_node() {
    let mut world = gallery();
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    assert_eq!(browser.text("h1"), "2 of 3 nodes need attention");
    let row = |number: u32| browser.text(&format!("#nodes tbody tr:nth-of-type({number})"));
    assert_eq!(browser.text("#nodes tbody tr:nth-of-type(3) .age-of"), "47min");
    assert!(row(3).contains("sealed") && row(3).contains("restored"), "{}", row(3));
    assert_eq!(browser.text("#nodes tbody tr:nth-of-type(1) .age-of"), "none");
    assert!(row(1).contains("No backup") && row(1).contains("3 of 3 failed"), "{}", row(1));
    assert_eq!(browser.text("#nodes tbody tr:nth-of-type(2) .age-of"), "3h 1min");
    let bob = browser.text("#alarms section:nth-of-type(1)");
    assert!(bob.contains("Backups fail") && bob.contains("There is no verified backup"), "{bob}");
    // A node that stands well raises none.
    assert_eq!(browser.count("#alarms section"), 2);
    assert!(browser.count("#nodes svg.trend") > 0);
    let height = "return document.querySelector('#nodes').getBoundingClientRect().height";
    let height = browser.run(height).as_f64().unwrap();
    assert!(height < 4.0 * 48.0, "three nodes take {height} pixels");
    browser.keep_image("overview-light");
    browser.scheme("dark");
    browser.keep_image("overview-dark");
    nothing_went_wrong(&browser, &address);
}

#[test]
fn a_backup_too_old_is_said_in_words() {
    let mut world = World::new();
    world.backed_up("alice", &[], &[]);
    world.put_forward(Duration::from_secs(27 * 3600));
    let address = world.serve();
    let page = fetch(&address, "GET /");
    assert!(page.contains("Backup too old"), "{page}");
    assert!(page.contains("The node needs attention"), "{page}");
    assert!(page.contains("start_backup"), "{page}");
}

#[test]
fn quarantined_channels_are_shown_with_what_is_known_of_them() {
    let mut world = gallery();
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    let shown = browser.text("#quarantine");
    for part in [
        "02ab…c1:0",
        "blocked",
        "the peer has a revocation that the node does not remember",
        "node: signed 41, revoked 40, received 40",
        "peer: has 42 of our revocations, 41 of our signatures",
        "<i>03f7</i>:1",
        "waiting",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    browser.click("#quarantine summary");
    let opened = browser.text("#quarantine details");
    assert!(opened.contains("highwater guard release --reason"), "{opened}");
    browser.keep_image("quarantine");
    nothing_went_wrong(&browser, &address);
}

#[test]
fn replicas_are_shown_with_what_waits_and_who_has_taken_them() {
    const LONG: Duration = Duration::from_secs(60);
    let mut world = World::new();
    let (alice, _) = world.replicated("alice");
    let (bob, taken) = world.replicated("bob");
    world.fresh("carol");
    for store in [&alice, &bob] {
        store.write("k", "v").unwrap();
        store.flush(LONG).unwrap();
    }
    let _other = open_store(&taken, "mallory <i>there</i>");
    bob.write("k", EVIL).unwrap();
    assert_eq!(bob.flush(LONG).unwrap_err().kind(), highwater::Kind::Fenced);
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    assert_eq!(browser.count("#replicas tbody tr"), 2);
    let row = |number: usize| browser.text(&format!("#replicas tbody tr:nth-of-type({number})"));
    let (well, fenced) = (row(1), row(2));
    for part in ["alice", "whole", "nothing", "0 ms", "1 of 1"] {
        assert!(well.contains(part), "{part} is not in {well}");
    }
    for part in ["bob", "fenced", "1 write", "1 of 2", "mallory <i>there</i>"] {
        assert!(fenced.contains(part), "{part} is not in {fenced}");
    }
    assert!(browser.text("#alarms").contains("the node must stop acting"));
    browser.keep_image("replicas");
    browser.open(&format!("{address}/nodes/alice"));
    assert_eq!(browser.count("#replicas tbody tr"), 1);
    browser.open(&format!("{address}/nodes/carol"));
    assert_eq!(browser.count("#replicas tbody tr"), 0);
    browser.size(360, 740, true);
    browser.open(&format!("{address}/nodes/bob"));
    let width = browser.run("return document.documentElement.scrollWidth");
    assert!(width.as_u64().unwrap() <= 360, "{width}");
    browser.keep_image("phone-replica");
    nothing_went_wrong(&browser, &address);
}

#[test]
fn the_progress_of_a_running_backup_moves_by_itself() {
    let mut world = World::new();
    let agent = world.held_back("erin");
    world.hold();
    agent.begin(Task::Backup).unwrap();
    wait_for(&agent, Task::Backup, OperationState::Running);
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    browser.run("window.untouched = true");
    let percent = "#running .percent";
    let first = browser.text(percent);
    world.step(4);
    let second = browser.text_other_than(percent, &first);
    world.step(4);
    let third = browser.text_other_than(percent, &second);
    let number = |text: &str| text.split(' ').next().unwrap().parse::<u32>().unwrap();
    assert!(number(&third) > number(&second), "{first}, {second}, {third}");
    assert!(browser.text("#running .bytes").contains("MiB of 48.0 MiB"));
    browser.keep_image("running");
    world.let_go();
    let ended = browser.text_other_than("#running p", &browser.run_text("#running p"));
    assert_eq!(ended, "Nothing runs at the moment.");
    assert_eq!(browser.run("return window.untouched"), true);
    nothing_went_wrong(&browser, &address);
}

#[test]
fn a_page_whose_agent_is_gone_says_so() {
    let mut world = World::new();
    let agent = world.held_back("erin");
    world.hold();
    agent.begin(Task::Backup).unwrap();
    wait_for(&agent, Task::Backup, OperationState::Running);
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    world.stop_serving();
    let said = browser.text_other_than("#silence", "");
    assert!(said.contains("What you see is from"), "{said}");
    browser.keep_image("agent-gone");
    world.let_go();
}

#[test]
fn every_page_fits_on_a_phone() {
    let mut world = gallery();
    let address = world.serve();
    let browser = Browser::start();
    browser.size(360, 740, true);
    browser.open(&format!("{address}/nodes/bob"));
    let operation = browser.run("return document.querySelector('#history a').pathname");
    let operation = operation.as_str().unwrap();
    for (name, path) in [
        ("overview", "/"),
        ("node", "/nodes/alice"),
        ("operation", operation),
        ("none", "/nodes/x"),
    ] {
        browser.open(&format!("{address}{path}"));
        let width = browser.run("return document.documentElement.scrollWidth");
        assert!(width.as_u64().unwrap() <= 360, "{name}: {width}");
        browser.keep_image(&format!("phone-{name}"));
    }
}

#[test]
fn the_keyboard_reaches_everything_and_the_focus_is_seen() {
    let mut world = gallery();
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    browser.press(&[TAB]);
    let focus = "const e = document.activeElement; return e.textContent.trim()";
    assert_eq!(browser.run(focus), "Skip to the content");
    let top = browser.run("return document.activeElement.getBoundingClientRect().top");
    assert!(top.as_f64().unwrap() >= 0.0, "{top}");
    browser.press(&[ENTER]);
    assert_eq!(browser.run("return document.activeElement.id"), "main");
    browser.press(&[TAB]);
    assert_eq!(browser.run(focus), "bob");
    let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid");
    browser.press(&[ENTER]);
    assert!(browser.text("#history").contains("denied"));
    assert_eq!(browser.url(), format!("{address}/nodes/bob"));
    assert_eq!(browser.text("nav [aria-current=page]"), "bob");
    // Every link, summary and command can be reached.
    let reachable = browser.run(
        "return [...document.querySelectorAll('a, summary, button, [data-copy]')].every(e => e.tabIndex >= 0)",
    );
    assert_eq!(reachable, true);
    for landmark in ["header.top", "nav[aria-label]", "main", "footer"] {
        assert_eq!(browser.count(landmark), 1, "{landmark}");
    }
    assert_eq!(browser.count("table:not(:has(thead th[scope=col]))"), 0);
    assert_eq!(browser.count("tbody tr:not(:has(th[scope=row]))"), 0);
    nothing_went_wrong(&browser, &address);
}

#[test]
fn without_script_a_page_is_whole() {
    let mut world = gallery();
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    let main = "main";
    let with = browser.text(main);
    browser.devtools("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": true }));
    browser.open(&address);
    // Nobody copies without it.
    assert_eq!(browser.text(main), with.replace("\nCopy", ""));
    browser.click("#nodes tbody tr:nth-of-type(3) a");
    assert!(browser.text("#snapshots").contains("871204"));
}

#[test]
fn what_a_node_says_of_itself_is_text() {
    let mut world = gallery();
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&format!("{address}/nodes/alice"));
    let snapshots = browser.text("#snapshots");
    assert!(snapshots.contains(EVIL), "{snapshots}");
    assert!(snapshots.contains("restored") && snapshots.contains("sealed"), "{snapshots}");
    browser.keep_image("node-light");
    browser.scheme("dark");
    browser.keep_image("node-dark");
    browser.scheme("light");
    browser.open(&format!("{address}/nodes/bob"));
    browser.keep_image("node-failing");
    assert!(browser.text("#history").contains("denied: the key file is gone <b>bold</b>"));
    browser.click("#history a");
    let operation = browser.text("#operation");
    assert!(operation.contains("the key file is gone <b>bold</b>"), "{operation}");
    assert_eq!(browser.count("main b b, main i:not([class]), main script, main img"), 0);
    browser.keep_image("operation");
    nothing_went_wrong(&browser, &address);
    let page = fetch(&address, "GET /nodes/alice");
    assert!(!page.contains("<script>alert") && page.contains("&#60;script&#62;alert"), "{page}");
}

#[test]
fn pages_forbid_what_is_not_their_own() {
    let mut world = World::new();
    world.fresh("dave");
    let address = world.serve();
    for path in ["/", "/nodes/dave", "/nodes/nobody", "/login", "/assets/style.css"] {
        let answer = fetch(&address, &format!("GET {path}"));
        let policy = "content-security-policy: default-src 'none'; style-src 'self'; \
                      script-src 'self'; connect-src 'self'";
        assert!(answer.contains(policy), "{path}: {answer}");
        assert!(answer.contains("x-content-type-options: nosniff"), "{path}: {answer}");
        for unsafe_word in ["unsafe-inline", "unsafe-eval", " style=\"", " onclick"] {
            assert!(!answer.contains(unsafe_word), "{path}: {unsafe_word}");
        }
    }
    assert!(fetch(&address, "GET /nodes/nobody").starts_with("HTTP/1.1 404"));
    assert!(fetch(&address, "GET /operations/x").starts_with("HTTP/1.1 400"));
    let fresh = fetch(&address, "GET /");
    assert!(fresh.contains("The node needs attention"), "{fresh}");
}

#[test]
fn nothing_to_show_is_said_with_care() {
    let mut world = World::new();
    let address = world.serve();
    let browser = Browser::start();
    browser.open(&address);
    assert_eq!(browser.text("h1"), "No nodes yet");
    assert!(browser.text("main").contains("interval = \"6h\""));
    browser.keep_image("empty");
    nothing_went_wrong(&browser, &address);
}

#[test]
fn a_token_opens_a_session_that_ends() {
    let mut world = gallery();
    let (tokens, text) = token(&world.path("tokens.toml"));
    let address = world.serve_as(|builder| builder.tokens(tokens));
    let browser = Browser::start();
    browser.open(&format!("{address}/nodes/alice"));
    assert_eq!(browser.text("label"), "Token");
    assert_eq!(browser.url(), format!("{address}/login"));
    browser.keep_image("login");
    assert_eq!(browser.console(), [""; 0]);
    browser.type_text("hw_wrong");
    browser.press(&[ENTER]);
    assert!(browser.text("#problem").contains("does not know this token"));
    browser.click("#token");
    browser.type_text(&text);
    browser.press(&[ENTER]);
    assert!(browser.text("#nodes").contains("alice"));
    assert_eq!(browser.url(), format!("{address}/"));
    assert_eq!(browser.text("h1"), "2 of 3 nodes need attention");
    assert!(browser.text(".session").contains("operator"));
    browser.keep_image("signed-in");

    let cookies = browser.cookies();
    assert_eq!(cookies.len(), 1);
    assert_eq!(cookies[0]["httpOnly"], true);
    assert_eq!(cookies[0]["sameSite"], "Strict");
    assert!(cookies[0].get("expiry").is_none(), "{}", cookies[0]);
    assert!(!cookies[0]["value"].as_str().unwrap().contains(&text));

    let cookie = format!(
        "GET /\r\nCookie: {}={}\r\n",
        cookies[0]["name"].as_str().unwrap(),
        cookies[0]["value"].as_str().unwrap()
    );
    assert!(fetch(&address, &cookie).starts_with("HTTP/1.1 200"));
    browser.click(".session button");
    assert_eq!(browser.text("label"), "Token");
    assert_eq!(browser.url(), format!("{address}/login"));
    let after = fetch(&address, &cookie);
    assert!(after.starts_with("HTTP/1.1 303") && after.contains("location: /login"), "{after}");
    let outside = browser.requests().into_iter().filter(|url| !url.starts_with(&address)).count();
    assert_eq!(outside, 0);
}

#[test]
fn a_revoked_token_ends_its_session() {
    let mut world = World::new();
    world.fresh("dave");
    let (tokens, text) = token(&world.path("tokens.toml"));
    let address = world.serve_as(|builder| builder.tokens(tokens));
    let body = format!("token={text}");
    let login = format!(
        "POST /login\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = fetch(&address, &login);
    let cookie = answer.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let request = format!("GET /\r\nCookie: {cookie}\r\n");
    assert!(fetch(&address, &request).starts_with("HTTP/1.1 200"));
    highwater_server::Tokens::at(world.path("tokens.toml")).revoke("operator").unwrap();
    assert!(fetch(&address, &request).starts_with("HTTP/1.1 303"));
    let bearer = format!("GET /\r\nAuthorization: Bearer {text}\r\n");
    assert!(fetch(&address, &bearer).starts_with("HTTP/1.1 401"));
}
