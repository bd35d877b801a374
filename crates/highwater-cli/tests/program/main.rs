//! End-to-end tests: they drive the real program on real nodes, vaults, signals and mounts.

#[cfg(feature = "fault-points")]
#[cfg(test)]
mod crash_backup;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod crash_restore;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod hard_times;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod node;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod scene;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod strangers;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod tree;
