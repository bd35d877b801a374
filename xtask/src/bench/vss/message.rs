//! Requests and answers as bytes: the few messages of the protocol that are needed here.

use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use prost::Message as _;

/// Digits of a key's number.
const DIGITS: usize = 8;

/// What the puts of a load are.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Of one put.
    pub(super) items: usize,
    pub(super) value_bytes: usize,
    /// Keys of a client, which it writes in turn.
    pub(super) keys: u64,
    /// Whether each client has a store of its own, or all have one.
    pub(super) own_stores: bool,
    /// Tells this load's keys from those of another one.
    pub(super) name: &'static str,
}

/// A request whose keys and values change from one time to the next, and its length does not.
pub(super) struct Request {
    bytes: Vec<u8>,
    /// Where the numbers of keys stand, and where the values begin.
    keys: Vec<Range<usize>>,
    values: Vec<Range<usize>>,
    turn: u64,
    among: u64,
}

impl Request {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The next keys, with values that they did not have.
    pub(super) fn turn(&mut self) {
        self.turn += 1;
        let items = self.keys.len() as u64;
        for (item, (key, value)) in self.keys.iter().zip(&self.values).enumerate() {
            let number = (self.turn * items + item as u64) % self.among;
            let text = format!("{number:0DIGITS$}");
            self.bytes[key.clone()].copy_from_slice(text.as_bytes());
            let mark = self.turn.to_le_bytes();
            let length = value.len().min(mark.len());
            self.bytes[value.start..value.start + length].copy_from_slice(&mark[..length]);
        }
    }
}

/// A put of one client.
pub(super) fn put(shape: &Shape, client: usize) -> Request {
    let store = match shape.own_stores {
        true => format!("bench-{}-{client}", shape.name),
        false => "bench".to_owned(),
    };
    let mut body = Vec::new();
    field(&mut body, 1, store.as_bytes());
    // Bytes that can't be compressed, the same each time.
    let mut random = fastrand::Rng::with_seed(client as u64 + 1);
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for _ in 0..shape.items {
        let key = format!("{}/client-{client:03}/{:0DIGITS$}", shape.name, 0);
        let mut value = vec![0; shape.value_bytes];
        random.fill(&mut value);
        let mut item = Vec::new();
        field(&mut item, 1, key.as_bytes());
        let key_end = item.len();
        // Field 2, the version: −1, whatever is there.
        item.push(2 << 3);
        varint(&mut item, u64::MAX);
        field(&mut item, 3, &value);
        let item_end = item.len();
        field(&mut body, 3, &item);
        let begin = body.len() - item_end;
        keys.push(begin + key_end - DIGITS..begin + key_end);
        values.push(body.len() - value.len()..body.len());
    }
    let mut bytes = head("/vss/putObjects", body.len());
    let shift = bytes.len();
    bytes.append(&mut body);
    let moved = |ranges: Vec<Range<usize>>| {
        ranges.into_iter().map(|range| range.start + shift..range.end + shift).collect()
    };
    Request { bytes, keys: moved(keys), values: moved(values), turn: 0, among: shape.keys }
}

/// A page of a listing.
pub(super) fn list(store: &str, token: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    field(&mut body, 1, store.as_bytes());
    if let Some(token) = token {
        field(&mut body, 4, token.as_bytes());
    }
    let mut bytes = head("/vss/listKeyVersions", body.len());
    bytes.append(&mut body);
    bytes
}

/// A page of a listing: its keys are counted and not looked at.
#[derive(prost::Message)]
struct Page {
    #[prost(bytes = "vec", repeated, tag = "1")]
    keys: Vec<Vec<u8>>,
    #[prost(string, tag = "2")]
    next: String,
}

/// How many keys a page has, and where the next one begins.
pub(super) fn page(body: &[u8]) -> Result<(usize, Option<String>)> {
    let page = Page::decode(body)?;
    Ok((page.keys.len(), Some(page.next).filter(|next| !next.is_empty())))
}

fn head(path: &str, length: usize) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/octet-stream\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes()
}

fn field(bytes: &mut Vec<u8>, number: u8, value: &[u8]) {
    bytes.push(number << 3 | 2);
    varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// An answer, as it comes in.
#[derive(Default)]
pub(super) struct Answer {
    bytes: Vec<u8>,
    /// Where the body begins and ends, once the head is there.
    body: Option<Range<usize>>,
}

impl Answer {
    /// Takes in what has come; whether that is all of it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<bool> {
        self.bytes.extend_from_slice(bytes);
        if self.body.is_none()
            && let Some(place) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&self.bytes[..place])?;
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .context("an answer without a length")?;
            let length: usize = length.1.trim().parse()?;
            self.body = Some(place + 4..place + 4 + length);
        }
        Ok(self.body.as_ref().is_some_and(|body| self.bytes.len() >= body.end))
    }

    /// Its body; it is ready for the next answer then.
    pub(super) fn finish(&mut self) -> Result<Vec<u8>> {
        let body = self.body.take().context("an answer without a head")?;
        let ok = self.bytes.get(9..12) == Some(b"200");
        if !ok {
            bail!("the server answers {}", String::from_utf8_lossy(&self.bytes));
        }
        let text = self.bytes.get(body).unwrap_or_default().to_vec();
        self.bytes.clear();
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { items: 3, value_bytes: 16, keys: 5, own_stores: true, name: "test" };

    #[test]
    fn a_put_goes_through_its_keys_in_turn() {
        let mut request = put(&SHAPE, 7);
        let length = request.bytes().len();
        let mut values = Vec::new();
        for expected in [[3, 4, 0], [1, 2, 3], [4, 0, 1]] {
            request.turn();
            let text = String::from_utf8_lossy(request.bytes()).into_owned();
            for number in expected {
                assert!(text.contains(&format!("test/client-007/{number:08}")), "{number}");
            }
            values.push(request.bytes()[request.values[0].clone()].to_vec());
        }
        assert_eq!(request.bytes().len(), length);
        assert!(values[0] != values[1] && values[1] != values[2]);
        let head = String::from_utf8_lossy(&request.bytes()[..120]).into_owned();
        let body = request.bytes().windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        assert!(head.contains(&format!("content-length: {}\r\n", length - body)), "{head}");
    }

    #[test]
    fn an_answer_in_pieces_is_whole_at_its_end_alone() {
        let mut answer = Answer::default();
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for byte in &text[..text.len() - 1] {
            assert!(!answer.take(&[*byte]).unwrap());
        }
        assert!(answer.take(b"c").unwrap());
        assert_eq!(answer.finish().unwrap(), b"abc");
        assert!(answer.take(b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n").unwrap());
        assert!(answer.finish().unwrap_err().to_string().contains("409"));
    }

    #[test]
    fn a_page_tells_its_keys_and_the_next_one() {
        let mut body = Vec::new();
        field(&mut body, 1, b"\x0a\x01a\x10\x01");
        field(&mut body, 1, b"\x0a\x01b\x10\x01");
        field(&mut body, 2, b"17");
        body.extend_from_slice(&[3 << 3, 0]);
        assert_eq!(page(&body).unwrap(), (2, Some("17".to_owned())));
        let mut last = Vec::new();
        field(&mut last, 2, b"");
        assert_eq!(page(&last).unwrap(), (0, None));
        assert!(page(&body[..3]).is_err());
    }
}
