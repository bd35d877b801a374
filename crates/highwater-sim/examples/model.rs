//! Searches all configurations of the model and prints what it found: how many states each of them
//! has, how the broken rules fall, and where the real ones promise nothing.
//!
//! ```sh
//! cargo run --release -p highwater-sim --example model [large]
//! ```

use std::io::Write;

use highwater::Env;
use highwater_sim::model::catalog::{Fall, HOLDS, broken, limits};
use highwater_sim::model::{Rules, Setup, refute, search};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let large = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("large") => true,
        Some(other) => return Err(format!("`{other}`: `large`, or nothing").into()),
    };
    let mut out = std::io::stdout().lock();
    let env = Env::system();
    writeln!(out, "The real rules hold.\n")?;
    writeln!(out, "{:<45}{:>12}{:>12}{:>7}{:>9}", "", "states", "different", "depth", "seconds")?;
    for case in HOLDS {
        held(&mut out, &env, if large { case.larger } else { case.setup })?;
    }
    writeln!(out, "\nBroken rules, and how soon they fall.\n")?;
    fell(&mut out, &broken())?;
    writeln!(out, "\nThe real rules where nothing is promised.\n")?;
    fell(&mut out, &limits())?;
    Ok(())
}

fn held(out: &mut impl Write, env: &Env, setup: Setup) -> Result<(), Box<dyn std::error::Error>> {
    let begin = env.monotonic();
    let found = search(setup, Rules::REAL);
    let seconds = (env.monotonic() - begin).as_secs_f64();
    writeln!(
        out,
        "{:<45}{:>12}{:>12}{:>7}{seconds:>9.1}",
        found.setup, found.states, found.states_unique, found.depth,
    )?;
    for reached in &found.reached {
        writeln!(out, "    {reached}")?;
    }
    match found.refuted.iter().next() {
        None => Ok(()),
        Some((property, way)) => Err(format!("{property}: {way:#?}").into()),
    }
}

fn fell(out: &mut impl Write, falls: &[Fall]) -> Result<(), Box<dyn std::error::Error>> {
    for fall in falls {
        let found = refute(fall.setup, fall.rules, fall.property);
        let Some(way) = found.refuted.get(fall.property) else {
            return Err(format!("{} in {}: not refuted", found.rules, found.setup).into());
        };
        writeln!(out, "{} ({}): {} steps", found.rules, found.setup, way.len())?;
        writeln!(out, "    {}", fall.property)?;
        for step in way {
            writeln!(out, "        {step:?}")?;
        }
    }
    Ok(())
}
