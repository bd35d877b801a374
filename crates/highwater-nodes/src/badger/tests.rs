//! The reader against directories that Badger 4.5.1 wrote, and against what can become of them.
//!
//! The directories in `fixtures` are made by `make-badger.go`. In each, `EXPECTED` is what Badger itself
//! answers; in one, `CUTS` and `FLIPS` are its answers after its log was cut or a bit of it was flipped.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::manifest::{self, Codec, Table};
use super::{Captured, Error, Files, HEIGHT_KEY, Reading, height, newest, table};

/// Files in memory.
#[derive(Clone, Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Files for Memory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.0.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect())
    }

    fn read_at(&self, file: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let content = self.0.get(file).ok_or(io::ErrorKind::NotFound)?;
        let part = content.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Memory {
    fn load(folder: &Path) -> Memory {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, fs::read(entry.path()).unwrap());
        }
        Memory(files)
    }

    fn fixture(name: &str) -> Memory {
        Memory::load(&folder().join(name))
    }

    fn text(&self, name: &str) -> &str {
        std::str::from_utf8(&self.0[name]).unwrap().trim()
    }

    /// What Badger answers.
    fn expected(&self) -> Option<u64> {
        heights(self.text("EXPECTED"))
    }

    /// The same files with one of them changed.
    fn with(&self, name: &str, content: Vec<u8>) -> Memory {
        let mut changed = self.clone();
        changed.0.insert(name.to_owned(), content);
        changed
    }

    fn tables(&self) -> Vec<Table> {
        manifest::tables(&Captured::list(self).unwrap()).unwrap().0
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/badger/fixtures")
}

fn fixtures() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn heights(answer: &str) -> Option<u64> {
    answer.strip_prefix("height ").map(|height| height.parse().unwrap())
}

/// Whether a file is one that the reader looks into.
fn is_read(name: &str) -> bool {
    name == "MANIFEST" || name == "KEYREGISTRY" || name.ends_with(".mem") || name.ends_with(".sst")
}

#[test]
fn the_height_is_what_badger_says() {
    for name in fixtures() {
        let files = Memory::fixture(&name);
        match (name.split('-').next().unwrap(), height(&files)) {
            ("pointer", answer) => assert!(matches!(answer, Err(Error::Pointer(_))), "{name}"),
            ("encrypted", answer) => assert!(matches!(answer, Err(Error::Encrypted(_))), "{name}"),
            (_, answer) => assert_eq!(answer.unwrap(), files.expected(), "{name}"),
        }
    }
}

#[test]
fn a_deleted_height_is_told_from_one_that_never_was() {
    let deleted = |name| newest(&Memory::fixture(name), HEIGHT_KEY).unwrap().newest.unwrap();
    assert_eq!(deleted("deleted-mem").value, None);
    assert_eq!(deleted("deleted-table").value, None);
    let never = newest(&Memory::fixture("empty"), HEIGHT_KEY).unwrap();
    assert_eq!(never, Reading { newest: None, torn: false });
}

#[test]
fn every_key_of_every_table_is_found() {
    for name in ["levels-none", "levels-snappy", "levels-zstd", "codecs"] {
        let files = Memory::fixture(name);
        for block in 1..=files.expected().unwrap() {
            for kind in ["h", "d", "c", "s"] {
                let key = format!("/0/{kind}/{block}");
                let found = newest(&files, key.as_bytes()).unwrap().newest;
                assert!(found.unwrap().value.is_some(), "{name} {key}");
            }
        }
        for key in ["/0/h/0", "/0/h/9999", "/0/", "/0/t/", "/0/u", "", "zzz"] {
            assert_eq!(newest(&files, key.as_bytes()).unwrap().newest, None, "{name} {key}");
        }
    }
}

#[test]
fn the_fixtures_have_what_they_are_for() {
    for (name, codec) in [
        ("levels-none", Codec::Plain),
        ("levels-snappy", Codec::Snappy),
        ("levels-zstd", Codec::Zstd),
    ] {
        let tables = Memory::fixture(name).tables();
        let levels: BTreeSet<u64> = tables.iter().map(|table| table.level).collect();
        assert!(levels.len() > 1, "{name} {levels:?}");
        assert!(tables.iter().all(|table| table.codec == codec), "{name}");
    }
    let codecs = Memory::fixture("codecs").tables().into_iter().map(|table| table.codec);
    assert_eq!(codecs.collect::<Vec<_>>(), [Codec::Zstd, Codec::Snappy, Codec::Plain]);
    let both = Memory::fixture("both");
    assert!(both.0.contains_key("00001.mem") && both.0.contains_key("000001.sst"));
    let mut older = both;
    older.0.remove("00001.mem");
    assert_eq!(height(&older).unwrap(), Some(8));
}

#[test]
fn a_spoilt_log_gives_what_badger_makes_of_it() {
    let files = Memory::fixture("mem");
    let log = &files.0["00001.mem"];
    let cut = |at: usize| log[..at].to_vec();
    let flipped = |at: usize| {
        let mut log = log.clone();
        log[at] ^= 1 << (at % 8);
        log
    };
    for list in ["CUTS", "FLIPS"] {
        for line in files.text(list).lines() {
            let (at, answer) = line.split_once(' ').unwrap();
            let at = at.parse().unwrap();
            let spoilt = if list == "CUTS" { cut(at) } else { flipped(at) };
            let read = height(&files.with("00001.mem", spoilt));
            match answer {
                "error" => assert!(!matches!(read, Ok(Some(_))), "{list} {line}"),
                answer => assert_eq!(read.unwrap(), heights(answer), "{list} {line}"),
            }
        }
    }
}

/// One database in three lives, whose log ends after each of its transactions, and within it.
#[test]
fn each_state_of_a_store_that_grows_is_read_as_badger_reads_it() {
    let lives = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ev-node");
    let mut last = 0;
    for (life, log) in [("1", "00001.mem"), ("2", "00002.mem"), ("3", "00003.mem")] {
        let files = Memory::load(&lives.join(life));
        for line in files.text("HEIGHTS").lines() {
            let (end, answer) = line.split_once(' ').unwrap();
            let torn = answer.strip_suffix(" torn");
            let mut content = files.0[log][..end.parse().unwrap()].to_vec();
            content.resize(content.len() + 100, 0);
            let read = newest(&files.with(log, content), HEIGHT_KEY).unwrap();
            let expected = heights(torn.unwrap_or(answer));
            let found = (read.height().unwrap(), read.torn);
            assert_eq!(found, (expected, torn.is_some()), "{life}: {line}");
            last = expected.unwrap_or(last);
        }
    }
    assert_eq!(last, 900);
}

#[test]
fn a_log_counts_up_to_its_last_whole_transaction() {
    let files = Memory::fixture("mem");
    let log = &files.0["00001.mem"];
    let (mut last, mut whole) = (None, 0);
    for at in 20..=log.len() {
        let read = newest(&files.with("00001.mem", log[..at].to_vec()), HEIGHT_KEY).unwrap();
        let at = read.height().unwrap();
        assert!(at >= last && at.unwrap_or(0) <= last.unwrap_or(0) + 1);
        whole += usize::from(!read.torn && at > last);
        last = at;
    }
    assert_eq!((last, whole), (Some(6), 6));
}

#[test]
fn a_torn_manifest_counts_up_to_its_last_whole_set() {
    let files = Memory::fixture("deleted-table");
    let manifest = &files.0["MANIFEST"];
    let read = |bytes: usize| {
        newest(&files.with("MANIFEST", manifest[..bytes].to_vec()), HEIGHT_KEY).unwrap()
    };
    let last = read(manifest.len() - 1);
    assert_eq!((last.height().unwrap(), last.torn), (Some(3), true));
    assert!(!read(manifest.len()).torn && !read(16).torn && !read(28).torn && read(27).torn);
}

#[test]
fn a_stale_end_is_told_and_zeros_are_not() {
    let files = Memory::fixture("mem");
    assert!(!newest(&files, HEIGHT_KEY).unwrap().torn);
    let mut log = files.0["00001.mem"].clone();
    log.resize(200_000, 0);
    let longer = newest(&files.with("00001.mem", log.clone()), HEIGHT_KEY).unwrap();
    assert_eq!(longer, newest(&files, HEIGHT_KEY).unwrap());
    let end = log.iter().rposition(|&byte| byte != 0).unwrap();
    log[end - 30] ^= 1;
    let torn = newest(&files.with("00001.mem", log), HEIGHT_KEY).unwrap();
    let version = |read: &Reading| read.newest.as_ref().map(|stored| stored.version);
    assert!(torn.torn && version(&torn) < version(&longer));
}

/// Whatever is cut or flipped: no panic, and no height that never was. A table that gives an answer at all
/// gives the right one.
#[test]
fn no_spoilt_file_gives_a_height_that_never_was() {
    for fixture in fixtures() {
        let files = Memory::fixture(&fixture);
        let right = height(&files).ok();
        let top = files.expected().unwrap_or(4);
        for (name, content) in files.0.iter().filter(|(name, _)| is_read(name)) {
            // The larger files are spoilt at every seventh byte.
            for at in (0..content.len()).step_by(if content.len() < 2000 { 1 } else { 7 }) {
                let cut = height(&files.with(name, content[..at].to_vec()));
                assert!(!name.ends_with(".sst") || cut.is_err(), "{fixture}/{name} cut at {at}");
                let mut answers = vec![cut];
                for bits in [1 << (at % 8), 0xff] {
                    let mut changed = content.clone();
                    changed[at] ^= bits;
                    let answer = height(&files.with(name, changed));
                    let same = answer.is_err() || answer.as_ref().ok() == right.as_ref();
                    assert!(
                        same || !name.ends_with(".sst"),
                        "{fixture}/{name} changed at {at}: {answer:?}"
                    );
                    answers.push(answer);
                }
                for answer in answers.into_iter().filter_map(Result::ok).flatten() {
                    assert!((1..=top).contains(&answer), "{fixture}/{name} at {at}: {answer}");
                }
            }
        }
    }
}

#[test]
fn only_live_tables_are_read_and_each_has_to_be_there() {
    let files = Memory::fixture("closed");
    let dead = files.with("000099.sst", b"not a table".to_vec());
    assert_eq!(height(&dead).unwrap(), Some(12));
    for (gone, fixture) in [("000001.sst", "closed"), ("MANIFEST", "mem")] {
        let mut files = Memory::fixture(fixture);
        files.0.remove(gone);
        assert!(matches!(height(&files), Err(Error::Missing(name)) if name == gone));
    }
}

#[test]
fn other_formats_are_refused() {
    let files = Memory::fixture("closed");
    let manifest = |at: usize, byte: u8| {
        let mut manifest = files.0["MANIFEST"].clone();
        manifest[at] = byte;
        height(&files.with("MANIFEST", manifest))
    };
    assert!(matches!(manifest(7, 7), Err(Error::Version(7))));
    assert!(matches!(manifest(7, 9), Err(Error::Version(9))));
    assert!(matches!(manifest(5, 1), Err(Error::Foreign(1))));
    assert!(matches!(manifest(0, b'b'), Err(Error::Damaged { .. })));
    let other = files.with("old.mem", Vec::new());
    assert!(matches!(height(&other), Err(Error::Unknown { .. })));
}

#[test]
fn a_height_has_eight_bytes() {
    // The header of the first block has another length.
    let files = Memory::fixture("mem");
    let log = &files.0["00001.mem"];
    let value = newest(&files, b"/0/d/1").unwrap().newest.unwrap().value.unwrap();
    assert_eq!(value.len(), 12);
    let entry = sealed_entry(b"/0/t", 900, 0, 0, &value);
    let log = [&log[..20], &entry].concat();
    assert!(matches!(height(&files.with("00001.mem", log)), Err(Error::Height(12))));
}

/// An entry of a log as Badger writes it, with a checksum that fits.
fn sealed_entry(key: &[u8], version: u64, meta: u8, expires: u64, value: &[u8]) -> Vec<u8> {
    let mut entry = vec![meta, 0];
    for number in [key.len() as u64 + 8, value.len() as u64, expires] {
        put_varint(&mut entry, number);
    }
    entry.extend_from_slice(key);
    entry.extend_from_slice(&(u64::MAX - version).to_be_bytes());
    entry.extend_from_slice(value);
    let sum = crc32c::crc32c(&entry);
    entry.extend_from_slice(&sum.to_be_bytes());
    entry
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A log of entries, alone in a database.
fn log(entries: &[Vec<u8>]) -> Memory {
    Memory::fixture("empty").with("00001.mem", [vec![0; 20], entries.concat()].concat())
}

#[test]
fn transactions_count_as_badger_counts_them() {
    const IN: u8 = 1 << 6;
    const END: u8 = 1 << 7;
    let put = |version: u64, meta| sealed_entry(b"/0/t", version, meta, 0, &version.to_le_bytes());
    let end =
        |version: u64, text: &str| sealed_entry(b"!badger!txn", version, END, 0, text.as_bytes());
    let read = |entries: &[Vec<u8>]| height(&log(entries)).unwrap();
    // Without its end it does not count; with another's end neither, nor what follows.
    assert_eq!(read(&[put(1, 0), put(2, IN)]), Some(1));
    assert_eq!(read(&[put(2, IN), end(2, "2")]), Some(2));
    assert_eq!(read(&[put(1, 0), put(2, IN), end(3, "3"), put(4, 0)]), Some(1));
    assert_eq!(read(&[put(1, 0), put(2, IN), end(2, "+2"), put(4, 0)]), Some(1));
    assert_eq!(read(&[put(1, 0), put(2, IN), put(3, IN), end(3, "3")]), Some(1));
    assert_eq!(read(&[put(1, 0), put(2, IN), put(3, 0), end(2, "2")]), Some(1));
    // Outside of transactions the highest version wins, wherever it stands.
    assert_eq!(read(&[put(9, 0), put(5, 0)]), Some(9));
    // Of one version the last one does.
    let again = sealed_entry(b"/0/t", 9, 0, 0, &7_u64.to_le_bytes());
    assert_eq!(read(&[put(9, 0), again]), Some(7));
}

#[test]
fn what_is_unfit_matters_only_if_it_is_the_newest() {
    let old = sealed_entry(b"/0/t", 1, 1 << 1, 0, &[0; 12]);
    let ends = sealed_entry(b"/0/t", 2, 0, 1_900_000_000, &[0; 8]);
    let long = sealed_entry(b"/0/t", 3, 0, 0, &vec![1; 70_000]);
    let good = sealed_entry(b"/0/t", 4, 0, 0, &4_u64.to_le_bytes());
    let read = |entries: &[&Vec<u8>]| {
        height(&log(&entries.iter().map(|entry| entry.to_vec()).collect::<Vec<_>>()))
    };
    assert!(matches!(read(&[&old]), Err(Error::Pointer(_))));
    assert!(matches!(read(&[&old, &ends]), Err(Error::Expires(_))));
    assert!(matches!(read(&[&old, &long]), Err(Error::TooLarge { bytes: 70_000, .. })));
    assert_eq!(read(&[&old, &ends, &long, &good]).unwrap(), Some(4));
}

/// The parts of a table: its blocks, and its index.
fn parts(file: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let before = |end: usize| {
        let number = u32::from_be_bytes(file[end - 4..end].try_into().unwrap()) as usize;
        (end - 4 - number, end - 4)
    };
    let (sum, _) = before(file.len());
    let (index, end) = before(sum);
    (file[..index].to_vec(), file[index..end].to_vec())
}

/// Bytes, with the checksum and its length behind them.
fn sealed(content: &[u8]) -> Vec<u8> {
    let mut sum = vec![0x10];
    put_varint(&mut sum, crc32c::crc32c(content).into());
    [&sum, &(sum.len() as u32).to_be_bytes()[..]].concat()
}

/// What a hostile hand writes has checksums that fit: then nothing is promised of the answer, but that
/// there is one.
#[test]
fn a_sealed_lie_is_survived() {
    let files = Memory::fixture("levels-none");
    let table = files.tables()[0].file();
    let (blocks, index) = parts(&files.0[&table]);
    let build = |blocks: &[u8], index: &[u8]| {
        let length = (index.len() as u32).to_be_bytes();
        [blocks, index, &length, &sealed(index)].concat()
    };
    assert_eq!(build(&blocks, &index), files.0[&table]);
    for at in 0..index.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff, index[at] ^ 4] {
            let mut changed = index.clone();
            changed[at] = byte;
            let _ = height(&files.with(&table, build(&blocks, &changed)));
        }
    }
    let log = &Memory::fixture("mem").0["00001.mem"];
    let manifest = &files.0["MANIFEST"];
    for at in 0..2000 {
        // The set of changes is sealed anew, as the only one.
        let mut set = manifest[16..].to_vec();
        let place = at % set.len();
        set[place] = (at * 37 % 256) as u8;
        let head = [(set.len() as u32).to_be_bytes(), crc32c::crc32c(&set).to_be_bytes()].concat();
        let _ = height(&files.with("MANIFEST", [&manifest[..8], &head, &set].concat()));
        let mut entry = log[20..20 + 60 + at % 60].to_vec();
        entry[at % 30] = (at * 41 % 256) as u8;
        let sum = crc32c::crc32c(&entry).to_be_bytes();
        let _ = height(&files.with("00009.mem", [&[0; 20], &entry[..], &sum].concat()));
    }
}

/// A block of entries: how much of the base each key has, the rest of its key, and its value.
fn block(entries: &[(u16, Vec<u8>, &[u8])]) -> Vec<u8> {
    let (mut block, mut begins) = (Vec::new(), Vec::new());
    for (shared, own, value) in entries {
        begins.extend_from_slice(&(block.len() as u32).to_le_bytes());
        block.extend_from_slice(&shared.to_le_bytes());
        block.extend_from_slice(&(own.len() as u16).to_le_bytes());
        block.extend_from_slice(own);
        // What is deleted or so, what the user notes, and when it ends.
        block.extend_from_slice(&[0, 0, 0]);
        block.extend_from_slice(value);
    }
    block.extend_from_slice(&begins);
    block.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    block
}

#[test]
fn a_sealed_lie_in_a_block_is_survived() {
    let at = |version: u64| (u64::MAX - version).to_be_bytes();
    let entries: [(u16, Vec<u8>, &[u8]); 4] = [
        (0, [b"/0/s/1", &at(3)[..]].concat(), b"state"),
        (3, [b"t", &at(9)[..]].concat(), &[9; 8]),
        (3, [b"t", &at(4)[..]].concat(), &[4; 8]),
        (3, [b"u", &at(9)[..]].concat(), b"other"),
    ];
    let body = block(&entries);
    let read = |body: &[u8]| {
        let block = [body, &sealed(body)].concat();
        table::Block::read("a", &block).and_then(|block| block.newest(HEIGHT_KEY))
    };
    let found = read(&body).unwrap().unwrap();
    assert_eq!((found.version, found.value), (9, vec![9; 8]));
    for at in 0..body.len() {
        let _ = read(&body[..at]);
        let _ = read(&body[at..]);
        for byte in 0..=0xff {
            let mut changed = body.clone();
            changed[at] = byte;
            let _ = read(&changed);
        }
    }
}

/// Files that are said to be as large as can be, all of one byte.
struct Endless(u8);

impl Files for Endless {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(["000001.sst", "00001.mem", "MANIFEST", "KEYREGISTRY"]
            .map(|name| (name.to_owned(), u64::MAX))
            .into())
    }

    fn read_at(&self, _: &str, _: u64, buf: &mut [u8]) -> io::Result<()> {
        assert!(buf.len() <= 64 << 20);
        buf.fill(self.0);
        Ok(())
    }
}

#[test]
fn nothing_is_allocated_for_a_size_that_is_only_claimed() {
    for byte in [0, 1, 0xff] {
        let files = Endless(byte);
        assert!(matches!(height(&files), Err(Error::TooLarge { .. })));
        let captured = Captured::list(&files).unwrap();
        let one = Table { id: 1, level: 0, codec: Codec::Snappy };
        assert!(table::newest(&captured, &one, HEIGHT_KEY).is_err());
        assert!(super::log::replay(&captured, "00001.mem", HEIGHT_KEY).is_err());
    }
}

#[test]
fn a_block_expands_to_no_more_than_its_bound() {
    let claims = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    let snappy = table::expand("a", &claims, Codec::Snappy);
    assert!(matches!(snappy, Err(Error::TooLarge { .. })));
    let zeros = zstd::encode_all(io::repeat(0).take(64 << 20), 3).unwrap();
    assert!(matches!(table::expand("a", &zeros, Codec::Zstd), Err(Error::TooLarge { .. })));
}
