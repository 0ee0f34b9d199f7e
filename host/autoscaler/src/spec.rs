//! From what a source says about a resource to what its Sleeper says.

use dormouse_model::Owner;
use dormouse_plugin::types::Resource;
use dormouse_sleepers::{Route, SleeperSpec};

/// What a resource's Sleeper should say, but for who wakes it: that depends on what may be written.
pub fn spec(owner: &Owner, resource: &Resource, route: Option<Route>) -> SleeperSpec {
    SleeperSpec {
        owner: Some(owner.clone()),
        plugin: owner.as_plugin().map(str::to_owned),
        resource: resource.id.name.clone(),
        object: resource.object.clone(),
        workloads: resource.workloads.clone(),
        services: resource.services.clone(),
        readiness_timeout_millis: resource
            .readiness_timeout
            .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        restore_replicas: resource
            .restore_replicas
            .map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
        wake: None,
        route,
    }
}
