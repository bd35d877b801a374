use std::path::Path;

use super::*;

type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[("auth", auth), ("json_rpc", json_rpc)];

#[test]
fn every_seed_keeps_what_is_promised() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, target) in TARGETS {
        let mut files = 0;
        for file in std::fs::read_dir(seeds.join(name)).unwrap() {
            target(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "{name} has no seed");
    }
}
