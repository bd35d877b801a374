//! A client of the versioned store that hides nothing: one connection, bytes and messages.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and stops at a fault"
)]

use std::io::{BufRead as _, BufReader, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use vss_api::types::{
    DeleteObjectRequest, ErrorResponse, GetObjectRequest, GetObjectResponse, KeyValue,
    ListKeyVersionsRequest, ListKeyVersionsResponse, PutObjectRequest,
};
use vss_prost::Message;

/// Nothing here takes so long; a test that waits for ever says nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The message of an answer that is good.
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        assert_eq!(self.status, 200, "{:?}", self.error());
        M::decode(self.body.as_slice()).unwrap()
    }

    /// Status, code and text of an error.
    pub(crate) fn error(&self) -> (u16, i32, String) {
        let error = ErrorResponse::decode(self.body.as_slice()).unwrap();
        (self.status, error.error_code, error.message)
    }
}

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    authorization: Option<String>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream), authorization: None })
    }

    pub(crate) fn authorized(mut self, value: &str) -> Client {
        self.authorization = Some(value.to_owned());
        self
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a request.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        more: &str,
        body: &[u8],
    ) -> Result<()> {
        let authorization = self.authorization.as_ref();
        let authorization =
            authorization.map(|value| format!("authorization: {value}\r\n")).unwrap_or_default();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: store\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n{authorization}{more}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.send(&request)
    }

    /// Reads the first line of an answer, and leaves the rest where it is.
    pub(crate) fn status(&mut self) -> Result<u16> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.split(' ').nth(1).unwrap_or_default().parse().unwrap())
    }

    /// Reads an answer whose length is told.
    pub(crate) fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).unwrap_or_default().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = vec![0; length];
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Result<Answer> {
        self.request("POST", path, "", body)?;
        self.answer()
    }

    pub(crate) fn fetch(&mut self, path: &str) -> Result<Answer> {
        self.request("GET", path, "", &[])?;
        self.answer()
    }

    pub(crate) fn call(&mut self, method: &str, message: &impl Message) -> Result<Answer> {
        self.post(&format!("/vss/{method}"), &message.encode_to_vec())
    }

    pub(crate) fn put(&mut self, request: &PutObjectRequest) -> Result<Answer> {
        self.call("putObjects", request)
    }

    /// A value and its version; none where the key is missing.
    pub(crate) fn get(&mut self, store: &str, key: &str) -> Result<Option<(i64, Bytes)>> {
        let request = GetObjectRequest { store_id: store.to_owned(), key: key.to_owned() };
        let answer = self.call("getObject", &request)?;
        if answer.status == 404 {
            return Ok(None);
        }
        let value = answer.message::<GetObjectResponse>().value.unwrap();
        Ok(Some((value.version, value.value)))
    }

    pub(crate) fn delete(&mut self, store: &str, key: &str, version: i64) -> Result<Answer> {
        let request = DeleteObjectRequest {
            store_id: store.to_owned(),
            key_value: Some(item(key, version, b"")),
        };
        self.call("deleteObject", &request)
    }

    /// All keys and versions, newest-created first.
    pub(crate) fn list(&mut self, store: &str, prefix: &str) -> Result<Vec<(String, i64)>> {
        let mut all = Vec::new();
        let mut token = None;
        loop {
            let request = ListKeyVersionsRequest {
                store_id: store.to_owned(),
                key_prefix: Some(prefix.to_owned()),
                page_size: None,
                page_token: token,
            };
            let page: ListKeyVersionsResponse = self.call("listKeyVersions", &request)?.message();
            all.extend(page.key_versions.into_iter().map(|item| (item.key, item.version)));
            token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(all);
            }
        }
    }
}

pub(crate) fn item(key: &str, version: i64, value: &[u8]) -> KeyValue {
    KeyValue { key: key.to_owned(), version, value: Bytes::copy_from_slice(value) }
}

/// A put of one item.
pub(crate) fn put(store: &str, key: &str, version: i64, value: &[u8]) -> PutObjectRequest {
    puts(store, vec![item(key, version, value)], vec![])
}

/// A put.
pub(crate) fn puts(store: &str, items: Vec<KeyValue>, deletes: Vec<KeyValue>) -> PutObjectRequest {
    PutObjectRequest {
        store_id: store.to_owned(),
        global_version: None,
        transaction_items: items,
        delete_items: deletes,
    }
}
