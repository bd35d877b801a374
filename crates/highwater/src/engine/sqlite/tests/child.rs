//! Another process, with a database of the node open.

use super::*;

const ROLE: &str = "HIGHWATER_TEST_ROLE";
const ARGUMENTS: &str = "HIGHWATER_TEST_ARGUMENTS";

/// How long an answer is waited for before the test fails.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(120);

/// A process that plays a role until it is killed, or its standard input ends.
pub(super) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<i64>,
}

impl Peer {
    pub(super) fn start(role: &str, databases: &[&Path]) -> Peer {
        let arguments: Vec<&str> = databases.iter().map(|path| path.to_str().unwrap()).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["engine::sqlite::tests::child::play", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(ARGUMENTS, arguments.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (say, said) = channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the process that it listens to"
        )]
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { break };
                if let Some((_, number)) = line.split_once("said ")
                    && say.send(number.parse().unwrap()).is_err()
                {
                    break;
                }
            }
        });
        Peer { child, input, said }
    }

    /// The next number that it says.
    pub(super) fn next(&self) -> i64 {
        self.said.recv_timeout(ANSWER_WAIT_MAX).unwrap()
    }

    /// The newest number that it has said, waiting for one that was not said before.
    pub(super) fn newest(&self) -> i64 {
        let next = self.next();
        self.said.try_iter().last().unwrap_or(next)
    }

    /// Ends it in the middle of what it does.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end.
    pub(super) fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Whether another process finds no lock on `database`, so that it would take the node for gone.
/// This asks the file system, since newer releases of SQLite guard themselves against it by a look
/// at the `-shm`, and older ones, which any process may use, don't.
pub(super) fn unlocked_elsewhere(database: &Path) -> bool {
    let peer = Peer::start("seize", &[database]);
    let seized = peer.next();
    peer.end();
    seized == 1
}

/// How many rows a process counts that opens the database and closes it again.
pub(super) fn count_elsewhere(database: &Path) -> i64 {
    let peer = Peer::start("count", &[database]);
    let rows = peer.next();
    peer.end();
    rows
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does nothing, unless this process was started as a [`Peer`].
#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let arguments = std::env::var(ARGUMENTS).unwrap();
    if role == "seize" {
        return seize(Path::new(&arguments));
    }
    let databases: Vec<Connection> =
        arguments.lines().map(|path| Connection::open(path).unwrap()).collect();
    for database in &databases {
        database.busy_timeout(Duration::from_secs(60)).unwrap();
        database.execute_batch("PRAGMA synchronous = OFF").unwrap();
    }
    match role.as_str() {
        "insert" => insert(&databases[0]),
        "restart" => restart(&databases[0]),
        "count" => count(&databases[0]),
        "pair" => pair(&databases[0], &databases[1]),
        "exclusive" => exclusive(&databases[0]),
        "crash" => crash(&databases[0]),
        other => panic!("no role {other}"),
    }
}

fn say(number: i64) {
    writeln!(std::io::stdout(), "\nsaid {number}").unwrap();
}

/// Returns once the other side wants the end, or is gone.
fn wait_for_end() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// A commit of one row every other millisecond, acknowledged afterwards.
fn insert(database: &Connection) {
    let mut last = one(database, "SELECT ifnull(max(id), 0) FROM rows");
    loop {
        last += 1;
        database.execute("INSERT INTO rows VALUES (?1, randomblob(300))", [last]).unwrap();
        say(last);
        Env::system().pause(Duration::from_millis(2));
    }
}

/// Sets all rows to one value, and copies the whole log into the database, so that the next commit
/// begins the log anew.
fn restart(database: &Connection) {
    for value in 1.. {
        database.execute("UPDATE rows SET body = ?1", [value]).unwrap();
        database.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        say(value);
    }
}

/// What a process sees that opens the database and, as the last one to close it, ends its log.
fn count(database: &Connection) {
    let rows = one(database, "SELECT count(*) FROM rows");
    say(rows);
}

/// Tries for a lock that excludes every other.
fn seize(database: &Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(database).unwrap();
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    say(i64::from(rustix::fs::fcntl_lock(&file, lock).is_ok()));
}

/// Adds one to the first, then to the second: the first is never behind, and ahead by one at most.
fn pair(first: &Connection, second: &Connection) {
    for value in 1.. {
        for database in [first, second] {
            database.execute("INSERT OR REPLACE INTO rows VALUES (1, ?1)", [value]).unwrap();
            Env::system().pause(Duration::from_millis(1));
        }
        say(value);
    }
}

fn exclusive(database: &Connection) {
    database
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO rows(body) VALUES (1)")
        .unwrap();
    say(1);
    wait_for_end();
}

/// In the middle of a transaction that has already reached the files.
fn crash(database: &Connection) {
    database.execute_batch("PRAGMA cache_size = 10; BEGIN; DELETE FROM rows").unwrap();
    fill(database, 2000, 1000);
    say(1);
    wait_for_end();
}
