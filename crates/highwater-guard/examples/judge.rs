//! Reads one JSON object from standard input and prints the verdict as JSON.
//!
//! The object is `{"ours": …, "evidence": …}`, or the fields of the evidence beside `ours`:
//!
//! ```sh
//! echo '{"ours": {"signed": 6, "revoked": 5, "received": 5, "closing": false}, "policy": "peer",
//!   "report": {"revocations_held": 5, "signatures_taken": 6}}' |
//!   cargo run -p highwater-guard --example judge
//! ```

use std::io::Write as _;

use highwater_guard::{Evidence, Ours, judge};
use serde_json::{Map, Value};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut object: Map<String, Value> = serde_json::from_reader(std::io::stdin())?;
    let ours: Ours = serde_json::from_value(object.remove("ours").ok_or("`ours` is missing")?)?;
    let evidence = match object.remove("evidence") {
        Some(_) if !object.is_empty() => return Err("fields beside `ours` and `evidence`".into()),
        Some(evidence) => evidence,
        None => Value::Object(object),
    };
    let evidence: Evidence = serde_json::from_value(evidence)?;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &judge(&ours, &evidence))?;
    out.write_all(b"\n")?;
    Ok(())
}
