//! Observes everything that the protocol decides on.
//!
//! Workloads and Services are read first and the Sleeper last, all of them from the API server. A write that is conditional on the
//! version of a workload can then never slip past a wake that the observation has not seen. What only one phase needs is asked for
//! in that phase: probes while diverted, demand while draining, connections to pods while waking.

mod assembler;
mod pods;
mod reader;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{ApiServer, ClusterError};
use dormouse_lifecycle::{DesiredState, Listed, Observation};
use dormouse_model::Phase;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tokio::time::Instant;

pub(crate) use self::assembler::Assembler;
pub(crate) use self::pods::{PodObserver, scale_selector};
use self::reader::ObjectReader;
use crate::Metrics;
use crate::api::Sleeper;
use crate::caches::Caches;
use crate::demand::DemandClient;
use crate::dlx_client::DlxClient;
use crate::observed::{Observed, ObservedObjects, ObservedService, Uncached};
use crate::permission::{PermissionError, SleepPermission};
use crate::since::Since;
use crate::writer::SleeperWriter;

/// Probes that are under way at once.
const PROBES: usize = 16;

/// Observes Sleepers. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    caches: Arc<Caches>,
    reader: ObjectReader,
    sleepers: SleeperWriter,
    permission: SleepPermission,
    assembler: Assembler,
    pods: PodObserver,
    probes: DlxClient,
    demand: DemandClient,
    metrics: Metrics,
    /// How long open connections may go on before demand is asked for.
    drain_grace: Duration,
    /// Since when a DLX has not answered for a Sleeper, by namespace and name.
    unanswered: Arc<Since<(String, String)>>,
}

/// What an [`Observer`] is made of.
pub(crate) struct ObserverParts {
    pub(crate) server: ApiServer,
    pub(crate) caches: Arc<Caches>,
    pub(crate) sleepers: SleeperWriter,
    pub(crate) permission: SleepPermission,
    pub(crate) assembler: Assembler,
    pub(crate) pods: PodObserver,
    pub(crate) probes: DlxClient,
    pub(crate) demand: DemandClient,
    pub(crate) metrics: Metrics,
    pub(crate) drain_grace: Duration,
}

impl Observer {
    pub(crate) fn new(parts: ObserverParts) -> Self {
        Self {
            reader: ObjectReader::new(parts.server, Arc::clone(&parts.caches)),
            caches: parts.caches,
            sleepers: parts.sleepers,
            permission: parts.permission,
            assembler: parts.assembler,
            pods: parts.pods,
            probes: parts.probes,
            demand: parts.demand,
            metrics: parts.metrics,
            drain_grace: parts.drain_grace,
            unanswered: Arc::default(),
        }
    }

    /// Observes everything that belongs to a Sleeper.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] when there is no such Sleeper; [`ClusterError::NoKind`] when a workload's kind is not served; what the API server says.
    pub async fn observe(&self, namespace: &str, name: &str) -> Result<Observed, ClusterError> {
        let begun = Instant::now();
        let mut expected = match self.caches.sleepers.get(namespace, name) {
            Some(known) => (*known).clone(),
            None => self.sleepers.fetch(namespace, name).await?,
        };
        // The spec decides what to read. If it changed meanwhile, read again; it changes rarely.
        loop {
            let mut objects = self.reader.read(namespace, &expected).await?;
            let sleeper = self.sleepers.fetch(namespace, name).await?;
            if sleeper.spec == expected.spec && sleeper.uid() == expected.uid() {
                objects.denied = self.denied(&sleeper).await?;
                let observed = self.complete(sleeper, objects, begun).await;
                self.metrics.observed(begun.elapsed());
                return Ok(observed);
            }
            expected = sleeper;
        }
    }

    /// The observation after a write, with the object that it returned. The other objects are not read again: what is decided is
    /// conditional on their versions.
    pub(crate) async fn observe_after_write(&self, mut observed: Observed) -> Result<Observed, ClusterError> {
        observed.objects.denied = self.denied(&observed.sleeper).await?;
        Ok(self
            .complete(observed.sleeper, observed.objects, observed.read)
            .await)
    }

    /// The observation from the caches and from what an earlier one found out about workloads. It makes no request. None: that is
    /// not enough to know whether there is something to do.
    pub(crate) fn observe_caches(&self, namespace: &str, name: &str, known: &Uncached) -> Option<Observed> {
        let sleeper = self.caches.sleepers.get(namespace, name)?;
        if sleeper.spec != known.spec || sleeper.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let mut objects = known.objects.clone();
        for service in each_once(&sleeper.spec.services) {
            let object = self.caches.services.get(namespace, service);
            let slices = self.caches.slices_of(namespace, service);
            let object = object.map(|object| (*object).clone());
            let slices = slices.iter().map(|slice| (**slice).clone());
            let observed = ObservedService::new(service, object, slices);
            objects.services.insert(service.clone(), observed);
        }
        let mut observed = self
            .assembler
            .assemble((*sleeper).clone(), objects, Instant::now());
        let (phase, observation) = (observed.observation.state.phase, &observed.observation);
        let needs_request = match phase {
            Phase::Draining => self.is_drained(observation),
            Phase::Asleep => !observation.state.pods_gone && !self.pods.any_behind_services(&observed),
            _ => false,
        };
        let mut services = observation.services.iter();
        if needs_request || services.any(|service| !observation.to_ask(service).is_empty()) {
            return None;
        }
        self.note_unanswered(&mut observed);
        if matches!(phase, Phase::Waking | Phase::Ready | Phase::Awake) {
            self.pods.note_relisted(&mut observed);
        }
        if phase == Phase::Waking {
            if !self.pods.only_unready(&observed) {
                return None;
            }
            observed.observation.pods_left = self.pods.any_from_before(&observed);
        }
        Some(observed)
    }

    /// Forgets a Sleeper that is gone.
    pub(crate) fn forget(&self, name: &(String, String)) {
        self.unanswered.update(name.clone(), false, Timestamp::now());
    }

    /// Why its owner may not put it to sleep. Asked in every phase: labels and grants change, and a Sleeper may have been written
    /// by hand.
    async fn denied(&self, sleeper: &Sleeper) -> Result<Option<String>, ClusterError> {
        let desired = sleeper.status.as_ref().map(|status| status.state.desired);
        if matches!(desired, None | Some(DesiredState::Awake)) {
            return Ok(None);
        }
        match self.permission.check(sleeper).await {
            Err(PermissionError::Denied(why)) => Ok(Some(why)),
            Err(PermissionError::Cluster(error)) => Err(error),
            Ok(()) => Ok(None),
        }
    }

    /// Adds what its phase needs to the observation of a Sleeper.
    async fn complete(&self, sleeper: Sleeper, objects: ObservedObjects, read: Instant) -> Observed {
        let mut observed = self.assembler.assemble(sleeper, objects, read);
        let (phase, deleting) = (observed.observation.state.phase, observed.observation.deleting);
        self.probe(&mut observed).await;
        self.note_unanswered(&mut observed);
        if !deleting && phase == Phase::Draining && self.is_drained(&observed.observation) {
            observed.observation.demand = self.demand.of(&observed.sleeper).await;
        }
        if phase == Phase::Asleep && !observed.observation.state.pods_gone {
            observed.observation.pods_left = self.pods.any_left(&observed);
        }
        if matches!(phase, Phase::Waking | Phase::Ready | Phase::Awake) {
            self.pods.note_relisted(&mut observed);
        }
        if phase == Phase::Waking {
            (observed.observation.ready_pod, observed.pods_undecided) = self.pods.any_ready(&observed).await;
            observed.observation.pods_left = self.pods.any_from_before(&observed);
        }
        observed.observation.now = Timestamp::now();
        observed
    }

    fn note_unanswered(&self, observed: &mut Observed) {
        let unanswered = observed.observation.unanswered().is_some();
        let name = (observed.namespace(), observed.sleeper.name_any());
        observed.observation.unanswered_since = self.unanswered.update(name, unanswered, Timestamp::now());
    }

    /// Whether it is time to ask for demand: nothing reaches the pods any more, and open connections had their grace.
    fn is_drained(&self, observation: &Observation) -> bool {
        let grace = SignedDuration::try_from(self.drain_grace).unwrap_or(SignedDuration::MAX);
        let since = observation.state.since;
        let is_over = since.is_none_or(|since| Timestamp::now().duration_since(since) >= grace);
        let mut services = observation.services.iter();
        is_over && services.all(|service| service.listed == Listed::Nothing)
    }

    /// Asks the DLX replicas that matter, on every port of a Service, whether they stand in for this Sleeper.
    async fn probe(&self, observed: &mut Observed) {
        let uid = observed.uid();
        let observation = &observed.observation;
        let services = observation.services.iter();
        let to_ask: Vec<_> = services
            .map(|service| (observation.to_ask(service), observation.dlx_ports(service)))
            .collect();
        for (service, (replicas, ports)) in observed.observation.services.iter_mut().zip(to_ask) {
            let addresses: Vec<_> = replicas
                .iter()
                .flat_map(|ip| ports.iter().map(|(_, port)| SocketAddr::new(*ip, *port)))
                .collect();
            service.answers = replicas.into_iter().map(|ip| (ip, Ok(()))).collect();
            let failed = futures::stream::iter(addresses)
                .map(async |address| Some((address.ip(), self.probes.probe(address, &uid).await.err()?)))
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

/// The items without those that come again.
fn each_once<T: PartialEq>(named: &[T]) -> impl Iterator<Item = &T> {
    let first = |index: usize, one: &T| named.iter().position(|other| other == one) == Some(index);
    let all = named.iter().enumerate();
    all.filter(move |(index, one)| first(*index, one))
        .map(|(_, one)| one)
}
