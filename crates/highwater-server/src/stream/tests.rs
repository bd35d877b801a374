//! What the server does for one stream, and for several.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use highwater::Env;
use highwater::Event;
use highwater::agent::VaultSource;
use highwater::archive::{self, Input};
use highwater::vault::{Actor, Location, Vault};
use tonic::Code;

use super::*;
use crate::bench::{Bench, honest, place, secret};
use crate::client::{PullOptions, pull};

fn control() -> Control {
    Control::new(Env::system())
}

fn request(snapshot: &str) -> StreamRequest {
    StreamRequest { snapshot: snapshot.to_owned(), ..StreamRequest::default() }
}

async fn ask(bench: &Bench, request: StreamRequest) -> Result<Messages, Status> {
    Ok(stream(&bench.state, bench.state.stranger(), None, request).await?)
}

/// It is refused so, before anything is sent.
#[track_caller]
fn refused(bench: &Bench, request: StreamRequest, code: Code, words: &str) {
    let status = bench.runtime.block_on(ask(bench, request)).err().unwrap();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(words), "{status}");
}

/// All that is sent: the header, the bytes, the chunks' sizes, the trailer.
fn sent(bench: &Bench, request: StreamRequest) -> (Header, Vec<u8>, Vec<usize>, Trailer) {
    let all = async { ask(bench, request).await.unwrap().collect::<Vec<_>>().await };
    let (mut header, mut trailer, mut bytes, mut sizes) = (None, None, Vec::new(), Vec::new());
    for (place, message) in bench.runtime.block_on(all).into_iter().enumerate() {
        assert!(trailer.is_none(), "nothing follows the trailer");
        match message.unwrap().part.unwrap() {
            Part::Header(sent) => {
                assert_eq!(place, 0);
                header = Some(sent);
            }
            Part::Chunk(chunk) => {
                sizes.push(chunk.len());
                bytes.extend(chunk);
            }
            Part::Trailer(sent) => trailer = Some(sent),
        }
    }
    (header.unwrap(), bytes, sizes, trailer.unwrap())
}

#[test]
fn header_chunks_and_trailer_tell_the_same() {
    let bench = Bench::new();
    bench.height.store(9, Ordering::Relaxed);
    let snapshot = bench.back_up(1);
    let target_height = 9;
    let (header, bytes, sizes, trailer) =
        sent(&bench, StreamRequest { target_height, ..request(&snapshot[..10]) });
    assert_eq!(bytes, bench.export(&snapshot, None));
    assert_eq!((&header.snapshot, header.since.as_str()), (&snapshot, ""));
    assert_eq!((header.target_height, header.marks["height"]), (9, 9));
    assert_eq!(header.bytes_total, bytes.len() as u64);
    assert!(sizes.len() > 4 && sizes.iter().all(|&size| 0 < size && size <= CHUNK_BYTES_MAX));
    assert_eq!(trailer.blake3, blake3::hash(&bytes).as_bytes());
    let told = (trailer.snapshot, trailer.bytes, trailer.chunks, trailer.completed);
    assert_eq!(told, (snapshot, bytes.len() as u64, sizes.len() as u64, true));
}

#[test]
fn a_stream_goes_on_at_any_offset() {
    let bench = Bench::new();
    let snapshot = bench.back_up(1);
    let whole = bench.export(&snapshot, None);
    let length = whole.len() as u64;
    for offset in [1, 207, 1 << 20, (3 << 20) + 17, length - 1, length] {
        let asked = StreamRequest { offset, ..request(&snapshot) };
        let (header, bytes, sizes, trailer) = sent(&bench, asked);
        assert_eq!(bytes, whole[usize::try_from(offset).unwrap()..], "{offset}");
        assert_eq!(header.bytes_total, length);
        assert_eq!((trailer.bytes, trailer.chunks), (length, sizes.len() as u64));
        assert_eq!(trailer.blake3, blake3::hash(&whole).as_bytes(), "all is hashed");
    }
    let behind = StreamRequest { offset: length + 1, ..request(&snapshot) };
    refused(&bench, behind, Code::InvalidArgument, "behind the end");
    let unknown = StreamRequest { offset: 1, ..request("") };
    refused(&bench, unknown, Code::InvalidArgument, "offset without a snapshot");
    assert_eq!(bench.agent.operations(10).unwrap().len(), 1, "and no backup was made");
}

/// The height is the one inside the snapshot, whatever the node has come to since.
#[test]
fn a_target_height_is_compared_with_the_snapshots_own() {
    let bench = Bench::new();
    bench.height.store(100, Ordering::Relaxed);
    let old = bench.back_up(1);
    bench.height.store(200, Ordering::Relaxed);
    let new = bench.back_up(2);
    let at = |snapshot: &str, target_height| StreamRequest { target_height, ..request(snapshot) };
    assert_eq!(sent(&bench, at(&old, 100)).0.marks["height"], 100);
    refused(&bench, at(&old, 101), Code::FailedPrecondition, "at height 100, below");
    assert_eq!(sent(&bench, at(&new, 150)).0.marks["height"], 200);
    refused(&bench, at("latest", 201), Code::FailedPrecondition, "at height 200, below");
    // A fresh one: the node is asked at its barrier.
    bench.height.store(300, Ordering::Relaxed);
    let (header, ..) = sent(&bench, at("", 300));
    assert_eq!(header.marks["height"], 300);
    refused(&bench, at("", 301), Code::FailedPrecondition, "at height 300, below");
    bench.height.store(0, Ordering::Relaxed);
    let without = bench.back_up(3);
    refused(&bench, at(&without, 1), Code::FailedPrecondition, "no mark `height`");
    assert!(sent(&bench, at(&without, 0)).0.marks.is_empty());
    // Nothing stays on the client's side either.
    let options = PullOptions { target_height: 301, ..bench.latest(bench.serve(honest())) };
    let error = pull(&options, &control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Stale, "{error}");
    assert!(error.hint().is_some());
    assert_eq!(bench.left(), [""; 0]);
}

/// Archives of three snapshots, each but the first an increment on the one before it.
fn chain(bench: &Bench) -> [Vec<u8>; 3] {
    let address = bench.serve(honest());
    let mut since = None;
    ["a", "b", "c"].map(|name| {
        bench.back_up(u64::from(name.as_bytes()[0]));
        let output = Some(bench.out().join(name));
        let options = PullOptions { since: since.take(), output, ..bench.latest(address) };
        let report = pull(&options, &control()).unwrap();
        since = Some(report.snapshot.to_string());
        std::fs::read(report.output).unwrap()
    })
}

fn import(bench: &Bench, copy: &str, archives: &[&[u8]]) -> Result<archive::ImportReport> {
    let input = |bytes: &&[u8]| Input {
        name: "pulled".to_owned(),
        read: Box::new(io::Cursor::new(bytes.to_vec())),
    };
    let actor = Actor { state_dir: bench.dir.path().join("other"), name: "other".to_owned() };
    let location = Location::Local(bench.dir.path().join(copy));
    archive::import(&location, &secret(), archives.iter().map(input).collect(), &actor, &control())
}

#[test]
fn pulled_increments_chain_and_a_gap_a_swap_or_a_repeat_is_refused() {
    let bench = Bench::new();
    let [a, b, c] = chain(&bench);
    assert!(b.len() < a.len() / 2 && c.len() < a.len() / 2, "what is there is left out");
    let orders: [&[&[u8]]; 5] = [&[&a, &c], &[&a, &c, &b], &[&b, &c], &[&a, &b, &b], &[&b, &a]];
    for order in orders {
        let error = import(&bench, "refused", order).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert!(!bench.dir.path().join("refused").exists());
    }
    let report = import(&bench, "copy", &[&a, &b, &c]).unwrap();
    assert_eq!(report.snapshots.len(), 3);
    // One after the other as well; and what is there already changes nothing.
    for archive in [&a, &b] {
        import(&bench, "slow", &[archive]).unwrap();
    }
    assert_eq!(import(&bench, "slow", &[&a]).unwrap().bytes_stored, 0);
    import(&bench, "slow", &[&c]).unwrap();
}

#[test]
fn a_since_that_is_not_older_or_not_there_is_refused() {
    let bench = Bench::new();
    let old = bench.back_up(1);
    let new = bench.back_up(2);
    let asked = |snapshot: &str, since: &str| StreamRequest {
        since: since.to_owned(),
        ..request(snapshot)
    };
    refused(&bench, asked(&old, &new), Code::InvalidArgument, "not older");
    refused(&bench, asked(&old, &old), Code::InvalidArgument, "not older");
    refused(&bench, asked(&new, &"0".repeat(32)), Code::NotFound, "");
    refused(&bench, asked("abcdef", ""), Code::NotFound, "");
    refused(&bench, asked("../../etc", ""), Code::InvalidArgument, "not the name");
    refused(&bench, asked(&new, "a/b"), Code::InvalidArgument, "not the name");
    let other = StreamRequest { node: "other".to_owned(), ..request(&new) };
    refused(&bench, other, Code::NotFound, "no agent");
}

#[test]
fn streams_over_the_limit_are_refused_and_one_that_breaks_off_gives_its_place_back() {
    let bench = Bench::new();
    let snapshot = bench.back_up(1);
    let address = bench.serve(honest());
    let streams = Arc::clone(&bench.state.streams);
    bench.runtime.block_on(async {
        let (mut one, mut two) = (
            ask(&bench, request(&snapshot)).await.unwrap(),
            ask(&bench, request(&snapshot)).await.unwrap(),
        );
        one.next().await.unwrap().unwrap();
        let third = ask(&bench, request(&snapshot)).await.err().unwrap();
        assert_eq!(third.code(), Code::ResourceExhausted);
        // The queue of neither holds all of it, so that both exports still wait.
        assert_eq!(streams.available_permits(), 0);
        two.next().await.unwrap().unwrap();
        drop((one, two));
        // Both places, once the exports have seen it.
        drop(streams.acquire_many(2).await.unwrap());
    });
    let pulled = |name: &'static str| PullOptions {
        output: Some(bench.out().join(name)),
        ..bench.latest(address)
    };
    let place = streams.try_acquire().unwrap();
    std::thread::scope(|scope| {
        let one = scope.spawn(|| pull(&pulled("one"), &control()));
        one.join().unwrap().unwrap();
    });
    let other = streams.try_acquire().unwrap();
    let error = pull(&pulled("two"), &control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.message().contains("streams") && error.hint().is_some(), "{error}");
    drop((place, other));
    assert_eq!(bench.left(), ["one"]);
}

/// Over a socket, half-way: what the server does for a client ends with it.
#[test]
fn a_client_that_goes_away_ends_the_export() {
    let bench = Bench::of_bytes(24 << 20);
    let snapshot = bench.back_up(1);
    let address = bench.serve(honest());
    let streams = Arc::clone(&bench.state.streams);
    bench.runtime.block_on(async {
        let url = format!("http://{address}");
        let mut client = crate::v1::backups_client::BackupsClient::connect(url).await.unwrap();
        let mut stream = client.stream(request(&snapshot)).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stream.message().await.unwrap().unwrap();
        assert_eq!(streams.available_permits(), 1, "the export waits for its reader");
        drop(stream);
        drop(streams.acquire_many(2).await.unwrap());

        // A deadline that passes: tonic's client drops the call.
        let mut stream = client.stream(request(&snapshot)).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        let read = async { while stream.message().await.unwrap().is_some() {} };
        tokio::time::timeout(Duration::ZERO, read).await.unwrap_err();
        drop(stream);
        drop(streams.acquire_many(2).await.unwrap());
    });
    // The agent goes on.
    bench.back_up(2);
}

#[test]
fn a_stream_ends_when_the_server_stops() {
    let bench = Bench::new();
    let snapshot = bench.back_up(1);
    bench.runtime.block_on(async {
        let mut stream = ask(&bench, request(&snapshot)).await.unwrap();
        stream.next().await.unwrap().unwrap();
        bench.state.stopping.send_replace(true);
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(stream.next().await.is_none(), "and that is its end");
        drop(stream);
        drop(bench.state.streams.acquire_many(2).await.unwrap());
    });
}

#[test]
fn a_fresh_stream_waits_for_the_backup_that_runs() {
    let bench = Bench::new();
    let gate = bench.gate.lock().unwrap();
    let running = bench.agent.begin(Task::Backup).unwrap();
    assert_eq!(begin(&bench.agent).unwrap(), running.id, "no second one is begun");
    let (header, ..) = bench.runtime.block_on(async {
        let mut asked = Box::pin(ask(&bench, request("")));
        assert!(futures::poll!(&mut asked).is_pending());
        drop(gate);
        let mut stream = asked.await.unwrap();
        match stream.next().await.unwrap().unwrap().part.unwrap() {
            Part::Header(header) => (header, stream),
            part => panic!("{part:?}"),
        }
    });
    let made = bench.agent.operations(10).unwrap();
    let made: Vec<_> =
        made.iter().filter_map(|one| one.snapshot).map(|id| id.to_string()).collect();
    assert!(made.contains(&header.snapshot), "{made:?}");
}

#[test]
fn a_backup_that_fails_or_is_cancelled_streams_nothing() {
    let bench = Bench::new();
    std::fs::rename(bench.dir.path().join("node"), bench.dir.path().join("away")).unwrap();
    refused(&bench, request(""), Code::NotFound, "the backup failed");
    std::fs::rename(bench.dir.path().join("away"), bench.dir.path().join("node")).unwrap();
    let operation = bench.agent.operations(1).unwrap().remove(0);
    let cancelled = Operation { state: OperationState::Cancelled, ..operation };
    assert_eq!(snapshot_of(&cancelled).unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn damage_in_the_vault_is_data_loss_and_leaves_no_file() {
    let bench = Bench::new();
    bench.back_up(1);
    let packs = bench.dir.path().join("vault/packs");
    let mut files = Vec::new();
    let mut folders = vec![packs];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let largest = files.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(largest).unwrap();
    std::fs::write(largest, bytes).unwrap();
    let last = bench.runtime.block_on(async {
        let messages: Vec<_> = ask(&bench, request("latest")).await.unwrap().collect().await;
        messages.into_iter().next_back().unwrap().unwrap_err()
    });
    assert_eq!(last.code(), Code::DataLoss);
    let error = pull(&bench.latest(bench.serve(honest())), &control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.entry().is_some() && error.hint().is_some(), "{error:?}");
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn a_vault_that_can_not_be_reached_is_unavailable() {
    let bench = Bench::new();
    bench.back_up(1);
    bench.agent.stop();
    let Bench { dir, agent, state, runtime, .. } = bench;
    drop((agent, state, runtime));
    let away = VaultSource::new(place(dir.path()).to_string(), || {
        Err(Error::unavailable("the store does not answer"))
    });
    let bench = Bench::in_dir(dir, away);
    refused(&bench, request("latest"), Code::Unavailable, "does not answer");
    refused(&bench, request(""), Code::Unavailable, "does not answer");
    let error = pull(&bench.latest(bench.serve(honest())), &control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert_eq!(bench.left(), [""; 0]);
}

/// Bytes of the node of the test of memory.
const LARGE: usize = 300 << 20;
/// Set for the process whose memory is measured: where the vault is.
const MEASURED: &str = "STREAM_TEST_VAULT";

/// The most memory that this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The process whose memory is measured: server and client, the client slower than the server.
#[test]
fn measured_process() {
    let Some(dir) = std::env::var_os(MEASURED) else { return };
    let vault = Vault::open_with(&place(dir.as_ref()), &secret(), &Env::system()).unwrap();
    let own = tempfile::tempdir().unwrap();
    std::fs::create_dir(own.path().join("node")).unwrap();
    let bench = Bench::in_dir(own, VaultSource::from(vault));
    let options = bench.latest(bench.serve(honest()));
    let env = Env::system();
    let start = env.monotonic();
    let report = pull(&options, &control()).unwrap();
    let quick = env.monotonic() - start;
    assert!(report.bytes > LARGE as u64);
    let slow = control().on_event(move |event| {
        if let Event::Bytes(_) = event {
            env.pause(Duration::from_millis(5));
        }
    });
    pull(&PullOptions { replace: true, ..options }, &slow).unwrap();
    let told = format!("{} {}", quick.as_millis(), peak_kib());
    std::fs::write(Path::new(&dir).join("measured"), told).unwrap();
}

#[test]
#[expect(clippy::print_stderr, reason = "a measure, for who runs it by hand")]
fn server_and_client_stay_small_whatever_the_size() {
    let bench = Bench::of_bytes(LARGE);
    let env = Env::system();
    let start = env.monotonic();
    bench.back_up(1);
    let backup = env.monotonic() - start;
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stream::tests::measured_process"])
        .env(MEASURED, bench.dir.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let told = std::fs::read_to_string(bench.dir.path().join("measured")).unwrap();
    let (pulled_ms, peak) = told.split_once(' ').unwrap();
    eprintln!("backup {} ms, pull {pulled_ms} ms, peak {peak} KiB", backup.as_millis());
    assert!(peak.parse::<u64>().unwrap() < 128 << 10, "{peak} KiB");
}
