//! What fuzzers call, one function for each thing that is read from other hands. Each takes any bytes,
//! and panics where a promise about them is broken. No program calls them: `fuzz/` does.

/// The files of a Badger, from its manifest to the height in it.
pub fn badger(bytes: &[u8]) {
    crate::badger::fuzzing::files(bytes);
}

/// The rows of a Fiber store: its channels, and what marks them.
pub fn fiber_rows(bytes: &[u8]) {
    crate::fiber::fuzzing::rows(bytes);
}

#[cfg(test)]
mod tests;
