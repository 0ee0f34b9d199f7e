//! From what a source says about a target to what its Sleeper says.

use dormouse_model::{Routing, Target};
use dormouse_sleepers::{Route, Sleeper, SleeperSpec};

/// What a target's Sleeper should say, but for who wakes it: that depends on what may be written.
pub(crate) fn spec(target: &Target, known: Option<&Sleeper>) -> SleeperSpec {
    let owner = &target.key.owner;
    SleeperSpec {
        owner: Some(owner.clone()),
        plugin: owner.as_plugin().map(str::to_owned),
        resource: target.key.name.clone(),
        object: target.object.clone(),
        workloads: target.workloads().to_vec(),
        services: target.wake_on.clone(),
        readiness_timeout_millis: target
            .readiness_timeout
            .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        restore_replicas: target
            .restore_replicas
            .map(|count| i32::try_from(count).unwrap_or(i32::MAX)),
        cookie: target.cookie.clone(),
        wake: None,
        route: match &target.routing {
            Routing::Unknown => known.and_then(|sleeper| sleeper.spec.route.clone()),
            Routing::First => None,
            Routing::To { service, port } => Some(Route {
                service: service.clone(),
                port: *port,
            }),
        },
    }
}
