use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::engine::conformance::tests::Holder;
use crate::engine::rocksdb::rows;
use crate::error::Kind;

fn ldb(db: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new("ldb").arg(format!("--db={}", db.display())).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn logs(db: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(db).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    found.sort();
    found
}

fn cut_by(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    assert!(size > bytes, "{size}");
    file.set_len(size - bytes).unwrap();
}

fn puts() -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![
        (b"1".to_vec(), b"marked".to_vec()),
        (b"new".to_vec(), vec![7; 100_000]),
        (b"empty".to_vec(), Vec::new()),
    ]
}

#[test]
fn an_older_release_finds_what_was_added_behind_a_torn_record() {
    let dir = tempfile::tempdir().unwrap();
    for torn in [false, true] {
        let db = dir.path().join(torn.to_string());
        ldb(&db, &["--create_if_missing", "put", "1", "one"]);
        ldb(&db, &["put", "2", "two"]);
        ldb(&db, &["put", "3", "three"]);
        if torn {
            cut_by(logs(&db).last().unwrap(), 2);
        }
        append(&db, &[(b"1".to_vec(), b"marked".to_vec())]).unwrap();
        let read = rows(&db, &[b""]).unwrap();
        assert_eq!(read[&b"1"[..]], b"marked");
        assert_eq!(read.len(), if torn { 2 } else { 3 });
        assert_eq!(ldb(&db, &["get", "1"]).trim(), "marked");
        assert_eq!(ldb(&db, &["get", "2"]).trim(), "two");
        let third = ldb(&db, &["scan"]).contains("three");
        assert_eq!(third, !torn);
        // It goes on as if nothing had happened.
        ldb(&db, &["put", "4", "four"]);
        assert_eq!(ldb(&db, &["get", "1"]).trim(), "marked");
    }
}

#[test]
fn a_database_in_use_or_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    ldb(&db, &["--create_if_missing", "put", "1", "one"]);
    let before = logs(&db);
    let holder = Holder::record(&db.join("LOCK"));
    assert_eq!(append(&db, &puts()).unwrap_err().kind(), Kind::Conflict);
    drop(holder);
    ldb(&db, &["put", "2", "two"]);
    let log = logs(&db).pop().unwrap();
    let sound = fs::read(&log).unwrap();
    let mut damaged = [sound.clone(), sound.clone()].concat();
    damaged[8] ^= 1;
    fs::write(&log, damaged).unwrap();
    let error = append(&db, &puts()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.entry().unwrap().ends_with(".log"));
    fs::write(&log, sound).unwrap();
    append(&db, &[]).unwrap();
    assert_eq!(logs(&db).len(), before.len().max(1), "nothing was asked for");
}

#[test]
fn a_link_in_the_place_of_the_new_log_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    ldb(&db, &["--create_if_missing", "put", "1", "one"]);
    cut_by(logs(&db).last().unwrap(), 1);
    let log = logs(&db).pop().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    let copy = PathBuf::from(format!("{}{CUT}", log.display()));
    std::os::unix::fs::symlink(&victim, copy).unwrap();
    append(&db, &puts()).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(rows(&db, &[b"1"]).unwrap()[&b"1"[..]], b"marked");
}

#[test]
fn the_new_log_has_the_mode_of_the_others_and_leaves_them_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    ldb(&db, &["--create_if_missing", "put", "1", "one"]);
    let old = logs(&db);
    for entry in fs::read_dir(&db).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o640)).unwrap();
    }
    // A further name of the log, as an image of the directory has it.
    cut_by(&old[0], 1);
    let image = dir.path().join("image.log");
    fs::hard_link(&old[0], &image).unwrap();
    let whole = fs::read(&image).unwrap();
    append(&db, &puts()).unwrap();
    let new: Vec<PathBuf> = logs(&db).into_iter().filter(|log| !old.contains(log)).collect();
    assert_eq!(new.len(), 1);
    assert_eq!(fs::metadata(&new[0]).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(&old[0]).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::read(&old[0]).unwrap().len() < whole.len());
    assert_eq!(fs::read(&image).unwrap(), whole);
}

#[cfg(feature = "rocksdb")]
mod linked {
    use rust_rocksdb::{DB, DBRecoveryMode, IteratorMode, Options};

    use super::*;
    use crate::engine::rocksdb::Rows;

    fn options() -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_avoid_flush_during_recovery(true);
        options
    }

    fn all(db: &DB) -> Rows {
        let rows = db.iterator(IteratorMode::Start);
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    /// The database has the rows that it had, and those that were added, whoever opens it and how; and it goes
    /// on from there.
    fn added(db: &Path, before: &Rows) {
        append(db, &puts()).unwrap();
        let mut expected = before.clone();
        expected.extend(puts());
        assert_eq!(rows(db, &[b""]).unwrap(), expected);
        for mode in [
            DBRecoveryMode::PointInTime,
            DBRecoveryMode::AbsoluteConsistency,
            DBRecoveryMode::TolerateCorruptedTailRecords,
        ] {
            let opened = db.with_extension(format!("{}", mode as i32));
            copy(db, &opened);
            let mut options = options();
            options.set_paranoid_checks(true);
            options.set_wal_recovery_mode(mode);
            let open = DB::open(&options, &opened).unwrap();
            assert_eq!(all(&open), expected);
            open.put(b"1", b"after").unwrap();
            open.flush().unwrap();
            open.compact_range(None::<&[u8]>, None::<&[u8]>);
            drop(open);
            let mut expected = expected.clone();
            expected.insert(b"1".to_vec(), b"after".to_vec());
            assert_eq!(all(&DB::open(&options, &opened).unwrap()), expected);
        }
        // Once more, behind what was added.
        append(db, &[(b"1".to_vec(), b"again".to_vec())]).unwrap();
        expected.insert(b"1".to_vec(), b"again".to_vec());
        assert_eq!(rows(db, &[b""]).unwrap(), expected);
        assert_eq!(all(&DB::open(&options(), db).unwrap()), expected);
    }

    #[test]
    fn rows_are_added_to_an_empty_database() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        drop(DB::open(&options(), &db).unwrap());
        added(&db, &Rows::new());
    }

    #[test]
    fn rows_are_added_behind_logs_and_tables() {
        let dir = tempfile::tempdir().unwrap();
        for (name, flushed, opened) in
            [("log", false, 1), ("logs", false, 4), ("table", true, 1), ("tables", true, 3)]
        {
            let db = dir.path().join(name);
            for round in 0..opened {
                let open = DB::open(&options(), &db).unwrap();
                for row in 0..200_u32 {
                    open.put(row.to_string(), format!("{round} {row}")).unwrap();
                }
                open.delete(b"17").unwrap();
                if flushed {
                    open.flush().unwrap();
                }
            }
            assert!(name != "logs" || logs(&db).len() > 2, "{:?}", logs(&db));
            let before = all(&DB::open_for_read_only(&options(), &db, false).unwrap());
            assert_eq!(before.len(), 199);
            added(&db, &before);
        }
    }

    #[test]
    fn rows_are_added_where_a_crash_has_cut_the_last_log() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        for _ in 0..3 {
            let open = DB::open(&options(), &made).unwrap();
            for row in 0..20_u32 {
                open.put(row.to_string(), vec![b'v'; 1000 + row as usize]).unwrap();
            }
        }
        let last = logs(&made).pop().unwrap();
        let size = fs::metadata(&last).unwrap().len();
        for cut in [1, 2, 900, 1100, 5000, size - 30, size - 3, size] {
            let db = dir.path().join(format!("cut-{cut}"));
            copy(&made, &db);
            let log = db.join(last.file_name().unwrap());
            fs::OpenOptions::new().write(true).open(log).unwrap().set_len(size - cut).unwrap();
            let before = all(&DB::open_for_read_only(&options(), &db, false).unwrap());
            assert_eq!(rows(&db, &[b""]).unwrap(), before, "{cut}");
            added(&db, &before);
        }
    }

    /// What RocksDB would have passed over must not come back: it stays refused.
    #[test]
    fn a_log_that_does_not_go_on_where_the_one_before_was_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        for _ in 0..3 {
            let open = DB::open(&options(), &db).unwrap();
            open.put(b"1", b"one").unwrap();
            open.put(b"2", b"two").unwrap();
        }
        let whole: Vec<PathBuf> =
            logs(&db).into_iter().filter(|log| fs::metadata(log).unwrap().len() > 0).collect();
        assert!(whole.len() > 1);
        cut_by(&whole[0], 1);
        for error in [append(&db, &puts()).unwrap_err(), rows(&db, &[b""]).unwrap_err()] {
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(error.message().contains("does not go on"), "{error}");
        }
    }

    #[test]
    fn a_database_that_counts_its_logs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for noted in [false, true] {
            let db = dir.path().join(noted.to_string());
            let mut options = options();
            if noted {
                options.set_track_and_verify_wals_in_manifest(true);
            } else {
                options.set_track_and_verify_wals(true);
            }
            let open = DB::open(&options, &db).unwrap();
            open.put(b"1", b"one").unwrap();
            open.flush().unwrap();
            drop(open);
            let error = append(&db, &puts()).unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.message().contains("logs"), "{error}");
        }
    }

    /// The log of a file that was another log's before ends where that one's records begin.
    #[test]
    fn rows_are_added_behind_a_log_whose_file_was_used_before() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let mut options = options();
        options.set_recycle_log_file_num(2);
        let open = DB::open(&options, &db).unwrap();
        for round in 0..4_u32 {
            for row in 0..50_u32 - round * 10 {
                open.put(row.to_string(), format!("{round} {row}").repeat(50)).unwrap();
            }
            open.flush().unwrap();
        }
        open.put(b"1", b"short").unwrap();
        let before = all(&open);
        drop(open);
        added(&db, &before);
    }
}
