//! Whether a wake has brought pods that take connections.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_kubernetes::pods::{PodEndpoint, is_ready};
use dormouse_kubernetes::services::{ServicePort, tcp_ports};
use dormouse_kubernetes::slices::conditions;
use dormouse_lifecycle::{Answers, Selector};
use dormouse_model::{LabelSelector, ObjectRef};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;

use super::{Seen, WorkloadVersion, as_label, stamped};
use crate::Cluster;
use crate::api::FENCE_LABEL;
use crate::services::original_selector;

/// Pods that are tried at once whether they accept connections.
const CONNECTS: usize = 8;

impl Cluster {
    /// Whether every Service has a pod that takes connections; and if not, whether it is worth asking again soon.
    pub(super) async fn ready_pod(&self, namespace: &str, seen: &Seen) -> (bool, bool) {
        let answers = Answers::of(
            &seen.observation.state,
            self.now(),
            self.inner.config.timings.drain_grace,
        );
        // One that was changed so that it leads to no pods of this cluster would be waited for in vain.
        let services: Vec<_> = seen
            .observation
            .services
            .iter()
            .filter(|service| service.selector.as_ref().is_some_and(Selector::leads_to_pods))
            .filter_map(|service| seen.parts.services.get(&service.name)?.service.as_ref())
            .collect();
        if services.is_empty() {
            return (
                self.any_pod_ready(namespace, answers, &seen.parts.workloads),
                false,
            );
        }
        let (mut all, mut undecided) = (true, false);
        for service in services {
            let mut candidates: Vec<_> = self.behind(namespace, service).collect();
            undecided |= !candidates.is_empty();
            candidates.retain(|pod| answers.include(pod.created));
            all &= self.any_accepts(candidates).await;
        }
        (all, undecided && !all)
    }

    /// Whether pods are on their way behind every Service that still has none that is ready: then there is nothing to do for a
    /// wake but to wait. Without any pod it may have been scaled to zero once more.
    pub(super) fn only_unready_pods(&self, namespace: &str, seen: &Seen) -> bool {
        let mut services = seen
            .parts
            .services
            .values()
            .filter_map(|version| version.service.as_ref());
        let lives = |pod: &std::sync::Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
        services.clone().next().is_some()
            && services.all(|service| {
                let selector = original_selector(service).ok().flatten().unwrap_or_default();
                let pods = self.inner.caches.pods.selected(namespace, &selector);
                pods.iter().any(lives) && !pods.iter().any(|pod| is_ready(pod))
            })
    }

    /// Whether pods of a resource that are not terminating may be there: its workloads say so, or the reflector shows some.
    pub(super) fn pods_left(&self, namespace: &str, seen: &Seen) -> bool {
        let scales = || {
            seen.parts
                .workloads
                .values()
                .filter_map(|workload| workload.scale.as_ref())
        };
        let statuses = || scales().filter_map(|scale| scale.status.as_ref());
        if statuses().any(|status| status.replicas > 0) {
            return true;
        }
        let of_workloads = statuses().filter_map(|status| scale_selector(status.selector.as_deref()?));
        let of_services = seen.parts.services.values().filter_map(|version| {
            let service = version.service.as_ref()?;
            let labels = original_selector(service).ok().flatten()?;
            (!labels.is_empty()).then(|| LabelSelector::of_labels(&labels))
        });
        let selectors: Vec<_> = of_workloads.chain(of_services).collect();
        let pods = self.inner.caches.pods.in_namespace(namespace);
        pods.iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .any(|pod| {
                selectors
                    .iter()
                    .any(|selector| selector.match_labels(pod.labels()))
            })
    }

    /// Notes of which Services the cluster's own slices certainly list a pod of this wake: they carry the label of its
    /// fence, and a pod that counts as an answer to it.
    pub(super) fn relisted(&self, namespace: &str, seen: &mut Seen) {
        let state = &seen.observation.state;
        let answers = Answers::of(state, self.now(), self.inner.config.timings.drain_grace);
        let fence = as_label(&stamped(state.epoch, &seen.sleeper.uid().unwrap_or_default()));
        for service in &mut seen.observation.services {
            let Some(version) = seen.parts.services.get(&service.name) else {
                continue;
            };
            // Without a slice of Dormouse's nobody asks for proof.
            let (Some(object), Some(_)) = (&version.service, &version.own) else {
                continue;
            };
            let young: BTreeSet<String> = self
                .behind(namespace, object)
                .filter(|pod| answers.include(pod.created))
                .map(|pod| pod.uid)
                .collect();
            let mut listed = version
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

    /// Ready pods behind any TCP port of a Service.
    fn behind(&self, namespace: &str, service: &Service) -> impl Iterator<Item = PodEndpoint> {
        tcp_ports(service)
            .filter_map(|port| u16::try_from(port.port).ok())
            .flat_map(move |port| {
                self.endpoints_of(namespace, service, &ServicePort::Number(port))
                    .ready
            })
    }

    async fn any_accepts(&self, candidates: Vec<PodEndpoint>) -> bool {
        let patience = self.inner.config.connect_timeout;
        let accepted = futures::stream::iter(candidates)
            .map(|pod| async move {
                let connect = tokio::net::TcpStream::connect(pod.address);
                matches!(tokio::time::timeout(patience, connect).await, Ok(Ok(_)))
            })
            .buffer_unordered(CONNECTS)
            .filter(|accepted| std::future::ready(*accepted));
        std::pin::pin!(accepted).next().await.is_some()
    }

    /// For resources without Services: a ready pod by the selector that the scale subresource tells.
    fn any_pod_ready(
        &self,
        namespace: &str,
        answers: Answers,
        workloads: &BTreeMap<ObjectRef, WorkloadVersion>,
    ) -> bool {
        let pods = self.inner.caches.pods.in_namespace(namespace);
        workloads
            .values()
            .filter_map(|workload| workload.scale.as_ref())
            .any(|scale| {
                let status = scale.status.as_ref();
                match status
                    .and_then(|status| status.selector.as_deref())
                    .and_then(scale_selector)
                {
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

/// The selector that a Scale shows. None: it is missing, or selects everything.
pub(crate) fn scale_selector(text: &str) -> Option<LabelSelector> {
    let selector: LabelSelector = text.parse().ok()?;
    (!selector.is_empty()).then_some(selector)
}
