//! The program `channel-node`: the reference node, its ledger, and what an operator does with them.

fn main() -> std::process::ExitCode {
    highwater_sim::process::main()
}
