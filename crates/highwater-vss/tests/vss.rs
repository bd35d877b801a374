//! The versioned store over real sockets: what clients of any age are told, and what junk gets.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod attacks;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::Env;
use highwater_vss::{Auth, Event, Limits, Running, Sqlite, VssBuilder, VssServer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vss_api::types::{GetObjectRequest, ListKeyVersionsRequest, ListKeyVersionsResponse};
use vss_prost::Message as _;

use wire::{Answer, Client, item, put, puts};

/// A server in this process.
struct Served {
    runtime: Runtime,
    running: Option<Running>,
    address: SocketAddr,
    _dir: TempDir,
}

impl Served {
    fn start() -> Served {
        Served::start_with(|server| server)
    }

    fn start_with(with: impl FnOnce(VssBuilder) -> VssBuilder) -> Served {
        let dir = TempDir::new().unwrap();
        let runtime = Runtime::new().unwrap();
        let backend = Sqlite::serve(dir.path(), &Env::system()).unwrap();
        let server = with(VssServer::builder(Arc::new(backend)).auth(Auth::none()));
        let running = runtime.block_on(server.start()).unwrap();
        let address = running.address();
        Served { runtime, running: Some(running), address, _dir: dir }
    }

    fn client(&self) -> Client {
        Client::connect(self.address).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown()).unwrap();
        }
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// A call with a document.
fn ask(client: &mut Client, call: &str, body: &Value) -> Answer {
    client.post(&format!("/highwater/v1/{call}"), body.to_string().as_bytes()).unwrap()
}

#[test]
fn every_error_is_one_that_clients_understand() {
    let served = Served::start_with(|server| {
        server.limits(Limits { body_bytes: 100_000, ..Limits::default() })
    });
    let mut client = served.client();
    let long = |length: usize| "k".repeat(length);
    let list = |size, token: Option<&str>| {
        ListKeyVersionsRequest {
            store_id: "s".to_owned(),
            key_prefix: None,
            page_size: size,
            page_token: token.map(str::to_owned),
        }
        .encode_to_vec()
    };
    let get = |store: &str, key: &str| {
        GetObjectRequest { store_id: store.to_owned(), key: key.to_owned() }.encode_to_vec()
    };
    let many = vec![item("k", -1, b""); 1001];
    let cases: Vec<(&str, Vec<u8>, u16, i32)> = vec![
        ("/vss/getObject", get("s", "missing"), 404, 4),
        ("/vss/getObject", get("s", &long(601)), 400, 2),
        ("/vss/getObject", get(&long(121), "k"), 400, 2),
        ("/vss/getObject", get("s", "a\0"), 400, 2),
        ("/vss/getObject", b"\xff\xff\xff".to_vec(), 400, 2),
        ("/vss/putObjects", put("s", "k", 5, b"").encode_to_vec(), 409, 1),
        ("/vss/putObjects", put("s", "k", -2, b"").encode_to_vec(), 409, 1),
        ("/vss/putObjects", puts("s", vec![], vec![item("k", -1, b"")]).encode_to_vec(), 409, 1),
        ("/vss/putObjects", puts("s", many, vec![]).encode_to_vec(), 400, 2),
        ("/vss/putObjects", put("s", "k\0", 0, b"").encode_to_vec(), 400, 2),
        ("/vss/putObjects", put("s", "k", 0, &[0; 100_000]).encode_to_vec(), 400, 2),
        ("/vss/deleteObject", vec![], 400, 2),
        ("/vss/listKeyVersions", list(Some(-1), None), 400, 2),
        ("/vss/listKeyVersions", list(Some(-5), None), 400, 2),
        ("/vss/listKeyVersions", list(None, Some("")), 400, 2),
        ("/vss/listKeyVersions", list(None, Some("x")), 400, 2),
        ("/vss/listKeyVersions", list(None, Some("+1")), 400, 2),
        ("/vss/listKeyVersions", list(None, Some("99999999999999999999")), 400, 2),
        ("/vss/getobject", vec![], 400, 2),
        ("/vss", vec![], 400, 2),
        ("/", vec![], 400, 2),
    ];
    for (path, body, status, code) in cases {
        let mut client = served.client();
        let answer = client.post(path, &body).unwrap();
        let (found_status, found_code, text) = answer.error();
        assert_eq!((found_status, found_code), (status, code), "{path}: {text}");
        assert_eq!(answer.header("vss-protocol-version"), Some("0"), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{path}");
    }
    // A call by another method is none.
    client.request("GET", "/vss/getObject", "", &get("s", "k")).unwrap();
    assert_eq!(client.answer().unwrap().error().1, 2);
    // The longest names that are allowed, and an empty store id.
    let stored = client.put(&put("", &long(600), 0, b"v")).unwrap();
    assert_eq!((stored.status, stored.header("vss-protocol-version")), (200, Some("0")));
    assert!(stored.body.is_empty());
    assert_eq!(client.get("", &long(600)).unwrap().unwrap().0, 1);
}

#[test]
fn a_body_that_is_too_long_is_told_so_before_it_is_sent() {
    let served = Served::start_with(|server| {
        server.limits(Limits { body_bytes: 1000, ..Limits::default() })
    });
    let mut client = served.client();
    client
        .send(b"POST /vss/putObjects HTTP/1.1\r\nhost: s\r\ncontent-length: 1001\r\n\r\n")
        .unwrap();
    assert_eq!(client.answer().unwrap().error().1, 2);
    // One without a length is taken up to the limit, piece by piece.
    let mut client = served.client();
    client
        .send(b"POST /vss/putObjects HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    // The server may have closed by then.
    for _ in 0..3 {
        let _ = client.send(format!("1f4\r\n{}\r\n", "x".repeat(500)).as_bytes());
    }
    assert_eq!(client.answer().unwrap().error().1, 2);
    assert_eq!(served.client().put(&put("s", "k", 0, &[7; 900])).unwrap().status, 200);
}

#[test]
fn a_body_that_never_comes_gives_its_place_back() {
    let limits = Limits {
        body_bytes: 1000,
        memory_bytes: 1000,
        user_bytes: 1000,
        request_wait: Duration::from_millis(300),
        ..Limits::default()
    };
    let served = Served::start_with(|server| server.limits(limits));
    let mut slow = served.client();
    slow.send(b"POST /vss/putObjects HTTP/1.1\r\nhost: s\r\ncontent-length: 1000\r\n\r\nab")
        .unwrap();
    assert_eq!(slow.answer().unwrap().error().1, 2);
    assert_eq!(served.client().put(&put("s", "k", 0, &[7; 900])).unwrap().status, 200);
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    let served = Served::start();
    let mut client = served.client();
    for version in 0..20 {
        client
            .request("POST", "/vss/putObjects", "", &put("s", "k", version, b"v").encode_to_vec())
            .unwrap();
    }
    for _ in 0..20 {
        assert_eq!(client.answer().unwrap().status, 200);
    }
    assert_eq!(client.get("s", "k").unwrap().unwrap().0, 20);
}

#[test]
fn a_prefix_is_a_prefix_and_pages_follow_creation() {
    let served = Served::start();
    let mut client = served.client();
    let keys = ["p_1", "pA1", "p%1", "q", "p_2", "pÿ", "p\u{10ffff}x"];
    for key in keys {
        assert_eq!(client.put(&put("s", key, 0, b"v")).unwrap().status, 200);
    }
    assert_eq!(client.put(&put("s", "p_1", 1, b"w")).unwrap().status, 200);
    let names = |list: Vec<(String, i64)>| list.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(client.list("s", "p_").unwrap(), [("p_2".to_owned(), 1), ("p_1".to_owned(), 2)]);
    assert_eq!(names(client.list("s", "p%").unwrap()), ["p%1"]);
    assert_eq!(names(client.list("s", "p\u{10ffff}").unwrap()), ["p\u{10ffff}x"]);
    assert_eq!(names(client.list("s", "").unwrap()).len(), keys.len());
    assert_eq!(client.list("other", "").unwrap(), []);
    let request = ListKeyVersionsRequest {
        store_id: "s".to_owned(),
        page_size: Some(0),
        ..ListKeyVersionsRequest::default()
    };
    let page: ListKeyVersionsResponse = client.call("listKeyVersions", &request).unwrap().message();
    assert_eq!((page.key_versions.len(), page.global_version), (0, Some(0)));
}

#[test]
fn a_page_in_a_browser_is_nobody() {
    let served = Served::start();
    let mut client = served.client();
    let body = put("s", "k", 0, b"v").encode_to_vec();
    client.request("POST", "/vss/putObjects", "origin: https://evil.example\r\n", &body).unwrap();
    assert_eq!(client.answer().unwrap().error().1, 5);
    assert_eq!(client.get("s", "k").unwrap(), None);
}

#[test]
fn other_addresses_than_loopback_need_tls_and_somebody() {
    let dir = TempDir::new().unwrap();
    let runtime = Runtime::new().unwrap();
    let backend = Arc::new(Sqlite::serve(dir.path(), &Env::system()).unwrap());
    let start = |auth: Auth, http: bool| {
        let server = VssServer::builder(Arc::clone(&backend) as _)
            .listen(([0, 0, 0, 0], 0).into())
            .allow_http(http)
            .auth(auth);
        runtime.block_on(server.start())
    };
    let error = start(Auth::signature(), false).err().unwrap();
    assert!(error.to_string().contains("there is no TLS"), "{error}");
    let error = start(Auth::none(), true).err().unwrap();
    assert!(error.to_string().contains("there is no authentication"), "{error}");
    let running = start(Auth::signature(), true).unwrap();
    runtime.block_on(running.shutdown()).unwrap();
}

#[test]
fn without_a_signature_nothing_is_served() {
    let served = Served::start_with(|server| server.auth(Auth::signature()));
    let mut client = served.client().authorized("Bearer x");
    let answer = client.put(&put("s", "k", 0, b"v")).unwrap();
    assert_eq!((answer.status, answer.error().1), (401, 5));
    assert_eq!(ask(&mut client, "digest", &json!({"store_id": "s"})).error().1, 5);
    // What says nothing of stores needs nobody.
    assert_eq!(client.fetch("/healthz").unwrap().status, 200);
    assert_eq!(json(&client.fetch("/readyz").unwrap())["ready"], true);
    assert_eq!(json(&client.fetch("/highwater/v1/capabilities").unwrap())["protocol"], 0);
}

#[test]
fn a_digest_tells_stores_apart() {
    let served = Served::start();
    let mut client = served.client();
    let digest = |client: &mut Client, store: &str| {
        json(&ask(client, "digest", &json!({"store_id": store})))
    };
    let empty = digest(&mut client, "a");
    assert_eq!(
        (empty["count"].as_u64(), empty["digest"].as_str().unwrap()),
        (Some(0), "0".repeat(64).as_str())
    );
    for store in ["a", "b"] {
        client.put(&put(store, "k", -1, b"v")).unwrap();
        client.put(&put(store, "l", -1, b"w")).unwrap();
    }
    assert_eq!(digest(&mut client, "a"), digest(&mut client, "b"));
    client.put(&put("b", "l", -1, b"x")).unwrap();
    assert_ne!(digest(&mut client, "a")["digest"], digest(&mut client, "b")["digest"]);
    client.put(&put("b", "l", -1, b"w")).unwrap();
    assert_eq!(digest(&mut client, "a"), digest(&mut client, "b"));
    let wrong = ask(&mut client, "digest", &json!({"store": "a"}));
    assert_eq!(wrong.error().1, 2);
}

#[test]
fn a_fenced_store_takes_only_the_holder_of_its_head() {
    let served = Served::start();
    let mut client = served.client();
    let status = |client: &mut Client, items, deletes| {
        client.put(&puts("s", items, deletes)).unwrap().status
    };
    assert_eq!(
        status(&mut client, vec![item("head.a", 0, b""), item("root", 0, b"")], vec![]),
        200
    );
    let fenced = ask(&mut client, "policy", &json!({"store_id": "s", "fence": true}));
    assert_eq!(json(&fenced)["fence"], true);
    // No head; a head without a condition; a second head; a wrong version; a lone delete.
    assert_eq!(status(&mut client, vec![item("k", -1, b"")], vec![]), 400);
    assert_eq!(status(&mut client, vec![item("head.a", -1, b"")], vec![]), 400);
    assert_eq!(status(&mut client, vec![item("head.b", 0, b"")], vec![]), 409);
    assert_eq!(status(&mut client, vec![item("head.a", 7, b""), item("k", -1, b"")], vec![]), 409);
    assert_eq!(status(&mut client, vec![], vec![item("head.a", 1, b"")]), 400);
    assert_eq!(client.delete("s", "root", -1).unwrap().error().1, 2);
    assert_eq!(client.list("s", "").unwrap().len(), 2);
    // The holder writes, and is taken over.
    assert_eq!(status(&mut client, vec![item("head.a", 1, b""), item("k", -1, b"v")], vec![]), 200);
    assert_eq!(
        status(&mut client, vec![item("head.b", 0, b"")], vec![item("head.a", 2, b"")]),
        200
    );
    assert_eq!(status(&mut client, vec![item("head.a", 2, b""), item("k", -1, b"w")], vec![]), 409);
    assert_eq!(status(&mut client, vec![item("head.b", 1, b""), item("k", -1, b"x")], vec![]), 200);
    // Whoever can write can't lift it.
    let lifted = ask(&mut client, "policy", &json!({"store_id": "s", "fence": false}));
    assert_eq!(lifted.error().1, 5);
    assert_eq!(status(&mut client, vec![item("k", -1, b"")], vec![]), 400);
    // Another store is another store.
    assert_eq!(client.put(&put("t", "k", -1, b"")).unwrap().status, 200);
}

#[test]
fn history_is_kept_once_asked_for_and_can_t_be_ended_by_an_owner() {
    let served = Served::start();
    let mut client = served.client();
    let keep = |versions: u32, days: u32| json!({"store_id": "s", "history": {"versions": versions, "days": days}});
    assert_eq!(json(&ask(&mut client, "policy", &keep(3, 7)))["history"]["days"], 7);
    for value in [b"1", b"2", b"3"] {
        client.put(&put("s", "k", -1, value)).unwrap();
    }
    client.delete("s", "k", -1).unwrap();
    let commits = json(&ask(&mut client, "history", &json!({"store_id": "s"})));
    let commits = commits["commits"].as_array().unwrap();
    assert_eq!(commits.len(), 5, "{commits:?}");
    assert_eq!((&commits[0]["deletes"], &commits[1]["puts"]), (&json!(1), &json!(1)));
    for weaker in [keep(2, 7), keep(3, 6)] {
        assert_eq!(ask(&mut client, "policy", &weaker).error().1, 5);
    }
    assert_eq!(json(&ask(&mut client, "policy", &keep(4, 8)))["history"]["versions"], 4);
}

#[test]
fn metrics_and_events_name_no_key() {
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&events);
    let served = Served::start_with(|server| {
        server.log(move |event: &Event| told.lock().unwrap().push(format!("{event:?}")))
    });
    let mut client = served.client();
    client.put(&put("secretstore", "secretkey", 0, b"secretvalue")).unwrap();
    client.put(&put("secretstore", "secretkey", 0, b"secretvalue")).unwrap();
    client.get("secretstore", "secretkey").unwrap();
    client.post("/vss/secretpath", b"").unwrap();
    let metrics = String::from_utf8(client.fetch("/metrics").unwrap().body).unwrap();
    for line in [
        r#"highwater_vss_request_seconds_count{method="putObjects",code="200"} 1"#,
        r#"highwater_vss_request_seconds_count{method="putObjects",code="409"} 1"#,
        r#"highwater_vss_request_seconds_count{method="getObject",code="200"} 1"#,
        r#"highwater_vss_request_seconds_count{method="other",code="400"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let events = events.lock().unwrap().join("\n");
    assert!(events.contains("putObjects") && events.contains("409"), "{events}");
    assert!(!metrics.contains("secret") && !events.contains("secret"), "{metrics}{events}");
}

/// Bytes of no meaning, half of them near to a message.
fn junk(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = match random.u8(..4) {
        0 => (0..random.u8(..200)).map(|_| random.u8(..)).collect(),
        1 => put("s", "key", random.i64(..), b"value").encode_to_vec(),
        2 => puts("", vec![item("a", -1, b"v"); random.usize(..5)], vec![item("a", -1, b"")])
            .encode_to_vec(),
        _ => ListKeyVersionsRequest {
            store_id: "s".to_owned(),
            key_prefix: Some("\u{10ffff}".to_owned()),
            page_size: Some(i32::from_le_bytes([random.u8(..); 4])),
            page_token: Some(random.u64(..).to_string()),
        }
        .encode_to_vec(),
    };
    for _ in 0..random.u8(..4) {
        let changed = random.u8(..);
        if let Some(byte) = random.choice(&mut bytes) {
            *byte = changed;
        }
    }
    bytes
}

/// How many pieces of junk; `make nightly` sends more.
fn rounds() -> u64 {
    std::env::var("HIGHWATER_JUNK").map_or(3000, |rounds| rounds.parse().unwrap())
}

#[test]
fn junk_on_any_path_is_no_fault_of_the_server() {
    let served = Served::start();
    let paths = [
        "/vss/getObject",
        "/vss/putObjects",
        "/vss/deleteObject",
        "/vss/listKeyVersions",
        "/highwater/v1/digest",
        "/highwater/v1/policy",
        "/highwater/v1/history",
        "/readyz",
        "/x%00",
    ];
    let mut random = fastrand::Rng::with_seed(1);
    let mut client = served.client();
    for round in 0..rounds() {
        let path = paths[usize::try_from(round).unwrap() % paths.len()];
        let body = junk(&mut random);
        let answer = match client.post(path, &body) {
            Ok(answer) => answer,
            Err(error) => panic!("{path} {body:?}: {error}"),
        };
        assert!(answer.status < 500, "{path} {body:?}: {}", answer.status);
        if answer.header("connection") == Some("close") {
            client = served.client();
        }
        // What is no HTTP at all.
        if round % 10 == 0 {
            let mut raw = std::net::TcpStream::connect(served.address).unwrap();
            // The server may close before all is written.
            let _ = raw.write_all(&body);
            let _ = raw.write_all(b"\r\n\r\n");
        }
    }
    assert_eq!(served.client().put(&put("after", "k", 0, b"v")).unwrap().status, 200);
}
