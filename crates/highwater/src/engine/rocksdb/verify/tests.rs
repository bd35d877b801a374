//! Tables and blob files of two releases of RocksDB, in many formats: sound ones pass, and any byte that
//! is flipped is found.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// Streams a file of a database of block-based tables through its watch, in pieces of `piece` bytes.
fn verify(path: &Path, piece: usize) -> std::result::Result<StreamedFile, VerifyFault> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut watch = match path.extension().unwrap().to_str() {
        Some("blob") => StreamedFile::Blob(Blob::open(&file, size)?),
        _ => {
            let version = Version::default();
            let verifier = Verifier::new(&version, Some("  table_factory=BlockBasedTable\n"));
            StreamedFile::Table(verifier.table(&file, 1, size)?)
        }
    };
    for bytes in fs::read(path)?.chunks(piece) {
        watch.pass(bytes)?;
    }
    watch.end()?;
    Ok(watch)
}

fn files(db: &Path, end: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(db).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
    found.sort();
    found
}

#[test]
fn the_options_tell_which_tables_there_are() {
    let block_based =
        |options: Option<&str>| Verifier::new(&Version::default(), options).block_based;
    let known = "[CFOptions \"default\"]\n  table_factory=BlockBasedTable\n";
    assert!(block_based(Some(known)));
    assert!(!block_based(Some(&format!("{known}  table_factory=PlainTable\n"))));
    assert!(!block_based(Some("")));
    assert!(!block_based(None));
}

/// Where a flipped byte is not found, because nothing reads it: padding of old footers.
fn is_padding(path: &Path, at: u64) -> bool {
    let size = path.metadata().unwrap().len();
    let bytes = fs::read(path).unwrap();
    let footer = &bytes[bytes.len() - 53..];
    let old = footer[1..5] != [0x3e, 0x00, 0x7a, 0x00];
    let in_footer = at >= size - 53;
    // An old footer has no checksum: its padding, its version and (of a legacy one) the byte before
    // it are read by nobody, or decide nothing.
    old && in_footer
}

/// Each of the sampled bytes is found where it is flipped.
fn every_flip_is_found(path: &Path, step: usize) {
    let sound = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut found = 0;
    for at in (0..sound.len()).step_by(step) {
        if is_padding(path, at as u64) {
            continue;
        }
        file.write_all_at(&[sound[at] ^ (1 << (at % 8))], at as u64).unwrap();
        let result = verify(path, 1000);
        let damaged = matches!(result, Err(VerifyFault::Damaged(_)));
        assert!(damaged, "byte {at} of {} in {}", sound.len(), path.display());
        file.write_all_at(&sound[at..=at], at as u64).unwrap();
        found += 1;
    }
    assert!(found > 50, "{found} bytes were tried");
    for length in [0, 10, 47, 52, 53, sound.len() / 2, sound.len() - 1] {
        fs::write(path, &sound[..length]).unwrap();
        assert!(matches!(verify(path, 1000), Err(VerifyFault::Damaged(_))), "cut to {length}");
    }
    fs::write(path, &sound).unwrap();
}

/// All tables of a database pass, whatever the pieces; a flipped byte of the first one is found.
fn tables_are_covered(db: &Path, what: &str) {
    let tables = files(db, "sst");
    assert!(!tables.is_empty(), "{what}: no table");
    for path in &tables {
        for piece in [1, 7, 4096, 1 << 20] {
            let watch = verify(path, piece).unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
            let StreamedFile::Table(table) = watch else { panic!() };
            assert_eq!(table.gap(), None, "{what}");
            assert!(table.covered() * 10 > fs::metadata(path).unwrap().len() * 9, "{what}");
        }
    }
    let size = fs::metadata(&tables[0]).unwrap().len() as usize;
    every_flip_is_found(&tables[0], (size / 150).max(1) | 1);
}

fn db_bench(db: &Path, more: &[&str]) -> bool {
    let output = Command::new("db_bench")
        .args(["--benchmarks=fillrandom,compact", "--num=3000", "--value_size=80", "--seed=7"])
        .args(["--disable_wal=1", "--statistics=0"])
        .arg(format!("--db={}", db.display()))
        .args(more)
        .output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn tables_of_an_older_release_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let mut made = 0;
    for version in 0..=5 {
        for (number, more) in [
            &["--checksum_type=1", "--compression_type=none"][..],
            &["--checksum_type=2", "--compression_type=snappy"],
            &[
                "--checksum_type=3",
                "--compression_type=zlib",
                "--partition_index=1",
                "--metadata_block_size=256",
            ],
            &["--checksum_type=4", "--compression_type=zstd", "--index_with_first_key=1"],
            &[
                "--checksum_type=4",
                "--compression_type=lz4",
                "--bloom_bits=10",
                "--partition_index_and_filters=1",
                "--metadata_block_size=256",
            ],
            &[
                "--checksum_type=1",
                "--compression_type=zstd",
                "--compression_max_dict_bytes=2048",
                "--compression_zstd_max_train_bytes=20000",
            ],
        ]
        .iter()
        .enumerate()
        {
            let db = dir.path().join(format!("{version}-{number}"));
            let format = format!("--format_version={version}");
            if !db_bench(&db, &[more, &[format.as_str()][..]].concat()) {
                continue;
            }
            // Before version 2 what is compressed has another layout.
            if version < 2 && number > 1 {
                let result = verify(&files(&db, "sst")[0], 4096);
                assert!(!matches!(result, Err(VerifyFault::Damaged(_))), "{version} {more:?}");
                continue;
            }
            tables_are_covered(&db, &format!("version {version} {more:?}"));
            made += 1;
        }
    }
    assert!(made >= 12, "db_bench made {made} databases");
}

#[test]
fn blob_files_of_an_older_release_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    assert!(db_bench(
        &db,
        &["--enable_blob_files=1", "--min_blob_size=10", "--compression_type=none"]
    ));
    let blobs = files(&db, "blob");
    assert!(!blobs.is_empty());
    for path in &blobs {
        for piece in [1, 7, 4096, 1 << 20] {
            verify(path, piece).unwrap();
        }
    }
    let sound = fs::read(&blobs[0]).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&blobs[0]).unwrap();
    // Of the header only its beginning is checked.
    for at in (0..4).chain((30..sound.len()).step_by(sound.len() / 150)) {
        file.write_all_at(&[sound[at] ^ 4], at as u64).unwrap();
        let result = verify(&blobs[0], 999);
        assert!(matches!(result, Err(VerifyFault::Damaged(_))), "byte {at}");
        file.write_all_at(&sound[at..=at], at as u64).unwrap();
    }
    for length in [0, 30, 61, 100, sound.len() - 32, sound.len() - 1] {
        fs::write(&blobs[0], &sound[..length]).unwrap();
        assert!(matches!(verify(&blobs[0], 999), Err(VerifyFault::Damaged(_))), "cut to {length}");
    }
}

#[cfg(feature = "rocksdb")]
mod linked {
    use rust_rocksdb::{
        BlockBasedIndexType, BlockBasedOptions, ChecksumType, DB, DBCompressionType, Options,
        PlainTableFactoryOptions, WriteBatch,
    };

    use super::*;

    fn write(db: &Path, options: &mut Options) {
        options.create_if_missing(true);
        let db = DB::open(options, db).unwrap();
        for row in 0..2000_u32 {
            let value = format!("{row} ").repeat(20);
            db.put(row.wrapping_mul(2_654_435_761).to_be_bytes(), value).unwrap();
        }
        let mut batch = WriteBatch::default();
        batch.delete_range(b"\x10".as_slice(), b"\x20".as_slice());
        // A plain table can't hold it.
        let _ = db.write(&batch);
        db.flush().unwrap();
    }

    #[test]
    fn tables_of_this_release_are_verified() {
        let dir = tempfile::tempdir().unwrap();
        let checksums = || {
            [ChecksumType::CRC32c, ChecksumType::XXHash, ChecksumType::XXHash64, ChecksumType::XXH3]
        };
        let compressions = [
            DBCompressionType::None,
            DBCompressionType::Snappy,
            DBCompressionType::Lz4,
            DBCompressionType::Zstd,
        ];
        for version in 2..=8 {
            for (number, (checksum, compression)) in
                checksums().into_iter().zip(compressions).enumerate()
            {
                for partitioned in [false, true] {
                    let what = format!("version {version}, {number}, partitioned: {partitioned}");
                    let db = dir.path().join(&what);
                    let mut table = BlockBasedOptions::default();
                    table.set_format_version(version);
                    table.set_checksum_type(checksum_of(&checksum));
                    table.set_block_size(512);
                    table.set_bloom_filter(10.0, false);
                    if partitioned {
                        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
                        table.set_partition_filters(true);
                        table.set_metadata_block_size(256);
                        table.set_index_block_restart_interval(8);
                    }
                    let mut options = Options::default();
                    options.set_compression_type(compression);
                    if matches!(compression, DBCompressionType::Zstd | DBCompressionType::Lz4) {
                        options.set_compression_options(-14, 3, 0, 2048);
                    }
                    options.set_block_based_table_factory(&table);
                    write(&db, &mut options);
                    tables_are_covered(&db, &what);
                }
            }
        }
    }

    fn checksum_of(kind: &ChecksumType) -> ChecksumType {
        match kind {
            ChecksumType::NoChecksum => ChecksumType::NoChecksum,
            ChecksumType::CRC32c => ChecksumType::CRC32c,
            ChecksumType::XXHash => ChecksumType::XXHash,
            ChecksumType::XXHash64 => ChecksumType::XXHash64,
            ChecksumType::XXH3 => ChecksumType::XXH3,
        }
    }

    #[test]
    fn every_byte_of_a_small_table_counts() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let mut options = Options::default();
        options.create_if_missing(true);
        let mut table = BlockBasedOptions::default();
        table.set_format_version(6);
        options.set_block_based_table_factory(&table);
        let open = DB::open(&options, &db).unwrap();
        open.put(b"key", b"value").unwrap();
        open.flush().unwrap();
        drop(open);
        every_flip_is_found(&files(&db, "sst")[0], 1);
    }

    #[test]
    fn a_table_that_can_not_be_verified_is_told_apart_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        let mut table = BlockBasedOptions::default();
        table.set_checksum_type(ChecksumType::NoChecksum);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        write(&none, &mut options);
        let Ok(StreamedFile::Table(table)) = verify(&files(&none, "sst")[0], 4096) else {
            panic!()
        };
        assert_eq!(table.gap(), Some("because it has none"));

        let plain = dir.path().join("plain");
        let mut options = Options::default();
        options.set_prefix_extractor(rust_rocksdb::SliceTransform::create_fixed_prefix(2));
        options.set_plain_table_factory(&PlainTableFactoryOptions {
            user_key_length: 0,
            bloom_bits_per_key: 10,
            hash_table_ratio: 0.75,
            index_sparseness: 16,
            huge_page_tlb_size: 0,
            encoding_type: rust_rocksdb::KeyEncodingType::Plain,
            full_scan_mode: false,
            store_index_in_file: false,
        });
        options.set_allow_mmap_reads(true);
        write_rows(&plain, &mut options);
        let result = verify(&files(&plain, "sst")[0], 4096);
        assert!(matches!(result, Err(VerifyFault::Unknown("because it is a plain table"))));
    }

    fn write_rows(db: &Path, options: &mut Options) {
        options.create_if_missing(true);
        let db = DB::open(options, db).unwrap();
        for row in 0..100_u32 {
            db.put(row.to_be_bytes(), b"value").unwrap();
        }
        db.flush().unwrap();
    }

    #[test]
    fn blob_files_of_this_release_are_verified() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let mut options = Options::default();
        options.set_enable_blob_files(true);
        options.set_min_blob_size(10);
        options.set_blob_compression_type(DBCompressionType::Lz4);
        write(&db, &mut options);
        for path in files(&db, "blob") {
            let Ok(StreamedFile::Blob(blob)) = verify(&path, 777) else { panic!() };
            assert!(blob.count() > 1000);
        }
        tables_are_covered(&db, "tables beside blobs");
    }

    /// An ingestion of older releases writes a number into the finished table.
    #[test]
    fn a_number_that_was_written_later_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.sst");
        let mut table = BlockBasedOptions::default();
        table.set_format_version(5);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        let mut writer = rust_rocksdb::SstFileWriter::create(&options);
        writer.open(&path).unwrap();
        writer.put(b"key", b"value").unwrap();
        writer.finish().unwrap();
        verify(&path, 4096).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let name = b"rocksdb.external_sst_file.global_seqno";
        let tail = &name[name.len() - 12..];
        let at = bytes.windows(tail.len()).position(|window| window == tail).unwrap() + tail.len();
        assert_eq!(bytes[at..at + 8], [0; 8]);
        bytes[at..at + 8].copy_from_slice(&77_u64.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        verify(&path, 4096).unwrap();
        bytes[at + 9] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(verify(&path, 4096), Err(VerifyFault::Damaged(_))));
    }
}
