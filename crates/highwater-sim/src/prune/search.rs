//! A search through all states of a configuration.

use std::collections::BTreeMap;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use super::rules::Rules;
use super::setup::Setup;
use super::steps::{Step, Vault};

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The configuration.
    pub setup: &'static str,
    /// States that were generated.
    pub states: usize,
    /// Different ones among them.
    pub states_unique: usize,
    /// The most steps from the beginning.
    pub depth: usize,
    /// What does not hold, with a short way there.
    pub refuted: BTreeMap<&'static str, Vec<Step>>,
    /// What came about somewhere.
    pub reached: Vec<&'static str>,
}

/// Looks at every state that a configuration can get into.
pub fn search(setup: Setup, rules: Rules) -> Found {
    run(setup, rules, HasDiscoveries::All)
}

/// Looks for a short way to a state that breaks `property`, and no further.
pub fn refute(setup: Setup, rules: Rules, property: &'static str) -> Found {
    run(setup, rules, HasDiscoveries::AnyOf([property].into()))
}

fn run(setup: Setup, rules: Rules, until: HasDiscoveries) -> Found {
    let model = Vault { setup, rules };
    let always = |property: &Property<Vault>| property.expectation == Expectation::Always;
    let failures: Vec<&'static str> =
        model.properties().iter().filter(|it| always(it)).map(|it| it.name).collect();
    let checker = model.checker().finish_when(until).spawn_bfs().join();
    let mut found = Found {
        setup: setup.name,
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
