//! A workload with annotations, read by the code of the plugin `workloads`: as in a cluster, but without a component around it.

use anyhow::{Context, Result, bail};
use dormouse_autoscaler::Overrides;
use dormouse_model::{Owner, Policy, Routing};
use dormouse_plugin::types::Settings;
use dormouse_sdk::kubernetes::Workload;
use workloads::annotations::{self, Request};

use super::{Declared, File, Target};

/// The plugin.
const PLUGIN: &str = "workloads";
/// Where an object is that does not say.
const NAMESPACE: &str = "default";
/// A Service that leads to it. Which one that is decides nothing.
const SERVICE: &str = "service";

pub(super) fn read(file: &File<'_>, index: usize) -> Result<Target> {
    let mut workload: Workload = file.document(index)?;
    workload
        .metadata
        .namespace
        .get_or_insert_with(|| NAMESPACE.to_owned());
    let managed = match annotations::read(&workload.metadata.annotations) {
        Ok(Request::Managed(managed)) => managed,
        Ok(Request::Paused) => bail!("annotation dormouse.dev/paused is `true`: it is left as it is"),
        Ok(Request::None) => bail!("no annotation asks for anything"),
        Err(problems) => {
            let told: Vec<_> = problems.iter().map(workloads::complaint).collect();
            bail!("{}", told.join("\n"));
        }
    };
    let services = if managed.sleeps() {
        managed
            .services
            .clone()
            .unwrap_or_else(|| vec![SERVICE.to_owned()])
    } else {
        Vec::new()
    };
    let resource = workloads::resource(&workload, services, managed);
    let record = dormouse_sdk::guest::record(resource)?;
    let resource = dormouse_plugin::resource_of_record(record)?;
    let effective = Overrides::default().over(&Settings::default());
    let owner = Owner::plugin(PLUGIN);
    let mut target = dormouse_autoscaler::target(&owner, resource, Routing::First, &effective);
    if let Some(problem) = &target.problem {
        bail!("{problem}");
    }
    // A rollout that its status tells of was at another time.
    target.last_event = None;
    let (min_replicas, max_replicas) = match &target.policy {
        Policy::Metrics(policy) => (policy.min_replicas, Some(policy.max_replicas)),
        Policy::Idle => (1, None),
        Policy::Memory(_) => bail!("annotations do not scale by memory limits"),
    };
    let (replicas, pod) = file.pods(index).context("what its pods are cannot be read")?;
    Ok(Target {
        name: workload.metadata.name,
        min_replicas,
        max_replicas,
        declared: Declared::Target(Box::new(target)),
        pod,
        replicas,
        corrections: Vec::new(),
    })
}
