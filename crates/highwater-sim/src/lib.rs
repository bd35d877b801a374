//! A reference payment-channel node under Highwater's guard, its models and its simulation.

pub mod model;
