//! The cluster as Dormouse sees it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::Sleeper;
use crate::discovery::Kinds;
use crate::dlx_client::DlxClient;
use crate::events::EventLog;
use crate::lists::Lists;
use crate::metrics_api::MetricsApi;
use crate::since::Since;
use crate::store::{Change, ChangedKind, Hook, Kept, Signals, Store, reflect};
use crate::{ClusterError, Config, Metrics, Outages, Scope, SleeperKey};

/// How many changes a listener may lag behind before it has to look at everything.
const CHANGE_BACKLOG: usize = 4096;

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
    pub(crate) client: kube::Client,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) stores: Stores,
    pub(crate) signals: Signals,
    pub(crate) pokes: broadcast::Sender<Poke>,
    pub(crate) kinds: Kinds,
    pub(crate) lists: Lists,
    pub(crate) events: EventLog,
    pub(crate) dlx: DlxClient,
    /// Since when no DLX has been ready.
    pub(crate) absence: Since<()>,
    /// Since when no DLX has answered for a Service of a Sleeper, by namespace and name.
    pub(crate) unanswered: Since<(String, String)>,
    pub(crate) outages: Outages,
    pub(crate) metrics_api: MetricsApi,
    /// Our own pod, once it was read.
    pub(crate) own: tokio::sync::OnceCell<crate::house::Own>,
    /// The stored definition of Sleepers is older than this process, and cuts off what it does not know.
    pub(crate) cuts_specs: AtomicBool,
    pub(crate) cancel: CancellationToken,
    _guard: DropGuard,
}

pub(crate) struct Stores {
    pub(crate) sleepers: Arc<Store<Sleeper>>,
    pub(crate) services: Arc<Store<Service>>,
    pub(crate) slices: Arc<Store<EndpointSlice>>,
    pub(crate) pods: Arc<Store<Pod>>,
    pub(crate) ingresses: Option<Arc<Store<Ingress>>>,
    /// Slices of the DLX's own Service when that is outside the scope.
    pub(crate) dlx_slices: Option<Arc<Store<EndpointSlice>>>,
    pub(crate) dlx_services: Option<Arc<Store<Service>>>,
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
        let metrics = Metrics::default();
        let signals = Signals {
            revision: watch::Sender::new(0),
            changes: broadcast::channel(CHANGE_BACKLOG).0,
        };
        let outages = Outages::default();
        let reflectors = Reflectors {
            signals: &signals,
            metrics: &metrics,
            outages: &outages,
            cancel: &cancel,
        };

        let phases = metrics.clone();
        let phase_hook: Hook<Sleeper> = Box::new(move |old, new| {
            let phase = |sleeper: &Arc<Sleeper>| sleeper.status.clone().unwrap_or_default().state.phase;
            phases.phase_changed(old.map(phase), new.map(phase));
        });
        let outside = config
            .dlx_service
            .clone()
            .filter(|(namespace, _)| !config.scope.includes(namespace));
        let stores = Stores {
            sleepers: reflectors.spawn_with(scoped(&client, &config.scope), phase_hook),
            services: reflectors.spawn(scoped(&client, &config.scope)),
            slices: reflectors.spawn(scoped(&client, &config.scope)),
            pods: reflectors.spawn(scoped(&client, &config.scope)),
            ingresses: config
                .ingresses
                .then(|| reflectors.spawn(scoped(&client, &config.scope))),
            dlx_slices: outside
                .as_ref()
                .map(|(ns, _)| reflectors.spawn(Api::namespaced(client.clone(), ns))),
            dlx_services: outside
                .as_ref()
                .map(|(ns, _)| reflectors.spawn(Api::namespaced(client.clone(), ns))),
        };
        let inner = Inner {
            kinds: Kinds::new(client.clone(), config.request_timeout),
            lists: Lists::new(),
            events: EventLog::start(client.clone(), &config, metrics.clone(), cancel.child_token()),
            dlx: DlxClient::new(config.dlx_timeout),
            absence: Since::default(),
            unanswered: Since::default(),
            outages,
            metrics_api: MetricsApi::default(),
            pokes: broadcast::channel(CHANGE_BACKLOG).0,
            cuts_specs: AtomicBool::new(false),
            own: tokio::sync::OnceCell::new(),
            _guard: cancel.clone().drop_guard(),
            cancel,
            stores,
            signals,
            metrics,
            config,
            client,
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
        let deadline = tokio::time::Instant::now() + self.inner.config.sync_timeout;
        for waiting in self.waits() {
            let kind = waiting.kind;
            if tokio::time::timeout_at(deadline, waiting.wait).await.is_err() {
                let error = (waiting.error)().unwrap_or_else(|| "no answer from the API server".to_owned());
                let hint = match kind {
                    ChangedKind::Sleeper => {
                        format!(
                            "{error}. Is the Sleeper CRD installed? (`dormouse crd | kubectl apply -f -`)"
                        )
                    }
                    _ => format!("{error}. Does the service account have get, list and watch on it?"),
                };
                return Err(ClusterError::Sync {
                    kind: kind.plural(),
                    after: self.inner.config.sync_timeout,
                    hint,
                });
            }
        }
        Ok(())
    }

    fn waits(&self) -> Vec<Waiting<'_>> {
        let stores = &self.inner.stores;
        let mut waits = vec![
            waiting(&stores.sleepers),
            waiting(&stores.services),
            waiting(&stores.slices),
            waiting(&stores.pods),
        ];
        waits.extend(stores.ingresses.as_ref().map(waiting));
        waits.extend(stores.dlx_slices.as_ref().map(waiting));
        waits.extend(stores.dlx_services.as_ref().map(waiting));
        waits
    }

    /// The client.
    pub fn client(&self) -> &kube::Client {
        &self.inner.client
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What is known of outages of the API server.
    pub fn outages(&self) -> &Outages {
        &self.inner.outages
    }

    /// The metrics, to be registered by the process.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// A number that rises with every change of any reflector.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.signals.revision.subscribe()
    }

    /// Every single change. A receiver that lags must look at everything.
    pub fn change_stream(&self) -> broadcast::Receiver<Change> {
        self.inner.signals.changes.subscribe()
    }

    /// Whether all reflectors have their first list.
    pub fn synced(&self) -> bool {
        let stores = &self.inner.stores;
        stores.sleepers.synced()
            && stores.services.synced()
            && stores.slices.synced()
            && stores.pods.synced()
            && stores.ingresses.as_ref().is_none_or(|store| store.synced())
            && stores.dlx_slices.as_ref().is_none_or(|store| store.synced())
            && stores.dlx_services.as_ref().is_none_or(|store| store.synced())
    }

    /// Ends the reflectors and everything else that runs in the background.
    pub fn shutdown(&self) {
        self.inner.cancel.cancel();
    }

    /// All Sleepers.
    pub fn sleepers(&self) -> Vec<Arc<Sleeper>> {
        self.inner.stores.sleepers.all()
    }

    /// All Sleepers of a namespace.
    pub fn sleepers_in(&self, namespace: &str) -> Vec<Arc<Sleeper>> {
        self.inner.stores.sleepers.in_namespace(namespace)
    }

    /// The Sleeper of a resource.
    pub fn sleeper(&self, key: &SleeperKey) -> Option<Arc<Sleeper>> {
        self.sleeper_named(&key.namespace, &key.object_name())
            .filter(|sleeper| SleeperKey::of(sleeper) == *key)
    }

    /// A Sleeper by its object name.
    pub fn sleeper_named(&self, namespace: &str, name: &str) -> Option<Arc<Sleeper>> {
        self.inner.stores.sleepers.get(namespace, name)
    }

    /// All Services of a namespace.
    pub fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.inner.stores.services.in_namespace(namespace)
    }

    /// A Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.inner.stores.services.get(namespace, name)
    }

    /// All Ingresses; none when they are not watched.
    pub fn ingresses(&self) -> Vec<Arc<Ingress>> {
        self.inner
            .stores
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

    /// An API of this cluster in a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.inner.client.clone(), namespace)
    }

    /// Carries a request out within the deadline of requests, and names its error.
    pub(crate) async fn ask<T>(
        &self,
        what: impl FnOnce() -> String,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        limited(self.inner.config.request_timeout, what, request).await
    }
}

/// Carries a request out within a deadline, and names its error.
pub(crate) async fn limited<T>(
    after: Duration,
    what: impl FnOnce() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(after, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ClusterError::of(what(), error)),
        Err(_) => Err(ClusterError::Timeout { what: what(), after }),
    }
}

/// `None` instead of an error for what does not exist.
pub(crate) fn optional<T>(result: Result<T, ClusterError>) -> Result<Option<T>, ClusterError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(ClusterError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Waiting<'a> {
    kind: ChangedKind,
    wait: BoxFuture<'a, ()>,
    error: Box<dyn Fn() -> Option<String> + Send + Sync + 'a>,
}

fn waiting<K: Kept>(store: &Arc<Store<K>>) -> Waiting<'_> {
    Waiting {
        kind: K::KIND,
        wait: Box::pin(store.wait_synced()),
        error: Box::new(|| store.last_error()),
    }
}

fn scoped<K>(client: &kube::Client, scope: &Scope) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match scope {
        Scope::All => Api::all(client.clone()),
        Scope::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
    }
}

struct Reflectors<'a> {
    signals: &'a Signals,
    metrics: &'a Metrics,
    outages: &'a Outages,
    cancel: &'a CancellationToken,
}

impl Reflectors<'_> {
    fn spawn<K: Kept>(&self, api: Api<K>) -> Arc<Store<K>> {
        self.spawn_with(api, Box::new(|_, _| {}))
    }

    fn spawn_with<K: Kept>(&self, api: Api<K>, hook: Hook<K>) -> Arc<Store<K>> {
        let store = Store::new();
        tokio::spawn(reflect(
            api,
            Arc::clone(&store),
            self.signals.clone(),
            hook,
            self.metrics.clone(),
            self.outages.clone(),
            self.cancel.child_token(),
        ));
        store
    }
}

impl Inner {
    /// Slices of a Service, from the reflectors.
    pub(crate) fn slices_of(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let store = match &self.stores.dlx_slices {
            Some(store) if !self.config.scope.includes(namespace) => store,
            _ => &self.stores.slices,
        };
        store
            .in_namespace(namespace)
            .into_iter()
            .filter(|slice| {
                slice
                    .labels()
                    .get(crate::endpoints::SERVICE_NAME_LABEL)
                    .is_some_and(|name| name == service)
            })
            .collect()
    }

    /// A Service, also when it is the DLX's own outside the scope.
    pub(crate) fn any_service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.stores.services.get(namespace, name).or_else(|| {
            self.stores
                .dlx_services
                .as_ref()
                .and_then(|store| store.get(namespace, name))
        })
    }
}
