//! A process that writes: this test program again, told by the environment to play a role. It says
//! what it has written into a file outside the node directory.

use super::*;

const ROLE: &str = "FREEZE_TEST_ROLE";
const DIR: &str = "FREEZE_TEST_DIR";

/// Between two looks at what it says, and how many looks there are before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 60_000;

pub(super) struct Writer {
    child: Child,
    said: PathBuf,
}

impl Writer {
    /// Starts one that plays `role`, and waits until it writes.
    pub(super) fn start(role: &str, node: &Path) -> Writer {
        let said = node.with_file_name(format!("said-by-{role}"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["engine::freeze::tests::child::play", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(DIR, node)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let writer = Writer { child, said };
        writer.more();
        writer
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The newest number that it has said.
    pub(super) fn newest(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.said).unwrap();
        let whole = &text[..text.rfind('\n')? + 1];
        whole.lines().rev().find_map(|line| line.parse().ok())
    }

    /// Waits for a number that it had not said before.
    pub(super) fn more(&self) -> u64 {
        let before = self.newest();
        wait(|| self.newest() > before);
        self.newest().unwrap()
    }

    pub(super) fn kill(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so.
pub(super) fn wait(so: impl Fn() -> bool) {
    for _ in 0..LOOKS_MAX {
        if so() {
            return;
        }
        Env::system().pause(LOOK_EVERY);
    }
    panic!("it never became so");
}

/// Whether all threads of a process are stopped by a tracer.
pub(super) fn is_stopped(pid: u32) -> bool {
    let threads = processes::threads(pid);
    let state = |thread: &u32| processes::Stat::of(pid, Some(*thread)).map(|stat| stat.state);
    !threads.is_empty() && threads.iter().all(|thread| state(thread) == Some(b't'))
}

/// Does nothing, unless this process was started as a [`Writer`].
#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let node = PathBuf::from(std::env::var_os(DIR).unwrap());
    match role.as_str() {
        "append" => append(&node),
        "threads" => threads(&node),
        other => panic!("no role {other}"),
    }
}

fn say(number: u64) {
    write!(std::io::stdout(), "\n{number}\n").unwrap();
}

/// Appends its numbers to a file that it keeps open, and says each.
fn append(node: &Path) {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(node.join("log")).unwrap();
    for number in 1u64.. {
        log.write_all(format!("{number}\n").as_bytes()).unwrap();
        say(number);
        Env::system().pause(Duration::from_micros(300));
    }
}

/// Threads that write, each of which ends soon and leaves its work to another one.
fn threads(node: &Path) {
    let log = fs::OpenOptions::new().create(true).append(true).open(node.join("log")).unwrap();
    for number in 1u64.. {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        (&log).write_all(b"written\n").unwrap();
                    }
                });
            }
        });
        say(number);
    }
}
