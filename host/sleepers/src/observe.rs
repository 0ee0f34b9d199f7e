//! Gathers everything that the protocol looks at.
//!
//! Workloads and Services are read first and the Sleeper last, all of them fresh. A write that is conditional on the version
//! of a workload can then never slip past a wake that the observation has not seen. What belongs to a stage only is asked for
//! in that stage: probes while diverted, demand while draining, connections to pods while waking.

pub(crate) mod pods;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dormouse_kubernetes::services::ports;
use dormouse_kubernetes::slices::{SERVICE_NAME_LABEL, addresses};
use dormouse_kubernetes::{ClusterError, optional, scaled_by};
use dormouse_lifecycle::{
    Demand, Dlx, Epoch, Listed, Observation, OwnSlice, Selector, Service as SeenService, Wish, Workload, Zero,
};
use dormouse_model::{ObjectRef, Phase};
use futures::StreamExt;
use futures::future::{try_join, try_join_all, try_join3};
use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::ApiResource;
use tokio::time::Instant;

use crate::api::{AT_ZERO, FENCE, Sleeper, SleeperSpec, TURN};
use crate::endpoints::{is_own, own_slice_name};
use crate::ownership::Note;
use crate::services::{family, obstacle, original_selector, selector};
use crate::sleepers::own_seed;
use crate::{Cluster, WishError};

/// Sleepers that may share an object and have their stamps on it.
const SHARERS: usize = 8;
/// Probes that are under way at once.
const PROBES: usize = 16;

/// What was seen, with the versions that writes are conditional on.
#[derive(Clone, Debug)]
pub struct Seen {
    pub(crate) observation: Observation,
    pub(crate) sleeper: Sleeper,
    pub(crate) parts: Parts,
    /// When the reading began.
    pub(crate) read: Instant,
    /// There are ready pods, but they do not accept connections or are not old enough to trust: nothing will tell when.
    pub(crate) pods_undecided: bool,
}

/// The objects that a Sleeper names, as they were read or, since then, written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) workloads: BTreeMap<ObjectRef, WorkloadVersion>,
    pub(crate) services: BTreeMap<String, ServiceVersion>,
    /// Why its owner may not put it to sleep, where that was asked.
    pub(crate) denied: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct WorkloadVersion {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    /// None: it does not exist.
    pub(crate) scale: Option<Scale>,
    pub(crate) version: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServiceVersion {
    /// None: the Service does not exist, but may have left its slice.
    pub(crate) service: Option<Service>,
    pub(crate) own: Option<EndpointSlice>,
    /// The cluster's own slices.
    pub(crate) others: Vec<EndpointSlice>,
}

/// What a look found out that caches do not hold. With it, caches alone tell whether there is still nothing to do.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    spec: SleeperSpec,
    parts: Parts,
}

impl Seen {
    /// What [`dormouse_lifecycle::next`] looks at.
    pub fn observation(&self) -> &Observation {
        &self.observation
    }

    /// The Sleeper as it was read.
    pub fn sleeper(&self) -> &Sleeper {
        &self.sleeper
    }

    /// What to remember for [`Cluster::glance`]. Services and slices are in caches.
    pub(crate) fn remembered(&self) -> Remembered {
        Remembered {
            spec: self.sleeper.spec.clone(),
            parts: Parts {
                services: BTreeMap::new(),
                ..self.parts.clone()
            },
        }
    }
}

impl Cluster {
    /// Looks at everything that belongs to a Sleeper.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] when there is no such Sleeper; [`ClusterError::NoKind`] when a workload's kind is not served; what the API server says.
    pub async fn observe(&self, namespace: &str, name: &str) -> Result<Seen, ClusterError> {
        let begun = Instant::now();
        let mut guess = match self.sleeper_named(namespace, name) {
            Some(known) => (*known).clone(),
            None => self.fetch(namespace, name).await?,
        };
        // The spec decides what to read. If it changed meanwhile, read again; it changes rarely.
        loop {
            let mut parts = self.parts(namespace, &guess).await?;
            let sleeper = self.fetch(namespace, name).await?;
            if sleeper.spec == guess.spec && sleeper.uid() == guess.uid() {
                parts.denied = self.denied(&sleeper).await?;
                let seen = self.complete(sleeper, parts, begun).await;
                self.inner.metrics.observed(begun.elapsed());
                return Ok(seen);
            }
            guess = sleeper;
        }
    }

    /// The same after a write, with what it returned: of the other objects nothing newer is known. What is decided by that is
    /// conditional on their versions, as ever.
    pub(crate) async fn observe_again(&self, mut seen: Seen) -> Result<Seen, ClusterError> {
        seen.parts.denied = self.denied(&seen.sleeper).await?;
        Ok(self.complete(seen.sleeper, seen.parts, seen.read).await)
    }

    /// What caches tell, with what an earlier look found out about workloads. It makes no request. None: that is not enough to
    /// know whether there is something to do.
    pub(crate) fn glance(&self, namespace: &str, name: &str, known: &Remembered) -> Option<Seen> {
        let sleeper = self.sleeper_named(namespace, name)?;
        if sleeper.spec != known.spec || sleeper.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let mut parts = known.parts.clone();
        for service in each_once(&sleeper.spec.services) {
            let object = self.service(namespace, service);
            let slices = self.slices_of(namespace, service);
            let object = object.map(|object| (*object).clone());
            let slices = slices.iter().map(|slice| (**slice).clone());
            parts
                .services
                .insert(service.clone(), ServiceVersion::new(service, object, slices));
        }
        let mut seen = self.assemble((*sleeper).clone(), parts, Instant::now());
        let (phase, observation) = (seen.observation.state.phase, &seen.observation);
        let asks = |service: &SeenService| !observation.to_ask(service).is_empty();
        let unknown = match phase {
            Phase::Draining => self.is_drained(observation),
            Phase::Asleep => !observation.state.pods_gone && !self.pods_behind(namespace, &seen),
            _ => false,
        };
        if unknown || observation.services.iter().any(asks) {
            return None;
        }
        self.note_unanswered(&mut seen);
        if matches!(phase, Phase::Waking | Phase::Ready | Phase::Awake) {
            self.relisted(namespace, &mut seen);
        }
        if phase == Phase::Waking && !self.only_unready_pods(namespace, &seen) {
            return None;
        }
        Some(seen)
    }

    async fn parts(&self, namespace: &str, sleeper: &Sleeper) -> Result<Parts, ClusterError> {
        let deleting = sleeper.metadata.deletion_timestamp.is_some();
        let workloads = each_once(&sleeper.spec.workloads).map(async |object| {
            let version = self.workload(namespace, object, deleting).await?;
            Ok::<_, ClusterError>((object.clone(), version))
        });
        let services = each_once(&sleeper.spec.services).map(async |name| {
            let version = self.read_service(namespace, name).await?;
            Ok::<_, ClusterError>((name.clone(), version))
        });
        let (workloads, services, ()) = try_join3(
            try_join_all(workloads),
            try_join_all(services),
            self.list_autoscalers(namespace, &sleeper.spec),
        )
        .await?;
        Ok(Parts {
            workloads: workloads.into_iter().collect(),
            services: services.into_iter().collect(),
            denied: None,
        })
    }

    /// Why its owner may not put it to sleep. Asked in every phase: labels and grants change, and a Sleeper may have been written
    /// by hand.
    async fn denied(&self, sleeper: &Sleeper) -> Result<Option<String>, ClusterError> {
        let wish = sleeper.status.as_ref().map(|status| status.state.wish);
        if matches!(wish, None | Some(Wish::Awake)) {
            return Ok(None);
        }
        match self.may_sleep(sleeper).await {
            Err(WishError::Denied(why)) => Ok(Some(why)),
            Err(WishError::Cluster(error)) => Err(error),
            Ok(()) | Err(_) => Ok(None),
        }
    }

    async fn workload(
        &self,
        namespace: &str,
        object: &ObjectRef,
        deleting: bool,
    ) -> Result<WorkloadVersion, ClusterError> {
        let server = &self.inner.server;
        let kind = match server.kind(&object.api_version, &object.kind).await {
            Ok(kind) => kind,
            // Without its kind there is no object, and a Sleeper that goes must not wait for one.
            Err(ClusterError::NoKind { .. }) if deleting => {
                let gvk = kube::core::GroupVersionKind::gvk("", "", &object.kind);
                return Ok(WorkloadVersion::gone(ApiResource::from_gvk(&gvk), true));
            }
            Err(error) => return Err(error),
        };
        let api = server.api_of(namespace, &kind.resource, kind.namespaced);
        let what = || format!("{} {}", object.kind, object.name);
        let scale_of = || format!("the scale of {} {}", object.kind, object.name);
        let (metadata, scale) = try_join(
            async { optional(server.ask(what, api.get_metadata(&object.name)).await) },
            async { optional(server.ask(scale_of, api.get_scale(&object.name)).await) },
        )
        .await?;
        let Some(metadata) = metadata.filter(|found| found.metadata.deletion_timestamp.is_none()) else {
            return Ok(WorkloadVersion::gone(kind.resource, kind.namespaced));
        };
        let Some(scale) = scale else {
            return Err(ClusterError::Invalid {
                what: scale_of(),
                message: "there is none: the kind has no scale subresource, or the object has just gone"
                    .to_owned(),
            });
        };
        Ok(WorkloadVersion {
            resource: kind.resource,
            namespaced: kind.namespaced,
            scale: Some(scale),
            version: metadata.resource_version(),
            annotations: metadata.annotations().clone(),
        })
    }

    fn seen_workload(&self, sleeper: &Sleeper, object: &ObjectRef, version: &WorkloadVersion) -> Workload {
        let namespace = sleeper.namespace().unwrap_or_default();
        let note = Note::of(&version.annotations);
        // Zero is left out by the API server.
        let replicas = version.replicas().unwrap_or(0);
        let exists = version.scale.is_some();
        Workload {
            object: object.clone(),
            exists,
            replicas,
            zero: if exists {
                self.zero_of(&version.annotations)
            } else {
                Zero::StandIn
            },
            autoscaler_minimum: self.autoscaler_minimum(&namespace, object).filter(|_| exists),
            fence: stamp(&version.annotations, FENCE, &sleeper.uid().unwrap_or_default()),
            held_by: self.sleep_of_another(sleeper, object, replicas, note.as_ref()),
            noted: note.map(|note| note.replicas),
        }
    }

    /// What zero replicas mean for a workload with these annotations.
    fn zero_of(&self, annotations: &BTreeMap<String, String>) -> Zero {
        match annotations.get(AT_ZERO).map(|value| value.trim()) {
            Some("off") => Zero::Off,
            Some("stand-in") => Zero::StandIn,
            // Whoever reads annotations for people complains about others.
            _ => self.inner.config.at_zero,
        }
    }

    /// The minimum of the HPA that scales a workload, if there is one, as far as is known.
    fn autoscaler_minimum(&self, namespace: &str, object: &ObjectRef) -> Option<i32> {
        let scaling = self
            .inner
            .caches
            .autoscalers
            .with(scaled_by(namespace, &object.kind, &object.name));
        let autoscaler = scaling.iter().find(|autoscaler| {
            let target = &autoscaler.spec.scale_target_ref;
            target.kind == object.kind && target.name == object.name
        })?;
        Some(autoscaler.spec.min_replicas.unwrap_or(1))
    }

    /// Lists the HPAs of a namespace where they may not be watched, or the watch has no list yet.
    async fn list_autoscalers(&self, namespace: &str, spec: &SleeperSpec) -> Result<(), ClusterError> {
        let autoscalers = &self.inner.caches.autoscalers;
        if autoscalers.synced() || spec.workloads.is_empty() || spec.restore_replicas.is_some() {
            return Ok(());
        }
        let api = self.inner.server.api::<HorizontalPodAutoscaler>(namespace);
        // What the API server has at hand will do: a list that has to be the newest may wait for etcd while a wake waits for it.
        let at_hand = ListParams::default().match_any();
        let what = || "HorizontalPodAutoscalers".to_owned();
        match self.inner.server.ask(what, api.list(&at_hand)).await {
            Ok(list) => autoscalers.replace_namespace(namespace, list.items),
            // Replicas from before are a good answer too: a wake must not fail for want of a better one.
            Err(error) => {
                tracing::debug!(namespace, %error, "HPAs could not be listed; replicas from before are restored");
            }
        }
        Ok(())
    }

    async fn read_service(&self, namespace: &str, name: &str) -> Result<ServiceVersion, ClusterError> {
        let server = &self.inner.server;
        let (services, slices) = (
            server.api::<Service>(namespace),
            server.api::<EndpointSlice>(namespace),
        );
        let of_service = ListParams::default().labels(&format!("{SERVICE_NAME_LABEL}={name}"));
        let (service, slices) = try_join(
            async {
                let what = || format!("Service {name}");
                optional(server.ask(what, services.get(name)).await)
            },
            server.ask(
                || format!("EndpointSlices of Service {name}"),
                slices.list(&of_service),
            ),
        )
        .await?;
        Ok(ServiceVersion::new(name, service, slices.items.into_iter()))
    }

    fn seen_service(
        &self,
        sleeper: &Sleeper,
        name: &str,
        version: &ServiceVersion,
        dlx: &[IpAddr],
    ) -> SeenService {
        let uid = &sleeper.uid().unwrap_or_default();
        let service = version.service.as_ref();
        let pods = addresses(version.others.iter(), |ready, terminating| ready && !terminating);
        SeenService {
            name: name.to_owned(),
            selector: service.map(|service| selector(service, dlx)),
            family: service.and_then(family),
            ports: service.map(ports).unwrap_or_default(),
            own_slice: version.own.as_ref().map(|slice| own_slice(slice, uid)),
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
            held_by: self.holder(sleeper, name, service, version.own.as_ref()),
        }
    }

    /// What follows from the objects and the caches alone.
    fn assemble(&self, sleeper: Sleeper, parts: Parts, read: Instant) -> Seen {
        let namespace = sleeper.namespace().unwrap_or_default();
        let state = sleeper.status.clone().unwrap_or_default().state;
        let found = self.dlx_endpoints();
        let timeout = sleeper.spec.readiness_timeout_millis.map(Duration::from_millis);
        // In the order in which the Sleeper names them.
        let workloads = each_once(&sleeper.spec.workloads)
            .filter_map(|object| Some(self.seen_workload(&sleeper, object, parts.workloads.get(object)?)))
            .collect();
        let services = each_once(&sleeper.spec.services)
            .filter_map(|name| {
                Some(self.seen_service(&sleeper, name, parts.services.get(name)?, &found.addresses))
            })
            .collect();
        let mut seen = Seen {
            pods_undecided: false,
            read,
            observation: Observation {
                now: self.now(),
                seed: own_seed(&namespace, &sleeper.name_any()),
                state,
                deleting: sleeper.metadata.deletion_timestamp.is_some(),
                readiness_timeout: timeout.unwrap_or(self.inner.config.readiness_timeout),
                restore_replicas: sleeper.spec.restore_replicas,
                workloads,
                services,
                dlx: Dlx {
                    ready: found.addresses,
                    absent_since: found.absent_since,
                },
                unanswered_since: None,
                last_outage: self.inner.outages.last(),
                demand: Demand::Unknown,
                rival: self.rival(&sleeper),
                denied: parts.denied.clone(),
                carried: carried(&parts),
                lost_ports: self.lost_ports(&sleeper),
                no_port: None,
                // Until the opposite is known.
                pods_left: true,
                ready_pod: false,
            },
            sleeper,
            parts,
        };
        seen.observation.no_port = self.no_port(&seen);
        derive_selectors(&mut seen);
        for service in &mut seen.observation.services {
            if let Some(labels) = service.selector.as_ref().and_then(Selector::labels) {
                service.foreign = self.foreign(&namespace, &seen.sleeper.spec, labels);
            }
        }
        seen
    }

    /// Adds what the stage asks for.
    async fn complete(&self, sleeper: Sleeper, parts: Parts, read: Instant) -> Seen {
        let mut seen = self.assemble(sleeper, parts, read);
        let namespace = &seen.sleeper.namespace().unwrap_or_default();
        let (phase, deleting) = (seen.observation.state.phase, seen.observation.deleting);
        self.probe(&mut seen).await;
        self.note_unanswered(&mut seen);
        if !deleting && phase == Phase::Draining && self.is_drained(&seen.observation) {
            seen.observation.demand = self.demand(&seen.sleeper).await;
        }
        if phase == Phase::Asleep && !seen.observation.state.pods_gone {
            seen.observation.pods_left = self.pods_left(namespace, &seen);
        }
        if matches!(phase, Phase::Waking | Phase::Ready | Phase::Awake) {
            self.relisted(namespace, &mut seen);
        }
        if phase == Phase::Waking {
            (seen.observation.ready_pod, seen.pods_undecided) = self.ready_pod(namespace, &seen).await;
        }
        seen.observation.now = self.now();
        seen
    }

    fn note_unanswered(&self, seen: &mut Seen) {
        let unanswered = seen.observation.unanswered().is_some();
        let key = (
            seen.sleeper.namespace().unwrap_or_default(),
            seen.sleeper.name_any(),
        );
        seen.observation.unanswered_since = self.inner.unanswered.update(key, unanswered, self.now());
    }

    /// Whether it is time to ask for demand: nothing reaches the pods any more, and open connections had their grace.
    fn is_drained(&self, seen: &Observation) -> bool {
        let grace =
            SignedDuration::try_from(self.inner.config.timings.drain_grace).unwrap_or(SignedDuration::MAX);
        let over = seen
            .state
            .since
            .is_none_or(|since| self.now().duration_since(since) >= grace);
        over && seen
            .services
            .iter()
            .all(|service| service.listed == Listed::Nothing)
    }

    /// Asks the DLX replicas that matter, on every port of a Service, whether they stand in for this Sleeper.
    async fn probe(&self, seen: &mut Seen) {
        let uid = seen.sleeper.uid().unwrap_or_default();
        let asked: Vec<_> = seen
            .observation
            .services
            .iter()
            .map(|service| {
                (
                    seen.observation.to_ask(service),
                    seen.observation.dlx_ports(service),
                )
            })
            .collect();
        for (service, (asked, ports)) in seen.observation.services.iter_mut().zip(asked) {
            let targets: Vec<_> = asked
                .iter()
                .flat_map(|ip| ports.iter().map(|(_, port)| SocketAddr::new(*ip, *port)))
                .collect();
            service.answers = asked.into_iter().map(|ip| (ip, Ok(()))).collect();
            let failed = futures::stream::iter(targets)
                .map(async |target| Some((target.ip(), self.inner.dlx.probe(target, &uid).await.err()?)))
                .buffer_unordered(PROBES)
                .filter_map(std::future::ready)
                .collect::<Vec<_>>()
                .await;
            service
                .answers
                .extend(failed.into_iter().map(|(ip, how)| (ip, Err(how))));
        }
    }
}

/// What is named twice is one thing all the same.
fn each_once<T: PartialEq>(named: &[T]) -> impl Iterator<Item = &T> {
    let first = |index: usize, one: &T| named.iter().position(|other| other == one) == Some(index);
    let all = named.iter().enumerate();
    all.filter(move |(index, one)| first(*index, one))
        .map(|(_, one)| one)
}

impl WorkloadVersion {
    fn gone(resource: ApiResource, namespaced: bool) -> Self {
        Self {
            resource,
            namespaced,
            scale: None,
            version: None,
            annotations: BTreeMap::new(),
        }
    }

    fn replicas(&self) -> Option<i32> {
        self.scale.as_ref()?.spec.as_ref()?.replicas
    }
}

impl ServiceVersion {
    fn new(name: &str, service: Option<Service>, slices: impl Iterator<Item = EndpointSlice>) -> Self {
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

/// The highest epoch that the objects carry, whoever wrote it there.
fn carried(parts: &Parts) -> Epoch {
    let workloads = parts.workloads.values().flat_map(|version| {
        let noted = Note::of(&version.annotations).map(|note| note.epoch);
        stamps(&version.annotations, FENCE)
            .map(|(epoch, _)| epoch)
            .chain(noted)
            .collect::<Vec<_>>()
    });
    let services = parts.services.values().flat_map(|version| {
        let fences = version
            .service
            .iter()
            .flat_map(|service| stamps(service.annotations(), FENCE).map(|(epoch, _)| epoch));
        let turns = version
            .own
            .iter()
            .flat_map(|own| stamps(own.annotations(), TURN).map(|(turn, _)| turn / 2));
        fences.chain(turns).collect::<Vec<_>>()
    });
    // A number that somebody made up must not leave no room above it.
    let sane = |epoch: &Epoch| (0..Epoch::MAX / 4).contains(epoch);
    workloads.chain(services).filter(sane).max().unwrap_or(0)
}

/// Where a parked Service does not tell any more how it selected its pods: the Sleeper's own copy, or else the labels by which
/// its only workload selects them.
fn derive_selectors(seen: &mut Seen) {
    let mut selectors = seen
        .parts
        .workloads
        .values()
        .filter_map(|version| version.scale.as_ref()?.status.as_ref()?.selector.as_deref())
        .map(|text| pods::scale_selector(text)?.as_labels());
    let of_workload = selectors.next().flatten().filter(|_| selectors.next().is_none());
    let observation = &mut seen.observation;
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
            let version = seen.parts.services.get(&service.name);
            let object = version.and_then(|version| version.service.as_ref());
            let obstacle = object.and_then(|object| obstacle(object, &observation.dlx.ready));
            service.selector = Some(match obstacle {
                Some(why) => Selector::Stranded(labels, why),
                None => Selector::Parked(labels),
            });
        }
    }
}

/// A number that was written for the Sleeper of this uid. That of another Sleeper is none: numbers are each one's own.
fn stamp(annotations: &BTreeMap<String, String>, name: &str, uid: &str) -> Option<i64> {
    stamps(annotations, name)
        .find(|(_, owner)| *owner == uid)
        .map(|(number, _)| number)
}

/// Numbers with the uids of the Sleepers that they were written for. What cannot be read is left out.
fn stamps<'a>(
    annotations: &'a BTreeMap<String, String>,
    name: &str,
) -> impl Iterator<Item = (i64, &'a str)> + use<'a> {
    annotations
        .get(name)
        .into_iter()
        .flat_map(|text| text.split(','))
        .filter_map(|one| {
            let (number, uid) = one.split_once('@')?;
            Some((number.parse().ok()?, uid))
        })
}

/// The stamps of an object with that of one Sleeper renewed. Those of others that share it stay, so that they need not write
/// theirs again; of more than a few, the last that were written.
pub(crate) fn restamped(
    annotations: &BTreeMap<String, String>,
    name: &str,
    number: i64,
    uid: &str,
) -> String {
    let mut all: Vec<_> = stamps(annotations, name)
        .filter(|(_, owner)| *owner != uid)
        .map(|(number, owner)| stamped(number, owner))
        .collect();
    all.push(stamped(number, uid));
    all.split_off(all.len().saturating_sub(SHARERS)).join(",")
}

/// A stamp as the value of a label, which may not hold an `@`.
pub(crate) fn as_label(stamp: &str) -> String {
    stamp.replace('@', ".")
}

/// How [`stamp`] is written.
pub(crate) fn stamped(number: i64, uid: &str) -> String {
    format!("{number}@{uid}")
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
        turn: stamp(slice.annotations(), TURN, uid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_another_sleeper_are_none() {
        let annotations = BTreeMap::from([(FENCE.to_owned(), stamped(7, "mine"))]);
        assert_eq!(stamp(&annotations, FENCE, "mine"), Some(7));
        assert_eq!(stamp(&annotations, FENCE, "other"), None);
        assert_eq!(stamp(&annotations, TURN, "mine"), None);
        let both = restamped(&annotations, FENCE, 3, "other");
        assert_eq!(
            both, "7@mine,3@other",
            "whoever shares an object need not write again"
        );
        let annotations = BTreeMap::from([(FENCE.to_owned(), format!("odd,{both},@,x@y"))]);
        assert_eq!(stamp(&annotations, FENCE, "mine"), Some(7));
        assert_eq!(restamped(&annotations, FENCE, 8, "mine"), "3@other,8@mine");
    }

    #[test]
    fn a_slice_that_was_written_reads_back_as_wanted() {
        let mut sleeper = Sleeper::new("web.workloads", SleeperSpec::default());
        sleeper.metadata.uid = Some("u".into());
        let wanted = OwnSlice {
            addresses: vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()],
            ports: vec![("a".into(), 20002), ("b".into(), 20001)],
            turn: Some(3),
        };
        let written = crate::carry_out::slice(&sleeper, "web", &wanted, &BTreeMap::new());
        assert_eq!(own_slice(&written, "u"), wanted);
        assert_eq!(own_slice(&written, "other").turn, None);
    }
}
