//! What one client may do to a server, and to the others: requests that are larger than they look, bodies that
//! don't come, answers that nobody takes, connections that rest.

use std::time::Duration;

use highwater::Env;
use highwater_gate::{Scope, Tokens};
use highwater_vss::{Auth, Limits, Sqlite, VssServer};
use k256::ecdsa::signature::hazmat::PrehashSigner as _;
use k256::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::Served;
use crate::wire::{Client, put};

/// Longer than a client of a test waits for an answer.
const LONG: Duration = Duration::from_secs(600);

/// What a client sends who has the key of this number, at this moment.
fn signed(number: u8) -> String {
    let key = SigningKey::from_slice(&[number; 32]).unwrap();
    let public = key.verifying_key().to_sec1_point(true);
    let seconds = Env::system().now().as_nanos() / 1_000_000_000;
    let hash = Sha256::new()
        .chain_update(b"VSS Signature Authorizer Signing Salt Constant..................")
        .chain_update(public.as_bytes())
        .chain_update(seconds.to_string())
        .finalize();
    let signature: Signature = key.sign_prehash(&hash).unwrap();
    format!("{}{}{seconds}", hex::encode(public.as_bytes()), hex::encode(signature.to_bytes()))
}

fn served(limits: Limits) -> Served {
    Served::start_with(|server| server.auth(Auth::signature()).limits(limits))
}

fn client(served: &Served, user: u8) -> Client {
    served.client().authorized(&signed(user))
}

/// The most memory that this process has had, in bytes: each test is one.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_put_is_counted_before_it_is_decoded() {
    let served = served(Limits::default());
    let body = [0x1a, 0].repeat(16 << 20);
    let before = peak();
    let mut hostile = client(&served, 1);
    let answer = hostile.post("/vss/putObjects", &body).unwrap();
    let (status, code, text) = answer.error();
    assert_eq!((status, code), (400, 2), "{text}");
    assert!(text.contains("1000"), "{text}");
    // What came, once more while it is put together, and what the client sends.
    let more = peak() - before;
    assert!(more < 5 * body.len() as u64, "{more} bytes for a body of {}", body.len());
}

#[test]
fn a_body_that_is_announced_holds_up_nobody_else() {
    let limits = Limits {
        body_bytes: 1 << 20,
        memory_bytes: 16 << 20,
        user_bytes: 4 << 20,
        request_wait: LONG,
        ..Limits::default()
    };
    let served = served(limits);
    let hostile = signed(1);
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut slow = served.client();
        slow.send(
            format!(
                "POST /vss/putObjects HTTP/1.1\r\nhost: s\r\nauthorization: {hostile}\r\n\
                 content-length: 1048576\r\n\r\nab"
            )
            .as_bytes(),
        )
        .unwrap();
        waiting.push(slow);
    }
    for number in 0..20 {
        let mut neighbour = client(&served, 2);
        let key = format!("k{number}");
        assert_eq!(neighbour.put(&put("s", &key, 0, &[7; 100_000])).unwrap().status, 200);
        assert_eq!(neighbour.get("s", &key).unwrap().unwrap().1.len(), 100_000);
    }
}

#[test]
fn answers_that_nobody_takes_are_counted() {
    let limits = Limits {
        body_bytes: 64 << 20,
        user_bytes: 256 << 20,
        // A busy machine takes a while for 60 MiB; whoever finds no room waits for all of it.
        request_wait: Duration::from_secs(8),
        ..Limits::default()
    };
    let served = served(limits);
    let mut writer = client(&served, 1);
    // More than sockets hold by themselves.
    let value = vec![7; 60 << 20];
    assert_eq!(writer.put(&put("s", "large", 0, &value)).unwrap().status, 200);
    // A user may have two such answers under way.
    let request =
        vss_api::types::GetObjectRequest { store_id: "s".to_owned(), key: "large".to_owned() };
    let body = vss_prost::Message::encode_to_vec(&request);
    let mut unread: Vec<Client> = (0..12).map(|_| client(&served, 1)).collect();
    for hostile in &mut unread {
        hostile.request("POST", "/vss/getObject", "", &body).unwrap();
    }
    let statuses: Vec<u16> = unread.iter_mut().map(|hostile| hostile.status().unwrap()).collect();
    let given = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..=2).contains(&given), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 12 - given);
    // Another user is served, and so is this one once the answers are gone.
    let mut neighbour = client(&served, 2);
    assert_eq!(neighbour.put(&put("s", "large", 0, &value)).unwrap().status, 200);
    assert_eq!(neighbour.get("s", "large").unwrap().unwrap().1, value);
    drop(unread);
    assert_eq!(client(&served, 1).get("s", "large").unwrap().unwrap().1, value);
}

#[test]
fn a_connection_that_rests_makes_room_for_one_that_calls() {
    let served = served(Limits { connections: 16, idle_wait: LONG, ..Limits::default() });
    let mut resting: Vec<Client> = (0..16).map(|_| served.client()).collect();
    for idle in &mut resting {
        assert_eq!(idle.fetch("/healthz").unwrap().status, 200);
    }
    let mut neighbours: Vec<Client> = Vec::new();
    for _ in 0..8 {
        let mut neighbour = client(&served, 2);
        assert_eq!(neighbour.put(&put("s", "k", -1, b"v")).unwrap().status, 200);
        neighbours.push(neighbour);
    }
    // Those that had rested longest are gone, the others are as they were.
    for (number, idle) in resting.iter_mut().enumerate() {
        assert_eq!(idle.fetch("/healthz").is_ok(), number >= 8, "{number}");
    }
}

#[test]
fn figures_are_for_those_who_may_see_them() {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tokens = Tokens::at(dir.path().join("tokens.toml"));
    let token = tokens.create("prometheus", Scope::Read, &Env::system()).unwrap().text;
    for given in [None, Some(tokens)] {
        let has_tokens = given.is_some();
        // Each has its own: a connection that ends may keep the other one's locked for a moment.
        let stores = dir.path().join(format!("stores-{has_tokens}"));
        let backend = Sqlite::serve(&stores, &Env::system()).unwrap();
        let mut server = VssServer::builder(std::sync::Arc::new(backend))
            .listen(([0, 0, 0, 0], 0).into())
            .allow_http(true);
        if let Some(tokens) = given {
            server = server.tokens(tokens);
        }
        let running = runtime.block_on(server.start()).unwrap();
        let address = ([127, 0, 0, 1], running.address().port()).into();
        let ask = |header: &str| {
            let mut client = Client::connect(address).unwrap();
            client.request("GET", "/metrics", header, &[]).unwrap();
            client.answer().unwrap().status
        };
        assert_eq!(ask(""), 401);
        assert_eq!(ask("authorization: Bearer hw_0000\r\n"), 401);
        let with = ask(&format!("authorization: Bearer {token}\r\n"));
        assert_eq!(with, if has_tokens { 200 } else { 401 });
        assert_eq!(Client::connect(address).unwrap().fetch("/healthz").unwrap().status, 200);
        runtime.block_on(running.shutdown()).unwrap();
    }
}
