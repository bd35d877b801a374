//! What comes is a whole archive, or there is no file.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use highwater::Env;
use highwater::Event;
use highwater::Kind;
use highwater::env::Clock;
use tonic::Status;
use tonic::transport::Identity;

use super::*;
use crate::bench::{Bench, Tamper, cut, honest, secret};
use crate::stream::Messages;
use crate::v1::stream_response::Part;
use crate::v1::{Header, StreamRequest, StreamResponse, Trailer};

fn control() -> Control {
    Control::new(Env::system())
}

/// It fails so, and leaves nothing.
#[track_caller]
fn refused(bench: &Bench, options: &PullOptions, kind: Kind, words: &str) -> Error {
    let error = loop {
        let error = pull(options, &control()).unwrap_err();
        // The stream before has ended for us a moment before the server gives its seat to another one.
        if !error.message().contains("too many streams at once") {
            break error;
        }
        std::thread::yield_now();
    };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(words), "{error}");
    assert!(error.hint().is_some(), "{error}");
    assert_eq!(bench.left(), [""; 0], "{error}");
    error
}

/// A clock of its own that only pauses move on, and that tells of them.
#[derive(Clone, Default)]
struct Pauses(Arc<Mutex<Vec<Duration>>>);

impl Clock for Pauses {
    fn now(&self) -> Time {
        Time::from_nanos(0)
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().iter().sum()
    }

    fn pause(&self, duration: Duration) {
        self.0.lock().unwrap().push(duration);
    }
}

/// Changes each message by its place and its part.
fn change(how: impl Fn(usize, Part) -> Vec<Part> + Send + Sync + Clone + 'static) -> Tamper {
    Arc::new(move |_: &StreamRequest, messages: Messages| {
        let how = how.clone();
        let changed = messages.enumerate().flat_map(move |(place, message)| {
            let parts = how(place, message.unwrap().part.unwrap());
            futures::stream::iter(
                parts.into_iter().map(|part| Ok(StreamResponse { part: Some(part) })),
            )
        });
        Box::pin(changed)
    })
}

#[test]
fn what_is_pulled_is_what_an_export_writes() {
    let bench = Bench::new();
    bench.height.store(41, Ordering::Relaxed);
    let address = bench.serve(honest());
    let report = pull(&bench.fresh(address), &control()).unwrap();
    let snapshot = report.snapshot.to_string();
    let file = std::fs::read(&report.output).unwrap();
    assert_eq!(file, bench.export(&snapshot, None));
    assert_eq!((report.bytes, report.since, report.resumed), (file.len() as u64, None, 0));
    assert_eq!(report.marks, BTreeMap::from([("height".to_owned(), 41)]));
    let mode = std::fs::metadata(&report.output).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(bench.left(), ["a.hwa"]);
    let opened = archive::open(&[report.output], &secret(), &control()).unwrap();
    assert_eq!(opened.snapshot, report.snapshot);
    let operations = bench.agent.operations(10).unwrap();
    assert_eq!(operations.len(), 1, "the backup is an operation like any other");

    bench.back_up(5);
    let increment = PullOptions {
        since: Some(snapshot[..8].to_owned()),
        output: Some(bench.out().join("b.hwa")),
        ..bench.latest(address)
    };
    let report = pull(&increment, &control()).unwrap();
    assert_eq!(report.since.unwrap().to_string(), snapshot);
    let exported = bench.export(&report.snapshot.to_string(), Some(&snapshot));
    assert_eq!(std::fs::read(&report.output).unwrap(), exported);
}

#[test]
fn a_stream_that_is_cut_at_any_message_leaves_no_file() {
    let bench = Bench::new();
    bench.back_up(1);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let counting = bench.serve(change(move |_, part| {
        counted.fetch_add(1, Ordering::Relaxed);
        vec![part]
    }));
    pull(&bench.latest(counting), &control()).unwrap();
    std::fs::remove_file(bench.out().join("a.hwa")).unwrap();
    let messages = sent.load(Ordering::Relaxed);
    assert!(messages > 5, "a header, several chunks, a trailer: {messages}");
    for count in 0..messages {
        let quiet = bench.serve(Arc::new(move |_, messages| cut(messages, count, None)));
        let kind = if count == 0 { Kind::Corrupt } else { Kind::Unavailable };
        let words = if count == 0 { "header" } else { "without its trailer" };
        refused(&bench, &bench.latest(quiet), kind, words);
        let broken = Status::data_loss("a pack was changed");
        let loud =
            bench.serve(Arc::new(move |_, messages| cut(messages, count, Some(broken.clone()))));
        refused(&bench, &bench.latest(loud), Kind::Corrupt, "a pack was changed");
    }
}

#[test]
fn a_trailer_that_lies_leaves_no_file() {
    let bench = Bench::new();
    bench.back_up(1);
    type Lie = fn(&mut Trailer);
    let lies: [(Lie, &str); 6] = [
        (|trailer| trailer.completed = false, "complete"),
        (|trailer| trailer.snapshot = "00".repeat(16), "complete"),
        (|trailer| trailer.bytes += 1, "bytes came"),
        (|trailer| trailer.chunks -= 1, "chunks came"),
        (|trailer| trailer.blake3[31] ^= 1, "hashes differ"),
        (|trailer| trailer.blake3.clear(), "hashes differ"),
    ];
    for (lie, words) in lies {
        let address = bench.serve(change(move |_, part| match part {
            Part::Trailer(mut trailer) => {
                lie(&mut trailer);
                vec![Part::Trailer(trailer)]
            }
            part => vec![part],
        }));
        refused(&bench, &bench.latest(address), Kind::Corrupt, words);
    }
}

#[test]
fn a_header_that_lies_leaves_no_file() {
    let bench = Bench::new();
    bench.height.store(7, Ordering::Relaxed);
    let first = bench.back_up(1);
    bench.back_up(2);
    type Lie = fn(&mut Header);
    let lies: [(Lie, &str); 5] = [
        (|header| header.snapshot = "f".repeat(32), "another snapshot"),
        (|header| header.since.clear(), "another snapshot"),
        (|header| header.marks = [("height".to_owned(), 6)].into(), "lower height"),
        (|header| header.bytes_total += 1, "bytes came"),
        (|header| header.bytes_total -= 1, "more data came"),
    ];
    let newest = bench.agent.status().newest(highwater::vault::Level::Sealed).unwrap().snapshot;
    for (lie, words) in lies {
        let address = bench.serve(change(move |_, part| match part {
            Part::Header(mut header) => {
                lie(&mut header);
                vec![Part::Header(header)]
            }
            part => vec![part],
        }));
        let options = PullOptions {
            snapshot: Some(newest.to_string()),
            since: Some(first.clone()),
            target_height: 7,
            ..bench.latest(address)
        };
        refused(&bench, &options, Kind::Corrupt, words);
    }
}

#[test]
fn messages_out_of_order_leave_no_file() {
    let bench = Bench::new();
    bench.back_up(1);
    let again =
        change(|place, part| if place == 2 { vec![part.clone(), part] } else { vec![part] });
    refused(&bench, &bench.latest(bench.serve(again)), Kind::Corrupt, "more data came");
    let missing = change(|place, part| if place == 2 { Vec::new() } else { vec![part] });
    refused(&bench, &bench.latest(bench.serve(missing)), Kind::Corrupt, "bytes came");
    let headers =
        change(|place, part| if place == 0 { vec![part.clone(), part] } else { vec![part] });
    refused(&bench, &bench.latest(bench.serve(headers)), Kind::Corrupt, "second header");
    let headless = change(|place, part| if place == 0 { Vec::new() } else { vec![part] });
    refused(&bench, &bench.latest(bench.serve(headless)), Kind::Corrupt, "begin with a header");
    let more = change(|_, part| match part {
        Part::Trailer(_) => vec![part, Part::Chunk(vec![1])],
        part => vec![part],
    });
    refused(&bench, &bench.latest(bench.serve(more)), Kind::Corrupt, "follows the trailer");
    let empty = change(|place, part| match place {
        2 => vec![Part::Chunk(Vec::new()), part],
        _ => vec![part],
    });
    refused(&bench, &bench.latest(bench.serve(empty)), Kind::Corrupt, "chunk is empty");
    let swapped = Arc::new(|_: &StreamRequest, messages: Messages| -> Messages {
        Box::pin(
            futures::stream::once(async {
                let mut all: Vec<_> = messages.collect().await;
                all.swap(1, 2);
                futures::stream::iter(all)
            })
            .flatten(),
        )
    });
    refused(&bench, &bench.latest(bench.serve(swapped)), Kind::Corrupt, "hashes differ");
}

/// The stream's own hash is right, and the archive's is not.
#[test]
fn an_archive_that_is_none_leaves_no_file_though_the_trailer_fits() {
    let bench = Bench::new();
    bench.back_up(1);
    let hasher = Arc::new(Mutex::new(blake3::Hasher::new()));
    let address = bench.serve(change(move |place, part| match part {
        Part::Chunk(mut chunk) => {
            if place == 3 {
                chunk[5] ^= 1;
            }
            hasher.lock().unwrap().update(&chunk);
            vec![Part::Chunk(chunk)]
        }
        Part::Trailer(trailer) => {
            let blake3 = hasher.lock().unwrap().finalize().as_bytes().to_vec();
            vec![Part::Trailer(Trailer { blake3, ..trailer })]
        }
        part => vec![part],
    }));
    refused(&bench, &bench.latest(address), Kind::Corrupt, "it was changed");
}

#[test]
fn a_pull_goes_on_where_the_server_left_off() {
    let bench = Bench::new();
    let snapshot = bench.back_up(1);
    let offsets = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&offsets);
    let address = bench.serve(Arc::new(move |request, messages| {
        seen.lock().unwrap().push(request.offset);
        cut(messages, 2, Some(Status::unavailable("it stops")))
    }));
    let pauses = Pauses::default();
    let mut control = control();
    control.env = Env::system().with_clock(pauses.clone());
    let report = pull(&bench.latest(address), &control).unwrap();
    assert_eq!(std::fs::read(&report.output).unwrap(), bench.export(&snapshot, None));
    let offsets = offsets.lock().unwrap();
    assert_eq!(report.resumed as usize, offsets.len() - 1);
    assert!(offsets.len() > 4 && offsets.windows(2).all(|pair| pair[0] < pair[1]), "{offsets:?}");
    assert_eq!(offsets.last(), Some(&report.bytes), "the trailer alone was left");
    assert!(pauses.monotonic() >= Duration::from_millis(250) * report.resumed);
}

#[test]
fn a_server_that_brings_nothing_more_is_given_up() {
    let bench = Bench::new();
    bench.back_up(1);
    let gone = Status::unavailable("it stops");
    let end = gone.clone();
    let address = bench.serve(Arc::new(move |request, messages| {
        cut(messages, if request.offset == 0 { 2 } else { 1 }, Some(end.clone()))
    }));
    let pauses = Pauses::default();
    let mut control = control();
    control.env = Env::system().with_clock(pauses.clone());
    let error = pull(&bench.latest(address), &control).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("could not be resumed: it stops"), "{error}");
    // 250 ms, and twice as long each time: what adds up is one pause less than one of the next size.
    assert_eq!(pauses.monotonic(), Duration::from_millis(250 * 63));
    assert_eq!(bench.left(), [""; 0]);

    let attempts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&attempts);
    let end = gone.clone();
    let address = bench.serve(Arc::new(move |_, messages| {
        counted.fetch_add(1, Ordering::Relaxed);
        cut(messages, 1, Some(end.clone()))
    }));
    refused(&bench, &bench.latest(address), Kind::Unavailable, "it stops");
    assert_eq!(attempts.load(Ordering::Relaxed), 1, "what has not begun is not begun again");

    let old = Arc::new(move |_: &StreamRequest, messages| cut(messages, 2, Some(gone.clone())));
    let address = bench.serve_with(old, &["stream"], None);
    refused(&bench, &bench.latest(address), Kind::Unavailable, "it stops");
}

#[test]
fn an_archive_that_became_another_one_is_not_continued() {
    let bench = Bench::new();
    bench.back_up(1);
    let address = bench.serve(Arc::new(|request, messages| {
        let later = request.offset > 0;
        let messages: Messages = Box::pin(messages.map(move |message| {
            let mut message = message?;
            if let (true, Some(Part::Header(header))) = (later, &mut message.part) {
                header.bytes_total += 1;
            }
            Ok(message)
        }));
        cut(messages, 2, Some(Status::unavailable("it stops")))
    }));
    refused(&bench, &bench.latest(address), Kind::Conflict, "archive changed on the server");
}

/// Hands bytes on to `server` and back. Breaks the first `breaks` connections after so many bytes of
/// answer, and takes `connections` at all.
fn breaking_proxy(server: SocketAddr, bytes: u64, breaks: usize, connections: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let builder = std::thread::Builder::new();
    builder
        .spawn(move || {
            for (number, client) in listener.incoming().take(connections).enumerate() {
                let Ok(mut client) = client else { return };
                let mut upstream = TcpStream::connect(server).unwrap();
                let (mut from, mut to) =
                    (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                std::thread::Builder::new()
                    .spawn(move || std::io::copy(&mut from, &mut to))
                    .unwrap();
                let limit = if number < breaks { bytes } else { u64::MAX };
                std::thread::Builder::new()
                    .spawn(move || {
                        let mut answer = Read::by_ref(&mut upstream).take(limit);
                        let _ = std::io::copy(&mut answer, &mut client);
                        let _ = client.flush();
                        let _ = client.shutdown(std::net::Shutdown::Both);
                        let _ = upstream.shutdown(std::net::Shutdown::Both);
                    })
                    .unwrap();
            }
        })
        .unwrap();
    address
}

#[test]
fn a_connection_that_breaks_is_taken_up_again() {
    let bench = Bench::new();
    let snapshot = bench.back_up(1);
    // The greeting has a connection of its own.
    let proxy = breaking_proxy(bench.serve(honest()), 3 << 20, 2, usize::MAX);
    let report = pull(&bench.latest(proxy), &control()).unwrap();
    assert!(report.resumed > 0);
    assert_eq!(std::fs::read(&report.output).unwrap(), bench.export(&snapshot, None));
}

#[test]
fn a_server_that_goes_half_way_and_stays_away_leaves_no_file() {
    let bench = Bench::new();
    bench.back_up(1);
    let proxy = breaking_proxy(bench.serve(honest()), 3 << 20, 2, 2);
    let pauses = Pauses::default();
    let mut control = control();
    control.env = Env::system().with_clock(pauses.clone());
    let error = pull(&bench.latest(proxy), &control).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.message().contains("could not be resumed"), "{error}");
    assert!(pauses.monotonic() >= Duration::from_secs(15), "it was waited for");
    assert_eq!(bench.left(), [""; 0]);
}

/// Makes a certificate for 127.0.0.1, and one that it is signed by.
fn certificates(dir: &Path) -> (Identity, Vec<u8>) {
    let script = r#"set -e
        key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"; }
        key ca.key; key leaf.key
        openssl req -x509 -new -key ca.key -subj /CN=ca -days 30 -out ca.pem
        openssl req -new -key leaf.key -subj /CN=leaf -out leaf.csr
        echo subjectAltName=IP:127.0.0.1 > leaf.ext
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
            -extfile leaf.ext -out leaf.pem"#;
    let made = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    (Identity::from_pem(read("leaf.pem"), read("leaf.key")), read("ca.pem"))
}

#[test]
fn a_server_is_trusted_by_its_certificate() {
    let bench = Bench::new();
    let snapshot = bench.back_up(1);
    let dir = tempfile::tempdir().unwrap();
    let (identity, ca) = certificates(dir.path());
    let address = bench.serve_with(honest(), &["stream", "stream.resume"], Some(identity));
    let url = format!("https://{address}");
    let strange = PullOptions { url: url.clone(), ..bench.latest(address) };
    refused(&bench, &strange, Kind::Unavailable, "certificate");
    let known = PullOptions { url, ca: Some(ca), ..bench.latest(address) };
    let report = pull(&known, &control()).unwrap();
    assert_eq!(std::fs::read(report.output).unwrap(), bench.export(&snapshot, None));
}

#[test]
fn a_signal_and_a_deadline_end_a_pull_and_leave_nothing() {
    let bench = Bench::new();
    bench.back_up(1);
    let endless = bench.serve(Arc::new(|_, messages| {
        Box::pin(messages.take(3).chain(futures::stream::pending()))
    }));
    let mut control = control();
    let cancel = control.cancel.clone();
    control = control.on_event(move |event| {
        if matches!(event, Event::Bytes(_)) {
            cancel.cancel();
        }
    });
    let error = pull(&bench.latest(endless), &control).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(bench.left(), [""; 0]);

    let hurried =
        PullOptions { timeout: Some(Duration::from_millis(500)), ..bench.latest(endless) };
    refused(&bench, &hurried, Kind::Unavailable, "longer than it may");
    let over = PullOptions { timeout: Some(Duration::ZERO), ..bench.latest(endless) };
    refused(&bench, &over, Kind::Unavailable, "longer than it may");
}

#[test]
fn an_output_that_exists_is_a_conflict_before_anything_is_asked() {
    let bench = Bench::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refused(&bench, &bench.latest(nobody), Kind::Unavailable, "can't be reached");
    let output = bench.out().join("a.hwa");
    std::fs::write(&output, "mine").unwrap();
    let error = pull(&bench.latest(nobody), &control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    bench.back_up(1);
    let address = bench.serve(Arc::new(|_, messages| cut(messages, 3, None)));
    let forced = |address| PullOptions { replace: true, ..bench.latest(address) };
    pull(&forced(address), &control()).unwrap_err();
    assert_eq!(std::fs::read(&output).unwrap(), b"mine", "what failed replaces nothing");
    pull(&forced(bench.serve(honest())), &control()).unwrap();
    assert!(std::fs::read(&output).unwrap().starts_with(b"HWARCHIV"));
    assert_eq!(bench.left(), ["a.hwa"]);
}

#[test]
fn a_name_is_made_of_node_and_time() {
    let time = Time::from_nanos(1_795_249_800_123_456_789);
    assert_eq!(file_name("node", time), "node-20261121T083000Z.hwa");
}

#[test]
fn an_address_is_safe_or_refused() {
    let bench = Bench::new();
    let at = |url: &str| PullOptions {
        url: url.to_owned(),
        timeout: Some(Duration::ZERO),
        ..bench.latest(SocketAddr::from(([127, 0, 0, 1], 1)))
    };
    let wrong = [
        ("http://192.0.2.1:9753", "not encrypted"),
        ("http://localhost.example:9753", "not encrypted"),
        ("ftp://127.0.0.1", "neither"),
        ("127.0.0.1:9753", "neither"),
        ("https://127.0.0.1/vault", "more than"),
        ("https://token@127.0.0.1", "password"),
        ("what is this", "is none"),
    ];
    for (url, words) in wrong {
        refused(&bench, &at(url), Kind::Input, words);
    }
    // The time is over before a connection is tried, so that these are seen to be well-formed.
    let open = PullOptions { allow_http: true, ..at("http://192.0.2.1:9753") };
    refused(&bench, &open, Kind::Unavailable, "longer");
    for url in ["http://localhost:1", "http://[::1]:1", "http://127.9.9.9:1", "https://192.0.2.1"] {
        refused(&bench, &at(url), Kind::Unavailable, "longer");
    }
    let both = PullOptions { ca: Some(Vec::new()), ..at("http://127.0.0.1:1") };
    refused(&bench, &both, Kind::Input, "certificates");
}

#[test]
fn a_token_is_read_from_a_file_of_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let write = |text: &[u8], mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Token::from_file(&path)
    };
    assert_eq!(Token::from_file(&path).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(write(b"hw_secret\n", 0o600).unwrap().0, "hw_secret");
    assert_eq!(format!("{:?}", write(b"hw_secret\n", 0o400).unwrap()), "Token");
    for mode in [0o644, 0o640, 0o604] {
        assert_eq!(write(b"hw_secret\n", mode).unwrap_err().kind(), Kind::Denied);
    }
    for text in [&b""[..], b"\n", b"two words", b"\xff\xfe", &[b'a'; 5000]] {
        let error = write(text, 0o600).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{error}");
    }
}

#[test]
fn a_server_that_can_not_stream_is_not_asked_to() {
    let bench = Bench::new();
    let address = bench.serve_with(honest(), &["check"], None);
    refused(&bench, &bench.latest(address), Kind::Input, "does not stream");
}
