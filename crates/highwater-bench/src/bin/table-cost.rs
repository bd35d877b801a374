//! What it costs to verify the checksums of RocksDB's tables while they are streamed:
//! `cargo run --release --package highwater-bench --bin table-cost -- NODE_DIR`, with a RocksDB in it that nobody has open.
//! Both passes read from the page cache.

use std::hint::black_box;
use std::io::Read as _;
use std::path::PathBuf;

use highwater::Env;
use highwater::engine::{self, CaptureOptions, DiscoverOptions, Piece};
use highwater_bench::Outcome;

const PASSES: u32 = 5;

#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn main() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("give a node directory")?);
    let env = Env::system();
    let layout = engine::discover(&dir, &DiscoverOptions::default())?;
    for pass in 0..PASSES {
        let mut captured = engine::capture(&layout, &CaptureOptions::default(), &env)?;
        let start = env.monotonic();
        let mut bytes = 0_u64;
        for part in &mut captured.parts {
            for entry in 0..part.entries().len() {
                part.stream(entry, &mut |piece| {
                    if let Piece::Data(data) = piece {
                        bytes += data.len() as u64;
                        black_box(data);
                    }
                    Ok(())
                })?;
            }
        }
        let verified = env.monotonic() - start;
        let start = env.monotonic();
        let mut buffer = vec![0; 1 << 20];
        for part in &captured.parts {
            for entry in part.entries().iter().filter(|entry| entry.size > 0) {
                let mut file = std::fs::File::open(entry.path.under(&dir))?;
                while file.read(&mut buffer)? > 0 {
                    black_box(&buffer);
                }
            }
        }
        let read = env.monotonic() - start;
        let rate = |time: std::time::Duration| bytes as f64 / 1e6 / time.as_secs_f64();
        let cost = verified.saturating_sub(read);
        println!(
            "pass {pass}: {bytes} bytes; verified {:.0} MB/s, read alone {:.0} MB/s: {:.0} MB/s are verified",
            rate(verified),
            rate(read),
            rate(cost)
        );
    }
    Ok(())
}
