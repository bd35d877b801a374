//! Makes nodes of the shapes that people keep, for the table of stored bytes in `docs/performance.md`:
//! `cargo run --release --package highwater-bench --bin shapes -- DIR MB`, each shape of about so many megabytes
//! (300 where none are given). The same megabytes make the same content.
//!
//! What a node signs, hashes or draws is random here, as it is there: that part of a value shrinks for no tool.

use std::path::Path;

use fastrand::Rng;
use highwater_bench::Outcome;
use rusqlite::{Connection, params};
use rust_rocksdb::{DB, DBCompressionType, Options, WriteBatch};

/// Payment channels as `fiber-types` writes them; see the tests of `highwater-nodes`.
const CHANNELS: &str = include_str!("../../../highwater-nodes/src/fiber/fixtures.txt");
/// So many rows are written at once.
const ROWS_AT_ONCE: u64 = 1000;

fn main() -> Outcome<()> {
    let dir = std::env::args().nth(1).ok_or("give a directory")?;
    let bytes = highwater_bench::number(2, 300)? * 1_000_000;
    let dir = Path::new(&dir);
    for (name, make) in SHAPES {
        let dir = dir.join(name);
        if dir.exists() {
            continue;
        }
        let making = dir.with_extension("making");
        if making.exists() {
            std::fs::remove_dir_all(&making)?;
        }
        std::fs::create_dir_all(&making)?;
        make(&making, bytes)?;
        std::fs::rename(making, dir)?;
    }
    Ok(())
}

type Make = fn(&Path, u64) -> Outcome<()>;

const SHAPES: [(&str, Make); 4] = [
    ("channels", channels),
    ("transactions", transactions),
    ("accounts", accounts),
    ("settings", settings),
];

/// RocksDB with LZ4: the channels of a Fiber node, each updated many times, and the index of them.
fn channels(dir: &Path, bytes: u64) -> Outcome<()> {
    let mut random = Rng::with_seed(1);
    let mut templates = Vec::new();
    for line in CHANNELS.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let (Some(value), Some(index)) = (words.get(8), words.get(9)) else {
            return Err("a channel without its values".into());
        };
        templates.push((hex::decode(value)?, hex::decode(index)?));
    }
    let mut written = 0;
    let store = rocksdb(dir, DBCompressionType::Lz4)?;
    while written < bytes {
        let mut batch = WriteBatch::default();
        for _ in 0..ROWS_AT_ONCE {
            let (value, index) = &templates[random.usize(..templates.len())];
            let mut value = value.clone();
            refresh(&mut random, &mut value);
            let id = drawn(&mut random, 32);
            batch.put([&[0], &id[..]].concat(), &value);
            batch.put([&[64], &drawn(&mut random, 33)[..], &id].concat(), index);
            written += (value.len() + index.len() + 99) as u64;
        }
        store.write(&batch)?;
    }
    close(store)
}

/// Puts fresh keys, hashes and signatures where a value has some, in bytes or as hexadecimal digits: stretches of many
/// different bytes, and those of one byte over and over, which stand for them in examples.
fn refresh(random: &mut Rng, value: &mut [u8]) {
    const STRETCH: usize = 32;
    let mut at = 0;
    while at + STRETCH <= value.len() {
        let stretch = &mut value[at..at + STRETCH];
        let mut seen = [false; 256];
        stretch.iter().for_each(|&byte| seen[usize::from(byte)] = true);
        let different = seen.iter().filter(|seen| **seen).count();
        let digits = stretch.iter().all(u8::is_ascii_hexdigit);
        if digits && different >= 10 {
            for digit in stretch {
                *digit = b"0123456789abcdef"[random.usize(..16)];
            }
        } else if different >= 24 || (different == 1 && !digits && stretch[0] != 0) {
            stretch.copy_from_slice(&drawn(random, STRETCH));
        } else {
            at += 1;
            continue;
        }
        at += STRETCH;
    }
}

/// RocksDB without compression: transactions with signatures, and outputs to addresses of which some are used often.
fn transactions(dir: &Path, bytes: u64) -> Outcome<()> {
    let mut random = Rng::with_seed(2);
    let often: Vec<Vec<u8>> = (0..5000).map(|_| drawn(&mut random, 20)).collect();
    let mut written = 0;
    let store = rocksdb(dir, DBCompressionType::None)?;
    while written < bytes {
        let mut batch = WriteBatch::default();
        for _ in 0..ROWS_AT_ONCE {
            let transaction = transaction(&mut random, &often);
            written += transaction.len() as u64 + 33;
            batch.put([b"t", &drawn(&mut random, 32)[..]].concat(), transaction);
        }
        store.write(&batch)?;
    }
    close(store)
}

/// A transaction of Bitcoin, with witnesses (BIP 144).
fn transaction(random: &mut Rng, often: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1];
    let inputs = 1 + skewed(random, 4);
    bytes.push(inputs as u8);
    for _ in 0..inputs {
        bytes.extend(drawn(random, 32));
        bytes.extend((skewed(random, 6) as u32).to_le_bytes());
        bytes.push(0);
        bytes.extend(0xffff_fffd_u32.to_le_bytes());
    }
    let outputs = 1 + skewed(random, 6);
    bytes.push(outputs as u8);
    for _ in 0..outputs {
        bytes.extend((skewed(random, 1 << 30) * 10).to_le_bytes());
        bytes.extend([22, 0, 20]);
        match random.u64(..3) {
            0 => bytes.extend(&often[skewed(random, often.len() as u64) as usize]),
            _ => bytes.extend(drawn(random, 20)),
        }
    }
    for _ in 0..inputs {
        // A signature in DER, with all signatures' sign of what it signs, and the key.
        bytes.extend([2, 71, 0x30, 68, 2, 32]);
        bytes.extend(drawn(random, 32));
        bytes.extend([2, 32]);
        bytes.extend(drawn(random, 32));
        bytes.extend([1, 33, 2]);
        bytes.extend(drawn(random, 32));
    }
    bytes.extend([0; 4]);
    bytes
}

const FIRST: [&str; 16] = [
    "Ada", "Ben", "Carla", "David", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Keiko",
    "Lena", "Mateo", "Nadia", "Oscar", "Priya",
];
const LAST: [&str; 16] = [
    "Abe", "Bauer", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad", "Ivanova",
    "Jensen", "Kowalski", "Lopez", "Meyer", "Novak", "Okafor", "Patel",
];
const MEMOS: [&str; 8] = [
    "invoice",
    "refund",
    "salary",
    "rent",
    "transfer between own accounts",
    "subscription",
    "fee",
    "donation",
];

/// SQLite: accounts with preferences as JSON, and what was booked on them, with indexes.
fn accounts(dir: &Path, bytes: u64) -> Outcome<()> {
    const BYTES_PER_ENTRY: u64 = 175;
    const ENTRIES_PER_ACCOUNT: u64 = 40;
    let mut random = Rng::with_seed(3);
    let mut database = Connection::open(dir.join("accounts.sqlite"))?;
    database.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF;
         CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE, created INTEGER,
                                balance INTEGER, status TEXT, preferences TEXT);
         CREATE TABLE entries (id INTEGER PRIMARY KEY, account INTEGER REFERENCES accounts, amount INTEGER,
                               at INTEGER, reference TEXT, memo TEXT);
         CREATE INDEX entries_by_account ON entries (account, at);
         CREATE INDEX entries_by_reference ON entries (reference);",
    )?;
    let entries = bytes / BYTES_PER_ENTRY;
    let accounts = entries / ENTRIES_PER_ACCOUNT;
    let all = database.transaction()?;
    let mut insert = all.prepare("INSERT INTO accounts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for id in 0..accounts {
        let (first, last) = (one(&mut random, &FIRST), one(&mut random, &LAST));
        let email = format!("{}.{}{id}@example.com", first.to_lowercase(), last.to_lowercase());
        let preferences = format!(
            r#"{{"language":"{}","newsletter":{},"theme":"{}","limits":{{"daily":{},"single":{}}}}}"#,
            one(&mut random, &["en", "de", "fr", "es"]),
            random.u64(..2) == 0,
            one(&mut random, &["light", "dark"]),
            random.u64(..50) * 100,
            random.u64(..20) * 50,
        );
        let status = one(&mut random, &["active", "active", "active", "closed"]);
        let created = (1_700_000_000 + id * 61 + random.u64(..60)) as i64;
        let balance = skewed(&mut random, 1 << 32) as i64;
        let name = format!("{first} {last}");
        insert.execute(params![id as i64, name, email, created, balance, status, preferences])?;
    }
    drop(insert);
    let mut insert = all.prepare("INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for id in 0..entries {
        let amount = skewed(&mut random, 1 << 24) as i64 - (1 << 22);
        let at = (1_750_000_000 + id * 3 + random.u64(..3)) as i64;
        let account = random.u64(..accounts.max(1)) as i64;
        let reference = hex::encode(drawn(&mut random, 16));
        let memo = format!("{} {}", one(&mut random, &MEMOS), random.u64(..10_000));
        insert.execute(params![id as i64, account, amount, at, reference, memo])?;
    }
    drop(insert);
    Ok(all.commit()?)
}

/// Small files: what is configured, in JSON.
fn settings(dir: &Path, bytes: u64) -> Outcome<()> {
    const FILES_PER_DIRECTORY: u64 = 500;
    const PEERS_MAX: u64 = 24;
    let mut random = Rng::with_seed(4);
    // Every file takes a block of the file system: so many bytes are made of small ones as others are of large ones.
    let (mut written, mut number) = (0, 0_u64);
    while written < bytes / 10 {
        let folder = dir.join(format!("node-{:04}", number / FILES_PER_DIRECTORY));
        std::fs::create_dir_all(&folder)?;
        let peers: Vec<String> = (0..random.u64(..PEERS_MAX))
            .map(|_| {
                format!(
                    r#"    {{ "key": "02{}", "address": "10.{}.{}.{}:9735", "trusted": {} }}"#,
                    hex::encode(drawn(&mut random, 32)),
                    random.u64(..256),
                    random.u64(..256),
                    random.u64(..256),
                    random.u64(..4) == 0,
                )
            })
            .collect();
        let text = format!(
            "{{\n  \"name\": \"node-{number}\",\n  \"network\": \"{}\",\n  \"log_level\": \"{}\",\n  \"fee_base_msat\": \
             {},\n  \"fee_proportional_millionths\": {},\n  \"cltv_expiry_delta\": 144,\n  \"peers\": [\n{}\n  ]\n}}\n",
            one(&mut random, &["mainnet", "testnet", "signet"]),
            one(&mut random, &["info", "debug", "warn"]),
            random.u64(..5) * 250,
            random.u64(..100) * 10,
            peers.join(",\n"),
        );
        std::fs::write(folder.join(format!("{number}.json")), &text)?;
        written += text.len() as u64;
        number += 1;
    }
    Ok(())
}

/// A number below `end`, mostly a small one: as often in each power of two.
fn skewed(random: &mut Rng, end: u64) -> u64 {
    let bits = random.u32(..=u64::BITS - end.leading_zeros());
    random.u64(..end.min(1 << bits.min(u64::BITS - 1)).max(1))
}

/// So many bytes that nobody can shrink.
fn drawn(random: &mut Rng, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    random.fill(&mut bytes);
    bytes
}

fn one<'a>(random: &mut Rng, of: &[&'a str]) -> &'a str {
    random.choice(of).copied().unwrap_or_default()
}

fn rocksdb(dir: &Path, compression: DBCompressionType) -> Outcome<DB> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(compression);
    options.set_keep_log_file_num(1);
    options.set_max_background_jobs(2);
    Ok(DB::open(&options, dir)?)
}

/// Compacted, as a store is that was not written a moment ago.
fn close(store: DB) -> Outcome<()> {
    store.flush()?;
    store.compact_range(None::<&[u8]>, None::<&[u8]>);
    store.flush_wal(true)?;
    Ok(())
}
