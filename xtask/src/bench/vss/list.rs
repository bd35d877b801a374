//! A large store, listed from its first page to its last.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, bail};

use super::load::now;
use super::message::{self, Answer, Shape};
use super::server::{Postgres, Server, Which, World};

/// Keys of one put, and of one page.
const PUT_KEYS: u64 = 1000;
const PAGE_KEYS: u64 = 100;
/// The pages are told by tenths.
const PARTS: usize = 10;

/// A connection with one request at a time.
struct Connection {
    stream: TcpStream,
    answer: Answer,
}

impl Connection {
    fn open(server: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, answer: Answer::default() })
    }

    fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(request)?;
        let mut buffer = [0; 16 << 10];
        loop {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                bail!("the server closed a connection");
            }
            if self.answer.take(&buffer[..count])? {
                return self.answer.finish();
            }
        }
    }
}

/// Fills a store of each server, and walks it.
pub(super) fn run(servers: &[Which], keys: u64, world: &World<'_>) -> Result<String> {
    let mut text = format!(
        "A store of {keys} keys, listed by pages of {PAGE_KEYS}, one after the other; milliseconds a page.\n\n\
         | server | filled, keys/s | first tenth, p50 | p99 | last tenth, p50 | p99 | last to first | all pages, s |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    for &which in servers {
        super::super::eprint_line(&format!("{}, a listing", which.title()))?;
        let server = Server::start(which, world)?;
        let mut connection = Connection::open(server.address)?;
        let begin = now();
        fill(&mut connection, keys)?;
        let filled = (now() - begin) as f64 / 1e9;
        world.postgres.map_or(Ok(()), Postgres::settle)?;
        let pages = walk(&mut connection, keys)?;
        let part = pages.len().div_ceil(PARTS);
        let first = Part::of(pages.get(..part).unwrap_or_default());
        let last = Part::of(pages.get(pages.len() - part..).unwrap_or_default());
        writeln!(
            text,
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
            which.title(),
            keys as f64 / filled,
            first.p50,
            first.p99,
            last.p50,
            last.p99,
            last.p50 / first.p50,
            pages.iter().sum::<f64>() / 1e3,
        )?;
    }
    Ok(text)
}

fn fill(connection: &mut Connection, keys: u64) -> Result<()> {
    let shape = Shape {
        items: usize::try_from(PUT_KEYS)?,
        value_bytes: 16,
        keys,
        own_stores: false,
        name: "list",
    };
    let mut request = message::put(&shape, 0);
    for _ in 0..keys.div_ceil(PUT_KEYS) {
        request.turn();
        connection.ask(request.bytes())?;
    }
    Ok(())
}

/// Milliseconds of each page.
fn walk(connection: &mut Connection, keys: u64) -> Result<Vec<f64>> {
    let (mut found, mut token, mut pages) = (0, None, Vec::new());
    loop {
        let request = message::list("bench", token.as_deref());
        let begin = now();
        let body = connection.ask(&request)?;
        pages.push((now() - begin) as f64 / 1e6);
        let (count, next) = message::page(&body)?;
        found += count as u64;
        token = next;
        if token.is_none() {
            break;
        }
        if found > keys {
            bail!("the listing does not end");
        }
    }
    if found != keys {
        bail!("{found} keys were listed, {keys} are there");
    }
    Ok(pages)
}

struct Part {
    p50: f64,
    p99: f64,
}

impl Part {
    fn of(pages: &[f64]) -> Part {
        let mut pages = pages.to_vec();
        pages.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (pages.len() as f64 * share) as usize;
            pages.get(place.min(pages.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        Part { p50: at(0.5), p99: at(0.99) }
    }
}
