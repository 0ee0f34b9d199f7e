//! The cluster as the protocol sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dormouse_kubernetes::{
    ApiServer, Change, ClusterError, EventRecorder, MetricsApi, Objects, Outages, Reflectors, Signals,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::Sleeper;
use crate::caches::{Caches, of_owner};
use crate::dlx_client::DlxClient;
use crate::since::Since;
use crate::{Config, Metrics, SleeperKey};

/// How many requests to look at a Sleeper a controller may lag behind before it has to look at everything.
const REQUEUE_BACKLOG: usize = 4096;

/// A connection to the cluster with its reflectors. Cheap to clone; the reflectors end with the last clone, or when
/// [`Cluster::shutdown`] is called.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) inner: Arc<Inner>,
}

/// A Sleeper that the drivers of this process are to look at.
#[derive(Clone, Debug)]
pub(crate) struct Poke {
    /// Namespace and object name.
    pub(crate) name: (String, String),
    /// This process has moved it, and goes on with it.
    pub(crate) moved: bool,
}

pub(crate) struct Inner {
    pub(crate) server: ApiServer,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    kubernetes_metrics: dormouse_kubernetes::Metrics,
    pub(crate) caches: Caches,
    signals: Signals,
    pub(crate) pokes: broadcast::Sender<Poke>,
    pub(crate) objects: Objects,
    pub(crate) events: EventRecorder,
    metrics_api: MetricsApi,
    pub(crate) dlx: DlxClient,
    /// Since when no DLX has been ready.
    pub(crate) absence: Since<()>,
    /// Since when no DLX has answered for a Service of a Sleeper, by namespace and name.
    pub(crate) unanswered: Since<(String, String)>,
    pub(crate) outages: Outages,
    /// Our own pod, once it was read.
    pub(crate) own: tokio::sync::OnceCell<crate::own::Own>,
    /// The stored definition of Sleepers is older than this process, and cuts off what it does not know.
    pub(crate) cuts_specs: AtomicBool,
    pub(crate) cancel: CancellationToken,
    _guard: DropGuard,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts the reflectors and waits for their first lists.
    ///
    /// # Errors
    /// [`ClusterError::Sync`], naming the kind that is missing and what helps.
    pub async fn connect(client: kube::Client, config: Config) -> Result<Self, ClusterError> {
        let cluster = Self::start(client, config);
        cluster.wait_synced().await?;
        Ok(cluster)
    }

    /// Starts the reflectors without waiting for them.
    pub fn start(client: kube::Client, config: Config) -> Self {
        let cancel = CancellationToken::new();
        let (metrics, kubernetes_metrics) = (Metrics::default(), dormouse_kubernetes::Metrics::default());
        let server = ApiServer::new(client, config.request_timeout, config.field_manager.clone());
        let reflectors = Reflectors {
            signals: Signals::default(),
            metrics: kubernetes_metrics.clone(),
            outages: Outages::default(),
            cancel: cancel.child_token(),
        };
        let phases = metrics.clone();
        let phase_hook = Box::new(move |old: Option<&Arc<Sleeper>>, new: Option<&Arc<Sleeper>>| {
            phases.phase_changed(old.map(|old| old.phase()), new.map(|new| new.phase()));
        });
        let inner = Inner {
            caches: Caches::start(&server, &config, &reflectors, phase_hook),
            objects: Objects::new(
                server.clone(),
                config.scope.clone(),
                crate::notes::owners_part,
                cancel.child_token(),
            ),
            events: EventRecorder::start(server.clone(), kubernetes_metrics.clone(), cancel.child_token()),
            metrics_api: MetricsApi::new(server.clone()),
            dlx: DlxClient::new(config.dlx_timeout),
            absence: Since::default(),
            unanswered: Since::default(),
            outages: reflectors.outages.clone(),
            signals: reflectors.signals.clone(),
            pokes: broadcast::channel(REQUEUE_BACKLOG).0,
            cuts_specs: AtomicBool::new(false),
            own: tokio::sync::OnceCell::new(),
            _guard: cancel.clone().drop_guard(),
            cancel,
            metrics,
            kubernetes_metrics,
            config,
            server,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Waits for the first lists of all reflectors.
    ///
    /// # Errors
    /// [`ClusterError::Sync`], naming the kind that is missing and what helps.
    pub async fn wait_synced(&self) -> Result<(), ClusterError> {
        self.inner
            .caches
            .wait_synced(self.inner.config.sync_timeout)
            .await
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        &self.inner.server
    }

    /// Objects of any kind.
    pub fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    /// The metrics APIs.
    pub fn metrics_api(&self) -> &MetricsApi {
        &self.inner.metrics_api
    }

    /// Events.
    pub fn events(&self) -> &EventRecorder {
        &self.inner.events
    }

    /// What is watched.
    pub fn caches(&self) -> &Caches {
        &self.inner.caches
    }

    /// The client.
    pub fn client(&self) -> &kube::Client {
        self.inner.server.client()
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What is known of outages of the API server.
    pub fn outages(&self) -> &Outages {
        &self.inner.outages
    }

    /// The metrics of the protocol, to be registered by the process.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The metrics of the client, to be registered by the process.
    pub fn kubernetes_metrics(&self) -> &dormouse_kubernetes::Metrics {
        &self.inner.kubernetes_metrics
    }

    /// A number that rises with every change of any reflector.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.signals.revision()
    }

    /// Every single change. A receiver that lags must look at everything.
    pub fn change_stream(&self) -> broadcast::Receiver<Change> {
        self.inner.signals.changes()
    }

    /// Whether all reflectors have their first list.
    pub fn synced(&self) -> bool {
        self.inner.caches.synced()
    }

    /// Ends the reflectors and everything else that runs in the background.
    pub fn shutdown(&self) {
        self.inner.cancel.cancel();
    }

    /// All Sleepers.
    pub fn sleepers(&self) -> Vec<Arc<Sleeper>> {
        self.inner.caches.sleepers.all()
    }

    /// All Sleepers of an owner.
    pub fn sleepers_of(&self, owner: &dormouse_model::Owner) -> Vec<Arc<Sleeper>> {
        let mut found = self.inner.caches.sleepers.with(of_owner(owner));
        found.retain(|sleeper| sleeper.spec.owner() == *owner);
        found
    }

    /// All Sleepers of a namespace.
    pub fn sleepers_in(&self, namespace: &str) -> Vec<Arc<Sleeper>> {
        self.inner.caches.sleepers.in_namespace(namespace)
    }

    /// The Sleeper of a resource.
    pub fn sleeper(&self, key: &SleeperKey) -> Option<Arc<Sleeper>> {
        self.sleeper_named(&key.namespace, &key.object_name())
            .filter(|sleeper| SleeperKey::of(sleeper) == *key)
    }

    /// A Sleeper by its object name.
    pub fn sleeper_named(&self, namespace: &str, name: &str) -> Option<Arc<Sleeper>> {
        self.inner.caches.sleepers.get(namespace, name)
    }

    /// All Services of a namespace.
    pub fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.inner.caches.services.in_namespace(namespace)
    }

    /// A Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.inner.caches.services.get(namespace, name)
    }

    /// All Ingresses; none when they are not watched.
    pub fn ingresses(&self) -> Vec<Arc<Ingress>> {
        self.inner
            .caches
            .ingresses
            .as_ref()
            .map(|store| store.all())
            .unwrap_or_default()
    }

    /// Tells every [`crate::Driver`] of this process that the process has moved a Sleeper: they go on with it at once.
    pub(crate) fn moved(&self, namespace: &str, name: &str) {
        self.poke(namespace, name, true);
    }

    /// Asks every [`crate::Driver`] of this process to look at a Sleeper soon, even in a pause after an error.
    pub(crate) fn nudge(&self, namespace: &str, name: &str) {
        self.poke(namespace, name, false);
    }

    fn poke(&self, namespace: &str, name: &str, moved: bool) {
        let name = (namespace.to_owned(), name.to_owned());
        // Without a driver nobody needs to know.
        let _ = self.inner.pokes.send(Poke { name, moved });
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
