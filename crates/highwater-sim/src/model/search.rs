//! A search through all states of a configuration.

use std::collections::BTreeMap;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use super::rules::Rules;
use super::setup::Setup;
use super::steps::{Channel, Step};

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The configuration.
    pub setup: &'static str,
    /// The rules.
    pub rules: &'static str,
    /// States that were generated.
    pub states: usize,
    /// Different ones among them.
    pub states_unique: usize,
    /// The most steps from the beginning.
    pub depth: usize,
    /// What does not hold, with the shortest way there.
    pub refuted: BTreeMap<&'static str, Vec<Step>>,
    /// What came about somewhere.
    pub reached: Vec<&'static str>,
}

/// Looks at every state that a configuration can get into.
pub fn search(setup: Setup, rules: Rules) -> Found {
    run(setup, rules, HasDiscoveries::All, None)
}

/// Looks for a shortest way to a state that breaks `property`, and no further.
///
/// The checker goes on for a while after its first find, and keeps the last one: what it found bounds
/// the next search, until nothing shorter is there.
pub fn refute(setup: Setup, rules: Rules, property: &'static str) -> Found {
    let until = || HasDiscoveries::AnyOf([property].into());
    let mut found = run(setup, rules, until(), None);
    while let Some(way) = found.refuted.get(property) {
        let shorter = run(setup, rules, until(), Some(way.len()));
        if !shorter.refuted.contains_key(property) {
            break;
        }
        found = shorter;
    }
    found
}

/// A search of all ways shorter than `steps_below`.
fn run(setup: Setup, rules: Rules, until: HasDiscoveries, steps_below: Option<usize>) -> Found {
    let model = Channel { setup, rules };
    let always = |property: &Property<Channel>| property.expectation == Expectation::Always;
    let failures: Vec<&'static str> =
        model.properties().iter().filter(|it| always(it)).map(|it| it.name).collect();
    let mut builder = model.checker().finish_when(until);
    if let Some(steps) = steps_below {
        // The checker counts states, the first one included, and leaves the last one out.
        builder = builder.target_max_depth(steps + 1);
    }
    let checker = builder.spawn_bfs().join();
    let mut found = Found {
        setup: setup.name,
        rules: rules.name,
        states: checker.state_count(),
        states_unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        refuted: BTreeMap::new(),
        reached: Vec::new(),
    };
    for (name, path) in checker.discoveries() {
        if failures.contains(&name) {
            found.refuted.insert(name, path.into_actions());
        } else {
            found.reached.push(name);
        }
    }
    found.reached.sort_unstable();
    found
}
