//! What a request is forwarded to.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use dormouse_model::Owner;
use dormouse_sleepers::Wake;
use tokio::sync::watch;

use crate::config::TcpLimits;
use crate::demand_counters::{DemandCounters, ResourceState};
use crate::endpoints::EndpointsView;
use crate::hop::{HopKey, Marks};
use crate::pick::Ramp;
use crate::pool::{Endpoints, Pool};
use crate::{Limits, ReleaseRamp, lock};

/// Identity of a target: one port of one Service of one Sleeper.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteTargetKey {
    /// Namespace of the Sleeper.
    pub namespace: String,
    /// Name of the Sleeper object.
    pub sleeper: String,
    /// Uid of the Sleeper object: one that was deleted and created again is another one.
    pub uid: String,
    /// Service.
    pub service: String,
    /// Port of the Service.
    pub port: u16,
}

/// What the pods speak on a port, as the Service's `appProtocol` or the port's name says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// Nothing is said: each connection is looked at.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
    /// Any other protocol over TCP, TLS among them.
    Tcp,
}

/// Everything that makes a target.
#[derive(Clone, Debug)]
pub struct RouteTargetSpec {
    /// Identity.
    pub key: RouteTargetKey,
    /// Who declared it.
    pub owner: Owner,
    /// Who brings it back.
    pub wake: Wake,
    /// Name of the resource, as its owner calls it.
    pub resource: String,
    /// How long a request is held. None: the DLX's own setting.
    pub readiness_timeout: Option<Duration>,
    /// What the pods speak.
    pub protocol: AppProtocol,
    /// How long an open connection counts as demand after its last bytes. None: the DLX's own setting.
    pub connection_idle: Option<Duration>,
    /// The endpoints. When the sender goes, the target is gone, and those who wait for it hear so at once.
    pub endpoints: watch::Receiver<Arc<EndpointsView>>,
}

/// A place that requests are forwarded to. Shared by every route that leads to it.
#[derive(Debug)]
pub struct RouteTarget {
    /// Identity.
    pub key: RouteTargetKey,
    /// Who declared it.
    pub owner: Owner,
    /// Who brings it back.
    pub wake: Wake,
    /// Name of the resource, as its owner calls it.
    pub resource: String,
    /// How long a request is held. None: the DLX's own setting.
    pub readiness_timeout: Option<Duration>,
    /// What the pods speak.
    pub protocol: AppProtocol,
    /// How long an open connection counts as demand after its last bytes. None: the DLX's own setting.
    pub connection_idle: Option<Duration>,
    /// The endpoints.
    pub endpoints: watch::Receiver<Arc<EndpointsView>>,
    pub(crate) state: Arc<ResourceState>,
    pub(crate) pool: Pool,
    ramp: Mutex<Weak<Ramp>>,
    marks: OnceLock<Marks>,
}

impl RouteTarget {
    /// A target whose demand is written in `demand_counters`: targets of one Sleeper share their queue, counts and wakes.
    pub fn new(demand_counters: &DemandCounters, spec: RouteTargetSpec) -> Arc<Self> {
        let state = demand_counters.state(&spec.key.namespace, &spec.key.sleeper);
        Arc::new(Self {
            key: spec.key,
            owner: spec.owner,
            wake: spec.wake,
            resource: spec.resource,
            readiness_timeout: spec.readiness_timeout,
            protocol: spec.protocol,
            connection_idle: spec.connection_idle,
            endpoints: spec.endpoints,
            state,
            pool: Pool::default(),
            ramp: Mutex::default(),
            marks: OnceLock::new(),
        })
    }

    /// The endpoints as they are now.
    pub fn view(&self) -> Arc<EndpointsView> {
        Arc::clone(&self.endpoints.borrow())
    }

    /// The ramp of the requests that wait now. A new burst gets a new one; when nobody waits, there is none.
    pub(crate) fn ramp(&self, settings: ReleaseRamp) -> Arc<Ramp> {
        let mut slot = lock(&self.ramp);
        slot.upgrade().unwrap_or_else(|| {
            let ramp = Arc::new(Ramp::new(settings));
            *slot = Arc::downgrade(&ramp);
            ramp
        })
    }

    /// The marks that requests for this target carry.
    pub(crate) fn marks(&self, key: &HopKey) -> &Marks {
        let RouteTargetKey {
            namespace,
            sleeper,
            uid,
            ..
        } = &self.key;
        self.marks
            .get_or_init(|| Marks::new(key, [namespace, sleeper, uid]))
    }

    /// The endpoints of this view, with their load and their connections.
    pub(crate) fn endpoints_of(&self, view: &Arc<EndpointsView>, limits: &Limits) -> Endpoints {
        self.pool.endpoints(view, limits, &self.state.upstreams)
    }

    /// How long a connection that is copied byte for byte counts as demand after its last bytes.
    pub(crate) fn counts_for(&self, tcp: &TcpLimits) -> Duration {
        self.connection_idle.unwrap_or(tcp.connection_idle)
    }
}
