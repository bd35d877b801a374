//! Junk on both interfaces: nothing panics, nothing grows, the server goes on. `HIGHWATER_JUNK` names how
//! many requests of each sort are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_server::{Limits, v1};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::world::{Serving, World};

/// What a seed decides.
struct Dice(fastrand::Rng);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.0.u8(..)).collect()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A document of any shape.
    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.0.i64(..)),
            3 => json!(f64::from_bits(self.0.u64(..))),
            4 => json!(String::from_utf8_lossy(&self.bytes(40))),
            5 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let names = ["operation", "node", "channel", "reason", "limit", "x"];
                let fields = (0..self.below(4))
                    .map(|_| (self.pick(&names).to_owned(), self.value(depth - 1)));
                Value::Object(fields.collect())
            }
        }
    }

    /// What looks like a call.
    fn call(&mut self) -> String {
        let methods = [
            "get_operation",
            "cancel_operation",
            "list_operations",
            "list_snapshots",
            "get_status",
            "list_channels",
            "release",
            "flush_replica",
            "",
            "rpc.x",
        ];
        let mut call =
            json!({ "jsonrpc": "2.0", "id": self.value(0), "method": self.pick(&methods) });
        call["params"] = self.value(3);
        if self.below(4) == 0 {
            call = (0..self.below(5)).map(|_| call.clone()).collect();
        }
        let mut text = call.to_string().into_bytes();
        if self.below(3) == 0 && !text.is_empty() {
            let at = self.below(text.len());
            text[at] = self.0.u8(..);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Fields as protobuf writes them, with any numbers, types and lengths.
    fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        for _ in 0..self.below(6) {
            let tag = self.below(16) << 3 | self.below(8);
            message.push(u8::try_from(tag).unwrap());
            let content = self.bytes(24);
            if self.below(2) == 0 {
                message.push(u8::try_from(content.len() + self.below(3)).unwrap());
            }
            message.extend(content);
        }
        message
    }
}

/// The most memory that this process has used, and uses now, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A codec that sends bytes as they are.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl tonic::codec::Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl tonic::codec::Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        into: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(into, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Bytes {
    type Item = ();
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<()>, tonic::Status> {
        bytes::Buf::advance(from, bytes::Buf::remaining(from));
        Ok(Some(()))
    }
}

const METHODS: [&str; 11] = [
    "/highwater.v1.Backups/GetOperation",
    "/highwater.v1.Backups/ListOperations",
    "/highwater.v1.Backups/CancelOperation",
    "/highwater.v1.Backups/WatchOperation",
    "/highwater.v1.Backups/ListSnapshots",
    "/highwater.v1.Backups/GetSnapshot",
    "/highwater.v1.Backups/GetStatus",
    "/highwater.v1.Guard/ListChannels",
    "/highwater.v1.Guard/Release",
    "/highwater.v1.Backups/Nothing",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

async fn junk_by_grpc(serving: &Serving, dice: &mut Dice, count: usize) {
    let mut client = tonic::client::Grpc::new(serving.channel().await);
    for _ in 0..count {
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(dice.pick(&METHODS));
        let message = if dice.below(2) == 0 { dice.message() } else { dice.bytes(200) };
        let answer = client.unary(tonic::Request::new(message), path, Bytes).await;
        if let Err(status) = answer {
            assert_ne!(status.code(), tonic::Code::Unknown, "{status}");
            assert!(!status.message().contains("panic"), "{status}");
        }
    }
}

async fn junk_by_http(serving: &Serving, dice: &mut Dice, count: usize) {
    let paths = ["/rpc", "/readyz", "/", "/nodes/x", "/operations/x", "/metrics", "/login", "/%00"];
    for round in 0..count {
        match round % 3 {
            0 => {
                let call = dice.call();
                let answer = serving.post(&call, "").await;
                assert!(matches!(answer.code, 200 | 400), "{call}: {answer:?}");
                assert!(!answer.body.contains("panic"), "{answer:?}");
            }
            1 => {
                // It may wait for more: the end of what is sent is the end of the connection.
                let _ = cut(serving, dice.bytes(400)).await;
            }
            _ => {
                let (path, body) = (dice.pick(&paths), dice.bytes(300));
                let mut request = format!(
                    "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                     content-length: {}\r\n\r\n",
                    body.len()
                )
                .into_bytes();
                request.extend(body);
                let answer = serving.raw(request).await;
                assert!((400..500).contains(&answer.code), "{path}: {answer:?}");
            }
        }
    }
}

/// Sends bytes, and says that no more will come.
async fn cut(serving: &Serving, bytes: Vec<u8>) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let address = serving.address();
    let work = move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let mut answer = Vec::new();
        if stream
            .write_all(&bytes)
            .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
            .is_ok()
        {
            let _ = stream.read_to_end(&mut answer);
        }
        answer
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_neither_panics_nor_grows_nor_stops_a_server() {
    let count: usize =
        std::env::var("HIGHWATER_JUNK").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let panics = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&panics);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        seen.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let world = World::new();
    let mut limits = Limits::default();
    limits.requests_per_second = u32::MAX;
    let serving = Serving::of(world.server().limits(limits)).await;
    let mut dice = Dice(fastrand::Rng::with_seed(20_261_121));
    // What is allocated once is allocated now.
    junk_by_grpc(&serving, &mut dice, count / 5).await;
    junk_by_http(&serving, &mut dice, count / 5).await;
    let begin = resident();
    junk_by_grpc(&serving, &mut dice, count).await;
    junk_by_http(&serving, &mut dice, count).await;
    let grown = resident().saturating_sub(begin);
    assert!(grown < 32 << 10, "{grown} KiB more after {count} requests of each sort");
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    let agent = world.agents.find("node").unwrap();
    assert_eq!(block_in_place(|| agent.operations(10)).unwrap(), []);
    let mut backups = serving.backups().await;
    let status = backups.get_status(v1::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.nodes.len(), 1);
    serving.running.shutdown().await.unwrap();
}
