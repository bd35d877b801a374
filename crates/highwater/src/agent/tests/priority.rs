//! The node goes before the agent, but where it waits for the agent.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::engine::HoldHook;
use crate::env::{FaultPoint, Faults};

/// How nice threads are, by what they were seen at.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<&'static str, BTreeSet<i64>>>>);

impl Seen {
    fn note(&self, what: &'static str, nice: i64) {
        self.0.lock().entry(what).or_default().insert(nice);
    }

    fn note_own(&self, what: &'static str) {
        self.note(what, nice(Path::new("/proc/thread-self")));
    }

    fn of(&self, what: &str) -> Vec<i64> {
        let seen = self.0.lock();
        seen.get(what).map(|seen| seen.iter().copied().collect()).unwrap_or_default()
    }
}

impl Faults for Seen {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        match point {
            FaultPoint::BackupPackWrite => {
                // Threads without a name of their own have that of the thread that started them: the
                // agent's, which has the node's.
                let own = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
                let tasks = std::fs::read_dir("/proc/self/task").unwrap();
                let (mut low, mut others) = (0, 0);
                for task in tasks.map(|task| task.unwrap().path()) {
                    // One of another test may have ended.
                    let Ok(name) = std::fs::read_to_string(task.join("comm")) else { continue };
                    if name == own {
                        let nice = nice(&task);
                        low += i64::from(nice == LOW);
                        others += i64::from(nice != LOW);
                        self.note("threads", nice);
                    }
                }
                self.note("how many are low", low);
                self.note("how many are not", others);
                self.note_own("writer");
            }
            FaultPoint::BackupManifest => self.note_own("commit"),
            FaultPoint::RestoreStage => self.note_own("restore test"),
            FaultPoint::ForgetTombstone => self.note_own("retention"),
            _ => {}
        }
        Ok(())
    }
}

/// A clock that sees who looks at it.
impl Clock for Seen {
    fn now(&self) -> Time {
        self.note_own("clock");
        Env::system().now()
    }

    fn monotonic(&self) -> Duration {
        Env::system().monotonic()
    }

    fn pause(&self, duration: Duration) {
        Env::system().pause(duration);
    }
}

const LOW: i64 = 19;

/// The nineteenth field of a thread's `stat`; the second one, its name, may hold anything.
fn nice(task: &Path) -> i64 {
    let stat = std::fs::read_to_string(task.join("stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(16).unwrap().parse().unwrap()
}

/// An agent, whose options and hold see how nice they are.
fn watched(place: &AgentPlace, node: &str, seen: &Seen) -> AgentBuilder {
    let (of_hold, of_options) = (seen.clone(), seen.clone());
    let hold: HoldHook = Arc::new(move |capture| {
        of_hold.note_own("hold");
        capture(BTreeMap::new());
        of_hold.note_own("hold");
        Ok(())
    });
    let options = move || {
        of_options.note_own("options");
        let mut options = BackupOptions { full: true, ..BackupOptions::default() };
        options.capture.hold = Some(Arc::clone(&hold));
        Ok(options)
    };
    let builder = place.builder().node(node.parse().unwrap()).options_from(options);
    builder.env(Env::system().with_faults(seen.clone()))
}

#[test]
fn a_backup_is_nice_to_the_node_but_where_the_node_waits_for_it() {
    let own = nice(Path::new("/proc/thread-self"));
    assert!(own < LOW, "the tests are run as nice as what they look for");
    let (place, seen) = (AgentPlace::new(), Seen::default());
    let agent = watched(&place, "nice", &seen).start().unwrap();
    completed(&agent, Task::Backup);
    for what in ["options", "hold", "commit"] {
        assert_eq!(seen.of(what), [own], "{what}");
    }
    assert_eq!(seen.of("writer"), [LOW]);
    // The agent's own thread, which goes on to the next hold; whatever it started for this one, the reader
    // and the writer at least.
    assert_eq!(seen.of("threads"), [own, LOW]);
    assert_eq!(seen.of("how many are not"), [1]);
    assert!(seen.of("how many are low")[0] >= 2, "{:?}", seen.of("how many are low"));
    completed(&agent, Task::RestoreTest);
    assert_eq!(seen.of("restore test"), [LOW]);
    completed(&agent, Task::Backup);
    assert_eq!(seen.of("hold"), [own]);
    assert_eq!(nice(Path::new("/proc/thread-self")), own);
}

#[test]
fn checks_and_retention_are_nice_too() {
    let (place, seen) = (AgentPlace::new(), Seen::default());
    let retention = Retention { last: 1, ..Retention::default() };
    let env = Env::system().with_faults(seen.clone()).with_clock(seen.clone());
    let agent = place.builder().retention(retention).env(env).start().unwrap();
    completed(&agent, Task::Backup);
    completed(&agent, Task::Backup);
    assert_eq!(seen.of("retention"), [LOW]);
    seen.0.lock().clear();
    completed(&agent, Task::CheckData);
    // The agent's own thread looks at it as well.
    assert!(seen.of("clock").contains(&LOW), "{:?}", seen.of("clock"));
}

#[test]
fn an_agent_that_may_takes_its_part_as_everything_else() {
    let own = nice(Path::new("/proc/thread-self"));
    let (place, seen) = (AgentPlace::new(), Seen::default());
    let agent = watched(&place, "equal", &seen).priority(Priority::Normal).start().unwrap();
    completed(&agent, Task::Backup);
    completed(&agent, Task::RestoreTest);
    for what in ["options", "hold", "threads", "writer", "restore test"] {
        assert_eq!(seen.of(what), [own], "{what}");
    }
}

#[test]
fn a_database_whose_writers_wait_is_not_read_at_low_priority() {
    let own = nice(Path::new("/proc/thread-self"));
    let (place, seen) = (AgentPlace::new(), Seen::default());
    let database = place.database("state.sqlite");
    let mode = "PRAGMA journal_mode = DELETE";
    database.query_row(mode, [], |row| row.get::<_, String>(0)).unwrap();
    let agent = watched(&place, "waits", &seen).start().unwrap();
    completed(&agent, Task::Backup);
    assert_eq!(seen.of("writer"), [own]);
    assert_eq!(seen.of("threads"), [own]);
}
