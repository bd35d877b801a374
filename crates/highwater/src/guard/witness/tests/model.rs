//! Random copies of a node, faults and switches, against a model of a few maps.

use proptest::prelude::*;

use super::*;

const CHANNELS: usize = 3;
const COPIES: usize = 3;
/// Fewer puts fail in a row than are tried.
const FAILING_MAX: u64 = PUT_TRIES_MAX as u64 - 1;

#[derive(Clone, Debug)]
enum Step {
    Start(usize),
    Raise { copy: usize, channel: usize, by: u64 },
    Count { copy: usize, by: u64 },
    Retire { copy: usize, channel: usize },
    Off(usize),
    On(usize),
    Fail(PutFault),
    Deliver,
}

fn step() -> impl Strategy<Value = Step> {
    let copy = || 0..COPIES;
    prop_oneof![
        2 => copy().prop_map(Step::Start),
        8 => (copy(), 0..CHANNELS, 0..3u64)
            .prop_map(|(copy, channel, by)| Step::Raise { copy, channel, by }),
        2 => (copy(), 0..3u64).prop_map(|(copy, by)| Step::Count { copy, by }),
        1 => (copy(), 0..CHANNELS).prop_map(|(copy, channel)| Step::Retire { copy, channel }),
        1 => copy().prop_map(Step::Off),
        1 => copy().prop_map(Step::On),
        2 => prop_oneof![
            Just(PutFault::Lost), Just(PutFault::Unacknowledged), Just(PutFault::Delayed)
        ].prop_map(Step::Fail),
        1 => Just(Step::Deliver),
    ]
}

/// What must stand: of each channel its number, whether it is continuous, the epoch that raised it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    channels: BTreeMap<String, (u64, bool, u64)>,
    counter: Option<u64>,
    off: bool,
    epoch: u64,
}

impl Model {
    fn of(record: &WitnessRecord) -> Model {
        let entry = |entry: &WitnessEntry| (entry.signed, entry.continuous, entry.epoch);
        Model {
            channels: record.channels.iter().map(|(id, it)| (id.clone(), entry(it))).collect(),
            counter: record.counters.get("keys").copied(),
            off: record.off.is_some(),
            epoch: record.epoch,
        }
    }
}

/// Takes a step of one copy, and the model along where that copy owns the witness.
fn act(copy: &Witness, step: &Step, model: &mut Model, owner: bool) -> Result<Raised> {
    let known = copy.record();
    match step {
        Step::Raise { channel, by, .. } => {
            let channel = format!("c{channel}");
            let number = known.channels.get(&channel).map_or(0, |entry| entry.signed) + by;
            if owner && !model.off {
                let epoch = model.epoch;
                let entry = model.channels.entry(channel.clone()).or_insert((0, true, epoch));
                *entry = (number, entry.1, if *by > 0 { epoch } else { entry.2 });
            }
            raise(copy, &channel, number)
        }
        Step::Count { by, .. } => {
            let value = known.counters.get("keys").unwrap_or(&0) + by;
            if owner && !model.off {
                model.counter = Some(value);
            }
            copy.raise(&[], &[("keys".to_owned(), value)])
        }
        Step::Retire { channel, .. } => {
            let channel = format!("c{channel}");
            if owner {
                model.channels.remove(&channel);
            }
            copy.retire(&channel).map(|()| Raised::Durable)
        }
        Step::Off(_) => {
            if owner {
                model.off = true;
                model.channels.values_mut().for_each(|entry| entry.1 = false);
            }
            copy.switch_off("why").map(|()| Raised::Durable)
        }
        Step::On(_) => {
            model.off &= !owner;
            copy.switch_on().map(|()| Raised::Durable)
        }
        Step::Start(_) | Step::Fail(_) | Step::Deliver => unreachable!("no copy's step"),
    }
}

/// Every put is tried until it gets through, so no call but one by a deposed copy fails.
fn run(steps: Vec<Step>) {
    let store = MemoryWitness::new();
    let mut copies: [Option<Witness>; COPIES] = [None, None, None];
    let mut model = Model::default();
    let (mut failing, mut puts) = (0, 0);
    for step in steps {
        failing = u64::saturating_sub(failing, store.puts() - puts);
        puts = store.puts();
        let who = match step {
            Step::Start(copy) => {
                copies[copy] = Some(start(store.clone(), "copy"));
                model.epoch += 1;
                continue;
            }
            Step::Fail(fault) => {
                if failing < FAILING_MAX {
                    failing += 1;
                    store.fail([fault]);
                }
                continue;
            }
            Step::Deliver => {
                store.deliver();
                continue;
            }
            Step::Raise { copy, .. }
            | Step::Count { copy, .. }
            | Step::Retire { copy, .. }
            | Step::Off(copy)
            | Step::On(copy) => copy,
        };
        let Some(copy) = &copies[who] else { continue };
        let (known, owner) = (copy.record(), copy.epoch() == model.epoch);
        let answer = act(copy, &step, &mut model, owner);
        let record = Witness::look(&store, &node()).unwrap().unwrap();
        assert_eq!(Model::of(&record), model, "{step:?}");
        match answer {
            Err(error) => assert!(!owner && error.kind() == Kind::Fenced, "{step:?}: {error}"),
            // A deposed copy that has not heard of it may be told again what stood in its time.
            Ok(_) if !owner => assert_eq!(copy.record(), known, "{step:?}"),
            Ok(_) => assert_eq!(copy.record(), record, "{step:?}"),
        }
    }
}

proptest! {
    #[test]
    fn copies_of_a_node_and_their_witness_follow_the_model(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        run(steps);
    }
}
