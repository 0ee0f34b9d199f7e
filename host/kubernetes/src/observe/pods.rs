//! Whether a wake has brought pods that take connections.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use dormouse_lifecycle::{ObjectRef, Selector, SleeperState};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::{Seen, WorkloadVersion, as_label, stamped};
use crate::Cluster;
use crate::api::FENCE_LABEL;
use crate::endpoints::{PodEndpoint, ServicePort, conditions, is_ready};
use crate::services::{original_selector, selects, tcp_ports};

/// Pods that are tried at once whether they accept connections.
const CONNECTS: usize = 8;
/// Clocks of API server and Dormouse may differ by this much. Never more than half the drain grace, by which pods from
/// before the sleep are older at least.
const SKEW: Duration = Duration::from_secs(2);

impl Cluster {
    /// Whether every Service has a pod that takes connections; and if not, whether it is worth asking again soon.
    pub(super) async fn ready_pod(&self, namespace: &str, seen: &Seen) -> (bool, bool) {
        let age = Age::of(
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
            .filter_map(|service| seen.services.get(&service.name)?.service.as_ref())
            .collect();
        if services.is_empty() {
            return (self.any_pod_ready(namespace, &age, &seen.workloads), false);
        }
        let (mut all, mut undecided) = (true, false);
        for service in services {
            let mut candidates: Vec<_> = self.behind(namespace, service).collect();
            undecided |= !candidates.is_empty();
            candidates.retain(|pod| age.includes(pod.created));
            all &= self.any_accepts(candidates).await;
        }
        (all, undecided && !all)
    }

    /// Whether pods of a resource that are not terminating may be there: its workloads say so, or the reflector shows some.
    pub(super) fn pods_left(&self, namespace: &str, seen: &Seen) -> bool {
        let scales = || {
            seen.workloads
                .values()
                .filter_map(|workload| workload.scale.as_ref())
        };
        let statuses = || scales().filter_map(|scale| scale.status.as_ref());
        if statuses().any(|status| status.replicas > 0) {
            return true;
        }
        let of_workloads = statuses().filter_map(|status| equality_selector(status.selector.as_deref()?));
        let of_services = seen.services.values().filter_map(|version| {
            let service = version.service.as_ref()?;
            original_selector(service).ok().flatten()
        });
        let selectors: Vec<_> = of_workloads.chain(of_services).collect();
        let pods = self.inner.stores.pods.in_namespace(namespace);
        pods.iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .any(|pod| selectors.iter().any(|selector| selects(selector, pod.labels())))
    }

    /// Notes of which Services the cluster's own slices certainly list a pod of this wake: they carry the label of its
    /// fence, and a pod that counts as an answer to it.
    pub(super) fn relisted(&self, namespace: &str, seen: &mut Seen) {
        let state = &seen.observation.state;
        let age = Age::of(state, self.now(), self.inner.config.timings.drain_grace);
        let fence = as_label(&stamped(state.epoch, &seen.sleeper.uid().unwrap_or_default()));
        for service in &mut seen.observation.services {
            let Some(version) = seen.services.get(&service.name) else {
                continue;
            };
            // Without a slice of Dormouse's nobody asks for proof.
            let (Some(object), Some(_)) = (&version.service, &version.own) else {
                continue;
            };
            let young: BTreeSet<String> = self
                .behind(namespace, object)
                .filter(|pod| age.includes(pod.created))
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
        age: &Age,
        workloads: &HashMap<ObjectRef, WorkloadVersion>,
    ) -> bool {
        let pods = self.inner.stores.pods.in_namespace(namespace);
        workloads
            .values()
            .filter_map(|workload| workload.scale.as_ref())
            .any(|scale| {
                let status = scale.status.as_ref();
                match status
                    .and_then(|status| status.selector.as_deref())
                    .and_then(equality_selector)
                {
                    Some(selector) => pods.iter().any(|pod| {
                        selects(&selector, pod.labels())
                            && is_ready(pod)
                            && age.includes(pod.creation_timestamp().map(|time| time.0))
                    }),
                    None => status.is_some_and(|status| status.replicas > 0),
                }
            })
    }
}

/// Which pods count as answers to a wake.
struct Age {
    /// None: all of them.
    not_before: Option<Timestamp>,
}

impl Age {
    fn of(state: &SleeperState, now: Timestamp, drain_grace: Duration) -> Self {
        let skew = SignedDuration::try_from(SKEW.min(drain_grace / 2)).unwrap_or(SignedDuration::ZERO);
        let not_before = state
            .pods_since(now)
            .map(|since| since.saturating_sub(skew).unwrap_or(since));
        Self { not_before }
    }

    fn includes(&self, created: Option<Timestamp>) -> bool {
        match (self.not_before, created) {
            (None, _) => true,
            (Some(not_before), Some(created)) => created >= not_before,
            (Some(_), None) => false,
        }
    }
}

/// `a=b,c=d` as labels; none for anything else, such as set-based selectors.
pub(crate) fn equality_selector(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=')?;
        let value = value.trim_start_matches('=');
        if key.contains(['!', ' ', '(']) || value.contains([' ', ')']) {
            return None;
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    (!labels.is_empty()).then_some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_lifecycle::Phase;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn woken(at_zero: bool) -> SleeperState {
        SleeperState {
            phase: Phase::Waking,
            at_zero,
            wake_started: Some(at(100)),
            ..SleeperState::default()
        }
    }

    #[rstest]
    // At zero before: only pods from after the wake, and a little skew of clocks that the drain grace allows for.
    #[case(true, Duration::ZERO, 100, true)]
    #[case(true, Duration::ZERO, 99, false)]
    #[case(true, Duration::from_secs(2), 99, true)]
    #[case(true, Duration::from_secs(60), 98, true)]
    #[case(true, Duration::from_secs(60), 97, false)]
    // Never at zero: its old pods are as good as any.
    #[case(false, Duration::ZERO, 1, true)]
    fn pods_count_by_age(
        #[case] at_zero: bool,
        #[case] grace: Duration,
        #[case] created: i64,
        #[case] counts: bool,
    ) {
        assert_eq!(
            Age::of(&woken(at_zero), at(101), grace).includes(Some(at(created))),
            counts
        );
    }

    #[rstest]
    #[case("app=web,tier=front", Some(2))]
    #[case("app==web", Some(1))]
    #[case("app in (a,b)", None)]
    #[case("app!=web", None)]
    #[case("", None)]
    fn selectors_of_the_scale_are_read_if_they_are_simple(#[case] text: &str, #[case] labels: Option<usize>) {
        assert_eq!(equality_selector(text).map(|labels| labels.len()), labels);
    }
}
