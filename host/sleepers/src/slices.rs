//! Dormouse's own EndpointSlices: which are its, and which are out of date.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dormouse_kubernetes::slices::{MANAGED_BY_LABEL, addresses};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::api::MANAGED_BY;

/// Ends the name of every slice of Dormouse's.
const SUFFIX: &str = "-dormouse";

/// Name of Dormouse's slice of a Service.
pub(crate) fn own_slice_name(service: &str) -> String {
    format!("{service}{SUFFIX}")
}

/// The Service of a slice that has the name of one of Dormouse's.
pub(crate) fn service_of_own_slice(slice: &str) -> Option<String> {
    slice.strip_suffix(SUFFIX).map(str::to_owned)
}

/// Whether Dormouse manages the slice with these labels.
pub(crate) fn is_own(labels: &BTreeMap<String, String>) -> bool {
    labels
        .get(MANAGED_BY_LABEL)
        .is_some_and(|manager| manager == MANAGED_BY)
}

/// Whether a slice lists a DLX that is gone, or none, although a DLX is ready. A ready DLX that is missing beside another may wait;
/// one that is gone costs requests.
pub(crate) fn is_stale(slice: &EndpointSlice, ready: &[IpAddr]) -> bool {
    let addresses = addresses(std::iter::once(slice), |_, _| true);
    let is_current = !addresses.is_empty() && addresses.iter().all(|address| ready.contains(address));
    !ready.is_empty() && !is_current
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(&["127.0.0.1"], &["127.0.0.1"], false)]
    #[case(&["127.0.0.1"], &["127.0.0.1", "127.0.0.2"], false)]
    #[case(&["127.0.0.1", "127.0.0.2"], &["127.0.0.1"], true)]
    #[case(&["127.0.0.2"], &["127.0.0.1"], true)]
    #[case(&[], &["127.0.0.1"], true)]
    #[case(&["127.0.0.2"], &[], false)]
    #[case(&[], &[], false)]
    fn a_slice_is_stale_only_if_another_dlx_is_ready(
        #[case] listed: &[&str],
        #[case] ready: &[&str],
        #[case] stale: bool,
    ) {
        let endpoints: Vec<_> = listed
            .iter()
            .map(|address| json!({ "addresses": [address] }))
            .collect();
        let slice = json!({ "metadata": {}, "addressType": "IPv4", "endpoints": endpoints });
        let ready: Vec<IpAddr> = ready.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(is_stale(&serde_json::from_value(slice).unwrap(), &ready), stale);
    }
}
