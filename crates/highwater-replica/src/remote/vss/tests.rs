//! What is sent, and what answers mean, those of strangers among them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use highwater::Kind;
use highwater::env::Clock;
use highwater::ids::Time;
use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
use k256::ecdsa::{Signature, VerifyingKey};
use vss_api::types::{ErrorCode, ErrorResponse};
use zeroize::Zeroizing;

use super::*;

fn remote(url: &str) -> Result<VssRemote> {
    VssRemote::builder(url, "store").build()
}

/// A request as it came: its head in lower case, and its body.
fn read(stream: &TcpStream) -> (String, Vec<u8>) {
    try_read(stream).expect("a request that ends early")
}

/// The same; none where whoever asks hangs up meanwhile.
fn try_read(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// What `ask` makes of an answer, and the request.
fn answered<T>(
    answer: &[u8],
    ask: impl FnOnce(&VssRemote) -> Result<T>,
) -> (Result<T>, (String, Vec<u8>)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/vss/", listener.local_addr().unwrap());
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read(&stream);
            stream.write_all(answer).unwrap();
            request
        });
        let told = ask(&remote(&url).unwrap());
        (told, server.join().unwrap())
    })
}

fn bytes(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn error(code: ErrorCode) -> Vec<u8> {
    ErrorResponse { error_code: code.into(), message: "k".to_owned() }.encode_to_vec()
}

#[test]
fn an_answer_means_what_the_protocol_says_and_a_strangers_nothing() {
    let found =
        |key: &str| GetObjectResponse { value: Some(key_value(key, 7, b"value")) }.encode_to_vec();
    let missing = error(ErrorCode::NoSuchKeyException);
    let get = |answer: &[u8]| answered(answer, |remote| remote.get("k")).0;
    let good = get(&bytes(200, "vss-protocol-version: 0\r\n", &found("k"))).unwrap();
    assert_eq!(good, Some((7, b"value".to_vec())));
    assert_eq!(get(&bytes(200, "", &found("k"))).unwrap(), good);
    assert_eq!(get(&bytes(404, "", &missing)).unwrap(), None);
    let cases = [
        (bytes(200, "vss-protocol-version: 1\r\n", &found("k")), Kind::Input),
        (bytes(200, "", &found("other")), Kind::Unavailable),
        (bytes(200, "", b""), Kind::Unavailable),
        (bytes(200, "", b"<html>welcome</html>"), Kind::Unavailable),
        (bytes(404, "", b"<html>not found</html>"), Kind::Unavailable),
        (bytes(404, "", b"Not Found"), Kind::Unavailable),
        (bytes(404, "", b""), Kind::Unavailable),
        (bytes(404, "", &error(ErrorCode::ConflictException)), Kind::Unavailable),
        (bytes(409, "", &error(ErrorCode::ConflictException)), Kind::Unavailable),
        (bytes(401, "", &error(ErrorCode::AuthException)), Kind::Denied),
        (bytes(403, "", b"<html>forbidden</html>"), Kind::Denied),
        (bytes(400, "", &error(ErrorCode::InvalidRequestException)), Kind::Input),
        (bytes(413, "", b"<html>too large</html>"), Kind::Input),
        (bytes(500, "", &error(ErrorCode::InternalServerException)), Kind::Unavailable),
        (bytes(502, "", b"<html>bad gateway</html>"), Kind::Unavailable),
        (bytes(302, "location: http://192.0.2.1/\r\n", b""), Kind::Unavailable),
        (b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nhalf".to_vec(), Kind::Unavailable),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), Kind::Unavailable),
        (Vec::new(), Kind::Unavailable),
    ];
    for (answer, kind) in cases {
        let told = get(&answer).unwrap_err();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(told.kind(), kind, "{answer}: {told}");
        assert!(told.hint().is_some(), "{answer}: {told}");
    }
}

#[test]
fn a_put_that_conflicts_is_no_error_and_one_that_nobody_answered_is() {
    let put = RemotePut {
        items: vec![super::super::Item { key: "k".to_owned(), version: 3, value: vec![1] }],
        deletes: vec![("d".to_owned(), -1)],
    };
    let ask = |answer: &[u8]| answered(answer, |remote| remote.put(&put));
    let (landed, (head, body)) = ask(&bytes(200, "", b""));
    assert_eq!(landed.unwrap(), Put::Landed);
    assert!(head.starts_with("post /vss/putobjects http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/octet-stream"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    let sent = PutObjectRequest::decode(body.as_slice()).unwrap();
    assert_eq!(sent.store_id, "store");
    assert_eq!(sent.global_version, None);
    assert_eq!(sent.transaction_items, [key_value("k", 3, &[1])]);
    assert_eq!(sent.delete_items, [key_value("d", -1, &[])]);
    assert_eq!(
        ask(&bytes(409, "", &error(ErrorCode::ConflictException))).0.unwrap(),
        Put::Conflict
    );
    for unknown in [bytes(409, "", b"conflict"), Vec::new()] {
        assert_eq!(ask(&unknown).0.unwrap_err().kind(), Kind::Unavailable);
    }
}

#[test]
fn a_list_ends_and_has_what_begins_with_the_prefix() {
    let page = |keys: &[&str], next: Option<&str>| {
        let answer = ListKeyVersionsResponse {
            key_versions: keys.iter().map(|key| key_value(key, 1, &[])).collect(),
            next_page_token: next.map(str::to_owned),
            global_version: Some(0),
        };
        bytes(200, "", &answer.encode_to_vec())
    };
    let list = |answer: &[u8], token| answered(answer, |remote| remote.list("v.", token)).0;
    let first = list(&page(&["v.1", "vx1"], Some("t")), None).unwrap();
    assert_eq!(first, Listed { keys: vec![("v.1".to_owned(), 1)], next: Some("t".to_owned()) });
    assert_eq!(list(&page(&[], Some("")), Some("t")).unwrap(), Listed::default());
    let again = list(&page(&["v.1"], Some("t")), Some("t"));
    assert_eq!(again.unwrap_err().kind(), Kind::Unavailable);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/vss", listener.local_addr().unwrap());
    let silent =
        VssRemote::builder(url.as_str(), "s").timeout(Duration::from_millis(50)).build().unwrap();
    let told = silent.get("k").unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable);
    assert!(told.to_string().contains("0.05 seconds"), "{told}");
    drop(listener);
    let told = silent.get("k").unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable);
    assert!(told.to_string().contains("refused"), "{told}");
}

#[test]
fn plain_http_stays_on_this_machine_unless_it_is_allowed() {
    for url in ["http://127.0.0.1:1/vss", "http://[::1]:1/vss", "http://localhost/vss"] {
        assert!(remote(url).is_ok(), "{url}");
    }
    assert!(remote("https://vss.example/vss").is_ok());
    for url in [
        "http://192.0.2.1/vss",
        "http://vss.example/vss",
        "http://localhost.example/vss",
        "http://127.0.0.1.example/vss",
        "http://[2001:db8::1]/vss",
    ] {
        let told = remote(url).err().unwrap();
        assert_eq!(told.kind(), Kind::Input, "{url}");
        assert!(told.hint().unwrap().contains("https"), "{url}");
        assert!(VssRemote::builder(url, "s").allow_http(true).build().is_ok(), "{url}");
    }
    for url in ["", "vss.example", "ftp://127.0.0.1/vss", "https://h/vss?x=1", "https://h/vss#x"] {
        assert_eq!(remote(url).err().unwrap().kind(), Kind::Input, "{url}");
    }
    let told = remote("https://name:hunter2@vss.example/vss").err().unwrap();
    assert!(told.kind() == Kind::Input && !told.to_string().contains("hunter2"), "{told}");
}

#[test]
fn what_can_not_be_used_is_said_before_anything_is_sent() {
    let with = |auth| VssRemote::builder("https://vss.example/vss", "s").auth(auth).build();
    let told = with(VssAuth::Bearer("two\nlines".to_owned())).err().unwrap();
    assert!(told.kind() == Kind::Input && !told.to_string().contains("two"), "{told}");
    assert_eq!(
        with(VssAuth::Signature(Zeroizing::new([0; 32]))).err().unwrap().kind(),
        Kind::Input
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let secure = || VssRemote::builder("https://vss.example/vss", "s").ca_file(&file).build();
    assert_eq!(secure().err().unwrap().kind(), Kind::NotFound);
    for none in ["", "no certificate"] {
        fs::write(&file, none).unwrap();
        assert_eq!(secure().err().unwrap().kind(), Kind::Input, "{none:?}");
    }
    let plain = VssRemote::builder("http://127.0.0.1/vss", "s").ca_file(&file).build();
    assert_eq!(plain.err().unwrap().kind(), Kind::Input);
}

/// A clock that is set.
struct At(Arc<std::sync::atomic::AtomicI64>);

impl Clock for At {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn pause(&self, _: Duration) {}
}

#[test]
fn a_signature_is_that_of_the_key_and_made_once_a_second() {
    let now = Arc::new(std::sync::atomic::AtomicI64::new(1_800_000_000_000_000_000));
    let env = Env::system().with_clock(At(Arc::clone(&now)));
    let auth = VssAuth::Signature(Zeroizing::new([7; 32]));
    assert_eq!(format!("{auth:?}"), "Signature(…)");
    let signer = Signer::new(auth, env).unwrap();
    let header = signer.header().unwrap().unwrap();
    assert!(header.is_sensitive());
    let text = header.to_str().unwrap().to_owned();
    let (point, rest) = text.split_at(66);
    let (signature, time) = rest.split_at(128);
    assert_eq!(time, "1800000000");
    let point = hex::decode(point).unwrap();
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(format!("{:.<64}", "VSS Signature Authorizer Signing Salt Constant").as_bytes());
    hash.update(&point);
    hash.update(time.as_bytes());
    let signature = Signature::from_slice(&hex::decode(signature).unwrap()).unwrap();
    let key = VerifyingKey::from_sec1_bytes(&point).unwrap();
    key.verify_prehash(hash.finish().as_ref(), &signature).unwrap();
    now.fetch_add(999_999_999, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(signer.header().unwrap().unwrap(), text);
    now.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    assert!(signer.header().unwrap().unwrap().to_str().unwrap().ends_with("1800000001"));
}

#[test]
fn it_works_and_ends_inside_a_runtime_of_somebody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let missing = error(ErrorCode::NoSuchKeyException);
        let (told, _) = answered(&bytes(404, "", &missing), |remote| remote.get("k"));
        assert_eq!(told.unwrap(), None);
    });
}

/// A server that answers each request for a key `N-…` with a value of N bytes.
fn serving(ask: impl FnOnce(&VssRemote)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/vss", listener.local_addr().unwrap());
    let over = std::sync::atomic::AtomicBool::new(false);
    let answer = |mut stream: TcpStream| {
        // Who has seen enough hangs up.
        let Some((_, body)) = try_read(&stream) else { return };
        let key = GetObjectRequest::decode(body.as_slice()).unwrap().key;
        let length: usize = key.split('-').next().unwrap().parse().unwrap();
        let value = Some(key_value(&key, 1, &vec![7; length]));
        let body = GetObjectResponse { value }.encode_to_vec();
        let _ = stream.write_all(&bytes(200, "connection: close\r\n", &body));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                if over.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                scope.spawn(|| answer(stream.unwrap()));
            }
        });
        ask(&remote(&url).unwrap());
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn values_are_given_together_as_long_as_memory_holds_them() {
    let keys = |lengths: &[usize]| -> Vec<String> {
        lengths.iter().enumerate().map(|(at, length)| format!("{length}-{at}")).collect()
    };
    serving(|remote| {
        let lengths = |asked: &[usize]| -> Vec<usize> {
            let found = remote.get_all(&keys(asked)).unwrap();
            found.into_iter().map(|found| found.unwrap().1.len()).collect()
        };
        assert_eq!(lengths(&[10, 20, 30]), [10, 20, 30]);
        let large = 3 << 20;
        assert_eq!(lengths(&[10, large, 20]), [10], "a large one is not taken beside others");
        assert_eq!(lengths(&[large, 10, large]), [large], "but alone");
        let many = lengths(&[1 << 20; 100]);
        assert_eq!(many.len(), VALUES_BYTES_MAX >> 20, "and many are not taken at once");
    });
}
