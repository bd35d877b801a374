//! A proxy of HTTP/1.1 that loses requests and answers, delivers late, or is slow, as it is told; and that
//! counts what is under way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What becomes of a request. Where something is lost, the client's connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass,
    /// The server never sees it.
    LoseRequest,
    /// The server does it, and the client is not told.
    LoseAnswer,
    /// The client is cut off, and the server sees it so much later.
    Late(Duration),
}

type Fates = Box<dyn FnMut() -> Fate + Send>;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    to: SocketAddr,
    /// Before each answer.
    delay: Duration,
    fates: Mutex<Fates>,
    running: AtomicUsize,
    most: AtomicUsize,
}

/// One request that is under way.
struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Proxy {
    pub(crate) fn start(to: SocketAddr, delay: Duration) -> Proxy {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            delay,
            fates: Mutex::new(Box::new(|| Fate::Pass)),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                tokio::spawn(async move { shared.serve(client).await });
            }
        });
        Proxy { address, shared, _runtime: runtime }
    }

    /// What becomes of requests from now on.
    pub(crate) fn set_fates(&self, fates: impl FnMut() -> Fate + Send + 'static) {
        *self.shared.fates.lock().unwrap() = Box::new(fates);
    }

    /// The most requests that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn begin(&self) -> Counted<'_> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        Counted(self)
    }

    /// One connection; none is the end of it.
    async fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut server = TcpStream::connect(self.to).await.ok()?;
        client.set_nodelay(true).ok()?;
        server.set_nodelay(true).ok()?;
        loop {
            let request = message(&mut client).await?;
            let counted = self.begin();
            let fate = (self.fates.lock().unwrap())();
            match fate {
                Fate::LoseRequest => return None,
                Fate::Late(after) => {
                    drop(client);
                    tokio::time::sleep(after).await;
                    server.write_all(&request).await.ok()?;
                    return message(&mut server).await.map(drop);
                }
                Fate::Pass | Fate::LoseAnswer => {}
            }
            server.write_all(&request).await.ok()?;
            let answer = message(&mut server).await?;
            if fate == Fate::LoseAnswer {
                return None;
            }
            tokio::time::sleep(self.delay).await;
            drop(counted);
            client.write_all(&answer).await.ok()?;
        }
    }
}

/// A request or an answer: a head, and as much as it says; none where the connection ends.
async fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let whole = end + 4 + length.map_or(0, |length| length.trim().parse().unwrap());
        let have = bytes.len();
        bytes.resize(whole.max(have), 0);
        stream.read_exact(&mut bytes[have..]).await.ok()?;
        return Some(bytes);
    }
}
