//! Settings that are refused, requests as they leave, answers that are lost, errors as they are told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use super::*;
use crate::env::Env;
use crate::vault::location::Location;
use crate::vault::store::Store;
use crate::vault::{CreateOptions, Secret, Vault};

fn location(url: &str, settings: &[(&str, &str)]) -> Location {
    let pairs = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings: BTreeMap<String, String> = pairs.collect();
    url.parse::<Location>().unwrap().with_settings(settings).unwrap()
}

fn open(location: &Location) -> Result<Store> {
    Store::open(location, &Env::system())
}

const PAIR: [(&str, &str); 2] = [("aws_access_key_id", "id"), ("aws_secret_access_key", "hunter2")];

#[test]
fn plain_http_goes_to_this_machine_alone_unless_it_is_allowed() {
    let with = |more: &[(&str, &str)]| open(&location("s3://b", &[&PAIR[..], more].concat()));
    for endpoint in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost", "https://x"]
    {
        with(&[("aws_endpoint_url", endpoint)]).unwrap();
    }
    for endpoint in
        ["http://10.0.0.1", "http://localhost.example", "http://127.0.0.1.example", "http://x:80"]
    {
        let error = with(&[("aws_endpoint_url", endpoint)]).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{endpoint}");
        assert!(error.hint().unwrap().contains("AWS_ALLOW_HTTP"));
        with(&[("aws_endpoint_url", endpoint), ("aws_allow_http", "true")]).unwrap();
        let no = [("aws_endpoint_url", endpoint), ("aws_allow_http", "false")];
        assert_eq!(with(&no).map(drop).unwrap_err().kind(), Kind::Input);
    }
    let google = [("google_base_url", "http://10.0.0.1"), ("google_skip_signature", "true")];
    assert_eq!(open(&location("gs://b", &google)).map(drop).unwrap_err().kind(), Kind::Input);
}

#[test]
fn wrong_settings_are_told_without_their_values() {
    let azure = [("azure_storage_account_name", "a"), ("azure_storage_account_key", "hunter2 %")];
    for wrong in [
        location("s3://b", &PAIR[1..]),
        location("s3://b", &[&PAIR[..], &[("aws_endpoint_url", "hunter2")]].concat()),
        location("s3://b", &[&PAIR[..], &[("aws_endpoint_url", "https://a:hunter2@b")]].concat()),
        location("s3://b", &[&PAIR[..], &[("aws_timeout", "hunter2")]].concat()),
        location("s3://b", &[&PAIR[..], &[("aws_allow_http", "hunter2")]].concat()),
        location("gs://b", &[("google_service_account_key", "hunter2")]),
        location("az://b", &azure),
        location("az://b", &[]),
    ] {
        let error = open(&wrong).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{error}");
        assert!(!format!("{error} {:?}", error.hint()).contains("hunter2"), "{error}");
    }
}

/// A request, as a server reads it.
#[derive(Debug)]
struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// The request that ends a server.
const END: &str = "END";

/// A status and a body.
type Answer = (u16, Vec<u8>);

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: BTreeMap<String, String> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line: lines[0].clone(), headers, body })
}

/// Answers requests, one a connection, while `work` is done with the server's address. A request for
/// which there is `None` gets no answer.
fn serve<T: Send>(
    answer: &(dyn Fn(&Request) -> Option<Answer> + Sync),
    work: impl FnOnce(&str) -> T + Send,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // A client that gives an upload up leaves in the middle.
                let Some(request) = read_request(&stream) else { continue };
                if request.line == END {
                    return;
                }
                let Some((status, body)) = answer(&request) else { continue };
                let head = format!(
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\
                     ETag: \"1\"\r\nLast-Modified: Sat, 21 Nov 2026 08:00:00 GMT\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.into_bytes(), body].concat());
            }
        });
        let done = work(&format!("http://{address}"));
        write!(TcpStream::connect(address).unwrap(), "{END}\r\n\r\n").unwrap();
        done
    })
}

#[test]
fn a_put_whose_answer_was_lost_is_known_again() {
    let stored: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let puts = Mutex::new(0);
    let answer = |request: &Request| {
        let mut stored = stored.lock().unwrap();
        if request.line.starts_with("GET") {
            return Some(stored.clone().map_or((404, Vec::new()), |bytes| (200, bytes)));
        }
        assert!(request.line.starts_with("PUT /b/a/keys/x "), "{}", request.line);
        assert_eq!(request.headers["if-none-match"], "*");
        *puts.lock().unwrap() += 1;
        if stored.is_some() {
            return Some((412, b"<Error><Code>PreconditionFailed</Code></Error>".to_vec()));
        }
        *stored = Some(request.body.clone());
        None
    };
    serve(&answer, |endpoint| {
        let settings = [&PAIR[..], &[("aws_endpoint_url", endpoint)]].concat();
        let store = open(&location("s3://b/a", &settings)).unwrap();
        assert!(store.put_new("keys/x", &b"sealed"[..]).unwrap());
        assert!(!store.put_new("keys/x", &b"other"[..]).unwrap());
    });
    assert_eq!(stored.into_inner().unwrap().unwrap(), b"sealed");
    assert!(puts.into_inner().unwrap() >= 2);
}

#[test]
fn a_put_that_was_refused_for_one_that_failed_is_tried_again() {
    let puts = Mutex::new(0);
    let answer = |request: &Request| {
        if request.line.starts_with("GET") {
            return Some((404, b"<Error><Code>NoSuchKey</Code></Error>".to_vec()));
        }
        let mut puts = puts.lock().unwrap();
        *puts += 1;
        let code = b"<Error><Code>ConditionalRequestConflict</Code></Error>".to_vec();
        Some(if *puts == 1 { (409, code) } else { (200, Vec::new()) })
    };
    serve(&answer, |endpoint| {
        let settings = [&PAIR[..], &[("aws_endpoint_url", endpoint)]].concat();
        let store = open(&location("s3://b", &settings)).unwrap();
        assert!(store.put_new("keys/x", &b"sealed"[..]).unwrap());
    });
    assert_eq!(puts.into_inner().unwrap(), 2);
}

/// A store of uploads alone: numbers and lengths of the parts that came, and how each upload ended.
#[derive(Default)]
struct Uploads {
    parts: Mutex<BTreeMap<usize, usize>>,
    ends: Mutex<Vec<&'static str>>,
    /// This part is refused.
    refused: Option<usize>,
}

impl Uploads {
    fn answer(&self, request: &Request) -> Option<Answer> {
        let ended = |how| self.ends.lock().unwrap().push(how);
        let line = &request.line;
        if line.starts_with("POST") && line.contains("?uploads") {
            let id = "<InitiateMultipartUploadResult><UploadId>u</UploadId>";
            return Some((200, format!("{id}</InitiateMultipartUploadResult>").into_bytes()));
        }
        if line.starts_with("POST") {
            ended("completed");
            let tag = "<CompleteMultipartUploadResult><ETag>1</ETag>";
            return Some((200, format!("{tag}</CompleteMultipartUploadResult>").into_bytes()));
        }
        if line.starts_with("DELETE") && line.contains("uploadId=u") {
            ended("aborted");
            return Some((204, Vec::new()));
        }
        let Some((_, rest)) = line.split_once("?partNumber=") else {
            return Some((404, Vec::new()));
        };
        let number = rest.split_once('&').unwrap().0.parse().unwrap();
        self.parts.lock().unwrap().insert(number, request.body.len());
        Some((if self.refused == Some(number) { 400 } else { 200 }, Vec::new()))
    }

    /// Writes an object of 20 MiB and a byte, in pieces that are no parts.
    fn write(
        &self,
        end: impl FnOnce(crate::vault::upload::Upload<'_>) -> Result<u64> + Send,
    ) -> Result<u64> {
        serve(&|request| self.answer(request), |endpoint| {
            let settings = [&PAIR[..], &[("aws_endpoint_url", endpoint)]].concat();
            let store = open(&location("s3://b", &settings))?;
            let mut upload = store.upload("packs/x")?;
            let mut written = Ok(());
            for piece in vec![7; (20 << 20) + 1].chunks(3 << 20) {
                written = written.and_then(|()| upload.write(piece));
            }
            match written {
                Ok(()) => end(upload),
                Err(error) => upload.abort().and(Err(error)),
            }
        })
    }
}

#[test]
fn the_parts_of_an_upload_have_one_length_but_for_the_last() {
    let uploads = Uploads::default();
    let size = uploads.write(|upload| upload.finish()?.wait()).unwrap();
    assert_eq!(size, (20 << 20) + 1);
    let parts = uploads.parts.into_inner().unwrap();
    assert_eq!(parts, [(1, 8 << 20), (2, 8 << 20), (3, (4 << 20) + 1)].into());
    assert_eq!(uploads.ends.into_inner().unwrap(), ["completed"]);
}

#[test]
fn an_upload_that_is_given_up_or_fails_is_aborted_at_the_store() {
    let given_up = Uploads::default();
    given_up.write(|upload| upload.abort().map(|()| 0)).unwrap();
    assert_eq!(given_up.ends.into_inner().unwrap(), ["aborted"]);
    for refused in 1..=3 {
        let failed = Uploads { refused: Some(refused), ..Uploads::default() };
        let error = failed.write(|upload| upload.finish()?.wait()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(failed.ends.into_inner().unwrap(), ["aborted"], "part {refused}");
    }
}

/// No emulator of Google's store can be had here: this is the request, and no more.
#[test]
fn a_create_only_put_of_google_asks_for_generation_zero() {
    let seen = Mutex::new(Vec::new());
    let answer = |request: &Request| {
        let condition = request.headers.get("x-goog-if-generation-match").cloned();
        let token = request.headers.get("authorization").cloned();
        seen.lock().unwrap().push((request.line.clone(), condition, token));
        Some((200, Vec::new()))
    };
    serve(&answer, |endpoint| {
        let settings = [("google_base_url", endpoint), ("google_bearer_token", "token")];
        let store = open(&location("gs://b/a", &settings)).unwrap();
        // The answer lacks what Google's have; the request was sent all the same.
        let _ = store.put_new("keys/x", &b"sealed"[..]);
    });
    let seen = seen.into_inner().unwrap();
    let (line, condition, token) = &seen[0];
    assert_eq!(line, "PUT /b/a%2Fkeys%2Fx HTTP/1.1");
    assert_eq!(condition.as_deref(), Some("0"));
    assert_eq!(token.as_deref(), Some("Bearer token"));
}

#[test]
fn what_a_server_answers_asks_something_of_the_operator() {
    for (status, code, kind, word) in [
        (404, "NoSuchBucket", Kind::NotFound, "no such bucket"),
        (403, "SignatureDoesNotMatch", Kind::Denied, "SignatureDoesNotMatch"),
        (401, "Unauthorized", Kind::Denied, "refuses the credentials"),
        (400, "ExpiredToken", Kind::Denied, "ExpiredToken"),
        (400, "AuthorizationHeaderMalformed", Kind::Input, "another region"),
        (400, "Whatever", Kind::Unavailable, "400 Whatever"),
    ] {
        let answer = |_: &Request| {
            let text = format!("<Error><Code>{code}</Code><Message>hunter2</Message></Error>");
            Some((status, text.into_bytes()))
        };
        let error = serve(&answer, |endpoint| {
            let settings = [&PAIR[..], &[("aws_endpoint_url", endpoint)]].concat();
            open(&location("s3://b", &settings)).unwrap().list(None).unwrap_err()
        });
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(word), "{error}");
        assert!(error.hint().is_some() && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let settings = [&PAIR[..], &[("aws_endpoint_url", &endpoint)]].concat();
    let location = location("s3://b", &settings);
    let secret = Secret::Key(zeroize::Zeroizing::new([1; 32]));
    let opened = Vault::open_with(&location, &secret, &Env::system()).map(drop).unwrap_err();
    assert_eq!(opened.kind(), Kind::Unavailable);
    assert!(opened.message().contains("refused") && opened.hint().is_some(), "{opened}");
    let options = CreateOptions::default();
    let made = Vault::create_with(&location, &secret, &options, &Env::system());
    assert_eq!(made.map(drop).unwrap_err().kind(), Kind::Unavailable);
}
