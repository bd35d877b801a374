use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::*;

/// A clock that only a test moves.
#[derive(Clone, Debug, Default)]
struct Still(Arc<AtomicU64>);

impl highwater::env::Clock for Still {
    fn now(&self) -> Time {
        Time::from_nanos(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn pause(&self, _: Duration) {}
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Still,
    env: Env,
}

impl Bench {
    fn new() -> Bench {
        let clock = Still::default();
        let env = Env::system().with_clock(clock.clone());
        Bench { dir: tempfile::tempdir().unwrap(), clock, env }
    }

    fn audit(&self) -> Audit {
        Audit::new(self.dir.path().join("audit.jsonl"))
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn repeats(&self) -> Vec<Option<u64>> {
        self.lines().iter().map(|line| line["repeated"].as_u64()).collect()
    }
}

fn stranger<'a>(address: &str, method: &'a str) -> Line<'a> {
    let address = address.parse().unwrap();
    Line { caller: None, address, method, about: "", outcome: "unauthenticated" }
}

#[test]
fn what_a_stranger_sends_does_not_fill_the_file() {
    let bench = Bench::new();
    let audit = bench.audit();
    let long = "/é".repeat(100_000);
    for number in 0..10_000 {
        audit.refuse(&stranger("192.0.2.1", &format!("{number}{long}")), &bench.env).unwrap();
        let address = format!("2001:db8::{number:x}");
        audit.refuse(&stranger(&address, "/rpc"), &bench.env).unwrap();
    }
    assert_eq!(bench.repeats(), [None, None]);
    let method = bench.lines()[0]["method"].as_str().unwrap().len();
    assert!((100..=TEXT_BYTES_MAX).contains(&method), "{method}");

    // Strangers from everywhere are counted together in the end.
    for number in 0..1000 {
        let address = format!("10.0.{}.{}", number / 250, number % 250);
        audit.refuse(&stranger(&address, "/rpc"), &bench.env).unwrap();
    }
    assert_eq!(bench.lines().len(), KINDS_MAX + 1);
    // What is allowed has its own lines, each of them.
    let allowed = Line { caller: Some("ops"), outcome: "allowed", ..stranger("::1", "backup_now") };
    for _ in 0..3 {
        audit.write(&allowed, &bench.env).unwrap();
    }
    assert_eq!(bench.lines().len(), KINDS_MAX + 4);
}

#[test]
fn what_was_counted_is_told_once_its_time_is_over_or_the_server_ends() {
    let bench = Bench::new();
    let audit = bench.audit();
    let refuse = |count: u32| {
        for _ in 0..count {
            audit.refuse(&stranger("192.0.2.1", "/rpc"), &bench.env).unwrap();
        }
    };
    refuse(5);
    bench.clock.0.store(61, Ordering::Relaxed);
    refuse(3);
    assert_eq!(bench.repeats(), [None, Some(4), None]);
    let denied =
        Line { caller: Some("ops"), outcome: "denied", ..stranger("::1", "guard_release") };
    audit.refuse(&denied, &bench.env).unwrap();
    audit.refuse(&Line { method: "backup_now", ..denied }, &bench.env).unwrap();
    assert_eq!(bench.lines().len(), 5, "a token's calls are told one by one");
    drop(audit);
    assert_eq!(bench.repeats()[5..], [Some(2)]);
}

#[test]
fn a_full_file_is_renamed_and_the_oldest_one_goes() {
    let bench = Bench::new();
    let mut audit = bench.audit();
    audit.file_bytes_max = 300;
    for number in 0..40 {
        let about = number.to_string();
        let line = Line { about: &about, outcome: "allowed", ..stranger("::1", "backup_now") };
        audit.write(&line, &bench.env).unwrap();
    }
    let names = |name: &str| bench.dir.path().join(name).exists();
    assert!(names("audit.jsonl.4") && !names("audit.jsonl.5"));
    let last = bench.lines().pop().unwrap();
    assert_eq!(last["about"], "39");
}
