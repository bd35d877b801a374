//! A freeze that dies, fails or is too slow: the node goes on, and the next backup clears up.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use highwater::env::FaultPoint;
use rustix::process::Signal;

use super::child::Writer;
use super::{assert_goes_on, assert_no_image, images, scene};
use crate::scene::{PROGRAM, Strike};

const POINTS: [FaultPoint; 3] =
    [FaultPoint::FreezeStopped, FaultPoint::FreezeImage, FaultPoint::FreezeContinued];

/// Kills the program at every step of a freeze.
fn walk(scene: &crate::scene::Scene) {
    let mut writer = Writer::start("rocksdb", &scene.path("node"));
    writer.at_least(200);
    scene.freeze(&writer.pid(), &[]).ok();
    for point in POINTS {
        for count in [1, 2, 5] {
            let words = scene.freezing(&writer.pid(), &[]);
            let ran = scene.run_with_fault(Strike::kill(point, count), words);
            if count > 1 && point != FaultPoint::FreezeImage {
                ran.ok();
                continue;
            }
            assert!(ran.killed(), "{} ({count}): {ran:?}", point.name());
            assert!(!images(&scene.path("node")).is_empty(), "no leftover to clear up");
            assert_goes_on(scene, &mut writer);
        }
        for action in ["error", "enospc"] {
            let words = scene.freezing(&writer.pid(), &[]);
            scene
                .run_with_fault(Strike { point, count: 1, action }, words)
                .failed(8, "unavailable");
            assert_no_image(&scene.path("node"));
            assert_goes_on(scene, &mut writer);
        }
    }
}

#[test]
fn a_node_goes_on_when_its_tracer_is_killed() {
    walk(&scene());
}

#[test]
fn a_node_goes_on_when_whoever_signalled_it_is_killed() {
    let mut scene = scene();
    if scene.deny_ptrace() {
        walk(&scene);
    }
}

/// What a killed freeze left is cleared up by a backup of another kind, too.
#[test]
fn a_backup_without_a_freeze_clears_up_after_one() {
    let scene = scene();
    let writer = Writer::start("wal", &scene.path("node"));
    let words = scene.freezing(&writer.pid(), &[]);
    assert!(scene.run_with_fault(Strike::kill(FaultPoint::FreezeImage, 1), words).killed());
    assert!(!images(&scene.path("node")).is_empty());
    scene.backup().ok();
    assert_no_image(&scene.path("node"));
}

#[test]
fn a_pause_that_would_be_too_long_is_refused_before_the_node_is_stopped() {
    let scene = scene();
    let mut writer = Writer::start("log", &scene.path("node"));
    fs::write(scene.path("node/large"), vec![7; 64 << 20]).unwrap();
    let ran = scene.freeze(&writer.pid(), &["--max-pause", "2"]);
    let message = ran.json["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("would be stopped for about"), "{message}");
    ran.failed(4, "conflict");
    assert_no_image(&scene.path("node"));
    assert_goes_on(&scene, &mut writer);
}

/// The program as a supervisor, by its own words.
struct Supervisor {
    child: Child,
}

impl Supervisor {
    fn watching(limit: &str, writer: &Writer) -> Supervisor {
        let mut child = Command::new(PROGRAM)
            .arg("--supervise-freeze")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", writer.pid())).unwrap();
        let started = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
        let input = child.stdin.as_mut().unwrap();
        writeln!(input, "limit {limit}\nwatch {} {started}", writer.pid()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("watching {}\n", writer.pid()));
        Supervisor { child }
    }

    fn ended(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

#[test]
fn the_supervisor_continues_the_node_when_it_is_alone_or_hears_nothing() {
    let scene = scene();
    let mut writer = Writer::start("log", &scene.path("node"));
    let mut alone = Supervisor::watching("600000", &writer);
    writer.signal(Signal::STOP);
    writer.wait_stopped(true);
    drop(alone.child.stdin.take());
    writer.more();
    assert!(alone.ended());

    let mut silent = Supervisor::watching("100", &writer);
    let input = silent.child.stdin.take();
    writer.signal(Signal::STOP);
    writer.more();
    assert!(silent.ended());
    drop(input);

    let mut dismissed = Supervisor::watching("600000", &writer);
    writer.signal(Signal::STOP);
    writer.wait_stopped(true);
    dismissed.child.stdin.as_mut().unwrap().write_all(b"done\n").unwrap();
    assert!(dismissed.ended());
    assert!(writer.state().starts_with('T'), "{}", writer.state());
}
