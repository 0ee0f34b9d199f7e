//! What a Service says about selecting pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dormouse_kubernetes::services::{current_selector, tcp_ports};
use dormouse_kubernetes::{ClusterError, SelectorIndex};
use dormouse_lifecycle::{Family, Selector, Undivertible};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::api::{PARKED_LABEL, PARKED_SELECTOR};

/// Whether Dormouse replaced the selector by one that matches no pod.
pub(crate) fn is_parked(service: &Service) -> bool {
    current_selector(service).is_some_and(|selector| selector.contains_key(PARKED_LABEL))
}

/// The labels by which the owner of a Service means it to select pods: the current ones, or while parked the ones from before. Labels
/// beside the parked one (from a `kubectl apply` of the manifest, say) are newer than the ones that were kept, so they win.
///
/// # Errors
/// [`ClusterError::Damaged`] when the selector is parked and the original is lost.
pub fn original_selector(service: &Service) -> Result<Option<BTreeMap<String, String>>, ClusterError> {
    if !is_parked(service) {
        return Ok(current_selector(service).cloned());
    }
    let mut beside = current_selector(service).cloned().unwrap_or_default();
    beside.remove(PARKED_LABEL);
    if !beside.is_empty() {
        return Ok(Some(beside));
    }
    let name = service.name_any();
    let annotation = service.annotations().get(PARKED_SELECTOR).ok_or_else(|| {
        ClusterError::Damaged(format!(
            "the selector of Service {name} is parked, but its annotation {PARKED_SELECTOR} is gone: set the selector by hand"
        ))
    })?;
    let original: BTreeMap<String, String> = serde_json::from_str(annotation).map_err(|error| {
        ClusterError::Damaged(format!(
            "annotation {PARKED_SELECTOR} of Service {name} is no JSON object of labels ({error}): set the selector by hand"
        ))
    })?;
    Ok(Some(original))
}

/// Services, by the pods that they lead to when nothing sleeps.
pub struct ServiceIndex(
    /// By namespace and name.
    SelectorIndex<(String, String)>,
);

impl ServiceIndex {
    /// Of these Services. One whose original selector is lost leads nowhere that could be known.
    pub fn of<'a>(services: impl IntoIterator<Item = &'a Service>) -> Self {
        let mut index = SelectorIndex::default();
        for service in services {
            if let Ok(Some(selector)) = original_selector(service) {
                let namespace = service.namespace().unwrap_or_default();
                let key = (namespace.clone(), service.name_any());
                index.set(&key, vec![(namespace, selector)]);
            }
        }
        Self(index)
    }

    /// Names of those of a namespace that lead to pods with these labels, in order.
    pub fn leading_to(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String> {
        let found = self.0.selecting(namespace, labels).into_iter();
        found.map(|(_, name)| name).collect()
    }
}

/// How a Service selects pods, as the protocol sees it, with a DLX at these addresses.
pub(crate) fn selector(service: &Service, dlx: &[IpAddr]) -> Selector {
    let obstacle = obstacle(service, dlx);
    if is_parked(service) {
        return match (original_selector(service), obstacle) {
            // Selects nothing, so it was never parked like that.
            (Ok(None) | Err(_), _) => Selector::Lost,
            (Ok(Some(labels)), _) if labels.is_empty() => Selector::Lost,
            (Ok(Some(labels)), Some(why)) => Selector::Stranded(labels, why),
            (Ok(Some(labels)), None) => Selector::Parked(labels),
        };
    }
    let labels = current_selector(service).cloned().unwrap_or_default();
    obstacle.map_or(Selector::Pods(labels), Selector::Undivertible)
}

/// Why no DLX could stand in for the pods of a Service, parked or not: whatever forbids it can also be edited in later.
pub(crate) fn obstacle(service: &Service, dlx: &[IpAddr]) -> Option<Undivertible> {
    let Some(spec) = &service.spec else {
        return Some(Undivertible::NoSelector);
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some(Undivertible::ExternalName);
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return Some(Undivertible::Headless);
    }
    if current_selector(service).is_none() {
        return Some(Undivertible::NoSelector);
    }
    if spec.ports.iter().flatten().count() > tcp_ports(service).count() {
        return Some(Undivertible::NotTcp);
    }
    if spec.internal_traffic_policy.as_deref() == Some("Local") {
        return Some(Undivertible::NodeLocal);
    }
    // Without a DLX its families are not known, and nothing is diverted anyway.
    let covered = match families(service)[..] {
        [] => true,
        [family] => dlx.is_empty() || dlx.iter().any(|address| family.includes(*address)),
        // Clients of the other family would find no endpoint.
        _ => false,
    };
    (!covered).then_some(Undivertible::Family)
}

/// The address families by which clients reach a Service.
fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let family = |name: &String| match name.as_str() {
        "IPv6" => Family::V6,
        _ => Family::V4,
    };
    named.iter().map(family).collect()
}

/// The address family of a Service, if the API server says.
pub(crate) fn family(service: &Service) -> Option<Family> {
    families(service).first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn service(spec: &serde_json::Value, annotation: Option<&str>) -> Service {
        let mut service: Service =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        if let Some(text) = annotation {
            service
                .annotations_mut()
                .insert(PARKED_SELECTOR.to_owned(), text.to_owned());
        }
        service
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[rstest]
    #[case(json!({"selector": {"app": "web"}, "ports": [{"port": 80}]}), Selector::Pods(labels(&[("app", "web")])))]
    #[case(json!({"selector": {"app": "web"}, "clusterIP": "None"}), Selector::Undivertible(Undivertible::Headless))]
    #[case(json!({"type": "ExternalName", "externalName": "x"}), Selector::Undivertible(Undivertible::ExternalName))]
    #[case(json!({"ports": [{"port": 80}]}), Selector::Undivertible(Undivertible::NoSelector))]
    #[case(json!({"selector": {}, "ports": [{"port": 80}]}), Selector::Undivertible(Undivertible::NoSelector))]
    #[case(json!({"selector": {"app": "web"}, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}),
           Selector::Undivertible(Undivertible::NotTcp))]
    #[case(json!({"selector": {"app": "web"}, "internalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
           Selector::Undivertible(Undivertible::NodeLocal))]
    fn selectors_are_told_apart(#[case] spec: serde_json::Value, #[case] expected: Selector) {
        assert_eq!(selector(&service(&spec, None), &[]), expected);
    }

    #[rstest]
    #[case(json!({"type": "ExternalName", "externalName": "x"}), Undivertible::ExternalName)]
    #[case(json!({"clusterIP": "None"}), Undivertible::Headless)]
    #[case(json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}), Undivertible::NotTcp)]
    #[case(json!({"internalTrafficPolicy": "Local"}), Undivertible::NodeLocal)]
    #[case(json!({"ipFamilies": ["IPv6"]}), Undivertible::Family)]
    #[case(json!({"ipFamilies": ["IPv4", "IPv6"]}), Undivertible::Family)]
    fn field_16_what_is_edited_in_while_parked_is_seen(
        #[case] mut spec: serde_json::Value,
        #[case] why: Undivertible,
    ) {
        spec["selector"] = json!({PARKED_LABEL: "web.workloads"});
        let parked = service(&spec, Some(r#"{"app":"web"}"#));
        let dlx = ["10.0.0.1".parse().unwrap()];
        assert_eq!(
            selector(&parked, &dlx),
            Selector::Stranded(labels(&[("app", "web")]), why)
        );
    }

    #[rstest]
    #[case(json!(["IPv4"]), &["10.0.0.1"], true)]
    #[case(json!(["IPv6"]), &["10.0.0.1"], false)]
    #[case(json!(["IPv6"]), &["10.0.0.1", "fd00::1"], true)]
    #[case(json!(["IPv4"]), &["fd00::1"], false)]
    #[case(json!(["IPv4", "IPv6"]), &["10.0.0.1", "fd00::1"], false)]
    #[case(json!(["IPv6"]), &[], true)]
    #[case(json!(null), &["10.0.0.1"], true)]
    fn field_16_the_dlx_must_have_the_family_of_the_service(
        #[case] families: serde_json::Value,
        #[case] dlx: &[&str],
        #[case] diverts: bool,
    ) {
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}], "ipFamilies": families});
        let dlx: Vec<IpAddr> = dlx.iter().map(|address| address.parse().unwrap()).collect();
        let seen = selector(&service(&spec, None), &dlx);
        assert_eq!(seen.obstacle().is_none(), diverts, "{seen:?}");
    }

    #[test]
    fn a_parked_selector_gives_the_original() {
        let parked = json!({"selector": {PARKED_LABEL: "web.workloads"}});
        let seen = selector(&service(&parked, Some(r#"{"app":"web"}"#)), &[]);
        assert_eq!(seen, Selector::Parked(labels(&[("app", "web")])));
    }

    #[test]
    fn a_selector_that_somebody_put_back_counts_even_with_the_annotation_left() {
        let back = json!({"selector": {"app": "new"}, "ports": [{"port": 80}]});
        let seen = selector(&service(&back, Some(r#"{"app":"old"}"#)), &[]);
        assert_eq!(seen, Selector::Pods(labels(&[("app", "new")])));
    }

    #[test]
    fn labels_put_beside_the_parked_one_are_what_the_owner_wants_now() {
        let applied = json!({"selector": {PARKED_LABEL: "web.workloads", "app": "new"}});
        let seen = selector(&service(&applied, Some(r#"{"app":"old"}"#)), &[]);
        assert_eq!(seen, Selector::Parked(labels(&[("app", "new")])));
    }

    #[test]
    fn services_lead_to_pods_as_they_do_when_nothing_sleeps() {
        let named = |namespace: &str, name: &str, mut service: Service| {
            service.metadata.namespace = Some(namespace.to_owned());
            service.metadata.name = Some(name.to_owned());
            service
        };
        let parked = json!({"selector": {PARKED_LABEL: "web.workloads"}});
        let services = [
            named("a", "web", service(&json!({"selector": {"app": "web"}}), None)),
            named(
                "a",
                "parked",
                service(&parked, Some(r#"{"app":"web","tier":"front"}"#)),
            ),
            named("a", "lost", service(&parked, None)),
            named("a", "none", service(&json!({}), None)),
            // Of one name in two namespaces each leads where it says.
            named("b", "web", service(&json!({"selector": {"app": "other"}}), None)),
        ];
        let index = ServiceIndex::of(&services);
        let front = labels(&[("app", "web"), ("tier", "front")]);
        assert_eq!(index.leading_to("a", &front), ["parked", "web"]);
        assert_eq!(index.leading_to("a", &labels(&[("app", "web")])), ["web"]);
        assert!(index.leading_to("b", &front).is_empty());
        assert_eq!(index.leading_to("b", &labels(&[("app", "other")])), ["web"]);
    }

    #[rstest]
    #[case(None)]
    #[case(Some("not JSON"))]
    #[case(Some("{}"))]
    #[case(Some("[1]"))]
    fn field_18_a_lost_original_is_lost_and_never_a_guess(#[case] annotation: Option<&str>) {
        let parked = json!({"selector": {PARKED_LABEL: "web.workloads"}});
        assert_eq!(selector(&service(&parked, annotation), &[]), Selector::Lost);
    }
}
