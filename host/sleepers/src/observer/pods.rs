//! Whether a wake has brought pods that take connections, and whether the pods of a sleep are gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::pods::{PodEndpoint, is_alive, is_ready};
use dormouse_kubernetes::slices::conditions;
use dormouse_lifecycle::{Answers, Selector, SleeperState};
use dormouse_model::LabelSelector;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::api::FENCE_LABEL;
use crate::caches::Caches;
use crate::endpoints::ServiceEndpoints;
use crate::observed::Observed;
use crate::services::original_selector;
use crate::stamps::{as_label, stamped};

/// Pods that are tried at once whether they accept connections.
const CONNECTS: usize = 8;

/// Observes the pods of Sleepers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PodObserver {
    caches: Arc<Caches>,
    endpoints: ServiceEndpoints,
    drain_grace: Duration,
    /// How long a pod may take to accept a connection.
    connect_timeout: Duration,
}

impl PodObserver {
    pub(crate) fn new(
        caches: Arc<Caches>,
        endpoints: ServiceEndpoints,
        drain_grace: Duration,
        connect_timeout: Duration,
    ) -> Self {
        Self {
            caches,
            endpoints,
            drain_grace,
            connect_timeout,
        }
    }

    /// Whether every Service has a pod that takes connections; and if not, whether it is worth asking again soon.
    pub(super) async fn any_ready(&self, observed: &Observed) -> (bool, bool) {
        let (namespace, answers) = (observed.namespace(), self.answers(observed));
        // One that was changed so that it leads to no pods of this cluster would be waited for in vain.
        let services: Vec<_> = observed
            .observation
            .services
            .iter()
            .filter(|service| service.selector.as_ref().is_some_and(Selector::leads_to_pods))
            .filter_map(|service| observed.service(&service.name))
            .collect();
        if services.is_empty() {
            return (self.any_of_workloads_ready(observed, answers), false);
        }
        let (mut all, mut undecided) = (true, false);
        for service in services {
            let mut candidates: Vec<_> = self.endpoints.of_service(&namespace, service).collect();
            undecided |= !candidates.is_empty();
            candidates.retain(|pod| answers.include(pod.created));
            all &= self.any_accepts(candidates).await;
        }
        (all, undecided && !all)
    }

    /// Which pods count as an answer to the wake.
    fn answers(&self, observed: &Observed) -> Answers {
        Answers::of(&observed.observation.state, Timestamp::now(), self.drain_grace)
    }

    /// Whether every Service has pods, and none that is ready: then a wake has nothing to do but to wait. Without any pod its
    /// workload may have been scaled to zero once more.
    pub(super) fn only_unready(&self, observed: &Observed) -> bool {
        let namespace = observed.namespace();
        let mut services = observed.services().peekable();
        services.peek().is_some()
            && services.all(|service| {
                let pods = self.endpoints.pods_of(&namespace, service);
                pods.iter().any(|pod| is_alive(pod)) && !pods.iter().any(|pod| is_ready(pod))
            })
    }

    /// Whether pods that are not terminating are behind its Services: then they have not gone.
    pub(super) fn any_behind_services(&self, observed: &Observed) -> bool {
        let namespace = observed.namespace();
        observed.services().any(|service| {
            let pods = self.endpoints.pods_of(&namespace, service);
            pods.iter().any(|pod| is_alive(pod))
        })
    }

    /// Whether pods of a resource that are not terminating may be left: its workloads say so, or the cache shows some.
    pub(super) fn any_left(&self, observed: &Observed) -> bool {
        let statuses = observed.scales().filter_map(|scale| scale.status.as_ref());
        if statuses.clone().any(|status| status.replicas > 0) {
            return true;
        }
        let of_workloads = statuses.filter_map(|status| scale_selector(status.selector.as_deref()?));
        let of_services = observed.services().filter_map(|service| {
            let labels = original_selector(service).ok().flatten()?;
            (!labels.is_empty()).then(|| LabelSelector::of_labels(&labels))
        });
        let selectors: Vec<_> = of_workloads.chain(of_services).collect();
        let pods = self.caches.pods.in_namespace(&observed.namespace());
        pods.iter().filter(|pod| is_alive(pod)).any(|pod| {
            selectors
                .iter()
                .any(|selector| selector.match_labels(pod.labels()))
        })
    }

    /// Whether pods from before the wake that are not terminating may be behind its Services.
    pub(super) fn any_from_before(&self, observed: &Observed) -> bool {
        // That workloads are at zero may be noted by the very next step, after which nothing is read anew.
        let state = SleeperState {
            zero_observed: true,
            ..observed.observation.state.clone()
        };
        let answers = Answers::of(&state, Timestamp::now(), self.drain_grace);
        let namespace = observed.namespace();
        let mut services = observed.services().peekable();
        // Without a Service nobody knows which pods are its own.
        services.peek().is_none()
            || services
                .flat_map(|service| self.endpoints.pods_of(&namespace, service))
                .any(|pod| is_alive(&pod) && !answers.include(created(&pod)))
    }

    /// Notes of which Services the cluster's own slices certainly list a pod of this wake: they carry the label of its
    /// fence, and a pod that counts as an answer to it.
    pub(super) fn note_relisted(&self, observed: &mut Observed) {
        let (namespace, answers) = (observed.namespace(), self.answers(observed));
        let fence = as_label(&stamped(observed.observation.state.epoch, &observed.uid()));
        for service in &mut observed.observation.services {
            let Some(found) = observed.objects.services.get(&service.name) else {
                continue;
            };
            // The protocol needs it only where Dormouse has a slice.
            let (Some(object), Some(_)) = (&found.service, &found.own) else {
                continue;
            };
            let young: BTreeSet<String> = self
                .endpoints
                .of_service(&namespace, object)
                .filter(|pod| answers.include(pod.created))
                .map(|pod| pod.uid)
                .collect();
            let mut listed = found
                .others
                .iter()
                .filter(|slice| slice.labels().get(FENCE_LABEL) == Some(&fence))
                .flat_map(|slice| slice.endpoints.iter().flatten())
                .filter(|endpoint| conditions(endpoint) == (true, false));
            service.relisted = listed.any(|endpoint| {
                let uid = endpoint
                    .target_ref
                    .as_ref()
                    .and_then(|target| target.uid.as_ref());
                uid.is_some_and(|uid| young.contains(uid))
            });
        }
    }

    async fn any_accepts(&self, candidates: Vec<PodEndpoint>) -> bool {
        let patience = self.connect_timeout;
        let accepted = futures::stream::iter(candidates)
            .map(|pod| async move {
                let connect = tokio::net::TcpStream::connect(pod.address);
                matches!(tokio::time::timeout(patience, connect).await, Ok(Ok(_)))
            })
            .buffer_unordered(CONNECTS)
            .filter(|accepted| std::future::ready(*accepted));
        std::pin::pin!(accepted).next().await.is_some()
    }

    /// For resources without Services: a ready pod by the selector that the scale subresource shows.
    fn any_of_workloads_ready(&self, observed: &Observed, answers: Answers) -> bool {
        let pods = self.caches.pods.in_namespace(&observed.namespace());
        observed.scales().any(|scale| {
            let status = scale.status.as_ref();
            let selector = status.and_then(|status| status.selector.as_deref());
            match selector.and_then(scale_selector) {
                Some(selector) => pods.iter().any(|pod| {
                    selector.match_labels(pod.labels())
                        && is_ready(pod)
                        && answers.include(pod.creation_timestamp().map(|time| time.0))
                }),
                None => status.is_some_and(|status| status.replicas > 0),
            }
        })
    }
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The selector that a Scale shows. None: it is missing, or selects everything.
pub(crate) fn scale_selector(text: &str) -> Option<LabelSelector> {
    let selector: LabelSelector = text.parse().ok()?;
    (!selector.is_empty()).then_some(selector)
}
