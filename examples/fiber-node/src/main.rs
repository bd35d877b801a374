//! Prints channels for the tests of `highwater-nodes`, which link nothing of the node.
//!
//! `cargo run --manifest-path examples/fiber-node/Cargo.toml -- fixtures >
//! crates/highwater-nodes/src/fiber/fixtures.txt`

use fiber_node::Outcome;
use fiber_node::sample::{self, Sample};

/// The number of the state of a channel in use.
const READY: u32 = 5;

fn main() -> Outcome<()> {
    match std::env::args().nth(1).as_deref() {
        Some("fixtures") => {
            println!("# version id peer state flags local remote waiting_ack value index");
            // Every state once, and one channel of each other generation.
            sample::v10::channels(sample::VERSION_09, 42, 1).iter().for_each(print);
            let others = sample::all(43, 1);
            let in_use = |sample: &&Sample| sample.state == READY;
            others.iter().filter(in_use).for_each(print);
            Ok(())
        }
        _ => Err("fixtures".into()),
    }
}

fn print(sample: &Sample) {
    let Sample { version, id, peer, state, flags, local, remote, waiting_ack, value, index } =
        sample;
    let (id, peer, value, index) =
        (hex::encode(id), hex::encode(peer), hex::encode(value), hex::encode(index));
    println!(
        "{version} {id} {peer} {state} {flags} {local} {remote} {waiting_ack} {value} {index}"
    );
}
