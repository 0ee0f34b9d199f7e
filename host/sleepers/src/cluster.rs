//! Makes the parts of this crate for one process.

use std::fmt;
use std::sync::Arc;

use dormouse_kubernetes::{
    ApiServer, ClusterError, EventRecorder, MetricsApi, Objects, Outages, Reflectors, Signals,
};
use tokio_util::sync::CancellationToken;

use crate::api::Sleeper;
use crate::caches::Caches;
use crate::controller::{Controller, ControllerParts};
use crate::declarations::Declarations;
use crate::demand::DemandClient;
use crate::desired_state::DesiredStateWriter;
use crate::dlx::DlxReplicas;
use crate::dlx_client::DlxClient;
use crate::dlx_ports::PortAllocator;
use crate::endpoints::ServiceEndpoints;
use crate::events::SleeperEvents;
use crate::executor::{Executor, ServiceSteps, SleeperSteps, WorkloadSteps};
use crate::notes::owners_part;
use crate::observer::{Assembler, Observer, ObserverParts, PodObserver};
use crate::orphans::Orphans;
use crate::owner_changes::OwnerChanges;
use crate::ownership::Ownership;
use crate::permission::SleepPermission;
use crate::reconciler::Reconciler;
use crate::requeue::Requeues;
use crate::scalers::Scalers;
use crate::status::StatusRecorder;
use crate::writer::SleeperWriter;
use crate::{Config, Metrics, Role};

/// Makes the parts of this crate and connects them. It does nothing else: callers take the parts that they use, which are cheap to
/// clone like the cluster itself.
///
/// The reflectors end when the cluster and all parts that read the caches are dropped, or with [`Cluster::shutdown`].
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    server: ApiServer,
    objects: Objects,
    metrics_api: MetricsApi,
    events: EventRecorder,
    outages: Outages,
    signals: Signals,
    caches: Arc<Caches>,
    metrics: Metrics,
    kubernetes_metrics: dormouse_kubernetes::Metrics,
    declarations: Declarations,
    desired: DesiredStateWriter,
    status: StatusRecorder,
    endpoints: ServiceEndpoints,
    dlx: DlxReplicas,
    demand: DemandClient,
    permission: SleepPermission,
    owner_changes: OwnerChanges,
    reconciler: Arc<Reconciler>,
    orphans: Arc<Orphans>,
    requeues: Requeues,
    ownership: Ownership,
    cancel: CancellationToken,
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
        let timeout = cluster.inner.config.sync_timeout;
        cluster.inner.caches.wait_synced(timeout).await?;
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
        let caches = Arc::new(Caches::start(
            &server,
            &config,
            &reflectors,
            count_phases(metrics.clone()),
            cancel.clone().drop_guard(),
        ));
        let Reflectors { signals, outages, .. } = reflectors;
        let scope = config.scope.clone();
        let objects = Objects::new(server.clone(), scope, owners_part, cancel.child_token());
        let events = EventRecorder::start(server.clone(), kubernetes_metrics.clone(), cancel.child_token());
        let sleeper_events = SleeperEvents::new(events.clone());
        let requeues = Requeues::default();
        let writer = SleeperWriter::new(
            server.clone(),
            Arc::clone(&caches),
            metrics.clone(),
            requeues.clone(),
        );
        let declarations = Declarations::new(
            server.clone(),
            Arc::clone(&caches),
            writer.clone(),
            requeues.clone(),
        );
        let status = StatusRecorder::new(
            Arc::clone(&caches),
            writer.clone(),
            sleeper_events.clone(),
            metrics.clone(),
        );
        let ownership = Ownership::new(Arc::clone(&caches));
        let permission = SleepPermission::new(objects.clone(), &config);
        let dlx_client = DlxClient::new(config.dlx_timeout);
        let dlx = DlxReplicas::new(Arc::clone(&caches), config.dlx_service.clone());
        let demand = DemandClient::new(dlx.clone(), dlx_client.clone());
        let endpoints = ServiceEndpoints::new(Arc::clone(&caches), dlx.clone());
        let ports = PortAllocator::new(Arc::clone(&caches), config.ports);
        let observer = Observer::new(ObserverParts {
            server: server.clone(),
            caches: Arc::clone(&caches),
            sleepers: writer.clone(),
            permission: permission.clone(),
            assembler: Assembler {
                caches: Arc::clone(&caches),
                ownership: ownership.clone(),
                dlx: dlx.clone(),
                ports: ports.clone(),
                outages: outages.clone(),
                readiness_timeout: config.readiness_timeout,
                at_zero: config.at_zero,
            },
            pods: PodObserver::new(
                Arc::clone(&caches),
                endpoints.clone(),
                config.timings.drain_grace,
                config.connect_timeout,
            ),
            probes: dlx_client,
            demand: demand.clone(),
            metrics: metrics.clone(),
            drain_grace: config.timings.drain_grace,
        });
        let executor = Executor {
            sleepers: SleeperSteps {
                server: server.clone(),
                writer: writer.clone(),
                events: sleeper_events.clone(),
                metrics: metrics.clone(),
                endpoints: endpoints.clone(),
                ports,
            },
            services: ServiceSteps {
                server: server.clone(),
                dlx: dlx.clone(),
            },
            workloads: WorkloadSteps {
                server: server.clone(),
            },
            metrics: metrics.clone(),
        };
        let inner = Inner {
            metrics_api: MetricsApi::new(server.clone()),
            desired: DesiredStateWriter {
                caches: Arc::clone(&caches),
                writer: writer.clone(),
                requeues: requeues.clone(),
                observer: observer.clone(),
                permission: permission.clone(),
                ownership: ownership.clone(),
                dlx: dlx.clone(),
                traffic_check: config.timings.traffic_check,
            },
            owner_changes: OwnerChanges::new(
                Arc::clone(&caches),
                signals.clone(),
                objects.clone(),
                cancel.clone(),
            ),
            orphans: Arc::new(Orphans::new(
                server.clone(),
                Arc::clone(&caches),
                writer.clone(),
                sleeper_events.clone(),
            )),
            reconciler: Arc::new(Reconciler {
                caches: Arc::clone(&caches),
                sleepers: writer,
                observer,
                executor,
                status: status.clone(),
                events: sleeper_events,
                outages: outages.clone(),
                timings: config.timings,
            }),
            config,
            server,
            objects,
            events,
            outages,
            signals,
            caches,
            metrics,
            kubernetes_metrics,
            declarations,
            status,
            endpoints,
            dlx,
            demand,
            permission,
            requeues,
            ownership,
            cancel,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A controller that reconciles the Sleepers of this role.
    pub fn controller(&self, role: Role) -> Controller {
        let inner = &self.inner;
        let parts = ControllerParts {
            caches: Arc::clone(&inner.caches),
            dlx: inner.dlx.clone(),
            ownership: inner.ownership.clone(),
            reconciler: Arc::clone(&inner.reconciler),
            orphans: Arc::clone(&inner.orphans),
            signals: inner.signals.clone(),
            requeues: inner.requeues.clone(),
            metrics: inner.metrics.clone(),
            request_timeout: inner.config.request_timeout,
        };
        Controller::new(parts, role)
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The client.
    pub fn client(&self) -> &kube::Client {
        self.inner.server.client()
    }

    /// Replicas between one and many.
    pub fn scalers(&self) -> Scalers {
        let inner = &self.inner;
        Scalers {
            caches: Arc::clone(&inner.caches),
            ownership: inner.ownership.clone(),
            permission: inner.permission.clone(),
            server: inner.server.clone(),
        }
    }

    /// Objects of any kind.
    pub fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        &self.inner.server
    }

    /// The metrics APIs.
    pub fn metrics_api(&self) -> &MetricsApi {
        &self.inner.metrics_api
    }

    /// Events.
    pub fn events(&self) -> &EventRecorder {
        &self.inner.events
    }

    /// What is known of outages of the API server.
    pub fn outages(&self) -> &Outages {
        &self.inner.outages
    }

    /// Tells of changes in the caches.
    pub fn signals(&self) -> &Signals {
        &self.inner.signals
    }

    /// Everything that is watched.
    pub fn caches(&self) -> &Arc<Caches> {
        &self.inner.caches
    }

    /// The metrics of this crate, to be registered by the process.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The metrics of the client, to be registered by the process.
    pub fn kubernetes_metrics(&self) -> &dormouse_kubernetes::Metrics {
        &self.inner.kubernetes_metrics
    }

    /// Which Sleepers exist.
    pub fn declarations(&self) -> &Declarations {
        &self.inner.declarations
    }

    /// The desired state of Sleepers.
    pub fn desired(&self) -> &DesiredStateWriter {
        &self.inner.desired
    }

    /// The status of Sleepers beside the protocol.
    pub fn status(&self) -> &StatusRecorder {
        &self.inner.status
    }

    /// The pods behind Services.
    pub fn endpoints(&self) -> &ServiceEndpoints {
        &self.inner.endpoints
    }

    /// The replicas of the DLX.
    pub fn dlx(&self) -> &DlxReplicas {
        &self.inner.dlx
    }

    /// The demand that the DLX reports.
    pub fn demand(&self) -> &DemandClient {
        &self.inner.demand
    }

    /// What may be put to sleep.
    pub fn permission(&self) -> &SleepPermission {
        &self.inner.permission
    }

    /// Changes by owners.
    pub fn owner_changes(&self) -> &OwnerChanges {
        &self.inner.owner_changes
    }

    /// Observes Sleepers.
    pub fn observer(&self) -> &Observer {
        &self.inner.reconciler.observer
    }

    /// Executes steps of the protocol.
    pub fn executor(&self) -> &Executor {
        &self.inner.reconciler.executor
    }

    /// Reconciles Sleepers.
    pub fn reconciler(&self) -> &Reconciler {
        &self.inner.reconciler
    }

    /// Ends the reflectors and everything else that runs in the background.
    pub fn shutdown(&self) {
        self.inner.cancel.cancel();
    }
}

/// Counts Sleepers by phase as the cache changes.
fn count_phases(metrics: Metrics) -> dormouse_kubernetes::Hook<Sleeper> {
    Box::new(move |old: Option<&Arc<Sleeper>>, new: Option<&Arc<Sleeper>>| {
        metrics.phase_changed(old.map(|old| old.phase()), new.map(|new| new.phase()));
    })
}
