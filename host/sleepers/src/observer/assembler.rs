//! Makes an observation of the objects that were read and of the caches. No request is made.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::Outages;
use dormouse_kubernetes::services::ports;
use dormouse_kubernetes::slices::addresses;
use dormouse_lifecycle::{
    Demand, Dlx, Epoch, Listed, Observation, OwnSlice, Selector, Service as ServiceState, Workload, Zero,
};
use dormouse_model::ObjectRef;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use tokio::time::Instant;

use super::each_once;
use super::pods::scale_selector;
use crate::api::{AT_ZERO, FENCE, GENERATION, Sleeper};
use crate::caches::Caches;
use crate::dlx::DlxReplicas;
use crate::dlx_ports::PortAllocator;
use crate::key::seed;
use crate::observed::{Observed, ObservedObjects, ObservedService, ObservedWorkload};
use crate::ownership::Ownership;
use crate::services::{family, obstacle, original_selector, selector};
use crate::sleep_note::SleepNote;
use crate::stamps::{stamp, stamps};

/// Assembles observations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Assembler {
    pub(crate) caches: Arc<Caches>,
    pub(crate) ownership: Ownership,
    pub(crate) dlx: DlxReplicas,
    pub(crate) ports: PortAllocator,
    pub(crate) outages: Outages,
    /// For Sleepers that do not say.
    pub(crate) readiness_timeout: Duration,
    /// For workloads that do not say.
    pub(crate) at_zero: Zero,
}

impl Assembler {
    /// The observation of a Sleeper whose objects were read since `read`. Demand, probes and ready pods are not known yet.
    pub(super) fn assemble(&self, sleeper: Sleeper, objects: ObservedObjects, read: Instant) -> Observed {
        let namespace = sleeper.namespace().unwrap_or_default();
        let state = sleeper.status.clone().unwrap_or_default().state;
        let dlx = self.dlx.endpoints();
        let timeout = sleeper.spec.readiness_timeout_millis.map(Duration::from_millis);
        // In the order in which the Sleeper names them.
        let workloads = each_once(&sleeper.spec.workloads)
            .filter_map(|object| Some(self.workload(&sleeper, object, objects.workloads.get(object)?)))
            .collect();
        let services = each_once(&sleeper.spec.services)
            .filter_map(|name| {
                Some(self.service(&sleeper, name, objects.services.get(name)?, &dlx.addresses))
            })
            .collect();
        let mut observed = Observed {
            pods_undecided: false,
            read,
            observation: Observation {
                now: Timestamp::now(),
                seed: seed(&namespace, &sleeper.name_any()),
                state,
                deleting: sleeper.metadata.deletion_timestamp.is_some(),
                readiness_timeout: timeout.unwrap_or(self.readiness_timeout),
                restore_replicas: sleeper.spec.restore_replicas,
                workloads,
                services,
                dlx: Dlx {
                    ready: dlx.addresses,
                    absent_since: dlx.absent_since,
                },
                unanswered_since: None,
                last_outage: self.outages.last(),
                demand: Demand::Unknown,
                rival: self.ownership.rival(&sleeper),
                denied: objects.denied.clone(),
                carried: highest_epoch(&objects),
                lost_ports: self.ports.lost(&sleeper),
                no_port: None,
                // Until the opposite is known.
                pods_left: true,
                ready_pod: false,
            },
            sleeper,
            objects,
        };
        observed.observation.no_port = self.ports.why_exhausted(&observed);
        derive_selectors(&mut observed);
        for service in &mut observed.observation.services {
            if let Some(labels) = service.selector.as_ref().and_then(Selector::labels) {
                service.foreign = self.ownership.foreign(&namespace, &observed.sleeper.spec, labels);
            }
        }
        observed
    }

    fn workload(&self, sleeper: &Sleeper, object: &ObjectRef, observed: &ObservedWorkload) -> Workload {
        let namespace = sleeper.namespace().unwrap_or_default();
        let note = SleepNote::of(&observed.annotations);
        let replicas = observed.replicas().unwrap_or(0);
        let exists = observed.scale.is_some();
        Workload {
            object: object.clone(),
            exists,
            replicas,
            zero: if exists {
                self.zero_of(&observed.annotations)
            } else {
                Zero::StandIn
            },
            autoscaler_minimum: self.autoscaler_minimum(&namespace, object).filter(|_| exists),
            fence: stamp(&observed.annotations, FENCE, &sleeper.uid().unwrap_or_default()),
            held_by: self
                .ownership
                .sleep_of_another(sleeper, object, replicas, note.as_ref()),
            noted: note.map(|note| note.replicas),
        }
    }

    /// What zero replicas mean for a workload with these annotations.
    fn zero_of(&self, annotations: &BTreeMap<String, String>) -> Zero {
        match annotations.get(AT_ZERO).map(|value| value.trim()) {
            Some("off") => Zero::Off,
            Some("stand-in") => Zero::StandIn,
            // The plugins report other values.
            _ => self.at_zero,
        }
    }

    /// The minimum of the HPA that scales a workload, if there is one, as far as is known.
    fn autoscaler_minimum(&self, namespace: &str, object: &ObjectRef) -> Option<i32> {
        let autoscaler = self.caches.autoscaler_of(namespace, object)?;
        Some(autoscaler.spec.min_replicas.unwrap_or(1))
    }

    fn service(
        &self,
        sleeper: &Sleeper,
        name: &str,
        observed: &ObservedService,
        dlx: &[IpAddr],
    ) -> ServiceState {
        let uid = &sleeper.uid().unwrap_or_default();
        let service = observed.service.as_ref();
        let pods = addresses(observed.others.iter(), |ready, terminating| ready && !terminating);
        ServiceState {
            name: name.to_owned(),
            selector: service.map(|service| selector(service, dlx)),
            family: service.and_then(family),
            ports: service.map(ports).unwrap_or_default(),
            own_slice: observed.own.as_ref().map(|slice| own_slice(slice, uid)),
            listed: if pods.is_empty() {
                Listed::Nothing
            } else {
                Listed::ReadyPods
            },
            relisted: false,
            answers: BTreeMap::new(),
            fence: service.and_then(|service| stamp(service.annotations(), FENCE, uid)),
            kept: service.is_none_or(|service| {
                original_selector(service).is_ok_and(|labels| labels.is_some_and(|l| !l.is_empty()))
            }),
            foreign: None,
            held_by: self
                .ownership
                .holder(sleeper, name, service, observed.own.as_ref()),
        }
    }
}

/// The highest epoch that is written on the objects, for any Sleeper.
fn highest_epoch(objects: &ObservedObjects) -> Epoch {
    let workloads = objects.workloads.values().flat_map(|observed| {
        let noted = SleepNote::of(&observed.annotations).map(|note| note.epoch);
        stamps(&observed.annotations, FENCE)
            .map(|(epoch, _)| epoch)
            .chain(noted)
            .collect::<Vec<_>>()
    });
    let services = objects.services.values().flat_map(|observed| {
        let fences = observed
            .service
            .iter()
            .flat_map(|service| stamps(service.annotations(), FENCE).map(|(epoch, _)| epoch));
        let generations = observed
            .own
            .iter()
            .flat_map(|own| stamps(own.annotations(), GENERATION).map(|(generation, _)| generation / 2));
        fences.chain(generations).collect::<Vec<_>>()
    });
    // A number that somebody made up must not exhaust the epochs.
    let sane = |epoch: &Epoch| (0..Epoch::MAX / 4).contains(epoch);
    workloads.chain(services).filter(sane).max().unwrap_or(0)
}

/// Replaces the selectors of parked Services whose annotation is lost: by the Sleeper's own copy, or else by the labels by which its
/// only workload selects its pods.
fn derive_selectors(observed: &mut Observed) {
    let of_workload = only_pod_selector(observed);
    let observation = &mut observed.observation;
    for service in &mut observation.services {
        if service.selector != Some(Selector::Lost) {
            continue;
        }
        let recorded = observation
            .state
            .selectors
            .iter()
            .find(|kept| kept.service == service.name && !kept.labels.is_empty())
            .map(|kept| kept.labels.clone());
        if let Some(labels) = recorded.or_else(|| of_workload.clone()) {
            let found = observed.objects.services.get(&service.name);
            let object = found.and_then(|found| found.service.as_ref());
            let obstacle = object.and_then(|object| obstacle(object, &observation.dlx.ready));
            service.selector = Some(match obstacle {
                Some(why) => Selector::Stranded(labels, why),
                None => Selector::Parked(labels),
            });
        }
    }
}

/// The labels by which the workload selects its pods, if it is the only one that shows its selector.
fn only_pod_selector(observed: &Observed) -> Option<BTreeMap<String, String>> {
    let mut selectors = observed
        .scales()
        .filter_map(|scale| scale.status.as_ref()?.selector.as_deref())
        .map(|text| scale_selector(text)?.as_labels());
    let only = selectors.next().flatten();
    only.filter(|_| selectors.next().is_none())
}

fn own_slice(slice: &EndpointSlice, uid: &str) -> OwnSlice {
    let mut ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some((
                port.name.clone().unwrap_or_default(),
                u16::try_from(port.port?).ok()?,
            ))
        })
        .collect();
    ports.sort();
    OwnSlice {
        addresses: addresses(std::iter::once(slice), |_, _| true),
        ports,
        generation: stamp(slice.annotations(), GENERATION, uid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SleeperSpec;

    #[test]
    fn a_slice_that_was_written_reads_back_as_wanted() {
        let mut sleeper = Sleeper::new("web.workloads", SleeperSpec::default());
        sleeper.metadata.uid = Some("u".into());
        let wanted = OwnSlice {
            addresses: vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()],
            ports: vec![("a".into(), 20002), ("b".into(), 20001)],
            generation: Some(3),
        };
        let written = crate::executor::slice(&sleeper, "web", &wanted, &BTreeMap::new());
        assert_eq!(own_slice(&written, "u"), wanted);
        assert_eq!(own_slice(&written, "other").generation, None);
    }
}
