//! A well-behaved scaler, small enough to measure the host and not itself.
//!
//! `resources` answers as many resources as the configuration key `count` says (default 10); `set-scale` goes through
//! `lifecycle` once for each resource.

wit_bindgen::generate!({ path: "../../../../../wit", world: "resource-scaler", generate_all });

use dormouse::plugin::types::{MetricSource, ObjectRef, ResourceState, Rule};
use dormouse::plugin::{config, lifecycle};
use exports::dormouse::plugin::scaler::{
    Guest, PluginError, Resource, ResourceHandle, ScaleOutcome, ScalerSettings, ServiceTarget,
};

struct Bench;

impl Guest for Bench {
    fn settings() -> Result<ScalerSettings, PluginError> {
        Ok(ScalerSettings {
            scale_interval: Some(60_000),
            metrics_resource: None,
            target_name_header: Some("X-Bench".into()),
            target_path_header: None,
            target_port: Some(8080),
            readiness_timeout: None,
            multi_target_strategy: None,
            extra: Vec::new(),
        })
    }

    fn resources() -> Result<Vec<Resource>, PluginError> {
        let count = config::get("count").map_or(Ok(10), |count| count.parse::<usize>());
        let count = count.map_err(|error| PluginError::InvalidConfiguration(format!("count: {error}")))?;
        Ok((0..count).map(resource).collect())
    }

    fn set_scale(
        resources: Vec<ResourceHandle>,
        replicas: u32,
        reason: String,
    ) -> Result<Vec<ScaleOutcome>, PluginError> {
        let desired = |id: &dormouse::plugin::types::ResourceId| match replicas {
            0 => lifecycle::sleep(id, &reason),
            _ => lifecycle::wake(id, &reason),
        };
        Ok(resources
            .iter()
            .map(|resource| match desired(&resource.id) {
                Ok(()) => ScaleOutcome::Accepted,
                Err(error) => ScaleOutcome::Failed(PluginError::Transient(format!("{error:?}"))),
            })
            .collect())
    }

    fn service(resource: ResourceHandle) -> Result<ServiceTarget, PluginError> {
        Ok(ServiceTarget {
            name: resource.id.name,
            port: Some(80),
            extra: Vec::new(),
        })
    }
}

fn resource(index: usize) -> Resource {
    let name = format!("workload-{index}");
    let object = ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: None,
        name: name.clone(),
    };
    Resource {
        id: dormouse::plugin::types::ResourceId {
            namespace: "shop".into(),
            name: name.clone(),
        },
        object: object.clone(),
        state: ResourceState::Awake,
        rules: vec![Rule {
            source: MetricSource::ObservedTraffic,
            window: 900_000,
            threshold: "0".into(),
            extra: Vec::new(),
        }],
        last_event: None,
        workloads: vec![object],
        services: vec![name],
        readiness_timeout: None,
        restore_replicas: None,
        scaling: None,
        wake_at: None,
        reason: None,
        cookie: None,
        extra: Vec::new(),
    }
}

export!(Bench);
