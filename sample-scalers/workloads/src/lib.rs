//! Deployments, StatefulSets and anything else with a scale subresource, opted in by annotations.
//!
//! ```yaml
//! metadata:
//!   annotations:
//!     dormouse.dev/sleep-after: 15m            # opts in
//!     dormouse.dev/services: web,web-admin     # default: the Services that select its pods
//!     dormouse.dev/rules: '[{"metric": "requests", "window": "10m", "threshold": "0"}]'  # default: observed traffic
//!     dormouse.dev/wake-timeout: 2m            # how long a request is held; default: the setting of the DLX
//!     dormouse.dev/replicas: "3"               # what a wake restores; default: as many as there were
//!     dormouse.dev/targets: '[{"source": "resource", "resource": "cpu", "utilization": 50}]'  # scales it while it is up; opts in, too
//!     dormouse.dev/min-replicas: "2"           # the fewest while it is up; default: 1
//!     dormouse.dev/max-replicas: "10"          # the most
//!     dormouse.dev/behavior: '{"scaleDown": {"stabilizationWindowSeconds": 60}}'  # as a HorizontalPodAutoscaler's
//!     dormouse.dev/at-zero: "off"              # leave it at zero if somebody else scales it there; default: stand in
//!     dormouse.dev/paused: "true"              # leave it awake for now
//! ```
//!
//! What cannot be done as written is left awake, and a Warning Event on the object says why. Other workloads never
//! suffer from it.
//!
//! The one configuration key is `kinds`, by default `apps/v1/Deployment,apps/v1/StatefulSet`.

pub mod annotations;
pub mod kinds;

use std::collections::{BTreeMap, BTreeSet};

use dormouse_sdk::prelude::*;

use annotations::{Managed, PREFIX, Request};
use kubernetes::ObjectKey;

/// The scaler.
#[derive(Debug, Default)]
pub struct Workloads;

impl Scaler for Workloads {
    fn settings(&self) -> Result<Settings> {
        kinds::configured()?;
        Ok(Settings::default())
    }

    fn resources(&self) -> Result<Vec<Resource>> {
        let found = discover()?;
        report(&found.complaints);
        Ok(found.resources)
    }
}

dormouse_sdk::register!(Workloads);
dormouse_sdk::register_about!(Workloads);

impl Describe for Workloads {
    fn describe(&self) -> About {
        let reads = ["get", "list"];
        About::new("Annotated workloads")
            .key_or(
                "kinds",
                "what may be annotated, each as group/version/Kind",
                kinds::DEFAULT,
            )
            .wants_lifecycle("apps/v1", "Deployment", "to put them to sleep and scale them")
            .wants_lifecycle("apps/v1", "StatefulSet", "the same")
            .wants_kubernetes(
                "apps/v1",
                "Deployment",
                &reads,
                "to find those that are annotated",
            )
            .wants_kubernetes("apps/v1", "StatefulSet", &reads, "the same")
            .wants_kubernetes("v1", "Service", &reads, "to find the Services that lead to them")
            .wants_events("to tell their owners what is wrong with an annotation")
    }
}

/// What there is, and what is wrong with the rest.
#[derive(Default)]
struct Found {
    resources: Vec<Resource>,
    complaints: Vec<Complaint>,
}

/// Something that the owner of a workload should mend.
struct Complaint {
    about: ObjectKey,
    reason: &'static str,
    message: String,
}

/// A workload that asked for something, and the Services that lead to it.
struct Claimant {
    workload: Workload,
    services: Vec<String>,
    /// None: it is left as it is.
    managed: Option<Managed>,
}

impl Claimant {
    fn sleeps(&self) -> bool {
        self.managed.as_ref().is_some_and(Managed::sleeps)
    }

    /// It never asked for sleep, so what stands in the way of that is nothing to it.
    fn is_only_scaled(&self) -> bool {
        self.managed.as_ref().is_some_and(|managed| !managed.sleeps())
    }
}

fn discover() -> Result<Found> {
    let workloads = annotated_workloads()?;
    if workloads.is_empty() {
        return Ok(Found::default());
    }
    let services = services_by_namespace()?;
    let mut found = Found::default();
    let mut claimants = Vec::new();
    for workload in workloads {
        let neighbours = services.get(workload.namespace()).map_or(&[][..], Vec::as_slice);
        let asked = annotations::read(&workload.metadata.annotations);
        let managed = match asked {
            Ok(Request::None) => continue,
            Ok(Request::Paused) => None,
            Ok(Request::Managed(managed)) => Some(managed),
            Err(problems) => {
                found.complain_each(&workload, "InvalidAnnotation", problems);
                None
            }
        };
        let named = managed.as_ref().and_then(|managed| managed.services.as_deref());
        let (services, problem) = choose_services(&workload, named, neighbours);
        // Somebody who stays awake anyway need not hear about Services.
        let managed = match problem {
            Some(problem) if managed.as_ref().is_some_and(Managed::sleeps) => {
                found.complain(&workload, "UnsuitableService", problem);
                managed.and_then(Managed::without_sleep)
            }
            _ => managed,
        };
        claimants.push(Claimant {
            workload,
            services,
            managed,
        });
    }
    let shared = found.complain_about_shared_services(&claimants);
    for (index, claimant) in claimants.into_iter().enumerate() {
        let managed = if shared.contains(&index) {
            claimant.managed.and_then(Managed::without_sleep)
        } else {
            claimant.managed
        };
        if let Some(managed) = managed {
            // Without sleep there is no traffic to divert.
            let services = if managed.sleeps() {
                claimant.services
            } else {
                Vec::new()
            };
            found
                .resources
                .push(resource(&claimant.workload, services, managed));
        }
    }
    found.leave_out_namesakes();
    Ok(found)
}

/// Every workload that carries one of our annotations and is not on its way out.
fn annotated_workloads() -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for kind in kinds::configured()? {
        let list = Workload::list(&kind.api_version, &kind.kind).annotation_prefix(PREFIX);
        match list.fetch() {
            Ok(found) => workloads.extend(found.into_iter().filter(|workload| !workload.is_deleting())),
            // Without the kind there are no objects of it. Any other error means that we cannot know, and then the
            // whole call must fail: what is left out would be woken.
            Err(kubernetes::Error::NotFound(_)) => {
                warn!("the cluster does not know kind {kind}; is its CRD missing?")
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(workloads)
}

fn services_by_namespace() -> Result<BTreeMap<String, Vec<Service>>> {
    let mut services: BTreeMap<String, Vec<Service>> = BTreeMap::new();
    for service in Service::list().fetch()? {
        services
            .entry(service.namespace().to_owned())
            .or_default()
            .push(service);
    }
    Ok(services)
}

/// The Services that an annotation names, else those that select the workload's pods; and why they will not do.
fn choose_services(
    workload: &Workload,
    named: Option<&[String]>,
    neighbours: &[Service],
) -> (Vec<String>, Option<String>) {
    let chosen: Vec<&Service> = match named {
        Some(names) => {
            let find = |name: &String| neighbours.iter().find(|service| service.name() == name);
            if let Some(missing) = names.iter().find(|name| find(name).is_none()) {
                let problem = format!(
                    "annotation dormouse.dev/services names `{missing}`, but there is no such Service"
                );
                return (names.to_vec(), Some(problem));
            }
            names.iter().filter_map(find).collect()
        }
        None => workload.services(neighbours).collect(),
    };
    let names: Vec<String> = chosen.iter().map(|service| service.name().to_owned()).collect();
    if names.is_empty() {
        return (
            names,
            Some(
                "no Service selects its pods, so nothing could wake it; name one in dormouse.dev/services"
                    .into(),
            ),
        );
    }
    (names, None)
}

/// A workload as a resource: what it asks for, with the Services that lead to it.
pub fn resource(workload: &Workload, services: Vec<String>, managed: Managed) -> Resource {
    let mut resource = Resource::of(workload).services(services).rules(managed.rules);
    resource.id.name = kinds::resource_name(workload);
    resource.scaling = managed.scaling;
    resource.readiness_timeout = managed.wake_timeout;
    resource.restore_replicas = managed.replicas;
    resource
}

/// What the owner of a workload is told about a problem with it.
pub fn complaint(problem: impl std::fmt::Display) -> String {
    format!("{problem}. It is left awake.")
}

impl Found {
    fn complain(&mut self, workload: &Workload, reason: &'static str, problem: impl std::fmt::Display) {
        self.complaints.push(Complaint {
            about: workload.key(),
            reason,
            message: complaint(problem),
        });
    }

    fn complain_each(
        &mut self,
        workload: &Workload,
        reason: &'static str,
        problems: Vec<annotations::Problem>,
    ) {
        for problem in problems {
            self.complain(workload, reason, problem);
        }
    }

    /// A Service can wake only one workload, and the sleep of one would take the traffic of the other. So whoever
    /// shares a Service with another claimant is left awake, and both hear about it. The host sees that itself, and says so
    /// on their Sleepers, where both want to sleep. Returned are those whose other has no Sleeper.
    fn complain_about_shared_services(&mut self, claimants: &[Claimant]) -> BTreeSet<usize> {
        let mut claims: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (index, claimant) in claimants.iter().enumerate() {
            for service in &claimant.services {
                claims
                    .entry((claimant.workload.namespace(), service))
                    .or_default()
                    .push(index);
            }
        }
        let mut shared = BTreeSet::new();
        for ((_, service), indices) in claims {
            // Nobody has to hear of it while nobody wants to sleep.
            if indices.len() < 2 || !indices.iter().any(|index| claimants[*index].sleeps()) {
                continue;
            }
            for &index in &indices {
                let others = indices
                    .iter()
                    .filter(|other| **other != index)
                    .map(|other| &claimants[*other].workload);
                let others: Vec<String> = others
                    .map(|other| format!("{} `{}`", other.kind, other.name()))
                    .collect();
                let problem = format!(
                    "dual workloads behind one Service: `{service}` also leads to {}, and can wake only one; give each \
                     a Service of its own, named in dormouse.dev/services",
                    others.join(" and ")
                );
                if !claimants[index].is_only_scaled() {
                    self.complain(&claimants[index].workload, "SharedService", problem);
                }
                if indices
                    .iter()
                    .any(|&other| other != index && !claimants[other].sleeps())
                {
                    shared.insert(index);
                }
            }
        }
        shared
    }

    /// A Deployment `statefulset.web` and a StatefulSet `web` would be one resource. Hardly ever so; but then neither
    /// must be taken for the other.
    fn leave_out_namesakes(&mut self) {
        let mut seen: BTreeMap<ResourceId, u32> = BTreeMap::new();
        for resource in &self.resources {
            *seen.entry(resource.id.clone()).or_default() += 1;
        }
        let (kept, namesakes) = std::mem::take(&mut self.resources)
            .into_iter()
            .partition(|resource| seen[&resource.id] == 1);
        self.resources = kept;
        for resource in namesakes {
            let object = &resource.workloads[0];
            let about = ObjectKey::new(
                &object.api_version,
                &object.kind,
                &resource.id.namespace,
                &object.name,
            );
            let message = format!(
                "two workloads would be the resource `{}`; rename one. It is left awake.",
                resource.id.name
            );
            self.complaints.push(Complaint {
                about,
                reason: "NameCollision",
                message,
            });
        }
    }
}

/// No call writes more Events than this; the next call says the rest.
const MOST_EVENTS: usize = 200;

fn report(complaints: &[Complaint]) {
    for complaint in complaints.iter().take(MOST_EVENTS) {
        kubernetes::warn_about(&complaint.about, complaint.reason, &complaint.message);
    }
    if complaints.len() > MOST_EVENTS {
        warn!(
            "more workloads need attention than one call reports",
            left_over = complaints.len() - MOST_EVENTS
        );
    }
}

#[cfg(test)]
mod tests;
