//! Requests and answers of an operator, each one JSON line over TCP: `{"ok": …}` or `{"error": …}`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::Duration;

use highwater::{Error, Kind, Result};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A line is no longer than this.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Who is asked answers within this time, a backup included.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// The connections of a process, so that it can end those that wait.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<BTreeMap<u64, TcpStream>>,
    next: AtomicU64,
    ended: AtomicBool,
}

impl Connections {
    /// Notes a connection; its number.
    pub(super) fn begin(&self, stream: &TcpStream) -> Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let copy = stream.try_clone().map_err(|error| Error::io("a connection", error))?;
        self.open.lock().insert(number, copy);
        if self.ended() {
            self.end_all();
        }
        Ok(number)
    }

    pub(super) fn end(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Ends every connection, and lets those who accept on `listeners` see it.
    pub(super) fn stop(&self, listeners: &[SocketAddr]) {
        self.ended.store(true, Ordering::SeqCst);
        self.end_all();
        for address in listeners {
            // It only wakes who accepts there; where nobody does, nobody has to be woken.
            drop(TcpStream::connect(address));
        }
    }

    fn end_all(&self) {
        for stream in self.open.lock().values() {
            // Nothing more is heard, but an answer on its way still goes out. One that has ended already is ended.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// Accepts connections until the process stops, each on a thread of its own.
pub(super) fn accept<'scope>(
    scope: &'scope Scope<'scope, '_>,
    listener: TcpListener,
    connections: &'scope Connections,
    serve: impl Fn(TcpStream) + Copy + Send + 'scope,
) {
    scope.spawn(move || {
        for stream in listener.incoming() {
            if connections.ended() {
                return;
            }
            let Ok(stream) = stream else { continue };
            let Ok(number) = connections.begin(&stream) else { continue };
            scope.spawn(move || {
                serve(stream);
                connections.end(number);
            });
        }
    });
}

/// Answers each line of a connection until it ends.
pub(super) fn answer_all<R: DeserializeOwned>(
    stream: TcpStream,
    mut answer: impl FnMut(R) -> Result<Value>,
) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Ok(Some(line)) = read_line(&mut reader) {
        let request = serde_json::from_str(&line)
            .map_err(|error| Error::input(format!("the request can't be read: {error}")));
        let reply = match request.and_then(&mut answer) {
            Ok(value) => json!({ "ok": value }),
            Err(error) => error_document(&error),
        };
        // One write for a line, so that no part of it waits for the other side.
        if writer.write_all(format!("{reply}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// Asks once.
pub(super) fn ask<A: DeserializeOwned>(address: SocketAddr, request: &impl Serialize) -> Result<A> {
    Client::connect(address)?.ask(request)
}

/// Asks again and again over one connection.
pub(super) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .and_then(|stream| stream.set_read_timeout(Some(ANSWER_MAX)).map(|()| stream))
            .map_err(|error| Error::io(address, error))?;
        Ok(Client { reader: BufReader::new(stream) })
    }

    pub(super) fn ask<A: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<A> {
        let text = serde_json::to_string(request)
            .map_err(|error| Error::bug("a request can't be written as JSON").with_source(error))?;
        let line = format!("{text}\n");
        self.reader
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|error| Error::io("asking", error))?;
        let line = read_line(&mut self.reader)?
            .ok_or_else(|| Error::unavailable("the connection ended without an answer"))?;
        let unclear = |error: serde_json::Error| {
            Error::corrupt("the answer can't be read").with_source(error)
        };
        let mut reply: Value = serde_json::from_str(&line).map_err(unclear)?;
        match reply.get_mut("error") {
            Some(error) => Err(parse_error(error)),
            None => serde_json::from_value(reply["ok"].take()).map_err(unclear),
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    let count = reader.take(LINE_BYTES_MAX).read_line(&mut line);
    match count.map_err(|error| Error::io("reading", error))? {
        0 => Ok(None),
        _ if line.ends_with('\n') => Ok(Some(line)),
        _ => Err(Error::input("a line is too long, or was cut off")),
    }
}

/// An error as the programs of this project write it.
pub(super) fn error_document(error: &Error) -> Value {
    json!({ "error": {
        "kind": error.kind().name(),
        "message": error.message(),
        "hint": error.hint(),
        "entry": error.entry(),
    }})
}

fn parse_error(document: &Value) -> Error {
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    let name = text("kind").unwrap_or_default();
    let kind =
        KINDS.iter().find(|(kind, _)| kind.name() == name).map_or(Kind::Bug, |(kind, _)| *kind);
    let error = Error::new(kind, text("message").unwrap_or_default());
    let error = text("hint").into_iter().fold(error, Error::with_remedy);
    text("entry").into_iter().fold(error, Error::with_entry)
}

/// The kinds of errors, and the exit codes that they have in all programs of this project.
const KINDS: [(Kind, u8); 11] = [
    (Kind::Bug, 1),
    (Kind::Input, 2),
    (Kind::NotFound, 3),
    (Kind::Conflict, 4),
    (Kind::Corrupt, 5),
    (Kind::Fenced, 6),
    (Kind::Denied, 7),
    (Kind::Unavailable, 8),
    (Kind::Stale, 9),
    (Kind::Quarantined, 10),
    (Kind::Interrupted, 130),
];

/// The exit code of a program that ends with an error of that kind.
pub(super) fn exit_code(kind: Kind) -> u8 {
    KINDS.iter().find(|(known, _)| *known == kind).map_or(1, |(_, code)| *code)
}

/// Opens a port; the address that it got.
pub(super) fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).map_err(|error| Error::io(address, error))?;
    let address = listener.local_addr().map_err(|error| Error::io(address, error))?;
    Ok((listener, address))
}
