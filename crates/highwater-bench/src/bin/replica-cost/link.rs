//! A link that takes its time: whatever goes in comes out so much later, in order, at any rate.

use std::net::SocketAddr;
use std::time::Duration;

use highwater_bench::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes that are read at once, and such pieces that are on their way.
const PIECE: usize = 64 << 10;
const PIECES: usize = 1024;

pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Link {
    /// A link to a server.
    pub(crate) fn to(server: SocketAddr, delay: Duration) -> Outcome<Link> {
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // A connection that fails ends, on both sides.
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let ((from, to), (back, there)) = (client.into_split(), server.into_split());
                    tokio::spawn(carry(from, there, delay));
                    carry(back, to, delay).await;
                });
            }
        });
        Ok(Link { address, _runtime: runtime })
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    tokio::spawn(async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        match from.read_buf(&mut piece).await {
            Ok(read) if read > 0 => {
                if sender.send((Instant::now() + delay, piece)).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}
