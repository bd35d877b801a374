//! The process that keeps changing the demo's SQLite, and the handle to it.
//!
//! The process writes one payment a transaction and says so on standard output once it is
//! committed; it ends when its standard input does, so that it never outlives the demo.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater::{Env, Error, Result};
use rusqlite::Connection;

use super::{node, rows};
use crate::cli::DemoWriterArgs;

/// Between two payments; a few hundred a second are a busy node.
const PAUSE: Duration = Duration::from_millis(3);
/// Payments that are there before the story goes on.
const PAYMENTS_FIRST: u64 = 200;
/// Payments between the two backups.
const PAYMENTS_BETWEEN: u64 = 50;

/// The hidden command `demo-writer`: writes payments until standard input ends.
pub(crate) fn run(args: &DemoWriterArgs) -> Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever ends the input, nobody listens any more.
            let _ = std::io::stdin().read(&mut [0]);
            stop.store(true, Ordering::SeqCst);
        });
        let written = write_payments(&args.database, &stop);
        if let Err(error) = &written {
            // The thread above waits for the demo to close the input; ending the process is faster.
            crate::output::error(error, false);
            std::process::exit(1);
        }
        written
    })
}

fn write_payments(database: &Path, stop: &AtomicBool) -> Result<()> {
    let env = Env::system();
    let mut connection = open(database).map_err(sqlite_error)?;
    let mut out = std::io::stdout().lock();
    let mut row = 1;
    while !stop.load(Ordering::SeqCst) {
        write_payment(&mut connection, row).map_err(sqlite_error)?;
        // A closed pipe means that the demo has ended.
        if writeln!(out, "{row}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        row += 1;
        env.pause(PAUSE);
    }
    Ok(())
}

fn open(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(
        "CREATE TABLE payment (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
         CREATE TABLE balance (id INTEGER PRIMARY KEY CHECK (id = 0), payments INTEGER NOT NULL);
         INSERT INTO balance VALUES (0, 0);",
    )?;
    Ok(connection)
}

fn write_payment(connection: &mut Connection, row: u64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let row_number = i64::try_from(row).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO payment VALUES (?1, ?2)",
        (row_number, rows::value(node::LEDGER, row)),
    )?;
    transaction.execute("UPDATE balance SET payments = payments + 1", ())?;
    transaction.commit()
}

/// An error of the demo's own SQLite.
pub(super) fn sqlite_error(error: rusqlite::Error) -> Error {
    Error::unavailable(format!("the demo's SQLite: {error}")).with_entry(node::LEDGER)
}

/// The writing process; dropped, it is killed.
pub(super) struct Writer {
    child: Child,
    /// Held open: its end ends the process.
    _stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
    acknowledged: u64,
}

impl Writer {
    /// Starts the process on a new database and waits for its first payments.
    pub(super) fn start(database: &Path) -> Result<Writer> {
        let program =
            std::env::current_exe().map_err(|error| Error::io("this program's path", error))?;
        let mut child = Command::new(program)
            .arg("demo-writer")
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io("the demo's writer", error))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::bug("a piped child has no pipes"));
        };
        let lines = BufReader::new(stdout);
        let mut writer = Writer { child, _stdin: stdin, lines, acknowledged: 0 };
        writer.read_up_to(PAYMENTS_FIRST)?;
        Ok(writer)
    }

    /// Waits for some more payments; gives how many are committed for certain by now.
    pub(super) fn acknowledged_more(&mut self) -> Result<u64> {
        self.read_up_to(self.acknowledged + PAYMENTS_BETWEEN)?;
        Ok(self.acknowledged)
    }

    fn read_up_to(&mut self, payments: u64) -> Result<()> {
        while self.acknowledged < payments {
            let mut line = String::new();
            let bytes = self.lines.read_line(&mut line);
            if bytes.map_err(|error| Error::io("the demo's writer", error))? == 0 {
                return Err(Error::unavailable("the demo's writer has ended"));
            }
            self.acknowledged = line.trim().parse().map_err(|_| {
                Error::bug("the demo's writer did not report the number of a payment")
            })?;
        }
        Ok(())
    }

    /// Kills the process, as a machine dies.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill().map_err(|error| Error::io("the demo's writer", error))?;
        self.child.wait().map_err(|error| Error::io("the demo's writer", error))?;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail where the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
