//! Makes the RocksDB of the program's demo, which is kept beside it: `cargo run --package highwater-bench
//! --bin demo-store -- DIR`.

#[path = "../../../highwater-cli/src/demo/rows.rs"]
mod rows;

use highwater_bench::Outcome;
use rust_rocksdb::{DB, Options};

fn main() -> Outcome<()> {
    let dir = std::env::args().nth(1).ok_or("give a directory")?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_keep_log_file_num(1);
    let store = DB::open(&options, &dir)?;
    for row in 0..rows::ROWS {
        if row == rows::ROWS_FLUSHED {
            store.flush()?;
        }
        store.put(rows::key(row), rows::value("store", row))?;
    }
    store.flush_wal(true)?;
    drop(store);
    // What only tells of its work, and its lock, are made anew.
    for name in ["LOG", "LOCK"] {
        std::fs::remove_file(std::path::Path::new(&dir).join(name))?;
    }
    Ok(())
}
