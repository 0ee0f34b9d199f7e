//! The embedded cluster as the unchanged kube client sees it. One binary, one module per area.

#[cfg(test)]
#[path = "embedded/support.rs"]
mod support;

#[cfg(test)]
#[path = "embedded/crud.rs"]
mod crud;
#[cfg(test)]
#[path = "embedded/definitions.rs"]
mod definitions;
#[cfg(test)]
#[path = "embedded/faults.rs"]
mod faults;
#[cfg(test)]
#[path = "embedded/garbage.rs"]
mod garbage;
#[cfg(test)]
#[path = "embedded/metrics.rs"]
mod metrics;
#[cfg(test)]
#[path = "embedded/patching.rs"]
mod patching;
#[cfg(test)]
#[path = "embedded/pods.rs"]
mod pods;
#[cfg(test)]
#[path = "embedded/scale.rs"]
mod scale;
#[cfg(test)]
#[path = "embedded/traffic.rs"]
mod traffic;
#[cfg(test)]
#[path = "embedded/watching.rs"]
mod watching;
#[cfg(test)]
#[path = "embedded/workloads.rs"]
mod workloads;
