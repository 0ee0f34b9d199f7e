//! What one observation of a Sleeper found, with the versions of the objects that writes are conditional on.

use std::collections::BTreeMap;

use dormouse_lifecycle::Observation;
use dormouse_model::ObjectRef;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::core::ApiResource;
use tokio::time::Instant;

use crate::api::{Sleeper, SleeperSpec};
use crate::slices::{is_own, own_slice_name};

/// What was observed.
#[derive(Clone, Debug)]
pub struct Observed {
    pub(crate) observation: Observation,
    pub(crate) sleeper: Sleeper,
    pub(crate) objects: ObservedObjects,
    /// When the reading began.
    pub(crate) read: Instant,
    /// There are ready pods, but they do not accept connections or are not old enough to trust: no watch tells when that changes.
    pub(crate) pods_undecided: bool,
}

/// The objects that a Sleeper names, as they were read or, since then, written.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObservedObjects {
    pub(crate) workloads: BTreeMap<ObjectRef, ObservedWorkload>,
    pub(crate) services: BTreeMap<String, ObservedService>,
    /// Why its owner may not put it to sleep, where that was asked.
    pub(crate) denied: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ObservedWorkload {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    /// None: it does not exist.
    pub(crate) scale: Option<Scale>,
    pub(crate) version: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ObservedService {
    /// None: the Service does not exist, but may have left its slice.
    pub(crate) service: Option<Service>,
    /// Dormouse's slice.
    pub(crate) own: Option<EndpointSlice>,
    /// The cluster's own slices.
    pub(crate) others: Vec<EndpointSlice>,
}

/// What an observation found that the caches do not hold. With it, the caches tell whether there is still nothing to do.
#[derive(Clone, Debug)]
pub(crate) struct Uncached {
    pub(crate) spec: SleeperSpec,
    /// Without Services: these are in the caches.
    pub(crate) objects: ObservedObjects,
}

/// An object that a step wrote, as the API server returned it.
pub(crate) enum Written {
    Sleeper(Box<Sleeper>),
    Service(Box<Service>),
    /// Dormouse's slice of this Service; none when it was deleted.
    Slice(String, Option<Box<EndpointSlice>>),
    Workload(ObjectRef, Box<ObservedWorkload>),
    /// The Sleeper may be gone now.
    FinalizerRemoved,
}

impl Observed {
    /// What [`dormouse_lifecycle::next`] decides on.
    pub fn observation(&self) -> &Observation {
        &self.observation
    }

    /// The Sleeper as it was read.
    pub fn sleeper(&self) -> &Sleeper {
        &self.sleeper
    }

    /// The namespace of the Sleeper and of all objects that it names.
    pub(crate) fn namespace(&self) -> String {
        self.sleeper.namespace().unwrap_or_default()
    }

    /// The uid of the Sleeper.
    pub(crate) fn uid(&self) -> String {
        self.sleeper.uid().unwrap_or_default()
    }

    /// A Service, if it was found.
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.objects.services.get(name)?.service.as_ref()
    }

    /// Dormouse's slice of a Service, if it was found.
    pub(crate) fn own_slice(&self, service: &str) -> Option<&EndpointSlice> {
        self.objects.services.get(service)?.own.as_ref()
    }

    /// All Services that were found.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Service> + Clone {
        let services = self.objects.services.values();
        services.filter_map(|observed| observed.service.as_ref())
    }

    /// The scales of all workloads that exist.
    pub(crate) fn scales(&self) -> impl Iterator<Item = &Scale> + Clone {
        let workloads = self.objects.workloads.values();
        workloads.filter_map(|workload| workload.scale.as_ref())
    }

    /// What the caches do not hold of it.
    pub(crate) fn uncached(&self) -> Uncached {
        Uncached {
            spec: self.sleeper.spec.clone(),
            objects: ObservedObjects {
                services: BTreeMap::new(),
                ..self.objects.clone()
            },
        }
    }

    /// Replaces an object by what a step made of it, so that the next step can be decided and carried out on that.
    pub(crate) fn replace(&mut self, written: Written) {
        match written {
            Written::Sleeper(sleeper) => self.sleeper = *sleeper,
            Written::Service(service) => {
                let name = service.name_any();
                if let Some(observed) = self.objects.services.get_mut(&name) {
                    observed.service = Some(*service);
                }
            }
            Written::Slice(service, own) => {
                if let Some(observed) = self.objects.services.get_mut(&service) {
                    observed.own = own.map(|own| *own);
                }
            }
            Written::Workload(object, workload) => {
                self.objects.workloads.insert(object, *workload);
            }
            Written::FinalizerRemoved => {}
        }
    }
}

impl ObservedWorkload {
    /// A workload that does not exist.
    pub(crate) fn missing(resource: ApiResource, namespaced: bool) -> Self {
        Self {
            resource,
            namespaced,
            scale: None,
            version: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Its desired replicas. None for 0 too, which the API server leaves out.
    pub(crate) fn replicas(&self) -> Option<i32> {
        self.scale.as_ref()?.spec.as_ref()?.replicas
    }
}

impl ObservedService {
    pub(crate) fn new(
        name: &str,
        service: Option<Service>,
        slices: impl Iterator<Item = EndpointSlice>,
    ) -> Self {
        let own_name = own_slice_name(name);
        let (own, others): (Vec<_>, Vec<_>) =
            slices.partition(|slice| is_own(slice.labels()) && slice.name_any() == own_name);
        Self {
            service: service.filter(|service| service.metadata.deletion_timestamp.is_none()),
            own: own.into_iter().next(),
            others,
        }
    }
}
