//! What EndpointSlices say.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The label that names the Service of an EndpointSlice.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label that names who writes an EndpointSlice.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Whether an endpoint is ready, and whether it is terminating. Unknown readiness counts as ready, by the API's own definition.
pub fn conditions(endpoint: &Endpoint) -> (bool, bool) {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    (ready, terminating)
}

/// Addresses in slices whose endpoint conditions (ready, terminating) are as asked, sorted, each once.
pub fn addresses<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    wanted: impl Fn(bool, bool) -> bool,
) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = slices
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| {
            let (ready, terminating) = conditions(endpoint);
            wanted(ready, terminating)
        })
        .flat_map(|endpoint| {
            endpoint
                .addresses
                .iter()
                .filter_map(|address| address.parse().ok())
        })
        .collect();
    found.sort();
    found.dedup();
    found
}
